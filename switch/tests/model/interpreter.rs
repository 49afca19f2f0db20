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

use std::collections::{BTreeMap, BTreeSet};

use packet::{DropCause, Field, Tunnel};
use switch::Name;
use switch::model::{Direction, PortPolicy};

use crate::choices::Choices;
use crate::connections::{Connection, Connections, Entry, SECOND, SLACK};
use crate::edit::{FlowMarks, Spent};
use crate::tcp::Tcp;
use crate::walk::{Applied, Deed, End, Place, Preferences, Standing, Walk};
use crate::wire::{self, Tuple};

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

/// One way in which things may have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) connections: Connections,
    pub(crate) preferences: Preferences,
    pub(crate) totals: Totals,
    /// Datagrams of which the first fragment was seen.
    datagrams: Vec<Datagram>,
    /// What applied to the last packet.
    pub(crate) applied: Vec<Applied>,
}

/// A datagram that came in fragments: what became of the first one becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagram {
    direction: Direction,
    name: [u128; 7],
    since: u64,
    /// Why it is dropped.
    dropped: Option<DropCause>,
    hairpin: Option<Option<Name>>,
    deeds: Vec<(Applied, Deed)>,
    /// What policy has no more, so that nothing is counted there.
    gone: BTreeSet<(Name, Place)>,
    /// Bytes that were seen.
    seen: BTreeSet<usize>,
    /// Where the last fragment ends.
    end: Option<usize>,
}

