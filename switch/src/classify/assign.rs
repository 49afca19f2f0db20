// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which classifier gets which rule.
//!
//! Candidates are built and tried with keys that the rules match; the cost model adds up what the
//! searches touch, so that no formula need guess how rules overlap. A classifier is good at a rule if few
//! others share its hash key, its prefix, or its range. One that is good at nearly all rules is tried
//! with all. The two that are good at the most are tried with those, and the rest are assigned by
//! themselves in the same way.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash as StdHash};

use packet::Field;

use super::cost::Cost;
use super::entry::{Entries, View};
use super::group::{Indexed, Kind, Part, search};
use super::hasher::Quick;
use super::lanes::NO_ROW;
use super::linear::Linear;
use super::rows::Rows;
use super::{Lookup, sample};
use crate::condition::{Key, Subject};

/// Rules up to which nothing but a list is tried.
const FEW: usize = 4;
/// Rules above which a list is not tried: the others are quicker by far.
const LIST_MAX: usize = 128;
/// Nanoseconds of a search among parts that the model does not count: reading lanes.
const PARTS: f64 = 8.0;
/// Keys that a candidate is tried with.
const SAMPLES: usize = 256;
/// Rules that may share a key in a classifier that is good at them.
const CROWD: u32 = 32;
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

/// Assigns the rules of a group. None if they are best searched in turn.
pub(super) fn assign(entries: &Entries, seed: u64) -> Option<Indexed> {
    if entries.len() <= FEW {
        return None;
    }
    let assignment = Assignment { entries, rows: Rows::new(entries), keys: sample::keys(entries, SAMPLES), seed };
    let all: Vec<u32> = entries.rows().collect();
    let Candidate { parts, ns } = assignment.plan(&all, DEPTH);
    if entries.len() <= LIST_MAX {
        let linear = Linear::new(entries);
        let mut cost = Cost::default();
        for key in &assignment.keys {
            let _ = linear.best_metered(key, None, &mut cost);
        }
        if cost.ns <= ns + PARTS * assignment.keys.len() as f64 {
            return None;
        }
    }
    Some(Indexed::new(assignment.rows, parts))
}

struct Assignment<'a> {
    entries: &'a Entries,
    rows: Rows,
    keys: Vec<Key>,
    seed: u64,
}

struct Candidate {
    parts: Vec<Part>,
    ns: f64,
}

