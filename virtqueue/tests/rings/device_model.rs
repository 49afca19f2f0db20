// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our device side against the model driver: any operations in any order.

use std::collections::VecDeque;

use proptest::prelude::*;
use virtqueue::{Delivered, MAX_BURST, NetHeader, RingKind, RxQueue, Tail, TxQueue, full_fence};

use crate::model::{ModelDriver, Notify, Piece, Setup, all_features, bases, sizes};

#[derive(Clone, Debug)]
enum Operation {
    /// A chain of this many bytes (for the device to read: plus header), cut into pieces.
    Post {
        len: u16,
        cuts: Vec<u16>,
        indirect: bool,
    },
    /// Takes frames, or looks ahead for buffers.
    Harvest {
        max: u8,
    },
    /// Frames given back (transmit), or a frame delivered (receive).
    Release {
        count: u8,
    },
    Deliver {
        len: u16,
        head: u8,
    },
    Publish,
    Complete {
        count: u8,
    },
    Calls(u8),
    Kicks(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2000_u16, prop::collection::vec(1..1500_u16, 0..4), any::<bool>())
            .prop_map(|(len, cuts, indirect)| Operation::Post { len, cuts, indirect }),
        2 => (0..100_u8).prop_map(|max| Operation::Harvest { max }),
        2 => (0..70_u8).prop_map(|count| Operation::Release { count }),
        3 => (0..3000_u16, any::<u8>()).prop_map(|(len, head)| Operation::Deliver { len, head }),
        2 => Just(Operation::Publish),
        2 => (0..40_u8).prop_map(|count| Operation::Complete { count }),
        1 => (0..3_u8).prop_map(Operation::Calls),
        1 => any::<bool>().prop_map(Operation::Kicks),
    ]
}

const HEADER: u32 = 12;
const SLOT: u64 = 4096;
const SLOTS: u64 = 256;
const TABLES: u64 = SLOT * SLOTS;
const DATA: u64 = TABLES + SLOTS * 256;

/// What both directions share: the driver, and the positions notifications are about.
struct Common {
    setup: Setup,
    driver: ModelDriver,
    next_token: u32,
    /// Positions used and visible; when last asked for a notification.
    used: u64,
    noticed: u64,
}

impl Common {
    fn new(setup: Setup) -> Self {
        let driver = ModelDriver::new(setup.guest(), setup.config);
        let at = driver.used;
        Self { setup, driver, next_token: 0, used: at, noticed: at }
    }

    /// Posts a chain of `len` bytes if there is room, and says where its bytes are.
    fn post(&mut self, len: u32, cuts: &[u16], indirect: bool, writable: bool) -> Option<Vec<Piece>> {
        let slot = u64::from(self.next_token) % SLOTS;
        // Overwriting what is still outstanding would be a broken driver.
        if self.driver.outstanding.len() as u64 >= SLOTS {
            return None;
        }
        let mut pieces = Vec::new();
        let (mut at, mut left) = (self.setup.data + slot * SLOT, len);
        for &cut in cuts {
            let len = u32::from(cut).min(left);
            if len > 0 && len < left {
                pieces.push(Piece { addr: at, len, writable });
                at += u64::from(len);
                left -= len;
            }
        }
        pieces.push(Piece { addr: at, len: left, writable });
        let indirect = indirect && self.setup.config.features.indirect;
        let descs = if indirect { 1 } else { pieces.len() };
        let size = usize::from(self.setup.config.size);
        if descs > usize::from(self.driver.room) || pieces.len() > size {
            return None;
        }
        let table = indirect.then(|| self.setup.data + TABLES + slot * 256);
        self.driver.post(&pieces, table, self.next_token);
        self.next_token += 1;
        Some(pieces)
    }

    /// Positions that a chain of these pieces takes.
    fn positions(&self, token: u32) -> u64 {
        let posted = self.driver.outstanding.iter().find(|p| p.token == token).unwrap();
        match self.setup.config.features.kind {
            RingKind::Packed => posted.descs.len() as u64,
            RingKind::Split => 1,
        }
    }

