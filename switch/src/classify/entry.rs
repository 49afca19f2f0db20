// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules as classifiers want them: entries that are single-valued in every subject.
//!
//! A condition with several values makes an entry of each; of several such conditions every
//! combination would be one, so only the most selective is always expanded. The others are as long as
//! there are few combinations, and else stay lists that a match must pass.

use std::sync::Arc;

use packet::Field;
use thiserror::Error;

use super::check::{Check, checks, is_checkable, single_word};
use super::list::{ListTest, merged};
use super::rank::Rank;
use crate::condition::{Condition, Conditions, IpVersion, Subject, Value};

/// Entries that the most selective condition of a rule may make.
pub const MAX_EXPANSION: usize = 4096;
/// Entries of a rule up to which further conditions are expanded.
const CHEAP_EXPANSION: usize = 16;
/// Entries of a group; with all tables about 1 GB.
const MAX_ENTRIES: usize = 1 << 22;

/// A rule to be compiled. Its place in the group is its place in the sequence.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The higher wins; of equals the earlier rule.
    pub priority: u32,
    /// What it matches.
    pub conditions: &'a Conditions,
}

/// Which of the matching rules of a group wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// The one with the highest priority.
    #[default]
    Priority,
    /// The one with the longest prefix of this address, whatever its priority; without a condition on
    /// it the length is 0. Of equals the one with the highest priority. Only prefixes have a length: a
    /// number is refused, and so is a range of addresses, though prefixes can be made of it.
    LongestPrefix(Field),
}

/// Why a group cannot be compiled. The text does not name the rule: only the caller knows its name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Longest-prefix selection by something that is no address.
    #[error("{}: not an IP address, so it has no longest prefix", field.label())]
    NotAnAddress {
        /// The field.
        field: Field,
    },
    /// A number or a range where the group needs to know a prefix length.
    #[error("{}: the group selects by its longest prefix, so every value must be a prefix", field.label())]
    NotAPrefix {
        /// Place of the rule, from 0.
        rule: usize,
        /// The field.
        field: Field,
    },
    /// Lists of values that together make the group too large.
    #[error("with it the group has more than {MAX_ENTRIES} combinations of values")]
    TooManyEntries {
        /// Place of the rule, from 0.
        rule: usize,
    },
    /// More rules than a group holds.
    #[error("the group has more than {} rules", Rank::MAX_RULES)]
    TooManyRules,
    /// A list too long for a longest-prefix group.
    #[error("{subject}: a list of {values} prefixes; a longest-prefix group allows {MAX_EXPANSION}")]
    TooManyValues {
        /// Place of the rule, from 0.
        rule: usize,
        /// The condition's subject.
        subject: Subject,
        /// How many it lists.
        values: usize,
    },
}

impl CompileError {
    /// Place of the rule that it is about, from 0, if it is about one.
    #[must_use]
    pub const fn rule(&self) -> Option<usize> {
        match self {
            Self::NotAPrefix { rule, .. } | Self::TooManyEntries { rule } | Self::TooManyValues { rule, .. } => {
                Some(*rule)
            }
            Self::NotAnAddress { .. } | Self::TooManyRules => None,
        }
    }
}

/// The rules of a group, expanded; the best first.
#[derive(Clone, Debug)]
pub struct Entries {
    all: Arc<[Entry]>,
    /// Those of `all` that these are, ascending.
    places: Vec<u32>,
    pub(super) lists: Arc<[ListTest]>,
}

/// One combination of values of a rule.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) terms: Vec<Term>,
    /// Equalities, one a word and by word, then ranges.
    checks: Vec<Check>,
    /// How many are equalities.
    fixed: usize,
    /// Places in [`Entries::lists`] of what else must hold.
    pub(super) lists: Vec<u32>,
}

