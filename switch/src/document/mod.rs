// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy as controllers write it: documents in TOML and JSON (decision 21).
//!
//! # Theory of operation
//!
//! A [`Document`] is everything that one controller has to say, on all ports. Both formats are read into one generic
//! tree of values that know where they stood (`node.rs`); one reader turns that into the types of
//! [`model`](crate::model), so that the two formats have the same keys, defaults and errors, and so does every part of a
//! document that travels alone: groups, rules, resources, entries, transactions. Writing goes the same way back, and
//! what is written reads as the same value.
//!
//! Unknown keys are errors. An error names the object by its path, the key, and of TOML the line:
//! `line 12: layer acl / group infra / rule ssh: match.dst_port: "ssh" is not a number or a range of numbers`.
//! Where a list is expected, one value stands for a list of one.
//!
//! | file | job |
//! |---|---|
//! | `node.rs` | TOML and JSON to generic values, and those to JSON |
//! | `toml_text.rs` | generic values to TOML, laid out as people do it |
//! | `fields.rs` | a typed look at a table |
//! | `rule.rs`, `action.rs`, `transpose.rs`, `resource.rs`, `transaction.rs` | a part of the model each, both ways |
//! | `probe.rs` | packets to be simulated |
//! | `error.rs` | what can be wrong |

mod action;
mod error;
mod fields;
mod node;
mod probe;
mod resource;
mod rule;
mod toml_text;
mod transaction;
mod transpose;

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use self::action::{BadEndpoint, DEFAULT_IDLE_S};
pub use self::error::{DocumentError, Problem};
use self::fields::{Fields, Place, items};
use self::node::{Node, Value};
pub use self::probe::{Probe, describe};
pub use self::resource::MAX_UNKNOWN_S;
pub use self::transaction::Steps;
use crate::Name;
use crate::model::{Default, Group, Mapping, PortPolicy, PortRange, Rule};

/// All that one controller has to say. Layers by port and then by order, resources by port and then by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whose it is.
    pub controller: Name,
    /// Its layers, on all ports.
    pub layers: Vec<PortLayer>,
    /// Its resources, on all ports.
    pub resources: Vec<PortResource>,
}

/// A layer on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortLayer {
    /// The port.
    pub port: Name,
    /// What it is called; unique on its port.
    pub name: Name,
    /// Low orders are nearest the VM.
    pub order: u32,
    /// What happens to a packet that no rule matches.
    pub default: Default,
    /// Its groups, by order and then by name.
    pub groups: Vec<Arc<Group>>,
}

/// A resource on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortResource {
    /// The port.
    pub port: Name,
    /// What it is called; unique on its port.
    pub name: Name,
    /// What it holds.
    pub content: Content,
}

/// What a resource holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Addresses to what is known of them.
    Map(BTreeMap<IpAddr, Entry>),
    /// Addresses and ports to give out.
    Ranges(Vec<PortRange>),
}

/// An entry of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The address is there.
    Known(Mapping),
    /// It is not, and that is to be believed for so long from when it is said.
    Unknown {
        /// Seconds.
        seconds: NonZeroU32,
    },
}

impl Document {
    /// A document that says nothing.
    #[must_use]
    pub const fn empty(controller: Name) -> Self {
        Self { controller, layers: Vec::new(), resources: Vec::new() }
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// The first thing that is wrong.
    ///
    /// ```
    /// use switch::document::Document;
    /// let text = r#"
    /// controller = "acl"
    /// [[layer]]
    /// port = "vm0"
    /// name = "acl"
    /// order = 10
    /// default = "block"
    /// [[layer.group]]
    /// name = "infra"
    /// [[layer.group.rule]]
    /// name = "ssh"
    /// dir = "in"
    /// match = { ip_proto = "tcp", dst_port = [22, "1000-2000"] }
    /// action = { type = "allow", stateful = true }
    /// "#;
    /// let document = Document::from_toml(text)?;
    /// assert_eq!(Document::from_toml(&document.to_toml())?, document);
    /// let error = Document::from_toml(&text.replace("22", "\"ssh\"")).unwrap_err();
    /// let expected = r#"line 13: layer acl / group infra / rule ssh: match.dst_port: "ssh" is not a number or a range of numbers"#;
    /// assert_eq!(error.to_string(), expected);
    /// # Ok::<(), switch::document::DocumentError>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, DocumentError> {
        node::from_toml(text).and_then(|node| Self::read(&node)).map_err(|error| error.in_text(text))
    }

