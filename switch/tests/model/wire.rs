// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Headers in bytes: read anew whenever somebody asks, changed in place, all checksums summed from scratch.
//! Nothing is remembered between two questions, and nothing is shared with the crate `packet` but the names of
//! fields.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{DropCause, Field, Fragment, Tunnel};

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

/// The value of a field, as `packet::Field` describes it.
pub(crate) fn field(bytes: &[u8], field: Field) -> u128 {
    let Ok(view) = read(bytes) else { return 0 };
    let outer = view.outer.as_ref().map(|(group, _)| group);
    let inner = Some(&view.inner);
    match field {
        Field::EthDst => mac(bytes, inner, 0),
        Field::EthSrc => mac(bytes, inner, 6),
        Field::EtherType => view.inner.ether_type.into(),
        Field::Vlan => tag(bytes, inner, 0),
        Field::SecondVlan => tag(bytes, inner, 1),
        Field::IpVersion => version(inner),
        Field::IpSrc => address(bytes, inner, 0),
        Field::IpDst => address(bytes, inner, 1),
        Field::IpProto => match &view.inner.ip {
            Some(ip) => ip.protocol.into(),
            None if arp(bytes, &view.inner) => bytes[view.inner.network + 7].into(),
            None => 0,
        },
        Field::Dscp => dscp(bytes, inner),
        Field::Fragment => view.inner.ip.as_ref().map_or(0, |ip| ip.fragment as u128),
        Field::L4Src => ports(bytes, &view.inner).0.into(),
        Field::L4Dst => ports(bytes, &view.inner).1.into(),
        Field::Tunnel => view.outer.as_ref().map_or(0, |(_, shim)| shim.tunnel as u128),
        Field::TunnelKey => view.outer.as_ref().map_or(0, |(_, shim)| match shim.tunnel {
            Tunnel::Gre if bytes[shim.at] & 0x20 == 0 => 0,
            Tunnel::Gre => number(bytes, shim.key, 4),
            _ => number(bytes, shim.key, 3),
        }),
        Field::OuterEthDst => mac(bytes, outer, 0),
        Field::OuterEthSrc => mac(bytes, outer, 6),
        Field::OuterVlan => tag(bytes, outer, 0),
        Field::OuterIpVersion => version(outer),
        Field::OuterIpSrc => address(bytes, outer, 0),
        Field::OuterIpDst => address(bytes, outer, 1),
        Field::OuterDscp => dscp(bytes, outer),
    }
}

fn mac(bytes: &[u8], group: Option<&Group>, offset: usize) -> u128 {
    group.and_then(|group| group.ethernet).map_or(0, |at| number(bytes, at + offset, 6))
}

fn tag(bytes: &[u8], group: Option<&Group>, index: usize) -> u128 {
    group.and_then(|group| group.tags.get(index)).map_or(0, |at| number(bytes, at + 2, 2) | 0x1000)
}

fn version(group: Option<&Group>) -> u128 {
    group.and_then(|group| group.ip.as_ref()).map_or(0, |ip| ip.version.into())
}

fn dscp(bytes: &[u8], group: Option<&Group>) -> u128 {
    group.filter(|group| group.ip.is_some()).map_or(0, |group| u128::from(class(bytes, group) >> 2))
}

/// ARP for IPv4 over Ethernet.
pub(crate) fn arp(bytes: &[u8], group: &Group) -> bool {
    let at = group.network;
    group.ether_type == ARP && bytes.get(at..at + 28).is_some_and(|arp| arp.starts_with(&[0, 1, 8, 0, 6, 4]))
}

fn address(bytes: &[u8], group: Option<&Group>, which: usize) -> u128 {
    match group {
        Some(group) if arp(bytes, group) => number(bytes, group.network + 14 + which * 10, 4),
        Some(Group { ip: Some(ip), network, .. }) => {
            let (at, len) = address_place(ip.version, *network, which);
            number(bytes, at, len)
        }
        _ => 0,
    }
}

/// Where the source or the destination lies, and how long it is.
fn address_place(version: u8, network: usize, which: usize) -> (usize, usize) {
    if version == 4 { (network + 12 + which * 4, 4) } else { (network + 8 + which * 16, 16) }
}

/// Traffic class: DSCP and ECN.
pub(crate) fn class(bytes: &[u8], group: &Group) -> u8 {
    let at = group.network;
    if bytes[at] >> 4 == 4 { bytes[at + 1] } else { bytes[at] << 4 | bytes[at + 1] >> 4 }
}