impl Assignment<'_> {
    fn plan(&self, of: &[u32], depth: usize) -> Candidate {
        let mut splits: Vec<_> = self.kinds(of).into_iter().map(|kind| (kind, self.split(kind, of))).collect();
        splits.sort_by_key(|(kind, split)| (preference(*kind), split.rest.len()));
        let mut best: Option<Candidate> = None;
        let offer = |best: &mut Option<Candidate>, parts: Vec<Part>| {
            let candidate = self.candidate(parts);
            if best.as_ref().is_none_or(|best| candidate.ns < best.ns) {
                *best = Some(candidate);
            }
        };
        let is_settled = |best: &Option<Candidate>| {
            of.len() > SMALL && best.as_ref().is_some_and(|best| best.ns <= ENOUGH * self.keys.len() as f64)
        };
        for (kind, split) in &splits {
            // Building what cannot win takes most of the time: a classifier with many crowds.
            let hopeful = split.rest.len() <= HOPEFUL || *kind == Kind::Hash;
            if !is_settled(&best) && (hopeful || depth == 0 || of.len() <= SMALL) {
                self.part(*kind, of).into_iter().for_each(|part| offer(&mut best, vec![part]));
            }
        }
        if depth > 0 && of.len() > CROWD as usize && !is_settled(&best) {
            // The rest of a rest is small, and trying twice at every step would be eight times.
            let branches = if depth == DEPTH { 2 } else { 1 };
            for (kind, split) in splits.iter().filter(|(_, split)| split.is_proper()).take(branches) {
                if let Some(part) = self.part(*kind, &split.good) {
                    let mut parts = self.plan(&split.rest, depth.saturating_sub(1)).parts;
                    parts.push(part);
                    offer(&mut best, parts);
                }
                // Another could only better what is good already.
                if split.rest.len() <= of.len() / MENTIONED {
                    break;
                }
            }
        }
        best.unwrap_or_else(|| self.candidate(self.part(Kind::Tuple, of).into_iter().collect()))
    }

    fn part(&self, kind: Kind, of: &[u32]) -> Option<Part> {
        Part::new(kind, self.entries, of, &self.rows, self.seed)
    }

    fn candidate(&self, mut parts: Vec<Part>) -> Candidate {
        parts.sort_by_key(Part::top);
        let mut cost = Cost::default();
        for key in &self.keys {
            search(&parts, &self.rows, key, NO_ROW, &mut cost);
        }
        Candidate { parts, ns: cost.ns }
    }

    /// The classifiers that are worth a try with these rules.
    fn kinds(&self, of: &[u32]) -> Vec<Kind> {
        let some = of.len().div_ceil(MENTIONED);
        let said = |says: &dyn Fn(&View<'_>) -> bool| {
            self.entries.of(of).filter(|(_, entry)| says(entry)).nth(some.saturating_sub(1)).is_some()
        };
        let mut kinds = vec![Kind::Tuple];
        let mut masks = self.entries.of(of).map(|(_, entry)| entry.mask);
        if let Some(first) = masks.next()
            && masks.all(|mask| mask == first)
        {
            kinds = vec![Kind::Hash];
        }
        if of.len() <= LIST_MAX {
            kinds.push(Kind::List);
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

    fn split(&self, kind: Kind, of: &[u32]) -> Split {
        match kind {
            Kind::Trie(field) => self.split_by(of, |entry| entry.prefix(field).filter(|(_, _, len)| *len > 0)),
            Kind::Interval(subject) => self.split_by(of, |entry| entry.interval(subject)),
            Kind::Tuple => self.split_by(of, |entry| Some(entry.mask)),
            // All rules or none.
            Kind::Linear | Kind::List | Kind::Hash => Split { good: Vec::new(), rest: of.to_vec() },
        }
    }

    fn split_by<K: StdHash>(&self, of: &[u32], key: impl Fn(&View<'_>) -> Option<K>) -> Split {
        // Two that have the same hash seem to be one crowd, which is no great harm.
        let hash = |entry: &View<'_>| key(entry).map(|key| Quick::default().hash_one(key));
        let hashes: Vec<_> = self.entries.of(of).map(|(row, entry)| (row, hash(&entry))).collect();
        let mut crowds: HashMap<u64, u32, Quick> = HashMap::default();
        for hash in hashes.iter().filter_map(|(_, hash)| *hash) {
            let crowd = crowds.entry(hash).or_default();
            *crowd = crowd.saturating_add(1);
        }
        let is_good = |hash: Option<u64>| hash.and_then(|hash| crowds.get(&hash)).is_some_and(|crowd| *crowd <= CROWD);
        let (good, rest): (Vec<_>, Vec<_>) = hashes.into_iter().partition(|(_, hash)| is_good(*hash));
        let only_rows = |these: Vec<(u32, Option<u64>)>| these.into_iter().map(|(row, _)| row).collect();
        Split { good: only_rows(good), rest: only_rows(rest) }
    }
}

/// Which classifiers are tried first. A hash table is one step, if it is possible at all; a trie finds
/// its rules with the fewest steps; tuple space search is good at most rules but takes many, so it is for
/// what the others leave.
const fn preference(kind: Kind) -> u8 {
    match kind {
        Kind::Hash => 0,
        Kind::Trie(_) => 1,
        Kind::Interval(_) => 2,
        Kind::Tuple | Kind::Linear | Kind::List => 3,
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
