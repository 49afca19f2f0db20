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
use crate::mem::{HostPtr, RingAreas};

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
            areas.desc.fill(0, usize::from(size) * DESC_SIZE);
            areas.driver.fill(0, used_event_offset(size) + event);
            areas.device.fill(0, avail_event_offset(size) + event);
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
            // SAFETY: ids are below the size for which the table was resolved.
            unsafe { write_desc(self.areas.desc, at, buffer, flags, next) };
            if let Some(link) = self.slots.get_mut(usize::from(at)) {
                link.next = next;
            }
            at = next;
        }
        if let Some(place) = self.slots.get_mut(usize::from(head)) {
            *place = Slot { next: place.next, ..slot };
        }
        self.free -= slot.count;
        let entry = self.after(self.avail, 0);
        // SAFETY: the entry is below the size for which the ring was resolved.
        unsafe { write_avail(self.areas.driver, entry, head) };
        self.avail = self.avail.wrapping_add(1);
    }

    #[inline]
    pub(super) fn post_burst(&mut self, buffers: &[Buffer], tokens: &[u32], flags: u16) -> usize {
        if self.in_order {
            self.burst::<true>(buffers, tokens, flags)
        } else {
            self.burst::<false>(buffers, tokens, flags)
        }
    }

    /// Works on copies of the positions: the compiler cannot know that what is written to the ring
    /// is not `self`, and would store and load every field for every descriptor.
    #[inline(always)]
    fn burst<const IN_ORDER: bool>(&mut self, buffers: &[Buffer], tokens: &[u32], flags: u16) -> usize {
        let (desc, driver, mask) = (self.areas.desc, self.areas.driver, self.size - 1);
        let (mut avail, mut next, mut first_id) = (self.avail, self.next, self.ids.first);
        let mut posted = 0;
        for (buffer, &token) in buffers.iter().zip(tokens).take(usize::from(self.free)) {
            let head = if IN_ORDER {
                let head = next;
                next = (next + 1) & mask;
                head
            } else {
                self.ids.take_at(&mut first_id)
            };
            // SAFETY: ids, and positions under the mask, are below the size for which the areas
            // were resolved.
            unsafe {
                write_desc(desc, head, buffer, flags, 0);
                write_avail(driver, avail & mask, head);
            }
            avail = avail.wrapping_add(1);
            if let Some(slot) = self.slots.get_mut(usize::from(head)) {
                let writable = if flags & F_WRITE != 0 { buffer.len } else { 0 };
                *slot = Slot { token, writable, count: 1, next: 0 };
            }
            posted += 1;
        }
        (self.avail, self.next, self.ids.first) = (avail, next, first_id);
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
        if self.in_order { self.drain::<true>(out) } else { self.drain::<false>(out) }
    }

    /// Works on copies of the positions, as `burst`. After an error nothing is right any more, so
    /// they are not written back.
    #[inline(always)]
    fn drain<const IN_ORDER: bool>(&mut self, out: &mut [Completion]) -> Result<usize, RingError> {
        let (mut used, mut seen, mut free) = (self.used, self.seen, self.free);
        let (mut oldest, mut batch) = (self.oldest, self.batch);
        let mut done = 0;
        for place in out {
            let element = match batch {
                Some(batch) => batch,
                None => {
                    if used == seen {
                        seen = self.look(used)?;
                    }
                    if used == seen {
                        break;
                    }
                    self.used_element(used)?
                }
            };
            let id = if IN_ORDER { oldest } else { element.last };
            let last = id == element.last;
            if IN_ORDER && !last && seen.wrapping_sub(used) <= 1 {
                // The used index moved by fewer chains than the batch has.
                return Err(RingError::NotOutstanding { id: element.last });
            }
            batch = (!last).then_some(element);
            let Some(slot) = self.slots.get_mut(usize::from(id)) else {
                return Err(RingError::UnknownId { id: u32::from(id), size: self.size });
            };
            let Slot { token, writable, count, next } = *slot;
            if count == 0 {
                return Err(RingError::NotOutstanding { id });
            }
            slot.count = 0;
            used = used.wrapping_add(1);
            free += count;
            if IN_ORDER {
                oldest = self.after(id, count);
            } else {
                self.give(id, next, count);
            }
            *place = Completion { token, len: if last { element.len } else { writable } };
            done += 1;
        }
        (self.used, self.seen, self.free) = (used, seen, free);
        (self.oldest, self.batch) = (oldest, batch);
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
    fn used_index(&self) -> u16 {
        // SAFETY: the used ring has an index.
        unsafe { self.areas.device.offset(RING_IDX).load_u16_acquire() }
    }

    /// The used index, judged.
    #[inline(always)]
    fn look(&self, known: u16) -> Result<u16, RingError> {
        let seen = self.used_index();
        let (used, outstanding) = (seen.wrapping_sub(known), self.visible.wrapping_sub(known));
        if used > outstanding { Err(RingError::DeviceRaced { used, outstanding }) } else { Ok(seen) }
    }

    /// The used element at a position, judged.
    #[inline(always)]
    fn used_element(&self, at: u16) -> Result<Batch, RingError> {
        let entry = usize::from(self.after(at, 0));
        let element = self.areas.device.offset(RING_ELEMS + entry * USED_ELEM);
        // SAFETY: the entry is below the size for which the area was resolved, 4-byte aligned.
        let (id, len) = unsafe { (element.load_u32(), element.offset(4).load_u32()) };
        let slot = usize::try_from(id).ok().and_then(|index| self.slots.get(index));
        let (Some(slot), Ok(last)) = (slot, u16::try_from(id)) else {
            return Err(RingError::UnknownId { id, size: self.size });
        };
        if slot.count == 0 {
            return Err(RingError::NotOutstanding { id: last });
        }
        if slot.writable == 0 {
            // Devices exist that report what they read.
            return Ok(Batch { last, len: 0 });
        }
        if len > slot.writable {
            return Err(RingError::UsedTooLong { id: last, len, limit: slot.writable });
        }
        Ok(Batch { last, len })
    }

    /// Gives back the descriptors of a chain.
    #[inline(always)]
    fn give(&mut self, head: u16, mut next: u16, count: u16) {
        self.ids.give(head);
        for _ in 1..count {
            self.ids.give(next);
            next = self.slots.get(usize::from(next)).map_or(0, |slot| slot.next);
        }
    }
}

/// Writes a descriptor of the table.
///
/// # Safety
/// `at` is below the size for which the table was resolved, and its memory is mapped.
#[inline(always)]
unsafe fn write_desc(table: HostPtr, at: u16, buffer: &Buffer, flags: u16, next: u16) {
    let desc = table.offset(usize::from(at) * DESC_SIZE);
    // SAFETY: by the caller's promise; tables are 16-byte aligned.
    unsafe {
        desc.store_u64(buffer.addr);
        desc.offset(8).store_u64(SplitWord::new(buffer.len, flags, next).0);
    }
}

/// Writes an element of the available ring.
///
/// # Safety
/// `at` is below the size for which the ring was resolved, and its memory is mapped.
#[inline(always)]
unsafe fn write_avail(ring: HostPtr, at: u16, head: u16) {
    // SAFETY: by the caller's promise; available rings are 2-byte aligned.
    unsafe { ring.offset(RING_ELEMS + usize::from(at) * AVAIL_ELEM).store_u16(head) };
}
