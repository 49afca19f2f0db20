// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One port: what is common to all kinds, and what was counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use packet::PortId;
use virtqueue::JournalError;

use super::guest::GuestLink;
use super::uplink::UplinkLink;
use crate::config::{Endpoint, PortConfig};
use crate::counters::PortCounters;
use crate::fleet::Fleet;
use crate::stats::PortStatus;
use crate::sys::{InterfaceProbe, SocketError};
use crate::topology::PortEntry;
use crate::worker::WorkerGone;

/// Why a port cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Its socket.
    #[error("port {port:?}: {source}")]
    Socket {
        /// The port.
        port: String,
        /// What is wrong.
        source: SocketError,
    },
    /// Its interface, or whatever it reaches a network through.
    #[error("port {port:?}: {link}: {source}")]
    Link {
        /// The port.
        port: String,
        /// What it reaches it through.
        link: String,
        /// The key of `[[port]]` that says so.
        key: &'static str,
        /// What is wrong.
        source: std::io::Error,
    },
    /// Its ring records.
    #[error("port {port:?}: {source}")]
    Journal {
        /// The port.
        port: String,
        /// What is wrong.
        source: JournalError,
    },
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    /// The other end of its wire, by name; `None`: it is on the bridge.
    pub(super) wired_to: Option<String>,
    /// Whether it has policy.
    pub(super) policed: bool,
    workers: Arc<[usize]>,
    counters: Arc<[PortCounters]>,
    link: Link,
}

/// What leads to the other end.
#[derive(Debug)]
enum Link {
    Guest(Box<GuestLink>),
    Uplink(Box<UplinkLink>),
}

impl Port {
    pub(super) fn new(
        id: PortId,
        config: PortConfig,
        wired_to: Option<String>,
        workers: Arc<[usize]>,
        state_dir: &Path,
        probe: &InterfaceProbe,
        counters: Arc<[PortCounters]>,
    ) -> Result<Self, PortError> {
        let link = match &config.endpoint {
            Endpoint::VhostUser(guest) => {
                let guest = GuestLink::new(id, &config.name, guest, Arc::clone(&workers), state_dir)?;
                Link::Guest(Box::new(guest))
            }
            Endpoint::Uplink(uplink) => {
                let worker = workers.first().copied().unwrap_or(0);
                Link::Uplink(Box::new(UplinkLink::new(id, &config.name, uplink, worker, config.aggregation, probe)?))
            }
        };
        Ok(Self { id, config, wired_to, policed: false, workers, counters, link })
    }

    /// The way to a guest, if there is one at the other end.
    pub(super) fn guest(&self) -> Option<&GuestLink> {
        match &self.link {
            Link::Guest(guest) => Some(guest),
            Link::Uplink(_) => None,
        }
    }

    pub(super) fn guest_mut(&mut self) -> Option<&mut GuestLink> {
        match &mut self.link {
            Link::Guest(guest) => Some(guest),
            Link::Uplink(_) => None,
        }
    }

    pub(super) fn uplink_mut(&mut self) -> Option<&mut UplinkLink> {
        match &mut self.link {
            Link::Guest(_) => None,
            Link::Uplink(uplink) => Some(uplink),
        }
    }

    /// Queue pairs that there can be.
    pub(super) fn queue_pairs(&self) -> u16 {
        match &self.config.endpoint {
            Endpoint::VhostUser(guest) => guest.queues,
            Endpoint::Uplink(_) => 1,
        }
    }

    pub(super) fn is_uplink(&self) -> bool {
        matches!(self.link, Link::Uplink(_))
    }

    /// Lets go of what is at the other end.
    pub(super) fn close(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        match &mut self.link {
            Link::Guest(guest) => guest.close(fleet),
            Link::Uplink(uplink) => uplink.close(fleet),
        }
    }

    /// The worker of queue pair 0.
    pub(super) fn first_worker(&self) -> usize {
        self.workers.first().copied().unwrap_or(0)
    }

    pub(super) fn entry(&self) -> PortEntry {
        let (receivers, uplink) = match &self.link {
            Link::Guest(guest) => (guest.receivers(), None),
            Link::Uplink(uplink) => (uplink.receivers(), uplink.entry()),
        };
        PortEntry {
            wired: self.wired_to.is_some(),
            receivers,
            home: self.policed.then(|| self.first_worker()),
            counters: Arc::clone(&self.counters),
            mac: self.config.mac,
            vni: self.config.vni,
            uplink,
            aggregation: self.config.aggregation,
        }
    }

    /// `Err`: a worker is gone, and so is the node.
    pub(super) fn status(&mut self, fleet: &Fleet) -> Result<PortStatus, WorkerGone> {
        let mut status = PortStatus::new(&self.config);
        for counters in self.counters.iter() {
            status.rx_packets += counters.rx_packets.get();
            status.rx_bytes += counters.rx_bytes.get();
            status.tx_packets += counters.tx_packets.get();
            status.tx_bytes += counters.tx_bytes.get();
            status.notifications += counters.notifications.get();
            status.aggregation.rx_aggregates += counters.rx_aggregates.get();
            status.aggregation.rx_packets += counters.rx_aggregated.get();
            status.aggregation.rx_groups_spliced += counters.spliced.get();
            status.aggregation.rx_packets_spliced += counters.spliced_packets.get();
            status.aggregation.tx_aggregates += counters.tx_aggregates.get();
            status.aggregation.tx_packets += counters.tx_aggregated.get();
            status.aggregation.rx_lost += counters.rx_lost.get();
            status.aggregation.packets_damaged += counters.damaged.get();
            status.aggregation.rx_control += counters.rx_control.get();
            status.aggregation.tx_control += counters.tx_control.get();
            add_all(&mut status.aggregation.flushes, counters.triggers());
            add_all(&mut status.aggregation.peers, counters.peers());
            add_all(&mut status.aggregation.damages, counters.damages());
            for (distribution, buckets) in [
                (&mut status.aggregation.packets_per_frame, &counters.packets_per_frame),
                (&mut status.aggregation.held_ns, &counters.held_ns),
            ] {
                let (sum, counts) = buckets.get();
                distribution.add(sum, counts);
            }
            if let Some(uplink) = &mut status.uplink {
                uplink.rx_unfinished += counters.unfinished.get();
                uplink.rx_oversized += counters.oversized.get();
                uplink.segments += counters.segments.get();
            }
            add_all(&mut status.drops, counters.drops());
            add_all(&mut status.errors, counters.errors());
        }
        let errors = match &mut self.link {
            Link::Guest(guest) => {
                guest.describe(&mut status);
                guest.errors()
            }
            Link::Uplink(uplink) => {
                uplink.describe(&mut status, fleet)?;
                uplink.errors()
            }
        };
        add_all(&mut status.errors, errors.iter().map(|(cause, n)| (*cause, *n)));
        Ok(status)
    }
}

/// Adds what is not zero: a label that never moved is only noise.
fn add_all(to: &mut BTreeMap<String, u64>, counts: impl Iterator<Item = (&'static str, u64)>) {
    for (cause, n) in counts.filter(|(_, n)| *n > 0) {
        *to.entry(cause.to_owned()).or_default() += n;
    }
}
