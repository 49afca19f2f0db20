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
//!
//! # Where the definition is silent
//!
//! * What a packet is dropped for because of what is no part of its flow's identity (`ttl_expired`,
//!   `ecn_not_capable`) is found behind all layers: if a layer drops it, that is the cause; if none does, the
//!   packet counts, and begins and refreshes connections, as if it had been let through. Of the two, the TTL's
//!   cause comes first.
//! * A packet that a layer drops has nothing to do with its connection: it refreshes nothing, moves no TCP state,
//!   and a SYN on what is over ends nothing unless it is let through as a packet of what is over.
//! * A connection ends when planned again if it is dropped, if a choice is not allowed any more, if it would
//!   leave with another tuple than before, or if no stateful rule is left. Whatever packet made that known then
//!   belongs to no connection, and may begin one, in either direction.
//! * A packet of the initiator that differs from the one that began the connection in what is no part of the tuple
//!   searches rules of its own. In a layer without an entry a stateful `allow` adds one, until the connection is
//!   planned again; what would translate it there drops it (`no_connection`): the connection has its names.
//! * TCP that can begin nothing may be dropped as if it could: flows that are dropped are dropped whatever their
//!   packets' flags.
//! * Without layers everything passes, whatever it is, and nothing is noticed.
//! * An ICMP error makes its connection planned again as its packets do.
//! * Fragments: what becomes of the first, which has the ports, becomes of the rest of its datagram (direction, tunnel,
//!   addresses, protocol, identification): the same end, and what was done to headers as far as that needs no
//!   ports. It counts where the first one did, if that was let through. What comes before its first waits. What
//!   has bytes that were seen before, or contradicts where the datagram ends, is dropped (`bad_fragment`), and so is
//!   a second first one within a second. A datagram is forgotten when it is complete, and after 30 s.
//! * An entry that translates is kept only if its tuple in front of the layer is the same as it was.
//! * A connection one of whose names is another's does not begin: its packet is dropped (`nat_exhausted`).
//! * Fixed ports do not touch the identifier of an echo; ranges give one. Protocols without ports get the address.
//! * Half-open is TCP that is not established, picked up midstream included.
//! * While a packet waits, nothing is counted or remembered of it. A packet that the new plan of its connection
//!   makes wait leaves the connection as it was.
//! * Counters belong to names: a rule of a group that is put again under its name goes on counting.
//! * What a flow prefers of several it always prefers to those: rendezvous by tuple as the layer sees it.
//! * Outer headers: no VLAN, MAC addresses zero, TTL 64, DSCP and ECN of the inner packet, 0 if that is not IP.

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
use step::Packet;
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
        for world in &mut self.worlds {
            world.connections.keep_layers(|layer| self.policy.layer(layer).is_some());
            let is_there = |layer: &Name, place: &Place| {
                let layer = self.policy.layer(layer);
                layer.is_some_and(|layer| match place {
                    Place::Default | Place::Entry => true,
                    Place::Rule(group, rule) => layer
                        .group(group)
                        .is_some_and(|group| group.group.rules.iter().any(|known| known.name == *rule)),
                })
            };
            world.totals.retain(|(layer, place), _| is_there(layer, place));
            for datagram in &mut world.datagrams {
                let places = datagram.deeds.iter().map(|(first, _)| (first.layer.clone(), first.place.clone()));
                datagram.gone.extend(places.filter(|(layer, place)| !is_there(layer, place)));
            }
        }
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
        let packet = Packet { direction, frame, now, marks: self.marks_of(direction, frame, seen)? };
        let (mut after, mut others): (Vec<World>, Vec<String>) = (Vec::new(), Vec::new());
        for before in &self.worlds {
            let mut choices = Choices::default();
            loop {
                let mut world = before.clone();
                let outcome = self.step(&mut world, &packet, &mut choices);
                match outcome {
                    Some(outcome) if outcome == *seen && after.contains(&world) => {}
                    Some(outcome) if outcome == *seen => after.push(world),
                    Some(outcome) => others.push(format!("{outcome:02x?} by {:?}", world.applied)),
                    None => {}
                }
                if !choices.advance() {
                    break;
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

    /// Whether what the engine counted is possible.
    pub(crate) fn judge_totals(&mut self, seen: &Totals) -> Result<(), String> {
        let zero = |totals: &Totals| -> Totals {
            totals.iter().filter(|(_, total)| **total != (0, 0)).map(|(key, total)| (key.clone(), *total)).collect()
        };
        let seen = zero(seen);
        if !self.worlds.iter().any(|world| zero(&world.totals) == seen) {
            return Err(format!("counted {seen:?}\n  not {:?}", zero(&self.worlds[0].totals)));
        }
        self.worlds.retain(|world| zero(&world.totals) == seen);
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

    /// What of the headers that the engine pushed depends on the hash of the flow: it must always be the same.
    fn marks_of(&mut self, direction: Direction, frame: &[u8], seen: &Outcome) -> Result<FlowMarks, String> {
        let mut marks = FlowMarks { port: 0xc000, flow_id: 0, label: 0 };
        let (Outcome::Forwarded(after) | Outcome::Hairpinned(_, after)) = seen else { return Ok(marks) };
        let Ok(wire::View { outer: Some((group, shim)), .. }) = wire::read(after) else { return Ok(marks) };
        let fields: Vec<u128> = Field::ALL.iter().map(|field| wire::field(frame, *field)).collect();
        let known = self.marks.entry((direction == Direction::In, fields)).or_default();
        // What came in a tunnel may still be in that one, with marks that somebody else made.
        let mut unknown = [None; 3];
        let known = if wire::field(frame, Field::Tunnel) == 0 { known } else { &mut unknown };
        if shim.tunnel == Tunnel::Nvgre {
            marks.flow_id = after[shim.key + 3];
            same(&mut known[1], marks.flow_id.into(), "flow id")?;
        } else {
            marks.port = wire::half(after, shim.at).unwrap();
            if marks.port < 0xc000 && wire::field(frame, Field::Tunnel) != 0 {
                marks.port = 0xc000;
            }
            if marks.port < 0xc000 {
                return Err(format!("outer source port {} is below 49152", marks.port));
            }
            same(&mut known[0], marks.port.into(), "outer source port")?;
        }
        if group.ip.is_some_and(|ip| ip.version == 6) {
            marks.label = wire::word(after, group.network).unwrap() & 0xf_ffff;
            same(&mut known[2], marks.label, "flow label")?;
        }
        Ok(marks)
    }
}

fn same(known: &mut Option<u32>, now: u32, what: &str) -> Result<(), String> {
    match *known.get_or_insert(now) {
        before if before == now => Ok(()),
        before => Err(format!("{what} of a flow was {before} and is {now}")),
    }
}
