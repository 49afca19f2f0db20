// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What policy looks like in JSON, for the description of the API.
//!
//! Documents are read and written by [`switch::document`], which knows places and names for its errors. These types only
//! say the same to tools; a test has them read what the API writes.

#![expect(dead_code, reason = "they are described and read, and never looked at")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::answers::Count;

/// Order and default of a layer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerHead {
    /// Low orders are nearest the VM: outbound packets meet layers in ascending order, inbound ones in descending order.
    pub(super) order: u32,
    /// What happens to a packet that no rule matches.
    pub(super) default: DefaultWord,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DefaultWord {
    Allow,
    Block,
}

/// One value, or a list of which one must hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Values {
    Number(u64),
    Text(String),
    List(Vec<TextOrNumber>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum TextOrNumber {
    Number(u64),
    Text(String),
}

/// One text or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Texts {
    One(String),
    Several(Vec<String>),
}

/// Rules that are replaced together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    /// Its name; not needed where the path has it.
    pub(super) name: Option<String>,
    /// Groups are asked by ascending order; 0 where it is not given.
    pub(super) order: Option<u32>,
    /// Packets that this is not true for are none of the group's business. By field: `{"src_ip": "10.0.0.0/8"}`.
    pub(super) when: Option<BTreeMap<String, Values>>,
    /// The address of which the longest prefix decides, before any priority.
    pub(super) lpm: Option<String>,
    /// The rules.
    #[serde(default)]
    pub(super) rule: Vec<RuleBody>,
}

/// A rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleBody {
    /// Its name; not needed where the path has it.
    pub(super) name: Option<String>,
    /// Higher wins; 0 where it is not given.
    pub(super) priority: Option<u32>,
    /// Packets of which direction it is for.
    pub(super) dir: DirectionWord,
    /// What a packet must be, by field.
    #[serde(rename = "match")]
    pub(super) conditions: Option<BTreeMap<String, Values>>,
    /// What happens to it.
    pub(super) action: ActionBody,
    /// Whether groups behind its own are not asked.
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DirectionWord {
    In,
    Out,
}

/// What a rule does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum ActionBody {
    /// Lets it go on, and remembers its connection if it is stateful.
    Allow { stateful: Option<bool>, idle_s: Option<u32> },
    /// Sends connections to one of several back ends.
    Balance { backends: Texts, idle_s: Option<u32> },
    /// Drops it.
    Block { cause: Option<String> },
    /// Only counts.
    Count,
    /// Takes its tunnel off.
    Decap,
    /// Marks it with a code point, 0 to 63.
    Dscp { value: u8 },
    /// Sends flows to one of several routers, by MAC address.
    Ecmp { routers: Texts },
    /// Puts it into a tunnel: to one of several destinations, or to what a map says.
    Encap { tunnel: String, vni: Option<u32>, source: String, destination: Option<Texts>, map: Option<String> },
    /// Sends it back to its port, or to another one.
    Hairpin { to: Option<String> },
    /// Translates addresses.
    Nat { source: Option<String>, source_ranges: Option<String>, destination: Option<String>, idle_s: Option<u32> },
    /// Writes one of the registers meta0 to meta7.
    Set {
        meta0: Option<u32>,
        meta1: Option<u32>,
        meta2: Option<u32>,
        meta3: Option<u32>,
        meta4: Option<u32>,
        meta5: Option<u32>,
        meta6: Option<u32>,
        meta7: Option<u32>,
    },
    /// Changes headers.
    Transpose {
        /// New values of header fields, by field; `{"copy": "src_port"}` takes that of another one.
        #[schema(value_type = Option<Object>)]
        set: Option<serde_json::Value>,
        /// 0 to 255, `inner`, `outer`, `inner-1` or `outer-1`.
        #[schema(value_type = Option<Object>)]
        ttl: Option<serde_json::Value>,
        /// 0 to 3, `inner`, `outer`, `encapsulate`, `compatibility` or `decapsulate`.
        #[schema(value_type = Option<Object>)]
        ecn: Option<serde_json::Value>,
        /// `{"pop": 1, "set": tag, "set_second": tag, "push": [tag]}`; a tag is an id or `{"id", "priority"}`.
        #[schema(value_type = Option<Object>)]
        vlan: Option<serde_json::Value>,
        /// `pop`, or one of `{"modify": {..}}`, `{"push": {..}}`, `{"replace": {..}}`.
        #[schema(value_type = Option<Object>)]
        outer: Option<serde_json::Value>,
    },
}

/// A resource.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum ResourceBody {
    /// Addresses to what is known of them.
    Map {
        name: Option<String>,
        /// By IP address.
        #[serde(default)]
        entries: BTreeMap<String, EntryBody>,
    },
    /// Addresses and ports to give out.
    Range { name: Option<String>, ranges: Vec<RangeBody> },
}

