// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a queue has written and the log of dirty pages does not say yet.
//!
//! Pages gather here, 64 to an entry, and go to the log when the burst is published: the buffers of a burst often lie side
//! by side, a ring is a page or two, and one fence does for all. What gathered goes to the log, too, when there is no room
//! for more, when the queue breaks, when logging ends, and when this is dropped; so nothing that was written before a queue
//! was stopped, or left its log, is missing there afterwards.

use std::sync::Arc;

use super::held::Segment;
use crate::config::{QueueConfig, RingKind};
use crate::layout::{self, DESC_SIZE};
use crate::mem::{DirtyLog, GROUP, HostPtr, MemoryMap, full_fence};

/// Entries: what four bursts of scattered buffers share a lap of.
const ENTRIES: usize = 32;

/// The log that a queue writes to, and what it has yet to write there.
#[derive(Debug)]
pub struct DirtyPages {
    log: Arc<DirtyLog>,
    /// Guest address of the descriptors.
    desc: u64,
    /// What the first byte of the device area is logged as; the front end may have named something other than its address.
    device: u64,
    told: Option<u64>,
    /// Region of the last look-up.
    hint: usize,
    entries: [(u64, u64); ENTRIES],
    len: usize,
}

impl DirtyPages {
    /// A queue is to log in `log`, and writes into its device area as writes to `device` and so on, if that is given
    /// (VHOST_VRING_F_LOG), else as what they are.
    #[must_use]
    pub fn new(log: Arc<DirtyLog>, device: Option<u64>) -> Self {
        Self { log, desc: 0, device: 0, told: device, hint: 0, entries: [(0, 0); ENTRIES], len: 0 }
    }

    /// Begins for a queue. All that a device ever writes of the ring counts as written: before the queue began, a position
    /// may have been recovered and a publication finished.
    pub(super) fn begin(&mut self, config: &QueueConfig) {
        let [(desc, _), _, (device, _)] = layout::areas(&config.features, config.size);
        self.desc = config.addresses.desc;
        self.device = self.told.unwrap_or(config.addresses.device);
        if config.features.kind == RingKind::Packed {
            self.mark(self.desc, desc);
        }
        self.mark(self.device, device);
        self.flush();
    }

    /// Descriptor `slot` was written (packed).
    pub(super) fn descriptor(&mut self, slot: u16) {
        self.mark(self.desc.wrapping_add(u64::from(slot) * DESC_SIZE as u64), DESC_SIZE as u64);
    }

    /// Bytes of the device area were written.
    pub(super) fn device(&mut self, offset: usize, len: usize) {
        self.mark(self.device.wrapping_add(offset as u64), len as u64);
    }

    /// The first `len` bytes of some pieces were written.
    #[cold]
    #[inline(never)]
    pub(super) fn pieces(&mut self, map: &MemoryMap, pieces: impl Iterator<Item = Segment>, len: usize) {
        let mut left = len;
        for piece in pieces {
            let count = left.min(piece.len as usize);
            self.host(map, piece.ptr, count);
            left -= count;
            if left == 0 {
                break;
            }
        }
    }

    /// Brings to the log what gathered.
    pub(super) fn flush(&mut self) {
        if self.len == 0 {
            return;
        }
        // Between what was written and every look at the log, see `mem/dirty.rs`.
        full_fence();
        for &(group, bits) in self.entries.iter().take(self.len) {
            self.log.set(group, bits);
        }
        self.len = 0;
    }

    /// Whether the log was lost.
    pub(super) fn poisoned(&self) -> bool {
        self.log.poisoned()
    }

    /// Bytes at an address of ours were written; they lie in one region of the queue's map.
    fn host(&mut self, map: &MemoryMap, ptr: HostPtr, len: usize) {
        if let Some(guest) = map.guest_of(ptr, &mut self.hint) {
            self.mark(guest, len as u64);
        }
    }

    fn mark(&mut self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        // A made-up address of a device area may wrap; then it is beyond every log.
        let last = guest.saturating_add(len - 1) / DirtyLog::PAGE;
        for page in guest / DirtyLog::PAGE..=last {
            self.page(page);
        }
    }

    fn page(&mut self, page: u64) {
        let (group, bit) = (page / GROUP, 1 << (page % GROUP));
        // Backwards: it is often the last.
        let known = self.entries.iter_mut().take(self.len).rev().find(|(known, _)| *known == group);
        if let Some((_, bits)) = known {
            *bits |= bit;
            return;
        }
        if self.len == ENTRIES {
            self.flush();
        }
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = (group, bit);
            self.len += 1;
        }
    }
}

impl Drop for DirtyPages {
    fn drop(&mut self) {
        self.flush();
    }
}
