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
//! Tuples are kept packed: most connections have one or two different ones, of IPv4, and at most two entries.

use crate::compile::Stamp;
use crate::flow::Handle;
use crate::flow::slab::{Aligned, allocated};
use crate::flow::tcp::{self, Progress, Segment};
use crate::flow::timing::Timing;
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
    /// Where its state is, if it is TCP's: apart, because what is not TCP is to be small, and packets of open connections ask
    /// for nothing else.
    tcp: Option<Handle>,
    /// What is so of it, a bit each.
    facts: u8,
    protocol: u8,
    /// Of the first entries the numbers of their tuples, four bits each: so few entries have no more tuples than that. And
    /// their layers, 0 for none.
    numbers: [u8; INLINE],
    layers: [u32; INLINE],
    enter: Narrow,
    leave: Narrow,
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
    more: Option<Box<More>>,
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

/// A fact about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fact {
    /// Its initiator's packets go out.
    Outbound = 1,
    /// Its names rest when it ends: its port was taken from a list.
    Rests = 2,
    /// A packet of the responder was seen.
    Answered = 4,
    /// It has confirmed itself.
    Established = 8,
}

/// What is known of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) state: tcp::Connection,
    pub(crate) timing: Timing,
}

// Of a connection nearly all packets of TCP ask for this line alone.
const _: () = assert!(size_of::<Aligned<Tcp>>() == 64);

/// Entries that a connection has room for.
const INLINE: usize = 2;

/// What few connections have.
#[derive(Debug, Default)]
struct More {
    /// Entries that found no room.
    list: Vec<PackedEntry>,
    /// Tuples of entries that are not those of the ends.
    tuples: Vec<Packed>,
    /// The upper parts of IPv6 addresses: source and destination, entering and leaving.
    upper: Option<Box<[[u128; 2]; 2]>>,
}

/// A layer and the numbers of the tuples before and after: 0 enters, 1 leaves, others stand in [`More`].
#[derive(Clone, Copy, Debug)]
struct PackedEntry {
    layer: u32,
    numbers: [u8; 2],
}

/// A tuple's ports and the low parts of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Narrow {
    addresses: [u32; 2],
    ports: [u16; 2],
}

/// A tuple without its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed(Narrow, Option<Box<[u128; 2]>>);

// Two flows, their keys and this are to be half a kilobyte, with room for what is in the index.
const _: () = assert!(size_of::<Connection>() <= 72);

impl Tcp {
    /// Of a connection that has just begun.
    pub(crate) fn new(state: tcp::Connection) -> Self {
        Self { state, timing: Timing::default() }
    }

    /// Whether the connection is open.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.state.state() == tcp::State::Established
    }

    /// Takes in a segment of a side.
    pub(crate) fn take(&mut self, side: tcp::Side, segment: Segment, marked: bool, now_us: u32) -> Progress {
        if self.state.continues(side, segment) {
            self.timing.observe(side, segment, false, marked, now_us);
            return Progress::Unchanged;
        }
        let sent_again = self.state.retransmits(side);
        let progress = self.state.track(side, segment);
        if matches!(progress, Progress::Unchanged | Progress::Became(_)) {
            let again = self.state.retransmits(side) != sent_again;
            self.timing.observe(side, segment, again, marked, now_us);
        }
        progress
    }
}

impl Connection {
    /// Where its state is, if it is TCP's.
    #[inline]
    pub(crate) const fn tcp(&self) -> Option<Handle> {
        self.tcp
    }

    /// It is TCP's, with its state there.
    pub(super) const fn track(&mut self, tcp: Handle) {
        self.tcp = Some(tcp);
    }

