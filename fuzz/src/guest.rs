// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest of three small regions, two of them adjacent, at low addresses that bytes can hit.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtqueue::{DriverQueue, MemoryMap, QueueConfig, QueueFeatures, RegionSpec, RingAddresses, RingBase, RingKind};

use crate::input::Input;

const REGION: u64 = 16 << 10;
/// First address behind the two adjacent regions; nothing is mapped between here and `ISLAND`.
pub(crate) const END: u64 = 2 * REGION;
const ISLAND: u64 = 3 * REGION;

/// A new guest with zeroed memory.
pub(crate) fn guest() -> Arc<MemoryMap> {
    let regions = [0, REGION, ISLAND].map(|addr| {
        (RegionSpec { guest_addr: addr, size: REGION, user_addr: addr, mmap_offset: addr.min(END) }, file())
    });
    let map = MemoryMap::from_regions(regions.into());
    let map = map.unwrap_or_else(|error| panic!("memory for the guest: {error}"));
    let zeros = vec![0; 2 * 16384];
    let cleared = map.write(0, &zeros).and_then(|()| map.write(ISLAND, &zeros[..16384]));
    cleared.unwrap_or_else(|error| panic!("memory of the guest: {error}"));
    Arc::new(map)
}

/// One file for all guests of a thread; making one for each would take longer than the target.
fn file() -> OwnedFd {
    thread_local! {
        static FILE: OwnedFd = create();
    }
    FILE.with(OwnedFd::try_clone).unwrap_or_else(|error| panic!("dup: {error}"))
}

fn create() -> OwnedFd {
    let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC);
    let fd = fd.unwrap_or_else(|error| panic!("memfd_create: {error}"));
    ftruncate(&fd, 3 * REGION).unwrap_or_else(|error| panic!("ftruncate: {error}"));
    fd
}

/// A ring as the bytes want it, at a guest address. Small sizes: wraps are where the bugs are.
pub(crate) fn config(input: &mut Input<'_>, kind: RingKind, addr: u64) -> QueueConfig {
    let (bits, size) = (input.u8(), input.u8());
    let size = match kind {
        RingKind::Split => 1 << (size % 7),
        RingKind::Packed => 1 + u16::from(size % 65),
    };
    let layout = DriverQueue::ring_bytes(kind, size);
    let index = if kind == RingKind::Packed { input.u16() % size } else { input.u16() };
    let wrap = kind == RingKind::Packed && bits & 0x20 != 0;
    QueueConfig {
        size,
        features: QueueFeatures {
            kind,
            in_order: bits & 1 != 0,
            indirect: bits & 2 != 0,
            event_idx: bits & 4 != 0,
            mrg_rxbuf: bits & 8 != 0,
            offloads: bits & 16 != 0,
            header_len: if bits & 0x40 != 0 { 0 } else { 12 },
        },
        addresses: RingAddresses {
            desc: addr + layout.desc,
            driver: addr + layout.driver,
            device: addr + layout.device,
        },
        base: RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap },
    }
}
