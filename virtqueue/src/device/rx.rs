// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's receive queue: frames go to the guest, the device writes them.

use std::sync::Arc;

use super::deliver::Frame;
use super::dirty::DirtyPages;
use super::held::{HELD, Segment};
use super::net_header::NetHeader;
use super::queue::Queue;
use super::ring::{DeviceRing, FIRST_BYTES, on};
use super::tx::TxQueue;
use crate::config::{QueueConfig, RingBase};
use crate::error::{QueueError, RingError};
use crate::journal::{BATCH, QueueJournal};
use crate::mem::{HostPtr, LINE, MemoryMap, copy_guest_to_guest, copy_to_guest, prefetch_read, prefetch_write};

/// Buffers harvested at a time when a frame finds none held.
const AHEAD: usize = 32;

/// A queue of buffers in which the guest receives.
///
/// Buffers are harvested ahead; those not yet used are simply forgotten when the memory changes or
/// the queue stops, because a queue completes in ring order and [`base`](Self::base) never counts
/// them.
#[derive(Debug)]
pub struct RxQueue {
    pub(super) queue: Queue<true>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The guest has no buffer for it, or not enough of them, at the moment. None was used.
    NoBuffers,
    /// It is in the guest's buffers and visible after [`RxQueue::publish`].
    Ok,
    /// It does not fit: without MRG_RXBUF into the next buffer; with it, into the most buffers a
    /// frame may take (256), or all that the ring can hold. No buffer was used.
    TooBig,
}

/// The part of a frame behind its private head.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// There is none.
    None,
    /// Private bytes.
    Bytes(&'a [u8]),
    /// Bytes of a frame held by a transmit queue, copied from guest to guest.
    Frame {
        /// The queue that holds it.
        queue: &'a TxQueue,
        /// Which of the held frames; one that is not held has no bytes.
        index: usize,
        /// Where in the frame the tail begins, not counting the virtio-net header.
        offset: u32,
    },
    /// Some bytes of such a frame, in which there are many packets.
    Part {
        /// The queue that holds it.
        queue: &'a TxQueue,
        /// Which of the held frames; one that is not held has no bytes.
        index: usize,
        /// Where in the frame the tail begins, not counting the virtio-net header.
        offset: u32,
        /// How many bytes it has; fewer where the frame ends.
        len: u32,
    },
}

impl Tail<'_> {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Frame { queue, index, offset } => queue.frame_len(*index).saturating_sub(*offset) as usize,
            Self::Part { queue, index, offset, len } => {
                queue.frame_len(*index).saturating_sub(*offset).min(*len) as usize
            }
        }
    }
}

impl RxQueue {
    /// Starts a queue at `config.base`. With a journal, every publication of a packed ring is
    /// written ahead; a split ring needs none and clears it.
    ///
    /// # Errors
    /// The configuration is wrong, or the ring is not mapped or not aligned.
    pub fn new(config: QueueConfig, memory: Arc<MemoryMap>, journal: Option<QueueJournal>) -> Result<Self, QueueError> {
        Ok(Self { queue: Queue::new(config, memory, journal)? })
    }

    /// Goes on with another memory map, which must map the ring's areas, too. Publishes what is
    /// pending first.
    ///
    /// # Errors
    /// The ring is not mapped in the new map. The queue then stays with the old one.
    pub fn set_memory(&mut self, memory: Arc<MemoryMap>) -> Result<(), QueueError> {
        self.queue.set_memory(memory)
    }

    /// Harvests buffers until `n` are held (at most 256), as far as there are any, and asks the
    /// cache to own the lines in which their frames will begin. Returns the number held.
    ///
    /// # Errors
    /// The ring is malformed; every later call gives the same error.
    #[inline]
    pub fn prefetch(&mut self, n: usize) -> Result<usize, RingError> {
        let before = self.queue.held.tail;
        let count = self.queue.harvest_to(n, 0)?;
        for at in before..self.queue.held.tail {
            let ptr = self.queue.held.ptr.get(at);
            let start = ptr.offset(self.header_len());
            prefetch_write(start);
            prefetch_write(start.offset(FIRST_BYTES - 1));
            prefetch_read(ptr);
        }
        Ok(count)
    }

