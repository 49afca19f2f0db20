// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which groups of a layer a packet may be for, without asking each.
//!
//! # Theory of operation
//!
//! Hundreds of groups in a layer mostly differ in one field: each is for a network, or a port. So the values of the field that
//! most groups have a condition on are cut into *segments*, within which the same groups come into question, and each
//! segment has the set of those. A packet finds its segment by bisection; the conditions of the groups in the set
//! are then asked in full, so the sets may be too large, and never too small.

use crate::condition::{Condition, Conditions, Key, Subject, Value, low_bits};

/// Fewer groups are asked one by one.
const FEW: usize = 8;
/// More segments take more memory than they are worth: half a megabyte with 1024 groups.
const MAX_SEGMENTS: usize = 4096;

/// The sets of groups by segment.
#[derive(Debug)]
pub(crate) struct Gates {
    subject: Subject,
    /// Where segments begin; the first at 0.
    begins: Vec<u128>,
    /// A bit for each group, `width` words for each segment.
    sets: Vec<u64>,
    width: usize,
}

impl Gates {
    /// Of groups with these conditions, in order. `None`: better to ask them all.
    pub(crate) fn new<'a>(groups: impl ExactSizeIterator<Item = &'a Conditions> + Clone) -> Option<Self> {
        if groups.len() < FEW {
            return None;
        }
        let subject = commonest(groups.clone())?;
        let condition = |group: &'a Conditions| group.as_slice().iter().find(|held| held.subject() == subject);
        let mut begins: Vec<u128> = groups.clone().filter_map(condition).flat_map(ends).collect();
        begins.push(0);
        begins.sort_unstable();
        begins.dedup();
        if begins.len() > MAX_SEGMENTS {
            return None;
        }
        let width = groups.len().div_ceil(64);
        let mut sets = vec![0_u64; begins.len() * width];
        for (at, group) in groups.enumerate() {
            let mut admit = |from: usize, until: usize| {
                for set in sets.chunks_exact_mut(width).take(until).skip(from) {
                    set.iter_mut().skip(at / 64).take(1).for_each(|word| *word |= 1 << (at % 64));
                }
            };
            match condition(group) {
                None => admit(0, begins.len()),
                Some(condition) => condition.values().iter().map(span).for_each(|(lo, hi)| {
                    admit(begins.partition_point(|begin| *begin < lo), begins.partition_point(|begin| *begin <= hi));
                }),
            }
        }
        Some(Self { subject, begins, sets, width })
    }

    /// The places of all groups that may be for a packet, in order.
    pub(crate) fn open(&self, key: &Key) -> impl Iterator<Item = usize> {
        let value = key.get(self.subject);
        let segment = self.begins.partition_point(|begin| *begin <= value).saturating_sub(1);
        let set = self.sets.chunks_exact(self.width).nth(segment).unwrap_or_default();
        set.iter().zip((0..).step_by(64)).flat_map(|(word, first)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let at = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(first + at)
            })
        })
    }
}

/// The field that most groups have a condition on.
fn commonest<'a>(groups: impl Iterator<Item = &'a Conditions>) -> Option<Subject> {
    let mut counts: Vec<(Subject, usize)> = Vec::new();
    for condition in groups.flat_map(Conditions::as_slice) {
        match counts.iter_mut().find(|(subject, _)| *subject == condition.subject()) {
            Some((_, count)) => *count += 1,
            None => counts.push((condition.subject(), 1)),
        }
    }
    // Of several that are as common addresses tell more apart than ports, and those more than protocols.
    let (subject, count) = counts.into_iter().max_by_key(|(subject, count)| (*count, subject.bits()))?;
    (count >= FEW).then_some(subject)
}

/// Where something begins to be admitted by a condition, or ceases to be.
fn ends(condition: &Condition) -> impl Iterator<Item = u128> {
    condition.values().iter().map(span).flat_map(|(lo, hi)| [Some(lo), hi.checked_add(1)]).flatten()
}

/// The lowest and the highest number that a value admits, whatever it says beside that.
const fn span(value: &Value) -> (u128, u128) {
    match *value {
        Value::Exact(number) => (number, number),
        Value::Range { lo, hi } => (lo, hi),
        Value::Prefix { version, value, len } => {
            (value, value | (low_bits(version.bits()) & !version.prefix_mask(len)))
        }
    }
}

#[cfg(test)]
mod tests {
    use packet::Field;
    use proptest::prelude::*;

    use super::*;
    use crate::condition::IpVersion;

    const ADDRESS: Subject = Subject::Field(Field::IpDst);
    const PORT: Subject = Subject::Field(Field::L4Dst);

    fn condition() -> impl Strategy<Value = Condition> {
        let prefix = (0..64_u128, prop_oneof![Just(32_u8), 26..33_u8], any::<bool>()).prop_map(|(value, len, wide)| {
            let (version, len) = if wide { (IpVersion::V6, len + 96) } else { (IpVersion::V4, len) };
            (ADDRESS, Value::Prefix { version, value: value & version.prefix_mask(len), len })
        });
        let range = (0..64_u128, 0..64_u128, any::<bool>()).prop_map(|(a, b, address)| {
            (if address { ADDRESS } else { PORT }, Value::Range { lo: a.min(b), hi: a.max(b) })
        });
        let highest = Just((ADDRESS, Value::Range { lo: 60, hi: u128::MAX }));
        prop_oneof![3 => prefix, 2 => range, 1 => highest]
            .prop_map(|(subject, value)| Condition::new(subject, vec![value, value]).unwrap())
    }

    fn group() -> impl Strategy<Value = Conditions> {
        prop::collection::vec(condition(), 0..3).prop_map(|mut all| {
            all.dedup_by_key(|condition| condition.subject());
            Conditions::new(all).unwrap_or_default()
        })
    }

    proptest! {
        /// VF-33: what the gates let through is all there is, in order.
        #[test]
        fn nobody_is_left_outside(groups in prop::collection::vec(group(), 0..150), version in prop::sample::select(vec![4, 6])) {
            let gates = Gates::new(groups.iter());
            prop_assert!(gates.is_some() || groups.len() < 100);
            let Some(gates) = gates else { return Ok(()) };
            for number in (0..70_u128).chain([u128::MAX]) {
                let mut key = Key::default();
                key.set(Subject::Field(Field::IpVersion), version);
                key.set(ADDRESS, number);
                key.set(PORT, number / 2);
                let open: Vec<usize> = gates.open(&key).collect();
                prop_assert!(open.is_sorted());
                let admitted = |places: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
                    places.filter(|at| groups[*at].matches(&key)).collect()
                };
                let (some, all) = (admitted(&mut open.iter().copied()), admitted(&mut (0..groups.len())));
                prop_assert_eq!(some, all);
            }
        }
    }

    #[test]
    fn a_group_for_each_network_is_asked_alone() {
        let network = |n: u128| Value::Prefix { version: IpVersion::V4, value: n << 8, len: 24 };
        let groups: Vec<Conditions> = (0..300)
            .map(|n| Conditions::new(vec![Condition::new(ADDRESS, vec![network(n)]).unwrap()]).unwrap())
            .collect();
        let gates = Gates::new(groups.iter()).unwrap();
        for n in 0..310 {
            let mut key = Key::default();
            key.set(ADDRESS, n << 8 | 7);
            let expected: Vec<usize> = (n < 300).then_some(n as usize).into_iter().collect();
            assert_eq!(gates.open(&key).collect::<Vec<_>>(), expected);
        }
        assert!(Gates::new(groups[..7].iter()).is_none());
    }
}
