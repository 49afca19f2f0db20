// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Floods and scans: what works goes on, what it takes is bounded, and nothing stays (VF-22, decision 17).
//!
//! The same with ten million packets of each sort, and with times: `examples/flood.rs`.

mod support;

use std::sync::Arc;

use packet::{Burst, DropCause, PortId, Verdict};
use support::{Crowd, Flood, SECOND, block, layer, rule, snapshot, stateful};
use switch::compile::Snapshot;
use switch::engine::{Engine, EngineConfig, PortReport};
use switch::model::Direction::{self, In, Out};
use switch::model::{Action, Default, Nat, Source};

const FLOODED: PortId = PortId(1);
const OTHER: PortId = PortId(2);
const CONFIG: EngineConfig = EngineConfig { flows: 8192, small_flows: 2048, plans_per_second: 5000, seed: 3 };
const PACKETS: u32 = 8192;
/// Connections of TCP and of UDP that each port has.
const EACH: u32 = 250;
const CONFIRMED: u64 = 4 * EACH as u64;

/// What the guest asks is answered, and its service may be asked.
fn open() -> Arc<Snapshot> {
    let rules = vec![rule("out", Out, &[], stateful(3600)), rule("service", In, &[], stateful(3600))];
    snapshot(layer("acl", 10, Default::Block, rules).into())
}

/// The same behind an address that all share.
fn translated() -> Arc<Snapshot> {
    let nat =
        Nat { source: Some(Source::Ranges(support::name("pool"))), destination: None, stateful: support::idle(60) };
    let mut edits = vec![support::pool("pool", [192, 0, 2, 1], 1024, 65_535)];
    let servers = [("dst_ip", "100.0.0.0/8")];
    edits.extend(layer("acl", 10, Default::Block, vec![rule("out", Out, &[], stateful(3600))]));
    edits.extend(layer("nat", 20, Default::Allow, vec![rule("out", Out, &servers, Action::Nat(nat))]));
    snapshot(edits)
}

struct Scene {
    engine: Engine,
    crowds: [Crowd; 2],
    burst: Box<Burst>,
    now: u64,
}

impl Scene {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        let mut engine = Engine::new(CONFIG);
        let now = 1000 * SECOND;
        let crowds = [FLOODED, OTHER].map(|port| {
            engine.set_policy(port, Arc::clone(snapshot));
            Crowd::establish(&mut engine, port, now, EACH, EACH)
        });
        Self { engine, crowds, burst: Burst::new(), now }
    }

    fn report(&self, port: PortId) -> PortReport {
        self.engine.report(port).expect("policy")
    }

    /// A flood at a million packets a second, all while the established connections of both ports go on.
    fn flood(&mut self, flood: Flood, direction: Direction, first: u32) {
        let before = self.report(FLOODED);
        let (mut over_budget, mut most) = (0, PortReport::default());
        let mut room = Vec::new();
        for from in (first..first + PACKETS).step_by(packet::MAX_BURST) {
            flood.fill(&mut self.burst, FLOODED, direction, from, &mut room);
            self.engine.begin_burst(0);
            self.engine.process(&mut self.burst, FLOODED, direction, self.now);
            let is_over = |verdict: &&Verdict| **verdict == Verdict::Drop(DropCause::PlanBudget);
            over_budget += self.burst.verdicts().iter().filter(is_over).count() as u64;
            self.now += 64_000;
            self.engine.sweep(self.now, 64);
            if from.is_multiple_of(4096) {
                for crowd in &self.crowds {
                    crowd.talk(&mut self.engine, &mut self.burst, self.now);
                }
                let now = self.report(FLOODED);
                most.flows = most.flows.max(now.flows);
                most.connections = most.connections.max(now.connections);
                most.datagrams = most.datagrams.max(now.datagrams);
                most.resting = most.resting.max(now.resting);
            }
        }
        let after = self.report(FLOODED);
        assert_eq!(after.stats.over_budget - before.stats.over_budget, over_budget, "{flood:?}: each is counted");
        assert!(over_budget > 0 || matches!(flood, Flood::Fragment), "{flood:?}: more than may begin");
        assert_eq!((after.stats.evicted, after.stats.confirmed), (0, CONFIRMED), "{flood:?}: the established stay");
        assert!(most.flows <= CONFIRMED + 2048 && most.connections <= CONFIRMED / 2 + 2048, "{flood:?}: {most:#?}");
        assert!(most.datagrams <= 1024 && most.resting <= 65_536, "{flood:?}: {most:#?}");
        assert_eq!(self.report(OTHER).stats.confirmed, CONFIRMED);
    }
}

