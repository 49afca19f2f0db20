// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Flows by their identity: exact match, one owner, no lock.
//!
//! # Theory of operation
//!
//! A flow is found in three steps, each one cache line: the index (hash to place), the key, the flow.
//! Each step depends on the one before, but not on other packets, so a burst takes all packets through
//! the first step, then all through the second ([`FlowTable::probe`], [`FlowTable::confirm`]): the misses of 64 packets
//! overlap. Keys of untunnelled IPv4 with at most one tag are half a line; what longer ones have more stands apart. So does
//! what few packets ask of a flow: what is *beside* it.
//!
//! The hash is keyed with a secret, or a guest could choose flows that all collide.

use packet::Ufid;
use packet::ufid::WORDS;

use super::index::Index;
use super::slab::{Aligned, Handle, Slab};
use super::tuple::Tuple;

/// Words of a key that stand in its line.
const SHORT: usize = 4;
/// Words of a long key that do not: its line needs a word for itself.
const REST: usize = WORDS - SHORT + 1;
/// Odd multipliers without pattern: from the hexadecimal digits of pi.
const PI: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89];

/// Where a flow belongs, among 16 places: its direction, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(pub u8);

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey<'a> {
    /// Where.
    pub scope: Scope,
    /// What.
    pub ufid: &'a Ufid,
    /// [`Secret::hash`] of both.
    pub hash: u64,
}

/// Keys of the hash.
#[derive(Clone, Copy)]
pub struct Secret {
    keys: [u64; WORDS + 2],
    /// What words 4 to 7 add to the sum if they are zero.
    zeros: u64,
}

/// A bounded table of flows, and of what is beside them.
#[derive(Debug)]
pub struct FlowTable<T, B = ()> {
    index: Index,
    /// By place; what is left of a flow that is gone is never asked for.
    keys: Vec<Line>,
    flows: Slab<T, Aligned<T>>,
    /// By place.
    beside: Vec<B>,
    rests: Rests,
    secret: Secret,
}

/// The first words of a key, with where its flow belongs in the last of them. Of a long one the last says that, and the
/// number of its rest.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Line([u64; SHORT]);

/// The rests of long keys. One that is free has the next free one, and one, as its first word.
#[derive(Debug)]
struct Rests {
    words: Vec<[u64; REST]>,
    free: u64,
}

/// The highest five bits of an identity's fourth word are free, because there are fewer than eight sorts of fragments: there
/// the key says where the flow belongs, and whether it is long.
const SCOPE_SHIFT: u32 = 59;
const LONG: u64 = 1 << 63;

impl Secret {
    /// From a random seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let keys: [u64; WORDS + 2] = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = fold(state ^ PI[0], PI[1] | 1);
            fold(mixed ^ PI[2], PI[3] | 1)
        });
        let [_, _, _, _, k4, k5, k6, k7, ..] = keys;
        Self { keys, zeros: fold(k4, k5).wrapping_add(fold(k6, k7)) }
    }

    /// The hash of an identity at its place.
    #[inline]
    #[must_use]
    pub fn hash(&self, scope: Scope, ufid: &Ufid) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7, high @ .., a, b] = &self.keys;
        let [w0, w1, w2, w3, w4, w5, w6, w7, upper @ ..] = ufid.words();
        // Independent products, so that they overlap; each word is blinded by a key of its own.
        let mut sum = fold(w0 ^ k0, w1 ^ k1)
            .wrapping_add(fold(w2 ^ k2, w3 ^ k3))
            .wrapping_add(fold(w4 ^ k4, w5 ^ k5))
            .wrapping_add(fold(w6 ^ k6, w7 ^ k7));
        if ufid.narrow().is_none() {
            let ([k0, k1, k2, k3, k4, k5], [w0, w1, w2, w3, w4, w5]) = (high, upper);
            sum = sum
                .wrapping_add(fold(w0 ^ k0, w1 ^ k1))
                .wrapping_add(fold(w2 ^ k2, w3 ^ k3))
                .wrapping_add(fold(w4 ^ k4, w5 ^ k5));
        }
        fold(sum ^ a, u64::from(scope.0) ^ b)
    }
}

impl Secret {
    /// [`hash`](Self::hash) of an identity of which all words but the first four are zero.
    #[inline]
    #[must_use]
    pub fn hash_quick(&self, scope: Scope, [w0, w1, w2, w3]: &[u64; 4]) -> u64 {
        let [k0, k1, k2, k3, .., a, b] = &self.keys;
        let sum = fold(w0 ^ k0, w1 ^ k1).wrapping_add(fold(w2 ^ k2, w3 ^ k3)).wrapping_add(self.zeros);
        fold(sum ^ a, u64::from(scope.0) ^ b)
    }

