// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver side of a split ring (virtio 1.3, 2.7).
//!
//! Theory of operation. Descriptors and available entries are written as they are posted; the
//! device sees them when the available index moves, in [`SplitDriver::publish`]. Chains are linked
//! in private memory as well as in the table, so what the device does to the table cannot mislead
//! us when a chain is taken apart.
//!
//! In order, descriptors are taken from the table in ascending order, as the specification
//! demands; a used element that names a later chain completes everything before it, and the used
//! index moves by the number of chains (2.7.9).

use super::slots::{Batch, FreeIds, Slot, slots};
use super::{Buffer, Completion};
use crate::config::QueueConfig;
use crate::error::RingError;
use crate::layout::{
    AVAIL_ELEM, AVAIL_F_NO_INTERRUPT, DESC_SIZE, F_NEXT, F_WRITE, RING_ELEMS, RING_FLAGS, RING_IDX, SplitWord,
    USED_ELEM, USED_F_NO_NOTIFY, avail_event_offset, split_needs_event, used_event_offset,
};
use crate::mem::RingAreas;

#[derive(Debug)]
pub(super) struct SplitDriver {
    areas: RingAreas,
    size: u16,
    in_order: bool,
    event_idx: bool,
    /// Available index, with what is not published yet, and without.
    avail: u16,
    visible: u16,
    /// Available index when the device's wish for kicks was last looked at.
    noticed: u16,
    /// Used index: up to where we have looked, and what it was when last read.
    used: u16,
    seen: u16,
    /// In order: the descriptor that is taken next, and the head of the oldest chain.
    next: u16,
    oldest: u16,
    free: u16,
    slots: Box<[Slot]>,
    ids: FreeIds,
    batch: Option<Batch>,
}

impl SplitDriver {
    pub(super) fn new(config: &QueueConfig, areas: RingAreas) -> Self {
        let (size, base) = (config.size, config.base.used);
        let event = if config.features.event_idx { 2 } else { 0 };
        // SAFETY: these are the lengths for which the areas were resolved.
        unsafe {
            areas.desc.zero(usize::from(size) * DESC_SIZE);
            areas.driver.zero(used_event_offset(size) + event);
            areas.device.zero(avail_event_offset(size) + event);
            areas.driver.offset(RING_IDX).store_u16_release(base);
            areas.device.offset(RING_IDX).store_u16_release(base);
        }
        Self {
            areas,
            size,
            in_order: config.features.in_order,
            event_idx: config.features.event_idx,
            avail: base,
            visible: base,
            noticed: base,
            used: base,
            seen: base,
            next: 0,
            oldest: 0,
            free: size,
            slots: slots(size),
            ids: FreeIds::all(size),
            batch: None,
        }
    }

    pub(super) const fn free(&self) -> u16 {
        self.free
    }