pub(crate) fn ttl(bytes: &[u8], group: &Group) -> u8 {
    bytes[group.network + if bytes[group.network] >> 4 == 4 { 8 } else { 7 }]
}

/// Whether it is the request or the reply of an ICMP echo.
pub(crate) fn is_echo(bytes: &[u8], ip: &Ip) -> bool {
    ip.fragment != Fragment::Later
        && match (ip.version, ip.protocol) {
            (4, ICMP) => matches!(bytes[ip.transport], 0 | 8),
            (6, ICMPV6) => matches!(bytes[ip.transport], 128 | 129),
            _ => false,
        }
}

pub(crate) fn is_icmp(ip: &Ip) -> bool {
    matches!((ip.version, ip.protocol), (4, ICMP) | (6, ICMPV6))
}

/// Source and destination port as fields have them: of ICMP the identifier of an echo, and type and code.
fn ports(bytes: &[u8], group: &Group) -> (u16, u16) {
    let Some(ip) = group.ip.as_ref().filter(|ip| ip.fragment != Fragment::Later) else { return (0, 0) };
    let at = |offset| half(bytes, ip.transport + offset).unwrap_or(0);
    match ip.protocol {
        TCP | UDP => (at(0), at(2)),
        _ if is_icmp(ip) => (if is_echo(bytes, ip) { at(4) } else { 0 }, at(0)),
        _ => (0, 0),
    }
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// Where its IP header lies, and its transport header.
    network: usize,
    transport: usize,
    /// Where the quotation ends.
    end: usize,
    pub(crate) tuple: Tuple,
}

/// Whether the packet is an ICMP error.
pub(crate) fn is_error(bytes: &[u8]) -> bool {
    let Ok(View { inner: Group { ip: Some(ip), .. }, .. }) = read(bytes) else { return false };
    let kind = byte(bytes, ip.transport).unwrap_or(0);
    ip.fragment == Fragment::Whole
        && match (ip.version, ip.protocol) {
            (4, ICMP) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (6, ICMPV6) => matches!(kind, 1..=4),
            _ => false,
        }
}

/// What an ICMP error quotes, if it has a tuple.
pub(crate) fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let outer = read(bytes).ok()?.inner.ip.filter(|_| is_error(bytes))?;
    let network = outer.transport + 8;
    let quote = bytes.get(network..outer.end)?;
    let (version, header_len, protocol) = match quote.first()? >> 4 {
        4 => (4, usize::from(quote[0] & 15) * 4, *quote.get(9)?),
        6 => (6, 40, *quote.get(6)?),
        _ => return None,
    };
    let transport = network + header_len;
    let port = |offset| half(&bytes[..outer.end], transport + offset).ok();
    let echo = match (version, protocol) {
        (4, ICMP) => Some([0, 8]),
        (6, ICMPV6) => Some([128, 129]),
        _ => None,
    };
    let (source_port, destination_port) = match (protocol, echo) {
        (TCP | UDP, _) => (port(0)?, port(2)?),
        (_, Some(kinds)) if kinds.contains(&byte(bytes, transport).ok()?) => (port(4)?, port(4)?),
        (_, Some(_)) => return None,
        _ => (0, 0),
    };
    let address = |which| {
        let (at, len) = address_place(version, network, which);
        bytes.get(at..at + len).filter(|_| at + len <= outer.end).map(ip_address)
    };
    let tuple = Tuple { protocol, source: address(0)?, source_port, destination: address(1)?, destination_port };
    (version == outer.version).then_some(Quoted { network, transport, end: outer.end, tuple })
}

