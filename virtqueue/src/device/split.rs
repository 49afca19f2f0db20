// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's view of a split ring (virtio 1.3, 2.7).
//!
//! Theory of operation. The available index is the line both sides fight for, so it is read only
//! when what it said last is used up, and the used index is written once per publication. Heads
//! are read for the whole burst before the first descriptor is looked at, so that the descriptor
//! lines are fetched side by side.

use super::chain::{Chain, Rules, Stop};
use super::dirty::DirtyPages;
use super::held::Held;
use super::pending::Pending;
use super::ring::{DeviceRing, hint_chain, hint_frame};
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::error::{QueueError, RingError};
use crate::layout::{
    AVAIL_ELEM, AVAIL_F_NO_INTERRUPT, DESC_SIZE, F_INDIRECT, F_NEXT, F_WRITE, RING_ELEMS, RING_FLAGS, RING_IDX,
    SplitWord, USED_ELEM, USED_F_NO_NOTIFY, avail_event_offset, split_needs_event, used_event_offset,
};
use crate::mem::{HostPtr, MemoryMap, RingAreas, prefetch_read};

/// Heads read at a time.
const HEADS: usize = 64;

/// Where a split ring stands according to its own used index: what the base is after a crash of
/// the device. Frames in flight then may be sent again, or lost on receive.
///
/// # Errors
/// The configuration is wrong or the ring is not mapped.
pub fn recover_split_base(config: &QueueConfig, map: &MemoryMap) -> Result<RingBase, QueueError> {
    let kind = config.features.kind;
    if kind != RingKind::Split {
        return Err(QueueError::Kind { kind });
    }
    config.check()?;
    let areas = map.ring_areas(config)?;
    // SAFETY: `ring_areas` found the used ring mapped and aligned to 4.
    let used = unsafe { areas.device.offset(RING_IDX).load_u16_acquire() };
    Ok(RingBase { avail: used, avail_wrap: false, used, used_wrap: false })
}

/// A split ring. All indices run freely through 16 bits.
#[derive(Debug)]
pub(super) struct SplitRing {
    areas: RingAreas,
    size: u16,
    event_idx: bool,
    /// Next entry to harvest.
    next: u16,
    /// The available index as last read.
    avail: u16,
    /// Used index including what is pending.
    done: u16,
    /// Used index as published.
    used: u16,
    /// Entries published since the driver was last considered for a notification.
    unsignalled: u16,
}

impl SplitRing {
    /// The areas must have been resolved for this configuration.
    pub(super) fn new(config: &QueueConfig, areas: RingAreas) -> Self {
        let at = config.base.used;
        Self {
            areas,
            size: config.size,
            event_idx: config.features.event_idx,
            next: at,
            avail: at,
            done: at,
            used: at,
            unsignalled: 0,
        }
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        // The size is a power of two.
        usize::from(index & (self.size - 1))
    }

    #[inline(always)]
    fn descriptor(&self, index: u16) -> HostPtr {
        debug_assert!(index < self.size);
        self.areas.desc.offset(usize::from(index) * DESC_SIZE)
    }

    /// Both halves of a descriptor.
    #[inline(always)]
    fn load(&self, index: u16) -> (u64, SplitWord) {
        let at = self.descriptor(index);
        // SAFETY: callers have checked `index < size`, so these 16 bytes lie in the descriptor
        // table, which `ring_areas` found mapped for `size` descriptors and aligned to 16.
        unsafe { (at.load_u64(), SplitWord(at.offset(8).load_u64())) }
    }

    #[inline(always)]
    fn head(&self, index: u16) -> Result<u16, RingError> {
        let at = self.areas.driver.offset(RING_ELEMS + AVAIL_ELEM * self.slot(index));
        // SAFETY: the slot is below the size, so the element lies in the available ring, which
        // `ring_areas` found mapped and aligned to 2.
        let head = unsafe { at.load_u16() };
        if head >= self.size {
            return Err(RingError::IndexBeyondSize { index: head, size: self.size });
        }
        Ok(head)
    }

