// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two ports of one engine, each with a policy: what leaves one enters the other. What policy lets a packet be in
//! between is not seen; where the engine goes straight from flow to flow, it never is anything in between.

use std::sync::Arc;

use packet::{Burst, Offload, PortId, Verdict};
use proptest::prelude::*;
use switch::compile::Snapshot;
use switch::engine::{Engine, EngineConfig};
use switch::model::{Action, Direction, Edit, PortPolicy};

use crate::driver::{MOST_WORLDS, TICK, Talk, in_words};
use crate::edit::FlowMarks;
use crate::engine::{outcome_of, totals_of};
use crate::frame::Frame;
use crate::interpreter::{Interpreter, Outcome, Packet, World, marks_of};
use crate::policies::{START, beginning, changed};
use crate::random::cases;
use crate::text::Wanted;
use crate::traffic::{Move, Step, Story, story};

/// Outbound packets of a story come from the first.
const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

/// The engine, and what it may be.
struct Pair {
    engine: Engine,
    snapshots: [Arc<Snapshot>; 2],
    policies: [PortPolicy; 2],
    judges: [Interpreter; 2],
    worlds: Vec<[World; 2]>,
    now: u64,
}

/// A packet of a burst: the conversation, its move, and the frame.
type Said = (usize, Move, Vec<u8>);

impl Pair {
    fn new(seed: u64) -> Self {
        let config = EngineConfig { flows: 4096, small_flows: 4096, seed, ..EngineConfig::default() };
        Self {
            engine: Engine::new(config),
            snapshots: std::array::from_fn(|_| Arc::new(Snapshot::empty())),
            policies: std::array::from_fn(|_| PortPolicy::empty()),
            judges: std::array::from_fn(|_| Interpreter::new()),
            worlds: vec![<[World; 2]>::default()],
            now: START,
        }
    }

    fn change(&mut self, port: usize, edits: &[Edit]) {
        self.set(port, changed(&self.policies[port], edits));
    }

    fn set(&mut self, port: usize, policy: PortPolicy) {
        if policy == self.policies[port] {
            return;
        }
        self.snapshots[port] = Arc::new(Snapshot::compile(&policy, Some(&self.snapshots[port]), 5).unwrap());
        self.engine.set_policy(PORTS[port], Arc::clone(&self.snapshots[port]));
        self.judges[port].set_policy(policy.clone());
        self.worlds.iter_mut().for_each(|worlds| worlds[port].change_policy(&policy));
        self.policies[port] = policy;
    }

