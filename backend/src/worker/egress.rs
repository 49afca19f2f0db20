// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Judged packets, on their way out: into a guest's receive queue, an uplink's ring, or the ring to another worker.

use packet::{Burst, DropCause, Offload, PortId, Verdict};
use virtqueue::{Delivered, Frame, MAX_BURST, NetHeader, Tail};

use super::aggregate;
use super::bridge::{Ingress, carries, segment_of, takes_refresh};
use super::finish::{Cutter, gather, header_of};
use super::handover::{Ports, Sender, Stage};
use super::payload::Payload;
use super::slots::RxSlot;
use super::tunnel;
use super::uplink::UplinkTx;
use super::watch;
use crate::counters::{PortCounters, WorkerCounters};
use crate::inspect::Seen;
use crate::topology::{Route, Routes};

/// Everything that a judged burst is delivered with.
pub(super) struct Egress<'a> {
    pub(super) burst: &'a Burst,
    pub(super) routes: &'a Routes,
    pub(super) rxs: &'a mut [RxSlot],
    pub(super) uplinks: &'a mut [UplinkTx],
    pub(super) outbound: &'a mut [Option<Sender>],
    pub(super) cutter: &'a mut Cutter,
    pub(super) ingress: &'a Ingress<'a>,
    /// What the port counts that the packets came from.
    pub(super) of_port: Option<&'a PortCounters>,
    /// This worker's.
    pub(super) own: Option<&'a WorkerCounters>,
    /// Its index.
    pub(super) worker: usize,
    pub(super) now_ns: u64,
}

