// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The planner: what policy does with a packet, worked out without doing any of it.
//!
//! # Theory of operation
//!
//! A packet is its [`Key`], and what it is to connections. It meets the layers in the order of its
//! direction; each one matches it as the layers before left it and applies at most one rule. What each layer
//! came to is a stage; the stages are the plan. Nothing is counted, allocated or remembered here:
//! whoever wants the effects commits the plan, and `simulate` prints it. For the same reason a flow whose
//! policy changed can be planned again without anybody noticing (VF-20).
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the walk through the layers |
//! | `trace.rs` | a plan in words |

#[cfg(test)]
pub(crate) mod tests;
mod trace;

use packet::transpose::Transposition;
use packet::{DropCause, Field, Tunnel};

pub use trace::Trace;

use crate::Name;
pub use crate::action::Request;
use crate::action::{Deed, Lookup, Situation, Standing, Stop, act, change};
use crate::compile::{CompiledLayer, Selected, Snapshot};
use crate::condition::{Key, REGISTERS};
use crate::flow::connection::{Connection, Entry, Role};
use crate::flow::connections::Connections;
use crate::flow::tuple::{Kind, Tuple};
use crate::model::{Default, Direction};

/// Room for groups searched in vain.
const SPARE: usize = 4;
/// Room for what stateful rules want remembered.
const FIRST_ENTRIES: usize = 2;

/// A packet in front of a port's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) direction: Direction,
    pub(crate) key: &'a Key,
    pub(crate) membership: Membership<'a>,
    pub(crate) connections: &'a Connections,
    pub(crate) now_ns: u64,
}

/// What a packet is to the connections of its port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Membership<'a> {
    /// It belongs to none, and can begin one.
    Begins,
    /// It belongs to one.
    Of(&'a Connection, Role),
    /// An ICMP error about one, and the tuple that packets of it have which go the error's way.
    About(&'a Connection, Role, Tuple),
    /// It belongs to none and begins none: stray TCP, or nothing that has connections.
    None,
}

/// What policy does with a packet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The version of the policy that was asked.
    pub version: u64,
    /// Which way the packet goes.
    pub direction: Direction,
    /// What each layer came to, in the order in which the packet meets them; after the end there are no more.
    pub(crate) stages: Vec<Stage>,
    /// Places of groups that were searched, of all stages in turn.
    pub(crate) searched: Vec<u16>,
    /// The packet behind the last stage.
    pub after: Key,
    /// What all stages together do to its headers (VF-17).
    pub transposition: Transposition,
    /// What becomes of it.
    pub outcome: Outcome,
    /// What the connection of the initiator is to remember.
    pub(crate) entries: Vec<Entry>,
    /// The least time to live of the rules that remember.
    pub(crate) idle_s: u32,
    /// Whether an address and port were taken from a list.
    pub(crate) from_ranges: bool,
    /// Whether what is no part of the flow's identity was decisive.
    pub(crate) transient: bool,
    /// Of an ICMP error the tuple that its connection's packets have behind the last stage.
    pub(crate) related: Option<Tuple>,
}

/// What a layer does with a packet.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Its place in the snapshot.
    pub(crate) layer: usize,
    /// How many groups were searched.
    pub(crate) searched: usize,
    pub(crate) choice: Choice,
    pub(crate) lookup: Option<Box<Lookup>>,
    /// By how many bytes the frame has grown in front of it.
    pub(crate) grown: i32,
}

/// What decided in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Rule { group: usize, place: usize },
    Default,
    Entry,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is forwarded.
    Forward,
    /// It goes to this port, or back to the one it came from.
    Hairpin(Option<Name>),
    /// It is dropped.
    Drop(DropCause),
    /// Its connection is over: what it was given is not allowed any more.
    Ended,
    /// It waits for an answer.
    Pending(Request),
}

/// Plans a packet. Registers are zero at the entry of each pipeline, whatever the key says.
pub(crate) fn plan(question: &Question<'_>) -> Plan {
    let mut walk = Walk::new(question);
    for (at, layer) in question.snapshot.walk(question.direction) {
        if let Err(outcome) = walk.meet(at, layer) {
            walk.plan.outcome = outcome;
            break;
        }
    }
    walk.plan
}

