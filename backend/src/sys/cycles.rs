// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The time stamp counter, and nanoseconds made from it.
//!
//! A worker reads the clock once per loop; `clock_gettime` would cost as much as a packet there. The counter is
//! calibrated once per process against `std::time::Instant`, which is as exact as ageing and idle limits need.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The time stamp counter of this core, in its own ticks.
///
/// Constant-rate and synchronised between cores on every x86-64 that this runs on (`constant_tsc`, `nonstop_tsc`);
/// elsewhere nanoseconds of the monotonic clock stand in.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC has no operands and touches no memory; user mode may execute it unless CR4.TSD is set, which
        // Linux does only for threads that ask for it by PR_SET_TSC, and nothing in this process does.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Converts counter ticks to nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    hertz: u64,
    origin: u64,
}

impl Clock {
    /// The process-wide clock; the first call calibrates for 20 ms.
    pub fn get() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(Self::calibrate)
    }

    /// Ticks per second.
    pub fn hertz(&self) -> u64 {
        self.hertz
    }

    /// Nanoseconds between the clock's creation and the counter value `at`.
    #[inline]
    pub fn nanos_at(&self, at: u64) -> u64 {
        self.to_nanos(at.saturating_sub(self.origin))
    }

    /// A span of ticks as nanoseconds.
    #[inline]
    pub fn to_nanos(&self, ticks: u64) -> u64 {
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.hertz);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// A duration as ticks.
    pub fn to_ticks(&self, span: Duration) -> u64 {
        let ticks = span.as_nanos() * u128::from(self.hertz) / 1_000_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn calibrate() -> Self {
        let (start, origin) = (Instant::now(), cycles());
        let mut now = start;
        // Spins rather than sleeps: a sleep's wake-up delay would sit between the two pairs of readings.
        while now.duration_since(start) < Duration::from_millis(20) {
            now = Instant::now();
        }
        let ticks = u128::from(cycles() - origin);
        let hertz = ticks * 1_000_000_000 / now.duration_since(start).as_nanos();
        Self { hertz: u64::try_from(hertz).unwrap_or(u64::MAX).max(1), origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_convert_both_ways() {
        let clock = Clock { hertz: 2_500_000_000, origin: 1_000 };
        assert_eq!(clock.to_nanos(2_500), 1_000);
        assert_eq!(clock.to_ticks(Duration::from_micros(1)), 2_500);
        assert_eq!(clock.nanos_at(1_000 + 2_500), 1_000);
        assert_eq!(clock.nanos_at(0), 0);
    }

    #[test]
    fn the_counter_does_not_run_backwards() {
        let first = cycles();
        assert!(cycles() >= first);
        assert!(Clock::get().hertz() > 1_000_000);
    }
}
