// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unified flows: what the data path knows of all packets with one identity (VF-18).

use packet::{DropCause, PortId};

use super::path::PathId;
use super::shard::{Now, SILENT_MS};
use super::treatment::{Change, Fate};
use crate::flow::Handle;
use crate::flow::connection::Role;
use crate::flow::slab::{Aligned, Place};

/// A unified flow.
#[derive(Debug)]
pub(super) struct Unified {
    /// The epoch of its shard in which it was last found right.
    pub(super) epoch: u32,
    /// Bytes since they were last given to the rules.
    pub(super) bytes: u64,
    /// Packets since they were last given to the rules.
    pub(super) packets: u32,
    pub(super) last_ms: u32,
    pub(super) path: PathId,
    pub(super) connection: Option<Handle>,
    /// With a connection: the next flow of it. Without: the flow of the other direction.
    pub(super) link: Option<Handle>,
    /// The flow that its packets belong to at the port that they go to.
    pub(super) next: Option<Handle>,
    /// The forwarder's epoch in which they went there.
    pub(super) next_epoch: u32,
    /// That port, and when it was last made sure of, in seconds.
    pub(super) next_port: PortId,
    pub(super) next_s: u16,
    /// Where else to look, with every packet.
    pub(super) tie: Tie,
    pub(super) fate: Fate,
    /// What else there is to know, a bit each.
    pub(super) marks: Marks,
}

/// What most packets of a flow do not ask of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// What is done to headers.
    pub(super) change: Change,
    /// What the rules were given already.
    pub(super) told: Told,
}

/// Packets, 40 bits, and bytes, 48: both stay at their most. That is a day of the smallest packets on the fastest
/// links, and six hours of the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told([u8; 11]);

impl Told {
    const PACKETS: usize = 5;

    pub(super) fn get(self) -> (u64, u64) {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (packets, bytes) = self.0.split_at(Self::PACKETS);
        (number(packets), number(bytes))
    }

    pub(super) fn add(&mut self, packets: u32, bytes: u64) {
        let (old_packets, old_bytes) = self.get();
        let sums = [old_packets.saturating_add(packets.into()), old_bytes.saturating_add(bytes)];
        let (to_packets, to_bytes) = self.0.split_at_mut(Self::PACKETS);
        for (to, sum) in [to_packets, to_bytes].into_iter().zip(sums) {
            let sum = sum.min((1 << (8 * to.len())) - 1);
            to.iter_mut().zip(sum.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        }
    }
}

/// What there is to know about a flow, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// It is among those that nobody has confirmed.
    pub(super) const SMALL: Self = Self(1);
    /// A packet of it was seen: one that was made for its pair has yet to be.
    pub(super) const SEEN: Self = Self(2);
    /// Its connection has nothing to learn from its packets any more.
    pub(super) const QUIET: Self = Self(4);
    /// It is right for a while only: what the directory denied may come to be.
    pub(super) const PASSING: Self = Self(8);

    /// Its packets are put into a tunnel.
    pub(super) const TUNNEL: Self = Self(16);
    /// Its packets' headers are changed.
    pub(super) const CHANGES: Self = Self(32);
    /// It has a connection, and its packets are the answers.
    pub(super) const ANSWERS: Self = Self(64);

    #[inline]
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, other: Self, to: bool) {
        if to {
            self.0 |= other.0;
        } else {
            self.0 &= !other.0;
        }
    }

    /// Whether its flow's packets have little to tell: nothing, if it is quiet too, else at most numbers of TCP.
    #[inline]
    pub(super) const fn is_steady(self) -> bool {
        self.0 & (Self::SEEN.0 | Self::PASSING.0) == Self::SEEN.0
    }
}

/// Where else to look with a flow's packets. Of a flow without a connection: where to see whether one with its name may have
/// begun since it was planned. Of one that has one: where that's state of TCP is. Which of both it is says the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tie(u32);

impl From<Watched> for Tie {
    fn from(Watched { place, count }: Watched) -> Self {
        Self(u32::from(place) << 16 | u32::from(count))
    }
}

impl From<Option<Handle>> for Tie {
    fn from(tcp: Option<Handle>) -> Self {
        // No handle is all ones.
        Self(tcp.map_or(u32::MAX, Handle::to_bits))
    }
}

/// A place among the [`Openings`], and what stood there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    place: u16,
    count: u16,
}

