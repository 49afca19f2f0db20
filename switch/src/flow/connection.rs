// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connections: what stateful rules remember (VF-6).
//!
//! # Theory of operation
//!
//! A connection has two names, one for each direction: the tuple with which the initiator's packets enter the
//! port's policy, and the one with which answers enter it from the other side. Of each stateful rule that
//! the initiator crossed it has an [`Entry`]: the tuples in front of and behind that layer. That is all that is
//! needed to let answers through and to restore what was changed; there is nothing per layer to look up.
//!
//! Tuples are kept packed: most connections have one or two different ones, of IPv4.

use crate::compile::Stamp;
use crate::flow::Handle;
use crate::flow::tcp;
use crate::flow::tuple::Tuple;
use crate::model::Direction;

/// What a packet is to the connection it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It goes the way of the packet that began it.
    Initiator,
    /// It goes the other way.
    Responder,
}

/// A connection of a port.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Which way its initiator's packets go.
    pub(crate) direction: Direction,
    /// Whether its names rest when it ends: its port was taken from a list.
    pub(crate) rests: bool,
    /// Whether a packet of the responder was seen.
    pub(crate) answered: bool,
    /// Nobody's before it has confirmed itself.
    pub(crate) established: bool,
    pub(crate) tcp: Option<tcp::Connection>,
    enter: Packed,
    leave: Packed,
    entries: Entries,
    protocol: u8,
    /// The epoch of its shard in which it was last planned.
    pub(crate) epoch: u32,
    /// The flow of the initiator's packets that began it.
    pub(crate) initiator: Option<Handle>,
    /// The first of all its flows; each knows the next.
    pub(crate) flows: Option<Handle>,
    /// The last time that a packet was seen, as far as its flows have told.
    pub(crate) last_ms: u32,
    /// The least time to live of its rules.
    pub(crate) idle_s: u32,
}

/// What one stateful rule remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The layer, by the stamp of its name.
    pub(crate) layer: Stamp,
    /// The initiator's tuple in front of the layer.
    pub(crate) before: Tuple,
    /// And behind it.
    pub(crate) after: Tuple,
}

/// Entries, their tuples by number: 0 enters, 1 leaves, others stand in `more`.
#[derive(Debug, Default)]
struct Entries {
    list: Box<[PackedEntry]>,
    #[expect(clippy::box_collection, reason = "most have none, and it is to take one word")]
    more: Option<Box<Vec<Packed>>>,
}

#[derive(Clone, Copy, Debug)]
struct PackedEntry {
    layer: Stamp,
    before: u8,
    after: u8,
}

/// A tuple without its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Packed {
    V4 { addresses: [u32; 2], ports: [u16; 2] },
    V6(Box<([u128; 2], [u16; 2])>),
}

impl Connection {
    /// Begins one. `entries` are in the order in which the initiator meets them.
    pub(crate) fn new(
        direction: Direction,
        [enter, leave]: [Tuple; 2],
        entries: &[Entry],
        tcp: Option<tcp::Connection>,
    ) -> Self {
        let (enter_packed, leave_packed) = (Packed::new(enter), Packed::new(leave));
        Self {
            direction,
            rests: false,
            answered: false,
            established: false,
            tcp,
            entries: Entries::new(entries, [enter, leave]),
            enter: enter_packed,
            leave: leave_packed,
            protocol: enter.protocol,
            epoch: 0,
            initiator: None,
            flows: None,
            last_ms: 0,
            idle_s: u32::MAX,
        }
    }

    /// The tuple of packets of a direction as they enter the policy.
    #[inline]
    pub(crate) fn name(&self, direction: Direction) -> Tuple {
        if direction == self.direction { self.enter() } else { self.leave().reversed() }
    }

    /// What packets of a direction are to it.
    #[inline]
    pub(crate) fn role(&self, direction: Direction) -> Role {
        if direction == self.direction { Role::Initiator } else { Role::Responder }
    }

    pub(crate) fn enter(&self) -> Tuple {
        self.enter.tuple(self.protocol)
    }

    pub(crate) fn leave(&self) -> Tuple {
        self.leave.tuple(self.protocol)
    }