    /// The hash of a tuple on one side of a port.
    #[inline]
    pub(crate) fn hash_tuple(&self, side: bool, tuple: &Tuple) -> u64 {
        let [k0, k1, k2, k3, k4, .., a, b] = &self.keys;
        let [source, destination] = [tuple.source, tuple.destination].map(halves);
        let sum = fold(source[0] ^ k0, destination[0] ^ k1)
            .wrapping_add(fold(source[1] ^ k2, destination[1] ^ k3))
            .wrapping_add(fold(tuple.rest() ^ k4, u64::from(side) ^ b));
        fold(sum ^ a, *b)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl<T, B: Default> FlowTable<T, B> {
    /// Room for `capacity` flows; the index is allocated whole, keys and flows as they come.
    #[must_use]
    pub fn new(capacity: usize, secret: Secret) -> Self {
        let flows = Slab::new(capacity);
        // Reserved whole: untouched pages cost nothing, and growing would copy everything in mid-burst.
        let (keys, beside) = (Vec::with_capacity(flows.capacity()), Vec::with_capacity(flows.capacity()));
        let rests = Rests { words: Vec::with_capacity(flows.capacity()), free: 0 };
        Self { index: Index::new(flows.capacity()), keys, flows, beside, rests, secret }
    }

    /// The key of an identity.
    #[inline]
    #[must_use]
    pub fn key<'a>(&self, scope: Scope, ufid: &'a Ufid) -> FlowKey<'a> {
        FlowKey { scope, ufid, hash: self.secret.hash(scope, ufid) }
    }

