// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Front ends that break the protocol in every way: they lose their own connection at most. Nothing spins, no descriptor
//! and no mapping stays, and other ports forward all the while.

mod support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use backend::stats::PortState;
use support::{Arena, Guest, Layout, Random, Raw, RawDevice, eventfd, guest_config, ports_thread_is_quiet, until};
use vhost_user::{Frame, Region, Request, features};

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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
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
    arena.assert_unharmed();
}
