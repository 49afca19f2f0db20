// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The planner against a naive interpreter of the model, which shares nothing with it but the
//! definition of a condition.

use core::net::IpAddr;
use std::sync::Arc;

use packet::transpose::{Encap, Value as field};
use packet::{DropCause, Field, MacAddr, Tunnel, Ufid};
use proptest::prelude::*;

use super::*;
use crate::condition::{Condition, Conditions, IpVersion, Subject, Value};
use crate::flow::Secret;
use crate::model::{Action, Controller, Edit, Group, PortPolicy, Rule, Transaction};

#[derive(Clone, Debug, PartialEq)]
struct RulePath {
    group: Name,
    rule: Name,
}

/// Plans a packet that belongs to no connection and begins none.
pub(crate) fn stateless(snapshot: &Snapshot, direction: Direction, key: &Key, connections: &Connections) -> Plan {
    plan(&Question { snapshot, direction, key, membership: Membership::None, connections, now_ns: 0 })
}

/// Walks layers, groups and rules as the words of the model say, rule by rule.
fn interpret(policy: &PortPolicy, direction: Direction, key: &Key) -> (Outcome, Key, Vec<Option<RulePath>>) {
    let mut key = Key { registers: [0; 8], ..*key };
    let mut layers: Vec<_> = policy.layers().to_vec();
    layers.sort_by_key(|layer| layer.order);
    if direction == Direction::In {
        layers.reverse();
    }
    let mut path = Vec::new();
    for layer in layers {
        let mut selected: Option<(&Group, &Rule)> = None;
        for versioned in &layer.groups {
            let group = &versioned.group;
            if !group.when.matches(&key) {
                continue;
            }
            let mut best: Option<&Rule> = None;
            for rule in &group.rules {
                let better = match best {
                    None => true,
                    Some(best) => match group.lpm {
                        Some(field) => {
                            let longest = |rule: &Rule| prefix_len(rule, field, &key);
                            longest(rule) > longest(best)
                                || longest(rule) == longest(best) && rule.priority > best.priority
                        }
                        None => rule.priority > best.priority,
                    },
                };
                if rule.direction == direction && rule.conditions.matches(&key) && better {
                    best = Some(rule);
                }
            }
            if let Some(rule) = best {
                selected = Some((group, rule));
                if rule.terminating {
                    break;
                }
            }
        }
        path.push(selected.map(|(group, rule)| RulePath { group: group.name.clone(), rule: rule.name.clone() }));
        match selected.map(|(_, rule)| &rule.action) {
            None if layer.default == Default::Block => {
                return (Outcome::Drop(DropCause::PolicyDefault), key, path);
            }
            Some(Action::Block { cause }) => return (Outcome::Drop(*cause), key, path),
            Some(Action::SetRegister { register, value }) => key.registers[usize::from(*register)] = *value,
            Some(Action::Transpose { transposition }) => match transposition.after(&key.ufid) {
                Ok(ufid) => key.ufid = ufid,
                Err(_) => return (Outcome::Drop(DropCause::Untransposable), key, path),
            },
            None | Some(Action::Allow { .. }) => {}
            Some(other) => panic!("{other:?}: not made here"),
        }
    }
    (Outcome::Forward, key, path)
}

/// The longest prefix of a rule on an address that a key has; without a condition on it, 0.
fn prefix_len(rule: &Rule, field: Field, key: &Key) -> u8 {
    let subject = Subject::Field(field);
    let conditions = rule.conditions.as_slice().iter();
    let Some(condition) = conditions.into_iter().find(|condition| condition.subject() == subject) else { return 0 };
    let lens = condition.values().iter().filter(|value| value.matches(subject, key)).map(|value| match value {
        Value::Prefix { len, .. } => *len,
        Value::Exact(_) | Value::Range { .. } => 0,
    });
    lens.max().unwrap_or(0)
}

fn condition() -> impl Strategy<Value = Condition> {
    let ports = prop_oneof![
        (0u128..6).prop_map(Value::Exact),
        (0u128..6, 0u128..4).prop_map(|(lo, more)| Value::Range { lo, hi: lo + more }),
    ];
    let prefix = (0u128..8, 28u8..=32).prop_map(|(low, len)| {
        let value = (10 << 24 | low) >> (32 - len) << (32 - len);
        Value::Prefix { version: IpVersion::V4, value, len }
    });
    let address = prop_oneof![Just(Field::IpSrc), Just(Field::IpDst)];
    prop_oneof![
        prop::collection::vec(ports, 1..3)
            .prop_map(|values| Condition::new(Subject::Field(Field::L4Dst), values).unwrap()),
        (address, prop::collection::vec(prefix, 1..3)).prop_map(|(field, values)| Condition::new(
            Subject::Field(field),
            values
        )
        .unwrap()),
        (0u8..8, 0u128..3).prop_map(|(register, value)| {
            Condition::new(Subject::Register(register), vec![Value::Exact(value)]).unwrap()
        }),
    ]
}

