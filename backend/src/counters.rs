// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters with a single writer.
//!
//! Each worker has its own block per port, so that counting is a plain load and store on a line no other core writes;
//! whoever reads sums the blocks. Blocks belong to the port, not to the connection: they survive a guest's reconnect.

use std::sync::atomic::{AtomicU64, Ordering};

use packet::DropCause;
use virtqueue::RingError;

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
    pub(crate) tx_aggregates: Counter,
    pub(crate) tx_aggregated: Counter,
    /// Aggregates, or parts of them, that were not taken, by cause.
    damages: [Counter; aggregation::Cause::COUNT],
    drops: [Counter; DropCause::COUNT],
    errors: [Counter; RingError::CAUSES.len()],
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
            tx_aggregates: Counter::default(),
            tx_aggregated: Counter::default(),
            damages: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
            errors: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl PortCounters {
    #[inline]
    pub(crate) fn drop_packets(&self, cause: DropCause, n: u64) {
        if let Some(counter) = self.drops.get(cause.index()) {
            counter.add(n);
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

    /// What of aggregates was not taken, by cause, all causes.
    pub(crate) fn damages(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        aggregation::Cause::ALL.iter().zip(&self.damages).map(|(cause, counter)| (cause.label(), counter.get()))
    }

    /// Broken queues by cause, all causes.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        RingError::CAUSES.iter().zip(&self.errors).map(|(cause, counter)| (*cause, counter.get()))
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
