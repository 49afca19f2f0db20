// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line of numbers cut into segments, each with an id.
//!
//! # Theory of operation
//!
//! The starts of all segments lie in order in one array, and an index over the high bits of a number says
//! where to look. Cuts crowd (half of all prefixes lie in 10.0.0.0/8), so every slot of it has an index
//! of its own, over as many further bits as it has cuts. A slot of that names the segment in which it
//! begins: with at most three cuts, one of the four from there on is it. All this takes two loads of the
//! indices and one of the array, and no branch that depends on the number. What is crowded even then is
//! a binary search.

use std::ops::Range;

use super::meter::{Meter, Probe};

/// Segments among which a slot leaves the choice.
const CHOICE: usize = 4;
/// Most bits of an index.
const MAX_BITS: u32 = 20;

#[derive(Debug)]
pub(super) struct Segments<T> {
    /// Starts and ids, ascending, the first at the lowest number; padded for the last choice.
    segments: Box<[(T, u32)]>,
    /// The index over the high bits; its last slot is what the one before ends with.
    outer: Box<[Outer]>,
    /// The indices of its slots, each with a last slot that is only an end: segments after that with which
    /// the outer slot begins.
    inner: Box<[u16]>,
    /// Where the index begins.
    min: T,
    /// How far from there the last segment begins.
    span: T,
    /// The bits that the index leaves.
    shift: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outer {
    /// The segment in which it begins.
    first: u32,
    /// Where its own index is, above the number of its bits.
    inner: u32,
}

/// Low bits of [`Outer::inner`] that say how many bits the inner index has.
const BITS_WIDTH: u32 = 5;
/// In place of the bits: there are more segments than an inner index counts.
const CROWDED: u32 = (1 << BITS_WIDTH) - 1;

/// A number that can be cut.
pub(super) trait Number: Copy + Ord + Into<u128> {
    const MIN: Self;
    const MAX: Self;
    /// How far it is from a lower one; 0 from a higher one.
    fn beyond(self, from: Self) -> Self;
    /// 32 of its bits from one on.
    fn bits_from(self, shift: u32) -> u32;
}

impl Number for u32 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;

    #[inline]
    fn beyond(self, from: Self) -> Self {
        self.saturating_sub(from)
    }

    #[inline]
    fn bits_from(self, shift: u32) -> u32 {
        self.wrapping_shr(shift)
    }
}

impl Number for u128 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;

    #[inline]
    fn beyond(self, from: Self) -> Self {
        self.saturating_sub(from)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "32 of its bits")]
    fn bits_from(self, shift: u32) -> u32 {
        self.wrapping_shr(shift) as u32
    }
}

impl<T: Number> Segments<T> {
    /// Of segments in ascending order; each ends where the next begins. Below the first the id is `below`.
    pub(super) fn new(segments: &[(T, u32)], below: u32) -> Self {
        let lowest = segments.first().is_none_or(|(start, _)| *start > T::MIN).then_some((T::MIN, below));
        let min = segments.first().map_or(T::MIN, |(start, _)| *start);
        let mut all: Vec<_> = lowest.iter().chain(segments).copied().collect();
        let span = segments.last().map_or(T::MIN, |(start, _)| start.beyond(min));
        let width = u128::BITS.saturating_sub(span.into().leading_zeros());
        // An eighth as many slots as segments: they stay in the first-level cache.
        let bits = (all.len() / 8).max(1).ilog2().saturating_add(1).min(width).min(MAX_BITS);
        let shift = width.saturating_sub(bits);
        let distances: Vec<u128> = all.iter().map(|(start, _)| start.beyond(min).into()).collect();
        let mut inner = Vec::new();
        let slots = Cut { distances: &distances, base: 0, shift };
        let mut outer: Vec<_> = slots.runs(0..all.len(), bits).map(|run| slots.nested(&run, &mut inner)).collect();
        outer.push(Outer { first: place(all.len().saturating_sub(1)), inner: 0 });
        let id = all.last().map_or(below, |(_, id)| *id);
        all.extend([(T::MAX, id); CHOICE]);
        Self { segments: all.into(), outer: outer.into(), inner: inner.into(), min, span, shift }
    }

    /// The id of the segment with this value.
    #[inline]
    pub(super) fn find<M: Meter>(&self, value: T, meter: &mut M) -> u32 {
        meter.count(Probe::Segment, self.bytes());
        let distance = value.beyond(self.min).min(self.span);
        let at = distance.bits_from(self.shift) as usize;
        let Some(outer) = self.outer.get(at) else { return 0 };
        let bits = outer.inner % (1 << BITS_WIDTH);
        if bits == CROWDED {
            let next = self.outer.get(at.wrapping_add(1)).map_or(0, |outer| outer.first as usize);
            return self.search(outer.first as usize..next.wrapping_add(1), value);
        }
        let slot = distance.bits_from(self.shift.wrapping_sub(bits)) & (1_u32 << bits).wrapping_sub(1);
        let slot = (outer.inner >> BITS_WIDTH).wrapping_add(slot) as usize;
        let Some([from, to]) = self.inner.get(slot..).and_then(<[_]>::first_chunk) else { return 0 };
        let first = (outer.first as usize).wrapping_add(usize::from(*from));
        let cuts = usize::from(to.wrapping_sub(*from));
        if cuts >= CHOICE {
            return self.search(first..first.wrapping_add(cuts).wrapping_add(1), value);
        }
        let Some(choice) = self.segments.get(first..).and_then(<[_]>::first_chunk::<CHOICE>) else { return 0 };
        let before =
            choice.iter().fold(0_usize, |before, (start, _)| before.wrapping_add(usize::from(*start <= value)));
        choice.get(before.wrapping_sub(1)).map_or(0, |(_, id)| *id)
    }

