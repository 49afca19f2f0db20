// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! [`Stats`] as text for Prometheus (the OpenMetrics format, which Prometheus reads by its content type).
//!
//! Workers count for themselves; a scrape only renders one snapshot, so there is no registry of live metric objects.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use packet::DropCause;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter as Counter;
use prometheus_client::metrics::gauge::ConstGauge as Gauge;
use prometheus_client::registry::Registry;

use super::policy_metrics::Policies;
use crate::stats::{BridgeStats, Distribution, PortState, PortStatus, Stats, UplinkStatus, WorkerStats};

/// What the text is, in the words of HTTP.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders a snapshot.
pub(super) fn encode(stats: Stats, policies: Policies) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("shunt");
    registry.register_collector(Box::new(Snapshot(stats, policies)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot(Stats, Policies);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        // Policies come with their layers, which are not in the statistics.
        let Stats { uptime_s, workers, ports, bridge, policies: _ } = &self.0;
        out.gauge("build_info", "1, with the version", [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)])?;
        out.single("uptime_seconds", "Time since the node started", &Gauge::new(*uptime_s))?;
        write_workers(&mut out, workers)?;
        write_ports(&mut out, ports)?;
        write_uplinks(&mut out, ports)?;
        write_bridge(&mut out, bridge)?;
        self.1.write(&mut out)
    }
}

fn write_workers(out: &mut Writer<'_>, workers: &[WorkerStats]) -> fmt::Result {
    type Column = (&'static str, &'static str, fn(&WorkerStats) -> u64);
    let columns: [Column; 7] = [
        ("worker_packets", "Packets that the worker forwarded or dropped", |w| w.packets),
        ("worker_busy_cycles", "TSC cycles in turns that found packets", |w| w.busy_cycles),
        ("worker_idle_cycles", "TSC cycles in turns that found none", |w| w.idle_cycles),
        ("worker_polls", "Turns of the worker's loop", |w| w.polls),
        ("worker_sleeps", "Times that the worker went to sleep", |w| w.sleeps),
        ("worker_handed_over", "Packets handed to another worker", |w| w.handed_over),
        ("worker_deferred", "Times that a queue sat out a turn: its port had had its share of time", |w| w.deferred),
    ];
    for (name, help, value) in columns {
        out.counter(name, help, workers.iter().map(|w| ([("worker", w.name.as_str())], value(w))))?;
    }
    let longest = workers.iter().map(|w| ([("worker", w.name.as_str())], w.longest_turn_cycles));
    out.gauge("worker_longest_turn_cycles", "TSC cycles of the longest turn in the last one or two seconds", longest)
}

fn write_ports(out: &mut Writer<'_>, ports: &[PortStatus]) -> fmt::Result {
    type Column = (&'static str, &'static str, fn(&PortStatus) -> u64);
    let columns: [Column; 15] = [
        ("port_rx_packets", "Frames received from the guest", |p| p.rx_packets),
        ("port_rx_bytes", "Bytes received from the guest", |p| p.rx_bytes),
        ("port_tx_packets", "Frames delivered to the guest", |p| p.tx_packets),
        ("port_tx_bytes", "Bytes delivered to the guest", |p| p.tx_bytes),
        ("port_notifications", "Times that the guest was told of used buffers", |p| p.notifications),
        ("port_rx_aggregates", "Aggregates received", |p| p.aggregation.rx_aggregates),
        ("port_rx_aggregated", "Packets received in aggregates", |p| p.aggregation.rx_packets),
        ("port_rx_groups_spliced", "Groups received that went on whole", |p| p.aggregation.rx_groups_spliced),
        ("port_rx_packets_spliced", "Packets in groups that went on whole", |p| p.aggregation.rx_packets_spliced),
        ("port_tx_aggregates", "Aggregates sent", |p| p.aggregation.tx_aggregates),
        ("port_tx_aggregated", "Packets sent in aggregates", |p| p.aggregation.tx_packets),
        ("port_rx_aggregates_lost", "Aggregates sent to the node that did not arrive", |p| p.aggregation.rx_lost),
        ("port_rx_packets_damaged", "Packets lost in damaged aggregates", |p| p.aggregation.packets_damaged),
        ("port_rx_aggregation_control", "Frames received that negotiate", |p| p.aggregation.rx_control),
        ("port_tx_aggregation_control", "Frames sent that negotiate", |p| p.aggregation.tx_control),
    ];
    for (name, help, value) in columns {
        out.counter(name, help, ports.iter().map(|p| ([("port", p.name.as_str())], value(p))))?;
    }
    type Causes = (&'static str, &'static str, fn(&PortStatus) -> &BTreeMap<String, u64>);
    let columns: [Causes; 4] = [
        ("port_aggregation_damages", "What was not taken of aggregates, by cause", |p| &p.aggregation.damages),
        ("port_aggregation_flushes", "Frames put together and sent, by what sent them", |p| &p.aggregation.flushes),
        ("port_aggregation_peers", "What became of those that speak aggregates", |p| &p.aggregation.peers),
        ("port_errors", "Broken queues and refused connections, by cause", |p| &p.errors),
    ];
    // All causes that there are: what has not happened yet is 0.
    let drops = ports.iter().flat_map(|p| {
        DropCause::ALL.iter().map(|cause| {
            let n = p.drops.get(cause.label()).copied().unwrap_or(0);
            ([("port", p.name.as_str()), ("cause", cause.label())], n)
        })
    });
    out.counter("port_drops", "Frames dropped, by cause", drops)?;
    for (name, help, causes) in columns {
        let samples = ports.iter().flat_map(|p| {
            causes(p).iter().map(|(cause, n)| ([("port", p.name.as_str()), ("cause", cause.as_str())], *n))
        });
        out.counter(name, help, samples)?;
    }
    let distributions = |of: fn(&PortStatus) -> &Distribution| ports.iter().map(move |p| (p.name.as_str(), of(p)));
    out.histogram(
        "port_aggregation_frame_packets",
        "Packets of each frame that was put together",
        (1..=16, 1.0),
        distributions(|p| &p.aggregation.packets_per_frame),
    )?;
    out.histogram(
        "port_aggregation_held_seconds",
        "How long the first packet of each such frame was held",
        (10..=27, 1e9),
        distributions(|p| &p.aggregation.held_ns),
    )?;
    let pairs = ports.iter().map(|p| ([("port", p.name.as_str())], u64::from(p.queue_pairs)));
    out.gauge("port_queue_pairs", "Queue pairs that the front end has enabled", pairs)?;
    let states = ports.iter().flat_map(|p| {
        PortState::ALL.map(|state| ([("port", p.name.as_str()), ("state", state.name())], u64::from(p.state == state)))
    });
    out.gauge("port_state", "1 for the state that the port is in", states)
}

