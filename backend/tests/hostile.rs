// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Front ends that break the protocol in every way: they lose their own connection at most. Nothing spins, no descriptor
//! and no mapping stays, and other ports forward all the while.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

use backend::config::PollMode;
use backend::stats::PortState;
use support::{
    BROADCAST, Guest, Layout, NodeSpec, Numbered, RAW_MEMORY, Random, Raw, RawDevice, TestNode, alone, cpu_of, eventfd,
    exchange, fired, frame, guest_config, mappings_of, open_files, until,
};
use vhost_user::{Frame, Region, Request, features};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A node with a port for the hostile, and a healthy pair beside it on the same worker. When it ends, everything must be
/// as it was before the hostile came.
struct Arena {
    node: TestNode,
    healthy: (Guest, Guest),
    numbers: Numbered,
    files: Vec<String>,
    mappings: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Arena {
    fn new() -> Self {
        let alone = alone();
        let spec = NodeSpec::new().workers(1, PollMode::Adaptive).port("evil").port("peer").wired("evil", "peer");
        let node = spec.port("a").port("b").wired("a", "b").start();
        let healthy = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
        // The record of a ring is mapped at its first use, the answer to a first question opens what it needs.
        node.stats();
        let (files, mappings) = (open_files(), mappings_of(RAW_MEMORY));
        let mut arena = Self { node, healthy, numbers: Numbered::new(B, A), files, mappings, _alone: alone };
        arena.others_forward();
        arena
    }

    #[track_caller]
    fn others_forward(&mut self) {
        let (a, b) = &mut self.healthy;
        exchange(&mut a.pairs[0], &mut b.pairs[0], &self.numbers.burst(32, 300), 32);
    }

    fn connect(&self) -> Raw {
        Raw::connect(&self.node.socket("evil"))
    }

    /// Checks that nothing is left of the hostile, and that its port serves a decent guest.
    #[track_caller]
    fn is_unharmed(mut self) {
        self.node.wait_for("evil", PortState::Listening);
        self.others_forward();
        ports_thread_is_quiet();
        let deadline = Instant::now() + support::PATIENCE;
        while open_files() != self.files && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(open_files(), self.files, "descriptors stay");
        assert_eq!(mappings_of(RAW_MEMORY), self.mappings, "mappings stay");
        let mut good = Guest::attach(self.node.socket("evil"));
        let mut peer = Guest::attach(self.node.socket("peer"));
        exchange(&mut good.pairs[0], &mut peer.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
        assert!(self.node.status("a").errors.is_empty() && self.node.status("b").errors.is_empty());
        assert!(self.node.status("a").drops.is_empty() && self.node.status("b").drops.is_empty());
    }
}

/// The ports thread has nothing to do, and does nothing.
#[track_caller]
fn ports_thread_is_quiet() {
    let (start, before) = (Instant::now(), cpu_of("ports"));
    thread::sleep(Duration::from_millis(100));
    let (used, passed) = (cpu_of("ports") - before, start.elapsed());
    assert!(used < passed / 10, "the ports thread spins: {used:?} in {passed:?}");
}

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}

/// The messages by which a decent front end starts a device, with descriptors.
fn script() -> Vec<Frame<OwnedFd>> {
    let (file, _) = RawDevice::new_memory();
    let bits = RawDevice::features(Layout::Split) | features::VHOST_USER_F_PROTOCOL_FEATURES;
    let mut requests = vec![
        (Request::SetOwner, false),
        (Request::GetFeatures, false),
        (Request::GetProtocolFeatures, false),
        (Request::SetProtocolFeatures(vhost_user::Offer::PROTOCOL_FEATURES), false),
        (Request::SetFeatures(bits), true),
        (Request::SetMemTable(vec![(RawDevice::region(), file)]), true),
    ];
    for ring in [0, 1] {
        let vring = u32::from(ring);
        requests.extend([
            (Request::SetVringCall { vring: ring, fd: Some(eventfd()) }, false),
            (Request::SetVringNum { vring, num: 16 }, false),
            (Request::SetVringBase { vring, base: 0 }, false),
            (Request::SetVringAddr { vring, flags: 0, addresses: RawDevice::addresses(ring), log: 0 }, false),
            (Request::SetVringErr { vring: ring, fd: Some(eventfd()) }, false),
            (Request::SetVringKick { vring: ring, fd: Some(eventfd()) }, false),
            (Request::SetVringEnable { vring, enable: 1 }, true),
        ]);
    }
    requests.push((Request::GetVringBase { vring: 0 }, false));
    requests.into_iter().map(|(request, need_reply)| request.into_frame(need_reply)).collect()
}

fn borrowed(frame: &Frame<OwnedFd>) -> Vec<BorrowedFd<'_>> {
    frame.fds.iter().map(AsFd::as_fd).collect()
}

