// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which rule of a layer applies: every rule of every group is looked at.

use packet::Field;
use switch::condition::{Conditions, IpVersion, Subject, Value};
use switch::model::{Direction, Group, Layer, Rule};

use crate::wire;

/// A packet in front of a layer.
pub(crate) struct Front<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) registers: [u32; 8],
}

/// The rule that applies, with its group.
pub(crate) fn select<'a>(layer: &'a Layer, direction: Direction, front: &Front<'_>) -> Option<(&'a Group, &'a Rule)> {
    let mut groups: Vec<&Group> = layer.groups.iter().map(|versioned| &*versioned.group).collect();
    groups.sort_by_key(|group| (group.order, group.name.to_string()));
    let mut selected = None;
    for group in groups {
        if !holds(&group.when, front) {
            continue;
        }
        let mut best: Option<((u32, u32), &Rule)> = None;
        for rule in &group.rules {
            if rule.direction != direction || !holds(&rule.conditions, front) {
                continue;
            }
            let length = group.lpm.map_or(0, |field| prefix_length(&rule.conditions, field, front));
            let worth = (length, rule.priority);
            if best.is_none_or(|(other, _)| other < worth) {
                best = Some((worth, rule));
            }
        }
        if let Some((_, rule)) = best {
            selected = Some((group, rule));
            if rule.terminating {
                break;
            }
        }
    }
    selected
}

/// AND across conditions, OR within one.
fn holds(conditions: &Conditions, front: &Front<'_>) -> bool {
    conditions
        .as_slice()
        .iter()
        .all(|condition| condition.values().iter().any(|value| has(front, condition.subject(), *value)))
}

fn has(front: &Front<'_>, subject: Subject, value: Value) -> bool {
    let found = match subject {
        Subject::Field(field) => wire::field(front.bytes, field),
        Subject::Register(register) => front.registers[usize::from(register)].into(),
    };
    match value {
        Value::Exact(wanted) => found == wanted,
        Value::Range { lo, hi } => (lo..=hi).contains(&found),
        Value::Prefix { version, value, len } => {
            let outer = matches!(subject, Subject::Field(Field::OuterIpSrc | Field::OuterIpDst));
            let says = wire::field(front.bytes, if outer { Field::OuterIpVersion } else { Field::IpVersion });
            let (is_meant, bits) = match version {
                IpVersion::V4 => (says == 4, 32),
                IpVersion::V6 => (says == 6, 128),
                IpVersion::Arp => (wire::field(front.bytes, Field::EtherType) == 0x0806, 32),
            };
            is_meant && (len == 0 || found >> (bits - u32::from(len)) == value >> (bits - u32::from(len)))
        }
    }
}

/// The longest of a rule's prefixes of a field that the packet has.
fn prefix_length(conditions: &Conditions, field: Field, front: &Front<'_>) -> u32 {
    let subject = Subject::Field(field);
    let on_field = conditions.as_slice().iter().filter(|condition| condition.subject() == subject);
    let values = on_field.flat_map(|condition| condition.values());
    let lengths = values.filter(|value| has(front, subject, **value)).map(|value| match value {
        Value::Prefix { len, .. } => u32::from(*len),
        Value::Exact(_) | Value::Range { .. } => 0,
    });
    lengths.max().unwrap_or(0)
}
