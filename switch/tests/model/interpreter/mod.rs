// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A naive interpreter of policy: what docs/switch.md says under "What policy means", done step by step to
//! bytes, with nothing remembered but connections.
//!
//! # Theory of operation
//!
//! Some choices are the engine's to make: the port that SNAT gives, which of several back ends, routers and
//! tunnel ends. Not all of them can be read off the packet that comes out; a later layer may have hidden them
//! again. So the interpreter keeps *worlds*, all ways in which things may have gone that agree with every
//! packet that was seen. A packet takes each world to one or several others; those whose outcome is another one
//! are dropped. If none is left, the engine was wrong.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | which worlds agree with what was seen |
//! | `step.rs` | a packet takes a world to the next |
//! | `world.rs` | what a world remembers |

mod step;
mod world;

use std::collections::BTreeMap;

use packet::{DropCause, Field, Tunnel};
use switch::Name;
use switch::model::{Direction, PortPolicy};

use crate::choices::Choices;
use crate::edit::FlowMarks;
use crate::walk::Place;
use crate::wire;
pub(crate) use step::Packet;
pub(crate) use world::World;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Forwarded(Vec<u8>),
    /// To a port, or back to its own.
    Hairpinned(Option<Name>, Vec<u8>),
    Dropped(DropCause),
    Parked,
}

/// Packets and bytes.
pub(crate) type Total = (u64, u64);

/// What was counted, by layer and what applied there.
pub(crate) type Totals = BTreeMap<(Name, Place), Total>;

/// A flow: its direction and every field.
type Flow = (bool, Vec<u128>);

pub(crate) struct Interpreter {
    policy: PortPolicy,
    /// Grows with each change of policy.
    number: u64,
    worlds: Vec<World>,
    /// What depended on the hash of a flow: source port, flow id, flow label.
    marks: BTreeMap<Flow, [Option<u32>; 3]>,
}

impl Interpreter {
    pub(crate) fn new() -> Self {
        Self { policy: PortPolicy::empty(), number: 0, worlds: vec![World::default()], marks: BTreeMap::new() }
    }

    /// All ways in which things may have gone.
    pub(crate) fn worlds(&self) -> &[World] {
        &self.worlds
    }

    pub(crate) fn set_policy(&mut self, policy: PortPolicy) {
        self.policy = policy;
        self.number += 1;
        let policy = self.policy.clone();
        self.worlds.iter_mut().for_each(|world| world.change_policy(&policy));
    }

    /// Goes the first way that is possible.
    pub(crate) fn decide(&mut self, direction: Direction, frame: &[u8], now: u64) -> Outcome {
        self.decide_by(direction, frame, now, &mut Choices::default())
    }

    /// Goes a way of which somebody else decides.
    pub(crate) fn decide_by(&mut self, direction: Direction, frame: &[u8], now: u64, choices: &mut Choices) -> Outcome {
        let packet = Packet { direction, frame, now, marks: FlowMarks { port: 0xc000, flow_id: 0, label: 0 } };
        loop {
            let mut world = self.worlds[0].clone();
            if let Some(outcome) = self.step(&mut world, &packet, choices) {
                self.worlds = vec![world];
                return outcome;
            }
            assert!(choices.otherwise(), "there is a way to go");
        }
    }

    /// Forgets connections that are over.
    pub(crate) fn forget(&mut self, now: u64) {
        self.worlds.iter_mut().for_each(|world| world.connections.expire(now));
    }

    /// Whether what the engine did with a packet is possible.
    pub(crate) fn judge(&mut self, direction: Direction, frame: &[u8], now: u64, seen: &Outcome) -> Result<(), String> {
        let marks = marks_of(seen, frame);
        self.check_marks(direction, frame, seen, marks)?;
        let (mut after, mut others): (Vec<World>, Vec<String>) = (Vec::new(), Vec::new());
        for before in &self.worlds {
            for (outcome, world) in self.ways(before, &Packet { direction, frame, now, marks }) {
                if outcome != *seen {
                    others.push(format!("{outcome:02x?} by {:?}", world.applied));
                } else if !after.contains(&world) {
                    after.push(world);
                }
            }
        }
        if after.is_empty() {
            others.dedup();
            return Err(format!("{direction:?} {frame:02x?}\n  became {seen:02x?}\n  not {}", others.join("\n  or  ")));
        }
        self.worlds = after;
        Ok(())
    }

