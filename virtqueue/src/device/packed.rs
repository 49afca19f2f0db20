// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's view of a packed ring (virtio 1.3, 2.8).
//!
//! Theory of operation. The ring is one array that both sides write, so its cache lines travel
//! between two cores, and how often they travel decides the speed. Therefore: descriptors are read
//! four at a time, which is a line; their second halves (length, id and flags) are one atomic load
//! each, so what is seen as available is complete; availability is taken from the flags alone.
//! Used elements are one store each, written from the last of a batch to the first: the driver
//! looks at the first and finds either nothing or all of them, and the line it is looking at is
//! disturbed once.
//!
//! Three positions chase each other round the ring: `used` (what the driver has been told), `done`
//! (what it will be told next), `next` (what was harvested). `next` is never more than a whole ring
//! ahead of `used`, whatever the flags say.

use super::chain::{Chain, Rules, Stop};
use super::dirty::DirtyPages;
use super::held::Held;
use super::pending::Pending;
use super::ring::{DeviceRing, hint_chain, hint_frame};
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::error::RingError;
use crate::journal::step;
use crate::layout::{
    DESC_SIZE, DESCS_PER_LINE, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, F_AVAIL, F_INDIRECT, F_NEXT, F_USED, F_WRITE,
    PackedPos, PackedWord, avail_bits, is_avail, packed_needs_event, used_bits,
};
use crate::mem::{HostPtr, RingAreas, prefetch_read, prefetch_write};

/// Lines of descriptors asked for ahead of the one being read, of frames.
const TX_AHEAD: usize = 4;
/// The same of buffers.
const RX_AHEAD: usize = 16;

/// A packed ring.
#[derive(Debug)]
pub(super) struct PackedRing {
    areas: RingAreas,
    size: u16,
    event_idx: bool,
    next: PackedPos,
    done: PackedPos,
    used: PackedPos,
    /// Descriptors from `used` to `next`.
    outstanding: u16,
    /// Descriptors from `used` to `done`.
    unpublished: u16,
    /// Descriptors published since the driver was last considered for a notification.
    unsignalled: u32,
}

impl PackedRing {
    /// The areas must have been resolved for this configuration.
    pub(super) fn new(config: &QueueConfig, areas: RingAreas) -> Self {
        let at = PackedPos { index: config.base.used, wrap: config.base.used_wrap };
        Self {
            areas,
            size: config.size,
            event_idx: config.features.event_idx,
            next: at,
            done: at,
            used: at,
            outstanding: 0,
            unpublished: 0,
            unsignalled: 0,
        }
    }

    #[inline(always)]
    fn descriptor(&self, index: u16) -> HostPtr {
        debug_assert!(index < self.size);
        self.areas.desc.offset(usize::from(index) * DESC_SIZE)
    }

    /// Length, id and flags of a descriptor, as they were together.
    #[inline(always)]
    fn word(&self, index: u16) -> PackedWord {
        // SAFETY: `index < size` by the callers' positions, so these 8 bytes lie in the descriptor
        // area, which `ring_areas` found mapped for `size` descriptors and aligned to 16.
        PackedWord(unsafe { self.descriptor(index).offset(8).load_u64_acquire() })
    }

    #[inline(always)]
    fn addr(&self, index: u16) -> u64 {
        // SAFETY: as for `word`.
        unsafe { self.descriptor(index).load_u64() }
    }