/// Sends a frame of which the node may have closed the connection already.
fn try_send(raw: &Raw, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let _ = raw.send(bytes, fds);
}

/// KA-1, KA-8: a front end that vanishes at any byte of its handshake.
#[test]
fn closing_at_every_byte_costs_nothing() {
    let mut arena = Arena::new();
    for at in 0..script().len() {
        let length = script()[at].bytes.len();
        for cut in 0..length {
            let script = script();
            let raw = arena.connect();
            for frame in &script[..at] {
                raw.send(&frame.bytes, &borrowed(frame)).expect("a good message");
            }
            try_send(&raw, &script[at].bytes[..cut], &borrowed(&script[at]));
        }
        arena.others_forward();
    }
    arena.is_unharmed();
}

/// A message may come a byte at a time, its descriptors with the first.
#[test]
fn a_byte_at_a_time_is_a_message_all_the_same() {
    let arena = Arena::new();
    let raw = arena.connect();
    for frame in script() {
        for (at, byte) in frame.bytes.iter().enumerate() {
            let fds = if at == 0 { borrowed(&frame) } else { Vec::new() };
            raw.send(&[*byte], &fds).expect("a byte");
        }
    }
    arena.node.wait_for("evil", PortState::Connected);
    // The last reply is that to GET_VRING_BASE: everything before was served.
    let mut replies = Vec::new();
    let mut chunk = [0; 256];
    until("the last reply", || {
        let count = (&raw.0).read(&mut chunk).expect("replies");
        replies.extend_from_slice(&chunk[..count]);
        replies.windows(12).any(|header| header == [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0]).then_some(())
    });
    assert!(arena.node.status("evil").errors.is_empty(), "{:?}", arena.node.status("evil").errors);
    drop(raw);
    arena.is_unharmed();
}

/// Sizes that do not fit the request end the connection, with a name.
#[test]
fn wrong_sizes_end_the_connection() {
    let mut arena = Arena::new();
    for at in 0..script().len() {
        for (change, padding) in [(-1, 0), (1, 1), (8, 8), (5000, 0), (i64::from(u32::MAX), 0)] {
            let script = script();
            let mut bytes = script[at].bytes.clone();
            let size = i64::from(u32::from_le_bytes(bytes[8..12].try_into().expect("four")));
            if size + change < 0 {
                continue;
            }
            let told = u32::try_from((size + change).min(i64::from(u32::MAX))).expect("32 bits");
            bytes[8..12].copy_from_slice(&told.to_le_bytes());
            bytes.resize(bytes.len() + padding, 0);
            let raw = arena.connect();
            for frame in &script[..at] {
                raw.send(&frame.bytes, &borrowed(frame)).expect("a good message");
            }
            try_send(&raw, &bytes, &borrowed(&script[at]));
            // What follows is read as something else, or not at all.
            try_send(&raw, &[0xff; 64], &[]);
            if !(change == 8 && told == 8) {
                assert!(raw.is_closed(), "message {at} with size {told}");
            }
        }
        arena.others_forward();
    }
    let errors = arena.node.status("evil").errors;
    assert!(errors.contains_key("payload_size") && errors.contains_key("payload_too_large"), "{errors:?}");
    arena.is_unharmed();
}

#[test]
fn missing_and_surplus_descriptors_end_the_connection() {
    let arena = Arena::new();
    for at in 0..script().len() {
        let script = script();
        let due = script[at].fds.len();
        let spare: Vec<OwnedFd> = (0..40).map(|_| eventfd()).collect();
        let counts: &[usize] = if due > 0 { &[0, 2, 32, 33, 40] } else { &[1, 2, 33] };
        for &count in counts {
            let raw = arena.connect();
            for frame in &script[..at] {
                raw.send(&frame.bytes, &borrowed(frame)).expect("a good message");
            }
            let fds: Vec<_> = spare[..count].iter().map(AsFd::as_fd).collect();
            try_send(&raw, &script[at].bytes, &fds);
            assert!(raw.is_closed(), "message {at} with {count} descriptors");
        }
    }
    let errors = arena.node.status("evil").errors;
    for cause in ["missing_fds", "extra_fds", "too_many_fds"] {
        assert!(errors.contains_key(cause), "{cause}: {errors:?}");
    }
    arena.is_unharmed();
}

