// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stage 2 of aggregation with kernels at the ends (decisions 23, 24 and 26): TCP crosses two forwarders of the SDK that aggregate towards a
//! bridge with a stateful layer between them, and a guest with a stock kernel on the same bridge, which knows nothing of any of this,
//! receives plain frames only.
//!
//! ```text
//! kernel ── tap ── l2fwd ══ left ┐        ┌ right ══ l2fwd ── tap ── kernel
//!                                ├ bridge ┤
//!                                         └ vm ── QEMU guest
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cnf::example;
use harness::guest::{Guest, GuestConfig};
use harness::netns::NetNs;
use harness::node::{AggregationStats, Node, NodeConfig, PortConfig};
use harness::process::Process;
use harness::scenario::{self, WorkDir};
use harness::testpmd::Ring;
use harness::transfer::{self, hash};
use harness::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 16;
const ADDRESSES: [&str; 2] = ["10.9.0.101", "10.9.0.102"];

/// Who is at "left" may begin connections, and nobody else with it.
const ACL: &str = r#"
controller = "acl"
[[layer]]
port = "left"
name = "acl"
order = 10
default = "block"
[[layer.group]]
name = "customer"
[[layer.group.rule]]
name = "arp-out"
dir = "out"
match = { ether_type = 0x0806 }
action = { type = "allow" }
[[layer.group.rule]]
name = "arp-in"
dir = "in"
match = { ether_type = 0x0806 }
action = { type = "allow" }
[[layer.group.rule]]
name = "begin"
dir = "out"
match = { ip_version = 4 }
action = { type = "allow", stateful = true }
"#;

/// A forwarder between a tap device in a namespace and a port.
fn forwarder(work: &WorkDir, node: &Node, space: &NetNs, port: &str) -> Result<Process> {
    space.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
    let socket = node.socket(port).display().to_string();
    let argv = example("l2fwd", &["tap:shunt0", &socket, "--aggregate"])?;
    Process::spawn(work, port, &[space.command(&[]), argv].concat())
}

/// Sends random bytes from a namespace to whoever `listens`, and returns their hash.
fn send(work: &WorkDir, from: &NetNs, to: &str, label: &str) -> Result<String> {
    let sent = work.file(&format!("sent-{label}"));
    from.sh(&format!("dd if=/dev/urandom of={} bs=1M count={MIB} status=none", sent.display()))?;
    let send = format!("until busybox nc {to} 5001 < {}; do sleep 0.1; done", sent.display());
    let mut sender = from.spawn(work, &format!("sender-{label}"), &["sh", "-c", &send])?;
    ensure!(sender.wait_exit(transfer::LIMIT)?.success(), "the sender to {to} failed");
    let sum = from.sh(&format!("sha256sum < {}", sent.display()))?;
    hash(&sum).map(str::to_owned).with_context(|| format!("no hash in {sum:?}"))
}

#[test]
fn kernels_talk_across_a_bridge_that_aggregates() {
    scenario::run(|work| {
        let ports = ["left", "right", "vm"].map(PortConfig::new).to_vec();
        let config = NodeConfig { ports, extra: "\n[node]\nid = 9\n".to_owned(), ..NodeConfig::default() };
        let mut node = Node::start(work, &config)?;
        node.apply(work, ACL)?;
        let spaces = [NetNs::create("aggr-left")?, NetNs::create("aggr-right")?];
        let mut forwarders = Vec::new();
        for ((space, port), address) in spaces.iter().zip(["left", "right"]).zip(ADDRESSES) {
            forwarders.push(forwarder(work, &node, space, port)?);
            wait_until("the tap device", SOON, || Ok(space.ip("link show shunt0").is_ok()))?;
            space.ip(&format!("addr add {address}/24 dev shunt0"))?;
        }
        for forwarder in &mut forwarders {
            let agreed = |text: &str| text.contains(": aggregating with node 9").then_some(());
            forwarder.wait_printed(0, "that it aggregates", SOON, agreed)?;
        }
        let mut guest = Guest::spawn(work, &GuestConfig::new("guest", 3, &node.socket("vm"), Ring::Packed))?;
        guest.ready()?;
        node.wait_up(&["left", "right", "vm"])?;

        // From kernel to kernel, through policy.
        let [left, right] = &spaces;
        let (hold, received) = (work.file("hold"), work.file("received"));
        right.sh(&format!("mkfifo {}", hold.display()))?;
        let listen = format!("busybox nc -l -p 5001 <>{} >{}", hold.display(), received.display());
        let mut receiver = right.spawn(work, "receiver", &["sh", "-c", &listen])?;
        let sent = send(work, left, ADDRESSES[1], "right")?;
        receiver.wait_exit(transfer::LIMIT)?;
        let sum = right.sh(&format!("sha256sum < {}", received.display()))?;
        ensure!(hash(&sum) == Some(&sent), "sent {sent}, received {sum}");

        // To who knows nothing of it, from both sides.
        for (space, label) in [(left, "left"), (right, "again")] {
            let receive = "rm -f /tmp/hold; mkfifo /tmp/hold; nc -l -p 5001 <>/tmp/hold | sha256sum";
            let receiving = guest.begin(receive)?;
            let sent = send(work, space, &guest.ip(), label)?;
            let sum = guest.finish(&receiving, transfer::LIMIT).context("the guest")?.text;
            ensure!(hash(&sum) == Some(&sent), "sent {sent}, received {sum}");
        }

        // Nobody begins anything with "left".
        let refused = right.sh(&format!("busybox nc -w 2 {} 5001 < /dev/null", ADDRESSES[0]));
        ensure!(refused.is_err(), "a connection to who may only begin some");

        for port in ["left", "right"] {
            let port = node.port(port)?;
            let aggregation = &port.aggregation;
            ensure!(port.errors.is_empty() && aggregation.damages.is_empty(), "{port:?}");
            ensure!(aggregation.peers.get("up") == Some(&1) && aggregation.peers.len() == 1, "{port:?}");
            ensure!(aggregation.rx_packets >= 2 * aggregation.rx_aggregates, "{port:?}");
            ensure!(aggregation.tx_packets >= 2 * aggregation.tx_aggregates, "{port:?}");
            // Data went one way, and only acknowledgements the other.
            let (data, answers) = match port.name.as_str() {
                "left" => (aggregation.rx_packets, aggregation.tx_packets),
                _ => (aggregation.tx_packets, aggregation.rx_packets),
            };
            ensure!(data > 1000 && answers > 0, "{port:?}");
        }
        ensure!(node.dropped("policy_default")? > 0, "what was blocked was not counted");
        // What the node says that it delivered are frames, each of one packet, that the guest's kernel counted.
        wait_until("the guest counts what was delivered", SOON, || {
            let counted = guest.sh("cat /sys/class/net/eth0/statistics/rx_packets", SOON)?;
            let port = node.port("vm")?;
            ensure!(port.aggregation == AggregationStats::default(), "{port:?}");
            let counted: u64 = counted.trim().parse().with_context(|| counted.clone())?;
            Ok(counted == port.tx_packets)
        })?;
        for forwarder in &mut forwarders {
            ensure!(forwarder.terminate()?.success(), "{} ended badly", forwarder.name());
        }
        node.terminate()
    });
}