    /// Number of flows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The flow of a key.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &FlowKey<'_>) -> Option<Handle> {
        let place = self.index.find(key.hash, |place| self.is_at(place, key))?;
        self.flows.at(place).map(|(handle, _)| handle)
    }

    /// The first step of finding a flow: a place where one with this hash is, if there is any.
    #[inline]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Option<u32> {
        self.index.probe(hash)
    }

    /// The second step: the flow at that place, if it is the one that is meant. The flow itself is touched.
    #[inline]
    #[must_use]
    pub fn confirm(&self, place: u32, key: &FlowKey<'_>) -> Option<Handle> {
        if !self.is_at(place, key) {
            // Another flow with the same 32 bits of hash came first.
            return self.find(key);
        }
        self.flows.at(place).map(|(handle, _)| handle)
    }

    /// [`confirm`](Self::confirm) for an identity of which all words but the first four are zero. `None` may mean that
    /// the flow is elsewhere.
    #[inline]
    #[must_use]
    pub fn confirm_quick(&self, place: u32, scope: Scope, [a, b, c, d]: &[u64; 4]) -> Option<Handle> {
        let Line([w0, w1, w2, w3]) = self.keys.get(place as usize)?;
        let differ = (w0 ^ a) | (w1 ^ b) | (w2 ^ c) | (w3 ^ d ^ u64::from(scope.0) << SCOPE_SHIFT);
        if differ != 0 {
            return None;
        }
        self.flows.at(place).map(|(handle, _)| handle)
    }

    /// Whether there is a flow with this identity, of which all words but the first four are zero.
    #[must_use]
    pub fn has_quick(&self, scope: Scope, words: &[u64; 4], hash: u64) -> bool {
        self.index.find(hash, |place| self.confirm_quick(place, scope, words).is_some()).is_some()
    }

    /// The secret of its hash.
    #[inline]
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Adds a flow that is not in the table, and what is to be beside it.
    ///
    /// # Errors
    /// There is no room; the value comes back.
    pub fn insert(&mut self, key: &FlowKey<'_>, value: T, beside: B) -> Result<Handle, (T, B)> {
        debug_assert!(self.find(key).is_none());
        let handle = match self.flows.insert(value) {
            Ok(handle) => handle,
            Err(value) => return Err((value, beside)),
        };
        let place = handle.place();
        if !self.index.insert(key.hash, place) {
            return self.flows.remove(handle).map_or(Ok(handle), |value| Err((value, beside)));
        }
        let [w0, w1, w2, w3, ..] = *key.ufid.words();
        let scope = u64::from(key.scope.0) << SCOPE_SHIFT;
        let line = match rest_of(key.ufid) {
            None => Line([w0, w1, w2, w3 | scope]),
            Some(rest) => Line([w0, w1, w2, u64::from(self.rests.add(rest)) | scope | LONG]),
        };
        let at = place as usize;
        if self.keys.len() <= at {
            self.keys.resize(at + 1, line);
            self.beside.resize_with(at + 1, B::default);
        }
        if let (Some(to_key), Some(to_beside)) = (self.keys.get_mut(at), self.beside.get_mut(at)) {
            (*to_key, *to_beside) = (line, beside);
        }
        Ok(handle)
    }

    /// Removes a flow.
    pub fn remove(&mut self, handle: Handle) -> Option<(T, B)> {
        let (scope, ufid) = self.identity(handle)?;
        self.index.remove(self.secret.hash(scope, &ufid), handle.place());
        let at = handle.place() as usize;
        if let Some(rest) = self.keys.get(at).and_then(|line| line.rest()) {
            self.rests.free(rest);
        }
        let beside = self.beside.get_mut(at).map(std::mem::take).unwrap_or_default();
        Some((self.flows.remove(handle)?, beside))
    }

    /// A flow, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        self.flows.get(handle)
    }

    /// The same, to be changed.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        self.flows.get_mut(handle)
    }

    /// What is beside a flow.
    #[inline]
    #[must_use]
    pub fn beside(&self, handle: Handle) -> Option<&B> {
        self.beside.get(handle.place() as usize).filter(|_| self.flows.get(handle).is_some())
    }

    /// A flow and what is beside it, to be changed.
    #[inline]
    #[must_use]
    pub fn both_mut(&mut self, handle: Handle) -> Option<(&mut T, &mut B)> {
        Some((self.flows.get_mut(handle)?, self.beside.get_mut(handle.place() as usize)?))
    }

    /// Where a flow belongs and what it is called.
    #[must_use]
    pub fn identity(&self, handle: Handle) -> Option<(Scope, Ufid)> {
        self.flows.get(handle)?;
        let line = self.keys.get(handle.place() as usize)?;
        let Line([w0, w1, w2, last]) = *line;
        let mut words = [0; WORDS];
        let [a, b, c, rest @ ..] = &mut words;
        (*a, *b, *c) = (w0, w1, w2);
        match line.rest() {
            Some(at) => *rest = *self.rests.get(at)?,
            None => {
                let [d, ..] = rest;
                *d = last & ((1 << SCOPE_SHIFT) - 1);
            }
        }
        Some((Scope((last >> SCOPE_SHIFT) as u8 & 0xf), Ufid::from_words(words)))
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.flows.iter()
    }

    /// Moves up to `budget` buckets of an index that has grown.
    pub fn settle(&mut self, budget: usize) {
        self.index.settle(budget);
    }

    /// Bytes that the table holds, room in the index included, without what flows themselves have on the heap.
    #[must_use]
    pub fn memory(&self) -> usize {
        let (keys, beside) = (size_of_val(&*self.keys), size_of_val(&*self.beside));
        self.index.memory() + self.flows.memory() + keys + beside + size_of_val(&*self.rests.words)
    }

    /// Up to `budget` flows from place `from` on, for sweeping in slices; and where to go on.
    pub fn slice(&self, from: u32, budget: usize) -> (impl Iterator<Item = (Handle, &T)>, u32) {
        let end = (from as usize).saturating_add(budget);
        let next = if end >= self.keys.len() { 0 } else { u32::try_from(end).unwrap_or(0) };
        let places = (from as usize..end.min(self.keys.len())).filter_map(|place| u32::try_from(place).ok());
        (places.filter_map(|place| self.flows.at(place)), next)
    }

    #[inline]
    fn is_at(&self, place: u32, key: &FlowKey<'_>) -> bool {
        let [a, b, c, d, ..] = key.ufid.words();
        let Some(line) = self.keys.get(place as usize) else { return false };
        let Line([w0, w1, w2, w3]) = line;
        // In registers: as slices they would be compared by a call.
        if (w0 ^ a) | (w1 ^ b) | (w2 ^ c) != 0 || (w3 >> SCOPE_SHIFT) as u8 & 0xf != key.scope.0 {
            return false;
        }
        match (line.rest(), rest_of(key.ufid)) {
            (None, None) => w3 & ((1 << SCOPE_SHIFT) - 1) == *d,
            (Some(at), Some(rest)) => self.rests.get(at) == Some(&rest),
            _ => false,
        }
    }
}

impl Line {
    /// The number of the rest of a long key.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it was put there as 32 bits")]
    const fn rest(&self) -> Option<u32> {
        let Self([.., last]) = self;
        if *last & LONG != 0 { Some(*last as u32) } else { None }
    }
}

/// What a long key has beyond its line.
#[inline]
fn rest_of(ufid: &Ufid) -> Option<[u64; REST]> {
    let [_, _, _, rest @ ..] = ufid.words();
    let [_, beyond @ ..] = rest;
    (beyond.iter().fold(0, |all, word| all | word) != 0).then_some(*rest)
}

