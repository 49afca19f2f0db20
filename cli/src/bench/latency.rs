// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long packets were on their way: every 64th of a source is timed from before it is posted until it is read.
//!
//! Both ends are this thread, so the time it was posted stays here and the packet carries its number only.

use backend::sys::{Clock, cycles};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::stamp::SAMPLE;

/// Timed packets on their way at once; more than rings and backend can hold.
const PLACES: u64 = 4096;

/// Longer than any packet that still counts as delivered.
const LONGEST_NS: u64 = 10_000_000_000;

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
}

/// Departure times, and the histogram of what arrived.
#[derive(Debug)]
pub(super) struct Latency {
    /// For each source, sample numbers and departure times in TSC cycles.
    departed: Vec<Vec<Option<(u64, u64)>>>,
    histogram: Histogram<u64>,
    /// What departed before does not count: it belongs to the warm-up.
    since: u64,
    clock: Clock,
}

impl Latency {
    pub(super) fn new(sources: usize) -> anyhow::Result<Self> {
        let places = usize::try_from(PLACES)?;
        Ok(Self {
            departed: vec![vec![None; places]; sources],
            histogram: Histogram::new_with_bounds(1, LONGEST_NS, 3)?,
            since: cycles(),
            clock: Clock::get(),
        })
    }

    /// Forgets what was measured.
    pub(super) fn restart(&mut self, now: u64) {
        self.histogram.reset();
        self.since = now;
    }

    /// A burst with sequence numbers from `first` on is about to be posted.
    #[inline(always)]
    pub(super) fn depart(&mut self, source: u8, first: u64, count: u64, now: u64) {
        let sample = first.next_multiple_of(SAMPLE);
        if sample < first + count
            && let Some(place) = self.place(source, sample)
        {
            *place = Some((sample, now));
        }
    }

    /// A packet was read; if it is one that was timed, its time is taken.
    #[inline(always)]
    pub(super) fn arrive(&mut self, source: u8, sequence: u64) {
        if sequence.is_multiple_of(SAMPLE) {
            self.take(source, sequence);
        }
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

    fn take(&mut self, source: u8, sequence: u64) {
        let now = cycles();
        let Some((sample, departed)) = self.place(source, sequence).and_then(Option::take) else { return };
        if sample == sequence && departed >= self.since {
            self.histogram.saturating_record(self.clock.to_nanos(now.saturating_sub(departed)).max(1));
        }
    }

    #[inline(always)]
    fn place(&mut self, source: u8, sequence: u64) -> Option<&mut Option<(u64, u64)>> {
        let number = usize::try_from(sequence / SAMPLE % PLACES).ok()?;
        self.departed.get_mut(usize::from(source))?.get_mut(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_of_the_measured_time_count() {
        let mut latency = Latency::new(2).unwrap();
        let early = cycles();
        latency.depart(1, 0, 32, early);
        latency.restart(cycles());
        latency.arrive(1, 0);
        assert_eq!(latency.histogram.len(), 0);
        latency.depart(1, 32, 32, cycles());
        latency.arrive(1, 64);
        assert_eq!(latency.histogram.len(), 0, "63 is the last of that burst");
        latency.depart(1, 64, 32, cycles());
        latency.arrive(0, 64);
        latency.arrive(1, 65);
        latency.arrive(1, 64);
        latency.arrive(1, 64);
        assert_eq!(latency.histogram.len(), 1);
        assert!(latency.percentiles().p50 > 0);
    }
}
