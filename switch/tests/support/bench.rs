// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An engine, a port under policy, and a clock that only tests move.

use std::sync::Arc;

use packet::{Burst, MAX_BURST, Offload, PortId, Verdict, WINDOW};
use switch::compile::{Snapshot, commit};
use switch::engine::{Engine, EngineConfig, PortReport};
use switch::model::{Default, Direction, Edit, Group, PortPolicy, Rule};

use super::policy::{group, name, transaction};
use super::{Packet, Whole};

pub(crate) const PORT: PortId = PortId(1);
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Let through: the packet keeps the verdict that it came with.
pub(crate) const PASS: Option<Verdict> = None;

/// An engine with one port, whose whole state is compared after every packet.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) policy: PortPolicy,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) now: u64,
    /// Whether rules are told what flows counted after every packet, or only when it happens by itself.
    eager: bool,
    state: Whole,
    burst: Box<Burst>,
}

impl Bench {
    pub(crate) fn new(config: EngineConfig, eager: bool) -> Self {
        let mut engine = Engine::new(config);
        let snapshot = Arc::new(Snapshot::empty());
        engine.set_policy(PORT, Arc::clone(&snapshot));
        let state = Whole::of(&mut engine, &snapshot);
        Self { engine, policy: PortPolicy::empty(), snapshot, now: 1000 * SECOND, eager, state, burst: Burst::new() }
    }

    /// A transaction; nothing but the version may change.
    #[track_caller]
    pub(crate) fn edit(&mut self, edits: Vec<Edit>) {
        let next = commit(&self.policy, &self.snapshot, &transaction(edits), 1);
        let (policy, snapshot) = next.expect("a transaction");
        (self.policy, self.snapshot) = (policy, Arc::new(snapshot));
        self.engine.set_policy(PORT, Arc::clone(&self.snapshot));
        self.state.forget_all_but(&self.snapshot);
        self.moved("version+1", 0);
    }

    /// A layer of one group, `g`.
    #[track_caller]
    pub(crate) fn layer(&mut self, layer: &str, order: u32, default: Default, rules: Vec<Rule>) {
        self.groups(layer, order, default, vec![group("g", rules)]);
    }

    #[track_caller]
    pub(crate) fn groups(&mut self, layer: &str, order: u32, default: Default, groups: Vec<Group>) {
        let put = |group| Edit::PutGroup { layer: name(layer), group: Arc::new(group) };
        let mut edits = vec![Edit::PutLayer { name: name(layer), order, default }];
        edits.extend(groups.into_iter().map(put));
        self.edit(edits);
    }

    /// Offers a packet, and expects this verdict and these changes of state (see [`Whole::moved`]). Returns the frame as
    /// policy left it.
    #[track_caller]
    pub(crate) fn packet(
        &mut self,
        direction: Direction,
        packet: Packet,
        verdict: Option<Verdict>,
        changes: &str,
    ) -> Vec<u8> {
        self.frame(direction, &packet.bytes(direction), verdict, changes)
    }

    /// The same with a frame.
    #[track_caller]
    pub(crate) fn frame(
        &mut self,
        direction: Direction,
        frame: &[u8],
        verdict: Option<Verdict>,
        changes: &str,
    ) -> Vec<u8> {
        let (came, bytes) = self.offer(direction, frame);
        assert_eq!(came, verdict.unwrap_or_else(|| passed(direction)), "{}", self.port());
        self.moved(changes, frame.len() as u64);
        bytes
    }

    /// Offers a frame without looking at the state.
    pub(crate) fn offer(&mut self, direction: Direction, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.burst.clear();
        let len = u32::try_from(frame.len()).expect("a frame");
        let window = self.burst.push(PORT, len, Offload::NONE, 0).expect("room");
        window.copy_from_slice(&frame[..window.len()]);
        if direction == Direction::In {
            self.burst.set_pending(Verdict::Forward(PORT));
        }
        self.engine.begin_burst(0);
        self.engine.process(&mut self.burst, PORT, direction, self.now);
        (self.burst.verdict(0), self.burst.window(0).to_vec())
    }

    /// A packet that waited is given up.
    #[track_caller]
    pub(crate) fn give_up(&mut self, direction: Direction, packet: Packet, changes: &str) {
        let frame = packet.bytes(direction);
        let len = u32::try_from(frame.len()).expect("a frame");
        self.engine.give_up(PORT, direction, &frame[..frame.len().min(WINDOW)], len, self.now);
        self.moved(changes, len.into());
    }

    /// Time passes and all flows are looked after.
    #[track_caller]
    pub(crate) fn sweep_after(&mut self, seconds: u64, changes: &str) {
        self.now += seconds * SECOND;
        self.engine.sweep(self.now, 1 << 21);
        self.moved(changes, 0);
    }

    /// Time passes and nothing happens.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    /// Expects exactly these changes since the last time.
    #[track_caller]
    pub(crate) fn moved(&mut self, changes: &str, frame_len: u64) {
        if self.eager {
            self.fold();
        }
        let after = Whole::of(&mut self.engine, &self.snapshot);
        let wrong = self.state.moved(&after, changes, frame_len, self.eager);
        assert!(wrong.is_empty(), "{wrong}\n{}", self.port());
        self.state.become_with(after, changes, frame_len, self.eager);
    }

    /// In the end rules were told of every packet, however late.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        self.fold();
        let after = Whole::of(&mut self.engine, &self.snapshot);
        let wrong = self.state.moved(&after, "", 0, true);
        assert!(wrong.is_empty(), "in the end: {wrong}\n{}", self.port());
    }

    /// All there is to say about the port.
    pub(crate) fn port(&self) -> String {
        let mut text = format!("{:#?}\n", self.report());
        self.engine.list(PORT, 0, 100, |flow| {
            text += &format!(
                "  flow {} {:?} {:?} pending {:?} confirmed {} tcp {:?} dropped {:?}\n",
                flow.id, flow.direction, flow.tuple, flow.pending, flow.confirmed, flow.tcp, flow.dropped
            );
        });
        text
    }

    pub(crate) fn report(&self) -> PortReport {
        self.engine.report(PORT).expect("a port with policy")
    }

    /// How far the TCP connections have come, one for each of their flows.
    pub(crate) fn tcp(&self) -> Vec<switch::flow::tcp::State> {
        let mut states = Vec::new();
        self.engine.list(PORT, 0, usize::MAX, |flow| states.extend(flow.tcp));
        states
    }

    fn fold(&mut self) {
        let mut from = 0;
        while let Some(next) = self.engine.fold(PORT, from, MAX_BURST) {
            from = next;
        }
    }
}

/// The verdict of what was let through.
pub(crate) const fn passed(direction: Direction) -> Verdict {
    match direction {
        Direction::Out => Verdict::Pending,
        Direction::In => Verdict::Forward(PORT),
    }
}
