// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of stations: set-associative, of fixed size.
//!
//! # Layout
//!
//! A station is one word: the address in the low 48 bits, the port in the high 16; an empty place is
//! 0, because address 0 is never learnt. Eight words make a bucket, which is one cache line. A
//! station lives in one of two buckets, chosen by a keyed hash of its address; it is put in the
//! emptier one, which lets the table fill to four fifths before a station finds no place (with one
//! choice, some would find none when it is half full). When a station was last seen is kept apart,
//! because look-ups of destinations do not need it.

use packet::{MacAddr, PortId};

const WAYS: usize = 8;
const PORT_SHIFT: u32 = 48;

/// A station in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its address.
    pub mac: MacAddr,
    /// Where it was last seen.
    pub port: PortId,
    /// When it was last seen, in nanoseconds; may lag by a millisecond. [`Entry::FIXED`]: always there.
    pub seen_ns: u64,
}

#[derive(Debug)]
pub(super) struct MacTable {
    buckets: Vec<Bucket>,
    /// When the station in each place was last seen, in the order of `buckets`.
    seen: Vec<[u64; WAYS]>,
    /// Number of buckets less one; their number is a power of two.
    mask: usize,
    len: usize,
    keys: [u64; 2],
    /// The next bucket to sweep.
    cursor: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u64; WAYS]);

/// A place in the table. Valid until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    bucket: usize,
    way: usize,
}

/// What became of a station that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    Added,
    /// It took the place of a silent station at this port.
    Replaced(PortId),
    NoRoom,
}

impl MacTable {
    pub(super) const MAX_ENTRIES: u32 = 1 << 24;

    /// Room for `capacity` stations, of which at most one in some thousands finds no place.
    pub(super) fn new(capacity: u32, seed: u64) -> Self {
        let capacity = capacity.clamp(1, Self::MAX_ENTRIES) as usize;
        let places = if capacity <= WAYS { WAYS } else { capacity + capacity / 4 };
        let count = places.div_ceil(WAYS).next_power_of_two();
        Self {
            buckets: vec![Bucket([0; WAYS]); count],
            seen: vec![[0; WAYS]; count],
            mask: count - 1,
            len: 0,
            // The multiplier must be odd, else it loses bits of what it multiplies.
            keys: [split_mix(seed, 1), split_mix(seed, 2) | 1],
            cursor: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn buckets(&self) -> usize {
        self.mask + 1
    }

    #[inline]
    pub(super) fn find(&self, mac: MacAddr) -> Option<Slot> {
        let bits = mac.to_bits();
        if bits == 0 {
            // Would find an empty place.
            return None;
        }
        for bucket in self.choices(bits) {
            if let Some(way) = self.buckets.get(bucket)?.position(bits) {
                return Some(Slot { bucket, way });
            }
        }
        None
    }

    /// What lives at a place that [`MacTable::find`] returned.
    #[inline]
    pub(super) fn entry(&self, slot: Slot) -> Entry {
        let word = self.buckets.get(slot.bucket).and_then(|b| b.0.get(slot.way));
        let seen = self.seen.get(slot.bucket).and_then(|s| s.get(slot.way));
        Entry::from_word(word.copied().unwrap_or_default(), seen.copied().unwrap_or_default())
    }

    /// Changes where and when the station at a place was seen.
    #[inline]
    pub(super) fn set(&mut self, slot: Slot, port: PortId, seen_ns: u64) {
        if let Some(word) = self.word_mut(slot) {
            *word = Entry::from_word(*word, 0).with_port(port);
        }
        if let Some(seen) = self.seen.get_mut(slot.bucket).and_then(|s| s.get_mut(slot.way)) {
            *seen = seen_ns;
        }
    }

    /// Adds a station that is not in the table: to a free place if the table `may_grow`, else in place
    /// of the one longest silent, if that was last seen at `silent_since` or before.
    pub(super) fn insert(&mut self, entry: Entry, may_grow: bool, silent_since: Option<u64>) -> Insertion {
        let choices = self.choices(entry.mac.to_bits());
        let free = if may_grow { self.free_place(choices) } else { None };
        if let Some(slot) = free {
            self.put(slot, entry);
            self.len += 1;
            return Insertion::Added;
        }
        match (self.longest_silent(choices), silent_since) {
            (Some((slot, old)), Some(since)) if old.seen_ns <= since => {
                self.put(slot, entry);
                Insertion::Replaced(old.port)
            }
            _ => Insertion::NoRoom,
        }
    }

    /// Removes all stations last seen at `oldest` or before from the next `budget` buckets, telling
    /// `removed` the port of each. Returns how many.
    pub(super) fn sweep(&mut self, budget: usize, oldest: u64, mut removed: impl FnMut(PortId)) -> usize {
        let mut count = 0;
        for _ in 0..budget.min(self.buckets()) {
            let at = self.cursor;
            self.cursor = (at + 1) & self.mask;
            let (Some(bucket), Some(seen)) = (self.buckets.get_mut(at), self.seen.get(at)) else {
                continue;
            };
            for (word, seen) in bucket.0.iter_mut().zip(seen) {
                if *word != 0 && *seen <= oldest {
                    removed(port_of(*word));
                    *word = 0;
                    count += 1;
                }
            }
        }
        self.len -= count;
        count
    }

    /// Removes all stations at a port. Returns how many.
    pub(super) fn remove_all(&mut self, port: PortId) -> usize {
        let mut count = 0;
        for word in self.buckets.iter_mut().flat_map(|bucket| &mut bucket.0) {
            if *word != 0 && port_of(*word) == port {
                *word = 0;
                count += 1;
            }
        }
        self.len -= count;
        count
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let words = self.buckets.iter().flat_map(|bucket| bucket.0);
        let seen = self.seen.iter().flatten();
        words.zip(seen).filter(|(word, _)| *word != 0).map(|(word, seen)| Entry::from_word(word, *seen))
    }

    pub(super) fn bucket(&self, at: usize) -> impl Iterator<Item = Entry> + '_ {
        let words = self.buckets.get(at).into_iter().flat_map(|bucket| bucket.0);
        let seen = self.seen.get(at).into_iter().flatten();
        words.zip(seen).filter(|(word, _)| *word != 0).map(|(word, seen)| Entry::from_word(word, *seen))
    }

    /// The two buckets a station may live in; they may be one.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "64-bit, and masked")]
    const fn choices(&self, bits: u64) -> [usize; 2] {
        let [key, multiplier] = self.keys;
        // A full product folded in half: every bit of the address reaches every bit of the result.
        let product = (bits ^ key) as u128 * multiplier as u128;
        let hash = (product as u64) ^ ((product >> 64) as u64);
        [hash as usize & self.mask, (hash >> 32) as usize & self.mask]
    }

    fn free_place(&self, choices: [usize; 2]) -> Option<Slot> {
        let [first, second] = choices.map(|bucket| {
            let used = self.buckets.get(bucket).map_or(WAYS, Bucket::used);
            (bucket, used)
        });
        let (bucket, _) = if second.1 < first.1 { second } else { first };
        let way = self.buckets.get(bucket)?.0.iter().position(|word| *word == 0)?;
        Some(Slot { bucket, way })
    }

    /// Of the stations in these buckets the one seen longest ago, of several the one with the lowest
    /// address.
    fn longest_silent(&self, choices: [usize; 2]) -> Option<(Slot, Entry)> {
        choices
            .into_iter()
            .flat_map(|bucket| (0..WAYS).map(move |way| Slot { bucket, way }))
            .map(|slot| (slot, self.entry(slot)))
            .filter(|(_, entry)| !entry.mac.is_zero())
            .min_by_key(|(_, entry)| (entry.seen_ns, entry.mac))
    }

    fn put(&mut self, slot: Slot, entry: Entry) {
        if let Some(word) = self.word_mut(slot) {
            *word = entry.mac.to_bits();
        }
        self.set(slot, entry.port, entry.seen_ns);
    }

    fn word_mut(&mut self, slot: Slot) -> Option<&mut u64> {
        self.buckets.get_mut(slot.bucket)?.0.get_mut(slot.way)
    }
}

impl Bucket {
    #[inline]
    fn position(&self, bits: u64) -> Option<usize> {
        self.0.iter().position(|word| word & MacAddr::BITS_MASK == bits)
    }

