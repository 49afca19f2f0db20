// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a hash to the places of flows that may be meant.
//!
//! # Theory of operation
//!
//! The index knows hashes and places and no keys: those are where the flows are, and whoever asks
//! compares them. An entry is a tag, the high half of the hash, and the place; eight of them make a
//! bucket, which is one cache line: the tags first, so that they are compared all at once. A flow lives in one of two
//! buckets, both told by its tag, in the first unless that is fuller: so the index fills to three quarters before a flow
//! finds no place, and removing leaves no trace.
//!
//! It is as large as what is in it needs: at three quarters of its room, or when a flow finds no place, it grows by half.
//! To have new buckets at once, or to move a million flows, would be a stall; so it begins before it must: with each flow
//! that is added a few of the new buckets are made, and when all are there and needed, with each flow a few of the old
//! ones are moved, and more whenever there is time ([`Index::settle`]). Until all are moved a look-up that finds nothing in
//! the new ones looks into the old ones too. To move a flow its tag is enough, so its key is not touched.
//!
//! Look-ups of a burst are meant to be done in two rounds, [`Index::probe`] for all and then the
//! comparison of keys for all, so that the cache misses of the packets overlap.

const WAYS: usize = 8;
/// Ways of a bucket that are to be used.
const FULL: usize = 6;
/// Buckets to begin with: two pages.
const FIRST_BUCKETS: usize = 128;
/// New buckets that are made with each flow that is added, from when it is time to have all when they are needed: memory that
/// is made earlier is had for nothing.
const MADE_AT_ONCE: usize = 16;
/// Flows that may be kept apart: they are looked through one by one.
const MAX_STRAYS: usize = 64;
/// Old buckets that are moved with each flow that is added: all are before a twelfth of the room has been used.
const MOVED_AT_ONCE: usize = 8;

/// An index that grows to a fixed size.
#[derive(Debug)]
pub struct Index {
    buckets: Vec<Bucket>,
    /// Those that will be next, as many as are made.
    next: Vec<Bucket>,
    /// Buckets that are still to be moved, and from where on.
    old: Vec<Bucket>,
    moved: usize,
    /// Flows that found no room in their buckets: hardly ever any.
    strays: Vec<(u32, u32)>,
    len: usize,
    max_buckets: usize,
}

/// A way whose place is 0 is free; others have their place and one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    tags: [u32; WAYS],
    places: [u32; WAYS],
}

impl Index {
    /// Highest number of a place.
    pub const MAX_PLACE: u32 = u32::MAX - 1;

    /// Room for `capacity` flows, all but one in some thousands of them.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let max_buckets = capacity.max(WAYS).saturating_add(capacity / 2).div_ceil(WAYS);
        Self {
            buckets: vec![Bucket::EMPTY; max_buckets.min(FIRST_BUCKETS)],
            next: Vec::new(),
            old: Vec::new(),
            moved: 0,
            strays: Vec::new(),
            len: 0,
            max_buckets,
        }
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
        size_of_val(&*self.buckets) + size_of_val(&*self.next) + size_of_val(&*self.old)
    }

    /// The first place that goes with a hash: nearly always the right one if there is any. To be
    /// compared, and looked for with [`find`](Self::find) if it is not.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "bursts with runs and without ask in two places: called for each packet it costs more"
    )]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The place of a flow with this hash for which `is_meant` is true.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as above")]
    pub fn find(&self, hash: u64, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        let [first, second] = choices(tag, self.buckets.len());
        search(&self.buckets, first, tag, &mut is_meant)
            .or_else(|| search(&self.buckets, second, tag, &mut is_meant))
            .or_else(|| {
                if self.old.is_empty() && self.strays.is_empty() { None } else { self.find_old(tag, &mut is_meant) }
            })
    }

    #[cold]
    fn find_old(&self, tag: u32, is_meant: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let [first, second] = choices(tag, self.old.len());
        search(&self.old, first, tag, is_meant).or_else(|| search(&self.old, second, tag, is_meant)).or_else(|| {
            let same = self.strays.iter().filter(|(stray, _)| *stray == tag);
            same.map(|(_, place)| *place).find(|place| is_meant(*place))
        })
    }

    /// Adds a flow. `false`, and no change, if there is no room for it.
    #[must_use]
    pub fn insert(&mut self, hash: u64, place: u32) -> bool {
        if !self.old.is_empty() {
            self.settle(MOVED_AT_ONCE);
        } else if self.len + self.wanted() / MADE_AT_ONCE >= self.buckets.len() * FULL {
            self.prepare(MADE_AT_ONCE);
            if self.len >= self.buckets.len() * FULL && self.next.len() == self.wanted() {
                self.grow();
            }
        }
        let tag = tag_of(hash);
        let inserted = put(&mut self.buckets, tag, place)
            || self.old.is_empty() && self.grow() && put(&mut self.buckets, tag, place)
            || self.stray(tag, place);
        self.len += usize::from(inserted);
        inserted
    }

    /// Removes a flow. `false` if it is not there.
    pub fn remove(&mut self, hash: u64, place: u32) -> bool {
        let tag = tag_of(hash);
        let mut found = take(&mut self.buckets, tag, place);
        if !found && !self.old.is_empty() {
            found = take(&mut self.old, tag, place);
        }
        if !found && let Some(at) = self.strays.iter().position(|stray| *stray == (tag, place)) {
            self.strays.swap_remove(at);
            found = true;
        }
        self.len -= usize::from(found);
        found
    }

    /// Moves what is in up to `budget` of the old buckets.
    pub fn settle(&mut self, budget: usize) {
        if self.old.is_empty() {
            return;
        }
        let Self { buckets, old, strays, moved, .. } = self;
        for Bucket { tags, places } in old.iter_mut().skip(*moved).take(budget) {
            for (tag, slot) in tags.iter().zip(places) {
                let Some(place) = std::mem::take(slot).checked_sub(1) else { continue };
                if !put(buckets, *tag, place) {
                    strays.push((*tag, place));
                }
            }
            *moved += 1;
        }
        if *moved == old.len() {
            *old = Vec::new();
        }
    }

    /// Keeps a flow apart for which both buckets are full, until the index has grown.
    fn stray(&mut self, tag: u32, place: u32) -> bool {
        let may = self.strays.len() < MAX_STRAYS;
        if may {
            self.strays.push((tag, place));
        }
        may
    }

    /// Buckets that there are to be after the next growth; that is the last one if little would be left for another.
    fn wanted(&self) -> usize {
        let grown = self.buckets.len() + self.buckets.len() / 2;
        if grown + grown / 4 < self.max_buckets { grown } else { self.max_buckets }
    }

    /// Makes some of the next buckets, if there may be more.
    fn prepare(&mut self, count: usize) {
        let wanted = self.wanted();
        if wanted <= self.buckets.len() {
            return;
        }
        if self.next.capacity() == 0 {
            self.next.reserve_exact(wanted);
        }
        let len = self.next.len().saturating_add(count).min(wanted);
        self.next.resize(len, Bucket::EMPTY);
    }

    /// Takes more buckets, if it may. The old ones must have been moved.
    fn grow(&mut self) -> bool {
        if self.wanted() <= self.buckets.len() {
            return false;
        }
        self.prepare(usize::MAX);
        self.old = std::mem::replace(&mut self.buckets, std::mem::take(&mut self.next));
        self.moved = 0;
        let Self { buckets, strays, .. } = self;
        strays.retain(|(tag, place)| !put(buckets, *tag, *place));
        true
    }
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; WAYS], places: [0; WAYS] };
}

