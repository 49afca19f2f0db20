// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings written by a guest that means harm: each breaks its queue, for good, with its cause.

use super::{Guest, plain};
use crate::config::{QueueFeatures, RingKind};
use crate::layout::{F_AVAIL, F_INDIRECT, F_NEXT, F_WRITE};
use crate::mem::{MemoryMap, RegionSpec, SharedMemory};
use crate::{Delivered, NetHeader, RingError, RxQueue, Tail, TxQueue};

const KINDS: [RingKind; 2] = [RingKind::Packed, RingKind::Split];
const SIZE: u16 = 8;

/// A guest whose first chain starts at descriptor 0 and is available.
fn guest(kind: RingKind) -> Guest {
    Guest::new(SIZE, QueueFeatures { indirect: true, ..plain(kind) }, 64)
}

/// Descriptor `at` of the ring itself, available.
fn direct(guest: &Guest, at: u16, addr: u64, len: u32, flags: u16) {
    let (flags, other) = match guest.config.features.kind {
        RingKind::Packed => (flags | F_AVAIL, 5),
        RingKind::Split => (flags, at + 1),
    };
    guest.descriptor(guest.config.addresses.desc, u64::from(at), addr, len, flags, other);
}

/// Makes `count` chains available in a split ring, all with head 0.
fn publish(guest: &Guest, count: u16) {
    if guest.config.features.kind == RingKind::Split {
        guest.set(guest.config.addresses.driver + 2, &count.to_le_bytes());
    }
}

fn breaks(guest: &Guest, expected: RingError) {
    publish(guest, 1);
    let mut tx = guest.tx();
    assert_eq!(tx.harvest(64), Err(expected));
    assert_stays_broken(guest, &mut tx, expected);
}

fn assert_stays_broken(guest: &Guest, tx: &mut TxQueue, expected: RingError) {
    let len = crate::driver::DriverQueue::ring_bytes(guest.config.features.kind, SIZE).total;
    let before = guest.get(guest.config.addresses.desc, len as usize);
    assert_eq!(tx.harvest(1), Err(expected));
    assert_eq!((tx.held(), tx.frame_len(0), tx.read(0, 0, &mut [0; 9])), (0, 0, 0));
    tx.release(1);
    tx.publish();
    assert!(!tx.should_notify() && !tx.set_kicks(true) && !tx.has_available());
    assert!(tx.base() == guest.config.base);
    assert!(RingError::CAUSES.contains(&expected.cause()));
    assert_eq!(guest.get(guest.config.addresses.desc, len as usize), before, "memory is left alone");
}

#[test]
fn unmapped_buffers() {
    for kind in KINDS {
        for (addr, len) in [(8, 100), (u64::MAX - 9, 100), (u64::MAX - 9, 10), (0, u32::MAX)] {
            let guest = guest(kind);
            direct(&guest, 0, addr, len, 0);
            breaks(&guest, RingError::Unmapped { addr, len });
        }
        let guest = guest(kind);
        let end = guest.memory.spec().guest_addr + guest.memory.spec().size;
        direct(&guest, 0, end - 50, 51, 0);
        breaks(&guest, RingError::Unmapped { addr: end - 50, len: 51 });
    }
}

#[test]
fn lengths_that_overflow() {
    for kind in KINDS {
        let guest = guest(kind);
        let addr = guest.buffer(0, 0).addr;
        direct(&guest, 0, addr, 100, F_NEXT);
        direct(&guest, 1, addr, u32::MAX, 0);
        breaks(&guest, RingError::LengthOverflow { addr, len: u32::MAX });
    }
}

#[test]
fn wrong_directions() {
    for kind in KINDS {
        let guest = guest(kind);
        direct(&guest, 0, guest.buffer(0, 0).addr, 100, F_WRITE);
        breaks(&guest, RingError::WrongDirection { head: 0, index: 0 });
        direct(&guest, 0, guest.buffer(0, 0).addr, 100, F_NEXT);
        direct(&guest, 1, guest.buffer(0, 0).addr, 100, F_WRITE);
        breaks(&guest, RingError::WrongDirection { head: 0, index: 1 });

        direct(&guest, 0, guest.buffer(0, 0).addr, 100, 0);
        let mut rx = guest.rx();
        let error = RingError::WrongDirection { head: 0, index: 0 };
        assert_eq!(rx.deliver(&NetHeader::default(), &[1; 60], Tail::None), Err(error));
        assert_eq!(rx.prefetch(1), Err(error));
    }
}

#[test]
fn chains_without_a_header() {
    for kind in KINDS {
        for len in [0, 1, 11] {
            let guest = guest(kind);
            direct(&guest, 0, guest.buffer(0, 0).addr, len, 0);
            breaks(&guest, RingError::NoHeader { len, header: 12 });
            direct(&guest, 0, guest.buffer(0, 0).addr, len, F_WRITE);
            assert_eq!(guest.rx().prefetch(1), Err(RingError::NoHeader { len, header: 12 }));
        }
    }
}

