// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What transmit and receive queues share: a ring, the chains harvested from it, the elements
//! pending for it, and the latch that keeps a broken queue broken.

use std::sync::Arc;

use super::chain::{Rules, Stop};
use super::dirty::DirtyPages;
use super::held::{HELD, Held};
use super::pending::Pending;
use super::ring::{DeviceRing, Ring, on};
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::error::{QueueError, RingError};
use crate::journal::QueueJournal;
use crate::mem::{MemoryMap, full_fence};

/// Indirect tables may be longer than the ring (Linux makes such), up to this many descriptors.
const MIN_CHAIN_LIMIT: u16 = 1024;

/// A queue; `RX` says that the device writes into its buffers.
#[derive(Debug)]
pub(super) struct Queue<const RX: bool> {
    pub(super) config: QueueConfig,
    /// Every pointer in `ring` and `held` was resolved with this map, which keeps them mapped.
    pub(super) map: Arc<MemoryMap>,
    /// Region of the last look-up.
    hint: usize,
    pub(super) ring: Ring,
    pub(super) held: Box<Held>,
    pub(super) pending: Pending,
    /// What was written since the last burst, while that is logged.
    pub(super) dirty: Option<Box<DirtyPages>>,
    broken: Option<RingError>,
}

impl<const RX: bool> Queue<RX> {
    pub(super) fn new(
        config: QueueConfig,
        map: Arc<MemoryMap>,
        journal: Option<QueueJournal>,
    ) -> Result<Self, QueueError> {
        config.check()?;
        let areas = map.ring_areas(&config)?;
        let journal = match (journal, config.features.kind) {
            (Some(journal), RingKind::Packed) => {
                journal.begin(&config, &map);
                Some(journal)
            }
            // A split ring is recovered from its own used index.
            (Some(journal), RingKind::Split) => {
                journal.clear();
                None
            }
            (None, _) => None,
        };
        let limit = usize::from(config.size.max(MIN_CHAIN_LIMIT));
        Ok(Self {
            config,
            map,
            hint: 0,
            ring: Ring::new(&config, areas),
            // Twice, because a buffer may lie across two regions.
            held: Held::new(2 * limit),
            pending: Pending::new(journal),
            dirty: None,
            broken: None,
        })
    }

    /// Moves to another memory map that has the ring, too.
    pub(super) fn set_memory(&mut self, map: Arc<MemoryMap>) -> Result<(), QueueError> {
        let areas = map.ring_areas(&self.config)?;
        self.publish();
        self.forget();
        on!(&mut self.ring, ring => ring.move_to(areas));
        self.map = map;
        self.hint = 0;
        Ok(())
    }

    #[inline(always)]
    pub(super) const fn check(&self) -> Result<(), RingError> {
        match self.broken {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Harvests until `count` chains are held, as far as there are any and room for them. The
    /// first `skip` bytes of each will not be read.
    #[inline(always)]
    pub(super) fn harvest_to(&mut self, count: usize, skip: usize) -> Result<usize, RingError> {
        self.check()?;
        let want = count.min(HELD).saturating_sub(self.held.count());
        if want == 0 {
            return Ok(self.held.count());
        }
        let features = &self.config.features;
        let mut rules = Rules {
            map: &self.map,
            hint: &mut self.hint,
            writable: RX,
            indirect: features.indirect,
            header_len: features.header_len,
            skip,
            limit: self.config.size.max(MIN_CHAIN_LIMIT),
        };
        let held = &mut *self.held;
        let result = on!(&mut self.ring, ring => ring.harvest::<RX>(&mut rules, held, want));
        match result {
            Ok(()) => Ok(self.held.count()),
            Err(Stop::Full) => {
                self.held.abandon();
                Ok(self.held.count())
            }
            Err(Stop::Broken(error)) => Err(self.break_with(error)),
        }
    }

    /// Ends the queue: nothing is held, nothing pending, and guest memory is not touched again.
    #[cold]
    fn break_with(&mut self, error: RingError) -> RingError {
        self.held.abandon();
        self.held.clear();
        self.pending.truncate(0);
        self.broken = Some(error);
        self.flush_dirty();
        error
    }

    /// Logs from now on, or no longer; what was written before is in the log that comes back.
    pub(super) fn set_log(&mut self, mut dirty: Option<Box<DirtyPages>>) -> Option<Box<DirtyPages>> {
        if let Some(dirty) = &mut dirty {
            dirty.begin(&self.config);
        }
        self.flush_dirty();
        std::mem::replace(&mut self.dirty, dirty)
    }

    pub(super) fn log_is_lost(&self) -> bool {
        self.dirty.as_ref().is_some_and(|dirty| dirty.poisoned())
    }

    #[inline(always)]
    fn flush_dirty(&mut self) {
        if let Some(dirty) = &mut self.dirty {
            dirty.flush();
        }
    }

    /// Forgets what is held; it can be harvested again.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        on!(&mut self.ring, ring => ring.forget());
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) {
        if self.dirty.is_some() {
            return self.publish_logged();
        }
        let Self { ring, pending, .. } = self;
        on!(ring, ring => ring.publish(pending, None));
    }

    #[cold]
    #[inline(never)]
    fn publish_logged(&mut self) {
        let Self { ring, pending, dirty, .. } = self;
        on!(ring, ring => ring.publish(pending, dirty.as_deref_mut()));
        self.flush_dirty();
    }

    pub(super) fn should_notify(&mut self) -> bool {
        self.broken.is_none() && on!(&mut self.ring, ring => ring.should_notify())
    }

    pub(super) fn set_kicks(&mut self, enabled: bool) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let Self { ring, dirty, .. } = &mut *self;
        on!(ring, ring => ring.set_kicks(enabled, dirty.as_deref_mut()));
        self.flush_dirty();
        if enabled {
            // Our wish must be visible before we look, as the driver's entries are before it looks.
            full_fence();
        }
        self.has_available()
    }

    pub(super) fn has_available(&self) -> bool {
        self.broken.is_none() && on!(&self.ring, ring => ring.has_available())
    }

    pub(super) fn base(&self) -> RingBase {
        on!(&self.ring, ring => ring.base())
    }
}
