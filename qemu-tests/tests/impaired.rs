// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two nodes with a bad wire between them: aggregates are lost, doubled, swapped and damaged. What arrives is what was sent.
//!
//! ```text
//! kernel a ── tap ── node A ══ veth ══ bad wire ══ veth ══ node B ── tap ── kernel b
//! ```

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::process::Process;
use harness::scenario::{self, WorkDir};
use harness::transfer;
use harness::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
const ADDRESSES: [&str; 2] = ["10.8.1.1", "10.8.1.2"];
const PORT: u16 = 6000;
const MIB: u64 = 4;

/// How many of a thousand aggregates suffer what.
#[derive(Clone, Copy, Debug, Default)]
struct Odds {
    lost: u32,
    doubled: u32,
    swapped: u32,
    flipped: u32,
}

struct Pair {
    nodes: [Node; 2],
    kernels: [NetNs; 2],
    wire: Process,
    _spaces: [NetNs; 3],
    _work: [WorkDir; 2],
}

impl Pair {
    fn start(work: &WorkDir, odds: Odds) -> Result<Self> {
        let spaces = [NetNs::create("bad-a")?, NetNs::create("bad-b")?, NetNs::create("bad-wire")?];
        let kernels = [NetNs::create("bad-ka")?, NetNs::create("bad-kb")?];
        for space in spaces.iter().chain(&kernels) {
            space.sh("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")?;
            space.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        let nodes_work = [WorkDir::create()?, WorkDir::create()?];
        let mut nodes = Vec::new();
        for (at, (space, wire)) in spaces.iter().take(2).zip(["left", "right"]).enumerate() {
            space.wire("up0", &spaces[2], wire)?;
            // The wire is a program: it sees what the kernel leaves unfinished, and cannot say so.
            space.sh("ethtool -K up0 tx off tso off gso off")?;
            spaces[2].sh(&format!("ethtool -K {wire} tx off tso off gso off"))?;
            space.ip("link set up0 mtu 9000")?;
            spaces[2].ip(&format!("link set {wire} mtu 9000"))?;
            let tap = UplinkConfig { extra: "aggregate = false\n".to_owned(), ..UplinkConfig::new("vm", "tap", "vm0") };
            let up = UplinkConfig {
                extra: "aggregate = true\ntrusted = true\n".to_owned(),
                ..UplinkConfig::new("up", "af-packet", "up0")
            };
            let extra = format!("[node]\nid = {}\n", at + 1);
            let config = NodeConfig { uplinks: vec![tap, up], extra, ..NodeConfig::default() };
            nodes.push(Node::start_in(&nodes_work[at], &config, space)?);
        }
        let nodes: [Node; 2] = nodes.try_into().ok().context("two nodes")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/impair.py").display().to_string();
        let odds = [odds.lost, odds.doubled, odds.swapped, odds.flipped].map(|odd| odd.to_string());
        let mut argv = vec!["python3", &script, "left", "right", "7"];
        argv.extend(odds.iter().map(String::as_str));
        let mut wire = spaces[2].spawn(work, "wire", &argv)?;
        wire.wait_printed(0, "that the wire is there", SOON, |text| text.contains("ready").then_some(()))?;
        for ((space, kernel), address) in spaces.iter().zip(&kernels).zip(ADDRESSES) {
            space.ip(&format!("link set vm0 netns {}", kernel.name()))?;
            kernel.ip(&format!("addr add {address}/24 dev vm0"))?;
            kernel.ip("link set vm0 up")?;
        }
        for node in &nodes {
            node.wait_up(&["vm", "up"])?;
        }
        let pair = Self { nodes, kernels, wire, _spaces: spaces, _work: nodes_work };
        wait_until("an answer to a ping", SOON, || {
            Ok(pair.kernels[0].sh(&format!("busybox ping -c 1 -W 1 {}", ADDRESSES[1])).is_ok())
        })?;
        wait_until("aggregates in both directions", SOON, || {
            let _ = pair.kernels[0].sh(&format!("busybox ping -c 1 -W 1 {}", ADDRESSES[1]));
            Ok(pair.nodes[0].port("up")?.aggregation.rx_packets > 2
                && pair.nodes[1].port("up")?.aggregation.rx_packets > 2)
        })?;
        Ok(pair)
    }

    /// Stops the wire. What it did.
    fn cut(&mut self) -> Result<BTreeMap<String, u64>> {
        let mark = self.wire.mark();
        self.wire.terminate()?;
        let text = self.wire.printed_since(mark)?;
        let line = text.lines().find(|line| line.starts_with('{')).context("the wire says nothing")?;
        Ok(serde_json::from_str(line)?)
    }

    /// Sends numbered datagrams from a to b, a few at a time so that they go together. The numbers that arrived, in order.
    fn datagrams(&self, count: u32) -> Result<Vec<u32>> {
        let receiver = self.kernels[1].within(|| Ok(UdpSocket::bind((ADDRESSES[1], PORT))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
        let sender = self.kernels[0].within(|| Ok(UdpSocket::bind((ADDRESSES[0], 0))?))?;
        sender.connect((ADDRESSES[1], PORT))?;
        let mut arrived = Vec::new();
        let mut buffer = [0; 2048];
        let mut take = |limit: Duration, arrived: &mut Vec<u32>| -> Result<()> {
            let end = Instant::now() + limit;
            receiver.set_nonblocking(true)?;
            while Instant::now() < end {
                match receiver.recv(&mut buffer) {
                    Ok(len) => {
                        let number = u32::from_be_bytes(buffer[..4].try_into()?);
                        ensure!(buffer[..len] == datagram(number), "datagram {number} was changed");
                        arrived.push(number);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        };
        for first in (0..count).step_by(8) {
            for number in first..(first + 8).min(count) {
                sender.send(&datagram(number))?;
            }
            take(Duration::from_millis(2), &mut arrived)?;
        }
        take(Duration::from_millis(500), &mut arrived)?;
        Ok(arrived)
    }

    fn damages(&self) -> Result<u64> {
        let ports = [self.nodes[0].port("up")?, self.nodes[1].port("up")?];
        Ok(ports.iter().flat_map(|port| port.aggregation.damages.values()).sum())
    }
}

/// A datagram by its number, of 20 to 119 bytes, all of which depend on it.
fn datagram(number: u32) -> Vec<u8> {
    let filling = (0..16 + number % 100).map(|at| (number.wrapping_mul(31) + at * 7).to_le_bytes()[0]);
    number.to_be_bytes().into_iter().chain(filling).collect()
}

/// KA-7 and the order that is promised: on a wire that keeps order every datagram arrives once and in turn.
#[test]
fn a_good_wire_keeps_order() {
    scenario::run(|work| {
        let mut pair = Pair::start(work, Odds::default())?;
        let arrived = pair.datagrams(4000)?;
        ensure!(arrived == (0..4000).collect::<Vec<_>>(), "{} arrived", arrived.len());
        let done = pair.cut()?;
        ensure!(done["aggregates"] > 0 && pair.damages()? == 0, "{done:?}");
        Ok(())
    });
}

/// What is lost is lost, what comes twice comes twice, in frames; nothing is changed, and all damage is counted.
#[test]
fn a_bad_wire_changes_nothing_that_arrives() {
    scenario::run(|work| {
        let odds = Odds { lost: 20, doubled: 20, swapped: 20, flipped: 50 };
        let mut pair = Pair::start(work, odds)?;
        let arrived = pair.datagrams(6000)?;
        ensure!(arrived.len() > 4000, "{} arrived", arrived.len());
        transfer::between(work, &pair.kernels[0], &pair.kernels[1], ADDRESSES[1], MIB).context("from a")?;
        transfer::between(work, &pair.kernels[1], &pair.kernels[0], ADDRESSES[0], MIB).context("from b")?;
        let damages = pair.damages()?;
        let done = pair.cut()?;
        for what in ["lost", "doubled", "swapped", "flipped"] {
            ensure!(done[what] > 0, "{what}: {done:?}");
        }
        // A frame that was damaged and then doubled is counted twice; a bit of padding is nobody's.
        ensure!(damages > 0 && damages <= 2 * done["flipped"], "{damages} damages: {done:?}");
        ensure!(damages * 10 >= done["flipped"] * 8, "{damages} damages: {done:?}");
        Ok(())
    });
}