    fn wait(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now += TICK;
            for _ in 0..4 {
                self.engine.sweep(self.now, usize::MAX);
            }
        }
    }

    /// Takes a burst from one port to the other.
    fn cross(&mut self, from: usize, frames: &[Vec<u8>]) -> Vec<Outcome> {
        let to = PORTS[1 - from];
        let mut burst = Burst::new();
        for frame in frames {
            let len = u32::try_from(frame.len()).unwrap();
            burst.push(PORTS[from], len, Offload::NONE, 0).unwrap().copy_from_slice(frame);
        }
        burst.set_runs(frames.len().is_multiple_of(2));
        self.engine.begin_burst(1);
        self.engine.process(&mut burst, PORTS[from], Direction::Out, self.now);
        burst.set_pending(Verdict::Forward(to));
        self.engine.process(&mut burst, to, Direction::In, self.now);
        let arrives = [Verdict::Forward(to), Verdict::Deliver(to)];
        (0..frames.len()).map(|at| outcome_of(&burst, at, &arrives)).collect()
    }

    /// Whether what became of a packet is possible.
    fn judge(&mut self, from: usize, frame: &[u8], seen: &Outcome) -> Result<(), String> {
        let now = self.now;
        let (mut after, mut others) = (Vec::new(), Vec::new());
        // The port that put it into a tunnel wrote what depends on the hash of its flow there.
        let mut pushed = Vec::new();
        for before in &self.worlds {
            let packet = Packet { direction: Direction::Out, frame, now, marks: marks_of(seen, frame) };
            for (between, first) in self.judges[from].ways(&before[from], &packet) {
                let ends: Vec<(Outcome, World, Option<Vec<u8>>)> = match between {
                    Outcome::Forwarded(bytes) => {
                        let packet =
                            Packet { direction: Direction::In, frame: &bytes, now, marks: marks_of(seen, &bytes) };
                        let ways = self.judges[1 - from].ways(&before[1 - from], &packet);
                        ways.into_iter().map(|(end, second)| (end, second, Some(bytes.clone()))).collect()
                    }
                    dropped => vec![(dropped, before[1 - from].clone(), None)],
                };
                for (end, second, between) in ends {
                    let worlds = if from == 0 { [first.clone(), second] } else { [second, first.clone()] };
                    if end == *seen {
                        pushed.extend(between.filter(|between| !pushed.contains(between)));
                        if !after.contains(&worlds) {
                            after.push(worlds);
                        }
                    } else {
                        others.push(format!("{end:02x?} by {:?}", worlds.map(|world| world.applied)));
                    }
                }
            }
        }
        if after.is_empty() {
            others.dedup();
            return Err(format!("{frame:02x?}\n  became {seen:02x?}\n  not {}", others.join("\n  or  ")));
        }
        self.worlds = after;
        // What it was in between may be one of several things.
        let [between] = &*pushed else { return Ok(()) };
        let is_tunnelled = |bytes: &[u8]| crate::wire::field(bytes, packet::Field::Tunnel) != 0;
        let (judge, direction, frame) = match is_tunnelled(between) {
            true => (from, Direction::Out, frame),
            false => (1 - from, Direction::In, &**between),
        };
        if judge == from && self.pushes_anew(from, between, seen) {
            return Ok(());
        }
        self.judges[judge].check_marks(direction, frame, seen, marks_of(seen, frame))
    }

    /// Whether the second port takes off the tunnel that the first put on, and puts on another: then with other marks
    /// it would become something else.
    fn pushes_anew(&self, from: usize, between: &[u8], seen: &Outcome) -> bool {
        let marks = marks_of(seen, between);
        let marks = FlowMarks { port: marks.port ^ 1, flow_id: marks.flow_id ^ 1, label: marks.label ^ 1 };
        let packet = Packet { direction: Direction::In, frame: between, now: self.now, marks };
        let ways = |worlds: &[World; 2]| self.judges[1 - from].ways(&worlds[1 - from], &packet);
        !self.worlds.iter().flat_map(ways).any(|(end, _)| end == *seen)
    }

    /// Whether what was counted is possible.
    fn compare(&mut self) -> Result<(), String> {
        for port in 0..2 {
            let mut from = Some(0);
            while let Some(at) = from {
                from = self.engine.fold(PORTS[port], at, 1 << 20);
            }
            let seen = totals_of(&self.snapshots[port]);
            let possible = |worlds: &[World; 2]| worlds[port].counted() == seen;
            if !self.worlds.iter().any(possible) {
                return Err(format!("port {port} counted {seen:?}\n  not {:?}", self.worlds[0][port].counted()));
            }
            self.worlds.retain(possible);
        }
        Ok(())
    }

    /// How many packets went straight through.
    fn through(&self) -> u64 {
        PORTS.iter().filter_map(|port| self.engine.report(*port)).map(|report| report.stats.through).sum()
    }
}

