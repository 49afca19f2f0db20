// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of one flow that stand together in a burst, as they do when they come out of an aggregate: one look-up for all,
//! and if they have nothing to tell and nothing to be changed, one visit to their flow.

use packet::{Burst, PortId, Verdict};

use super::Outside;
use super::batch::Batch;
use super::shard::{Now, Shard};
use crate::flow::Handle;
use crate::model::Direction;

/// Some packets of a batch with one identity.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The first, in the burst; the others stand behind it.
    at: usize,
    packets: u32,
    bytes: u64,
}

impl Shard {
    /// Deals with the packets run by run, as [`hit_each`](Self::hit_each) would with each.
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
            let (packets, bytes) = batch.run(i);
            let leads_on = through >> i & 1 != 0;
            let Some(first) = batch.member(i) else { break };
            let run = Run { at: first.at, packets: u32::try_from(packets).unwrap_or(1), bytes };
            if packets > 1
                && first.is_plain()
                && let Some(handle) = first.handle
                && self.hit_run(burst, run, handle, now, leads_on, outside)
            {
                hits += u64::from(run.packets);
                i += packets;
                continue;
            }
            // At least one, whatever the batch says.
            for i in i..i + packets.max(1) {
                let Some(member) = batch.member(i) else { break };
                if member.is_plain() && self.hit_calm(burst, &member, now, leads_on, outside) {
                    hits += 1;
                } else {
                    self.slow(burst, batch, i, &member, now, outside);
                }
            }
            i += packets.max(1);
        }
        hits
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
            for at in run.at..run.at + run.packets as usize {
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
        (run.at..run.at + run.packets as usize).for_each(|at| burst.set_verdict(at, Verdict::Deliver(port)));
        true
    }
}

#[cfg(test)]
mod tests;
