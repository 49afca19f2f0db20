// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One port: its socket, the connection on it, and what was counted.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use packet::PortId;
use vhost_user::Offer;
use vhost_user::features;
use virtqueue::{JournalError, JournalFile, RingKind};

use super::dial::connect;
use super::rings::open_journal;
use super::session::{Changes, Session, SessionEnd};
use crate::config::{PortConfig, Role};
use crate::counters::PortCounters;
use crate::fleet::Fleet;
use crate::stats::{PortState, PortStatus, RingLayout};
use crate::sys::{SocketError, SocketListener, SocketMode};
use crate::topology::PortEntry;
use crate::worker::WorkerGone;

/// What a port offers. It never shrinks: a front end that reconnects keeps what it had (`docs/design.md`).
const OFFERED: u64 = features::VIRTIO_F_VERSION_1
    | features::VIRTIO_F_RING_PACKED
    | features::VIRTIO_F_IN_ORDER
    | features::VIRTIO_F_ANY_LAYOUT
    | features::VIRTIO_RING_F_INDIRECT_DESC
    | features::VIRTIO_RING_F_EVENT_IDX
    | features::VIRTIO_NET_F_MRG_RXBUF
    | features::VIRTIO_NET_F_MQ
    | features::VIRTIO_NET_F_MTU
    | features::VIRTIO_NET_F_GUEST_ANNOUNCE;

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
    /// Its ring records.
    #[error("port {port:?}: {source}")]
    Journal {
        /// The port.
        port: String,
        /// What is wrong.
        source: JournalError,
    },
}

/// What came of a look at the listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// A connection that is to be watched.
    Opened,
    /// Nobody waits, or whoever did was refused.
    None,
    /// Somebody waits and cannot be taken: this process is out of descriptors.
    Failed,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    name: Arc<str>,
    /// The other end of its wire, by name; `None`: it is on the bridge.
    pub(super) wired_to: Option<String>,
    /// Whether it has policy.
    pub(super) policed: bool,
    pub(super) listener: Option<SocketListener>,
    pub(super) session: Option<Session>,
    /// Grows with each connection, so that events of an earlier one are told apart.
    pub(super) generation: u32,
    workers: Arc<[usize]>,
    journal: Option<Arc<JournalFile>>,
    counters: Arc<[PortCounters]>,
    errors: BTreeMap<&'static str, u64>,
    /// The last failure to connect, so that it is logged once and not forty times a second.
    connect_error: Option<String>,
}

impl Port {
    pub(super) fn new(
        id: PortId,
        config: PortConfig,
        wired_to: Option<String>,
        workers: Arc<[usize]>,
        all_workers: usize,
        state_dir: &Path,
    ) -> Result<Self, PortError> {
        let name = config.name.to_string();
        let listener = match config.role {
            Role::Server => Some(SocketListener::listen(&config.socket, SocketMode::Umask)),
            Role::Client => None,
        };
        let listener = listener.transpose().map_err(|source| PortError::Socket { port: name.clone(), source })?;
        let journal = open_journal(state_dir, &name, config.queues * 2)
            .map_err(|source| PortError::Journal { port: name.clone(), source })?;
        Ok(Self {
            id,
            wired_to,
            policed: false,
            listener,
            session: None,
            generation: 0,
            workers,
            journal: Some(Arc::new(journal)),
            counters: (0..all_workers).map(|_| PortCounters::default()).collect(),
            errors: BTreeMap::new(),
            connect_error: None,
            name: name.into(),
            config,
        })
    }

