// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What only shows when all sections are seen together, and on this machine.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::{
    Config, Conflict, Endpoint, Fault, InterfaceAddress, LinkConfig, MAX_PORTS, MAX_QUEUE_PAIRS, MAX_WORKERS, Machine,
    Name, Place, PortConfig, Problem, UplinkConfig,
};

impl Config {
    /// Checks how the parts fit together, and whether `machine` has what they ask for.
    ///
    /// [`Config::parse`] has done this; a configuration built in code has yet to be checked.
    ///
    /// # Errors
    /// The first thing found wrong, with its section and key.
    pub fn check(&self, machine: &Machine) -> Result<(), Fault> {
        self.control.check()?;
        self.check_workers(machine)?;
        self.check_ports()?;
        self.check_crossconnects()?;
        self.check_controllers()
    }

    fn check_workers(&self, machine: &Machine) -> Result<(), Fault> {
        bounded("worker", self.workers.len(), MAX_WORKERS)?;
        let mut names = HashSet::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if !names.insert(&worker.name) {
                let problem = Problem::DuplicateWorker { name: worker.name.to_string() };
                return Err(Place::in_worker(index, "name").fault(problem));
            }
            if let Some(cpu) = worker.cpu.filter(|cpu| !machine.has_cpu(*cpu)) {
                let (worker, available) = (worker.name.to_string(), machine.to_string());
                return Err(Place::in_worker(index, "cpu").fault(Problem::NoSuchCpu { worker, cpu, available }));
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Fault> {
        bounded("port", self.ports.len(), MAX_PORTS)?;
        let workers: Vec<&Name> = self.workers.iter().map(|worker| &worker.name).collect();
        let mut names = HashSet::new();
        for (index, port) in self.ports.iter().enumerate() {
            if !names.insert(&port.name) {
                let problem = Problem::DuplicatePort { name: port.name.to_string() };
                return Err(Place::in_port(index, "name").fault(problem));
            }
            let taken = |what: Conflict, other: String| {
                let (key, port) = (what.key(), port.name.to_string());
                Err(Place::in_port(index, key).fault(Problem::Conflict { port, what, other }))
            };
            if let Some(guest) = port.guest().filter(|guest| guest.socket == self.control.socket) {
                return taken(Conflict::Socket(guest.socket.clone()), "[control]".to_owned());
            }
            for earlier in self.ports.iter().take(index) {
                if let Some(what) = port.conflict(earlier) {
                    return taken(what, format!("port \"{}\"", earlier.name));
                }
            }
            port.check(&workers).map_err(|fault| Fault { place: Place { index, ..fault.place }, ..fault })?;
        }
        Ok(())
    }

    fn check_crossconnects(&self) -> Result<(), Fault> {
        let mut wired = HashSet::new();
        for (index, pair) in self.crossconnects.iter().enumerate() {
            let [left, right] = &pair.ports;
            let wrong = |problem| Err(Place::in_crossconnect(index).fault(problem));
            if left == right {
                return wrong(Problem::CrossconnectSelf { port: left.to_string() });
            }
            for port in [left, right] {
                if self.port(port).is_none() {
                    return wrong(Problem::CrossconnectUnknown { port: port.to_string() });
                }
                if !wired.insert(port) {
                    return wrong(Problem::CrossconnectTwice { port: port.to_string() });
                }
            }
        }
        Ok(())
    }
}

impl PortConfig {
    /// Checks one port against the names of the workers that there are.
    ///
    /// A node calls it for a port that is added later.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self, workers: &[&Name]) -> Result<(), Fault> {
        match &self.endpoint {
            Endpoint::VhostUser(guest) if !(1..=MAX_QUEUE_PAIRS).contains(&guest.queues) => {
                let problem = Problem::Queues { port: self.name.to_string(), found: guest.queues };
                return Err(Place::in_port(0, "queues").fault(problem));
            }
            Endpoint::VhostUser(_) => {}
            Endpoint::Uplink(uplink) => {
                uplink.check().map_err(|(key, problem)| Place::in_port(0, key).fault(problem))?;
            }
        }
        if self.vni.is_some() && self.mac.is_none() {
            return Err(Place::in_port(0, "vni").fault(Problem::VniWithoutMac));
        }
        super::limits::check(self.limits)?;
        self.aggregation.check()?;
        for (at, worker) in self.workers.iter().enumerate() {
            let port = self.name.to_string();
            let wrong = |problem| Err(Place::in_port(0, "workers").fault(problem));
            if !workers.contains(&worker) {
                let known = workers.iter().map(ToString::to_string).collect();
                return wrong(Problem::UnknownWorker { port, worker: worker.to_string(), known });
            }
            if self.workers.iter().take(at).any(|earlier| earlier == worker) {
                return wrong(Problem::WorkerTwice { port, worker: worker.to_string() });
            }
        }
        Ok(())
    }
}

impl UplinkConfig {
    /// Checks how its parts fit together. An error names the key.
    pub(super) fn check(&self) -> Result<(), (&'static str, Problem)> {
        if let LinkConfig::Udp { local, peer } = self.link {
            check_ends(local, peer)?;
        }
        self.check_addresses()
    }

    fn check_addresses(&self) -> Result<(), (&'static str, Problem)> {
        let (found, max) = (self.address.len(), Self::MAX_ADDRESSES);
        if found > max {
            return Err(("address", Problem::TooManyAddresses { found, max }));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.address.iter().find(|own| !seen.insert(own.address())) {
            return Err(("address", Problem::AddressTwice { address: twice.address() }));
        }
        let mut versions = HashSet::new();
        for gateway in &self.gateway {
            if !versions.insert(gateway.is_ipv4()) {
                return Err(("gateway", Problem::GatewayTwice { version: if gateway.is_ipv4() { 4 } else { 6 } }));
            }
            // A link-local router needs no prefix of ours, but an address to ask it from.
            let link_local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
            let near = |own: &InterfaceAddress| own.covers(*gateway) || link_local && own.address().is_ipv6();
            if seen.contains(gateway) || !self.address.iter().any(near) {
                return Err(("gateway", Problem::GatewayOffLink { gateway: *gateway }));
            }
        }
        Ok(())
    }
}

/// Checks both ends of a path of UDP datagrams.
fn check_ends(local: SocketAddr, peer: SocketAddr) -> Result<(), (&'static str, Problem)> {
    let bad = |key, end: SocketAddr, what| Err((key, Problem::BadEnd { key, found: end.to_string(), what }));
    // Where datagrams arrive is for the peer to know: a number of the system's choice would not do.
    if local.port() == 0 {
        return bad("local", local, "an address with a port other than 0");
    }
    if peer.port() == 0 {
        return bad("peer", peer, "an address with a port other than 0");
    }
    let is_broadcast = |end: SocketAddr| matches!(end.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    if local.ip().is_multicast() || is_broadcast(local) {
        return bad("local", local, "an address of this machine");
    }
    if peer.ip().is_unspecified() || peer.ip().is_multicast() || is_broadcast(peer) {
        return bad("peer", peer, "the address of one station");
    }
    if local.is_ipv4() != peer.is_ipv4() {
        return Err(("peer", Problem::EndsOfTwoVersions { local: local.ip(), peer: peer.ip() }));
    }
    if local == peer {
        return Err(("peer", Problem::PeerIsLocal { peer }));
    }
    Ok(())
}

fn bounded(section: &'static str, found: usize, max: usize) -> Result<(), Fault> {
    if found > max {
        return Err(Place::top(section).fault(Problem::TooMany { section, found, max }));
    }
    Ok(())
}
