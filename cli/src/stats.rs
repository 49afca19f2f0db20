// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt stats`: what a node counts, once.

use std::fmt::Write;

use backend::stats::{PortStatus, Stats, WorkerStats};

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

/// All counts as text. A column of zeros in drops or errors is left out.
fn render(stats: &Stats) -> String {
    let mut text = format!("up {}\n\n", duration(stats.uptime_s));
    text.push_str(&workers(&stats.workers));
    text.push('\n');
    text.push_str(&ports(&stats.ports));
    let causes = causes(&stats.ports);
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

/// One row for each cause that anything was lost to.
fn causes(ports: &[PortStatus]) -> String {
    let mut table = Columns::new(&["PORT", "WHAT", "CAUSE", "COUNT"]);
    let mut any = false;
    for port in ports {
        for (what, counts) in [("drop", &port.drops), ("error", &port.errors)] {
            for (cause, count) in counts.iter().filter(|(_, count)| **count > 0) {
                any = true;
                table.row([port.name.clone(), what.to_owned(), cause.clone(), count.to_string()]);
            }
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
        };
        let expected = "\
up 1 d 02:03:04

WORKER  CPU  POLL      PACKETS  CYCLES/PKT  POLLS  SLEEPS  HANDED-OVER
w0      -    adaptive       10         123      0       0            0

PORT  STATE      RING    PAIRS  RX-PKTS  RX-BYTES  TX-PKTS  TX-BYTES  DROPS  ERRORS
vm0   up         packed      1       10       600        0         0      4       1
vm1   listening  -           0        0         0        0         0      0       0

PORT  WHAT   CAUSE       COUNT
vm0   drop   no_buffers      4
vm0   error  loop            1

bridge: 2 of 4096 addresses known, 3 learned, 0 moved, 0 aged, 0 without room, 0 frames flooded
";
        assert_eq!(render(&stats), expected);
    }
}