    /// All that may become of a packet in a world, and what that world is then.
    pub(crate) fn ways(&self, before: &World, packet: &Packet<'_>) -> Vec<(Outcome, World)> {
        let (mut ways, mut choices) = (Vec::new(), Choices::default());
        loop {
            let mut world = before.clone();
            if let Some(outcome) = self.step(&mut world, packet, &mut choices) {
                ways.push((outcome, world));
            }
            if !choices.advance() {
                return ways;
            }
        }
    }

    /// Whether what the engine counted is possible.
    pub(crate) fn judge_totals(&mut self, seen: &Totals) -> Result<(), String> {
        let mut seen = seen.clone();
        seen.retain(|_, total| *total != (0, 0));
        if !self.worlds.iter().any(|world| world.counted() == seen) {
            return Err(format!("counted {seen:?}\n  not {:?}", self.worlds[0].counted()));
        }
        self.worlds.retain(|world| world.counted() == seen);
        Ok(())
    }

    /// Whether there can be so many connections.
    pub(crate) fn judge_connections(&mut self, seen: usize, now: u64) -> Result<(), String> {
        self.forget(now);
        let count = |world: &World| world.connections.len();
        if !self.worlds.iter().any(|world| count(world) == seen) {
            return Err(format!("{seen} connections, not {}", count(&self.worlds[0])));
        }
        self.worlds.retain(|world| count(world) == seen);
        Ok(())
    }

    /// What of headers that the engine pushed depends on the hash of the flow is always the same.
    pub(crate) fn check_marks(
        &mut self,
        direction: Direction,
        frame: &[u8],
        seen: &Outcome,
        marks: FlowMarks,
    ) -> Result<(), String> {
        let (Outcome::Forwarded(after) | Outcome::Hairpinned(_, after)) = seen else { return Ok(()) };
        let Ok(wire::View { outer: Some((group, shim)), .. }) = wire::read(after) else { return Ok(()) };
        if wire::field(frame, Field::Tunnel) != 0 {
            // It may still be in the tunnel in which it came, with marks that somebody else made.
            return Ok(());
        }
        let fields = Field::ALL.iter().map(|field| wire::field(frame, *field)).collect();
        let known = self.marks.entry((direction == Direction::In, fields)).or_default();
        if shim.tunnel == Tunnel::Nvgre {
            same(&mut known[1], marks.flow_id.into(), "flow id")?;
        } else {
            same(&mut known[0], marks.port.into(), "outer source port")?;
        }
        if group.ip.is_some_and(|ip| ip.version == 6) {
            same(&mut known[2], marks.label, "flow label")?;
        }
        Ok(())
    }
}

/// What of the headers that the engine pushed onto a frame, if it did, depends on the hash of the flow.
pub(crate) fn marks_of(seen: &Outcome, frame: &[u8]) -> FlowMarks {
    let mut marks = FlowMarks { port: 0xc000, flow_id: 0, label: 0 };
    let (Outcome::Forwarded(after) | Outcome::Hairpinned(_, after)) = seen else { return marks };
    let Ok(wire::View { outer: Some((group, shim)), .. }) = wire::read(after) else { return marks };
    if shim.tunnel == Tunnel::Nvgre {
        marks.flow_id = after[shim.key + 3];
    } else {
        // The engine's are 49152 at least; with another, no way will be found that leads to this outcome.
        let port = wire::half(after, shim.at).unwrap();
        let is_old = wire::field(frame, Field::Tunnel) != 0;
        marks.port = if is_old { port.max(0xc000) } else { port | 0xc000 };
    }
    if group.ip.is_some_and(|ip| ip.version == 6) {
        marks.label = wire::word(after, group.network).unwrap() & 0xf_ffff;
    }
    marks
}

fn same(known: &mut Option<u32>, now: u32, what: &str) -> Result<(), String> {
    match *known.get_or_insert(now) {
        before if before == now => Ok(()),
        before => Err(format!("{what} of a flow was {before} and is {now}")),
    }
}
