// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! News for the other replicas.

use std::collections::VecDeque;

use packet::{MacAddr, PortId};

use super::Entry;

/// What one replica tells the others: this station was seen at this port at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The station.
    pub mac: MacAddr,
    /// Where it was seen.
    pub port: PortId,
    /// When, on the clock all workers share, in nanoseconds.
    pub seen_ns: u64,
}

/// A bounded queue of announcements; with a bound of 0 there is nobody to tell, and everything is
/// taken and forgotten.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Announcement>,
    bound: usize,
}

impl Outbox {
    pub(super) fn new(bound: usize) -> Self {
        Self { queue: VecDeque::with_capacity(bound), bound }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bound != 0 && self.queue.len() == self.bound
    }

    /// Whether the news will reach the others, or there are none.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        if self.is_full() {
            return false;
        }
        if self.bound != 0 {
            self.queue.push_back(Announcement { mac: entry.mac, port: entry.port, seen_ns: entry.seen_ns });
        }
        true
    }

    pub(super) fn take(&mut self, max: usize) -> impl Iterator<Item = Announcement> + '_ {
        self.queue.drain(..max.min(self.queue.len()))
    }
}
