// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a search is expected to cost: its probes, each with the time that a benchmark found.

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
            Probe::NextRow => (2.0, 0.0),
            Probe::Row => (3.0, 1.0),
            Probe::List => (20.0, 1.0),
            Probe::Slot => (6.0, 1.0),
            Probe::Node => (2.0, 1.0),
            Probe::Segment => (8.0, 2.0),
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
        513..=2048 => 10.0,
        _ => 40.0,
    }
}