    fn set_calls(&mut self, kind: u8) {
        let calls = match kind {
            0 => Notify::Always,
            1 => Notify::Never,
            _ if self.setup.config.features.event_idx => Notify::AtNext,
            _ => Notify::Always,
        };
        self.driver.set_calls(calls);
    }

    fn check_notification(&mut self, notified: bool) {
        let must = self.driver.must_call(self.noticed, self.used);
        let lap = self.used - self.noticed >= u64::from(self.setup.config.size);
        assert!(notified == must || (notified && lap), "notified {notified}, must {must}");
        self.noticed = self.used;
    }

    /// After `set_kicks`: does the driver see that the next chain is kicked for, or not?
    fn check_kicks(&self, enabled: bool, next: u64) {
        let split_events = self.setup.config.features.kind == RingKind::Split && self.setup.config.features.event_idx;
        if enabled || !split_events {
            assert_eq!(self.driver.must_kick(next, next + 1), enabled);
        }
    }
}

fn payload(token: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31).wrapping_add(token * 7) & 0xff) as u8).collect()
}

fn header(token: u32) -> NetHeader {
    let half = (token & 0xffff) as u16;
    NetHeader { flags: 1, gso_type: 0, hdr_len: half, gso_size: 3, csum_start: half ^ 0x5555, csum_offset: 9 }
}

fn header_bytes(header: &NetHeader, num_buffers: u16) -> Vec<u8> {
    let words = [header.hdr_len, header.gso_size, header.csum_start, header.csum_offset, num_buffers];
    let mut bytes = vec![header.flags, header.gso_type];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

struct TxWorld {
    common: Common,
    queue: TxQueue,
    /// Posted, not harvested; held; released (and perhaps not visible).
    posted: VecDeque<(u32, u32)>,
    held: VecDeque<(u32, u32)>,
    released: VecDeque<u32>,
    unpublished: u64,
    /// Next position the device looks at.
    next: u64,
}

impl TxWorld {
    fn new(setup: Setup) -> Self {
        let common = Common::new(setup);
        let queue = TxQueue::new(common.setup.config, common.setup.memory.map(), None).unwrap();
        let next = common.used;
        let (posted, held, released) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { common, queue, posted, held, released, unpublished: 0, next }
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Post { len, cuts, indirect } => {
                let len = u32::from(*len);
                let token = self.common.next_token;
                let Some(pieces) = self.common.post(HEADER + len, cuts, *indirect, false) else { return };
                let mut bytes = header_bytes(&header(token), 0);
                bytes.extend(payload(token, len));
                for piece in pieces {
                    let rest = bytes.split_off(piece.len as usize);
                    self.common.driver.guest.set_bytes(piece.addr, &bytes);
                    bytes = rest;
                }
                self.posted.push_back((token, len));
            }
            Operation::Harvest { max } => {
                let max = usize::from(*max);
                let held = self.queue.harvest(max).unwrap();
                let most = max.min(MAX_BURST).max(self.held.len());
                assert_eq!(held, most.min(self.held.len() + self.posted.len()));
                while self.held.len() < held {
                    let frame = self.posted.pop_front().unwrap();
                    self.next += self.common.positions(frame.0);
                    self.held.push_back(frame);
                }
                self.check_frames();
            }
            Operation::Release { count } => {
                let count = usize::from(*count);
                self.queue.release(count);
                for (token, _) in self.held.drain(..count.min(self.held.len())) {
                    self.unpublished += self.common.positions(token);
                    self.released.push_back(token);
                }
            }
            Operation::Deliver { .. } => {}
            Operation::Publish => {
                self.queue.publish();
                self.common.used += std::mem::take(&mut self.unpublished);
                full_fence();
                let notified = self.queue.should_notify();
                self.common.check_notification(notified);
                let base = self.queue.base();
                assert_eq!(u64::from(base.used) % u64::from(self.common.setup.config.size), {
                    self.common.used % u64::from(self.common.setup.config.size)
                });
                // Everything released is visible now.
                self.complete(usize::MAX);
                assert!(self.released.is_empty());
            }
            Operation::Complete { count } => self.complete(usize::from(*count)),
            Operation::Calls(kind) => self.common.set_calls(*kind),
            Operation::Kicks(enabled) => {
                let available = self.queue.set_kicks(*enabled);
                assert_eq!(available, !self.posted.is_empty());
                self.common.check_kicks(*enabled, self.next);
            }
        }
        assert_eq!(self.queue.held(), self.held.len());
        assert_eq!(self.queue.has_available(), !self.posted.is_empty());
    }

    fn complete(&mut self, count: usize) {
        for _ in 0..count {
            let Some((token, len)) = self.common.driver.complete() else { break };
            assert_eq!((Some(token), len), (self.released.pop_front(), 0));
        }
    }

    fn check_frames(&self) {
        for (i, &(token, len)) in self.held.iter().enumerate() {
            assert_eq!(self.queue.frame_len(i), len);
            let expected =
                if self.common.setup.config.features.offloads { header(token) } else { NetHeader::default() };
            assert_eq!(self.queue.net_header(i), expected);
            let bytes = payload(token, len);
            for offset in [0, len / 3, len, len + 5] {
                let mut dst = vec![0xee; len as usize + 9];
                let count = self.queue.read(i, offset, &mut dst);
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                assert_eq!(&dst[..count], rest);
                assert!(dst[count..].iter().all(|&b| b == 0xee));
            }
        }
        assert_eq!(self.queue.frame_len(self.held.len()), 0);
        assert_eq!(self.queue.read(self.held.len(), 0, &mut [0; 4]), 0);
    }
}

