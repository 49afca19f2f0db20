// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plain packets, quickly: untagged TCP and UDP over IPv4 without options, fragments or tunnels.
//!
//! Nearly all packets of a known flow are such, and of these nothing needs to be known but their identity:
//! where their headers lie is always the same. A property test holds this against the parser.

use super::{Layout, tunnel};
use crate::{EtherType, Ufid, ufid::WORDS};

/// Offset of the IP header.
const IP: usize = 14;
/// Offset of the transport header.
const L4: usize = 34;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A plain packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quick {
    /// The first words of its [`Ufid`]; the others are zero.
    pub words: [u64; 4],
    /// Where its IP packet ends.
    end: u32,
}

/// What TCP says beyond the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuickTcp {
    /// FIN lowest, CWR highest.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub payload_len: u32,
}

impl Quick {
    /// Where the headers of such packets lie.
    pub const TCP_LAYOUT: Layout = layout(20);
    /// The same of UDP.
    pub const UDP_LAYOUT: Layout = layout(8);

    /// The identity of a frame of `frame_len` bytes that begins with `window`; `None` if it is no plain packet, or
    /// anything about it is wrong.
    #[inline]
    #[must_use]
    pub fn parse(window: &[u8], frame_len: u32) -> Option<Self> {
        let header: &[u8; 42] = window.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, rest @ ..] = header;
        let [t0, t1, first, tos, l0, l1, _, _, f0, f1, _, protocol, _, _, rest @ ..] = rest;
        let [a0, a1, a2, a3, b0, b1, b2, b3, p0, p1, q0, q1, u0, u1, _, _] = rest;
        let len = u16::from_be_bytes([*l0, *l1]);
        let plain = u16::from_be_bytes([*t0, *t1]) == EtherType::IPV4.0
            && *first == 0x45
            && u16::from_be_bytes([*f0, *f1]) & 0x3fff == 0;
        let end = IP.checked_add(usize::from(len))?;
        let frame_len = usize::try_from(frame_len).ok()?;
        if !plain || end > frame_len || window.len() > frame_len {
            return None;
        }
        // Lengths of the transport header, or datagram, from its beginning.
        let (least, held) = match *protocol {
            UDP => {
                if tunnel::is_port([*q0, *q1]) {
                    return None;
                }
                (8, usize::from(u16::from_be_bytes([*u0, *u1])))
            }
            TCP => (20, usize::from(window.get(L4..)?.get(..20)?.get(12)? >> 4).checked_mul(4)?),
            _ => return None,
        };
        if held < least || L4.checked_add(held)? > end {
            return None;
        }
        let destination = u64::from_be_bytes([0, 0, *d0, *d1, *d2, *d3, *d4, *d5]);
        let source = u64::from_be_bytes([0, 0, *s0, *s1, *s2, *s3, *s4, *s5]);
        let addresses = u64::from_be_bytes([*a0, *a1, *a2, *a3, *b0, *b1, *b2, *b3]).rotate_left(32);
        let ports = u32::from_be_bytes([*p0, *p1, *q0, *q1]).rotate_left(16);
        let fourth = u64::from(ports) | u64::from(*protocol) << 32 | u64::from(tos >> 2) << 40 | 4 << 48;
        let words = [destination | u64::from(EtherType::IPV4.0) << 48, source, addresses, fourth];
        Some(Self { words, end: u32::try_from(end).ok()? })
    }

    /// What [`parse`](Self::parse) says of a frame, if that has the identity of this one, which it said of `before`; else,
    /// `None`. Cheaper than parsing: next to a plain packet what need not be equal is known.
    #[inline]
    #[must_use]
    pub fn again(&self, before: &[u8], window: &[u8], frame_len: u32) -> Option<Self> {
        let (before, header): (&[u8; 42], &[u8; 42]) = (before.first_chunk()?, window.first_chunk()?);
        let mut differ = 0;
        for (at, mask) in SAME {
            let [one, other] = [before, header].map(|bytes| word(bytes, at));
            differ |= (one ^ other) & mask;
        }
        let [.., l0, l1, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, u0, u1, _, _] = header;
        let end = u32::from(u16::from_be_bytes([*l0, *l1])).checked_add(14)?;
        let (least, held) = match self.is_tcp() {
            false => (8, u32::from(u16::from_be_bytes([*u0, *u1]))),
            true => (20, u32::from(window.get(L4..)?.get(..20)?.get(12)? >> 4) << 2),
        };
        let fits = end <= frame_len && held >= least && held.checked_add(34)? <= end;
        let whole = u32::try_from(window.len()).is_ok_and(|len| len <= frame_len);
        (differ == 0 && fits && whole && self.is_plain()).then_some(Self { words: self.words, end })
    }

    /// Whether it is one; the default is none.
    #[inline]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.words[0] != 0
    }

    /// Whether it is TCP.
    #[inline]
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.words[3] >> 32 & 0xff == TCP as u64
    }

    /// What TCP says; `None` of UDP.
    #[inline]
    #[must_use]
    pub fn tcp(&self, window: &[u8]) -> Option<QuickTcp> {
        if !self.is_tcp() {
            return None;
        }
        let header: &[u8; 20] = window.get(L4..)?.first_chunk()?;
        let [_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = header;
        let data = L4.checked_add(usize::from(offset >> 4).checked_mul(4)?)?;
        Some(QuickTcp {
            flags: *flags,
            seq: u32::from_be_bytes([*q0, *q1, *q2, *q3]),
            ack: u32::from_be_bytes([*a0, *a1, *a2, *a3]),
            payload_len: self.end.saturating_sub(u32::try_from(data).ok()?),
        })
    }

    /// Where its headers lie.
    #[inline]
    #[must_use]
    pub const fn layout(&self) -> &'static Layout {
        if self.is_tcp() { &Self::TCP_LAYOUT } else { &Self::UDP_LAYOUT }
    }

    /// Its whole identity.
    #[must_use]
    pub const fn ufid(&self) -> Ufid {
        let [a, b, c, d] = self.words;
        let mut words = [0; WORDS];
        (words[0], words[1], words[2], words[3]) = (a, b, c, d);
        Ufid::from_words(words)
    }
}

