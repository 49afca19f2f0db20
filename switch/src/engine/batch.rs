// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A burst's packets on their way to their flows, round by round.
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
    members: [Member; MAX_BURST],
    /// Plain packets with the identity of the one before, a bit each.
    same: u64,
    /// Those that are not plain; of plain ones the identity is all that is known.
    parsed: Vec<(usize, Parsed)>,
}

/// A packet of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Member {
    pub(super) quick: Quick,
    pub(super) hash: u64,
    pub(super) len: u32,
    /// Where its flow may be, by the index.
    place: u32,
    pub(super) handle: Option<Handle>,
    at: u8,
}

// One line each.
const _: () = assert!(size_of::<Member>() <= 64);

impl Batch {
    pub(super) fn new() -> Box<Self> {
        let members = [Member::default(); MAX_BURST];
        Box::new(Self { len: 0, members, same: 0, parsed: Vec::with_capacity(MAX_BURST) })
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
            if has_runs && self.read_again(burst, at) {
                self.len += 1;
                continue;
            }
            let (window, len) = (burst.window(at), burst.frame_len(at));
            let Some(member) = self.members.get_mut(self.len) else { break };
            (member.at, member.len) = (u8::try_from(at).unwrap_or(u8::MAX), len);
            if let Some(plain) = Quick::parse(window, len) {
                member.hash = flows.secret().hash_quick(scope, &plain.words);
                member.quick = plain;
            } else {
                match packet::parse::parse(window, len) {
                    Ok(parsed) => {
                        member.hash = flows.secret().hash(scope, &parsed.ufid);
                        // Its words are those of no plain packet.
                        member.quick = Quick::default();
                        self.parsed.push((self.len, parsed));
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
        let Some([last, next]) = self.members.get_mut(i..).and_then(|members| members.first_chunk_mut()) else {
            return false;
        };
        if last.at() != before || burst.run(at).is_some() || burst.run(before).is_some() {
            return false;
        }
        let len = burst.frame_len(at);
        let Some(quick) = last.quick.again(burst.window(before), burst.window(at), len) else { return false };
        *next = Member { quick, len, at: u8::try_from(at).unwrap_or(u8::MAX), ..*last };
        self.same |= 1 << (i + 1);
        true
    }

    /// Finds their flows.
    pub(super) fn find(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        if self.same != 0 {
            return self.find_runs(flows, scope);
        }
        let members = self.members.get_mut(..self.len).unwrap_or_default();
        for member in &mut *members {
            member.place = flows.probe(member.hash).unwrap_or(NONE);
        }
        for member in members {
            member.handle = flows.confirm_quick(member.place, scope, &member.quick.words);
        }
        self.find_parsed(flows, scope);
    }

    /// Finds the flows of the first of each run; the others have them too.
    #[inline(never)]
    fn find_runs(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        let (len, same) = (self.len, self.same);
        let is_first = |i: usize| same >> i & 1 == 0;
        let members = self.members.get_mut(..len).unwrap_or_default();
        for (_, member) in members.iter_mut().enumerate().filter(|(i, _)| is_first(*i)) {
            member.place = flows.probe(member.hash).unwrap_or(NONE);
        }
        let mut last = None;
        for (i, member) in members.iter_mut().enumerate() {
            if is_first(i) {
                last = flows.confirm_quick(member.place, scope, &member.quick.words);
            }
            member.handle = last;
        }
        self.find_parsed(flows, scope);
    }

    fn find_parsed(&mut self, flows: &FlowTable<Unified, Beside>, scope: Scope) {
        for (i, parsed) in &self.parsed {
            let Some(member) = self.members.get_mut(*i) else { continue };
            member.handle = flows.confirm(member.place, &FlowKey { scope, ufid: &parsed.ufid, hash: member.hash });
        }
    }

    /// Its packets, a bit each.
    #[inline]
    pub(super) const fn all(&self) -> u64 {
        if self.len >= 64 { u64::MAX } else { (1 << self.len) - 1 }
    }

    /// Its packets.
    #[inline]
    pub(super) fn members(&self) -> &[Member] {
        self.members.get(..self.len).unwrap_or_default()
    }

    /// How many packets from `i` on have one identity, and the bytes of all of them.
    #[inline]
    pub(super) fn run(&self, i: usize) -> (usize, u64) {
        let more = (self.same >> i >> 1).trailing_ones() as usize;
        let members = self.members.get(i..=i + more).unwrap_or_default();
        (members.len(), members.iter().map(|member| u64::from(member.len)).sum())
    }

    /// Packet `i`.
    #[inline]
    pub(super) fn member(&self, i: usize) -> Option<&Member> {
        self.members().get(i)
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

    /// Its packets, with the flow of each; of those that are not plain, and of those with the identity of the one before, none.
    #[inline]
    pub(super) fn plain_flows(&self) -> impl Iterator<Item = (&Member, Option<Handle>)> {
        let same = self.same;
        let members = self.members().iter().enumerate();
        members.map(move |(i, member)| (member, member.handle.filter(|_| member.is_plain() && same >> i & 1 == 0)))
    }

    /// What is known of packet `i`, which is not plain.
    pub(super) fn parsed(&self, i: usize) -> Option<&Parsed> {
        let at = self.parsed.binary_search_by_key(&i, |(at, _)| *at).ok()?;
        self.parsed.get(at).map(|(_, parsed)| parsed)
    }
}

impl Member {
    /// Where in the burst it is.
    #[inline]
    pub(super) const fn at(&self) -> usize {
        self.at as usize
    }

    /// Whether it is a plain packet.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.quick.is_plain()
    }

    /// All that there is to know about it.
    pub(super) fn place(&self, burst: &Burst, parsed: Option<&Parsed>) -> Option<Place> {
        let parsed = match parsed {
            Some(parsed) => *parsed,
            None => packet::parse::parse(burst.window(self.at()), self.len).ok()?,
        };
        Some(Place::new(self.at(), self.len, parsed))
    }
}
