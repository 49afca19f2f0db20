// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 4 (KA-1; decision 4e): the node stops, by SIGTERM and by SIGKILL, and starts again under guests that reconnect.
//! Traffic resumes by itself: nobody says anything to a guest. virtio-user resets its rings; a QEMU guest's driver does
//! not notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::exchange::{Exchange, Traffic};
use harness::guest::{Guest, GuestConfig};
use harness::node::{Node, NodeConfig, Stats};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, VirtioUser};
use harness::transfer::Transfer;

const FRAMES: u64 = 3000;
const SOON: Duration = Duration::from_secs(30);

/// The ways a node ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Terminated,
    Killed,
}

const ENDS: [End; 2] = [End::Terminated, End::Killed];

fn restart(work: &WorkDir, node: &mut Node, end: End) -> Result<()> {
    match end {
        End::Terminated => node.terminate()?,
        End::Killed => node.kill()?,
    }
    node.start_again(work)
}

/// Ring layouts and features of all ports: what must not change when the node restarts.
fn negotiated(stats: &Stats) -> Vec<(Option<String>, Vec<String>)> {
    stats.ports.iter().map(|p| (p.ring.clone(), p.features.clone())).collect()
}

fn under_testpmd(work: &WorkDir, ring: Ring) -> Result<()> {
    let names = ["left", "right"];
    let mut config = NodeConfig::crossconnect(&names);
    for port in &mut config.ports {
        port.client = true;
    }
    let mut node = Node::start(work, &config)?;
    let port = |name, number| VirtioUser { ring, server: true, ..VirtioUser::new(&node.socket(name), number) };
    let mut guests = Exchange::begin(work, Traffic::Generated, &port("left", 2), &port("right", 3))?;
    guests.start()?;
    guests.flows(FRAMES)?;
    let before = negotiated(&node.stats()?);
    for end in ENDS {
        restart(work, &mut node, end)?;
        node.wait_up(&names)?;
        guests.flows(FRAMES).with_context(|| format!("{end:?}"))?;
        let after = negotiated(&node.stats()?);
        ensure!(after == before, "{end:?}: negotiated {before:?} before and {after:?} after");
    }
    Ok(())
}

fn under_qemu(work: &WorkDir, ring: Ring) -> Result<()> {
    let names = ["vm0", "vm1"];
    let mut node = Node::start(work, &NodeConfig::bridge(&names))?;
    let guest = |name: &str, number, port| {
        let config = GuestConfig::new(name, number, &node.socket(port), ring).reconnecting();
        Guest::spawn(work, &config)
    };
    let (mut a, mut b) = (guest("a", 2, "vm0")?, guest("b", 3, "vm1")?);
    a.ready()?;
    b.ready()?;
    a.ping_until_answered(&b.ip(), SOON)?;
    let before = negotiated(&node.stats()?);
    for end in ENDS {
        // in the middle of a transfer: TCP repairs what was on its way, and its hash shows that nothing else was harmed
        let transfer = Transfer::begin(&mut a, &mut b, 32)?;
        node.wait_received("vm0", 1000).with_context(|| format!("{end:?}"))?;
        restart(work, &mut node, end)?;
        node.wait_up(&names).with_context(|| format!("{end:?}"))?;
        transfer.finish(&mut a, &mut b).with_context(|| format!("{end:?}"))?;
        let stats = node.stats()?;
        ensure!(stats.port("vm0")?.rx_packets > 1000, "the transfer was over before the node was {end:?}: {stats:?}");
        let after = negotiated(&stats);
        ensure!(after == before, "{end:?}: negotiated {before:?} before and {after:?} after");
    }
    Ok(())
}

#[test]
fn testpmd_on_packed_rings_survives_a_restart_of_the_node() {
    scenario::run(|work| under_testpmd(work, Ring::Packed));
}

#[test]
fn testpmd_on_split_rings_survives_a_restart_of_the_node() {
    scenario::run(|work| under_testpmd(work, Ring::Split));
}

#[test]
fn qemu_on_packed_rings_survives_a_restart_of_the_node() {
    scenario::run(|work| under_qemu(work, Ring::Packed));
}

#[test]
fn qemu_on_split_rings_survives_a_restart_of_the_node() {
    scenario::run(|work| under_qemu(work, Ring::Split));
}