    /// Begins one. `entries` are in the order in which the initiator meets them.
    pub(crate) fn new(direction: Direction, [enter, leave]: [Tuple; 2], entries: &[Entry]) -> Self {
        let mut connection = Self {
            facts: if direction == Direction::Out { Fact::Outbound as u8 } else { 0 },
            tcp: None,
            enter: Narrow::new(enter),
            leave: Narrow::new(leave),
            protocol: enter.protocol,
            layers: [0; INLINE],
            numbers: [0; INLINE],
            more: None,
            epoch: 0,
            initiator: None,
            flows: None,
            last_ms: 0,
            idle_s: u32::MAX,
        };
        if enter.version == 6 {
            let upper = [enter, leave].map(|tuple| [tuple.source >> 32, tuple.destination >> 32]);
            connection.more = Some(Box::new(More { upper: Some(Box::new(upper)), ..More::default() }));
        }
        connection.remember(entries, [enter, leave]);
        connection
    }

    /// Which way its initiator's packets go.
    #[inline]
    pub(crate) const fn direction(&self) -> Direction {
        if self.is(Fact::Outbound) { Direction::Out } else { Direction::In }
    }

    /// Whether something is so.
    #[inline]
    pub(crate) const fn is(&self, fact: Fact) -> bool {
        self.facts & fact as u8 != 0
    }

    /// Says that something is so, or is not.
    #[inline]
    pub(crate) const fn set(&mut self, fact: Fact, to: bool) {
        if to {
            self.facts |= fact as u8;
        } else {
            self.facts &= !(fact as u8);
        }
    }

    /// The tuple of packets of a direction as they enter the policy.
    #[inline]
    pub(crate) fn name(&self, direction: Direction) -> Tuple {
        if direction == self.direction() { self.enter() } else { self.leave().reversed() }
    }

    /// What packets of a direction are to it.
    #[inline]
    pub(crate) fn role(&self, direction: Direction) -> Role {
        if direction == self.direction() { Role::Initiator } else { Role::Responder }
    }

    #[inline]
    pub(crate) fn enter(&self) -> Tuple {
        self.end(&self.enter, 0)
    }

    #[inline]
    pub(crate) fn leave(&self) -> Tuple {
        self.end(&self.leave, 1)
    }

    #[inline]
    fn end(&self, narrow: &Narrow, at: usize) -> Tuple {
        let upper = match &self.more {
            Some(more) => more.upper.as_ref().and_then(|upper| upper.get(at)).copied(),
            None => None,
        };
        narrow.tuple(upper, self.protocol)
    }

    /// What a layer remembers.
    pub(crate) fn entry(&self, layer: Stamp) -> Option<Entry> {
        let packed = self.packed().find(|entry| entry.layer == layer.low())?;
        self.unpack(layer, packed)
    }

    /// Those of its entries that are of one of these layers, in the order in which the initiator meets them.
    pub(crate) fn entries(&self, layers: &[Stamp]) -> impl Iterator<Item = Entry> {
        self.packed().filter_map(|packed| {
            let layer = layers.iter().find(|layer| layer.low() == packed.layer)?;
            self.unpack(*layer, packed)
        })
    }

    /// How many entries it has, of layers that are no more included.
    pub(crate) fn entry_count(&self) -> usize {
        self.packed().count()
    }

    /// Replaces the entries. Its names stay.
    pub(crate) fn amend(&mut self, entries: &[Entry]) {
        (self.layers, self.numbers) = ([0; INLINE], [0; INLINE]);
        let upper = self.more.take().and_then(|more| more.upper);
        self.more = upper.map(|upper| Box::new(More { upper: Some(upper), ..More::default() }));
        let ends = [self.enter(), self.leave()];
        self.remember(entries, ends);
    }

    fn packed(&self) -> impl Iterator<Item = PackedEntry> {
        let inline = self.layers.iter().zip(&self.numbers).filter(|(layer, _)| **layer != 0);
        let inline = inline.map(|(layer, both)| PackedEntry { layer: *layer, numbers: [*both & 0xf, *both >> 4] });
        inline.chain(self.more.iter().flat_map(|more| more.list.iter().copied()))
    }