/// A packet on its way through the layers.
struct Walk<'a> {
    question: &'a Question<'a>,
    plan: Plan,
    /// What the packet is now.
    kind: Kind,
    /// Whether the transposition is something by now.
    changed: bool,
    grown: i32,
}

impl<'a> Walk<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        let related = match question.membership {
            Membership::About(_, _, tuple) => Some(tuple),
            _ => None,
        };
        let plan = Plan {
            version: question.snapshot.version(),
            direction: question.direction,
            stages: Vec::with_capacity(question.snapshot.layers().len()),
            // One group of each layer, often.
            searched: Vec::with_capacity(question.snapshot.layers().len().saturating_add(SPARE)),
            after: Key { registers: [0; REGISTERS], ..*question.key },
            transposition: Transposition::default(),
            outcome: Outcome::Forward,
            entries: Vec::new(),
            idle_s: u32::MAX,
            from_ranges: false,
            transient: false,
            related,
        };
        Self { question, kind: Kind::of(&plan.after.ufid), plan, changed: false, grown: 0 }
    }

    /// Takes the packet through a layer.
    fn meet(&mut self, at: usize, layer: &CompiledLayer) -> Result<(), Outcome> {
        if let Some((before, after)) = self.remembered(layer) {
            self.stage(at, 0, Choice::Entry, None);
            return if before == after { Ok(()) } else { self.transpose(change(before, after)) };
        }
        let before = self.plan.searched.len();
        let searched = &mut self.plan.searched;
        let hear = |place: usize, _: &_| searched.push(u16::try_from(place).unwrap_or(u16::MAX));
        let selected = layer.select(self.question.direction, &self.plan.after, hear);
        let count = self.plan.searched.len() - before;
        let Some(Selected { group, place, rule }) = selected else {
            self.stage(at, count, Choice::Default, None);
            return match layer.layer.default {
                Default::Allow => Ok(()),
                Default::Block => Err(Outcome::Drop(DropCause::PolicyDefault)),
            };
        };
        let choice = Choice::Rule { group, place };
        let standing = self.standing(layer);
        let situation = Situation {
            key: &self.plan.after,
            direction: self.question.direction,
            tuple: self.kind.tuple(),
            standing,
            snapshot: self.question.snapshot,
            connections: self.question.connections,
            now_ns: self.question.now_ns,
        };
        match act(&rule.action, &situation) {
            Ok(mut deed) => {
                self.stage(at, count, choice, deed.lookup.take());
                self.carry_out(layer, standing, deed)
            }
            Err(stop) => {
                let (outcome, lookup) = match stop {
                    Stop::Drop(cause, lookup) => (Outcome::Drop(cause), lookup),
                    Stop::Ended => (Outcome::Ended, None),
                    Stop::Pending(request) => (Outcome::Pending(request), None),
                };
                // Whether TCP can begin something is written in flags, which are no part of its identity.
                self.plan.transient |= standing == Standing::Stray && outcome == Outcome::Drop(DropCause::NoConnection);
                self.stage(at, count, choice, lookup);
                Err(outcome)
            }
        }
    }

    fn stage(&mut self, layer: usize, searched: usize, choice: Choice, lookup: Option<Box<Lookup>>) {
        self.plan.stages.push(Stage { layer, searched, choice, lookup, grown: self.grown });
    }

    /// What a layer does because it remembers the connection, without asking its rules: the tuple that the packet has,
    /// and the one that it gets.
    fn remembered(&mut self, layer: &CompiledLayer) -> Option<(Tuple, Tuple)> {
        match self.question.membership {
            Membership::Of(connection, Role::Responder) => {
                let entry = connection.entry(layer.id)?;
                let tuple = self.kind.tuple()?;
                (tuple == entry.after.reversed()).then(|| (tuple, entry.before.reversed()))
            }
            Membership::About(connection, role, _) => {
                let entry = connection.entry(layer.id)?;
                let (from, to) = match role {
                    Role::Initiator => (entry.before, entry.after),
                    Role::Responder => (entry.after.reversed(), entry.before.reversed()),
                };
                if self.plan.related? != from {
                    return None;
                }
                self.plan.related = Some(to);
                // Who complains may be anybody on the way; only the other end itself is known by another name.
                let is_end = self.plan.after.ufid.get(Field::IpSrc) == from.source;
                let source = if is_end { to.source } else { from.source };
                let ports = |tuple| Tuple { source_port: 0, destination_port: 0, ..tuple };
                Some((ports(from), ports(Tuple { source, ..to })))
            }
            Membership::Of(_, Role::Initiator) | Membership::Begins | Membership::None => None,
        }
    }

    fn standing(&self, layer: &CompiledLayer) -> Standing {
        match (self.question.membership, self.kind) {
            (Membership::Begins, Kind::Of(_)) => Standing::Beginning,
            (Membership::Of(connection, Role::Initiator), _) => Standing::Initiator(connection.entry(layer.id)),
            (Membership::Of(_, Role::Responder), _) => Standing::Responder,
            (Membership::None, Kind::Of(_)) => Standing::Stray,
            (Membership::About(..) | Membership::Begins | Membership::None, _) => Standing::Stateless,
        }
    }

    fn carry_out(&mut self, layer: &CompiledLayer, standing: Standing, deed: Deed) -> Result<(), Outcome> {
        let before = self.kind.tuple();
        if let Some((register, value)) = deed.register
            && let Some(slot) = self.plan.after.registers.get_mut(usize::from(register))
        {
            *slot = value;
        }
        if let Some(to) = deed.hairpin {
            self.plan.outcome = Outcome::Hairpin(to);
        }
        if let Some(transposition) = deed.transposition {
            self.transpose(*transposition)?;
        }
        let Some(remember) = deed.remember else { return Ok(()) };
        match standing {
            Standing::Beginning | Standing::Initiator(_) => {
                let (Some(before), Some(after)) = (before, self.kind.tuple()) else { return Ok(()) };
                if self.plan.entries.capacity() == 0 {
                    self.plan.entries.reserve(FIRST_ENTRIES);
                }
                self.plan.entries.push(Entry { layer: layer.id, before, after });
                self.plan.idle_s = self.plan.idle_s.min(remember.idle_s.get());
                self.plan.from_ranges |= deed.from_ranges;
            }
            Standing::Stray => self.plan.transient = true,
            Standing::Responder | Standing::Stateless => {}
        }
        Ok(())
    }

    fn transpose(&mut self, transposition: Transposition) -> Result<(), Outcome> {
        // What connections remember is nothing, mostly.
        if transposition.is_nothing() {
            return Ok(());
        }
        let untransposable = |_| Outcome::Drop(DropCause::Untransposable);
        let ufid = transposition.after(&self.plan.after.ufid).map_err(untransposable)?;
        self.grown += growth(&self.plan.after.ufid, &ufid);
        // Most packets are changed by one layer, if by any.
        self.plan.transposition = if self.changed {
            self.plan.transposition.then(&transposition).map_err(untransposable)?
        } else {
            transposition
        };
        self.changed = true;
        self.plan.after.ufid = ufid;
        self.kind = Kind::of(&ufid);
        Ok(())
    }
}

/// By how many bytes frames of one identity are longer than those of another that became it. Outer headers
/// are taken to have no options.
fn growth(before: &packet::Ufid, after: &packet::Ufid) -> i32 {
    let size = |ufid: &packet::Ufid| {
        let tag = |field| if ufid.get(field) == 0 { 0 } else { 4 };
        let ip = match ufid.get(Field::OuterIpVersion) {
            0 => 0,
            4 => 20,
            _ => 40,
        };
        let tunnel = ufid.get(Field::Tunnel);
        let header = match tunnel {
            _ if tunnel == Tunnel::None as u128 => 0,
            _ if tunnel == Tunnel::Nvgre as u128 => 14 + 8,
            _ if tunnel == Tunnel::Gre as u128 => 4,
            _ => 14 + 8 + 8,
        };
        tag(Field::Vlan) + tag(Field::SecondVlan) + tag(Field::OuterVlan) + ip + header
    };
    size(after) - size(before)
}
