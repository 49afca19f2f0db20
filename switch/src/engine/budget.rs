// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much of what is expensive may be done (decision 17).

/// A bucket of tokens that fills with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    tokens: u32,
    filled_ns: u64,
    /// Empty until then: what is refused is refused without working out how much was earned.
    dry_until_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Budget {
    /// A full one.
    pub(super) const fn new(per_second: u32) -> Self {
        Self { tokens: per_second, filled_ns: 0, dry_until_ns: 0 }
    }

    /// Whether there is surely nothing in it.
    #[inline]
    pub(super) const fn is_dry(&self, now_ns: u64) -> bool {
        self.tokens == 0 && now_ns < self.dry_until_ns
    }

    /// Takes leave to do it once, if there is any left.
    pub(super) fn take(&mut self, now_ns: u64, per_second: u32) -> bool {
        if self.tokens == 0 {
            if now_ns < self.dry_until_ns {
                return false;
            }
            let elapsed = now_ns.saturating_sub(self.filled_ns);
            let earned = u128::from(elapsed) * u128::from(per_second) / u128::from(SECOND_NS);
            // Half a second's worth at once, at most.
            self.tokens = u32::try_from(earned).unwrap_or(u32::MAX).min((per_second / 2).max(1));
            if self.tokens == 0 {
                self.dry_until_ns = self.filled_ns.saturating_add(SECOND_NS.div_ceil(u64::from(per_second.max(1))));
                return false;
            }
            self.filled_ns = now_ns;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_done_than_was_earned() {
        for per_second in [1, 7, 1000, 200_000] {
            let mut budget = Budget::new(per_second);
            let (begin, step) = (5 * SECOND_NS, 333_u64);
            let first = (0..).take_while(|_| budget.take(begin, per_second)).count();
            // It was full, and has earned at most half a second's worth since.
            assert!(first >= per_second as usize && first <= per_second as usize * 2, "{first}");
            assert!(!budget.take(begin, per_second));
            let mut taken = 0_u64;
            for at in 1..=3_000_000_u64 {
                let now = begin + at * step;
                let dry = budget.is_dry(now);
                let took = budget.take(now, per_second);
                assert!(!(dry && took));
                taken += u64::from(took);
            }
            let earned = 3_000_000 * step * u64::from(per_second) / SECOND_NS;
            assert!(taken <= earned && taken + taken / 4 + 1 >= earned.min(3_000_000), "{taken} of {earned}");
        }
    }
}
