// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One suite for all classifiers: what the definition says, they find.

use packet::Field;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::sets::{Random, RuleSet};
use super::*;
use crate::condition::low_bits;

const SUBJECTS: [Subject; 12] = [
    Subject::Field(Field::IpSrc),
    Subject::Field(Field::IpDst),
    Subject::Field(Field::OuterIpSrc),
    Subject::Field(Field::OuterIpDst),
    Subject::Field(Field::L4Src),
    Subject::Field(Field::L4Dst),
    Subject::Field(Field::IpProto),
    Subject::Field(Field::IpVersion),
    Subject::Field(Field::EthDst),
    Subject::Field(Field::EtherType),
    Subject::Field(Field::TunnelKey),
    Subject::Register(3),
];

/// Numbers that lie close together, so that rules overlap.
fn number(bits: u32) -> impl Strategy<Value = u128> {
    let near = prop_oneof![0..12_u128, Just(low_bits(bits)), (0..4_u32).prop_map(move |at| 1 << (at * bits / 4))];
    prop_oneof![8 => near, 1 => any::<u128>()].prop_map(move |value| value & low_bits(bits))
}

fn prefix(subject: Subject) -> impl Strategy<Value = Value> {
    let all = [IpVersion::V4, IpVersion::V6, IpVersion::Arp];
    let version = select(all.into_iter().filter(|version| version.says(subject).is_some()).collect::<Vec<_>>());
    version.prop_flat_map(|version| {
        let len = prop_oneof![select(vec![0, 1, 8, 24, 28, 30, 31, 32, 33, 64, 96, 120, 126, 128]), 0..=128_u8];
        (number(version.bits()), len).prop_map(move |(value, len)| {
            let len = if version == IpVersion::V6 { len } else { len.min(32) };
            Value::Prefix { version, value: value & version.prefix_mask(len), len }
        })
    })
}

fn value(subject: Subject) -> BoxedStrategy<Value> {
    let bits = subject.bits();
    let exact = number(bits).prop_map(Value::Exact);
    let range = (number(bits), number(bits)).prop_map(|(a, b)| Value::Range { lo: a.min(b), hi: a.max(b) });
    match subject.ip_version() {
        Some(_) => prop_oneof![8 => prefix(subject), 1 => exact, 1 => range].boxed(),
        None if subject == Subject::Field(Field::EtherType) => {
            prop_oneof![4 => Just(Value::Exact(0x0806)), 1 => exact, 1 => range].boxed()
        }
        None => prop_oneof![exact, range].boxed(),
    }
}

fn condition(lpm: Option<Field>) -> impl Strategy<Value = Condition> {
    (select(SUBJECTS.to_vec()), prop::bool::weighted(0.2)).prop_flat_map(move |(subject, long)| {
        let only_prefixes = lpm.map(Subject::Field) == Some(subject);
        let values = if only_prefixes { prefix(subject).boxed() } else { value(subject) };
        let count = if long { 2..9 } else { 1..2 };
        prop::collection::vec(values, count).prop_map(move |values| Condition::new(subject, values).unwrap())
    })
}

fn conditions(lpm: Option<Field>) -> impl Strategy<Value = Conditions> {
    prop::collection::vec(condition(lpm), 0..4).prop_map(|mut conditions| {
        let mut seen = std::collections::HashSet::new();
        conditions.retain(|condition| seen.insert(condition.subject()));
        Conditions::new(conditions).unwrap()
    })
}

type Rules = Vec<(u32, Conditions)>;

fn rules(lpm: Option<Field>) -> impl Strategy<Value = Rules> {
    let priority = prop_oneof![0..4_u32, Just(u32::MAX)];
    prop::collection::vec((priority, conditions(lpm)), 0..40)
}

/// A key whose values are at and around the bounds of some rules' values.
fn key(rules: &Rules, choices: &[(Index, Index, i8)], versions: (u8, u8)) -> Key {
    let mut key = Key::default();
    let all: Vec<&Condition> = rules.iter().flat_map(|(_, conditions)| conditions.as_slice()).collect();
    for (condition, value, off) in choices.iter().filter(|_| !all.is_empty()) {
        let condition = condition.get(&all);
        let (lo, hi) = match *value.get(condition.values()) {
            Value::Exact(value) => (value, value),
            Value::Range { lo, hi } => (lo, hi),
            Value::Prefix { version, value, len } => (value, value | low_bits(version.bits() - u32::from(len))),
        };
        let value = match off {
            -1 => lo.wrapping_sub(1),
            0 => lo,
            1 => hi,
            _ => hi.wrapping_add(1),
        };
        key.set(condition.subject(), value);
    }
    // Of what is not IP, most that rules speak of is ARP.
    let is_arp = versions.0 == 0 && versions.1 != 4;
    if is_arp {
        key.ufid.set(Field::EtherType, 0x0806);
    }
    key.ufid.set(Field::IpVersion, versions.0.into());
    key.ufid.set(Field::OuterIpVersion, versions.1.into());
    key
}

