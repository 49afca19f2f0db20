#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Decodes aggregate frames (docs/aggregate-frame.md). Written from that page alone, to be read beside it, not to be fast.

    aggdump.py FILE.pcap        one line of JSON for each frame of a capture, plain ones too, and a summary
    aggdump.py --summary FILE   the summary only
    aggdump.py --vectors FILE   decodes test vectors, and fails if one is not what it should be
    aggdump.py --lines          for each line of hexadecimal digits on standard input a line of JSON

Only the standard library is used, and nothing is shared with the implementation in Rust.
"""

import argparse
import collections
import json
import struct
import sys

ETHERTYPE = 0x88B5
UDP_PORT = 34997
VLAN_TYPES = (0x8100, 0x88A8)
PADDING = 64  # so many bytes behind the last packet or group are too many for padding
NO_LIMIT = 1 << 32


class Bad(Exception):
    """Something is wrong; the argument is the cause."""


class Limits:
    """What a reader takes."""

    def __init__(self, verify=False, known=(), frame=65535, groups=255, packets=NO_LIMIT, tlv_bytes=65535):
        self.verify = verify  # check words are compared, and required
        self.known = frozenset(known)  # types of TLVs
        self.frame = frame
        self.groups = groups
        self.packets = packets
        self.tlv_bytes = tlv_bytes


def crc32c_step(crc):
    """RFC 3720, one byte, bit by bit."""
    for _ in range(8):
        crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc


CRC_STEPS = [crc32c_step(byte) for byte in range(256)]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_STEPS[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def u16(data, at):
    return data[at] << 8 | data[at + 1]


def u32(data, at):
    return u16(data, at) << 16 | u16(data, at + 2)


def padded(length):
    return (length + 3) // 4 * 4


def decode(data, limits):
    """A frame, as a dictionary. `data` may be longer than the frame."""
    try:
        header_bytes, head = decode_header(data, limits)
        frame = data[: head["length"]]
        if head["control"]:
            return {**head, "said": decode_control(frame, header_bytes, head)}
        if limits.verify:
            check_headers(frame, header_bytes, head["groups"])
    except Bad as bad:
        return {"error": str(bad)}
    head["items"] = decode_groups(frame, header_bytes, head["groups"], limits)
    return head


def decode_header(data, limits):
    if len(data) < 8:
        raise Bad("frame_length")
    if data[0] >> 4 != 1:
        raise Bad("version")
    flags = data[1]
    if flags & 0x50:
        raise Bad("frame_flag")
    header_bytes = (data[0] & 15) * 4
    length = u16(data, 2)
    checked = bool(flags & 0x20)
    if header_bytes < (12 if checked else 8) or length < header_bytes:
        raise Bad("frame_length")
    if length > len(data) or length > limits.frame:
        raise Bad("frame_length")
    if limits.verify and not checked:
        raise Bad("header_check")
    return header_bytes, {
        "control": bool(flags & 0x80),
        "checked": checked,
        "length": length,
        "groups": data[4],
        "stage": data[5],
        "sequence": u16(data, 6),
    }


def check_headers(frame, header_bytes, groups):
    covered = frame[:8] + bytes(4) + frame[12:header_bytes]
    at = header_bytes
    for _ in range(groups):
        if at + 12 > len(frame):
            raise Bad("header_check")
        covered += frame[at : at + 12]
        at += u16(frame, at)
    if crc32c(covered) != u32(frame, 8):
        raise Bad("header_check")


def decode_groups(frame, at, groups, limits):
    items = []
    packets_left = limits.packets
    for number in range(groups):
        if number == limits.groups:
            items.append(damaged("too_many_groups", 0))
            return items
        length = u16(frame, at) if at + 12 <= len(frame) else 0
        if length < 12 or length % 4 != 0 or at + length > len(frame):
            items.append(damaged("group_length", 0))
            return items
        group = frame[at : at + length]
        at += length
        packets = u16(group, 2)
        if group[8] & 0x20:
            items.append(damaged("group_flag", packets))
            continue
        header_bytes, tlv_bytes = group[9] * 4, u16(group, 10) * 4
        template_bytes = 16 if group[8] & 0x40 else 0
        front = header_bytes + tlv_bytes + template_bytes
        if header_bytes < 12 or front > length:
            items.append(damaged("group_header", packets))
            continue
        if packets > packets_left:
            items.append(damaged("too_many_packets", packets))
            continue
        packets_left -= packets
        try:
            tlvs = check_tlvs(group, header_bytes, tlv_bytes, limits)
        except Bad as bad:
            items.append(damaged(str(bad), packets))
            continue
        template = group[front - 16 : front - 2] if template_bytes else b""
        items.append(
            {
                "group": {
                    "length": length,
                    "packets": packets,
                    "origin": u16(group, 4),
                    "destination": u16(group, 6),
                    "class": group[8] & 7,
                    "uniform": bool(group[8] & 0x80),
                    "template": bool(template_bytes),
                }
            }
        )
        items += tlvs
        items += decode_packets(group, front, packets, template)
    if len(frame) - at >= PADDING:
        items.append(damaged("surplus", 0))
    return items


def check_tlvs(group, at, tlv_bytes, limits):
    """The TLVs that are handed on. All are looked at before any is believed."""
    if tlv_bytes > 0 and tlv_bytes > limits.tlv_bytes + 8:
        raise Bad("tlv_too_long")
    area = group[at : at + tlv_bytes]
    if limits.verify and len(area) >= 8 and area[0] == 0x81 and u16(area, 2) == 4:
        if crc32c(group[12 : at + 4] + bytes(4) + group[at + 8 :]) != u32(area, 4):
            raise Bad("group_crc")
    found = []
    position = 0
    while position < len(area):
        kind, data, after = split_tlv(area, position)
        if kind & 0x3F == 1:  # the number of the group CRC
            if kind != 0x81 or position != 0 or len(data) != 4:
                raise Bad("tlv_malformed")
        elif kind in limits.known:
            found.append({"tlv": kind, "data": data.hex()})
        elif kind & 0x80:
            raise Bad("tlv_critical")
        else:
            found.append(damaged("tlv_removed", 0))
        position = after
    return found


def split_tlv(area, at):
    if at + 4 > len(area):
        raise Bad("tlv_malformed")
    length = u16(area, at + 2)
    if at + 4 + padded(length) > len(area):
        raise Bad("tlv_malformed")
    return area[at], area[at + 4 : at + 4 + length], at + 4 + padded(length)


def decode_packets(group, at, packets, template):
    items = []
    for number in range(packets):
        room = len(group) - at
        length = u16(group, at) if room >= 4 else 0
        ext_bytes = group[at + 3] * 4 if room >= 4 else 0
        total = 4 + ext_bytes + padded(length)
        if total > room:
            items.append(damaged("subframe_length", packets - number))
            return items
        subframe = group[at : at + total]
        at += total
        if length == 0 or len(template) + length < 14:
            if items and items[-1].get("damaged") == "runt":
                items[-1]["packets"] += 1
            else:
                items.append(damaged("runt", 1))
            continue
        packet = template + subframe[4 + ext_bytes : 4 + ext_bytes + length]
        try:
            meta = decode_extensions(subframe[2], subframe[4 : 4 + ext_bytes], len(packet))
        except Bad as bad:
            items.append(damaged(str(bad), 1))
            continue
        items.append({"packet": packet.hex(), **meta})
    if len(group) - at >= PADDING:
        items.append(damaged("surplus", 0))
    return items


def decode_extensions(flags, ext, length):
    meta = {"checksum": "verified" if flags & 0x08 else None, "gso": None, "flow": None}

    def take(count):
        nonlocal ext
        if len(ext) < count:
            raise Bad("bad_extension")
        taken, ext = ext[:count], ext[count:]
        return taken

    if flags & 0x80:
        part = take(4)
        start, offset = u16(part, 0), u16(part, 2)
        if start + offset + 2 > length:
            raise Bad("bad_offload")
        meta["checksum"] = [start, offset]
    if flags & 0x40:
        part = take(8)
        kind = {1: "tcp4", 2: "tcp6", 3: "udp"}.get(part[0])
        size = u16(part, 2)
        if kind is None or size == 0 or not flags & 0x80:
            raise Bad("bad_offload")
        meta["gso"] = {"kind": kind, "ecn": bool(part[1] & 0x80), "size": size, "header": u16(part, 4)}
    if flags & 0x20:
        meta["flow"] = u32(take(4), 0)
    if flags & 0x10:
        take(8)
    return meta


def decode_control(frame, header_bytes, head):
    if not head["checked"] or head["groups"] != 0:
        raise Bad("control_malformed")
    if crc32c(frame[:8] + bytes(4) + frame[12:]) != u32(frame, 8):
        raise Bad("header_check")
    body = frame[header_bytes:]
    message = {1: "hello", 2: "hello_ack", 3: "keepalive", 4: "bye"}.get(body[0]) if len(body) >= 12 else None
    if message is None:
        raise Bad("control_malformed")
    said = {
        "message": message,
        "node": u16(body, 2),
        "session": u32(body, 4),
        "peer_session": u32(body, 8),
        "offer": None,
        "name": "",
        "reason": None,
    }
    at = 12
    while at < len(body):
        kind, data, at = split_tlv(body, at)
        if kind == 0x81:
            said["offer"] = decode_offer(data)
        elif kind == 0x02:
            said["name"] = data[:64].hex()
        elif kind == 0x03:
            said["reason"] = data[0] if data else said["reason"]
        elif kind & 0x80:
            raise Bad("tlv_critical")
    greets = message in ("hello", "hello_ack")
    if said["node"] == 0 or said["session"] == 0 or (greets and said["offer"] is None):
        raise Bad("control_malformed")
    return said


def decode_offer(data):
    if len(data) < 16 or data[0] > data[1]:
        raise Bad("control_malformed")
    return {
        "versions": [data[0], data[1]],
        "encapsulations": data[2],
        "alignment": data[3],
        "bytes": u32(data, 4),
        "packets": u16(data, 8),
        "features": u16(data, 10),
        "keepalive_ms": u16(data, 12),
    }


def damaged(cause, packets):
    return {"damaged": cause, "packets": packets}


# Captures


def captured(data):
    """Seconds and bytes of each frame of a capture in the classic or the next-generation format."""
    magic = data[:4]
    if magic == b"\x0a\x0d\x0d\x0a":
        yield from captured_ng(data)
        return
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}.get(magic)
    if order is None:
        raise SystemExit("not a capture: it begins with " + magic.hex())
    fraction = 1e-9 if magic in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d") else 1e-6
    (link,) = struct.unpack_from(order + "I", data, 20)
    if link & 0xFFFF != 1:
        raise SystemExit(f"link type {link & 0xFFFF}: only Ethernet (1) is known")
    at = 24
    while at + 16 <= len(data):
        seconds, parts, stored, length = struct.unpack_from(order + "IIII", data, at)
        if stored < length:
            raise SystemExit("the capture holds only parts of its frames")
        yield seconds + parts * fraction, data[at + 16 : at + 16 + stored]
        at += 16 + stored


def captured_ng(data):
    order, at = "<", 0
    while at + 12 <= len(data):
        (kind,) = struct.unpack_from(order + "I", data, at)
        if kind == 0x0A0D0D0A:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
        (length,) = struct.unpack_from(order + "I", data, at + 4)
        if length < 12:
            raise SystemExit("a block without an end")
        if kind == 1 and struct.unpack_from(order + "H", data, at + 8)[0] != 1:
            raise SystemExit("only Ethernet is known")
        if kind == 6:
            high, low, stored, original = struct.unpack_from(order + "IIII", data, at + 12)
            if stored < original:
                raise SystemExit("the capture holds only parts of its frames")
            yield (high << 32 | low) * 1e-6, data[at + 28 : at + 28 + stored]
        at += length


def find_frame(packet, ethertype, port):
    """The encapsulation and the bytes of an aggregate or control frame in an Ethernet frame, or (None, None)."""
    if len(packet) < 14:
        return None, None
    kind, at = u16(packet, 12), 14
    if kind in VLAN_TYPES and len(packet) >= 18:
        kind, at = u16(packet, 16), 18
    if kind == ethertype:
        return "ethernet", packet[at:]
    if kind == 0x0800 and len(packet) >= at + 20 and packet[at] >> 4 == 4:
        header = (packet[at] & 15) * 4
        is_fragment = u16(packet, at + 6) & 0x3FFF != 0
        protocol, transport, end = packet[at + 9], at + header, at + u16(packet, at + 2)
        if is_fragment or header < 20:
            return None, None
    elif kind == 0x86DD and len(packet) >= at + 40:
        protocol, transport, end = packet[at + 6], at + 40, at + 40 + u16(packet, at + 4)
    else:
        return None, None
    if protocol == 17 and end <= len(packet) and transport + 8 <= end and u16(packet, transport + 2) == port:
        length = u16(packet, transport + 4)
        if 8 <= length <= end - transport:
            return "udp", packet[transport + 8 : transport + length]
    return None, None


def mac(data):
    return ":".join(f"{byte:02x}" for byte in data)


class Summary:
    def __init__(self):
        self.counts = collections.Counter()
        self.stages = collections.Counter()
        self.causes = collections.Counter()
        self.origins = collections.Counter()
        self.destinations = collections.Counter()
        self.messages = collections.Counter()
        self.per_frame = []
        self.numbers = {}

    def plain(self):
        self.counts["plain"] += 1

    def frame(self, encapsulation, addresses, decoded):
        if "error" in decoded:
            self.counts["refused"] += 1
            self.causes[decoded["error"]] += 1
            return
        if decoded["control"]:
            self.counts["control"] += 1
            self.messages[decoded["said"]["message"]] += 1
            return
        self.counts["aggregates"] += 1
        self.counts[encapsulation] += 1
        self.stages[str(decoded["stage"])] += 1
        packets, group = 0, None
        for item in decoded["items"]:
            if "group" in item:
                group = item["group"]
                self.counts["groups"] += 1
            elif "packet" in item:
                packets += 1
                self.counts["packet_bytes"] += len(item["packet"]) // 2
                self.origins[str(group["origin"])] += 1
                self.destinations[str(group["destination"])] += 1
            elif "damaged" in item:
                self.causes[item["damaged"]] += 1
        self.counts["packets"] += packets
        self.per_frame.append(packets)
        before = self.numbers.get(addresses)
        if before is not None:
            ahead = (decoded["sequence"] - before - 1) % 65536
            if ahead >= 32768:
                self.counts["late"] += 1
                return
            self.counts["missing"] += ahead
        self.numbers[addresses] = decoded["sequence"]

    def to_json(self):
        names = ("plain", "aggregates", "control", "refused", "groups", "packets", "packet_bytes", "ethernet", "udp", "missing", "late")
        mean = sum(self.per_frame) / len(self.per_frame) if self.per_frame else 0
        return {
            **{name: self.counts[name] for name in names},
            "packets_per_frame": {"mean": mean, "max": max(self.per_frame, default=0)},
            "stages": dict(self.stages),
            "origins": dict(self.origins),
            "destinations": dict(self.destinations),
            "messages": dict(self.messages),
            "causes": dict(self.causes),
        }


def dump(path, arguments, limits):
    with open(path, "rb") as file:
        data = file.read()
    summary = Summary()
    for number, (time, packet) in enumerate(captured(data), 1):
        encapsulation, frame = find_frame(packet, arguments.ethertype, arguments.port)
        line = {"number": number, "time": round(time, 9), "to": mac(packet[:6]), "from": mac(packet[6:12])}
        if encapsulation is None:
            summary.plain()
            line.update({"encapsulation": None, "length": len(packet)})
            if arguments.bytes:
                line["packet"] = packet.hex()
        else:
            decoded = decode(frame, limits)
            summary.frame(encapsulation, packet[:12], decoded)
            line.update({"encapsulation": encapsulation, **decoded})
            if not arguments.bytes:
                shorten(line)
        if not arguments.summary:
            print(json.dumps(line))
    print(json.dumps({"summary": summary.to_json()}))


def shorten(line):
    """Packets by their length and addresses only."""
    for item in line.get("items", ()):
        if "packet" in item:
            packet = bytes.fromhex(item["packet"])
            item["packet"] = {"length": len(packet), "to": mac(packet[:6]), "from": mac(packet[6:12])}


def check_vectors(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)["vectors"]
    wrong = 0
    for vector in vectors:
        data = bytes.fromhex("".join(part[0] for part in vector["bytes"]))
        found = decode(data, Limits(verify=vector["verify"], known=vector["known"]))
        if found != vector["expect"]:
            wrong += 1
            print(f"{vector['name']}: expected\n  {json.dumps(vector['expect'])}\nfound\n  {json.dumps(found)}")
    print(f"{len(vectors)} vectors, {wrong} wrong")
    return 1 if wrong or not vectors else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a capture")
    parser.add_argument("--lines", action="store_true", help="decode lines of standard input")
    parser.add_argument("--vectors", metavar="FILE", help="check test vectors")
    parser.add_argument("--summary", action="store_true", help="of a capture print the summary only")
    parser.add_argument("--bytes", action="store_true", help="of a capture print all bytes of packets")
    parser.add_argument("--verify", action="store_true", help="compare check words, and require them")
    parser.add_argument("--known", default="", help="types of TLVs that are taken: 3e,fe")
    parser.add_argument("--groups", type=int, default=255, help="most groups of a frame")
    parser.add_argument("--packets", type=int, default=NO_LIMIT, help="most packets of a frame")
    parser.add_argument("--tlv-bytes", type=int, default=65535, help="most bytes of TLVs of a group")
    parser.add_argument("--ethertype", type=lambda text: int(text, 0), default=ETHERTYPE)
    parser.add_argument("--port", type=int, default=UDP_PORT)
    arguments = parser.parse_args()
    known = [int(kind, 16) for kind in arguments.known.split(",") if kind]
    limits = Limits(arguments.verify, known, 65535, arguments.groups, arguments.packets, arguments.tlv_bytes)
    if arguments.vectors:
        return check_vectors(arguments.vectors)
    if arguments.lines:
        for line in sys.stdin:
            print(json.dumps(decode(bytes.fromhex(line), limits)), flush=True)
        return 0
    if not arguments.file:
        parser.error("a capture is needed")
    dump(arguments.file, arguments, limits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
