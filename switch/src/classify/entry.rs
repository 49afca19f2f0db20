// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules as classifiers want them: entries that are single-valued in every subject.

use std::ops::Range;
use std::sync::Arc;

use packet::Field;

use super::check::{Check, checks};
use super::expand::Expansion;
use super::list::ListTest;
use super::rank::Rank;
use super::rule::{CompileError, Rule, Selection};
use crate::condition::{IpVersion, Subject, Value};

/// The rules of a group, expanded; the best first. An entry's place is the number of its row.
#[derive(Debug)]
pub struct Entries {
    all: Vec<Entry>,
    terms: Vec<Term>,
    list_places: Vec<u32>,
    pub(super) lists: Arc<[ListTest]>,
    masks: Vec<Mask>,
}

/// Bits that entries fix: per word, ascending.
pub(super) type Mask = Box<[(u8, u64)]>;

/// One combination of values of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) terms: (u32, u8),
    pub(super) lists: (u32, u8),
    pub(super) mask: u32,
}

/// An entry with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) rank: Rank,
    pub(super) terms: &'a [Term],
    /// Places in [`Entries::lists`] of what else must hold.
    pub(super) lists: &'a [u32],
    /// The number of its mask: the same for all entries that fix the same bits.
    pub(super) mask: u32,
}

/// One single-valued condition, which checks can express. Packed, because there are many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// The ends of a range; of all else low and high half of a number.
    words: [u64; 2],
    pub(super) subject: Subject,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Exact,
    Range,
    Prefix { version: IpVersion, len: u8 },
}

impl Entries {
    /// Expands rules.
    ///
    /// # Errors
    /// Which rule cannot be compiled, and why.
    pub fn new<'a>(rules: impl IntoIterator<Item = Rule<'a>>, selection: Selection) -> Result<Self, CompileError> {
        if let Selection::LongestPrefix(field) = selection
            && Subject::Field(field).ip_version().is_none()
        {
            return Err(CompileError::NotAnAddress { field });
        }
        let mut expansion = Expansion::new(selection);
        for (order, rule) in rules.into_iter().enumerate() {
            expansion.add(order, rule)?;
        }
        let Expansion { mut all, terms, list_places, lists, masks, .. } = expansion;
        all.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.rank));
        Ok(Self { all, terms, list_places, lists: lists.into(), masks })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing can match.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// From the best on.
    pub(super) fn iter(&self) -> impl Iterator<Item = View<'_>> {
        self.all.iter().map(|entry| self.view(entry))
    }

    /// The numbers of all rows.
    pub(super) fn rows(&self) -> Range<u32> {
        0..u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, row: u32) -> Option<View<'_>> {
        self.all.get(row as usize).map(|entry| self.view(entry))
    }

    /// Those with these numbers, which are of rows.
    pub(super) fn of<'a>(&'a self, rows: &'a [u32]) -> impl Iterator<Item = (u32, View<'a>)> + Clone {
        rows.iter().filter_map(|row| Some((*row, self.get(*row)?)))
    }

    /// The bits that the entries with this number of a mask fix.
    pub(super) fn mask(&self, number: u32) -> &[(u8, u64)] {
        self.masks.get(number as usize).map(AsRef::as_ref).unwrap_or_default()
    }

    fn view(&self, entry: &Entry) -> View<'_> {
        View {
            rank: entry.rank,
            terms: part(&self.terms, entry.terms),
            lists: part(&self.list_places, entry.lists),
            mask: entry.mask,
        }
    }
}

fn part<T>(all: &[T], (start, len): (u32, u8)) -> &[T] {
    let start = start as usize;
    all.get(start..start.saturating_add(usize::from(len))).unwrap_or_default()
}

impl View<'_> {
    /// The prefix of an address of IP packets that it needs, if that is what it says of it.
    pub(super) fn prefix(&self, field: Field) -> Option<(IpVersion, u128, u8)> {
        match self.term(Subject::Field(field))?.form {
            Form::Prefix { version: IpVersion::Arp, .. } | Form::Exact | Form::Range => None,
            Form::Prefix { version, len } => Some((version, self.term(Subject::Field(field))?.number(), len)),
        }
    }

    /// The interval of numbers that it admits of a subject that fits in a word, if it names one.
    pub(super) fn interval(&self, subject: Subject) -> Option<(u64, u64)> {
        let term = self.term(subject)?;
        match term.form {
            Form::Exact => u64::try_from(term.number()).ok().map(|value| (value, value)),
            Form::Range => Some((term.words[0], term.words[1])),
            Form::Prefix { .. } => None,
        }
    }

    fn term(&self, subject: Subject) -> Option<&Term> {
        self.terms.iter().find(|term| term.subject == subject)
    }
}

impl Term {
    pub(super) fn new(subject: Subject, value: Value) -> Self {
        let number = |value: u128, form| Self { words: [low(value), low(value >> 64)], subject, form };
        match value {
            Value::Exact(value) => number(value, Form::Exact),
            Value::Range { lo, hi } if lo == hi => number(lo, Form::Exact),
            Value::Range { lo, hi } => Self { words: [low(lo), low(hi)], subject, form: Form::Range },
            Value::Prefix { version, value, len } => number(value, Form::Prefix { version, len }),
        }
    }

    pub(super) fn value(&self) -> Value {
        match self.form {
            Form::Exact => Value::Exact(self.number()),
            Form::Range => Value::Range { lo: self.words[0].into(), hi: self.words[1].into() },
            Form::Prefix { version, len } => Value::Prefix { version, value: self.number(), len },
        }
    }

    fn number(&self) -> u128 {
        u128::from(self.words[0]) | u128::from(self.words[1]) << 64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn low(value: u128) -> u64 {
    value as u64
}

/// Collects the checks of terms: equalities, one a word and by word, then ranges. How many equalities
/// there are, or None if two contradict each other.
pub(super) fn merge(terms: &[Term], out: &mut Vec<Check>) -> Option<usize> {
    out.clear();
    let mut void = false;
    for term in terms {
        checks(term.subject, term.value(), |check| {
            let same = |other: &&mut Check| other.is_equality() && other.word == check.word;
            match out.iter_mut().find(same).filter(|_| check.is_equality()) {
                Some(other) => {
                    void |= other.contradicts(&check);
                    other.mask |= check.mask;
                    other.lo |= check.lo;
                }
                None => out.push(check),
            }
        });
    }
    out.sort_unstable_by_key(|check| (!check.is_equality(), check.word));
    if void { None } else { Some(out.partition_point(Check::is_equality)) }
}
