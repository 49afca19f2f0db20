// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two looks at a node's counts, as rates.

use backend::stats::{PortStatus, Stats, WorkerStats};

use crate::columns::Columns;
use crate::stats::duration;

/// Seconds that two looks are taken to be apart at least, so that no rate is infinite.
const SHORTEST: f64 = 1e-3;

/// The table for what happened from `last` to `now`.
pub(super) fn render(last: &Stats, now: &Stats) -> String {
    // A node that was started again in between counts from nothing.
    let restarted = now.uptime_s < last.uptime_s;
    let nothing = Stats::default();
    let last = if restarted { &nothing } else { last };
    let seconds = (now.uptime_s - last.uptime_s).max(SHORTEST);
    let bridge = &now.bridge;
    let table_full = if bridge.full > 0 { format!(", {} without room", bridge.full) } else { String::new() };
    format!(
        "up {}   bridge: {} of {} addresses{table_full}\n\n{}\n{}",
        duration(now.uptime_s),
        bridge.entries,
        bridge.capacity,
        workers(&last.workers, &now.workers, seconds),
        ports(&last.ports, &now.ports, seconds),
    )
}

fn workers(last: &[WorkerStats], now: &[WorkerStats], seconds: f64) -> String {
    let mut table = Columns::new(&["WORKER", "CPU", "POLL", "PKT/S", "CYCLES/PKT", "BUSY", "SLEEPS/S"]);
    for worker in now {
        let nothing = WorkerStats::default();
        let before = last.iter().find(|w| w.name == worker.name).unwrap_or(&nothing);
        let since = |count: fn(&WorkerStats) -> u64| count(worker).saturating_sub(count(before));
        let (busy, idle, packets) = (since(|w| w.busy_cycles), since(|w| w.idle_cycles), since(|w| w.packets));
        table.row([
            worker.name.clone(),
            worker.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
            worker.poll.to_string(),
            scaled(rate(packets, seconds)),
            busy.checked_div(packets).map_or_else(|| "-".to_owned(), |n| n.to_string()),
            // Of the cycles it was awake.
            (busy * 100).checked_div(busy + idle).map_or_else(|| "0 %".to_owned(), |n| format!("{n} %")),
            scaled(rate(since(|w| w.sleeps), seconds)),
        ]);
    }
    table.to_string()
}

fn ports(last: &[PortStatus], now: &[PortStatus], seconds: f64) -> String {
    if now.is_empty() {
        return "no ports\n".to_owned();
    }
    let head = ["PORT", "STATE", "RING", "RX-PKT/S", "RX-BIT/S", "TX-PKT/S", "TX-BIT/S", "DROPS/S", "DROPS", "ERRORS"];
    let mut table = Columns::new(&head);
    for port in now {
        let before = last.iter().find(|p| p.name == port.name);
        let since = |count: fn(&PortStatus) -> u64| rate(count(port).saturating_sub(before.map_or(0, count)), seconds);
        table.row([
            port.name.clone(),
            port.state.to_string(),
            port.ring.map_or_else(|| "-".to_owned(), |ring| ring.to_string()),
            scaled(since(|p| p.rx_packets)),
            scaled(8.0 * since(|p| p.rx_bytes)),
            scaled(since(|p| p.tx_packets)),
            scaled(8.0 * since(|p| p.tx_bytes)),
            scaled(since(|p| p.drops.values().sum())),
            port.drops.values().sum::<u64>().to_string(),
            port.errors.values().sum::<u64>().to_string(),
        ]);
    }
    table.to_string()
}

#[expect(clippy::cast_precision_loss, reason = "what is shown has three digits")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Three digits and the unit's prefix: `1.23 M`.
fn scaled(value: f64) -> String {
    let mut value = value;
    for prefix in ["", " k", " M", " G", " T"] {
        if value < 999.5 || prefix == " T" {
            let digits = match value {
                v if prefix.is_empty() || v >= 99.95 => 0,
                v if v >= 9.995 => 1,
                _ => 2,
            };
            return format!("{value:.digits$}{prefix}");
        }
        value /= 1000.0;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use backend::config::{Name, PortConfig};

    use super::*;

    fn look(uptime_s: f64, packets: u64) -> Stats {
        let name = Name::new("vm0").expect("a name");
        let port = PortStatus::new(&PortConfig::vhost_user(name, "/tmp/a.sock").expect("a path"));
        Stats {
            uptime_s,
            workers: vec![WorkerStats {
                name: "w0".to_owned(),
                packets,
                busy_cycles: 100 * packets,
                idle_cycles: 300 * packets,
                ..WorkerStats::default()
            }],
            ports: vec![PortStatus { rx_packets: packets, rx_bytes: 64 * packets, ..port }],
            ..Stats::default()
        }
    }

    #[test]
    fn rates_are_per_second_of_the_node() {
        let expected = "\
up 00:00:12   bridge: 0 of 0 addresses

WORKER  CPU  POLL       PKT/S  CYCLES/PKT  BUSY  SLEEPS/S
w0      -    adaptive  2.00 M         100  25 %         0

PORT  STATE      RING  RX-PKT/S  RX-BIT/S  TX-PKT/S  TX-BIT/S  DROPS/S  DROPS  ERRORS
vm0   listening  -       2.00 M    1.02 G         0         0        0      0       0
";
        assert_eq!(render(&look(10.0, 1_000_000), &look(12.0, 5_000_000)), expected);
    }

    #[test]
    fn a_restarted_node_and_a_hasty_look_give_finite_rates() {
        let text = render(&look(1000.0, u64::MAX / 1000), &look(2.0, 10));
        assert!(text.contains("w0      -    adaptive      5 "), "{text}");
        let text = render(&look(1.0, 5), &look(1.0, 5));
        assert!(!text.contains("inf") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.0, "0"),
            (7.4, "7"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (9_994.0, "9.99 k"),
            (9_996.0, "10.0 k"),
            (99_960.0, "100 k"),
            (999_600.0, "1.00 M"),
            (12_345_678.0, "12.3 M"),
            (1.5e15, "1500 T"),
        ];
        for (value, text) in cases {
            assert_eq!(scaled(value), text, "{value}");
        }
    }
}
