// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The engine as what is held against the interpreter.

use std::sync::Arc;

use packet::{Burst, Offload, PortId, Verdict};
use switch::compile::Snapshot;
use switch::engine::{Engine, EngineConfig, ShardStats};
use switch::model::{Direction, PortPolicy};
use switch::tally::Total;

use crate::interpreter::{Outcome, Totals};
use crate::switch_under_test::Switch;
use crate::text::name;
use crate::walk::Place;

const PORT: PortId = PortId(1);
/// The port that rules name.
const LEFT: PortId = PortId(2);

/// One port of an engine.
pub(crate) struct Port {
    engine: Engine,
    snapshot: Arc<Snapshot>,
}

impl Port {
    pub(crate) fn new(seed: u64) -> Self {
        let config = EngineConfig { flows: 4096, small_flows: 4096, seed, ..EngineConfig::default() };
        let mut engine = Engine::new(config);
        engine.name_port(LEFT, Some(name("left")));
        Self { engine, snapshot: Arc::new(Snapshot::empty()) }
    }
}

impl Port {
    /// What the engine counted.
    pub(crate) fn stats(&self) -> ShardStats {
        self.engine.report(PORT).map_or_else(ShardStats::default, |report| report.stats)
    }
}

impl Switch for Port {
    fn set_policy(&mut self, policy: &PortPolicy) {
        self.snapshot = Arc::new(Snapshot::compile(policy, Some(&self.snapshot), 5).unwrap());
        self.engine.set_policy(PORT, Arc::clone(&self.snapshot));
    }

    fn process(&mut self, direction: Direction, frame: Vec<u8>, now_ns: u64) -> Outcome {
        self.process_all(direction, vec![frame], now_ns).remove(0)
    }

    fn process_all(&mut self, direction: Direction, frames: Vec<Vec<u8>>, now_ns: u64) -> Vec<Outcome> {
        let mut burst = Burst::new();
        for frame in &frames {
            let len = u32::try_from(frame.len()).unwrap();
            burst.push(PORT, len, Offload::NONE, 0).unwrap().copy_from_slice(frame);
        }
        let passes = match direction {
            Direction::Out => Verdict::Pending,
            Direction::In => Verdict::Forward(PORT),
        };
        burst.set_pending(passes);
        // It is a hint: with it or without it, the outcome is one.
        burst.set_runs(frames.len().is_multiple_of(2));
        self.engine.process(&mut burst, PORT, direction, now_ns);
        (0..frames.len()).map(|at| outcome_of(&burst, at, &[passes])).collect()
    }

    fn sweep(&mut self, now_ns: u64) {
        // A sweep ends behind the last port; the next begins in front of the first.
        for _ in 0..3 {
            self.engine.sweep(now_ns, usize::MAX);
        }
    }

    fn totals(&mut self) -> Option<Totals> {
        let mut from = Some(0);
        while let Some(at) = from {
            from = self.engine.fold(PORT, at, 1 << 20);
        }
        Some(totals_of(&self.snapshot))
    }

    fn connections(&mut self) -> Option<usize> {
        let connections = self.engine.report(PORT)?.connections;
        Some(usize::try_from(connections).unwrap())
    }

    fn describe(&self) -> String {
        let mut words = format!("{:?}\n", self.engine.report(PORT));
        let _ = self.engine.list(PORT, 0, usize::MAX, |flow| words += &format!("{flow:?}\n"));
        words
    }
}

/// What became of a packet; `passes` says what it is if it was let through.
pub(crate) fn outcome_of(burst: &Burst, at: usize, passes: &[Verdict]) -> Outcome {
    let bytes = || burst.window(at).to_vec();
    match burst.verdict(at) {
        verdict if passes.contains(&verdict) => Outcome::Forwarded(bytes()),
        Verdict::Forward(PORT) => Outcome::Hairpinned(None, bytes()),
        Verdict::Forward(LEFT) => Outcome::Hairpinned(Some(name("left")), bytes()),
        Verdict::Drop(cause) => Outcome::Dropped(cause),
        Verdict::Park(_) => Outcome::Parked,
        other => panic!("{other:?} is no outcome"),
    }
}

/// What was counted, without what never was.
pub(crate) fn totals_of(snapshot: &Snapshot) -> Totals {
    let mut totals = Totals::new();
    for layer in snapshot.totals() {
        let mut put = |place, total: Total| {
            if total != Total::default() {
                totals.insert((layer.layer.clone(), place), (total.packets, total.bytes));
            }
        };
        put(Place::Default, layer.default);
        put(Place::Entry, layer.entries);
        for group in &layer.groups {
            for (rule, total) in &group.rules {
                put(Place::Rule(group.group.clone(), rule.clone()), *total);
            }
        }
    }
    totals
}
