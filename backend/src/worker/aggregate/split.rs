// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taking apart what a guest sends that has negotiated.
//!
//! # Theory of operation
//!
//! Frames are dealt with in the order in which they were sent, so plain ones and the packets of aggregates keep theirs. The
//! headers and first bytes of an aggregate's packets are copied out once, in order; what lies beyond stays in the frame,
//! whose descriptor is returned when its last packet has left. A turn ends behind the frame with which enough packets
//! were seen; how many one frame can hold is bounded by the bytes that were granted.

use std::hash::{BuildHasher, RandomState};

use aggregation::negotiation::MAX_CONTROL;
use aggregation::{Item, Packet, Reader, Source};
use packet::{Burst, DropCause, EthernetHeader, Offload, PortId};
use virtqueue::{MAX_BURST, TxQueue};

use super::super::Worker;
use super::super::bridge::Ingress;
use super::super::payload::Payload;
use super::super::slots::{RxSlot, TxSlot};
use super::guard::is_aggregate;
use super::link::{self, Link};
use super::runs;
use crate::counters::PortCounters;
use crate::inspect::Seen;
use crate::topology::Route;

/// Packets after which a queue's turn ends, though there may be more: as many as four bursts of plain frames.
const ENOUGH: usize = 256;

/// Bytes of the next frame that are asked for while one is dealt with: as many as the reader copies at once.
const AHEAD: usize = 4096;

/// A held frame of a guest, as the reader sees it.
#[derive(Clone, Copy, Debug)]
struct Held<'a> {
    queue: &'a TxQueue,
    at: usize,
}

impl Source for Held<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.queue.frame_len(self.at) as usize
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        u32::try_from(at).map_or(0, |at| self.queue.read(self.at, at, to))
    }
}

impl Worker {
    /// Prepares for a guest at transmit slot `index` that negotiates, or tries to. `false`: its receive queue is not here. What
    /// the slot holds is found again by the next harvest.
    #[cold]
    pub(in crate::worker) fn link(&mut self, index: usize, now: u64) -> bool {
        let (now_ns, node) = (self.clock.nanos_at(now), self.node);
        let Some(port) = self.txs.get(index).map(|slot| slot.common.port()) else { return false };
        let settings = self.path.topology.port(port).map(|entry| entry.aggregation);
        let Some(settings) = settings.filter(|settings| settings.aggregate) else { return false };
        let Some(receiver) = self.receiver(index) else { return false };
        let Some(slot) = self.path.rxs.get_mut(receiver) else { return false };
        let Some(source) = self.txs.get_mut(index) else { return false };
        source.queue.forget();
        source.linked = true;
        if slot.link.is_none() {
            #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
            let session = RandomState::new().hash_one(now) as u32 | 1;
            slot.link = Some(Box::new(Link::new(node, settings, session, now_ns)));
        }
        true
    }

    /// Lets time pass at all links.
    pub(in crate::worker) fn tick_links(&mut self, now_ns: u64) {
        let mut gone = Vec::new();
        for slot in &mut self.path.rxs {
            if slot.link.is_none() {
                continue;
            }
            link::tick(slot, now_ns);
            if slot.link.is_none() {
                gone.push((slot.common.port(), slot.common.id.pair));
            }
        }
        gone.into_iter().for_each(|(port, pair)| self.unlink(port, pair));
        self.notify();
    }

    /// What a guest sends on a queue pair is not looked through for aggregates any more.
    pub(in crate::worker) fn unlink(&mut self, port: PortId, pair: u16) {
        let of_pair = |slot: &&mut TxSlot| slot.common.port() == port && slot.common.id.pair == pair;
        self.txs.iter_mut().filter(of_pair).for_each(|slot| slot.linked = false);
    }