    /// Takes the next waiting connection. A second one is refused while the first lives.
    pub(super) fn accept(&mut self) -> Accepted {
        let Some(listener) = &self.listener else { return Accepted::None };
        match listener.socket().accept() {
            Ok((stream, _)) if self.session.is_none() => {
                if self.open(stream) {
                    Accepted::Opened
                } else {
                    Accepted::None
                }
            }
            Ok(_) => {
                log::warn!("port {}: a second connection is refused", self.name);
                *self.errors.entry("second_connection").or_default() += 1;
                Accepted::None
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Accepted::None,
            Err(error) => {
                log::warn!("port {}: accept: {error}", self.name);
                *self.errors.entry("accept").or_default() += 1;
                Accepted::Failed
            }
        }
    }

    /// Whether the node is to connect now.
    pub(super) fn wants_connection(&self) -> bool {
        self.config.role == Role::Client && self.session.is_none()
    }

    /// Client role: tries to connect.
    pub(super) fn try_connect(&mut self) -> bool {
        match connect(self.config.socket.as_ref()) {
            Ok(Some(stream)) => {
                self.connect_error = None;
                self.open(stream)
            }
            Ok(None) => false,
            Err(error) => {
                let text = error.to_string();
                if self.connect_error.as_ref() != Some(&text) {
                    log::warn!("port {}: {text}", self.name);
                    *self.errors.entry("connect").or_default() += 1;
                    self.connect_error = Some(text);
                }
                false
            }
        }
    }

    fn open(&mut self, stream: UnixStream) -> bool {
        if let Err(error) = stream.set_nonblocking(true) {
            log::warn!("port {}: {error}", self.name);
            return false;
        }
        log::info!("port {}: connected", self.name);
        let offer = Offer::new(OFFERED, self.config.queues);
        let (name, workers, journal) = (Arc::clone(&self.name), Arc::clone(&self.workers), self.journal.clone());
        self.session = Some(Session::new(name, self.id, stream, offer, workers, journal));
        self.generation = self.generation.wrapping_add(1);
        true
    }

    /// Serves what the front end sent; the replies wait for [`Port::flush`]. `Err`: a worker is gone, and so is the node.
    pub(super) fn serve(&mut self, fleet: &Fleet) -> Result<Changes, WorkerGone> {
        let mut changes = Changes::default();
        let Some(session) = &mut self.session else { return Ok(changes) };
        let result = session.readable(fleet, &mut changes);
        for cause in &changes.refused {
            *self.errors.entry(cause).or_default() += 1;
        }
        if let Err(end) = result {
            // The last reply may say what was wrong; one that cannot be sent changes nothing.
            let _ = session.flush();
            self.disconnect(&end, fleet)?;
            changes.queues = true;
        }
        Ok(changes)
    }

    /// Sends replies. Returns whether receive queues changed, because the connection is gone.
    pub(super) fn flush(&mut self, fleet: &Fleet) -> Result<bool, WorkerGone> {
        let Some(session) = &mut self.session else { return Ok(false) };
        match session.flush() {
            Ok(()) => Ok(false),
            Err(end) => self.disconnect(&end, fleet).map(|()| true),
        }
    }

    fn disconnect(&mut self, end: &SessionEnd, fleet: &Fleet) -> Result<(), WorkerGone> {
        match end.cause() {
            None => log::info!("port {}: {end}", self.name),
            Some(cause) => {
                log::warn!("port {}: connection closed: {end}", self.name);
                *self.errors.entry(cause).or_default() += 1;
            }
        }
        self.close(fleet)
    }

    /// Ends the connection, if there is one.
    pub(super) fn close(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        match self.session.take() {
            Some(mut session) => session.close(fleet),
            None => Ok(()),
        }
    }

    /// The worker of queue pair 0.
    pub(super) fn first_worker(&self) -> usize {
        self.workers.first().copied().unwrap_or(0)
    }

    pub(super) fn entry(&self) -> PortEntry {
        let receivers = self.session.as_ref().map(Session::receivers).unwrap_or_default();
        let home = self.policed.then(|| self.first_worker());
        PortEntry { wired: self.wired_to.is_some(), receivers, home, counters: Arc::clone(&self.counters) }
    }

    pub(super) fn status(&self) -> PortStatus {
        let mut status = PortStatus::new(&self.config);
        if let Some(session) = &self.session {
            status.queue_pairs = session.pairs_up();
            status.state = if status.queue_pairs > 0 { PortState::Up } else { PortState::Connected };
            status.ring = session.layout().map(|kind| match kind {
                RingKind::Packed => RingLayout::Packed,
                RingKind::Split => RingLayout::Split,
            });
            status.features = features::names(session.features()).into_iter().map(Into::into).collect();
        }
        for counters in self.counters.iter() {
            status.rx_packets += counters.rx_packets.get();
            status.rx_bytes += counters.rx_bytes.get();
            status.tx_packets += counters.tx_packets.get();
            status.tx_bytes += counters.tx_bytes.get();
            status.notifications += counters.notifications.get();
            add_all(&mut status.drops, counters.drops());
            add_all(&mut status.errors, counters.errors());
        }
        add_all(&mut status.errors, self.errors.iter().map(|(cause, n)| (*cause, *n)));
        status
    }
}

/// Adds what is not zero: a label that never moved is only noise.
fn add_all(to: &mut BTreeMap<String, u64>, counts: impl Iterator<Item = (&'static str, u64)>) {
    for (cause, n) in counts.filter(|(_, n)| *n > 0) {
        *to.entry(cause.to_owned()).or_default() += n;
    }
}
