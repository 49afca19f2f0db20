// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line of numbers cut into segments, each with an id: a sorted array with an index over the high
//! bits, so that the binary search has a step or two where the cuts are spread.

use super::meter::{Meter, Probe};

/// Says that a segment has no id.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Segments<T> {
    /// Where segments begin, ascending; each ends where the next begins.
    segments: Box<[(T, u32)]>,
    /// For every value of the high bits of `value - min` the segment in which the first such value lies.
    index: Box<[u32]>,
    min: u128,
    shift: u32,
}

impl<T: Copy + Ord + Into<u128>> Segments<T> {
    /// Of segments in ascending order. Below the first there is no id.
    pub(super) fn new(segments: &[(T, u32)]) -> Self {
        let min = segments.first().map_or(0, |(start, _)| (*start).into());
        let width = segments.last().map_or(0, |(last, _)| (*last).into().saturating_sub(min));
        let width_bits = u128::BITS.saturating_sub(width.leading_zeros());
        let index_bits = segments.len().next_power_of_two().ilog2().saturating_sub(1).max(1);
        let shift = width_bits.saturating_sub(index_bits);
        let mut index = Vec::new();
        let mut at = 0_u32;
        for slot in 0..=(width >> shift) {
            let first = min.saturating_add(slot << shift);
            while segments.get((at as usize).saturating_add(1)).is_some_and(|(next, _)| (*next).into() <= first) {
                at = at.saturating_add(1);
            }
            index.push(at);
        }
        index.push(u32::try_from(segments.len()).unwrap_or(NONE).saturating_sub(1));
        Self { segments: segments.into(), index: index.into(), min, shift }
    }

    /// The id of the segment with this value, or [`NONE`].
    #[inline]
    pub(super) fn find<M: Meter>(&self, value: T, meter: &mut M) -> u32 {
        let Some(distance) = value.into().checked_sub(self.min) else { return NONE };
        meter.count(Probe::Segment, self.bytes());
        let last = self.index.len().saturating_sub(2);
        let slot = (distance >> self.shift).min(last as u128) as usize;
        let (Some(from), Some(to)) = (self.index.get(slot), self.index.get(slot.wrapping_add(1))) else { return NONE };
        let (from, to) = (*from as usize, *to as usize);
        // The first of these begins at or before the value, or nothing does.
        let later = self.segments.get(from.wrapping_add(1)..to.wrapping_add(1)).unwrap_or_default();
        let beyond = later.partition_point(|(start, _)| *start <= value);
        self.segments.get(from.wrapping_add(beyond)).map_or(NONE, |(_, id)| *id)
    }

    pub(super) const fn bytes(&self) -> usize {
        let index = self.index.len().saturating_mul(size_of::<u32>());
        self.segments.len().saturating_mul(size_of::<(T, u32)>()).saturating_add(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_scan_finds(
            starts in prop::collection::btree_set(prop_oneof![any::<u128>(), 0..300_u128, 1 << 100..(1 << 100) + 99_u128], 0..40),
            values in prop::collection::vec(prop_oneof![any::<u128>(), 0..300_u128, 1 << 100..(1 << 100) + 99_u128], 20),
        ) {
            let segments: Vec<_> = starts.into_iter().zip(0..).collect();
            let table = Segments::new(&segments);
            let near = segments.iter().flat_map(|(at, _)| [at.saturating_sub(1), *at, at.saturating_add(1)]);
            for value in near.chain(values).chain([0, u128::MAX]) {
                let expected = segments.iter().rev().find(|(start, _)| *start <= value).map_or(NONE, |(_, id)| *id);
                prop_assert_eq!(table.find(value, &mut ()), expected, "{:#x}", value);
            }
        }
    }
}
