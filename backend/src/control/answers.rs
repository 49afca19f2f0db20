// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the API says about policy. Field names are a contract with scripts: fields are added, never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switch::compile::{GroupTotals, LayerTotals};
use switch::document::{default_word, describe};
use switch::engine::{FlowReport, PortReport};
use switch::model::{Direction, Layer, PortPolicy, ResourceKind, VersionedResource};
use switch::plan::Trace;
use switch::tally::Total;
use utoipa::ToSchema;

use crate::policy::{Applied, Change, Comparison, DryRun};
use crate::stats::FlowCounts;

/// A change that is in effect at every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The new version of the port's policy.
    pub version: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, as they were in front of the rule.
    pub bytes: u64,
}

/// The layers of a port, nearest the VM first, and its resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortLayers {
    /// The port.
    pub port: String,
    /// The version of its policy.
    pub version: u64,
    /// Its layers.
    pub layers: Vec<LayerInfo>,
    /// Its resources, by name.
    pub resources: Vec<ResourceInfo>,
    /// What the switch holds of it.
    pub flows: FlowCounts,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerInfo {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub controller: String,
    /// Its order.
    pub order: u32,
    /// What happens to a packet that no rule matches: `allow` or `block`.
    pub default: String,
    /// What the default was applied to.
    pub default_count: Count,
    /// What connections let through or translated without asking rules.
    pub connection_count: Count,
    /// What rules were applied to.
    pub rule_count: Count,
    /// Its groups, in order.
    pub groups: Vec<GroupInfo>,
}

/// A group, without its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Its order.
    pub order: u32,
    /// The version under which it was last put; also its entity tag.
    pub version: u64,
    /// How many rules it has.
    pub rules: u64,
    /// What its rules were applied to.
    pub count: Count,
}

/// A resource, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceInfo {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub controller: String,
    /// `map` or `range`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The version under which it was last changed; also its entity tag.
    pub version: u64,
    /// How many entries or ranges it has.
    pub size: u64,
}

/// What applying a document did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyAnswer {
    /// What changed, or would.
    pub changes: Vec<Change>,
    /// The new version of each port that changed; empty after a dry run.
    pub versions: BTreeMap<String, u64>,
    /// After a dry run: what would become of live flows, by port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flows: BTreeMap<String, FlowsAffected>,
}

/// What a change would do to live flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowsAffected {
    /// Flows that were looked at.
    pub flows: u64,
    /// Those that would be treated otherwise.
    pub changed: u64,
    /// Some of them.
    pub examples: Vec<FlowAffected>,
}

/// A live flow that would be treated otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowAffected {
    /// The flow.
    pub flow: FlowInfo,
    /// What happens to its packets.
    pub now: TraceAnswer,
    /// What would.
    pub then: TraceAnswer,
}

/// What policy does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceAnswer {
    /// The version of the policy.
    pub version: u64,
    /// `in` or `out`.
    pub direction: String,
    /// What each layer came to, in the order in which the packet meets them.
    pub steps: Vec<TraceStep>,
    /// What is done to headers.
    pub changes: String,
    /// What becomes of the packet.
    pub outcome: String,
}

/// What one layer came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// The layer.
    pub layer: String,
    /// The groups that were searched.
    pub searched: Vec<String>,
    /// What decided: `group/rule`, `default`, or `connection`.
    pub decided_by: String,
    /// What it did.
    pub action: String,
}

/// Some flows of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowList {
    /// The version of the policy under which they were listed.
    pub version: u64,
    /// The flows.
    pub flows: Vec<FlowInfo>,
    /// The `cursor` of the next ones; absent: there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowInfo {
    /// Its number, for as long as it lives.
    pub id: u32,
    /// `in` or `out`.
    pub direction: String,
    /// Who speaks to whom, as it enters the port's pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "tcp 10.0.0.1:1234 > 10.0.0.2:80")]
    pub tuple: Option<String>,
    /// All that its packets have in common.
    pub fields: BTreeMap<String, String>,
    /// What it counted since it began.
    #[serde(default)]
    pub count: Count,
    /// Of that, what its rules have not been told of yet.
    pub pending: Count,
    /// Milliseconds since its last packet.
    pub idle_ms: u32,
    /// Whether both directions were seen.
    pub confirmed: bool,
    /// How far its TCP connection has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "established")]
    pub tcp: Option<String>,
    /// Segments that were sent again, of the initiator and of the responder.
    pub retransmits: [u32; 2],
    /// Smoothed round trips of TCP in microseconds (RFC 6298): from the port to the responder and back, which is of what the
    /// initiator sends, and from the port to the initiator and back. Null where none was measured.
    #[serde(default)]
    #[schema(example = json!([120, null]))]
    pub rtt_us: [Option<u32>; 2],
    /// Packets of TCP that were marked as having met congestion (CE, RFC 3168), of the initiator and of the responder.
    #[serde(default)]
    pub congestion_marks: [u32; 2],
    /// Why its packets are dropped, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// The port that its packets are sent to whatever they say, if a rule hairpins them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirected: Option<String>,
}

impl From<Total> for Count {
    fn from(Total { packets, bytes }: Total) -> Self {
        Self { packets, bytes }
    }
}

