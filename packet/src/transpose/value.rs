// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a header field may be set to.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Field, MacAddr, Ufid};

/// A value for a [`Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A literal for what is not an IP address; a MAC address with its first octet highest, a VLAN tag as
    /// [`Field::Vlan`] has it.
    Number(u64),
    /// An IPv4 address; only for IPv4 headers.
    Ipv4(Ipv4Addr),
    /// An IPv6 address; only for IPv6 headers.
    Ipv6(Ipv6Addr),
    /// That of another field of the same kind, of the packet as it came. Outer addresses cannot be copied:
    /// the versions of the two could differ.
    Copy(Field),
}

/// A TTL or hop limit. Values are of the packet as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// This one.
    Literal(u8),
    /// That of a header less a number. If the number is not 0 and the TTL does not exceed it, the packet
    /// has expired.
    Minus(Header, u8),
}

/// One of a packet's two IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The packet's own.
    Inner,
    /// That of its tunnel.
    Outer,
}

/// Fields of one kind can be copied to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mac,
    Address,
    OuterAddress,
    Dscp,
    Port,
    Tag,
    Key,
}

impl Value {
    /// The value as a field of a [`Ufid`] holds it, for a packet of this identity.
    #[must_use]
    pub fn of(self, ufid: &Ufid) -> u128 {
        match self {
            Self::Number(number) => number.into(),
            Self::Ipv4(address) => address.to_bits().into(),
            Self::Ipv6(address) => address.to_bits(),
            Self::Copy(field) => ufid.get(field),
        }
    }

    /// What a field of a packet of this identity holds, as a literal.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "fields that are not addresses have at most 48 bits")]
    pub fn literal(ufid: &Ufid, field: Field) -> Self {
        let value = ufid.get(field);
        let version = match field {
            Field::IpSrc | Field::IpDst => Field::IpVersion,
            Field::OuterIpSrc | Field::OuterIpDst => Field::OuterIpVersion,
            _ => return Self::Number(value as u64),
        };
        if ufid.get(version) == 6 { Self::Ipv6(value.into()) } else { Self::Ipv4((value as u32).into()) }
    }

    /// Whether the field can take the value, on some packet.
    pub(super) fn fits(self, field: Field) -> bool {
        let Some(kind) = kind(field) else { return false };
        let bits = match field {
            Field::Dscp | Field::OuterDscp => 6,
            Field::TunnelKey => 24,
            other => other.bits(),
        };
        match (self, kind) {
            (Self::Copy(_) | Self::Number(_), Kind::OuterAddress) | (Self::Number(_), Kind::Address) => false,
            (Self::Copy(from), kind) => self::kind(from) == Some(kind),
            (Self::Number(number), _) => number.checked_shr(bits).unwrap_or(0) == 0,
            (Self::Ipv4(_) | Self::Ipv6(_), kind) => matches!(kind, Kind::Address | Kind::OuterAddress),
        }
    }
}

impl From<MacAddr> for Value {
    fn from(MacAddr([a, b, c, d, e, f]): MacAddr) -> Self {
        Self::Number(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

const fn kind(field: Field) -> Option<Kind> {
    match field {
        Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => Some(Kind::Mac),
        Field::IpSrc | Field::IpDst => Some(Kind::Address),
        Field::OuterIpSrc | Field::OuterIpDst => Some(Kind::OuterAddress),
        Field::Dscp | Field::OuterDscp => Some(Kind::Dscp),
        Field::L4Src | Field::L4Dst => Some(Kind::Port),
        Field::Vlan | Field::SecondVlan | Field::OuterVlan => Some(Kind::Tag),
        Field::TunnelKey => Some(Kind::Key),
        Field::EtherType
        | Field::IpVersion
        | Field::IpProto
        | Field::Fragment
        | Field::Tunnel
        | Field::OuterIpVersion => None,
    }
}
