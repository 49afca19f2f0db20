// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a world remembers.

use std::collections::BTreeSet;

use packet::DropCause;
use switch::Name;
use switch::model::{Direction, PortPolicy};

use super::step::Done;
use super::{Outcome, Totals};
use crate::connections::{Connection, Connections, Entry};
use crate::edit::{FlowMarks, Spent};
use crate::tcp::Tcp;
use crate::walk::{Applied, Deed, Place, Preferences};
use crate::wire;

/// One way in which things may have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) connections: Connections,
    pub(crate) preferences: Preferences,
    pub(crate) totals: Totals,
    /// Datagrams of which the first fragment was seen.
    pub(super) datagrams: Vec<Datagram>,
    /// What applied to the last packet.
    pub(crate) applied: Vec<Applied>,
}

/// A datagram that came in fragments: what became of the first one becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) direction: Direction,
    pub(super) name: [u128; 7],
    pub(super) since: u64,
    /// Why it is dropped.
    pub(super) dropped: Option<DropCause>,
    pub(super) hairpin: Option<Option<Name>>,
    pub(super) deeds: Vec<(Applied, Deed)>,
    /// What policy has no more, so that nothing is counted there.
    pub(super) gone: BTreeSet<(Name, Place)>,
    /// Bytes that were seen.
    pub(super) seen: BTreeSet<usize>,
    /// Where the last fragment ends.
    pub(super) end: Option<usize>,
}

impl World {
    /// What was counted, without what never was.
    pub(crate) fn counted(&self) -> Totals {
        let mut totals = self.totals.clone();
        totals.retain(|_, total| *total != (0, 0));
        totals
    }

    /// Forgets what policy has no more.
    pub(crate) fn change_policy(&mut self, policy: &PortPolicy) {
        self.connections.keep_layers(|layer| policy.layer(layer).is_some());
        let is_there = |layer: &Name, place: &Place| {
            policy.layer(layer).is_some_and(|layer| match place {
                Place::Default | Place::Entry => true,
                Place::Rule(group, rule) => {
                    layer.group(group).is_some_and(|held| held.group.rules.iter().any(|known| known.name == *rule))
                }
            })
        };
        self.totals.retain(|(layer, place), _| is_there(layer, place));
        for datagram in &mut self.datagrams {
            let places = datagram.deeds.iter().map(|(first, _)| (first.layer.clone(), first.place.clone()));
            datagram.gone.extend(places.filter(|(layer, place)| !is_there(layer, place)));
        }
    }

    /// A first fragment went its way.
    pub(super) fn note_first(
        &mut self,
        direction: Direction,
        part: wire::Part,
        now: u64,
        outcome: &Outcome,
        done: Option<Done>,
    ) {
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
    pub(super) fn later(&mut self, known: Option<usize>, frame: &[u8], part: &wire::Part, marks: FlowMarks) -> Outcome {
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

    pub(super) fn count(&mut self, applied: &[Applied]) {
        for Applied { layer, place, bytes } in applied {
            let total = self.totals.entry((layer.clone(), place.clone())).or_default();
            *total = (total.0 + 1, total.1 + bytes);
        }
        self.applied = applied.to_vec();
    }

    /// Whether its answers perhaps still have the name of what is over.
    pub(super) fn may_clash(&mut self, direction: Direction, done: &Done, now: u64) -> bool {
        let leave = wire::tuple(&done.bytes);
        leave.is_some_and(|leave| self.connections.is_ghost(direction.reversed(), leave.reversed(), now))
    }

    /// `false` if one of its names is another's.
    pub(super) fn begin(&mut self, direction: Direction, frame: &[u8], done: &Done, number: u64, now: u64) -> bool {
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
            planned_at: now,
            tcp: wire::segment(frame).map(|segment| Tcp::begin(&segment)),
            answered: false,
            last: now,
        })
    }
}

impl Connection {
    /// A packet of the initiator met stateful rules in layers where others of it did not.
    pub(super) fn learn(&mut self, entries: Vec<(Name, Entry)>, idle_s: u32) {
        if entries.iter().any(|(layer, _)| !self.entries.contains_key(layer)) {
            self.entries.extend(entries);
            self.idle_s = self.idle_s.min(idle_s);
        }
    }

    /// A packet of it was let through.
    pub(super) fn see(&mut self, direction: Direction, segment: Option<&wire::Segment>, now: u64) {
        self.last = now;
        self.answered |= direction != self.direction;
        if let (Some(tcp), Some(segment)) = (&mut self.tcp, segment) {
            tcp.see(usize::from(direction != self.direction), segment);
        }
    }
}
