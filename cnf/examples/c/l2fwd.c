/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Forwards between two links as they are.  l2fwd [-a] [-s] SOCKET SOCKET
 *
 *   gcc -O2 -I cnf/include cnf/examples/c/l2fwd.c -L target/release -lshunt_cnf -o l2fwd
 */
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shunt_cnf.h"

#define BURST 64
#define SLEEP_USECS 50000

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

/* Says what the library knows of the last error. */
static int failed(const char *what, int code)
{
    char text[256];

    shunt_cnf_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, shunt_cnf_strerror(code), text);
    return 1;
}

/* Moves what is there from one queue to the other; says how much that was, or what went wrong. */
static int forward(struct shunt_cnf_queue *from, struct shunt_cnf_queue *to)
{
    struct shunt_cnf_packet packets[BURST];
    int received, sent = 0, code;

    received = shunt_cnf_receive(from, packets, BURST, sizeof packets[0]);
    if (received <= 0)
        return received;
    /* Packets go on with all that came with them. What finds no room is lost. */
    while (sent < received) {
        code = shunt_cnf_send(to, packets + sent, received - sent, sizeof packets[0]);
        if (code < 0)
            return code;
        if (code == 0)
            break;
        sent += code;
    }
    code = shunt_cnf_flush(to);
    return code < 0 ? code : received;
}

int main(int argc, char **argv)
{
    struct shunt_cnf_link *links[2] = { NULL, NULL };
    struct shunt_cnf_queue *queues[2];
    struct shunt_cnf_config config;
    struct sigaction action;
    int option, i, code = 0, moved;
    uint32_t flags = SHUNT_CNF_DONT_WAIT;

    while ((option = getopt(argc, argv, "as")) != -1) {
        if (option == 'a')
            flags |= SHUNT_CNF_AGGREGATE;
        else if (option == 's')
            flags |= SHUNT_CNF_SPLIT;
        else
            return 2;
    }
    if (argc - optind != 2) {
        fprintf(stderr, "usage: %s [-a] [-s] SOCKET SOCKET\n", argv[0]);
        return 2;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    for (i = 0; i < 2; i++) {
        shunt_cnf_config_init(&config, sizeof config);
        config.socket = argv[optind + i];
        config.flags = flags;
        code = shunt_cnf_open(&config, &links[i]);
        if (code < 0)
            return failed(argv[optind + i], code);
        queues[i] = shunt_cnf_queue_of(links[i], 0);
    }
    while (!stopped && code >= 0) {
        for (i = 0; i < 2 && code >= 0; i++) {
            struct shunt_cnf_event event = { .size = sizeof event, .version = SHUNT_CNF_VERSION };

            code = shunt_cnf_tend(links[i], &event);
            if (code > 0 && code != SHUNT_CNF_NOT_YET)
                fprintf(stderr, "%s: %s\n", argv[optind + i], event.text);
        }
        for (i = 0, moved = 0; i < 2 && code >= 0; i++) {
            code = forward(queues[i], queues[1 - i]);
            moved += code;
        }
        if (code >= 0 && moved == 0)
            code = shunt_cnf_wait_any(queues, 2, NULL, 0, SLEEP_USECS);
    }
    if (code < 0)
        failed("forwarding", code);
    for (i = 0; i < 2; i++) {
        struct shunt_cnf_counters counters = { .size = sizeof counters, .version = SHUNT_CNF_VERSION };

        shunt_cnf_counters_get(queues[i], &counters);
        printf("%s: %" PRIu64 " received, %" PRIu64 " sent, %" PRIu64 " in aggregates\n", argv[optind + i],
               counters.packets_received, counters.packets_sent, counters.packets_packed);
    }
    for (i = 0; i < 2; i++)
        shunt_cnf_close(links[i], 100);
    return code < 0;
}
