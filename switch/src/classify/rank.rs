// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which of two matching rules wins, as one integer.

use std::fmt;
use std::num::NonZeroU64;

const ORDER_BITS: u32 = 24;
const LENGTH_SHIFT: u32 = ORDER_BITS + u32::BITS;
const ORDER_MASK: u64 = (1 << ORDER_BITS) - 1;

/// What a match is worth; the higher wins. It also says which rule it is of.
///
/// From the high bits: prefix length (8, only in longest-prefix groups), priority (32), and the rule's
/// place in the group, inverted (24), so that of equals the earlier wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(NonZeroU64);

impl Rank {
    /// Most rules in a group.
    pub const MAX_RULES: u32 = (1 << ORDER_BITS) - 1;

    /// Of the rule at place `order` of its group, below [`Rank::MAX_RULES`].
    pub(super) const fn new(prefix_len: u8, priority: u32, order: u32) -> Option<Self> {
        if order >= Self::MAX_RULES {
            return None;
        }
        let inverted = ORDER_MASK - order as u64;
        let bits = (prefix_len as u64) << LENGTH_SHIFT | (priority as u64) << ORDER_BITS | inverted;
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// Place of the rule in its group, from 0.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    pub const fn rule(self) -> usize {
        (ORDER_MASK - (self.0.get() & ORDER_MASK)) as usize
    }

    /// Its priority.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "that is its place")]
    pub const fn priority(self) -> u32 {
        (self.0.get() >> ORDER_BITS) as u32
    }

    /// As a number; nothing found is 0, so that a search compares integers only.
    #[inline]
    pub(super) const fn bits(this: Option<Self>) -> u64 {
        match this {
            Some(rank) => rank.0.get(),
            None => 0,
        }
    }

    /// The reverse of [`Rank::bits`].
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.0.get() >> LENGTH_SHIFT;
        write!(f, "Rank(length {len}, priority {}, rule {})", self.priority(), self.rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_beats_priority_beats_order() {
        let ranks = [(0, 0, 9), (0, 0, 0), (0, 1, 9), (0, u32::MAX, 3), (1, 0, 9), (128, 0, 0)];
        let ranks = ranks.map(|(len, priority, order)| Rank::new(len, priority, order).unwrap());
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!((ranks[3].priority(), ranks[3].rule()), (u32::MAX, 3));
        assert_eq!(Rank::new(0, 0, Rank::MAX_RULES), None);
        assert!(Rank::new(0, 0, Rank::MAX_RULES - 1).is_some());
    }
}
