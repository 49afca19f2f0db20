// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports on the bridge: the first bytes of each frame are copied into a private window, the bridge judges the window, and
//! what it judged is what is delivered; payload beyond the window goes from guest to guest.

use packet::{Burst, DropCause, Offload, PortId, Verdict, WINDOW};
use virtqueue::{Frame, MAX_BURST, NetHeader, Tail, TxQueue};

use switch::model::Direction;

use super::Worker;
use super::handover::{Ports, Sender, Stage};
use super::policy::Waiting;
use super::slots::RxSlot;
use crate::counters::{PortCounters, WorkerCounters};
use crate::topology::{Forwarding, Route, Routes};

/// Where the payload beyond a window begins in its frame.
#[expect(clippy::cast_possible_truncation, reason = "256")]
const PAYLOAD_AT: u32 = WINDOW as u32;

/// Where payloads beyond the windows of the worker's burst are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// There are none.
    None,
    /// In the frames that a transmit queue of this worker holds.
    Queue(usize),
    /// Here: the burst has one packet.
    Bytes(&'a [u8]),
}

/// The same, to be read.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Queue(&'a TxQueue),
    Bytes(&'a [u8]),
}

impl Worker {
    /// Switches one burst of transmit slot `index`. Returns the frames that left the source.
    #[inline]
    pub(super) fn bridge(&mut self, index: usize, now: u64) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        let pair = source.common.id.pair;
        self.burst.refill(source.common.port(), source.queue.frames(held));
        let bytes = self.burst.bytes();
        self.switch(Source::Queue(index), pair, Direction::Out, now, None);
        if let Some(source) = self.txs.get_mut(index) {
            source.count_received(held, bytes);
            source.finish(held);
        }
        self.tell_learned();
        held
    }

    /// Takes the worker's burst, of one port and queue pair, from there to where it goes: `Out`: it comes from its
    /// guest; `In`: where it goes is known.
    #[inline]
    pub(super) fn switch(
        &mut self,
        source: Source<'_>,
        pair: u16,
        direction: Direction,
        now: u64,
        waits_since: Option<u64>,
    ) {
        let Self {
            txs, rxs, burst, bridge, police, routes, outbound, topology, counters, clock, index, changes, ..
        } = self;
        let payload = match source {
            Source::None => Payload::None,
            Source::Queue(index) => txs.get(index).map_or(Payload::None, |slot| Payload::Queue(&slot.queue)),
            Source::Bytes(bytes) => Payload::Bytes(bytes),
        };
        let now_ns = clock.nanos_at(now);
        let ingress = burst.ingress(0);
        let waiting = Waiting { payload, pair, since_ns: waits_since.unwrap_or(now_ns) };
        let mut far = None;
        if routes.any_policy() {
            police.engine.begin_burst(bridge.stats().changes().wrapping_add(*changes));
        }
        if direction == Direction::Out {
            match routes.home(ingress) {
                Some(home) if home == *index => police.outbound(burst, ingress, now_ns, &waiting),
                other => far = other,
            }
            if far.is_none() {
                bridge.process(burst, now_ns);
            }
        }
        if far.is_none() && routes.any_policy() {
            police.inbound(burst, routes, *index, now_ns, &waiting);
        }
        let mut out = Egress {
            burst,
            payload,
            pair,
            routes,
            rxs,
            outbound,
            ingress: topology.port(ingress).and_then(|entry| entry.counters.get(*index)),
            own: counters.get(*index),
            worker: *index,
        };
        match far {
            Some(home) => out.hand_over(home, Stage::Outbound, ingress, 0, burst.len()),
            None => out.deliver_all(),
        }
        if far.is_none() && routes.any_policy() && burst.verdicts().contains(&Verdict::Flood) {
            self.flood_policed(source, pair, now_ns, waits_since);
        }
    }

    /// Gives ports with policy their own copies of what is for all, as their policy leaves them.
    #[cold]
    fn flood_policed(&mut self, source: Source<'_>, pair: u16, now_ns: u64, waits_since: Option<u64>) {
        let Self { txs, rxs, burst, police, routes, outbound, topology, counters, index, .. } = self;
        let payload = match source {
            Source::None => Payload::None,
            Source::Queue(index) => txs.get(index).map_or(Payload::None, |slot| Payload::Queue(&slot.queue)),
            Source::Bytes(bytes) => Payload::Bytes(bytes),
        };
        let waiting = Waiting { payload, pair, since_ns: waits_since.unwrap_or(now_ns) };
        for port in routes.bridged() {
            let Some(home) = routes.home(port) else { continue };
            let copies = police.copies_for(burst, port, home == *index, now_ns, &waiting);
            let Some(copies) = copies else { continue };
            let ingress = topology.port(burst.ingress(0)).and_then(|entry| entry.counters.get(*index));
            let mut out = Egress {
                burst: copies,
                payload,
                pair,
                routes,
                rxs,
                outbound,
                ingress,
                own: counters.get(*index),
                worker: *index,
            };
            out.deliver_all();
        }
    }

    /// Sends a frame that the node itself made, as if the guest at `port` had sent it. It does not meet policy of that
    /// port.
    pub(super) fn inject(&mut self, port: PortId, frame: &[u8], now: u64) {
        self.burst.clear();
        let length = u32::try_from(frame.len().min(WINDOW)).unwrap_or(0);
        let Some(window) = self.burst.push(port, length, Offload::NONE, 0) else { return };
        window.copy_from_slice(frame.get(..window.len()).unwrap_or_default());
        match self.routes.forwarding(port) {
            Forwarding::Wired(peer) => self.burst.set_verdict(0, Verdict::Forward(peer)),
            Forwarding::Bridged => self.bridge.process(&mut self.burst, self.clock.nanos_at(now)),
            Forwarding::None => return,
        }
        self.switch(Source::None, 0, Direction::In, now, None);
        self.tell_learned();
        self.notify();
    }

    /// Tells the other workers' replicas what this one learned.
    #[inline]
    pub(super) fn tell_learned(&mut self) {
        let Some(room) = self.outbound.iter().flatten().map(Sender::room_for_news).min() else { return };
        for news in self.bridge.take_announcements(room) {
            for sender in self.outbound.iter_mut().flatten() {
                sender.learned(news);
            }
        }
    }
}

