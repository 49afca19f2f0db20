// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A condition with a long list of values, tested by binary search instead of by one entry per value.

use packet::Field;

use crate::condition::{Condition, IpVersion, Key, Subject, Value};

/// The values of a condition as disjoint sorted intervals.
#[derive(Debug)]
pub(super) struct ListTest {
    subject: Subject,
    ip_version: Option<Field>,
    /// Numbers that count whatever the IP version is.
    any: Vec<(u128, u128)>,
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl ListTest {
    pub(super) fn new(condition: &Condition) -> Self {
        let (mut any, mut v4, mut v6) = (Vec::new(), Vec::new(), Vec::new());
        for value in condition.values() {
            match *value {
                Value::Exact(value) => any.push((value, value)),
                Value::Range { lo, hi } => any.push((lo, hi)),
                Value::Prefix { version, value, len } => {
                    let last = value | !version.prefix_mask(len) & version.prefix_mask(u8::MAX);
                    match version {
                        IpVersion::V4 => v4.push((value, last)),
                        IpVersion::V6 => v6.push((value, last)),
                    }
                }
            }
        }
        let subject = condition.subject();
        Self { subject, ip_version: subject.ip_version(), any: merged(any), v4: merged(v4), v6: merged(v6) }
    }

    #[inline]
    pub(super) fn passes(&self, key: &Key) -> bool {
        let value = key.get(self.subject);
        if contains(&self.any, value) {
            return true;
        }
        match self.ip_version.map(|field| key.ufid.get(field)) {
            // An IPv4 packet's address has 32 bits; nothing else is defined.
            Some(4) => contains(&self.v4, value & u128::from(u32::MAX)),
            Some(6) => contains(&self.v6, value),
            _ => false,
        }
    }
}

/// Sorts intervals and joins those that touch.
pub(super) fn merged(mut intervals: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    intervals.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(intervals.len());
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
