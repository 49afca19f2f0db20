// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The packets that were received together, in memory of their own.
//!
//! Theory of operation. All bytes of a burst lie in one buffer, which is filled from the front and used again for the
//! next burst; a packet is a place in it. What arrives is copied there once, because the other side can rewrite shared
//! memory at any time; an aggregate is copied in one piece and its packets stay where they are in it. A packet that
//! grows moves to the end of the buffer, unless there is room beside it. So nothing is allocated once the buffer has
//! grown to what bursts need.

use std::ops::Range;

use ::packet::{Checksum, Offload};

use crate::packet::{Meta, Packet};

/// Bytes kept free in front of a packet that arrived by itself, so that it can be tunnelled without being moved: 50 of
/// them are VXLAN's.
const HEADROOM: usize = 64;

/// A burst of packets. Made once, and filled again and again by [`Queue::receive`](crate::Queue::receive).
///
/// ```
/// use cnf::{Burst, Packet};
///
/// let mut burst = Burst::new();
/// burst.push(Packet::new(&[0xff; 60]));
/// burst.for_each(|mut packet| packet.bytes_mut()[12..14].copy_from_slice(&[0x08, 0x00]));
/// assert_eq!(burst.iter().next().unwrap().bytes[11..15], [0xff, 0x08, 0x00, 0xff]);
/// ```
#[derive(Debug, Default)]
pub struct Burst {
    arena: Arena,
    packets: Vec<Place>,
}

/// A packet of a burst, to be changed in place.
#[derive(Debug)]
pub struct PacketMut<'a> {
    arena: &'a mut Arena,
    place: &'a mut Place,
}

/// The memory of a burst.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

/// Where a packet lies in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    len: usize,
    /// Bytes in front that are nobody's.
    room: usize,
    meta: Meta,
}

impl Burst {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of packets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.arena.used = 0;
    }

    /// The packet of that number.
    #[must_use]
    #[inline]
    pub fn packet(&self, index: usize) -> Option<Packet<'_>> {
        self.packets.get(index).map(|place| self.arena.packet(place))
    }

    /// The same, to be changed.
    #[must_use]
    pub fn packet_mut(&mut self, index: usize) -> Option<PacketMut<'_>> {
        let arena = &mut self.arena;
        self.packets.get_mut(index).map(|place| PacketMut { arena, place })
    }

    /// All of them, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        self.packets.iter().map(|place| self.arena.packet(place))
    }

    /// Shows all of them to `change`, in the order of their arrival.
    pub fn for_each(&mut self, mut change: impl FnMut(PacketMut<'_>)) {
        for place in &mut self.packets {
            change(PacketMut { arena: &mut self.arena, place });
        }
    }

    /// All memory of the burst, and where in it each packet lies, with what is known of it: for languages in which packets are
    /// pointers.
    pub fn split_mut(&mut self) -> (&mut [u8], impl Iterator<Item = (Range<usize>, Meta)>) {
        let places = self.packets.iter().map(|place| (place.at..place.at + place.len, place.meta));
        (&mut self.arena.bytes, places)
    }

    /// Appends a copy of a packet.
    pub fn push(&mut self, packet: Packet<'_>) {
        let at = self.reserve(packet.bytes.len());
        self.reserved(at, packet.bytes.len()).copy_from_slice(packet.bytes);
        self.place(at, packet.bytes.len(), HEADROOM, packet.meta);
    }

    /// Room for `len` bytes, with headroom, that the caller fills and makes packets of; says where it is.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> usize {
        self.arena.reserve(len)
    }

    /// Bytes that were reserved.
    #[inline]
    pub(crate) fn reserved(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.arena.get_mut(at, len)
    }

    /// Makes a packet of bytes that were reserved and filled; `room` bytes in front of it are nobody's.
    #[inline]
    pub(crate) fn place(&mut self, at: usize, len: usize, room: usize, meta: Meta) {
        self.packets.push(Place { at, len, room: room.min(HEADROOM), meta });
    }
}

