// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! IPv4 frames, made quickly enough for a flood.

use switch::model::Direction;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// An address and a port.
pub(crate) type End = ([u8; 4], u16);

/// A packet in few words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) what: What,
    /// Bytes behind the last header.
    pub(crate) payload: u16,
}

/// What it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Udp,
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
    },
    /// An ICMP echo; the source's port is its identifier.
    Echo {
        reply: bool,
    },
    /// A part of a UDP datagram that begins at this byte; the first has the ports.
    Fragment {
        id: u16,
        at: u16,
        more: bool,
    },
    /// Port unreachable, about a packet that had these ends and this protocol.
    Unreachable {
        from: End,
        to: End,
        protocol: u8,
    },
}

impl Packet {
    pub(crate) const fn udp(from: End, to: End) -> Self {
        Self { from, to, what: What::Udp, payload: 20 }
    }

    pub(crate) const fn tcp(from: End, to: End, flags: u8, seq: u32, ack: u32) -> Self {
        Self { from, to, what: What::Tcp { flags, seq, ack }, payload: 0 }
    }

    pub(crate) const fn fragment(from: End, to: End, id: u16, at: u16, payload: u16, more: bool) -> Self {
        Self { from, to, what: What::Fragment { id, at, more }, payload }
    }

    /// With so many bytes of payload.
    pub(crate) const fn with(self, payload: u16) -> Self {
        Self { payload, ..self }
    }

    pub(crate) fn bytes(&self, direction: Direction) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        self.write(direction, &mut bytes);
        bytes
    }

    /// Writes the frame, as the guest sends or gets it. The guest's MAC address is always the same, and so is the other's.
    pub(crate) fn write(&self, direction: Direction, bytes: &mut Vec<u8>) {
        let ([guest, other], [type_high, type_low]) = ([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]], [8, 0]);
        bytes.clear();
        let [destination, source] = if direction == Direction::Out { [other, guest] } else { [guest, other] };
        bytes.extend_from_slice(&destination);
        bytes.extend_from_slice(&source);
        bytes.extend_from_slice(&[type_high, type_low]);
        let (protocol, header) = match self.what {
            What::Udp => (17, 8),
            What::Tcp { .. } => (6, 20),
            What::Echo { .. } => (1, 8),
            What::Fragment { at: 0, .. } => (17, 8),
            What::Fragment { .. } => (17, 0),
            What::Unreachable { .. } => (1, 8 + 28),
        };
        let (id, fragment) = match self.what {
            What::Fragment { id, at, more } => (id, (at / 8) | (u16::from(more) << 13)),
            _ => (0, 0),
        };
        let length = header + self.payload;
        ip(bytes, length, id, fragment, protocol, self.from.0, self.to.0);
        let at = bytes.len();
        match self.what {
            What::Udp | What::Fragment { at: 0, .. } => {
                // Without a checksum, as IPv4 allows: that of a whole datagram is not known here.
                for word in [self.from.1, self.to.1, length, 0] {
                    bytes.extend_from_slice(&word.to_be_bytes());
                }
            }
            What::Tcp { flags, seq, ack } => {
                bytes.extend_from_slice(&self.from.1.to_be_bytes());
                bytes.extend_from_slice(&self.to.1.to_be_bytes());
                bytes.extend_from_slice(&seq.to_be_bytes());
                bytes.extend_from_slice(&ack.to_be_bytes());
                bytes.extend_from_slice(&[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            What::Echo { reply } => {
                bytes.extend_from_slice(&[if reply { 0 } else { 8 }, 0, 0, 0]);
                bytes.extend_from_slice(&self.from.1.to_be_bytes());
                bytes.extend_from_slice(&[0, 1]);
            }
            What::Fragment { .. } => {}
            What::Unreachable { from, to, protocol } => {
                bytes.extend_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
                ip(bytes, 8, 0, 0, protocol, from.0, to.0);
                for word in [from.1, to.1, 8, 0] {
                    bytes.extend_from_slice(&word.to_be_bytes());
                }
            }
        }
        bytes.resize(bytes.len() + usize::from(self.payload), 0x5a);
        let whole = &bytes[at..];
        match self.what {
            What::Tcp { .. } => {
                let pseudo = [u16::from(protocol), length];
                let sum = checksum(sum(whole) + sum(&self.from.0) + sum(&self.to.0) + sum_words(&pseudo));
                bytes[at + 16..at + 18].copy_from_slice(&sum);
            }
            What::Echo { .. } | What::Unreachable { .. } => {
                let sum = checksum(sum(whole));
                bytes[at + 2..at + 4].copy_from_slice(&sum);
            }
            What::Udp | What::Fragment { .. } => {}
        }
    }
}

fn ip(bytes: &mut Vec<u8>, payload: u16, id: u16, fragment: u16, protocol: u8, from: [u8; 4], to: [u8; 4]) {
    let at = bytes.len();
    bytes.extend_from_slice(&[0x45, 0]);
    for word in [20 + payload, id, fragment] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(&[64, protocol, 0, 0]);
    bytes.extend_from_slice(&from);
    bytes.extend_from_slice(&to);
    let sum = checksum(sum(&bytes[at..]));
    bytes[at + 10..at + 12].copy_from_slice(&sum);
}

fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks();
    let words: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    words + rest.first().map_or(0, |last| u32::from(*last) << 8)
}

fn sum_words(words: &[u16]) -> u32 {
    words.iter().map(|word| u32::from(*word)).sum()
}

fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}
