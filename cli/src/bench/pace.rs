// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many packets may be sent now: all there is room for, or as many as a rate allows.

use backend::sys::cycles;

use super::pvp::as_float;

/// A stall of the generator is made up for by at most so many packets; the rest of what it missed is not sent.
const DEEPEST: f64 = 64.0;

/// Lets packets through at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    /// Packets per TSC cycle; `None`: as fast as possible.
    rate: Option<f64>,
    allowed: f64,
    last: u64,
}

impl Pace {
    /// `rate` in packets per TSC cycle.
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { rate, allowed: 0.0, last: cycles() }
    }

    /// Whether there is a rate at all.
    pub(super) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Lets time pass; says how many packets may be sent now, at most `most`.
    #[inline]
    pub(super) fn allow(&mut self, most: usize, now: u64) -> usize {
        let Some(rate) = self.rate else { return most };
        let passed = as_float(now.saturating_sub(self.last));
        self.last = now;
        self.allowed = (self.allowed + passed * rate).min(DEEPEST);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 64")]
        let whole = self.allowed as usize;
        whole.min(most)
    }

    /// So many were sent.
    #[inline]
    pub(super) fn spend(&mut self, sent: usize) {
        if self.is_limited() {
            self.allowed -= as_float(sent as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_a_stall_is_not_made_up_for() {
        let mut pace = Pace::new(Some(1e-3));
        let start = pace.last;
        assert_eq!(pace.allow(32, start + 10_001), 10);
        pace.spend(10);
        assert_eq!(pace.allow(32, start + 13_001), 3);
        pace.spend(3);
        assert_eq!(pace.allow(100, start + 10_000_000), 64);
        assert_eq!(pace.allow(32, start + 10_001_000), 32);
    }

    #[test]
    fn without_a_rate_everything_goes() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.allow(64, cycles()), 64);
        pace.spend(64);
        assert_eq!(pace.allow(64, cycles()), 64);
    }
}
