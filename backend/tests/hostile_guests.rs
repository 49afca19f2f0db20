// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that keep to the protocol and misbehave all the same: they come twice, vanish, pass descriptors that are not what
//! they should be, take their memory away.

mod support;

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use backend::config::PollMode;
use backend::stats::PortState;
use support::{Arena, Guest, Layout, NodeSpec, Numbered, RawDevice, alone, cpu_of, fired};
use vhost_user::Request;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}

/// The second front end of a port is refused, the first keeps its connection.
#[test]
fn a_second_connection_is_refused() {
    let arena = Arena::new();
    let mut device = RawDevice::attach(&arena.node.socket("evil"), Layout::Packed);
    let mut peer = Guest::attach(arena.node.socket("peer"));
    for n in 1..=20 {
        assert!(arena.connect().is_closed());
        arena.node.wait_for_errors("evil", "second_connection", n);
        device.sends(&mut peer, n);
    }
    drop((device, peer));
    arena.assert_unharmed();
}

/// A front end that goes and comes back at once is not mistaken for a second one.
#[test]
fn coming_back_at_once_is_welcome() {
    let arena = Arena::new();
    for _ in 0..300 {
        let raw = arena.connect();
        raw.tell(Request::SetOwner);
        drop(raw);
    }
    let raw = arena.connect();
    assert_ne!(raw.value(Request::GetFeatures), 0);
    assert_eq!(arena.node.errors("evil", "second_connection"), 0);
    drop(raw);
    arena.assert_unharmed();
}

/// A guest killed in the middle of a burst, again and again (issue 2, proof 5).
#[test]
fn guests_vanish_in_the_middle_of_bursts() {
    let mut arena = Arena::new();
    let mut peer = Guest::attach(arena.node.socket("peer"));
    for round in 0..100 {
        let mut guest = Guest::attach(arena.node.socket("evil"));
        guest.send(&Numbered::new(B, A).burst(200, 60 + round * 10));
        peer.send(&Numbered::new(A, B).burst(50, 60));
        drop(guest);
        peer.poll();
        if round % 10 == 0 {
            arena.others_forward();
        }
    }
    arena.node.wait_for("evil", PortState::Listening);
    drop(peer);
    arena.node.wait_for("peer", PortState::Listening);
    arena.assert_unharmed();
}

/// What is passed as a doorbell need not be one.
#[test]
fn strange_doorbells_harm_nobody() {
    let mut arena = Arena::new();
    let file = || OwnedFd::from(tempfile::tempfile().expect("file"));
    let null = || OwnedFd::from(std::fs::OpenOptions::new().write(true).open("/dev/null").expect("null"));
    let full = || OwnedFd::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("full"));
    let socket = || OwnedFd::from(std::os::unix::net::UnixStream::pair().expect("pair").0);
    let stuffed = || {
        let (_reader, writer) = rustix::pipe::pipe().expect("pipe");
        writer
    };
    // Blocking, and so full that another write would block.
    let blocking = || {
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("eventfd");
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).expect("write");
        fd
    };
    let clogged = || {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("pair");
        one.set_nonblocking(true).expect("nonblocking");
        while (&one).write(&[0; 4096]).is_ok() {}
        one.set_nonblocking(false).expect("blocking");
        (OwnedFd::from(one), OwnedFd::from(other))
    };
    let kinds: [&dyn Fn() -> OwnedFd; 6] = [&file, &null, &full, &socket, &stuffed, &blocking];
    for layout in [Layout::Split, Layout::Packed] {
        for make in kinds {
            let mut device = RawDevice::attach(&arena.node.socket("evil"), layout);
            let mut peer = Guest::attach(arena.node.socket("peer"));
            for ring in [0, 1] {
                device.raw.tell(Request::SetVringCall { vring: ring, fd: Some(make()) });
                device.raw.tell(Request::SetVringErr { vring: ring, fd: Some(make()) });
                device.raw.tell(Request::SetVringKick { vring: ring, fd: Some(make()) });
            }
            device.raw.value(Request::SetStatus(15));
            // What the device kicks is not what the node watches now; others wake the worker.
            let sent = device.post_frame(1);
            arena.others_forward();
            assert_eq!(peer.receive(1), [sent]);
            // A broken ring writes the error descriptor.
            device.post(1, 1, 100);
            arena.others_forward();
        }
        let (one, other) = clogged();
        let mut device = RawDevice::attach(&arena.node.socket("evil"), layout);
        let mut peer = Guest::attach(arena.node.socket("peer"));
        assert_eq!(device.raw.value(Request::SetVringCall { vring: 1, fd: Some(one) }), 0);
        device.sends(&mut peer, 1);
        arena.others_forward();
        drop(other);
    }
    arena.node.wait_for("evil", PortState::Listening);
    arena.node.wait_for("peer", PortState::Listening);
    arena.assert_unharmed();
}

/// The file behind a guest's memory is truncated while the node works in it: that port ends, with a name, and works
/// again with memory that is there.
#[test]
fn truncated_memory_costs_only_its_port() {
    let when = [Layout::Split, Layout::Packed].into_iter().flat_map(|layout| [(layout, false), (layout, true)]);
    for (layout, while_stopped) in when {
        let mut arena = Arena::new();
        let mut peer = Guest::attach(arena.node.socket("peer"));
        let mut device = RawDevice::attach(&arena.node.socket("evil"), layout);
        device.sends(&mut peer, 1);
        let bases = if while_stopped { [0, 1].map(|ring| device.stop(ring)).to_vec() } else { Vec::new() };
        rustix::fs::ftruncate(&device.file, 0).expect("ftruncate");
        // Then it is the ports thread that finds the memory gone, when it starts the rings.
        for (ring, base) in (0..).zip(bases) {
            device.describe(ring, base);
        }
        let deadline = Instant::now() + support::PATIENCE;
        while arena.node.errors("evil", "poisoned") == 0 {
            assert!(Instant::now() < deadline, "nobody noticed: {:?}", arena.node.status("evil"));
            device.kick(1);
            peer.send(&Numbered::new(A, B).burst(1, 60));
            arena.others_forward();
        }
        assert!(fired(&device.errors[1]) || fired(&device.errors[0]));
        // The same connection, other memory.
        let (file, memory) = RawDevice::new_memory();
        let table = vec![(RawDevice::region(), copy(&file))];
        assert_eq!(device.raw.value(Request::SetMemTable(table)), 0);
        (device.file, device.memory) = (file, memory);
        for ring in [0, 1] {
            device.stop(ring);
            device.set_up(ring);
        }
        while !peer.poll().is_empty() {}
        device.sends(&mut peer, 2);
        drop((device, peer));
        arena.node.wait_for("peer", PortState::Listening);
        arena.assert_unharmed();
    }
}

/// Client role: a front end that takes connections and closes them at once is tried again in good time, not all the time.
#[test]
fn a_peer_that_hangs_up_at_once_is_not_hammered() {
    let _alone = alone();
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).client("c").start();
    let listener = UnixListener::bind(node.socket("c")).expect("bind");
    drop(listener.accept().expect("the node connects"));
    listener.set_nonblocking(true).expect("nonblocking");
    let (start, before) = (Instant::now(), cpu_of("ports"));
    let mut taken = 0;
    while start.elapsed() < Duration::from_millis(400) {
        match listener.accept() {
            Ok(_) => taken += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    let used = cpu_of("ports") - before;
    assert!((4..=45).contains(&taken), "{taken} attempts in 400 ms");
    assert!(used < Duration::from_millis(80), "{used:?}");
}