fn write_uplinks(out: &mut Writer<'_>, ports: &[PortStatus]) -> fmt::Result {
    let uplinks = || ports.iter().filter_map(|port| Some((port.name.as_str(), port.uplink.as_ref()?)));
    type Column = (&'static str, &'static str, fn(&UplinkStatus) -> u64);
    let columns: [Column; 8] = [
        ("uplink_rx_unfinished", "Frames received without a checksum, or not cut", |u| u.rx_unfinished),
        ("uplink_rx_oversized", "Frames received that were longer than a link takes", |u| u.rx_oversized),
        ("uplink_segments", "What the node cut such frames into", |u| u.segments),
        ("uplink_neighbors_asked", "Frames in which the node asked for a neighbour", |u| u.neighbors_asked),
        ("uplink_neighbors_answered", "Requests for the node's addresses that it answered", |u| u.neighbors_answered),
        ("uplink_neighbors_learned", "Neighbours that became known, or moved", |u| u.neighbors_learned),
        ("uplink_neighbors_failed", "Neighbours that did not answer", |u| u.neighbors_failed),
        ("uplink_neighbors_duplicates", "Claims of others to the node's addresses", |u| u.neighbors_duplicates),
    ];
    for (name, help, value) in columns {
        out.counter(name, help, uplinks().map(|(port, uplink)| ([("port", port)], value(uplink))))?;
    }
    let known = uplinks().map(|(port, uplink)| {
        let known = uplink.neighbors.iter().filter(|neighbor| neighbor.mac.is_some()).count();
        ([("port", port)], known as u64)
    });
    out.gauge("uplink_neighbors", "Neighbours whose MAC address is known", known)?;
    let parked = uplinks().map(|(port, uplink)| ([("port", port)], uplink.parked));
    out.gauge("uplink_parked", "Packets that wait for a neighbour", parked)
}

fn write_bridge(out: &mut Writer<'_>, bridge: &BridgeStats) -> fmt::Result {
    out.single("bridge_entries", "Addresses known", &Gauge::new(bridge.entries))?;
    out.single("bridge_capacity", "Most addresses that can be known", &Gauge::new(bridge.capacity))?;
    out.single("bridge_learned", "Addresses learned", &Counter::new(bridge.learned))?;
    out.single("bridge_moves", "Addresses that changed port", &Counter::new(bridge.moves))?;
    out.single("bridge_aged", "Addresses forgotten", &Counter::new(bridge.aged))?;
    out.single("bridge_full", "Addresses not learned for want of room", &Counter::new(bridge.full))?;
    out.single("bridge_flooded", "Frames sent to all ports", &Counter::new(bridge.flooded))
}

/// Writes metrics with all their samples.
pub(super) struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// A metric of what there is only one of.
    pub(super) fn single(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    pub(super) fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// One distribution for each port that has one, by powers of 2. `per` of its numbers are 1 here.
    #[expect(clippy::cast_precision_loss, reason = "a bound or a sum that is that large needs no last digit")]
    fn histogram<'p>(
        &mut self,
        name: &str,
        help: &str,
        (bits, per): (RangeInclusive<u32>, f64),
        samples: impl Iterator<Item = (&'p str, &'p Distribution)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (port, distribution) in samples.filter(|(_, distribution)| distribution.count > 0) {
            // The same bounds for all, so that ports can be added up.
            let mut left = distribution.buckets.iter().peekable();
            let mut up_to = |bound: u64| {
                std::iter::from_fn(|| left.next_if(|b| b.le.unwrap_or(u64::MAX) <= bound)).map(|b| b.count).sum()
            };
            let bounds = std::iter::once(0).chain(bits.clone().map(|bits| (1_u64 << bits) - 1));
            let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound as f64 / per, up_to(bound))).collect();
            buckets.push((f64::INFINITY, up_to(u64::MAX)));
            let (sum, count) = (distribution.sum as f64 / per, distribution.count);
            metric.encode_family(&[("port", port)])?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    pub(super) fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}
