// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A burst's packets on their way to their flows, column by column.
//!
//! Each round does one thing for all packets, and little of it: read the identity, look into the index, compare the key.
//! So what a round has to wait for is waited for together.

use packet::{Burst, MAX_BURST, Parsed, Quick, Verdict};

use super::flow::{Beside, Unified};
use super::shard::Place;
use crate::flow::{FlowKey, FlowTable, Handle, Scope};

/// No place.
const NONE: u32 = u32::MAX;

/// The packets of a burst that are to be dealt with.
#[derive(Debug)]
pub(super) struct Batch {
    len: usize,
    at: [u8; MAX_BURST],
    lens: [u32; MAX_BURST],
    quick: [Quick; MAX_BURST],
    hash: [u64; MAX_BURST],
    place: [u32; MAX_BURST],
    handle: [Option<Handle>; MAX_BURST],
    /// Plain packets with the identity of the one before, a bit each.
    same: u64,
    /// Those that are not plain; of plain ones the identity is all that is known.
    parsed: Vec<(usize, Parsed)>,
}

/// A packet of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) at: usize,
    pub(super) len: u32,
    pub(super) quick: Quick,
    pub(super) hash: u64,
    pub(super) handle: Option<Handle>,
}

impl Batch {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            len: 0,
            at: [0; MAX_BURST],
            lens: [0; MAX_BURST],
            quick: [Quick::default(); MAX_BURST],
            hash: [0; MAX_BURST],
            place: [NONE; MAX_BURST],
            handle: [None; MAX_BURST],
            same: 0,
            parsed: Vec::with_capacity(MAX_BURST),
        })
    }

    /// Reads the packets that have a verdict. Those that cannot be read are dropped; returns how many.
    pub(super) fn read(
        &mut self,
        burst: &mut Burst,
        wanted: Verdict,
        flows: &FlowTable<Unified, Beside>,
        scope: Scope,
    ) -> u64 {
        self.len = 0;
        self.same = 0;
        self.parsed.clear();
        let mut unread = 0;
        let has_runs = burst.has_runs();
        for at in 0..burst.len() {
            if burst.verdict(at) != wanted {
                continue;
            }
            let (window, len) = (burst.window(at), burst.frame_len(at));
            let i = self.len;
            if has_runs && self.read_again(burst, at) {
                self.len += 1;
                continue;
            }
            let columns = (self.at.get_mut(i), self.lens.get_mut(i), self.quick.get_mut(i), self.hash.get_mut(i));
            let (Some(to_at), Some(to_len), Some(quick), Some(hash)) = columns else { break };
            (*to_at, *to_len) = (u8::try_from(at).unwrap_or(u8::MAX), len);
            if let Some(plain) = Quick::parse(window, len) {
                *hash = flows.secret().hash_quick(scope, &plain.words);
                *quick = plain;
            } else {
                match packet::parse::parse(window, len) {
                    Ok(parsed) => {
                        *hash = flows.secret().hash(scope, &parsed.ufid);
                        // Its words are those of no plain packet.
                        *quick = Quick::default();
                        self.parsed.push((i, parsed));
                    }
                    Err(error) => {
                        unread += 1;
                        burst.set_verdict(at, Verdict::Drop(error.cause()));
                        continue;
                    }
                }
            }
            self.len += 1;
        }
        unread
    }

    /// Reads a packet by the one before, if that has the same identity and is in the batch.
    #[inline]
    fn read_again(&mut self, burst: &Burst, at: usize) -> bool {
        let (Some(i), Some(before)) = (self.len.checked_sub(1), at.checked_sub(1)) else { return false };
        if self.at.get(i).copied().map(usize::from) != Some(before)
            || burst.run(at).is_some()
            || burst.run(before).is_some()
        {
            return false;
        }
        let len = burst.frame_len(at);
        let Some(quick) = self.quick.get(i).and_then(|q| q.again(burst.window(before), burst.window(at), len)) else {
            return false;
        };
        let columns = (self.at.get_mut(i + 1), self.lens.get_mut(i + 1), self.quick.get_mut(i + 1));
        let (Some(to_at), Some(to_len), Some(to_quick)) = columns else { return false };
        (*to_at, *to_len, *to_quick) = (u8::try_from(at).unwrap_or(u8::MAX), len, quick);
        self.hash.copy_within(i..=i, i + 1);
        self.same |= 1 << (i + 1);
        true
    }

    /// Finds their flows.
    pub(super) fn find(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        if self.same != 0 {
            return self.find_runs(flows, scope);
        }
        let len = self.len;
        for (hash, place) in self.hash.iter().zip(&mut self.place).take(len) {
            *place = flows.probe(*hash).unwrap_or(NONE);
        }
        let columns = self.place.iter().zip(&self.quick).zip(&mut self.handle).take(len);
        for ((place, quick), handle) in columns {
            *handle = flows.confirm_quick(*place, scope, &quick.words);
        }
        self.find_parsed(flows, scope);
    }

    /// Finds the flows of the first of each run; the others have them too.
    fn find_runs(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        let (len, same) = (self.len, self.same);
        let is_first = |i: usize| same >> i & 1 == 0;
        for (i, (hash, place)) in self.hash.iter().zip(&mut self.place).take(len).enumerate() {
            if is_first(i) {
                *place = flows.probe(*hash).unwrap_or(NONE);
            }
        }
        let mut last = None;
        for (i, ((place, quick), handle)) in
            self.place.iter().zip(&self.quick).zip(&mut self.handle).take(len).enumerate()
        {
            if is_first(i) {
                last = flows.confirm_quick(*place, scope, &quick.words);
            }
            *handle = last;
        }
        self.find_parsed(flows, scope);
    }

    fn find_parsed(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        for (i, parsed) in &self.parsed {
            let (Some(place), Some(hash)) = (self.place.get(*i), self.hash.get(*i)) else { continue };
            if let Some(handle) = self.handle.get_mut(*i) {
                *handle = flows.confirm(*place, &FlowKey { scope, ufid: &parsed.ufid, hash: *hash });
            }
        }
    }

    /// Its packets, a bit each.
    #[inline]
    pub(super) const fn all(&self) -> u64 {
        if self.len >= 64 { u64::MAX } else { (1 << self.len) - 1 }
    }

    /// Where in the burst packet `i` is, and its length.
    #[inline]
    pub(super) fn place(&self, i: usize) -> Option<(usize, u32)> {
        Some((usize::from(*self.at.get(i)?), *self.lens.get(i)?))
    }

    /// How many packets from `i` on have one identity, and the bytes of all of them.
    #[inline]
    pub(super) fn run(&self, i: usize) -> (usize, u64) {
        let more = (self.same >> i >> 1).trailing_ones() as usize;
        let lens = self.lens.get(i..=i + more).unwrap_or_default();
        (lens.len(), lens.iter().map(|len| u64::from(*len)).sum())
    }

    /// Packet `i`.
    #[inline]
    pub(super) fn member(&self, i: usize) -> Option<Member> {
        Some(Member {
            at: usize::from(*self.at.get(i)?),
            len: *self.lens.get(i)?,
            quick: *self.quick.get(i)?,
            hash: *self.hash.get(i)?,
            handle: *self.handle.get(i)?,
        })
    }

    /// Whether any packet has the identity of the one before.
    #[inline]
    pub(super) const fn has_runs(&self) -> bool {
        self.same != 0
    }

    /// How many packets there are.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The flows of its packets; of those that are not plain, and of those with the identity of the one before, none.
    #[inline]
    pub(super) fn plain_flows(&self) -> impl Iterator<Item = Option<Handle>> {
        let same = self.same;
        let columns = self.quick.iter().zip(&self.handle).take(self.len).enumerate();
        columns.map(move |(i, (quick, handle))| handle.filter(|_| quick.is_plain() && same >> i & 1 == 0))
    }

    /// What is known of packet `i`, which is not plain.
    pub(super) fn parsed(&self, i: usize) -> Option<&Parsed> {
        let at = self.parsed.binary_search_by_key(&i, |(at, _)| *at).ok()?;
        self.parsed.get(at).map(|(_, parsed)| parsed)
    }
}

impl Member {
    /// Whether it is a plain packet.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.quick.is_plain()
    }

    /// All that there is to know about it.
    pub(super) fn place(&self, burst: &Burst, parsed: Option<&Parsed>) -> Option<Place> {
        let parsed = match parsed {
            Some(parsed) => *parsed,
            None => packet::parse::parse(burst.window(self.at), self.len).ok()?,
        };
        Some(Place::new(self.at, self.len, parsed))
    }
}
