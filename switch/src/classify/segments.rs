// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line of numbers cut into segments, each with an id.
//!
//! # Theory of operation
//!
//! The starts of all segments lie in order in one array, and an index over the high bits of a number says
//! where to look. Cuts crowd (half of all prefixes lie in 10.0.0.0/8), so a slot of the index in which
//! many begin has an index of its own. A slot with at most three cuts names the segment in which it
//! begins: of the four from there on, one is it. All this takes two loads of the index and one of the
//! array, and no branch that depends on the number. What is crowded even then is a binary search.

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
    /// The index, and behind it those of its slots.
    slots: Box<[Slot]>,
    /// Ends of the runs of segments that have to be searched.
    runs: Box<[(u32, u32)]>,
    /// Where the index begins.
    min: T,
    /// How far from there the last segment begins.
    span: T,
    /// The bits that the index leaves.
    shift: u32,
}

/// Where to go on: the kind in the high bits, a place in the low ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

const KIND_SHIFT: u32 = 27;
const PLACE: u32 = (1 << KIND_SHIFT) - 1;
/// The first of the segments to choose from. A lower kind is the number of bits of a slot's own index.
const CHOOSE: u32 = 31;
/// A run of segments to be searched.
const SEARCH: u32 = 30;

/// A number that can be cut.
pub(super) trait Number: Copy + Ord + Into<u128> {
    const MIN: Self;
    const MAX: Self;
    /// How far it is from a lower one; 0 from a higher one.
    fn beyond(self, from: Self) -> Self;
    /// 32 of its bits from one on.
    fn from_bit(self, shift: u32) -> u32;
}

impl Number for u32 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;

    #[inline]
    fn beyond(self, from: Self) -> Self {
        self.saturating_sub(from)
    }

    #[inline]
    fn from_bit(self, shift: u32) -> u32 {
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
    fn from_bit(self, shift: u32) -> u32 {
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
        let distances = all.iter().map(|(start, _)| start.beyond(min).into()).collect();
        let mut index = Index { distances, slots: Vec::new(), runs: Vec::new() };
        index.level(0..all.len(), 0, bits, shift, true);
        let Index { slots, runs, .. } = index;
        let id = all.last().map_or(below, |(_, id)| *id);
        all.extend([(T::MAX, id); CHOICE]);
        Self { segments: all.into(), slots: slots.into(), runs: runs.into(), min, span, shift }
    }

    /// The id of the segment with this value.
    #[inline]
    pub(super) fn find<M: Meter>(&self, value: T, meter: &mut M) -> u32 {
        meter.count(Probe::Segment, self.bytes());
        let distance = value.beyond(self.min).min(self.span);
        let at = distance.from_bit(self.shift);
        let outer = self.slot(at);
        let bits = outer.bits();
        let inner = distance.from_bit(self.shift.wrapping_sub(bits)) & (1_u32 << bits).wrapping_sub(1);
        // Loading the same slot again costs less than a branch that is wrong half of the time.
        let slot = self.slot(if bits == 0 { at } else { outer.place().wrapping_add(inner) });
        let first = slot.place() as usize;
        if slot.kind() == SEARCH {
            return self.search(first, value);
        }
        let Some(choice) = self.segments.get(first..).and_then(<[_]>::first_chunk::<CHOICE>) else { return 0 };
        let before =
            choice.iter().fold(0_usize, |before, (start, _)| before.wrapping_add(usize::from(*start <= value)));
        choice.get(before.wrapping_sub(1)).map_or(0, |(_, id)| *id)
    }

    #[cold]
    fn search(&self, run: usize, value: T) -> u32 {
        let Some((from, to)) = self.runs.get(run) else { return 0 };
        let run = self.segments.get(*from as usize..*to as usize).unwrap_or_default();
        let after = run.partition_point(|(start, _)| *start <= value);
        run.get(after.wrapping_sub(1)).map_or(0, |(_, id)| *id)
    }

    #[inline]
    fn slot(&self, at: u32) -> Slot {
        self.slots.get(at as usize).copied().unwrap_or(Slot::new(CHOOSE, 0))
    }

    pub(super) fn bytes(&self) -> usize {
        let index = size_of_val(&*self.slots).saturating_add(size_of_val(&*self.runs));
        size_of_val(&*self.segments).saturating_add(index)
    }
}

impl Slot {
    const fn new(kind: u32, place: u32) -> Self {
        Self(kind << KIND_SHIFT | place & PLACE)
    }

    #[inline]
    const fn kind(self) -> u32 {
        self.0 >> KIND_SHIFT
    }

    #[inline]
    const fn place(self) -> u32 {
        self.0 & PLACE
    }

    /// Of the index of its own, if it has one.
    #[inline]
    const fn bits(self) -> u32 {
        if self.kind() <= MAX_BITS { self.kind() } else { 0 }
    }
}

/// An index that is being made.
struct Index {
    /// How far from the lowest each segment begins, ascending.
    distances: Vec<u128>,
    slots: Vec<Slot>,
    runs: Vec<(u32, u32)>,
}

impl Index {
    /// Appends slots for `1 << bits` equal intervals of `1 << shift` from `base` on, in which the segments
    /// `among` begin, or the first of them before.
    fn level(&mut self, among: Range<usize>, base: u128, bits: u32, shift: u32, may_nest: bool) {
        let first_slot = self.slots.len();
        self.slots.resize(first_slot.saturating_add(1 << bits), Slot::new(CHOOSE, 0));
        let mut first = among.start;
        for (at, number) in (first_slot..).zip(0..1_u128 << bits) {
            let begin = base.saturating_add(number << shift);
            let begins_until = |next: usize, bound: u128| {
                next < among.end && self.distances.get(next).is_some_and(|distance| *distance <= bound)
            };
            // Numbers below all, too, lead to the first slot.
            while begin > 0 && begins_until(first.saturating_add(1), begin) {
                first = first.saturating_add(1);
            }
            let mut end = first.saturating_add(1);
            let last = begin.saturating_add((1 << shift) - 1);
            while begins_until(end, last) {
                end = end.saturating_add(1);
            }
            let cuts = end.saturating_sub(first).saturating_sub(1);
            let place = |len: usize| u32::try_from(len).unwrap_or(PLACE);
            let slot = if cuts < CHOICE {
                Slot::new(CHOOSE, place(first))
            } else if may_nest && shift > 0 {
                let bits = cuts.next_power_of_two().ilog2().min(shift).min(MAX_BITS);
                let start = place(self.slots.len());
                self.level(first..end, begin, bits, shift.saturating_sub(bits), false);
                Slot::new(bits, start)
            } else {
                self.runs.push((place(first), place(end)));
                Slot::new(SEARCH, place(self.runs.len().saturating_sub(1)))
            };
            if let Some(free) = self.slots.get_mut(at) {
                *free = slot;
            }
        }
    }
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
}
