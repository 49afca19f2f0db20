// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The frames that are sent: Ethernet, IPv4, and UDP or TCP, all checksums right.
//!
//! A data frame is built once, with zeros where the stamp, its balance and TCP's numbers go; those are written for every
//! packet and leave the checksums as they are (see `stamp`).
//!
//! ```text
//!  0         14      34    42        44     52
//!  | Ethernet | IPv4 | UDP | balance | stamp | pattern ...
//!  0         14      34              54        56     64
//!  | Ethernet | IPv4 | TCP           | balance | stamp | pattern ...
//! ```
//!
//! The pattern depends on the place only. Whatever is written per packet ends at byte 64, so that small frames hold it.

use packet::checksum::{Sum, checksum};

use super::flows::{Side, Tuple};
use super::stamp;

/// Shortest frame there is, without its checksum.
pub(super) const SHORTEST: u32 = 60;

/// Longest frame that IPv4 can carry: Ethernet header and 65535 bytes.
pub(super) const LONGEST: u32 = 14 + 65535;

/// Where things lie in every frame.
pub(super) const ADDRESSES: usize = 26;
pub(super) const PORTS: usize = 34;
pub(super) const SEQUENCE: usize = 38;
pub(super) const FLAGS: usize = 47;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TRANSPORT: usize = ETHERNET + IPV4;
const MACS: [[u8; 6]; 2] = [[0x02, 0x53, 0x48, 0x55, 0x4e, 0], [0x02, 0x53, 0x48, 0x55, 0x4e, 1]];

/// The bits of TCP that are used here.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// Bits by which the window is shifted: enough for all that can be on its way of one flow.
const WINDOW_SHIFT: u8 = 7;

/// What carries the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// TCP's part of a frame without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    /// Said with SYN: the longest segment.
    pub(super) longest: u32,
}

impl Transport {
    /// Bytes of its header.
    const fn header(self) -> usize {
        match self {
            Self::Udp => 8,
            Self::Tcp => 20,
        }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }

    /// Where the header has its checksum.
    pub(super) const fn checksum_at(self) -> usize {
        match self {
            Self::Udp => TRANSPORT + 6,
            Self::Tcp => TRANSPORT + 16,
        }
    }

    pub(super) const fn payload_at(self) -> usize {
        TRANSPORT + self.header()
    }

    pub(super) const fn balance_at(self) -> usize {
        self.payload_at()
    }

    pub(super) const fn stamp_at(self) -> usize {
        self.payload_at() + 2
    }

    pub(super) const fn pattern_at(self) -> usize {
        self.stamp_at() + 8
    }

    /// Shortest frame that holds a stamp.
    pub(super) const fn shortest(self) -> u32 {
        match self {
            Self::Udp => SHORTEST,
            Self::Tcp => 64,
        }
    }
}

/// A data frame of `size` bytes that `from` sends on a flow, not stamped.
pub(super) fn data(transport: Transport, from: Side, flow: u32, size: u32) -> Vec<u8> {
    let size = size.clamp(transport.shortest(), LONGEST) as usize;
    let mut frame = headers(transport, from, flow, size);
    match transport {
        Transport::Udp => {
            frame.extend(be16(size - TRANSPORT));
            frame.extend([0; 2]);
        }
        Transport::Tcp => frame.extend(tcp(PSH | ACK, 0, 0, 0)),
    }
    frame.extend([0; 10]);
    frame.extend((frame.len()..size).map(|at| at.to_le_bytes()[0]));
    seal(&mut frame, transport);
    frame
}

/// Writes what differs from packet to packet into a data frame; `numbers` are TCP's, as they stand on the wire.
pub(super) fn write_stamp(frame: &mut [u8], transport: Transport, stamp: u64, numbers: u64) {
    if transport == Transport::Tcp {
        put(frame, SEQUENCE, &numbers.to_le_bytes());
    }
    put(frame, transport.balance_at(), &stamp::balanced(stamp, numbers).to_le_bytes());
    put(frame, transport.stamp_at(), &stamp.to_le_bytes());
}

/// The datagram by which `from` opens a flow, or answers that.
pub(super) fn greeting(from: Side, flow: u32) -> Vec<u8> {
    let mut frame = data(Transport::Udp, from, flow, SHORTEST);
    write_stamp(&mut frame, Transport::Udp, stamp::greeting(flow), 0);
    frame
}

/// A segment without payload; one with SYN says what it can take: long segments and a large window.
pub(super) fn signal(from: Side, flow: u32, signal: Signal) -> Vec<u8> {
    let Signal { flags, sequence, acknowledged, longest } = signal;
    let options = if flags & SYN == 0 {
        Vec::new()
    } else {
        let [high, low] = be16(longest as usize);
        vec![2, 4, high, low, 1, 3, 3, WINDOW_SHIFT]
    };
    let end = Transport::Tcp.payload_at() + options.len();
    let mut frame = headers(Transport::Tcp, from, flow, end);
    frame.extend(tcp(flags, sequence, acknowledged, options.len()));
    frame.extend(options);
    seal(&mut frame, Transport::Tcp);
    // Ethernet's own padding.
    frame.resize(end.max(SHORTEST as usize), 0);
    frame
}

/// The sum over the transport layer of a frame with its pseudo-header, up to `end`: nothing if its checksum is right.
pub(super) fn residue(frame: &[u8], transport: Transport, end: usize) -> u16 {
    let mut sum = Sum::new();
    sum.add(frame.get(ADDRESSES..PORTS).unwrap_or(&[]));
    sum.add_value(transport.protocol().into());
    sum.add_value(u16::from_be_bytes(be16(end.saturating_sub(TRANSPORT))));
    sum.add(frame.get(TRANSPORT..end).unwrap_or(&[]));
    sum.checksum()
}