/// One single-valued condition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub(super) subject: Subject,
    pub(super) value: Value,
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
        let mut expansion = Expansion { selection, all: Vec::new(), lists: Vec::new() };
        for (order, rule) in rules.into_iter().enumerate() {
            expansion.add(order, rule)?;
        }
        expansion.all.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.rank));
        let places = (0..).take(expansion.all.len()).collect();
        Ok(Self { all: expansion.all.into(), places, lists: expansion.lists.into() })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing can match.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// From the best on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().filter_map(|at| self.all.get(*at as usize))
    }

    /// The entry at a place.
    pub(super) fn get(&self, at: u32) -> Option<&Entry> {
        self.places.get(at as usize).and_then(|at| self.all.get(*at as usize))
    }

    /// Those at these places, which ascend.
    pub(super) fn select(&self, places: &[u32]) -> Self {
        let places = places.iter().filter_map(|at| self.places.get(*at as usize).copied()).collect();
        Self { all: Arc::clone(&self.all), places, lists: Arc::clone(&self.lists) }
    }
}

impl Entry {
    /// None if no key can match, because two conditions want different things of the same bits: an IPv4
    /// source and an IPv6 destination.
    fn new(rank: Rank, terms: Vec<Term>, lists: Vec<u32>) -> Option<Self> {
        let mut checks = Vec::with_capacity(terms.len().saturating_add(1));
        let fixed = merge(&terms, None, &mut checks)?;
        Some(Self { rank, terms, checks, fixed, lists })
    }

    /// What it fixes: one equality a word, by word.
    pub(super) fn fixed(&self) -> &[Check] {
        self.checks.get(..self.fixed).unwrap_or_default()
    }

    /// The prefix of an address of IP packets that it needs, if that is what it says of it.
    pub(super) fn prefix(&self, field: Field) -> Option<(IpVersion, u128, u8)> {
        match self.term(Subject::Field(field))?.value {
            Value::Prefix { version: IpVersion::Arp, .. } | Value::Exact(_) | Value::Range { .. } => None,
            Value::Prefix { version, value, len } => Some((version, value, len)),
        }
    }

    /// The interval of numbers that it admits of a subject that fits in a word, if it names one.
    pub(super) fn interval(&self, subject: Subject) -> Option<(u64, u64)> {
        let (lo, hi) = match self.term(subject)?.value {
            Value::Exact(value) => (value, value),
            Value::Range { lo, hi } => (lo, hi),
            Value::Prefix { .. } => return None,
        };
        Some((u64::try_from(lo).ok()?, u64::try_from(hi).ok()?))
    }

    /// All checks but those that one subject needs.
    pub(super) fn checks_but(&self, except: Option<Subject>, out: &mut Vec<Check>) {
        out.clear();
        if except.is_some_and(|subject| self.term(subject).is_some()) {
            // Without a term there is no more that it could contradict.
            let _ = merge(&self.terms, except, out);
        } else {
            out.extend_from_slice(&self.checks);
        }
    }

    fn term(&self, subject: Subject) -> Option<&Term> {
        self.terms.iter().find(|term| term.subject == subject)
    }
}

