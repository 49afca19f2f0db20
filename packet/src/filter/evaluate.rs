// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tree, evaluated over one packet.

use super::parse::{TCP, UDP};
use super::{End, Node, Primitive};
use crate::ufid::VLAN_PRESENT;
use crate::{EtherType, EthernetHeader, Field, Fragment, MacAddr, Tunnel, Ufid, WINDOW, parse};

/// Whether a frame is one of those that a tree describes.
pub(super) fn matches(node: &Node, window: &[u8], frame_len: u32) -> bool {
    let window = window.get(..WINDOW).unwrap_or(window);
    let ufid = match parse::parse(window, frame_len) {
        Ok(parsed) => parsed.ufid,
        Err(_) => link_only(window),
    };
    let packet = Packet { ufid: &ufid, frame_len };
    packet.is(node)
}

/// The identity of a frame of which only the Ethernet header is believed.
fn link_only(window: &[u8]) -> Ufid {
    let Some(header) = EthernetHeader::parse(window) else { return Ufid::ZERO };
    Ufid::ZERO
        .with(Field::EthDst, number_of(header.destination()))
        .with(Field::EthSrc, number_of(header.source()))
        .with(Field::EtherType, header.ether_type().0.into())
}

/// An address as a [`Ufid`] has it: the first octet is the highest.
fn number_of(mac: MacAddr) -> u128 {
    mac.0.iter().fold(0, |number, octet| number << 8 | u128::from(*octet))
}

struct Packet<'a> {
    ufid: &'a Ufid,
    frame_len: u32,
}

impl Packet<'_> {
    fn is(&self, node: &Node) -> bool {
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.is(node)),
            Node::Any(nodes) => nodes.iter().any(|node| self.is(node)),
            Node::Not(node) => !self.is(node),
            Node::Is(primitive) => self.has(*primitive),
        }
    }

    fn has(&self, primitive: Primitive) -> bool {
        match primitive {
            Primitive::EtherType(ether_type) => {
                self.field(Field::EtherType) == ether_type.into() || self.outer_ether_type() == Some(ether_type)
            }
            Primitive::Mac(end, mac) => {
                let is = |field| self.field(field) == number_of(mac);
                either(end, is(Field::EthSrc), is(Field::EthDst))
                    || self.is_tunnelled() && either(end, is(Field::OuterEthSrc), is(Field::OuterEthDst))
            }
            Primitive::Multicast => {
                // The first bit on the wire is the lowest of the first octet.
                let is_group = |field| self.field(field) >> 40 & 1 != 0;
                is_group(Field::EthDst) || is_group(Field::OuterEthDst)
            }
            Primitive::Protocol(version, protocol) => {
                let has = self.version();
                has != 0
                    && version.is_none_or(|version| version == has)
                    && self.field(Field::IpProto) == protocol.into()
            }
            Primitive::Network(end, version, value, mask) => {
                let is = |field| self.field(field) & mask == value;
                let is_inner = || either(end, is(Field::IpSrc), is(Field::IpDst));
                let is_outer = || either(end, is(Field::OuterIpSrc), is(Field::OuterIpDst));
                let is_arp = self.field(Field::EtherType) == EtherType::ARP.0.into();
                (self.version() == version || version == 4 && is_arp) && is_inner()
                    || self.field(Field::OuterIpVersion) == version.into() && is_outer()
            }
            Primitive::Ports(end, protocol, low, high) => {
                let has = self.field(Field::IpProto);
                let with_ports = [TCP, UDP].map(u128::from).contains(&has);
                let is_later = self.field(Field::Fragment) == Fragment::Later as u128;
                let is = |field| (u128::from(low)..=high.into()).contains(&self.field(field));
                self.version() != 0
                    && with_ports
                    && !is_later
                    && protocol.is_none_or(|protocol| has == protocol.into())
                    && either(end, is(Field::L4Src), is(Field::L4Dst))
            }
            Primitive::Vlan(id) => [Field::Vlan, Field::SecondVlan, Field::OuterVlan].into_iter().any(|field| {
                let tag = self.field(field);
                tag & u128::from(VLAN_PRESENT) != 0 && id.is_none_or(|id| tag & 0xfff == id.into())
            }),
            Primitive::Vni(vni) => self.is_tunnelled() && self.field(Field::TunnelKey) == vni.into(),
            Primitive::Longer(len) => self.frame_len >= len,
            Primitive::Shorter(len) => self.frame_len <= len,
        }
    }

    fn field(&self, field: Field) -> u128 {
        self.ufid.get(field)
    }

    fn version(&self) -> u8 {
        u8::try_from(self.field(Field::IpVersion)).unwrap_or(0)
    }

    fn is_tunnelled(&self) -> bool {
        self.field(Field::Tunnel) != Tunnel::None as u128
    }

    fn outer_ether_type(&self) -> Option<u16> {
        match self.field(Field::OuterIpVersion) {
            4 => Some(EtherType::IPV4.0),
            6 => Some(EtherType::IPV6.0),
            _ => None,
        }
    }
}

fn either(end: End, source: bool, destination: bool) -> bool {
    match end {
        End::Either => source || destination,
        End::Source => source,
        End::Destination => destination,
    }
}