impl Payload<'_> {
    /// Copies the payload of a packet out. Returns how many bytes there were.
    pub(super) fn read(self, handle: u32, to: &mut [u8]) -> usize {
        match self {
            Self::Queue(queue) if !to.is_empty() => queue.read(handle as usize, PAYLOAD_AT, to),
            Self::Bytes(bytes) => {
                let length = bytes.len().min(to.len());
                if let (Some(to), Some(from)) = (to.get_mut(..length), bytes.get(..length)) {
                    to.copy_from_slice(from);
                }
                length
            }
            Self::Queue(_) | Self::None => 0,
        }
    }
}

/// Everything that a judged burst is delivered with.
struct Egress<'a> {
    burst: &'a Burst,
    payload: Payload<'a>,
    pair: u16,
    routes: &'a Routes,
    rxs: &'a mut [RxSlot],
    outbound: &'a mut [Option<Sender>],
    ingress: Option<&'a PortCounters>,
    /// This worker's.
    own: Option<&'a WorkerCounters>,
    /// Its index.
    worker: usize,
}

impl Egress<'_> {
    #[inline]
    fn deliver_all(&mut self) {
        let verdicts = self.burst.verdicts();
        let mut at = 0;
        while let Some(&verdict) = verdicts.get(at) {
            // Runs of one verdict are the rule: one guest talks to one other for a while.
            let run = verdicts.iter().skip(at).take_while(|&&next| next == verdict).count();
            match verdict {
                Verdict::Forward(port) | Verdict::Deliver(port) => self.deliver_run(port, at, run),
                Verdict::Flood => self.flood(at, run),
                Verdict::Drop(cause) => self.count_drop(cause, run),
                Verdict::Pending => self.count_drop(DropCause::NoDestination, run),
                Verdict::Park(_) => self.count_drop(DropCause::ParkFull, run),
                Verdict::Parked => {}
            }
            at += run;
        }
    }

    /// Delivers packets `at..at + run` to one port.
    #[inline]
    fn deliver_run(&mut self, port: PortId, at: usize, run: usize) {
        if let Some(home) = self.routes.home(port).filter(|home| *home != self.worker) {
            return self.hand_over(home, Stage::Inbound, port, at, run);
        }
        match self.routes.to(port, self.pair) {
            Route::Local(receiver) => match self.rxs.get_mut(receiver).filter(|slot| slot.common.usable()) {
                Some(slot) => deliver_local(slot, self.burst, self.payload, at, run),
                None => self.count_drop(DropCause::NotReady, run),
            },
            Route::Remote(worker) => self.hand_over(worker, Stage::Deliver, port, at, run),
            Route::None => self.count_drop(DropCause::NotReady, run),
        }
    }

    #[cold]
    fn flood(&mut self, at: usize, run: usize) {
        let ingress = self.burst.ingress(at);
        let routes = self.routes;
        let mut reached = false;
        // Ports with policy get copies of their own.
        let policed = |port: PortId| routes.home(port).is_some();
        reached |= routes.bridged().any(|port| port != ingress && policed(port));
        for port in routes.bridged().filter(|&port| port != ingress && !policed(port)) {
            // A port without a guest is no loss to a flood.
            if routes.to(port, self.pair) != Route::None {
                self.deliver_run(port, at, run);
                reached = true;
            }
        }
        if !reached {
            self.count_drop(DropCause::NoDestination, run);
        }
    }

    fn hand_over(&mut self, worker: usize, stage: Stage, port: PortId, at: usize, run: usize) {
        let Some(sender) = self.outbound.get_mut(worker).and_then(Option::as_mut) else {
            return self.count_drop(DropCause::NotReady, run);
        };
        let mut refused = 0;
        for i in at..at + run {
            let window = self.burst.window(i);
            let fill = |room: &mut [u8]| {
                let Some((head, tail)) = room.split_at_mut_checked(window.len()) else { return 0 };
                head.copy_from_slice(window);
                window.len() + self.payload.read(self.burst.handle(i), tail)
            };
            let length = self.burst.frame_len(i) as usize;
            let ports = Ports { ingress: self.burst.ingress(i), egress: port };
            if let Err(cause) = sender.packet(stage, ports, self.pair, NetHeader::default(), length, fill) {
                if let Some(ingress) = self.ingress {
                    ingress.drop_packets(cause, 1);
                }
                refused += 1;
            }
        }
        if let Some(own) = self.own {
            own.handed_over.add((run - refused) as u64);
        }
    }

    fn count_drop(&self, cause: DropCause, n: usize) {
        if let Some(counters) = self.ingress {
            counters.drop_packets(cause, n as u64);
        }
    }
}

/// Writes packets `at..at + run` into a guest's receive queue and publishes them.
#[inline]
fn deliver_local(slot: &mut RxSlot, burst: &Burst, payload: Payload<'_>, at: usize, run: usize) {
    let frame = |i: usize| {
        let i = at + i;
        let (head, payload_len) = burst.pieces(i);
        let tail = match payload {
            Payload::Queue(queue) if payload_len > 0 => {
                Tail::Frame { queue, index: burst.handle(i) as usize, offset: PAYLOAD_AT }
            }
            Payload::Bytes(bytes) if payload_len > 0 => Tail::Bytes(bytes),
            _ => Tail::None,
        };
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
            return slot.common.drop_packets(DropCause::QueueBroken, run);
        }
    };
    if delivered.frames > 0 {
        slot.queue.publish();
        slot.common.dirty = true;
    }
    slot.count_transmitted(delivered.frames as usize, delivered.bytes);
    if delivered.no_buffers + delivered.too_big > 0 {
        slot.common.drop_packets(DropCause::NoBuffers, delivered.no_buffers as usize);
        slot.common.drop_packets(DropCause::TooBig, delivered.too_big as usize);
    }
}