/// The winner by definition: every rule is tried.
fn oracle(rules: &Rules, selection: Selection, key: &Key) -> Option<Rank> {
    let ranks = rules.iter().zip(0..).filter(|((_, conditions), _)| conditions.matches(key));
    ranks
        .filter_map(|((priority, conditions), order)| Rank::new(longest(conditions, selection, key), *priority, order))
        .max()
}

fn longest(conditions: &Conditions, selection: Selection, key: &Key) -> u8 {
    let Selection::LongestPrefix(field) = selection else { return 0 };
    let subject = Subject::Field(field);
    let of = conditions.as_slice().iter().filter(|condition| condition.subject() == subject);
    let matching = of.flat_map(|condition| condition.values()).filter(|value| value.matches(subject, key));
    matching.map(|value| if let Value::Prefix { len, .. } = value { *len } else { 0 }).max().unwrap_or(0)
}

fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Linear, Kind::List, Kind::Hash, Kind::Tuple];
    for subject in SUBJECTS {
        kinds.push(match subject {
            Subject::Field(field) if subject.ip_version().is_some() => Kind::Trie(field),
            _ => Kind::Interval(subject),
        });
    }
    kinds
}

fn agree(rules: &Rules, selection: Selection, keys: &[Key]) -> Result<(), TestCaseError> {
    let sequence = rules.iter().map(|(priority, conditions)| Rule { priority: *priority, conditions });
    let entries = Entries::new(sequence, selection).unwrap();
    let singles = kinds().into_iter().filter_map(|kind| Some((Some(kind), Compiled::single(kind, &entries, 7)?)));
    let mixed = [Kind::Trie(Field::IpDst), Kind::Interval(Subject::Field(Field::L4Dst)), Kind::Tuple, Kind::List];
    let several = [Compiled::from_entries(&entries, 7), Compiled::dealt(&mixed, &entries, 7)];
    let groups: Vec<_> = singles.chain(several.map(|group| (None, group))).collect();
    for key in keys {
        let expected = oracle(rules, selection, key);
        let lower = expected.and_then(|rank| Rank::from_bits(Rank::bits(Some(rank)) - 1));
        for (kind, group) in &groups {
            prop_assert_eq!(group.best(key, None), expected, "{:?} {:?}", kind, key);
            prop_assert_eq!(group.best(key, lower), expected, "{:?} {:?}", kind, key);
            // What is found must be better, not as good.
            let beaten = if expected.is_some() { group.best(key, expected) } else { None };
            prop_assert_eq!(beaten, None, "{:?} {:?}", kind, key);
            prop_assert!(group.top() >= expected);
        }
    }
    Ok(())
}

type Choices = Vec<(Vec<(Index, Index, i8)>, (u8, u8))>;

fn choices() -> impl Strategy<Value = Choices> {
    let choice = (any::<Index>(), any::<Index>(), -1..=2_i8);
    let version = || select(vec![0, 4, 4, 4, 6, 6]);
    prop::collection::vec((prop::collection::vec(choice, 0..12), (version(), version())), 30)
}

proptest! {
    #[test]
    fn vf_7_vf_11_vf_23_every_classifier_finds_the_best_rule(rules in rules(None), choices in choices()) {
        let keys: Vec<_> = choices.iter().map(|(choices, versions)| key(&rules, choices, *versions)).collect();
        agree(&rules, Selection::Priority, &keys)?;
    }

    #[test]
    fn vf_12_vf_23_every_classifier_finds_the_longest_prefix(rules in rules(Some(Field::IpDst)), choices in choices()) {
        let keys: Vec<_> = choices.iter().map(|(choices, versions)| key(&rules, choices, *versions)).collect();
        agree(&rules, Selection::LongestPrefix(Field::IpDst), &keys)?;
    }
}

#[test]
fn vf_23_generated_sets_agree_with_the_definition() {
    for set in RuleSet::all(1500, 11) {
        assert_eq!(set.iter().count(), 1500);
        let mut random = Random(5);
        let keys: Vec<_> = (0..150).map(|at| set.key(at * 10, &mut random)).collect();
        agree(&set.rules, set.selection, &keys).unwrap();
        let found = keys.iter().filter(|key| oracle(&set.rules, set.selection, key).is_some()).count();
        assert_eq!(found, keys.len(), "{}", set.name);
    }
}

#[test]
fn vf_12_the_longest_prefix_wins_whatever_its_priority() {
    let subject = Subject::Field(Field::IpDst);
    let route = |value: u128, len| {
        let values = vec![Value::Prefix { version: IpVersion::V4, value, len }];
        Conditions::new(vec![Condition::new(subject, values).unwrap()]).unwrap()
    };
    let routes = [(900, route(10 << 24, 8)), (1, route(10 << 24 | 1 << 16, 16)), (1000, Conditions::default())];
    let rules = routes.iter().map(|(priority, conditions)| Rule { priority: *priority, conditions });
    let group = Compiled::new(rules, Selection::LongestPrefix(Field::IpDst), 1).unwrap();
    for (address, expected) in [(0x0a01_0001, 1), (0x0a02_0001, 0), (0x0b00_0001, 2)] {
        let mut key = Key::default();
        key.ufid.set(Field::IpVersion, 4);
        key.set(subject, address);
        assert_eq!(group.best(&key, None).unwrap().rule(), expected, "{address:#x}");
    }
}