    fn unpack(&self, layer: Stamp, packed: PackedEntry) -> Option<Entry> {
        let tuple = |number| match number {
            0 => Some(self.enter()),
            1 => Some(self.leave()),
            other => {
                let Packed(narrow, upper) = self.more.as_ref()?.tuples.get(usize::from(other).checked_sub(2)?)?;
                Some(narrow.tuple(upper.as_deref().copied(), self.protocol))
            }
        };
        let [before, after] = packed.numbers;
        Some(Entry { layer, before: tuple(before)?, after: tuple(after)? })
    }

    fn remember(&mut self, entries: &[Entry], [enter, leave]: [Tuple; 2]) {
        let mut slots = self.layers.iter_mut().zip(&mut self.numbers);
        for entry in entries {
            let mut number = |tuple: Tuple| {
                if tuple == enter {
                    return 0;
                }
                if tuple == leave {
                    return 1;
                }
                let tuples = &mut self.more.get_or_insert_default().tuples;
                let packed = Packed::new(tuple);
                let at = tuples.iter().position(|known| *known == packed).unwrap_or_else(|| {
                    tuples.push(packed);
                    tuples.len() - 1
                });
                // There are at most twice as many as layers.
                u8::try_from(at + 2).unwrap_or(u8::MAX)
            };
            let (layer, numbers) = (entry.layer.low(), [number(entry.before), number(entry.after)]);
            match slots.next() {
                Some(slot) => (*slot.0, *slot.1) = (layer, numbers[0] | numbers[1] << 4),
                None => self.more.get_or_insert_default().list.push(PackedEntry { layer, numbers }),
            }
        }
        if let Some(more) = &mut self.more {
            more.list.shrink_to_fit();
            more.tuples.shrink_to_fit();
        }
    }

    /// How long it lives without a packet, in milliseconds, if it is TCP's in this state.
    pub(super) fn lifetime_ms(&self, tcp: Option<tcp::State>) -> u32 {
        let most_s = match tcp {
            Some(tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Midstream) => HALF_OPEN_S,
            Some(tcp::State::Established) => u32::MAX,
            Some(tcp::State::Closing) => CLOSING_S,
            Some(tcp::State::TimeWait) => TIME_WAIT_S,
            Some(tcp::State::Reset) => RESET_S,
            None if self.is(Fact::Answered) => u32::MAX,
            None => HALF_OPEN_S,
        };
        self.idle_s.min(most_s).saturating_mul(1000)
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        self.more.as_ref().map_or(0, |more| {
            let wide = more.tuples.iter().filter(|tuple| tuple.1.is_some()).count();
            allocated(size_of::<More>())
                + allocated(more.list.capacity() * size_of::<PackedEntry>())
                + allocated(more.tuples.capacity() * size_of::<Packed>())
                + wide * allocated(size_of::<[u128; 2]>())
                + more.upper.as_ref().map_or(0, |_| allocated(size_of::<[[u128; 2]; 2]>()))
        })
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

impl Narrow {
    #[expect(clippy::cast_possible_truncation, reason = "the low parts are meant")]
    const fn new(tuple: Tuple) -> Self {
        Self {
            addresses: [tuple.source as u32, tuple.destination as u32],
            ports: [tuple.source_port, tuple.destination_port],
        }
    }

    #[inline]
    fn tuple(&self, upper: Option<[u128; 2]>, protocol: u8) -> Tuple {
        let version = if upper.is_some() { 6 } else { 4 };
        let ([source, destination], [source_port, destination_port]) = (self.addresses, self.ports);
        let [upper_source, upper_destination] = upper.unwrap_or_default();
        Tuple {
            source: u128::from(source) | upper_source << 32,
            destination: u128::from(destination) | upper_destination << 32,
            source_port,
            destination_port,
            protocol,
            version,
        }
    }
}

impl Packed {
    fn new(tuple: Tuple) -> Self {
        let upper = (tuple.version == 6).then(|| Box::new([tuple.source >> 32, tuple.destination >> 32]));
        Self(Narrow::new(tuple), upper)
    }
}
