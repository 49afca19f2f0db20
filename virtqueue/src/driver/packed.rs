// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver side of a packed ring (virtio 1.3, 2.8).
//!
//! Theory of operation. Descriptors are written in ring order, each as two 64-bit stores: the
//! address, then length, id and flags. The device takes descriptors in order and stops at the
//! first that is not available, so only the **first** of a batch needs to come last: its second
//! word is withheld until [`PackedDriver::publish`], and the device never touches a line that we
//! are still writing. Looking for used descriptors reads the same second words back, in one load
//! each, so that id and length are as old as the flags that vouch for them.
//!
//! In order, the id of a chain is the ring index of its first descriptor. What is outstanding then
//! is the stretch of the ring between `used` and `avail`, and a used element that names a later
//! chain completes everything before it.

use super::slots::{Batch, FreeIds, Slot, slots};
use super::{Buffer, Completion};
use crate::config::QueueConfig;
use crate::error::RingError;
use crate::layout::{
    DESC_SIZE, DESCS_PER_LINE, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS, EVENT_OFF_WRAP, F_NEXT, F_WRITE,
    PackedPos, PackedWord, avail_bits, is_used, packed_needs_event, used_bits,
};
use crate::mem::{HostPtr, RingAreas, prefetch_write};

#[derive(Debug)]
pub(super) struct PackedDriver {
    areas: RingAreas,
    size: u16,
    in_order: bool,
    event_idx: bool,
    /// Where the next descriptor is written.
    avail: PackedPos,
    /// Where the next used descriptor is expected.
    used: PackedPos,
    /// Up to where the device can see descriptors: `avail` at the last publish.
    visible: PackedPos,
    /// The second word of the first descriptor that was not published, and where it belongs.
    withheld: Option<(HostPtr, PackedWord)>,
    /// Descriptors that are free; that were written but not published; that the device has.
    free: u16,
    written: u16,
    published: u16,
    /// Descriptors published since the device's wish for kicks was looked at.
    moved: u32,
    slots: Box<[Slot]>,
    ids: FreeIds,
    batch: Option<Batch>,
}

impl PackedDriver {
    pub(super) fn new(config: &QueueConfig, areas: RingAreas) -> Self {
        let base = &config.base;
        let at = PackedPos { index: base.used, wrap: base.used_wrap };
        // As if all before the base had been used in this lap, and all from it on in the last.
        for index in 0..config.size {
            let wrap = if index < at.index { at.wrap } else { !at.wrap };
            let desc = areas.desc.offset(usize::from(index) * DESC_SIZE);
            // SAFETY: `index` is below the size for which the area was resolved.
            unsafe {
                desc.store_u64(0);
                desc.offset(8).store_u64(PackedWord::new(0, 0, used_bits(wrap)).0);
            }
        }
        // SAFETY: both event areas have four bytes.
        unsafe {
            areas.driver.store_u32(0);
            areas.device.store_u32(0);
        }
        Self {
            areas,
            size: config.size,
            in_order: config.features.in_order,
            event_idx: config.features.event_idx,
            avail: at,
            used: at,
            visible: at,
            withheld: None,
            free: config.size,
            written: 0,
            published: 0,
            moved: 0,
            slots: slots(config.size),
            ids: FreeIds::all(config.size),
            batch: None,
        }
    }

    pub(super) const fn free(&self) -> u16 {
        self.free
    }

