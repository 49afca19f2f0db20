// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transactions as JSON (decision 18).
//!
//! ```json
//! { "preconditions": [{ "group": { "layer": "acl", "group": "web", "version": 3 } }],
//!   "edits": [{ "put_layer": { "name": "acl", "order": 10, "default": "block" } },
//!             { "put_group": { "layer": "acl", "group": { "name": "web", "rule": [] } } }] }
//! ```

use core::net::IpAddr;
use std::sync::Arc;

use super::action::ADDRESS;
use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place, items};
use super::node::{self, Node, Value};
use super::{Content, Entry, resource, rule};
use crate::Name;
use crate::model::{Default, Edit, Group, Precondition, Resource, ResourceError};

const PRECONDITIONS: &[&str] = &["group", "policy", "resource"];
const EDITS: &[&str] = &[
    "put_layer",
    "remove_layer",
    "put_group",
    "remove_group",
    "put_resource",
    "remove_resource",
    "put_entry",
    "remove_entry",
];

/// What a transaction asks for; who asks is known from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// What must still be so.
    pub preconditions: Vec<Precondition>,
    edits: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    PutLayer(Name, u32, Default),
    RemoveLayer(Name),
    PutGroup(Name, Arc<Group>),
    RemoveGroup(Name, Name),
    PutResource(Name, Content),
    RemoveResource(Name),
    PutEntry(Name, IpAddr, Option<Entry>),
}

impl Steps {
    /// Reads JSON.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        let node = node::from_json(text)?;
        let place = Place::ROOT;
        let fields = Fields::new(&node, &place, &["preconditions", "edits"])?;
        let list = |key| fields.get(key).map(items).unwrap_or_default();
        let preconditions = list("preconditions").iter().map(|node| precondition(node, &place.key("preconditions")));
        let edits = list("edits").iter().map(|node| step(node, &place.key("edits")));
        Ok(Self { preconditions: preconditions.collect::<Result<_, _>>()?, edits: edits.collect::<Result<_, _>>()? })
    }

    /// The edits, carried out by `controller` at `now_ns`.
    ///
    /// # Errors
    /// A resource that does not hold together, by its name.
    pub fn edits(&self, controller: &Name, now_ns: u64) -> Result<Vec<Edit>, (Name, ResourceError)> {
        self.edits.iter().map(|step| step.edit(controller, now_ns)).collect()
    }
}

impl Step {
    fn edit(&self, controller: &Name, now_ns: u64) -> Result<Edit, (Name, ResourceError)> {
        Ok(match self.clone() {
            Self::PutLayer(name, order, default) => Edit::PutLayer { name, order, default },
            Self::RemoveLayer(name) => Edit::RemoveLayer { name },
            Self::PutGroup(layer, group) => Edit::PutGroup { layer, group },
            Self::RemoveGroup(layer, group) => Edit::RemoveGroup { layer, group },
            Self::PutResource(name, content) => {
                let content = content.to_model(now_ns, None).map_err(|cause| (name.clone(), cause))?;
                Edit::PutResource { resource: Arc::new(Resource { name, controller: controller.clone(), content }) }
            }
            Self::RemoveResource(name) => Edit::RemoveResource { name },
            Self::PutEntry(resource, address, entry) => {
                Edit::PutMapping { resource, address, answer: entry.map(|entry| entry.answer(now_ns)) }
            }
        })
    }
}

/// The only member of a table, whose key says what it is.
fn variant<'n>(
    node: &'n Node<'n>,
    place: &Place<'_>,
    known: &'static [&'static str],
) -> Result<(&'n str, &'n Node<'n>), DocumentError> {
    let fields = Fields::new(node, place, known)?;
    fields.exactly_one(known)?;
    match fields.members() {
        [member] => Ok((&member.key, &member.node)),
        _ => Err(fields.error(Problem::ExactlyOne(known))),
    }
}

fn precondition(node: &Node<'_>, place: &Place<'_>) -> Result<Precondition, DocumentError> {
    let (kind, node) = variant(node, place, PRECONDITIONS)?;
    let place = place.key(kind);
    let name = |fields: &Fields<'_, '_>, key| fields.required(key, fields.name(key)?);
    Ok(match kind {
        "group" => {
            let fields = Fields::new(node, &place, &["layer", "group", "version"])?;
            let (layer, group) = (name(&fields, "layer")?, name(&fields, "group")?);
            Precondition::Group { layer, group, version: version(&fields)? }
        }
        "resource" => {
            let fields = Fields::new(node, &place, &["resource", "version"])?;
            Precondition::Resource { resource: name(&fields, "resource")?, version: version(&fields)? }
        }
        _ => {
            let fields = Fields::new(node, &place, &["version"])?;
            let version = version(&fields)?;
            Precondition::Policy { version: fields.required("version", version)? }
        }
    })
}

/// A version; `null`: that it is not there.
fn version(fields: &Fields<'_, '_>) -> Result<Option<u64>, DocumentError> {
    match fields.get("version") {
        None => Err(fields.error(Problem::Missing("version"))),
        Some(Node { value: Value::Unusable("null"), .. }) => Ok(None),
        Some(_) => fields.integer("version", 0, i64::MAX),
    }
}

fn step(node: &Node<'_>, place: &Place<'_>) -> Result<Step, DocumentError> {
    let (kind, node) = variant(node, place, EDITS)?;
    let place = place.key(kind);
    let fields = Fields::unchecked(node, &place)?;
    let name = |key| fields.required(key, fields.name(key)?);
    let part = |key| fields.get(key).ok_or_else(|| fields.error(Problem::Missing(key)));
    Ok(match kind {
        "put_layer" => {
            fields.only(&["name", "order", "default"])?;
            let (order, default) = rule::head(&fields)?;
            Step::PutLayer(name("name")?, order, default)
        }
        "remove_layer" => {
            fields.only(&["name"])?;
            Step::RemoveLayer(name("name")?)
        }
        "put_group" => {
            fields.only(&["layer", "group"])?;
            let layer = name("layer")?;
            let group = rule::group(part("group")?, &Place::ROOT.object("layer", &layer), 0, None)?;
            Step::PutGroup(layer, Arc::new(group))
        }
        "remove_group" => {
            fields.only(&["layer", "group"])?;
            Step::RemoveGroup(name("layer")?, name("group")?)
        }
        "put_resource" => {
            let (name, content) = resource::resource(node, &Place::ROOT, None)?;
            Step::PutResource(name, content)
        }
        "remove_resource" => {
            fields.only(&["name"])?;
            Step::RemoveResource(name("name")?)
        }
        "put_entry" => {
            fields.only(&["resource", "address", "entry"])?;
            let entry = resource::entry(part("entry")?, &place.key("entry"))?;
            Step::PutEntry(name("resource")?, address(&fields)?, Some(entry))
        }
        _ => {
            fields.only(&["resource", "address"])?;
            Step::PutEntry(name("resource")?, address(&fields)?, None)
        }
    })
}

fn address(fields: &Fields<'_, '_>) -> Result<IpAddr, DocumentError> {
    fields.required("address", fields.parsed("address", ADDRESS)?)
}