impl Egress<'_> {
    #[inline]
    pub(super) fn deliver_all(&mut self) {
        let verdicts = self.burst.verdicts();
        // Packets that went with one before them.
        let mut gone = 0_u64;
        let mut at = 0;
        while let Some(&verdict) = verdicts.get(at) {
            if gone >> at & 1 != 0 {
                at += 1;
                continue;
            }
            // Runs of one verdict are the rule: one guest talks to one other for a while.
            let run = verdicts.iter().skip(at).take_while(|&&next| next == verdict).count();
            match verdict {
                Verdict::Forward(port) | Verdict::Deliver(port) => match self.linked(port) {
                    Some(receiver) => {
                        let packets = self.all_for(port, at);
                        self.deliver_linked(receiver, packets);
                        gone |= packets;
                        at += 1;
                        continue;
                    }
                    None => self.deliver_run(port, at, run),
                },
                Verdict::Flood => self.flood(at, run),
                Verdict::Drop(cause) => self.lose(cause, at, run),
                Verdict::Pending => self.lose(DropCause::NoDestination, at, run),
                Verdict::Park(_) => self.lose(DropCause::ParkFull, at, run),
                // Only bursts with runs have these.
                Verdict::Expand | Verdict::ExpandTo(_) => self.lose(DropCause::NoDestination, at, run),
                Verdict::Parked | Verdict::Taken => {}
            }
            at += run;
        }
    }

    /// The receive queue here of a guest that speaks aggregates.
    #[inline]
    fn linked(&self, port: PortId) -> Option<usize> {
        if self.ingress.offloads || self.routes.home(port).is_some_and(|home| home != self.worker) {
            return None;
        }
        let Route::Local(receiver) = self.routes.to(port, self.ingress.pair) else { return None };
        let slot = self.rxs.get(receiver)?;
        (slot.common.usable() && slot.link.is_some()).then_some(receiver)
    }

    /// The packets from `at` on that go to one port, a bit each, up to the first that is for all: each port gets its packets in their order.
    #[inline]
    fn all_for(&self, port: PortId, at: usize) -> u64 {
        let verdicts = self.burst.verdicts().iter().enumerate().skip(at);
        let verdicts = verdicts.take_while(|(_, verdict)| **verdict != Verdict::Flood);
        verdicts.fold(0, |packets, (i, verdict)| {
            let is_for = *verdict == Verdict::Deliver(port) || *verdict == Verdict::Forward(port);
            packets | u64::from(is_for) << i
        })
    }

    /// Gives all to the worker that has the policy of the port that they came from. What was decided is decided.
    pub(super) fn hand_over_all(&mut self, home: usize) {
        for i in 0..self.burst.len() {
            match self.burst.verdict(i) {
                Verdict::Pending => self.hand_over(home, Stage::Outbound, self.ingress.port, i, 1),
                Verdict::Drop(cause) => self.lose(cause, i, 1),
                _ => {}
            }
        }
    }

    /// Delivers packets `at..at + run` to one port.
    #[inline]
    fn deliver_run(&mut self, port: PortId, at: usize, run: usize) {
        if let Some(home) = self.routes.home(port).filter(|home| *home != self.worker) {
            return self.hand_over(home, Stage::Inbound, port, at, run);
        }
        if self.ingress.offloads {
            return self.deliver_offloaded(port, at, run);
        }
        self.deliver_whole(port, at, run);
    }

    /// Delivers packets that may have to be cut.
    fn deliver_offloaded(&mut self, port: PortId, at: usize, run: usize) {
        let mut next = at;
        while next < at + run {
            let whole = (next..at + run).take_while(|i| self.burst.offload(*i).segmentation.is_none()).count();
            if whole > 0 {
                self.deliver_whole(port, next, whole);
            } else if carries(self.uplinks, self.routes, self.burst, port, self.ingress.pair, next) {
                self.deliver_whole(port, next, 1);
            } else {
                self.deliver_cut(port, next);
            }
            next += whole.max(1);
        }
    }

    /// Delivers packets that need not be cut.
    #[inline]
    fn deliver_whole(&mut self, port: PortId, at: usize, run: usize) {
        match self.routes.to(port, self.ingress.pair) {
            Route::Local(receiver) => match self.rxs.get_mut(receiver).filter(|slot| slot.common.usable()) {
                Some(slot) if slot.link.is_some() => self.deliver_linked(receiver, places(at, run)),
                Some(slot) => deliver_local(slot, self.burst, self.ingress.payload, at, run),
                None => self.lose(DropCause::NotReady, at, run),
            },
            Route::Uplink(uplink) => match self.uplinks.get_mut(uplink) {
                Some(uplink) => {
                    let (burst, payload, routes) = (self.burst, self.ingress.payload, self.routes);
                    let mut packets = places(at, run);
                    while packets != 0 {
                        packets = uplink
                            .put_alike(burst, payload, packets, |head| tunnel::begins_here(routes, head).is_none());
                        if packets == 0 {
                            break;
                        }
                        let i = packets.trailing_zeros() as usize;
                        packets &= packets - 1;
                        let (head, payload_len) = burst.pieces(i);
                        let tail = |room: &mut [u8]| payload.fill(burst.handle(i), room);
                        send(uplink, routes, burst.offload(i), head, payload_len as usize, tail, self.now_ns);
                    }
                }
                None => self.lose(DropCause::NotReady, at, run),
            },
            Route::Remote(worker) => self.hand_over(worker, Stage::Deliver, port, at, run),
            Route::None => self.lose(DropCause::NotReady, at, run),
        }
    }

    /// Delivers packets to a guest that takes aggregates. Those that go plain go behind what was put together before them.
    fn deliver_linked(&mut self, receiver: usize, mut packets: u64) {
        let Some(slot) = self.rxs.get_mut(receiver) else { return };
        while packets != 0 {
            packets = aggregate::put_together(slot, self.burst, self.ingress.payload, packets);
            if packets != 0 {
                // Only what is too long, or for a guest that takes no aggregates yet, comes here.
                let next = packets.trailing_zeros() as usize;
                packets &= packets - 1;
                if aggregate::is_aggregate(self.burst.window(next)) {
                    let (head, length) = (self.burst.window(next), self.burst.frame_len(next) as usize);
                    slot.common.drop_alike(DropCause::Aggregate, 1, head, length);
                    continue;
                }
                deliver_local(slot, self.burst, self.ingress.payload, next, 1);
            }
        }
    }

    /// Delivers the segments of packet `i`.
    #[cold]
    fn deliver_cut(&mut self, port: PortId, i: usize) {
        let route = self.routes.to(port, self.ingress.pair);
        let (pair, ports) = (self.ingress.pair, Ports { ingress: self.ingress.port, egress: port });
        let Self { burst, routes, rxs, uplinks, outbound, cutter, ingress, of_port, own, now_ns, .. } = self;
        let mut lost = [(DropCause::NotReady, 0), (DropCause::HandoverFull, 0)];
        let cut = cutter.cut(burst, ingress.payload, i, |segment| match route {
            Route::Local(receiver) => match rxs.get_mut(receiver).filter(|slot| slot.common.usable()) {
                Some(slot) => deliver_bytes(slot, segment),
                None => lost[0].1 += 1,
            },
            Route::Uplink(uplink) => match uplinks.get_mut(uplink) {
                Some(uplink) => send(uplink, routes, Offload::NONE, segment, 0, |_| {}, *now_ns),
                None => lost[0].1 += 1,
            },
            Route::Remote(worker) => match outbound.get_mut(worker).and_then(Option::as_mut) {
                Some(sender) => {
                    let fill = |room: &mut [u8]| {
                        room.copy_from_slice(segment);
                        segment.len()
                    };
                    match sender.packet(Stage::Deliver, ports, pair, NetHeader::default(), segment.len(), fill) {
                        Ok(()) => own.iter().for_each(|own| own.handed_over.add(1)),
                        Err(_) => lost[1].1 += 1,
                    }
                }
                None => lost[0].1 += 1,
            },
            Route::None => lost[0].1 += 1,
        });
        match cut {
            Ok(segments) => {
                if let Some(counters) = of_port {
                    counters.segments.add(segments as u64);
                }
            }
            Err(cause) => self.lose(cause, i, 1),
        }
        let (head, length) = (self.burst.window(i), self.burst.frame_len(i) as usize);
        for (cause, n) in lost {
            // The segments of one packet.
            self.of_port.into_iter().for_each(|counters| counters.drop_alike(cause, n, head, length));
        }
    }

    /// Delivers to all ports of the same segment but the one that the packets came from. Ports with policy get copies of
    /// their own.
    #[cold]
    fn flood(&mut self, at: usize, run: usize) {
        let ingress = self.ingress.port;
        let routes = self.routes;
        for i in at..at + run {
            let segment = segment_of(routes, self.burst, i, ingress);
            let mut reached = false;
            for port in routes.segment(segment).filter(|&port| port != ingress) {
                if routes.home(port).is_some() || !takes_refresh(routes, self.burst, i, ingress, port) {
                    reached = true;
                } else if routes.to(port, self.ingress.pair) != Route::None {
                    // A port without a guest is no loss to a flood.
                    self.deliver_run(port, i, 1);
                    reached = true;
                }
            }
            if !reached {
                self.lose(DropCause::NoDestination, i, 1);
            }
        }
    }

    fn hand_over(&mut self, worker: usize, stage: Stage, port: PortId, at: usize, run: usize) {
        let Some(sender) = self.outbound.get_mut(worker).and_then(Option::as_mut) else {
            return self.lose(DropCause::NotReady, at, run);
        };
        let mut refused = 0;
        for i in at..at + run {
            let fill = |room: &mut [u8]| {
                let len = room.len();
                if gather(self.burst, self.ingress.payload, i, room) { len } else { 0 }
            };
            let length = self.burst.frame_len(i) as usize;
            let header = header_of(self.burst.offload(i));
            let ports = Ports { ingress: self.burst.ingress(i), egress: port };
            if let Err(cause) = sender.packet(stage, ports, self.ingress.pair, header, length, fill) {
                if let Some(counters) = self.of_port {
                    counters.drop_frames(cause, 1, |_, room| seen(self.burst, i, room));
                }
                refused += 1;
            }
        }
        if let Some(own) = self.own {
            own.handed_over.add((run - refused) as u64);
        }
    }

    /// Counts packets `at..at + run` as dropped.
    fn lose(&self, cause: DropCause, at: usize, run: usize) {
        if let Some(counters) = self.of_port {
            counters.drop_frames(cause, run as u64, |i, room| seen(self.burst, at + i, room));
        }
    }
}

