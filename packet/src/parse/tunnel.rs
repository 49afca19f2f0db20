// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, 2890) and NVGRE (RFC 7637).

use super::{
    Header, OuterLayout, ParseError,
    bytes::{Packet, offset},
    link::Link,
    network::Network,
    transport::{UDP, udp_header},
};
use crate::{EtherType, Fragment, Tunnel};

const GRE: u8 = 47;
const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
/// Transparent Ethernet bridging: the payload is an Ethernet frame.
const BRIDGING: u16 = 0x6558;
const UDP_LEN: usize = 8;
const VXLAN_LEN: usize = 8;
const GENEVE_LEN: usize = 8;

/// What the outer group gives to a UFID and a layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) layout: Option<OuterLayout>,
    /// The outer part of words 4 to 7.
    pub(super) destination: u64,
    pub(super) source: u64,
    pub(super) addresses: u64,
    pub(super) key: u64,
    /// Words 11 to 13.
    pub(super) upper: [u64; 3],
    pub(super) ttl: u8,
    pub(super) ecn: u8,
    pub(super) src_port: u16,
    /// Where the inner group begins.
    pub(super) payload: usize,
    /// Where the packet ends that has the inner group.
    pub(super) payload_end: usize,
    /// What the inner group begins with if not with an Ethernet header.
    pub(super) ether_type: Option<EtherType>,
}

impl Outer {
    /// There is no outer group.
    pub(super) const NONE: Self = Self {
        layout: None,
        destination: 0,
        source: 0,
        addresses: 0,
        key: 0,
        upper: [0; 3],
        ttl: 0,
        ecn: 0,
        src_port: 0,
        payload: 0,
        payload_end: 0,
        ether_type: None,
    };
}

/// A tunnel header.
struct Shim {
    tunnel: Tunnel,
    key: u32,
    src_port: u16,
    payload: usize,
    payload_end: usize,
    ether_type: Option<EtherType>,
}

/// Whether the first group, which is IP, may be the outer one of a tunnel: what most packets are asked,
/// so that only tunnelled ones go further. Fragments are not looked into, and more than one outer VLAN
/// tag has no place in a UFID.
#[inline]
pub(super) fn is_possible(packet: Packet<'_>, link: &Link, network: &Network) -> bool {
    let announced = match network.protocol {
        UDP => matches!(packet.header(network.end, Header::Udp), Ok([_, _, d0, d1]) if is_port([*d0, *d1])),
        GRE => true,
        _ => false,
    };
    announced && network.fragment == Fragment::Whole && link.tags <= 1
}

#[inline]
pub(super) fn is_port(port: [u8; 2]) -> bool {
    matches!(u16::from_be_bytes(port), VXLAN_PORT | GENEVE_PORT)
}

/// The first group as outer group, if it carries a tunnel that is understood.
pub(super) fn find(packet: Packet<'_>, link: &Link, network: &Network) -> Result<Option<Outer>, ParseError> {
    let packet = packet.until(network.packet_end);
    let shim = if network.protocol == GRE { gre(packet, network.end)? } else { udp(packet, network)? };
    Ok(shim.map(|shim| outer(link, network, &shim)))
}

/// A datagram that is too short for the header that its port announces is not a tunnel's.
fn udp(packet: Packet<'_>, network: &Network) -> Result<Option<Shim>, ParseError> {
    let (ports, len) = udp_header(packet, network)?;
    let end = network.end.saturating_add(len);
    let packet = packet.until(end);
    let at = network.end.saturating_add(UDP_LEN);
    if end.saturating_sub(at) < VXLAN_LEN.max(GENEVE_LEN) {
        return Ok(None);
    }
    match halves(ports) {
        [src_port, VXLAN_PORT] => vxlan(packet, at, src_port),
        [src_port, _] => geneve(packet, at, src_port),
    }
}

