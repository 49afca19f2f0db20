// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's transmit queue: frames come from the guest, the device reads them.

use core::cell::Cell;
use core::sync::atomic::{Ordering, compiler_fence};
use std::sync::Arc;

use super::MAX_BURST;
use super::copy::copy_frame;
use super::dirty::DirtyPages;
use super::held::Segment;
use super::net_header::NetHeader;
use super::queue::Queue;
use super::ring::{DeviceRing, on};
use crate::config::{QueueConfig, RingBase};
use crate::error::{QueueError, RingError};
use crate::journal::QueueJournal;
use crate::mem::{HostPtr, LINE, MemoryMap, copy_from_guest, prefetch_read};

/// A queue of frames that the guest sends.
///
/// A burst is: [`harvest`](Self::harvest), look at the held frames and copy them, then
/// [`release`](Self::release) and [`publish`](Self::publish); after one
/// [`full_fence`](crate::full_fence) for all queues of the loop, ask
/// [`should_notify`](Self::should_notify).
#[derive(Debug)]
pub struct TxQueue {
    pub(super) queue: Queue<false>,
    /// Headers of the held frames already read, by place in the list: a guest could change what it
    /// said, so it is asked once.
    headers: Box<[Cell<Option<NetHeader>>; MAX_BURST]>,
}

impl TxQueue {
    /// Starts a queue at `config.base`. With a journal, every publication of a packed ring is
    /// written ahead; a split ring needs none and clears it.
    ///
    /// # Errors
    /// The configuration is wrong, or the ring is not mapped or not aligned.
    pub fn new(config: QueueConfig, memory: Arc<MemoryMap>, journal: Option<QueueJournal>) -> Result<Self, QueueError> {
        Ok(Self {
            queue: Queue::new(config, memory, journal)?,
            headers: Box::new([const { Cell::new(None) }; MAX_BURST]),
        })
    }

    /// Goes on with another memory map, which must map the ring's areas, too.
    ///
    /// # Errors
    /// [`QueueError::Held`] while frames are held ([`forget`](Self::forget) lets go of them); or the ring is not mapped in the new map. The
    /// queue then stays with the old one.
    pub fn set_memory(&mut self, memory: Arc<MemoryMap>) -> Result<(), QueueError> {
        let held = self.held();
        if held > 0 {
            return Err(QueueError::Held { held });
        }
        self.queue.set_memory(memory)
    }

    /// Takes frames from the ring until `max` (at most [`MAX_BURST`]) are held, as far as there
    /// are any, and asks the cache for their first bytes. Returns the number held.
    ///
    /// # Errors
    /// The ring is malformed. Then nothing is held, and every later call gives the same error.
    #[inline]
    pub fn harvest(&mut self, max: usize) -> Result<usize, RingError> {
        let skip = if self.queue.config.features.offloads { 0 } else { self.header_len() };
        self.queue.harvest_to(max.min(MAX_BURST), skip)
    }

    /// How many frames are held.
    #[must_use]
    #[inline]
    pub fn held(&self) -> usize {
        self.queue.held.count()
    }

    /// Bytes of held frame `i` without its virtio-net header; 0 if there is no such frame.
    #[must_use]
    #[inline]
    pub fn frame_len(&self, i: usize) -> u32 {
        if i >= self.held() {
            return 0;
        }
        // Every chain harvested has at least a header.
        self.queue.held.len.get(self.queue.held.head + i) - u32::from(self.queue.config.features.header_len)
    }

    /// The virtio-net header of held frame `i`: all zeros unless offloads were negotiated. It is
    /// read from the guest at the first call and remembered until the frame is released.
    #[must_use]
    pub fn net_header(&self, i: usize) -> NetHeader {
        if !self.queue.config.features.offloads || i >= self.held() {
            return NetHeader::default();
        }
        let Some(slot) = self.headers.get((self.queue.held.head + i) % MAX_BURST) else {
            return NetHeader::default();
        };
        if let Some(header) = slot.get() {
            return header;
        }
        let mut bytes = [0; NetHeader::MAX_LEN];
        let len = self.header_len().min(NetHeader::MAX_LEN);
        self.gather(i, 0, bytes.get_mut(..len).unwrap_or_default());
        let header = NetHeader::from_bytes(bytes);
        slot.set(Some(header));
        header
    }

    /// Copies bytes of held frame `i` from `offset` on into `dst`. Returns how many there were:
    /// fewer than `dst.len()` only at the end of the frame.
    #[inline]
    pub fn read(&self, i: usize, offset: u32, dst: &mut [u8]) -> usize {
        if i >= self.held() {
            return 0;
        }
        let at = self.queue.held.head + i;
        let start = self.header_len() + offset as usize;
        let len = self.queue.held.len.get(at) as usize;
        if start < len && self.queue.held.is_contiguous(at) {
            let count = dst.len().min(len - start);
            let (now, _) = dst.split_at_mut(count);
            let from = self.queue.held.ptr.get(at).offset(start);
            // SAFETY: the piece has `len` mapped bytes (see `Queue::map`), `start + count <= len`.
            unsafe { copy_frame(from.as_ptr(), now.as_mut_ptr(), count) };
            // What is decided from now on is decided on the copy.
            compiler_fence(Ordering::SeqCst);
            return count;
        }
        self.gather(i, start, dst)
    }

    /// Asks the cache for the first `len` bytes of held frame `i`, if it is in one piece.
    #[inline]
    pub fn prefetch(&self, i: usize, len: usize) {
        let at = self.queue.held.head + i;
        if i >= self.held() || !self.queue.held.is_contiguous(at) {
            return;
        }
        let end = (self.queue.held.len.get(at) as usize).min(self.header_len().saturating_add(len));
        for offset in (0..end).step_by(LINE) {
            prefetch_read(self.queue.held.ptr.get(at).offset(offset));
        }
    }

