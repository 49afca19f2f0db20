// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! IPv6 and its extension headers (RFC 8200).

use super::{
    Header, ParseError,
    bytes::{Packet, offset, wide},
    network::Network,
};
use crate::Fragment;

/// Length of the header without extensions.
const LEN: usize = 40;
/// Extension headers of one packet that are looked at. Each of the five kinds once, and destination
/// options twice, is what RFC 8200 has in mind.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Jumbograms (RFC 2675) are refused: their length field says 0, which contradicts what follows.
#[inline]
pub(super) fn parse(packet: Packet<'_>, at: usize) -> Result<Network, ParseError> {
    let header = packet.header::<LEN>(at, Header::Ipv6)?;
    let [first, second, _, _, len0, len1, next, hop_limit, addresses @ ..] = header;
    if first >> 4 != 6 {
        return Err(ParseError::Version { header: Header::Ipv6, at: wide(at), version: first >> 4 });
    }
    let len = usize::from(u16::from_be_bytes([*len0, *len1])).saturating_add(LEN);
    let packet_end = packet.contains(at, len, Header::Ipv6)?;
    let class = first << 4 | second >> 4;
    let (addresses, upper) = words(addresses);
    let mut network = Network {
        at: Some(offset(at)),
        version: 6,
        protocol: *next,
        dscp: class >> 2,
        ecn: class & 3,
        ttl: *hop_limit,
        fragment: Fragment::Whole,
        more_fragments: false,
        fragment_offset: 0,
        fragment_header: None,
        id: 0,
        len: wide(len),
        addresses,
        upper,
        end: at.saturating_add(LEN),
        packet_end,
    };
    if is_extension(*next) {
        skip_extensions(packet.until(packet_end), &mut network)?;
    }
    Ok(network)
}

#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Source and destination as words 2 and 8 to 10 of a UFID.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "parts of the addresses")]
fn words(addresses: &[u8; 32]) -> (u64, [u64; 3]) {
    let part = |bytes: Option<&[u8; 16]>| u128::from_be_bytes(*bytes.unwrap_or(&[0; 16]));
    let (source, destination) = (part(addresses.first_chunk()), part(addresses.last_chunk()));
    let low = u64::from(source as u32) | u64::from(destination as u32) << 32;
    let middle = (source >> 96) as u64 | u64::from((destination >> 32) as u32) << 32;
    (low, [(source >> 32) as u64, middle, (destination >> 64) as u64])
}

/// Moves on to what the extension headers carry. Behind the fragment header of a later fragment there
/// is payload; the protocol is then what that header says, which may be an extension header.
fn skip_extensions(packet: Packet<'_>, network: &mut Network) -> Result<(), ParseError> {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(network.protocol) || network.fragment == Fragment::Later {
            return Ok(());
        }
        let at = network.end;
        let kind = network.protocol;
        let [next, len, frag0, frag1, id @ ..] = packet.header::<8>(at, Header::Ipv6Extension)?;
        let len = match kind {
            FRAGMENT if network.fragment_header.is_some() => return Err(too_many(at)),
            FRAGMENT => {
                fragment(network, u16::from_be_bytes([*frag0, *frag1]));
                network.id = u32::from_be_bytes(*id);
                8
            }
            AUTHENTICATION => usize::from(*len).saturating_add(2).saturating_mul(4),
            _ => usize::from(*len).saturating_add(1).saturating_mul(8),
        };
        network.end = packet.skip(at, len, Header::Ipv6Extension)?;
        network.protocol = *next;
    }
    if is_extension(network.protocol) && network.fragment != Fragment::Later {
        return Err(too_many(network.end));
    }
    Ok(())
}

/// Offset 0 and no more to come is a packet that is whole all the same (RFC 6946).
fn fragment(network: &mut Network, field: u16) {
    network.fragment_header = Some(offset(network.end));
    network.more_fragments = field & 1 != 0;
    network.fragment_offset = field & !7;
    network.fragment = match (network.fragment_offset, network.more_fragments) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
}

#[cold]
fn too_many(at: usize) -> ParseError {
    ParseError::TooManyExtensions { at: wide(at) }
}
