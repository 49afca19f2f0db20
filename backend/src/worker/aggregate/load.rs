// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is put together for each peer of a link, and goes as one frame.

use aggregation::negotiation::Grant;
use aggregation::{Features, Format, GroupKey, Meta, Trigger, Writer};
use packet::{Burst, EthernetHeader, Offload};

use super::append::append;
use super::hold::Hold;
use super::meta::meta_of;
use super::wire::{Peer, Target, Wire, WireConfig, ethernet};
use crate::counters::PortCounters;
use crate::worker::payload::Payload;

/// Whether there is room for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Room {
    Now,
    /// When the frame has gone.
    Next,
    /// It has to go plain, behind the frame.
    Never,
}

impl Wire {
    /// Whether there is room for a packet of `len` bytes.
    #[inline]
    pub(in crate::worker) fn room(&self, target: Target, key: GroupKey, len: usize, offload: Offload) -> Room {
        self.load(target.peer).map_or(Room::Never, |load| load.room(key, len, offload))
    }

    /// Whether a packet of `len` bytes can be put into a frame as its sender left it.
    pub(in crate::worker) fn carries(&self, target: Target, len: usize, offload: Offload) -> bool {
        self.load(target.peer).is_some_and(|load| load.meta(offload).is_some_and(|meta| load.fits_any(len, &meta)))
    }

    /// A packet that begins like this was put into a peer's frame.
    #[inline]
    pub(in crate::worker) fn note(&mut self, target: Target, head: &[u8], class: u8) {
        // Nearly nowhere is anything held.
        if self.config.time_usecs > 0
            && let Some(load) = self.load_mut(target.peer)
        {
            load.hold.note(head, class);
        }
    }

    /// Appends a packet for which there is room.
    #[inline]
    pub(in crate::worker) fn put(
        &mut self,
        target: Target,
        key: GroupKey,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        offload: Offload,
    ) -> bool {
        self.load_mut(target.peer).is_some_and(|load| load.put(key, head, tail_len, tail, offload))
    }

    /// Appends packets of a burst, one bit each, and takes them out of `packets` as long as there is room and `is_alike` says of their first
    /// bytes and length that they are like those before.
    #[inline]
    pub(in crate::worker) fn put_all(
        &mut self,
        target: Target,
        origin: u16,
        (burst, payload): (&Burst, Payload<'_>),
        packets: &mut u64,
        is_alike: impl Fn(&[u8], usize) -> bool,
    ) {
        let Some(load) = self.load_mut(target.peer) else { return };
        let key = GroupKey { origin, destination: target.node, class: 0 };
        let is_alike = |i, head: &[u8], len| burst.offload(i) == Offload::NONE && is_alike(head, len);
        let (_, bytes) = append((&mut load.writer, &mut load.hold), key, (burst, payload), packets, is_alike);
        load.bytes += bytes;
    }

    /// Appends a whole group of a class, nothing of which is looked at. `false`: there is no room.
    pub(in crate::worker) fn splice(&mut self, target: Target, class: u8, group: &[u8]) -> bool {
        self.load_mut(target.peer).is_some_and(|load| load.splice(class, group))
    }

    /// The first peer from a place on for whom something was put together.
    pub(in crate::worker) fn next_open(&self, from: usize) -> Option<usize> {
        let is_open = |peer: &Peer| peer.out.as_ref().is_some_and(|load| load.is_open());
        self.peers.iter().skip(from).position(is_open).map(|at| from + at)
    }

    /// Why a peer's frame has no room for another packet.
    pub(in crate::worker) fn refusal(&self, peer: usize) -> Trigger {
        let is_full = self.load(peer).is_some_and(|load| load.writer.packets() >= load.format.max_packets);
        if is_full { Trigger::Frames } else { Trigger::Bytes }
    }

    /// The turn ends: why a peer's frame is to be sent, or until when it is held, in nanoseconds.
    pub(in crate::worker) fn end_turn(&mut self, peer: usize) -> Result<Trigger, Option<u64>> {
        self.load_mut(peer).filter(|load| load.is_open()).map_or(Err(None), Load::end_turn)
    }

    /// Ends a peer's frame and hands it to `with`, with its Ethernet header, the packets in it and their bytes. `with` says
    /// where it is counted that was sent; one that was lost is not.
    pub(in crate::worker) fn ship<'c>(
        &mut self,
        peer: usize,
        trigger: Trigger,
        with: impl FnOnce(&[u8], u32, u64) -> Option<&'c PortCounters>,
    ) {
        let own = self.config.mac;
        let Some(Peer { address, out: Some(load), .. }) = self.peers.get_mut(peer) else { return };
        if load.is_open() {
            load.ship(ethernet(*address, own), trigger, with);
        }
    }

