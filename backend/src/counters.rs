// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters with a single writer.
//!
//! Each worker has its own block per port, so that counting is a plain load and store on a line no other core writes;
//! whoever reads sums the blocks. Blocks belong to the port, not to the connection: they survive a guest's reconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aggregation::flush::{Histogram, Trigger};
use packet::{DropCause, PortId};
use virtqueue::RingError;

use crate::inspect::{DropHub, Seen};

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; to be called by the one writer only (a second writer would lose counts, nothing worse).
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that one thread sets and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counted at one port. Directions are the node's: received from the guest, transmitted to it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct PortCounters {
    pub(crate) rx_packets: Counter,
    pub(crate) rx_bytes: Counter,
    pub(crate) tx_packets: Counter,
    pub(crate) tx_bytes: Counter,
    /// Eventfd writes that told the guest of used buffers.
    pub(crate) notifications: Counter,
    /// Frames received that their sender left unfinished, and those of them that are longer than the link takes.
    pub(crate) unfinished: Counter,
    pub(crate) oversized: Counter,
    /// What the latter were cut into.
    pub(crate) segments: Counter,
    /// Aggregates received and transmitted, and the packets in them.
    pub(crate) rx_aggregates: Counter,
    pub(crate) rx_aggregated: Counter,
    /// Groups received that went on whole, and the packets in them.
    pub(crate) spliced: Counter,
    pub(crate) spliced_packets: Counter,
    pub(crate) tx_aggregates: Counter,
    pub(crate) tx_aggregated: Counter,
    /// Numbers of aggregates that were skipped: they were lost on their way here.
    pub(crate) rx_lost: Counter,
    /// Frames that negotiate aggregates, received and transmitted.
    pub(crate) rx_control: Counter,
    pub(crate) tx_control: Counter,
    /// Frames that were put together, by what sent them, how many packets were in them, and for how many nanoseconds the first
    /// of those was held.
    triggers: [Counter; Trigger::COUNT],
    pub(crate) packets_per_frame: Buckets,
    pub(crate) held_ns: Buckets,
    /// What became of those who speak aggregates.
    peers: [Counter; PeerEvent::ALL.len()],
    /// Packets that were lost by that, as far as headers say how many.
    pub(crate) damaged: Counter,
    /// Aggregates, or parts of them, that were not taken, by cause.
    damages: [Counter; aggregation::Cause::COUNT],
    drops: [Counter; DropCause::COUNT],
    errors: [Counter; RingError::CAUSES.len()],
    /// Who is told of drops, and as whose.
    hub: Arc<DropHub>,
    port: PortId,
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            notifications: Counter::default(),
            unfinished: Counter::default(),
            oversized: Counter::default(),
            segments: Counter::default(),
            rx_aggregates: Counter::default(),
            rx_aggregated: Counter::default(),
            spliced: Counter::default(),
            spliced_packets: Counter::default(),
            tx_aggregates: Counter::default(),
            tx_aggregated: Counter::default(),
            rx_lost: Counter::default(),
            rx_control: Counter::default(),
            tx_control: Counter::default(),
            triggers: std::array::from_fn(|_| Counter::default()),
            packets_per_frame: Buckets::default(),
            held_ns: Buckets::default(),
            peers: std::array::from_fn(|_| Counter::default()),
            damaged: Counter::default(),
            damages: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
            errors: std::array::from_fn(|_| Counter::default()),
            hub: Arc::default(),
            port: PortId::NONE,
        }
    }
}

impl PortCounters {
    /// Of a port whose drops are told to a hub.
    pub(crate) fn of(port: PortId, hub: &Arc<DropHub>) -> Self {
        Self { hub: Arc::clone(hub), port, ..Self::default() }
    }

    /// Whether somebody is told of drops.
    #[inline]
    pub(crate) fn is_traced(&self) -> bool {
        self.hub.is_on()
    }

    /// Counts packets whose bytes are not at hand any more.
    #[inline]
    pub(crate) fn drop_packets(&self, cause: DropCause, n: u64) {
        self.drop_frames(cause, n, |_, _| Seen::default());
    }

    /// Counts a packet that begins with `head`.
    #[inline]
    pub(crate) fn drop_frame(&self, cause: DropCause, head: &[u8], length: usize) {
        self.drop_alike(cause, 1, head, length);
    }

    /// Counts packets that are dropped as one, which begins with `head`.
    #[inline]
    pub(crate) fn drop_alike(&self, cause: DropCause, n: u64, head: &[u8], length: usize) {
        self.count_drops(cause, n);
        if self.hub.is_on() && n > 0 {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let packets = u32::try_from(n).unwrap_or(u32::MAX);
            self.hub.tell(self.port, cause, (1, packets), &mut |_, room| Seen::of(head, length, room));
        }
    }