struct RxWorld {
    common: Common,
    queue: RxQueue,
    /// Posted and unused: token, bytes, where.
    buffers: VecDeque<(u32, u32, Vec<Piece>)>,
    /// Used: token, bytes written, what they are, where.
    used: VecDeque<(u32, Vec<u8>, Vec<Piece>)>,
    /// Frames delivered.
    frames: u32,
    unpublished: u64,
}

impl RxWorld {
    fn new(setup: Setup) -> Self {
        let common = Common::new(setup);
        let queue = RxQueue::new(common.setup.config, common.setup.memory.map(), None).unwrap();
        Self { common, queue, buffers: VecDeque::new(), used: VecDeque::new(), frames: 0, unpublished: 0 }
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Post { len, cuts, indirect } => {
                let (token, len) = (self.common.next_token, HEADER + u32::from(*len));
                if let Some(pieces) = self.common.post(len, cuts, *indirect, true) {
                    self.buffers.push_back((token, len, pieces));
                }
            }
            Operation::Harvest { max } => {
                let before = self.queue.held();
                let held = self.queue.prefetch(usize::from(*max)).unwrap();
                assert_eq!(held, usize::from(*max).max(before).min(self.buffers.len()));
            }
            Operation::Deliver { len, head } => self.deliver(usize::from(*len), usize::from(*head)),
            Operation::Release { .. } => {}
            Operation::Publish => {
                self.queue.publish();
                self.common.used += std::mem::take(&mut self.unpublished);
                full_fence();
                let notified = self.queue.should_notify();
                self.common.check_notification(notified);
                self.complete(usize::MAX);
                assert!(self.used.is_empty());
            }
            Operation::Complete { count } => self.complete(usize::from(*count)),
            Operation::Calls(kind) => self.common.set_calls(*kind),
            Operation::Kicks(enabled) => {
                let available = self.queue.set_kicks(*enabled);
                assert_eq!(available, self.buffers.len() > self.queue.held());
            }
        }
        assert_eq!(self.queue.has_available(), self.buffers.len() > self.queue.held());
    }

    fn deliver(&mut self, len: usize, head: usize) {
        let features = self.common.setup.config.features;
        let bytes = payload(self.frames, u32::try_from(len).unwrap());
        let (head, tail) = bytes.split_at(head.min(len));
        let tail = if tail.is_empty() { Tail::None } else { Tail::Bytes(tail) };
        let sent = header(self.frames);
        let delivered = self.queue.deliver(&sent, head, tail).unwrap();
        let total = HEADER + u32::try_from(len).unwrap();
        let (mut room, mut needed) = (0, 0);
        while needed < self.buffers.len() && room < total && (features.mrg_rxbuf || needed == 0) {
            room += self.buffers[needed].1;
            needed += 1;
        }
        if room < total {
            // With mergeable buffers both answers can be right: more buffers may come, or not.
            let too_big = needed > 0;
            match delivered {
                Delivered::NoBuffers => assert!(features.mrg_rxbuf || !too_big),
                Delivered::TooBig => assert!(too_big),
                Delivered::Ok => panic!("{total} bytes in {room}"),
            }
            return;
        }
        assert_eq!(delivered, Delivered::Ok);
        self.frames += 1;
        let mut bytes = [header_bytes(&sent, u16::try_from(needed).unwrap()), bytes].concat();
        for (token, len, pieces) in self.buffers.drain(..needed).collect::<Vec<_>>() {
            self.unpublished += self.common.positions(token);
            let rest = bytes.split_off(bytes.len().min(len as usize));
            self.used.push_back((token, bytes, pieces));
            bytes = rest;
        }
    }

    fn complete(&mut self, count: usize) {
        for _ in 0..count {
            let Some((token, len)) = self.common.driver.complete() else { break };
            let (expected, bytes, pieces) = self.used.pop_front().unwrap();
            assert_eq!((token, len as usize), (expected, bytes.len()));
            let guest = &self.common.driver.guest;
            let mut all: Vec<u8> = pieces.iter().flat_map(|p| guest.bytes(p.addr, p.len as usize)).collect();
            all.truncate(bytes.len());
            assert_eq!(all, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn device_agrees_with_the_model(
        packed in any::<bool>(),
        features in 0..32_usize,
        size in any::<prop::sample::Index>(),
        base in any::<prop::sample::Index>(),
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let kind = if packed { RingKind::Packed } else { RingKind::Split };
        let size = sizes(kind)[size.index(sizes(kind).len())];
        let bases = bases(kind, size);
        let base = bases[base.index(bases.len())];
        let features = all_features(kind).nth(features).unwrap();
        let mut transmit = TxWorld::new(Setup::new(size, features, base, DATA));
        let mut receive = RxWorld::new(Setup::new(size, features, base, DATA));
        for operation in &operations {
            transmit.run(operation);
            receive.run(operation);
        }
    }
}

/// Every slot of small rings as the start, and several laps from there: wrap in every position.
#[test]
fn wrap_in_every_position() {
    let script = [
        Operation::Post { len: 100, cuts: vec![40], indirect: false },
        Operation::Post { len: 60, cuts: vec![], indirect: false },
        Operation::Post { len: 300, cuts: vec![100, 100], indirect: true },
        Operation::Harvest { max: 64 },
        Operation::Deliver { len: 90, head: 50 },
        Operation::Post { len: 10, cuts: vec![], indirect: false },
        Operation::Release { count: 2 },
        Operation::Kicks(true),
        Operation::Deliver { len: 200, head: 255 },
        Operation::Publish,
        Operation::Harvest { max: 64 },
        Operation::Release { count: 64 },
        Operation::Deliver { len: 1, head: 0 },
        Operation::Deliver { len: 1, head: 1 },
        Operation::Publish,
        Operation::Calls(2),
    ];
    for kind in [RingKind::Split, RingKind::Packed] {
        for features in all_features(kind) {
            for &size in sizes(kind).iter().filter(|&&size| size <= 8) {
                for start in 0..size {
                    for wrap in [true, false] {
                        let index = if kind == RingKind::Split && wrap { start.wrapping_sub(size) } else { start };
                        let base = virtqueue::RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap };
                        let mut transmit = TxWorld::new(Setup::new(size, features, base, DATA));
                        let mut receive = RxWorld::new(Setup::new(size, features, base, DATA));
                        for operation in script.iter().cycle().take(4 * script.len()) {
                            transmit.run(operation);
                            receive.run(operation);
                        }
                    }
                }
            }
        }
    }
}