impl Arena {
    fn packet(&self, place: &Place) -> Packet<'_> {
        Packet { bytes: self.bytes.get(place.at..place.at + place.len).unwrap_or(&[]), meta: place.meta }
    }

    fn get_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.bytes.get_mut(at..at + len).unwrap_or(&mut [])
    }

    fn reserve(&mut self, len: usize) -> usize {
        let at = self.used + HEADROOM;
        self.used = at + len;
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used.next_power_of_two(), 0);
        }
        at
    }

    /// Copies a packet to the end, `front` bytes behind the start of a new place for it that is `more` bytes longer.
    fn relocate(&mut self, place: &Place, front: usize, more: usize) -> Place {
        let at = self.reserve(place.len + more);
        self.bytes.copy_within(place.at..place.at + place.len, at + front);
        Place { at, len: place.len + more, room: HEADROOM, meta: place.meta }
    }
}

impl PacketMut<'_> {
    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.packet().bytes
    }

    /// The frame, to be written.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.arena.get_mut(self.place.at, self.place.len)
    }

    /// What is known of it.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.place.meta
    }

    /// The same, to be changed: a CNF that makes the packet one of another flow takes the flow's name off.
    #[must_use]
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.place.meta
    }

    /// It as it is, to be sent.
    #[must_use]
    pub fn packet(&self) -> Packet<'_> {
        self.arena.packet(self.place)
    }

    /// Puts `header` in front; moves the packet if there is no room for that. An unfinished checksum moves with it.
    pub fn prepend(&mut self, header: &[u8]) {
        if let Some(room) = self.place.room.checked_sub(header.len()) {
            let (at, len) = (self.place.at - header.len(), self.place.len + header.len());
            *self.place = Place { at, len, room, ..*self.place };
        } else {
            *self.place = self.arena.relocate(self.place, header.len(), header.len());
        }
        self.arena.get_mut(self.place.at, header.len()).copy_from_slice(header);
        self.shift_checksum(|start| start.checked_add(u16::try_from(header.len()).ok()?));
    }

    /// Takes bytes off the front, all of them if there are no more.
    pub fn trim_front(&mut self, bytes: usize) {
        let bytes = bytes.min(self.place.len);
        let Place { at, len, room, .. } = *self.place;
        *self.place = Place { at: at + bytes, len: len - bytes, room: (room + bytes).min(HEADROOM), ..*self.place };
        self.shift_checksum(|start| start.checked_sub(u16::try_from(bytes).ok()?));
    }

    /// Puts `trailer` behind, by moving the packet.
    pub fn append(&mut self, trailer: &[u8]) {
        let end = self.place.len;
        *self.place = self.arena.relocate(self.place, 0, trailer.len());
        self.arena.get_mut(self.place.at + end, trailer.len()).copy_from_slice(trailer);
    }

    /// Shortens it to `len` bytes. Does nothing if it is no longer than that.
    pub fn truncate(&mut self, len: usize) {
        self.place.len = self.place.len.min(len);
    }

    /// An unfinished checksum is counted from the start of the frame. One that has lost its place is given up: the packet
    /// is as its bytes are.
    fn shift_checksum(&mut self, shift: impl FnOnce(u16) -> Option<u16>) {
        let offload = &mut self.place.meta.offload;
        if let Checksum::Unfinished { start, offset } = offload.checksum {
            *offload = match shift(start) {
                Some(start) => Offload { checksum: Checksum::Unfinished { start, offset }, ..*offload },
                None => Offload::default(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(burst: &Burst) -> Vec<Vec<u8>> {
        burst.iter().map(|packet| packet.bytes.to_vec()).collect()
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Push(Vec<u8>),
        Prepend(usize, Vec<u8>),
        Append(usize, Vec<u8>),
        TrimFront(usize, usize),
        Truncate(usize, usize),
        Write(usize, u8),
        Clear,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let some = || prop::collection::vec(any::<u8>(), 0..100);
        let index = || 0..8usize;
        prop_oneof![
            4 => some().prop_map(Operation::Push),
            3 => (index(), some()).prop_map(|(index, header)| Operation::Prepend(index, header)),
            2 => (index(), some()).prop_map(|(index, trailer)| Operation::Append(index, trailer)),
            2 => (index(), 0..150usize).prop_map(|(index, bytes)| Operation::TrimFront(index, bytes)),
            1 => (index(), 0..150usize).prop_map(|(index, len)| Operation::Truncate(index, len)),
            2 => (index(), any::<u8>()).prop_map(|(index, byte)| Operation::Write(index, byte)),
            1 => Just(Operation::Clear),
        ]
    }

    proptest! {
        /// A burst is a list of byte strings, whatever is done to some of them.
        #[test]
        fn packets_never_touch_each_other(operations in prop::collection::vec(operation(), 0..60)) {
            let (mut burst, mut model) = (Burst::new(), Vec::<Vec<u8>>::new());
            for operation in operations {
                match operation {
                    Operation::Push(bytes) => {
                        burst.push(Packet::new(&bytes));
                        model.push(bytes);
                    }
                    Operation::Clear => {
                        burst.clear();
                        model.clear();
                    }
                    Operation::Prepend(index, header) => {
                        if let (Some(mut packet), Some(model)) = (burst.packet_mut(index), model.get_mut(index)) {
                            packet.prepend(&header);
                            model.splice(0..0, header);
                        }
                    }
                    Operation::Append(index, trailer) => {
                        if let (Some(mut packet), Some(model)) = (burst.packet_mut(index), model.get_mut(index)) {
                            packet.append(&trailer);
                            model.extend(trailer);
                        }
                    }
                    Operation::TrimFront(index, bytes) => {
                        if let (Some(mut packet), Some(model)) = (burst.packet_mut(index), model.get_mut(index)) {
                            packet.trim_front(bytes);
                            model.drain(..bytes.min(model.len()));
                        }
                    }
                    Operation::Truncate(index, len) => {
                        if let (Some(mut packet), Some(model)) = (burst.packet_mut(index), model.get_mut(index)) {
                            packet.truncate(len);
                            model.truncate(len);
                        }
                    }
                    Operation::Write(index, byte) => {
                        if let (Some(mut packet), Some(model)) = (burst.packet_mut(index), model.get_mut(index)) {
                            packet.bytes_mut().fill(byte);
                            model.fill(byte);
                        }
                    }
                }
                prop_assert_eq!(bytes(&burst), model.clone());
                prop_assert_eq!(burst.len(), model.len());
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_moves_with_its_packet() {
        let unfinished = |start| Checksum::Unfinished { start, offset: 16 };
        let mut burst = Burst::new();
        let offload = Offload { checksum: unfinished(34), segmentation: None };
        burst.push(Packet { bytes: &[0; 60], meta: Meta { flow: Some(7), offload } });
        let mut packet = burst.packet_mut(0).unwrap();
        packet.prepend(&[0; 100]);
        assert_eq!(packet.meta().offload.checksum, unfinished(134));
        packet.trim_front(120);
        assert_eq!(packet.meta().offload.checksum, unfinished(14));
        packet.trim_front(20);
        assert_eq!(packet.meta(), Meta { flow: Some(7), offload: Offload::default() });
    }

    #[test]
    fn places_are_those_of_the_packets() {
        let mut burst = Burst::new();
        (0..9u8).for_each(|number| burst.push(Packet::new(&vec![number; 14 + usize::from(number)])));
        burst.packet_mut(3).unwrap().prepend(&[9; 200]);
        let packets = bytes(&burst);
        let (memory, places) = burst.split_mut();
        let found: Vec<Vec<u8>> = places.map(|(place, _)| memory[place].to_vec()).collect();
        assert_eq!(found, packets);
    }

    #[test]
    fn memory_is_used_again() {
        let mut burst = Burst::new();
        for _ in 0..100 {
            burst.clear();
            burst.push(Packet::new(&[1; 1000]));
        }
        assert_eq!(burst.arena.bytes.len(), 2048);
    }
}