    /// Posts a chain of `slot.count <= free` buffers.
    pub(super) fn post<'a>(&mut self, chain: impl Iterator<Item = (&'a Buffer, u16)>, slot: Slot) {
        let head = self.take();
        let mut at = head;
        for (left, (buffer, flags)) in (0..slot.count).rev().zip(chain) {
            let (flags, next) = if left > 0 { (flags | F_NEXT, self.take()) } else { (flags, 0) };
            self.write(at, buffer, flags, next);
            if let Some(link) = self.slots.get_mut(usize::from(at)) {
                link.next = next;
            }
            at = next;
        }
        if let Some(place) = self.slots.get_mut(usize::from(head)) {
            *place = Slot { next: place.next, ..slot };
        }
        self.free -= slot.count;
        self.make_available(head);
    }

    #[inline]
    pub(super) fn post_burst(&mut self, buffers: &[Buffer], tokens: &[u32], flags: u16) -> usize {
        let mut posted = 0;
        for (buffer, &token) in buffers.iter().zip(tokens).take(usize::from(self.free)) {
            let head = self.take();
            self.write(head, buffer, flags, 0);
            if let Some(slot) = self.slots.get_mut(usize::from(head)) {
                let writable = if flags & F_WRITE != 0 { buffer.len } else { 0 };
                *slot = Slot { token, writable, count: 1, next: 0 };
            }
            self.make_available(head);
            posted += 1;
        }
        self.free -= posted;
        usize::from(posted)
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if self.visible != self.avail {
            self.visible = self.avail;
            // SAFETY: the available ring has an index.
            unsafe { self.areas.driver.offset(RING_IDX).store_u16_release(self.avail) };
        }
    }

    #[inline]
    pub(super) fn should_kick(&mut self) -> bool {
        let (old, new) = (self.noticed, self.visible);
        self.noticed = new;
        let device = self.areas.device;
        if old == new {
            false
        } else if self.event_idx {
            // SAFETY: with EVENT_IDX the used ring was resolved with room for the event.
            let event = unsafe { device.offset(avail_event_offset(self.size)).load_u16() };
            split_needs_event(event, new, old)
        } else {
            // SAFETY: the used ring has flags.
            unsafe { device.offset(RING_FLAGS).load_u16() & USED_F_NO_NOTIFY == 0 }
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, out: &mut [Completion]) -> Result<usize, RingError> {
        let mut done = 0;
        for place in out {
            let next = match self.batch {
                Some(batch) => Some(batch),
                None => self.used_element()?,
            };
            let Some(element) = next else { break };
            *place = if self.in_order {
                self.next_in_order(element)?
            } else {
                self.retire(element.last, Some(element.len))?
            };
            done += 1;
        }
        Ok(done)
    }

    pub(super) fn has_completions(&self) -> bool {
        self.used != self.used_index()
    }

    pub(super) fn set_calls(&mut self, enabled: bool) {
        let driver = self.areas.driver;
        if self.event_idx {
            // An event just behind us is as far in the future as an index reaches.
            let event = if enabled { self.used } else { self.used.wrapping_sub(1) };
            // SAFETY: with EVENT_IDX the available ring was resolved with room for the event.
            unsafe { driver.offset(used_event_offset(self.size)).store_u16_release(event) };
        } else {
            let flags = if enabled { 0 } else { AVAIL_F_NO_INTERRUPT };
            // SAFETY: the available ring has flags.
            unsafe { driver.offset(RING_FLAGS).store_u16_release(flags) };
        }
    }

    /// A free descriptor; the caller knows that there is one.
    #[inline(always)]
    fn take(&mut self) -> u16 {
        if !self.in_order {
            return self.ids.take();
        }
        let at = self.next;
        self.next = self.after(at, 1);
        at
    }

    /// The descriptor `n` after another one, round the table, whose size is a power of two.
    #[inline(always)]
    const fn after(&self, at: u16, n: u16) -> u16 {
        at.wrapping_add(n) & (self.size - 1)
    }

    #[inline(always)]
    fn write(&mut self, at: u16, buffer: &Buffer, flags: u16, next: u16) {
        let desc = self.areas.desc.offset(usize::from(at) * DESC_SIZE);
        // SAFETY: ids are below the size for which the area was resolved.
        unsafe {
            desc.store_u64(buffer.addr);
            desc.offset(8).store_u64(SplitWord::new(buffer.len, flags, next).0);
        }
    }

    #[inline(always)]
    fn make_available(&mut self, head: u16) {
        let entry = usize::from(self.after(self.avail, 0));
        // SAFETY: the entry is below the size for which the area was resolved.
        unsafe { self.areas.driver.offset(RING_ELEMS + entry * AVAIL_ELEM).store_u16(head) };
        self.avail = self.avail.wrapping_add(1);
    }

    #[inline(always)]
    fn used_index(&self) -> u16 {
        // SAFETY: the used ring has an index.
        unsafe { self.areas.device.offset(RING_IDX).load_u16_acquire() }
    }

    /// The next used element, judged; `None`: there is none.
    #[inline(always)]
    fn used_element(&mut self) -> Result<Option<Batch>, RingError> {
        if self.used == self.seen {
            let seen = self.used_index();
            let used = seen.wrapping_sub(self.used);
            let outstanding = self.visible.wrapping_sub(self.used);
            if used > outstanding {
                return Err(RingError::DeviceRaced { used, outstanding });
            }
            if used == 0 {
                return Ok(None);
            }
            self.seen = seen;
        }
        let entry = usize::from(self.after(self.used, 0));
        let element = self.areas.device.offset(RING_ELEMS + entry * USED_ELEM);
        // SAFETY: the entry is below the size for which the area was resolved, 4-byte aligned.
        let (id, len) = unsafe { (element.load_u32(), element.offset(4).load_u32()) };
        let size = self.size;
        let slot = usize::try_from(id).ok().and_then(|index| self.slots.get(index));
        let (Some(slot), Ok(last)) = (slot, u16::try_from(id)) else {
            return Err(RingError::UnknownId { id, size });
        };
        if slot.count == 0 {
            return Err(RingError::NotOutstanding { id: last });
        }
        if slot.writable == 0 {
            // Devices exist that report what they read.
            return Ok(Some(Batch { last, len: 0 }));
        }
        if len > slot.writable {
            return Err(RingError::UsedTooLong { id: last, len, limit: slot.writable });
        }
        Ok(Some(Batch { last, len }))
    }

    /// Retires the oldest chain, which a batch up to `batch.last` contains.
    #[inline(always)]
    fn next_in_order(&mut self, batch: Batch) -> Result<Completion, RingError> {
        let id = self.oldest;
        let last = id == batch.last;
        if !last && self.seen.wrapping_sub(self.used) <= 1 {
            // The used index moved by fewer chains than the batch has.
            return Err(RingError::NotOutstanding { id: batch.last });
        }
        self.batch = (!last).then_some(batch);
        self.retire(id, last.then_some(batch.len))
    }

    /// Forgets a chain. `len`: what the device wrote; `None` if it did not say.
    #[inline(always)]
    fn retire(&mut self, id: u16, len: Option<u32>) -> Result<Completion, RingError> {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else {
            return Err(RingError::UnknownId { id: u32::from(id), size: self.size });
        };
        let Slot { token, writable, count, next } = *slot;
        if count == 0 {
            return Err(RingError::NotOutstanding { id });
        }
        slot.count = 0;
        self.used = self.used.wrapping_add(1);
        self.free += count;
        if self.in_order {
            self.oldest = self.after(id, count);
        } else {
            self.ids.give(id);
            let mut link = next;
            for _ in 1..count {
                self.ids.give(link);
                link = self.slots.get(usize::from(link)).map_or(0, |slot| slot.next);
            }
        }
        Ok(Completion { token, len: len.unwrap_or(writable) })
    }
}
