// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of dirty pages against a comparison of all bytes: whatever a device changes while it is to log, the log says so
//! once the burst is published, or logging ends, or the queue goes.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;
use virtqueue::{
    DirtyLog, DirtyPages, DriverQueue, Frame, MemoryMap, NetHeader, QueueConfig, QueueFeatures, RegionSpec,
    RingAddresses, RingBase, RingKind, RxQueue, SharedMemory, Tail, TxQueue, forward,
};

use crate::model::{Guest, ModelDriver, Piece, all_features, bases};

const PAGE: u64 = DirtyLog::PAGE;
/// Where guest memory begins: pages of the guest are not pages of ours.
const START: u64 = 0x10_0800;
/// Where the log is told that the device area of a ring lies, if it is told something else than the truth.
const ELSEWHERE: u64 = 0x30_0ff0;
const SLOTS: u64 = 24;
/// No divisor of a page.
const STRIDE: u64 = 2104;
const TABLES: u64 = SLOTS * STRIDE;
const SIDE: u64 = TABLES + SLOTS * 128;
const LOG_BYTES: usize = 256;
/// Bytes that are compared at a time.
const LINE: usize = 64;

#[derive(Clone, Debug)]
enum Operation {
    PostTx {
        len: u16,
        cuts: Vec<u16>,
        indirect: bool,
    },
    PostRx {
        len: u16,
        cuts: Vec<u16>,
        indirect: bool,
    },
    Complete,
    Prefetch(u8),
    Deliver {
        len: u16,
        head: u8,
    },
    Burst {
        count: u8,
        len: u16,
    },
    Forward(u8),
    Release(u8),
    Publish,
    Kicks(bool),
    /// Both queues move to the memory that they have.
    Move,
    Log {
        on: bool,
        elsewhere: bool,
    },
    /// The front end takes the set bits.
    Take,
}

fn operation() -> impl Strategy<Value = Operation> {
    let chain = || (0..2000_u16, prop::collection::vec(1..1500_u16, 0..4), any::<bool>());
    prop_oneof![
        4 => chain().prop_map(|(len, cuts, indirect)| Operation::PostTx { len, cuts, indirect }),
        6 => chain().prop_map(|(len, cuts, indirect)| Operation::PostRx { len, cuts, indirect }),
        3 => Just(Operation::Complete),
        1 => (0..40_u8).prop_map(Operation::Prefetch),
        3 => (0..4000_u16, any::<u8>()).prop_map(|(len, head)| Operation::Deliver { len, head }),
        2 => (1..10_u8, 0..700_u16).prop_map(|(count, len)| Operation::Burst { count, len }),
        3 => (0..20_u8).prop_map(Operation::Forward),
        1 => (0..20_u8).prop_map(Operation::Release),
        4 => Just(Operation::Publish),
        1 => any::<bool>().prop_map(Operation::Kicks),
        1 => Just(Operation::Move),
        2 => any::<(bool, bool)>().prop_map(|(on, elsewhere)| Operation::Log { on, elsewhere }),
        2 => Just(Operation::Take),
    ]
}

/// One ring of the guest, and its driver.
struct Side {
    driver: ModelDriver,
    config: QueueConfig,
    data: u64,
    next_token: u32,
}

impl Side {
    fn new(guest: &Guest, config: QueueConfig, data: u64) -> Self {
        Self { driver: ModelDriver::new(guest.clone(), config), config, data, next_token: 0 }
    }

    fn post(&mut self, len: u32, cuts: &[u16], indirect: bool, writable: bool) {
        let slot = u64::from(self.next_token) % SLOTS;
        if self.driver.outstanding.len() as u64 >= SLOTS {
            return;
        }
        let (mut at, mut left) = (self.data + slot * STRIDE, len);
        if !writable {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 5 + self.next_token + 1).to_le_bytes()[0]).collect();
            self.driver.guest.set_bytes(at, &bytes);
        }
        let mut pieces = Vec::new();
        for &cut in cuts {
            let len = u32::from(cut).min(left);
            if len > 0 && len < left {
                pieces.push(Piece { addr: at, len, writable });
                at += u64::from(len);
                left -= len;
            }
        }
        pieces.push(Piece { addr: at, len: left, writable });
        let table = (indirect && self.config.features.indirect).then(|| self.data + TABLES + slot * 128);
        let descs = if table.is_some() { 1 } else { pieces.len() };
        if descs <= usize::from(self.driver.room) && pieces.len() <= usize::from(self.config.size) {
            self.driver.post(&pieces, table, self.next_token);
            self.next_token += 1;
        }
    }

    fn device_area(&self) -> Range<u64> {
        let len = match self.config.features.kind {
            RingKind::Packed => 4,
            RingKind::Split => 6 + 8 * u64::from(self.config.size),
        };
        self.config.addresses.device..self.config.addresses.device + len
    }
}

