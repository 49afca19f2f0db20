// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests of the memory map against real memfds.

use super::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

fn memfd(len: u64) -> OwnedFd {
    let fd = memfd_create("map-test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

fn spec(guest_addr: u64, size: u64, user_addr: u64, mmap_offset: u64) -> RegionSpec {
    RegionSpec { guest_addr, size, user_addr, mmap_offset }
}

#[test]
fn regions_of_one_file_alias() {
    let fd = memfd(0x4000);
    let map = MemoryMap::from_regions(vec![
        (spec(0x1000, 0x2000, 0x7000_0000, 0x1000), fd.try_clone().unwrap()),
        (spec(0x9000, 0x4000, 0x7100_0000, 0), fd),
    ])
    .unwrap();
    map.write(0x1000, b"hello").unwrap();
    let mut back = [0; 5];
    map.read(0xa000, &mut back).unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(map.identity(0x1000), map.identity(0xcfff));
    assert_eq!(map.identity(0x3000), None);
}

#[test]
fn ranges_span_adjacent_regions_only() {
    let map = MemoryMap::from_regions(vec![
        (spec(0x2000, 0x1000, 0x10_0000, 0), memfd(0x1000)),
        (spec(0x1000, 0x1000, 0x20_0000, 0), memfd(0x1000)),
        (spec(0x4000, 0x1000, 0x30_0000, 0), memfd(0x1000)),
    ])
    .unwrap();
    let data: Vec<u8> = (0..200).collect();
    map.write(0x1fc0, &data).unwrap();
    let mut back = vec![0; 200];
    map.read(0x1fc0, &mut back).unwrap();
    assert_eq!(back, data);
    let mut hint = 0;
    assert!(map.host_range(0x1fc0, 64, &mut hint).is_some());
    assert!(map.host_range(0x1fc0, 65, &mut hint).is_none());
    assert_eq!(map.host_prefix(0x1fc0, 200, &mut hint).unwrap().1, 64);
    assert_eq!(map.write(0x2f80, &data), Err(MemError::Unmapped { addr: 0x3000, len: 72 }));
    assert_eq!(map.read(0xfff, &mut [0]), Err(MemError::Unmapped { addr: 0xfff, len: 1 }));
    assert!(map.host_range(u64::MAX, u64::MAX, &mut hint).is_none());
    assert!(map.host_range(0x4000, u64::MAX, &mut hint).is_none());
}

#[test]
fn user_addresses_translate_within_one_region() {
    let map = MemoryMap::from_regions(vec![
        (spec(0x1000, 0x1000, 0x8000, 0), memfd(0x1000)),
        (spec(0x2000, 0x1000, 0x9000, 0), memfd(0x1000)),
    ])
    .unwrap();
    assert_eq!(map.user_to_guest(0x8ff0, 16), Some(0x1ff0));
    assert_eq!(map.user_to_guest(0x8ff0, 17), None);
    assert_eq!(map.user_to_guest(0x7fff, 1), None);
    assert_eq!(map.user_to_guest(0xa000, 0), None);
    assert_eq!(map.user_to_guest(u64::MAX, u64::MAX), None);
}

#[test]
fn bad_regions_are_refused() {
    let one = |spec| MemoryMap::from_regions(vec![(spec, memfd(0x2000))]);
    assert!(matches!(one(spec(0, 0, 0, 0)), Err(MapError::Empty { .. })));
    assert!(matches!(one(spec(u64::MAX, 2, 0, 0)), Err(MapError::Overflow { .. })));
    assert!(matches!(one(spec(0, 2, u64::MAX, 0)), Err(MapError::Overflow { .. })));
    assert!(matches!(one(spec(0, 2, 0, u64::MAX)), Err(MapError::Overflow { .. })));
    assert!(matches!(one(spec(0, 0x2001, 0, 0)), Err(MapError::PastEndOfFile { .. })));
    assert!(matches!(one(spec(0, 0x1000, 0, 0x1001)), Err(MapError::PastEndOfFile { .. })));
    let two = |a, b| MemoryMap::from_regions(vec![(a, memfd(0x2000)), (b, memfd(0x2000))]);
    let a = spec(0x1000, 0x1000, 0x1000, 0);
    assert!(matches!(two(a, spec(0x1fff, 1, 0x9000, 0)), Err(MapError::Overlap { .. })));
    assert!(matches!(two(a, spec(0x9000, 2, 0xfff, 0)), Err(MapError::Overlap { .. })));
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let piped = MemoryMap::from_regions(vec![(a, read)]);
    assert!(matches!(piped, Err(MapError::NotRegular { .. })));
}

#[test]
fn offsets_need_not_be_whole_pages() {
    let fd = memfd(0x3000);
    let whole = spec(0, 0x3000, 0, 0);
    let inner = spec(0x10_0000, 0x100, 0x10_0000, 0x1ff0);
    let map = MemoryMap::from_regions(vec![(whole, fd.try_clone().unwrap()), (inner, fd)]).unwrap();
    map.write(0x1ff0, &[7; 0x100]).unwrap();
    let mut back = [0; 0x100];
    map.read(0x10_0000, &mut back).unwrap();
    assert_eq!(back, [7; 0x100]);
    assert!(map.read(0x10_0100, &mut [0]).is_err());
}

#[test]
fn identical_regions_keep_their_mapping() {
    let (fd, other) = (memfd(0x1000), memfd(0x1000));
    let (a, b) = (spec(0, 0x1000, 0, 0), spec(0x1000, 0x1000, 0x1000, 0));
    let first = MemoryMap::from_regions(vec![(a, fd.try_clone().unwrap())]).unwrap();
    let second = first.replace(vec![(a, fd.try_clone().unwrap()), (b, fd.try_clone().unwrap())]).unwrap();
    assert!(Arc::ptr_eq(&first.regions[0], &second.regions[0]));
    let third = second.replace(vec![(a, other)]).unwrap();
    assert!(!Arc::ptr_eq(&first.regions[0], &third.regions[0]), "another file");
    let fourth = first.with_region(b, fd.try_clone().unwrap()).unwrap();
    assert!(first.with_region(a, fd).is_err(), "already there");
    assert_eq!((fourth.len(), first.len()), (2, 1));
    let fifth = fourth.without_region(&RegionSpec { mmap_offset: 99, ..a }).unwrap();
    assert_eq!(fifth.specs().collect::<Vec<_>>(), [b]);
    assert!(matches!(fifth.without_region(&a), Err(MapError::NoSuchRegion { .. })));
}

#[test]
fn as_many_regions_as_there_may_be() {
    let limit = MemoryMap::MAX_REGIONS as u64;
    let fd = memfd(0x1000 * (limit + 1));
    let regions = |count: u64| {
        (0..count)
            .map(|i| (spec(0x2000 * i, 0x1000, 0x2000 * i, 0x1000 * i), fd.try_clone().unwrap()))
            .collect::<Vec<_>>()
    };
    let map = MemoryMap::from_regions(regions(limit)).unwrap();
    let mut hint = usize::MAX;
    for i in (0..limit).rev() {
        map.write(0x2000 * i + 5, &i.to_le_bytes()).unwrap();
        assert!(map.host_range(0x2000 * i, 0x1000, &mut hint).is_some());
        assert_eq!(hint as u64, i);
        assert!(map.host_range(0x2000 * i + 0x1000, 1, &mut hint).is_none());
    }
    let mut back = [0; 8];
    map.read(0x2000 * 300 + 5, &mut back).unwrap();
    assert_eq!(u64::from_le_bytes(back), 300);
    let too_many = MemoryMap::from_regions(regions(limit + 1));
    assert!(matches!(too_many, Err(MapError::TooManyRegions { .. })));
}

#[test]
fn shared_memory_is_sealed_and_huge_pages_fail_with_a_cause() {
    let shared = crate::SharedMemory::create("shared", 10_000, false).unwrap();
    assert_eq!(shared.spec().size, 12_288);
    let theirs = MemoryMap::from_regions(vec![(shared.spec(), shared.fd().try_clone_to_owned().unwrap())]).unwrap();
    shared.map().write(shared.spec().guest_addr, b"x").unwrap();
    let mut back = [0];
    theirs.read(shared.spec().guest_addr, &mut back).unwrap();
    assert_eq!(&back, b"x");
    assert!(ftruncate(shared.fd(), 0).is_err(), "sealed");
    // More huge pages than any machine has.
    let huge = crate::SharedMemory::create("huge", 1 << 45, true);
    assert!(matches!(huge, Err(MapError::HugePages { .. })), "{huge:?}");
}
