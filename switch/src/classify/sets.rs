// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generated rule sets, seeded, and keys that meet their rules. For tests and the benchmark, which
//! includes this file (`examples/classify_cost.rs`).

#![expect(clippy::cast_possible_truncation, reason = "random numbers, whose high bits are not needed")]

use std::collections::HashSet;

use packet::Field;

use super::{Condition, Conditions, IpVersion, Key, Rule, Selection, Subject, Value};

/// A generated group.
pub(crate) struct RuleSet {
    /// What it is like.
    pub(crate) name: &'static str,
    /// Which match wins.
    pub(crate) selection: Selection,
    /// Priority and conditions.
    pub(crate) rules: Vec<(u32, Conditions)>,
}

impl RuleSet {
    /// The three of the targets, and exact rules.
    pub(crate) fn all(count: usize, seed: u64) -> [Self; 4] {
        let mut random = Random(seed);
        [acl(count, &mut random), firewall(count, &mut random), lpm(count, &mut random), exact(count, &mut random)]
    }

    /// For the compiler.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.iter().map(|(priority, conditions)| Rule { priority: *priority, conditions })
    }

    /// A key that matches the rule at a place, and perhaps a better one too. What the rule leaves open
    /// is as another rule has it.
    pub(crate) fn key(&self, rule: usize, random: &mut Random) -> Key {
        let mut key = Key::default();
        key.ufid.set(Field::IpVersion, 4);
        key.ufid.set(Field::EtherType, 0x0800);
        let other = random.below(self.rules.len() as u64) as usize;
        for (_, conditions) in [&self.rules[other], &self.rules[rule]] {
            for condition in conditions.as_slice() {
                let values = condition.values();
                let within = match values[random.below(values.len() as u64) as usize] {
                    Value::Exact(value) => value,
                    Value::Range { lo, hi } => lo + u128::from(random.below((hi - lo) as u64 + 1)),
                    Value::Prefix { value, len, .. } => value | u128::from(random.below(1 << (32 - len))),
                };
                key.set(condition.subject(), within);
            }
        }
        key
    }
}

/// Access list: prefixes of both addresses from the networks that there are, protocol, a port or range
/// of ports. First match wins.
fn acl(count: usize, random: &mut Random) -> RuleSet {
    let networks = |random: &mut Random| -> Vec<Value> { (0..count / 10 + 1).map(|_| network(random)).collect() };
    let (sources, destinations) = (networks(random), networks(random));
    let rules = distinct(count, || {
        let mut conditions = Vec::new();
        if random.below(10) > 0 {
            conditions.push((Field::IpSrc, random.pick(&sources)));
        }
        if random.below(10) > 0 || conditions.is_empty() {
            conditions.push((Field::IpDst, random.pick(&destinations)));
        }
        conditions.push((Field::IpProto, Value::Exact(random.pick(&[6, 6, 6, 17]))));
        match random.below(100) {
            0..60 => conditions.push((Field::L4Dst, Value::Exact(u128::from(random.pick(&SERVICES))))),
            60..90 => conditions.push((Field::L4Dst, ports(random))),
            _ => {}
        }
        conditions
    });
    RuleSet { name: "prefix × range ACL", selection: Selection::Priority, rules }
}

/// Firewall: of five fields two or three say anything, often a range.
fn firewall(count: usize, random: &mut Random) -> RuleSet {
    let rules = distinct(count, || {
        let mut conditions = Vec::new();
        while conditions.len() < 2 {
            conditions.clear();
            if random.below(10) < 3 {
                conditions.push((Field::IpSrc, network(random)));
            }
            if random.below(10) < 4 {
                conditions.push((Field::IpDst, network(random)));
            }
            if random.below(10) < 3 {
                conditions.push((Field::L4Src, ports(random)));
            }
            if random.below(10) < 6 {
                conditions.push((Field::L4Dst, ports(random)));
            }
            // A protocol alone, or with one address, would hide the rules behind it.
            if conditions.len() >= 2 && random.below(2) == 0 {
                conditions.push((Field::IpProto, Value::Exact(random.pick(&[1, 6, 17, 47]))));
            }
        }
        conditions
    });
    RuleSet { name: "wildcard-heavy firewall", selection: Selection::Priority, rules }
}

/// Routes with the lengths of the Internet's, priorities that say nothing.
fn lpm(count: usize, random: &mut Random) -> RuleSet {
    let mut rules = distinct(count, || {
        let len = match random.below(100) {
            0..55 => 24,
            55..95 => 16 + random.below(8) as u8,
            95..98 => 8 + random.below(8) as u8,
            _ => 25 + random.below(8) as u8,
        };
        vec![(Field::IpDst, prefix(random.next() as u32, len))]
    });
    rules.iter_mut().for_each(|(priority, _)| *priority = random.below(10) as u32);
    RuleSet { name: "LPM", selection: Selection::LongestPrefix(Field::IpDst), rules }
}

/// Connections by their five fields.
fn exact(count: usize, random: &mut Random) -> RuleSet {
    let rules = distinct(count, || {
        vec![
            (Field::IpSrc, prefix(random.next() as u32, 32)),
            (Field::IpDst, prefix(random.next() as u32, 32)),
            (Field::IpProto, Value::Exact(6)),
            (Field::L4Src, Value::Exact(u128::from(random.below(1 << 16)))),
            (Field::L4Dst, Value::Exact(u128::from(random.pick(&SERVICES)))),
        ]
    });
    RuleSet { name: "exact five-tuples", selection: Selection::Priority, rules }
}

const SERVICES: [u64; 12] = [22, 25, 53, 80, 110, 123, 143, 443, 3306, 5432, 6379, 8080];

/// A network: 10.0.0.0/8 and the rest of the world, /12 to /32, mostly /16 to /28.
fn network(random: &mut Random) -> Value {
    let len = match random.below(20) {
        0 => 12 + random.below(4) as u8,
        1..4 => 32,
        _ => 16 + random.below(13) as u8,
    };
    let address = random.next() as u32;
    prefix(if random.below(2) == 0 { 10 << 24 | address >> 8 } else { address }, len)
}

/// A range of ports, mostly narrow.
fn ports(random: &mut Random) -> Value {
    let width = match random.below(10) {
        0..4 => 1,
        4..8 => random.below(20),
        _ => random.below(1000),
    };
    let lo = random.below(65535 - width);
    Value::Range { lo: lo.into(), hi: (lo + width).into() }
}

fn prefix(address: u32, len: u8) -> Value {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    Value::Prefix { version: IpVersion::V4, value: (address & mask).into(), len }
}

/// Rules with no two alike, in falling priority.
fn distinct(count: usize, mut make: impl FnMut() -> Vec<(Field, Value)>) -> Vec<(u32, Conditions)> {
    let mut seen = HashSet::new();
    let mut rules = Vec::with_capacity(count);
    while rules.len() < count {
        let of = |(field, value)| Condition::new(Subject::Field(field), vec![value]).unwrap();
        let conditions = Conditions::new(make().into_iter().map(of).collect()).unwrap();
        if seen.insert(conditions.clone()) {
            rules.push(((count - rules.len()) as u32, conditions));
        }
    }
    rules
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
