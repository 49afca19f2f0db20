// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 1 (KA-1, KA-2, KA-4, KA-5, KA-8): stock DPDK testpmd guests over virtio-user, in every way that their driver can
//! drive a ring, exchange traffic through the node; nothing is lost without being counted.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::cover::{Case, pairwise, product};
use harness::exchange::{Exchange, Side, Traffic};
use harness::node::{Node, NodeConfig, PortStats};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, VirtioUser};

/// Frames that each guest must receive before a step counts as done.
const FRAMES: u64 = 3000;

const RINGS: [Ring; 2] = [Ring::Split, Ring::Packed];
const SIZES: [u16; 3] = [256, 1024, 1000];
const PAIRS: [u16; 3] = [1, 2, 4];
const TRAFFIC: [Traffic; 2] = [Traffic::Generated, Traffic::Circulating];
/// Levels per factor: ring, mergeable, in-order, vectorized, size, queue pairs, server role, hugepages, traffic.
const LEVELS: [usize; 9] = [RINGS.len(), 2, 2, 2, SIZES.len(), PAIRS.len(), 2, 2, TRAFFIC.len()];

/// One way to attach a guest.
#[derive(Debug)]
struct Variant {
    ring: Ring,
    mrg_rxbuf: bool,
    in_order: bool,
    vectorized: bool,
    queue_size: u16,
    pairs: u16,
    server: bool,
    hugepages: bool,
    traffic: Traffic,
}

impl Variant {
    fn of(case: &[usize]) -> Option<Self> {
        let &[ring, mrg, order, vector, size, pairs, server, huge, traffic] = case else { return None };
        Some(Self {
            ring: *RINGS.get(ring)?,
            mrg_rxbuf: mrg == 1,
            in_order: order == 1,
            vectorized: vector == 1,
            queue_size: *SIZES.get(size)?,
            pairs: *PAIRS.get(pairs)?,
            server: server == 1,
            hugepages: huge == 1,
            traffic: *TRAFFIC.get(traffic)?,
        })
    }

    /// What virtio and DPDK allow: split sizes are powers of two; the vector paths want unmerged buffers, and in-order
    /// use on packed rings but not on split ones.
    fn is_possible(&self) -> bool {
        let size = self.ring == Ring::Packed || self.queue_size.is_power_of_two();
        let vector = !self.vectorized || (!self.mrg_rxbuf && self.in_order == (self.ring == Ring::Packed));
        size && vector
    }

    fn port(&self, node: &Node, name: &str, number: u8) -> VirtioUser {
        VirtioUser {
            ring: self.ring,
            mrg_rxbuf: self.mrg_rxbuf,
            in_order: self.in_order,
            vectorized: self.vectorized,
            queue_size: self.queue_size,
            pairs: self.pairs,
            server: self.server,
            hugepages: self.hugepages,
            ..VirtioUser::new(&node.socket(name), number)
        }
    }

    fn node(&self) -> NodeConfig {
        let mut config = match self.traffic {
            Traffic::Generated => NodeConfig::crossconnect(&["left", "right"]),
            Traffic::Circulating | Traffic::OneWay => NodeConfig::bridge(&["left", "right"]),
        };
        for port in &mut config.ports {
            port.client = self.server;
            port.queues = self.pairs;
        }
        config
    }

    fn run(&self, work: &WorkDir) -> Result<()> {
        let mut node = Node::start(work, &self.node())?;
        let (left, right) = (self.port(&node, "left", 2), self.port(&node, "right", 3));
        let mut guests = Exchange::begin(work, self.traffic, &left, &right)?;
        node.wait_up(&["left", "right"])?;
        for port in node.stats()?.ports {
            self.check_negotiated(&port)?;
        }
        for side in [Side::Left, Side::Right] {
            self.check_path(&guests.guest(side).printed()?)?;
        }
        guests.start()?;
        guests.flows(FRAMES).context("first traffic")?;
        guests.settle(&mut node).context("first traffic")?;

        guests.start()?;
        guests.restart_port(Side::Right, FRAMES).context("port stop and start on the right")?;
        guests.restart_port(Side::Left, FRAMES).context("port stop and start on the left")?;
        guests.rest(&mut node)?;
        guests.start()?;
        guests.flows(FRAMES).context("traffic after port stop and start")?;
        guests.settle(&mut node).context("traffic after port stop and start")?;
        node.terminate()
    }

    fn check_negotiated(&self, port: &PortStats) -> Result<()> {
        ensure!(port.ring.as_deref() == Some(self.ring.name()), "another ring than {:?}: {port:?}", self.ring);
        let has = |name: &str| port.features.iter().any(|f| f == name);
        ensure!(has("mrg_rxbuf") == self.mrg_rxbuf && has("in_order") == self.in_order, "other features: {port:?}");
        ensure!(port.queue_pairs == self.pairs, "{} queue pairs instead of {}", port.queue_pairs, self.pairs);
        ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
        Ok(())
    }

    /// testpmd falls back to a slower path silently, so what it says is looked at.
    fn check_path(&self, log: &str) -> Result<()> {
        let expected: &[&str] = match (self.vectorized, self.ring) {
            (false, _) => &[],
            (true, Ring::Packed) => &["packed ring vectorized Tx path", "packed ring vectorized Rx path"],
            (true, Ring::Split) => &["using vectorized Rx path"],
        };
        for line in expected {
            ensure!(log.contains(line), "testpmd did not say '{line}' (the vector path on packed rings needs AVX-512)");
        }
        Ok(())
    }
}

/// In CI two covers, in each of which every possible pair of options occurs; all of them with `SHUNT_FULL=1`. To look
/// closer at some, `SHUNT_VARIANTS="ring: Packed,queue_size: 1000"` takes all that print so.
fn variants() -> Vec<Variant> {
    let all = product(&LEVELS, |case| Variant::of(case).is_some_and(|v| v.is_possible()));
    let parts = std::env::var("SHUNT_VARIANTS").unwrap_or_default();
    let chosen: Vec<Case> = if scenario::full() || !parts.is_empty() { all } else { pairwise(&all, 2) };
    let variants = chosen.iter().filter_map(|case| Variant::of(case));
    variants.filter(|variant| parts.split(',').all(|part| format!("{variant:?}").contains(part))).collect()
}

#[test]
fn testpmd_guests_exchange_traffic_in_every_variant() {
    let variants = variants();
    let mut failed = Vec::new();
    for (number, variant) in variants.iter().enumerate() {
        let start = Instant::now();
        let outcome = scenario::attempt(|work| variant.run(work));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("{}/{} {variant:?}: {word} in {:.1} s", number + 1, variants.len(), start.elapsed().as_secs_f64());
        if let Err(causes) = outcome {
            failed.push(format!("{variant:?}: {causes}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} variants failed:\n{}", failed.len(), variants.len(), failed.join("\n"));
}
