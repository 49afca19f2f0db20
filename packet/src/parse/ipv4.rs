// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! IPv4 (RFC 791).

use super::{
    Header, ParseError,
    bytes::{Packet, impossible, offset, wide},
    network::Network,
};
use crate::Fragment;

/// Length of the header without options.
const LEN: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

#[inline(always)]
pub(super) fn parse(packet: Packet<'_>, at: usize) -> Result<Network, ParseError> {
    let header = packet.header::<LEN>(at, Header::Ipv4)?;
    let [first, tos, len0, len1, id0, id1, frag0, frag1, ttl, protocol, _, _, addresses @ ..] = header;
    if first >> 4 != 4 {
        return Err(ParseError::Version { header: Header::Ipv4, at: wide(at), version: first >> 4 });
    }
    let header_len = usize::from(first & 0xf).saturating_mul(4);
    if header_len < LEN {
        return Err(impossible(Header::Ipv4, at, header_len));
    }
    let len = u16::from_be_bytes([*len0, *len1]);
    if usize::from(len) < header_len {
        return Err(impossible(Header::Ipv4, at, len.into()));
    }
    let packet_end = packet.contains(at, len.into(), Header::Ipv4)?;
    let end = packet.skip(at, header_len, Header::Ipv4)?;

    let fragment_field = u16::from_be_bytes([*frag0, *frag1]);
    let more_fragments = fragment_field & MORE_FRAGMENTS != 0;
    let eights = fragment_field & OFFSET_MASK;
    let fragment = match (eights, more_fragments) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Network {
        at: Some(offset(at)),
        version: 4,
        protocol: *protocol,
        dscp: tos >> 2,
        ecn: tos & 3,
        ttl: *ttl,
        fragment,
        more_fragments,
        fragment_offset: eights << 3,
        fragment_header: None,
        id: u16::from_be_bytes([*id0, *id1]).into(),
        len: len.into(),
        addresses: u64::from_be_bytes(*addresses).rotate_left(32),
        upper: [0; 3],
        end,
        packet_end,
    })
}
