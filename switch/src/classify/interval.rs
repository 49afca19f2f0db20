// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules by a range of one subject: an interval tree.
//!
//! The bounds of all ranges cut the numbers into pieces, which are the leaves of a balanced tree. A
//! range is kept at the fewest nodes that cover it, at most two a level; a number lies in the ranges
//! kept at its leaf and above. A piece knows the lowest of these nodes that has any, a node the next. Rules that say nothing of the subject are at the root.

use super::Lookup;
use super::check::single_word;
use super::entry::Entries;
use super::meter::{Meter, Probe};
use super::rank::Rank;
use super::segments::Segments;
use super::store::Store;
use crate::condition::{Key, Subject, low_bits};

/// An interval tree of one subject; the other conditions are verified.
#[derive(Debug)]
pub struct Interval {
    /// Word, bits and shift of the subject in a key.
    place: (u8, u64, u32),
    pieces: Segments<u64>,
    /// Heap order: the root is 1, and the children of `n` are `2n` and `2n + 1`.
    nodes: Box<[Node]>,
    /// Rows of the nodes, ascending, which is descending in rank.
    rows: Box<[u32]>,
    store: Store,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Best rank of the nodes above.
    above: u64,
    top: u64,
    /// The nearest node above that has rows; 0 if there is none.
    up: u32,
    first: u32,
    len: u32,
}

impl Interval {
    /// Of any rules. None if the subject is wider than a word, that is, an address.
    #[must_use]
    pub fn new(entries: &Entries, subject: Subject) -> Option<Self> {
        let (word, mask) = single_word(subject)?;
        let max = u64::try_from(low_bits(subject.bits())).ok()?;
        let ranges: Vec<_> = entries.iter().map(|entry| entry.interval(subject).unwrap_or((0, max))).collect();
        let mut cuts = vec![0];
        cuts.extend(ranges.iter().flat_map(|(lo, hi)| [*lo, hi.saturating_add(1)]).filter(|cut| *cut <= max));
        cuts.sort_unstable();
        cuts.dedup();
        let leaves = u32::try_from(cuts.len().next_power_of_two()).ok()?;
        let piece = |start: u64| u32::try_from(cuts.partition_point(|cut| *cut < start)).unwrap_or(0);
        let covers: Vec<_> = ranges
            .iter()
            .map(|(lo, hi)| (piece(*lo), if *hi >= max { leaves } else { piece(hi.saturating_add(1)) }))
            .collect();

        let mut store = Store::new(entries.len(), &entries.lists);
        entries.iter().for_each(|entry| store.push(entry, Some(subject)));
        let mut nodes = vec![Node::default(); (leaves as usize).saturating_mul(2)];
        for cover in &covers {
            canonical(leaves, *cover, |node| {
                if let Some(node) = nodes.get_mut(node) {
                    node.len = node.len.saturating_add(1);
                }
            });
        }
        let mut total = 0_u32;
        for node in &mut nodes {
            node.first = total;
            total = total.checked_add(node.len)?;
            node.len = 0;
        }
        let mut rows = vec![0; total as usize];
        for (cover, row) in covers.iter().zip(0..) {
            canonical(leaves, *cover, |node| {
                let Some(node) = nodes.get_mut(node) else { return };
                if let Some(slot) = rows.get_mut(node.first.saturating_add(node.len) as usize) {
                    *slot = row;
                }
                node.len = node.len.saturating_add(1);
                node.top = node.top.max(store.rank(row));
            });
        }
        let kept = |nodes: &[Node], at: usize| match nodes.get(at) {
            Some(node) if node.len > 0 => u32::try_from(at).unwrap_or(0),
            Some(node) => node.up,
            None => 0,
        };
        for at in 1..nodes.len() {
            let up = kept(&nodes, at / 2);
            let above = nodes.get(at / 2).map_or(0, |parent| parent.above.max(parent.top));
            if let Some(node) = nodes.get_mut(at) {
                (node.up, node.above) = (up, above);
            }
        }
        let first = |(at, cut)| (cut, kept(&nodes, (leaves as usize).saturating_add(at)));
        let pieces: Vec<_> = cuts.into_iter().enumerate().map(first).collect();
        let place = (word, mask, mask.trailing_zeros());
        Some(Self {
            place,
            pieces: Segments::new(&pieces),
            nodes: nodes.into(),
            rows: rows.into(),
            store: store.packed(),
        })
    }
}

impl Lookup for Interval {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        let (word, mask, shift) = self.place;
        let beat = Rank::bits(beat);
        let mut best = beat;
        let mut at = self.pieces.find((key.word(usize::from(word)) & mask) >> shift, meter);
        while let Some(node) = self.nodes.get(at as usize) {
            meter.count(Probe::Node, self.nodes.len().saturating_mul(size_of::<Node>()));
            if node.top > best {
                let rows = node.first as usize..node.first.wrapping_add(node.len) as usize;
                best = self.store.scan_places(self.rows.get(rows).unwrap_or_default(), key, best, meter);
            }
            // The node 0 has nothing, nor anything above.
            if node.above <= best {
                break;
            }
            at = node.up;
        }
        if best > beat { Rank::from_bits(best) } else { None }
    }

    fn top(&self) -> Option<Rank> {
        Rank::from_bits(self.store.rank(0))
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
