// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tuple space search (Srinivasan 1999, as OVS has it): a hash table per distinct set of fixed bits.
//!
//! Tables are in order of their best rank, so that the search ends at the first that cannot beat what
//! is found. Of the others most are left out by what the addresses of the key say ([`Filter`]). Ranges
//! are verified, not split: where many share one key, the cost model prefers the interval tree.

use std::collections::HashMap;

use packet::Field;

use super::Lookup;
use super::entry::Entries;
use super::filter::Filter;
use super::meter::{Meter, Probe};
use super::rank::Rank;
use super::store::Store;
use super::subtable::{Mask, Subtable, mask_of};
use crate::condition::Key;

/// Fewer subtables than this are quicker asked than filtered.
const FILTERED: usize = 8;
const ADDRESSES: [Field; 4] = [Field::IpSrc, Field::IpDst, Field::OuterIpSrc, Field::OuterIpDst];

/// Hash tables, one per set of fixed bits.
#[derive(Debug)]
pub struct Tuple {
    /// Descending in their best rank.
    subtables: Box<[Subtable]>,
    filters: Vec<Filter>,
    store: Store,
}

impl Tuple {
    /// Of any rules.
    #[must_use]
    pub fn new(entries: &Entries, seed: u64) -> Self {
        let mut numbers: HashMap<Mask, usize> = HashMap::new();
        let mut groups: Vec<(Mask, Vec<u32>)> = Vec::new();
        for (entry, at) in entries.iter().zip(0..) {
            let mask = mask_of(entry);
            // Entries descend in rank, so tables are created in the order of their best.
            let number = *numbers.entry(mask.clone()).or_insert_with(|| {
                groups.push((mask, Vec::new()));
                groups.len().saturating_sub(1)
            });
            if let Some((_, places)) = groups.get_mut(number) {
                places.push(at);
            }
        }
        let mut store = Store::new(entries.len(), &entries.lists);
        let table = |(mask, places): &(Mask, Vec<u32>)| Subtable::new(mask, entries, places, &mut store, seed);
        let subtables: Box<[_]> = groups.iter().map(table).collect();
        let filters = match subtables.len() {
            0..FILTERED => Vec::new(),
            _ => ADDRESSES.into_iter().filter_map(|field| filter(field, entries, &groups)).collect(),
        };
        Self { subtables, filters, store: store.packed() }
    }

    /// Asks the subtables in order. False when no later one can beat `best`.
    #[inline]
    fn ask<M: Meter>(&self, at: usize, key: &Key, best: &mut u64, meter: &mut M) -> bool {
        let Some(subtable) = self.subtables.get(at).filter(|subtable| subtable.top() > *best) else { return false };
        *best = subtable.find(&self.store, key, *best, meter);
        true
    }
}

impl Lookup for Tuple {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        let beat = Rank::bits(beat);
        let mut best = beat;
        // At most one per address; what is left over says nothing against any table.
        let mut filters = self.filters.iter().map(|filter| filter.vector(key, meter));
        let vectors: [Option<&[u64]>; ADDRESSES.len()] =
            [filters.next(), filters.next(), filters.next(), filters.next()];
        drop(filters);
        'words: for word in 0..self.subtables.len().div_ceil(64) {
            meter.count(Probe::Filter, 0);
            let vectors = vectors.iter().map_while(|vector| *vector);
            let mut left = vectors.fold(u64::MAX, |all, vector| all & vector.get(word).copied().unwrap_or(0));
            while left != 0 {
                let at = word.wrapping_mul(64).wrapping_add(left.trailing_zeros() as usize);
                left &= left.wrapping_sub(1);
                if !self.ask(at, key, &mut best, meter) {
                    break 'words;
                }
            }
        }
        if best > beat { Rank::from_bits(best) } else { None }
    }

    fn top(&self) -> Option<Rank> {
        Rank::from_bits(self.subtables.first().map_or(0, Subtable::top))
    }
}

/// A filter by an address, if at least half of the tables need a prefix of it.
fn filter(field: Field, entries: &Entries, groups: &[(Mask, Vec<u32>)]) -> Option<Filter> {
    let mut prefixes = Vec::new();
    let mut needs = Vec::with_capacity(groups.len());
    for (_, places) in groups {
        let found = || places.iter().map(|at| entries.get(*at).and_then(|entry| entry.prefix(field)));
        let len = found().next().flatten().map_or(0, |(_, _, len)| len);
        // Where the bits are fixed by a number instead of a prefix, no length can be asked for.
        let need = if found().all(|prefix| prefix.is_some_and(|prefix| prefix.2 == len)) { len } else { 0 };
        if need > 0 {
            prefixes.extend(found().flatten());
        }
        needs.push(need);
    }
    if needs.iter().filter(|need| **need > 0).count() < groups.len().div_ceil(2) {
        return None;
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    Filter::new(field, &needs, &prefixes)
}