    fn used(&self) -> usize {
        self.0.iter().filter(|word| **word != 0).count()
    }
}

impl Entry {
    /// When a station was "last seen" that does not age and does not move.
    pub const FIXED: u64 = u64::MAX;

    /// Whether the station neither ages nor moves.
    #[inline]
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        self.seen_ns == Self::FIXED
    }

    #[inline]
    const fn from_word(word: u64, seen_ns: u64) -> Self {
        Self { mac: MacAddr::from_bits(word), port: port_of(word), seen_ns }
    }

    #[inline]
    fn with_port(self, port: PortId) -> u64 {
        self.mac.to_bits() | u64::from(port.0) << PORT_SHIFT
    }
}

#[inline]
const fn port_of(word: u64) -> PortId {
    // The shift leaves 16 bits.
    PortId((word >> PORT_SHIFT) as u16)
}

/// The `n`-th output of the generator SplitMix64: keys that have nothing in common, whatever the
/// seed.
const fn split_mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_together_have_all_stations() {
        let mut table = MacTable::new(100, 5);
        for n in 1..=100 {
            table.insert(Entry { mac: MacAddr::from_bits(n), port: PortId(1), seen_ns: n }, true, None);
        }
        let all: Vec<_> = (0..table.buckets()).flat_map(|at| table.bucket(at).collect::<Vec<_>>()).collect();
        assert_eq!(all, table.entries().collect::<Vec<_>>());
        assert!(all.len() > 90 && table.bucket(table.buckets()).next().is_none());
    }

    #[test]
    fn nearly_all_stations_find_a_place_at_capacity() {
        // Capacities just below and above a power of two of places: the fullest and the emptiest.
        for capacity in [100, 1000, 1638, 1639, 13_107, 16_384] {
            let mut table = MacTable::new(capacity, 42);
            let homeless = (0..u64::from(capacity))
                .filter(|i| {
                    let entry = Entry { mac: MacAddr::from_bits(0x02 | i << 16), port: PortId(1), seen_ns: 0 };
                    table.insert(entry, true, None) != Insertion::Added
                })
                .count();
            assert!(homeless * 1000 <= capacity as usize, "{homeless} of {capacity}");
            assert_eq!(table.len(), capacity as usize - homeless);
            assert_eq!(table.entries().count(), table.len());
        }
    }
}
