// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The queues that a worker owns, each with its eventfds and its state.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use packet::{DropCause, PortId};
use virtqueue::{DirtyPages, MAX_BURST, MemoryMap, QueueError, RingAddresses, RingBase, RingError, RxQueue, TxQueue};

use super::aggregate::Link;
use super::mailbox::{Attachment, Bell, QueueId, Side};
use crate::counters::PortCounters;
use crate::inspect::{Seen, Tap};

/// A device-side queue of either direction.
#[derive(Debug)]
pub(crate) enum Queue {
    Transmit(TxQueue),
    Receive(RxQueue),
}

impl Queue {
    /// Where a successor resumes.
    pub(crate) fn base(&self) -> RingBase {
        match self {
            Self::Transmit(queue) => queue.base(),
            Self::Receive(queue) => queue.base(),
        }
    }

    /// Logs what the queue writes from now on; it did not before.
    pub(crate) fn set_log(&mut self, log: Option<Box<DirtyPages>>) {
        drop(match self {
            Self::Transmit(queue) => queue.set_log(log),
            Self::Receive(queue) => queue.set_log(log),
        });
    }
}

/// The part of a slot that does not depend on the direction.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) id: QueueId,
    pub(crate) enabled: bool,
    /// Set by the first malformed thing; the queue is not touched again until the front end resets it.
    pub(crate) broken: Option<RingError>,
    /// Something was published since the last notification check.
    pub(crate) dirty: bool,
    pub(crate) kick: Option<Bell>,
    pub(crate) call: Option<Bell>,
    pub(crate) error: Option<Bell>,
    /// Who captures what the guest receives here.
    pub(crate) tap: Option<Box<Tap>>,
    /// The memory that the queue works in.
    map: Arc<MemoryMap>,
    /// This worker's counter block of the port.
    pub(crate) counters: Arc<[PortCounters]>,
    pub(crate) worker: usize,
}

/// A guest's transmit queue.
#[derive(Debug)]
pub(crate) struct TxSlot {
    pub(crate) queue: TxQueue,
    pub(crate) common: Common,
    /// Whether its guest has negotiated aggregates.
    pub(crate) linked: bool,
    /// When the wired peer stopped taking packets (counter ticks); 0: it takes them.
    pub(crate) stalled_since: u64,
}

/// A guest's receive queue.
#[derive(Debug)]
pub(crate) struct RxSlot {
    pub(crate) queue: RxQueue,
    pub(crate) common: Common,
    /// What is put together for its guest, if that takes aggregates.
    pub(crate) link: Option<Box<Link>>,
}

impl Common {
    pub(crate) fn new(attachment: Attachment, counters: Arc<[PortCounters]>, worker: usize) -> (Queue, Self) {
        let Attachment { id, queue, map, enabled, kick, call, error } = attachment;
        let common =
            Self { id, enabled, broken: None, dirty: false, kick, call, error, tap: None, map, counters, worker };
        (queue, common)
    }

    pub(crate) fn into_attachment(self, queue: Queue) -> Attachment {
        let Self { id, enabled, kick, call, error, map, .. } = self;
        Attachment { id, queue, map, enabled, kick, call, error }
    }

    #[inline]
    pub(crate) fn counters(&self) -> Option<&PortCounters> {
        self.counters.get(self.worker)
    }

    #[inline]
    pub(crate) fn port(&self) -> PortId {
        self.id.port
    }

    #[inline]
    pub(crate) fn usable(&self) -> bool {
        self.enabled && self.broken.is_none()
    }

    /// Counts packets of which `seen` copies the first bytes, each by its place among them.
    #[inline]
    pub(crate) fn drop_frames(&self, cause: DropCause, n: usize, seen: impl FnMut(usize, &mut [u8]) -> Seen) {
        if let Some(counters) = self.counters() {
            counters.drop_frames(cause, n as u64, seen);
        }
    }

    /// Counts packets that are dropped as one frame of `length` bytes, which begins with `head`.
    #[inline]
    pub(crate) fn drop_alike(&self, cause: DropCause, n: usize, head: &[u8], length: usize) {
        if let Some(counters) = self.counters() {
            counters.drop_alike(cause, n as u64, head, length);
        }
    }

