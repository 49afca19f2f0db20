// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which classifier gets which rule.
//!
//! Candidates are built and tried with keys that the rules match; the cost model adds up what the
//! searches touch, so that no formula need guess how rules overlap. A classifier is good at a rule if few
//! others share its hash key, its prefix, or its range. One that is good at nearly all rules is tried
//! with all. The two that are good at the most are tried with those, and the rest are assigned by
//! themselves in the same way.

use std::collections::HashMap;
use std::hash::Hash as StdHash;

use packet::Field;

use super::cost::Cost;
use super::entry::{Entries, Entry};
use super::group::{Kind, Part, search};
use super::sample;
use crate::condition::{Key, Subject};

/// Rules above which a list is not tried: the others are quicker by far.
const LINEAR_MAX: usize = 128;
/// Keys that a candidate is tried with.
const SAMPLES: usize = 256;
/// Rules that may share a key in a classifier that is good at them.
const CROWD: usize = 32;
/// A classifier is tried with all rules if at most so many are in a crowd: searching these costs more
/// than another classifier.
const HOPEFUL: usize = 256;
/// Nanoseconds by the model with which the search for an assignment is content, if the group is large.
const ENOUGH: f64 = 80.0;
/// Up to so many rules every classifier is tried with all.
const SMALL: usize = 1024;
/// A classifier by a subject is tried if at least one rule in so many speaks of it.
const MENTIONED: usize = 8;
/// How often the rest of a split is split again.
const DEPTH: usize = 3;

/// Assigns the rules of a group.
pub(super) fn assign(entries: &Entries, seed: u64) -> Vec<Part> {
    Assignment { keys: sample::keys(entries, SAMPLES), seed }.plan(entries, DEPTH).parts
}

struct Assignment {
    keys: Vec<Key>,
    seed: u64,
}

struct Candidate {
    parts: Vec<Part>,
    ns: f64,
}

impl Assignment {
    fn plan(&self, entries: &Entries, depth: usize) -> Candidate {
        let mut splits: Vec<_> = kinds(entries).into_iter().map(|kind| (kind, split(kind, entries))).collect();
        splits.sort_by_key(|(kind, split)| (preference(*kind), split.rest.len()));
        let mut best: Option<Candidate> = None;
        let offer = |best: &mut Option<Candidate>, parts: Vec<Part>| {
            let candidate = self.candidate(parts);
            if best.as_ref().is_none_or(|best| candidate.ns < best.ns) {
                *best = Some(candidate);
            }
        };
        let is_settled = |best: &Option<Candidate>| {
            entries.len() > SMALL && best.as_ref().is_some_and(|best| best.ns <= ENOUGH * self.keys.len() as f64)
        };
        for (kind, split) in &splits {
            // Building what cannot win takes most of the time: a classifier with many crowds.
            let hopeful = split.rest.len() <= HOPEFUL || *kind == Kind::Hash;
            if !is_settled(&best) && (hopeful || depth == 0 || entries.len() <= SMALL) {
                let part = Part::new(*kind, entries, self.seed);
                part.into_iter().for_each(|part| offer(&mut best, vec![part]));
            }
        }
        if depth > 0 && entries.len() > CROWD && !is_settled(&best) {
            // The rest of a rest is small, and trying twice at every step would be eight times.
            let branches = if depth == DEPTH { 2 } else { 1 };
            for (kind, split) in splits.iter().filter(|(_, split)| split.is_proper()).take(branches) {
                if let Some(part) = Part::new(*kind, &entries.select(&split.good), self.seed) {
                    let mut parts = self.plan(&entries.select(&split.rest), depth.saturating_sub(1)).parts;
                    parts.push(part);
                    offer(&mut best, parts);
                }
                // Another could only better what is good already.
                if split.rest.len() <= entries.len() / MENTIONED {
                    break;
                }
            }
        }
        best.unwrap_or_else(|| self.candidate(vec![Part::tuple(entries, self.seed)]))
    }

