// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A packet on its way through the layers of its port.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use packet::transpose::Transposition;
use packet::{DropCause, MacAddr, Tunnel};
use switch::Name;
use switch::model::{
    Action, Answer, Balance, Content, Default, Destination, Direction, Encap, Endpoint, Nat, PortPolicy, PortRange,
    Source,
};

use crate::choices::Choices;
use crate::connections::{Connection, Connections, Entry, Free};
use crate::edit::{self, FlowMarks, Spent};
use crate::select::{Front, select};
use crate::wire::{self, Tuple};

const CANNOT: End = End::Drop(DropCause::Untransposable);

/// What a packet is to connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing<'a> {
    /// It may begin one.
    Begins,
    /// It goes the way of the one that began it.
    Initiator(&'a Connection),
    /// It goes the other way.
    Answer(&'a Connection),
    /// It is an ICMP error about one.
    About(&'a Connection),
    /// It has nothing to do with any.
    None,
}

/// Why a packet does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Drop(DropCause),
    /// Its connection has what rules do not allow any more.
    Ended,
    /// A controller is asked.
    Parked,
}

/// What applied in a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Default,
    /// That of the connection.
    Entry,
    Rule(Name, Name),
}

/// What applied in a layer to a packet, and how long the frame was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) layer: Name,
    pub(crate) place: Place,
    pub(crate) bytes: u64,
}

/// What was done to a packet in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    Became(Tuple),
    Decap,
    Dscp(u8),
    /// The new destination MAC address.
    SentTo(MacAddr),
    Encap {
        tunnel: Tunnel,
        vni: u32,
        ends: [IpAddr; 2],
    },
    Transpose(Arc<Transposition>),
}

/// Which of several a flow took before others: kind of the choice, tuple, winner, loser.
pub(crate) type Preferences = BTreeSet<(&'static str, Option<Tuple>, String, String)>;

/// A packet, and all that was done to it so far.
pub(crate) struct Walk<'a> {
    pub(crate) policy: &'a PortPolicy,
    pub(crate) direction: Direction,
    pub(crate) standing: Standing<'a>,
    pub(crate) connections: &'a mut Connections,
    pub(crate) preferences: &'a mut Preferences,
    pub(crate) choices: &'a mut Choices,
    pub(crate) marks: FlowMarks,
    pub(crate) now: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) registers: [u32; 8],
    pub(crate) entries: Vec<(Name, Entry)>,
    pub(crate) idle_s: u32,
    pub(crate) from_ranges: bool,
    pub(crate) hairpin: Option<Option<Name>>,
    pub(crate) spent: Spent,
    /// Of an ICMP error: what packets of its connection that go its way would be here.
    pub(crate) related: Option<Tuple>,
    pub(crate) applied: Vec<Applied>,
    /// All that was done, and in which layer.
    pub(crate) deeds: Vec<(Applied, Deed)>,
}