impl PortLayers {
    pub(super) fn new(port: &str, policy: &PortPolicy, totals: &[LayerTotals], report: &PortReport) -> Self {
        let layers = policy.layers().iter().map(|layer| LayerInfo::new(layer, totals));
        Self {
            port: port.to_owned(),
            version: policy.version(),
            layers: layers.collect(),
            resources: policy.resources().iter().map(ResourceInfo::new).collect(),
            flows: FlowCounts::new(report),
        }
    }
}

impl LayerInfo {
    pub(super) fn new(layer: &Layer, totals: &[LayerTotals]) -> Self {
        let totals = totals.iter().find(|totals| totals.layer == layer.name);
        let of = |read: fn(&LayerTotals) -> Total| totals.map(read).unwrap_or_default().into();
        let groups = layer.groups.iter().map(|versioned| {
            let count = totals.and_then(|totals| group_totals(totals, &versioned.group.name)).map(|group| group.all);
            GroupInfo {
                name: versioned.group.name.to_string(),
                order: versioned.group.order,
                version: versioned.version,
                rules: versioned.group.rules.len() as u64,
                count: count.unwrap_or_default().into(),
            }
        });
        let groups: Vec<_> = groups.collect();
        let rule_count = groups.iter().fold(Count::default(), |sum, group| Count {
            packets: sum.packets + group.count.packets,
            bytes: sum.bytes + group.count.bytes,
        });
        Self {
            name: layer.name.to_string(),
            controller: layer.controller.to_string(),
            order: layer.order,
            default: default_word(layer.default).to_owned(),
            default_count: of(|totals| totals.default),
            connection_count: of(|totals| totals.entries),
            rule_count,
            groups,
        }
    }
}

/// What was counted of a group.
pub(super) fn group_totals<'a>(totals: &'a LayerTotals, group: &str) -> Option<&'a GroupTotals> {
    totals.groups.iter().find(|totals| &*totals.group == group)
}

impl ResourceInfo {
    pub(super) fn new(held: &VersionedResource) -> Self {
        let resource = &held.resource;
        let size = match &resource.content {
            switch::model::Content::Map(map) => map.len(),
            switch::model::Content::Ranges(ranges) => ranges.len(),
        };
        let kind = match resource.kind() {
            ResourceKind::Map => "map",
            ResourceKind::Range => "range",
        };
        Self {
            name: resource.name.to_string(),
            controller: resource.controller.to_string(),
            kind: kind.to_owned(),
            version: held.version,
            size: size as u64,
        }
    }
}

impl ApplyAnswer {
    pub(super) fn of_applied(applied: Applied) -> Self {
        let versions = applied.versions.into_iter().map(|(port, version)| (port.to_string(), version));
        Self { changes: applied.changes, versions: versions.collect(), flows: BTreeMap::new() }
    }

    pub(super) fn of_dry_run(dry: DryRun, now_ns: u64) -> Self {
        let flows = dry.flows.into_iter().map(|(port, seen)| (port.to_string(), FlowsAffected::new(&seen, now_ns)));
        Self { changes: dry.changes, versions: BTreeMap::new(), flows: flows.collect() }
    }
}

impl FlowsAffected {
    fn new(comparison: &Comparison, now_ns: u64) -> Self {
        let examples = comparison.examples.iter().map(|example| FlowAffected {
            flow: FlowInfo::new(&example.flow, now_ns),
            now: TraceAnswer::new(&example.now),
            then: TraceAnswer::new(&example.then),
        });
        Self { flows: comparison.flows, changed: comparison.changed, examples: examples.collect() }
    }
}

impl TraceAnswer {
    pub(super) fn new(trace: &Trace) -> Self {
        let steps = trace.steps.iter().map(|step| TraceStep {
            layer: step.layer.clone(),
            searched: step.searched.clone(),
            decided_by: step.decided_by.clone(),
            action: step.action.clone(),
        });
        Self {
            version: trace.version,
            direction: direction_word(trace.direction).to_owned(),
            steps: steps.collect(),
            changes: trace.changes.clone(),
            outcome: trace.outcome.to_string(),
        }
    }
}

impl FlowInfo {
    pub(super) fn new(flow: &FlowReport, now_ns: u64) -> Self {
        let key = switch::Key { ufid: flow.ufid, ..switch::Key::default() };
        #[expect(clippy::cast_possible_truncation, reason = "the switch's milliseconds are the low half, too")]
        let now_ms = (now_ns / 1_000_000) as u32;
        // A packet may have come since; it is not older than nothing.
        Self {
            id: flow.id,
            direction: direction_word(flow.direction).to_owned(),
            tuple: flow.tuple.map(|tuple| tuple.to_string()),
            fields: describe(&key).into_iter().collect(),
            count: Count { packets: flow.packets, bytes: flow.bytes },
            pending: Count { packets: flow.pending.0.into(), bytes: flow.pending.1 },
            idle_ms: Some(now_ms.wrapping_sub(flow.last_ms)).filter(|idle| *idle <= u32::MAX / 2).unwrap_or_default(),
            confirmed: flow.confirmed,
            tcp: flow.tcp.map(|state| snake(&format!("{state:?}"))),
            retransmits: flow.retransmits,
            rtt_us: flow.rtt_us,
            congestion_marks: flow.congestion_marks,
            dropped: flow.dropped.map(|cause| cause.to_string()),
            redirected: flow.redirected_to.as_ref().map(ToString::to_string),
        }
    }
}

const fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

/// `TimeWait` as `time_wait`.
fn snake(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 2);
    for (at, c) in word.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
