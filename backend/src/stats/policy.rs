// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the switch counts of a port's flows.

use serde::{Deserialize, Serialize};
use switch::engine::{FlowLimits, PortReport, ShardStats, TunnelStats};
use utoipa::ToSchema;

/// The policy of a port as it is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStats {
    /// The port.
    pub port: String,
    /// The version of its policy.
    pub version: u64,
    /// What the switch holds and counts of it.
    pub flows: FlowCounts,
}

impl PolicyStats {
    pub(crate) fn new(port: &str, report: &PortReport) -> Self {
        Self { port: port.to_owned(), version: report.version, flows: FlowCounts::new(report) }
    }
}

/// What the switch holds of a port, and what it counted since the port's first policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct FlowCounts {
    /// Flows.
    pub flows: u64,
    /// Those of them that are confirmed: their connection is established, or packets came both ways.
    pub confirmed: u64,
    /// Most flows that are confirmed.
    pub max_flows: u64,
    /// Most flows that are not.
    pub max_unconfirmed_flows: u64,
    /// Flows that may begin in a second.
    pub plans_per_second: u64,
    /// Connections.
    pub connections: u64,
    /// Ways through the layers that flows have in common.
    pub paths: u64,
    /// Datagrams of which more fragments may come.
    pub datagrams: u64,
    /// Addresses and ports of lists that are not given out again yet.
    pub resting: u64,
    /// Bytes of tables and what belongs to them.
    pub memory: u64,
    /// Packets of flows that were known.
    pub hits: u64,
    /// Those of them that were found straight from the flow at the port that they came from.
    pub through: u64,
    /// Packets whose flow was not known.
    pub misses: u64,
    /// Flows that a change of policy left as they were.
    pub revalidated: u64,
    /// Flows and connections that were planned again after a change.
    pub replanned: u64,
    /// Connections that a change ended.
    pub ended_by_policy: u64,
    /// Packets that were dropped because too many flows began.
    pub over_budget: u64,
    /// Packets that were planned, and that no flow could be made of.
    pub not_cached: u64,
    /// Packets that could not be parsed.
    pub unparsed: u64,
    /// TCP segments that fit nothing their connection may carry.
    pub implausible: u64,
    /// Flows and connections that were silent for too long.
    pub expired: u64,
    /// Flows that made room for others, confirmed or not.
    pub evicted: u64,
    /// Those of them that were not confirmed.
    pub evicted_unconfirmed: u64,
    /// Flows and connections that found no room.
    pub table_full: u64,
    /// Connections that would have had another's name.
    pub name_conflicts: u64,
    /// Connections that found no address and port free.
    pub nat_exhausted: u64,
    /// Packets that are ICMP errors.
    pub icmp_errors: u64,
    /// Fragments that came before the first of their datagram.
    pub early_fragments: u64,
    /// Fragments that overlap others, or contradict them.
    pub bad_fragments: u64,
    /// Packets that had to wait for an answer.
    pub waiting: u64,
    /// Packets that were too long once they were in their tunnel.
    pub tunnel_too_big: u64,
    /// Those of them that the sender was told of.
    pub tunnel_told: u64,
    /// TCP SYNs whose maximum segment size was lowered, so that segments fit their tunnel.
    pub tunnel_mss_lowered: u64,
}

impl FlowCounts {
    pub(crate) fn new(report: &PortReport) -> Self {
        // All by name, so that what is counted one day is not forgotten here.
        let PortReport { version: _, limits, flows, connections, paths, datagrams, resting, memory, stats, tunnels } =
            *report;
        let FlowLimits { confirmed: max_flows, unconfirmed: max_unconfirmed_flows, plans_per_second } = limits;
        let TunnelStats { too_big: tunnel_too_big, told: tunnel_told, mss_lowered: tunnel_mss_lowered } = tunnels;
        let ShardStats {
            hits,
            through,
            misses,
            revalidated,
            replanned,
            ended_by_policy,
            over_budget,
            not_cached,
            unparsed,
            implausible,
            expired,
            evicted_small: evicted_unconfirmed,
            evicted: evicted_confirmed,
            table_full,
            name_conflicts,
            nat_exhausted,
            icmp_errors,
            early_fragments,
            bad_fragments,
            waiting,
            confirmed,
        } = stats;
        Self {
            flows,
            confirmed,
            max_flows: max_flows.into(),
            max_unconfirmed_flows: max_unconfirmed_flows.into(),
            plans_per_second: plans_per_second.into(),
            connections,
            paths,
            datagrams,
            resting,
            memory,
            hits,
            through,
            misses,
            revalidated,
            replanned,
            ended_by_policy,
            over_budget,
            not_cached,
            unparsed,
            implausible,
            expired,
            evicted: evicted_confirmed + evicted_unconfirmed,
            evicted_unconfirmed,
            table_full,
            name_conflicts,
            nat_exhausted,
            icmp_errors,
            early_fragments,
            bad_fragments,
            waiting,
            tunnel_too_big,
            tunnel_told,
            tunnel_mss_lowered,
        }
    }
}
