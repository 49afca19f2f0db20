// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A link without a kernel, for tests of what is above it: frames go from one end to the other in private memory.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use virtqueue::NetHeader;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::sys::{Flushed, MAX_HELD, Received};

/// Frames on their way.
type Way = Arc<Mutex<VecDeque<(Vec<u8>, NetHeader)>>>;

/// The receiving end.
#[derive(Debug)]
pub(crate) struct MemoryRx {
    way: Way,
    held: Vec<(Vec<u8>, NetHeader)>,
    event: EventFd,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct MemoryTx {
    way: Way,
    unsent: Vec<(Vec<u8>, NetHeader)>,
}

/// Both ends of one direction.
pub(crate) fn memory() -> (MemoryTx, MemoryRx) {
    let way = Way::default();
    let event = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    (MemoryTx { way: Arc::clone(&way), unsent: Vec::new() }, MemoryRx { way, held: Vec::new(), event })
}

impl MemoryRx {
    pub(crate) fn has_frames(&self) -> bool {
        !self.way.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn harvest(&mut self) -> usize {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        while self.held.len() < MAX_HELD
            && let Some(frame) = way.pop_front()
        {
            self.held.push(frame);
        }
        self.held.len()
    }

    pub(crate) fn frame(&self, i: usize) -> Received<'_> {
        let Some((bytes, header)) = self.held.get(i) else { return Received::finished(&[]) };
        Received { header: *header, ..Received::finished(bytes) }
    }

    pub(crate) fn release(&mut self) {
        self.held.clear();
    }

    /// All frames that have come, taken out.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).drain(..).map(|(bytes, _)| bytes).collect()
    }
}

impl AsRawFd for MemoryRx {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl MemoryTx {
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        self.unsent.push((bytes, header));
        true
    }

    pub(crate) fn flush(&mut self) -> Flushed {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).extend(self.unsent.drain(..));
        Flushed::All
    }
}
