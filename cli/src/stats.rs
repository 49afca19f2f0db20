// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt stats`: what a node counts, once.

use std::collections::BTreeMap;
use std::fmt::Write;

use backend::stats::{FlowCounts, PolicyStats, PortStatus, Stats, WorkerStats};

use crate::client::{Client, Control};
use crate::columns::Columns;
use crate::output::print;

/// Shows what a running node counts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON, all there is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

/// Asks once and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::new(&args.control)?;
    if args.json {
        return print(&(client.text("/stats")? + "\n"));
    }
    print(&render(&client.get("/stats")?))
}

/// All counts as text. Causes of drops and the like that nothing was counted of are left out.
fn render(stats: &Stats) -> String {
    let mut text = format!("up {}\n\n", duration(stats.uptime_s));
    text.push_str(&workers(&stats.workers));
    text.push('\n');
    text.push_str(&ports(&stats.ports));
    if !stats.policies.is_empty() {
        text.push('\n');
        text.push_str(&policies(&stats.policies));
    }
    let causes = causes(stats);
    if !causes.is_empty() {
        text.push('\n');
        text.push_str(&causes);
    }
    let bridge = &stats.bridge;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nbridge: {} of {} addresses known, {} learned, {} moved, {} aged, {} without room, {} frames flooded",
        bridge.entries, bridge.capacity, bridge.learned, bridge.moves, bridge.aged, bridge.full, bridge.flooded
    );
    text
}

fn workers(workers: &[WorkerStats]) -> String {
    let mut table = Columns::new(&["WORKER", "CPU", "POLL", "PACKETS", "CYCLES/PKT", "POLLS", "SLEEPS", "HANDED-OVER"]);
    for worker in workers {
        table.row([
            worker.name.clone(),
            worker.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
            worker.poll.to_string(),
            worker.packets.to_string(),
            worker.busy_cycles.checked_div(worker.packets).map_or_else(|| "-".to_owned(), |n| n.to_string()),
            worker.polls.to_string(),
            worker.sleeps.to_string(),
            worker.handed_over.to_string(),
        ]);
    }
    table.to_string()
}

