// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ethernet and its VLAN tags.

use super::{
    Header, ParseError,
    bytes::{Packet, offset},
};
use crate::{EtherType, EthernetHeader, ufid::VLAN_PRESENT};

/// Types below this are lengths (IEEE 802.3).
const FIRST_TYPE: u16 = 0x600;
const TAG_LEN: usize = 4;

/// The link header of a group, in the form of a UFID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Where it begins; `None` if a tunnel carries IP.
    pub(super) at: Option<u16>,
    /// Source and destination.
    pub(super) addresses: [u64; 2],
    /// The first two tags.
    pub(super) vlans: [u16; 2],
    /// How many of them there are.
    pub(super) tags: u8,
    /// What follows the tags; of a third tag its own type.
    pub(super) ether_type: EtherType,
    /// Where the network header begins.
    pub(super) end: usize,
}

impl Link {
    #[inline(always)]
    pub(super) fn parse(packet: Packet<'_>, at: usize) -> Result<Self, ParseError> {
        let header: &[u8; EthernetHeader::LEN] = packet.header(at, Header::Ethernet)?;
        let [destination @ .., _, _, _, _, _, _] = header;
        let [_, _, _, _, _, _, source @ ..] = header;
        let (source, destination) = (u64::from_be_bytes(*source), u64::from_be_bytes(*destination));
        let ether_type = low_16_bits(source);
        let end = at.saturating_add(EthernetHeader::LEN);
        let tags =
            if ether_type.is_vlan() { Tags::parse(packet, ether_type, end)? } else { Tags::none(ether_type, end) };
        Ok(Self {
            at: Some(offset(at)),
            addresses: [source >> 16, destination >> 16],
            vlans: tags.vlans,
            tags: tags.count,
            ether_type: if tags.ether_type.0 < FIRST_TYPE { EtherType(0) } else { tags.ether_type },
            end: tags.end,
        })
    }

    /// There is none; `ether_type` is what the tunnel header says.
    pub(super) const fn none(ether_type: EtherType, end: usize) -> Self {
        Self { at: None, addresses: [0; 2], vlans: [0; 2], tags: 0, ether_type, end }
    }
}

/// What lies between the addresses and the network header.
struct Tags {
    vlans: [u16; 2],
    count: u8,
    ether_type: EtherType,
    end: usize,
}

impl Tags {
    #[inline]
    const fn none(ether_type: EtherType, end: usize) -> Self {
        Self { vlans: [0; 2], count: 0, ether_type, end }
    }

    /// `ether_type` is that of the first tag, which begins at `at`.
    fn parse(packet: Packet<'_>, ether_type: EtherType, at: usize) -> Result<Self, ParseError> {
        let mut tags = Self::none(ether_type, at);
        for vlan in &mut tags.vlans {
            if !tags.ether_type.is_vlan() {
                break;
            }
            let [high, low, next @ ..] = packet.header::<TAG_LEN>(tags.end, Header::Vlan)?;
            *vlan = u16::from_be_bytes([*high, *low]) | VLAN_PRESENT;
            tags.ether_type = EtherType(u16::from_be_bytes(*next));
            tags.end = tags.end.saturating_add(TAG_LEN);
            tags.count = tags.count.saturating_add(1);
        }
        Ok(tags)
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn low_16_bits(word: u64) -> EtherType {
    EtherType(word as u16)
}