#[test]
fn a_frame_of_no_bytes_is_a_frame() {
    for kind in KINDS {
        let guest = guest(kind);
        direct(&guest, 0, guest.buffer(0, 0).addr, 12, 0);
        publish(&guest, 1);
        let mut tx = guest.tx();
        assert_eq!((tx.harvest(64), tx.frame_len(0)), (Ok(1), 0));
    }
}

#[test]
fn empty_descriptors_add_nothing() {
    for kind in KINDS {
        let guest = guest(kind);
        direct(&guest, 0, 0, 0, F_NEXT);
        direct(&guest, 1, guest.buffer(0, 0).addr, 12, F_NEXT);
        direct(&guest, 2, 0, 0, F_NEXT);
        direct(&guest, 3, guest.buffer(0, 0).addr, 7, 0);
        publish(&guest, 1);
        let mut tx = guest.tx();
        assert_eq!((tx.harvest(64), tx.frame_len(0)), (Ok(1), 7));
    }
}

#[test]
fn chains_that_never_end() {
    let packed = guest(RingKind::Packed);
    for at in 0..SIZE {
        direct(&packed, at, packed.buffer(0, 0).addr, 100, F_NEXT);
    }
    breaks(&packed, RingError::ChainTooLong { head: 0, limit: SIZE });

    let split = guest(RingKind::Split);
    let table = split.config.addresses.desc;
    split.descriptor(table, 0, split.buffer(0, 0).addr, 100, F_NEXT, 1);
    split.descriptor(table, 1, split.buffer(0, 0).addr, 100, F_NEXT, 0);
    breaks(&split, RingError::Loop { head: 0 });
    split.descriptor(table, 1, split.buffer(0, 0).addr, 100, F_NEXT, SIZE);
    breaks(&split, RingError::IndexBeyondSize { index: SIZE, size: SIZE });
    split.set(split.config.addresses.driver + 4, &SIZE.to_le_bytes());
    breaks(&split, RingError::IndexBeyondSize { index: SIZE, size: SIZE });
}

#[test]
fn a_packed_chain_stops_at_descriptors_still_ours() {
    let guest = guest(RingKind::Packed);
    for at in 0..SIZE {
        direct(&guest, at, guest.buffer(0, 0).addr, 100, 0);
    }
    let mut tx = guest.tx();
    assert_eq!(tx.harvest(3), Ok(3));
    for at in 3..SIZE {
        direct(&guest, at, guest.buffer(0, 0).addr, 100, F_NEXT);
    }
    assert_eq!(tx.harvest(9), Err(RingError::ChainTooLong { head: 3, limit: SIZE }));
}

#[test]
fn flags_written_again_are_not_believed_twice() {
    let guest = guest(RingKind::Packed);
    for at in 0..SIZE {
        direct(&guest, at, guest.buffer(0, 0).addr, 100, 0);
    }
    let mut tx = guest.tx();
    assert_eq!(tx.harvest(64), Ok(8));
    for at in 0..SIZE {
        let used = crate::layout::F_USED;
        guest.descriptor(guest.config.addresses.desc, u64::from(at), guest.buffer(0, 0).addr, 100, used, 0);
    }
    assert_eq!(tx.harvest(64), Ok(8), "the ring is full of what we hold");
    assert!(!tx.has_available());
}

#[test]
fn a_driver_that_races_ahead() {
    for (first, second) in [(9, 0), (0x8000, 0), (0xffff, 0), (4, 3), (4, 13)] {
        let guest = guest(RingKind::Split);
        for at in 0..SIZE {
            direct(&guest, at, guest.buffer(0, 0).addr, 100, 0);
        }
        publish(&guest, first);
        let mut tx = guest.tx();
        if first == 4 {
            assert_eq!(tx.harvest(64), Ok(4));
            publish(&guest, second);
        }
        let available = if first == 4 { second } else { first };
        let expected = RingError::DriverRaced { available, size: SIZE };
        assert_eq!(tx.harvest(64), Err(expected));
        assert_stays_broken(&guest, &mut tx, expected);
    }
}

