// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy on bursts: the first packet of a flow is planned, every later one is a look-up (VF-15, VF-18).
//!
//! # Theory of operation
//!
//! A worker has one [`Engine`], which has a `Shard` for each port whose policy the worker carries out.
//! Nobody else touches either, so there is nothing to lock. All packets of a burst are parsed and hashed, then
//! all are looked up, then each is dealt with: so the cache misses of different packets overlap. A hit under
//! the present snapshot of the policy applies the flow's program once and has its outcome; what it
//! costs does not depend on how many layers or rules there are. Everything else is slow, bounded by a budget,
//! and ends in a flow or a drop:
//!
//! ```text
//!  hit, epoch current ─────────────────────────────► count, apply
//!  hit, epoch moved ──► does its path still hold? ─yes─► (as above)
//!                         │no: connection planned again from its beginning, then the flow
//!  miss ──► budget ──► connection? ──► plan ──► commit: connection, flow, pair
//! ```
//!
//! Every flow begins among the *small*, a bounded queue of what nobody has confirmed; it leaves when its
//! connection is established, or its pair was seen too. Floods therefore push out each other, and nothing
//! that works (VF-22).
//!
//! What policy lets pass keeps its verdict: where it goes is the forwarder's business, on the headers as
//! policy left them.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | [`Engine`]: the shards of a worker |
//! | `shard.rs` | a port's flows; what happens to a burst |
//! | `batch.rs` | a burst on its way to its flows |
//! | `runs.rs` | packets of one flow that stand together |
//! | `begin.rs` | the first packet of a flow |
//! | `reconcile.rs` | flows and connections after policy changed |
//! | `ends.rs` | forgetting: flows, connections, sweeping, room for others |
//! | `errors.rs`, `fragments.rs` | ICMP errors, fragments |
//! | `tunnels.rs` | what is too long once it is in a tunnel |
//! | `path.rs` | ways through the layers that flows have in common |
//! | `flow.rs` | `Unified` |
//! | `limits.rs` | how many flows a port may have |
//! | `through.rs` | from the flow at one port to that at the next |
//! | `report.rs` | what a shard says about itself |

mod batch;
mod begin;
mod budget;
mod ends;
mod errors;
mod flow;
mod fragments;
mod limits;
mod path;
mod reconcile;
mod report;
mod runs;
mod shard;
mod through;
mod treatment;
mod tunnels;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test frames are short")]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use packet::{Burst, PortId};

pub use limits::FlowLimits;
pub use report::{FlowReport, PortReport, ShardStats};
pub use tunnels::TunnelStats;

use crate::Name;
use crate::compile::Snapshot;
use crate::condition::Key;
use crate::model::Direction;
use crate::plan::{Plan, Request};
use shard::Shard;
use through::Trail;

/// Most events that wait to be told; later ones are counted and forgotten.
const MAX_EVENTS: usize = 1024;

/// How much an [`Engine`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Flows of each port that are confirmed: two for each connection.
    pub flows: usize,
    /// Flows of each port that are not.
    pub small_flows: usize,
    /// Flows that may begin at a port in a second, and at once.
    pub plans_per_second: u32,
    /// Secret and random.
    pub seed: u64,
}

/// One worker's flows and what it needs to deal with a burst.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    /// By port number.
    shards: Vec<Option<Box<Shard>>>,
    names: Vec<Option<Name>>,
    /// By port number; `None`: those of the configuration.
    limits: Vec<Option<FlowLimits>>,
    events: VecDeque<Event>,
    lost_events: u64,
    /// ICMP errors, each for the guest of a port.
    replies: VecDeque<(PortId, Vec<u8>)>,
    lost_replies: u64,
    tunnel_mtu: Option<u32>,
    sweep_next: usize,
    /// Of the packets of the present burst the flow at the port that they came from.
    trail: Trail,
}

/// What a burst leaves for the caller to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// How many packets must wait.
    pub parked: usize,
    /// Whether packets of the port that wait may go on now.
    pub release: bool,
}

/// Something that a controller wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A map does not say what is asked of it; packets wait (VF-14).
    Miss {
        /// Whose policy asked.
        port: PortId,
        /// What is asked.
        request: Request,
    },
    /// A new connection found no address and port that is free.
    NatExhausted {
        /// On which port.
        port: PortId,
        /// Which rule has no more: `layer/group/rule`.
        rule: String,
    },
}

