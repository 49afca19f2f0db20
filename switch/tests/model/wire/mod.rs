// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Headers in bytes: read anew whenever somebody asks, changed in place, all checksums summed from scratch.
//! Nothing is remembered between two questions, and nothing is shared with the crate `packet` but the names of
//! fields.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | where headers lie |
//! | `fields.rs` | what they say |
//! | `change.rs` | other values, and checksums |
//! | `quoted.rs` | what ICMP errors quote |
//! | `parts.rs` | fragments |

mod change;
mod fields;
mod parts;
mod quoted;

use core::net::IpAddr;

use packet::{DropCause, Fragment, Tunnel};

pub(crate) use self::change::{mend, resize_outer, set_addresses, set_class, set_ttl, set_tuple};
pub(crate) use self::fields::{
    Segment, addresses, arp, class, destination, field, is_echo, is_icmp, octets, place_of_address, segment, ttl, tuple,
};
pub(crate) use self::parts::{Part, cut, follow_first, part};
pub(crate) use self::quoted::{is_error, quoted, set_quoted};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const VXLAN_PORT: u16 = 4789;
pub(crate) const GENEVE_PORT: u16 = 6081;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const BRIDGING: u16 = 0x6558;

/// Where the headers of a frame lie.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The group around the inner one, and the tunnel between the two.
    pub(crate) outer: Option<(Group, Shim)>,
    pub(crate) inner: Group,
}

/// Ethernet, VLAN tags, network header.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) ethernet: Option<usize>,
    /// Of each tag where its type lies; the first two.
    pub(crate) tags: Vec<usize>,
    /// Behind the tags; 0 for a length.
    pub(crate) ether_type: u16,
    pub(crate) network: usize,
    pub(crate) ip: Option<Ip>,
}

#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) version: u8,
    pub(crate) protocol: u8,
    pub(crate) fragment: Fragment,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// Where the IP packet ends.
    pub(crate) end: usize,
}

/// A tunnel's header.
#[derive(Clone, Debug)]
pub(crate) struct Shim {
    pub(crate) tunnel: Tunnel,
    /// Where the UDP or GRE header begins.
    pub(crate) at: usize,
    /// Where the key lies.
    pub(crate) key: usize,
    pub(crate) payload: usize,
    pub(crate) end: usize,
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tuple {
    pub(crate) protocol: u8,
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination: IpAddr,
    pub(crate) destination_port: u16,
}

impl Tuple {
    pub(crate) fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }

    pub(crate) fn is_echo(self) -> bool {
        self.protocol == if self.source.is_ipv4() { ICMP } else { ICMPV6 }
    }

