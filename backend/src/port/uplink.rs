// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An uplink's interface: whether it is there, and the socket on it.
//!
//! Interfaces come and go, and change, without asking. They are looked at on a timer: one that appears is opened and handed
//! to its worker, one that is gone or became another is taken back and closed, one that is merely down keeps its socket and
//! gets no packets. A packet socket by itself survives its interface going down and coming up.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use packet::{DropCause, PortId};
use switch::neighbors::{Neighbors, NeighborsConfig, State};

use super::member::PortError;
use crate::config::AfPacket;
use crate::fleet::Fleet;
use crate::stats::{NeighborStatus, PortState, PortStatus};
use crate::sys::{Interface, InterfaceProbe, PacketSocket, RxRing, TxRing};
use crate::topology::{Receiver, UplinkEntry};
use crate::worker::{Command, LinkReport, Uplink, WorkerGone};

/// The way to a network.
#[derive(Debug)]
pub(super) struct UplinkLink {
    id: PortId,
    name: Arc<str>,
    config: AfPacket,
    worker: usize,
    open: Option<Open>,
    /// Opened, and not handed to its worker yet.
    ready: Option<Uplink>,
    /// What the kernel lost, on this and earlier sockets.
    kernel_drops: u64,
    errors: BTreeMap<&'static str, u64>,
    /// The last failure, so that it is logged once and not at every look.
    last_error: Option<String>,
}

/// An interface with a socket on it.
#[derive(Debug)]
struct Open {
    interface: Interface,
    socket: Arc<PacketSocket>,
    entry: Arc<UplinkEntry>,
    mtu: usize,
}

impl UplinkLink {
    /// An uplink, open if its interface is there.
    pub(super) fn new(
        id: PortId,
        name: &str,
        config: &AfPacket,
        worker: usize,
        probe: &InterfaceProbe,
    ) -> Result<Self, PortError> {
        let mut link = Self {
            id,
            name: name.into(),
            config: config.clone(),
            worker,
            open: None,
            ready: None,
            kernel_drops: 0,
            errors: BTreeMap::new(),
            last_error: None,
        };
        // What is wrong now is wrong with the request; what is not there may come.
        let opened = probe.look(&config.interface).and_then(|found| found.map(|found| link.open(found)).transpose());
        let wrong =
            |source| PortError::Interface { port: name.to_owned(), interface: config.interface.to_string(), source };
        if opened.map_err(wrong)?.is_none() {
            log::warn!("port {name}: there is no interface {}", config.interface);
        }
        Ok(link)
    }

    /// Looks whether the interface is still what it was, and does what follows. Returns whether anything changed that the
    /// workers must know.
    pub(super) fn look(&mut self, probe: &InterfaceProbe, fleet: &Fleet) -> Result<bool, WorkerGone> {
        let found = match probe.look(&self.config.interface) {
            Ok(found) => found,
            Err(error) => {
                self.complain("interface", &error);
                None
            }
        };
        let same =
            |open: &Open| found.is_some_and(|found| Interface { up: open.interface.up, ..found } == open.interface);
        let mut changed = false;
        if self.open.as_ref().is_some_and(|open| !same(open)) {
            let cause = if found.is_some() { "interface_changed" } else { "interface_gone" };
            log::warn!("port {}: interface {}: {cause}", self.name, self.config.interface);
            *self.errors.entry(cause).or_default() += 1;
            self.close(fleet)?;
            changed = true;
        }
        if let (None, Some(found)) = (&self.open, found)
            && let Err(error) = self.open(found)
        {
            self.complain("open", &error);
        }
        if let Some(uplink) = self.ready.take() {
            fleet.attach_uplink(self.worker, uplink)?;
            log::info!("port {}: interface {} is there", self.name, self.config.interface);
            changed = true;
            self.came_up(fleet)?;
        }
        if let (Some(open), Some(found)) = (&mut self.open, found)
            && found.up != open.interface.up
        {
            open.interface.up = found.up;
            log::info!("port {}: link {}", self.name, if found.up { "up" } else { "down" });
            changed = true;
            if found.up {
                self.came_up(fleet)?;
            } else {
                *self.errors.entry("link_down").or_default() += 1;
            }
        }
        Ok(changed)
    }

    /// Takes the socket back from its worker and closes it.
    pub(super) fn close(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        self.ready = None;
        if let Some(open) = self.open.take() {
            drop(fleet.detach_uplink(self.worker, self.id)?);
            self.kernel_drops += open.socket.take_kernel_drops().unwrap_or(0);
        }
        Ok(())
    }