/// Words of a plain packet's headers, and which of their bits its identity, or its being plain, depends on: not the two bits
/// of ECN, lengths, IP's identification, *don't fragment* and the bit above, time to live and checksum, nor what TCP and UDP say behind the ports.
const SAME: [(usize, u64); 5] = [
    (0, u64::MAX),
    (8, 0xffff_ffff_ffff_fffc),
    (16, 0x0000_0000_3fff_00ff),
    (24, 0x0000_ffff_ffff_ffff),
    (30, u64::MAX),
];

#[inline]
fn word(header: &[u8; 42], at: usize) -> u64 {
    let bytes = header.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

const fn layout(transport: u16) -> Layout {
    Layout {
        outer: None,
        ethernet: Some(0),
        vlans: 0,
        network: Some(14),
        transport: Some(34),
        fragment_header: None,
        end: 34_u16.saturating_add(transport),
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test frames are short, and low bits are meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse;

    /// Frames that are nearly plain: a byte or two of a plain one may be anything, and it may be cut.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let change = (0usize..60, any::<u8>());
        (any::<bool>(), prop::collection::vec(change, 0..3), 0usize..90, 30usize..120).prop_map(
            |(tcp, changes, len, cut)| {
                let mut frame: Vec<u8> = (0..54 + len).map(|n| (n * 7) as u8).collect();
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[16..18].copy_from_slice(&((40 + len) as u16).to_be_bytes());
                frame[20..22].copy_from_slice(&[0x40, 0]);
                frame[23] = if tcp { 6 } else { 17 };
                if tcp {
                    frame[46] = 0x50;
                } else {
                    frame[38..40].copy_from_slice(&((20 + len) as u16).to_be_bytes());
                }
                for (at, byte) in changes {
                    frame[at % (54 + len)] = byte;
                }
                frame.truncate(cut.max(14));
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// VF-15: told by the packet before it is the same.
        #[test]
        fn a_second_packet_of_a_flow_is_told_by_the_first(
            first in frames(), changes in prop::collection::vec((0usize..60, any::<u8>()), 0..3), cut in 30usize..120, more in 0u32..2,
        ) {
            let mut second = first.clone();
            for (at, byte) in changes {
                if let Some(slot) = second.get_mut(at) {
                    *slot = byte;
                }
            }
            second.truncate(cut);
            let parse = |frame: &[u8]| Quick::parse(frame, frame.len() as u32 + more);
            if let Some(before) = parse(&first) {
                let expected = parse(&second).filter(|second| second.words == before.words);
                prop_assert_eq!(before.again(&first, &second, second.len() as u32 + more), expected);
            }
            prop_assert_eq!(Quick::default().again(&first, &second, second.len() as u32), None);
        }

        /// VF-15: what it says is what the parser says.
        #[test]
        fn it_agrees_with_the_parser(frame in frames(), more in 0u32..200) {
            let window = frame.get(..256).unwrap_or(&frame);
            for frame_len in [frame.len() as u32, frame.len() as u32 + more] {
                let slow = parse(window, frame_len);
                if let Some(quick) = Quick::parse(window, frame_len) {
                    let slow = slow.unwrap();
                    prop_assert_eq!(quick.ufid(), slow.ufid);
                    prop_assert_eq!(*quick.layout(), slow.layout);
                    if let Some(tcp) = quick.tcp(window) {
                        let transient = slow.transient;
                        prop_assert_eq!((tcp.flags, tcp.seq, tcp.ack), (transient.tcp_flags, transient.tcp_seq, transient.tcp_ack));
                        prop_assert_eq!(tcp.payload_len, transient.l4_payload_len);
                    }
                } else if let Ok(slow) = slow {
                    // What it passes over is not plain.
                    let plain = slow.layout == Quick::TCP_LAYOUT || slow.layout == Quick::UDP_LAYOUT;
                    prop_assert!(!plain || slow.ufid.get(crate::Field::Fragment) != 0 || slow.ufid.get(crate::Field::IpVersion) != 4
                        || matches!(slow.ufid.get(crate::Field::L4Dst), 4789 | 6081)
                        || !matches!(slow.ufid.get(crate::Field::IpProto), 6 | 17), "{:?}", slow);
                }
            }
        }
    }
}
