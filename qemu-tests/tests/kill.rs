// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 5 (KA-1): a guest that is killed in the middle of a burst, again and again, leaves nothing behind in the node,
//! and another pair of ports goes on exchanging traffic without losing a frame.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::accounting::Footprint;
use harness::guest::{Guest, GuestConfig};
use harness::node::{Node, NodeConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, Testpmd, VirtioUser};
use harness::wait::{wait_settled, wait_until};

/// Kills in all.
const KILLS: usize = 100;
/// Guests that live, send and die at the same time.
const VICTIMS: [&str; 4] = ["v0", "v1", "v2", "v3"];
/// Rounds after which the node's memory counts as warmed up: each kind of victim has been there.
const WARM_UP: usize = 3;
/// Private memory that the allocator may hold back, in KiB.
const SLACK_KIB: u64 = 1024;
const SOON: Duration = Duration::from_secs(30);

/// A guest with two ports that forwards from each to the other: what it sends comes back for ever.
struct Bystander {
    testpmd: Testpmd,
}

impl Bystander {
    fn start(work: &WorkDir, node: &Node) -> Result<Self> {
        let port = |name, number| VirtioUser { cpu: 1, ..VirtioUser::new(&node.socket(name), number) };
        let mut testpmd = Testpmd::spawn(work, "bystander", &[&port("b0", 2), &port("b1", 3)], "io")?;
        testpmd.ready()?;
        testpmd.start_tx_first(2)?;
        Ok(Self { testpmd })
    }

    fn received(&mut self) -> Result<u64> {
        Ok(self.testpmd.counts_of(0)?.rx.min(self.testpmd.counts_of(1)?.rx))
    }

    /// Traffic still goes round.
    fn is_unharmed(&mut self) -> Result<()> {
        let before = self.received()?;
        wait_until("the bystander's traffic", SOON, || Ok(self.received()? > before + 1000))
    }

    /// All that it sent, and nothing else, has come back.
    fn lost_nothing(&mut self, node: &Node) -> Result<()> {
        self.testpmd.stop()?;
        self.testpmd.set_forward("rxonly")?;
        self.testpmd.start()?;
        let testpmd = &mut self.testpmd;
        let [zero, one] = wait_settled("the bystander to come to rest", Duration::from_millis(100), SOON, || {
            Ok([testpmd.counts_of(0)?, testpmd.counts_of(1)?])
        })?;
        let (b0, b1) = (node.port("b0")?, node.port("b1")?);
        let seen = format!("bystander {zero:?} {one:?}, node {b0:?} {b1:?}");
        ensure!(zero.tx == one.rx && one.tx == zero.rx, "frames were lost: {seen}");
        ensure!(b0.rx_packets == zero.tx && b1.rx_packets == one.tx, "the node counts differently: {seen}");
        ensure!(b0.drops.values().chain(b1.drops.values()).all(|&n| n == 0), "frames were dropped: {seen}");
        Ok(())
    }
}

fn config() -> NodeConfig {
    let mut config = NodeConfig::bridge(&["b0", "b1", "v0", "v1", "v2", "v3"]);
    config.crossconnects = [["b0", "b1"], ["v0", "v1"], ["v2", "v3"]].map(|pair| pair.map(str::to_owned)).into();
    config
}

/// Starts all victims, lets them send, and kills them while they do.
fn round(work: &WorkDir, node: &Node, number: usize) -> Result<()> {
    let mut victims = Vec::new();
    for (index, name) in VICTIMS.iter().enumerate() {
        let kind = number + index;
        let port = VirtioUser {
            ring: if kind.is_multiple_of(2) { Ring::Packed } else { Ring::Split },
            mrg_rxbuf: kind.is_multiple_of(3),
            in_order: kind % 4 < 2,
            cpu: u32::from(index % 2 == 1),
            ..VirtioUser::new(&node.socket(name), 4)
        };
        victims.push(Testpmd::spawn_small(work, name, &port, "flowgen")?);
    }
    for victim in &mut victims {
        victim.ready()?;
    }
    for victim in &mut victims {
        victim.start()?;
    }
    for (victim, name) in victims.iter_mut().zip(VICTIMS) {
        node.wait_received(name, 1000).with_context(|| format!("{name} in round {number}"))?;
        victim.process().kill()?;
    }
    Ok(())
}

/// What the node holds once it has noticed that all victims are gone.
fn footprint_at_rest(node: &mut Node) -> Result<Footprint> {
    wait_until("the node to notice that the victims are gone", SOON, || {
        let stats = node.stats()?;
        Ok(VICTIMS.iter().all(|v| stats.port(v).is_ok_and(|p| p.state == "listening")))
    })?;
    let pid = node.process().pid();
    wait_settled("the node's footprint to settle", Duration::from_millis(100), SOON, || Footprint::of(pid))
}

#[test]
fn a_hundred_guests_killed_in_mid_burst_leave_nothing_behind() {
    scenario::run(|work| {
        let mut node = Node::start(work, &config())?;
        let mut bystander = Bystander::start(work, &node)?;
        let mut warm = None;
        for number in 0..WARM_UP + KILLS / VICTIMS.len() {
            if number == WARM_UP {
                warm = Some(footprint_at_rest(&mut node)?);
            }
            round(work, &node, number)?;
            bystander.is_unharmed().with_context(|| format!("round {number}"))?;
        }
        let warm = warm.context("a first footprint")?;
        let last = footprint_at_rest(&mut node)?;
        let seen = format!("{warm:?} before and {last:?} after {KILLS} kills");
        ensure!(last.descriptors == warm.descriptors, "descriptors were left behind: {seen}");
        ensure!(last.file_mappings == warm.file_mappings, "mappings were left behind: {seen}");
        ensure!(last.private_kib <= warm.private_kib + SLACK_KIB, "memory was left behind: {seen}");
        bystander.lost_nothing(&node)?;
        node.terminate()
    });
}

#[test]
fn a_qemu_guest_killed_in_mid_burst_leaves_nothing_behind() {
    scenario::run(|work| {
        let mut node = Node::start(work, &NodeConfig::bridge(&["v0", "v1", "v2", "v3"]))?;
        let mut footprints = Vec::new();
        for ring in [Ring::Packed, Ring::Split, Ring::Packed] {
            let mut a = Guest::spawn(work, &GuestConfig::new("a", 2, &node.socket("v0"), ring))?;
            let mut b = Guest::spawn(work, &GuestConfig::new("b", 3, &node.socket("v1"), ring))?;
            a.ready()?;
            b.ready()?;
            a.ping_until_answered(&b.ip(), SOON)?;
            b.sh("mkfifo /tmp/hold; (nc -l -p 9 <>/tmp/hold >/dev/null 2>&1 &)", SOON)?;
            a.sh(&format!("(until nc {} 9 </dev/zero >/dev/null 2>&1; do usleep 100000; done &)", b.ip()), SOON)?;
            node.wait_received("v0", 1000)?;
            a.process().kill()?;
            b.process().kill()?;
            footprints.push(footprint_at_rest(&mut node)?);
        }
        let held = |f: &Footprint| (f.descriptors, f.file_mappings);
        ensure!(
            footprints.iter().all(|f| held(f) == held(&footprints[0])),
            "something was left behind: {footprints:?}"
        );
        node.terminate()
    });
}
