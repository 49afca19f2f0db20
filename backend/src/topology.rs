// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node's forwarding configuration as a value: which ports there are, which are wired to each other, and which
//! worker serves which receive queue.
//!
//! The ports thread builds a new [`Topology`] whenever a port comes, goes or changes its enabled queues and sends it to
//! every worker; it keeps the old one until all workers have answered, so that a worker never frees one (decision 4b).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use packet::{MacAddr, PortId};
use switch::{CrossConnect, Forwarder};

use crate::config::{Aggregation, UplinkConfig, Vni};
use crate::counters::PortCounters;

/// An immutable snapshot.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// Indexed by port id; `None` where no port has that id now.
    ports: Vec<Option<PortEntry>>,
    /// Wires of which both ends exist.
    pub(crate) wires: CrossConnect,
}

/// One port as the workers see it.
#[derive(Debug, Clone)]
pub(crate) struct PortEntry {
    /// Whether it is wired to another port rather than on the bridge.
    pub(crate) wired: bool,
    /// Receive queues that take packets now, in queue pair order.
    pub(crate) receivers: Vec<Receiver>,
    /// The worker that carries out its policy; `None`: it has none.
    pub(crate) home: Option<usize>,
    /// One block per worker, in worker order.
    pub(crate) counters: Arc<[PortCounters]>,
    /// The one address that is there.
    pub(crate) mac: Option<MacAddr>,
    /// The virtual network that it is in.
    pub(crate) vni: Option<Vni>,
    /// What makes it an uplink, while its interface is there.
    pub(crate) uplink: Option<Arc<UplinkEntry>>,
    /// How it deals with aggregates.
    pub(crate) aggregation: Aggregation,
}

/// An uplink as the workers see it.
#[derive(Debug, Clone)]
pub(crate) struct UplinkEntry {
    /// The interface's own address.
    pub(crate) mac: MacAddr,
    /// What was asked for; its MTU is not yet that of the link.
    pub(crate) config: UplinkConfig,
    /// The longest IP packet that the link takes.
    pub(crate) mtu: usize,
    /// Whether the link takes frames whose checksum is not finished.
    pub(crate) takes_unfinished: bool,
}

/// A receive queue that takes packets: who serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) worker: usize,
    pub(crate) pair: u16,
}

impl Topology {
    pub(crate) fn insert(&mut self, port: PortId, entry: PortEntry) {
        let index = usize::from(port.0);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.ports.get_mut(index) {
            *slot = Some(entry);
        }
    }

    /// The longest IP packet that all uplinks take that tunnels may leave by; `None`: there is no such uplink.
    pub(crate) fn tunnel_mtu(&self) -> Option<u32> {
        let uplinks = self.ports.iter().flatten().filter_map(|entry| entry.uplink.as_deref());
        let mtus = uplinks.filter(|uplink| !uplink.config.address.is_empty()).map(|uplink| uplink.mtu);
        mtus.min().map(|mtu| u32::try_from(mtu).unwrap_or(u32::MAX))
    }

    pub(crate) fn port(&self, port: PortId) -> Option<&PortEntry> {
        self.ports.get(usize::from(port.0))?.as_ref()
    }
}

/// Where one worker sends a packet for a port: to a receive queue of its own, or to another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Index among this worker's receive queues.
    Local(usize),
    /// Index among this worker's uplinks.
    Uplink(usize),
    /// Index of the worker that serves a receive queue of the port.
    Remote(usize),
    /// The port has no receive queue that takes packets.
    None,
}

/// How the packets of a port are forwarded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// To this port, unseen.
    Wired(PortId),
    /// By MAC address.
    Bridged,
    /// By MAC address among the ports of one virtual network.
    Overlay(Vni),
    /// The port, or the other end of its wire, does not exist (any more).
    #[default]
    None,
}

/// One worker's compiled view of a [`Topology`].
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ports: Vec<PortRoutes>,
    any_policy: bool,
    overlays: Overlays,
}

#[derive(Debug, Default, Clone)]
struct PortRoutes {
    forwarding: Forwarding,
    home: Option<usize>,
    routes: Vec<Route>,
    mac: Option<MacAddr>,
    uplink: Option<Arc<UplinkEntry>>,
}

/// Where tunnels end: decision 22.
#[derive(Debug, Default)]
struct Overlays {
    /// Ports by virtual network and address. The map's seed is random, so that nobody can choose keys that collide.
    stations: HashMap<(Vni, MacAddr), PortId>,
    /// Own addresses, and the uplinks that have them.
    own: HashMap<IpAddr, PortId>,
}

