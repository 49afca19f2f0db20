// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Death at every store, and what the successor makes of it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::JournalFile;
use crate::config::{QueueConfig, QueueFeatures, RingBase, RingKind};
use crate::device::tests::{Guest, Numbers, completions, plain};
use crate::driver::DriverQueue;
use crate::{Delivered, NetHeader, RxQueue, Tail, TxQueue};

thread_local! {
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Unwinds when the number of steps allowed on this thread is used up: what was stored until then
/// stays, as in a process that is killed.
pub(crate) fn step() {
    LEFT.with(|left| match left.get() {
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(n) => left.set(Some(n - 1)),
        None => {}
    });
}

/// What a killed run unwinds with.
struct Killed;

/// Runs for so many steps; `None` if it was killed.
fn live<T>(steps: usize, run: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(Some(steps));
    let result = catch_unwind(AssertUnwindSafe(run));
    LEFT.set(None);
    match result {
        Ok(value) => Some(value),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// A guest, its journal, and what must hold: every chain completes once, in order.
struct World {
    guest: Guest,
    dir: tempfile::TempDir,
    driver: DriverQueue,
    numbers: Numbers,
    rx: bool,
    longest: u64,
    posted: u32,
    completed: u32,
}

impl World {
    fn new(size: u16, features: QueueFeatures, rx: bool, longest: u64, laps: u32, seed: u64) -> Self {
        let guest = Guest::new(size, features, 1);
        let driver = guest.driver();
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self { guest, dir, driver, numbers: Numbers(seed), rx, longest, posted: 0, completed: 0 };
        let mut config = world.guest.config;
        // Away from the start, so that evidence is old slots and both wrap counters occur.
        for _ in 0..laps {
            world.post();
            config.base = world.work(config);
            world.complete();
        }
        world
    }

    /// Fills the ring with chains of one to `longest` descriptors.
    fn post(&mut self) {
        loop {
            let most = self.longest.min(u64::from(self.guest.config.size));
            let pieces = 1 + self.numbers.below(most);
            let buffers: Vec<_> = (0..pieces).map(|_| self.guest.buffer(0, 100)).collect();
            let (out, into): (&[_], &[_]) = if self.rx { (&[], &buffers) } else { (&buffers, &[]) };
            if self.driver.post(out, into, self.posted).is_err() {
                break;
            }
            self.posted += 1;
        }
        self.driver.publish();
    }

    fn complete(&mut self) {
        for done in completions(&mut self.driver) {
            assert_eq!(done.token, self.completed);
            self.completed += 1;
        }
    }

    /// One life of the device: a few bursts, from where `config` says.
    fn work(&self, config: QueueConfig) -> RingBase {
        let file = JournalFile::open(&self.dir.path().join("port"), 1).unwrap();
        let journal = file.queue(0);
        if self.rx {
            let mut rx = RxQueue::new(config, self.guest.map(), journal).unwrap();
            for burst in 1..=3 {
                for _ in 0..burst {
                    let result = rx.deliver(&NetHeader::default(), &[1; 60], Tail::None).unwrap();
                    assert_ne!(result, Delivered::TooBig);
                }
                rx.publish();
            }
            rx.base()
        } else {
            let mut tx = TxQueue::new(config, self.guest.map(), journal).unwrap();
            for burst in 1..=3 {
                let held = tx.harvest(burst).unwrap();
                tx.release(held);
                tx.publish();
            }
            tx.base()
        }
    }

    /// Where a successor resumes.
    fn recover(&self) -> Option<RingBase> {
        let file = JournalFile::open(&self.dir.path().join("port"), 1).unwrap();
        file.queue(0).unwrap().recover(&self.guest.config, &self.guest.map())
    }
}

/// Kills the device after `steps` stores, its successor's recovery after `again` stores, and lets
/// the next one finish. `None` when the first was not killed any more.
fn two_deaths(world: &mut World, steps: usize, again: usize, driver_runs: bool) -> bool {
    world.post();
    let start = world.recover();
    let config = QueueConfig { base: start.unwrap_or(world.guest.config.base), ..world.guest.config };
    let killed = live(steps, || world.work(config)).is_none();
    if driver_runs {
        world.complete();
        world.post();
    }
    live(again, || world.recover());
    if driver_runs {
        world.complete();
        world.post();
    }
    let mut base = world.recover();
    assert!(base.is_some() || world.completed == 0, "the record is believed");
    // From there on everything posted completes.
    for _ in 0..1000 {
        if world.completed == world.posted {
            break;
        }
        let config = QueueConfig { base: base.unwrap_or(world.guest.config.base), ..world.guest.config };
        base = Some(world.work(config));
        world.complete();
    }
    assert_eq!(world.completed, world.posted, "steps {steps} again {again}");
    killed
}

#[test]
fn killed_at_every_store() {
    for (rx, in_order, mrg_rxbuf) in
        [(false, false, false), (false, true, false), (true, false, false), (true, true, true)]
    {
        let features = QueueFeatures { in_order, mrg_rxbuf, ..plain(RingKind::Packed) };
        for size in [1, 2, 5] {
            for laps in [0, 1, 3] {
                for driver_runs in [false, true] {
                    for steps in 0..100 {
                        let mut killed = false;
                        for again in [0, 1, 3, usize::MAX] {
                            let seed = u64::from(size) + steps as u64;
                            let mut world = World::new(size, features, rx, 3, laps, seed);
                            killed = two_deaths(&mut world, steps, again, driver_runs);
                        }
                        if !killed {
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// A world whose device has lived `laps` times and was killed at none. Chains are of one descriptor:
/// see `confirms` for why.
fn settled(laps: u32) -> World {
    let mut world = World::new(8, plain(RingKind::Packed), true, 1, laps, 1);
    world.post();
    world
}

#[test]
fn a_ring_that_was_reset_is_not_resumed() {
    for laps in 1..40 {
        let world = settled(laps);
        let base = world.recover().expect("intact");
        // Zeroed; then zeroed and posted anew.
        let mut driver = world.guest.driver();
        if base != RingBase::initial(RingKind::Packed) {
            assert_eq!(world.recover(), None, "zeroed after {laps}");
            for token in 0..8 {
                driver.post(&[], &[world.guest.buffer(0, 100)], token).unwrap();
            }
            driver.publish();
            assert_eq!(world.recover(), None, "posted anew after {laps}");
        }
    }
}

#[test]
fn another_ring_is_not_resumed() {
    let world = settled(3);
    let other = settled(3);
    assert!(world.recover().is_some());
    let file = JournalFile::open(&world.dir.path().join("port"), 1).unwrap();
    let journal = file.queue(0).unwrap();
    let (config, map) = (world.guest.config, world.guest.map());
    assert!(journal.recover(&config, &other.guest.map()).is_none());
    assert!(journal.recover(&other.guest.config, &other.guest.map()).is_none());
    for change in [
        |config: &mut QueueConfig| config.size -= 1,
        |config: &mut QueueConfig| config.features.in_order = true,
        |config: &mut QueueConfig| config.features.kind = RingKind::Split,
        |config: &mut QueueConfig| config.addresses.driver += 4,
    ] {
        let mut config = config;
        change(&mut config);
        assert!(journal.recover(&config, &map).is_none());
    }
    assert!(journal.recover(&config, &map).is_some());
    journal.clear();
    assert!(journal.recover(&config, &map).is_none());
}

#[test]
fn a_base_from_elsewhere_finds_its_own_evidence() {
    // Nothing is posted since: used elements are still there to be seen.
    let world = World::new(8, plain(RingKind::Packed), true, 1, 5, 1);
    let base = world.recover().unwrap();
    std::fs::remove_file(world.dir.path().join("port")).unwrap();
    let config = QueueConfig { base, ..world.guest.config };
    let file = JournalFile::open(&world.dir.path().join("port"), 1).unwrap();
    drop(RxQueue::new(config, world.guest.map(), file.queue(0)).unwrap());
    drop(file);
    assert_eq!(world.recover(), Some(base), "nothing was published in this life");
}
