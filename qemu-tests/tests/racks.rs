// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Three nodes in three network namespaces, joined by veth pairs: host A, the top of the rack, host B; and a host at the top of the rack
//! that knows nothing of aggregates. Behind each host is a kernel.
//!
//! ```text
//! kernel a ── tap ── node A ══ veth ══ node T ══ veth ══ node B ── tap ── kernel b
//!                                        │
//!                                       veth
//!                                        │
//!                                     kernel c
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::aggdump;
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::process::Process;
use harness::scenario::{self, WorkDir};
use harness::transfer;
use harness::wait::wait_until;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 8;
/// Node ids.
const IDS: [(&str, u16); 3] = [("A", 11), ("T", 12), ("B", 13)];
/// Kernels behind hosts A and B, and the one that is nobody's.
const ADDRESSES: [&str; 3] = ["10.8.0.1", "10.8.0.2", "10.8.0.3"];

/// What differs between scenes.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: &'static str,
    mtu: u16,
    /// Whether hosts and top of the rack speak aggregates.
    aggregate: bool,
}

struct Racks {
    nodes: [Node; 3],
    /// The nodes' namespaces.
    spaces: [NetNs; 3],
    /// Of kernels a, b and c.
    kernels: [NetNs; 3],
    _work: [WorkDir; 3],
}

