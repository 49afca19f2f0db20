// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A port's rings: from what the front end said to a queue that a worker owns, and back.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use packet::PortId;
use vhost_user::VringStart;
use virtqueue::{
    DirtyLog, JournalError, JournalFile, MemoryMap, QueueConfig, QueueError, QueueFeatures, RingAddresses, RingBase,
    RingKind, RxQueue, TxQueue, recover_split_base,
};

use super::logging::Logging;
use crate::fleet::Fleet;
use crate::topology::Receiver;
use crate::worker::{Attachment, Bell, Command, Queue, QueueId, Side, WorkerGone};

/// The base that DPDK's virtio-user sends: it has reset its rings.
const BASE_OF_A_RESET_DRIVER: u32 = 0x0000_8000;

/// Why a ring cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("ring {vring}: address {address:#x} is not in guest memory")]
    Address { vring: u16, address: u64 },
    #[error("ring {vring}: {source}")]
    Queue { vring: u16, source: QueueError },
    #[error(transparent)]
    Worker(#[from] WorkerGone),
}

/// One ring's eventfds and state, kept on this side while a worker owns the queue.
#[derive(Debug, Default)]
struct Ring {
    kick: Option<Bell>,
    call: Option<Bell>,
    error: Option<Bell>,
    running: bool,
    enabled: bool,
    /// Where a ring stands that was started and does not run: it could not be, or it lost its memory.
    fallen_at: Option<RingBase>,
}

/// Which of a ring's eventfds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventKind {
    Kick,
    Call,
    Error,
}

/// All rings of a connection.
#[derive(Debug)]
pub(crate) struct Rings {
    port: PortId,
    /// The port's workers; queue pair `p` belongs to the one at `p` modulo their number.
    workers: Arc<[usize]>,
    rings: Vec<Ring>,
    logging: Logging,
}

impl Rings {
    pub(crate) fn new(port: PortId, workers: Arc<[usize]>, count: u16) -> Self {
        let rings = (0..count).map(|_| Ring::default()).collect();
        Self { port, workers, rings, logging: Logging::new(count) }
    }

    /// Moves a complete ring to its worker. Returns what the ring is, for the log.
    pub(crate) fn start(
        &mut self,
        start: &VringStart,
        map: &Arc<MemoryMap>,
        journal: Option<&JournalFile>,
        fleet: &Fleet,
    ) -> Result<QueueConfig, StartError> {
        let result = self.try_start(start, map, journal, fleet);
        if result.is_err()
            && let Some(ring) = self.rings.get_mut(usize::from(start.vring))
        {
            let kind = QueueFeatures::from_bits(start.features).kind;
            ring.fallen_at = start.base.and_then(|word| RingBase::from_wire(kind, start.size, word).ok());
        }
        result
    }

    fn try_start(
        &mut self,
        start: &VringStart,
        map: &Arc<MemoryMap>,
        journal: Option<&JournalFile>,
        fleet: &Fleet,
    ) -> Result<QueueConfig, StartError> {
        let vring = start.vring;
        let wrong = |source| StartError::Queue { vring, source };
        let (config, recovered) = configure(start, map, journal)?;
        let record =
            journal.filter(|_| config.features.kind == RingKind::Packed).and_then(|journal| journal.queue(vring));
        let map = Arc::clone(map);
        let mut queue = match Side::of_vring(vring) {
            Side::Transmit => Queue::Transmit(TxQueue::new(config, Arc::clone(&map), record).map_err(wrong)?),
            Side::Receive => Queue::Receive(RxQueue::new(config, Arc::clone(&map), record).map_err(wrong)?),
        };
        if recovered {
            log::info!("{:?} ring {vring} resumes at {:?}", self.port, queue.base());
        }
        self.logging.started();
        queue.set_log(self.logging.pages(vring));
        let (id, worker) = (self.id(vring), self.worker(vring));
        let Some(ring) = self.rings.get_mut(usize::from(vring)) else { return Ok(config) };
        let (kick, call, error) = (ring.kick.clone(), ring.call.clone(), ring.error.clone());
        ring.running = true;
        ring.fallen_at = None;
        ring.enabled = start.enabled;
        fleet.attach(worker, Attachment { id, queue, map, enabled: start.enabled, kick, call, error })?;
        Ok(config)
    }

