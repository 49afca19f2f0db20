/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The C interface of Shunt's SDK for network functions (docs/user-guide/cnf.md). Made by `cargo xtask header`. */

#ifndef SHUNT_CNF_H
#define SHUNT_CNF_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of the structures and functions. It moves on when something is added; a library knows all before its own.
 */
#define SHUNT_CNF_VERSION 1

/**
 * The program listens on the socket, and the backend connects. Else the backend listens.
 */
#define SHUNT_CNF_SERVER 1

/**
 * Split rings, not packed ones.
 */
#define SHUNT_CNF_SPLIT 2

/**
 * A received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF).
 */
#define SHUNT_CNF_MRG_RXBUF 4

/**
 * Packets are put together in frames if the other end agrees.
 */
#define SHUNT_CNF_AGGREGATE 8

/**
 * Packets are taken with unfinished checksums, and uncut; only with SHUNT_CNF_AGGREGATE.
 */
#define SHUNT_CNF_UNFINISHED 16

/**
 * shunt_cnf_open does not wait for the backend; shunt_cnf_tend attaches it when it is there.
 */
#define SHUNT_CNF_DONT_WAIT 32

/**
 * A pointer is NULL that must not be.
 */
#define SHUNT_CNF_E_NULL -1

/**
 * A structure has a size that this library does not know.
 */
#define SHUNT_CNF_E_SIZE -2

/**
 * A value is out of range.
 */
#define SHUNT_CNF_E_VALUE -3

/**
 * The backend could not be attached; `shunt_cnf_last_error` says why.
 */
#define SHUNT_CNF_E_ATTACH -4

/**
 * A bug of the library; `shunt_cnf_last_error` says more.
 */
#define SHUNT_CNF_E_INTERNAL -5

/**
 * Nothing happened.
 */
#define SHUNT_CNF_NOTHING 0

/**
 * A backend is attached.
 */
#define SHUNT_CNF_UP 1

/**
 * The backend was lost.
 */
#define SHUNT_CNF_DOWN 2

/**
 * No backend could be attached; the next attempt follows.
 */
#define SHUNT_CNF_NOT_YET 3

/**
 * Packets are put together in frames from now on.
 */
#define SHUNT_CNF_AGGREGATING 4

/**
 * Packets are frames of their own from now on, or for the time being.
 */
#define SHUNT_CNF_PLAIN 5

/**
 * Bytes of an event's text, with the zero at its end.
 */
#define SHUNT_CNF_TEXT 256

/**
 * `flow` says what the switch calls the packet's flow.
 */
#define SHUNT_CNF_FLOW 1

/**
 * The checksum is unfinished: it is to be summed from `csum_start` to the end of the packet, and stored `csum_offset` bytes
 * behind that.
 */
#define SHUNT_CNF_CSUM_UNFINISHED 2

/**
 * Somebody verified the checksum.
 */
#define SHUNT_CNF_CSUM_VERIFIED 4

/**
 * The packet is to be cut: the fields `gso_…` say how. Only with SHUNT_CNF_CSUM_UNFINISHED.
 */
#define SHUNT_CNF_GSO 8

/**
 * `gso_kind`: TCP over IPv4.
 */
#define SHUNT_CNF_GSO_TCPV4 1

/**
 * `gso_kind`: TCP over IPv6.
 */
#define SHUNT_CNF_GSO_TCPV6 2

/**
 * `gso_kind`: UDP over either.
 */
#define SHUNT_CNF_GSO_UDP 3

/**
 * `gso_flags`: CWR is for the first segment only.
 */
#define SHUNT_CNF_GSO_ECN 128

/**
 * A link to a backend. Opaque.
 */
struct shunt_cnf_link;

/**
 * One queue pair of a link. Opaque.
 */
struct shunt_cnf_queue;

/**
 * What is asked of a link. Filled with what is usual by shunt_cnf_config_init; 0 means that, too, wherever a number is
 * not said to mean otherwise.
 */
