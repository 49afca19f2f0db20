// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One connection of one front end: its socket, its protocol state, its memory, its rings.
//!
//! A session does what the protocol machine asks for, in order. Any error ends the session and nothing else: dropping it
//! closes every descriptor and unmaps every region, once [`Session::close`] has taken the rings back from the workers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use packet::PortId;
use vhost_user::{
    Action, BackendConnection, Frame, LogArea, MemoryAck, Offer, ProtocolError, Region, StopAck, VringStart,
};
use virtqueue::{DirtyLog, JournalFile, MapError, MemoryMap, RegionSpec, RingBase, RingKind};

use super::rings::{EventKind, Rings};
use crate::fleet::Fleet;
use crate::sys::{ReadOutcome, receive, send};
use crate::topology::Receiver;
use crate::worker::WorkerGone;

/// Messages read in one go before other ports get their turn.
const READS_PER_EVENT: usize = 256;
/// Replies that a front end may leave unread.
const MAX_UNSENT: usize = 64;
/// Bytes of one read: more than the largest message.
const READ_BUFFER: usize = 8192;

/// Why a session ends. Everything but [`SessionEnd::Closed`] is the front end's doing and is counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("the front end closed the connection")]
    Closed,
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("more descriptors than this process may have, or than one message may carry")]
    FdsTruncated,
    #[error("{MAX_UNSENT} replies were not read")]
    RepliesUnread,
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Worker(#[from] WorkerGone),
}

impl SessionEnd {
    /// The label of the counter that moves; `None`: an orderly end.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Protocol(error) => Some(error.cause()),
            Self::FdsTruncated => Some("fds_truncated"),
            Self::RepliesUnread => Some("replies_unread"),
            Self::Io(_) => Some("socket"),
            Self::Worker(_) => Some("worker"),
        }
    }
}

/// What the rest of the node must hear of after some messages.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Receive queues came, went or changed.
    pub(crate) queues: bool,
    /// The guest moved here: announce this address.
    pub(crate) rarp: Vec<[u8; 6]>,
    /// Requests that had no effect, by cause.
    pub(crate) refused: Vec<&'static str>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    name: Arc<str>,
    socket: UnixStream,
    connection: BackendConnection<OwnedFd>,
    map: Arc<MemoryMap>,
    rings: Rings,
    journal: Option<Arc<JournalFile>>,
    unsent: VecDeque<Frame<OwnedFd>>,
    sent_of_first: usize,
    layout: Option<RingKind>,
    announced: Option<u64>,
}