/// The sum over the IPv4 header: nothing if its checksum is right.
pub(super) fn network_residue(frame: &[u8]) -> u16 {
    checksum(frame.get(ETHERNET..TRANSPORT).unwrap_or(&[]))
}

/// All up to the ports.
fn headers(transport: Transport, from: Side, flow: u32, end: usize) -> Vec<u8> {
    let Tuple { client, client_port, server, server_port } = Tuple::of(flow);
    let ends = [(client, client_port), (server, server_port)];
    let ([source, target], [to, own]) = match from {
        Side::A => (ends, [MACS[1], MACS[0]]),
        Side::B => ([ends[1], ends[0]], MACS),
    };
    let mut frame = Vec::with_capacity(end.max(SHORTEST as usize));
    frame.extend(to);
    frame.extend(own);
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(be16(end - ETHERNET));
    // Not to be fragmented; 64 hops.
    frame.extend([0, 0, 0x40, 0, 64, transport.protocol(), 0, 0]);
    frame.extend(source.0.octets());
    frame.extend(target.0.octets());
    let sum = network_residue(&frame);
    put(&mut frame, ETHERNET + 10, &sum.to_be_bytes());
    frame.extend(source.1.to_be_bytes());
    frame.extend(target.1.to_be_bytes());
    frame
}

/// TCP's header from the sequence number on.
fn tcp(flags: u8, sequence: u32, acknowledged: u32, options: usize) -> Vec<u8> {
    let mut header = Vec::from(sequence.to_be_bytes());
    header.extend(acknowledged.to_be_bytes());
    header.extend([(20 + options).to_le_bytes()[0] << 2, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// Writes the transport layer's checksum, for which there are zeros so far.
fn seal(frame: &mut [u8], transport: Transport) {
    let sum = match residue(frame, transport, frame.len()) {
        0 => u16::MAX,
        sum => sum,
    };
    put(frame, transport.checksum_at(), &sum.to_be_bytes());
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn be16(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use packet::{Field, parse};

    use super::*;

    const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    #[test]
    fn frames_have_the_size_asked_for_and_right_checksums_whatever_is_stamped() {
        for transport in BOTH {
            for size in [transport.shortest(), 64, 65, 1518, 65536, LONGEST] {
                let mut frame = data(transport, Side::A, 70_000, size);
                assert_eq!(frame.len(), size as usize);
                assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
                for (stamp, numbers) in
                    [(0, 0), (stamp::stamp(1, 2), 3), (u64::MAX, u64::MAX), (stamp::stamp(0, 1 << 47), 1 << 60)]
                {
                    let numbers = if transport == Transport::Tcp { numbers } else { 0 };
                    write_stamp(&mut frame, transport, stamp, numbers);
                    assert_eq!(network_residue(&frame), 0);
                    assert_eq!(
                        residue(&frame, transport, frame.len()),
                        0,
                        "{transport:?} {size} {stamp:x} {numbers:x}"
                    );
                    let at = transport.stamp_at();
                    assert_eq!(frame[at..at + 8], stamp.to_le_bytes());
                }
            }
        }
        let udp = data(Transport::Udp, Side::A, 1, 100);
        assert_eq!(u16::from_be_bytes([udp[38], udp[39]]), 66);
    }

    /// What one side sends is what the other one answers, reversed; the parser of the project sees the same.
    #[test]
    fn tuples_are_reversed() {
        for transport in BOTH {
            let mut seen = HashSet::new();
            for flow in (0..300).chain([9_999, 123_456]) {
                let [ours, theirs] = Side::BOTH.map(|side| {
                    let frame = data(transport, side, flow, 64);
                    let parsed = parse::parse(&frame, 64).unwrap();
                    let fields = [Field::EthSrc, Field::EthDst, Field::IpSrc, Field::IpDst, Field::L4Src, Field::L4Dst];
                    assert_eq!(parsed.ufid.get(Field::IpProto), u128::from(transport.protocol()));
                    fields.map(|field| parsed.ufid.get(field))
                });
                let [a, b, c, d, e, f] = theirs;
                assert_eq!(ours, [b, a, d, c, f, e]);
                assert!(seen.insert(ours));
            }
        }
    }

    #[test]
    fn signals_are_valid_segments() {
        let syn =
            signal(Side::B, 3, Signal { flags: SYN | ACK, sequence: 7, acknowledged: 0x0102_0304, longest: 1460 });
        assert_eq!(syn.len(), 62);
        assert_eq!(residue(&syn, Transport::Tcp, 62), 0);
        assert_eq!(syn[SEQUENCE..SEQUENCE + 8], [0, 0, 0, 7, 1, 2, 3, 4]);
        assert_eq!(syn[46..50], [0x70, SYN | ACK, 0xff, 0xff]);
        assert_eq!(syn[54..], [2, 4, 5, 180, 1, 3, 3, 7]);
        let ack = signal(Side::A, 3, Signal { flags: ACK, sequence: 8, acknowledged: 9, longest: 0 });
        assert_eq!((ack.len(), residue(&ack, Transport::Tcp, 54), network_residue(&ack)), (60, 0, 0));
        let hello = greeting(Side::A, 5);
        assert_eq!((hello.len(), residue(&hello, Transport::Udp, 60)), (60, 0));
    }
}