impl Walk<'_> {
    /// Meets all layers.
    pub(crate) fn run(&mut self) -> Result<(), End> {
        let policy = self.policy;
        let mut layers: Vec<_> = policy.layers().iter().collect();
        layers.sort_by_key(|layer| layer.order);
        if self.direction == Direction::In {
            layers.reverse();
        }
        for layer in layers {
            let name = &layer.name;
            if self.translate_error(name) {
                self.note(name, Place::Entry);
                continue;
            }
            if let Some(entry) = self.remembered(name) {
                self.note(name, Place::Entry);
                self.perform(Deed::Became(entry.before.reversed())).map_err(End::Drop)?;
                continue;
            }
            let front = Front { bytes: &self.bytes, registers: self.registers };
            match select(layer, self.direction, &front) {
                None => {
                    self.note(name, Place::Default);
                    if layer.default == Default::Block {
                        return Err(End::Drop(DropCause::PolicyDefault));
                    }
                }
                Some((group, rule)) => {
                    self.note(name, Place::Rule(group.name.clone(), rule.name.clone()));
                    self.act(name, &rule.action)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, layer: &Name, place: Place) {
        let bytes = u64::try_from(self.bytes.len()).unwrap();
        self.applied.push(Applied { layer: layer.clone(), place, bytes });
        self.deeds.push((self.applied.last().expect("it was pushed").clone(), Deed::Nothing));
    }

    /// Does something to the packet, in the layer that was noted last.
    fn perform(&mut self, deed: Deed) -> Result<(), DropCause> {
        let before = self.bytes.clone();
        deed.perform(&mut self.bytes, self.marks, &mut self.spent)?;
        wire::follow_first(&before, &mut self.bytes);
        let layer = self.applied.last().expect("a layer was noted").clone();
        self.deeds.push((layer, deed));
        Ok(())
    }

    /// The entry of a layer whose answer the packet is.
    fn remembered(&self, layer: &Name) -> Option<Entry> {
        let Standing::Answer(connection) = self.standing else { return None };
        let entry = connection.entries.get(layer)?;
        (wire::tuple(&self.bytes) == Some(entry.after.reversed())).then_some(*entry)
    }

    /// Takes an ICMP error through a layer that has an entry of its connection: its destination becomes what the
    /// connection's packets get, its source only if that is the connection's other end. What it quotes follows
    /// at the end.
    fn translate_error(&mut self, layer: &Name) -> bool {
        let Standing::About(connection) = self.standing else { return false };
        let Some(entry) = connection.entries.get(layer) else { return false };
        let (from, to) = match connection.direction == self.direction {
            true => (entry.before, entry.after),
            false => (entry.after.reversed(), entry.before.reversed()),
        };
        if self.related != Some(from) {
            return false;
        }
        self.related = Some(to);
        let [mut source, mut destination] = wire::addresses(&self.bytes).expect("it is IP");
        if source == from.source {
            source = to.source;
        }
        if from.destination != to.destination {
            destination = to.destination;
        }
        wire::set_addresses(&mut self.bytes, source, destination);
        true
    }

    fn act(&mut self, layer: &Name, action: &Action) -> Result<(), End> {
        match action {
            Action::Allow { stateful: None } | Action::Count => Ok(()),
            Action::Allow { stateful: Some(stateful) } => {
                if let (Some(tuple), Standing::Begins | Standing::Initiator(_)) =
                    (wire::tuple(&self.bytes), self.standing)
                {
                    self.remember(layer, Entry { before: tuple, after: tuple }, stateful.idle_s.get());
                }
                Ok(())
            }
            Action::Balance(balance) => self.balance(layer, balance),
            Action::Block { cause } => Err(End::Drop(*cause)),
            Action::Decap => self.perform(Deed::Decap).map_err(End::Drop),
            Action::Dscp(dscp) => self.perform(Deed::Dscp(*dscp)).map_err(End::Drop),
            Action::Ecmp(routers) => {
                let router = self.prefer("router", routers);
                self.perform(Deed::SentTo(router)).map_err(End::Drop)
            }
            Action::Encap(encap) => self.encap(encap),
            Action::Hairpin { to } => {
                self.hairpin = Some(to.clone());
                Ok(())
            }
            Action::Nat(nat) => self.nat(layer, nat),
            Action::SetRegister { register, value } => {
                self.registers[usize::from(*register)] = *value;
                Ok(())
            }
            Action::Transpose { transposition } => {
                self.perform(Deed::Transpose(Arc::clone(transposition))).map_err(End::Drop)
            }
        }
    }

    fn remember(&mut self, layer: &Name, entry: Entry, idle_s: u32) {
        self.entries.push((layer.clone(), entry));
        self.idle_s = self.idle_s.min(idle_s);
    }

    /// The tuple to translate, and what it became before.
    fn translating(&self, layer: &Name) -> Result<(Tuple, Option<Tuple>), End> {
        let nobodys = End::Drop(DropCause::NoConnection);
        let tuple = wire::tuple(&self.bytes).ok_or(nobodys)?;
        match self.standing {
            Standing::Begins => Ok((tuple, None)),
            Standing::Initiator(connection) => match connection.entries.get(layer) {
                Some(entry) if entry.before != tuple => Err(End::Ended),
                Some(entry) => Ok((tuple, Some(entry.after))),
                // Its names are given: what is translated now would have others.
                None => Err(nobodys),
            },
            Standing::Answer(_) | Standing::About(_) | Standing::None => Err(nobodys),
        }
    }

    fn nat(&mut self, layer: &Name, nat: &Nat) -> Result<(), End> {
        let (before, kept) = self.translating(layer)?;
        let mut after = before;
        if let Some(destination) = nat.destination {
            after = aimed(after, destination)?;
        }
        match &nat.source {
            None => {}
            Some(Source::Fixed(source)) => after = aimed(after.reversed(), *source)?.reversed(),
            Some(Source::Ranges(name)) => {
                let Some(held) = self.policy.resource(name) else { return Err(CANNOT) };
                let Content::Ranges(ranges) = &held.resource.content else { return Err(CANNOT) };
                self.from_ranges = true;
                after = match kept {
                    Some(kept) => still_in(ranges, after, kept)?,
                    None => self.allocate(ranges, after)?,
                };
            }
        }
        self.translate(layer, before, after, kept, nat.stateful.idle_s.get())
    }

    fn balance(&mut self, layer: &Name, balance: &Balance) -> Result<(), End> {
        let (before, kept) = self.translating(layer)?;
        let after = match kept {
            None => aimed(before, self.prefer("backend", &balance.backends))?,
            Some(kept) => {
                let is_there = balance.backends.iter().any(|backend| aimed(before, *backend) == Ok(kept));
                if is_there { kept } else { return Err(End::Ended) }
            }
        };
        self.translate(layer, before, after, kept, balance.stateful.idle_s.get())
    }

    fn translate(
        &mut self,
        layer: &Name,
        before: Tuple,
        after: Tuple,
        kept: Option<Tuple>,
        idle_s: u32,
    ) -> Result<(), End> {
        if kept.is_some_and(|kept| kept != after) {
            return Err(End::Ended);
        }
        self.perform(Deed::Became(after)).map_err(End::Drop)?;
        self.remember(layer, Entry { before, after }, idle_s);
        Ok(())
    }

    /// A source whose answers are nobody else's.
    fn allocate(&mut self, ranges: &[PortRange], after: Tuple) -> Result<Tuple, End> {
        let fitting: Vec<_> = ranges.iter().filter(|range| range.address.is_ipv4() == after.source.is_ipv4()).collect();
        if fitting.is_empty() {
            return Err(CANNOT);
        }
        let all: BTreeSet<Tuple> = fitting.iter().flat_map(|range| sources(range, after)).collect();
        let way = self.direction.reversed();
        let free =
            |source: &Tuple, connections: &mut Connections| connections.is_free(way, source.reversed(), self.now);
        let mut options = Vec::new();
        let mut exhausted = true;
        for source in all {
            let free = free(&source, self.connections);
            exhausted &= free != Free::Yes;
            if free != Free::No {
                options.push(Some(source));
            }
        }
        if exhausted {
            options.push(None);
        }
        self.choices.among(&options).ok_or(End::Drop(DropCause::NatExhausted))
    }

    fn encap(&mut self, encap: &Encap) -> Result<(), End> {
        let (far, vni, mac) = match &encap.destination {
            Destination::Among(ends) => (self.prefer("end", ends), None, None),
            Destination::Mapped(map) => {
                let address = wire::destination(&self.bytes).ok_or(CANNOT)?;
                let Some(held) = self.policy.resource(map) else { return Err(CANNOT) };
                let Content::Map(mappings) = &held.resource.content else { return Err(CANNOT) };
                match mappings.iter().find(|(key, _)| *key == address).map(|(_, answer)| answer) {
                    Some(Answer::Known(mapping)) => (mapping.address, mapping.vni, mapping.mac),
                    Some(Answer::Unknown { until_ns }) if self.now < *until_ns => {
                        return Err(End::Drop(DropCause::NoMapping));
                    }
                    _ => return Err(End::Parked),
                }
            }
        };
        let vni = vni.or(encap.vni).ok_or(CANNOT)?;
        if edit::view(&self.bytes).outer.is_some() {
            return Err(CANNOT);
        }
        if let Some(mac) = mac {
            self.perform(Deed::SentTo(mac)).map_err(End::Drop)?;
        }
        let ends: [IpAddr; 2] = [encap.source, far];
        self.perform(Deed::Encap { tunnel: encap.tunnel, vni, ends }).map_err(End::Drop)
    }

    /// One of several, by rendezvous: what was preferred once to another always is.
    fn prefer<T: Clone + std::fmt::Debug>(&mut self, kind: &'static str, all: &[T]) -> T {
        let tuple = wire::tuple(&self.bytes);
        let label = |one: &T| format!("{one:?}");
        let beaten = |one: &T| {
            let mut better = BTreeSet::from([label(one)]);
            loop {
                let more: Vec<String> = self
                    .preferences
                    .iter()
                    .filter(|(k, t, winner, loser)| {
                        (*k, *t) == (kind, tuple) && better.contains(loser) && !better.contains(winner)
                    })
                    .map(|(_, _, winner, _)| winner.clone())
                    .collect();
                if more.is_empty() {
                    break;
                }
                better.extend(more);
            }
            all.iter().any(|other| label(other) != label(one) && better.contains(&label(other)))
        };
        let mut options: Vec<T> = Vec::new();
        for one in all {
            if !beaten(one) && !options.iter().any(|other| label(other) == label(one)) {
                options.push(one.clone());
            }
        }
        let chosen = self.choices.among(&options);
        for other in all.iter().filter(|other| label(other) != label(&chosen)) {
            self.preferences.insert((kind, tuple, label(&chosen), label(other)));
        }
        chosen
    }
}

impl Deed {
    /// Does it to a packet. Later fragments have no ports, so that of a tuple they get the addresses.
    pub(crate) fn perform(&self, bytes: &mut Vec<u8>, marks: FlowMarks, spent: &mut Spent) -> Result<(), DropCause> {
        match self {
            Self::Nothing => Ok(()),
            Self::Became(tuple) => {
                wire::set_tuple(bytes, *tuple);
                Ok(())
            }
            Self::Decap => edit::decap(bytes, spent),
            Self::Dscp(dscp) => edit::set_dscp(bytes, *dscp),
            Self::SentTo(mac) => edit::set_mac(bytes, 0, *mac),
            Self::Encap { tunnel, vni, ends } => edit::encap(bytes, *tunnel, *vni, *ends, marks),
            Self::Transpose(what) => edit::transpose(bytes, what, spent),
        }
    }
}

/// Sends a tuple to another end. An echo's identifier is no service's port.
fn aimed(tuple: Tuple, to: Endpoint) -> Result<Tuple, End> {
    if to.address.is_ipv4() != tuple.destination.is_ipv4() {
        return Err(CANNOT);
    }
    let has_port = matches!(tuple.protocol, wire::TCP | wire::UDP);
    let destination_port = to.port.filter(|_| has_port).unwrap_or(tuple.destination_port);
    Ok(Tuple { destination: to.address, destination_port, ..tuple })
}

/// The sources that a range has for a tuple: without ports just the address.
fn sources(range: &PortRange, tuple: Tuple) -> Vec<Tuple> {
    let with = |port: u16| {
        let id = if tuple.is_echo() { port } else { tuple.destination_port };
        Tuple { source: range.address, source_port: port, destination_port: id, ..tuple }
    };
    if tuple.has_ports() { (range.first..=range.last).map(with).collect() } else { vec![with(tuple.source_port)] }
}

/// The source that was given, if the ranges still have it.
fn still_in(ranges: &[PortRange], after: Tuple, kept: Tuple) -> Result<Tuple, End> {
    let sources = ranges.iter().filter(|range| range.address == kept.source).flat_map(|range| sources(range, after));
    let same = |source: &Tuple| source.source_port == kept.source_port;
    sources.into_iter().find(same).ok_or(End::Ended)
}
