// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which subtables can have a match at all, by one address: those that need a prefix length that some
//! prefix of the address has, and those that need none.
//!
//! OVS asks this of a trie per field (lib/classifier.c, `trie_lookup`); here the answer for every node is
//! kept as a bit vector over the subtables, so that several fields' answers are a few ANDs.

use std::collections::HashMap;

use packet::Field;

use super::meter::Meter;
use super::prefixes::{Prefix, PrefixTree};
use crate::condition::Key;

#[derive(Debug)]
pub(super) struct Filter {
    /// The id of a prefix is the number of its bit vector.
    tree: PrefixTree,
    /// Bit vectors, one after the other; the first is that of no prefix.
    vectors: Box<[u64]>,
    /// Words of a vector.
    words: usize,
}

impl Filter {
    /// `needs` has the prefix length that each subtable needs, 0 for none; `prefixes` is what entries
    /// have, distinct and ascending.
    pub(super) fn new(field: Field, needs: &[u8], prefixes: &[Prefix]) -> Option<Self> {
        let words = needs.len().div_ceil(64);
        let subtables = |len: u8| {
            let mut vector = vec![0_u64; words];
            for (at, _) in needs.iter().enumerate().filter(|(_, need)| **need == len) {
                if let Some(word) = vector.get_mut(at / 64) {
                    *word |= 1 << (at % 64);
                }
            }
            vector
        };
        let mut vectors = subtables(0);
        // Few distinct sequences of lengths lead from the root to a node.
        let mut known: HashMap<(u32, u8), u32> = HashMap::new();
        let tree = PrefixTree::new(field, prefixes, 0, |parents| {
            let mut sets: Vec<u32> = Vec::with_capacity(prefixes.len());
            for ((.., len), parent) in prefixes.iter().zip(parents) {
                let above = sets.get(*parent as usize).copied().unwrap_or(0);
                let set = *known.entry((above, *len)).or_insert_with(|| {
                    let number = vectors.len().checked_div(words).unwrap_or(0);
                    let start = (above as usize).saturating_mul(words);
                    let of_parent = vectors.get(start..start.saturating_add(words)).unwrap_or_default().to_vec();
                    vectors.extend(of_parent.iter().zip(subtables(*len)).map(|(a, b)| a | b));
                    u32::try_from(number).unwrap_or(0)
                });
                sets.push(set);
            }
            Some(sets)
        })?;
        Some(Self { tree, vectors: vectors.into(), words })
    }

    pub(super) fn bytes(&self) -> usize {
        self.tree.bytes().saturating_add(size_of_val(&*self.vectors))
    }

    /// The bit vector for a key.
    #[inline]
    pub(super) fn vector<M: Meter>(&self, key: &Key, meter: &mut M) -> &[u64] {
        let start = (self.tree.deepest(key, meter) as usize).wrapping_mul(self.words);
        self.vectors.get(start..start.wrapping_add(self.words)).unwrap_or_default()
    }
}