    /// Posts a chain of `slot.count <= free` buffers.
    pub(super) fn post<'a>(&mut self, chain: impl Iterator<Item = (&'a Buffer, u16)>, slot: Slot) {
        let id = if self.in_order { self.avail.index } else { self.ids.take() };
        let mut writer = self.writer();
        for (left, (buffer, flags)) in (0..slot.count).rev().zip(chain) {
            let next = if left > 0 { F_NEXT } else { 0 };
            writer.write(buffer, id, flags | next);
        }
        if let Some(place) = self.slots.get_mut(usize::from(id)) {
            *place = slot;
        }
        self.wrote(&writer, slot.count);
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
        let mut writer = self.writer();
        let mut first_id = self.ids.first;
        let mut posted = 0;
        for (buffer, &token) in buffers.iter().zip(tokens).take(usize::from(self.free)) {
            let id = if IN_ORDER { writer.at.index } else { self.ids.take_at(&mut first_id) };
            writer.write(buffer, id, flags);
            if let Some(slot) = self.slots.get_mut(usize::from(id)) {
                let writable = if flags & F_WRITE != 0 { buffer.len } else { 0 };
                *slot = Slot { token, writable, count: 1, next: 0 };
            }
            posted += 1;
        }
        self.ids.first = first_id;
        self.wrote(&writer, posted);
        usize::from(posted)
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if let Some((desc, word)) = self.withheld.take() {
            // SAFETY: `write` took it from inside the descriptor area, 16-byte aligned.
            unsafe { desc.offset(8).store_u64_release(word.0) };
            self.published += self.written;
            self.moved = self.moved.saturating_add(u32::from(self.written));
            self.written = 0;
            self.visible = self.avail;
        }
    }

    #[inline]
    pub(super) fn should_kick(&mut self) -> bool {
        let moved = std::mem::take(&mut self.moved);
        // One load for both halves, which so belong together. SAFETY: the area has four bytes and
        // is 4-byte aligned.
        let event = unsafe { self.areas.device.load_u32() };
        let (off_wrap, flags) = ((event & 0xffff) as u16, (event >> 16) as u16);
        match flags & 3 {
            _ if moved == 0 => false,
            EVENT_DISABLE => false,
            EVENT_DESC if self.event_idx => packed_needs_event(off_wrap, self.visible, moved, self.size),
            _ => true,
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
        let (mut used, mut published, mut batch) = (self.used, self.published, self.batch);
        let mut done = 0;
        for place in out {
            let element = match batch {
                Some(batch) => batch,
                None => match self.used_element(used, published)? {
                    Some(element) => element,
                    None => break,
                },
            };
            let id = if IN_ORDER { used.index } else { element.last };
            let last = id == element.last;
            batch = (!last).then_some(element);
            let Some(slot) = self.slots.get_mut(usize::from(id)) else {
                return Err(RingError::UnknownId { id: u32::from(id), size: self.size });
            };
            let Slot { token, writable, count, .. } = *slot;
            if count == 0 {
                return Err(RingError::NotOutstanding { id });
            }
            if count > published {
                // Written, but not published: the device made it up.
                return Err(RingError::DeviceRaced { used: count, outstanding: published });
            }
            slot.count = 0;
            published -= count;
            used.advance(count, self.size);
            if !IN_ORDER {
                self.ids.give(id);
            }
            *place = Completion { token, len: if last { element.len } else { writable } };
            done += 1;
        }
        self.free += self.published - published;
        (self.used, self.published, self.batch) = (used, published, batch);
        Ok(done)
    }

    pub(super) fn has_completions(&self) -> bool {
        self.batch.is_some() || is_used(self.word(self.used).flags(), self.used.wrap)
    }

    pub(super) fn set_calls(&mut self, enabled: bool) {
        let event = self.areas.driver;
        let flags = match (enabled, self.event_idx) {
            (false, _) => EVENT_DISABLE,
            (true, false) => EVENT_ENABLE,
            (true, true) => EVENT_DESC,
        };
        // SAFETY: the area has four bytes and is 4-byte aligned.
        unsafe {
            event.offset(EVENT_OFF_WRAP).store_u16(self.used.to_bits());
            event.offset(EVENT_FLAGS).store_u16_release(flags);
        }
    }

    #[inline(always)]
    fn writer(&self) -> Writer {
        Writer { ring: self.areas.desc, size: self.size, at: self.avail, withheld: self.withheld }
    }

    /// Takes over what a writer did.
    #[inline(always)]
    fn wrote(&mut self, writer: &Writer, descriptors: u16) {
        (self.avail, self.withheld) = (writer.at, writer.withheld);
        self.free -= descriptors;
        self.written += descriptors;
    }

    #[inline(always)]
    fn word(&self, at: PackedPos) -> PackedWord {
        let desc = self.areas.desc.offset(usize::from(at.index) * DESC_SIZE);
        // SAFETY: positions stay below the size for which the area was resolved.
        PackedWord(unsafe { desc.offset(8).load_u64_acquire() })
    }

    /// The used element at a position, judged; `None`: there is none.
    #[inline(always)]
    fn used_element(&self, at: PackedPos, published: u16) -> Result<Option<Batch>, RingError> {
        let word = self.word(at);
        if !is_used(word.flags(), at.wrap) {
            return Ok(None);
        }
        let id = word.id();
        let Some(slot) = self.slots.get(usize::from(id)) else {
            return Err(RingError::UnknownId { id: u32::from(id), size: self.size });
        };
        if published == 0 {
            return Err(RingError::DeviceRaced { used: 1, outstanding: 0 });
        }
        if slot.count == 0 {
            return Err(RingError::NotOutstanding { id });
        }
        // Without WRITE the length means nothing (virtio 1.3, 2.8.6).
        let len = if word.flags() & F_WRITE != 0 { word.len() } else { 0 };
        if len > slot.writable {
            return Err(RingError::UsedTooLong { id, len, limit: slot.writable });
        }
        Ok(Some(Batch { last: id, len }))
    }
}

/// Writes descriptors; the first since the last publish only by half.
struct Writer {
    ring: HostPtr,
    size: u16,
    at: PackedPos,
    withheld: Option<(HostPtr, PackedWord)>,
}

impl Writer {
    #[inline(always)]
    fn write(&mut self, buffer: &Buffer, id: u16, flags: u16) {
        let desc = self.ring.offset(usize::from(self.at.index) * DESC_SIZE);
        let word = PackedWord::new(buffer.len, id, flags | avail_bits(self.at.wrap));
        // SAFETY: positions stay below the size for which the ring was resolved.
        unsafe { desc.store_u64(buffer.addr) };
        if self.withheld.is_none() {
            self.withheld = Some((desc, word));
        } else {
            // SAFETY: as above.
            unsafe { desc.offset(8).store_u64(word.0) };
        }
        if self.at.index.is_multiple_of(DESCS_PER_LINE) {
            // Lines to be written soon are the device's, which wrote them last: ask for them.
            prefetch_write(desc.offset(AHEAD));
        }
        self.at.advance(1, self.size);
    }
}

/// How far ahead descriptors are asked for, in bytes: four lines of four descriptors.
const AHEAD: usize = 16 * DESC_SIZE;
