// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is counted of policy as text for Prometheus: ports, layers and groups. Rules and flows come and go in too great a
//! number for a time series each; the API tells of them.

use std::fmt;

use prometheus_client::metrics::counter::ConstCounter as Counter;
use prometheus_client::metrics::gauge::ConstGauge as Gauge;

use super::answers::{Count, LayerInfo};
use super::metrics::Writer;
use crate::policy::PolicyStore;
use crate::stats::{FlowCounts, PolicyStats};

/// Most groups that have lines of their own.
const MAX_GROUPS: usize = 4096;

/// What is counted of policy.
#[derive(Debug, Default)]
pub(super) struct Policies {
    ports: Vec<PortPolicy>,
    groups_left_out: u64,
    lost_events: u64,
}

#[derive(Debug)]
struct PortPolicy {
    stats: PolicyStats,
    layers: Vec<LayerInfo>,
}

impl Policies {
    /// Of all ports that have policy and answer.
    pub(super) fn of(store: &PolicyStore) -> Self {
        let mut all = Self { lost_events: store.events().lost(), ..Self::default() };
        let mut groups = 0;
        for (port, view) in store.views() {
            // A port that goes meanwhile has no counters any more.
            let (Ok(()), Ok(report)) = (store.board().settle(&port), store.board().report(&port)) else { continue };
            let totals = view.snapshot.totals();
            let mut layers: Vec<_> = view.policy.layers().iter().map(|layer| LayerInfo::new(layer, &totals)).collect();
            for layer in &mut layers {
                let room = layer.groups.len().min(MAX_GROUPS - groups);
                groups += room;
                all.groups_left_out += (layer.groups.len() - room) as u64;
                layer.groups.truncate(room);
            }
            all.ports.push(PortPolicy { stats: PolicyStats::new(port.as_str(), &report), layers });
        }
        all
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> fmt::Result {
        self.write_ports(out)?;
        self.write_layers(out)?;
        let left_out = Gauge::new(self.groups_left_out);
        out.single("policy_groups_left_out", "Groups without lines here; the API tells of all", &left_out)?;
        let lost = Counter::new(self.lost_events);
        out.single("policy_events_lost", "Events that controllers did not take in time", &lost)
    }

    fn write_ports(&self, out: &mut Writer<'_>) -> fmt::Result {
        let ports = || self.ports.iter().map(|port| &port.stats);
        let version = ports().map(|port| ([("port", &*port.port)], port.version));
        out.gauge("policy_version", "Version of a port's policy", version)?;
        for (name, help, value) in GAUGES {
            out.gauge(name, help, ports().map(|port| ([("port", &*port.port)], value(&port.flows))))?;
        }
        for (name, help, value) in COUNTERS {
            out.counter(name, help, ports().map(|port| ([("port", &*port.port)], value(&port.flows))))?;
        }
        Ok(())
    }

    fn write_layers(&self, out: &mut Writer<'_>) -> fmt::Result {
        type Part = (&'static str, fn(&LayerInfo) -> Count);
        let parts: [Part; 3] = [
            ("rules", |layer| layer.rule_count),
            ("connections", |layer| layer.connection_count),
            ("default", |layer| layer.default_count),
        ];
        type Unit = (&'static str, &'static str, &'static str, fn(Count) -> u64);
        let units: [Unit; 2] = [
            ("policy_layer_packets", "policy_group_packets", "Packets", |count| count.packets),
            ("policy_layer_bytes", "policy_group_bytes", "Bytes", |count| count.bytes),
        ];
        let layers = || self.ports.iter().flat_map(|p| p.layers.iter().map(|layer| (&*p.stats.port, layer)));
        for (layer_name, group_name, what, value) in units {
            let samples = layers().flat_map(|(port, layer)| {
                parts.map(|(by, count)| ([("port", port), ("layer", &*layer.name), ("by", by)], value(count(layer))))
            });
            out.counter(layer_name, &format!("{what} that a layer decided, by what decided"), samples)?;
            let samples = layers().flat_map(|(port, layer)| {
                let labels = move |group| [("port", port), ("layer", &*layer.name), ("group", group)];
                layer.groups.iter().map(move |group| (labels(&*group.name), value(group.count)))
            });
            out.counter(group_name, &format!("{what} that a group's rules decided"), samples)?;
        }
        Ok(())
    }
}

/// A metric of a port's flows: its name, its help, its value.
type Column = (&'static str, &'static str, fn(&FlowCounts) -> u64);

const GAUGES: [Column; 10] = [
    ("policy_flows", "Flows known", |f| f.flows),
    ("policy_flows_confirmed", "Flows known that are confirmed", |f| f.confirmed),
    ("policy_max_flows", "Most flows that are confirmed", |f| f.max_flows),
    ("policy_max_unconfirmed_flows", "Most flows that are not confirmed", |f| f.max_unconfirmed_flows),
    ("policy_max_plans_per_second", "Flows that may begin in a second", |f| f.plans_per_second),
    ("policy_connections", "Connections known", |f| f.connections),
    ("policy_paths", "Ways through the layers that flows have in common", |f| f.paths),
    ("policy_datagrams", "Datagrams of which more fragments may come", |f| f.datagrams),
    ("policy_names_resting", "Addresses and ports of lists that are not given out again yet", |f| f.resting),
    ("policy_memory_bytes", "Bytes of tables and what belongs to them", |f| f.memory),
];

const COUNTERS: [Column; 23] = [
    ("policy_hits", "Packets of flows that were known", |f| f.hits),
    ("policy_through", "Hits straight from the flow at the port that the packet came from", |f| f.through),
    ("policy_misses", "Packets whose flow was not known", |f| f.misses),
    ("policy_revalidated", "Flows that a change left as they were", |f| f.revalidated),
    ("policy_replanned", "Flows and connections that were planned again after a change", |f| f.replanned),
    ("policy_ended", "Connections that a change ended", |f| f.ended_by_policy),
    ("policy_over_budget", "Packets dropped because too many flows began", |f| f.over_budget),
    ("policy_not_cached", "Packets planned of which no flow could be made", |f| f.not_cached),
    ("policy_unparsed", "Packets that could not be parsed", |f| f.unparsed),
    ("policy_implausible", "TCP segments that fit nothing their connection may carry", |f| f.implausible),
    ("policy_expired", "Flows and connections that were silent for too long", |f| f.expired),
    ("policy_evicted", "Flows that made room for others", |f| f.evicted),
    ("policy_evicted_unconfirmed", "Flows that made room for others and were not confirmed", |f| f.evicted_unconfirmed),
    ("policy_table_full", "Flows and connections that found no room", |f| f.table_full),
    ("policy_name_conflicts", "Connections that would have had another's name", |f| f.name_conflicts),
    ("policy_nat_exhausted", "Connections that found no address and port free", |f| f.nat_exhausted),
    ("policy_icmp_errors", "Packets that are ICMP errors", |f| f.icmp_errors),
    ("policy_early_fragments", "Fragments that came before the first of their datagram", |f| f.early_fragments),
    ("policy_bad_fragments", "Fragments that overlap others, or contradict them", |f| f.bad_fragments),
    ("policy_waiting", "Packets that had to wait for an answer", |f| f.waiting),
    ("policy_tunnel_too_big", "Packets too long once they were in their tunnel", |f| f.tunnel_too_big),
    ("policy_tunnel_told", "Senders told that their packets are too long for the tunnel", |f| f.tunnel_told),
    ("policy_tunnel_mss_lowered", "TCP SYNs whose maximum segment size was lowered", |f| f.tunnel_mss_lowered),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::metrics;
    use crate::stats::Stats;

    #[test]
    fn every_count_of_a_port_has_a_line_of_its_own() {
        let names: BTreeMap<String, u64> =
            serde_json::from_value(serde_json::to_value(FlowCounts::default()).expect("JSON")).expect("numbers");
        let numbers: BTreeMap<&String, u64> = names.keys().zip(1001..).collect();
        let flows = serde_json::from_value(serde_json::to_value(&numbers).expect("JSON")).expect("counts");
        let stats = PolicyStats { port: "vm0".to_owned(), version: 1000, flows };
        let policies = Policies { ports: vec![PortPolicy { stats, layers: Vec::new() }], ..Policies::default() };
        let text = metrics::encode(Stats::default(), policies).expect("text");
        let lines = text.lines().filter_map(|line| line.strip_prefix("shunt_policy_")?.split_once("{port=\"vm0\"} "));
        let mut told: Vec<u64> = lines.map(|(_, value)| value.parse().expect("a number")).collect();
        told.sort_unstable();
        assert_eq!(told, (1000..=1000 + names.len() as u64).collect::<Vec<_>>(), "{text}");
        for line in ["# TYPE shunt_policy_memory_bytes gauge", "# TYPE shunt_policy_over_budget counter"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
