// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy on bursts: the first packet of a flow is planned, every later one is a look-up (VF-15, VF-18).
//!
//! # Theory of operation
//!
//! All packets of a burst are parsed and hashed, then all are looked up, then each is dealt with: so the
//! cache misses of different packets overlap. A hit under the present snapshot of the policy applies the flow's
//! [`Program`] once and has its outcome; what it costs does not depend on how many layers or rules there
//! are. A miss, or a flow of another snapshot, is planned through the layers (VF-20). Drops are flows,
//! too: a packet that policy drops is not planned again.
//!
//! What policy lets pass stays [`Verdict::Pending`]: where it goes is the forwarder's business, on the
//! headers as policy left them.
//!
//! Today every flow is forgotten with its table only: a full table plans each packet of a new flow, and
//! counts that. Stateful rules let pass what they match and remember nothing yet.

use packet::{Burst, DropCause, MAX_BURST, Parsed, Program, Verdict};

use crate::compile::Snapshot;
use crate::condition::{Key, REGISTERS};
use crate::flow::{FlowKey, FlowTable, Handle, Scope, Secret};
use crate::model::Direction;
use crate::plan::{Outcome, plan};

/// One worker's flows and what it needs to deal with a burst.
#[derive(Debug)]
pub struct Engine {
    flows: FlowTable<UnifiedFlow>,
    parsed: Vec<Place>,
    stats: EngineStats,
}

/// What the engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Packets of flows that were known under the present policy.
    pub hits: u64,
    /// Packets whose flow was not known.
    pub misses: u64,
    /// Packets whose flow was known under an older policy.
    pub replans: u64,
    /// Misses that found the table full.
    pub not_cached: u64,
    /// Packets that could not be parsed.
    pub unparsed: u64,
}

/// What the data path knows of a flow.
#[derive(Debug)]
struct UnifiedFlow {
    /// That of the snapshot it was planned under.
    epoch: u64,
    end: End,
}

/// What becomes of a flow's packets.
#[derive(Debug)]
enum End {
    Pass(Program),
    Drop(DropCause),
}

/// A packet of the burst that is to be dealt with.
#[derive(Debug)]
struct Place {
    at: usize,
    parsed: Parsed,
}

impl Engine {
    /// Room for `flows` flows. `seed` is secret and random.
    #[must_use]
    pub fn new(flows: usize, seed: u64) -> Self {
        Self {
            flows: FlowTable::new(flows, Secret::new(seed)),
            parsed: Vec::with_capacity(MAX_BURST),
            stats: EngineStats::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> &EngineStats {
        &self.stats
    }

    /// Number of flows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are no flows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Applies the policy of one port and direction to all pending packets of a burst. `scope` stands for
    /// both, and is theirs alone.
    pub fn process(&mut self, burst: &mut Burst, scope: Scope, direction: Direction, snapshot: &Snapshot) {
        self.parse(burst);
        let parsed = std::mem::take(&mut self.parsed);
        let mut keys: [Option<FlowKey<'_>>; MAX_BURST] = [None; MAX_BURST];
        for (key, place) in keys.iter_mut().zip(&parsed) {
            *key = Some(self.flows.key(scope, &place.parsed.ufid));
        }
        let mut found = [None; MAX_BURST];
        self.flows.find_all(keys.iter().map_while(Option::as_ref), &mut found);
        for ((place, key), found) in parsed.iter().zip(keys.iter().flatten()).zip(found) {
            self.deal_with(burst, place, key, found, direction, snapshot);
        }
        self.parsed = parsed;
    }

    fn parse(&mut self, burst: &mut Burst) {
        self.parsed.clear();
        for at in 0..burst.len() {
            if burst.verdict(at) != Verdict::Pending {
                continue;
            }
            match packet::parse::parse(burst.window(at), burst.frame_len(at)) {
                Ok(parsed) => self.parsed.push(Place { at, parsed }),
                Err(error) => {
                    self.stats.unparsed += 1;
                    burst.set_verdict(at, Verdict::Drop(error.cause()));
                }
            }
        }
    }

    fn deal_with(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        found: Option<Handle>,
        direction: Direction,
        snapshot: &Snapshot,
    ) {
        // An earlier packet of this burst may have begun the flow.
        let known = found.or_else(|| self.flows.find(key)).and_then(|handle| self.flows.get_mut(handle));
        match known {
            Some(flow) if flow.epoch == snapshot.epoch() => {
                self.stats.hits += 1;
                flow.apply(burst, place, key);
            }
            Some(flow) => {
                self.stats.replans += 1;
                *flow = UnifiedFlow::plan(place, direction, snapshot);
                flow.apply(burst, place, key);
            }
            None => {
                self.stats.misses += 1;
                let flow = UnifiedFlow::plan(place, direction, snapshot);
                flow.apply(burst, place, key);
                if self.flows.insert(key, flow).is_err() {
                    self.stats.not_cached += 1;
                }
            }
        }
    }
}

impl UnifiedFlow {
    fn plan(place: &Place, direction: Direction, snapshot: &Snapshot) -> Self {
        let Parsed { ufid, layout, .. } = &place.parsed;
        let plan = plan(snapshot, direction, &Key { ufid: *ufid, registers: [0; REGISTERS] });
        let end = match plan.outcome {
            Outcome::Drop(cause) => End::Drop(cause),
            Outcome::Forward => match plan.transposition.compile(ufid, layout) {
                Ok(program) => End::Pass(program),
                Err(_) => End::Drop(DropCause::Untransposable),
            },
        };
        Self { epoch: snapshot.epoch(), end }
    }

    #[inline]
    fn apply(&self, burst: &mut Burst, place: &Place, key: &FlowKey<'_>) {
        // The low half; the high one is what the index compares.
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        let flow_hash = key.hash as u32;
        let end = match &self.end {
            End::Pass(program) => program.apply(burst, place.at, &place.parsed.layout, flow_hash),
            End::Drop(cause) => Err(*cause),
        };
        if let Err(cause) = end {
            burst.set_verdict(place.at, Verdict::Drop(cause));
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test frames are short")]
mod tests;