    /// Switches what transmit slot `index` holds, in which there may be aggregates. Returns the packets that left the source.
    pub(in crate::worker) fn bridge_linked(&mut self, index: usize, now: u64) -> usize {
        let receiver = self.receiver(index);
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        let now_ns = self.clock.nanos_at(now);
        let (port, pair) = (source.common.port(), source.common.id.pair);
        let (mut at, mut packets, mut bytes) = (0, 0, 0);
        while at < held && packets < ENOUGH {
            let mut first = [0; EthernetHeader::LEN];
            source.queue.read(at, 0, &mut first);
            if is_aggregate(&first) {
                let frame = Held { queue: &source.queue, at };
                let payload = Payload::Within { queue: &source.queue, frame: at };
                let ingress = Ingress { port, pair, payload, offloads: false, waits_since: None };
                let slot = receiver.and_then(|receiver| self.path.rxs.get_mut(receiver));
                at += 1;
                let counters = source.common.counters();
                if !begin(&mut self.reader, &frame, slot, counters, now_ns) {
                    continue;
                }
                // What was copied out so far is dealt with while the next frame comes.
                source.queue.prefetch(at, AHEAD);
                let before = packets;
                let in_runs = self.path.takes_runs(port);
                loop {
                    if in_runs && let Some(run) = self.reader.run(MAX_BURST) {
                        bytes += runs::fill(&mut self.path.burst, &mut self.ranges, port, &run, &mut self.hope);
                        packets += usize::from(run.packets());
                        let places = self.path.burst.len();
                        let payload = Payload::Runs { bytes: run.bytes(), ranges: &self.ranges };
                        super::refuse(&mut self.path.burst);
                        self.path.enter(&Ingress { payload, ..ingress }, now_ns);
                        runs::learn(&mut self.hope, places, run.packets().into(), self.path.expanded);
                        continue;
                    }
                    match fill(&mut self.reader, &frame, &mut self.path.burst, port, counters) {
                        Filled::Packets => {}
                        Filled::Nothing => continue,
                        Filled::Done => break,
                    }
                    packets += self.path.burst.len();
                    bytes += self.path.burst.bytes();
                    super::refuse(&mut self.path.burst);
                    self.path.enter(&ingress, now_ns);
                }
                if let Some(counters) = counters {
                    counters.rx_aggregates.add(1);
                    counters.rx_aggregated.add((packets - before) as u64);
                }
                continue;
            }
            let burst = &mut self.path.burst;
            burst.clear();
            while at < held && !burst.is_full() {
                let handle = u32::try_from(at).unwrap_or(u32::MAX);
                let Some(window) = burst.push(port, source.queue.frame_len(at), Offload::NONE, handle) else { break };
                let read = source.queue.read(at, 0, window);
                window.iter_mut().skip(read).for_each(|byte| *byte = 0);
                if is_aggregate(window.get(..EthernetHeader::LEN).unwrap_or_default()) {
                    burst.pop();
                    break;
                }
                at += 1;
            }
            packets += burst.len();
            bytes += burst.bytes();
            super::refuse(burst);
            let payload = Payload::Queue(&source.queue);
            let ingress = Ingress { port, pair, payload, offloads: false, waits_since: None };
            self.path.enter(&ingress, now_ns);
        }
        source.count_received(packets, bytes);
        source.finish(at);
        if at < held {
            source.queue.forget();
        }
        // Descriptors went back, packets or not.
        packets.max(1)
    }

    /// The receive queue of the pair of transmit slot `index`, if it takes packets here.
    fn receiver(&self, index: usize) -> Option<usize> {
        let id = self.txs.get(index)?.common.id;
        let Route::Local(receiver) = self.path.routes.to(id.port, id.pair) else { return None };
        let slot = self.path.rxs.get(receiver)?;
        (slot.common.id.pair == id.pair && slot.common.port() == id.port).then_some(receiver)
    }
}

/// Begins to read a frame of a guest. `false`: there is nothing in it for a burst; it negotiated, or may not be sent.
fn begin(
    reader: &mut Reader,
    frame: &Held<'_>,
    slot: Option<&mut RxSlot>,
    counters: Option<&PortCounters>,
    now_ns: u64,
) -> bool {
    let damage = |cause| counters.into_iter().for_each(|counters| counters.damage(cause));
    let seen = |_, room: &mut [u8]| Seen {
        copied: frame.read(0, room),
        length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
    };
    let refused = || counters.into_iter().for_each(|counters| counters.drop_frames(DropCause::Aggregate, 1, seen));
    let takes = slot.as_ref().and_then(|slot| slot.link.as_ref()?.takes);
    let limits = takes.unwrap_or(aggregation::Limits::NONE);
    let header = match reader.begin(frame, EthernetHeader::LEN, &limits) {
        Ok(header) => header,
        Err(cause) => {
            damage(cause);
            refused();
            return false;
        }
    };
    let Some(slot) = slot else {
        refused();
        return false;
    };
    if header.control {
        let mut bytes = [0; MAX_CONTROL];
        let read = frame.read(EthernetHeader::LEN, &mut bytes);
        if let Err(cause) = link::negotiate(slot, bytes.get(..read).unwrap_or_default(), now_ns) {
            damage(cause);
            refused();
        }
        return false;
    }
    match (takes, &mut slot.link) {
        (Some(_), Some(link)) => {
            link.heard(header.sequence, counters, now_ns);
            true
        }
        _ => {
            refused();
            false
        }
    }
}

/// What came of filling a burst.
enum Filled {
    Packets,
    /// A group has begun.
    Nothing,
    Done,
}

/// Fills the burst with the next packets of the frame, up to where there may be plain ones that lie together.
fn fill(
    reader: &mut Reader,
    frame: &Held<'_>,
    burst: &mut Burst,
    port: PortId,
    counters: Option<&PortCounters>,
) -> Filled {
    burst.clear();
    while !burst.is_full() {
        match reader.next(frame) {
            Some(Item::Packet(packet)) => {
                push(burst, port, &packet);
                if reader.may_run() {
                    break;
                }
            }
            Some(Item::Damaged(damage)) => {
                if let Some(counters) = counters {
                    counters.damage(damage.cause);
                    counters.damaged.add(damage.packets.into());
                }
            }
            // TLVs are taken from none.
            Some(Item::Tlv { .. }) => {}
            // Whose it is says the port.
            Some(Item::Group(_)) if burst.is_empty() => return Filled::Nothing,
            Some(Item::Group(_)) => break,
            None if burst.is_empty() => return Filled::Done,
            None => break,
        }
    }
    burst.set_runs(true);
    Filled::Packets
}

fn push(burst: &mut Burst, port: PortId, packet: &Packet<'_>) {
    let handle = u32::try_from(packet.rest_at).unwrap_or(u32::MAX);
    if let Some(window) = burst.push(port, packet.len, Offload::NONE, handle) {
        runs::copy(window, packet.head);
    }
}
