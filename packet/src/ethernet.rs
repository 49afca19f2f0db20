// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ethernet: addresses, types, the header.

use std::{fmt, str::FromStr};

/// A MAC address, in the order of the wire.
///
/// ```
/// use packet::MacAddr;
/// let mac: MacAddr = "52:54:00:12:34:56".parse()?;
/// assert!(mac.is_unicast());
/// assert_eq!(mac.to_string(), "52:54:00:12:34:56");
/// # Ok::<(), packet::ethernet::MacParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// Text that is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: six two-digit hexadecimal numbers with colons between them are")]
pub struct MacParseError;

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00, which names nobody.
    pub const ZERO: Self = Self([0; 6]);
    /// The bits of [`MacAddr::to_bits`] that may be set.
    pub const BITS_MASK: u64 = 0x0000_ffff_ffff_ffff;

    /// The address in the low 48 bits, the first octet on the wire lowest. The form in which
    /// addresses are compared and hashed on the data path; never sent.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The address in the low 48 bits of `bits`, as [`MacAddr::to_bits`] gives them; the others are
    /// ignored.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = bits.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Whether this names a group of stations; broadcast is one.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.to_bits() & 1 != 0
    }

    /// Whether this is ff:ff:ff:ff:ff:ff.
    #[inline]
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        self.to_bits() == Self::BITS_MASK
    }

    /// Whether this names one station: neither a group nor nobody.
    #[inline]
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// Whether this is 00:00:00:00:00:00.
    #[inline]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.to_bits() == 0
    }

    /// Whether this is one of 01-80-C2-00-00-00 to -0F, which stay on their link (IEEE 802.1D
    /// 7.12.6: spanning tree, pause, LACP, LLDP, ...).
    #[inline]
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        const PREFIX: u64 = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]).to_bits();
        const LAST_NIBBLE: u64 = 0x0000_0f00_0000_0000;
        self.to_bits() & !LAST_NIBBLE == PREFIX
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for MacAddr {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(MacParseError)?;
            // from_str_radix alone would also take "+f" and "f".
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacParseError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacParseError)?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(MacParseError),
        }
    }
}

/// The type field of an Ethernet header or VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// Address resolution (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// Reverse address resolution (RFC 903).
    pub const RARP: Self = Self(0x8035);
    /// A customer VLAN tag follows (IEEE 802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// A service VLAN tag follows (IEEE 802.1ad).
    pub const VLAN_SERVICE: Self = Self(0x88a8);

    /// Whether a VLAN tag follows.
    #[inline]
    #[must_use]
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::VLAN_SERVICE)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// The 14 bytes every frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader<'a>(&'a [u8; EthernetHeader::LEN]);

impl<'a> EthernetHeader<'a> {
    /// Length in bytes.
    pub const LEN: usize = 14;

    /// The header at the start of `frame`; `None` if that is shorter.
    #[inline]
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        frame.first_chunk().map(Self)
    }

    /// Who shall receive the frame.
    #[inline]
    #[must_use]
    pub const fn destination(self) -> MacAddr {
        MacAddr::from_bits(self.destination_bits())
    }

    /// Who sent the frame.
    #[inline]
    #[must_use]
    pub const fn source(self) -> MacAddr {
        MacAddr::from_bits(self.source_bits())
    }

    /// [`EthernetHeader::destination`] as [`MacAddr::to_bits`], in one load.
    #[inline]
    #[must_use]
    pub const fn destination_bits(self) -> u64 {
        match self.0.first_chunk() {
            Some(octets) => u64::from_le_bytes(*octets) & MacAddr::BITS_MASK,
            None => 0,
        }
    }

    /// [`EthernetHeader::source`] as [`MacAddr::to_bits`], in one load.
    #[inline]
    #[must_use]
    pub const fn source_bits(self) -> u64 {
        match self.0.last_chunk() {
            Some(octets) => u64::from_le_bytes(*octets) & MacAddr::BITS_MASK,
            None => 0,
        }
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub const fn ether_type(self) -> EtherType {
        let [.., high, low] = *self.0;
        EtherType(u16::from_be_bytes([high, low]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_of_addresses() {
        let unicast = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
        assert!(unicast.is_unicast() && !unicast.is_multicast() && !unicast.is_broadcast());
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::ZERO.is_unicast() && MacAddr::ZERO.is_zero());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        for last in 0..=255 {
            let mac = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
            assert_eq!(mac.is_reserved(), last < 16, "{mac}");
        }
        assert!(!MacAddr([0x01, 0x80, 0xc2, 0, 1, 0]).is_reserved());
    }

    #[test]
    fn text_that_is_no_address() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+5",
            "52-54-00-12-34-56",
            "52:54:00:12:34:5g",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(MacParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bits_go_round(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(MacAddr::from_bits(mac.to_bits()), mac);
        }

        #[test]
        fn the_header_is_read_as_an_independent_parser_does(
            frame in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = EthernetHeader::parse(&frame);
            match etherparse::Ethernet2Header::from_slice(&frame) {
                Ok((theirs, _)) => {
                    let ours = header.unwrap();
                    prop_assert_eq!(ours.destination().0, theirs.destination);
                    prop_assert_eq!(ours.source().0, theirs.source);
                    prop_assert_eq!(ours.ether_type().0, theirs.ether_type.0);
                    prop_assert_eq!(ours.destination().to_bits(), ours.destination_bits());
                    prop_assert_eq!(ours.source().to_bits(), ours.source_bits());
                }
                Err(_) => prop_assert_eq!(header, None),
            }
        }
    }
}
