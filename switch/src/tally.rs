// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters of rules, layers and groups.
//!
//! A flow counts for itself; what it counted is added to those of the rules on its path now and then (when
//! the flow ends, is planned anew, or is swept), so that a packet costs no more with many layers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Packets and bytes. Bytes are those of the frame as it was when the packet met the rule.
#[derive(Debug, Default)]
pub struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What a [`Tally`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds.
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was counted so far. The two numbers may be of slightly different moments.
    #[must_use]
    pub fn total(&self) -> Total {
        Total { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl std::ops::AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}
