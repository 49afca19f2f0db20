// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A front end that migrates its guest: the node logs every page that it writes, from the answer that says so on, and a
//! log that is wrong hurts nobody but the guest that it is of.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use support::{BROADCAST, Guest, Layout, NodeSpec, Numbered, RawDevice, TestNode, alone, exchange, fired, frame};
use vhost_user::features::{VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES};
use vhost_user::{LogArea, Region, Request};
use virtqueue::{MemoryMap, install_sigbus_guard};

const LAYOUTS: [Layout; 2] = [Layout::Packed, Layout::Split];
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const PAGE: u64 = 4096;
/// One bit for each page up to the end of the device's memory.
fn log_bytes() -> u64 {
    let Region { guest_addr, size, .. } = RawDevice::region();
    ((guest_addr + size) / PAGE / 8).next_multiple_of(8)
}

/// A log, as the front end has it.
struct Log(File);

impl Log {
    fn new(bytes: u64) -> Self {
        let file = memfd_create("shunt-log", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&file, bytes).expect("ftruncate");
        Self(file.into())
    }

    fn request(&self, size: u64, offset: u64) -> Request<OwnedFd> {
        let fd = self.0.as_fd().try_clone_to_owned().expect("dup");
        Request::SetLogBase { log: LogArea { size, offset }, fd: Some(fd) }
    }

    /// Gives it to the node, which answers without a payload.
    #[track_caller]
    fn set(&self, device: &RawDevice) {
        assert!(device.raw.ask(self.request(log_bytes(), 0)).is_empty());
    }

    /// Takes the pages that are marked.
    fn take(&self) -> BTreeSet<u64> {
        let mut bits = vec![0; usize::try_from(log_bytes()).expect("small")];
        self.0.read_exact_at(&mut bits, 0).expect("the log");
        self.0.write_all_at(&vec![0; bits.len()], 0).expect("the log");
        let pages = (0..).zip(bits).flat_map(|(at, byte): (u64, u8)| {
            (0..8).filter(move |bit| byte >> bit & 1 != 0).map(move |bit| at * 8 + bit)
        });
        pages.collect()
    }
}

fn features(device: &RawDevice, logging: bool) -> Request<OwnedFd> {
    let bits = RawDevice::features(device.layout) | VHOST_USER_F_PROTOCOL_FEATURES;
    Request::SetFeatures(bits | if logging { VHOST_F_LOG_ALL } else { 0 })
}

/// The device area of a ring, as a guest address.
fn device_area(ring: u8) -> u64 {
    let (region, addresses) = (RawDevice::region(), RawDevice::addresses(ring));
    addresses.device - region.user_addr + region.guest_addr
}

fn ring_address(ring: u8, log: Option<u64>) -> Request<OwnedFd> {
    let (flags, log) = (u32::from(log.is_some()), log.unwrap_or(0));
    Request::SetVringAddr { vring: u32::from(ring), flags, addresses: RawDevice::addresses(ring), log }
}

/// Switches logging as QEMU does: features, then the rings.
#[track_caller]
fn switch(device: &RawDevice, on: bool) {
    assert_eq!(device.raw.value(features(device, on)), 0);
    for ring in [0, 1] {
        assert_eq!(device.raw.value(ring_address(ring, on.then(|| device_area(ring)))), 0);
    }
}

/// Both rings' workers have ended the bursts that they were at.
#[track_caller]
fn settle(device: &RawDevice) {
    for ring in [0, 1] {
        let fd = device.errors[usize::from(ring)].as_fd().try_clone_to_owned().expect("dup");
        assert_eq!(device.raw.value(Request::SetVringErr { vring: ring, fd: Some(fd) }), 0);
    }
}

/// What the node writes when it receives and delivers: the buffer, the device areas, and the descriptors of packed rings.
fn written(device: &RawDevice) -> BTreeSet<u64> {
    let descriptors = [0, 1].map(RawDevice::table);
    let rings = [0, 1].map(device_area);
    let packed = descriptors.into_iter().filter(|_| device.layout == Layout::Packed);
    packed.chain(rings).chain([RawDevice::buffer(2)]).map(|at| at / PAGE).collect()
}

