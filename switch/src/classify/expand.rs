// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How rules become entries.
//!
//! A condition with several values makes an entry of each; of several such conditions every
//! combination would be one, so only the most selective is always expanded. The others are as long as
//! there are few combinations, and else stay lists that a match must pass.

use std::collections::HashMap;

use super::check::{Check, checks, is_checkable, single_word};
use super::entry::{Entry, Mask, Term, merge};
use super::hasher::Quick;
use super::list::{ListTest, merged};
use super::rank::Rank;
use super::rule::{CompileError, MAX_ENTRIES, MAX_EXPANSION, Rule, Selection};
use crate::condition::{Condition, Subject, Value};

/// Entries of a rule up to which further conditions are expanded.
const CHEAP_EXPANSION: usize = 16;

/// The entries of the rules so far.
pub(super) struct Expansion {
    selection: Selection,
    pub(super) all: Vec<Entry>,
    pub(super) terms: Vec<Term>,
    pub(super) list_places: Vec<u32>,
    pub(super) lists: Vec<ListTest>,
    pub(super) masks: Vec<Mask>,
    numbers: HashMap<Mask, u32, Quick>,
    checks: Vec<Check>,
    bits: Vec<(u8, u64)>,
}

/// A condition that can be expanded, and into what.
struct Choice<'a> {
    condition: &'a Condition,
    values: Vec<Value>,
    /// Bits that its vaguest value fixes.
    bits: u32,
}

impl Expansion {
    pub(super) fn new(selection: Selection) -> Self {
        Self {
            selection,
            all: Vec::new(),
            terms: Vec::new(),
            list_places: Vec::new(),
            lists: Vec::new(),
            masks: Vec::new(),
            numbers: HashMap::default(),
            checks: Vec::new(),
            bits: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, order: usize, rule: Rule<'_>) -> Result<(), CompileError> {
        let selector = match self.selection {
            Selection::Priority => None,
            Selection::LongestPrefix(field) => Some((field, Subject::Field(field))),
        };
        let conditions = rule.conditions.as_slice();
        if let Some((field, subject)) = selector {
            let selecting = conditions.iter().find(|condition| condition.subject() == subject);
            let is_prefix = |value: &Value| matches!(value, Value::Prefix { .. });
            if selecting.is_some_and(|condition| condition.spans() || !condition.values().iter().all(is_prefix)) {
                return Err(CompileError::NotAPrefix { rule: order, field });
            }
        }
        let single = |condition: &Condition| match condition.values() {
            [value] if is_checkable(condition.subject(), *value) => Some(Term::new(condition.subject(), *value)),
            _ => None,
        };
        // Most rules are single-valued already.
        let first = self.terms.len();
        self.terms.extend(conditions.iter().map_while(single));
        if self.terms.len().saturating_sub(first) == conditions.len() {
            return self.push(order, rule.priority, first, (0, 0));
        }
        self.terms.truncate(first);
        self.expand(order, rule, selector.map(|(_, subject)| subject))
    }

    fn expand(&mut self, order: usize, rule: Rule<'_>, selector: Option<Subject>) -> Result<(), CompileError> {
        let first_list = self.list_places.len();
        let mut choices = Vec::new();
        for condition in rule.conditions.as_slice() {
            let subject = condition.subject();
            if condition.values().iter().all(|value| is_checkable(subject, *value)) {
                choices.push(Choice::new(condition));
            } else {
                self.list(condition);
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
                self.list(choice.condition);
                continue;
            }
            combinations = product(combinations, choice.condition.subject(), &choice.values);
        }
        // There are fewer subjects than a byte counts.
        let lists = self.list_places.len().saturating_sub(first_list).try_into().unwrap_or(u8::MAX);
        for terms in combinations {
            let first = self.terms.len();
            self.terms.extend(terms);
            self.push(order, rule.priority, first, (place(first_list), lists))?;
        }
        Ok(())
    }

    /// Makes an entry of the terms from a place on, unless no key can match because two conditions want
    /// different things of the same bits: an IPv4 source and an IPv6 destination.
    fn push(&mut self, order: usize, priority: u32, first: usize, lists: (u32, u8)) -> Result<(), CompileError> {
        let terms = self.terms.get(first..).unwrap_or_default();
        let Some(fixed) = merge(terms, &mut self.checks) else {
            self.terms.truncate(first);
            return Ok(());
        };
        self.bits.clear();
        self.bits.extend(self.checks.iter().take(fixed).map(|check| (check.word, check.mask)));
        let mask = match self.numbers.get(self.bits.as_slice()) {
            Some(number) => *number,
            None => {
                let number = place(self.masks.len());
                self.masks.push(self.bits.as_slice().into());
                self.numbers.insert(self.bits.as_slice().into(), number);
                number
            }
        };
        let len = match self.selection {
            Selection::Priority => 0,
            Selection::LongestPrefix(field) => {
                terms.iter().find(|term| term.subject == Subject::Field(field)).map_or(0, prefix_len)
            }
        };
        let rank = u32::try_from(order).ok().and_then(|order| Rank::new(len, priority, order));
        let rank = rank.ok_or(CompileError::TooManyRules)?;
        if self.all.len() >= MAX_ENTRIES {
            return Err(CompileError::TooManyEntries { rule: order });
        }
        let terms = (place(first), u8::try_from(terms.len()).unwrap_or(u8::MAX));
        self.all.push(Entry { rank, terms, lists, mask });
        Ok(())
    }

    fn list(&mut self, condition: &Condition) {
        self.list_places.push(place(self.lists.len()));
        self.lists.push(ListTest::new(condition));
    }
}

/// Fewer than 2^32, because there are fewer than [`MAX_ENTRIES`] entries.
fn place(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
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
        combinations.iter_mut().for_each(|combination| combination.push(Term::new(subject, value)));
        return combinations;
    }
    let with = |combination: &[Term], value| [combination, &[Term::new(subject, value)]].concat();
    let of_each = |combination: &Vec<Term>| values.iter().map(|value| with(combination, *value)).collect::<Vec<_>>();
    combinations.iter().flat_map(of_each).collect()
}

fn prefix_len(term: &Term) -> u8 {
    match term.value() {
        Value::Prefix { len, .. } => len,
        Value::Exact(_) | Value::Range { .. } => 0,
    }
}
