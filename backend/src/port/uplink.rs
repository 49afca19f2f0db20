// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An uplink's link: whether there is one, and who has it.
//!
//! Interfaces come and go, and change, without asking. They are looked at on a timer: one that appears is opened and handed
//! to its worker, one that is gone or became another is taken back and closed, one that is merely down keeps its socket and
//! gets no packets. A packet socket by itself survives its interface going down and coming up. What somebody else has, often
//! a node that is just ending, is tried again: at every look for a while, and then less often.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use packet::{DropCause, MacAddr, PortId};
use switch::neighbors::{Neighbors, NeighborsConfig, State};

use super::member::PortError;
use crate::config::{Aggregation, Capability, PortKind, UplinkConfig, XdpMode};
use crate::confine;
use crate::fleet::Fleet;
use crate::link::{Link, Opened};
use crate::stats::{NeighborStatus, PortState, PortStatus, XdpStatus};
use crate::sys::{Interface, InterfaceProbe};
use crate::topology::{Receiver, UplinkEntry};
use crate::worker::{Command, LinkReport, Uplink, WireConfig, WorkerGone};

/// How many looks in a row try to open what is busy, and of those after them one in how many does.
const EAGER_LOOKS: u32 = 25;
const PATIENT_LOOKS: u32 = 25;

/// The way to a network.
#[derive(Debug)]
pub(super) struct UplinkLink {
    id: PortId,
    name: Arc<str>,
    config: UplinkConfig,
    worker: usize,
    open: Option<Open>,
    /// Opened, and not handed to its worker yet.
    ready: Option<Uplink>,
    /// What the kernel lost, on this and earlier sockets.
    kernel_drops: u64,
    errors: BTreeMap<&'static str, u64>,
    /// The last failure, so that it is logged once and not at every look.
    last_error: Option<String>,
    /// Looks in a row that found it busy.
    busy_looks: u32,
    /// How it deals with aggregates.
    aggregation: Aggregation,
}

/// An interface with a socket on it.
#[derive(Debug)]
struct Open {
    interface: Interface,
    link: Link,
    entry: Arc<UplinkEntry>,
    mtu: usize,
}