impl Racks {
    fn start(shape: Shape) -> Result<Self> {
        let spaces = [NetNs::create("rack-a")?, NetNs::create("rack-t")?, NetNs::create("rack-b")?];
        let kernels = [NetNs::create("kernel-a")?, NetNs::create("kernel-b")?, NetNs::create("kernel-c")?];
        for space in spaces.iter().chain(&kernels) {
            // A kernel that sees the nodes' frames, too, is not to answer for them.
            space.sh("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")?;
            space.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        let [a, t, b] = &spaces;
        for (space, near, far) in [(a, "upA", "downA"), (b, "upB", "downB"), (&kernels[2], "far0", "downC")] {
            space.wire(near, t, far)?;
            space.ip(&format!("link set {near} mtu {}", shape.mtu))?;
            t.ip(&format!("link set {far} mtu {}", shape.mtu))?;
            if shape.kind == "af-xdp" {
                // What the kernel leaves unfinished is invisible to XDP.
                space.sh(&format!("ethtool -K {near} tx off tso off gso off"))?;
                t.sh(&format!("ethtool -K {far} tx off tso off gso off"))?;
            }
        }
        let aware = if shape.aggregate { "aggregate = true\ntrusted = true\n" } else { "aggregate = false\n" };
        // The nodes' own addresses, on the wires to hosts A and B.
        let ends =
            [("upA", a, "192.0.2.1"), ("downA", t, "192.0.2.2"), ("upB", b, "192.0.2.5"), ("downB", t, "192.0.2.6")];
        let link = |name: &str, interface: &str| {
            let own = ends.iter().position(|(known, ..)| *known == interface);
            match own.filter(|_| shape.kind == "udp") {
                Some(own) => {
                    let (local, peer) = (ends[own].2, ends[own ^ 1].2);
                    let extra = format!("{aware}local = \"{local}:34997\"\npeer = \"{peer}:34997\"\n");
                    UplinkConfig { extra, ..UplinkConfig::new(name, "udp", "") }
                }
                None => {
                    let kind = if shape.kind == "udp" { "af-packet" } else { shape.kind };
                    UplinkConfig { extra: aware.to_owned(), ..UplinkConfig::new(name, kind, interface) }
                }
            }
        };
        for (interface, space, address) in ends.iter().filter(|_| shape.kind == "udp") {
            space.ip(&format!("addr add {address}/30 dev {interface}"))?;
        }
        let tap = || UplinkConfig { extra: "aggregate = false\n".to_owned(), ..UplinkConfig::new("vm", "tap", "vm0") };
        let uplinks = [
            vec![tap(), link("up", "upA")],
            vec![link("a", "downA"), link("b", "downB"), link("c", "downC")],
            vec![tap(), link("up", "upB")],
        ];
        let work = [WorkDir::create()?, WorkDir::create()?, WorkDir::create()?];
        let mut nodes = Vec::new();
        for (((space, uplinks), work), (_, id)) in spaces.iter().zip(uplinks).zip(&work).zip(IDS) {
            let extra = format!("[node]\nid = {id}\n");
            nodes.push(Node::start_in(work, &NodeConfig { uplinks, extra, ..NodeConfig::default() }, space)?);
        }
        let nodes: [Node; 3] = nodes.try_into().ok().context("three nodes")?;
        for (space, kernel, address) in [(a, &kernels[0], ADDRESSES[0]), (b, &kernels[1], ADDRESSES[1])] {
            space.ip(&format!("link set vm0 netns {}", kernel.name()))?;
            kernel.ip(&format!("addr add {address}/24 dev vm0"))?;
            kernel.ip("link set vm0 up")?;
        }
        kernels[2].ip(&format!("addr add {}/24 dev far0", ADDRESSES[2]))?;
        for (node, ports) in nodes.iter().zip([&["vm", "up"][..], &["a", "b", "c"], &["vm", "up"]]) {
            node.wait_up(ports)?;
        }
        let racks = Self { nodes, spaces, kernels, _work: work };
        for (kernel, address) in [(0, ADDRESSES[1]), (0, ADDRESSES[2]), (1, ADDRESSES[2])] {
            wait_until("an answer to a ping", SOON, || {
                Ok(racks.kernels[kernel].sh(&format!("busybox ping -c 1 -W 1 {address}")).is_ok())
            })?;
        }
        Ok(racks)
    }

    /// Begins to capture what the top of the rack sends towards host B, and what comes from there.
    fn capture(&self, work: &WorkDir) -> Result<Process> {
        let file = work.file("wire.pcap");
        let file = file.to_str().context("a path")?;
        // Room (MiB) for all that crosses, else what the machine's other work keeps it from writing would be missing.
        let words = ["dumpcap", "-q", "-P", "-B", "128", "-i", "upB", "-w", file];
        let capture = self.spaces[2].spawn(work, "dumpcap", &words)?;
        wait_until(
            "the capture",
            SOON,
            || Ok(fs::metadata(work.file("wire.pcap")).is_ok_and(|file| file.len() >= 24)),
        )?;
        Ok(capture)
    }

    /// Aggregates that a port has sent, and packets in them.
    fn sent(&self, node: usize, port: &str) -> Result<(u64, u64)> {
        let port = self.nodes[node].port(port)?;
        Ok((port.aggregation.tx_aggregates, port.aggregation.tx_packets))
    }
}

/// KA-6: TCP between all pairs, both ways.
fn all_pairs(racks: &Racks, work: &WorkDir) -> Result<()> {
    let [a, b, c] = &racks.kernels;
    for (from, to, address) in [(a, b, ADDRESSES[1]), (b, a, ADDRESSES[0]), (a, c, ADDRESSES[2]), (c, b, ADDRESSES[1])]
    {
        transfer::between(work, from, to, address, MIB).with_context(|| format!("to {address}"))?;
    }
    Ok(())
}

fn aggregated(shape: Shape) {
    scenario::run(|work| {
        let racks = Racks::start(shape)?;
        // Frames that XDP redirects are invisible to captures.
        let capture = (shape.kind != "af-xdp").then(|| racks.capture(work)).transpose()?;
        all_pairs(&racks, work)?;
        let before = [racks.sent(0, "up")?, racks.sent(1, "b")?];
        transfer::between(work, &racks.kernels[0], &racks.kernels[1], ADDRESSES[1], MIB)?;
        let after = [racks.sent(0, "up")?, racks.sent(1, "b")?];
        // Stage 2 and stage 3 both put together what they send.
        for (before, after) in before.iter().zip(&after) {
            let (frames, packets) = (after.0 - before.0, after.1 - before.1);
            ensure!(frames > 0 && packets > frames, "{packets} packets in {frames} aggregates");
        }
        // An unaware host sees plain frames only.
        let plain = racks.nodes[1].port("c")?;
        ensure!((plain.aggregation.tx_aggregates, plain.aggregation.rx_aggregates) == (0, 0), "{plain:?}");
        for (node, name) in racks.nodes.iter().zip(IDS) {
            for port in node.stats()?.ports {
                ensure!(port.aggregation.damages.values().all(|n| *n == 0), "{name:?}: {port:?}");
            }
        }
        let Some(mut capture) = capture else { return Ok(()) };
        capture.terminate()?;
        let summary = aggdump::summary(&work.file("wire.pcap"), &[])?;
        let count = |path: &[&str]| path.iter().fold(&summary, |value, key| &value[*key]).as_u64().unwrap_or(0);
        ensure!(count(&["refused"]) + count(&["missing"]) == 0 && summary["causes"] == json!({}), "{summary}");
        ensure!(count(&["aggregates"]) > 0 && count(&["packets"]) > 2 * count(&["aggregates"]), "{summary}");
        if shape.kind == "udp" {
            // Where there is one other end, it takes everything.
            return Ok(());
        }
        // What A sent to B, and B to A, went whole through the top of the rack: from node to node, whoever carried it.
        let [a, _, b] = IDS.map(|(_, id)| id.to_string());
        for node in [&a, &b] {
            ensure!(count(&["origins", node]) > 100 && count(&["destinations", node]) > 100, "{node}: {summary}");
        }
        Ok(())
    });
}

#[test]
fn racks_speak_aggregates_over_af_packet() {
    aggregated(Shape { kind: "af-packet", mtu: 9000, aggregate: true });
}

#[test]
fn racks_speak_aggregates_over_af_xdp() {
    aggregated(Shape { kind: "af-xdp", mtu: 3000, aggregate: true });
}

#[test]
fn racks_speak_aggregates_over_udp() {
    aggregated(Shape { kind: "udp", mtu: 9000, aggregate: true });
}

#[test]
fn racks_that_do_not_ask_for_aggregates_have_none() {
    let shape = Shape { kind: "af-packet", mtu: 1500, aggregate: false };
    scenario::run(|work| {
        let racks = Racks::start(shape)?;
        all_pairs(&racks, work)?;
        for node in &racks.nodes {
            for port in node.stats()?.ports {
                ensure!(port.aggregation.tx_aggregates == 0, "{port:?}");
            }
        }
        Ok(())
    });
}
