// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our driver against the model device: any operations in any order.

use std::collections::VecDeque;

use proptest::prelude::*;
use virtqueue::{Buffer, Completion, DriverQueue, PostError, RingKind, full_fence};

use crate::model::{Chain, ModelDevice, Notify, Piece, Setup, all_features, bases, sizes};

#[derive(Clone, Debug)]
enum Operation {
    Post { readable: u8, writable: u8, indirect: bool },
    Burst { count: u8, writable: bool },
    Publish,
    Take { count: u8 },
    Use { pick: u8, batch: u8, written: u16 },
    Complete { room: u8 },
    Calls(bool),
    Kicks(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..5_u8, 0..5_u8, any::<bool>()).prop_map(|(readable, writable, indirect)| Operation::Post {
            readable,
            writable,
            indirect
        }),
        (0..40_u8, any::<bool>()).prop_map(|(count, writable)| Operation::Burst { count, writable }),
        Just(Operation::Publish),
        (0..40_u8).prop_map(|count| Operation::Take { count }),
        (any::<u8>(), 1..20_u8, any::<u16>()).prop_map(|(pick, batch, written)| Operation::Use {
            pick,
            batch,
            written
        }),
        (any::<u8>(), 1..20_u8, any::<u16>()).prop_map(|(pick, batch, written)| Operation::Use {
            pick,
            batch,
            written
        }),
        (0..40_u8).prop_map(|room| Operation::Complete { room }),
        any::<bool>().prop_map(Operation::Calls),
        (0..3_u8).prop_map(Operation::Kicks),
    ]
}

/// A posted chain, as it must arrive and complete.
#[derive(Clone, Debug)]
struct Expected {
    token: u32,
    pieces: Vec<Piece>,
    descs: u16,
}

impl Expected {
    fn writable(&self) -> u32 {
        self.pieces.iter().filter(|p| p.writable).map(|p| p.len).sum()
    }
}

struct World {
    setup: Setup,
    driver: DriverQueue,
    device: ModelDevice,
    next_token: u32,
    /// Posted, not published; published, not taken; taken, not used; used, not completed.
    posted: VecDeque<Expected>,
    published: VecDeque<Expected>,
    taken: Vec<(Chain, Expected)>,
    used: VecDeque<(u32, u32, u16)>,
    /// Position up to which the driver published, and where it was when last asked for kicks.
    visible: u64,
    noticed: u64,
    free: u16,
}

const TABLES: u64 = 1 << 20;

impl World {
    fn new(setup: Setup) -> Self {
        let driver = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
        let device = ModelDevice::new(setup.guest(), setup.config);
        let at = device.taken;
        Self {
            free: setup.config.size,
            setup,
            driver,
            device,
            next_token: 0,
            posted: VecDeque::new(),
            published: VecDeque::new(),
            taken: Vec::new(),
            used: VecDeque::new(),
            visible: at,
            noticed: at,
        }
    }

    fn buffers(&self, count: u8, salt: u32) -> Vec<Buffer> {
        (0..u32::from(count))
            .map(|i| Buffer { addr: 0x10_0000 + u64::from(salt) * 64 + u64::from(i), len: 1 + (salt + i) % 1500 })
            .collect()
    }

    fn run(&mut self, operation: &Operation) {
        match *operation {
            Operation::Post { readable, writable, indirect } => self.post(readable, writable, indirect),
            Operation::Burst { count, writable } => self.burst(count, writable),
            Operation::Publish => self.publish(),
            Operation::Take { count } => self.take(count),
            Operation::Use { pick, batch, written } => self.use_some(pick, batch, written),
            Operation::Complete { room } => self.complete(room),
            Operation::Calls(enabled) => {
                let waiting = self.driver.set_calls(enabled);
                assert_eq!(waiting, !self.used.is_empty());
                // What is used from now on is called for, or not.
                let at = self.device.used;
                if self.used.is_empty() {
                    assert_eq!(self.device.must_call(at, at + 1), enabled);
                } else if !enabled {
                    assert!(!self.device.must_call(at, at + 1));
                }
            }
            Operation::Kicks(kind) => {
                let kicks = match kind {
                    0 => Notify::Always,
                    1 => Notify::Never,
                    _ if self.setup.config.features.event_idx => Notify::AtNext,
                    _ => Notify::Always,
                };
                self.device.set_kicks(kicks);
            }
        }
        assert_eq!(self.driver.free(), self.free);
        assert_eq!(self.driver.has_completions(), !self.used.is_empty());
    }

    fn post(&mut self, readable: u8, writable: u8, indirect: bool) {
        let token = self.next_token;
        let (read, write) = (self.buffers(readable, token), self.buffers(writable, token + 7));
        let count = u16::from(readable + writable);
        let descs = if indirect { 1 } else { count };
        let result = if indirect {
            // Far more tables than can be outstanding.
            let table = self.setup.data + u64::from(token) * 128 % TABLES;
            self.driver.post_indirect(table, &read, &write, token)
        } else {
            self.driver.post(&read, &write, token)
        };
        let expected = if indirect && !self.setup.config.features.indirect {
            Err(PostError::NotIndirect)
        } else if count == 0 {
            Err(PostError::Empty)
        } else if count > self.setup.config.size {
            Err(PostError::TooLong)
        } else if descs > self.free {
            Err(PostError::Full { needed: usize::from(descs), free: self.free })
        } else {
            Ok(())
        };
        assert_eq!(result, expected);
        if result.is_ok() {
            let piece = |writable| move |b: &Buffer| Piece { addr: b.addr, len: b.len, writable };
            let pieces = read.iter().map(piece(false)).chain(write.iter().map(piece(true))).collect();
            self.posted.push_back(Expected { token, pieces, descs });
            self.free -= descs;
            self.next_token += 1;
        }
    }