/// What is told of packet `i` if it is dropped.
fn seen(burst: &Burst, i: usize, room: &mut [u8]) -> Seen {
    Seen::of(burst.window(i), burst.frame_len(i), room)
}

/// Packets `at..at + run`, a bit each.
#[inline]
const fn places(at: usize, run: usize) -> u64 {
    if run >= 64 { u64::MAX } else { ((1 << run) - 1) << at }
}

/// Writes packets `at..at + run` into a guest's receive queue and publishes them.
#[inline]
fn deliver_local(slot: &mut RxSlot, burst: &Burst, payload: Payload<'_>, at: usize, run: usize) {
    let frame = |i: usize| {
        let i = at + i;
        let (head, payload_len) = burst.pieces(i);
        let tail = if payload_len > 0 { payload.tail(burst.handle(i), payload_len) } else { Tail::None };
        Frame { header: NetHeader::default(), head, tail }
    };
    // Said apart, so that the inner loop of short frames has few variables and keeps them in registers.
    let short = |i: usize| Frame { header: NetHeader::default(), head: burst.window(at + i), tail: Tail::None };
    let delivered = slot.queue.prefetch(run + MAX_BURST).and_then(|_| {
        if burst.has_payload() { slot.queue.deliver_burst(run, frame) } else { slot.queue.deliver_burst(run, short) }
    });
    let delivered = match delivered {
        Ok(delivered) => delivered,
        Err(error) => {
            slot.common.fail(error);
            return slot.common.drop_frames(DropCause::QueueBroken, run, |i, room| seen(burst, at + i, room));
        }
    };
    if delivered.frames > 0 {
        slot.queue.publish();
        slot.common.dirty = true;
    }
    slot.count_transmitted(delivered.frames as usize, delivered.bytes);
    if delivered.no_buffers + delivered.too_big > 0 {
        let (late, big) = (delivered.no_buffers as usize, delivered.too_big as usize);
        let first = at + run - late.min(run);
        slot.common.drop_frames(DropCause::NoBuffers, late, |i, room| seen(burst, first + i, room));
        let mut places = delivered.too_big_at;
        slot.common.drop_frames(DropCause::TooBig, big, |_, room| {
            let i = places.trailing_zeros() as usize;
            places &= places.wrapping_sub(1);
            seen(burst, at + i, room)
        });
    }
    if let Some(tap) = &slot.common.tap {
        watch::see_delivered(tap, burst, payload, (at, run), &delivered);
    }
}

