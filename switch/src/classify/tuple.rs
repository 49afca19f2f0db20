// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tuple space search (Srinivasan 1999, as OVS has it): a hash table per distinct set of fixed bits.
//!
//! Tables are in order of their best rank, so that the search ends at the first that cannot beat what
//! is found. Of the others most are left out by what the addresses of the key say ([`Filter`]). Ranges
//! are verified, not split: where many share one key, the cost model prefers the interval tree.

use std::collections::HashMap;

use packet::Field;

use super::entry::Entries;
use super::filter::Filter;
use super::hasher::Quick;
use super::lanes::Item;
use super::meter::{Meter, Probe};
use super::rows::{Query, Rows};
use super::subtable::Subtable;

/// Fewer subtables than this are quicker asked than filtered.
const FILTERED: usize = 8;
const ADDRESSES: [Field; 4] = [Field::IpSrc, Field::IpDst, Field::OuterIpSrc, Field::OuterIpDst];

/// Hash tables, one per set of fixed bits.
#[derive(Debug)]
pub(super) struct Tuple {
    /// Ascending in their best row.
    subtables: Box<[Subtable]>,
    filters: Vec<Filter>,
    items: Box<[Item]>,
}

impl Tuple {
    /// Of any rows, ascending.
    pub(super) fn new(entries: &Entries, of: &[u32], rows: &Rows, seed: u64) -> Self {
        let mut numbers: HashMap<u32, usize, Quick> = HashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        for (row, entry) in entries.of(of) {
            // Tables are created in the order of their best.
            let number = *numbers.entry(entry.mask).or_insert_with(|| {
                groups.push(Group { mask: entry.mask, rows: Vec::new() });
                groups.len().saturating_sub(1)
            });
            if let Some(group) = groups.get_mut(number) {
                group.rows.push(row);
            }
        }
        let mut items = Vec::with_capacity(of.len());
        let table = |group: &Group| Subtable::new(group.mask, entries, &group.rows, rows, &mut items, seed);
        let subtables: Box<[_]> = groups.iter().map(table).collect();
        let filters = match subtables.len() {
            0..FILTERED => Vec::new(),
            _ => ADDRESSES.into_iter().filter_map(|field| filter(field, entries, &groups)).collect(),
        };
        Self { subtables, filters, items: items.into() }
    }

    /// Whether one hash table is enough.
    pub(super) const fn is_single(&self) -> bool {
        self.subtables.len() == 1
    }

    /// How many lanes its items need.
    pub(super) fn lanes(&self) -> usize {
        let alone = self.subtables.iter().map(Subtable::lanes);
        self.items.iter().map(|item| item.lanes()).chain(alone).max().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        let tables = self.subtables.iter().map(Subtable::bytes).sum::<usize>();
        let filters = self.filters.iter().map(Filter::bytes).sum::<usize>();
        size_of_val(&*self.items).saturating_add(tables).saturating_add(filters)
    }

    /// The best matching row if it is better than `best`, else `best`.
    #[inline]
    pub(super) fn search<M: Meter>(&self, rows: &Rows, query: &Query<'_>, mut best: u32, meter: &mut M) -> u32 {
        // At most one per address; what is left over says nothing against any table.
        let mut filters = self.filters.iter().map(|filter| filter.vector(query.key, meter));
        let vectors: [Option<&[u64]>; ADDRESSES.len()] =
            [filters.next(), filters.next(), filters.next(), filters.next()];
        drop(filters);
        for word in 0..self.subtables.len().div_ceil(64) {
            meter.count(Probe::Filter, 0);
            let vectors = vectors.iter().map_while(|vector| *vector);
            let mut left = vectors.fold(u64::MAX, |all, vector| all & vector.get(word).copied().unwrap_or(0));
            while left != 0 {
                let at = word.wrapping_mul(64).wrapping_add(left.trailing_zeros() as usize);
                left &= left.wrapping_sub(1);
                // No later one can be better.
                let Some(subtable) = self.subtables.get(at).filter(|subtable| subtable.top() < best) else {
                    return best;
                };
                best = subtable.find(&self.items, rows, query, best, meter);
            }
        }
        best
    }
}

/// Rows with one mask.
struct Group {
    mask: u32,
    rows: Vec<u32>,
}

/// A filter by an address, if at least half of the tables need a prefix of it.
fn filter(field: Field, entries: &Entries, groups: &[Group]) -> Option<Filter> {
    let mut prefixes = Vec::new();
    let mut needs = Vec::with_capacity(groups.len());
    for group in groups {
        let found = || entries.of(&group.rows).map(|(_, entry)| entry.prefix(field));
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
