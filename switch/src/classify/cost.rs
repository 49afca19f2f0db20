// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a search is expected to cost: its probes, each with the time that a benchmark found.
//!
//! # The fit
//!
//! 50,000 rules of three generated sets, 64 keys again and again for the work and 4,096 keys for what the
//! caches cost, on a shared AMD EPYC (family 25, 1 MB second-level cache); probes per look-up as counted
//! by a [`Meter`]:
//!
//! | set, classifier | next row | row | slot | node | segment | filter | ns cached | ns |
//! |---|---|---|---|---|---|---|---|---|
//! | ACL, tuple space | 0.2 | 2.0 | 19.0 | | 2.0 | 11.6 | 298 | 1087 |
//! | ACL, two tries | 12.5 | 3.1 | | 3.6 | 2.7 | | 105 | 209 |
//! | firewall, tuple space | 3830 | 6.7 | 53.7 | | 1.7 | 13.9 | 6058 | 12771 |
//! | firewall, tries and intervals | 6.5 | 21.3 | | 20.1 | 2.7 | | 165 | 754 |
//! | routes, trie | | | | 1.0 | 1.0 | | 15 | 22 |
//!
//! Fitted by hand; it is meant to order candidates, and is within a factor of two.

use super::meter::{Meter, Probe};

/// Nanoseconds that a search costs by the model; add to it by passing it as a [`Meter`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// So far.
    pub ns: f64,
}

impl Meter for Cost {
    fn count(&mut self, probe: Probe, bytes: usize) {
        // Work, and how many lines that are seldom in the first-level cache.
        let (work, lines) = match probe {
            Probe::NextRow => (1.3, 0.0),
            Probe::Row => (5.0, 1.0),
            Probe::Item => (1.3, 0.0),
            Probe::List => (20.0, 1.0),
            Probe::Slot => (10.0, 1.0),
            Probe::Node => (3.0, 1.0),
            Probe::Segment => (10.0, 2.0),
            Probe::Filter => (3.0, 0.0),
        };
        self.ns += work + lines * line(bytes);
    }
}

/// What a random line of a table costs.
fn line(bytes: usize) -> f64 {
    match bytes >> 10 {
        0..=32 => 0.0,
        33..=512 => 3.0,
        513..=2048 => 12.0,
        _ => 25.0,
    }
}