fn vxlan(packet: Packet<'_>, at: usize, src_port: u16) -> Result<Option<Shim>, ParseError> {
    const KEY_VALID: u8 = 0x08;
    let [flags, _, _, _, key @ ..] = packet.header::<VXLAN_LEN>(at, Header::Vxlan)?;
    Ok((flags & KEY_VALID != 0).then(|| Shim {
        tunnel: Tunnel::Vxlan,
        key: u32::from_be_bytes(*key) >> 8,
        src_port,
        payload: at.saturating_add(VXLAN_LEN),
        payload_end: packet.end(),
        ether_type: None,
    }))
}

/// Only what carries Ethernet is understood.
fn geneve(packet: Packet<'_>, at: usize, src_port: u16) -> Result<Option<Shim>, ParseError> {
    let [first, _, protocol0, protocol1, key @ ..] = packet.header::<GENEVE_LEN>(at, Header::Geneve)?;
    if first >> 6 != 0 || u16::from_be_bytes([*protocol0, *protocol1]) != BRIDGING {
        return Ok(None);
    }
    let options = usize::from(first & 0x3f).saturating_mul(4);
    Ok(Some(Shim {
        tunnel: Tunnel::Geneve,
        key: u32::from_be_bytes(*key) >> 8,
        src_port,
        payload: packet.skip(at, GENEVE_LEN.saturating_add(options), Header::Geneve)?,
        payload_end: packet.end(),
        ether_type: None,
    }))
}

/// Source routes (RFC 1701) and other versions (PPTP) are not understood, and neither is Ethernet
/// without a key. A key that is absent is 0.
fn gre(packet: Packet<'_>, at: usize) -> Result<Option<Shim>, ParseError> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    /// Routing, strict source route, the upper recursion bit, and the version.
    const UNKNOWN: u16 = 0x4c07;
    let [flags0, flags1, protocol0, protocol1] = packet.header::<4>(at, Header::Gre)?;
    let flags = u16::from_be_bytes([*flags0, *flags1]);
    let protocol = u16::from_be_bytes([*protocol0, *protocol1]);
    let has_key = flags & KEY != 0;
    let ether_type = match EtherType(protocol) {
        _ if flags & UNKNOWN != 0 => return Ok(None),
        EtherType(BRIDGING) if has_key => None,
        ip @ (EtherType::IPV4 | EtherType::IPV6) => Some(ip),
        _ => return Ok(None),
    };
    let optional = |flag| if flags & flag != 0 { 4 } else { 0_usize };
    let key_at = optional(CHECKSUM).saturating_add(4);
    let len = key_at.saturating_add(optional(KEY)).saturating_add(optional(SEQUENCE));
    let payload = packet.skip(at, len, Header::Gre)?;
    let key = if has_key { *packet.header(at.saturating_add(key_at), Header::Gre)? } else { [0; 4] };
    let key = u32::from_be_bytes(key);
    Ok(Some(Shim {
        tunnel: if ether_type.is_none() { Tunnel::Nvgre } else { Tunnel::Gre },
        // The low byte is NVGRE's flow id.
        key: if ether_type.is_none() { key >> 8 } else { key },
        src_port: 0,
        payload,
        payload_end: packet.end(),
        ether_type,
    }))
}

fn outer(link: &Link, network: &Network, shim: &Shim) -> Outer {
    let [source, destination] = link.addresses;
    let [vlan, _] = link.vlans;
    let key = u64::from(shim.key)
        | (shim.tunnel as u64) << 32
        | u64::from(network.dscp) << 40
        | u64::from(network.version) << 48;
    let layout = OuterLayout {
        tunnel: shim.tunnel,
        vlan: link.tags == 1,
        ip: network.at.unwrap_or_default(),
        transport: offset(network.end),
        end: offset(shim.payload),
    };
    Outer {
        layout: Some(layout),
        destination,
        source: source | u64::from(vlan) << 48,
        addresses: network.addresses,
        key,
        upper: network.upper,
        ttl: network.ttl,
        ecn: network.ecn,
        src_port: shim.src_port,
        payload: shim.payload,
        payload_end: shim.payload_end,
        ether_type: shim.ether_type,
    }
}

/// L4 source and destination.
#[expect(clippy::cast_possible_truncation, reason = "parts of the value")]
const fn halves(ports: u32) -> [u16; 2] {
    [ports as u16, (ports >> 16) as u16]
}
