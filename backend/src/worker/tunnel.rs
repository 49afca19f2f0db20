// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets in tunnels that end at this node, or begin at it (decision 22), and what an uplink hears for the node itself.
//!
//! A tunnel ends here if its outer destination is an uplink's own address: then the virtual network and the inner
//! destination say which port the packet is for, and it goes there with the outer header still on; the port's inbound
//! policy takes it off. A tunnel begins here if its outer source is an own address: then the packet is routed, wherever its
//! Ethernet header says it goes. All others are ordinary packets of somebody else's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Burst, DropCause, EtherType, EthernetHeader, Field, MacAddr, Parsed, Tunnel, Verdict, parse};

use super::bridge::{Ingress, Path, station_verdict};
use super::finish::gather;
use super::uplink::Hop;
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

/// The end of a tunnel that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelEnd {
    pub(super) vni: Vni,
    /// The inner destination.
    pub(super) destination: MacAddr,
}

/// The outer addresses of a packet in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outer {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl Path {
    /// Decides about packets for the node itself, and in tunnels that end or begin here. The others stay pending.
    pub(super) fn take_own(&mut self, ingress: &Ingress<'_>, now_ns: u64) {
        let own_mac = self.routes.uplink(ingress.port).filter(|uplink| !uplink.config.address.is_empty());
        let own_mac = own_mac.map(|uplink| uplink.mac);
        for i in 0..self.burst.len() {
            if self.burst.verdict(i) != Verdict::Pending {
                continue;
            }
            if own_mac.is_some() && is_about_neighbors(self.burst.window(i)) && self.hear(ingress, i, now_ns) {
                self.burst.set_verdict(i, Verdict::Taken);
                continue;
            }
            if may_be_tunnel(self.burst.window(i)) {
                self.take_tunnel(ingress, i, now_ns);
            }
            // Nobody else has this address, so that a bridge would flood for it.
            let is_own = |header: EthernetHeader<'_>| Some(header.destination()) == own_mac;
            if self.burst.verdict(i) == Verdict::Pending
                && EthernetHeader::parse(self.burst.window(i)).is_some_and(is_own)
            {
                self.burst.set_verdict(i, Verdict::Drop(DropCause::NoDestination));
            }
        }
    }

    /// Sends packet `i`, which has an outer header, towards its outer destination: chooses the uplink, finds the next
    /// hop, and writes the outer Ethernet addresses. A packet whose next hop is not known yet is parked.
    ///
    /// The verdict says what became of it.
    pub(super) fn route(&mut self, ingress: &Ingress<'_>, i: usize, outer: Outer, now_ns: u64) {
        let verdict = self.try_route(ingress, i, outer, now_ns).unwrap_or_else(Verdict::Drop);
        self.burst.set_verdict(i, verdict);
    }

    fn try_route(&mut self, ingress: &Ingress<'_>, i: usize, outer: Outer, now_ns: u64) -> Result<Verdict, DropCause> {
        let port = self.routes.way_to(outer.source, outer.destination).ok_or(DropCause::Unresolved)?;
        let uplink = match self.routes.to(port, 0) {
            Route::Uplink(at) => self.uplinks.get_mut(at).ok_or(DropCause::NotReady)?,
            Route::Remote(_) => {
                self.unrouted |= 1 << i;
                return Ok(Verdict::Forward(port));
            }
            Route::Local(_) | Route::None => return Err(DropCause::NotReady),
        };
        match uplink.resolve(outer.destination, now_ns) {
            Hop::None => Err(DropCause::Unresolved),
            Hop::Known(mac) => {
                let addresses = uplink.addresses(mac);
                let window = self.burst.window_mut(i).get_mut(..addresses.len()).ok_or(DropCause::Runt)?;
                window.copy_from_slice(&addresses);
                Ok(Verdict::Forward(port))
            }
            Hop::Wait(hop) => {
                let (len, offload) = (self.burst.frame_len(i) as usize, self.burst.offload(i));
                let burst = &self.burst;
                let mut whole = false;
                let fill = |room: &mut [u8]| whole = gather(burst, ingress.payload, i, room);
                uplink.park(hop, len, offload, now_ns, fill)?;
                debug_assert!(whole, "a payload ended early");
                Ok(Verdict::Taken)
            }
        }
    }

    fn take_tunnel(&mut self, ingress: &Ingress<'_>, i: usize, now_ns: u64) {
        let Ok(parsed) = parse::parse(self.burst.window(i), self.burst.frame_len(i)) else { return };
        let Some(outer) = outer_of(&parsed) else { return };
        if let Some(end) = end_of(&self.routes, &parsed) {
            let verdict = station_verdict(&self.routes, end.vni, end.destination, ingress.port);
            self.burst.set_verdict(i, verdict);
            return;
        }
        // What comes from a link is for this node or for nobody here.
        if self.routes.uplink(ingress.port).is_none() && self.routes.owner(outer.source).is_some() {
            self.route(ingress, i, outer, now_ns);
        }
    }

    fn hear(&mut self, ingress: &Ingress<'_>, i: usize, now_ns: u64) -> bool {
        let Route::Uplink(at) = self.routes.to(ingress.port, 0) else { return false };
        let Self { uplinks, burst, cutter, .. } = self;
        uplinks.get_mut(at).is_some_and(|uplink| uplink.hear(burst.window(i), cutter, now_ns))
    }
}

/// The end of the tunnel that packet `i` is in, if it is here.
pub(super) fn ends_here(routes: &Routes, burst: &Burst, i: usize) -> Option<TunnelEnd> {
    if !routes.has_own_addresses() || !may_be_tunnel(burst.window(i)) {
        return None;
    }
    end_of(routes, &parse::parse(burst.window(i), burst.frame_len(i)).ok()?)
}

/// The outer addresses of the frame that begins with `window`.
pub(super) fn outer_addresses(window: &[u8], frame_len: usize) -> Option<Outer> {
    outer_of(&parse::parse(window, u32::try_from(frame_len).ok()?).ok()?)
}

fn end_of(routes: &Routes, parsed: &Parsed) -> Option<TunnelEnd> {
    let outer = outer_of(parsed)?;
    routes.owner(outer.destination)?;
    match parsed.layout.outer?.tunnel {
        Tunnel::Vxlan | Tunnel::Nvgre | Tunnel::Geneve => {}
        Tunnel::None | Tunnel::Gre => return None,
    }
    let vni = u32::try_from(parsed.ufid.get(Field::TunnelKey)).ok().and_then(Vni::new)?;
    let [.., a, b, c, d, e, f] = parsed.ufid.get(Field::EthDst).to_be_bytes();
    Some(TunnelEnd { vni, destination: MacAddr([a, b, c, d, e, f]) })
}

fn outer_of(parsed: &Parsed) -> Option<Outer> {
    let (source, destination) = (parsed.ufid.get(Field::OuterIpSrc), parsed.ufid.get(Field::OuterIpDst));
    match parsed.ufid.get(Field::OuterIpVersion) {
        4 => {
            let v4 = |bits: u128| u32::try_from(bits).ok().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
            Some(Outer { source: v4(source)?, destination: v4(destination)? })
        }
        6 => Some(Outer {
            source: Ipv6Addr::from_bits(source).into(),
            destination: Ipv6Addr::from_bits(destination).into(),
        }),
        _ => None,
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