struct Queues {
    tx: TxQueue,
    rx: RxQueue,
}

struct World {
    guest: Guest,
    memory: u64,
    tx: Side,
    rx: Side,
    queues: Queues,
    file: File,
    log: Arc<DirtyLog>,
    /// Whether device areas are logged elsewhere; `None`: nothing is logged.
    logging: Option<bool>,
    /// Pages that changed and must be in the log.
    due: BTreeSet<u64>,
    frames: u32,
}

/// Guest memory in three regions, one behind the other, and not at the beginning of pages.
fn memory(len: u64) -> Arc<MemoryMap> {
    let cuts = [0, len / 3 / 16 * 16, len / 2 / 16 * 16, len];
    let region = |at: &[u64]| {
        let (start, size) = (at[0], at[1] - at[0]);
        let file = SharedMemory::create("guest", size, false).unwrap();
        let spec = RegionSpec { guest_addr: START + start, size, user_addr: 0x7000_0000 + start, mmap_offset: 0 };
        (spec, file.fd().try_clone_to_owned().unwrap())
    };
    Arc::new(MemoryMap::from_regions(cuts.windows(2).map(region).collect()).unwrap())
}

impl World {
    fn new(size: u16, features: QueueFeatures, base: RingBase) -> Self {
        let layout = DriverQueue::ring_bytes(features.kind, size);
        // Rings lie in one region each: the first and the last.
        let ring = layout.total;
        let len = (3 * (ring + SIDE)).next_multiple_of(PAGE);
        let config = |at: u64| {
            let addresses =
                RingAddresses { desc: at + layout.desc, driver: at + layout.driver, device: at + layout.device };
            QueueConfig { size, features, addresses, base }
        };
        let (tx_config, rx_config) = (config(START), config(START + (len - ring) / 64 * 64));
        let map = memory(len);
        let guest = Guest(Arc::clone(&map));
        let data = START + ring;
        let tx = Side::new(&guest, tx_config, data);
        let rx = Side::new(&guest, rx_config, data + SIDE);
        let queues = Queues {
            tx: TxQueue::new(tx_config, Arc::clone(&map), None).unwrap(),
            rx: RxQueue::new(rx_config, map, None).unwrap(),
        };
        let file = SharedMemory::create("log", PAGE, false).unwrap().fd().try_clone_to_owned().unwrap();
        let log = DirtyLog::map(file.as_fd().try_clone_to_owned().unwrap(), 0, LOG_BYTES as u64).unwrap();
        log.check_covers(&guest.0).unwrap();
        let (file, log) = (File::from(file), Arc::new(log));
        let due = BTreeSet::new();
        Self { guest, memory: len, tx, rx, queues, file, log, logging: None, due, frames: 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        self.guest.bytes(START, usize::try_from(self.memory).unwrap())
    }

    /// Lets the device do something, and notes what it changed.
    fn device<R>(&mut self, act: impl FnOnce(&mut Queues) -> R) -> R {
        let before = self.bytes();
        let result = act(&mut self.queues);
        let Some(elsewhere) = self.logging else { return result };
        let after = self.bytes();
        let lines = (START..).step_by(LINE).zip(before.chunks(LINE).zip(after.chunks(LINE)));
        for (line, (before, after)) in lines.filter(|(_, (before, after))| before != after) {
            for (at, _) in (line..).zip(before.iter().zip(after)).filter(|(_, (before, after))| before != after) {
                let areas = [self.tx.device_area(), self.rx.device_area()];
                let area = areas.into_iter().filter(|_| elsewhere).find(|area| area.contains(&at));
                let logged = area.map_or(at, |area| ELSEWHERE + (at - area.start));
                self.due.insert(logged / PAGE);
            }
        }
        result
    }

    /// Everything that is due is in the log; then it is taken.
    fn take(&mut self) {
        let mut bits = [0; LOG_BYTES];
        self.file.read_exact_at(&mut bits, 0).unwrap();
        self.file.write_all_at(&[0; LOG_BYTES], 0).unwrap();
        for page in std::mem::take(&mut self.due) {
            let at = usize::try_from(page).unwrap();
            assert!(bits[at / 8] >> (at % 8) & 1 != 0, "page {page:#x} changed and is not in the log");
        }
        if self.logging.is_none() {
            return;
        }
        // Nor is everything: the log is of use.
        let pages = self.memory / PAGE + 4;
        let marked: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        assert!(u64::from(marked) <= pages, "{marked} pages are marked, the guest has {pages}");
    }

    fn set_log(&mut self, on: bool, elsewhere: bool) {
        let pages = || on.then(|| Box::new(DirtyPages::new(Arc::clone(&self.log), elsewhere.then_some(ELSEWHERE))));
        let old = [self.queues.tx.set_log(pages()), self.queues.rx.set_log(pages())];
        assert!(old.iter().all(|old| old.is_some() == self.logging.is_some()));
        // What was written before is there, though the old ones are not dropped yet.
        self.take();
        drop(old);
        self.logging = on.then_some(elsewhere);
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::PostTx { len, cuts, indirect } => self.tx.post(12 + u32::from(*len), cuts, *indirect, false),
            Operation::PostRx { len, cuts, indirect } => self.rx.post(12 + u32::from(*len), cuts, *indirect, true),
            Operation::Complete => {
                while self.tx.driver.complete().is_some() {}
                while self.rx.driver.complete().is_some() {}
            }
            Operation::Prefetch(n) => drop(self.device(|queues| queues.rx.prefetch(usize::from(*n)).unwrap())),
            Operation::Deliver { len, head } => {
                let bytes = self.frame(usize::from(*len));
                let (head, tail) = bytes.split_at(usize::from(*head).min(bytes.len()));
                self.device(|queues| queues.rx.deliver(&NetHeader::default(), head, Tail::Bytes(tail)).unwrap());
            }
            Operation::Burst { count, len } => {
                let bytes = self.frame(usize::from(*len));
                let frame = Frame { header: NetHeader::default(), head: &bytes, tail: Tail::None };
                self.device(|queues| queues.rx.deliver_burst(usize::from(*count), |_| frame).unwrap());
            }
            Operation::Forward(max) => {
                self.device(|queues| {
                    forward(&mut queues.tx, &mut queues.rx, usize::from(*max)).unwrap();
                });
            }
            Operation::Release(count) => self.device(|queues| {
                queues.tx.harvest(usize::from(*count)).unwrap();
                queues.tx.release(usize::from(*count));
            }),
            Operation::Publish => self.publish(),
            Operation::Kicks(enabled) => self.device(|queues| {
                queues.tx.set_kicks(*enabled);
                queues.rx.set_kicks(*enabled);
            }),
            Operation::Move => {
                let map = Arc::clone(&self.guest.0);
                self.device(|queues| {
                    queues.tx.forget();
                    queues.tx.set_memory(Arc::clone(&map)).unwrap();
                    queues.rx.set_memory(map).unwrap();
                });
            }
            Operation::Log { on, elsewhere } => self.set_log(*on, *elsewhere),
            Operation::Take => {
                self.publish();
                self.take();
            }
        }
    }