/// How long the rest of a datagram is waited for, and how soon its name may be used again.
const DATAGRAM: u64 = 30 * SECOND;
const SAME_NAME: u64 = SECOND;

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
        let marks = FlowMarks { port: 0xc000, flow_id: 0, label: 0 };
        loop {
            let mut world = self.worlds[0].clone();
            if let Some(outcome) = self.step(&mut world, direction, frame, now, marks, choices) {
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
        let marks = self.marks_of(direction, frame, seen)?;
        let (mut after, mut others): (Vec<World>, Vec<String>) = (Vec::new(), Vec::new());
        for before in &self.worlds {
            let mut choices = Choices::default();
            loop {
                let mut world = before.clone();
                let outcome = self.step(&mut world, direction, frame, now, marks, &mut choices);
                match outcome {
                    Some(outcome) if outcome == *seen => {
                        if !after.contains(&world) {
                            after.push(world);
                        }
                    }
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

    /// What becomes of a packet, and of the world; `None` if it cannot go this way.
    fn step(
        &self,
        world: &mut World,
        direction: Direction,
        frame: &[u8],
        now: u64,
        marks: FlowMarks,
        choices: &mut Choices,
    ) -> Option<Outcome> {
        world.applied.clear();
        world.connections.expire(now);
        if self.policy.layers().is_empty() {
            return Some(Outcome::Forwarded(frame.to_vec()));
        }
        if let Err(cause) = wire::read(frame) {
            return Some(Outcome::Dropped(cause));
        }
        let part = wire::part(frame);
        if let Some(part) = &part {
            let known = self.datagram(world, direction, part, now, choices);
            if !part.is_first {
                return Some(world.later(known, frame, part, marks));
            }
            if known.is_some_and(|at| now < world.datagrams[at].since + SAME_NAME) {
                return Some(Outcome::Dropped(DropCause::BadFragment));
            }
        }
        let (outcome, done) = self.whole(world, direction, frame, now, marks, choices)?;
        if let Some(part) = part {
            world.note_first(direction, part, now, &outcome, done);
        }
        Some(outcome)
    }

    /// Where a datagram is remembered.
    fn datagram(
        &self,
        world: &mut World,
        direction: Direction,
        part: &wire::Part,
        now: u64,
        choices: &mut Choices,
    ) -> Option<usize> {
        let is_meant = |known: &Datagram| known.direction == direction && known.name == part.datagram;
        let at = world.datagrams.iter().position(is_meant)?;
        let age = now - world.datagrams[at].since;
        // When it is too old, that may not have been noticed yet.
        let forgotten = age > DATAGRAM && (age > DATAGRAM + SLACK || choices.among(&[false, true]));
        if forgotten {
            world.datagrams.remove(at);
        }
        (!forgotten).then_some(at)
    }

    /// What becomes of a packet that is whole, or has the ports at least; with all that was done to it.
    fn whole(
        &self,
        world: &mut World,
        direction: Direction,
        frame: &[u8],
        now: u64,
        marks: FlowMarks,
        choices: &mut Choices,
    ) -> Option<(Outcome, Option<Done>)> {
        if wire::is_error(frame) {
            return Some((self.error(world, direction, frame, now, marks, choices), None));
        }
        let tuple = wire::tuple(frame);
        let segment = wire::segment(frame);
        if let Some(tuple) = tuple {
            match self.plan_again(world, direction, tuple, now, marks, choices) {
                Ok(()) => {}
                Err(End::Parked) => return Some((Outcome::Parked, None)),
                Err(_) => world.connections.end(direction, tuple, now),
            }
        }
        let mut as_if = false;
        loop {
            let known = tuple.and_then(|tuple| world.connections.find(direction, tuple)).cloned();
            let standing = match &known {
                Some(connection) if connection.direction == direction => Standing::Initiator(connection),
                Some(connection) => Standing::Answer(connection),
                None if tuple.is_some() && segment.is_none_or(|segment| segment.can_begin()) => Standing::Begins,
                None if tuple.is_some() && choices.among(&[false, true]) => {
                    as_if = true;
                    Standing::Begins
                }
                None => Standing::None,
            };
            let mut walk = self.walk(world, direction, standing, frame, now, marks, choices);
            let end = walk.run();
            let done = Done::from(walk);
            match end {
                Err(End::Ended) => {
                    world.connections.end(direction, tuple.expect("it had a connection"), now);
                    continue;
                }
                Err(End::Parked) => return Some((Outcome::Parked, None)),
                Ok(()) | Err(End::Drop(_)) => {}
            }
            let over = end.is_ok()
                && known.as_ref().is_some_and(|connection| {
                    let side = usize::from(connection.direction != direction);
                    matches!((&connection.tcp, &segment), (Some(tcp), Some(segment)) if tcp.gives_way(side, segment))
                });
            if over {
                world.connections.end(direction, tuple.expect("it had a connection"), now);
                continue;
            }
            world.count(&done.applied);
            if let Err(End::Drop(cause)) = end {
                return Some((Outcome::Dropped(cause), None));
            }
            if as_if {
                return None;
            }
            let begins = matches!(standing, Standing::Begins) && !done.entries.is_empty();
            if begins && world.may_clash(direction, &done, now) && choices.among(&[false, true]) {
                return Some((Outcome::Dropped(DropCause::NatExhausted), None));
            }
            if begins && !world.begin(direction, frame, &done, self.number, now) {
                return Some((Outcome::Dropped(DropCause::NatExhausted), None));
            }
            if let Some(connection) = tuple.and_then(|tuple| world.connections.find(direction, tuple)) {
                connection.see(direction, segment.as_ref().filter(|_| !begins), now);
                connection.learn(done.entries.clone(), done.idle_s);
            }
            return Some((done.outcome(), Some(done)));
        }
    }

    /// What becomes of an ICMP error.
    fn error(
        &self,
        world: &mut World,
        direction: Direction,
        frame: &[u8],
        now: u64,
        marks: FlowMarks,
        choices: &mut Choices,
    ) -> Outcome {
        let about = wire::quoted(frame).map(|quoted| quoted.tuple.reversed());
        if let Some(about) = about
            && let Err(End::Drop(_) | End::Ended) = self.plan_again(world, direction, about, now, marks, choices)
        {
            world.connections.end(direction, about, now);
        }
        let known = about.and_then(|about| world.connections.find(direction, about)).cloned();
        let standing = known.as_ref().map_or(Standing::None, Standing::About);
        let mut walk = self.walk(world, direction, standing, frame, now, marks, choices);
        let end = walk.run();
        let mut done = Done::from(walk);
        match end {
            Err(End::Parked) => return Outcome::Parked,
            Err(End::Ended) => panic!("errors end nothing"),
            Ok(()) | Err(End::Drop(_)) => world.count(&done.applied),
        }
        if let Err(End::Drop(cause)) = end {
            return Outcome::Dropped(cause);
        }
        if let (Some(_), Some(after), Some(before)) = (&known, done.related, about)
            && before != after
        {
            wire::set_quoted(&mut done.bytes, after.reversed());
        }
        done.outcome()
    }

    /// Plans a connection again if policy has changed since that was done last.
    fn plan_again(
        &self,
        world: &mut World,
        direction: Direction,
        tuple: Tuple,
        now: u64,
        marks: FlowMarks,
        choices: &mut Choices,
    ) -> Result<(), End> {
        let Some(known) = world.connections.find(direction, tuple) else { return Ok(()) };
        if known.planned == self.number {
            return Ok(());
        }
        let known = known.clone();
        let first = known.first.clone();
        let standing = Standing::Initiator(&known);
        let mut walk = self.walk(world, known.direction, standing, &first, now, marks, choices);
        walk.run()?;
        let done = Done::from(walk);
        if done.entries.is_empty() || wire::tuple(&done.bytes) != Some(known.leave) {
            return Err(End::Ended);
        }
        let connection = world.connections.find(direction, tuple).expect("it was found");
        connection.entries = done.entries.into_iter().collect();
        connection.idle_s = done.idle_s;
        connection.from_ranges |= done.from_ranges;
        connection.planned = self.number;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a packet and all that it may meet")]
    fn walk<'a>(
        &'a self,
        world: &'a mut World,
        direction: Direction,
        standing: Standing<'a>,
        frame: &[u8],
        now: u64,
        marks: FlowMarks,
        choices: &'a mut Choices,
    ) -> Walk<'a> {
        Walk {
            policy: &self.policy,
            direction,
            standing,
            connections: &mut world.connections,
            preferences: &mut world.preferences,
            choices,
            marks,
            now,
            bytes: frame.to_vec(),
            registers: [0; 8],
            entries: Vec::new(),
            idle_s: u32::MAX,
            from_ranges: false,
            hairpin: None,
            spent: Spent::default(),
            related: wire::quoted(frame).map(|quoted| quoted.tuple.reversed()),
            applied: Vec::new(),
            deeds: Vec::new(),
        }
    }
}

/// What a walk leaves.
struct Done {
    bytes: Vec<u8>,
    entries: Vec<(Name, Entry)>,
    idle_s: u32,
    from_ranges: bool,
    hairpin: Option<Option<Name>>,
    spent: Spent,
    related: Option<Tuple>,
    applied: Vec<Applied>,
    deeds: Vec<(Applied, Deed)>,
}

impl From<Walk<'_>> for Done {
    fn from(walk: Walk<'_>) -> Self {
        let Walk { bytes, entries, idle_s, from_ranges, hairpin, spent, related, applied, deeds, .. } = walk;
        Self { bytes, entries, idle_s, from_ranges, hairpin, spent, related, applied, deeds }
    }
}

impl Done {
    fn outcome(&self) -> Outcome {
        let bytes = self.bytes.clone();
        match (self.spent.cause(), &self.hairpin) {
            (Some(cause), _) => Outcome::Dropped(cause),
            (None, Some(to)) => Outcome::Hairpinned(to.clone(), bytes),
            (None, None) => Outcome::Forwarded(bytes),
        }
    }
}

impl World {
    /// A first fragment went its way.
    fn note_first(&mut self, direction: Direction, part: wire::Part, now: u64, outcome: &Outcome, done: Option<Done>) {
        let dropped = match outcome {
            Outcome::Parked => return,
            Outcome::Dropped(cause) => Some(*cause),
            Outcome::Forwarded(_) | Outcome::Hairpinned(..) => None,
        };
        let (hairpin, deeds) = done.map_or((None, Vec::new()), |done| (done.hairpin, done.deeds));
        self.datagrams.retain(|known| (known.direction, known.name) != (direction, part.datagram));
        let (name, seen) = (part.datagram, part.bytes.collect());
        self.datagrams.push(Datagram {
            direction,
            name,
            since: now,
            dropped,
            hairpin,
            deeds,
            gone: BTreeSet::new(),
            seen,
            end: None,
        });
    }

    /// A later fragment: what becomes of it is known from the first one.
    fn later(&mut self, known: Option<usize>, frame: &[u8], part: &wire::Part, marks: FlowMarks) -> Outcome {
        let Some(at) = known else { return Outcome::Parked };
        let datagram = &mut self.datagrams[at];
        let end = part.bytes.end;
        let contradicts = match datagram.end {
            Some(known) => end > known || part.is_last && end != known,
            None => part.is_last && datagram.seen.last().is_some_and(|last| *last >= end),
        };
        let overlaps = part.bytes.is_empty() || part.bytes.clone().any(|byte| datagram.seen.contains(&byte));
        if contradicts || overlaps {
            return Outcome::Dropped(DropCause::BadFragment);
        }
        datagram.seen.extend(part.bytes.clone());
        if part.is_last {
            datagram.end = Some(end);
        }
        let is_whole = datagram.end == Some(datagram.seen.len());
        let Datagram { dropped, hairpin, deeds, gone, .. } = datagram.clone();
        if is_whole {
            self.datagrams.remove(at);
        }
        if let Some(cause) = dropped {
            return Outcome::Dropped(cause);
        }
        let (mut bytes, mut spent, mut applied) = (frame.to_vec(), Spent::default(), Vec::<Applied>::new());
        for (first, deed) in &deeds {
            if *deed == Deed::Nothing {
                applied.push(Applied { bytes: u64::try_from(bytes.len()).unwrap(), ..first.clone() });
            }
            if let Err(cause) = deed.perform(&mut bytes, marks, &mut spent) {
                return Outcome::Dropped(cause);
            }
        }
        applied.retain(|applied| !gone.contains(&(applied.layer.clone(), applied.place.clone())));
        self.count(&applied);
        match (spent.cause(), hairpin) {
            (Some(cause), _) => Outcome::Dropped(cause),
            (None, Some(to)) => Outcome::Hairpinned(to, bytes),
            (None, None) => Outcome::Forwarded(bytes),
        }
    }

    fn count(&mut self, applied: &[Applied]) {
        for Applied { layer, place, bytes } in applied {
            let total = self.totals.entry((layer.clone(), place.clone())).or_default();
            *total = (total.0 + 1, total.1 + bytes);
        }
        self.applied = applied.to_vec();
    }

    /// Whether its answers perhaps still have the name of what is over.
    fn may_clash(&mut self, direction: Direction, done: &Done, now: u64) -> bool {
        let leave = wire::tuple(&done.bytes);
        leave.is_some_and(|leave| self.connections.is_ghost(direction.reversed(), leave.reversed(), now))
    }

    /// `false` if one of its names is another's.
    fn begin(&mut self, direction: Direction, frame: &[u8], done: &Done, number: u64, now: u64) -> bool {
        let (Some(enter), Some(leave)) = (wire::tuple(frame), wire::tuple(&done.bytes)) else { return true };
        self.connections.open(Connection {
            direction,
            first: frame.to_vec(),
            enter,
            leave,
            entries: done.entries.iter().cloned().collect(),
            idle_s: done.idle_s,
            from_ranges: done.from_ranges,
            planned: number,
            tcp: wire::segment(frame).map(|segment| Tcp::begin(&segment)),
            answered: false,
            last: now,
        })
    }
}

impl Connection {
    /// A packet of the initiator met stateful rules in layers where others of it did not.
    fn learn(&mut self, entries: Vec<(Name, Entry)>, idle_s: u32) {
        if entries.iter().any(|(layer, _)| !self.entries.contains_key(layer)) {
            self.entries.extend(entries);
            self.idle_s = self.idle_s.min(idle_s);
        }
    }

    /// A packet of it was let through.
    fn see(&mut self, direction: Direction, segment: Option<&wire::Segment>, now: u64) {
        self.last = now;
        self.answered |= direction != self.direction;
        if let (Some(tcp), Some(segment)) = (&mut self.tcp, segment) {
            tcp.see(usize::from(direction != self.direction), segment);
        }
    }
}

fn same(known: &mut Option<u32>, now: u32, what: &str) -> Result<(), String> {
    match *known.get_or_insert(now) {
        before if before == now => Ok(()),
        before => Err(format!("{what} of a flow was {before} and is {now}")),
    }
}
