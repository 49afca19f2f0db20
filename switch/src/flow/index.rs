// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a hash to the places of flows that may be meant.
//!
//! # Theory of operation
//!
//! The index knows hashes and places and no keys: those are where the flows are, and whoever asks
//! compares them. An entry is one word, the high half of the hash and the place; eight words make a
//! bucket, which is one cache line. A flow lives in one of two buckets, both told by its hash, and is put
//! in the emptier one: so the index fills to two thirds before a flow finds no place, nothing is ever
//! moved, and removing leaves no trace. It is allocated whole: a table that grows by rehashing a million
//! flows is a stall.
//!
//! Look-ups of a burst are meant to be done in two rounds, [`Index::probe`] for all and then the
//! comparison of keys for all, so that the cache misses of the packets overlap.

const WAYS: usize = 8;

/// An index of fixed size.
#[derive(Debug)]
pub struct Index {
    buckets: Box<[Bucket]>,
    len: usize,
}

/// Words of 0 are free.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u64; WAYS]);

impl Index {
    /// Highest number of a place.
    pub const MAX_PLACE: u32 = u32::MAX - 1;

    /// Room for `capacity` flows, all but one in some thousands of them.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let places = capacity.max(WAYS).saturating_add(capacity / 2);
        Self { buckets: vec![Bucket([0; WAYS]); places.div_ceil(WAYS)].into_boxed_slice(), len: 0 }
    }

    /// Number of flows in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The first place that goes with a hash: nearly always the right one if there is any. To be
    /// compared, and looked for with [`find`](Self::find) if it is not.
    #[inline]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The place of a flow with this hash for which `is_meant` is true.
    #[inline]
    pub fn find(&self, hash: u64, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        for bucket in self.choices(hash) {
            for word in self.bucket(bucket) {
                if *word != 0 && (*word ^ hash) >> 32 == 0 {
                    let place = place_of(*word);
                    if is_meant(place) {
                        return Some(place);
                    }
                }
            }
        }
        None
    }

    /// Adds a flow. `false`, and no change, if both its buckets are full.
    #[must_use]
    pub fn insert(&mut self, hash: u64, place: u32) -> bool {
        let [first, second] = self.choices(hash);
        let used = |bucket| self.bucket(bucket).iter().filter(|word| **word != 0).count();
        let bucket = if used(second) < used(first) { second } else { first };
        let Some(slot) = self.bucket_mut(bucket).iter_mut().find(|word| **word == 0) else { return false };
        *slot = word(hash, place);
        self.len += 1;
        true
    }

    /// Removes a flow. `false` if it is not there.
    pub fn remove(&mut self, hash: u64, place: u32) -> bool {
        let gone = word(hash, place);
        for bucket in self.choices(hash) {
            if let Some(slot) = self.bucket_mut(bucket).iter_mut().find(|word| **word == gone) {
                *slot = 0;
                self.len -= 1;
                return true;
            }
        }
        false
    }

    /// The two buckets of a hash: its low half tells both, because the high one is compared.
    #[inline]
    fn choices(&self, hash: u64) -> [usize; 2] {
        let low = hash & 0xffff_ffff;
        // The golden ratio spreads it anew.
        let spread = [low, low.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32];
        // Which fraction of all buckets: their number need not be a power of two.
        spread.map(|hash| ((hash * self.buckets.len() as u64) >> 32) as usize)
    }

    #[inline]
    fn bucket(&self, bucket: usize) -> &[u64] {
        self.buckets.get(bucket).map_or(&[], |bucket| &bucket.0)
    }

    fn bucket_mut(&mut self, bucket: usize) -> &mut [u64] {
        self.buckets.get_mut(bucket).map_or(&mut [], |bucket| &mut bucket.0)
    }
}

/// The high half of the hash, and the place plus one, so that no entry is 0.
const fn word(hash: u64, place: u32) -> u64 {
    hash & 0xffff_ffff_0000_0000 | (place as u64 + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half, which `word` made from a u32")]
const fn place_of(word: u64) -> u32 {
    (word as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Spreads small numbers as a hash would, and leaves some of them alike in either half.
    fn hash(n: u64) -> u64 {
        let spread = n.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match n % 7 {
            0 => spread & 0xffff_ffff | 5 << 32,
            1 => spread & !0xffff_ffff | 9,
            _ => spread,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u64..200), 0..400)) {
            let mut index = Index::new(64);
            let mut model: HashMap<u64, u32> = HashMap::new();
            for (at, (add, n)) in (0u32..).zip(steps) {
                match (add, model.get(&n).copied()) {
                    (true, None) if index.insert(hash(n), at) => {
                        model.insert(n, at);
                    }
                    (false, Some(place)) => {
                        prop_assert!(index.remove(hash(n), place));
                        prop_assert!(!index.remove(hash(n), place));
                        model.remove(&n);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), model.len());
                for n in 0..200 {
                    let place = model.get(&n).copied();
                    prop_assert_eq!(index.find(hash(n), |found| Some(found) == place), place);
                }
            }
        }
    }

    #[test]
    fn it_fills_to_its_capacity() {
        // VF-33: as many flows as asked for, all but a few.
        for capacity in [8_u32, 1000, 100_000, 1 << 20] {
            let mut index = Index::new(capacity as usize);
            let spread = |n: u32| {
                u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
            };
            let refused = (0..capacity).filter(|n| !index.insert(spread(*n), *n)).count();
            assert!(refused * 1000 <= capacity as usize, "{refused} of {capacity} found no place");
            for n in 0..capacity {
                let found = index.find(spread(n), |place| place == n).is_some();
                assert!(found || refused > 0);
            }
        }
    }

    #[test]
    fn the_highest_place_is_a_place() {
        let mut index = Index::new(8);
        assert!(index.insert(7, Index::MAX_PLACE) && index.insert(7, 0));
        assert_eq!(index.find(7, |place| place != 0), Some(Index::MAX_PLACE));
        assert!(index.remove(7, Index::MAX_PLACE));
        assert_eq!((index.probe(7), index.is_empty()), (Some(0), false));
    }
}
