// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A condition with a long list of values, tested by binary search instead of by one entry per value.

use packet::Field;

use crate::condition::{Condition, Key, Subject, Value};

/// The values of a condition as disjoint sorted intervals.
#[derive(Debug)]
pub(super) struct ListTest {
    subject: Subject,
    /// Numbers that count whatever the IP version is.
    any: Intervals,
    /// Of each IP version that has some: the field that says it, what it says then, and its numbers.
    versions: Vec<(Field, u128, Intervals)>,
}

/// Both ends included.
type Intervals = Vec<(u128, u128)>;

impl ListTest {
    pub(super) fn new(condition: &Condition) -> Self {
        let subject = condition.subject();
        let mut any = Vec::new();
        let mut versions: Vec<(Field, u128, Intervals)> = Vec::new();
        for value in condition.values() {
            match *value {
                Value::Exact(value) => any.push((value, value)),
                Value::Range { lo, hi } => any.push((lo, hi)),
                Value::Prefix { version, value, len } => {
                    let Some((field, says)) = version.says(subject) else { continue };
                    let interval = (value, value | !version.prefix_mask(len) & version.prefix_mask(u8::MAX));
                    match versions.iter_mut().find(|(other, said, _)| (*other, *said) == (field, says)) {
                        Some((_, _, intervals)) => intervals.push(interval),
                        None => versions.push((field, says, vec![interval])),
                    }
                }
            }
        }
        let versions = versions.into_iter().map(|(field, says, intervals)| (field, says, merged(intervals)));
        Self { subject, any: merged(any), versions: versions.collect() }
    }

    #[inline]
    pub(super) fn passes(&self, key: &Key) -> bool {
        let value = key.get(self.subject);
        contains(&self.any, value)
            || self.versions.iter().any(|(field, says, intervals)| {
                // An IPv4 address has 32 bits; what else may be there is not defined.
                let value = if *says == 6 { value } else { value & u128::from(u32::MAX) };
                key.ufid.get(*field) == *says && contains(intervals, value)
            })
    }
}

/// Sorts intervals and joins those that touch.
pub(super) fn merged(mut intervals: Intervals) -> Intervals {
    intervals.sort_unstable();
    let mut out = Intervals::with_capacity(intervals.len());
    for (lo, hi) in intervals {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    out
}

#[inline]
fn contains(intervals: &[(u128, u128)], value: u128) -> bool {
    let after = intervals.partition_point(|(lo, _)| *lo <= value);
    after.checked_sub(1).and_then(|at| intervals.get(at)).is_some_and(|(_, hi)| value <= *hi)
}
