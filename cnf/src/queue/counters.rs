// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a queue has done.

use aggregation::{Cause, Damage};

use crate::PortCounters;

/// What a queue has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Packets taken to be sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Frames the device took, or has waiting in the ring: packets, aggregates and what is said about them.
    pub frames_sent: u64,
    /// Frames received, likewise.
    pub frames_received: u64,
    /// Aggregates sent.
    pub aggregates_sent: u64,
    /// Packets in them.
    pub packets_packed: u64,
    /// Aggregates received.
    pub aggregates_received: u64,
    /// Packets in them.
    pub packets_unpacked: u64,
    /// Aggregates missing between those received, by their numbers; only where the link has one queue pair.
    pub aggregates_lost: u64,
    /// Times the device asked to be woken.
    pub kicks: u64,
    /// Packets dropped because no frame is so long.
    pub too_long: u64,
    /// Packets dropped because what was left undone in them cannot be done.
    pub unfinishable: u64,
    /// Frames that a backend had not given back when it was lost: it may have sent them or not.
    pub abandoned: u64,
    /// Aggregates dropped because they were not agreed on.
    pub unexpected: u64,
    /// Frames of the negotiation dropped, because they are too long or too many.
    pub control_dropped: u64,
    /// What was wrong in aggregates received, by cause: see [`damaged`](Self::damaged).
    pub damages: [u64; Cause::COUNT],
    /// Packets lost by that, as far as it is known.
    pub packets_damaged: u64,
}

impl QueueCounters {
    /// Everything that was wrong in aggregates received, with its name, and how often.
    pub fn damaged(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Cause::ALL
            .iter()
            .zip(&self.damages)
            .filter(|(_, count)| **count > 0)
            .map(|(cause, count)| (cause.label(), *count))
    }

    /// Adds what a port has done.
    pub(crate) fn add(&mut self, port: PortCounters) {
        self.frames_sent += port.sent;
        self.frames_received += port.received;
        self.kicks += port.kicks;
    }

    pub(crate) fn damage(&mut self, damage: Damage) {
        if let Some(count) = self.damages.get_mut(damage.cause.index()) {
            *count += 1;
        }
        self.packets_damaged += u64::from(damage.packets);
    }
}