#[test]
fn what_is_written_is_logged_from_one_answer_to_the_other() {
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        let log = Log::new(log_bytes());
        device.works(&mut b, 1);
        log.set(&device);
        device.works(&mut b, 2);
        assert!(log.take().is_empty(), "nobody asked for it yet");
        for round in 0..3_u16 {
            switch(&device, true);
            assert_eq!(device.used(0), 2 + 3 * round, "the rings go on");
            device.works(&mut b, 10);
            settle(&device);
            assert_eq!(log.take(), written(&device), "{layout:?}");
            device.works(&mut b, 20);
            switch(&device, false);
            assert_eq!(log.take(), written(&device), "{layout:?}");
            device.works(&mut b, 30);
            settle(&device);
            assert!(log.take().is_empty(), "it is over");
        }
        assert!(node.status("a").errors.is_empty(), "{:?}", node.status("a").errors);
    }
}

/// A ring's device area may be logged as something else (vhost-user, "Migration"), and alone.
#[test]
fn a_device_area_is_logged_where_the_front_end_says() {
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        let log = Log::new(log_bytes());
        log.set(&device);
        let elsewhere = 0x7_7ff8;
        assert_eq!(device.raw.value(ring_address(0, Some(elsewhere))), 0);
        device.receives(&mut b, 1);
        device.stop(0);
        let marked = log.take();
        assert!(marked.contains(&(elsewhere / PAGE)), "{marked:x?}");
        assert!(!marked.contains(&(device_area(0) / PAGE)), "{marked:x?}");
        assert!(!marked.contains(&(device_area(1) / PAGE)), "the other ring does not log: {marked:x?}");
    }
}

/// When the answer to GET_VRING_BASE is there, so are all bits; a copy that was brought up to date by the log is all of memory.
#[test]
fn a_copy_by_the_log_is_the_memory() {
    let _alone = alone();
    for (layout, workers) in [(Layout::Packed, 1), (Layout::Split, 1), (Layout::Packed, 2), (Layout::Split, 2)] {
        let poll = backend::config::PollMode::Adaptive;
        let node = NodeSpec::new().workers(workers, poll).port_on("a", 0).port_on("b", workers - 1).start();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        device.works(&mut b, 1);
        let log = Log::new(log_bytes());
        log.set(&device);
        switch(&device, true);
        let copy_of = |memory: &MemoryMap, page: u64| {
            let mut bytes = vec![0; 4096];
            memory.read(page * PAGE, &mut bytes).expect("memory");
            bytes
        };
        let Region { guest_addr, size, .. } = RawDevice::region();
        let (first, count) = (guest_addr / PAGE, size / PAGE);
        let memory = RawDevice::map(&device.file);
        let mut copy: Vec<_> = (0..count).map(|page| copy_of(&memory, first + page)).collect();
        let mut sync = |log: &Log| {
            let marked = log.take();
            for &page in &marked {
                copy[usize::try_from(page - first).expect("few")] = copy_of(&memory, page);
            }
            marked.len()
        };
        for round in 0..12 {
            device.receives(&mut b, 100 + round);
            sync(&log);
        }
        for ring in [0, 1] {
            device.stop(ring);
        }
        sync(&log);
        // What its driver writes is not the node's to log.
        let drivers =
            [RawDevice::table(0), RawDevice::table(0) + 0x1000, RawDevice::table(1), RawDevice::table(1) + 0x1000];
        for page in (0..count).filter(|page| !drivers.contains(&((first + page) * PAGE))) {
            let same = copy[usize::try_from(page).expect("few")] == copy_of(&memory, first + page);
            assert!(same || page * PAGE + guest_addr == RawDevice::buffer(1), "page {page:#x}, {layout:?}");
        }
        assert_eq!(log.take(), BTreeSet::new(), "nothing is written any more");
    }
}