    fn burst(&mut self, count: u8, writable: bool) {
        let buffers = self.buffers(count, self.next_token);
        let tokens: Vec<u32> = (self.next_token..).take(buffers.len()).collect();
        let posted = self.driver.post_burst(&buffers, &tokens, writable);
        assert_eq!(posted, buffers.len().min(usize::from(self.free)));
        for (buffer, &token) in buffers.iter().zip(&tokens).take(posted) {
            let pieces = vec![Piece { addr: buffer.addr, len: buffer.len, writable }];
            self.posted.push_back(Expected { token, pieces, descs: 1 });
        }
        self.free -= u16::try_from(posted).unwrap();
        self.next_token += u32::try_from(posted).unwrap();
    }

    fn publish(&mut self) {
        self.driver.publish();
        for expected in self.posted.drain(..) {
            self.visible += match self.setup.config.features.kind {
                RingKind::Packed => u64::from(expected.descs),
                RingKind::Split => 1,
            };
            self.published.push_back(expected);
        }
        full_fence();
        let kicked = self.driver.should_kick();
        let must = self.device.must_kick(self.noticed, self.visible);
        // After a whole lap a packed driver may kick without need.
        let lap = self.visible - self.noticed >= u64::from(self.setup.config.size);
        assert!(kicked == must || (kicked && lap), "kicked {kicked}, must {must}");
        self.noticed = self.visible;
        assert!(!self.driver.should_kick(), "once is enough");
    }

    fn take(&mut self, count: u8) {
        for _ in 0..count {
            let chain = self.device.next();
            assert_eq!(chain.is_some(), !self.published.is_empty());
            let Some(chain) = chain else { break };
            let expected = self.published.pop_front().unwrap();
            assert_eq!(chain.pieces, expected.pieces);
            assert_eq!(chain.descs, u64::from(expected.descs));
            self.taken.push((chain, expected));
        }
    }

    fn use_some(&mut self, pick: u8, batch: u8, written: u16) {
        if self.taken.is_empty() {
            return;
        }
        let in_order = self.setup.config.features.in_order;
        let (first, count) = if in_order {
            (0, usize::from(batch).min(self.taken.len()))
        } else {
            (usize::from(pick) % self.taken.len(), 1)
        };
        let chosen: Vec<_> = self.taken.drain(first..first + count).collect();
        let chains: Vec<Chain> = chosen.iter().map(|(chain, _)| chain.clone()).collect();
        let written = u32::from(written).min(chosen.last().unwrap().1.writable());
        self.device.use_chains(&chains, written);
        for (at, (_, expected)) in chosen.iter().enumerate() {
            let len = if at + 1 == chosen.len() { written } else { expected.writable() };
            self.used.push_back((expected.token, len, expected.descs));
        }
    }

    fn complete(&mut self, room: u8) {
        let mut out = vec![Completion::default(); usize::from(room)];
        let done = self.driver.complete(&mut out).unwrap();
        assert_eq!(done, self.used.len().min(out.len()));
        for (completion, (token, len, descs)) in out.iter().zip(self.used.drain(..done)) {
            assert_eq!((completion.token, completion.len), (token, len));
            self.free += descs;
        }
    }
}

fn any_features() -> impl Strategy<Value = (RingKind, usize)> {
    (prop_oneof![Just(RingKind::Split), Just(RingKind::Packed)], 0..32_usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn driver_agrees_with_the_model(
        (kind, features) in any_features(),
        size in any::<prop::sample::Index>(),
        base in any::<prop::sample::Index>(),
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        let size = sizes(kind)[size.index(sizes(kind).len())];
        let bases = bases(kind, size);
        let base = bases[base.index(bases.len())];
        let features = all_features(kind).nth(features).unwrap();
        let mut world = World::new(Setup::new(size, features, base, TABLES + 4096));
        for operation in &operations {
            world.run(operation);
        }
    }
}

/// Every slot of small rings as the start, and several laps from there: wrap in every position.
#[test]
fn wrap_in_every_position() {
    let script = [
        Operation::Burst { count: 2, writable: true },
        Operation::Post { readable: 1, writable: 1, indirect: false },
        Operation::Publish,
        Operation::Take { count: 40 },
        Operation::Use { pick: 1, batch: 2, written: 9 },
        Operation::Complete { room: 1 },
        Operation::Post { readable: 2, writable: 1, indirect: true },
        Operation::Use { pick: 0, batch: 1, written: 1 },
        Operation::Calls(true),
        Operation::Publish,
        Operation::Take { count: 40 },
        Operation::Use { pick: 0, batch: 20, written: 3 },
        Operation::Use { pick: 0, batch: 20, written: 3 },
        Operation::Use { pick: 0, batch: 20, written: 3 },
        Operation::Complete { room: 40 },
    ];
    for kind in [RingKind::Split, RingKind::Packed] {
        for features in all_features(kind) {
            for &size in sizes(kind).iter().filter(|&&size| size <= 8) {
                for start in 0..size {
                    for wrap in [true, false] {
                        let index = if kind == RingKind::Split && wrap { start.wrapping_sub(size) } else { start };
                        let base = virtqueue::RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap };
                        let mut world = World::new(Setup::new(size, features, base, TABLES + 4096));
                        for operation in script.iter().cycle().take(4 * script.len()) {
                            world.run(operation);
                        }
                    }
                }
            }
        }
    }
}