    /// Asks the cache to own the lines in which bytes `from..to` of the next frame will be, if its buffer is in one piece and
    /// harvested: for who puts a long frame together and knows how far it has come.
    #[inline]
    pub fn prefetch_room(&self, from: usize, to: usize) {
        let held = &self.queue.held;
        if held.count() == 0 || !held.is_contiguous(held.head) {
            return;
        }
        let room = (held.len.get(held.head) as usize).min(self.header_len() + to);
        let mut at = (self.header_len() + from).next_multiple_of(LINE);
        while at < room {
            prefetch_write(held.ptr.get(held.head).offset(at));
            at += LINE;
        }
    }

    /// Writes one frame, `head` and then `tail`, into as many buffers as it needs, behind a
    /// virtio-net header in which `num_buffers` is filled in. One copy of each byte.
    ///
    /// # Errors
    /// The ring is malformed; every later call gives the same error.
    #[inline]
    pub fn deliver(&mut self, header: &NetHeader, head: &[u8], tail: Tail<'_>) -> Result<Delivered, RingError> {
        let frame = Frame { header: *header, head, tail };
        if self.deliver_run(1, |_| frame).0 == 1 {
            return Ok(Delivered::Ok);
        }
        self.deliver_any(header, head, tail)
    }

    /// Any frame into any buffers.
    #[inline(never)]
    pub(super) fn deliver_any(
        &mut self,
        header: &NetHeader,
        head: &[u8],
        tail: Tail<'_>,
    ) -> Result<Delivered, RingError> {
        let header_len = self.header_len();
        let total = header_len + head.len() + tail.len();
        let buffers = match self.reserve(total)? {
            Reserved::Buffers(buffers) => buffers,
            Reserved::None => return Ok(Delivered::NoBuffers),
            Reserved::TooBig => return Ok(Delivered::TooBig),
        };
        let header = header.to_bytes(buffers);
        let header = header.get(..header_len).unwrap_or_default();
        let held = &self.queue.held;
        let first = held.head;
        let mut scatter = Scatter::new((first..first + usize::from(buffers)).flat_map(|at| held.segments(at)));
        scatter.put(header);
        scatter.put(head);
        match tail {
            Tail::None => {}
            Tail::Bytes(bytes) => scatter.put(bytes),
            Tail::Frame { queue, index, offset } => {
                let start = queue.header_len() + offset as usize;
                for piece in queue.pieces(index, start) {
                    scatter.put_piece(piece);
                }
            }
            Tail::Part { queue, index, offset, len } => {
                let start = queue.header_len() + offset as usize;
                let mut left = len;
                for mut piece in queue.pieces(index, start) {
                    piece.len = piece.len.min(left);
                    left -= piece.len;
                    scatter.put_piece(piece);
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        drop(scatter);
        self.complete(buffers, total);
        Ok(Delivered::Ok)
    }

    /// Makes delivered frames visible to the driver, all at once.
    #[inline]
    pub fn publish(&mut self) {
        self.queue.publish();
    }

    /// Whether the driver wants to be notified of what was published since this was last asked.
    /// The caller has executed one [`full_fence`](crate::full_fence) after publishing.
    #[must_use]
    #[inline]
    pub fn should_notify(&mut self) -> bool {
        self.queue.should_notify()
    }

    /// Tells the driver whether to kick when it makes buffers available. Returns whether some are
    /// available already, besides those held.
    pub fn set_kicks(&mut self, enabled: bool) -> bool {
        self.queue.set_kicks(enabled)
    }

    /// How many buffers are harvested and unused.
    #[must_use]
    #[inline]
    pub fn held(&self) -> usize {
        self.queue.held.count()
    }

    /// Whether there are buffers to harvest, besides those held.
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.queue.has_available()
    }

    /// Logs what is written into guest memory from now on, or no longer; what did so before comes back, and has logged all
    /// that was written before.
    pub fn set_log(&mut self, dirty: Option<Box<DirtyPages>>) -> Option<Box<DirtyPages>> {
        self.queue.set_log(dirty)
    }

    /// Whether the file behind the log was truncated under us: a guest that migrates now loses what it received.
    #[must_use]
    pub fn log_is_lost(&self) -> bool {
        self.queue.log_is_lost()
    }

    /// Where a successor must resume: behind the last buffer published.
    #[must_use]
    pub fn base(&self) -> RingBase {
        self.queue.base()
    }

    /// What the queue was started with.
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.queue.config
    }

    #[inline(always)]
    pub(super) fn header_len(&self) -> usize {
        usize::from(self.queue.config.features.header_len)
    }

    /// Finds out how many buffers a frame of `total` bytes takes, harvesting as needed.
    #[inline]
    fn reserve(&mut self, total: usize) -> Result<Reserved, RingError> {
        let most = if self.queue.config.features.mrg_rxbuf { BATCH.min(HELD) } else { 1 };
        let (mut buffers, mut room) = (0_usize, 0_usize);
        loop {
            let usable = self.queue.held.count().min(most);
            while buffers < usable && (room < total || buffers == 0) {
                room += self.queue.held.len.get(self.queue.held.head + buffers) as usize;
                buffers += 1;
            }
            if room >= total && buffers > 0 {
                #[expect(clippy::cast_possible_truncation, reason = "at most HELD")]
                return Ok(Reserved::Buffers(buffers as u16));
            }
            if buffers == most {
                return Ok(Reserved::TooBig);
            }
            if self.queue.harvest_to(buffers + AHEAD, 0)? == buffers {
                let drained = on!(&self.queue.ring, ring => ring.is_drained());
                let all = buffers > 0 && drained && self.queue.pending.len() == 0;
                return Ok(if all { Reserved::TooBig } else { Reserved::None });
            }
        }
    }

    /// Completes the first `buffers` buffers, into which `total` bytes were written.
    #[inline]
    fn complete(&mut self, buffers: u16, total: usize) {
        let Queue { ring, held, pending, dirty, map, .. } = &mut self.queue;
        if let Some(dirty) = dirty {
            let chains = held.head..held.head + usize::from(buffers);
            dirty.pieces(map, chains.flat_map(|at| held.segments(at)), total);
        }
        on!(ring, ring => {
            // All buffers of a frame become visible together.
            if pending.room() < usize::from(buffers) {
                ring.publish(pending, dirty.as_deref_mut());
            }
            let mut left = total;
            for _ in 0..buffers {
                let len = held.len.get(held.head);
                let written = u32::try_from(left).map_or(len, |left| left.min(len));
                left -= written as usize;
                ring.complete(pending, held.id.get(held.head), written, held.entries(held.head));
                held.drop_first();
            }
        });
    }
}

/// An answer of [`RxQueue::reserve`].
enum Reserved {
    Buffers(u16),
    None,
    TooBig,
}

/// Writes bytes one after the other into pieces of guest memory.
struct Scatter<I> {
    pieces: I,
    at: HostPtr,
    left: usize,
}

impl<I: Iterator<Item = Segment>> Scatter<I> {
    const fn new(pieces: I) -> Self {
        Self { pieces, at: HostPtr::DANGLING, left: 0 }
    }

