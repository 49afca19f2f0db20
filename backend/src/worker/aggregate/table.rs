// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of stations, or of nodes, a bounded number of them, looked through a part at a time.
//!
//! A map finds one; a list beside it is what is walked, so that a look at some needs no look at all. Both have their full size from
//! the start: memory that is not used yet costs nothing, and nothing is moved about when others come.

use std::collections::HashMap;
use std::hash::Hash;

/// Values by key.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// Places in `entries`.
    places: HashMap<K, usize, foldhash::fast::RandomState>,
    entries: Vec<(K, V)>,
    limit: usize,
    /// The entry that is looked at next.
    cursor: usize,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty one, of at most so many keys.
    pub(super) fn new(limit: usize) -> Self {
        let places = HashMap::with_capacity_and_hasher(limit, foldhash::fast::RandomState::default());
        Self { places, entries: Vec::with_capacity(limit), limit, cursor: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one that is not known yet finds no room.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(*self.places.get(&key)?).map(|(_, value)| value)
    }

    /// Sets a value. `false`: there is no room for another.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        let known = self.places.get(&key).and_then(|at| self.entries.get_mut(*at));
        if let Some((_, known)) = known {
            *known = value;
            return true;
        }
        if self.is_full() {
            return false;
        }
        self.places.insert(key, self.entries.len());
        self.entries.push((key, value));
        true
    }

    pub(super) fn remove(&mut self, key: K) {
        let Some(at) = self.places.remove(&key).filter(|at| *at < self.entries.len()) else { return };
        self.entries.swap_remove(at);
        if let Some((moved, _)) = self.entries.get(at) {
            self.places.insert(*moved, at);
        }
    }

    /// Looks at the next `budget` entries, or all if there are less, and removes those that are not to be kept.
    pub(super) fn sweep(&mut self, budget: usize, mut keep: impl FnMut(&V) -> bool) {
        for _ in 0..budget.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            match self.entries.get(self.cursor) {
                // The last one takes its place, and is next.
                Some((key, value)) if !keep(value) => self.remove(*key),
                _ => self.cursor += 1,
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use packet::MacAddr;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Operation {
        Insert(u8, u8),
        Remove(u8),
        /// Stations with values below this go, of so many that are looked at.
        Sweep(usize, u8),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..12_u8, any::<u8>()).prop_map(|(station, value)| Operation::Insert(station, value)),
            (0..12_u8).prop_map(Operation::Remove),
            (0..20_usize, any::<u8>()).prop_map(|(budget, below)| Operation::Sweep(budget, below)),
        ]
    }

    fn mac(station: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, station])
    }

    proptest! {
        /// It says the same as a plain map that is bounded, and a sweep looks at no more than it may.
        #[test]
        fn it_is_a_bounded_map(operations in prop::collection::vec(operation(), 0..200)) {
            const LIMIT: usize = 8;
            let (mut table, mut oracle) = (Table::new(LIMIT), BTreeMap::new());
            for operation in operations {
                match operation {
                    Operation::Insert(station, value) => {
                        let room = oracle.len() < LIMIT || oracle.contains_key(&mac(station));
                        prop_assert_eq!(table.insert(mac(station), value), room);
                        if room {
                            oracle.insert(mac(station), value);
                        }
                    }
                    Operation::Remove(station) => {
                        table.remove(mac(station));
                        oracle.remove(&mac(station));
                    }
                    Operation::Sweep(budget, below) => {
                        let mut looked = 0;
                        table.sweep(budget, |value| {
                            looked += 1;
                            *value >= below
                        });
                        prop_assert_eq!(looked, budget.min(oracle.len()));
                        let before = oracle.len();
                        oracle.retain(|station, value| *value >= below || table.get(*station).is_some());
                        prop_assert!(before - oracle.len() <= looked);
                    }
                }
                let found: BTreeMap<_, _> = table.iter().map(|(station, value)| (station, *value)).collect();
                prop_assert_eq!(&found, &oracle);
                for station in 0..12 {
                    prop_assert_eq!(table.get(mac(station)), oracle.get(&mac(station)));
                }
                prop_assert_eq!((table.is_empty(), table.is_full()), (oracle.is_empty(), oracle.len() == LIMIT));
            }
            // One that takes another's place may be looked at twice before the next; none is passed over for ever.
            for _ in 0..=LIMIT {
                table.sweep(LIMIT, |value| *value >= 128);
            }
            prop_assert!(table.iter().all(|(_, value)| *value >= 128));
        }
    }
}