/// Makes what an ICMP error quotes a packet of another tuple. Of what is not quoted no checksum can be made
/// anew: those that are there follow by what has changed.
pub(crate) fn set_quoted(bytes: &mut [u8], to: Tuple) {
    let Quoted { network, transport, end, tuple } = quoted(bytes).unwrap();
    let version = bytes[network] >> 4;
    let mut changed = 0;
    let mut put = |bytes: &mut [u8], at: usize, new: &[u8]| {
        changed += i64::from(sum(&bytes[at..at + new.len()], 0)) - i64::from(sum(new, 0));
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    for (which, address) in [(0, to.source), (1, to.destination)] {
        put(bytes, address_place(version, network, which).0, &octets(address));
    }
    // The checksum of ICMP for IPv4 does not cover addresses.
    let covers = !(version == 4 && tuple.protocol == ICMP);
    let addresses = std::mem::take(&mut changed);
    let mut put = |bytes: &mut [u8], at: usize, new: &[u8]| {
        changed += i64::from(sum(&bytes[at..at + new.len()], 0)) - i64::from(sum(new, 0));
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    match tuple.protocol {
        TCP | UDP => {
            put(bytes, transport, &to.source_port.to_be_bytes());
            put(bytes, transport + 2, &to.destination_port.to_be_bytes());
        }
        _ if tuple.is_echo() => put(bytes, transport + 4, &to.source_port.to_be_bytes()),
        _ => {}
    }
    let follow = |bytes: &mut [u8], at: usize, changed: i64| {
        let new = (i64::from(half(bytes, at).unwrap()) + changed).rem_euclid(0xffff);
        bytes[at..at + 2].copy_from_slice(&u16::try_from(new).unwrap().to_be_bytes());
    };
    if version == 4 {
        follow(bytes, network + 10, addresses);
    }
    let offset = match tuple.protocol {
        TCP => Some(16),
        UDP => Some(6),
        _ if tuple.is_echo() => Some(2),
        _ => None,
    };
    if let Some(at) = offset.map(|offset| transport + offset).filter(|at| at + 2 <= end) {
        let is_udp = tuple.protocol == UDP;
        if !(is_udp && bytes[at..at + 2] == [0, 0]) {
            follow(bytes, at, changed + if covers { addresses } else { 0 });
            if is_udp && bytes[at..at + 2] == [0, 0] {
                bytes[at..at + 2].fill(0xff);
            }
        }
    }
    mend(bytes);
}

/// The tuple of the inner headers, if there is one.
pub(crate) fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let view = read(bytes).ok()?;
    let ip = view.inner.ip.as_ref()?;
    let (source_port, destination_port) = match ports(bytes, &view.inner) {
        (id, _) if is_echo(bytes, ip) => (id, id),
        _ if is_icmp(ip) => return None,
        ports => ports,
    };
    let address = |which| {
        let (at, len) = address_place(ip.version, view.inner.network, which);
        ip_address(&bytes[at..at + len])
    };
    let (source, destination) = (address(0), address(1));
    Some(Tuple { protocol: ip.protocol, source, source_port, destination, destination_port })
}

fn ip_address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => Ipv4Addr::from(bytes).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).into(),
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The destination address, of ARP the target's.
pub(crate) fn destination(bytes: &[u8]) -> Option<IpAddr> {
    let view = read(bytes).ok()?;
    match &view.inner.ip {
        Some(_) => {
            let value = field(bytes, Field::IpDst);
            Some(if field(bytes, Field::IpVersion) == 4 {
                Ipv4Addr::from(u32::try_from(value).unwrap()).into()
            } else {
                Ipv6Addr::from(value).into()
            })
        }
        None if arp(bytes, &view.inner) => Some(ip_address(&bytes[view.inner.network + 24..view.inner.network + 28])),
        None => None,
    }
}

/// TCP as [`segment`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: u32,
}

/// The TCP header of the inner packet.
pub(crate) fn segment(bytes: &[u8]) -> Option<Segment> {
    let view = read(bytes).ok()?;
    let ip = view.inner.ip.filter(|ip| ip.protocol == TCP && ip.fragment != Fragment::Later)?;
    let at = ip.transport;
    let payload = at + usize::from(bytes[at + 12] >> 4) * 4;
    let (seq, ack) = (word(bytes, at + 4).ok()?, word(bytes, at + 8).ok()?);
    Some(Segment { flags: bytes[at + 13], seq, ack, len: u32::try_from(ip.end - payload).unwrap() })
}

/// Gives the packet other addresses, of its IP version.
pub(crate) fn set_addresses(bytes: &mut [u8], source: IpAddr, destination: IpAddr) {
    let view = read(bytes).unwrap();
    for (which, address) in [(0, source), (1, destination)] {
        let (at, len) = place_of_address(&view.inner, which).unwrap();
        bytes[at..at + len].copy_from_slice(&octets(address));
    }
    mend(bytes);
}

/// Source and destination of the inner IP header.
pub(crate) fn addresses(bytes: &[u8]) -> Option<[IpAddr; 2]> {
    let view = read(bytes).ok()?;
    let address = |which| place_of_address(&view.inner, which).map(|(at, len)| ip_address(&bytes[at..at + len]));
    Some([address(0)?, address(1)?])
}

