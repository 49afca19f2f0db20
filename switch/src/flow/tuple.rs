// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who speaks to whom: what names a connection.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

use packet::{EtherType, Field, Ufid};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
/// Echo request and reply.
const ECHO: [u8; 2] = [8, 0];
const ECHO_V6: [u8; 2] = [128, 129];
/// Errors: destination unreachable, source quench, redirect, time exceeded, parameter problem.
const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// All ICMPv6 types below are errors (RFC 4443, 2.1).
const FIRST_INFORMATIONAL: u8 = 128;

/// The two ends of a packet's inner headers, as it says them. The identifier of an ICMP echo stands for
/// both ports; protocols without ports have 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address; IPv4 in the low 32 bits.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
}

/// What a packet is to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of one, or of none yet.
    Of(Tuple),
    /// An ICMP error, about a packet of one perhaps.
    Error,
    /// Nothing: it is not IP, or ICMP that neither asks nor answers nor complains.
    Nothing,
}

impl Kind {
    /// Of a packet that is not a later fragment.
    #[must_use]
    pub fn of(ufid: &Ufid) -> Self {
        let byte = |field| {
            let [low, ..] = ufid.get(field).to_le_bytes();
            low
        };
        let port = |field| {
            let [low, high, ..] = ufid.get(field).to_le_bytes();
            u16::from_le_bytes([low, high])
        };
        let (version, protocol) = (byte(Field::IpVersion), byte(Field::IpProto));
        let (mut source_port, mut destination_port) = (port(Field::L4Src), port(Field::L4Dst));
        if version == 0 || ufid.get(Field::EtherType) == u128::from(EtherType::ARP.0) {
            return Self::Nothing;
        }
        match (version, protocol) {
            (4, ICMP) | (6, ICMPV6) => {
                let [_code, kind] = destination_port.to_le_bytes();
                let (echo, error) = match version {
                    4 => (ECHO.contains(&kind), ERRORS.contains(&kind)),
                    _ => (ECHO_V6.contains(&kind), kind < FIRST_INFORMATIONAL),
                };
                if !echo {
                    return if error { Self::Error } else { Self::Nothing };
                }
                destination_port = source_port;
            }
            (_, TCP | UDP) => {}
            _ => (source_port, destination_port) = (0, 0),
        }
        Self::Of(Tuple {
            source: ufid.get(Field::IpSrc),
            destination: ufid.get(Field::IpDst),
            source_port,
            destination_port,
            protocol,
            version,
        })
    }

    /// The tuple, if it has one.
    #[must_use]
    pub const fn tuple(self) -> Option<Tuple> {
        match self {
            Self::Of(tuple) => Some(tuple),
            Self::Error | Self::Nothing => None,
        }
    }
}

impl Tuple {
    /// What packets without one are hashed as.
    pub(crate) const NOBODY: Self =
        Self { source: 0, destination: 0, source_port: 0, destination_port: 0, protocol: 0, version: 0 };

    /// That of answers.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// Whether its ports are one number, the identifier of an ICMP echo.
    #[must_use]
    pub const fn is_echo(self) -> bool {
        matches!((self.version, self.protocol), (4, ICMP) | (6, ICMPV6))
    }

    /// Whether it has ports, or an identifier, that can be changed.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        self.is_echo() || matches!(self.protocol, TCP | UDP)
    }

    /// An address of its IP version.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is the low 32 bits")]
    pub const fn address(self, bits: u128) -> IpAddr {
        if self.version == 6 {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        }
    }

    /// An address as a number, if it is of the tuple's IP version.
    #[must_use]
    pub const fn bits_of(self, address: IpAddr) -> Option<u128> {
        match (address, self.version) {
            (IpAddr::V4(address), 4) => Some(address.to_bits() as u128),
            (IpAddr::V6(address), 6) => Some(address.to_bits()),
            _ => None,
        }
    }

    /// Some 64 bits that are the same everywhere and at all times: for choices that several nodes make alike.
    #[must_use]
    pub fn choice(self, among: u64) -> u64 {
        let [mut low, mut high] = [0x243f_6a88_85a3_08d3, among];
        for number in [self.source, self.destination, self.rest().into()] {
            #[expect(clippy::cast_possible_truncation, reason = "two halves")]
            let halves = [number as u64, (number >> 64) as u64];
            for half in halves {
                // The finaliser of MurmurHash3: every bit reaches every other.
                low = (low ^ half).wrapping_mul(0xff51_afd7_ed55_8ccd);
                low ^= low >> 33;
                high = (high.rotate_left(27) ^ low).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
                high ^= high >> 33;
            }
        }
        high
    }

    /// Ports, protocol and version in one number.
    #[must_use]
    pub const fn rest(self) -> u64 {
        (self.source_port as u64) << 32
            | (self.destination_port as u64) << 16
            | (self.protocol as u64) << 8
            | self.version as u64
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol: &dyn fmt::Display = match self.protocol {
            TCP => &"tcp",
            UDP => &"udp",
            ICMP => &"icmp",
            ICMPV6 => &"icmpv6",
            ref other => other,
        };
        let end = |address, port| core::net::SocketAddr::new(self.address(address), port);
        let (source, destination) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        write!(f, "{protocol} {source} > {destination}")
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
