// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is different between a port's policy and what a document wants it to be.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use switch::Name;
use switch::document::{Document, default_word};
use switch::model::{self, Edit, Group, Layer, PortPolicy, Resource, ResourceError};
use utoipa::ToSchema;

/// Something that a document changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The port.
    #[schema(example = "vm0")]
    pub port: String,
    /// What happens to the object.
    pub kind: ChangeKind,
    /// The object: `layer acl`, `group acl/web`, `resource directory`.
    #[schema(example = "group acl/web")]
    pub object: String,
    /// What of it, where it stays.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "1 rule added, 2 changed")]
    pub detail: String,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It comes.
    Add,
    /// It stays and is different.
    Change,
    /// It goes.
    Remove,
}

/// The edits that make what a controller owns on a port equal to what its document says of it.
pub(super) struct Difference {
    pub(super) edits: Vec<Edit>,
    pub(super) changes: Vec<Change>,
}

impl Difference {
    /// Between the policy of `port` and `document`, at `now_ns`.
    pub(super) fn between(
        port: &Name,
        policy: &PortPolicy,
        document: &Document,
        now_ns: u64,
    ) -> Result<Self, (Name, ResourceError)> {
        let mut difference = Self { edits: Vec::new(), changes: Vec::new() };
        let mut note = |kind, object: String, detail: String| {
            difference.changes.push(Change { port: port.to_string(), kind, object, detail });
        };
        let edits = &mut difference.edits;
        let owner = &document.controller;
        // What goes makes room first; the order of the rest does not matter, because only the end must hold together.
        for layer in policy.layers().iter().filter(|layer| layer.controller == *owner) {
            if !document.layers.iter().any(|wanted| wanted.port == *port && wanted.name == layer.name) {
                note(ChangeKind::Remove, format!("layer {}", layer.name), String::new());
                edits.push(Edit::RemoveLayer { name: layer.name.clone() });
            }
        }
        for held in policy.resources().iter().filter(|held| held.resource.controller == *owner) {
            let name = &held.resource.name;
            if !document.resources.iter().any(|wanted| wanted.port == *port && wanted.name == *name) {
                note(ChangeKind::Remove, format!("resource {name}"), String::new());
                edits.push(Edit::RemoveResource { name: name.clone() });
            }
        }
        for wanted in document.layers.iter().filter(|wanted| wanted.port == *port) {
            let held = policy.layer(&wanted.name);
            let (name, order, default) = (wanted.name.clone(), wanted.order, wanted.default);
            if let Some(detail) = head_change(held.map(|held| &**held), owner, order, default) {
                let kind = if held.is_some() { ChangeKind::Change } else { ChangeKind::Add };
                note(kind, format!("layer {name}"), detail);
                edits.push(Edit::PutLayer { name, order, default });
            }
            let held_groups = held.map(|held| held.groups.as_slice()).unwrap_or_default();
            for versioned in held_groups {
                let group = &versioned.group.name;
                if !wanted.groups.iter().any(|wanted| wanted.name == *group) {
                    note(ChangeKind::Remove, format!("group {}/{group}", wanted.name), String::new());
                    edits.push(Edit::RemoveGroup { layer: wanted.name.clone(), group: group.clone() });
                }
            }
            for group in &wanted.groups {
                let held = held.and_then(|held| held.group(&group.name)).map(|versioned| &versioned.group);
                if held.is_some_and(|held| *held == *group) {
                    continue;
                }
                let (kind, detail) = match held {
                    Some(held) => (ChangeKind::Change, group_change(held, group)),
                    None => (ChangeKind::Add, count(group.rules.len(), "rule")),
                };
                note(kind, format!("group {}/{}", wanted.name, group.name), detail);
                edits.push(Edit::PutGroup { layer: wanted.name.clone(), group: Arc::clone(group) });
            }
        }
        for wanted in document.resources.iter().filter(|wanted| wanted.port == *port) {
            let held = policy.resource(&wanted.name).map(|held| &held.resource);
            let content = wanted.content.to_model(now_ns, held.map(|held| &held.content));
            let content = content.map_err(|cause| (wanted.name.clone(), cause))?;
            let same = held.filter(|held| held.controller == *owner && held.content == content);
            if same.is_none() {
                let kind = if held.is_some() { ChangeKind::Change } else { ChangeKind::Add };
                note(kind, format!("resource {}", wanted.name), content_size(&content));
                let resource = Resource { name: wanted.name.clone(), controller: owner.clone(), content };
                edits.push(Edit::PutResource { resource: Arc::new(resource) });
            }
        }
        Ok(difference)
    }
}

/// What of a layer apart from its groups is different; `None`: nothing.
fn head_change(held: Option<&Layer>, owner: &Name, order: u32, default: model::Default) -> Option<String> {
    let Some(held) = held else { return Some(format!("order {order}, default {}", default_word(default))) };
    let mut details = Vec::new();
    if held.order != order {
        details.push(format!("order {} to {order}", held.order));
    }
    if held.default != default {
        details.push(format!("default {} to {}", default_word(held.default), default_word(default)));
    }
    // Another controller's layer cannot be had: the transaction says so.
    (!details.is_empty() || held.controller != *owner).then(|| details.join(", "))
}

fn group_change(held: &Group, wanted: &Group) -> String {
    let mut details = Vec::new();
    if held.order != wanted.order {
        details.push(format!("order {} to {}", held.order, wanted.order));
    }
    if held.when != wanted.when {
        details.push("when changed".to_owned());
    }
    if held.lpm != wanted.lpm {
        details.push("lpm changed".to_owned());
    }
    let known: HashMap<&Name, &model::Rule> = held.rules.iter().map(|rule| (&rule.name, rule)).collect();
    let added = wanted.rules.iter().filter(|rule| !known.contains_key(&rule.name)).count();
    let changed = wanted.rules.iter().filter(|rule| known.get(&rule.name).is_some_and(|held| *held != *rule)).count();
    let removed = (held.rules.len() + added).saturating_sub(wanted.rules.len());
    for (number, what) in [(added, "added"), (changed, "changed"), (removed, "removed")] {
        if number > 0 {
            details.push(format!("{} {what}", count(number, "rule")));
        }
    }
    if details.is_empty() {
        details.push("rules in another order".to_owned());
    }
    details.join(", ")
}

fn content_size(content: &model::Content) -> String {
    match content {
        model::Content::Map(map) => format!("{} {}", map.len(), if map.len() == 1 { "entry" } else { "entries" }),
        model::Content::Ranges(ranges) => count(ranges.len(), "range"),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `+ vm0: group acl/web: 2 rules`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Add => '+',
            ChangeKind::Change => '~',
            ChangeKind::Remove => '-',
        };
        write!(f, "{sign} {}: {}", self.port, self.object)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}