    /// Takes a ring back from its worker; `None` if it did not run. Its eventfds stay: a front end may start it again with them.
    pub(crate) fn stop(&mut self, vring: u16, fleet: &Fleet) -> Result<Option<RingBase>, WorkerGone> {
        let (id, worker) = (self.id(vring), self.worker(vring));
        let Some(ring) = self.rings.get_mut(usize::from(vring)) else { return Ok(None) };
        if !std::mem::take(&mut ring.running) {
            return Ok(ring.fallen_at.take());
        }
        Ok(fleet.detach(worker, id)?.map(|attachment| attachment.queue.base()))
    }

    /// Moves all rings to another memory map. Those that it does not hold broke and stand still until they are described
    /// anew. Returns whether there were such.
    pub(crate) fn set_memory(&mut self, map: &Arc<MemoryMap>, fleet: &Fleet) -> Result<bool, WorkerGone> {
        let lost = fleet.set_memory(self.port, map)?;
        for attachment in &lost {
            let vring = usize::from(attachment.id.pair) * 2 + usize::from(attachment.id.side == Side::Transmit);
            if let Some(ring) = self.rings.get_mut(vring) {
                ring.running = false;
                ring.fallen_at = Some(attachment.queue.base());
            }
        }
        Ok(!lost.is_empty())
    }

    /// Takes all rings back.
    pub(crate) fn stop_all(&mut self, fleet: &Fleet) -> Result<(), WorkerGone> {
        for vring in 0..self.count() {
            self.stop(vring, fleet)?;
        }
        Ok(())
    }

    pub(crate) fn set_enabled(&mut self, vring: u16, enabled: bool, fleet: &Fleet) -> Result<(), WorkerGone> {
        let (id, worker) = (self.id(vring), self.worker(vring));
        let Some(ring) = self.rings.get_mut(usize::from(vring)) else { return Ok(()) };
        ring.enabled = enabled;
        if ring.running {
            fleet.ask(worker, |reply| Command::SetEnabled { id, enabled, reply })?;
        }
        Ok(())
    }

    /// Keeps an eventfd, and hands it to the worker if the ring runs.
    pub(crate) fn set_event(
        &mut self,
        vring: u16,
        kind: EventKind,
        fd: Option<OwnedFd>,
        fleet: &Fleet,
    ) -> Result<(), WorkerGone> {
        let (id, worker) = (self.id(vring), self.worker(vring));
        let Some(ring) = self.rings.get_mut(usize::from(vring)) else { return Ok(()) };
        let fd = fd.inspect(make_nonblocking).map(Arc::new);
        if ring.running {
            let fd = fd.clone();
            // The old one comes back and is closed here.
            drop(fleet.ask(worker, |reply| match kind {
                EventKind::Kick => Command::SetKick { id, fd, reply },
                EventKind::Call => Command::SetCall { id, fd, reply },
                EventKind::Error => Command::SetError { id, fd, reply },
            })?);
        }
        match kind {
            EventKind::Kick => ring.kick = fd,
            EventKind::Call => ring.call = fd,
            EventKind::Error => ring.error = fd,
        }
        Ok(())
    }

    /// All rings log in `log` from now on, as far as they log at all; none writes into the one before any more, and what it
    /// was to hold is there.
    pub(crate) fn set_log(&mut self, log: DirtyLog, map: &MemoryMap, fleet: &Fleet) -> Result<(), WorkerGone> {
        self.logging.set_log(log);
        self.relog_all(fleet)?;
        self.logging.catch_up(map);
        Ok(())
    }

    /// Logs everything that is written from now on, or only what single rings ask for.
    pub(crate) fn set_logging(&mut self, all: bool, fleet: &Fleet) -> Result<(), WorkerGone> {
        let running = self.rings.iter().any(|ring| ring.running);
        self.logging.set_all(all, running);
        self.relog_all(fleet)
    }

    /// Logs what a ring writes into its device area, from this address on, or not in particular.
    pub(crate) fn set_ring_log(&mut self, vring: u16, at: Option<u64>, fleet: &Fleet) -> Result<(), WorkerGone> {
        self.logging.set_ring(vring, at);
        self.relog(vring, fleet)
    }

    /// The device is as new, and no ring runs.
    pub(crate) fn reset(&mut self) {
        self.logging.reset();
    }

    /// Where is logged, if there is anything to log.
    pub(crate) fn log(&self) -> Option<&DirtyLog> {
        self.logging.log()
    }

