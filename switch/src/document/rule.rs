// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layers, groups and rules.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use packet::Field;

use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place, items, plain};
use super::node::{Node, Value};
use super::{PortLayer, action};
use crate::Name;
use crate::condition::{Condition, Conditions, Subject};
use crate::model::{Default as LayerDefault, Direction, Group, GroupError, MAX_RULES, Rule};
use crate::text::TextError;

const LAYER: &[&str] = &["port", "name", "order", "default", "group"];
const LAYER_HEAD: &[&str] = &["order", "default"];
const GROUP: &[&str] = &["name", "order", "when", "lpm", "rule"];
const RULE: &[&str] = &["name", "priority", "dir", "match", "action", "terminating"];
const DEFAULTS: (&[&str], [LayerDefault; 2]) = (&["allow", "block"], [LayerDefault::Allow, LayerDefault::Block]);
pub(super) const DIRECTIONS: (&[&str], [Direction; 2]) = (&["in", "out"], [Direction::In, Direction::Out]);

pub(super) fn layer(node: &Node<'_>, parent: &Place<'_>, nth: usize) -> Result<PortLayer, DocumentError> {
    let label = label(node, nth);
    let place = parent.object("layer", &label);
    let fields = Fields::new(node, &place, LAYER)?;
    let (order, default) = head(&fields)?;
    let mut groups = Vec::new();
    let mut names = HashSet::new();
    for (nth, node) in fields.get("group").map(items).unwrap_or_default().iter().enumerate() {
        let group = group(node, &place, nth, None)?;
        if !names.insert(group.name.clone()) {
            return Err(place.object("group", &group.name).error(node.at, Problem::Duplicate));
        }
        groups.push(Arc::new(group));
    }
    groups.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    Ok(PortLayer {
        port: fields.required("port", fields.name("port")?)?,
        name: fields.required("name", fields.name("name")?)?,
        order,
        default,
        groups,
    })
}

/// A layer's order and default, without name and groups.
pub(super) fn layer_head(node: &Node<'_>, parent: &Place<'_>) -> Result<(u32, LayerDefault), DocumentError> {
    head(&Fields::new(node, parent, LAYER_HEAD)?)
}

pub(super) fn head(fields: &Fields<'_, '_>) -> Result<(u32, LayerDefault), DocumentError> {
    let order = fields.required("order", fields.u32("order")?)?;
    let default = fields.required("default", fields.word("default", DEFAULTS.0, &DEFAULTS.1)?)?;
    Ok((order, default))
}

/// A group; `name` is what it is called elsewhere, so that it need not say so itself.
pub(super) fn group(
    node: &Node<'_>,
    parent: &Place<'_>,
    nth: usize,
    name: Option<&Name>,
) -> Result<Group, DocumentError> {
    let label = name.map_or_else(|| label(node, nth), |name| Cow::Borrowed(name.as_str()));
    let place = parent.object("group", &label);
    let fields = Fields::new(node, &place, GROUP)?;
    let lpm = match fields.text("lpm")? {
        None => None,
        Some(text) => match text.parse().map_err(|error: TextError| fields.fault("lpm", error))? {
            Subject::Field(field) if field.bits() == 128 => Some(field),
            _ => {
                let wanted = "an address to be matched: src_ip, dst_ip, outer_src_ip or outer_dst_ip";
                return Err(fields.fault("lpm", Problem::Bad { found: text.to_owned(), wanted }));
            }
        },
    };
    let nodes = fields.get("rule").map(items).unwrap_or_default();
    if nodes.len() > MAX_RULES {
        return Err(fields.fault("rule", GroupError::TooManyRules { rules: nodes.len() }));
    }
    let mut rules = Vec::with_capacity(nodes.len());
    let mut names = HashSet::with_capacity(nodes.len());
    for (nth, node) in nodes.iter().enumerate() {
        let rule = rule(node, &place, nth, None)?;
        if !names.insert(rule.name.clone()) {
            return Err(place.object("rule", &rule.name).error(node.at, Problem::Duplicate));
        }
        rules.push(rule);
    }
    Ok(Group {
        name: own_name(&fields, name)?,
        order: fields.u32("order")?.unwrap_or(0),
        when: conditions(&fields, "when", &place)?,
        lpm,
        rules,
    })
}

/// A rule; `name` as for [`group`].
pub(super) fn rule(
    node: &Node<'_>,
    parent: &Place<'_>,
    nth: usize,
    name: Option<&Name>,
) -> Result<Rule, DocumentError> {
    let label = name.map_or_else(|| label(node, nth), |name| Cow::Borrowed(name.as_str()));
    let place = parent.object("rule", &label);
    let fields = Fields::new(node, &place, RULE)?;
    let action = fields.get("action").ok_or_else(|| fields.error(Problem::Missing("action")))?;
    let rule = Rule {
        name: own_name(&fields, name)?,
        priority: fields.u32("priority")?.unwrap_or(0),
        direction: fields.required("dir", fields.word("dir", DIRECTIONS.0, &DIRECTIONS.1)?)?,
        conditions: conditions(&fields, "match", &place)?,
        action: action::read(action, &place.key("action"))?,
        terminating: fields.truth("terminating")?.unwrap_or(false),
    };
    rule.check().map_err(|error| fields.fault("action", error))?;
    Ok(rule)
}

