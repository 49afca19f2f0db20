// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets in tunnels that end at this node, or begin at it (decision 22), and what an uplink hears for the node itself.
//!
//! A tunnel ends here if its outer destination is an uplink's own address: then the virtual network and the inner
//! destination say which port the packet is for, and it goes there with the outer header still on; the port's inbound
//! policy takes it off. A tunnel begins here if its outer source is an own address: then the packet goes to the uplink that
//! has it, wherever its Ethernet header says, and the uplink finds the next hop. All others are ordinary packets of
//! somebody else's.
//!
//! Own addresses are written by policy. A packet that comes with one from a port that has policy or a fixed address, or
//! from a link, is forged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Burst, DropCause, EtherType, EthernetHeader, Field, MacAddr, PortId, Tunnel, Verdict, parse};

use super::bridge::{Path, station_verdict};
use crate::config::Vni;
use crate::topology::{Route, Routes};

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
/// Length of an IPv6 header, and the least of an IPv4 one.
const IPV6_HEADER: usize = 40;
const IPV4_HEADER: usize = 20;

/// The beginning of a tunnel that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelBegin {
    /// That which has the outer source.
    pub(super) uplink: PortId,
    pub(super) destination: IpAddr,
}

/// The end of a tunnel that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelEnd {
    pub(super) vni: Vni,
    /// The inner destination.
    pub(super) destination: MacAddr,
}

impl Path {
    /// Drops what comes from an address of the node's own, and takes what is said about neighbours of an uplink.
    pub(super) fn screen_own(&mut self, ingress: PortId, now_ns: u64) {
        let is_link = self.own_mac(ingress).is_some();
        let protected = is_link || self.routes.mac(ingress).is_some() || self.routes.home(ingress).is_some();
        for i in 0..self.burst.len() {
            if self.burst.verdict(i) != Verdict::Pending {
                continue;
            }
            let window = self.burst.window(i);
            if is_link && is_about_neighbors(window) {
                if self.hear(ingress, i, now_ns) {
                    self.burst.set_verdict(i, Verdict::Taken);
                }
            } else if protected && begins_here(&self.routes, window).is_some() {
                self.burst.set_verdict(i, Verdict::Drop(DropCause::SpoofedSource));
            }
        }
    }

    /// Decides about packets in tunnels that end or begin here, and others for the node itself. The rest stays pending.
    pub(super) fn forward_tunnels(&mut self, ingress: PortId) {
        let own_mac = self.own_mac(ingress);
        for i in 0..self.burst.len() {
            if self.burst.verdict(i) != Verdict::Pending {
                continue;
            }
            let window = self.burst.window(i);
            let verdict = if let Some(end) = ends_here(&self.routes, &self.burst, i) {
                Some(station_verdict(&self.routes, end.vni, end.destination, ingress))
            } else if let Some(begin) = begins_here(&self.routes, window) {
                Some(Verdict::Forward(begin.uplink))
            } else {
                // Nobody else has this address, so that a bridge would flood for it.
                let is_own = |header: EthernetHeader<'_>| Some(header.destination()) == own_mac;
                let own = EthernetHeader::parse(window).is_some_and(is_own);
                own.then_some(Verdict::Drop(DropCause::NoDestination))
            };
            if let Some(verdict) = verdict {
                self.burst.set_verdict(i, verdict);
            }
        }
    }

    fn hear(&mut self, ingress: PortId, i: usize, now_ns: u64) -> bool {
        let Route::Uplink(at) = self.routes.to(ingress, 0) else { return false };
        let Self { uplinks, burst, .. } = self;
        uplinks.get_mut(at).is_some_and(|uplink| uplink.hear(burst.window(i), now_ns))
    }

    /// The MAC address of the node's own addresses at an uplink, if it has such.
    fn own_mac(&self, port: PortId) -> Option<MacAddr> {
        self.routes.uplink(port).filter(|uplink| !uplink.config.address.is_empty()).map(|uplink| uplink.mac)
    }
}