struct shunt_cnf_config {
    /**
     * Bytes of the structure, as the program knows it.
     */
    uint32_t size;
    /**
     * SHUNT_CNF_VERSION, as the program knows it.
     */
    uint32_t version;
    /**
     * Path of the socket. Only read during the call.
     */
    const char *socket;
    /**
     * SHUNT_CNF_SERVER and so on.
     */
    uint32_t flags;
    /**
     * Queue pairs, 1 to 128.
     */
    uint16_t queue_pairs;
    /**
     * Entries of each ring, a power of two for split rings.
     */
    uint16_t queue_size;
    /**
     * Bytes of a transmit buffer: a frame and 12 bytes.
     */
    uint32_t tx_buffer;
    /**
     * Bytes of a receive buffer, likewise.
     */
    uint32_t rx_buffer;
    /**
     * Milliseconds that the backend may take to appear, and for each step of the handshake.
     */
    uint32_t timeout_ms;
    /**
     * Milliseconds until the first attempt to reach a backend that was lost, doubled with each one.
     */
    uint32_t backoff_first_ms;
    /**
     * The longest of these times.
     */
    uint32_t backoff_most_ms;
    /**
     * Bytes of packets after which a frame of several packets is sent.
     */
    uint32_t tx_aggr_max_bytes;
    /**
     * Packets after which it is sent.
     */
    uint32_t tx_aggr_max_frames;
    /**
     * Microseconds that the first packet of a frame may wait for others; 0: until the next flush only.
     */
    uint32_t tx_aggr_time_usecs;
    /**
     * Bytes of the longest frame of several packets that is taken.
     */
    uint32_t rx_aggr_max_bytes;
    /**
     * Id of this end of the link, not that of the other; 0: a random one from 0x8000 on.
     */
    uint16_t node;
    /**
     * EtherType of such frames, in the machine's byte order.
     */
    uint16_t ether_type;
    /**
     * Zero.
     */
    uint64_t reserved[8];
};

/**
 * Something that happened to a link. The program fills in size and version.
 */
struct shunt_cnf_event {
    /**
     * sizeof(struct shunt_cnf_event).
     */
    uint32_t size;
    /**
     * SHUNT_CNF_VERSION, as the program knows it.
     */
    uint32_t version;
    /**
     * SHUNT_CNF_UP and so on.
     */
    uint32_t kind;
    /**
     * Zero.
     */
    uint32_t reserved[5];
    /**
     * What happened, in English.
     */
    char text[SHUNT_CNF_TEXT];
};

/**
 * A packet: an Ethernet frame from its destination address on, without its check sequence, and what is known of it. What
 * arrives with a packet and is not taken off leaves with it. A program that makes packets zeroes all but data and length.
 */
struct shunt_cnf_packet {
    /**
     * The first byte. Of a received packet: in the queue's memory until its next shunt_cnf_receive, and may be written.
     */
    uint8_t *data;
    /**
     * Bytes.
     */
    uint32_t length;
    /**
     * SHUNT_CNF_FLOW and so on.
     */
    uint32_t flags;
    /**
     * What the switch calls the flow, to be given back as it came.
     */
    uint32_t flow;
    /**
     * Where the sum begins.
     */
    uint16_t csum_start;
    /**
     * Where the checksum is, counted from there.
     */
    uint16_t csum_offset;
    /**
     * SHUNT_CNF_GSO_TCPV4 and so on.
     */
    uint8_t gso_kind;
    /**
     * SHUNT_CNF_GSO_ECN or 0.
     */
    uint8_t gso_flags;
    /**
     * Bytes of payload of each segment.
     */
    uint16_t gso_size;
    /**
     * Bytes of all headers, as the sender believes.
     */
    uint16_t gso_header_length;
    /**
     * Zero.
     */
    uint16_t reserved0;
    /**
     * Zero.
     */
    uint64_t reserved[2];
};

/**
 * What a queue has done since the link was opened. The program fills in size and version.
 */