    #[inline(always)]
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some((to, count)) = self.room(bytes.len()) else { return };
            let (now, later) = bytes.split_at(count);
            // SAFETY: `room` gives `count` mapped bytes.
            unsafe { copy_to_guest(to, now) };
            bytes = later;
        }
    }

    #[inline(always)]
    fn put_piece(&mut self, piece: Segment) {
        let (mut from, mut left) = (piece.ptr, piece.len as usize);
        while left > 0 {
            let Some((to, count)) = self.room(left) else { return };
            // SAFETY: `room` gives `count` mapped bytes; `from` is inside a piece of a held chain,
            // with `left >= count` mapped bytes behind it.
            unsafe { copy_guest_to_guest(from, to, count) };
            from = from.offset(count);
            left -= count;
        }
    }

    /// The place for at most `want` of the next bytes, and for how many there is room. The pieces
    /// come from chains held by a queue, which keeps them mapped.
    #[inline(always)]
    fn room(&mut self, want: usize) -> Option<(HostPtr, usize)> {
        while self.left == 0 {
            let piece = self.pieces.next()?;
            (self.at, self.left) = (piece.ptr, piece.len as usize);
        }
        let count = want.min(self.left);
        let to = self.at;
        self.at = self.at.offset(count);
        self.left -= count;
        Some((to, count))
    }
}