#[test]
fn indirect_tables() {
    for kind in KINDS {
        let table = |guest: &Guest| guest.buffer(1, 0).addr;
        let with_table = |len: u32, flags: u16| {
            let guest = guest(kind);
            direct(&guest, 0, table(&guest), len, F_INDIRECT | flags);
            guest
        };
        for len in [0, 8, 15, 17, 33] {
            let guest = with_table(len, 0);
            breaks(&guest, RingError::BadIndirect { addr: table(&guest), len });
        }
        let guest = with_table(32, F_NEXT);
        breaks(&guest, RingError::NestedIndirect { head: 0 });

        let guest = with_table(16, 0);
        guest.descriptor(table(&guest), 0, table(&guest), 16, F_INDIRECT, 0);
        breaks(&guest, RingError::NestedIndirect { head: 0 });

        let guest = with_table(16, 0);
        guest.descriptor(table(&guest), 0, guest.buffer(0, 0).addr, 100, F_WRITE, 0);
        match kind {
            RingKind::Split => breaks(&guest, RingError::WrongDirection { head: 0, index: 0 }),
            // DPDK's driver says so of everything it sends through a table.
            RingKind::Packed => {
                publish(&guest, 1);
                assert_eq!(guest.tx().harvest(1), Ok(1));
            }
        }

        let guest = with_table(16, 0);
        guest.descriptor(table(&guest), 0, guest.buffer(0, 0).addr, 100, 0, 0);
        publish(&guest, 1);
        let error = RingError::WrongDirection { head: 0, index: 0 };
        assert_eq!(guest.rx().prefetch(1), Err(error), "a table of buffers that cannot be written");

        // A table may begin at any address, and its length may promise more than a chain can have.
        let guest = with_table(!15, 0);
        let error = match kind {
            RingKind::Packed => RingError::ChainTooLong { head: 0, limit: 1024 },
            RingKind::Split => RingError::NoHeader { len: 0, header: 12 },
        };
        breaks(&guest, error);

        let mut guest = with_table(16, 0);
        guest.config.features.indirect = false;
        breaks(&guest, RingError::BadIndirect { addr: table(&guest), len: 16 });

        let guest = guest_with_unmapped_table(kind);
        breaks(&guest, RingError::Unmapped { addr: 0x10, len: 16 });
    }
    let guest = guest(RingKind::Split);
    let table = guest.buffer(1, 0).addr;
    direct(&guest, 0, table, 32, F_INDIRECT);
    guest.descriptor(table, 0, guest.buffer(0, 0).addr, 100, F_NEXT, 1);
    guest.descriptor(table, 1, guest.buffer(0, 0).addr, 100, F_NEXT, 0);
    breaks(&guest, RingError::Loop { head: 0 });
    guest.descriptor(table, 1, guest.buffer(0, 0).addr, 100, F_NEXT, 2);
    breaks(&guest, RingError::IndexBeyondSize { index: 2, size: 2 });
}

fn guest_with_unmapped_table(kind: RingKind) -> Guest {
    let guest = guest(kind);
    direct(&guest, 0, 0x10, 16, F_INDIRECT);
    guest
}

/// Two regions that meet in the middle of a buffer, and in the middle of a table entry.
#[test]
fn ranges_across_regions() {
    for kind in KINDS {
        let guest = guest(kind);
        let (low, high) =
            (SharedMemory::create("low", 4096, false).unwrap(), SharedMemory::create("high", 4096, false).unwrap());
        let specs = [(0x10_0000, &low), (0x10_1000, &high)];
        let mut map: MemoryMap = MemoryMap::empty();
        let fd = |memory: &SharedMemory| memory.fd().try_clone_to_owned().unwrap();
        map = map.with_region(guest.memory.spec(), fd(&guest.memory)).unwrap();
        for (guest_addr, memory) in specs {
            let spec = RegionSpec { guest_addr, size: 4096, user_addr: guest_addr, mmap_offset: 0 };
            map = map.with_region(spec, fd(memory)).unwrap();
        }
        let map = std::sync::Arc::new(map);
        let bytes: Vec<u8> = (0..200).collect();
        map.write(0x10_1000 - 100, &bytes).unwrap();
        direct(&guest, 0, 0x10_1000 - 100, 200, 0);
        publish(&guest, 1);
        let mut tx = TxQueue::new(guest.config, map.clone(), None).unwrap();
        assert_eq!(tx.harvest(1), Ok(1));
        let mut read = [0; 200];
        assert_eq!(tx.read(0, 0, &mut read), 188);
        assert_eq!(read[..188], bytes[12..]);

        // Indirect, the only entry lying across the border; the device writes through it.
        let across = Guest { config: guest.config, memory: low, data: 0 };
        let entry = 0x10_1000 - 8;
        let (first, second) = if kind == RingKind::Packed { (0, F_WRITE) } else { (F_WRITE, 0) };
        let mut raw = guest.buffer(3, 0).addr.to_le_bytes().to_vec();
        raw.extend(72_u32.to_le_bytes());
        raw.extend([first, second].iter().flat_map(|half| half.to_le_bytes()));
        map.write(entry, &raw).unwrap();
        direct(&guest, 0, entry, 16, F_INDIRECT);
        let mut rx = RxQueue::new(across.config, map, None).unwrap();
        assert_eq!(rx.deliver(&NetHeader::default(), &[7; 60], Tail::None), Ok(Delivered::Ok));
        assert_eq!(guest.get(guest.buffer(3, 0).addr + 12, 60), [7; 60]);
    }
}

#[test]
fn rings_that_cannot_be() {
    use crate::QueueError;
    let guest = guest(RingKind::Packed);
    let mut config = guest.config;
    config.addresses.desc += 8;
    assert!(matches!(TxQueue::new(config, guest.map(), None), Err(QueueError::Misaligned { .. })));
    config.addresses.desc = 0;
    assert!(matches!(TxQueue::new(config, guest.map(), None), Err(QueueError::Unmapped { .. })));
    config.size = 0;
    assert!(matches!(RxQueue::new(config, guest.map(), None), Err(QueueError::Size { .. })));
}