/// As many descriptors as the kernel passes, with single bytes and with every message.
#[test]
fn floods_of_descriptors_are_closed() {
    let arena = Arena::new();
    let spare: Vec<OwnedFd> = (0..253).map(|_| eventfd()).collect();
    let fds: Vec<_> = spare.iter().map(AsFd::as_fd).collect();
    for _ in 0..50 {
        let raw = arena.connect();
        for byte in [1, 0, 0, 0, 1, 0, 0, 0] {
            if raw.send(&[byte], &fds).is_err() {
                break;
            }
        }
        assert!(raw.is_closed());
    }
    drop(spare);
    arena.is_unharmed();
}

#[test]
fn garbage_ends_the_connection() {
    let mut arena = Arena::new();
    let mut random = Random::new(1);
    for round in 0..300 {
        let raw = arena.connect();
        let mut bytes = vec![0; 1 + random.below(300)];
        random.fill(&mut bytes);
        if round % 3 == 0 && bytes.len() > 12 {
            // A plausible header, so that the payload is looked at.
            bytes[..4].copy_from_slice(&u32::try_from(random.below(50)).expect("few").to_le_bytes());
            bytes[4..8].copy_from_slice(&[1 + 8 * u8::from(random.flip()), 0, 0, 0]);
            let size = u32::try_from(bytes.len() - 12).expect("few");
            bytes[8..12].copy_from_slice(&size.to_le_bytes());
        }
        let spare: Vec<OwnedFd> = (0..random.below(4)).map(|_| eventfd()).collect();
        let fds: Vec<_> = spare.iter().map(AsFd::as_fd).collect();
        try_send(&raw, &bytes, &fds);
        if round % 50 == 0 {
            arena.others_forward();
        }
    }
    arena.is_unharmed();
}

/// Every message in any order, with good and bad arguments, over memory of zeros and of garbage: a few thousand messages.
#[test]
fn any_order_of_messages_is_survived() {
    let mut arena = Arena::new();
    let mut random = Random::new(2);
    let peer = Guest::attach(arena.node.socket("peer"));
    let mut sent = 0;
    for round in 0..400 {
        let raw = arena.connect();
        raw.0.set_nonblocking(true).expect("nonblocking");
        let (file, memory) = RawDevice::new_memory();
        if round % 2 == 0 {
            let mut noise = vec![0; 1 << 16];
            random.fill(&mut noise);
            memory.write(RawDevice::table(0), &noise).expect("memory");
        }
        let kicks = [eventfd(), eventfd()];
        for _ in 0..80 {
            let request = any_request(&mut random, &file, &kicks);
            if raw.try_request(request, random.flip()).is_err() {
                break;
            }
            sent += 1;
            let _ = rustix::io::write(&kicks[random.below(2)], &1_u64.to_ne_bytes());
            // Replies are read now and then.
            if random.below(4) == 0 {
                let _ = (&raw.0).read(&mut [0; 512]);
            }
        }
        if round % 10 == 0 {
            arena.others_forward();
        }
    }
    let errors = arena.node.status("evil").errors;
    assert!(sent > 4000, "{sent} messages were taken: {errors:?}");
    drop(peer);
    arena.is_unharmed();
}

/// A request that makes sense more often than not.
fn any_request(random: &mut Random, file: &OwnedFd, kicks: &[OwnedFd; 2]) -> Request<OwnedFd> {
    let wild = random.below(40) == 0;
    let bits = RawDevice::features(if random.flip() { Layout::Split } else { Layout::Packed });
    let pick = |random: &mut Random, tame: &[u32], more: &[u32]| {
        let choices = if wild { more } else { tame };
        choices[random.below(choices.len())]
    };
    let vring = pick(random, &[0, 1], &[2, 255, u32::MAX]);
    let ring = u8::try_from(vring.min(255)).expect("a byte");
    let fd = |random: &mut Random| (random.below(4) > 0).then(|| copy(&kicks[random.below(2)]));
    let region = match random.below(if wild { 3 } else { 60 }) {
        0 => Region { guest_addr: random.next(), size: random.next() >> 40, user_addr: random.next(), mmap_offset: 0 },
        1 => Region { guest_addr: 0, size: 1 << 20, user_addr: 0, mmap_offset: 4096 },
        2 => Region { guest_addr: 1 << 40, size: 8192, user_addr: 1 << 40, mmap_offset: 8192 },
        _ => RawDevice::region(),
    };
    let mut addresses = RawDevice::addresses(ring & 1);
    if wild {
        addresses.device = random.next();
    }
    match random.below(26) {
        0 => Request::GetFeatures,
        1 | 2 => Request::SetFeatures(bits | features::VHOST_USER_F_PROTOCOL_FEATURES),
        3 => Request::SetFeatures(bits),
        4 => Request::SetOwner,
        5 => Request::ResetOwner,
        6 | 7 => Request::SetMemTable(vec![(region, copy(file))]),
        8 => Request::AddMemReg(region, copy(file)),
        9 => Request::RemMemReg(region),
        10 | 11 => Request::SetVringNum { vring, num: pick(random, &[16, 16, 8], &[1, 0, 256, 32768, 65536]) },
        12 | 13 => Request::SetVringAddr { vring, flags: 0, addresses, log: 0 },
        14 => Request::SetVringBase { vring, base: pick(random, &[0, 0x8000_8000, 0x8000, 7], &[0xffff, u32::MAX]) },
        15 => Request::GetVringBase { vring },
        16 | 17 => Request::SetVringKick { vring: ring, fd: fd(random) },
        18 => Request::SetVringCall { vring: ring, fd: fd(random) },
        19 => Request::SetVringErr { vring: ring, fd: fd(random) },
        20 | 21 => Request::SetVringEnable { vring, enable: pick(random, &[0, 1, 1, 1, 1], &[2, u32::MAX]) },
        22 => Request::ResetDevice,
        23 => Request::SendRarp([2, 0, 0, 0, 0, 9]),
        24 => Request::SetStatus(u64::from(pick(random, &[0, 15], &[256, u32::MAX]))),
        _ => Request::GetQueueNum,
    }
}

