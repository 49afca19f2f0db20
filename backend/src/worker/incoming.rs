// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What other workers handed over: packets that meet policy here, or are for this worker's receive queues and uplinks, and
//! what their bridges learned.

use packet::DropCause;
use switch::model::Direction;

use super::Worker;
use super::bridge::Path;
use super::egress::{deliver_bytes, send};
use super::finish::offload_of;
use super::handover::{Ports, Record, Stage};
use super::policy::Resumed;
use crate::topology::Route;

/// Records taken from each other worker's ring in one turn.
const BURST: usize = 64;

impl Worker {
    /// Delivers what other workers handed over, a bounded number from each. Returns how many records there were.
    #[inline]
    pub(super) fn take_handovers(&mut self, now: u64) -> usize {
        let Self { inbound, path, clock, .. } = self;
        let mut taken = 0;
        for ring in inbound {
            let mut left = BURST;
            while left > 0 && ring.next(|record| path.take_handover(record, clock.nanos_at(now))) {
                left -= 1;
            }
            taken += BURST - left;
        }
        taken
    }
}

impl Path {
    fn take_handover(&mut self, record: Record<'_>, now_ns: u64) {
        let (stage, ports, pair, header, bytes) = match record {
            Record::Packet { stage, ports, pair, header, bytes } => (stage, ports, pair, header, bytes),
            Record::Learned(news) => return self.bridge.learn_remote(news),
        };
        let Ports { ingress, egress } = ports;
        // Another worker of ours wrote the header: it cannot be wrong.
        let offload = offload_of(header, 0, u32::try_from(bytes.len()).unwrap_or(u32::MAX)).unwrap_or_default();
        let packet = |port| Resumed { bytes, offload, port, ingress, pair, waits_since: None };
        match stage {
            Stage::Inbound => return self.take_on(&packet(egress), Direction::In, now_ns),
            Stage::Outbound => return self.take_on(&packet(ingress), Direction::Out, now_ns),
            Stage::Deliver => {}
        }
        let delivered = match self.routes.to(egress, pair) {
            Route::Local(receiver) => {
                let slot = self.rxs.get_mut(receiver).filter(|slot| slot.common.usable());
                slot.map(|slot| deliver_bytes(slot, bytes))
            }
            Route::Uplink(at) => {
                let uplink = self.uplinks.get_mut(at);
                uplink.map(|uplink| send(uplink, &self.routes, offload, bytes, 0, |_| {}, now_ns))
            }
            Route::Remote(_) | Route::None => None,
        };
        if delivered.is_none() {
            // The queue went away while the packet was between workers.
            let entry = self.topology.port(egress);
            if let Some(counters) = entry.and_then(|entry| entry.counters.get(self.index)) {
                counters.drop_frame(DropCause::NotReady, bytes, bytes.len());
            }
        }
    }
}
