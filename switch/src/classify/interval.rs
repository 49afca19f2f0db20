// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules by a range of one subject: an interval tree.
//!
//! The bounds of all ranges cut the numbers into pieces, which are the leaves of a balanced tree. A
//! range is kept at the fewest nodes that cover it, at most two a level; a number lies in the ranges
//! kept at its leaf and above. A piece knows the lowest of these nodes that has any, a node the next.
//! Rules that say nothing of the subject are at the root.

use super::check::single_word;
use super::entry::Entries;
use super::lanes::{Item, NO_ROW};
use super::meter::Meter;
use super::nodes::{At, NOWHERE, Nodes, Tree};
use super::rows::{Query, Rows};
use super::segments::Segments;
use crate::condition::{Subject, low_bits};

/// An interval tree of one subject; the other conditions are verified.
#[derive(Debug)]
pub(super) struct Interval {
    /// Word, bits and shift of the subject in a key.
    place: (u8, u64, u32),
    pieces: Segments<u32>,
    pub(super) nodes: Nodes,
}

impl Interval {
    /// Of any rows, ascending. None if the subject has more than 32 bits.
    pub(super) fn new(entries: &Entries, of: &[u32], subject: Subject, rows: &Rows) -> Option<Self> {
        let (word, mask) = single_word(subject)?;
        let max = u32::try_from(low_bits(subject.bits())).ok()?;
        let narrow = |(lo, hi): (u64, u64)| Some((u32::try_from(lo).ok()?, u32::try_from(hi).ok()?));
        let ranges: Vec<_> = entries
            .of(of)
            .map(|(row, entry)| {
                let range = entry.interval(subject).and_then(narrow);
                let known = range.is_some().then_some(subject);
                (range.unwrap_or((0, max)), rows.lanes.item(row, entry, known))
            })
            .collect();
        let after = |hi: u32| hi.checked_add(1).filter(|next| *next <= max);
        let mut cuts = vec![0];
        cuts.extend(ranges.iter().flat_map(|((lo, hi), _)| [Some(*lo), after(*hi)]).flatten());
        cuts.sort_unstable();
        cuts.dedup();
        let leaves = u32::try_from(cuts.len().next_power_of_two()).ok()?;
        let piece = |start: u32| u32::try_from(cuts.partition_point(|cut| *cut < start)).unwrap_or(0);
        let cover = |lo: u32, hi: u32| (piece(lo), after(hi).map_or(leaves, piece));

        // Where the items of each node begin, as if they were one after the other.
        let mut starts = vec![0_usize; (leaves as usize).saturating_mul(2).saturating_add(1)];
        let covers: Vec<_> = ranges.iter().map(|((lo, hi), _)| cover(*lo, *hi)).collect();
        for cover in &covers {
            canonical(leaves, *cover, |node| {
                if let Some(count) = starts.get_mut(node.saturating_add(1)) {
                    *count = count.saturating_add(1);
                }
            });
        }
        let mut total = 0_usize;
        for start in &mut starts {
            total = total.checked_add(*start)?;
            *start = total;
        }
        let mut items = vec![0_u32; total];
        let mut filled = starts.clone();
        for (cover, number) in covers.iter().zip(0..) {
            canonical(leaves, *cover, |node| {
                let Some(at) = filled.get_mut(node) else { return };
                if let Some(slot) = items.get_mut(*at) {
                    *slot = number;
                }
                *at = at.saturating_add(1);
            });
        }
        let item = |number: &u32| ranges.get(*number as usize).map(|(_, item)| *item);
        let items: Vec<Item> = items.iter().filter_map(item).collect();
        // A heap has no node 0.
        let parents: Vec<u32> = (0..leaves.saturating_mul(2)).map(|at| if at > 1 { at / 2 } else { NO_ROW }).collect();
        let ends = starts.get(1..)?;
        let (nodes, places) = Tree { parents: &parents, ends, items: &items }.grow()?;
        let leaf = |at| places.get((leaves as usize).saturating_add(at)).copied().unwrap_or(NOWHERE);
        let pieces: Vec<_> = cuts.into_iter().enumerate().map(|(at, cut)| (cut, leaf(at))).collect();
        let place = (word, mask, mask.trailing_zeros());
        Some(Self { place, pieces: Segments::new(&pieces, NOWHERE), nodes })
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a subject of at most 32 bits")]
    pub(super) fn enter<M: Meter>(&self, query: &Query<'_>, meter: &mut M) -> At {
        let (word, mask, shift) = self.place;
        self.pieces.find(((query.key.word(usize::from(word)) & mask) >> (shift & 63)) as u32, meter)
    }

    pub(super) fn bytes(&self) -> usize {
        self.pieces.bytes().saturating_add(self.nodes.bytes())
    }
}

/// The fewest nodes that together cover the leaves `from..to`.
fn canonical(leaves: u32, (from, to): (u32, u32), mut each: impl FnMut(usize)) {
    let (mut from, mut to) =
        (u64::from(leaves).saturating_add(from.into()), u64::from(leaves).saturating_add(to.into()));
    while from < to {
        if from % 2 == 1 {
            each(usize::try_from(from).unwrap_or(usize::MAX));
            from = from.saturating_add(1);
        }
        if to % 2 == 1 {
            to = to.saturating_sub(1);
            each(usize::try_from(to).unwrap_or(usize::MAX));
        }
        from /= 2;
        to /= 2;
    }
}