#[test]
fn long_lists_are_verified_instead_of_multiplied() {
    let list = |field, step: u128| {
        let values = (0..3000).map(|n| Value::Exact(n * step)).collect();
        Condition::new(Subject::Field(field), values).unwrap()
    };
    let both = Conditions::new(vec![list(Field::L4Src, 2), list(Field::L4Dst, 3)]).unwrap();
    let entries = Entries::new([Rule { priority: 0, conditions: &both }], Selection::Priority).unwrap();
    assert_eq!(entries.len(), 3000);
    let rules = vec![(0, both)];
    let mut keys = Vec::new();
    for (source, destination) in [(0, 0), (2, 3), (5998, 8997), (6000, 3), (3, 3), (2, 4)] {
        let mut key = Key::default();
        key.set(Subject::Field(Field::L4Src), source);
        key.set(Subject::Field(Field::L4Dst), destination);
        keys.push(key);
    }
    agree(&rules, Selection::Priority, &keys).unwrap();
}

#[test]
fn errors_know_the_rule_and_name_the_subject() {
    let error = |condition, selection| {
        let bad = Conditions::new(vec![condition]).unwrap();
        let good = Conditions::default();
        let rules = [&good, &bad].map(|conditions| Rule { priority: 0, conditions });
        let error = Entries::new(rules, selection).unwrap_err();
        assert_eq!(error.rule(), Some(1));
        error.to_string()
    };
    let (source, selection) = (Subject::Field(Field::IpSrc), Selection::LongestPrefix(Field::IpSrc));
    assert_eq!(
        error(Condition::new(source, vec![Value::Exact(1)]).unwrap(), selection),
        "src_ip: the group selects by its longest prefix, so every value must be a prefix"
    );
    // Two prefixes as they are written are two lengths that somebody chose; a range is none.
    let span = |text| Condition::from_text("src_ip", [text]).unwrap();
    let range = "src_ip: the group selects by its longest prefix, so every value must be a prefix";
    assert_eq!(error(span("10.0.0.5-10.0.1.2"), selection), range);
    for text in ["10.0.0.0/24", "10.0.0.0-10.0.0.255"] {
        let one = Conditions::new(vec![span(text)]).unwrap();
        assert!(Entries::new([Rule { priority: 0, conditions: &one }], selection).is_ok(), "{text}");
    }
    let many = (0..5000).map(|value| Value::Prefix { version: IpVersion::V4, value, len: 32 }).collect();
    assert_eq!(
        error(Condition::new(source, many).unwrap(), selection),
        "src_ip: a list of 5000 prefixes; a longest-prefix group allows 4096"
    );
    let by_port = Selection::LongestPrefix(Field::L4Dst);
    let error = Entries::new([], by_port).unwrap_err().to_string();
    assert_eq!(error, "dst_port: not an IP address, so it has no longest prefix");
}

#[test]
fn memory_is_bounded_whatever_the_rules_are() {
    let of = |conditions: Vec<(&'static str, String)>| {
        let condition = |(name, text): (_, String)| Condition::from_text(name, [text.as_str()]).unwrap();
        Conditions::new(conditions.into_iter().map(condition).collect()).unwrap()
    };
    // Prefixes within prefixes, many at each, and ranges that all reach far.
    let nested = (0..4000_u32).map(|at| {
        let (len, host) = (at % 33, at / 33);
        let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
        let address = std::net::Ipv4Addr::from(0x0a01_0203 & mask);
        of(vec![("dst_ip", format!("{address}/{len}")), ("src_port", (host + 1).to_string())])
    });
    let wide = (0..4000).map(|at| of(vec![("src_port", format!("{}-{}", at, 65535 - at * 3))]));
    for set in [nested.collect::<Vec<_>>(), wide.collect()] {
        let rules: Rules = (0_u32..).zip(set).collect();
        let sequence = rules.iter().map(|(priority, conditions)| Rule { priority: *priority, conditions });
        let entries = Entries::new(sequence, Selection::Priority).unwrap();
        let singles = kinds().into_iter().filter_map(|kind| Some((Some(kind), Compiled::single(kind, &entries, 7)?)));
        for (kind, group) in singles.chain([(None, Compiled::from_entries(&entries, 7))]) {
            let each = group.bytes() / entries.len();
            assert!((40..1024).contains(&each), "{kind:?}: {each} bytes an entry");
        }
        let mut key = Key::default();
        key.ufid.set(Field::IpVersion, 4);
        key.set(Subject::Field(Field::IpDst), 0x0a01_0203);
        let keys = [1, 30, 121, 4000, 60_000].map(|port| {
            key.set(Subject::Field(Field::L4Src), port);
            key
        });
        agree(&rules, Selection::Priority, &keys).unwrap();
    }
}