impl UplinkLink {
    /// An uplink, open if its interface is there.
    pub(super) fn new(
        id: PortId,
        name: &str,
        config: &UplinkConfig,
        worker: usize,
        aggregation: Aggregation,
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
            busy_looks: 0,
            aggregation,
        };
        // What is wrong now is wrong with the request; what is not there may come, and what is busy may become free.
        match link.open(probe, None) {
            Ok(true) => {}
            Ok(false) => log::warn!("port {name}: there is no {}", config.link),
            Err(source) => match passing_cause(&source) {
                Some(cause) => link.complain(cause, &source),
                None => {
                    let (link, key) = (config.link.to_string(), config.link.key());
                    return Err(PortError::Link { port: name.to_owned(), link, key, source });
                }
            },
        }
        Ok(link)
    }

    /// Looks whether the interface is still what it was, and does what follows. Returns whether anything changed that the
    /// workers must know.
    pub(super) fn look(&mut self, probe: &InterfaceProbe, fleet: &Fleet) -> Result<bool, WorkerGone> {
        let mut changed = false;
        let mut kept = None;
        if let Some(open) = &self.open {
            let before = open.interface;
            let found = match open.link.look(&self.config.link, probe, before) {
                Ok(found) => found,
                Err(error) => {
                    self.complain("interface", &error);
                    None
                }
            };
            match found {
                Some(found) if (Interface { up: before.up, ..found }) == before => {
                    changed |= self.follow(found.up, fleet)?;
                }
                _ => {
                    let cause = if found.is_some() { "interface_changed" } else { "interface_gone" };
                    log::warn!("port {}: {}: {cause}", self.name, self.config.link);
                    *self.errors.entry(cause).or_default() += 1;
                    kept = self.take_back(fleet)?.filter(|_| found.is_some());
                    changed = true;
                }
            }
        }
        if self.open.is_none() && self.is_due() {
            match self.open(probe, kept.and_then(Link::keep)) {
                Ok(_) => self.busy_looks = 0,
                Err(error) => match passing_cause(&error) {
                    Some(cause) => {
                        self.busy_looks += 1;
                        self.complain(cause, &error);
                        if self.busy_looks == EAGER_LOOKS {
                            log::warn!("port {}: {} is still {cause}: {error}", self.name, self.config.link);
                        }
                    }
                    None => self.complain("open", &error),
                },
            }
        }
        if let Some(uplink) = self.ready.take() {
            fleet.attach_uplink(self.worker, uplink)?;
            log::info!("port {}: {} is there", self.name, self.config.link);
            changed = true;
            self.came_up(fleet)?;
        }
        Ok(changed)
    }

    /// Takes the socket back from its worker and closes it.
    pub(super) fn close(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        self.take_back(fleet).map(drop)
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
            self.kernel_drops += open.link.take_kernel_drops();
            if open.interface.up {
                status.state = PortState::Up;
            }
        }
        if self.kernel_drops > 0 {
            status.drops.insert(DropCause::UplinkFull.label().to_owned(), self.kernel_drops);
        }
        let (Some(open), Some(uplink)) = (&self.open, &mut status.uplink) else { return Ok(()) };
        uplink.mac = Some(open.entry.mac.to_string());
        uplink.mtu = u16::try_from(open.mtu).ok();
        uplink.xdp = open.link.xdp_mode().map(|mode| XdpStatus {
            mode: if mode.native { XdpMode::Native } else { XdpMode::Generic },
            zero_copy: mode.zero_copy,
            multi_buffer: mode.multi_buffer,
        });
        let port = self.id;
        let LinkReport { mut neighbors, stats, parked, faults } =
            fleet.ask(self.worker, |reply| Command::LinkReport { port, reply })?;
        self.count(faults);
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

    /// Opens it, to be handed to its worker. `false`: the interface is not there.
    fn open(&mut self, probe: &InterfaceProbe, kept: Option<Link>) -> io::Result<bool> {
        let kind = self.config.link.kind();
        let Some(opened) = Link::open(&self.config.link, probe, kept).map_err(|error| explained(error, kind))? else {
            return Ok(false);
        };
        let Opened { link, rx, tx, interface, mac, mtu } = opened;
        let config = NeighborsConfig {
            mac,
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
        let mtu = mtu.min(self.config.mtu.map_or(usize::MAX, usize::from));
        let wire = self.wire(mac, tx.longest_aggregate(mtu), tx.has_one_peer());
        self.ready = Some(Uplink { port: self.id, rx, tx, mtu, neighbors, wire });
        let takes_unfinished = link.takes_unfinished();
        let entry = Arc::new(UplinkEntry { mac, config: self.config.clone(), mtu, takes_unfinished });
        self.open = Some(Open { interface, link, entry, mtu });
        self.last_error = None;
        Ok(true)
    }

    /// How aware nodes are looked for there.
    fn wire(&self, mac: MacAddr, longest: usize, one_peer: bool) -> Option<WireConfig> {
        let Aggregation { aggregate, trusted, max_bytes, max_frames, time_usecs, template } = self.aggregation;
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let session = RandomState::new().hash_one(self.id.0) as u32 | 1;
        aggregate.then(|| WireConfig {
            session,
            mac,
            longest,
            one_peer,
            trusted,
            max_bytes: max_bytes.map_or(usize::MAX, |bytes| bytes as usize),
            max_packets: max_frames.map_or(u32::MAX, u32::from),
            time_usecs,
            template,
        })
    }

    /// Takes the socket back from its worker.
    fn take_back(&mut self, fleet: &Fleet) -> Result<Option<Link>, WorkerGone> {
        self.ready = None;
        let Some(open) = self.open.take() else { return Ok(None) };
        if let Some(mut uplink) = fleet.detach_uplink(self.worker, self.id)? {
            self.count(uplink.rx.take_faults());
        }
        self.kernel_drops += open.link.take_kernel_drops();
        Ok(Some(open.link))
    }

    /// Notes whether the interface is up. Returns whether that is new.
    fn follow(&mut self, up: bool, fleet: &Fleet) -> Result<bool, WorkerGone> {
        let Some(open) = self.open.as_mut().filter(|open| open.interface.up != up) else { return Ok(false) };
        open.interface.up = up;
        log::info!("port {}: link {}", self.name, if up { "up" } else { "down" });
        if up {
            self.came_up(fleet)?;
        } else {
            *self.errors.entry("link_down").or_default() += 1;
        }
        Ok(true)
    }

    /// Whether a look may try to open it.
    fn is_due(&mut self) -> bool {
        if self.busy_looks < EAGER_LOOKS {
            return true;
        }
        self.busy_looks += 1;
        self.busy_looks.is_multiple_of(PATIENT_LOOKS)
    }

    fn came_up(&self, fleet: &Fleet) -> Result<(), WorkerGone> {
        if self.open.as_ref().is_some_and(|open| open.interface.up) {
            let port = self.id;
            fleet.ask(self.worker, |reply| Command::AnnounceUplink { port, reply })?;
        }
        Ok(())
    }

    fn count(&mut self, faults: BTreeMap<&'static str, u64>) {
        for (cause, n) in faults {
            *self.errors.entry(cause).or_default() += n;
        }
    }

    fn complain(&mut self, cause: &'static str, error: &io::Error) {
        let text = error.to_string();
        if self.last_error.as_ref() != Some(&text) {
            log::warn!("port {}: {}: {text}", self.name, self.config.link);
            *self.errors.entry(cause).or_default() += 1;
            self.last_error = Some(text);
        }
    }
}

/// An error that says which privilege is missing, if that is why.
fn explained(error: io::Error, kind: PortKind) -> io::Error {
    let lacking = confine::lacking(Capability::of(kind));
    if error.kind() != io::ErrorKind::PermissionDenied || lacking.is_empty() {
        return error;
    }
    let lacking: Vec<_> = lacking.iter().map(Capability::to_string).collect();
    let why = "was not given, or gave up because no port of its configuration needed it ([process] \"capabilities\")";
    io::Error::new(error.kind(), format!("{error}; the node {why}: {}", lacking.join(", ")))
}

/// What an error is called that time may heal: somebody else has it, or an address or a way is not there yet.
fn passing_cause(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, HostUnreachable, NetworkUnreachable, ResourceBusy};
    match error.kind() {
        ResourceBusy | AddrInUse => Some("busy"),
        AddrNotAvailable | HostUnreachable | NetworkUnreachable => Some("unreachable"),
        _ => None,
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