impl Routes {
    /// Compiles the view of `worker`; `local` finds this worker's receive queue or uplink for (port, pair).
    ///
    /// A worker prefers its own queues, so that a packet crosses threads only when it must. The source's queue pair picks
    /// among them, which keeps the packets of one transmit queue in order.
    pub(crate) fn compile(topology: &Topology, worker: usize, local: impl Fn(PortId, u16) -> Option<Route>) -> Self {
        let ports = topology.ports.iter().enumerate().map(|(index, entry)| {
            let (Some(entry), Ok(index)) = (entry, u16::try_from(index)) else { return PortRoutes::default() };
            let own = |r: &Receiver| (r.worker == worker).then(|| local(PortId(index), r.pair)).flatten();
            let mut routes: Vec<Route> = entry.receivers.iter().filter_map(own).collect();
            if routes.is_empty() {
                routes =
                    entry.receivers.iter().filter(|r| r.worker != worker).map(|r| Route::Remote(r.worker)).collect();
            }
            let forwarding = match (topology.wires.forwarder(PortId(index)), entry.vni) {
                (Forwarder::Connected(peer), _) => Forwarding::Wired(peer),
                (Forwarder::Bridge, _) if entry.wired => Forwarding::None,
                (Forwarder::Bridge, Some(vni)) => Forwarding::Overlay(vni),
                (Forwarder::Bridge, None) => Forwarding::Bridged,
            };
            PortRoutes { forwarding, home: entry.home, routes, mac: entry.mac, uplink: entry.uplink.clone() }
        });
        let ports: Vec<_> = ports.collect();
        Self { any_policy: ports.iter().any(|port| port.home.is_some()), ports, overlays: Overlays::compile(topology) }
    }

    /// The route for a packet to `port` that arrived on queue pair `pair` of its source.
    #[inline]
    pub(crate) fn to(&self, port: PortId, pair: u16) -> Route {
        let Some(port) = self.port(port) else { return Route::None };
        match port.routes.len() {
            0 => Route::None,
            1 => port.routes.first().copied().unwrap_or(Route::None),
            n => port.routes.get(usize::from(pair) % n).copied().unwrap_or(Route::None),
        }
    }

    /// Whether any port has policy.
    #[inline]
    pub(crate) fn any_policy(&self) -> bool {
        self.any_policy
    }

    /// The worker that carries out the policy of `port`, if it has one.
    #[inline]
    pub(crate) fn home(&self, port: PortId) -> Option<usize> {
        self.port(port)?.home
    }

    /// The ports that have policy.
    pub(crate) fn policed(&self) -> impl Iterator<Item = PortId> {
        let policed = |(index, port): (usize, &PortRoutes)| {
            port.home.is_some().then(|| u16::try_from(index).ok().map(PortId)).flatten()
        };
        self.ports.iter().enumerate().filter_map(policed)
    }

    /// How packets from `port` are forwarded.
    #[inline]
    pub(crate) fn forwarding(&self, port: PortId) -> Forwarding {
        self.port(port).map_or(Forwarding::None, |port| port.forwarding)
    }

    /// The one address that is at `port`, if it has one.
    #[inline]
    pub(crate) fn mac(&self, port: PortId) -> Option<MacAddr> {
        self.port(port)?.mac
    }

    /// What makes `port` an uplink.
    #[inline]
    pub(crate) fn uplink(&self, port: PortId) -> Option<&UplinkEntry> {
        self.port(port)?.uplink.as_deref()
    }

    /// The ports that a flood among those of the same forwarding reaches: the bridge, or one virtual network.
    pub(crate) fn segment(&self, of: Forwarding) -> impl Iterator<Item = PortId> {
        let member = move |(index, port): (usize, &PortRoutes)| {
            (port.forwarding == of).then(|| u16::try_from(index).ok().map(PortId)).flatten()
        };
        self.ports.iter().enumerate().filter_map(member)
    }

    /// Whether tunnels can end here, because an uplink has an address.
    #[inline]
    pub(crate) fn has_own_addresses(&self) -> bool {
        !self.overlays.own.is_empty()
    }

    /// The uplink that has this address.
    #[inline]
    pub(crate) fn owner(&self, address: IpAddr) -> Option<PortId> {
        self.overlays.own.get(&address).copied()
    }

    /// The port of a station in a virtual network.
    #[inline]
    pub(crate) fn station(&self, vni: Vni, mac: MacAddr) -> Option<PortId> {
        self.overlays.stations.get(&(vni, mac)).copied()
    }

    #[inline]
    fn port(&self, port: PortId) -> Option<&PortRoutes> {
        self.ports.get(usize::from(port.0))
    }
}

