// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What other workers handed over: packets for this worker's receive queues, and what their bridges learned.

use packet::{DropCause, WINDOW};
use virtqueue::{Delivered, NetHeader, Tail};

use super::Worker;
use super::handover::Record;
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
        let Self { inbound, rxs, routes, bridge, topology, index, .. } = self;
        let Some(ring) = inbound.get_mut(from) else { return 0 };
        let mut taken = 0;
        while taken < BURST
            && ring.next(|record| match record {
                Record::Packet { egress, pair, header, bytes } => {
                    let slot = match routes.to(egress, pair) {
                        Route::Local(receiver) => rxs.get_mut(receiver).filter(|slot| slot.common.usable()),
                        Route::Remote(_) | Route::None => None,
                    };
                    match slot {
                        Some(slot) => deliver_bytes(slot, &header, bytes),
                        // The queue went away while the packet was between workers.
                        None => {
                            if let Some(counters) = topology.port(egress).and_then(|entry| entry.counters.get(*index)) {
                                counters.drop_packets(DropCause::NotReady, 1);
                            }
                        }
                    }
                }
                Record::Learned(news) => bridge.learn_remote(news),
            })
        {
            taken += 1;
        }
        taken
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
