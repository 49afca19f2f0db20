// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames through the rings: every one arrives once, in order, with every byte.

use super::{Guest, Numbers, combinations, completions, plain};
use crate::config::{QueueFeatures, RingBase, RingKind};
use crate::driver::{Buffer, DriverQueue, PostError};
use crate::{Delivered, NetHeader, QueueError, RxQueue, Tail, TxQueue, forward};

/// Bytes of frame `n`: never the same twice in a row.
fn frame(n: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (n as usize * 31 + i * 7 + i / 251) as u8).collect()
}

/// Posts a frame behind a header, cut into `cuts + 1` pieces at odd places.
fn send(guest: &Guest, driver: &mut DriverQueue, n: u64, bytes: &[u8], cuts: u64, indirect: bool) -> bool {
    let slot = n % 64;
    let mut all = vec![0xee; usize::from(guest.config.features.header_len)];
    all.extend(bytes);
    let start = guest.buffer(slot, 0).addr;
    guest.set(start, &all);
    let mut pieces = Vec::new();
    let (mut at, len) = (0_u64, all.len() as u64);
    for cut in 0..=cuts {
        let end = if cut == cuts { len } else { (at + 1 + (n * 5 + cut * 11) % 40).min(len) };
        pieces.push(Buffer { addr: start + at, len: (end - at) as u32 });
        at = end;
    }
    pieces.retain(|piece| piece.len > 0);
    let posted = if indirect {
        // The last 512 bytes of a buffer hold its table.
        driver.post_indirect(start + 3584, &pieces, &[], n as u32)
    } else {
        driver.post(&pieces, &[], n as u32)
    };
    match posted {
        Ok(()) => true,
        Err(PostError::Full { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What a receiver gets, frame by frame.
struct Receiver<'a> {
    guest: &'a Guest,
    driver: DriverQueue,
    buffer_len: u32,
    posted: u64,
    returned: u64,
    partial: Vec<u8>,
    missing: u16,
}

impl<'a> Receiver<'a> {
    fn new(guest: &'a Guest, buffer_len: u32) -> Self {
        Self { guest, driver: guest.driver(), buffer_len, posted: 0, returned: 0, partial: Vec::new(), missing: 0 }
    }

    /// Posts as many buffers as fit; every third as two pieces, every fifth indirect.
    fn post(&mut self) {
        while self.posted < self.returned + 64 {
            let n = self.posted;
            let whole = self.guest.buffer(n % 64, self.buffer_len);
            let half = Buffer { addr: whole.addr, len: 5 };
            let rest = Buffer { addr: whole.addr + 5, len: whole.len - 5 };
            let result = if n % 5 == 4 && self.guest.config.features.indirect && self.guest.config.size > 1 {
                self.driver.post_indirect(whole.addr + 3584, &[], &[half, rest], n as u32)
            } else if n % 3 == 2 && self.guest.config.size > 1 {
                self.driver.post(&[], &[half, rest], n as u32)
            } else {
                self.driver.post(&[], &[whole], n as u32)
            };
            if result.is_err() {
                break;
            }
            self.posted += 1;
        }
        self.driver.publish();
    }

    /// The frames that arrived complete, without their headers.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let header_len = usize::from(self.guest.config.features.header_len);
        let mut frames = Vec::new();
        for done in completions(&mut self.driver) {
            self.returned += 1;
            let at = self.guest.buffer(u64::from(done.token) % 64, 0).addr;
            let bytes = self.guest.get(at, done.len as usize);
            if self.missing == 0 {
                assert!(bytes[..10].iter().all(|byte| *byte == 0), "header {:?}", &bytes[..12]);
                self.missing = u16::from_le_bytes([bytes[10], bytes[11]]);
                assert!(self.missing == 1 || self.guest.config.features.mrg_rxbuf);
                self.partial = bytes[header_len..].to_vec();
            } else {
                self.partial.extend(bytes);
            }
            self.missing -= 1;
            if self.missing == 0 {
                frames.push(std::mem::take(&mut self.partial));
            }
        }
        assert_eq!(self.missing, 0, "a frame becomes visible as a whole");
        frames
    }
}

/// Forwards frame by frame through private memory, as a worker does that looks at them.
fn by_hand(tx: &mut TxQueue, rx: &mut RxQueue, n: u64) -> usize {
    let held = tx.harvest(8).unwrap();
    let mut done = 0;
    while done < held {
        let len = tx.frame_len(done) as usize;
        let mut head = vec![0; len.min(n as usize % 300)];
        assert_eq!(tx.read(done, 0, &mut head), head.len());
        let offset = head.len() as u32;
        let mut whole = vec![0; len];
        assert_eq!(tx.read(done, offset, &mut whole[head.len()..]), len - head.len());
        let tail = match n % 3 {
            0 => Tail::Frame { queue: tx, index: done, offset },
            1 => Tail::Bytes(&whole[head.len()..]),
            _ => {
                whole[..head.len()].copy_from_slice(&head);
                head = std::mem::take(&mut whole);
                Tail::None
            }
        };
        match rx.deliver(&NetHeader::default(), &head, tail).unwrap() {
            Delivered::Ok => done += 1,
            Delivered::NoBuffers => break,
            Delivered::TooBig => panic!("{len} bytes do not fit"),
        }
    }
    tx.release(done);
    done
}

fn run(features: QueueFeatures, size: u16, target_features: QueueFeatures, target_size: u16, seed: u64) {
    let (source, target) = (Guest::new(size, features, 64), Guest::new(target_size, target_features, 64));
    let mut driver = source.driver();
    let (mut tx, mut rx) = (source.tx(), target.rx());
    let mergeable = target_features.mrg_rxbuf && target_size >= 32;
    let mut receiver = Receiver::new(&target, if mergeable { 300 } else { 2000 });
    let mut numbers = Numbers(seed);
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut lens = Vec::new();
    for round in 0..120 {
        receiver.post();
        for _ in 0..numbers.below(20) {
            let len = if round % 2 == 0 { 60 } else { numbers.below(1500) as usize };
            let cuts = if round % 3 == 0 { 0 } else { numbers.below(4) };
            let indirect = features.indirect && numbers.below(3) == 0;
            let cuts = cuts.min(u64::from(size) - 1);
            if sent - received >= 64 || !send(&source, &mut driver, sent, &frame(sent, len), cuts, indirect) {
                break;
            }
            lens.push(len);
            sent += 1;
        }
        driver.publish();
        if round % 4 == 3 {
            by_hand(&mut tx, &mut rx, numbers.below(1000));
        } else {
            let max = 1 + numbers.below(70) as u32;
            let result = forward(&mut tx, &mut rx, max as usize).unwrap();
            assert_eq!((result.too_big, result.left), (0, tx.held()));
            assert!(result.left == 0 || result.no_buffers || result.frames == max);
        }
        if numbers.below(4) > 0 {
            rx.publish();
            tx.publish();
        }
        for bytes in receiver.take() {
            assert_eq!(bytes, frame(received, lens[received as usize]), "frame {received}");
            received += 1;
        }
        completions(&mut driver);
    }
    assert!(received > 100.min(u64::from(size.min(target_size)) * 20), "{received} of {sent}");
}

#[test]
fn every_combination_forwards_every_byte() {
    for (seed, features) in combinations().enumerate() {
        for size in [1, 2, 4, 64, 256] {
            let target = QueueFeatures { kind: RingKind::Packed, ..features };
            run(features, size, target, 64, seed as u64);
            run(target, 64, features, size, seed as u64);
        }
    }
}

#[test]
fn packed_sizes_that_are_no_powers_of_two() {
    for in_order in [false, true] {
        let features = QueueFeatures { in_order, ..plain(RingKind::Packed) };
        for size in [3, 5, 7, 100, 1000] {
            run(features, size, features, 1 + size / 2, u64::from(size));
        }
    }
}

#[test]
fn a_chain_may_fill_the_ring() {
    for kind in [RingKind::Packed, RingKind::Split] {
        let size = 1024;
        let guest = Guest::new(size, plain(kind), 64);
        let mut driver = guest.driver();
        let mut tx = guest.tx();
        for lap in 0..5 {
            let pieces: Vec<_> =
                (0..u64::from(size)).map(|i| Buffer { addr: guest.buffer(1, 0).addr + i * 3, len: 3 }).collect();
            guest.set(guest.buffer(1, 0).addr, &frame(lap, 3072));
            driver.post(&pieces, &[], 9).unwrap();
            driver.publish();
            assert_eq!(tx.harvest(64), Ok(1));
            assert_eq!(tx.frame_len(0), 3072 - 12);
            let mut bytes = vec![0; 4000];
            assert_eq!(tx.read(0, 0, &mut bytes), 3060);
            assert_eq!(bytes[..3060], frame(lap, 3072)[12..]);
            assert_eq!(tx.read(0, 3000, &mut bytes), 60);
            assert_eq!(tx.read(0, 3060, &mut bytes), 0);
            assert_eq!(tx.read(1, 0, &mut bytes), 0);
            tx.release(1);
            tx.publish();
            assert_eq!(completions(&mut driver).len(), 1);
        }
    }
}

#[test]
fn a_queue_resumes_at_its_base() {
    for features in combinations() {
        let guest = Guest::new(16, features, 64);
        let mut driver = guest.driver();
        let mut config = guest.config;
        let mut next = 0;
        for round in 0..50_u64 {
            let mut tx = TxQueue::new(config, guest.map(), None).unwrap();
            for n in 0..7 {
                assert!(send(&guest, &mut driver, round * 7 + n, &frame(n, 100), n % 2, false));
                driver.publish();
            }
            // Harvest more than is released: the successor finds the rest again.
            assert_eq!(tx.harvest(64), Ok(7));
            tx.release(3);
            tx.publish();
            tx.release(1);
            config.base = tx.base();
            let mut tx = TxQueue::new(config, guest.map(), None).unwrap();
            assert_eq!(tx.harvest(64), Ok(4), "round {round}");
            tx.release(4);
            tx.publish();
            config.base = tx.base();
            let tokens: Vec<_> = completions(&mut driver).iter().map(|done| done.token).collect();
            let want: Vec<_> = (next..next + 7).collect();
            assert_eq!(tokens, want);
            next += 7;
            if features.kind == RingKind::Split {
                assert_eq!(crate::recover_split_base(&config, &guest.map()), Ok(config.base));
            }
        }
    }
}

#[test]
fn a_frame_finds_no_room() {
    for kind in [RingKind::Packed, RingKind::Split] {
        let guest = Guest::new(4, plain(kind), 64);
        let mut driver = guest.driver();
        let mut rx = guest.rx();
        let header = NetHeader::default();
        assert_eq!(rx.deliver(&header, &[1; 60], Tail::None), Ok(Delivered::NoBuffers));
        driver.post(&[], &[guest.buffer(0, 100)], 0).unwrap();
        driver.publish();
        assert_eq!(rx.deliver(&header, &[1; 89], Tail::None), Ok(Delivered::TooBig));
        assert_eq!(rx.deliver(&header, &[1; 88], Tail::None), Ok(Delivered::Ok));
        rx.publish();
        assert_eq!(completions(&mut driver)[0].len, 100);
    }
    for kind in [RingKind::Packed, RingKind::Split] {
        let guest = Guest::new(4, QueueFeatures { mrg_rxbuf: true, ..plain(kind) }, 64);
        let mut driver = guest.driver();
        let mut rx = guest.rx();
        let header = NetHeader::default();
        for token in 0..3 {
            driver.post(&[], &[guest.buffer(token, 100)], token as u32).unwrap();
        }
        driver.publish();
        let base = rx.base();
        assert_eq!(rx.deliver(&header, &[1; 389], Tail::None), Ok(Delivered::NoBuffers));
        driver.post(&[], &[guest.buffer(3, 100)], 3).unwrap();
        driver.publish();
        assert_eq!(rx.deliver(&header, &[1; 389], Tail::None), Ok(Delivered::TooBig), "never fits");
        rx.publish();
        assert_eq!(rx.base(), base);
        assert_eq!(rx.deliver(&header, &[1; 100], Tail::Bytes(&[2; 200])), Ok(Delivered::Ok));
        rx.publish();
        let lens: Vec<_> = completions(&mut driver).iter().map(|done| done.len).collect();
        assert_eq!(lens, [100, 100, 100, 12]);
    }
}

#[test]
fn frames_that_do_not_fit_are_counted_and_dropped() {
    let (source, target) = (Guest::new(8, plain(RingKind::Packed), 64), Guest::new(8, plain(RingKind::Split), 64));
    let (mut driver, mut receiver) = (source.driver(), Receiver::new(&target, 200));
    let (mut tx, mut rx) = (source.tx(), target.rx());
    receiver.post();
    for (n, len) in [100, 189, 188, 60].into_iter().enumerate() {
        assert!(send(&source, &mut driver, n as u64, &frame(n as u64, len), 0, false));
    }
    driver.publish();
    let result = forward(&mut tx, &mut rx, 64).unwrap();
    assert_eq!((result.frames, result.too_big, result.bytes), (3, 1, 348));
    rx.publish();
    tx.publish();
    assert_eq!(receiver.take(), [frame(0, 100), frame(2, 188), frame(3, 60)]);
    assert_eq!(completions(&mut driver).len(), 4);
}

#[test]
fn headers_are_carried_only_with_offloads() {
    let sent = NetHeader { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16 };
    for (offloads, mrg_rxbuf) in [(false, false), (true, false), (true, true)] {
        let features = QueueFeatures { offloads, mrg_rxbuf, ..plain(RingKind::Packed) };
        let (source, target) = (Guest::new(8, features, 64), Guest::new(8, features, 64));
        let mut driver = source.driver();
        let mut receiver = target.driver();
        let (mut tx, mut rx) = (source.tx(), target.rx());
        for cuts in [0, 2] {
            assert!(send(&source, &mut driver, cuts, &frame(1, 60), cuts, false));
            source.set(source.buffer(cuts, 0).addr, &sent.to_bytes(77));
            receiver.post(&[], &[target.buffer(cuts, 2000)], 0).unwrap();
        }
        driver.publish();
        receiver.publish();
        assert_eq!(tx.harvest(64), Ok(2));
        let expected = if offloads { sent } else { NetHeader::default() };
        assert_eq!((tx.net_header(1), tx.net_header(2)), (expected, NetHeader::default()));
        source.set(source.buffer(2, 0).addr, &[0xff; 10]);
        assert_eq!(tx.net_header(1), expected, "asked once");
        assert_eq!(forward(&mut tx, &mut rx, 64).unwrap().frames, 2);
        for i in [0, 2] {
            assert_eq!(target.get(target.buffer(i, 0).addr, 12), expected.to_bytes(1));
        }
    }
}

#[test]
fn memory_is_exchanged_between_bursts() {
    for kind in [RingKind::Packed, RingKind::Split] {
        let guest = Guest::new(8, plain(kind), 64);
        let (mut driver, mut tx) = (guest.driver(), guest.tx());
        assert!(send(&guest, &mut driver, 0, &[1; 60], 0, false));
        driver.publish();
        assert_eq!(tx.harvest(64), Ok(1));
        assert_eq!(tx.set_memory(guest.map()), Err(QueueError::Held { held: 1 }));
        tx.forget();
        tx.set_memory(guest.map()).unwrap();
        assert_eq!(tx.harvest(64), Ok(1), "found again");
        tx.release(1);
        tx.publish();
        tx.set_memory(guest.map()).unwrap();
        assert!(tx.set_memory(Guest::new(8, plain(kind), 1).map()).is_err(), "the ring is not there");
        assert!(send(&guest, &mut driver, 1, &[1; 60], 0, false));
        driver.publish();
        assert_eq!(tx.harvest(64), Ok(1));

        let guest = Guest::new(8, plain(kind), 64);
        let (mut driver, mut rx) = (guest.driver(), guest.rx());
        for token in 0..8 {
            driver.post(&[], &[guest.buffer(token, 100)], token as u32).unwrap();
        }
        driver.publish();
        assert_eq!(rx.prefetch(64), Ok(8));
        assert_eq!(rx.deliver(&NetHeader::default(), &[1; 60], Tail::None), Ok(Delivered::Ok));
        rx.set_memory(guest.map()).unwrap();
        assert_eq!((rx.held(), completions(&mut driver).len()), (0, 1), "published before it moves");
        assert_eq!(rx.prefetch(64), Ok(7));
    }
}

#[test]
fn a_base_in_the_second_lap() {
    let features = plain(RingKind::Packed);
    let mut guest = Guest::new(5, features, 64);
    guest.config.base = RingBase { avail: 3, avail_wrap: false, used: 3, used_wrap: false };
    let (mut driver, mut tx) = (guest.driver(), guest.tx());
    for n in 0..100 {
        assert!(send(&guest, &mut driver, n, &[1; 60], 0, false));
        driver.publish();
        assert_eq!(tx.harvest(64), Ok(1));
        tx.release(1);
        tx.publish();
        assert_eq!(completions(&mut driver).len(), 1);
    }
}