    fn load(&self, peer: usize) -> Option<&Load> {
        self.peers.get(peer)?.out.as_deref()
    }

    fn load_mut(&mut self, peer: usize) -> Option<&mut Load> {
        self.peers.get_mut(peer)?.out.as_deref_mut()
    }
}

/// What is put together for a peer.
#[derive(Debug)]
pub(super) struct Load {
    format: Format,
    features: Features,
    writer: Writer,
    sequence: u16,
    bytes: u64,
    hold: Hold,
}

impl Load {
    pub(super) fn new(grant: &Grant, stage: u8, config: &WireConfig) -> Self {
        let mut format = grant.format(stage);
        format.max_bytes = format.max_bytes.min(config.max_bytes);
        format.max_packets = format.max_packets.min(config.max_packets);
        format.template &= config.template;
        let mut writer = Writer::new(format.max_bytes, EthernetHeader::LEN);
        writer.begin(&format);
        let hold = Hold::for_time(&format, config.time_usecs);
        Self { format, features: grant.features, writer, sequence: 0, bytes: 0, hold }
    }

    /// What the peer grants.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    fn is_open(&self) -> bool {
        !self.writer.is_empty()
    }

    #[inline]
    fn room(&self, key: GroupKey, len: usize, offload: Offload) -> Room {
        let Some(meta) = self.meta(offload) else { return Room::Never };
        if self.writer.has_room(key, len, &meta) {
            Room::Now
        } else if self.fits_any(len, &meta) {
            Room::Next
        } else {
            Room::Never
        }
    }

    /// Appends a packet. `false`: there is no room, or the peer does not take it so.
    #[inline]
    pub(super) fn put(
        &mut self,
        key: GroupKey,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        offload: Offload,
    ) -> bool {
        let Some(meta) = self.meta(offload) else { return false };
        let put = self.writer.push(key, head, tail_len, tail, &meta);
        if put {
            self.bytes += (head.len() + tail_len) as u64;
        }
        put
    }

    fn splice(&mut self, class: u8, group: &[u8]) -> bool {
        let put = self.writer.splice(group);
        if put {
            self.bytes += group.len() as u64;
            self.hold.note_group(class);
        }
        put
    }

    fn end_turn(&mut self) -> Result<Trigger, Option<u64>> {
        if self.hold.is_urgent() {
            return Ok(Trigger::Urgent);
        }
        self.hold.turn(self.writer.packets(), self.writer.len()).ok_or_else(|| self.hold.deadline())
    }

    fn ship<'c>(
        &mut self,
        header: [u8; EthernetHeader::LEN],
        trigger: Trigger,
        with: impl FnOnce(&[u8], u32, u64) -> Option<&'c PortCounters>,
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let (packets, bytes) = (self.writer.packets(), std::mem::take(&mut self.bytes));
        let frame = self.writer.finish_with_room(self.sequence);
        if let Some(room) = frame.first_chunk_mut() {
            *room = header;
        }
        let len = frame.len();
        let counters = with(frame, packets, bytes);
        self.hold.flushed(packets, len, trigger, counters);
        self.writer.begin(&self.format);
    }

    /// What travels with a packet; `None`: the peer does not take that.
    #[inline]
    fn meta(&self, offload: Offload) -> Option<Meta> {
        if offload == Offload::NONE {
            return Some(Meta::NONE);
        }
        meta_of(offload, self.features)
    }

    /// Whether such a packet fits into a frame that holds nothing else.
    fn fits_any(&self, len: usize, meta: &Meta) -> bool {
        const FRONT: usize =
            aggregation::wire::HEADER_CHECKED + aggregation::wire::GROUP_HEADER + aggregation::wire::GROUP_CRC;
        let stored = len.next_multiple_of(4) + aggregation::wire::SUBFRAME_HEADER + meta.ext_len();
        FRONT + stored <= self.format.max_bytes
    }
}
