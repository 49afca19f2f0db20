// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A hash table of the entries that fix the same bits.
//!
//! A slot has part of the hash and where the items of the entries with it lie: next to each other,
//! ascending. The rows test the bits again, so the table needs no copy of them.

use super::entry::{Entries, View, merge};
use super::hasher::mix;
use super::lanes::{Item, NO_ROW};
use super::meter::{Meter, Probe};
use super::rows::{Query, Rows};

#[derive(Debug)]
pub(super) struct Subtable {
    mask: Box<[(u8, u64)]>,
    slots: Box<[Slot]>,
    /// The best row.
    top: u32,
    seed: u64,
}

/// Part of a hash, and the first item with it; [`NO_ITEM`] if there is none.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    first: u32,
}

const NO_ITEM: u32 = u32::MAX;

impl Subtable {
    /// Of rows that all have the mask of this number; appends their items.
    pub(super) fn new(mask: u32, entries: &Entries, of: &[u32], rows: &Rows, items: &mut Vec<Item>, seed: u64) -> Self {
        let mut checks = Vec::new();
        let mask = entries.mask(mask);
        let mut hash = |entry: &View<'_>| {
            let _ = merge(entry.terms, &mut checks);
            checks.iter().take(mask.len()).fold(seed, |hash, check| mix(hash, check.lo))
        };
        let mut hashed: Vec<_> = entries.of(of).map(|(row, entry)| (hash(&entry), row, entry)).collect();
        hashed.sort_unstable_by_key(|(hash, row, _)| (*hash, *row));
        let chains = hashed.chunk_by(|a, b| a.0 == b.0);
        let count = chains.clone().count().saturating_mul(3).div_ceil(2).next_power_of_two();
        let empty = Slot { tag: 0, first: NO_ITEM };
        let top = of.first().copied().unwrap_or(NO_ROW);
        let mut this = Self { mask: mask.into(), slots: vec![empty; count].into(), top, seed };
        for chain in chains {
            let first = u32::try_from(items.len()).unwrap_or(NO_ITEM);
            for (at, (_, row, entry)) in (1..).zip(chain) {
                let item = rows.lanes.hashed_item(*row, *entry);
                items.push(if at < chain.len() { item.chained() } else { item });
            }
            let hash = chain.first().map_or(seed, |(hash, ..)| *hash);
            this.insert(hash, Slot { tag: tag(hash), first });
        }
        this
    }

    pub(super) const fn top(&self) -> u32 {
        self.top
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots).saturating_add(size_of_val(&*self.mask)).saturating_add(size_of::<Self>())
    }

    /// The best matching row if it is better than `best`, else `best`.
    #[inline]
    pub(super) fn find<M: Meter>(
        &self,
        items: &[Item],
        rows: &Rows,
        query: &Query<'_>,
        best: u32,
        meter: &mut M,
    ) -> u32 {
        let bits = |(word, mask): &(u8, u64)| query.key.word(usize::from(*word)) & mask;
        let hash = self.mask.iter().fold(self.seed, |hash, part| mix(hash, bits(part)));
        let mut best = best;
        // All tables of the group compete for the caches.
        meter.count(Probe::Slot, size_of_val(items));
        for at in self.sequence(hash) {
            match self.slots.get(at) {
                Some(slot) if slot.first != NO_ITEM => {
                    if slot.tag == tag(hash) {
                        let chain = items.get(slot.first as usize..).unwrap_or_default();
                        best = scan(chain, rows, query, best, meter);
                    }
                }
                _ => break,
            }
        }
        best
    }

    fn insert(&mut self, hash: u64, slot: Slot) {
        for at in self.sequence(hash) {
            if let Some(free) = self.slots.get_mut(at)
                && free.first == NO_ITEM
            {
                *free = slot;
                return;
            }
        }
    }

    /// The slots in which something with this hash may be: from its own on, around the table.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "64-bit, and masked")]
    fn sequence(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        let start = hash as usize;
        (0..self.slots.len()).map(move |step| start.wrapping_add(step) & mask)
    }
}

/// The best match of a chain.
#[inline]
fn scan<M: Meter>(chain: &[Item], rows: &Rows, query: &Query<'_>, best: u32, meter: &mut M) -> u32 {
    meter.count(Probe::Node, size_of_val(chain));
    for item in chain {
        meter.count(Probe::Item, 0);
        if item.row() >= best {
            break;
        }
        if rows.passes(*item, query, meter) {
            return item.row();
        }
        if !item.is_chained() {
            break;
        }
    }
    best
}

const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}
