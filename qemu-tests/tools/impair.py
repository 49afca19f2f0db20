#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A bad wire between two interfaces: frames are lost, doubled, held back behind later ones, and damaged.

    impair.py LEFT RIGHT SEED LOSS DOUBLE SWAP FLIP

The last four are how many of a thousand aggregates suffer it; all other frames pass as they are. Says "ready" when it forwards, and
what it did, as one line of JSON, when it is told to stop (SIGTERM). Only the standard library is used, and nothing of what is tested.
"""

import json
import random
import select
import signal
import socket
import sys

AGGREGATE = b"\x88\xb5"
CONTROL = 0x80
OUTGOING = 4


def main():
    left, right, seed, *odds = sys.argv[1:]
    loss, double, swap, flip = (int(number) / 1000 for number in odds)
    chance = random.Random(int(seed))
    counts = dict.fromkeys(["passed", "aggregates", "lost", "doubled", "swapped", "flipped"], 0)
    sockets = []
    for name in (left, right):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        one.bind((name, 3))
        sockets.append(one)
    held = [None, None]

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)

    def send(to, frame):
        try:
            sockets[to].send(frame)
        except OSError:
            counts["lost"] += 1

    try:
        while True:
            readable, _, _ = select.select(sockets, [], [], 0.01)
            if not readable:
                # Nothing follows: what was held back goes.
                for to in (0, 1):
                    if held[to] is not None:
                        send(to, held[to])
                        held[to] = None
            for one in readable:
                frame, address = one.recvfrom(70000)
                if address[2] == OUTGOING:
                    continue
                to = 1 - sockets.index(one)
                if frame[12:14] != AGGREGATE or frame[15] & CONTROL:
                    counts["passed"] += 1
                    send(to, frame)
                    continue
                counts["aggregates"] += 1
                if chance.random() < loss:
                    counts["lost"] += 1
                    continue
                if chance.random() < flip:
                    counts["flipped"] += 1
                    bit = chance.randrange(14 * 8, len(frame) * 8)
                    damaged = bytearray(frame)
                    damaged[bit // 8] ^= 1 << (bit % 8)
                    frame = bytes(damaged)
                if chance.random() < double:
                    counts["doubled"] += 1
                    send(to, frame)
                if held[to] is None and chance.random() < swap:
                    counts["swapped"] += 1
                    held[to] = frame
                    continue
                send(to, frame)
                if held[to] is not None:
                    send(to, held[to])
                    held[to] = None
    except KeyboardInterrupt:
        print(json.dumps(counts), flush=True)


main()