    /// Counts packets of which `seen` copies the first bytes, each by its place among them.
    #[inline]
    pub(crate) fn drop_frames(&self, cause: DropCause, n: u64, mut seen: impl FnMut(usize, &mut [u8]) -> Seen) {
        self.count_drops(cause, n);
        if self.hub.is_on() && n > 0 {
            self.hub.tell(self.port, cause, (n, 1), &mut seen);
        }
    }

    #[inline]
    fn count_drops(&self, cause: DropCause, n: u64) {
        if let Some(counter) = self.drops.get(cause.index()) {
            counter.add(n);
        }
    }

    /// A frame that was put together was sent.
    #[inline]
    pub(crate) fn flushed(&self, trigger: Trigger, packets: u32, held_ns: u64) {
        if let Some(counter) = self.triggers.get(trigger.index()) {
            counter.add(1);
        }
        self.packets_per_frame.add(packets.into());
        self.held_ns.add(held_ns);
    }

    pub(crate) fn peer(&self, event: PeerEvent) {
        if let Some(counter) = self.peers.get(event as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn damage(&self, cause: aggregation::Cause) {
        if let Some(counter) = self.damages.get(cause.index()) {
            counter.add(1);
        }
    }

    pub(crate) fn ring_error(&self, error: &RingError) {
        let position = RingError::CAUSES.iter().position(|&c| c == error.cause());
        if let Some(counter) = position.and_then(|i| self.errors.get(i)) {
            counter.add(1);
        }
    }

    /// Drops by cause, all causes, in the order of [`DropCause::ALL`].
    pub(crate) fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropCause::ALL.iter().zip(&self.drops).map(|(cause, counter)| (cause.label(), counter.get()))
    }

    /// Frames that were put together, by what sent them, all triggers.
    pub(crate) fn triggers(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Trigger::ALL.iter().zip(&self.triggers).map(|(trigger, counter)| (trigger.label(), counter.get()))
    }

    /// What became of those who speak aggregates, all there is.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PeerEvent::ALL.iter().zip(&self.peers).map(|(event, counter)| (event.label(), counter.get()))
    }

    /// What of aggregates was not taken, by cause, all causes.
    pub(crate) fn damages(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        aggregation::Cause::ALL.iter().zip(&self.damages).map(|(cause, counter)| (cause.label(), counter.get()))
    }

    /// Broken queues by cause, all causes.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        RingError::CAUSES.iter().zip(&self.errors).map(|(cause, counter)| (*cause, counter.get()))
    }
}

/// Counts of numbers by their length in bits, as [`Histogram`] has them.
#[derive(Debug)]
pub(crate) struct Buckets {
    counts: [Counter; Histogram::BUCKETS],
    sum: Counter,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl Buckets {
    #[inline]
    fn add(&self, value: u64) {
        if let Some(counter) = self.counts.get(Histogram::bucket(value)) {
            counter.add(1);
        }
        self.sum.add(value);
    }

    /// The sum of all numbers, and how many there were in each bucket.
    pub(crate) fn get(&self) -> (u64, impl Iterator<Item = u64> + '_) {
        (self.sum.get(), self.counts.iter().map(Counter::get))
    }
}

/// What becomes of somebody who speaks aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PeerEvent {
    /// It takes aggregates from now on.
    Up,
    /// It said goodbye.
    Bye,
    /// It was not heard for three keepalives.
    Silent,
    /// It, or the link to it, began anew.
    Restarted,
    /// Its queue went, or we said goodbye.
    Closed,
    /// It was not taken.
    Refused,
    /// It does not take us.
    RefusedBy,
}

impl PeerEvent {
    pub(crate) const ALL: [Self; 7] =
        [Self::Up, Self::Bye, Self::Silent, Self::Restarted, Self::Closed, Self::Refused, Self::RefusedBy];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Bye => "bye",
            Self::Silent => "silent",
            Self::Restarted => "restarted",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::RefusedBy => "refused_by",
        }
    }
}

/// What a worker counts about itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    pub(crate) packets: Counter,
    pub(crate) busy_cycles: Counter,
    pub(crate) idle_cycles: Counter,
    pub(crate) polls: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) handed_over: Counter,
    pub(crate) deferred: Counter,
    /// Of the last second or two.
    pub(crate) longest_turn: Gauge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_counter() {
        let counters = PortCounters::default();
        for (n, cause) in DropCause::ALL.iter().enumerate() {
            counters.drop_packets(*cause, n as u64 + 1);
        }
        let read: Vec<u64> = counters.drops().map(|(_, n)| n).collect();
        let expected: Vec<u64> = (1..=DropCause::ALL.len() as u64).collect();
        assert_eq!(read, expected);
    }
}
