// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the nodes had counted at a time when nothing moved.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{Count, IDS, QUIET, Racks, SOON};
use crate::node::{AggregationStats, PortStats};
use crate::wait::wait_for;

/// The counters of all nodes, none of which was counting.
#[derive(Clone, Debug)]
pub struct Moment {
    ports: Vec<Vec<PortStats>>,
    /// Seconds since 1970: what had passed by then is counted, and nothing else.
    pub(super) time: f64,
}

/// What a port counted between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What it received.
    pub received: Count,
    /// Groups that it received and that went on whole.
    pub spliced: u64,
    /// Frames that arrived where it had no room for them.
    pub lost: u64,
    /// What it sent.
    pub sent: Count,
    /// All that it dropped, but for frames that negotiate with who does not.
    pub dropped: u64,
    /// Frames received that were longer than a link takes.
    pub oversized: u64,
    /// What those were cut into.
    pub segments: u64,
}

impl Moment {
    /// Waits until nothing has moved for a while. What is in the middle of that while is meant.
    pub(super) fn wait(racks: &Racks) -> Result<Self> {
        let mut ports = Vec::new();
        let (mut since, mut between) = (Instant::now(), None);
        let time = wait_for("the nodes to have nothing to do", SOON, || {
            let now = racks.nodes.iter().map(|node| Ok(node.stats()?.ports)).collect::<Result<Vec<_>>>()?;
            if moved(&now) != moved(&ports) {
                (ports, since, between) = (now, Instant::now(), None);
            } else if between.is_none() && since.elapsed() >= QUIET {
                between = Some(SystemTime::now());
            }
            Ok(between.filter(|_| since.elapsed() >= 2 * QUIET))
        })?;
        Ok(Self { ports, time: time.duration_since(UNIX_EPOCH)?.as_secs_f64() })
    }

    /// A port.
    pub fn port(&self, node: usize, name: &str) -> Result<&PortStats> {
        let ports = self.ports.get(node).with_context(|| format!("no node {node}"))?;
        ports.iter().find(|port| port.name == name).with_context(|| format!("no port {name} at node {}", IDS[node]))
    }

    /// All ports, and their nodes.
    pub fn ports(&self) -> impl Iterator<Item = (usize, &PortStats)> {
        self.ports.iter().enumerate().flat_map(|(node, ports)| ports.iter().map(move |port| (node, port)))
    }

    /// What a port has counted since a moment before.
    pub fn since(&self, before: &Self, node: usize, name: &str) -> Result<Counted> {
        let (before, after) = (Counted::of(before.port(node, name)?), Counted::of(self.port(node, name)?));
        let count = |before: Count, after: Count| Count {
            plain: after.plain - before.plain,
            aggregates: after.aggregates - before.aggregates,
            packets: after.packets - before.packets,
        };
        Ok(Counted {
            received: count(before.received, after.received),
            spliced: after.spliced - before.spliced,
            lost: after.lost - before.lost,
            sent: count(before.sent, after.sent),
            dropped: after.dropped - before.dropped,
            oversized: after.oversized - before.oversized,
            segments: after.segments - before.segments,
        })
    }
}

impl Counted {
    /// What a port has counted since its node began.
    fn of(port: &PortStats) -> Self {
        let AggregationStats { rx_aggregates, rx_packets, rx_groups_spliced, tx_aggregates, tx_packets, .. } =
            port.aggregation;
        // Who is not aware takes frames that negotiate for packets of a stranger.
        let refused = port.dropped("aggregate");
        let uplink = port.uplink.clone().unwrap_or_default();
        let plain = port.rx_packets - rx_packets - refused;
        Self {
            received: Count { plain, aggregates: rx_aggregates, packets: rx_packets },
            spliced: rx_groups_spliced,
            lost: port.dropped("uplink_full"),
            sent: Count { plain: port.tx_packets - tx_packets, aggregates: tx_aggregates, packets: tx_packets },
            dropped: port.drops.values().sum::<u64>() - refused,
            oversized: uplink.rx_oversized,
            segments: uplink.segments,
        }
    }
}

/// What changes when something moves.
fn moved(ports: &[Vec<PortStats>]) -> Vec<[u64; 3]> {
    let of = |port: &PortStats| [port.rx_packets, port.tx_packets, port.drops.values().sum()];
    ports.iter().flatten().map(of).collect()
}