/// The end of the tunnel that packet `i` is in, if it is here.
pub(super) fn ends_here(routes: &Routes, burst: &Burst, i: usize) -> Option<TunnelEnd> {
    let window = burst.window(i);
    routes.owner(outer_addresses(routes, window)?.1)?;
    let parsed = parse::parse(window, burst.frame_len(i)).ok()?;
    match parsed.layout.outer?.tunnel {
        Tunnel::Vxlan | Tunnel::Nvgre | Tunnel::Geneve => {}
        Tunnel::None | Tunnel::Gre => return None,
    }
    let vni = u32::try_from(parsed.ufid.get(Field::TunnelKey)).ok().and_then(Vni::new)?;
    let [.., a, b, c, d, e, f] = parsed.ufid.get(Field::EthDst).to_be_bytes();
    Some(TunnelEnd { vni, destination: MacAddr([a, b, c, d, e, f]) })
}

/// The beginning of the tunnel that the frame with this window is in, if it is here.
#[inline]
pub(super) fn begins_here(routes: &Routes, window: &[u8]) -> Option<TunnelBegin> {
    let (source, destination) = outer_addresses(routes, window)?;
    Some(TunnelBegin { uplink: routes.owner(source)?, destination })
}

/// Source and destination of a frame that may be in a tunnel, if there are addresses to compare them with.
#[inline]
fn outer_addresses(routes: &Routes, window: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if !routes.has_own_addresses() || !may_be_tunnel(window) {
        return None;
    }
    let (ether_type, header) = network(window)?;
    if ether_type == EtherType::IPV4 {
        let [a, b, c, d, e, f, g, h] = *header.get(12..)?.first_chunk()?;
        Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into()))
    } else {
        let (source, rest) = header.get(8..)?.split_first_chunk::<16>()?;
        Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*rest.first_chunk::<16>()?).into()))
    }
}

/// The network header of an untagged or once tagged frame: its type and its bytes.
#[inline]
fn network(window: &[u8]) -> Option<(EtherType, &[u8])> {
    let ether_type = EthernetHeader::parse(window)?.ether_type();
    let rest = window.get(EthernetHeader::LEN..)?;
    if !ether_type.is_vlan() {
        return Some((ether_type, rest));
    }
    let [_, _, a, b] = *rest.first_chunk()?;
    Some((EtherType(u16::from_be_bytes([a, b])), rest.get(4..)?))
}

/// Whether it is worth while to parse a frame for a tunnel. A few loads, for all frames that are not.
#[inline]
fn may_be_tunnel(window: &[u8]) -> bool {
    let Some((ether_type, header)) = network(window) else { return false };
    let (protocol, transport) = match ether_type {
        EtherType::IPV4 => (header.get(9), header.first().map(|first| usize::from(first & 15) * 4)),
        EtherType::IPV6 => (header.get(6), Some(IPV6_HEADER)),
        _ => return false,
    };
    let port = || {
        let at = transport.filter(|len| *len >= IPV4_HEADER)?;
        let [a, b] = *header.get(at + 2..)?.first_chunk()?;
        Some(u16::from_be_bytes([a, b]))
    };
    match protocol {
        Some(&GRE) => true,
        Some(&UDP) => matches!(port(), Some(VXLAN_PORT | GENEVE_PORT)),
        _ => false,
    }
}

/// Whether a frame is ARP, or neighbour discovery of IPv6.
#[inline]
fn is_about_neighbors(window: &[u8]) -> bool {
    match EthernetHeader::parse(window).map(EthernetHeader::ether_type) {
        Some(EtherType::ARP) => true,
        Some(EtherType::IPV6) => {
            let at = EthernetHeader::LEN;
            window.get(at + 6) == Some(&ICMPV6) && matches!(window.get(at + IPV6_HEADER), Some(135 | 136))
        }
        _ => false,
    }
}
