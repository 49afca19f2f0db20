// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group, compiled: one or more classifiers that share its rules.

use packet::Field;

use super::Lookup;
use super::assign::assign;
use super::entry::{CompileError, Entries, Rule, Selection};
use super::hash::Hash;
use super::interval::Interval;
use super::linear::Linear;
use super::meter::Meter;
use super::rank::Rank;
use super::trie::Trie;
use super::tuple::Tuple;
use crate::condition::{Key, Subject};

/// A kind of classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Linear`].
    Linear,
    /// [`struct@Hash`].
    Hash,
    /// [`Trie`] of this address.
    Trie(Field),
    /// [`Interval`] of this subject.
    Interval(Subject),
    /// [`Tuple`].
    Tuple,
}

/// The rules of a group, ready to be searched.
///
/// ```
/// use packet::Field;
/// use switch::classify::{Compiled, Lookup, Rule, Selection};
/// use switch::condition::{Condition, Conditions, Key, Subject, Value};
///
/// let port = Subject::Field(Field::L4Dst);
/// let web = Condition::new(port, vec![Value::Exact(80), Value::Exact(443)])?;
/// let (web, any) = (Conditions::new(vec![web])?, Conditions::default());
/// let rules = [Rule { priority: 1, conditions: &any }, Rule { priority: 2, conditions: &web }];
/// let group = Compiled::new(rules, Selection::Priority, 42)?;
///
/// let mut key = Key::default();
/// assert_eq!(group.best(&key, None).unwrap().rule(), 0);
/// key.set(port, 443);
/// assert_eq!(group.best(&key, None).unwrap().rule(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Compiled {
    /// Descending in their best rank.
    parts: Vec<Part>,
}

/// A classifier and the best rank of its rules.
#[derive(Debug)]
pub(super) struct Part {
    top: Option<Rank>,
    kind: Kind,
    rules: usize,
    classifier: Classifier,
}

#[derive(Debug)]
enum Classifier {
    Linear(Linear),
    Hash(Hash),
    Trie(Trie),
    Interval(Interval),
    Tuple(Tuple),
}

impl Compiled {
    /// Assigns the rules to classifiers and builds these. `seed` is that of the hash tables.
    ///
    /// # Errors
    /// Which rule cannot be compiled, and why.
    pub fn new<'a>(
        rules: impl IntoIterator<Item = Rule<'a>>,
        selection: Selection,
        seed: u64,
    ) -> Result<Self, CompileError> {
        Ok(Self::from_entries(&Entries::new(rules, selection)?, seed))
    }

    /// The same of rules already expanded.
    #[must_use]
    pub fn from_entries(entries: &Entries, seed: u64) -> Self {
        Self { parts: assign(entries, seed) }
    }

    /// All rules in one classifier of this kind, if it can have them.
    #[must_use]
    pub fn single(kind: Kind, entries: &Entries, seed: u64) -> Option<Self> {
        Some(Self { parts: vec![Part::new(kind, entries, seed)?] })
    }

    /// Rules dealt to classifiers in turn, for tests of how these are searched together.
    #[cfg(test)]
    pub(super) fn dealt(kinds: &[Kind], entries: &Entries, seed: u64) -> Self {
        let hand = |at: usize| (0..).take(entries.len()).skip(at).step_by(kinds.len()).collect::<Vec<u32>>();
        let hands = kinds.iter().enumerate().map(|(at, kind)| (kind, entries.select(&hand(at))));
        let mut parts: Vec<_> = hands.filter_map(|(kind, entries)| Part::new(*kind, &entries, seed)).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.top()));
        Self { parts }
    }

    /// The classifiers in the order in which they are searched, and how many entries each has.
    pub fn parts(&self) -> impl Iterator<Item = (Kind, usize)> + '_ {
        self.parts.iter().map(|part| (part.kind, part.rules))
    }
}

impl Lookup for Compiled {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        search(&self.parts, key, beat, meter)
    }

    fn top(&self) -> Option<Rank> {
        self.parts.first().and_then(Part::top)
    }
}

impl Part {
    pub(super) fn new(kind: Kind, entries: &Entries, seed: u64) -> Option<Self> {
        let classifier = match kind {
            Kind::Linear => Classifier::Linear(Linear::new(entries)),
            Kind::Hash => Classifier::Hash(Hash::new(entries, seed)?),
            Kind::Trie(field) => Classifier::Trie(Trie::new(entries, field)?),
            Kind::Interval(subject) => Classifier::Interval(Interval::new(entries, subject)?),
            Kind::Tuple => Classifier::Tuple(Tuple::new(entries, seed)),
        };
        let top = match &classifier {
            Classifier::Linear(list) => list.top(),
            Classifier::Hash(table) => table.top(),
            Classifier::Trie(trie) => trie.top(),
            Classifier::Interval(tree) => tree.top(),
            Classifier::Tuple(tables) => tables.top(),
        };
        Some(Self { top, kind, rules: entries.len(), classifier })
    }

    pub(super) fn tuple(entries: &Entries, seed: u64) -> Self {
        let tables = Tuple::new(entries, seed);
        Self { top: tables.top(), kind: Kind::Tuple, rules: entries.len(), classifier: Classifier::Tuple(tables) }
    }

    pub(super) const fn top(&self) -> Option<Rank> {
        self.top
    }
}

/// The best rank of a match in any of `parts`, which descend in their best, that beats `beat`.
#[inline]
pub(super) fn search<M: Meter>(parts: &[Part], key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
    let mut found = None;
    for part in parts {
        let beat = found.or(beat);
        if Rank::bits(part.top) <= Rank::bits(beat) {
            break;
        }
        let better = match &part.classifier {
            Classifier::Linear(list) => list.best_metered(key, beat, meter),
            Classifier::Hash(table) => table.best_metered(key, beat, meter),
            Classifier::Trie(trie) => trie.best_metered(key, beat, meter),
            Classifier::Interval(tree) => tree.best_metered(key, beat, meter),
            Classifier::Tuple(tables) => tables.best_metered(key, beat, meter),
        };
        found = better.or(found);
    }
    found
}
