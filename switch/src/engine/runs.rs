// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of one flow that stand together in a burst, as they do when they come out of an aggregate: one look-up for all,
//! and if they have nothing to tell and nothing to be changed, one visit to their flow.

use packet::{Burst, PortId, Verdict};

use super::Outside;
use super::batch::Batch;
use super::shard::{Now, Shard};
use crate::flow::Handle;
use crate::model::Direction;

/// Some packets with one identity.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The place of the first in the burst.
    at: usize,
    /// How many places they have there, one behind the other.
    places: usize,
    packets: u32,
    bytes: u64,
}

impl Shard {
    /// Deals with the packets run by run, as [`hit_each`](Self::hit_each) would with each. A run that has one place, and has to be
    /// looked at packet by packet, is left for the caller, with all that stands behind it, so that all keep their order.
    #[inline(never)]
    pub(super) fn hit_runs(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        now: &Now<'_>,
        through: u64,
        outside: &mut Outside<'_>,
    ) -> u64 {
        let (mut hits, mut i) = (0, 0);
        while i < batch.len() {
            let Some(first) = batch.member(i) else { break };
            let leads_on = through >> i & 1 != 0;
            let run = match burst.run(first.at()) {
                Some(packet::Run { packets, bytes }) => Run { at: first.at(), places: 1, packets, bytes },
                None => {
                    let (places, bytes) = batch.run(i);
                    Run { at: first.at(), places, packets: u32::try_from(places).unwrap_or(1), bytes }
                }
            };
            if run.packets > 1
                && first.is_plain()
                && let Some(handle) = first.handle
                && self.hit_run(burst, run, handle, now, leads_on, outside)
            {
                hits += u64::from(run.packets);
            } else if burst.run(first.at()).is_some() {
                self.leave(burst, batch, i, now);
                break;
            } else {
                for i in i..i + run.places {
                    let Some(member) = batch.member(i) else { break };
                    if self.hit_one(burst, batch, i, member, now, leads_on, outside) {
                        hits += 1;
                    }
                }
            }
            // At least one, whatever the batch says.
            i += run.places.max(1);
        }
        hits
    }

    /// Leaves packets from `i` on to be looked at one by one.
    #[cold]
    fn leave(&self, burst: &mut Burst, batch: &Batch, i: usize, now: &Now<'_>) {
        let verdict = match now.direction {
            Direction::Out => Verdict::Expand,
            Direction::In => Verdict::ExpandTo(self.port),
        };
        for member in (i..batch.len()).filter_map(|i| batch.member(i)) {
            burst.set_verdict(member.at(), verdict);
        }
    }

    /// Deals with a run at once. `false`: each of its packets is to be looked at, and nothing was done.
    #[inline]
    fn hit_run(
        &mut self,
        burst: &mut Burst,
        run: Run,
        handle: Handle,
        now: &Now<'_>,
        leads_on: bool,
        outside: &mut Outside<'_>,
    ) -> bool {
        let Some(flow) = self.flows.get_mut(handle) else { return false };
        if !flow.is_idle_talk() || !flow.is_settled(now.epoch, now.ms, &self.openings) {
            return false;
        }
        let next = flow.next.filter(|_| leads_on);
        if let Some(next) = next
            && !Self::leave_through(burst, run, (flow.next_port, next), now, outside.shards)
        {
            return false;
        }
        flow.count_run(run.packets, run.bytes, now.ms);
        if next.is_none() {
            for at in run.at..run.at + run.places {
                if now.direction == Direction::Out {
                    outside.trail.note(at, handle);
                } else {
                    self.note_next(at, handle, now, outside.shards, outside.trail);
                }
            }
        }
        true
    }

    /// Takes a run through the next flow. `false`: each of its packets is to be looked at there, and nothing was done.
    #[inline]
    fn leave_through(
        burst: &mut Burst,
        run: Run,
        (port, handle): (PortId, Handle),
        now: &Now<'_>,
        shards: &mut [Option<Box<Self>>],
    ) -> bool {
        let Some(Some(shard)) = shards.get_mut(port.index()) else { return false };
        let Some(flow) = shard.flows.get_mut(handle).filter(|flow| flow.is_idle_talk()) else { return false };
        flow.count_run(run.packets, run.bytes, now.ms);
        shard.stats.hits += u64::from(run.packets);
        shard.stats.through += u64::from(run.packets);
        (run.at..run.at + run.places).for_each(|at| burst.set_verdict(at, Verdict::Deliver(port)));
        true
    }
}

#[cfg(test)]
mod tests;