    /// Takes whole lines of four descriptors from `next` on, as long as all four are available,
    /// simple and in the region of the last look-up; at most `room` descriptors. Whether there were
    /// any. `next` is at the beginning of a line.
    #[inline(always)]
    fn take_lines<const RX: bool>(&mut self, rules: &Rules<'_>, held: &mut Held, room: usize) -> bool {
        const LINE: usize = DESCS_PER_LINE as usize;
        const ASKED: u64 = (F_AVAIL | F_USED | F_NEXT | F_INDIRECT | F_WRITE) as u64;
        let lines = room.min(usize::from(self.size - self.next.index)) / LINE;
        let region = rules.map.entry(*rules.hint);
        let due = u64::from(avail_bits(self.next.wrap) | if RX { F_WRITE } else { 0 });
        let header = u32::from(rules.header_len);
        let mut line = self.descriptor(self.next.index);
        let mut taken = 0;
        while taken < lines {
            let ahead = line.offset(if RX { RX_AHEAD } else { TX_AHEAD } * 64);
            if RX {
                prefetch_write(ahead);
            } else {
                prefetch_read(ahead);
            }
            // SAFETY: `lines` keeps all four below the size, so that these are 64 bytes of the
            // descriptor area, which `ring_areas` found mapped and aligned to 16.
            let words = [8, 24, 40, 56].map(|at| PackedWord(unsafe { line.offset(at).load_u64_acquire() }));
            let differs = words.iter().fold(0, |differs, word| differs | (word.0 >> 48 ^ due));
            let lens = words.map(PackedWord::len);
            let [a, b, c, d] = lens;
            if differs & ASKED != 0 || a.min(b).min(c.min(d)) < header {
                break;
            }
            // SAFETY: as above.
            let addrs = [0, 16, 32, 48].map(|at| unsafe { line.offset(at).load_u64() });
            let [e, f, g, h] = addrs;
            let (Some(e), Some(f), Some(g), Some(h)) = (
                region.range(e, u64::from(a)),
                region.range(f, u64::from(b)),
                region.range(g, u64::from(c)),
                region.range(h, u64::from(d)),
            ) else {
                break;
            };
            for (ptr, len) in [(e, a), (f, b), (g, c), (h, d)] {
                hint_frame::<RX>(rules, ptr, len);
            }
            held.push_line([e, f, g, h], lens, words.map(PackedWord::id));
            line = line.offset(64);
            taken += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most the size")]
        let descriptors = (taken * LINE) as u16;
        self.next.advance(descriptors, self.size);
        self.outstanding += descriptors;
        taken > 0
    }

    /// Takes the chain at `next`, if it is available.
    #[inline(always)]
    fn take_one<const RX: bool>(&mut self, rules: &mut Rules<'_>, held: &mut Held) -> Result<bool, Stop> {
        let word = self.word(self.next.index);
        let flags = word.flags();
        if !is_avail(flags, self.next.wrap) {
            return Ok(false);
        }
        let kind = flags & (F_NEXT | F_INDIRECT | F_WRITE);
        if kind == (if RX { F_WRITE } else { 0 }) && word.len() >= u32::from(rules.header_len) {
            let addr = self.addr(self.next.index);
            if let Some(ptr) = rules.map.host_range(addr, u64::from(word.len()), rules.hint) {
                hint_frame::<RX>(rules, ptr, word.len());
                held.push(ptr, word.len(), word.id());
                self.next.advance(1, self.size);
                self.outstanding += 1;
                return Ok(true);
            }
        }
        self.take_chain(word, rules, held)?;
        Ok(true)
    }

    /// Takes the chain at `next`, whose first descriptor was read as `word`: several descriptors,
    /// an indirect table, a buffer across regions, or something malformed.
    #[cold]
    #[inline(never)]
    fn take_chain(&mut self, mut word: PackedWord, rules: &mut Rules<'_>, held: &mut Held) -> Result<(), Stop> {
        let room = self.size - self.outstanding;
        let mut at = self.next;
        let mut entries = 0_u16;
        let mut chain = Chain::begin(rules, held, at.index);
        let id = loop {
            if entries == room {
                // It runs into descriptors that are still ours.
                let limit = self.size;
                return Err(RingError::ChainTooLong { head: self.next.index, limit }.into());
            }
            entries += 1;
            let addr = self.addr(at.index);
            let flags = word.flags();
            if flags & F_INDIRECT != 0 {
                chain.table(addr, word.len(), flags, RingKind::Packed)?;
            } else {
                chain.buffer(addr, word.len(), flags)?;
            }
            at.advance(1, self.size);
            if flags & F_NEXT == 0 {
                // The id of a chain is in its last descriptor.
                break word.id();
            }
            word = self.word(at.index);
        };
        chain.finish(id, entries)?;
        hint_chain(rules, held);
        self.next = at;
        self.outstanding += entries;
        Ok(())
    }
}

impl DeviceRing for PackedRing {
    #[inline(always)]
    fn harvest<const RX: bool>(&mut self, rules: &mut Rules<'_>, held: &mut Held, want: usize) -> Result<(), Stop> {
        let end = held.tail + want;
        while held.tail < end {
            // A harvested descriptor keeps the flags that once made it available, and a driver may
            // write them again: what keeps us off our own heels is the count.
            let room = usize::from(self.size - self.outstanding).min(end - held.tail);
            if room == 0 {
                break;
            }
            let at = self.next.index;
            if at.is_multiple_of(DESCS_PER_LINE) && self.take_lines::<RX>(rules, held, room) {
                continue;
            }
            if !self.take_one::<RX>(rules, held)? {
                break;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn complete(&mut self, pending: &mut Pending, id: u16, len: u32, entries: u16) {
        let flags = used_bits(self.done.wrap) | if len > 0 { F_WRITE } else { 0 };
        pending.push(PackedWord::new(len, id, flags).0, self.done.index);
        self.done.advance(entries, self.size);
        self.unpublished += entries;
    }

    #[inline(always)]
    fn complete_simple(&mut self, pending: &mut Pending, count: usize, chain: impl Fn(usize) -> (u16, u32)) {
        let mut writer = pending.writer();
        let mut at = 0;
        while at < count {
            // Up to the end of the ring, so that flags are the same for all.
            let run = (count - at).min(usize::from(self.size - self.done.index));
            let used = used_bits(self.done.wrap);
            #[expect(clippy::cast_possible_truncation, reason = "at most the size")]
            let run = run as u16;
            for slot in self.done.index..self.done.index + run {
                let (id, len) = chain(at);
                let flags = used | if len > 0 { F_WRITE } else { 0 };
                writer.push(PackedWord::new(len, id, flags).0, slot);
                at += 1;
            }
            self.done.advance(run, self.size);
            self.unpublished += run;
        }
        let written = writer.written();
        pending.written(written);
    }

    #[inline(always)]
    fn complete_batch(&mut self, pending: &mut Pending, last_id: u16, _: u16, entries: u16) {
        let word = PackedWord::new(0, last_id, used_bits(self.used.wrap));
        pending.replace(word.0, self.used.index);
        self.done.advance(entries, self.size);
        self.unpublished += entries;
    }

    #[inline(always)]
    fn publish(&mut self, pending: &mut Pending, dirty: Option<&mut DirtyPages>) {
        let count = pending.len();
        if count == 0 {
            return;
        }
        if let Some(journal) = pending.journal() {
            journal.commit(self.used.to_bits(), self.done.to_bits(), count);
        }
        // From the last to the first, see the head of the file.
        for at in (1..count).rev() {
            step();
            let (word, slot) = pending.get(at);
            // SAFETY: `slot` is a former `done.index`, below the size; then as for `word`.
            unsafe { self.descriptor(slot).offset(8).store_u64(word) };
        }
        step();
        let (word, slot) = pending.get(0);
        // SAFETY: as above.
        unsafe { self.descriptor(slot).offset(8).store_u64_release(word) };
        if let Some(journal) = pending.journal() {
            let (word, slot) = pending.get(count - 1);
            journal.settle(self.done.to_bits(), word, slot);
        }
        if let Some(dirty) = dirty {
            (0..count).for_each(|at| dirty.descriptor(pending.get(at).1));
        }
        pending.truncate(0);
        self.outstanding -= self.unpublished;
        self.unsignalled = self.unsignalled.saturating_add(u32::from(self.unpublished));
        self.unpublished = 0;
        self.used = self.done;
    }

    fn should_notify(&mut self) -> bool {
        let moved = core::mem::take(&mut self.unsignalled);
        if moved == 0 {
            return false;
        }
        // SAFETY: `ring_areas` found the driver area mapped for 4 bytes and aligned to 4.
        let event = unsafe { self.areas.driver.load_u32() };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (off_wrap, flags) = (event as u16, (event >> 16) as u16);
        match flags {
            EVENT_DISABLE => false,
            EVENT_DESC if self.event_idx => packed_needs_event(off_wrap, self.used, moved, self.size),
            _ => true,
        }
    }

    fn set_kicks(&mut self, enabled: bool, dirty: Option<&mut DirtyPages>) {
        let (off_wrap, flags) = match (enabled, self.event_idx) {
            (false, _) => (0, EVENT_DISABLE),
            (true, false) => (0, EVENT_ENABLE),
            (true, true) => (self.next.to_bits(), EVENT_DESC),
        };
        let event = u32::from(off_wrap) | u32::from(flags) << 16;
        // SAFETY: `ring_areas` found the device area mapped for 4 bytes and aligned to 4.
        unsafe { self.areas.device.store_u32(event) };
        if let Some(dirty) = dirty {
            dirty.device(0, size_of::<u32>());
        }
    }

    fn has_available(&self) -> bool {
        self.outstanding < self.size && is_avail(self.word(self.next.index).flags(), self.next.wrap)
    }

    fn is_drained(&self) -> bool {
        self.outstanding == self.size
    }

    fn forget(&mut self) {
        self.next = self.done;
        self.outstanding = self.unpublished;
    }

    fn move_to(&mut self, areas: RingAreas) {
        self.areas = areas;
    }

    fn base(&self) -> RingBase {
        let PackedPos { index, wrap } = self.used;
        RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap }
    }
}
