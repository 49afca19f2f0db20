// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports on the bridge: the first bytes of each frame are copied into a private window, the bridge judges the window, and
//! what it judged is what is delivered; payload beyond the window goes from guest to guest.

use packet::{Burst, DropCause, Offload, PortId, Verdict, WINDOW};
use virtqueue::{Frame, MAX_BURST, NetHeader, Tail, TxQueue};

use super::Worker;
use super::handover::Sender;
use super::slots::RxSlot;
use crate::counters::{PortCounters, WorkerCounters};
use crate::topology::{Forwarding, Route, Routes};

/// Where the payload beyond a window begins in its frame.
#[expect(clippy::cast_possible_truncation, reason = "256")]
const PAYLOAD_AT: u32 = WINDOW as u32;

impl Worker {
    /// Switches one burst of transmit slot `index`. Returns the frames that left the source.
    #[inline]
    pub(super) fn bridge(&mut self, index: usize, now: u64) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        self.burst.refill(source.common.port(), source.queue.frames(held));
        self.bridge.process(&mut self.burst, self.clock.nanos_at(now));
        let mut out = Egress {
            burst: &self.burst,
            source: Some(&source.queue),
            pair: source.common.id.pair,
            routes: &self.routes,
            rxs: &mut self.rxs,
            outbound: &mut self.outbound,
            ingress: source.common.counters(),
            own: self.counters.get(self.index),
        };
        out.deliver_all();
        source.count_received(held, self.burst.bytes());
        source.finish(held);
        self.tell_learned();
        held
    }

    /// Sends a frame that the node itself made, as if the guest at `port` had sent it.
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
        let ingress = self.topology.port(port).and_then(|entry| entry.counters.get(self.index));
        let mut out = Egress {
            burst: &self.burst,
            source: None,
            pair: 0,
            routes: &self.routes,
            rxs: &mut self.rxs,
            outbound: &mut self.outbound,
            ingress,
            own: self.counters.get(self.index),
        };
        out.deliver_all();
        self.tell_learned();
        self.notify();
    }

    /// Tells the other workers' replicas what this one learned.
    #[inline]
    fn tell_learned(&mut self) {
        let Some(room) = self.outbound.iter().flatten().map(Sender::room_for_news).min() else { return };
        for news in self.bridge.take_announcements(room) {
            for sender in self.outbound.iter_mut().flatten() {
                sender.learned(news);
            }
        }
    }
}

/// Everything that a judged burst is delivered with.
struct Egress<'a> {
    burst: &'a Burst,
    /// Where payloads beyond the windows are; `None`: there are none.
    source: Option<&'a TxQueue>,
    pair: u16,
    routes: &'a Routes,
    rxs: &'a mut [RxSlot],
    outbound: &'a mut [Option<Sender>],
    ingress: Option<&'a PortCounters>,
    /// This worker's.
    own: Option<&'a WorkerCounters>,
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
                Verdict::Forward(port) => self.deliver_run(port, at, run),
                Verdict::Flood => self.flood(at, run),
                Verdict::Drop(cause) => self.count_drop(cause, run),
                Verdict::Pending => self.count_drop(DropCause::NoDestination, run),
                Verdict::Taken => {}
            }
            at += run;
        }
    }

    /// Delivers packets `at..at + run` to one port.
    #[inline]
    fn deliver_run(&mut self, port: PortId, at: usize, run: usize) {
        match self.routes.to(port, self.pair) {
            Route::Local(receiver) => match self.rxs.get_mut(receiver).filter(|slot| slot.common.usable()) {
                Some(slot) => deliver_local(slot, self.burst, self.source, at, run),
                None => self.count_drop(DropCause::NotReady, run),
            },
            Route::Remote(worker) => self.hand_over(worker, port, at, run),
            Route::None => self.count_drop(DropCause::NotReady, run),
        }
    }

    #[cold]
    fn flood(&mut self, at: usize, run: usize) {
        let ingress = self.burst.ingress(at);
        let routes = self.routes;
        let mut reached = false;
        for port in routes.bridged().filter(|&port| port != ingress) {
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

    fn hand_over(&mut self, worker: usize, port: PortId, at: usize, run: usize) {
        let Some(sender) = self.outbound.get_mut(worker).and_then(Option::as_mut) else {
            return self.count_drop(DropCause::NotReady, run);
        };
        let mut refused = 0;
        for i in at..at + run {
            let window = self.burst.window(i);
            let fill = |room: &mut [u8]| {
                let Some((head, tail)) = room.split_at_mut_checked(window.len()) else { return 0 };
                head.copy_from_slice(window);
                let payload = match self.source {
                    Some(queue) if !tail.is_empty() => queue.read(self.burst.handle(i) as usize, PAYLOAD_AT, tail),
                    _ => 0,
                };
                window.len() + payload
            };
            let length = self.burst.frame_len(i) as usize;
            if let Err(cause) = sender.packet(port, self.pair, NetHeader::default(), length, fill) {
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
fn deliver_local(slot: &mut RxSlot, burst: &Burst, source: Option<&TxQueue>, at: usize, run: usize) {
    let frame = |i: usize| {
        let i = at + i;
        let (head, payload_len) = burst.pieces(i);
        let tail = match source {
            Some(queue) if payload_len > 0 => {
                Tail::Frame { queue, index: burst.handle(i) as usize, offset: PAYLOAD_AT }
            }
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