    /// How many pages were written for which the log has no bit, since this was asked last.
    pub(crate) fn take_beyond_log(&mut self) -> u64 {
        self.logging.take_beyond()
    }

    /// The receive queues that take packets now.
    pub(crate) fn receivers(&self) -> Vec<Receiver> {
        let usable = |vring: &u16| {
            let ring = self.rings.get(usize::from(*vring));
            Side::of_vring(*vring) == Side::Receive && ring.is_some_and(|ring| ring.running && ring.enabled)
        };
        let receiver = |vring| Receiver { worker: self.worker(vring), pair: vring / 2 };
        (0..self.count()).filter(usable).map(receiver).collect()
    }

    /// Queue pairs with both directions running and enabled.
    pub(crate) fn pairs_up(&self) -> u16 {
        let up = |pair: &[Ring]| pair.iter().all(|ring| ring.running && ring.enabled);
        let count = self.rings.chunks_exact(2).filter(|pair| up(pair)).count();
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    fn relog_all(&self, fleet: &Fleet) -> Result<(), WorkerGone> {
        (0..self.count()).try_for_each(|vring| self.relog(vring, fleet))
    }

    /// Tells the worker of a running ring how to log. What comes back has logged all that was written before.
    fn relog(&self, vring: u16, fleet: &Fleet) -> Result<(), WorkerGone> {
        if self.rings.get(usize::from(vring)).is_some_and(|ring| ring.running) {
            let (id, log) = (self.id(vring), self.logging.pages(vring));
            drop(fleet.ask(self.worker(vring), |reply| Command::SetLog { id, log, reply })?);
        }
        Ok(())
    }

    fn count(&self) -> u16 {
        u16::try_from(self.rings.len()).unwrap_or(u16::MAX)
    }

    fn id(&self, vring: u16) -> QueueId {
        QueueId { port: self.port, pair: vring / 2, side: Side::of_vring(vring) }
    }

    fn worker(&self, vring: u16) -> usize {
        let pair = usize::from(vring / 2);
        self.workers.get(pair % self.workers.len().max(1)).copied().unwrap_or(0)
    }
}

/// Opens a port's ring records.
pub(crate) fn open_journal(state_dir: &Path, port: &str, vrings: u16) -> Result<JournalFile, JournalError> {
    JournalFile::open(&state_dir.join(format!("{port}.rings")), vrings)
}

/// What the queue is made from, and whether its position was recovered rather than told.
///
/// Split rings: the used index in the ring is the truth, whatever the base says (it is equal unless a back end crashed).
/// Packed rings: decision 4e of the record (ADR 0004).
fn configure(
    start: &VringStart,
    map: &MemoryMap,
    journal: Option<&JournalFile>,
) -> Result<(QueueConfig, bool), StartError> {
    let vring = start.vring;
    let translate = |address| map.user_to_guest(address, 1).ok_or(StartError::Address { vring, address });
    let features = QueueFeatures::from_bits(start.features);
    let addresses = RingAddresses {
        desc: translate(start.addresses.descriptor)?,
        driver: translate(start.addresses.driver)?,
        device: translate(start.addresses.device)?,
    };
    let kind = features.kind;
    let told = match start.base {
        None => RingBase::initial(kind),
        Some(word) => {
            RingBase::from_wire(kind, start.size, word).map_err(|source| StartError::Queue { vring, source })?
        }
    };
    let mut config = QueueConfig { size: start.size, features, addresses, base: told };
    let recovered = match kind {
        RingKind::Split => {
            Some(recover_split_base(&config, map).map_err(|source| StartError::Queue { vring, source })?)
        }
        RingKind::Packed => {
            let record = journal.and_then(|journal| journal.queue(vring));
            let initial = told == RingBase::initial(kind) && start.base != Some(BASE_OF_A_RESET_DRIVER);
            let found = record.as_ref().filter(|_| initial).and_then(|record| record.recover(&config, map));
            if let Some(record) = record.filter(|_| found.is_none()) {
                record.clear();
            }
            found
        }
    };
    let moved = recovered.filter(|base| *base != told);
    config.base = recovered.unwrap_or(told);
    Ok((config, moved.is_some()))
}

/// A guest's eventfd must not be able to block a worker's write. What is no eventfd, or refuses, shows when it is used.
fn make_nonblocking(fd: &OwnedFd) {
    if let Ok(flags) = rustix::fs::fcntl_getfl(fd) {
        let _ = rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK);
    }
}