/// Collects the checks of terms, the equalities of a word as one. How many equalities there are, or
/// None if two contradict each other.
fn merge(terms: &[Term], except: Option<Subject>, out: &mut Vec<Check>) -> Option<usize> {
    let mut void = false;
    for term in terms.iter().filter(|term| Some(term.subject) != except) {
        checks(term.subject, term.value, |check| {
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

struct Expansion {
    selection: Selection,
    all: Vec<Entry>,
    lists: Vec<ListTest>,
}

/// A condition that can be expanded, and into what.
struct Choice<'a> {
    condition: &'a Condition,
    values: Vec<Value>,
    /// Bits that its vaguest value fixes.
    bits: u32,
}

impl Expansion {
    fn add(&mut self, order: usize, rule: Rule<'_>) -> Result<(), CompileError> {
        let place = u32::try_from(order).map_err(|_| CompileError::TooManyRules)?;
        let selector = match self.selection {
            Selection::Priority => None,
            Selection::LongestPrefix(field) => Some(Subject::Field(field)),
        };
        let mut lists = Vec::new();
        let mut choices = Vec::new();
        for condition in rule.conditions.as_slice() {
            let prefixes =
                !condition.spans() && condition.values().iter().all(|value| matches!(value, Value::Prefix { .. }));
            if let (Selection::LongestPrefix(field), true) =
                (self.selection, Some(condition.subject()) == selector && !prefixes)
            {
                return Err(CompileError::NotAPrefix { rule: order, field });
            }
            let subject = condition.subject();
            if condition.values().iter().all(|value| is_checkable(subject, *value)) {
                choices.push(Choice::new(condition));
            } else {
                lists.push(self.list(condition));
            }
        }
        // What is single-valued costs nothing; then the selector, then the most selective.
        choices.sort_by_key(|choice| {
            let selects = Some(choice.condition.subject()) == selector;
            (choice.values.len() > 1, !selects, u32::MAX.saturating_sub(choice.bits))
        });
        let mut combinations: Vec<Vec<Term>> = vec![Vec::new()];
        for choice in choices {
            let values = choice.values.len();
            let selects = Some(choice.condition.subject()) == selector;
            let limit = if combinations.len() == 1 { MAX_EXPANSION } else { CHEAP_EXPANSION };
            if values > 1 && combinations.len().saturating_mul(values) > limit {
                if selects {
                    let subject = choice.condition.subject();
                    return Err(CompileError::TooManyValues { rule: order, subject, values });
                }
                lists.push(self.list(choice.condition));
                continue;
            }
            combinations = product(combinations, choice.condition.subject(), &choice.values);
        }
        if self.all.len().saturating_add(combinations.len()) > MAX_ENTRIES {
            return Err(CompileError::TooManyEntries { rule: order });
        }
        for terms in combinations {
            let len =
                selector.and_then(|subject| terms.iter().find(|term| term.subject == subject)).map_or(0, prefix_len);
            let rank = Rank::new(len, rule.priority, place).ok_or(CompileError::TooManyRules)?;
            self.all.extend(Entry::new(rank, terms, lists.clone()));
        }
        Ok(())
    }

    fn list(&mut self, condition: &Condition) -> u32 {
        let at = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        self.lists.push(ListTest::new(condition));
        at
    }
}

impl<'a> Choice<'a> {
    fn new(condition: &'a Condition) -> Self {
        let values = distinct(condition);
        let fixed = |value: &Value| {
            let mut bits = 0_u32;
            checks(condition.subject(), *value, |check| bits = bits.saturating_add(check.bits()));
            bits
        };
        let bits = match values.as_slice() {
            // It is not chosen among others.
            [_] => 0,
            several => several.iter().map(fixed).min().unwrap_or(0),
        };
        Self { condition, values, bits }
    }
}

/// The values of a condition with no two that say the same; numbers that touch are one range.
fn distinct(condition: &Condition) -> Vec<Value> {
    if let [one] = condition.values() {
        return vec![*one];
    }
    // Of what is wider than a word, neighbours stay apart: no check says that it lies in a range.
    let touching = single_word(condition.subject()).is_some();
    let mut numbers = Vec::new();
    let mut out = Vec::new();
    for value in condition.values() {
        match *value {
            Value::Exact(_) if !touching => out.push(*value),
            Value::Range { lo, hi } if !touching && lo == hi => out.push(Value::Exact(lo)),
            Value::Exact(value) => numbers.push((value, value)),
            Value::Range { lo, hi } => numbers.push((lo, hi)),
            prefix @ Value::Prefix { .. } => out.push(prefix),
        }
    }
    out.sort_unstable();
    out.dedup();
    out.extend(
        merged(numbers).into_iter().map(|(lo, hi)| if lo == hi { Value::Exact(lo) } else { Value::Range { lo, hi } }),
    );
    out
}

fn product(mut combinations: Vec<Vec<Term>>, subject: Subject, values: &[Value]) -> Vec<Vec<Term>> {
    if let [value] = *values {
        combinations.iter_mut().for_each(|combination| combination.push(Term { subject, value }));
        return combinations;
    }
    let with = |combination: &[Term], value| [combination, &[Term { subject, value }]].concat();
    let of_each = |combination: &Vec<Term>| values.iter().map(|value| with(combination, *value)).collect::<Vec<_>>();
    combinations.iter().flat_map(of_each).collect()
}

const fn prefix_len(term: &Term) -> u8 {
    match term.value {
        Value::Prefix { len, .. } => len,
        Value::Exact(_) | Value::Range { .. } => 0,
    }
}