    /// Entries the driver says are available behind `next`; looks again when fewer than `want`
    /// were known.
    #[inline(always)]
    fn available(&mut self, want: usize) -> Result<usize, RingError> {
        let known = self.avail.wrapping_sub(self.next);
        if usize::from(known) >= want {
            return Ok(usize::from(known));
        }
        // SAFETY: `ring_areas` found the available ring mapped and aligned to 2.
        self.avail = unsafe { self.areas.driver.offset(RING_IDX).load_u16_acquire() };
        let available = self.avail.wrapping_sub(self.used);
        let taken = self.next.wrapping_sub(self.used);
        if available > self.size || available < taken {
            return Err(RingError::DriverRaced { available, size: self.size });
        }
        Ok(usize::from(available - taken))
    }

    #[inline(always)]
    fn take_one<const RX: bool>(&mut self, head: u16, rules: &mut Rules<'_>, held: &mut Held) -> Result<(), Stop> {
        let (addr, word) = self.load(head);
        let kind = word.flags() & (F_NEXT | F_INDIRECT | F_WRITE);
        if kind == (if RX { F_WRITE } else { 0 })
            && word.len() >= u32::from(rules.header_len)
            && let Some(ptr) = rules.map.host_range(addr, u64::from(word.len()), rules.hint)
        {
            hint_frame::<RX>(rules, ptr, word.len());
            held.push(ptr, word.len(), head);
            return Ok(());
        }
        self.take_chain(head, addr, word, rules, held)
    }

    /// Takes the chain at `head`, whose first descriptor was read already.
    #[cold]
    #[inline(never)]
    fn take_chain(
        &self,
        head: u16,
        mut addr: u64,
        mut word: SplitWord,
        rules: &mut Rules<'_>,
        held: &mut Held,
    ) -> Result<(), Stop> {
        let mut chain = Chain::begin(rules, held, head);
        let mut steps = 0;
        loop {
            let flags = word.flags();
            if flags & F_INDIRECT != 0 {
                chain.table(addr, word.len(), flags, RingKind::Split)?;
            } else {
                chain.buffer(addr, word.len(), flags)?;
            }
            if flags & F_NEXT == 0 {
                break;
            }
            steps += 1;
            if steps == self.size {
                return Err(RingError::Loop { head }.into());
            }
            let index = word.next();
            if index >= self.size {
                return Err(RingError::IndexBeyondSize { index, size: self.size }.into());
            }
            (addr, word) = self.load(index);
        }
        chain.finish(head, 1)?;
        hint_chain(rules, held);
        Ok(())
    }
}

impl DeviceRing for SplitRing {
    #[inline(always)]
    fn harvest<const RX: bool>(&mut self, rules: &mut Rules<'_>, held: &mut Held, want: usize) -> Result<(), Stop> {
        let mut left = self.available(want)?.min(want);
        let mut heads = [0; HEADS];
        while left > 0 {
            let count = left.min(HEADS);
            let mut at = self.next;
            for head in heads.iter_mut().take(count) {
                *head = self.head(at)?;
                prefetch_read(self.descriptor(*head));
                at = at.wrapping_add(1);
            }
            for head in heads.iter().take(count) {
                self.take_one::<RX>(*head, rules, held)?;
                self.next = self.next.wrapping_add(1);
            }
            left -= count;
        }
        Ok(())
    }

    #[inline(always)]
    fn complete(&mut self, pending: &mut Pending, id: u16, len: u32, _: u16) {
        let word = u64::from(id) | u64::from(len) << 32;
        #[expect(clippy::cast_possible_truncation, reason = "a slot is below 32768")]
        pending.push(word, self.slot(self.done) as u16);
        self.done = self.done.wrapping_add(1);
    }

    #[inline(always)]
    fn complete_simple(&mut self, pending: &mut Pending, count: usize, chain: impl Fn(usize) -> (u16, u32)) {
        for at in 0..count {
            let (id, len) = chain(at);
            self.complete(pending, id, len, 1);
        }
    }

