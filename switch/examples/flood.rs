// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a flood does to connections that are established: `cargo run --release -p shunt-switch --example flood [packets of each sort]
//! [plans per second]`.
//!
//! Two ports of one worker under a stateful firewall, with 1000 TCP and 1000 UDP connections each. Turns of three kinds are
//! taken in slices, one after the other: one burst of an established port alone; the same and a burst of the flood for the
//! other port; the same and a burst of what that port says in peace. Frames are copied into bursts outside of the time, and
//! the clock of the engine is the real one, so that its budget of plans is what it is in a node.
//!
//! Printed for each sort of flood, as ratios to the slices around: what a packet of the established port costs under
//! the flood; the rate of the port when the worker is busy all the time, and what it is when the other port is busy with
//! established connections instead, which is its fair share.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use packet::{Burst, DropCause, MAX_BURST, PortId, Verdict};
use support::{Crowd, Flood, layer, rule, snapshot, stateful};
use switch::engine::{Engine, EngineConfig};
use switch::model::Default;
use switch::model::Direction::{self, In, Out};

const FLOODED: PortId = PortId(1);
const QUIET: PortId = PortId(2);
/// Bursts of a slice.
const SLICE: usize = 128;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number"));
    let packets = arguments.next().unwrap_or(10_000_000);
    let plans_per_second = arguments.next().unwrap_or_else(|| EngineConfig::default().plans_per_second);
    let config = EngineConfig { seed: 11, plans_per_second, ..EngineConfig::default() };
    println!("{config:?}, {packets} packets of each sort");
    let rules = vec![rule("out", Out, &[], stateful(3600)), rule("service", In, &[], stateful(3600))];
    let policy = snapshot(layer("acl", 10, Default::Block, rules).into());
    for direction in [In, Out] {
        for flood in Flood::ALL {
            let mut engine = Engine::new(config);
            let crowds = [FLOODED, QUIET].map(|port| {
                engine.set_policy(port, Arc::clone(&policy));
                Crowd::establish(&mut engine, port, 1_000_000_000, 1000, 1000)
            });
            Run::new(engine, crowds).flood(flood, direction, packets);
        }
    }
}

struct Run {
    engine: Engine,
    crowds: [Crowd; 2],
    burst: Box<Burst>,
    room: Vec<u8>,
    begin: Instant,
    swept_ns: u64,
    longest: Duration,
    /// Turns of established connections so far, of each port.
    turns: [usize; 2],
}

/// Time of a slice's bursts: of the established port, and of the other.
#[derive(Clone, Copy, Default)]
struct Slice {
    quiet: Duration,
    other: Duration,
}

impl Run {
    fn new(engine: Engine, crowds: [Crowd; 2]) -> Self {
        Self {
            engine,
            crowds,
            burst: Burst::new(),
            room: Vec::new(),
            begin: Instant::now(),
            swept_ns: 0,
            longest: Duration::ZERO,
            turns: [0; 2],
        }
    }

    fn flood(mut self, flood: Flood, direction: Direction, packets: u32) {
        let before = [FLOODED, QUIET].map(|port| self.engine.report(port).expect("policy"));
        let (mut over_budget, mut n, mut cost, mut rate, mut fair) = (0, 0, Vec::new(), Vec::new(), Vec::new());
        let (mut flooded, mut memory) = (Duration::ZERO, Vec::new());
        while n < packets {
            let (mut alone, mut under, mut peace) = (Slice::default(), Slice::default(), Slice::default());
            for _ in 0..SLICE {
                alone.quiet += self.established(1);
            }
            for _ in 0..SLICE {
                under.quiet += self.established(1);
                flood.fill(&mut self.burst, FLOODED, direction, n, &mut self.room);
                n += u32::try_from(MAX_BURST).expect("64");
                under.other += self.process(FLOODED, direction);
                let over = |verdict: &&Verdict| **verdict == Verdict::Drop(DropCause::PlanBudget);
                over_budget += self.burst.verdicts().iter().filter(over).count() as u64;
            }
            for _ in 0..SLICE {
                peace.quiet += self.established(1);
                peace.other += self.established(0);
            }
            flooded += under.other;
            cost.push(alone.quiet.as_secs_f64() / under.quiet.as_secs_f64());
            rate.push(alone.quiet.as_secs_f64() / (under.quiet + under.other).as_secs_f64());
            fair.push(alone.quiet.as_secs_f64() / (peace.quiet + peace.other).as_secs_f64());
            if cost.len().is_multiple_of(64) {
                memory.push(self.engine.report(FLOODED).expect("policy").memory);
            }
        }
        let after = [FLOODED, QUIET].map(|port| self.engine.report(port).expect("policy"));
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((after.stats.evicted, after.stats.confirmed), (0, before.stats.confirmed), "none is evicted");
        }
        assert_eq!(after[1].stats.misses, before[1].stats.misses, "the other port knows all its packets");
        assert_eq!(after[0].stats.over_budget, over_budget);
        let bound = |after: &switch::engine::PortReport| {
            after.flows <= 4000 + (1 << 14) && after.connections <= 2000 + (1 << 14)
        };
        assert!(bound(&after[0]), "{:?}", after[0]);
        let [least, median] = [0, memory.len() / 2].map(|at| memory.get(at).copied().unwrap_or(0));
        println!(
            "{flood:?} {direction:?}: cost of a hit {:.3}, rate {:.3}, in peace {:.3}; flood {:.0} ns a packet, {:.1} % over budget, longest burst {:.0?}, memory {} / {} / {} KiB",
            middle(&mut cost),
            middle(&mut rate),
            middle(&mut fair),
            flooded.as_nanos() as f64 / f64::from(n),
            over_budget as f64 * 100.0 / f64::from(n),
            self.longest,
            least >> 10,
            median >> 10,
            after[0].memory >> 10,
        );
        // All of them are still there.
        let now = self.now();
        for crowd in &self.crowds {
            crowd.talk(&mut self.engine, &mut self.burst, now);
        }
    }

    /// One burst of what established connections say.
    fn established(&mut self, which: usize) -> Duration {
        let crowd = &self.crowds[which];
        let turn = self.turns[which];
        self.turns[which] += 1;
        let (direction, frames) = if turn.is_multiple_of(2) { (Out, &crowd.outbound) } else { (In, &crowd.inbound) };
        let bursts = frames.len() / MAX_BURST;
        frames.fill(&mut self.burst, crowd.port, direction, (turn / 2 % bursts) * MAX_BURST);
        let port = crowd.port;
        let time = self.process(port, direction);
        support::assert_passed(&self.burst, port, direction);
        time
    }

    fn process(&mut self, port: PortId, direction: Direction) -> Duration {
        let now = self.now();
        self.engine.begin_burst(0);
        let begin = Instant::now();
        self.engine.process(&mut self.burst, port, direction, now);
        let time = begin.elapsed();
        self.longest = self.longest.max(time);
        // As a worker does: all flows once a second, a few at a time.
        if now - self.swept_ns > 1_000_000 {
            let budget = self.engine.flows() / 1000 + 1;
            self.engine.sweep(now, budget);
            self.swept_ns = now;
        }
        time
    }

    fn now(&self) -> u64 {
        1_000_000_000 + u64::try_from(self.begin.elapsed().as_nanos()).expect("a while")
    }
}

fn middle(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}
