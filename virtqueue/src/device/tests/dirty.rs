// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A front end that copies memory while a device writes it: it takes bits from the log and then copies their pages, over
//! and over, and has everything in the end.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use super::{Numbers, completions, plain};
use crate::config::{QueueConfig, RingAddresses, RingBase, RingKind};
use crate::driver::{Buffer, DriverQueue};
use crate::mem::{DirtyLog, MemoryMap, RegionSpec, SharedMemory};
use crate::{DirtyPages, Frame, NetHeader, RxQueue, Tail};

const RING: u16 = 64;
const DATA: u64 = 0x1_0000;
/// Few, so that both are at the same pages most of the time.
const PAGES: u64 = 12;
const BURSTS: u64 = if cfg!(miri) { 20 } else { 5_000 };

/// Takes what is set in the log, and copies those pages; whether there were such.
fn sync(log: &SharedMemory, map: &MemoryMap, copy: &mut [u8]) -> bool {
    let mut any = false;
    let start = log.map().host_range(log.spec().guest_addr, log.spec().size, &mut 0).unwrap();
    for at in 0..((DATA / 4096 + PAGES) / 8 + 1) as usize {
        // SAFETY: the log has a page.
        let byte = unsafe { AtomicU8::from_ptr(start.offset(at).as_ptr()) };
        if byte.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let bits = byte.swap(0, Ordering::SeqCst);
        for page in (0..8).filter(|bit| bits >> bit & 1 != 0).map(|bit| at * 8 + bit) {
            map.read(page as u64 * 4096, &mut copy[page * 4096..][..4096]).unwrap();
            any = true;
        }
    }
    any
}

#[test]
fn a_copy_made_meanwhile_is_complete() {
    for kind in [RingKind::Packed, RingKind::Split] {
        let memory = SharedMemory::create("memory", DATA + PAGES * 4096, false).unwrap();
        let spec = RegionSpec { guest_addr: 0, user_addr: 0, ..memory.spec() };
        let fd = memory.fd().try_clone_to_owned().unwrap();
        let map = Arc::new(MemoryMap::from_regions(vec![(spec, fd)]).unwrap());
        let layout = DriverQueue::ring_bytes(kind, RING);
        let addresses = RingAddresses { desc: layout.desc, driver: layout.driver, device: layout.device };
        let config = QueueConfig { size: RING, features: plain(kind), addresses, base: RingBase::initial(kind) };
        let file = SharedMemory::create("log", 4096, false).unwrap();
        let log = DirtyLog::map(file.fd().as_fd().try_clone_to_owned().unwrap(), 0, 4096).unwrap();
        let mut rx = RxQueue::new(config, Arc::clone(&map), None).unwrap();
        rx.set_log(Some(Box::new(DirtyPages::new(Arc::new(log), None))));
        let mut driver = DriverQueue::new(config, Arc::clone(&map)).unwrap();
        let mut copy = vec![0; spec.size as usize];
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let device = scope.spawn(|| {
                let mut numbers = Numbers(7);
                for burst in 0..BURSTS {
                    let count = 1 + numbers.below(4);
                    for token in 0..count {
                        let addr = DATA + numbers.below(PAGES * 4096 - 200);
                        driver.post(&[], &[Buffer { addr, len: 112 }], token as u32).unwrap();
                    }
                    driver.publish();
                    let bytes = [burst as u8; 100];
                    let frame = Frame { header: NetHeader::default(), head: &bytes, tail: Tail::None };
                    assert_eq!(rx.deliver_burst(count as usize, |_| frame).unwrap().frames, count as u32);
                    rx.publish();
                    assert_eq!(completions(&mut driver).len() as u64, count);
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                sync(&file, &map, &mut copy);
            }
            device.join().unwrap();
        });
        sync(&file, &map, &mut copy);
        assert!(!sync(&file, &map, &mut copy), "nobody writes any more");
        let mut now = vec![0; (PAGES * 4096) as usize];
        map.read(DATA, &mut now).unwrap();
        assert!(now == copy[DATA as usize..], "the copy lacks something");
    }
}