    fn candidate(&self, mut parts: Vec<Part>) -> Candidate {
        parts.sort_by_key(|part| std::cmp::Reverse(part.top()));
        let mut cost = Cost::default();
        for key in &self.keys {
            search(&parts, key, None, &mut cost);
        }
        Candidate { parts, ns: cost.ns }
    }
}

/// The classifiers that are worth a try with these rules.
fn kinds(entries: &Entries) -> Vec<Kind> {
    let some = entries.len().div_ceil(MENTIONED);
    let said = |says: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| says(entry)).count() >= some;
    let mut kinds = vec![Kind::Hash, Kind::Tuple];
    if entries.len() <= LINEAR_MAX {
        kinds.push(Kind::Linear);
    }
    for field in [Field::IpSrc, Field::IpDst, Field::OuterIpSrc, Field::OuterIpDst] {
        if said(&|entry| entry.prefix(field).is_some_and(|(_, _, len)| len > 0)) {
            kinds.push(Kind::Trie(field));
        }
    }
    let ports = [Field::L4Src, Field::L4Dst, Field::TunnelKey].map(Subject::Field);
    for subject in ports.into_iter().chain((0..8).map(Subject::Register)) {
        if said(&|entry| entry.interval(subject).is_some()) {
            kinds.push(Kind::Interval(subject));
        }
    }
    kinds
}

/// Which classifiers are tried first. A hash table is one step, if it is possible at all; a trie finds its rules with the fewest steps; tuple space search is good
/// at most rules but takes many, so it is for what the others leave.
const fn preference(kind: Kind) -> u8 {
    match kind {
        Kind::Hash => 0,
        Kind::Trie(_) => 1,
        Kind::Interval(_) => 2,
        Kind::Tuple | Kind::Linear => 3,
    }
}

/// The entries that a classifier finds among few others, and the rest.
struct Split {
    good: Vec<u32>,
    rest: Vec<u32>,
}

impl Split {
    const fn is_proper(&self) -> bool {
        !self.good.is_empty() && !self.rest.is_empty()
    }
}

fn split(kind: Kind, entries: &Entries) -> Split {
    match kind {
        Kind::Trie(field) => split_by(entries, |entry| entry.prefix(field).filter(|(_, _, len)| *len > 0)),
        Kind::Interval(subject) => split_by(entries, |entry| entry.interval(subject)),
        Kind::Tuple => split_by(entries, |entry| Some(entry.fixed())),
        // All rules or none.
        Kind::Linear | Kind::Hash => split_by(entries, |_| None::<()>),
    }
}

fn split_by<'a, K: Eq + StdHash>(entries: &'a Entries, mut key: impl FnMut(&'a Entry) -> Option<K>) -> Split {
    let mut crowds: HashMap<K, usize> = HashMap::new();
    let keys: Vec<Option<K>> = entries.iter().map(&mut key).collect();
    let mut numbered = Vec::with_capacity(keys.len());
    let mut counts: Vec<usize> = Vec::new();
    for key in keys {
        numbered.push(key.map(|key| {
            let crowd = *crowds.entry(key).or_insert_with(|| {
                counts.push(0);
                counts.len().saturating_sub(1)
            });
            if let Some(count) = counts.get_mut(crowd) {
                *count = count.saturating_add(1);
            }
            crowd
        }));
    }
    let is_good = |crowd: Option<usize>| crowd.and_then(|crowd| counts.get(crowd)).is_some_and(|count| *count <= CROWD);
    let places = numbered.into_iter().zip(0_u32..);
    let (good, rest): (Vec<_>, Vec<_>) = places.partition(|(crowd, _)| is_good(*crowd));
    let only_places = |these: Vec<(Option<usize>, u32)>| these.into_iter().map(|(_, at)| at).collect();
    Split { good: only_places(good), rest: only_places(rest) }
}
