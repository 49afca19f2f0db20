// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fragments (decision 16): the first one, which has the ports, decides for all.
//!
//! # Theory of operation
//!
//! A first fragment is a flow like any other. Beside that it is noted what becomes of the rest of its datagram: the same
//! fate, and that part of the header changes which does not need ports. Later fragments find it by addresses,
//! protocol and identification. One that comes before its first is to be kept for a second; when the first comes, the
//! caller is told to send again what it kept. Ranges that were seen are noted too: what overlaps them is
//! dropped, because the ports that were judged must be those that the receiver sees.

use std::collections::{HashMap, VecDeque};

use packet::{Burst, DropCause, Field, Fragment, Parsed, Ufid, Verdict};

use super::Outside;
use super::begin::layout_of;
use super::path::PathId;
use super::shard::{Now, Place, Shard};
use super::treatment::{Fate, Treatment};
use crate::condition::{Key, REGISTERS};
use crate::flow::FlowKey;
use crate::flow::tuple::Kind;
use crate::model::Direction;

/// Datagrams of which fragments are known.
const MAX_DATAGRAMS: usize = 1024;
/// Pieces of a datagram that are apart; more is nothing that a network does.
const MAX_RANGES: usize = 64;
/// How long the rest of a datagram is waited for, in milliseconds.
const LIFETIME_MS: u32 = 30_000;
/// An identification is used again no sooner than this.
const REUSE_MS: u32 = 1000;

/// Datagrams whose first fragment was seen.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    datagrams: HashMap<Datagram, Rest, foldhash::fast::RandomState>,
    /// Oldest first.
    queue: VecDeque<(u32, Datagram)>,
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    direction: Direction,
    source: u128,
    destination: u128,
    tunnel: u128,
    protocol: u128,
    id: u32,
}

/// What becomes of the rest of a datagram.
#[derive(Debug)]
struct Rest {
    since_ms: u32,
    treatment: Treatment,
    path: PathId,
    /// Bytes that were seen: where they begin and end, in order, none touching another.
    ranges: Vec<(u32, u32)>,
    /// Where the last fragment ends.
    total: Option<u32>,
}

impl Shard {
    /// After a first fragment went its way: notes what becomes of the rest.
    #[cold]
    pub(super) fn note_first(&mut self, burst: &Burst, place: &Place, now: &Now<'_>, outside: &mut Outside<'_>) {
        let parsed = &place.parsed;
        let fate = match burst.verdict(place.at) {
            Verdict::Park(_) | Verdict::Parked => return,
            Verdict::Drop(cause) => Fate::Drop(cause),
            Verdict::Forward(port) if now.direction == Direction::Out => Fate::Redirect(port),
            _ => Fate::Pass,
        };
        let ufid = later(&parsed.ufid);
        let (treatment, path) = self.rest(&parsed.ufid, &ufid, fate, now);
        let range = range(parsed);
        let datagram = Datagram::of(parsed, now.direction);
        let rest = Rest { since_ms: now.ms, treatment, path, ranges: vec![range], total: None };
        if let Some(old) = self.fragments.datagrams.insert(datagram, rest) {
            self.paths.release(old.path);
        }
        self.fragments.queue.push_back((now.ms, datagram));
        self.forget_datagrams(now.ms);
        outside.release = true;
    }

    /// Whether a first fragment may go its way: not if one like it has just gone.
    pub(super) fn may_begin(&self, parsed: &Parsed, now: &Now<'_>) -> bool {
        let known = self.fragments.datagrams.get(&Datagram::of(parsed, now.direction));
        known.is_none_or(|rest| now.ms.wrapping_sub(rest.since_ms) >= REUSE_MS)
    }

    /// Deals with a later fragment.
    #[cold]
    #[inline(never)]
    pub(super) fn later(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        let datagram = Datagram::of(&place.parsed, now.direction);
        let Some(rest) = self.fragments.datagrams.get_mut(&datagram) else {
            // To wait costs as much as to be planned.
            if !self.budget.take(now.ns, self.config.plans_per_second) {
                return self.refuse(burst, place.at);
            }
            self.stats.early_fragments += 1;
            outside.parked += 1;
            return burst.set_verdict(place.at, Verdict::Park(DropCause::FragmentTimeout));
        };
        let transient = &place.parsed.transient;
        let end = range(&place.parsed).1;
        let contradicts = match rest.total {
            Some(total) => end > total || !transient.more_fragments && end != total,
            None => !transient.more_fragments && rest.ranges.last().is_some_and(|last| last.1 > end),
        };
        if contradicts || !rest.add(range(&place.parsed)) {
            self.stats.bad_fragments += 1;
            return burst.set_verdict(place.at, Verdict::Drop(DropCause::BadFragment));
        }
        if !transient.more_fragments {
            rest.total = Some(end);
        }
        let Treatment { fate, change } = &rest.treatment;
        self.tunnels.carry(*fate, change, burst, &place.packet(key.hash), now);
        self.paths.count(rest.path, 1, place.len.into());
        if rest.is_whole()
            && let Some(rest) = self.fragments.datagrams.remove(&datagram)
        {
            self.paths.release(rest.path);
        }
    }

