// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The oracle: rings as virtio 1.3 sections 2.7 and 2.8 describe them, one field at a time.
//!
//! Plain on purpose. Positions are counters that never wrap; index and wrap counter are derived
//! from them where they are needed. Nothing is cached, batched or deferred.

mod device;
mod driver;

use std::ops::Range;
use std::sync::Arc;

use virtqueue::{DriverQueue, MemoryMap, QueueConfig, QueueFeatures, RingAddresses, RingBase, RingKind, SharedMemory};

pub(crate) use device::{Chain, ModelDevice};
pub(crate) use driver::ModelDriver;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Guest memory, a field at a time.
#[derive(Clone, Debug)]
pub(crate) struct Guest(pub(crate) Arc<MemoryMap>);

impl Guest {
    pub(crate) fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read(addr, &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn set_bytes(&self, addr: u64, bytes: &[u8]) {
        self.0.write(addr, bytes).unwrap();
    }

    pub(crate) fn u16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.bytes(addr, 2).try_into().unwrap())
    }

    pub(crate) fn u32(&self, addr: u64) -> u32 {
        u32::from_le_bytes(self.bytes(addr, 4).try_into().unwrap())
    }

    pub(crate) fn u64(&self, addr: u64) -> u64 {
        u64::from_le_bytes(self.bytes(addr, 8).try_into().unwrap())
    }

    pub(crate) fn set_u16(&self, addr: u64, value: u16) {
        self.set_bytes(addr, &value.to_le_bytes());
    }

    pub(crate) fn set_u32(&self, addr: u64, value: u32) {
        self.set_bytes(addr, &value.to_le_bytes());
    }

    pub(crate) fn set_u64(&self, addr: u64, value: u64) {
        self.set_bytes(addr, &value.to_le_bytes());
    }
}

/// A descriptor of either format: address, length, flags, and id (packed) or next (split).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Desc {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) other: u16,
}

impl Desc {
    pub(crate) fn read(guest: &Guest, kind: RingKind, at: u64) -> Self {
        let (flags, other) = match kind {
            RingKind::Packed => (guest.u16(at + 14), guest.u16(at + 12)),
            RingKind::Split => (guest.u16(at + 12), guest.u16(at + 14)),
        };
        Self { addr: guest.u64(at), len: guest.u32(at + 8), flags, other }
    }

    pub(crate) fn write(&self, guest: &Guest, kind: RingKind, at: u64) {
        guest.set_u64(at, self.addr);
        guest.set_u32(at + 8, self.len);
        let (first, second) = match kind {
            RingKind::Packed => (self.other, self.flags),
            RingKind::Split => (self.flags, self.other),
        };
        guest.set_u16(at + 12, first);
        guest.set_u16(at + 14, second);
    }
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// Index and wrap counter of a packed position.
pub(crate) fn place(position: u64, size: u16) -> (u16, bool) {
    let index = u16::try_from(position % u64::from(size)).unwrap();
    (index, (position / u64::from(size)).is_multiple_of(2))
}

/// Where a ring starts, as a counter.
pub(crate) fn start(config: &QueueConfig) -> u64 {
    let lap = match config.features.kind {
        RingKind::Packed if !config.base.used_wrap => u64::from(config.size),
        _ => 0,
    };
    u64::from(config.base.used) + lap
}

/// When a side wants to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notify {
    Always,
    Never,
    /// When the position it has not seen yet is passed; needs EVENT_IDX.
    AtNext,
}

/// Writes the wish of the side that owns an area and stands at a position.
pub(crate) fn set_wish(guest: &Guest, config: &QueueConfig, wish: Notify, at: u64, area: u64, split_event: u64) {
    match config.features.kind {
        RingKind::Packed => {
            let (index, wrap) = place(at, config.size);
            guest.set_u16(area, index | u16::from(wrap) << 15);
            let flags = match wish {
                Notify::Always => 0,
                Notify::Never => 1,
                Notify::AtNext => 2,
            };
            guest.set_u16(area + 2, flags);
        }
        RingKind::Split if config.features.event_idx => {
            let event = at.wrapping_sub(u64::from(wish == Notify::Never));
            guest.set_u16(split_event, (event & 0xffff) as u16);
        }
        RingKind::Split => guest.set_u16(area, u16::from(wish == Notify::Never)),
    }
}

/// Whether the side that owns an area wants to hear of these positions.
pub(crate) fn wants(guest: &Guest, config: &QueueConfig, mut moved: Range<u64>, area: u64, split_event: u64) -> bool {
    match config.features.kind {
        RingKind::Packed => match guest.u16(area + 2) {
            0 => !moved.is_empty(),
            1 => false,
            flags => {
                assert_eq!(flags, 2);
                assert!(config.features.event_idx);
                let off_wrap = guest.u16(area);
                let event = (off_wrap & 0x7fff, off_wrap & 0x8000 != 0);
                moved.any(|at| place(at, config.size) == event)
            }
        },
        RingKind::Split if config.features.event_idx => {
            let event = guest.u16(split_event);
            moved.any(|at| (at & 0xffff) as u16 == event)
        }
        RingKind::Split => !moved.is_empty() && guest.u16(area) & 1 == 0,
    }
}

/// A ring and some memory for buffers.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) memory: SharedMemory,
    pub(crate) config: QueueConfig,
    /// Guest address of the memory for buffers.
    pub(crate) data: u64,
}

/// All features off, and a header of 12 bytes.
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

impl Setup {
    pub(crate) fn new(size: u16, features: QueueFeatures, base: RingBase, data_len: u64) -> Self {
        let layout = DriverQueue::ring_bytes(features.kind, size);
        let data_at = layout.total.next_multiple_of(4096);
        let memory = SharedMemory::create("rings", data_at + data_len, false).unwrap();
        let ring = memory.spec().guest_addr;
        let addresses =
            RingAddresses { desc: ring + layout.desc, driver: ring + layout.driver, device: ring + layout.device };
        Self { config: QueueConfig { size, features, addresses, base }, data: ring + data_at, memory }
    }

    pub(crate) fn guest(&self) -> Guest {
        Guest(self.memory.map())
    }
}

/// Every feature combination of a format.
pub(crate) fn all_features(kind: RingKind) -> impl Iterator<Item = QueueFeatures> {
    (0..32_u8).map(move |bits| QueueFeatures {
        kind,
        in_order: bits & 1 != 0,
        indirect: bits & 2 != 0,
        event_idx: bits & 4 != 0,
        mrg_rxbuf: bits & 8 != 0,
        header_len: 12,
        offloads: bits & 16 != 0,
    })
}

/// The sizes worth trying: the smallest, odd ones, powers of two, the largest.
pub(crate) fn sizes(kind: RingKind) -> &'static [u16] {
    match kind {
        RingKind::Split => &[1, 2, 4, 8, 256, 32768],
        RingKind::Packed => &[1, 2, 3, 4, 7, 8, 256, 1000, 32768],
    }
}

/// Bases near every kind of wrap, and the initial one.
pub(crate) fn bases(kind: RingKind, size: u16) -> Vec<RingBase> {
    let base = |index: u16, wrap: bool| RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap };
    match kind {
        RingKind::Split => vec![base(0, false), base(0xffff - size / 2, false), base(0xffff, false)],
        RingKind::Packed => {
            vec![base(0, true), base(size - 1, true), base(size / 2, false), base(size - 1, false), base(0, false)]
        }
    }
}