/// A front end that asks and never listens is cut off, and until then costs nothing.
#[test]
fn unread_replies_are_bounded() {
    let mut arena = Arena::new();
    let raw = arena.connect();
    raw.0.set_write_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let question = Request::<OwnedFd>::GetFeatures.into_frame(false).bytes;
    let mut asked = 0_u64;
    while (&raw.0).write_all(&question).is_ok() {
        asked += 1;
        assert!(asked < 1 << 20, "replies are kept without bound");
    }
    arena.node.wait_for_errors("evil", "replies_unread", 1);
    arena.others_forward();
    drop(raw);
    // One that stops asking in time keeps its connection, and the node waits for it without work.
    let raw = arena.connect();
    raw.0.set_nonblocking(true).expect("nonblocking");
    for _ in 0..asked / 2 {
        if (&raw.0).write(&question).is_err() {
            thread::yield_now();
        }
    }
    ports_thread_is_quiet();
    assert_eq!(arena.node.errors("evil", "replies_unread"), 1);
    drop(raw);
    arena.is_unharmed();
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
        sends(&mut device, &mut peer, n);
    }
    drop((device, peer));
    arena.is_unharmed();
}

/// A frame from the raw device to its peer.
#[track_caller]
fn sends(device: &mut RawDevice, peer: &mut Guest, number: u64) {
    let sent = posts(device, number);
    assert_eq!(peer.receive(1), [sent]);
}

fn posts(device: &mut RawDevice, number: u64) -> Vec<u8> {
    let sent = frame(BROADCAST, A, 60, number);
    device.memory.write(RawDevice::buffer(1), &[[0; 12].as_slice(), &sent].concat()).expect("memory");
    device.post(1, RawDevice::buffer(1), 72);
    sent
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
    arena.is_unharmed();
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
    arena.is_unharmed();
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
            let sent = posts(&mut device, 1);
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
        sends(&mut device, &mut peer, 1);
        arena.others_forward();
        drop(other);
    }
    arena.node.wait_for("evil", PortState::Listening);
    arena.node.wait_for("peer", PortState::Listening);
    arena.is_unharmed();
}

/// The file behind a guest's memory is truncated while the node works in it: that port ends, with a name, and works
/// again with memory that is there.
#[test]
fn truncated_memory_costs_only_its_port() {
    for layout in [Layout::Split, Layout::Packed] {
        let mut arena = Arena::new();
        let mut peer = Guest::attach(arena.node.socket("peer"));
        let mut device = RawDevice::attach(&arena.node.socket("evil"), layout);
        sends(&mut device, &mut peer, 1);
        rustix::fs::ftruncate(&device.file, 0).expect("ftruncate");
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
        sends(&mut device, &mut peer, 2);
        drop((device, peer));
        arena.node.wait_for("peer", PortState::Listening);
        arena.is_unharmed();
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

/// A decent guest on the same node is attached while another front end holds a half-sent message.
#[test]
fn a_half_sent_message_blocks_nobody() {
    let arena = Arena::new();
    let raw = arena.connect();
    raw.send(&[1, 0, 0, 0, 1], &[]).expect("five bytes");
    let mut config = guest_config(arena.node.socket("peer"));
    config.timeout = Duration::from_secs(5);
    drop(Guest::attach_with(config));
    ports_thread_is_quiet();
    drop(raw);
    arena.node.wait_for("peer", PortState::Listening);
    arena.is_unharmed();
}