fn ports(ports: &[PortStatus]) -> String {
    if ports.is_empty() {
        return "no ports\n".to_owned();
    }
    let head = ["PORT", "STATE", "RING", "PAIRS", "RX-PKTS", "RX-BYTES", "TX-PKTS", "TX-BYTES", "DROPS", "ERRORS"];
    let mut table = Columns::new(&head);
    for port in ports {
        table.row([
            port.name.clone(),
            port.state.to_string(),
            port.ring.map_or_else(|| "-".to_owned(), |ring| ring.to_string()),
            port.queue_pairs.to_string(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.drops.values().sum::<u64>().to_string(),
            port.errors.values().sum::<u64>().to_string(),
        ]);
    }
    table.to_string()
}

/// What is held of flows, and how packets found theirs.
fn policies(policies: &[PolicyStats]) -> String {
    let head =
        ["PORT", "VERSION", "CONFIRMED", "UNCONFIRMED", "CONNECTIONS", "PATHS", "MEMORY", "HITS", "THROUGH", "MISSES"];
    let mut table = Columns::new(&head);
    for PolicyStats { port, version, flows } in policies {
        table.row([
            port.clone(),
            version.to_string(),
            format!("{}/{}", flows.confirmed, flows.max_flows),
            format!("{}/{}", flows.flows.saturating_sub(flows.confirmed), flows.max_unconfirmed_flows),
            flows.connections.to_string(),
            flows.paths.to_string(),
            flows.memory.to_string(),
            flows.hits.to_string(),
            flows.through.to_string(),
            flows.misses.to_string(),
        ]);
    }
    table.to_string()
}

/// What has a column of its own.
const COLUMNS: [&str; 11] = [
    "confirmed",
    "connections",
    "flows",
    "hits",
    "max_flows",
    "max_unconfirmed_flows",
    "memory",
    "misses",
    "paths",
    "plans_per_second",
    "through",
];

/// All that happened to flows besides, by the names that it has in JSON.
fn happened(flows: &FlowCounts) -> BTreeMap<String, u64> {
    // Its fields are numbers, which cannot fail to be written and read.
    let all: BTreeMap<String, u64> = serde_json::to_value(flows).and_then(serde_json::from_value).unwrap_or_default();
    all.into_iter().filter(|(name, _)| !COLUMNS.contains(&name.as_str())).collect()
}

/// One row for each cause that anything was lost to, and for each other thing that happened to flows.
fn causes(stats: &Stats) -> String {
    let ports = stats.ports.iter().flat_map(|port| {
        [("drop", &port.drops), ("error", &port.errors)].map(|(what, counts)| (&port.name, what, counts.clone()))
    });
    let policies = stats.policies.iter().map(|policy| (&policy.port, "policy", happened(&policy.flows)));
    let mut table = Columns::new(&["PORT", "WHAT", "CAUSE", "COUNT"]);
    let mut any = false;
    for (port, what, counts) in ports.chain(policies) {
        for (cause, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            any = true;
            table.row([port.clone(), what.to_owned(), cause, count.to_string()]);
        }
    }
    if any { table.to_string() } else { String::new() }
}

/// `3 d 04:05:06`.
pub(crate) fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float-to-int cast saturates")]
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let days = if days == 0 { String::new() } else { format!("{days} d ") };
    format!("{days}{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use backend::config::{Name, PortConfig};
    use backend::stats::{BridgeStats, PortState, RingLayout};

    use super::*;

    #[test]
    fn the_text_has_every_count_that_is_not_nothing() {
        let port = |name: &str| {
            let name = Name::new(name).expect("a name");
            PortStatus::new(&PortConfig::vhost_user(name, "/tmp/a.sock").expect("a path"))
        };
        let stats = Stats {
            uptime_s: 93_784.9,
            workers: vec![WorkerStats {
                name: "w0".to_owned(),
                packets: 10,
                busy_cycles: 1234,
                ..WorkerStats::default()
            }],
            ports: vec![
                PortStatus {
                    state: PortState::Up,
                    ring: Some(RingLayout::Packed),
                    queue_pairs: 1,
                    rx_packets: 10,
                    rx_bytes: 600,
                    drops: [("no_buffers".to_owned(), 4), ("too_big".to_owned(), 0)].into(),
                    errors: [("loop".to_owned(), 1)].into(),
                    ..port("vm0")
                },
                port("vm1"),
            ],
            bridge: BridgeStats { entries: 2, capacity: 4096, learned: 3, ..BridgeStats::default() },
            policies: vec![PolicyStats {
                port: "vm1".to_owned(),
                version: 3,
                flows: FlowCounts {
                    flows: 9,
                    confirmed: 8,
                    max_flows: 100,
                    max_unconfirmed_flows: 10,
                    plans_per_second: 50,
                    connections: 5,
                    paths: 2,
                    memory: 7000,
                    hits: 90,
                    through: 40,
                    misses: 11,
                    over_budget: 12,
                    evicted: 13,
                    ..FlowCounts::default()
                },
            }],
        };
        let expected = "\
up 1 d 02:03:04

WORKER  CPU  POLL      PACKETS  CYCLES/PKT  POLLS  SLEEPS  HANDED-OVER
w0      -    adaptive       10         123      0       0            0

PORT  STATE      RING    PAIRS  RX-PKTS  RX-BYTES  TX-PKTS  TX-BYTES  DROPS  ERRORS
vm0   up         packed      1       10       600        0         0      4       1
vm1   listening  -           0        0         0        0         0      0       0

PORT  VERSION  CONFIRMED  UNCONFIRMED  CONNECTIONS  PATHS  MEMORY  HITS  THROUGH  MISSES
vm1         3      8/100         1/10            5      2    7000    90       40      11

PORT  WHAT    CAUSE        COUNT
vm0   drop    no_buffers       4
vm0   error   loop             1
vm1   policy  evicted         13
vm1   policy  over_budget     12

bridge: 2 of 4096 addresses known, 3 learned, 0 moved, 0 aged, 0 without room, 0 frames flooded
";
        assert_eq!(render(&stats), expected);
    }
}
