// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that truncates its memory file does not end the process; anybody else's SIGBUS does.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtqueue::{
    Buffer, BufferPool, Delivered, DirtyLog, DirtyPages, DriverQueue, MapError, MemoryMap, NetHeader, QueueConfig,
    QueueFeatures, RegionSpec, RingAddresses, RingBase, RingKind, RxQueue, SharedMemory, Tail, install_sigbus_guard,
};

const SIGBUS: i32 = 7;
const FOREIGN: &str = "SHUNT_TEST_FOREIGN_SIGBUS";

fn region(guest_addr: u64, size: u64) -> RegionSpec {
    RegionSpec { guest_addr, size, user_addr: guest_addr, mmap_offset: 0 }
}

fn truncated_later(flags: MemfdFlags, size: u64) -> (OwnedFd, MemoryMap, MemoryMap) {
    let fd = memfd_create("truncated", MemfdFlags::CLOEXEC | flags).unwrap();
    ftruncate(&fd, size).unwrap();
    let other = memfd_create("whole", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&other, 4096).unwrap();
    let victim = MemoryMap::from_regions(vec![(region(size, size), fd.try_clone().unwrap())]).unwrap();
    let bystander = MemoryMap::from_regions(vec![(region(0, 4096), other)]).unwrap();
    (fd, victim, bystander)
}

#[test]
fn truncated_memory_reads_as_zeros_and_is_flagged() {
    install_sigbus_guard().unwrap();
    install_sigbus_guard().unwrap();
    let size = 64 << 12;
    let (fd, victim, bystander) = truncated_later(MemfdFlags::empty(), size);
    victim.write(size, &[7; 8192]).unwrap();
    bystander.write(0, &[9; 64]).unwrap();
    assert_eq!(victim.poisoned(), None);
    ftruncate(&fd, 0).unwrap();
    let mut back = [1; 100];
    victim.read(size + 4090, &mut back).unwrap();
    assert_eq!(back, [0; 100]);
    // Other pages, and writing.
    victim.write(size + 60 * 4096, &[1; 4096]).unwrap();
    assert_eq!(victim.poisoned(), Some(size));
    assert_eq!(bystander.poisoned(), None);
    bystander.read(0, &mut back[..64]).unwrap();
    assert_eq!(back[..64], [9; 64]);
    // A poisoned mapping is not kept when the same region is set again.
    ftruncate(&fd, size).unwrap();
    let again = victim.replace(vec![(region(size, size), fd)]).unwrap();
    assert_eq!(again.poisoned(), None);
}

#[test]
fn a_queue_in_truncated_memory_lives_on() {
    install_sigbus_guard().unwrap();
    let size = 1 << 20;
    for kind in [RingKind::Split, RingKind::Packed] {
        let (fd, victim, _) = truncated_later(MemfdFlags::empty(), size);
        let victim = Arc::new(victim);
        let layout = DriverQueue::ring_bytes(kind, 256);
        let config = QueueConfig {
            size: 256,
            features: QueueFeatures { kind, ..QueueFeatures::from_bits(1 << 32) },
            addresses: RingAddresses {
                desc: size + layout.desc,
                driver: size + layout.driver,
                device: size + layout.device,
            },
            base: RingBase::initial(kind),
        };
        let mut queue = DriverQueue::new(config, Arc::clone(&victim)).unwrap();
        let pool = BufferPool::new(Arc::clone(&victim), size + (64 << 10), 2048, 256).unwrap();
        ftruncate(&fd, 0).unwrap();
        queue.post_burst(&[pool.buffer(0, 64)], &[0], false);
        queue.publish();
        pool.write_u64(255, 8, 1);
        assert_eq!(queue.complete(&mut [virtqueue::Completion::default(); 4]), Ok(0));
        assert_eq!(victim.poisoned(), Some(size));
    }
}

/// The log of dirty pages is a file of the front end as well.
#[test]
fn a_truncated_log_is_flagged_and_its_queue_lives_on() {
    install_sigbus_guard().unwrap();
    for kind in [RingKind::Split, RingKind::Packed] {
        let memory = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, 1 << 16).unwrap();
        let map = Arc::new(MemoryMap::from_regions(vec![(region(0, 1 << 16), memory)]).unwrap());
        let layout = DriverQueue::ring_bytes(kind, 16);
        let config = QueueConfig {
            size: 16,
            features: QueueFeatures { kind, ..QueueFeatures::from_bits(1 << 32) },
            addresses: RingAddresses { desc: layout.desc, driver: layout.driver, device: layout.device },
            base: RingBase::initial(kind),
        };
        let fd = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        let log = Arc::new(DirtyLog::map(fd.try_clone().unwrap(), 0, 4096).unwrap());
        let mut driver = DriverQueue::new(config, Arc::clone(&map)).unwrap();
        let mut queue = RxQueue::new(config, Arc::clone(&map), None).unwrap();
        queue.set_log(Some(Box::new(DirtyPages::new(Arc::clone(&log), None))));
        driver.post(&[], &[Buffer { addr: 0x8000, len: 2048 }], 7).unwrap();
        driver.publish();
        ftruncate(&fd, 0).unwrap();
        assert!(!queue.log_is_lost(), "nobody has looked");
        assert_eq!(queue.deliver(&NetHeader::default(), &[5; 60], Tail::None), Ok(Delivered::Ok));
        queue.publish();
        assert!(queue.log_is_lost() && log.poisoned() && map.poisoned().is_none());
        log.mark_all(&map);
        let mut done = [virtqueue::Completion::default(); 2];
        assert_eq!(driver.complete(&mut done), Ok(1));
        assert_eq!(done[0].token, 7);
    }
}

#[test]
fn huge_pages_are_replaced_whole() {
    install_sigbus_guard().unwrap();
    let size = 4 << 20;
    match SharedMemory::create("huge", size, true) {
        Ok(shared) => {
            let mut back = [1];
            shared.map().write(shared.spec().guest_addr + size - 1, &[5]).unwrap();
            shared.map().read(shared.spec().guest_addr + size - 1, &mut back).unwrap();
            assert_eq!(back, [5]);
            drop(shared);
            let (fd, victim, _) = truncated_later(MemfdFlags::HUGETLB, size);
            victim.write(size, &[7; 64]).unwrap();
            ftruncate(&fd, 2 << 20).unwrap();
            victim.read(size, &mut back).unwrap();
            assert_eq!((back, victim.poisoned()), ([7], None), "the first page is still there");
            victim.read(size + (3 << 20), &mut back).unwrap();
            assert_eq!((back, victim.poisoned()), ([0], Some(size)));
        }
        // A machine without huge pages must say so.
        Err(error) => assert!(matches!(error, MapError::HugePages { .. }), "{error}"),
    }
}

/// Runs itself once more, to die there.
#[test]
fn a_foreign_sigbus_still_ends_the_process() {
    if std::env::var_os(FOREIGN).is_some() {
        install_sigbus_guard().unwrap();
        touch_truncated_memory_that_is_not_ours();
        unreachable!("the access is fatal");
    }
    let itself = std::env::current_exe().unwrap();
    let status = Command::new(itself)
        .args(["--exact", "a_foreign_sigbus_still_ends_the_process"])
        .env(FOREIGN, "1")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(SIGBUS), "{status}");
}

fn touch_truncated_memory_that_is_not_ours() {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let fd = memfd_create("foreign", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, 4096).unwrap();
    // SAFETY: a new mapping, which nothing else refers to. The read faults, which is the point.
    unsafe {
        let at = mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, &fd, 0).unwrap();
        ftruncate(&fd, 0).unwrap();
        at.cast::<u8>().read_volatile();
    }
}