/// What a map knows of an address: where it is, or that it is not there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum EntryBody {
    /// Where packets for it go.
    Known {
        /// The outer destination address.
        address: String,
        /// The virtual network, if the rule does not say it.
        vni: Option<u32>,
        /// The inner destination MAC address, if it is to change.
        mac: Option<String>,
    },
    /// There is no such address; to be believed for so many seconds.
    Unknown { unknown_s: u32 },
}

/// A part of an address's ports.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeBody {
    /// The address.
    pub(super) address: String,
    /// `1024-2047`
    pub(super) ports: String,
}

/// All that a controller has to say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentBody {
    /// Whose it is.
    pub(super) controller: String,
    /// Its layers, on all ports.
    #[serde(default)]
    pub(super) layer: Vec<LayerBody>,
    /// Its resources, on all ports.
    #[serde(default)]
    pub(super) resource: Vec<PortResourceBody>,
}

/// A layer on a port.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerBody {
    /// The port.
    pub(super) port: String,
    /// Its name, unique on its port.
    pub(super) name: String,
    /// Its place: low orders are nearest the VM.
    pub(super) order: u32,
    /// What happens to a packet that no rule matches.
    pub(super) default: DefaultWord,
    /// Its groups.
    #[serde(default)]
    pub(super) group: Vec<GroupBody>,
}

/// A resource on a port.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PortResourceBody {
    /// The port.
    pub(super) port: String,
    /// The resource.
    #[serde(flatten)]
    pub(super) resource: serde_json::Map<String, serde_json::Value>,
}

/// Several edits, all or nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransactionBody {
    /// What must still be so.
    #[serde(default)]
    pub(super) preconditions: Vec<PreconditionBody>,
    /// What is to be done, in this order.
    #[serde(default)]
    pub(super) edits: Vec<EditBody>,
}

/// Something that the client believes; a version of null: that it is not there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum PreconditionBody {
    /// A group's version.
    Group { layer: String, group: String, version: Option<u64> },
    /// The whole policy's version.
    Policy { version: u64 },
    /// A resource's version.
    Resource { resource: String, version: Option<u64> },
}

/// A step of a transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum EditBody {
    /// Creates a layer, or gives it another order or default.
    PutLayer { name: String, order: u32, default: DefaultWord },
    /// Removes a layer with all its groups.
    RemoveLayer { name: String },
    /// Creates or replaces a group.
    PutGroup { layer: String, group: GroupBody },
    /// Removes a group.
    RemoveGroup { layer: String, group: String },
    /// Creates or replaces a resource.
    PutResource(ResourceBody),
    /// Removes a resource.
    RemoveResource { name: String },
    /// Puts an entry into a map.
    PutEntry { resource: String, address: String, entry: EntryBody },
    /// Removes an entry from a map.
    RemoveEntry { resource: String, address: String },
}

/// A packet: its bytes in hexadecimal, or a five-tuple, or fields, or a five-tuple with more fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeBody {
    /// Which way it goes.
    pub(super) direction: DirectionWord,
    /// Its bytes.
    pub(super) packet: Option<String>,
    /// `tcp 10.0.0.1:1234 > 10.0.0.2:80`
    pub(super) tuple: Option<String>,
    /// By field, as in conditions; each of one value.
    pub(super) fields: Option<BTreeMap<String, TextOrNumber>>,
}

/// A group with what was counted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupAnswer {
    /// The version under which it was last put.
    pub(super) version: u64,
    /// The group, as it can be put again.
    pub(super) group: GroupBody,
    /// What its rules were applied to.
    pub(super) count: Count,
    /// Of each rule, in order.
    pub(super) rule_counts: Vec<RuleCount>,
}

/// What a rule was applied to.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RuleCount {
    /// The rule.
    pub(super) rule: String,
    /// Packets.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// A rule with what was counted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleAnswer {
    /// The version of its group.
    pub(super) version: u64,
    /// The rule, as it can be put again.
    pub(super) rule: RuleBody,
    /// What it was applied to.
    pub(super) count: Count,
}

/// A resource and whose it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceAnswer {
    /// The version under which it was last changed.
    pub(super) version: u64,
    /// Whose it is.
    pub(super) controller: String,
    /// The resource, as it can be put again.
    pub(super) resource: ResourceBody,
}

/// All of a port's policy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PortPolicyAnswer {
    /// The port.
    pub(super) port: String,
    /// The version of its policy.
    pub(super) version: u64,
    /// Its layers, nearest the VM first.
    pub(super) layers: Vec<PortLayerAnswer>,
    /// Its resources, by name.
    pub(super) resources: Vec<ResourceBody>,
}

/// A layer with all its groups.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PortLayerAnswer {
    /// Its name.
    pub(super) name: String,
    /// Whose it is.
    pub(super) controller: String,
    /// Its order.
    pub(super) order: u32,
    /// Its default.
    pub(super) default: DefaultWord,
    /// Its groups, in order.
    pub(super) group: Vec<GroupBody>,
}
