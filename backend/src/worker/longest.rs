// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The longest turn of late.
//!
//! # Theory of operation
//!
//! A maximum since the start says nothing of today, and one that is reset when it is read belongs to one reader. So there
//! are two windows of fixed length: the one that runs, and the one before it. What is told is the maximum of both, and
//! whoever asks at least once per window misses no turn.

/// The maximum in the window that runs and the one before.
#[derive(Debug)]
pub(super) struct Longest {
    /// Ticks of a window.
    window: u64,
    /// When the present one began.
    since: u64,
    present: u64,
    before: u64,
}

impl Longest {
    /// Of windows of so many ticks.
    pub(super) const fn new(window: u64) -> Self {
        Self { window, since: 0, present: 0, before: 0 }
    }

    /// A turn ended now that took so long. Returns the longest of late if that is another now.
    #[inline]
    pub(super) fn note(&mut self, now: u64, elapsed: u64) -> Option<u64> {
        let age = now.wrapping_sub(self.since);
        if age < self.window && elapsed <= self.present {
            return None;
        }
        Some(self.change(now, age, elapsed))
    }

    #[cold]
    const fn change(&mut self, now: u64, age: u64, elapsed: u64) -> u64 {
        if age >= self.window {
            // Nothing is known of a window in which there was no turn.
            self.before = if age < 2 * self.window { self.present } else { 0 };
            self.present = 0;
            self.since = now;
        }
        if elapsed > self.present {
            self.present = elapsed;
        }
        if self.present > self.before { self.present } else { self.before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_turn_is_told_of_for_one_window_at_least_and_two_at_most() {
        for begin in [0, 37, 99] {
            let mut longest = Longest::new(100);
            let mut told = 0;
            let mut tell = |now: u64, elapsed| {
                told = longest.note(1_000_000 + now, elapsed).unwrap_or(told);
                told
            };
            for now in 0..begin {
                assert_eq!(tell(now, 1), 1);
            }
            assert_eq!(tell(begin, 50), 50);
            assert_eq!(tell(begin + 1, 7), 50, "a shorter one does not hide it");
            for now in begin + 2..begin + 100 {
                assert_eq!(tell(now, 1), 50, "at {now}");
            }
            assert_eq!(tell(begin + 201, 1), 1);
        }
    }

    #[test]
    fn what_was_before_a_silence_is_not_of_late() {
        let mut longest = Longest::new(100);
        assert_eq!(longest.note(1_000, 60), Some(60));
        assert_eq!(longest.note(1_300, 2), Some(2));
    }
}
