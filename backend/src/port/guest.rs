// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user port's socket, and the connection on it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use packet::PortId;
use vhost_user::{Offer, features};
use virtqueue::{JournalFile, RingKind};

use super::dial::connect;
use super::member::PortError;
use super::rings::open_journal;
use super::session::{Changes, Session, SessionEnd};
use crate::config::{Role, VhostUser};
use crate::fleet::Fleet;
use crate::stats::{PortState, PortStatus, RingLayout};
use crate::sys::{SocketListener, SocketMode};
use crate::topology::Receiver;
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
    | features::VIRTIO_NET_F_GUEST_ANNOUNCE
    | features::VHOST_F_LOG_ALL;

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

/// The way to a guest.
#[derive(Debug)]
pub(super) struct GuestLink {
    id: PortId,
    name: Arc<str>,
    config: VhostUser,
    pub(super) listener: Option<SocketListener>,
    pub(super) session: Option<Session>,
    /// Grows with each connection, so that events of an earlier one are told apart.
    pub(super) generation: u32,
    workers: Arc<[usize]>,
    journal: Option<Arc<JournalFile>>,
    errors: BTreeMap<&'static str, u64>,
    /// The last failure to connect, so that it is logged once and not forty times a second.
    connect_error: Option<String>,
}

impl GuestLink {
    pub(super) fn new(
        id: PortId,
        name: &str,
        config: &VhostUser,
        workers: Arc<[usize]>,
        state_dir: &Path,
    ) -> Result<Self, PortError> {
        let listener = match config.role {
            Role::Server => Some(SocketListener::listen(&config.socket, SocketMode::Umask)),
            Role::Client => None,
        };
        let listener = listener.transpose().map_err(|source| PortError::Socket { port: name.to_owned(), source })?;
        let journal = open_journal(state_dir, name, config.queues * 2)
            .map_err(|source| PortError::Journal { port: name.to_owned(), source })?;
        Ok(Self {
            id,
            name: name.into(),
            config: config.clone(),
            listener,
            session: None,
            generation: 0,
            workers,
            journal: Some(Arc::new(journal)),
            errors: BTreeMap::new(),
            connect_error: None,
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

    /// Serves what the front end sent; the replies wait for [`GuestLink::flush`]. `Err`: a worker is gone, and so is the node.
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
            Some(mut session) => {
                let closed = session.close(fleet);
                self.count_beyond_log(session.take_beyond_log());
                closed
            }
            None => Ok(()),
        }
    }

    fn count_beyond_log(&mut self, pages: u64) {
        if pages > 0 {
            *self.errors.entry("log_beyond").or_default() += pages;
        }
    }

    /// The receive queues that take packets now.
    pub(super) fn receivers(&self) -> Vec<Receiver> {
        self.session.as_ref().map(Session::receivers).unwrap_or_default()
    }

    /// Adds what is known here to the port's status.
    pub(super) fn describe(&mut self, status: &mut PortStatus) {
        let beyond = self.session.as_mut().map_or(0, Session::take_beyond_log);
        self.count_beyond_log(beyond);
        if let Some(session) = &self.session {
            status.queue_pairs = session.pairs_up();
            status.state = if status.queue_pairs > 0 { PortState::Up } else { PortState::Connected };
            status.ring = session.layout().map(|kind| match kind {
                RingKind::Packed => RingLayout::Packed,
                RingKind::Split => RingLayout::Split,
            });
            status.features = features::names(session.features()).into_iter().map(Into::into).collect();
        }
    }

    /// What went wrong, by cause.
    pub(super) fn errors(&self) -> &BTreeMap<&'static str, u64> {
        &self.errors
    }
}
