// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory on a live device: tables are replaced, regions come and go, and what is gone is unmapped.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::{
    BROADCAST, Guest, Layout, Numbered, RAW_MEMORY, RawDevice, TestNode, alone, exchange, fired, frame, guest_config,
    mappings_of,
};
use vhost_user::{Region, Request};
use virtqueue::{RingKind, SharedMemory};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const RINGS: [RingKind; 2] = [RingKind::Packed, RingKind::Split];

fn guests(node: &TestNode, kind: RingKind) -> (Guest, Guest) {
    let attach = |name| {
        let mut config = guest_config(node.socket(name));
        config.rings = kind;
        Guest::attach_with(config)
    };
    (attach("a"), attach("b"))
}

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}

/// KA-1: memory comes and goes while traffic runs; what was unmapped is unmapped when the answer arrives, and what stays
/// is not disturbed.
#[test]
fn regions_come_and_go_under_traffic() {
    let _alone = alone();
    for kind in RINGS {
        let node = TestNode::pair();
        let (mut a, mut b) = guests(&node, kind);
        let extra = SharedMemory::create("shunt-extra", 1 << 20, false).expect("memory");
        let ours = mappings_of("shunt-extra");
        let region = Region { guest_addr: 1 << 40, size: 1 << 20, user_addr: 1 << 41, mmap_offset: 0 };
        let mut numbers = Numbered::new(B, A);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut pair = std::mem::take(&mut a.pairs);
            let traffic = scope.spawn({
                let (stop, b, numbers) = (&stop, &mut b, &mut numbers);
                move || {
                    let mut bursts = 0;
                    while !stop.load(Ordering::Relaxed) || bursts < 10 {
                        exchange(&mut pair[0], &mut b.pairs[0], &numbers.burst(200, 300), 64);
                        bursts += 1;
                    }
                    pair
                }
            });
            for _ in 0..20 {
                let fd = copy(extra.fd());
                a.device().operate(|frontend| frontend.add_region(region, fd)).expect("add");
                assert_eq!(mappings_of("shunt-extra"), ours + 1);
                a.device().operate(|frontend| frontend.remove_region(region)).expect("remove");
                assert_eq!(mappings_of("shunt-extra"), ours, "still mapped after the answer");
            }
            stop.store(true, Ordering::Relaxed);
            a.pairs = traffic.join().expect("traffic");
        });
        assert!(node.status("a").errors.is_empty() && node.status("b").drops.is_empty());
    }
}

/// KA-1: SET_MEM_TABLE on a live device, as virtio-user sends it when its memory grows: the same region and one more,
/// the same again, then without it.
#[test]
fn the_memory_table_is_replaced_on_a_live_device() {
    let _alone = alone();
    for kind in RINGS {
        let node = TestNode::pair();
        let (mut a, mut b) = guests(&node, kind);
        let extra = SharedMemory::create("shunt-extra", 1 << 20, false).expect("memory");
        let ours = mappings_of("shunt-extra");
        let (own, first) = (mappings_of("shunt-cnf"), memory_of(&a));
        let more = Region { guest_addr: 1 << 40, size: 1 << 20, user_addr: 1 << 41, mmap_offset: 0 };
        let mut numbers = Numbered::new(B, A);
        for round in 0..12 {
            let mut table = vec![(first.0, copy(&first.1))];
            let with_more = round / 2 % 2 == 0;
            if with_more {
                table.push((more, copy(extra.fd())));
            }
            a.device().operate(|frontend| frontend.replace_memory(table)).expect("replace");
            assert_eq!(mappings_of("shunt-extra"), ours + usize::from(with_more));
            exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(100, 300), 64);
            assert_eq!(mappings_of("shunt-cnf"), own, "a region that stays is mapped once");
        }
        assert!(node.status("a").errors.is_empty(), "{:?}", node.status("a").errors);
    }
}

/// The region of a guest, and a descriptor of its memory, found by its mapping in this process.
fn memory_of(guest: &Guest) -> (Region, OwnedFd) {
    let config = *guest.pairs[0].queues.rx.config();
    for entry in std::fs::read_dir("/proc/self/fd").expect("procfs").flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if !target.to_string_lossy().contains("shunt-cnf") {
            continue;
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open(entry.path()).expect("memfd");
        let size = file.metadata().expect("metadata").len();
        // Ring 0 begins the memory (`cnf::memory`), and this is the file whose mapping begins there.
        let start = format!("{:x}-", config.addresses.desc);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let inode = format!(" {} ", file.metadata().expect("metadata").ino());
        if maps.lines().any(|line| line.starts_with(&start) && line.contains(&inode)) {
            let at = config.addresses.desc;
            return (Region { guest_addr: at, size, user_addr: at, mmap_offset: 0 }, file.into());
        }
    }
    panic!("no memory of the guest");
}

/// As many regions as KVM has memory slots; one more is refused, and all work.
#[test]
fn a_device_has_up_to_509_regions() {
    let _alone = alone();
    let node = TestNode::pair();
    let mut b = Guest::attach(node.socket("b"));
    let mut device = RawDevice::attach(&node.socket("a"), Layout::Packed);
    assert_eq!(device.raw.value(Request::GetMaxMemSlots), 509);
    let (file, memory) = RawDevice::new_memory();
    let region = |n: u64| {
        let at = (1 << 40) + n * 0x1_0000;
        Region { guest_addr: at, size: 0x800, user_addr: at, mmap_offset: n * 0x800 }
    };
    for n in 0..508 {
        assert_eq!(device.raw.value(Request::AddMemReg(region(n), copy(&file))), 0, "region {n}");
    }
    assert_eq!(device.raw.value(Request::AddMemReg(region(508), copy(&file))), 1, "one too many");
    node.wait_for_errors("a", "too_many_slots", 1);
    for n in [0, 1, 255, 507] {
        let sent = frame(BROADCAST, A, 60, n);
        // The same file is mapped here as one piece.
        memory
            .write(RawDevice::region().guest_addr + n * 0x800, &[[0; 12].as_slice(), &sent].concat())
            .expect("memory");
        device.post(1, region(n).guest_addr, 72);
        assert_eq!(b.receive(1), [sent]);
    }
    for n in 0..508 {
        assert_eq!(device.raw.value(Request::RemMemReg(region(n))), 0, "region {n}");
    }
    assert_eq!(mappings_of(RAW_MEMORY), 3, "ours of both files, the node's of one");
    device.works(&mut b, 9);
}

/// A ring that the new table does not hold breaks, and tells; nothing else does.
#[test]
fn a_ring_that_loses_its_memory_breaks() {
    let _alone = alone();
    for layout in [Layout::Split, Layout::Packed] {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        device.works(&mut b, 1);
        let (file, memory) = RawDevice::new_memory();
        let far = Region { guest_addr: 1 << 44, size: 1 << 20, user_addr: 1 << 45, mmap_offset: 0 };
        let old = mappings_of(RAW_MEMORY);
        assert_eq!(device.raw.value(Request::SetMemTable(vec![(far, copy(&file))])), 0);
        assert!(fired(&device.errors[0]) && fired(&device.errors[1]));
        assert_eq!(node.errors("a", "unmapped"), 2);
        assert_eq!(mappings_of(RAW_MEMORY), old, "the old region is gone, the new one is there");
        drop((file, memory));
        let table = vec![(RawDevice::region(), copy(&device.file))];
        assert_eq!(device.raw.value(Request::SetMemTable(table)), 0);
        for ring in [0, 1] {
            device.stop(ring);
            device.set_up(ring);
        }
        device.works(&mut b, 2);
    }
}