    /// Where packets for the uplink go.
    pub(super) fn receivers(&self) -> Vec<Receiver> {
        let usable = self.ready.is_none() && self.open.as_ref().is_some_and(|open| open.interface.up);
        if usable { vec![Receiver { worker: self.worker, pair: 0 }] } else { Vec::new() }
    }

    /// What the workers know of it, while its interface is there.
    pub(super) fn entry(&self) -> Option<Arc<UplinkEntry>> {
        self.open.as_ref().map(|open| Arc::clone(&open.entry))
    }

    /// Adds what is known here to the port's status.
    pub(super) fn describe(&mut self, status: &mut PortStatus, fleet: &Fleet) -> Result<(), WorkerGone> {
        if let Some(open) = &self.open {
            self.kernel_drops += open.socket.take_kernel_drops().unwrap_or(0);
            if open.interface.up {
                status.state = PortState::Up;
            }
        }
        if self.kernel_drops > 0 {
            status.drops.insert(DropCause::UplinkFull.label().to_owned(), self.kernel_drops);
        }
        let (Some(open), Some(uplink)) = (&self.open, &mut status.uplink) else { return Ok(()) };
        uplink.mac = Some(open.interface.mac.to_string());
        uplink.mtu = u16::try_from(open.mtu).ok();
        let port = self.id;
        let LinkReport { mut neighbors, stats, parked } =
            fleet.ask(self.worker, |reply| Command::LinkReport { port, reply })?;
        neighbors.sort_by_key(|neighbor| neighbor.ip);
        uplink.neighbors = neighbors
            .into_iter()
            .map(|neighbor| NeighborStatus {
                ip: neighbor.ip.to_string(),
                mac: neighbor.mac.map(|mac| mac.to_string()),
                state: state_name(neighbor.state).to_owned(),
            })
            .collect();
        uplink.neighbors_asked = stats.asked;
        uplink.neighbors_answered = stats.answered;
        uplink.neighbors_learned = stats.learned;
        uplink.neighbors_failed = stats.failed;
        uplink.neighbors_duplicates = stats.duplicates;
        uplink.parked = parked as u64;
        Ok(())
    }

    /// What went wrong, by cause.
    pub(super) fn errors(&self) -> &BTreeMap<&'static str, u64> {
        &self.errors
    }

    fn open(&mut self, interface: Interface) -> io::Result<()> {
        let config = NeighborsConfig {
            mac: interface.mac,
            addresses: self.config.address.iter().map(|own| (own.address(), own.prefix())).collect(),
            gateway_v4: self.config.gateway.iter().find_map(|gateway| match gateway {
                IpAddr::V4(gateway) => Some(*gateway),
                IpAddr::V6(_) => None,
            }),
            gateway_v6: self.config.gateway.iter().find_map(|gateway| match gateway {
                IpAddr::V4(_) => None,
                IpAddr::V6(gateway) => Some(*gateway),
            }),
            ..NeighborsConfig::default()
        };
        let neighbors = (!self.config.address.is_empty()).then(|| Neighbors::new(&config).map(Box::new)).transpose();
        let neighbors = neighbors.map_err(io::Error::other)?;
        let socket = Arc::new(PacketSocket::open(interface.index, interface.mtu)?);
        let limit = self.config.mtu.map_or(usize::MAX, usize::from);
        let mtu = (interface.mtu as usize).min(limit).min(socket.max_mtu());
        let (rx, tx) = (RxRing::new(Arc::clone(&socket)), TxRing::new(Arc::clone(&socket)));
        self.ready = Some(Uplink { port: self.id, rx, tx, mtu, neighbors });
        let entry = Arc::new(UplinkEntry { mac: interface.mac, config: self.config.clone(), mtu });
        self.open = Some(Open { interface, socket, entry, mtu });
        self.last_error = None;
        Ok(())
    }

    fn came_up(&self, fleet: &Fleet) -> Result<(), WorkerGone> {
        if self.open.as_ref().is_some_and(|open| open.interface.up) {
            let port = self.id;
            fleet.ask(self.worker, |reply| Command::AnnounceUplink { port, reply })?;
        }
        Ok(())
    }

    fn complain(&mut self, cause: &'static str, error: &io::Error) {
        let text = error.to_string();
        if self.last_error.as_ref() != Some(&text) {
            log::warn!("port {}: interface {}: {text}", self.name, self.config.interface);
            *self.errors.entry(cause).or_default() += 1;
            self.last_error = Some(text);
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Failed => "failed",
        State::Incomplete => "incomplete",
        State::Stale => "stale",
        State::Reachable => "reachable",
    }
}
