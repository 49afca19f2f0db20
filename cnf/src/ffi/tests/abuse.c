/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Calls every function with what it must refuse. Ends with 0 if all was refused as the header says. */
#include <stdio.h>
#include <string.h>

#include "shunt_cnf.h"

static int wrong;

#define EXPECT(call, wanted)                                                      \
    do {                                                                          \
        long long got = (long long)(call);                                        \
        if (got != (long long)(wanted)) {                                         \
            printf("line %d: %s is %lld, not %lld\n", __LINE__, #call, got, (long long)(wanted)); \
            wrong++;                                                              \
        }                                                                         \
    } while (0)

int main(int argc, char **argv)
{
    struct shunt_cnf_config config;
    struct shunt_cnf_counters counters = { .size = sizeof counters, .version = SHUNT_CNF_VERSION };
    struct shunt_cnf_event event = { .size = sizeof event, .version = SHUNT_CNF_VERSION };
    struct shunt_cnf_packet packet;
    struct shunt_cnf_link *link = (struct shunt_cnf_link *)&config;
    struct shunt_cnf_queue *queue, *twice[2];
    unsigned char frame[60] = { 0 };
    char text[64];
    int none[1] = { -1 };

    if (argc != 2)
        return 2;
    EXPECT(shunt_cnf_version() >= SHUNT_CNF_VERSION, 1);
    EXPECT(shunt_cnf_config_init(NULL, sizeof config), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_config_init(&config, 4), SHUNT_CNF_E_SIZE);
    EXPECT(shunt_cnf_config_init(&config, 1 << 20), SHUNT_CNF_E_SIZE);
    EXPECT(shunt_cnf_config_init(&config, sizeof config), 0);
    EXPECT(config.size, sizeof config);

    EXPECT(shunt_cnf_open(NULL, &link), SHUNT_CNF_E_NULL);
    EXPECT(link == NULL, 1);
    EXPECT(shunt_cnf_open(&config, NULL), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_open(&config, &link), SHUNT_CNF_E_NULL); /* no socket */
    config.socket = "/nobody/is/here";
    config.timeout_ms = 10;
    EXPECT(shunt_cnf_open(&config, &link), SHUNT_CNF_E_ATTACH);
    EXPECT(link == NULL, 1);
    EXPECT(shunt_cnf_last_error(text, sizeof text) > 0, 1);
    EXPECT(strstr(text, "/nobody/is/here") != NULL, 1);
    config.flags = 1u << 31;
    EXPECT(shunt_cnf_open(&config, &link), SHUNT_CNF_E_VALUE);
    config.flags = SHUNT_CNF_DONT_WAIT;
    config.queue_pairs = 500;
    EXPECT(shunt_cnf_open(&config, &link), SHUNT_CNF_E_ATTACH);
    config.queue_pairs = 2;
    config.size = 3;
    EXPECT(shunt_cnf_open(&config, &link), SHUNT_CNF_E_SIZE);
    config.size = sizeof config;

    EXPECT(shunt_cnf_queue_of(NULL, 0) == NULL, 1);
    EXPECT(shunt_cnf_tend(NULL, &event), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_receive(NULL, &packet, 1, sizeof packet), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_send(NULL, &packet, 1, sizeof packet), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_flush(NULL), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_wait(NULL, 1), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_wait_any(NULL, 1, NULL, 0, 1), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_wait_any(NULL, 0, NULL, 1, 1), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_wait_any(NULL, 0, NULL, 0, 1), 0);
    EXPECT(shunt_cnf_counters_get(NULL, &counters), SHUNT_CNF_E_NULL);
    shunt_cnf_close(NULL, 0);

    /* A link that is attached when the backend is there. */
    config.socket = argv[1];
    config.queue_pairs = 1;
    EXPECT(shunt_cnf_open(&config, &link), 0);
    queue = shunt_cnf_queue_of(link, 0);
    EXPECT(queue != NULL, 1);
    EXPECT(shunt_cnf_queue_of(link, 1) == NULL, 1);
    event.size = 5;
    EXPECT(shunt_cnf_tend(link, &event), SHUNT_CNF_E_SIZE);
    EXPECT(shunt_cnf_tend(link, NULL) >= 0, 1);
    memset(&packet, 0, sizeof packet);
    packet.data = frame;
    packet.length = sizeof frame;
    EXPECT(shunt_cnf_flush(queue), 0); /* sees that the backend is there */
    EXPECT(shunt_cnf_receive(queue, &packet, 1, sizeof packet - 1), SHUNT_CNF_E_SIZE);
    EXPECT(shunt_cnf_receive(queue, NULL, 1, sizeof packet), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_receive(queue, NULL, 0, sizeof packet), 0);
    EXPECT(shunt_cnf_send(queue, &packet, 1, 0), SHUNT_CNF_E_SIZE);
    EXPECT(shunt_cnf_send(queue, NULL, 1, sizeof packet), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_send(queue, NULL, 0, sizeof packet), 0);
    EXPECT(shunt_cnf_send(queue, &packet, 1, sizeof packet), 1);
    packet.flags = 1u << 31;
    EXPECT(shunt_cnf_send(queue, &packet, 1, sizeof packet), SHUNT_CNF_E_VALUE);
    packet.flags = 0;
    packet.data = NULL;
    EXPECT(shunt_cnf_send(queue, &packet, 1, sizeof packet), SHUNT_CNF_E_NULL);
    EXPECT(shunt_cnf_flush(queue), 0);
    twice[0] = twice[1] = queue;
    EXPECT(shunt_cnf_wait_any(twice, 2, NULL, 0, 1), SHUNT_CNF_E_VALUE);
    EXPECT(shunt_cnf_wait_any(twice, 1, none, 1, 1), SHUNT_CNF_E_VALUE);
    EXPECT(shunt_cnf_counters_get(queue, NULL), SHUNT_CNF_E_NULL);
    counters.size = 16; /* knows no more than the first number */
    EXPECT(shunt_cnf_counters_get(queue, &counters), 0);
    EXPECT(counters.packets_sent, 1);
    EXPECT(counters.frames_sent, 0); /* left alone */
    counters.size = sizeof counters;
    EXPECT(shunt_cnf_counters_get(queue, &counters), 0);
    EXPECT(counters.frames_sent, 1);
    shunt_cnf_close(link, 1000);
    return wrong != 0;
}
