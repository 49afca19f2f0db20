// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a front end that migrates its guest wants to be logged, and where (ADR 0014).

use std::sync::Arc;

use virtqueue::{DirtyLog, DirtyPages, MemoryMap};

/// Where a connection's rings log what they write.
#[derive(Debug)]
pub(super) struct Logging {
    log: Option<Arc<DirtyLog>>,
    /// VHOST_F_LOG_ALL.
    all: bool,
    /// By ring: what its device area is logged as (VHOST_VRING_F_LOG).
    rings: Vec<Option<u64>>,
    /// Whether rings may have written what the next log should have been told, though everything was to be logged: they
    /// ran without a log, or with one that the front end had given up.
    unlogged: bool,
    /// Pages for which logs of before had no bit.
    beyond: u64,
}

impl Logging {
    pub(super) fn new(rings: u16) -> Self {
        Self { log: None, all: false, rings: vec![None; usize::from(rings)], unlogged: false, beyond: 0 }
    }

    /// What a ring is to log with: everything that it writes, as soon as either feature or flag says so.
    pub(super) fn pages(&self, vring: u16) -> Option<Box<DirtyPages>> {
        let device = self.rings.get(usize::from(vring)).copied().flatten();
        let log = self.log.as_ref().filter(|_| self.all || device.is_some())?;
        Some(Box::new(DirtyPages::new(Arc::clone(log), device)))
    }

    /// A ring starts.
    ///
    /// QEMU names a device's log after it started its rings, and gives a stopped device's log up without telling. So what
    /// rings that start while everything is to be logged write before the next log comes may be in none.
    pub(super) fn started(&mut self) {
        self.unlogged |= self.all;
    }

    pub(super) fn set_log(&mut self, log: DirtyLog) {
        self.retire();
        self.log = Some(Arc::new(log));
    }

    /// All rings log in the present log: what they wrote before without one counts as anything.
    pub(super) fn catch_up(&mut self, map: &MemoryMap) {
        if let Some(log) = self.log.as_ref().filter(|_| std::mem::take(&mut self.unlogged)) {
            log.mark_all(map);
        }
    }

    pub(super) fn set_all(&mut self, all: bool, running: bool) {
        self.all = all;
        self.unlogged |= all && running && self.log.is_none();
    }

    pub(super) fn set_ring(&mut self, vring: u16, address: Option<u64>) {
        if let Some(ring) = self.rings.get_mut(usize::from(vring)) {
            *ring = address;
        }
    }

    /// The device is as new.
    pub(super) fn reset(&mut self) {
        self.all = false;
        self.rings.fill(None);
    }

    pub(super) fn log(&self) -> Option<&DirtyLog> {
        self.log.as_deref()
    }

    /// How many pages were written for which there was no bit, since this was asked last.
    pub(super) fn take_beyond(&mut self) -> u64 {
        let now = self.log.as_ref().map_or(0, |log| log.take_beyond());
        std::mem::take(&mut self.beyond) + now
    }

    fn retire(&mut self) {
        if let Some(log) = self.log.take() {
            self.beyond += log.take_beyond();
        }
    }
}
