// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What EtherType announces: IPv4, IPv6, ARP, or something unknown.

use super::{
    Header, ParseError,
    bytes::{Packet, offset},
    ipv4, ipv6,
};
use crate::{EtherType, Fragment};

/// The network header of a group, in the form of a UFID.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network {
    /// Where it begins; `None` if it is not understood.
    pub(super) at: Option<u16>,
    /// 4, 6, or 0 for what is not IP.
    pub(super) version: u8,
    pub(super) protocol: u8,
    pub(super) dscp: u8,
    pub(super) ecn: u8,
    pub(super) ttl: u8,
    pub(super) fragment: Fragment,
    pub(super) more_fragments: bool,
    /// In bytes.
    pub(super) fragment_offset: u16,
    pub(super) fragment_header: Option<u16>,
    pub(super) id: u32,
    /// Length of the IP packet.
    pub(super) len: u32,
    /// The low 32 bits of the source, and above them those of the destination.
    pub(super) addresses: u64,
    /// The other bits of IPv6 addresses, as words 8 to 10 of a UFID have them.
    pub(super) upper: [u64; 3],
    /// Where the transport header begins. If there is no IP: where the headers end.
    pub(super) end: usize,
    /// Where the IP packet ends.
    pub(super) packet_end: usize,
}

impl Network {
    #[inline]
    pub(super) fn parse(packet: Packet<'_>, ether_type: EtherType, at: usize) -> Result<Self, ParseError> {
        match ether_type {
            EtherType::IPV4 => ipv4::parse(packet, at),
            EtherType::IPV6 => ipv6::parse(packet, at),
            EtherType::ARP => arp(packet, at),
            _ => Ok(Self::unknown(at)),
        }
    }

    const fn unknown(at: usize) -> Self {
        Self {
            at: None,
            version: 0,
            protocol: 0,
            dscp: 0,
            ecn: 0,
            ttl: 0,
            fragment: Fragment::Whole,
            more_fragments: false,
            fragment_offset: 0,
            fragment_header: None,
            id: 0,
            len: 0,
            addresses: 0,
            upper: [0; 3],
            end: at,
            packet_end: at,
        }
    }

    /// Its part of word 3 of a UFID.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        u64::from(self.protocol) << 32
            | u64::from(self.dscp) << 40
            | u64::from(self.version) << 48
            | (self.fragment as u64) << 56
    }
}

/// ARP for IPv4 over Ethernet (RFC 826). Any other is not understood.
fn arp(packet: Packet<'_>, at: usize) -> Result<Network, ParseError> {
    /// Ethernet, IPv4, addresses of 6 and 4 bytes.
    const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let [kind @ .., _, _] = packet.header::<8>(at, Header::Arp)?;
    if *kind != KIND {
        return Ok(Network::unknown(at));
    }
    let [_, _, _, _, _, _, _, operation, body @ ..] = packet.header::<28>(at, Header::Arp)?;
    let [_, _, _, _, _, _, s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = body;
    let (sender, target) = (u32::from_be_bytes([*s0, *s1, *s2, *s3]), u32::from_be_bytes([*t0, *t1, *t2, *t3]));
    Ok(Network {
        at: Some(offset(at)),
        protocol: *operation,
        addresses: u64::from(sender) | u64::from(target) << 32,
        ..Network::unknown(at.saturating_add(28))
    })
}
