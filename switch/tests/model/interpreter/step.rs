// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A packet takes a world to the next.

use packet::DropCause;
use switch::Name;
use switch::model::Direction;

use super::world::{Datagram, World};
use super::{Interpreter, Outcome};
use crate::choices::Choices;
use crate::connections::{Entry, SECOND, SLACK};
use crate::edit::{FlowMarks, Spent};
use crate::walk::{Applied, Deed, End, Standing, Walk};
use crate::wire::{self, Tuple};

/// A packet, when and how it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) direction: Direction,
    pub(crate) frame: &'a [u8],
    pub(crate) now: u64,
    pub(crate) marks: FlowMarks,
}

/// How long the rest of a datagram is waited for, and how soon its name may be used again.
const DATAGRAM: u64 = 30 * SECOND;
const SAME_NAME: u64 = SECOND;

impl Interpreter {
    /// What becomes of a packet, and of the world; `None` if it cannot go this way.
    pub(super) fn step(&self, world: &mut World, packet: &Packet<'_>, choices: &mut Choices) -> Option<Outcome> {
        let Packet { direction, frame, now, marks } = *packet;
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
        let (outcome, done) = self.whole(world, packet, choices)?;
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
    fn whole(&self, world: &mut World, packet: &Packet<'_>, choices: &mut Choices) -> Option<(Outcome, Option<Done>)> {
        let Packet { direction, frame, now, .. } = *packet;
        if wire::is_error(frame) {
            return Some((self.error(world, packet, choices), None));
        }
        let tuple = wire::tuple(frame);
        let segment = wire::segment(frame);
        if let Some(tuple) = tuple {
            match self.plan_again(world, packet, tuple, choices) {
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
            let mut walk = self.walk(world, packet, standing, choices);
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
    fn error(&self, world: &mut World, packet: &Packet<'_>, choices: &mut Choices) -> Outcome {
        let Packet { direction, frame, now, .. } = *packet;
        let about = wire::quoted(frame).map(|quoted| quoted.tuple.reversed());
        if let Some(about) = about
            && let Err(End::Drop(_) | End::Ended) = self.plan_again(world, packet, about, choices)
        {
            world.connections.end(direction, about, now);
        }
        let known = about.and_then(|about| world.connections.find(direction, about)).cloned();
        let standing = known.as_ref().map_or(Standing::None, Standing::About);
        let mut walk = self.walk(world, packet, standing, choices);
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
        packet: &Packet<'_>,
        tuple: Tuple,
        choices: &mut Choices,
    ) -> Result<(), End> {
        let direction = packet.direction;
        let Some(known) = world.connections.find(direction, tuple) else { return Ok(()) };
        if known.planned == self.number {
            return Ok(());
        }
        let known = known.clone();
        let first = known.first.clone();
        let standing = Standing::Initiator(&known);
        let packet = Packet { direction: known.direction, frame: &first, ..*packet };
        let mut walk = self.walk(world, &packet, standing, choices);
        walk.run()?;
        let done = Done::from(walk);
        if done.entries.is_empty() || wire::tuple(&done.bytes) != Some(known.leave) {
            return Err(End::Ended);
        }
        let connection = world.connections.find(direction, tuple).expect("it was found");
        connection.entries = done.entries.into_iter().collect();
        connection.idle_s = done.idle_s;
        connection.from_ranges |= done.from_ranges;
        (connection.planned, connection.planned_at) = (self.number, packet.now);
        Ok(())
    }

    fn walk<'a>(
        &'a self,
        world: &'a mut World,
        packet: &Packet<'_>,
        standing: Standing<'a>,
        choices: &'a mut Choices,
    ) -> Walk<'a> {
        let Packet { direction, frame, now, marks } = *packet;
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
pub(super) struct Done {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<(Name, Entry)>,
    pub(super) idle_s: u32,
    pub(super) from_ranges: bool,
    pub(super) hairpin: Option<Option<Name>>,
    pub(super) spent: Spent,
    pub(super) related: Option<Tuple>,
    pub(super) applied: Vec<Applied>,
    pub(super) deeds: Vec<(Applied, Deed)>,
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
