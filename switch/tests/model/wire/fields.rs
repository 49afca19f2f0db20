// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What headers say.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Field, Fragment, Tunnel};

use super::{ARP, Group, ICMP, ICMPV6, Ip, TCP, Tuple, UDP, half, number, read, word};

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
pub(super) fn address_place(version: u8, network: usize, which: usize) -> (usize, usize) {
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

pub(super) fn ip_address(bytes: &[u8]) -> IpAddr {
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

/// Source and destination of the inner IP header.
pub(crate) fn addresses(bytes: &[u8]) -> Option<[IpAddr; 2]> {
    let view = read(bytes).ok()?;
    let address = |which| place_of_address(&view.inner, which).map(|(at, len)| ip_address(&bytes[at..at + len]));
    Some([address(0)?, address(1)?])
}

/// Where an address lies in a group that has this IP version.
pub(crate) fn place_of_address(group: &Group, which: usize) -> Option<(usize, usize)> {
    group.ip.as_ref().map(|ip| address_place(ip.version, group.network, which))
}