    /// What a layer remembers.
    pub(crate) fn entry(&self, layer: Stamp) -> Option<Entry> {
        let packed = self.entries.list.iter().find(|entry| entry.layer == layer)?;
        let tuple = |number| match number {
            0 => Some(self.enter()),
            1 => Some(self.leave()),
            more => Some(self.entries.more.as_ref()?.get(usize::from(more).checked_sub(2)?)?.tuple(self.protocol)),
        };
        Some(Entry { layer, before: tuple(packed.before)?, after: tuple(packed.after)? })
    }

    /// All entries, in the order in which the initiator meets them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.list.iter().filter_map(|packed| self.entry(packed.layer))
    }

    /// Replaces the entries. Its names stay.
    pub(crate) fn amend(&mut self, entries: &[Entry]) {
        self.entries = Entries::new(entries, [self.enter(), self.leave()]);
    }

    /// How long it lives without a packet, in milliseconds.
    pub(crate) fn lifetime_ms(&self) -> u32 {
        let most_s = match &self.tcp {
            Some(tcp) => match tcp.state() {
                tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Midstream => HALF_OPEN_S,
                tcp::State::Established => u32::MAX,
                tcp::State::Closing => CLOSING_S,
                tcp::State::TimeWait => TIME_WAIT_S,
                tcp::State::Reset => RESET_S,
            },
            None if self.answered => u32::MAX,
            None => HALF_OPEN_S,
        };
        self.idle_s.min(most_s).saturating_mul(1000)
    }

    /// Whether it has lived too long without a packet.
    pub(crate) fn is_over(&self, now_ms: u32) -> bool {
        now_ms.wrapping_sub(self.last_ms) > self.lifetime_ms()
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        let more = self
            .entries
            .more
            .as_ref()
            .map_or(0, |more| size_of::<Vec<Packed>>() + more.capacity() * size_of::<Packed>());
        let wide = [&self.enter, &self.leave].into_iter().filter(|packed| matches!(packed, Packed::V6(_))).count();
        size_of_val(&*self.entries.list) + more + wide * size_of::<([u128; 2], [u16; 2])>()
    }
}

/// Seconds that a connection lives that nobody has confirmed.
pub(crate) const HALF_OPEN_S: u32 = 30;
const CLOSING_S: u32 = 120;
const TIME_WAIT_S: u32 = 60;
const RESET_S: u32 = 10;

impl Role {
    pub(crate) const fn side(self) -> tcp::Side {
        match self {
            Self::Initiator => tcp::Side::Initiator,
            Self::Responder => tcp::Side::Responder,
        }
    }
}

impl Entries {
    fn new(entries: &[Entry], [enter, leave]: [Tuple; 2]) -> Self {
        let mut more: Vec<Tuple> = Vec::new();
        let mut number = |tuple: Tuple| {
            if tuple == enter {
                return 0;
            }
            if tuple == leave {
                return 1;
            }
            let at = more.iter().position(|known| *known == tuple).unwrap_or_else(|| {
                more.push(tuple);
                more.len() - 1
            });
            // There are at most twice as many as layers.
            u8::try_from(at + 2).unwrap_or(u8::MAX)
        };
        let list = entries.iter().map(|entry| PackedEntry {
            layer: entry.layer,
            before: number(entry.before),
            after: number(entry.after),
        });
        let list = list.collect();
        let more = (!more.is_empty()).then(|| Box::new(more.into_iter().map(Packed::new).collect()));
        Self { list, more }
    }
}

impl Packed {
    #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is the low 32 bits")]
    fn new(tuple: Tuple) -> Self {
        let ports = [tuple.source_port, tuple.destination_port];
        if tuple.version == 6 {
            return Self::V6(Box::new(([tuple.source, tuple.destination], ports)));
        }
        Self::V4 { addresses: [tuple.source as u32, tuple.destination as u32], ports }
    }

    #[inline]
    fn tuple(&self, protocol: u8) -> Tuple {
        let ([source, destination], [source_port, destination_port], version) = match self {
            Self::V4 { addresses: [source, destination], ports } => {
                ([u128::from(*source), u128::from(*destination)], *ports, 4)
            }
            Self::V6(ends) => (ends.0, ends.1, 6),
        };
        Tuple { source, destination, source_port, destination_port, protocol, version }
    }
}
