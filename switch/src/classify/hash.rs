// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules that are exact in the same fields: one hash table.

use super::Lookup;
use super::entry::Entries;
use super::meter::Meter;
use super::rank::Rank;
use super::store::Store;
use super::subtable::{Subtable, mask_of};
use crate::condition::Key;

/// A hash table of rules that all fix the same bits of a key; what else they say is verified.
#[derive(Debug)]
pub struct Hash {
    table: Subtable,
    store: Store,
}

impl Hash {
    /// None if the rules do not all fix the same bits.
    #[must_use]
    pub fn new(entries: &Entries, seed: u64) -> Option<Self> {
        let mask = mask_of(entries.iter().next()?);
        if !entries.iter().all(|entry| mask_of(entry) == mask) {
            return None;
        }
        let places: Vec<u32> = (0..).take(entries.len()).collect();
        let mut store = Store::new(entries.len(), &entries.lists);
        let table = Subtable::new(&mask, entries, &places, &mut store, seed);
        Some(Self { table, store: store.packed() })
    }
}

impl Lookup for Hash {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        let beat = Rank::bits(beat);
        let best = self.table.find(&self.store, key, beat, meter);
        if best > beat { Rank::from_bits(best) } else { None }
    }

    fn top(&self) -> Option<Rank> {
        Rank::from_bits(self.table.top())
    }
}