    /// Takes the queue out of service and tells the front end by its error eventfd.
    #[cold]
    pub(crate) fn fail(&mut self, error: RingError) {
        if self.broken.is_some() {
            return;
        }
        log::warn!("{:?} queue pair {} of {:?} is broken: {error}", self.id.side, self.id.pair, self.id.port);
        if let Some(counters) = self.counters() {
            counters.ring_error(&error);
        }
        self.broken = Some(error);
        if let Some(fd) = &self.error {
            signal(fd);
        }
    }

    /// A ring that the new memory map does not hold breaks. Returns whether it could follow.
    fn check_move(&mut self, moved: Result<(), QueueError>, map: &Arc<MemoryMap>, addresses: &RingAddresses) -> bool {
        match moved {
            Ok(()) => self.map = Arc::clone(map),
            Err(error) => {
                log::warn!("{:?}: {error}", self.id);
                self.fail(RingError::Unmapped { addr: addresses.desc, len: 0 });
            }
        }
        moved.is_ok()
    }

    /// A guest that truncated the file behind its memory works in zeros now: its queue is of no more use. Nor is it, once
    /// what it writes cannot be logged: where the guest migrates to, that would be missing.
    pub(crate) fn check_memory(&mut self, log_is_lost: bool) {
        if self.broken.is_some() {
            return;
        }
        if let Some(addr) = self.map.poisoned() {
            self.fail(RingError::Poisoned { addr });
        } else if log_is_lost {
            self.fail(RingError::LogPoisoned);
        }
    }

    #[inline]
    pub(crate) fn notify(&self) {
        if let Some(fd) = &self.call {
            signal(fd);
            if let Some(counters) = self.counters() {
                counters.notifications.add(1);
            }
        }
    }
}

impl TxSlot {
    /// Bytes of the first `n` held frames.
    pub(crate) fn held_bytes(&self, n: usize) -> u64 {
        (0..n).map(|i| u64::from(self.queue.frame_len(i))).sum()
    }

    /// Copies the first bytes of a held frame.
    pub(crate) fn seen(&self, i: usize, room: &mut [u8]) -> Seen {
        Seen { copied: self.queue.read(i, 0, room), length: self.queue.frame_len(i) }
    }

    /// Counts `n` frames as received.
    #[inline]
    pub(crate) fn count_received(&self, n: usize, bytes: u64) {
        if let Some(counters) = self.common.counters() {
            counters.rx_packets.add(n as u64);
            counters.rx_bytes.add(bytes);
        }
    }

    /// Returns the first `n` held frames to the guest.
    #[inline]
    pub(crate) fn finish(&mut self, n: usize) {
        self.queue.release(n);
        self.queue.publish();
        self.common.dirty = true;
    }

    /// Harvests a burst; a broken ring holds nothing.
    #[inline]
    pub(crate) fn harvest(&mut self) -> usize {
        match self.queue.harvest(MAX_BURST) {
            Ok(held) => held,
            Err(error) => {
                self.common.fail(error);
                0
            }
        }
    }

    /// `false`: the ring is not in `map`, and broke.
    pub(crate) fn set_memory(&mut self, map: &Arc<MemoryMap>) -> bool {
        let moved = self.queue.set_memory(Arc::clone(map));
        self.common.check_move(moved, map, &self.queue.config().addresses)
    }
}

impl RxSlot {
    /// Counts packets delivered to the guest.
    #[inline]
    pub(crate) fn count_transmitted(&self, packets: usize, bytes: u64) {
        if let Some(counters) = self.common.counters() {
            counters.tx_packets.add(packets as u64);
            counters.tx_bytes.add(bytes);
        }
    }

    /// `false`: the ring is not in `map`, and broke.
    pub(crate) fn set_memory(&mut self, map: &Arc<MemoryMap>) -> bool {
        let moved = self.queue.set_memory(Arc::clone(map));
        self.common.check_move(moved, map, &self.queue.config().addresses)
    }
}

impl Side {
    /// The direction of vring `index`: even ones are the guest's receive queues (virtio 1.3, 5.1.2).
    pub(crate) fn of_vring(index: u16) -> Self {
        if index.is_multiple_of(2) { Self::Receive } else { Self::Transmit }
    }
}

/// Adds one to an eventfd. A full or vanished one needs no telling: its owner has not read what it already holds.
fn signal(fd: &OwnedFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}
