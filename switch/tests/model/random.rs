// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random stories. Until it can be trusted to judge others, the interpreter is told some about itself.

use std::collections::BTreeMap;

use packet::DropCause;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use switch::engine::ShardStats;
use switch::model::{Direction, PortPolicy};

use crate::choices::Choices;
use crate::driver::{Summary, tell};
use crate::engine::Port;
use crate::interpreter::{Interpreter, Outcome, Totals};
use crate::switch_under_test::Switch;
use crate::traffic::story;

/// A switch that is an interpreter which chooses at random.
struct Chooser {
    interpreter: Interpreter,
    seed: u64,
    /// What it does wrong, if anything.
    fault: Option<Fault>,
    faults: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The last byte of a frame it changed is wrong.
    Byte,
    /// A packet that was to be dropped is let through.
    LetsThrough,
    /// A packet that was to pass is dropped.
    Drops,
    /// The wrong cause.
    Cause,
    /// Counts a packet twice.
    Counts,
    /// Policy changes never reach it.
    OldPolicy,
}

impl Chooser {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        Self { interpreter: Interpreter::new(), seed, fault, faults: 0 }
    }
}

impl Switch for Chooser {
    fn set_policy(&mut self, policy: &PortPolicy) {
        if self.fault != Some(Fault::OldPolicy) || self.faults == 0 {
            self.interpreter.set_policy(policy.clone());
        }
        self.faults += usize::from(self.fault == Some(Fault::OldPolicy));
    }

    fn process(&mut self, direction: Direction, frame: Vec<u8>, now_ns: u64) -> Outcome {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let outcome = self.interpreter.decide_by(direction, &frame, now_ns, &mut Choices::random(self.seed));
        let wrong = match (self.fault, &outcome) {
            (Some(Fault::Byte), Outcome::Forwarded(after)) if *after != frame => {
                let mut after = after.clone();
                *after.last_mut().unwrap() ^= 1;
                Outcome::Forwarded(after)
            }
            (Some(Fault::LetsThrough), Outcome::Dropped(_)) => Outcome::Forwarded(frame),
            (Some(Fault::Drops), Outcome::Forwarded(_)) => Outcome::Dropped(DropCause::PolicyBlock),
            (Some(Fault::Cause), Outcome::Dropped(_)) => Outcome::Dropped(DropCause::Runt),
            _ => return outcome,
        };
        self.faults += 1;
        wrong
    }

    fn sweep(&mut self, now_ns: u64) {
        self.interpreter.forget(now_ns);
    }

    fn totals(&mut self) -> Option<Totals> {
        let mut totals = self.interpreter.totals()?;
        if self.fault == Some(Fault::Counts)
            && let Some(total) = totals.values_mut().next()
        {
            total.0 += 1;
            self.faults += 1;
        }
        Some(totals)
    }

    fn connections(&mut self) -> Option<usize> {
        Some(self.interpreter.worlds()[0].connections.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is chosen where there is a choice, the judge finds it possible.
    #[test]
    fn an_interpreter_that_chooses_at_random_is_right(story in story(120), seed: u64) {
        tell(&story, &mut Chooser::new(seed, None)).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]


    /// The fast path and the slow one are what the definition says, byte for byte.
    #[test]
    fn the_engine_is_right(story in story(120), seed: u64) {
        tell(&story, &mut Port::new(seed)).map_err(TestCaseError::fail)?;
    }
}

/// So many, or as many as somebody wants who has time: `MODEL_CASES=100000 cargo test --test model`.
fn cases(usual: u32) -> u32 {
    std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// The same stories every time.
fn stories(count: usize) -> impl Iterator<Item = crate::traffic::Story> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (0..count).map(move |_| story(120).new_tree(&mut runner).unwrap().current())
}

#[test]
fn whoever_is_wrong_is_found_out() {
    for fault in [Fault::Byte, Fault::LetsThrough, Fault::Drops, Fault::Cause, Fault::Counts] {
        let mut faults = 0;
        for story in stories(20) {
            let mut switch = Chooser::new(7, Some(fault));
            let told = tell(&story, &mut switch);
            faults += switch.faults;
            assert_eq!(told.is_err(), switch.faults > 0, "{fault:?}: {told:?}");
        }
        assert!(faults > 5, "{fault:?} happens");
    }
    let noticed = stories(20).filter(|story| tell(story, &mut Chooser::new(7, Some(Fault::OldPolicy))).is_err());
    assert!(noticed.count() > 5, "changes of policy matter");
}

#[test]
fn stories_reach_everything() {
    let mut all = Summary::default();
    let mut most_worlds = 0;
    let mut places = BTreeMap::new();
    for story in stories(150) {
        let mut switch = Chooser::new(7, None);
        let told = tell(&story, &mut switch).unwrap();
        all.packets += told.packets;
        all.forwarded += told.forwarded;
        all.changed += told.changed;
        all.dropped += told.dropped;
        all.parked += told.parked;
        all.hairpinned += told.hairpinned;
        all.entries += told.entries;
        all.changes += told.changes;
        all.errors += told.errors;
        all.fragments += told.fragments;
        all.connections = all.connections.max(told.connections);
        most_worlds = most_worlds.max(told.worlds);
        *places.entry(told.connections).or_insert(0) += 1;
    }
    println!("{all:?}, {most_worlds} worlds, stories by connections: {places:?}");
    assert!(all.forwarded * 3 > all.packets, "not everything is dropped: {all:?}");
    assert!(all.dropped * 10 > all.packets && all.changed * 10 > all.packets, "{all:?}");
    assert!(all.entries * 20 > all.packets, "connections matter: {all:?}");
    assert!(all.fragments > 10, "fragments are translated: {all:?}");
    assert!(all.errors > 20, "ICMP errors are translated: {all:?}");
    assert!(all.parked > 0 && all.hairpinned > 0 && all.changes > 60, "{all:?}");
}

/// All paths through the engine are taken.
#[test]
fn stories_reach_every_path() {
    let mut all = ShardStats::default();
    for story in stories(150) {
        let mut switch = Port::new(3);
        tell(&story, &mut switch).unwrap();
        let stats = switch.stats();
        for (sum, one) in [
            (&mut all.hits, stats.hits),
            (&mut all.misses, stats.misses),
            (&mut all.revalidated, stats.revalidated),
            (&mut all.replanned, stats.replanned),
            (&mut all.ended_by_policy, stats.ended_by_policy),
            (&mut all.implausible, stats.implausible),
            (&mut all.expired, stats.expired),
            (&mut all.nat_exhausted, stats.nat_exhausted),
            (&mut all.icmp_errors, stats.icmp_errors),
            (&mut all.waiting, stats.waiting),
            (&mut all.confirmed, stats.confirmed),
        ] {
            *sum += one;
        }
        all.early_fragments += stats.early_fragments;
        all.bad_fragments += stats.bad_fragments;
        let bounds = [stats.over_budget, stats.evicted, stats.evicted_small, stats.table_full, stats.unparsed];
        assert_eq!(bounds, [0; 5], "these are other tests' business");
    }
    println!("{all:?}");
    let taken = [
        all.hits,
        all.misses,
        all.revalidated,
        all.replanned,
        all.ended_by_policy,
        all.implausible,
        all.expired,
        all.nat_exhausted,
        all.icmp_errors,
        all.waiting,
        all.confirmed,
        all.early_fragments,
        all.bad_fragments,
    ];
    assert!(taken.iter().all(|times| *times > 10), "{all:?}");
}