/// QEMU names the log last when a device starts while its guest migrates, after a crash of the node too. Nobody knows what
/// was written until then.
#[test]
fn a_log_that_comes_late_begins_with_everything() {
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        let log = Log::new(log_bytes());
        switch(&device, true);
        device.works(&mut b, 1);
        log.set(&device);
        let Region { guest_addr, size, .. } = RawDevice::region();
        let all: BTreeSet<u64> = (guest_addr / PAGE..(guest_addr + size) / PAGE).collect();
        assert_eq!(log.take(), all, "{layout:?}");
        device.works(&mut b, 2);
        settle(&device);
        let marked = log.take();
        assert!(marked.is_subset(&written(&device)) && marked.contains(&(RawDevice::buffer(2) / PAGE)), "{marked:x?}");
        // A larger one in its place: the old one is complete, the new one begins with nothing but the rings.
        let larger = Log::new(log_bytes() * 2);
        device.receives(&mut b, 3);
        larger.set(&device);
        assert!(log.take().contains(&(RawDevice::buffer(2) / PAGE)));
        assert!(larger.take().is_subset(&written(&device)));
        // Rings that were stopped and started anew, and then another log: the one before was given up.
        for ring in [0, 1] {
            device.stop(ring);
            device.set_up(ring);
        }
        switch(&device, true);
        device.works(&mut b, 4);
        log.set(&device);
        assert_eq!(log.take(), all, "{layout:?}");
    }
}