/// VF-22: each sort of flood, into the port and out of it.
#[test]
fn established_connections_go_on_through_floods() {
    for (policy, direction) in [(open(), In), (open(), Out), (translated(), Out)] {
        let mut scene = Scene::new(&policy);
        let other = scene.report(OTHER);
        let mut memory = Vec::new();
        for (round, first) in [0_u32, 1 << 20].into_iter().enumerate() {
            for flood in Flood::ALL {
                scene.now += SECOND / 2;
                scene.flood(flood, direction, first);
            }
            memory.push((round, scene.report(FLOODED).memory));
        }
        // Places are used afresh as long as there are some; then nothing grows any more.
        assert_eq!(memory[0].1, memory[1].1, "{memory:?}");
        assert_eq!(scene.report(OTHER).memory, other.memory);
        // Another port's budget is its own.
        let mut room = Vec::new();
        Flood::Udp.fill(&mut scene.burst, OTHER, direction, 5 << 20, &mut room);
        scene.engine.begin_burst(0);
        scene.engine.process(&mut scene.burst, OTHER, direction, scene.now);
        assert_eq!(scene.report(OTHER).stats.misses, other.stats.misses + 64);
        assert_eq!(scene.report(OTHER).stats.over_budget, 0);
    }
}

/// VF-22: whatever was scanned, there is nothing left when its time is over.
#[test]
fn a_scan_leaves_nothing_behind() {
    for (policy, direction) in [(open(), In), (open(), Out), (translated(), Out)] {
        for flood in Flood::ALL {
            let mut engine = Engine::new(EngineConfig { plans_per_second: 1_000_000, ..CONFIG });
            engine.set_policy(FLOODED, Arc::clone(&policy));
            let (mut burst, mut room, mut now) = (Burst::new(), Vec::new(), 1000 * SECOND);
            for from in (0..8192).step_by(packet::MAX_BURST) {
                flood.fill(&mut burst, FLOODED, direction, from, &mut room);
                engine.begin_burst(0);
                engine.process(&mut burst, FLOODED, direction, now);
                now += 64_000;
            }
            // Connections that nobody answered live for 30 s, their names rest for 30 more; flows without, for 60 s.
            for _ in 0..20 {
                now += 5 * SECOND;
                engine.sweep(now, 20_000);
            }
            let report = engine.report(FLOODED).expect("policy");
            let left = PortReport {
                version: report.version,
                limits: report.limits,
                memory: report.memory,
                stats: report.stats,
                ..PortReport::default()
            };
            assert_eq!(report, left, "{flood:?} {direction:?}");
            assert_eq!(report.stats.confirmed, 0);
        }
    }
}

/// What a late layer drops never was a connection, whatever the layers before would have remembered.
#[test]
fn what_is_dropped_late_begins_nothing() {
    let mut edits: Vec<_> = layer("acl", 10, Default::Block, vec![rule("out", Out, &[], stateful(60))]).into();
    edits.extend(layer("edge", 20, Default::Allow, vec![rule("no", Out, &[("dst_ip", "100.0.0.0/8")], block())]));
    let mut engine = Engine::new(EngineConfig { plans_per_second: 1_000_000, ..CONFIG });
    engine.set_policy(FLOODED, snapshot(edits));
    let (mut burst, mut room, mut now) = (Burst::new(), Vec::new(), 1000 * SECOND);
    for flood in Flood::ALL {
        for from in (0..4096).step_by(packet::MAX_BURST) {
            flood.fill(&mut burst, FLOODED, Out, from, &mut room);
            engine.begin_burst(0);
            engine.process(&mut burst, FLOODED, Out, now);
            now += 64_000;
            let dropped = |verdict: &Verdict| {
                matches!(verdict, Verdict::Drop(DropCause::PolicyBlock) | Verdict::Park(DropCause::FragmentTimeout))
            };
            assert!(burst.verdicts().iter().all(dropped), "{flood:?}: {:?}", burst.verdicts());
            let report = engine.report(FLOODED).expect("policy");
            assert_eq!((report.connections, report.resting), (0, 0));
            assert!(report.flows <= 2048);
        }
    }
    // Fragments are remembered for longest: 30 s.
    for _ in 0..32 {
        now += SECOND;
        engine.sweep(now, 20_000);
    }
    let report = engine.report(FLOODED).expect("policy");
    assert_eq!((report.flows, report.paths, report.datagrams), (0, 0, 0));
}