    #[cold]
    fn search(&self, run: Range<usize>, value: T) -> u32 {
        let run = self.segments.get(run).unwrap_or_default();
        let after = run.partition_point(|(start, _)| *start <= value);
        run.get(after.wrapping_sub(1)).map_or(0, |(_, id)| *id)
    }

    pub(super) fn bytes(&self) -> usize {
        let index = size_of_val(&*self.outer).saturating_add(size_of_val(&*self.inner));
        size_of_val(&*self.segments).saturating_add(index)
    }
}

/// Equal intervals of `1 << shift` from `base` on.
struct Cut<'a> {
    /// How far from the lowest each segment begins, ascending.
    distances: &'a [u128],
    base: u128,
    shift: u32,
}

/// The segments of an interval: that with which it begins, and those up to the one with which it ends.
struct Run {
    segments: Range<usize>,
    begin: u128,
}

impl Cut<'_> {
    /// Of each interval the segments of these that lie in it.
    fn runs(&self, among: Range<usize>, bits: u32) -> impl Iterator<Item = Run> {
        let mut first = among.start;
        (0..1_u128 << bits).map(move |number| {
            let begin = self.base.saturating_add(number << self.shift);
            let begins_until = |next: usize, bound: u128| {
                next < among.end && self.distances.get(next).is_some_and(|distance| *distance <= bound)
            };
            // Numbers below all, too, lead to the first interval.
            while begin > 0 && begins_until(first.saturating_add(1), begin) {
                first = first.saturating_add(1);
            }
            let mut end = first.saturating_add(1);
            let last = begin.saturating_add((1 << self.shift) - 1);
            while begins_until(end, last) {
                end = end.saturating_add(1);
            }
            Run { segments: first..end, begin }
        })
    }

    /// A slot of the outer index: appends its own.
    fn nested(&self, run: &Run, inner: &mut Vec<u16>) -> Outer {
        let (first, start) = (run.segments.start, place(inner.len()));
        let cuts = run.segments.len().saturating_sub(1);
        let outer = |bits| Outer { first: place(first), inner: start << BITS_WIDTH | bits };
        let Ok(end) = u16::try_from(cuts) else {
            inner.extend([0, 0]);
            return outer(CROWDED);
        };
        let bits = cuts.next_power_of_two().ilog2().min(self.shift);
        let cut = Cut { distances: self.distances, base: run.begin, shift: self.shift.saturating_sub(bits) };
        let after = |run: Run| u16::try_from(run.segments.start.saturating_sub(first)).unwrap_or(end);
        inner.extend(cut.runs(run.segments.clone(), bits).map(after));
        inner.push(end);
        outer(bits)
    }
}

/// There are fewer than 2^24 segments, and hardly more slots of indices.
fn place(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BELOW: u32 = 99_999;

    proptest! {
        #[test]
        fn as_a_scan_finds(
            starts in prop::collection::btree_set(prop_oneof![any::<u128>(), 0..900_u128, 1 << 100..(1 << 100) + 99_u128, Just(u128::MAX)], 0..400),
            values in prop::collection::vec(prop_oneof![any::<u128>(), 0..900_u128, 1 << 100..(1 << 100) + 99_u128], 20),
        ) {
            let segments: Vec<_> = starts.into_iter().zip(1..).collect();
            let table = Segments::new(&segments, BELOW);
            let near = segments.iter().flat_map(|(at, _)| [at.saturating_sub(1), *at, at.saturating_add(1)]);
            for value in near.chain(values).chain([0, u128::MAX]) {
                let expected = segments.iter().rev().find(|(start, _)| *start <= value).map_or(BELOW, |(_, id)| *id);
                prop_assert_eq!(table.find(value, &mut ()), expected, "{:#x}", value);
            }
        }

        #[test]
        fn short_numbers_too(starts in prop::collection::btree_set(any::<u32>(), 0..600), values in prop::collection::vec(any::<u32>(), 20)) {
            let segments: Vec<_> = starts.into_iter().zip(1..).collect();
            let table = Segments::new(&segments, BELOW);
            for value in values.into_iter().chain(segments.iter().map(|(start, _)| *start)).chain([0, u32::MAX]) {
                let expected = segments.iter().rev().find(|(start, _)| *start <= value).map_or(BELOW, |(_, id)| *id);
                prop_assert_eq!(table.find(value, &mut ()), expected, "{:#x}", value);
            }
        }
    }

    #[test]
    fn crowds_that_no_index_takes_apart() {
        // More than an inner index counts, and one that is far away.
        let segments: Vec<_> = (0..70_000_u128).map(|at| ((7 << 64) | (at * 3), 7)).chain([(9 << 120, 8)]).collect();
        let table = Segments::new(&segments, BELOW);
        for (value, expected) in [(0, BELOW), (7 << 64, 7), (7 << 64 | 209_998, 7), (8 << 120, 7), (u128::MAX, 8)] {
            assert_eq!(table.find(value, &mut ()), expected, "{value:#x}");
        }
    }
}