    /// The first `n` held frames: of each its length, as [`frame_len`](Self::frame_len) says, and who
    /// copies its first bytes to where they are wanted, as [`read`](Self::read) does.
    #[inline]
    pub fn frames(&self, n: usize) -> impl Iterator<Item = (u32, impl FnOnce(&mut [u8]) + '_)> {
        let held = &*self.queue.held;
        let simple = held.complex == 0;
        let header = self.queue.config.features.header_len;
        (0..n.min(held.count())).map(move |i| {
            let at = held.head + i;
            // Every chain harvested has at least a header.
            let len = held.len.get(at) - u32::from(header);
            let from = held.ptr.get(at).offset(usize::from(header));
            let copy = move |dst: &mut [u8]| {
                if simple && dst.len() <= len as usize {
                    // SAFETY: a simple chain is one piece of mapped bytes (see `Queue::map`): the header
                    // and then `len`, which is enough, as just checked.
                    unsafe { copy_frame(from.as_ptr(), dst.as_mut_ptr(), dst.len()) };
                    // What is decided from now on is decided on the copy.
                    compiler_fence(Ordering::SeqCst);
                } else {
                    self.read(i, 0, dst);
                }
            };
            (len, copy)
        })
    }

    /// Gives the first `n` held frames back to the driver, who sees it after
    /// [`publish`](Self::publish). With IN_ORDER they are one used element.
    #[inline]
    pub fn release(&mut self, n: usize) {
        let n = n.min(self.held());
        if n == 0 {
            return;
        }
        if self.queue.config.features.offloads {
            for i in 0..n {
                if let Some(slot) = self.headers.get((self.queue.held.head + i) % MAX_BURST) {
                    slot.set(None);
                }
            }
        }
        if self.queue.config.features.in_order {
            self.release_batch(n);
        } else {
            self.release_each(n);
        }
    }

    /// Lets go of all held frames without giving them back: the next harvest finds them again.
    /// For who must leave the burst half done, for example to exchange the memory.
    pub fn forget(&mut self) {
        self.headers.iter().for_each(|slot| slot.set(None));
        self.queue.forget();
    }

    /// Makes released frames visible to the driver, all at once.
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

    /// Tells the driver whether to kick when it makes frames available. Returns whether some are
    /// available already: who wants to sleep must not, then.
    pub fn set_kicks(&mut self, enabled: bool) -> bool {
        self.queue.set_kicks(enabled)
    }

    /// Whether there are frames to harvest, besides those held.
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

    /// Where a successor must resume: behind the last frame published.
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

    /// The bytes of held frame `i` from `offset` on, if they are one piece: mapped as long as the
    /// frame is held.
    #[inline(always)]
    pub(super) fn contiguous(&self, i: usize, offset: u32) -> Option<(HostPtr, usize)> {
        let at = self.queue.held.head + i;
        if i >= self.held() || !self.queue.held.is_contiguous(at) {
            return None;
        }
        let start = self.header_len() + offset as usize;
        let len = (self.queue.held.len.get(at) as usize).checked_sub(start)?;
        Some((self.queue.held.ptr.get(at).offset(start), len))
    }

    /// The pieces of held frame `i` from byte `start` of its chain on.
    pub(super) fn pieces(&self, i: usize, start: usize) -> impl Iterator<Item = Segment> + '_ {
        let chains = usize::from(i < self.held());
        let mut skip = start;
        let held = &self.queue.held;
        (0..chains).flat_map(move |_| held.segments(held.head + i)).filter_map(move |piece| {
            let len = piece.len as usize;
            let skipped = skip.min(len);
            skip -= skipped;
            #[expect(clippy::cast_possible_truncation, reason = "at most the u32 it came from")]
            let left = (len - skipped) as u32;
            (left > 0).then(|| Segment { ptr: piece.ptr.offset(skipped), len: left })
        })
    }

    /// Copies bytes of the chain of held frame `i` from `start` on; returns how many.
    fn gather(&self, i: usize, start: usize, dst: &mut [u8]) -> usize {
        let mut rest = dst;
        let mut copied = 0;
        for piece in self.pieces(i, start) {
            let count = rest.len().min(piece.len as usize);
            let (now, later) = rest.split_at_mut(count);
            // SAFETY: a piece of a held chain is mapped (see `Queue::map`); `count` is at most its
            // length.
            unsafe { copy_from_guest(piece.ptr, now) };
            copied += count;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        copied
    }

    #[inline(always)]
    fn release_batch(&mut self, n: usize) {
        let Queue { ring, held, pending, .. } = &mut self.queue;
        let last_id = held.id.get(held.head + n - 1);
        // At most MAX_BURST chains that are in the ring together.
        #[expect(clippy::cast_possible_truncation, reason = "n <= MAX_BURST")]
        let chains = n as u16;
        let entries = if held.complex == 0 {
            held.drop_simple(n);
            chains
        } else {
            let mut entries = 0;
            for _ in 0..n {
                entries += held.entries(held.head);
                held.drop_first();
            }
            entries
        };
        on!(ring, ring => ring.complete_batch(pending, last_id, chains, entries));
    }

    #[inline(always)]
    fn release_each(&mut self, n: usize) {
        let Queue { ring, held, pending, dirty, .. } = &mut self.queue;
        on!(ring, ring => {
            if pending.room() < n {
                ring.publish(pending, dirty.as_deref_mut());
            }
            for _ in 0..n {
                ring.complete(pending, held.id.get(held.head), 0, held.entries(held.head));
                held.drop_first();
            }
        });
    }
}
