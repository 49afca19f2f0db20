// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the headers of an oversized frame lie.

use super::{SegmentError, tunnel};
use crate::{
    EtherType, EthernetHeader, GsoKind,
    parse::transport::{TCP, UDP},
};

/// Extension headers looked at before giving up: more than any sender has a use for.
const MAX_EXTENSIONS: usize = 8;
const MAX_VLANS: usize = 2;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Least length of the transport headers: a checksum that starts beyond it is that of a packet inside.
const TRANSPORT: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Offsets in bytes from the start of the frame, each at most its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// What is around the packet, if it is in a tunnel.
    pub(super) outer: Option<Outer>,
    pub(super) version: IpVersion,
    /// The IP header.
    pub(super) l3: usize,
    pub(super) transport: Transport,
    /// The transport header.
    pub(super) l4: usize,
    /// The payload.
    pub(super) payload: usize,
    /// The end of the payload; what lies beyond is padding.
    pub(super) end: usize,
}

/// The outer headers. Their fixed parts lie before the inner IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) version: IpVersion,
    /// The IP header.
    pub(super) l3: usize,
    /// The UDP or GRE header.
    pub(super) l4: usize,
    pub(super) shim: Shim,
}

/// What carries the inner packet, and what of it must follow its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shim {
    /// A length and, if it is not 0, a checksum.
    Udp,
    /// The checksum, if there is one.
    Gre { has_checksum: bool, has_sequence: bool },
}

/// An IP packet in the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    version: IpVersion,
    l3: usize,
    pub(super) protocol: u8,
    pub(super) l4: usize,
    pub(super) end: usize,
    /// The checksum is over an address that is not yet in the destination field.
    source_routed: bool,
}

impl Layout {
    /// `start` is where the unfinished checksum starts, which is that of the innermost packet.
    pub(super) fn parse(frame: &[u8], kind: GsoKind, start: usize) -> Result<Self, SegmentError> {
        let (transport, wanted) = match kind {
            GsoKind::TcpV4 | GsoKind::TcpV6 => (Transport::Tcp, TCP),
            GsoKind::Udp => (Transport::Udp, UDP),
        };
        let (l3, ether_type) = network_layer(frame, 0)?;
        let ip = Ip::parse(frame, l3, ether_type, kind)?;
        let (outer, ip, ether_type) = if ip.protocol != TCP && start >= ip.l4.saturating_add(TRANSPORT) {
            let content = frame.get(..ip.end).ok_or(SegmentError::Truncated { need: ip.end, have: frame.len() })?;
            let (shim, l3, ether_type) = tunnel::inside(content, &ip)?;
            // The next packet has the number that the second segment would need.
            if matches!(shim, Shim::Gre { has_sequence: true, .. }) {
                return Err(SegmentError::UnknownTunnel { at: ip.l4 });
            }
            let inner = Ip::parse(content, l3, ether_type, kind)?;
            if inner.l4 != start {
                return Err(SegmentError::WrongStart { start, l4: inner.l4 });
            }
            (Some(Outer { version: ip.version, l3: ip.l3, l4: ip.l4, shim }), inner, ether_type)
        } else {
            (None, ip, ether_type)
        };
        let expected = match kind {
            GsoKind::TcpV4 => Some(IpVersion::V4),
            GsoKind::TcpV6 => Some(IpVersion::V6),
            GsoKind::Udp => None,
        };
        if expected.is_some_and(|version| version != ip.version) {
            return Err(SegmentError::WrongEtherType { ether_type, kind });
        }
        if ip.protocol != wanted {
            return Err(SegmentError::WrongProtocol { protocol: ip.protocol });
        }
        let payload = match transport {
            Transport::Tcp => tcp(frame, ip.l4)?,
            Transport::Udp => ip.l4.saturating_add(TRANSPORT),
        };
        if payload > ip.end || ip.end > frame.len() {
            return Err(SegmentError::Truncated { need: payload.max(ip.end), have: frame.len().min(ip.end) });
        }
        Ok(Self { outer, version: ip.version, l3: ip.l3, transport, l4: ip.l4, payload, end: ip.end })
    }

    /// Where the outermost IP header lies.
    pub(super) fn first_ip(&self) -> usize {
        self.outer.map_or(self.l3, |outer| outer.l3)
    }
}

