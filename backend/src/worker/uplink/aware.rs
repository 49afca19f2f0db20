// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What leaves by an uplink on which there may be aware nodes: put together for the peer behind which it goes, or plain.

use aggregation::Trigger;
use packet::{Burst, DropCause, EthernetHeader, MacAddr, Offload};

use super::UplinkTx;
use crate::worker::aggregate::{self, Room, Target};
use crate::worker::payload::Payload;
use crate::worker::watch;

/// Bytes of both addresses of an Ethernet header.
const ADDRESSES: usize = 12;

impl UplinkTx {
    /// Whether a packet that its sender left unfinished can leave as it is: in an aggregate, to somebody who takes that.
    pub(in crate::worker) fn carries(&self, head: &[u8], len: usize, offload: Offload) -> bool {
        let Some(wire) = &self.wire else { return false };
        let target = EthernetHeader::parse(head).and_then(|ethernet| wire.target(ethernet.destination()));
        target.is_some_and(|target| wire.carries(target, len, offload)) && !aggregate::is_aggregate(head)
    }

    /// Puts a packet together for the peer behind which it goes, or sends it plain, behind what was put together.
    pub(super) fn send_aware(
        &mut self,
        station: Option<MacAddr>,
        offload: Offload,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        now_ns: u64,
    ) {
        let len = head.len() + tail_len;
        let Some(ethernet) = EthernetHeader::parse(head) else { return };
        let addresses = station.map(|station| self.addresses(station));
        let Some(wire) = &self.wire else { return };
        let node = wire.node;
        let Some(target) = wire.target(station.unwrap_or_else(|| ethernet.destination())) else {
            let source = ethernet.source();
            if !aggregate::is_refresh(head) {
                // What goes to a link has not come from there.
                self.heard_plain(source, now_ns);
                if self.wire.as_ref().is_some_and(|wire| wire.should_announce(source, now_ns)) {
                    self.announce_station(source, node, true, now_ns);
                }
            }
            return self.send_plain(station, offload, head, tail_len, tail);
        };
        // Answers are to go to the node that the source is at, though this one has taken the packet out of its group.
        let origin = wire.origin_of(ethernet.source());
        let Some(class) = aggregate::class_of(head) else { return self.drop_frame(DropCause::Aggregate, head, len) };
        let key = aggregate::key(origin, target.node, class);
        match wire.room(target, key, len, offload) {
            Room::Now => {}
            Room::Next => self.ship(target.peer, wire.refusal(target.peer)),
            Room::Never => {
                self.ship(target.peer, Trigger::Larger);
                return self.send_plain(station, offload, head, tail_len, tail);
            }
        }
        let packet = head;
        // The link's own header first, then all else.
        let (first, rest) = head.split_at(EthernetHeader::LEN.min(head.len()));
        let mut header = [0; EthernetHeader::LEN];
        header.iter_mut().zip(first).for_each(|(to, from)| *to = *from);
        header.iter_mut().zip(addresses.iter().flatten()).for_each(|(to, from)| *to = *from);
        let tail = |room: &mut [u8]| {
            let (to, behind) = room.split_at_mut(rest.len().min(room.len()));
            to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            tail(behind);
            if let Some(tap) = &self.tap {
                tap.see_pieces(&header, room);
            }
        };
        let (head, tail_len) = (&header, rest.len() + tail_len);
        let put = self.wire.as_mut().is_some_and(|wire| wire.put(target, key, head, tail_len, tail, offload));
        if !put {
            return self.drop_frame(DropCause::TooBig, packet, len);
        }
        if let Some(wire) = &mut self.wire {
            wire.note(target, packet, class);
        }
    }

    /// Puts packets of a burst together, one bit each in `packets`: the first and those behind it that have the same addresses, as long as they
    /// are finished, there is room for them in the open frame, and nothing else is to be done. Returns those that are left.
    #[inline]
    pub(in crate::worker) fn put_alike(
        &mut self,
        burst: &Burst,
        payload: Payload<'_>,
        mut packets: u64,
        is_ordinary: impl Fn(&[u8]) -> bool,
    ) -> u64 {
        let longest = self.mtu + EthernetHeader::LEN;
        let Some(wire) = &mut self.wire else { return packets };
        let (first, _) = burst.pieces(packets.trailing_zeros() as usize);
        let Some(ethernet) = EthernetHeader::parse(first) else { return packets };
        let Some(target) = wire.target(ethernet.destination()) else { return packets };
        let (origin, addresses) = (wire.origin_of(ethernet.source()), first.first_chunk::<ADDRESSES>());
        let is_alike = |head: &[u8], len| head.first_chunk() == addresses && len <= longest && is_ordinary(head);
        let before = packets;
        wire.put_all(target, origin, (burst, payload), &mut packets, is_alike);
        if let Some(tap) = &self.tap {
            watch::see_all(tap, burst, payload, before & !packets);
        }
        packets
    }