    pub(crate) fn has_ports(self) -> bool {
        self.is_echo() || matches!(self.protocol, TCP | UDP)
    }
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Result<u16, DropCause> {
    Ok(u16::from_be_bytes(bytes.get(at..at + 2).ok_or(DropCause::Malformed)?.try_into().unwrap()))
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Result<u32, DropCause> {
    Ok(u32::from_be_bytes(bytes.get(at..at + 4).ok_or(DropCause::Malformed)?.try_into().unwrap()))
}

pub(crate) fn byte(bytes: &[u8], at: usize) -> Result<u8, DropCause> {
    bytes.get(at).copied().ok_or(DropCause::Malformed)
}

fn number(bytes: &[u8], at: usize, len: usize) -> u128 {
    bytes[at..at + len].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Finds the headers.
pub(crate) fn read(bytes: &[u8]) -> Result<View, DropCause> {
    if bytes.len() < 14 {
        return Err(DropCause::Runt);
    }
    let first = group(bytes, 0, bytes.len())?;
    match tunnel(bytes, &first)? {
        None => Ok(View { outer: None, inner: first }),
        Some(shim) => {
            let inner = match half(bytes, shim.at + 2)? {
                inside @ (IPV4 | IPV6) if shim.tunnel == Tunnel::Gre => {
                    network(bytes, None, Vec::new(), inside, shim.payload, shim.end)?
                }
                _ => group(bytes, shim.payload, shim.end)?,
            };
            Ok(View { outer: Some((first, shim)), inner })
        }
    }
}

fn group(bytes: &[u8], at: usize, end: usize) -> Result<Group, DropCause> {
    let bytes = &bytes[..end];
    let (mut next, mut tags) = (at + 12, Vec::new());
    while matches!(half(bytes, next)?, 0x8100 | 0x88a8) && tags.len() < 2 {
        half(bytes, next + 4)?;
        tags.push(next);
        next += 4;
    }
    let ether_type = half(bytes, next)?;
    let ether_type = if ether_type < 0x600 { 0 } else { ether_type };
    network(bytes, Some(at), tags, ether_type, next + 2, end)
}

fn network(
    bytes: &[u8],
    ethernet: Option<usize>,
    tags: Vec<usize>,
    ether_type: u16,
    network: usize,
    end: usize,
) -> Result<Group, DropCause> {
    let bytes = &bytes[..end];
    let ip = match ether_type {
        IPV4 => Some(ipv4(bytes, network)?),
        IPV6 => Some(ipv6(bytes, network)?),
        _ => None,
    };
    if let Some(ip) = &ip {
        let need = match ip.protocol {
            _ if ip.fragment == Fragment::Later => 0,
            TCP => 20,
            UDP => 8,
            ICMP if ip.version == 4 => 8,
            ICMPV6 if ip.version == 6 => 8,
            _ => 0,
        };
        if ip.transport + need > ip.end {
            return Err(DropCause::Malformed);
        }
    }
    Ok(Group { ethernet, tags, ether_type, network, ip })
}

fn ipv4(bytes: &[u8], at: usize) -> Result<Ip, DropCause> {
    word(bytes, at + 16)?;
    let (transport, end) = (at + usize::from(bytes[at] & 15) * 4, at + usize::from(half(bytes, at + 2)?));
    if bytes[at] >> 4 != 4 || transport < at + 20 || end < transport || end > bytes.len() {
        return Err(DropCause::Malformed);
    }
    let field = half(bytes, at + 6)?;
    let fragment = match (field & 0x1fff, field & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Ip { version: 4, protocol: bytes[at + 9], fragment, transport, end })
}

fn ipv6(bytes: &[u8], at: usize) -> Result<Ip, DropCause> {
    word(bytes, at + 36)?;
    let end = at + 40 + usize::from(half(bytes, at + 4)?);
    if bytes[at] >> 4 != 6 || end > bytes.len() {
        return Err(DropCause::Malformed);
    }
    let (mut protocol, mut transport, mut fragment) = (bytes[at + 6], at + 40, Fragment::Whole);
    // Hop by hop, routing, destination options; a fragment header.
    while fragment != Fragment::Later {
        let len = match protocol {
            0 | 43 | 60 => usize::from(byte(bytes, transport + 1)?) * 8 + 8,
            44 => {
                let field = half(bytes, transport + 2)?;
                fragment = match (field & 0xfff8, field & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => break,
        };
        (protocol, transport) = (byte(bytes, transport)?, transport + len);
    }
    Ok(Ip { version: 6, protocol, fragment, transport, end })
}

/// The tunnel whose outer group this is.
fn tunnel(bytes: &[u8], group: &Group) -> Result<Option<Shim>, DropCause> {
    let Some(ip) = &group.ip else { return Ok(None) };
    if group.tags.len() > 1 || ip.fragment != Fragment::Whole {
        return Ok(None);
    }
    let at = ip.transport;
    if ip.protocol == GRE {
        let (flags, protocol) = (half(bytes, at)?, half(bytes, at + 2)?);
        let optional = |flag: u16| if flags & flag == 0 { 0 } else { 4 };
        let key = at + 4 + optional(0x8000);
        let payload = key + optional(0x2000) + optional(0x1000);
        let tunnel = match protocol {
            _ if flags & 0x4c07 != 0 => return Ok(None),
            BRIDGING if flags & 0x2000 != 0 => Tunnel::Nvgre,
            IPV4 | IPV6 => Tunnel::Gre,
            _ => return Ok(None),
        };
        return Ok(Some(Shim { tunnel, at, key, payload, end: ip.end }));
    }
    if ip.protocol != UDP {
        return Ok(None);
    }
    let end = at + usize::from(half(bytes, at + 4)?);
    if end < at + 16 || end > ip.end {
        return Ok(None);
    }
    let shim = |tunnel, payload| Some(Shim { tunnel, at, key: at + 12, payload, end });
    Ok(match half(bytes, at + 2)? {
        VXLAN_PORT if bytes[at + 8] & 8 != 0 => shim(Tunnel::Vxlan, at + 16),
        GENEVE_PORT if bytes[at + 8] >> 6 == 0 && half(bytes, at + 10)? == BRIDGING => {
            shim(Tunnel::Geneve, at + 16 + usize::from(bytes[at + 8] & 63) * 4)
        }
        _ => None,
    })
}
