// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loss, seen by the numbers of frames.

/// Counts frames that are missing between those that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    next: Option<u16>,
    lost: u64,
    late: u64,
}

impl Sequence {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: None, lost: 0, late: 0 }
    }

    /// A frame with this number came. One from the half of all numbers that lie before the expected one is late: it was counted as
    /// lost, or came twice. Returns how many numbers were skipped before it.
    #[inline]
    pub const fn take(&mut self, number: u16) -> u64 {
        let Some(next) = self.next else {
            self.next = Some(number.wrapping_add(1));
            return 0;
        };
        let ahead = number.wrapping_sub(next);
        if ahead > i16::MAX.unsigned_abs() {
            self.late = self.late.wrapping_add(1);
            return 0;
        }
        self.lost = self.lost.wrapping_add(ahead as u64);
        self.next = Some(number.wrapping_add(1));
        ahead as u64
    }

    /// A new session begins: whatever number comes is the first. The counts stay.
    pub const fn restart(&mut self) {
        self.next = None;
    }

    /// Numbers that were skipped. Of those, [`late`](Self::late) ones may have come afterwards.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Frames that came later than one with a higher number, or twice.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_across_the_wrap() {
        let mut sequence = Sequence::new();
        let numbers = [65_530, 65_531, 65_534, 65_535, 2, 1, 3, 3];
        assert_eq!(numbers.map(|number| sequence.take(number)), [0, 0, 2, 0, 2, 0, 0, 0]);
        assert_eq!((sequence.lost(), sequence.late()), (4, 2));
        sequence.restart();
        sequence.take(9000);
        assert_eq!((sequence.lost(), sequence.late()), (4, 2));
    }
}