    /// Tells the peers of the link where a station is; `with_plain`: it has sent a plain frame that goes there.
    pub(in crate::worker) fn announce_station(&mut self, station: MacAddr, node: u16, with_plain: bool, now_ns: u64) {
        let Some(wire) = &mut self.wire else { return };
        let full = wire.announce(station, node, with_plain, now_ns);
        full.into_iter().for_each(|peer| self.tell(peer, station, node));
    }

    /// Tells one peer of the link where a station is.
    pub(in crate::worker) fn tell(&mut self, peer: usize, station: MacAddr, node: u16) {
        if self.wire.as_mut().is_none_or(|wire| wire.announce_to(peer, station, node)) {
            return;
        }
        self.ship(peer, Trigger::Bytes);
        if let Some(wire) = &mut self.wire {
            wire.announce_to(peer, station, node);
        }
    }

    /// A station was seen that is not behind a peer of the link, or is no longer. What was put together for that peer goes before what goes
    /// to the station from now on.
    pub(in crate::worker) fn heard_plain(&mut self, station: MacAddr, now_ns: u64) {
        if let Some(peer) = self.wire.as_mut().and_then(|wire| wire.heard_plain(station, now_ns)) {
            self.ship(peer, Trigger::Order);
        }
    }

    /// Puts a group together for a peer. `false`: it fits into none of its frames.
    pub(in crate::worker) fn put_group(&mut self, target: Target, class: u8, group: &[u8]) -> bool {
        let Some(wire) = &mut self.wire else { return false };
        if wire.splice(target, class, group) {
            return true;
        }
        let trigger = wire.refusal(target.peer);
        self.ship(target.peer, trigger);
        self.wire.as_mut().is_some_and(|wire| wire.splice(target, class, group))
    }

    /// Lets time pass at what was agreed. Returns whether a station was forgotten: what was put together for it goes before what goes to it
    /// from now on.
    pub(in crate::worker) fn tick_wire(&mut self, now_ns: u64) -> bool {
        let counters = self.counters.get(self.worker);
        self.wire.as_mut().is_some_and(|wire| wire.tick(counters, now_ns))
    }

    /// Says what is due to be said to aware nodes.
    pub(in crate::worker) fn speak(&mut self, now_ns: u64) {
        let mut frame = [0; aggregate::CONTROL];
        while let Some(len) = self.wire.as_mut().and_then(|wire| wire.speak(now_ns, &mut frame)) {
            let bytes = frame.get(..len).unwrap_or_default();
            if self.push_aggregate(bytes)
                && let Some(counters) = self.counters.get(self.worker)
            {
                counters.tx_control.add(1);
            }
        }
    }

    /// Sends what was put together for a peer.
    fn ship(&mut self, peer: usize, trigger: Trigger) {
        let Some(mut wire) = self.wire.take() else { return };
        let uplink = &mut *self;
        wire.ship(peer, trigger, move |frame, packets, bytes| {
            if !uplink.push_aggregate(frame) {
                uplink.drop_alike(DropCause::NoBuffers, packets as usize, frame, frame.len());
                return None;
            }
            let counters = uplink.counters.get(uplink.worker)?;
            counters.tx_packets.add(packets.into());
            counters.tx_bytes.add(bytes);
            counters.tx_aggregates.add(1);
            counters.tx_aggregated.add(packets.into());
            Some(counters)
        });
        self.wire = Some(wire);
    }

    /// Puts an aggregate, or a frame that negotiates, into the ring. `false`: there is no room.
    fn push_aggregate(&mut self, frame: &[u8]) -> bool {
        if !self.ring.has_room() {
            self.flush();
        }
        self.ring.push_aggregate(frame)
    }

    /// The worker's turn ends: sends what was put together, unless something justifies holding it, and hands what is in the ring to the
    /// kernel. Returns until when something is held, in nanoseconds.
    pub(in crate::worker) fn end_turn(&mut self) -> Option<u64> {
        let (mut from, mut held_until) = (0, None);
        while let Some(peer) = self.wire.as_ref().and_then(|wire| wire.next_open(from)) {
            match self.wire.as_mut().map(|wire| wire.end_turn(peer)) {
                Some(Ok(trigger)) => self.ship(peer, trigger),
                Some(Err(until)) => held_until = held_until.into_iter().chain(until).min(),
                None => {}
            }
            from = peer + 1;
        }
        self.flush();
        held_until
    }

    /// Sends what was put together for all peers.
    pub(in crate::worker) fn ship_all(&mut self, trigger: Trigger) {
        let mut from = 0;
        while let Some(peer) = self.wire.as_ref().and_then(|wire| wire.next_open(from)) {
            self.ship(peer, trigger);
            from = peer + 1;
        }
    }
}
