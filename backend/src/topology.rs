// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node's forwarding configuration as a value: which ports there are, which are wired to each other, and which
//! worker serves which receive queue.
//!
//! The ports thread builds a new [`Topology`] whenever a port comes, goes or changes its enabled queues and sends it to
//! every worker; it keeps the old one until all workers have answered, so that a worker never frees one (decision 4b).

use std::sync::Arc;

use packet::PortId;
use switch::{CrossConnect, Forwarder};

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

    pub(crate) fn port(&self, port: PortId) -> Option<&PortEntry> {
        self.ports.get(usize::from(port.0))?.as_ref()
    }
}

/// Where one worker sends a packet for a port: to a receive queue of its own, or to another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Index among this worker's receive queues.
    Local(usize),
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
    /// The port, or the other end of its wire, does not exist (any more).
    #[default]
    None,
}

/// One worker's compiled view of a [`Topology`]: routes by (port, source queue pair).
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ports: Vec<PortRoutes>,
    any_policy: bool,
}

#[derive(Debug, Default, Clone)]
struct PortRoutes {
    forwarding: Forwarding,
    home: Option<usize>,
    routes: Vec<Route>,
}

impl Routes {
    /// Compiles the view of `worker`; `local` finds this worker's receive queue for (port, pair).
    ///
    /// A worker prefers its own queues, so that a packet crosses threads only when it must. The source's queue pair picks
    /// among them, which keeps the packets of one transmit queue in order.
    pub(crate) fn compile(topology: &Topology, worker: usize, local: impl Fn(PortId, u16) -> Option<usize>) -> Self {
        let ports = topology.ports.iter().enumerate().map(|(index, entry)| {
            let (Some(entry), Ok(index)) = (entry, u16::try_from(index)) else { return PortRoutes::default() };
            let own = |r: &Receiver| (r.worker == worker).then(|| local(PortId(index), r.pair)).flatten();
            let mut routes: Vec<Route> = entry.receivers.iter().filter_map(own).map(Route::Local).collect();
            if routes.is_empty() {
                routes =
                    entry.receivers.iter().filter(|r| r.worker != worker).map(|r| Route::Remote(r.worker)).collect();
            }
            let forwarding = match topology.wires.forwarder(PortId(index)) {
                Forwarder::Connected(peer) => Forwarding::Wired(peer),
                Forwarder::Bridge if entry.wired => Forwarding::None,
                Forwarder::Bridge => Forwarding::Bridged,
            };
            PortRoutes { forwarding, home: entry.home, routes }
        });
        let ports: Vec<_> = ports.collect();
        Self { any_policy: ports.iter().any(|port| port.home.is_some()), ports }
    }

    /// The route for a packet to `port` that arrived on queue pair `pair` of its source.
    #[inline]
    pub(crate) fn to(&self, port: PortId, pair: u16) -> Route {
        let Some(port) = self.ports.get(usize::from(port.0)) else { return Route::None };
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
        self.ports.get(usize::from(port.0))?.home
    }

    /// How packets from `port` are forwarded.
    #[inline]
    pub(crate) fn forwarding(&self, port: PortId) -> Forwarding {
        self.ports.get(usize::from(port.0)).map_or(Forwarding::None, |port| port.forwarding)
    }

    /// The ports on the bridge, wired ones left out.
    pub(crate) fn bridged(&self) -> impl Iterator<Item = PortId> {
        let bridged = |(index, port): (usize, &PortRoutes)| {
            (port.forwarding == Forwarding::Bridged).then(|| u16::try_from(index).ok().map(PortId)).flatten()
        };
        self.ports.iter().enumerate().filter_map(bridged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(wired: bool, receivers: &[(usize, u16)]) -> PortEntry {
        let receivers = receivers.iter().map(|&(worker, pair)| Receiver { worker, pair }).collect();
        PortEntry { wired, receivers, home: None, counters: Arc::from([]) }
    }

    #[test]
    fn a_worker_prefers_its_own_receive_queues() {
        let mut topology = Topology::default();
        topology.insert(PortId(2), entry(false, &[(0, 0), (1, 1), (0, 2)]));
        let routes = Routes::compile(&topology, 0, |port, pair| (port == PortId(2)).then_some(10 + usize::from(pair)));
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
        assert_eq!(routes.bridged().collect::<Vec<_>>(), vec![PortId(3)]);
    }
}
