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

/// In the third and fourth byte of a fragment header.
const MORE_FRAGMENTS: u16 = 1;
const OFFSET_MASK: u16 = !7;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Jumbograms (RFC 2675) are refused: their length field says 0, which contradicts what follows.
#[inline(always)]
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
    let end = at.saturating_add(LEN);
    let mut chain = Chain { protocol: *next, end, fragment_header: None, fragment_field: 0, id: 0 };
    if is_extension(*next) {
        chain = skip_extensions(packet.until(packet_end), chain)?;
    }
    Ok(Network {
        at: Some(offset(at)),
        version: 6,
        protocol: chain.protocol,
        dscp: class >> 2,
        ecn: class & 3,
        ttl: *hop_limit,
        fragment: chain.fragment(),
        more_fragments: chain.fragment_field & MORE_FRAGMENTS != 0,
        fragment_offset: chain.fragment_field & OFFSET_MASK,
        fragment_header: chain.fragment_header,
        id: chain.id,
        len: wide(len),
        addresses,
        upper,
        end: chain.end,
        packet_end,
    })
}

/// What the extension headers say, as far as they were read.
#[derive(Clone, Copy)]
struct Chain {
    /// What they carry, and where that begins.
    protocol: u8,
    end: usize,
    fragment_header: Option<u16>,
    /// Offset and flag of the fragment header.
    fragment_field: u16,
    id: u32,
}

impl Chain {
    /// Offset 0 and no more to come is a packet that is whole all the same (RFC 6946).
    #[inline]
    const fn fragment(&self) -> Fragment {
        match (self.fragment_field & OFFSET_MASK, self.fragment_field & MORE_FRAGMENTS) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        }
    }

    /// Whether there is another one to skip. Behind the fragment header of a later fragment there is
    /// payload; the protocol is then what that header says, which may be an extension header.
    #[inline]
    fn goes_on(&self) -> bool {
        is_extension(self.protocol) && self.fragment() != Fragment::Later
    }
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

/// Moves on to what the extension headers carry.
fn skip_extensions(packet: Packet<'_>, mut chain: Chain) -> Result<Chain, ParseError> {
    for _ in 0..MAX_EXTENSIONS {
        if !chain.goes_on() {
            return Ok(chain);
        }
        let at = chain.end;
        let [next, len, frag0, frag1, id @ ..] = packet.header::<8>(at, Header::Ipv6Extension)?;
        let len = match chain.protocol {
            FRAGMENT if chain.fragment_header.is_some() => return Err(too_many(at)),
            FRAGMENT => {
                chain.fragment_header = Some(offset(at));
                chain.fragment_field = u16::from_be_bytes([*frag0, *frag1]);
                chain.id = u32::from_be_bytes(*id);
                8
            }
            AUTHENTICATION => usize::from(*len).saturating_add(2).saturating_mul(4),
            _ => usize::from(*len).saturating_add(1).saturating_mul(8),
        };
        chain.end = packet.skip(at, len, Header::Ipv6Extension)?;
        chain.protocol = *next;
    }
    if chain.goes_on() { Err(too_many(chain.end)) } else { Ok(chain) }
}

#[cold]
fn too_many(at: usize) -> ParseError {
    ParseError::TooManyExtensions { at: wide(at) }
}