impl Engine {
    /// An engine without policy.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            shards: Vec::new(),
            names: Vec::new(),
            limits: Vec::new(),
            events: VecDeque::with_capacity(MAX_EVENTS),
            lost_events: 0,
            replies: VecDeque::new(),
            lost_replies: 0,
            tunnel_mtu: None,
            sweep_next: 0,
            trail: Trail::new(),
        }
    }

    /// Puts a port under this policy from the next burst on. The snapshot that it had comes back: who freed it
    /// here would make packets wait.
    pub fn set_policy(&mut self, port: PortId, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let at = port.index();
        if self.shards.len() <= at {
            self.shards.resize_with(at + 1, || None);
        }
        let slot = self.shards.get_mut(at)?;
        match slot {
            Some(shard) => Some(shard.set_snapshot(snapshot)),
            None => {
                let limits = self.limits.get(at).copied().flatten();
                let config = limits.map_or(self.config, |limits| self.config.limited(limits));
                *slot = Some(Box::new(Shard::new(port, snapshot, config, self.tunnel_mtu)));
                None
            }
        }
    }

    /// Says what a port is called, for rules that name it.
    pub fn name_port(&mut self, port: PortId, name: Option<Name>) {
        place(&mut self.names, port, name);
    }

    /// Says how many flows a port may have, before its first policy; `None`: as many as the engine's configuration says.
    pub fn limit_port(&mut self, port: PortId, limits: Option<FlowLimits>) {
        place(&mut self.limits, port, limits);
    }

    /// Forgets a port with all its flows, which come back to be freed elsewhere.
    pub fn remove_port(&mut self, port: PortId) -> Option<Retired> {
        self.name_port(port, None);
        self.limit_port(port, None);
        self.shards.get_mut(port.index())?.take().map(Retired)
    }

    /// Whether the port has policy here.
    #[inline]
    #[must_use]
    pub fn has_policy(&self, port: PortId) -> bool {
        self.shard(port).is_some_and(|shard| !shard.snapshot().is_empty())
    }

    /// Applies a port's policy to packets of a burst: outbound to those that are pending, inbound to those that
    /// are to be forwarded to the port. What is let through keeps its verdict, unless it is sent elsewhere. Returns
    /// what the caller has to do.
    pub fn process(&mut self, burst: &mut Burst, port: PortId, direction: Direction, now_ns: u64) -> Todo {
        let Self { shards, names, events, lost_events, trail, .. } = self;
        // Out of its place, so that it can look at the other shards.
        let Some(mut shard) = shards.get_mut(port.index()).and_then(Option::take) else { return Todo::default() };
        let mut outside = Outside { names, events, lost_events, shards, trail, parked: 0, release: false };
        shard.process(burst, direction, now_ns, &mut outside);
        let todo = Todo { parked: outside.parked, release: outside.release };
        if !shard.tunnels.replies.is_empty() {
            self.collect(port, &mut shard);
        }
        let Self { shards, .. } = self;
        if let Some(slot) = shards.get_mut(port.index()) {
            *slot = Some(shard);
        }
        todo
    }

    /// Says that a packet which policy let wait for a controller's answer waits no more and is dropped: it is counted by the
    /// rules that it met, as every other packet that is dropped on its way. `window` is its beginning, `len` its length.
    #[cold]
    pub fn give_up(&mut self, port: PortId, direction: Direction, window: &[u8], len: u32, now_ns: u64) {
        if let Some(Some(shard)) = self.shards.get_mut(port.index()) {
            shard.give_up(window, len, direction, now_ns);
        }
    }

    #[cold]
    fn collect(&mut self, port: PortId, shard: &mut Shard) {
        for reply in shard.tunnels.replies.drain(..) {
            if self.replies.len() < tunnels::MAX_REPLIES {
                self.replies.push_back((port, reply));
            } else {
                self.lost_replies += 1;
            }
        }
    }

    /// Says how long an IP packet may be on the link under the tunnels (decision 22); `None`: as long as it likes.
    pub fn set_tunnel_mtu(&mut self, mtu: Option<u32>) {
        self.tunnel_mtu = mtu;
        self.shards.iter_mut().flatten().for_each(|shard| shard.tunnels.mtu = mtu);
    }

    /// Frames for the guests of ports, which are to get them without policy.
    pub fn take_replies(&mut self) -> impl Iterator<Item = (PortId, Vec<u8>)> {
        self.replies.drain(..)
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Those that were forgotten because nobody took them.
    #[must_use]
    pub const fn lost_replies(&self) -> u64 {
        self.lost_replies
    }

    /// To be called before a burst is processed for the first time. As long as `forwarding` is the same number, the
    /// forwarder sends packets with the same addresses where it sent them before.
    pub fn begin_burst(&mut self, forwarding: u64) {
        self.trail.begin(forwarding);
    }

    /// To be called before packets are processed that are not those of the burst in their order: copies, say.
    pub fn leave_burst(&mut self) {
        self.trail.leave();
    }

    /// Works out what policy would do with a packet that came now (VF-29).
    #[must_use]
    pub fn simulate(&self, port: PortId, direction: Direction, key: &Key, now_ns: u64) -> Option<(Plan, &Snapshot)> {
        let shard = self.shard(port)?;
        Some((shard.simulate(direction, key, now_ns), shard.snapshot()))
    }

    /// Looks after up to `budget` flows: gives what they counted to their rules, and forgets those whose time is over.
    pub fn sweep(&mut self, now_ns: u64, budget: usize) {
        let mut left = budget;
        for _ in 0..self.shards.len() {
            if self.sweep_next >= self.shards.len() {
                self.sweep_next = 0;
            }
            let Some(Some(shard)) = self.shards.get_mut(self.sweep_next) else {
                self.sweep_next += 1;
                continue;
            };
            let (done, finished) = shard.sweep(now_ns, left);
            left = left.saturating_sub(done.max(1));
            if finished {
                self.sweep_next += 1;
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Number of flows of all ports, for a fair budget of [`sweep`](Self::sweep).
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shards.iter().flatten().map(|shard| shard.flows()).sum()
    }

    /// What a port's shard says about itself.
    #[must_use]
    pub fn report(&self, port: PortId) -> Option<PortReport> {
        Some(self.shard(port)?.report())
    }

    /// Up to `budget` places of a port's flows from `from` on, and where to go on; `None`: all were seen.
    pub fn list(&self, port: PortId, from: u32, budget: usize, mut hear: impl FnMut(FlowReport)) -> Option<u32> {
        self.shard(port)?.list(from, budget, |mut report| {
            self.add_names(&mut report);
            hear(report);
        })
    }

    /// Of up to `budget` flows from place `from` on those with which another policy would do something else, and
    /// where to go on.
    pub fn compare(
        &self,
        port: PortId,
        staged: &Snapshot,
        from: u32,
        budget: usize,
        now_ns: u64,
        mut hear: impl FnMut(FlowReport, Plan, Plan),
    ) -> Option<u32> {
        self.shard(port)?.compare(staged, from, budget, now_ns, |mut report, now, then| {
            self.add_names(&mut report);
            hear(report, now, then);
        })
    }

    /// Puts in what a shard does not know.
    fn add_names(&self, report: &mut FlowReport) {
        report.redirected_to = report.redirected.and_then(|port| self.names.get(port.index())?.clone());
    }

    /// A port's policy.
    #[must_use]
    pub fn snapshot(&self, port: PortId) -> Option<Arc<Snapshot>> {
        Some(Arc::clone(&self.shard(port)?.snapshot))
    }

    /// Gives what a port's flows counted to their rules, for up to `budget` flows; where to go on.
    pub fn fold(&mut self, port: PortId, from: u32, budget: usize) -> Option<u32> {
        self.shards.get_mut(port.index())?.as_deref_mut()?.fold(from, budget)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// Whether anything happened since the last call.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Events that were forgotten because nobody took them.
    #[must_use]
    pub const fn lost_events(&self) -> u64 {
        self.lost_events
    }

    fn shard(&self, port: PortId) -> Option<&Shard> {
        self.shards.get(port.index())?.as_deref()
    }
}

/// A port's flows, to be dropped where it hurts nobody.
#[derive(Debug)]
pub struct Retired(#[expect(dead_code, reason = "held to be dropped")] Box<Shard>);

/// What a shard needs of the engine around it.
#[derive(Debug)]
struct Outside<'a> {
    names: &'a [Option<Name>],
    events: &'a mut VecDeque<Event>,
    lost_events: &'a mut u64,
    shards: &'a mut Vec<Option<Box<Shard>>>,
    trail: &'a mut Trail,
    /// Packets that must wait.
    parked: usize,
    /// Whether packets that wait can go on.
    release: bool,
}

impl Outside<'_> {
    fn tell(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            *self.lost_events += 1;
        }
    }
}

/// Puts what is known of a port into its place.
fn place<T>(places: &mut Vec<Option<T>>, port: PortId, value: Option<T>) {
    let at = port.index();
    if places.len() <= at {
        places.resize_with(at + 1, || None);
    }
    if let Some(slot) = places.get_mut(at) {
        *slot = value;
    }
}

/// Milliseconds of the switch's clock, round and round.
#[expect(clippy::cast_possible_truncation, reason = "it goes round")]
pub(crate) const fn to_ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}