    fn publish(&mut self) {
        self.device(|queues| {
            queues.rx.publish();
            queues.tx.publish();
        });
    }

    fn frame(&mut self, len: usize) -> Vec<u8> {
        self.frames += 1;
        (0..len).map(|i| (i * 7 + 1).to_le_bytes()[0] ^ self.frames.to_le_bytes()[0]).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_page_that_changes_is_in_the_log(
        packed in any::<bool>(),
        features in 0..32_usize,
        size in 1..9_u32,
        base in any::<prop::sample::Index>(),
        start_on in any::<bool>(),
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        let kind = if packed { RingKind::Packed } else { RingKind::Split };
        let size = 1 << size;
        let bases = bases(kind, size);
        let base = bases[base.index(bases.len())];
        let mut world = World::new(size, all_features(kind).nth(features).unwrap(), base);
        if start_on {
            world.set_log(true, false);
        }
        for operation in &operations {
            world.run(operation);
        }
        // The queues go without a last publication: what they wrote is there nevertheless.
        let World { due, file, queues, .. } = world;
        drop(queues);
        let mut bits = [0; LOG_BYTES];
        file.read_exact_at(&mut bits, 0).unwrap();
        for page in due {
            let at = usize::try_from(page).unwrap();
            prop_assert!(bits[at / 8] >> (at % 8) & 1 != 0, "page {page:#x} changed and is not in the log");
        }
    }
}

/// A log that is too short, or a ring that is said to lie beyond it: counted, and the queue goes on.
#[test]
fn what_a_log_has_no_bits_for_is_counted() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let features = all_features(kind).next().unwrap();
        let mut world = World::new(8, features, RingBase::initial(kind));
        let file = SharedMemory::create("log", PAGE, false).unwrap().fd().try_clone_to_owned().unwrap();
        let short = Arc::new(DirtyLog::map(file, 0, 1).unwrap());
        assert!(short.check_covers(&world.guest.0).is_err());
        world.queues.rx.set_log(Some(Box::new(DirtyPages::new(Arc::clone(&short), Some(u64::MAX - 1)))));
        assert!(short.take_beyond() > 0, "the ring");
        world.run(&Operation::PostRx { len: 1000, cuts: vec![], indirect: false });
        world.run(&Operation::Deliver { len: 900, head: 100 });
        world.run(&Operation::Publish);
        assert!(short.take_beyond() > 0, "the buffer");
        assert!(world.rx.driver.complete().is_some());
        assert!(!world.queues.rx.log_is_lost());
    }
}
