// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the interpreter remembers of connections: a list, searched from its beginning.

use std::collections::BTreeMap;

use switch::Name;
use switch::model::Direction;

use crate::tcp::{Stage, Tcp};
use crate::wire::Tuple;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// How long a name rests that had a port of a list.
const REST: u64 = 30 * SECOND;
/// By how much the end of a connection may be noticed too late: its name rests from then on.
pub(crate) const SLACK: u64 = 2 * SECOND;

/// What a stateful rule did in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) before: Tuple,
    pub(crate) after: Tuple,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The initiator's.
    pub(crate) direction: Direction,
    /// The packet that began it.
    pub(crate) first: Vec<u8>,
    /// The initiator's tuple in front of all layers, and behind them.
    pub(crate) enter: Tuple,
    pub(crate) leave: Tuple,
    /// By layer.
    pub(crate) entries: BTreeMap<Name, Entry>,
    /// The least of its rules.
    pub(crate) idle_s: u32,
    /// It has a port of a list.
    pub(crate) from_ranges: bool,
    /// The number of the policy under which it was last planned.
    pub(crate) planned: u64,
    /// When that was: what it says about the connection's time was not known before.
    pub(crate) planned_at: u64,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) answered: bool,
    /// When its last packet was seen.
    pub(crate) last: u64,
}

/// Whether a name can be given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Free {
    No,
    /// It rested long enough if its connection was forgotten at once.
    Perhaps,
    Yes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    all: Vec<Connection>,
    /// Names that rest, and since when.
    resting: Vec<(Direction, Tuple, u64)>,
    /// Names of connections that were forgotten, and when: perhaps that has not been noticed yet.
    ghosts: Vec<(Direction, Tuple, u64)>,
}

impl Connection {
    /// The tuple with which packets of a direction enter the layers.
    pub(crate) fn name(&self, direction: Direction) -> Tuple {
        if direction == self.direction { self.enter } else { self.leave.reversed() }
    }

    /// How long it is remembered without a packet.
    fn lifetime(&self) -> u64 {
        let most = match self.tcp.as_ref().map(|tcp| tcp.stage) {
            Some(Stage::SynSent | Stage::SynReceived | Stage::Midstream) => 30,
            Some(Stage::Established) => u32::MAX,
            Some(Stage::Closing) => 120,
            Some(Stage::TimeWait) => 60,
            Some(Stage::Reset) => 10,
            None if self.answered => u32::MAX,
            None => 30,
        };
        u64::from(most.min(self.idle_s)) * SECOND
    }
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn find(&mut self, direction: Direction, tuple: Tuple) -> Option<&mut Connection> {
        self.all.iter_mut().find(|connection| connection.name(direction) == tuple)
    }

    /// Adds one; `false` if another has one of its names.
    pub(crate) fn open(&mut self, connection: Connection) -> bool {
        let directions = [Direction::In, Direction::Out];
        let clash = directions.iter().any(|way| self.find(*way, connection.name(*way)).is_some());
        if !clash {
            self.all.push(connection);
        }
        !clash
    }

    /// Ends the one that packets of this direction and tuple belong to.
    pub(crate) fn end(&mut self, direction: Direction, tuple: Tuple, now: u64) {
        let ended = self.all.extract_if(.., |connection| connection.name(direction) == tuple);
        let resting = ended.filter(|connection| connection.from_ranges).map(|connection| {
            let way = connection.direction.reversed();
            (way, connection.name(way), now)
        });
        self.resting.extend(resting);
    }

    /// Forgets those that were not heard of for too long.
    pub(crate) fn expire(&mut self, now: u64) {
        loop {
            let over = self.all.iter().find(|connection| now > connection.last + connection.lifetime());
            let Some(over) = over else { break };
            let (direction, tuple, when) =
                (over.direction, over.enter, (over.last + over.lifetime()).max(over.planned_at));
            let names = [direction, direction.reversed()].map(|way| (way, over.name(way), when));
            self.ghosts.extend(names);
            self.end(direction, tuple, when);
        }
        self.resting.retain(|(_, _, since)| now <= since + REST + SLACK);
        self.ghosts.retain(|(_, _, since)| now <= since + SLACK);
    }

    /// Whether it was the name of a connection that was forgotten a moment ago.
    pub(crate) fn is_ghost(&self, direction: Direction, name: Tuple, now: u64) -> bool {
        self.ghosts.iter().any(|(way, tuple, since)| (*way, *tuple) == (direction, name) && now <= since + SLACK)
    }

    pub(crate) fn is_free(&mut self, direction: Direction, name: Tuple, now: u64) -> Free {
        if self.find(direction, name).is_some() {
            return Free::No;
        }
        let least = if self.is_ghost(direction, name, now) { Free::Perhaps } else { Free::Yes };
        let rests = self.resting.iter().filter(|(way, tuple, _)| (*way, *tuple) == (direction, name));
        rests
            .map(|(_, _, since)| match now {
                _ if now < since + REST => Free::No,
                _ if now <= since + REST + SLACK => Free::Perhaps,
                _ => Free::Yes,
            })
            .fold(least, Free::min)
    }

    /// Entries go with their layer.
    pub(crate) fn keep_layers(&mut self, is_there: impl Fn(&Name) -> bool) {
        for connection in &mut self.all {
            connection.entries.retain(|layer, _| is_there(layer));
        }
    }
}
