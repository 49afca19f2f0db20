// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From the flow at the port that a packet came from straight to the one at the port that it goes to (decision 7).
//!
//! # Theory of operation
//!
//! A packet that passes through the policies of two ports belongs to a flow at each. The first packets are looked up
//! twice, with the forwarder in between; the engine notes, by the trail that a burst leaves, that a flow of the first
//! port is *next* followed by one of the second. Later packets are then looked up once: both flows are counted, both
//! changes made, and the forwarder is not asked. That is right as long as the second flow is there and its port's policy
//! and the forwarder are what they were; once a second it is made sure of by going the long way, which also lets
//! the forwarder see that the stations live.

use packet::{Burst, MAX_BURST, PortId, Verdict};

use super::Outside;
use super::batch::{Batch, Member};
use super::flow::Marks;
use super::shard::{Now, Shard, Ways, follow};
use super::treatment::Fate;
use crate::flow::Handle;
use crate::model::Direction;

/// Which flows the packets of a burst belong to, at the port that they came from.
#[derive(Debug)]
pub(super) struct Trail {
    port: PortId,
    handles: [Option<Handle>; MAX_BURST],
    /// The low half of the forwarder's number.
    epoch: u32,
}

impl Trail {
    pub(super) const fn new() -> Self {
        Self { port: PortId::NONE, handles: [None; MAX_BURST], epoch: 0 }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(super) const fn begin(&mut self, forwarding: u64) {
        self.port = PortId::NONE;
        self.epoch = forwarding as u32;
    }

    pub(super) const fn leave(&mut self) {
        self.port = PortId::NONE;
    }

    /// A port's packets begin their way here.
    pub(super) fn start(&mut self, port: PortId, packets: usize) {
        self.port = port;
        self.handles.iter_mut().take(packets).for_each(|handle| *handle = None);
    }

    /// Packet `at` belongs to this flow.
    #[inline]
    pub(super) fn note(&mut self, at: usize, handle: Handle) {
        if let Some(slot) = self.handles.get_mut(at) {
            *slot = Some(handle);
        }
    }
}

impl Shard {
    /// Which packets can go straight to the flows that follow theirs. Touches all that they will need.
    #[inline]
    pub(super) fn look_ahead(&self, batch: &Batch, now: &Now<'_>, outside: &Outside<'_>) -> Ways {
        let mut ways = Ways::default();
        for (i, (_, handle)) in batch.plain_flows().enumerate() {
            let leads_on = handle.is_some_and(|at| self.leads_on(at, now, outside.shards, outside.trail).is_some());
            ways.through |= u64::from(leads_on) << i;
        }
        ways
    }

    /// The same, and lets those go of which neither flow has anything to learn or to change: nearly all.
    #[inline]
    pub(super) fn pass_all(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) -> Ways {
        let mut ways = Ways::default();
        for (i, (member, handle)) in batch.plain_flows().enumerate() {
            let Some(handle) = handle else { continue };
            let Some((port, next)) = self.leads_on(handle, now, outside.shards, outside.trail) else { continue };
            ways.through |= 1 << i;
            if self.pass(handle, (port, next), member.len, now, outside.shards) {
                burst.set_verdict(member.at(), Verdict::Deliver(port));
                ways.gone |= 1 << i;
            }
        }
        ways
    }

    /// Counts a packet for its flow and the one that follows. `false`: there is more to it, and nothing was done.
    #[inline]
    fn pass(
        &mut self,
        handle: Handle,
        (port, next): (PortId, Handle),
        len: u32,
        now: &Now<'_>,
        shards: &mut [Option<Box<Self>>],
    ) -> bool {
        let Some(flow) = self.flows.get_mut(handle) else { return false };
        if !flow.is_idle_talk() || !flow.is_settled(now.epoch, now.ms, &self.openings) {
            return false;
        }
        let Some(Some(shard)) = shards.get_mut(port.index()) else { return false };
        let Some(other) = shard.flows.get_mut(next).filter(|flow| flow.is_idle_talk()) else { return false };
        flow.count(len, now.ms);
        other.count(len, now.ms);
        shard.stats.hits += 1;
        shard.stats.through += 1;
        true
    }

    /// The flow that the packets of a flow can go straight to, and its port. Touches all that they will need.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "with two callers the compiler would call it for each packet")]
    fn leads_on(
        &self,
        handle: Handle,
        now: &Now<'_>,
        shards: &[Option<Box<Self>>],
        trail: &Trail,
    ) -> Option<(PortId, Handle)> {
        let flow = self.flows.get(handle)?;
        let next = flow.next.filter(|_| self.is_followed(flow))?;
        let shard = shards.get(flow.next_port.index())?.as_ref()?;
        let leads_on = flow.next_epoch == trail.epoch
            && flow.next_s == now.seconds()
            && shard.flows.get(next).is_some_and(|flow| {
                // Not of a tunnel, in whose headers stands the hash of its own flow.
                flow.marks.is_steady()
                    && !flow.marks.has(Marks::TUNNEL)
                    && flow.fate == Fate::Pass
                    && flow.is_settled(shard.epoch, now.ms, &shard.openings)
                    && shard.is_followed(flow)
            });
        leads_on.then_some((flow.next_port, next))
    }

    /// Takes a packet through the next flow; the present one's changes are made.
    #[inline]
    pub(super) fn go_through(
        burst: &mut Burst,
        member: &Member,
        next: (PortId, Handle),
        now: &Now<'_>,
        shards: &mut [Option<Box<Self>>],
    ) {
        let (port, handle) = next;
        let Some(Some(shard)) = shards.get_mut(port.index()) else { return };
        let Some(flow) = shard.flows.get_mut(handle) else { return };
        let now = &Now { direction: Direction::In, ..*now };
        if !flow.marks.has(Marks::QUIET) && !follow(&mut shard.connections, &mut shard.stats, flow, burst, member, now)
        {
            // A packet of this burst has ended it: this one takes the long way.
            return;
        }
        shard.stats.hits += 1;
        shard.stats.through += 1;
        flow.count(burst.frame_len(member.at()), now.ms);
        let changes = flow.marks.has(Marks::CHANGES);
        burst.set_verdict(member.at(), Verdict::Deliver(port));
        if changes && let Some(beside) = shard.flows.beside(handle) {
            beside.change.apply(Fate::Pass, burst, member.at(), member.quick.layout(), member.hash);
        }
    }

    /// Notes that packets of the flow that the trail tells of belong to this flow here.
    #[inline]
    pub(super) fn note_next(
        &self,
        at: usize,
        handle: Handle,
        now: &Now<'_>,
        shards: &mut [Option<Box<Self>>],
        trail: &Trail,
    ) {
        if now.direction == Direction::Out || trail.port == PortId::NONE {
            return;
        }
        let Some(Some(before)) = trail.handles.get(at) else { return };
        let Some(Some(shard)) = shards.get_mut(trail.port.index()) else { return };
        let Some((flow, beside)) = shard.flows.both_mut(*before) else { return };
        // What moves the headers leaves others to be found anew.
        if flow.fate == Fate::Pass && beside.change.keeps_layout() {
            (flow.next, flow.next_port) = (Some(handle), self.port);
            (flow.next_epoch, flow.next_s) = (trail.epoch, now.seconds());
        }
    }
}
