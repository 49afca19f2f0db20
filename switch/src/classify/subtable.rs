// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A hash table of the entries that fix the same bits.
//!
//! A slot has part of the hash and the item of the entry with it; if there are several, it says where
//! their items lie, next to each other, ascending. The rows test the bits again, so the table needs no
//! copy of them.

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

/// Part of a hash and what is found with it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    found: Found,
}

#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    One(Item),
    /// A chain from this place on.
    Chain(u32),
}

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
        let empty = Slot { tag: 0, found: Found::Nothing };
        let top = of.first().copied().unwrap_or(NO_ROW);
        let mut this = Self { mask: mask.into(), slots: vec![empty; count].into(), top, seed };
        for chain in chains {
            let made = |(_, row, entry): &(u64, u32, View<'_>)| rows.lanes.hashed_item(*row, *entry);
            let found = if let [one] = chain {
                Found::One(made(one))
            } else {
                let first = u32::try_from(items.len()).unwrap_or(u32::MAX);
                let made = chain.iter().map(made).zip(1..);
                items.extend(made.map(|(item, at)| if at < chain.len() { item.chained() } else { item }));
                Found::Chain(first)
            };
            let hash = chain.first().map_or(seed, |(hash, ..)| *hash);
            this.insert(hash, Slot { tag: tag(hash), found });
        }
        this
    }

    pub(super) const fn top(&self) -> u32 {
        self.top
    }

    /// How many lanes the items in its slots need.
    pub(super) fn lanes(&self) -> usize {
        let lanes = |slot: &Slot| if let Found::One(item) = slot.found { item.lanes() } else { 0 };
        self.slots.iter().map(lanes).max().unwrap_or(0)
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
        meter.count(Probe::Slot, rows.bytes());
        for at in self.sequence(hash) {
            let Some(slot) = self.slots.get(at) else { break };
            let is_it = slot.tag == tag(hash);
            match slot.found {
                Found::Nothing => break,
                Found::One(item) if is_it && item.row() < best && rows.passes(item, query, meter) => best = item.row(),
                Found::Chain(first) if is_it => {
                    best = scan(items.get(first as usize..).unwrap_or_default(), rows, query, best, meter);
                }
                Found::One(_) | Found::Chain(_) => {}
            }
        }
        best
    }

    fn insert(&mut self, hash: u64, slot: Slot) {
        for at in self.sequence(hash) {
            if let Some(free) = self.slots.get_mut(at)
                && matches!(free.found, Found::Nothing)
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