    /// Reads JSON, which has the same keys.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        Self::read(&node::from_json(text)?)
    }

    /// What a controller says on the ports given, as it stands at `now_ns`.
    pub fn of<'a>(controller: &Name, ports: impl IntoIterator<Item = (&'a Name, &'a PortPolicy)>, now_ns: u64) -> Self {
        let mut document = Self::empty(controller.clone());
        for (port, policy) in ports {
            let layers = policy.layers().iter().filter(|layer| layer.controller == *controller);
            document.layers.extend(layers.map(|layer| PortLayer {
                port: port.clone(),
                name: layer.name.clone(),
                order: layer.order,
                default: layer.default,
                groups: layer.groups.iter().map(|versioned| Arc::clone(&versioned.group)).collect(),
            }));
            let resources = policy.resources().iter().map(|held| &held.resource);
            let resources = resources.filter(|resource| resource.controller == *controller);
            document.resources.extend(resources.map(|resource| PortResource {
                port: port.clone(),
                name: resource.name.clone(),
                content: Content::of(&resource.content, now_ns),
            }));
        }
        document.sort();
        document
    }

    /// All ports that it speaks of, by name.
    #[must_use]
    pub fn ports(&self) -> Vec<&Name> {
        let ports = self.layers.iter().map(|layer| &layer.port);
        let mut ports: Vec<_> = ports.chain(self.resources.iter().map(|resource| &resource.port)).collect();
        ports.sort();
        ports.dedup();
        ports
    }

    /// As TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml_text::write(&self.write())
    }

    fn read(node: &Node<'_>) -> Result<Self, DocumentError> {
        let fields = Fields::new(node, &Place::ROOT, &["controller", "layer", "resource"])?;
        let mut document = Self::empty(fields.required("controller", fields.name("controller")?)?);
        let mut names = HashSet::new();
        for (nth, node) in fields.get("layer").map(items).unwrap_or_default().iter().enumerate() {
            let layer = rule::layer(node, &Place::ROOT, nth)?;
            if !names.insert((layer.port.clone(), layer.name.clone())) {
                return Err(Place::ROOT.object("layer", &layer.name).error(node.at, Problem::Duplicate));
            }
            document.layers.push(layer);
        }
        names.clear();
        for (nth, node) in fields.get("resource").map(items).unwrap_or_default().iter().enumerate() {
            let resource = resource::port_resource(node, &Place::ROOT, nth)?;
            if !names.insert((resource.port.clone(), resource.name.clone())) {
                return Err(Place::ROOT.object("resource", &resource.name).error(node.at, Problem::Duplicate));
            }
            document.resources.push(resource);
        }
        document.sort();
        Ok(document)
    }

    fn sort(&mut self) {
        self.layers.sort_by(|a, b| (&a.port, a.order, &a.name).cmp(&(&b.port, b.order, &b.name)));
        self.resources.sort_by(|a, b| (&a.port, &a.name).cmp(&(&b.port, &b.name)));
    }

    fn write(&self) -> Node<'_> {
        let mut members = vec![("controller", Node::text(self.controller.as_str()))];
        if !self.layers.is_empty() {
            members.push(("layer", Value::List(self.layers.iter().map(rule::write_layer).collect()).into()));
        }
        if !self.resources.is_empty() {
            let resources = self.resources.iter().map(resource::write_port_resource);
            members.push(("resource", Value::List(resources.collect()).into()));
        }
        Node::table(members)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(serializer)
    }
}

/// A part of a document, to be written as JSON.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// `{ "name", "order", "when", "lpm", "rule": [..] }`
    Group(&'a Group),
    /// `{ "name", "priority", "dir", "match", "action", "terminating" }`
    Rule(&'a Rule),
    /// `{ "name", "type", "entries" | "ranges" }`
    Resource(&'a Name, &'a Content),
    /// `{ "address", "vni", "mac" }` or `{ "unknown_s" }`
    Entry(&'a Entry),
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Group(group) => rule::write_group(group).serialize(serializer),
            Self::Rule(rule) => rule::write_rule(rule).serialize(serializer),
            Self::Resource(name, content) => resource::write_resource(name, content).serialize(serializer),
            Self::Entry(entry) => resource::write_entry(entry).serialize(serializer),
        }
    }
}

/// How a layer's default is spelled.
#[must_use]
pub const fn default_word(default: Default) -> &'static str {
    rule::default_word(default)
}

/// Reads a layer's order and default from JSON.
///
/// # Errors
/// The first thing that is wrong.
pub fn layer_from_json(name: &Name, text: &[u8]) -> Result<(u32, Default), DocumentError> {
    rule::layer_head(&node::from_json(text)?, &Place::ROOT.object("layer", name))
}

/// Reads a group from JSON; it need not say its name again.
///
/// # Errors
/// The first thing that is wrong.
pub fn group_from_json(name: &Name, text: &[u8]) -> Result<Group, DocumentError> {
    rule::group(&node::from_json(text)?, &Place::ROOT, 0, Some(name))
}

/// Reads a rule from JSON; it need not say its name again.
///
/// # Errors
/// The first thing that is wrong.
pub fn rule_from_json(name: &Name, text: &[u8]) -> Result<Rule, DocumentError> {
    rule::rule(&node::from_json(text)?, &Place::ROOT, 0, Some(name))
}

/// Reads a resource from JSON; it need not say its name again.
///
/// # Errors
/// The first thing that is wrong.
pub fn resource_from_json(name: &Name, text: &[u8]) -> Result<Content, DocumentError> {
    resource::resource(&node::from_json(text)?, &Place::ROOT, Some(name)).map(|(_, content)| content)
}

/// Reads an entry of a map from JSON.
///
/// # Errors
/// The first thing that is wrong.
pub fn entry_from_json(text: &[u8]) -> Result<Entry, DocumentError> {
    resource::entry(&node::from_json(text)?, &Place::ROOT)
}
