// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two nodes that aggregate, and between them a Linux bridge that knows nothing of it.
//!
//! ```text
//! kernel a ── tap ── node A ══ veth ══ bridge ══ veth ══ node B ── tap ── kernel b
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// Stations behind node A. Each is shown once in 100 s, so one of so many is within a second or two.
const STATIONS: usize = 200;

/// Sends a frame from each of so many stations to one address.
const FROM_MANY: &str = "
import socket, sys
port, to, count = sys.argv[1], bytes.fromhex(sys.argv[2].replace(':', '')), int(sys.argv[3])
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((port, 0))
for n in range(count):
    out.send(to + bytes([2, 9, 0, 0, n >> 8, n & 255]) + b'\\x88\\xb6' + bytes(46))
";

/// What the bridge knows of the stations: at which of its ports they are.
fn known(bridge: &NetNs) -> Result<BTreeSet<String>> {
    let table = bridge.sh("bridge fdb show br br0")?;
    let stations = table.lines().filter(|line| line.starts_with("02:09:"));
    let port = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    stations.map(|line| port(line).with_context(|| line.to_owned())).collect()
}

/// Packets that a node has sent by its uplink.
struct Sent {
    plain: u64,
    aggregated: u64,
}

fn sent(node: &Node) -> Result<Sent> {
    let port = node.port("up")?;
    let aggregated = port.aggregation.tx_packets;
    Ok(Sent { plain: port.tx_packets.saturating_sub(aggregated), aggregated })
}

/// A bridge that sees nothing of stations but what is in aggregates is shown them, and so does not forget them.
#[test]
fn a_bridge_between_nodes_is_shown_stations() {
    scenario::run(|work| {
        let bridge = NetNs::create("bridge")?;
        let [a, b] = [NetNs::create("node-a")?, NetNs::create("node-b")?];
        let kernels = [NetNs::create("kernel-a")?, NetNs::create("kernel-b")?];
        for space in [&bridge, &a, &b, &kernels[0], &kernels[1]] {
            space.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        bridge.ip("link add br0 type bridge")?;
        for (space, port) in [(&a, "toA"), (&b, "toB")] {
            space.wire("up0", &bridge, port)?;
            bridge.ip(&format!("link set {port} master br0"))?;
        }
        bridge.ip("link set br0 up")?;
        let works = [WorkDir::create()?, WorkDir::create()?];
        let mut nodes = Vec::new();
        for (n, (space, work)) in [&a, &b].into_iter().zip(&works).enumerate() {
            let aware =
                UplinkConfig { extra: "aggregate = true\n".to_owned(), ..UplinkConfig::new("up", "af-packet", "up0") };
            let uplinks = vec![UplinkConfig::new("vm", "tap", "vm0"), aware];
            let config = NodeConfig { uplinks, extra: format!("[node]\nid = {}\n", n + 1), ..NodeConfig::default() };
            nodes.push(Node::start_in(work, &config, space)?);
            space.ip(&format!("link set vm0 netns {}", kernels[n].name()))?;
            kernels[n].ip(&format!("addr add 10.8.0.{}/24 dev vm0", n + 1))?;
            kernels[n].ip("link set vm0 up")?;
        }
        for node in &nodes {
            node.wait_up(&["vm", "up"])?;
        }
        // Each is known to the other: what they send each other goes in aggregates, and nothing plain. That they are told of each other is an
        // aggregate, too.
        let mac = kernels[1].sh("cat /sys/class/net/vm0/address")?;
        wait_until("aggregates", SOON, || {
            let before = sent(&nodes[0])?;
            let answered = kernels[0].sh("busybox ping -c 1 -W 1 10.8.0.2").is_ok();
            let after = sent(&nodes[0])?;
            Ok(answered && after.aggregated > before.aggregated && after.plain == before.plain)
        })?;
        let script = work.file("from_many.py");
        std::fs::write(&script, FROM_MANY)?;
        let send = format!("python3 {} vm0 {} {STATIONS}", script.display(), mac.trim());
        let before = sent(&nodes[0])?;
        kernels[0].sh(&send)?;
        wait_until("all of them in aggregates", SOON, || {
            Ok(sent(&nodes[0])?.aggregated >= before.aggregated + STATIONS as u64)
        })?;
        // Those that are shown already are plain.
        let plain = sent(&nodes[0])?.plain - before.plain;
        ensure!(plain < STATIONS as u64 / 2, "{plain} of {STATIONS} were plain");
        bridge.ip("link set br0 type bridge fdb_flush")?;
        wait_until("stations that the bridge knows", SOON, || Ok(!known(&bridge)?.is_empty()))?;
        let ports = known(&bridge)?;
        ensure!(ports.iter().eq(["toA"]), "{ports:?}");
        Ok(())
    });
}