impl Overlays {
    fn compile(topology: &Topology) -> Self {
        let mut overlays = Self::default();
        for (index, entry) in topology.ports.iter().enumerate() {
            let (Some(entry), Ok(index)) = (entry, u16::try_from(index)) else { continue };
            if let Some(key) = entry.vni.zip(entry.mac) {
                overlays.stations.insert(key, PortId(index));
            }
            let addresses = entry.uplink.iter().flat_map(|uplink| &uplink.config.address);
            overlays.own.extend(addresses.map(|own| (own.address(), PortId(index))));
        }
        overlays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;

    fn entry(wired: bool, receivers: &[(usize, u16)]) -> PortEntry {
        let receivers = receivers.iter().map(|&(worker, pair)| Receiver { worker, pair }).collect();
        let aggregation = Aggregation::of(PortKind::VhostUser);
        PortEntry {
            wired,
            receivers,
            home: None,
            counters: Arc::from([]),
            mac: None,
            vni: None,
            uplink: None,
            aggregation,
        }
    }

    #[test]
    fn a_worker_prefers_its_own_receive_queues() {
        let mut topology = Topology::default();
        topology.insert(PortId(2), entry(false, &[(0, 0), (1, 1), (0, 2)]));
        let routes = Routes::compile(&topology, 0, |port, pair| {
            (port == PortId(2)).then_some(Route::Local(10 + usize::from(pair)))
        });
        assert_eq!(routes.to(PortId(2), 0), Route::Local(10));
        assert_eq!(routes.to(PortId(2), 1), Route::Local(12));
        assert_eq!(routes.to(PortId(2), 2), Route::Local(10));
        let elsewhere = Routes::compile(&topology, 7, |_, _| None);
        assert_eq!(elsewhere.to(PortId(2), 1), Route::Remote(1));
        assert_eq!(elsewhere.to(PortId(0), 1), Route::None);
        assert_eq!(elsewhere.to(PortId(9), 1), Route::None);
    }

    #[test]
    fn wired_ports_are_not_on_the_bridge() {
        let mut topology = Topology::default();
        topology.insert(PortId(0), entry(true, &[]));
        topology.insert(PortId(1), entry(true, &[]));
        topology.insert(PortId(3), entry(false, &[]));
        topology.insert(PortId(4), entry(true, &[]));
        topology.wires = CrossConnect::new([(PortId(0), PortId(1))]).expect("wires");
        let routes = Routes::compile(&topology, 0, |_, _| None);
        assert_eq!(routes.forwarding(PortId(0)), Forwarding::Wired(PortId(1)));
        assert_eq!(routes.forwarding(PortId(3)), Forwarding::Bridged);
        assert_eq!(routes.forwarding(PortId(4)), Forwarding::None);
        assert_eq!(routes.forwarding(PortId(9)), Forwarding::None);
        assert_eq!(routes.segment(Forwarding::Bridged).collect::<Vec<_>>(), vec![PortId(3)]);
    }

    fn uplink(addresses: &[&str]) -> Option<Arc<UplinkEntry>> {
        let interface = crate::config::InterfaceName::new("eth0").expect("a name");
        let config = UplinkConfig {
            address: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            ..UplinkConfig::new(crate::config::LinkConfig::AfPacket { interface })
        };
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        Some(Arc::new(UplinkEntry { mac, config, mtu: 1500, takes_unfinished: true }))
    }

    #[test]
    fn stations_and_own_addresses_are_found_and_those_of_one_network_are_a_segment() {
        let mut topology = Topology::default();
        let (red, blue) = (Vni::new(1), Vni::new(2));
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        topology.insert(PortId(0), PortEntry { mac: Some(mac), vni: red, ..entry(false, &[]) });
        topology.insert(PortId(1), PortEntry { mac: Some(mac), vni: blue, ..entry(false, &[]) });
        topology.insert(PortId(2), PortEntry { uplink: uplink(&["10.0.0.1/8", "fd00::1/64"]), ..entry(false, &[]) });
        topology.insert(PortId(4), PortEntry { mac: Some(mac), ..entry(false, &[]) });
        let routes = Routes::compile(&topology, 0, |_, _| None);
        let station = |vni: Option<Vni>, mac| routes.station(vni.expect("in range"), mac);
        assert_eq!([red, blue, Vni::new(3)].map(|vni| station(vni, mac)), [Some(PortId(0)), Some(PortId(1)), None]);
        assert_eq!(station(red, MacAddr([2, 0, 0, 0, 0, 8])), None);
        let owner = |text: &str| routes.owner(text.parse().expect("an address"));
        assert_eq!([owner("10.0.0.1"), owner("fd00::1"), owner("10.0.0.2")], [Some(PortId(2)), Some(PortId(2)), None]);
        assert!(routes.has_own_addresses());
        let members = |of| routes.segment(of).collect::<Vec<_>>();
        assert_eq!(members(Forwarding::Overlay(Vni::new(2).expect("in range"))), [PortId(1)]);
        assert_eq!(members(Forwarding::Bridged), [PortId(2), PortId(4)]);
    }
}
