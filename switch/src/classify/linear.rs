// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A list searched from its best rule on: the oracle of all others, and the best for a few rules.

use super::Lookup;
use super::entry::Entries;
use super::meter::Meter;
use super::rank::Rank;
use super::store::Store;
use crate::condition::Key;

/// Rules packed in one array, the best first.
#[derive(Debug)]
pub struct Linear {
    store: Store,
}

impl Linear {
    /// Of any rules.
    #[must_use]
    pub fn new(entries: &Entries) -> Self {
        let mut store = Store::new(entries.len(), &entries.lists);
        entries.iter().for_each(|entry| store.push(entry));
        Self { store: store.packed() }
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.store.len() as usize
    }

    pub(super) const fn bytes(&self) -> usize {
        self.store.bytes()
    }
}

impl Lookup for Linear {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        let beat = Rank::bits(beat);
        let best = self.store.scan(0..self.store.len(), key, beat, meter);
        if best > beat { Rank::from_bits(best) } else { None }
    }

    fn top(&self) -> Option<Rank> {
        Rank::from_bits(self.store.rank(0))
    }
}
