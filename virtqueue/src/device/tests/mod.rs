// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device side against our driver side, and against rings written by hand.

mod deliver;
mod dirty;
mod flow;
mod malformed;
mod notify;

use std::sync::Arc;

use crate::config::{QueueConfig, QueueFeatures, RingAddresses, RingBase, RingKind};
use crate::driver::{Buffer, Completion, DriverQueue};
use crate::mem::{MemoryMap, SharedMemory};
use crate::{RxQueue, TxQueue};

/// Bytes from one buffer of a guest to the next.
const STRIDE: u64 = 4096;

/// A guest with one ring.
pub(crate) struct Guest {
    pub(crate) memory: SharedMemory,
    pub(crate) config: QueueConfig,
    data: u64,
}

/// A packed or split ring with nothing negotiated but the long header.
pub(crate) fn plain(kind: RingKind) -> QueueFeatures {
    QueueFeatures {
        kind,
        in_order: false,
        indirect: false,
        event_idx: false,
        mrg_rxbuf: false,
        header_len: 12,
        offloads: false,
    }
}

/// Both formats, with every combination of the features that change how a device works.
pub(crate) fn combinations() -> impl Iterator<Item = QueueFeatures> {
    (0..32).map(|bits| QueueFeatures {
        kind: if bits & 1 == 0 { RingKind::Packed } else { RingKind::Split },
        in_order: bits & 2 != 0,
        indirect: bits & 4 != 0,
        event_idx: bits & 8 != 0,
        mrg_rxbuf: bits & 16 != 0,
        header_len: 12,
        offloads: false,
    })
}

impl Guest {
    pub(crate) fn new(size: u16, features: QueueFeatures, buffers: u64) -> Self {
        let layout = DriverQueue::ring_bytes(features.kind, size);
        let data = layout.total.next_multiple_of(STRIDE);
        let memory = SharedMemory::create("test", data + buffers * STRIDE, false).unwrap();
        let start = memory.spec().guest_addr;
        let addresses =
            RingAddresses { desc: start + layout.desc, driver: start + layout.driver, device: start + layout.device };
        let base = RingBase::initial(features.kind);
        Self { config: QueueConfig { size, features, addresses, base }, data: start + data, memory }
    }

    pub(crate) fn map(&self) -> Arc<MemoryMap> {
        self.memory.map()
    }

    pub(crate) fn driver(&self) -> DriverQueue {
        DriverQueue::new(self.config, self.map()).unwrap()
    }

    pub(crate) fn tx(&self) -> TxQueue {
        TxQueue::new(self.config, self.map(), None).unwrap()
    }

    pub(crate) fn rx(&self) -> RxQueue {
        RxQueue::new(self.config, self.map(), None).unwrap()
    }

    pub(crate) fn buffer(&self, i: u64, len: u32) -> Buffer {
        Buffer { addr: self.data + i * STRIDE, len }
    }

    pub(crate) fn set(&self, addr: u64, bytes: &[u8]) {
        self.map().write(addr, bytes).unwrap();
    }

    pub(crate) fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.map().read(addr, &mut bytes).unwrap();
        bytes
    }

    /// Writes descriptor `at` of the table at `table`: flags, and what is id or next.
    pub(crate) fn descriptor(&self, table: u64, at: u64, addr: u64, len: u32, flags: u16, other: u16) {
        let (first, second) = match self.config.features.kind {
            RingKind::Packed => (other, flags),
            RingKind::Split => (flags, other),
        };
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.extend(second.to_le_bytes());
        self.set(table + 16 * at, &bytes);
    }
}

/// Everything the driver can complete.
pub(crate) fn completions(driver: &mut DriverQueue) -> Vec<Completion> {
    let mut all = Vec::new();
    let mut some = [Completion::default(); 7];
    loop {
        let n = driver.complete(&mut some).unwrap();
        all.extend(&some[..n]);
        if n == 0 {
            return all;
        }
    }
}

/// A small generator of numbers, so that tests are the same every time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}