impl Session {
    pub(crate) fn new(
        name: Arc<str>,
        port: PortId,
        socket: UnixStream,
        offer: Offer,
        workers: Arc<[usize]>,
        journal: Option<Arc<JournalFile>>,
    ) -> Self {
        let rings = Rings::new(port, workers, offer.max_queues);
        Self {
            name,
            socket,
            connection: BackendConnection::new(offer),
            map: Arc::new(MemoryMap::empty()),
            rings,
            journal,
            unsent: VecDeque::new(),
            sent_of_first: 0,
            layout: None,
            announced: None,
        }
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Reads and serves what has come. Replies wait for [`Session::flush`], so that what they acknowledge can take effect
    /// everywhere before they are sent.
    pub(crate) fn readable(&mut self, fleet: &Fleet, changes: &mut Changes) -> Result<(), SessionEnd> {
        let mut buffer = [0; READ_BUFFER];
        for _ in 0..READS_PER_EVENT {
            let wanted = self.connection.wanted().clamp(1, READ_BUFFER);
            let mut fds = Vec::new();
            let room = buffer.get_mut(..wanted).unwrap_or_default();
            match receive(self.socket.as_fd(), room, &mut fds)? {
                ReadOutcome::Bytes(count) => self.connection.receive(buffer.get(..count).unwrap_or_default(), fds),
                ReadOutcome::WouldBlock => return Ok(()),
                ReadOutcome::Closed => return Err(SessionEnd::Closed),
                ReadOutcome::FdsTruncated => return Err(SessionEnd::FdsTruncated),
            }
            while let Some(action) = self.connection.poll()? {
                self.perform(action, fleet, changes)?;
            }
        }
        Ok(())
    }

    /// Sends the replies, as far as the socket takes them.
    pub(crate) fn flush(&mut self) -> Result<(), SessionEnd> {
        while let Some(frame) = self.unsent.front() {
            let rest = frame.bytes.get(self.sent_of_first..).unwrap_or_default();
            let fds = if self.sent_of_first == 0 { frame.fds.as_slice() } else { &[] };
            let sent = send(self.socket.as_fd(), rest, fds)?;
            if sent == 0 && !rest.is_empty() {
                return Ok(());
            }
            if sent == rest.len() {
                self.unsent.pop_front();
                self.sent_of_first = 0;
            } else {
                self.sent_of_first += sent;
            }
        }
        Ok(())
    }

    /// Whether the socket must be watched for room.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes the rings back, so that nothing touches the guest's memory any more. Their records stay.
    pub(crate) fn close(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        self.rings.stop_all(fleet)
    }

    /// How many pages were written for which the log of dirty pages has no bit, since this was asked last.
    pub(crate) fn take_beyond_log(&mut self) -> u64 {
        self.rings.take_beyond_log()
    }

    pub(crate) fn receivers(&self) -> Vec<Receiver> {
        self.rings.receivers()
    }

    pub(crate) fn pairs_up(&self) -> u16 {
        self.rings.pairs_up()
    }

    /// The negotiated layout, once a ring has started.
    pub(crate) fn layout(&self) -> Option<RingKind> {
        self.layout
    }

    /// The acknowledged virtio features.
    pub(crate) fn features(&self) -> u64 {
        self.connection.backend().acked_features().unwrap_or(0)
    }

    fn perform(&mut self, action: Action<OwnedFd>, fleet: &Fleet, changes: &mut Changes) -> Result<(), SessionEnd> {
        match action {
            Action::Reply(frame) => self.reply(frame)?,
            Action::FeaturesChanged(features) => {
                log::debug!("port {}: features {}", self.name, vhost_user::features::Bits::Virtio(features));
            }
            Action::SetMemory { regions, same_layout: _, ack } => {
                let regions = regions.into_iter().map(|(region, fd)| (spec(&region), fd)).collect();
                let map = self.map.replace(regions);
                self.change_memory(map, ack, fleet, changes)?;
            }
            Action::AddRegion { region, fd, ack } => {
                let map = self.map.with_region(spec(&region), fd);
                self.change_memory(map, ack, fleet, changes)?;
            }
            Action::RemoveRegion { region, ack } => {
                let map = self.map.without_region(&spec(&region));
                self.change_memory(map, ack, fleet, changes)?;
            }
            Action::SetLog { log, fd, ack } => self.set_log(log, fd, ack, fleet)?,
            Action::SetLogging(all) => {
                log::info!(
                    "port {}: {}",
                    self.name,
                    if all { "all that is written is logged" } else { "nothing more is logged" }
                );
                self.rings.set_logging(all, fleet)?;
            }
            Action::SetVringLog { vring, address } => self.rings.set_ring_log(vring, address, fleet)?,
            Action::Start(start) => {
                self.start(&start, fleet, changes)?;
                changes.queues = true;
            }
            Action::Stop { vring, ack } => {
                self.stop(vring, ack, fleet)?;
                changes.queues = true;
            }
            Action::SetEnabled { vring, enabled } => {
                self.rings.set_enabled(vring, enabled, fleet)?;
                changes.queues = true;
            }
            Action::SetKick { vring, fd } => self.rings.set_event(vring, EventKind::Kick, fd, fleet)?,
            Action::SetCall { vring, fd } => self.rings.set_event(vring, EventKind::Call, fd, fleet)?,
            Action::SetErr { vring, fd } => self.rings.set_event(vring, EventKind::Error, fd, fleet)?,
            Action::SetMtu(mtu) => log::info!("port {}: the guest's MTU is {mtu}", self.name),
            Action::SendRarp(mac) => changes.rarp.push(mac),
            Action::Status(status) => log::debug!("port {}: device status {status:#x}", self.name),
            Action::ConfigChanged(config) => log::debug!("port {}: configuration is now {config:?}", self.name),
            Action::ResetDevice => {
                log::info!("port {}: device reset", self.name);
                self.rings.reset();
            }
            // Nothing beyond what the state machine serves itself is offered.
            Action::Request { request: _, ack } => self.connection.finish_request(ack, None),
            Action::Refused(error) => {
                log::warn!("port {}: {error}", self.name);
                changes.refused.push(error.cause());
            }
        }
        Ok(())
    }

    fn reply(&mut self, frame: Frame<OwnedFd>) -> Result<(), SessionEnd> {
        if self.unsent.len() >= MAX_UNSENT {
            // A front end that sends many requests in one go may get the first answers early, but not none at all.
            self.flush()?;
        }
        if self.unsent.len() >= MAX_UNSENT {
            return Err(SessionEnd::RepliesUnread);
        }
        self.unsent.push_back(frame);
        Ok(())
    }

    /// Publishes a new memory map; the old one goes when every worker has left it.
    fn change_memory(
        &mut self,
        map: Result<MemoryMap, MapError>,
        ack: MemoryAck,
        fleet: &Fleet,
        changes: &mut Changes,
    ) -> Result<(), SessionEnd> {
        let done = match map {
            Ok(map) => {
                if let Some(Err(error)) = self.rings.log().map(|log| log.check_covers(&map)) {
                    // What is written there will be missed where the guest migrates to, and is counted.
                    log::warn!("port {}: {error}", self.name);
                    changes.refused.push("log_too_short");
                }
                let map = Arc::new(map);
                changes.queues |= self.rings.set_memory(&map, fleet)?;
                self.map = map;
                true
            }
            Err(error) => {
                log::warn!("port {}: {error}", self.name);
                false
            }
        };
        self.connection.finish(ack, done);
        Ok(())
    }

    /// Changes the log of dirty pages. The front end hears of it when no worker writes into the one before any more.
    fn set_log(&mut self, area: LogArea, fd: OwnedFd, ack: MemoryAck, fleet: &Fleet) -> Result<(), SessionEnd> {
        let log = DirtyLog::map(fd, area.offset, area.size);
        let log = log.and_then(|log| log.check_covers(&self.map).map(|()| log));
        match log {
            Ok(log) => {
                self.rings.set_log(log, &self.map, fleet)?;
                self.connection.finish(ack, true);
            }
            Err(error) => {
                log::warn!("port {}: {error}", self.name);
                self.connection.finish(ack, false);
            }
        }
        Ok(())
    }

    fn start(&mut self, start: &VringStart, fleet: &Fleet, changes: &mut Changes) -> Result<(), SessionEnd> {
        let config = match self.rings.start(start, &self.map, self.journal.as_deref(), fleet) {
            Ok(config) => config,
            Err(super::rings::StartError::Worker(gone)) => return Err(gone.into()),
            Err(error) => {
                // The ring stays down; the front end may describe it anew.
                log::warn!("port {}: {error}", self.name);
                changes.refused.push("ring_start");
                return Ok(());
            }
        };
        self.layout = Some(config.features.kind);
        if self.announced != Some(start.features) {
            self.announced = Some(start.features);
            let features = vhost_user::features::Bits::Virtio(start.features);
            log::info!("port {}: {:?} rings, features {features}", self.name, config.features.kind);
        }
        log::debug!("port {}: ring {} of {} runs from {:?}", self.name, start.vring, config.size, config.base);
        Ok(())
    }

    fn stop(&mut self, vring: u16, ack: StopAck, fleet: &Fleet) -> Result<(), SessionEnd> {
        let base = self.rings.stop(vring, fleet)?;
        if let Some(record) = self.journal.as_ref().and_then(|journal| journal.queue(vring)) {
            // From here on the front end knows the position.
            record.clear();
        }
        let kind = self.layout.unwrap_or(RingKind::Split);
        let base = base.unwrap_or_else(|| RingBase::initial(kind)).to_wire(kind);
        self.connection.finish_stop(ack, base);
        Ok(())
    }
}

fn spec(region: &Region) -> RegionSpec {
    let Region { guest_addr, size, user_addr, mmap_offset } = *region;
    RegionSpec { guest_addr, size, user_addr, mmap_offset }
}