/// The name that an object says, which must be that by which it was asked for.
pub(super) fn own_name(fields: &Fields<'_, '_>, expected: Option<&Name>) -> Result<Name, DocumentError> {
    match (fields.name("name")?, expected) {
        (Some(found), Some(expected)) if found != *expected => {
            let (found, expected) = (found.to_string(), expected.to_string());
            Err(fields.fault("name", Problem::OtherName { found, expected }))
        }
        (Some(name), _) => Ok(name),
        (None, Some(name)) => Ok(name.clone()),
        (None, None) => Err(fields.error(Problem::Missing("name"))),
    }
}

/// What an object is called in errors: its name, or its number if it has none.
pub(super) fn label<'n>(node: &'n Node<'n>, nth: usize) -> Cow<'n, str> {
    if let Value::Table(members) = &node.value
        && let Some(member) = members.iter().find(|member| member.key == "name")
        && let Value::Text(name) = &member.node.value
    {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("#{}", nth.saturating_add(1)))
}

fn conditions(fields: &Fields<'_, '_>, key: &'static str, parent: &Place<'_>) -> Result<Conditions, DocumentError> {
    let Some(node) = fields.get(key) else { return Ok(Conditions::default()) };
    let place = parent.key(key);
    let table = Fields::unchecked(node, &place)?;
    let mut conditions = Vec::with_capacity(table.members().len());
    for member in table.members() {
        let place = place.key(&member.key);
        let mistyped = |item: &Node<'_>| {
            place.error(member.at, Problem::Type { found: item.kind(), wanted: "a string, a number or a list of them" })
        };
        let texts = items(&member.node).iter().map(|item| plain(item).ok_or_else(|| mistyped(item)));
        let texts: Vec<_> = texts.collect::<Result<_, _>>()?;
        let condition = Condition::from_text(&member.key, texts.iter().map(|text| &**text));
        conditions.push(condition.map_err(|error| place.error(member.at, error))?);
    }
    // TOML does not keep the order of keys; equal groups must be equal.
    conditions.sort_by_key(Condition::subject);
    Conditions::new(conditions).map_err(|error| table.error(TextError::from(error)))
}

pub(super) fn write_layer(layer: &PortLayer) -> Node<'_> {
    let mut members = vec![("port", Node::text(layer.port.as_str())), ("name", Node::text(layer.name.as_str()))];
    members.push(("order", Node::integer(layer.order)));
    members.push(("default", Node::text(default_word(layer.default))));
    if !layer.groups.is_empty() {
        members.push(("group", Value::List(layer.groups.iter().map(|group| write_group(group)).collect()).into()));
    }
    Node::table(members)
}

/// How a default is spelled.
pub(super) const fn default_word(default: LayerDefault) -> &'static str {
    match default {
        LayerDefault::Allow => "allow",
        LayerDefault::Block => "block",
    }
}

pub(super) fn write_group(group: &Group) -> Node<'_> {
    let mut members = vec![("name", Node::text(group.name.as_str())), ("order", Node::integer(group.order))];
    if !group.when.as_slice().is_empty() {
        members.push(("when", write_conditions(&group.when)));
    }
    members.extend(group.lpm.map(|field: Field| ("lpm", Node::text(field.label()))));
    if !group.rules.is_empty() {
        members.push(("rule", Value::List(group.rules.iter().map(write_rule).collect()).into()));
    }
    Node::table(members)
}

pub(super) fn write_rule(rule: &Rule) -> Node<'_> {
    let direction = match rule.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    let mut members = vec![
        ("name", Node::text(rule.name.as_str())),
        ("priority", Node::integer(rule.priority)),
        ("dir", Node::text(direction)),
    ];
    if !rule.conditions.as_slice().is_empty() {
        members.push(("match", write_conditions(&rule.conditions)));
    }
    members.push(("action", action::write(&rule.action)));
    if rule.terminating {
        members.push(("terminating", Value::Truth(true).into()));
    }
    Node::table(members)
}

fn write_conditions(conditions: &Conditions) -> Node<'static> {
    let members = conditions.as_slice().iter().map(|condition| {
        let mut texts = condition.to_text();
        let value = match (texts.len(), texts.pop()) {
            (1, Some(text)) => Node::text(text),
            (_, last) => Node::texts(texts.into_iter().chain(last)),
        };
        super::node::Member { key: condition.subject().to_string().into(), at: None, node: value }
    });
    Value::Table(members.collect()).into()
}