/// Connections that have begun, counted by hash of their names: so a flow that was planned without one, dropped
/// perhaps, learns of it without looking for it with every packet.
#[derive(Debug)]
pub(super) struct Openings(Box<[u16]>);

impl Openings {
    /// One more place than there are hashes: that of flows that can have no connection.
    const PLACES: u16 = 4096;

    pub(super) fn new() -> Self {
        Self(vec![0; usize::from(Self::PLACES) + 1].into())
    }

    /// What a flow with this hash of its name is to watch; `None`: it has no name.
    pub(super) fn watch(&self, hash: Option<u64>) -> Watched {
        let place = hash.map_or(Self::PLACES, Self::place);
        Watched { place, count: self.0.get(usize::from(place)).copied().unwrap_or_default() }
    }

    /// A connection with this hash of a name has begun.
    pub(super) fn opened(&mut self, hash: u64) {
        if let Some(count) = self.0.get_mut(usize::from(Self::place(hash))) {
            *count = count.wrapping_add(1);
        }
    }

    #[inline]
    pub(super) fn is_quiet(&self, watched: Watched) -> bool {
        self.0.get(usize::from(watched.place)) == Some(&watched.count)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    const fn place(hash: u64) -> u16 {
        (hash >> 40) as u16 % Self::PLACES
    }
}

// Packets of a hundred thousand flows wait for little else: a flow is one line, and what is beside it less.
const _: () = assert!(size_of::<Aligned<Unified>>() == 64 && size_of::<Place<Unified>>() <= 64);
const _: () = assert!(size_of::<Beside>() <= 40);

impl Unified {
    /// A flow whose packets are treated so, of which nothing else is known.
    pub(super) fn new(fate: Fate, change: &Change, now: &Now<'_>) -> Self {
        let mut flow = Self {
            epoch: now.epoch,
            bytes: 0,
            packets: 0,
            last_ms: now.ms,
            path: PathId::None,
            connection: None,
            link: None,
            next: None,
            next_epoch: 0,
            next_port: PortId::NONE,
            next_s: 0,
            fate,
            marks: Marks::SMALL,
            tie: Tie::from(None),
        };
        flow.treat(fate, change);
        flow
    }

    /// Its packets are treated so from now on.
    pub(super) fn treat(&mut self, fate: Fate, change: &Change) {
        self.fate = fate;
        self.marks.set(Marks::CHANGES, !matches!(change, Change::None));
        self.marks.set(Marks::TUNNEL, change.pushes());
        self.marks.set(Marks::PASSING, fate == Fate::Drop(DropCause::NoMapping));
    }

    /// Whether it is right without a closer look: planned under this policy, and no connection can have ended or begun
    /// unnoticed.
    #[inline]
    pub(super) fn is_settled(&self, epoch: u32, now_ms: u32, openings: &Openings) -> bool {
        self.epoch == epoch
            && now_ms.wrapping_sub(self.last_ms) < SILENT_MS
            && (self.connection.is_some() || openings.is_quiet(self.watched()))
    }

    /// Of a flow without a connection: where to see whether one may have begun, and what stood there.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are meant")]
    pub(super) const fn watched(&self) -> Watched {
        Watched { place: (self.tie.0 >> 16) as u16, count: self.tie.0 as u16 }
    }

    /// Where the state of its connection is, if it has one of TCP.
    #[inline]
    pub(super) const fn tcp(&self) -> Option<Handle> {
        if self.connection.is_some() { Handle::from_bits(self.tie.0) } else { None }
    }

    /// What its packets are to its connection.
    #[inline]
    pub(super) const fn role(&self) -> Role {
        if self.marks.has(Marks::ANSWERS) { Role::Responder } else { Role::Initiator }
    }

    /// Counts a packet.
    #[inline]
    pub(super) fn count(&mut self, bytes: u32, now_ms: u32) {
        self.count_run(1, u64::from(bytes), now_ms);
    }

    /// Whether its packets have nothing to tell and pass as they are: a run of them is one.
    #[inline]
    pub(super) fn is_idle_talk(&self) -> bool {
        self.fate == Fate::Pass
            && self.marks.is_steady()
            && self.marks.has(Marks::QUIET)
            && !self.marks.has(Marks(Marks::CHANGES.0 | Marks::TUNNEL.0))
    }

    /// Counts a run of packets.
    #[inline]
    pub(super) fn count_run(&mut self, packets: u32, bytes: u64, now_ms: u32) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
        self.last_ms = now_ms;
        self.marks.set(Marks::SEEN, true);
    }
}
