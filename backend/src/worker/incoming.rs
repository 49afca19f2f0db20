// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What other workers handed over: packets for this worker's receive queues and uplinks, and what their bridges learned.

use packet::{DropCause, WINDOW};

use super::Worker;
use super::egress::deliver_bytes;
use super::finish::offload_of;
use super::handover::{Kind, Record};
use super::tunnel::outer_addresses;
use crate::topology::Route;

/// Records taken from each other worker's ring in one turn.
const BURST: usize = 64;

impl Worker {
    /// Delivers what other workers handed over, a bounded number from each. Returns how many records there were.
    #[inline]
    pub(super) fn take_handovers(&mut self, now: u64) -> usize {
        let mut taken = 0;
        for from in 0..self.inbound.len() {
            taken += self.take_handovers_from(from, now);
        }
        taken
    }

    fn take_handovers_from(&mut self, from: usize, now: u64) -> usize {
        let Self { inbound, path, clock, .. } = self;
        let Some(ring) = inbound.get_mut(from) else { return 0 };
        let mut taken = 0;
        while taken < BURST
            && ring.next(|record| match record {
                Record::Packet { kind, egress, pair, header, bytes } => {
                    let delivered = match path.routes.to(egress, pair) {
                        Route::Local(receiver) => {
                            let slot = path.rxs.get_mut(receiver).filter(|slot| slot.common.usable());
                            slot.map(|slot| deliver_bytes(slot, bytes))
                        }
                        Route::Uplink(uplink) => path.uplinks.get_mut(uplink).map(|uplink| match kind {
                            Kind::Packet => uplink.send_bytes(header, bytes),
                            Kind::Unrouted => {
                                let window = bytes.get(..WINDOW).unwrap_or(bytes);
                                let outer = outer_addresses(window, bytes.len());
                                // Another worker of ours wrote the header: it cannot be wrong.
                                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                                let offload = offload_of(header, 0, len).unwrap_or_default();
                                match outer {
                                    Some(outer) => {
                                        uplink.send_routed(outer.destination, offload, bytes, clock.nanos_at(now));
                                    }
                                    None => uplink.drop_packets(DropCause::Malformed, 1),
                                }
                            }
                        }),
                        Route::Remote(_) | Route::None => None,
                    };
                    if delivered.is_none() {
                        // The queue went away while the packet was between workers.
                        let entry = path.topology.port(egress);
                        if let Some(counters) = entry.and_then(|entry| entry.counters.get(path.index)) {
                            counters.drop_packets(DropCause::NotReady, 1);
                        }
                    }
                }
                Record::Learned(news) => path.bridge.learn_remote(news),
            })
        {
            taken += 1;
        }
        taken
    }
}