/// Makes the packet one of another tuple, of the same protocol and IP version.
pub(crate) fn set_tuple(bytes: &mut [u8], to: Tuple) {
    let view = read(bytes).unwrap();
    let ip = view.inner.ip.unwrap();
    for (which, address) in [(0, to.source), (1, to.destination)] {
        let (at, len) = address_place(ip.version, view.inner.network, which);
        bytes[at..at + len].copy_from_slice(&octets(address));
    }
    if ip.fragment != Fragment::Later {
        let at = ip.transport;
        if is_echo(bytes, &ip) {
            bytes[at + 4..at + 6].copy_from_slice(&to.source_port.to_be_bytes());
        } else if to.has_ports() {
            bytes[at..at + 2].copy_from_slice(&to.source_port.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&to.destination_port.to_be_bytes());
        }
    }
    mend(bytes);
}

pub(crate) fn set_class(bytes: &mut [u8], group: &Group, class: u8) {
    let at = group.network;
    if bytes[at] >> 4 == 4 {
        bytes[at + 1] = class;
    } else {
        bytes[at] = 0x60 | class >> 4;
        bytes[at + 1] = class << 4 | bytes[at + 1] & 15;
    }
}

pub(crate) fn set_ttl(bytes: &mut [u8], group: &Group, ttl: u8) {
    bytes[group.network + if bytes[group.network] >> 4 == 4 { 8 } else { 7 }] = ttl;
}

/// Where an address lies in a group that has this IP version.
pub(crate) fn place_of_address(group: &Group, which: usize) -> Option<(usize, usize)> {
    group.ip.as_ref().map(|ip| address_place(ip.version, group.network, which))
}

/// Makes the lengths of an outer group right after what it carries has grown or shrunk.
pub(crate) fn resize_outer(bytes: &mut [u8], by: i32) {
    let first = network_of_first(bytes);
    let add = |bytes: &mut [u8], at: usize| {
        let new = u16::try_from(i32::from(half(bytes, at).unwrap()) + by).unwrap();
        bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    };
    let (protocol, transport) = if bytes[first] >> 4 == 4 {
        add(bytes, first + 2);
        (bytes[first + 9], first + usize::from(bytes[first] & 15) * 4)
    } else {
        add(bytes, first + 4);
        (bytes[first + 6], first + 40)
    };
    if protocol == UDP {
        add(bytes, transport + 4);
    }
}

fn network_of_first(bytes: &[u8]) -> usize {
    if matches!(half(bytes, 12).unwrap(), 0x8100 | 0x88a8) { 18 } else { 14 }
}