impl IpVersion {
    pub(super) const fn of(ether_type: EtherType) -> Option<Self> {
        match ether_type {
            EtherType::IPV4 => Some(Self::V4),
            EtherType::IPV6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Source and destination address of a header, which lie side by side in both versions.
    pub(super) fn addresses(self, header: &[u8]) -> Option<&[u8]> {
        let (at, len) = match self {
            Self::V4 => (12, 8),
            Self::V6 => (8, 32),
        };
        header.get(at..)?.get(..len)
    }
}

impl Ip {
    /// One that is to be cut.
    fn parse(frame: &[u8], l3: usize, ether_type: EtherType, kind: GsoKind) -> Result<Self, SegmentError> {
        let version = IpVersion::of(ether_type).ok_or(SegmentError::WrongEtherType { ether_type, kind })?;
        let ip = Self::find(frame, l3, version)?;
        let ip = ip.ok_or(SegmentError::WrongVersion { version: byte(frame, l3)? >> 4, kind })?;
        if ip.source_routed { Err(SegmentError::SourceRouted) } else { Ok(ip) }
    }

    /// One that is whole. `None`: the header is of another version.
    pub(super) fn find(frame: &[u8], l3: usize, version: IpVersion) -> Result<Option<Self>, SegmentError> {
        match (version, byte(frame, l3)? >> 4) {
            (IpVersion::V4, 4) => ipv4(frame, l3).map(Some),
            (IpVersion::V6, 6) => ipv6(frame, l3).map(Some),
            _ => Ok(None),
        }
    }
}

/// Start and type of what follows an Ethernet header and its VLAN tags.
pub(super) fn network_layer(frame: &[u8], at: usize) -> Result<(usize, EtherType), SegmentError> {
    let mut next = at.saturating_add(EthernetHeader::LEN);
    let mut ether_type = EtherType(half(frame, next.saturating_sub(2))?);
    for _ in 0..MAX_VLANS {
        if !ether_type.is_vlan() {
            break;
        }
        ether_type = EtherType(half(frame, next.saturating_add(2))?);
        next = next.saturating_add(4);
    }
    Ok((next, ether_type))
}

fn ipv4(frame: &[u8], l3: usize) -> Result<Ip, SegmentError> {
    let header_len = usize::from(byte(frame, l3)? & 0x0f).saturating_mul(4);
    if header_len < 20 {
        return Err(SegmentError::HeaderLength { at: l3, len: header_len });
    }
    // All but "don't fragment": either "more fragments" or an offset.
    if half(frame, l3.saturating_add(6))? & 0xbfff != 0 {
        return Err(SegmentError::Fragment);
    }
    let protocol = byte(frame, l3.saturating_add(9))?;
    let total = usize::from(half(frame, l3.saturating_add(2))?);
    let (l4, end) = (l3.saturating_add(header_len), end(frame, l3, total));
    Ok(Ip { version: IpVersion::V4, l3, protocol, l4, end, source_routed: false })
}

/// What it carries is behind all extension headers.
fn ipv6(frame: &[u8], l3: usize) -> Result<Ip, SegmentError> {
    let payload_len = usize::from(half(frame, l3.saturating_add(4))?);
    let mut next = byte(frame, l3.saturating_add(6))?;
    let mut at = l3.saturating_add(40);
    let end = end(frame, at, payload_len);
    let mut source_routed = false;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            FRAGMENT => return Err(SegmentError::Fragment),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                source_routed |= next == ROUTING && byte(frame, at.saturating_add(3))? != 0;
                next = byte(frame, at)?;
                let units = usize::from(byte(frame, at.saturating_add(1))?);
                at = at.saturating_add(units.saturating_add(1).saturating_mul(8));
            }
            protocol => return Ok(Ip { version: IpVersion::V6, l3, protocol, l4: at, end, source_routed }),
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

pub(super) fn byte(frame: &[u8], at: usize) -> Result<u8, SegmentError> {
    match frame.get(at) {
        Some(byte) => Ok(*byte),
        None => Err(SegmentError::Truncated { need: at.saturating_add(1), have: frame.len() }),
    }
}

pub(super) fn half(frame: &[u8], at: usize) -> Result<u16, SegmentError> {
    match frame.get(at..).and_then(<[u8]>::first_chunk) {
        Some(octets) => Ok(u16::from_be_bytes(*octets)),
        None => Err(SegmentError::Truncated { need: at.saturating_add(2), have: frame.len() }),
    }
}