    #[inline(always)]
    fn complete_batch(&mut self, pending: &mut Pending, last_id: u16, chains: u16, _: u16) {
        #[expect(clippy::cast_possible_truncation, reason = "a slot is below 32768")]
        pending.replace(u64::from(last_id), self.slot(self.used) as u16);
        self.done = self.done.wrapping_add(chains);
    }

    #[inline(always)]
    fn publish(&mut self, pending: &mut Pending, dirty: Option<&mut DirtyPages>) {
        let count = pending.len();
        if count == 0 {
            return;
        }
        for at in 0..count {
            let (word, slot) = pending.get(at);
            let to = self.areas.device.offset(RING_ELEMS + USED_ELEM * usize::from(slot));
            // SAFETY: the slot is below the size, so the element lies in the used ring, which
            // `ring_areas` found mapped. It is 4-byte aligned only, hence not an atomic; the driver
            // does not look before the index below says so.
            unsafe { to.write_u64_unaligned(word) };
        }
        // SAFETY: `ring_areas` found the used ring mapped and aligned to 4.
        unsafe { self.areas.device.offset(RING_IDX).store_u16_release(self.done) };
        if let Some(dirty) = dirty {
            for at in 0..count {
                dirty.device(RING_ELEMS + USED_ELEM * usize::from(pending.get(at).1), USED_ELEM);
            }
            dirty.device(RING_IDX, size_of::<u16>());
        }
        pending.truncate(0);
        self.unsignalled = self.unsignalled.saturating_add(self.done.wrapping_sub(self.used));
        self.used = self.done;
    }

    fn should_notify(&mut self) -> bool {
        let moved = core::mem::take(&mut self.unsignalled);
        if moved == 0 {
            return false;
        }
        if self.event_idx {
            let at = self.areas.driver.offset(used_event_offset(self.size));
            // SAFETY: with EVENT_IDX `ring_areas` found the event word behind the available ring
            // mapped as well; it is 2-byte aligned.
            let event = unsafe { at.load_u16() };
            return split_needs_event(event, self.used, self.used.wrapping_sub(moved));
        }
        // SAFETY: `ring_areas` found the available ring mapped and aligned to 2.
        let flags = unsafe { self.areas.driver.offset(RING_FLAGS).load_u16() };
        flags & AVAIL_F_NO_INTERRUPT == 0
    }

    fn set_kicks(&mut self, enabled: bool, dirty: Option<&mut DirtyPages>) {
        if self.event_idx {
            // There is no way to say never; an index that lies behind is passed once in 65536.
            if enabled {
                let offset = avail_event_offset(self.size);
                // SAFETY: with EVENT_IDX `ring_areas` found the event word behind the used ring
                // mapped as well; it is 2-byte aligned.
                unsafe { self.areas.device.offset(offset).store_u16(self.next) };
                if let Some(dirty) = dirty {
                    dirty.device(offset, size_of::<u16>());
                }
            }
            return;
        }
        let flags = if enabled { 0 } else { USED_F_NO_NOTIFY };
        // SAFETY: `ring_areas` found the used ring mapped and aligned to 4.
        unsafe { self.areas.device.offset(RING_FLAGS).store_u16(flags) };
        if let Some(dirty) = dirty {
            dirty.device(RING_FLAGS, size_of::<u16>());
        }
    }

    fn has_available(&self) -> bool {
        // SAFETY: `ring_areas` found the available ring mapped and aligned to 2.
        let avail = unsafe { self.areas.driver.offset(RING_IDX).load_u16_acquire() };
        avail != self.next
    }

    fn is_drained(&self) -> bool {
        self.next.wrapping_sub(self.used) == self.size
    }

    fn forget(&mut self) {
        self.next = self.done;
    }

    fn move_to(&mut self, areas: RingAreas) {
        self.areas = areas;
    }

    fn base(&self) -> RingBase {
        RingBase { avail: self.used, avail_wrap: false, used: self.used, used_wrap: false }
    }
}
