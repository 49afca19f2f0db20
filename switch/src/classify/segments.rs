// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line of numbers cut into segments, each with an id: a static B-tree.
//!
//! Blocks of sixteen numbers, a line of the cache each. A level has the first number of every block of
//! the next, so that a search is one block a level, wherever the cuts crowd: half of them lie in
//! 10.0.0.0/8. The last level has the starts of all segments.

use super::meter::{Meter, Probe};

const WIDTH: usize = 16;

#[derive(Debug)]
pub(super) struct Segments<T> {
    /// From the root on.
    levels: Box<[Level<T>]>,
    ids: Box<[u32]>,
}

#[derive(Debug)]
struct Level<T> {
    blocks: Box<[Block<T>]>,
    /// Place of the last number.
    last: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block<T>([T; WIDTH]);

/// A number that can be cut.
pub(super) trait Number: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
}

impl Number for u32 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

impl Number for u128 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

impl<T: Number> Segments<T> {
    /// Of segments in ascending order; each ends where the next begins. Below the first the id is `below`.
    pub(super) fn new(segments: &[(T, u32)], below: u32) -> Self {
        let lowest = segments.first().is_none_or(|(start, _)| *start > T::MIN).then_some((T::MIN, below));
        let all = lowest.iter().chain(segments);
        let ids = all.clone().map(|(_, id)| *id).collect();
        let mut starts: Vec<T> = all.map(|(start, _)| *start).collect();
        let mut levels = Vec::new();
        loop {
            let above: Vec<T> = starts.iter().step_by(WIDTH).copied().collect();
            let is_root = starts.len() <= WIDTH;
            levels.push(Level::new(&starts));
            if is_root {
                break;
            }
            starts = above;
        }
        levels.reverse();
        Self { levels: levels.into(), ids }
    }

    /// The id of the segment with this value.
    #[inline]
    pub(super) fn find<M: Meter>(&self, value: T, meter: &mut M) -> u32 {
        meter.count(Probe::Segment, self.bytes());
        let mut at = 0_usize;
        for level in &self.levels {
            let Some(Block(starts)) = level.blocks.get(at) else { break };
            let mut before = 0_u32;
            for start in starts {
                before = before.wrapping_add(u32::from(*start <= value));
            }
            // The first is never above the value; padding may not be either.
            at = at.wrapping_mul(WIDTH).wrapping_add(before as usize).wrapping_sub(1).min(level.last);
        }
        self.ids.get(at).copied().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        let blocks = self.levels.iter().map(|level| size_of_val(&*level.blocks)).sum::<usize>();
        blocks.saturating_add(size_of_val(&*self.ids))
    }
}

impl<T: Number> Level<T> {
    fn new(numbers: &[T]) -> Self {
        let block = |numbers: &[T]| {
            let mut block = [T::MAX; WIDTH];
            block.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = *number);
            Block(block)
        };
        Self { blocks: numbers.chunks(WIDTH).map(block).collect(), last: numbers.len().saturating_sub(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_scan_finds(
            starts in prop::collection::btree_set(prop_oneof![any::<u128>(), 0..900_u128, 1 << 100..(1 << 100) + 99_u128, Just(u128::MAX)], 0..400),
            values in prop::collection::vec(prop_oneof![any::<u128>(), 0..900_u128, 1 << 100..(1 << 100) + 99_u128], 20),
        ) {
            let segments: Vec<_> = starts.into_iter().zip(1..).collect();
            let table = Segments::new(&segments, 0);
            let near = segments.iter().flat_map(|(at, _)| [at.saturating_sub(1), *at, at.saturating_add(1)]);
            for value in near.chain(values).chain([0, u128::MAX]) {
                let expected = segments.iter().rev().find(|(start, _)| *start <= value).map_or(0, |(_, id)| *id);
                prop_assert_eq!(table.find(value, &mut ()), expected, "{:#x}", value);
            }
        }

        #[test]
        fn short_numbers_too(starts in prop::collection::btree_set(any::<u32>(), 0..600), values in prop::collection::vec(any::<u32>(), 20)) {
            let segments: Vec<_> = starts.into_iter().zip(1..).collect();
            let table = Segments::new(&segments, 0);
            for value in values.into_iter().chain(segments.iter().map(|(start, _)| *start)).chain([0, u32::MAX]) {
                let expected = segments.iter().rev().find(|(start, _)| *start <= value).map_or(0, |(_, id)| *id);
                prop_assert_eq!(table.find(value, &mut ()), expected, "{:#x}", value);
            }
        }
    }
}