#[test]
fn a_log_that_cannot_be_used_ends_the_connection_and_says_why() {
    let node = TestNode::bridge(&["a", "b", "c"]);
    let (mut b, mut c) = (Guest::attach(node.socket("b")), Guest::attach(node.socket("c")));
    let log = Log::new(log_bytes());
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&log.0));
    let read_only: OwnedFd = File::open(path).expect("read-only").into();
    let by = |fd: OwnedFd| Request::SetLogBase { log: LogArea { size: log_bytes(), offset: 0 }, fd: Some(fd) };
    let wrong = [
        ("empty", log.request(0, 0)),
        ("shorter than memory", log.request(log_bytes() - 8, 0)),
        ("past the end of its file", log.request(log_bytes(), 4096)),
        ("beyond all files", log.request(u64::MAX, u64::MAX)),
        ("a pipe", by(pipe)),
        ("not writable", by(read_only)),
    ];
    for (n, (what, request)) in (1..).zip(wrong) {
        let device = RawDevice::attach(&node.socket("a"), Layout::Packed);
        assert_eq!(device.raw.value(features(&device, true)), 0);
        device.raw.tell(request);
        assert!(device.raw.is_closed(), "{what}");
        node.wait_for_errors("a", "log_unusable", n);
    }
    let device = RawDevice::attach(&node.socket("a"), Layout::Packed);
    device.raw.tell(Request::SetLogBase { log: LogArea { size: 0, offset: 0x5000 }, fd: None });
    assert!(device.raw.is_closed(), "an address in place of a file");
    node.wait_for_errors("a", "log_without_descriptor", 1);
    let mut numbers = Numbered::new([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
    exchange(&mut b.pairs[0], &mut c.pairs[0], &numbers.burst(100, 300), 64);
}

/// The file behind a log may be truncated at any time: that guest's rings break, as they do when its memory is truncated.
#[test]
fn a_truncated_log_breaks_the_rings_that_use_it() {
    let _alone = alone();
    install_sigbus_guard().expect("guard");
    for layout in LAYOUTS {
        let node = TestNode::bridge(&["a", "b", "c"]);
        let (mut b, mut c) = (Guest::attach(node.socket("b")), Guest::attach(node.socket("c")));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        let log = Log::new(log_bytes());
        log.set(&device);
        switch(&device, true);
        device.works(&mut b, 1);
        c.receive(1);
        ftruncate(&log.0, 0).expect("ftruncate");
        device.post_frame(2);
        b.receive(1);
        c.receive(1);
        let mut numbers = Numbered::new([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
        // It is a worker that is awake that finds out.
        support::until("the rings to break", || {
            exchange(&mut b.pairs[0], &mut c.pairs[0], &numbers.burst(100, 300), 64);
            (node.errors("a", "log_poisoned") == 2).then_some(())
        });
        assert!(fired(&device.errors[0]) && fired(&device.errors[1]), "{layout:?}");
    }
}

/// Memory that came after the log, and for which it has no bits: it is said at once, and what is written there is counted.
#[test]
fn what_lies_beyond_the_log_is_counted() {
    let node = TestNode::pair();
    let mut b = Guest::attach(node.socket("b"));
    let mut device = RawDevice::attach(&node.socket("a"), Layout::Split);
    let log = Log::new(log_bytes());
    log.set(&device);
    switch(&device, true);
    let (file, _memory) = RawDevice::new_memory();
    let far = 1 << 44;
    let region = Region { guest_addr: far, size: 1 << 20, user_addr: 1 << 45, mmap_offset: 0 };
    assert_eq!(device.raw.value(Request::AddMemReg(region, file)), 0);
    node.wait_for_errors("a", "log_too_short", 1);
    device.post(0, far + 0x800, 2048);
    b.send(&[frame(A, B, 60, 7)]);
    support::until("the buffer is used", || (device.used(0) == 1).then_some(()));
    node.wait_for_errors("a", "log_beyond", 1);
    device.works(&mut b, 8);
}

/// KA-1: a guest moves to another port: its address is there as soon as the front end is told so, whatever was learned of it
/// before, on all workers.
#[test]
fn a_rarp_moves_a_station_at_once() {
    let poll = backend::config::PollMode::Adaptive;
    for workers in [1, 2] {
        let node =
            NodeSpec::new().workers(workers, poll).port_on("old", 0).port_on("new", workers - 1).port_on("peer", 0);
        let node = node.start();
        let (mut old, mut new) = (Guest::attach(node.socket("old")), Guest::attach(node.socket("new")));
        let mut peer = Guest::attach(node.socket("peer"));
        old.send(&[frame(BROADCAST, A, 60, 1)]);
        new.receive(1);
        peer.receive(1);
        peer.send(&[frame(A, B, 60, 2)]);
        old.receive(1);
        new.device().operate(|frontend| frontend.send_rarp(A)).expect("SEND_RARP");
        for told in [peer.receive(1), old.receive(1)] {
            assert_eq!((&told[0][..6], &told[0][6..14]), (&BROADCAST[..], &[&A[..], &[0x80, 0x35]].concat()[..]));
        }
        if workers == 1 {
            peer.send(&[frame(A, B, 60, 3)]);
            assert_eq!(new.receive(1), [frame(A, B, 60, 3)]);
            assert!(old.poll().is_empty());
        }
        // Other workers hear of it from the one that was told.
        support::until("all workers to know", || {
            peer.send(&[frame(A, B, 60, 4)]);
            (!new.poll().is_empty()).then_some(())
        });
    }
}

/// Logging is switched on and off under traffic, and disturbs none of it.
#[test]
fn switching_disturbs_no_traffic() {
    let node = TestNode::bridge(&["a", "b", "c"]);
    let (mut b, mut c) = (Guest::attach(node.socket("b")), Guest::attach(node.socket("c")));
    let mut device = RawDevice::attach(&node.socket("a"), Layout::Packed);
    let log = Log::new(log_bytes());
    log.set(&device);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut numbers = Numbered::new([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
            while !stop.load(Ordering::Relaxed) {
                exchange(&mut b.pairs[0], &mut c.pairs[0], &numbers.burst(64, 300), 64);
            }
        });
        for round in 0..40 {
            switch(&device, round % 2 == 0);
            log.take();
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("traffic");
    });
    device.post_frame(1);
    assert!(node.status("a").errors.is_empty());
}