/// Writes one frame that is in one piece into a guest's receive queue and publishes it.
pub(super) fn deliver_bytes(slot: &mut RxSlot, bytes: &[u8]) {
    if slot.link.is_some() {
        return aggregate::put_bytes(slot, bytes);
    }
    let (head, rest) = bytes.split_at(bytes.len().min(packet::WINDOW));
    let tail = if rest.is_empty() { Tail::None } else { Tail::Bytes(rest) };
    match slot.queue.deliver(&NetHeader::default(), head, tail) {
        Ok(Delivered::Ok) => {
            slot.queue.publish();
            slot.common.dirty = true;
            slot.count_transmitted(1, bytes.len() as u64);
            if let Some(tap) = &slot.common.tap {
                tap.see_bytes(bytes);
            }
        }
        Ok(Delivered::NoBuffers) => slot.common.drop_alike(DropCause::NoBuffers, 1, bytes, bytes.len()),
        Ok(Delivered::TooBig) => slot.common.drop_alike(DropCause::TooBig, 1, bytes, bytes.len()),
        Err(error) => {
            slot.common.fail(error);
            slot.common.drop_alike(DropCause::QueueBroken, 1, bytes, bytes.len());
        }
    }
}

/// Puts a frame into an uplink's ring: `head`, and `tail_len` bytes more that `tail` writes. One in a tunnel that begins
/// here goes to its next hop.
#[inline]
pub(super) fn send(
    uplink: &mut UplinkTx,
    routes: &Routes,
    offload: Offload,
    head: &[u8],
    tail_len: usize,
    tail: impl FnOnce(&mut [u8]),
    now_ns: u64,
) {
    match tunnel::begins_here(routes, head) {
        Some(begin) if begin.uplink == uplink.port => {
            uplink.send_routed(begin.destination, offload, head, tail_len, tail, now_ns);
        }
        _ => uplink.send(None, offload, head, tail_len, tail, now_ns),
    }
}
