// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group, compiled: one or more classifiers that share its rules.

use packet::Field;

use super::Lookup;
use super::assign::assign;
use super::entry::Entries;
use super::interval::Interval;
use super::lanes::NO_ROW;
use super::linear::Linear;
use super::meter::Meter;
use super::nodes::{At, NOWHERE, Nodes, Tree};
use super::rank::Rank;
use super::rows::{Query, Rows};
use super::rule::{CompileError, Rule, Selection};
use super::trie::Trie;
use super::tuple::Tuple;
use crate::condition::{Key, Subject};

/// Classifiers of a group whose searches begin at once, so that one need not wait for another's memory.
const AT_ONCE: usize = 4;

/// A kind of classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rules packed in one array, the best first: the oracle of all others, and the best for a few rules.
    /// It has all rules of its group.
    Linear,
    /// The most selective checks of rules in one array: for what is left over by others.
    List,
    /// A hash table of rules that all fix the same bits.
    Hash,
    /// A trie of this address.
    Trie(Field),
    /// An interval tree of this subject.
    Interval(Subject),
    /// A hash table for each set of fixed bits.
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
pub struct Compiled(Inner);

#[derive(Debug)]
enum Inner {
    Linear(Linear),
    Indexed(Indexed),
}

/// Rows, and classifiers that find them.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) rows: Rows,
    /// Ascending in their best row.
    pub(super) parts: Vec<Part>,
}

/// A classifier of some rows of a group.
#[derive(Debug)]
pub(super) struct Part {
    /// The best row.
    top: u32,
    kind: Kind,
    len: usize,
    index: Index,
}

#[derive(Debug)]
enum Index {
    List(Nodes),
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
        Self(assign(entries, seed).map_or_else(|| Inner::Linear(Linear::new(entries)), Inner::Indexed))
    }

    /// All rules in one classifier of this kind, if it can have them.
    #[must_use]
    pub fn single(kind: Kind, entries: &Entries, seed: u64) -> Option<Self> {
        if kind == Kind::Linear {
            return Some(Self(Inner::Linear(Linear::new(entries))));
        }
        let rows = Rows::new(entries);
        let of: Vec<u32> = entries.rows().collect();
        let parts = vec![Part::new(kind, entries, &of, &rows, seed)?];
        Some(Self(Inner::Indexed(Indexed { rows, parts })))
    }

    /// Rules dealt to classifiers in turn, for tests of how these are searched together.
    #[cfg(test)]
    pub(super) fn dealt(kinds: &[Kind], entries: &Entries, seed: u64) -> Self {
        let rows = Rows::new(entries);
        let hand = |at: usize| entries.rows().skip(at).step_by(kinds.len()).collect::<Vec<_>>();
        let deal = |(at, kind): (usize, &Kind)| Part::new(*kind, entries, &hand(at), &rows, seed);
        let mut parts: Vec<_> = kinds.iter().enumerate().filter_map(deal).collect();
        parts.sort_by_key(Part::top);
        Self(Inner::Indexed(Indexed { rows, parts }))
    }

    /// The classifiers in the order in which they are searched, and how many entries each has.
    #[must_use]
    pub fn parts(&self) -> Vec<(Kind, usize)> {
        match &self.0 {
            Inner::Linear(list) => vec![(Kind::Linear, list.len())],
            Inner::Indexed(indexed) => indexed.parts.iter().map(|part| (part.kind, part.len)).collect(),
        }
    }

    /// What it takes of memory, in bytes, without long lists of values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Inner::Linear(list) => list.bytes(),
            Inner::Indexed(Indexed { rows, parts }) => parts.iter().map(Part::bytes).sum::<usize>() + rows.bytes(),
        }
    }
}

impl Lookup for Compiled {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        match &self.0 {
            Inner::Linear(list) => list.best_metered(key, beat, meter),
            Inner::Indexed(Indexed { rows, parts }) => {
                let bound = rows.beating(beat);
                let best = search(parts, rows, key, bound, meter);
                if best < bound { rows.rank(best) } else { None }
            }
        }
    }

    fn top(&self) -> Option<Rank> {
        match &self.0 {
            Inner::Linear(list) => list.top(),
            Inner::Indexed(Indexed { rows, .. }) => rows.rank(0),
        }
    }
}

impl Part {
    /// Of rows, ascending.
    pub(super) fn new(kind: Kind, entries: &Entries, of: &[u32], rows: &Rows, seed: u64) -> Option<Self> {
        let index = match kind {
            Kind::Linear => return None,
            Kind::List => {
                let items: Vec<_> = entries.of(of).map(|(row, entry)| rows.lanes.item(row, entry, None)).collect();
                Index::List(Tree { parents: &[NO_ROW], ends: &[items.len()], items: &items }.grow()?.0)
            }
            Kind::Hash => Index::Tuple(Some(Tuple::new(entries, of, rows, seed)).filter(Tuple::is_single)?),
            Kind::Trie(field) => Index::Trie(Trie::new(entries, of, field, rows)?),
            Kind::Interval(subject) => Index::Interval(Interval::new(entries, of, subject, rows)?),
            Kind::Tuple => Index::Tuple(Tuple::new(entries, of, rows, seed)),
        };
        Some(Self { top: of.first().copied().unwrap_or(NO_ROW), kind, len: of.len(), index })
    }

    pub(super) const fn top(&self) -> u32 {
        self.top
    }

    fn bytes(&self) -> usize {
        match &self.index {
            Index::List(nodes) => nodes.bytes(),
            Index::Trie(trie) => trie.bytes(),
            Index::Interval(tree) => tree.bytes(),
            Index::Tuple(tables) => tables.bytes(),
        }
    }

    /// Where a search begins.
    #[inline]
    fn enter<M: Meter>(&self, query: &Query<'_>, meter: &mut M) -> At {
        match &self.index {
            Index::List(_) => Nodes::FIRST,
            Index::Trie(trie) => trie.enter(query, meter),
            Index::Interval(tree) => tree.enter(query, meter),
            Index::Tuple(_) => NOWHERE,
        }
    }

    /// The best matching row if it is better than `best`, else `best`.
    #[inline]
    fn search<M: Meter>(&self, at: At, rows: &Rows, query: &Query<'_>, best: u32, meter: &mut M) -> u32 {
        match &self.index {
            Index::List(nodes) => nodes.search(at, rows, query, best, meter),
            Index::Trie(trie) => trie.nodes.search(at, rows, query, best, meter),
            Index::Interval(tree) => tree.nodes.search(at, rows, query, best, meter),
            Index::Tuple(tables) => tables.search(rows, query, best, meter),
        }
    }
}

/// The best matching row in any of `parts`, which ascend in their best, that is better than `bound`.
#[inline]
pub(super) fn search<M: Meter>(parts: &[Part], rows: &Rows, key: &Key, bound: u32, meter: &mut M) -> u32 {
    let query = rows.query(key);
    let mut best = bound;
    for parts in parts.chunks(AT_ONCE) {
        let mut doors = [NOWHERE; AT_ONCE];
        for (door, part) in doors.iter_mut().zip(parts) {
            *door = part.enter(&query, meter);
        }
        for (door, part) in doors.into_iter().zip(parts) {
            if part.top >= best {
                return best;
            }
            best = part.search(door, rows, &query, best, meter);
        }
    }
    best
}