    /// Plans what happens to later fragments of a datagram: the changes of its first, as far as they need no ports.
    fn rest(&mut self, first: &Ufid, ufid: &Ufid, fate: Fate, now: &Now<'_>) -> (Treatment, PathId) {
        let nothing = |fate: Fate| (fate.into(), None);
        if matches!(fate, Fate::Drop(_)) {
            return nothing(fate);
        }
        let key = Key { ufid: *first, registers: [0; REGISTERS] };
        let connection = Kind::of(first).tuple().and_then(|tuple| self.connections.find(now.direction, &tuple));
        let plan = self.plan(&key, self.membership(connection, false), now);
        let Some(layout) = layout_of(ufid) else { return nothing(Fate::Drop(DropCause::BadFragment)) };
        let path = self.paths.intern(&plan, now.snapshot);
        (Treatment::compile(fate, &plan, ufid, &layout), path)
    }

    /// Forgets datagrams that are too old, or too many.
    pub(super) fn forget_datagrams(&mut self, now_ms: u32) {
        while let Some((since, datagram)) = self.fragments.queue.front().copied() {
            let is_old = now_ms.wrapping_sub(since) > LIFETIME_MS;
            if !is_old && self.fragments.queue.len() <= MAX_DATAGRAMS {
                return;
            }
            self.fragments.queue.pop_front();
            // There may be a younger one of the same name.
            if self.fragments.datagrams.get(&datagram).is_some_and(|rest| rest.since_ms == since)
                && let Some(rest) = self.fragments.datagrams.remove(&datagram)
            {
                self.paths.release(rest.path);
            }
        }
    }
}

impl Fragments {
    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }
}

impl Datagram {
    fn of(parsed: &Parsed, direction: Direction) -> Self {
        let ufid = &parsed.ufid;
        Self {
            direction,
            source: ufid.get(Field::IpSrc),
            destination: ufid.get(Field::IpDst),
            tunnel: ufid.get(Field::TunnelKey) << 8 | ufid.get(Field::Tunnel),
            protocol: ufid.get(Field::IpProto) << 8 | ufid.get(Field::IpVersion),
            id: parsed.transient.ip_id,
        }
    }
}

impl Rest {
    /// Notes that bytes were seen. `false`: some of them had been seen before, or there are too many pieces.
    fn add(&mut self, (start, end): (u32, u32)) -> bool {
        if start >= end || self.ranges.iter().any(|&(from, to)| start < to && from < end) {
            return false;
        }
        let at = self.ranges.partition_point(|&(from, _)| from < start);
        self.ranges.insert(at, (start, end));
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.ranges.len());
        for &(from, to) in &self.ranges {
            match merged.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => merged.push((from, to)),
            }
        }
        self.ranges = merged;
        self.ranges.len() <= MAX_RANGES
    }

    fn is_whole(&self) -> bool {
        self.total.is_some_and(|total| self.ranges == [(0, total)])
    }
}

/// The bytes of the datagram's payload that a fragment has.
fn range(parsed: &Parsed) -> (u32, u32) {
    let start = u32::from(parsed.transient.fragment_offset);
    let headers = match (parsed.layout.transport, parsed.layout.network) {
        // Of the first one the transport header is payload, too.
        (Some(transport), Some(network)) => {
            let before = u32::from(transport.saturating_sub(network));
            return (start, start.saturating_add(parsed.transient.ip_len.saturating_sub(before)));
        }
        _ => parsed.transient.l4_payload_len,
    };
    (start, start.saturating_add(headers))
}

/// What later fragments are called, of a datagram whose first is called so.
fn later(first: &Ufid) -> Ufid {
    first.with(Field::Fragment, Fragment::Later as u128).with(Field::L4Src, 0).with(Field::L4Dst, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model of single bytes.
        #[test]
        fn no_byte_is_seen_twice(pieces in prop::collection::vec((0u32..40, 0u32..10), 0..30)) {
            let mut rest = Rest { since_ms: 0, treatment: Fate::Pass.into(), path: None, ranges: Vec::new(), total: Some(40) };
            let mut seen = [false; 50];
            for (start, len) in pieces {
                let bytes = start as usize..(start + len) as usize;
                let expected = len > 0 && !seen[bytes.clone()].iter().any(|seen| *seen);
                prop_assert_eq!(rest.add((start, start + len)), expected);
                if expected {
                    seen[bytes].fill(true);
                }
                prop_assert_eq!(rest.is_whole(), seen.iter().take_while(|seen| **seen).count() == 40 && !seen[40..].contains(&true));
            }
        }
    }
}