/// Computes all checksums anew, from the inside out. A UDP checksum of 0, which says that there is none,
/// stays; so does that of a fragment's transport header, of which only a part is here.
pub(crate) fn mend(bytes: &mut [u8]) {
    let view = read(bytes).unwrap();
    mend_group(bytes, &view.inner);
    if let Some((group, shim)) = &view.outer {
        mend_group(bytes, group);
        if group.ip.as_ref().unwrap().protocol == GRE && bytes[shim.at] & 0x80 != 0 {
            let at = shim.at;
            bytes[at + 4..at + 6].fill(0);
            let sum = !sum(&bytes[at..shim.end], 0);
            bytes[at + 4..at + 6].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn mend_group(bytes: &mut [u8], group: &Group) {
    let Some(ip) = &group.ip else { return };
    let at = group.network;
    if ip.version == 4 {
        let end = at + usize::from(bytes[at] & 15) * 4;
        bytes[at + 10..at + 12].fill(0);
        let sum = !sum(&bytes[at..end], 0);
        bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if ip.fragment != Fragment::Whole {
        return;
    }
    let start = ip.transport;
    let (offset, pseudo, end) = match ip.protocol {
        TCP => (16, true, ip.end),
        UDP => (6, true, start + usize::from(half(bytes, start + 4).unwrap())),
        ICMP if ip.version == 4 => (2, false, ip.end),
        ICMPV6 if ip.version == 6 => (2, true, ip.end),
        _ => return,
    };
    let field = start + offset..start + offset + 2;
    if ip.protocol == UDP && bytes[field.clone()] == [0, 0] {
        return;
    }
    bytes[field.clone()].fill(0);
    let mut header = 0;
    if pseudo {
        let (source, len) = address_place(ip.version, at, 0);
        header = u32::from(sum(&bytes[source..source + 2 * len], 0))
            + u32::from(ip.protocol)
            + u32::try_from(end - start).unwrap();
    }
    let computed = !sum(&bytes[start..end], header);
    let computed = if computed == 0 && matches!(ip.protocol, TCP | UDP) { 0xffff } else { computed };
    bytes[field].copy_from_slice(&computed.to_be_bytes());
}

/// Makes the transport checksum of a first fragment follow what has changed: of its datagram only a part is here.
pub(crate) fn follow_first(before: &[u8], bytes: &mut [u8]) {
    let (Ok(was), Ok(is)) = (read(before), read(bytes)) else { return };
    let (Some(old), Some(new)) = (&was.inner.ip, &is.inner.ip) else { return };
    if new.fragment != Fragment::First || old.fragment != Fragment::First {
        return;
    }
    let (offset, pseudo) = match new.protocol {
        TCP => (16, true),
        UDP => (6, true),
        ICMP if new.version == 4 => (2, false),
        ICMPV6 if new.version == 6 => (2, true),
        _ => return,
    };
    let covered = |bytes: &[u8], group: &Group, ip: &Ip| {
        let (addresses, len) = address_place(ip.version, group.network, 0);
        let pseudo = if pseudo { sum(&bytes[addresses..addresses + 2 * len], 0).into() } else { 0 };
        // Ports, or the identifier.
        let ports = if matches!(ip.protocol, TCP | UDP) { 0 } else { 4 };
        pseudo + i64::from(sum(&bytes[ip.transport + ports..ip.transport + ports + 4], 0))
    };
    let changed = covered(before, &was.inner, old) - covered(bytes, &is.inner, new);
    let at = new.transport + offset;
    if changed == 0 || new.protocol == UDP && bytes[at..at + 2] == [0, 0] {
        return;
    }
    let sum = (i64::from(half(bytes, at).unwrap()) + changed).rem_euclid(0xffff);
    let sum = if sum == 0 && matches!(new.protocol, TCP | UDP) { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    mend(bytes);
}

/// What a fragment is a part of, and which part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Tunnel, addresses, protocol, identification.
    pub(crate) datagram: [u128; 7],
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
    /// The bytes of the datagram that it has.
    pub(crate) bytes: std::ops::Range<usize>,
}

/// Whether the inner packet is a fragment, and of what.
pub(crate) fn part(bytes: &[u8]) -> Option<Part> {
    let view = read(bytes).ok()?;
    let ip = view.inner.ip.as_ref().filter(|ip| ip.fragment != Fragment::Whole)?;
    let at = view.inner.network;
    let (id, offset, more, start) = if ip.version == 4 {
        let field = half(bytes, at + 6).unwrap();
        let start = at + usize::from(bytes[at] & 15) * 4;
        (half(bytes, at + 4).unwrap().into(), usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, start)
    } else {
        // The fragment header is the only one here.
        let header = at + 40;
        let field = half(bytes, header + 2).unwrap();
        (word(bytes, header + 4).unwrap(), usize::from(field & 0xfff8), field & 1 != 0, header + 8)
    };
    let value = |of| field(bytes, of);
    Some(Part {
        datagram: [
            value(Field::Tunnel),
            value(Field::TunnelKey),
            value(Field::IpVersion),
            value(Field::IpSrc),
            value(Field::IpDst),
            value(Field::IpProto),
            id.into(),
        ],
        is_first: ip.fragment == Fragment::First,
        is_last: !more,
        bytes: offset..offset + (ip.end - start),
    })
}

/// Cuts a packet without tunnel into fragments of its IP payload.
pub(crate) fn cut(bytes: &[u8], id: u16, pieces: &[std::ops::Range<usize>]) -> Option<Vec<Vec<u8>>> {
    let view = read(bytes).ok().filter(|view| view.outer.is_none())?;
    let ip = view.inner.ip?;
    let (at, payload) = (view.inner.network, &bytes[ip.transport..ip.end]);
    let piece = |range: &std::ops::Range<usize>| {
        let end = range.end.min(payload.len());
        let more = end < payload.len();
        let start = range.start;
        let part = payload.get(start..end).filter(|part| !part.is_empty())?;
        let mut piece = bytes[..ip.transport].to_vec();
        let offset = u16::try_from(start).unwrap();
        if ip.version == 4 {
            let len = u16::try_from(20 + part.len()).unwrap();
            let field = offset / 8 | if more { 0x2000 } else { 0 };
            for (place, value) in [(2, len), (4, id), (6, field)] {
                piece[at + place..at + place + 2].copy_from_slice(&value.to_be_bytes());
            }
        } else {
            let len = u16::try_from(8 + part.len()).unwrap();
            piece[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
            piece[at + 6] = 44;
            piece.extend([ip.protocol, 0]);
            piece.extend((offset | u16::from(more)).to_be_bytes());
            piece.extend(u32::from(id).to_be_bytes());
        }
        piece.extend(part);
        mend(&mut piece);
        Some(piece)
    };
    pieces.iter().map(piece).collect()
}

/// The sum of all pairs of bytes in ones' complement.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
