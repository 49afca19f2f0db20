// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the headers of a TCP frame lie.

use super::SegmentError;
use crate::{EtherType, EthernetHeader, GsoKind};

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;

/// Extension headers looked at before giving up: more than any sender has a use for.
const MAX_EXTENSIONS: usize = 8;
const MAX_VLANS: usize = 2;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// Offsets in bytes from the start of the frame, each at most its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) version: IpVersion,
    /// The IP header.
    pub(super) l3: usize,
    /// The TCP header.
    pub(super) l4: usize,
    /// The TCP payload.
    pub(super) payload: usize,
    /// The end of the TCP payload; what lies beyond is padding.
    pub(super) end: usize,
}

impl Layout {
    pub(super) fn parse(frame: &[u8], kind: GsoKind) -> Result<Self, SegmentError> {
        let (l3, ether_type) = network_layer(frame)?;
        let (version, expected) = match kind {
            GsoKind::TcpV4 => (IpVersion::V4, EtherType::IPV4),
            GsoKind::TcpV6 => (IpVersion::V6, EtherType::IPV6),
        };
        if ether_type != expected {
            return Err(SegmentError::WrongEtherType { ether_type, kind });
        }
        let found = byte(frame, l3)? >> 4;
        let (l4, end) = match version {
            IpVersion::V4 if found == 4 => ipv4(frame, l3)?,
            IpVersion::V6 if found == 6 => ipv6(frame, l3)?,
            _ => {
                return Err(SegmentError::WrongVersion { version: found, kind });
            }
        };
        let payload = tcp(frame, l4)?;
        if payload > end || end > frame.len() {
            return Err(SegmentError::Truncated { need: payload.max(end), have: frame.len().min(end) });
        }
        Ok(Self { version, l3, l4, payload, end })
    }

    /// Source and destination address, which lie side by side in both versions.
    pub(super) fn addresses<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let (at, len) = match self.version {
            IpVersion::V4 => (12, 8),
            IpVersion::V6 => (8, 32),
        };
        frame.get(self.l3.checked_add(at)?..)?.get(..len)
    }
}

/// Start and type of what follows the Ethernet header and its VLAN tags.
fn network_layer(frame: &[u8]) -> Result<(usize, EtherType), SegmentError> {
    let header =
        EthernetHeader::parse(frame).ok_or(SegmentError::Truncated { need: EthernetHeader::LEN, have: frame.len() })?;
    let mut at = EthernetHeader::LEN;
    let mut ether_type = header.ether_type();
    for _ in 0..MAX_VLANS {
        if !ether_type.is_vlan() {
            break;
        }
        ether_type = EtherType(half(frame, at.saturating_add(2))?);
        at = at.saturating_add(4);
    }
    Ok((at, ether_type))
}

/// Start of the TCP header, and end of the packet.
fn ipv4(frame: &[u8], l3: usize) -> Result<(usize, usize), SegmentError> {
    let header_len = usize::from(byte(frame, l3)? & 0x0f).saturating_mul(4);
    if header_len < 20 {
        return Err(SegmentError::HeaderLength { at: l3, len: header_len });
    }
    // All but "don't fragment": either "more fragments" or an offset.
    if half(frame, l3.saturating_add(6))? & 0xbfff != 0 {
        return Err(SegmentError::Fragment);
    }
    let protocol = byte(frame, l3.saturating_add(9))?;
    if protocol != TCP {
        return Err(SegmentError::WrongProtocol { protocol });
    }
    let total = usize::from(half(frame, l3.saturating_add(2))?);
    Ok((l3.saturating_add(header_len), end(frame, l3, total)))
}

/// Start of the TCP header, and end of the packet.
fn ipv6(frame: &[u8], l3: usize) -> Result<(usize, usize), SegmentError> {
    let payload_len = usize::from(half(frame, l3.saturating_add(4))?);
    let mut next = byte(frame, l3.saturating_add(6))?;
    let mut at = l3.saturating_add(40);
    let end = end(frame, at, payload_len);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            TCP => return Ok((at, end)),
            FRAGMENT => return Err(SegmentError::Fragment),
            ROUTING if byte(frame, at.saturating_add(3))? != 0 => {
                return Err(SegmentError::SourceRouted);
            }
            HOP_BY_HOP | ROUTING | DESTINATION => {
                next = byte(frame, at)?;
                let units = usize::from(byte(frame, at.saturating_add(1))?);
                at = at.saturating_add(units.saturating_add(1).saturating_mul(8));
            }
            protocol => return Err(SegmentError::WrongProtocol { protocol }),
        }
    }
    Err(SegmentError::TooManyExtensions { max: MAX_EXTENSIONS })
}

/// Where a packet ends whose length field, counted from `from`, says `len`. 0 stands for a length
/// beyond 65535: then the frame has no padding.
fn end(frame: &[u8], from: usize, len: usize) -> usize {
    match len {
        0 => frame.len(),
        _ => from.saturating_add(len),
    }
}

/// Start of the payload.
fn tcp(frame: &[u8], l4: usize) -> Result<usize, SegmentError> {
    let header_len = usize::from(byte(frame, l4.saturating_add(12))? >> 4).saturating_mul(4);
    if header_len < 20 {
        return Err(SegmentError::HeaderLength { at: l4, len: header_len });
    }
    Ok(l4.saturating_add(header_len))
}

fn byte(frame: &[u8], at: usize) -> Result<u8, SegmentError> {
    match frame.get(at) {
        Some(byte) => Ok(*byte),
        None => Err(SegmentError::Truncated { need: at.saturating_add(1), have: frame.len() }),
    }
}

fn half(frame: &[u8], at: usize) -> Result<u16, SegmentError> {
    match frame.get(at..).and_then(<[u8]>::first_chunk) {
        Some(octets) => Ok(u16::from_be_bytes(*octets)),
        None => Err(SegmentError::Truncated { need: at.saturating_add(2), have: frame.len() }),
    }
}
