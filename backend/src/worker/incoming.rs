// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What other workers handed over: packets for this worker's receive queues, and what their bridges learned.

use packet::{DropCause, WINDOW};
use switch::model::Direction;
use virtqueue::{Delivered, NetHeader, Tail};

use super::Worker;
use super::handover::{Ports, Record, Stage};
use super::slots::RxSlot;
use crate::topology::Route;

/// Records taken from each other worker's ring in one turn.
const BURST: usize = 64;

impl Worker {
    /// Delivers what other workers handed over, a bounded number from each. Returns how many records there were.
    #[inline]
    pub(super) fn take_handovers(&mut self) -> usize {
        let mut taken = 0;
        for from in 0..self.inbound.len() {
            taken += self.take_handovers_from(from);
        }
        taken
    }

    fn take_handovers_from(&mut self, from: usize) -> usize {
        let mut inbound = std::mem::take(&mut self.inbound);
        let mut taken = 0;
        if let Some(ring) = inbound.get_mut(from) {
            while taken < BURST && ring.next(|record| self.take_handover(record)) {
                taken += 1;
            }
        }
        self.inbound = inbound;
        taken
    }

    fn take_handover(&mut self, record: Record<'_>) {
        match record {
            Record::Packet { stage: Stage::Deliver, ports: Ports { egress, .. }, pair, header, bytes } => {
                let slot = match self.routes.to(egress, pair) {
                    Route::Local(receiver) => self.rxs.get_mut(receiver).filter(|slot| slot.common.usable()),
                    Route::Remote(_) | Route::None => None,
                };
                match slot {
                    Some(slot) => deliver_bytes(slot, &header, bytes),
                    // The queue went away while the packet was between workers.
                    None => {
                        let entry = self.topology.port(egress);
                        if let Some(counters) = entry.and_then(|entry| entry.counters.get(self.index)) {
                            counters.drop_packets(DropCause::NotReady, 1);
                        }
                    }
                }
            }
            Record::Packet { stage: Stage::Inbound, ports, pair, bytes, .. } => {
                self.go_on(bytes, ports.egress, ports.ingress, pair, Direction::In);
            }
            Record::Packet { stage: Stage::Outbound, ports: Ports { ingress, .. }, pair, bytes, .. } => {
                self.go_on(bytes, ingress, ingress, pair, Direction::Out);
                self.tell_learned();
            }
            Record::Learned(news) => self.bridge.learn_remote(news),
        }
    }
}

fn deliver_bytes(slot: &mut RxSlot, header: &NetHeader, bytes: &[u8]) {
    let (head, rest) = bytes.split_at(bytes.len().min(WINDOW));
    let tail = if rest.is_empty() { Tail::None } else { Tail::Bytes(rest) };
    match slot.queue.deliver(header, head, tail) {
        Ok(Delivered::Ok) => {
            slot.queue.publish();
            slot.common.dirty = true;
            slot.count_transmitted(1, bytes.len() as u64);
        }
        Ok(Delivered::NoBuffers) => slot.common.drop_packets(DropCause::NoBuffers, 1),
        Ok(Delivered::TooBig) => slot.common.drop_packets(DropCause::TooBig, 1),
        Err(error) => {
            slot.common.fail(error);
            slot.common.drop_packets(DropCause::QueueBroken, 1);
        }
    }
}