/// Tells a story; how many packets went straight through.
fn tell(story: &Story, second: &[Edit], seed: u64) -> Result<u64, String> {
    let mut pair = Pair::new(seed);
    pair.change(0, &without_hairpin(&story.policy));
    pair.change(1, &without_hairpin(second));
    let mut talks: Vec<Talk> = story.conversations.iter().map(Talk::new).collect();
    let mut log = String::new();
    for (at, step) in story.steps.iter().enumerate() {
        if pair.worlds.len() > MOST_WORLDS {
            break;
        }
        match step {
            Step::Wait(ticks) => pair.wait(*ticks),
            Step::Change(edits) => pair.change(at % 2, &without_hairpin(edits)),
            Step::Move(number) => {
                // Packets of several conversations that go one way, and some more often.
                let mut said: Vec<Said> = Vec::new();
                let mut way = None;
                for number in [*number, number + 1, number + 3] {
                    let number = number % talks.len();
                    if said.iter().any(|(other, ..)| *other == number)
                        || way.is_some_and(|way| talks[number].way() != way)
                    {
                        continue;
                    }
                    let (one, direction, frame) = talks[number].speak();
                    way = Some(direction);
                    said.push((number, one, frame));
                }
                let from = usize::from(way == Some(Direction::In));
                let frames: Vec<_> = said.iter().map(|(_, _, frame)| frame.clone()).collect();
                let outcomes = pair.cross(from, &frames);
                for ((number, one, frame), outcome) in said.iter().zip(&outcomes) {
                    log += &in_words(pair.now, way.expect("somebody spoke"), frame, outcome);
                    pair.judge(from, frame, outcome).map_err(|why| format!("step {at}: {why}\n{log}"))?;
                    talks[*number].hear(one, outcome);
                }
                pair.compare().map_err(|why| format!("step {at}: {why}\n{log}"))?;
            }
        }
    }
    Ok(pair.through())
}

/// A packet that is turned back meets its own port's policy a second time: not here.
fn without_hairpin(edits: &[Edit]) -> Vec<Edit> {
    let mut edits = edits.to_vec();
    for edit in &mut edits {
        if let Edit::PutGroup { group, .. } = edit {
            let rules = Arc::make_mut(group).rules.iter_mut();
            let hairpins = rules.filter(|rule| matches!(rule.action, Action::Hairpin { .. }));
            hairpins.for_each(|rule| rule.action = Action::Count);
        }
    }
    edits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(100)))]

    /// Decision 7: what two policies do in turn, and what they do when the engine goes straight from flow to flow.
    #[test]
    fn two_ports_are_right(story in story(100), second in beginning(), seed: u64) {
        tell(&story, &second, seed).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn some_packets_go_straight_through() {
    let seconds = crate::random::generate(beginning(), 60);
    let through = crate::random::stories(60).zip(seconds).map(|(story, second)| tell(&story, &second, 5).unwrap());
    let through: u64 = through.sum();
    println!("{through} straight through");
    assert!(through > 50, "{through}");
}

/// Where packets went straight to is no place for what a new policy makes of them.
#[test]
fn a_change_of_policy_ends_the_straight_way() {
    let policy = |lines: &[&str], before: &PortPolicy| Wanted::parse(lines).after(before);
    let mut pair = Pair::new(1);
    let open = ["layer a 10 allow", "group g 0", "rule all 1 out -> allow"];
    let guarded = ["layer a 10 allow", "group g 0", "rule no 2 in dst_port=99 -> block"];
    pair.set(0, policy(&open, &PortPolicy::empty()));
    pair.set(1, policy(&guarded, &PortPolicy::empty()));
    let ask = Frame::parse(Direction::Out, "udp 10.0.0.1:1000 > 198.51.100.1:53");
    let (ask, answer) = (ask.to_bytes(), ask.answer().to_bytes());
    for _ in 0..4 {
        assert_eq!(pair.cross(0, std::slice::from_ref(&ask)), [Outcome::Forwarded(ask.clone())]);
        assert_eq!(pair.cross(1, std::slice::from_ref(&answer)), [Outcome::Forwarded(answer.clone())]);
    }
    assert!(pair.through() > 0, "the path that is meant");
    let diverted = ["layer a 10 allow", "group g 0", "rule all 1 out -> change dst_port=99"];
    pair.set(0, policy(&diverted, &pair.policies[0]));
    for _ in 0..4 {
        let blocked = Outcome::Dropped(packet::DropCause::PolicyBlock);
        assert_eq!(pair.cross(0, std::slice::from_ref(&ask)), [blocked]);
    }
}
