// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A hash table of the entries that fix the same bits.
//!
//! A slot has part of the hash and where the entries with it lie in the store: next to each other,
//! descending. The rows test the bits again, so the table needs no copy of them.

use super::entry::{Entries, Entry};
use super::meter::{Meter, Probe};
use super::store::Store;
use crate::condition::Key;

/// Bits that entries fix: per word, ascending.
pub(super) type Mask = Vec<(u8, u64)>;

#[derive(Debug)]
pub(super) struct Subtable {
    mask: Box<[(u8, u64)]>,
    slots: Box<[Slot]>,
    top: u64,
    seed: u64,
}

/// Part of a hash, and the first row with it; [`NO_ROW`] if there is none.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    first: u32,
}

const NO_ROW: u32 = u32::MAX;

impl Subtable {
    /// Of the entries at `places`, which ascend and all fix the bits of `mask`; appends them to `store`.
    pub(super) fn new(mask: &Mask, entries: &Entries, places: &[u32], store: &mut Store, seed: u64) -> Self {
        let hash = |entry: &Entry| entry.fixed().iter().fold(seed, |hash, check| mix(hash, check.lo));
        let with_hash = |at: &u32| entries.get(*at).map(|entry| (hash(entry), *at, entry));
        let mut hashed: Vec<(u64, u32, &Entry)> = places.iter().filter_map(with_hash).collect();
        hashed.sort_unstable_by_key(|(hash, at, _)| (*hash, *at));
        let chains = hashed.chunk_by(|a, b| a.0 == b.0);
        let count = chains.clone().count().saturating_mul(3).div_ceil(2).next_power_of_two();
        let empty = Slot { tag: 0, first: NO_ROW };
        let mut this = Self { mask: mask.clone().into(), slots: vec![empty; count].into(), top: 0, seed };
        for chain in chains {
            let first = store.len();
            let mut hash = seed;
            for (number, (its_hash, _, entry)) in chain.iter().enumerate() {
                if number > 0 {
                    store.chain();
                }
                hash = *its_hash;
                store.push(entry, None);
            }
            this.top = this.top.max(store.rank(first));
            this.insert(hash, Slot { tag: tag(hash), first });
        }
        this
    }

    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// The rank of the best match that beats `best`, else `best`.
    #[inline]
    pub(super) fn find<M: Meter>(&self, store: &Store, key: &Key, best: u64, meter: &mut M) -> u64 {
        let bits = |(word, mask): &(u8, u64)| key.word(usize::from(*word)) & mask;
        let hash = self.mask.iter().fold(self.seed, |hash, part| mix(hash, bits(part)));
        let mut best = best;
        // All tables of the store compete for the caches.
        meter.count(Probe::Slot, store.bytes());
        for at in self.sequence(hash) {
            match self.slots.get(at) {
                Some(slot) if slot.first != NO_ROW => {
                    if slot.tag == tag(hash) {
                        best = store.scan_chain(slot.first, key, best, meter);
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
                && free.first == NO_ROW
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

/// The bits that an entry fixes.
pub(super) fn mask_of(entry: &Entry) -> Mask {
    entry.fixed().iter().map(|check| (check.word, check.mask)).collect()
}

const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A full product folded in half: every bit of the word reaches every bit of the hash.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word) as u128 * 0xf39c_c060_5ced_c835_u128;
    (product as u64 ^ (product >> 64) as u64).wrapping_add(0x2545_f491_4f6c_dd1d)
}