struct shunt_cnf_counters {
    /**
     * sizeof(struct shunt_cnf_counters).
     */
    uint32_t size;
    /**
     * SHUNT_CNF_VERSION, as the program knows it.
     */
    uint32_t version;
    /**
     * Packets taken to be sent.
     */
    uint64_t packets_sent;
    /**
     * Packets received.
     */
    uint64_t packets_received;
    /**
     * Frames that the backend took, or has waiting.
     */
    uint64_t frames_sent;
    /**
     * Frames received.
     */
    uint64_t frames_received;
    /**
     * Frames of several packets that were sent.
     */
    uint64_t aggregates_sent;
    /**
     * Packets in them.
     */
    uint64_t packets_packed;
    /**
     * Frames of several packets that were received.
     */
    uint64_t aggregates_received;
    /**
     * Packets in them.
     */
    uint64_t packets_unpacked;
    /**
     * Frames of several packets that are missing between those received.
     */
    uint64_t aggregates_lost;
    /**
     * Times the backend asked to be woken.
     */
    uint64_t kicks;
    /**
     * Packets dropped because no frame is so long.
     */
    uint64_t too_long;
    /**
     * Packets dropped because what was left undone in them cannot be done.
     */
    uint64_t unfinishable;
    /**
     * Frames that a backend had not given back when it was lost.
     */
    uint64_t abandoned;
    /**
     * Frames of several packets that were dropped because they were not agreed on.
     */
    uint64_t unexpected;
    /**
     * Things that were wrong in frames of several packets.
     */
    uint64_t damages;
    /**
     * Packets lost by that.
     */
    uint64_t packets_damaged;
    /**
     * Zero.
     */
    uint64_t reserved[8];
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that the program runs with, which may be later than that of the header.
 */
uint32_t shunt_cnf_version(void);

/**
 * Fills `config` with what is usual. `size` is sizeof(struct shunt_cnf_config). Returns 0 or an error.
 */
int shunt_cnf_config_init(struct shunt_cnf_config *config, size_t size);

/**
 * What an error code means, in English. Never NULL; the string is the library's.
 */
const char *shunt_cnf_strerror(int code);

/**
 * Copies what is known of the last error in this thread to `text`, cut to `size` bytes with the zero at its end. Returns
 * the number of bytes that the whole of it takes without the zero.
 */
size_t shunt_cnf_last_error(char *text,
                            size_t size);

/**
 * Opens a link, and waits for its backend unless SHUNT_CNF_DONT_WAIT says otherwise. Returns 0 or an error; the link is
 * put into `*link`, or NULL.
 */
int shunt_cnf_open(const struct shunt_cnf_config *config, struct shunt_cnf_link **link);

/**
 * Queue pair `index` of a link, or NULL if there is none. It is valid until the link is closed, and is used by one
 * thread at a time.
 */
struct shunt_cnf_queue *shunt_cnf_queue_of(const struct shunt_cnf_link *link, uint16_t index);

/**
 * Does what is due at a link: notices that its backend was lost, attaches it again, speaks with it about aggregation. To be
 * called again and again, at least ten times a second, by one thread at a time; queues may be in use in others. Returns
 * the kind of what happened, SHUNT_CNF_NOTHING if nothing did, or an error. `event` may be NULL.
 */
int shunt_cnf_tend(struct shunt_cnf_link *link,
                   struct shunt_cnf_event *event);

/**
 * Sends what waits, takes leave of the other end, waits at most `timeout_ms` milliseconds until the backend has taken
 * everything, and frees the link and its queues. NULL is no link, and nothing is done.
 */
void shunt_cnf_close(struct shunt_cnf_link *link, uint32_t timeout_ms);

/**
 * Receives up to `count` packets; returns how many, or an error. `packet_size` is sizeof(struct shunt_cnf_packet). The
 * packets are in the queue's memory until the next call.
 */
int shunt_cnf_receive(struct shunt_cnf_queue *queue,
                      struct shunt_cnf_packet *packets,
                      size_t count,
                      size_t packet_size);

/**
 * Takes up to `count` packets to be sent; returns how many, or an error if the first was none. Their bytes are copied.
 * Fewer than `count`: there is no room for more now, or the next one makes no sense. A packet that is too long is taken,
 * dropped and counted.
 */
int shunt_cnf_send(struct shunt_cnf_queue *queue,
                   const struct shunt_cnf_packet *packets,
                   size_t count,
                   size_t packet_size);

/**
 * Shows the backend what was sent since the last time. To be called at the end of every burst. Returns 0 or an error.
 */
int shunt_cnf_flush(struct shunt_cnf_queue *queue);

/**
 * Sleeps until something has arrived, `timeout_usecs` microseconds have passed, or the backend comes or goes. Returns 1 if
 * something has arrived, 0 if not, or an error.
 */
int shunt_cnf_wait(struct shunt_cnf_queue *queue,
                   uint32_t timeout_usecs);

/**
 * The same for several queues, which may be of several links, and for descriptors that can become readable.
 */
int shunt_cnf_wait_any(struct shunt_cnf_queue *const *queues,
                       size_t queue_count,
                       const int *fds,
                       size_t fd_count,
                       uint32_t timeout_usecs);

/**
 * Writes what a queue has done to `counters`. Returns 0 or an error.
 */
int shunt_cnf_counters_get(struct shunt_cnf_queue *queue, struct shunt_cnf_counters *counters);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SHUNT_CNF_H */