impl Rests {
    fn add(&mut self, rest: [u64; REST]) -> u32 {
        let free = self.free.checked_sub(1).and_then(|at| u32::try_from(at).ok());
        if let Some(at) = free
            && let Some(slot) = self.words.get_mut(at as usize)
        {
            [self.free, ..] = *slot;
            *slot = rest;
            return at;
        }
        self.words.push(rest);
        // There are at most as many as flows.
        u32::try_from(self.words.len() - 1).unwrap_or(u32::MAX)
    }

    fn free(&mut self, at: u32) {
        if let Some([first, ..]) = self.words.get_mut(at as usize) {
            *first = self.free;
            self.free = u64::from(at) + 1;
        }
    }

    #[inline]
    fn get(&self, at: u32) -> Option<&[u64; REST]> {
        self.words.get(at as usize)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
const fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

/// The two halves of a product: every bit of both reaches every bit of the result.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use packet::Field;
    use proptest::prelude::*;

    use super::*;

    fn ufid(n: u32) -> Ufid {
        let base = Ufid::ZERO.with(Field::IpVersion, 4).with(Field::L4Src, (n % 5).into());
        let address = match n % 3 {
            0 => u128::from(n),
            1 => u128::from(n) << 40,
            _ => u128::from(n) << 90 | 1,
        };
        if n.is_multiple_of(2) { base.with(Field::IpSrc, address) } else { base.with(Field::OuterIpDst, address) }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u8..3, 0u32..40), 0..300)) {
            let mut table = FlowTable::new(24, Secret::new(7));
            let mut model: HashMap<(u8, u32), (Handle, usize)> = HashMap::new();
            for (n, (add, scope, which)) in steps.into_iter().enumerate() {
                let name = ufid(which);
                let key = table.key(Scope(scope), &name);
                match (add, model.get(&(scope, which)).copied()) {
                    (true, None) => match table.insert(&key, n, n + 1) {
                        Ok(handle) => {
                            prop_assert_eq!(table.identity(handle), Some((Scope(scope), ufid(which))));
                            model.insert((scope, which), (handle, n));
                        }
                        Err(back) => prop_assert!(back == (n, n + 1) && model.len() >= 20, "{} of 24", model.len()),
                    },
                    (false, Some((handle, value))) => {
                        prop_assert_eq!(table.beside(handle), Some(&(value + 1)));
                        prop_assert_eq!(table.remove(handle), Some((value, value + 1)));
                        prop_assert_eq!(table.get(handle), None);
                        model.remove(&(scope, which));
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let all: Vec<_> = (0..3).flat_map(|scope| (0..40).map(move |which| (scope, which))).collect();
            for some in all.chunks(64) {
                let names: Vec<_> = some.iter().map(|(scope, which)| (Scope(*scope), ufid(*which))).collect();
                let keys: Vec<_> = names.iter().map(|(scope, name)| table.key(*scope, name)).collect();
                for (name, key) in some.iter().zip(&keys) {
                    let expected = model.get(name).map(|(handle, _)| *handle);
                    prop_assert_eq!(table.find(key), expected);
                    let found = table.probe(key.hash).and_then(|place| table.confirm(place, key));
                    prop_assert_eq!(found, expected);
                    let [a, b, c, d, rest @ ..] = *key.ufid.words();
                    if rest == [0; WORDS - 4] {
                        let quick = table.secret().hash_quick(key.scope, &[a, b, c, d]);
                        prop_assert_eq!(quick, key.hash);
                        let place = table.probe(quick);
                        let found = place.and_then(|place| table.confirm_quick(place, key.scope, &[a, b, c, d]));
                        prop_assert_eq!(found, expected);
                        prop_assert_eq!(table.has_quick(key.scope, &[a, b, c, d], quick), expected.is_some());
                    }
                }
            }
            let mut from = 0;
            let mut seen = 0;
            loop {
                let (flows, next) = table.slice(from, 7);
                seen += flows.count();
                from = next;
                if next == 0 {
                    break;
                }
            }
            prop_assert_eq!(seen, model.len());
        }
    }

    #[test]
    fn every_bit_of_an_identity_moves_the_hash() {
        let secret = Secret::new(3);
        let plain = ufid(0).with(Field::IpSrc, 5);
        let hash = secret.hash(Scope(1), &plain);
        for word in 0..WORDS {
            for bit in 0..64 {
                let mut words = *plain.words();
                words[word] ^= 1 << bit;
                let other = secret.hash(Scope(1), &Ufid::from_words(words));
                let moved = (hash ^ other).count_ones();
                assert!((12..=52).contains(&moved), "word {word} bit {bit}: {moved} bits of the hash move");
            }
        }
        assert_ne!(secret.hash(Scope(2), &plain), hash);
        assert_ne!(Secret::new(4).hash(Scope(1), &plain), hash);
    }
}
