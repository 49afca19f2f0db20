// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a search is expected to cost: its probes, each with the time that a benchmark found.
//!
//! # The fit
//!
//! 50,000 rules of the generated sets, 64 keys again and again for the work and 4,096 keys for what the
//! caches cost, on a shared AMD EPYC (family 25, 1 MB second-level cache), the least of many rounds; probes
//! per look-up as counted by a [`Meter`]:
//!
//! | set, classifier | next row | row | slot | node | item | segment | filter | ns cached | ns |
//! |---|---|---|---|---|---|---|---|---|---|
//! | ACL, one after the other | 22668 | 1.0 | | | | | | 24565 | 24884 |
//! | ACL, trie of destinations | | 4.5 | | 2.7 | 2071 | 1.0 | | 1888 | 2039 |
//! | ACL, tuple space | | 1.1 | 19.0 | 0.2 | 0.4 | 2.0 | 11.6 | 264 | 799 |
//! | ACL, two tries | | 1.2 | | 3.3 | 25.7 | 2.0 | | 84 | 125 |
//! | firewall, two tries and an interval tree | | 1.0 | | 4.2 | 16.5 | 3.0 | | 88 | 158 |
//! | routes, trie | | | | 1.0 | 1.0 | 1.0 | | 27 | 50 |
//! | exact, hash | | 1.0 | 1.0 | | | | 1.0 | 30 | 41 |
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
            Probe::NextRow => (1.0, 0.0),
            Probe::Row => (8.0, 1.0),
            Probe::Item => (0.85, 0.0),
            Probe::List => (20.0, 1.0),
            Probe::Slot => (10.0, 1.5),
            Probe::Node => (8.0, 1.0),
            Probe::Segment => (10.0, 2.0),
            Probe::Filter => (2.0, 0.0),
        };
        self.ns += work + lines * line(bytes);
    }
}

/// What a random line of a table costs.
fn line(bytes: usize) -> f64 {
    match bytes >> 10 {
        0..=32 => 0.0,
        33..=512 => 3.0,
        513..=2048 => 8.0,
        _ => 12.0,
    }
}