fn conditions(most: usize) -> impl Strategy<Value = Conditions> {
    prop::collection::vec(condition(), 0..=most).prop_map(|mut conditions| {
        conditions.sort_by_key(Condition::subject);
        conditions.dedup_by_key(|condition| condition.subject());
        Conditions::new(conditions).unwrap()
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Allow { stateful: None }),
        1 => Just(Action::Block { cause: DropCause::PolicyBlock }),
        2 => (0u8..8, 0u32..3).prop_map(|(register, value)| Action::SetRegister { register, value }),
        2 => transposition().prop_map(|transposition| Action::Transpose { transposition: Arc::new(transposition) }),
    ]
}

fn transposition() -> impl Strategy<Value = Transposition> {
    let address = (0u32..8).prop_map(|low| field::Ipv4((10 << 24 | low).into()));
    let end = || (MacAddr([2, 0, 0, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
    prop_oneof![
        (prop_oneof![Just(Field::IpSrc), Just(Field::IpDst)], address)
            .prop_map(|(field, value)| Transposition::default().with(field, value)),
        (0u64..6).prop_map(|port| Transposition::default().with(Field::L4Dst, field::Number(port))),
        (0u32..3).prop_map(move |key| Transposition::push(Encap::new(Tunnel::Vxlan, key, end(), end()))),
        Just(Transposition::pop()),
    ]
}

pub(crate) fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::In), Just(Direction::Out)]
}

fn group() -> impl Strategy<Value = (u32, Conditions, Option<Field>, Vec<Rule>)> {
    let rule = (0u32..4, direction(), conditions(3), action(), prop::bool::weighted(0.2));
    let rules = prop::collection::vec(rule, 0..12).prop_map(|rules| {
        let rules = rules.into_iter().enumerate();
        let rule = rules.map(|(at, (priority, direction, conditions, action, terminating))| {
            let name = Name::new(format!("r{at}")).unwrap();
            Rule { name, priority, direction, conditions, action, terminating }
        });
        rule.collect()
    });
    let lpm = prop_oneof![3 => Just(None), 1 => Just(Some(Field::IpDst))];
    (0u32..4, conditions(1), lpm, rules)
}

pub(crate) fn policy() -> impl Strategy<Value = PortPolicy> {
    let default = prop_oneof![4 => Just(Default::Allow), 1 => Just(Default::Block)];
    let layer = (default, prop::collection::vec(group(), 0..4));
    prop::collection::vec(layer, 0..5).prop_map(|layers| {
        let mut edits = Vec::new();
        for (at, (default, groups)) in (0_u32..).zip(layers) {
            let name = Name::new(format!("l{at}")).unwrap();
            edits.push(Edit::PutLayer { name: name.clone(), order: at * 7 % 5, default });
            for (at, (order, when, lpm, rules)) in groups.into_iter().enumerate() {
                let group = Group { name: Name::new(format!("g{at}")).unwrap(), order, when, lpm, rules };
                edits.push(Edit::PutGroup { layer: name.clone(), group: Arc::new(group) });
            }
        }
        let controller = Controller { name: Name::new("test").unwrap(), order: [0, 100] };
        PortPolicy::empty().after(&Transaction { controller, preconditions: Vec::new(), edits }).unwrap()
    })
}

fn key() -> impl Strategy<Value = Key> {
    (0u128..8, 0u128..8, 0u128..8, prop_oneof![Just(4u128), Just(6), Just(0)]).prop_map(|(src, dst, port, version)| {
        let ufid = Ufid::ZERO.with(Field::IpVersion, version).with(Field::L4Dst, port).with(Field::IpProto, 17);
        let ufid = ufid.with(Field::IpSrc, 10 << 24 | src).with(Field::IpDst, 10 << 24 | dst);
        Key { ufid, registers: [7; 8] }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// VF-4, VF-5, VF-7, VF-10, VF-11, VF-12.
    #[test]
    fn the_plan_is_what_the_model_says(policy in policy(), keys in prop::collection::vec((direction(), key()), 1..30)) {
        let snapshot = Snapshot::compile(&policy, None, 1).unwrap();
        for (direction, key) in keys {
            let connections = Connections::new(8, Secret::new(1));
            let plan = stateless(&snapshot, direction, &key, &connections);
            let (outcome, after, path) = interpret(&policy, direction, &key);
            let words = plan.trace(&snapshot);
            prop_assert_eq!(&plan.outcome, &outcome, "{}", words);
            prop_assert_eq!(plan.after, after, "{}", words);
            let rules = words.steps.iter().map(|step| step.decided_by.split_once('/').map(|(group, rule)| RulePath {
                group: Name::new(group).unwrap(),
                rule: Name::new(rule).unwrap(),
            }));
            let rules: Vec<_> = rules.collect();
            prop_assert_eq!(rules, path, "{}", words);
            // One transposition for all layers leaves what they leave in turn.
            if outcome == Outcome::Forward {
                prop_assert_eq!(plan.transposition.after(&key.ufid), Ok(after.ufid), "{}", words);
            }
        }
    }
}