/// The two buckets of a tag. Within a bucket tags still differ by all bits that do not tell the bucket.
#[inline]
const fn choices(tag: u32, buckets: usize) -> [usize; 2] {
    // The golden ratio spreads it anew.
    let spread = tag.wrapping_mul(0x9e37_79b9);
    // Which fraction of all buckets: their number need not be a power of two.
    [((tag as u64 * buckets as u64) >> 32) as usize, ((spread as u64 * buckets as u64) >> 32) as usize]
}

#[inline]
fn search(buckets: &[Bucket], at: usize, tag: u32, is_meant: &mut impl FnMut(u32) -> bool) -> Option<u32> {
    let Bucket { tags, places } = buckets.get(at)?;
    // A bit for each in a byte of its own: that is compared all at once without being told how.
    let mut bytes = [0_u8; WAYS];
    for (byte, known) in bytes.iter_mut().zip(tags) {
        *byte = if *known == tag { 0x80 } else { 0 };
    }
    let mut matching = u64::from_le_bytes(bytes);
    while matching != 0 {
        // A free way has the tag of whoever was there last.
        let place = places.get(matching.trailing_zeros() as usize / 8)?.checked_sub(1);
        if let Some(place) = place.filter(|place| is_meant(*place)) {
            return Some(place);
        }
        matching &= matching - 1;
    }
    None
}

fn put(buckets: &mut [Bucket], tag: u32, place: u32) -> bool {
    let [first, second] = choices(tag, buckets.len());
    let used = |at: usize| buckets.get(at).map_or(WAYS, |held| held.places.iter().filter(|place| **place != 0).count());
    let bucket = if used(second) < used(first) { second } else { first };
    let Some(Bucket { tags, places }) = buckets.get_mut(bucket) else { return false };
    let free = tags.iter_mut().zip(places).find(|(_, place)| **place == 0);
    free.map(|(to, slot)| (*to, *slot) = (tag, place + 1)).is_some()
}

fn take(buckets: &mut [Bucket], tag: u32, place: u32) -> bool {
    choices(tag, buckets.len()).into_iter().any(|at| {
        let Some(Bucket { tags, places }) = buckets.get_mut(at) else { return false };
        let mut ways = tags.iter().zip(places);
        let found = ways.find(|(known, held)| **known == tag && **held == place + 1);
        found.map(|(_, held)| *held = 0).is_some()
    })
}

/// What is compared of a hash.
#[inline]
const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
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

    #[test]
    fn it_grows_without_losing_anybody() {
        let mut index = Index::new(20_000);
        let spread = |n: u32| {
            u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        let first = index.memory();
        for n in 0..15_000 {
            assert!(index.insert(spread(n), n));
            // Some go while others are on the move.
            if n % 5 == 4 {
                assert!(index.remove(spread(n - 2), n - 2));
            }
            let there = |known: u32| index.find(spread(known), |place| place == known) == Some(known);
            let check = |known: u32| assert_eq!(there(known), known % 5 != 2 || known + 2 > n, "{known} at {n}");
            [0, n / 7, n / 2, n.saturating_sub(3), n].into_iter().for_each(check);
        }
        assert!(index.memory() > 10 * first);
        let there = (0..15_000).filter(|n| index.find(spread(*n), |place| place == *n).is_some()).count();
        assert_eq!((there, index.len()), (12_000, 12_000));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u64..200), 0..400)) {
            let mut index = Index::new(640);
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
