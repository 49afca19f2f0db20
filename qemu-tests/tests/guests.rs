// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 2 (KA-1, KA-8): two QEMU guests with a stock kernel talk through the bridge on packed rings, on split rings, and
//! one on each; a guest that is rebooted under traffic returns to service.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::guest::{Guest, GuestConfig};
use harness::node::{Node, NodeConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, mac};
use harness::transfer::Transfer;

const SOON: Duration = Duration::from_secs(30);

fn guests_talk(work: &WorkDir, left: Ring, right: Ring) -> Result<()> {
    let mut node = Node::start(work, &NodeConfig::bridge(&["vm0", "vm1"]))?;
    let mut a = Guest::spawn(work, &GuestConfig::new("a", 2, &node.socket("vm0"), left))?;
    let mut b = Guest::spawn(work, &GuestConfig::new("b", 3, &node.socket("vm1"), right))?;
    a.ready()?;
    b.ready()?;
    node.wait_up(&["vm0", "vm1"])?;
    for (port, ring) in [("vm0", left), ("vm1", right)] {
        let port = node.port(port)?;
        ensure!(port.ring.as_deref() == Some(ring.name()), "another ring than {ring:?}: {port:?}");
    }

    a.ping_until_answered(&b.ip(), SOON).context("ping")?;
    b.ping_until_answered(&a.ip(), SOON).context("ping back")?;
    let neighbours = a.sh("cat /proc/net/arp", SOON)?;
    ensure!(neighbours.contains(&mac(3)), "ARP did not find {}: {neighbours}", mac(3));
    a.sh(&format!("arping -q -c 2 -I eth0 {}", b.ip()), SOON).context("arping")?;

    Transfer::begin(&mut a, &mut b, 64)?.finish(&mut a, &mut b).context("64 MiB")?;
    Transfer::begin(&mut b, &mut a, 8)?.finish(&mut b, &mut a).context("8 MiB back")?;

    a.sh(&format!("(ping -q -i 0.005 {} >/dev/null 2>&1 &)", b.ip()), SOON)?;
    node.wait_received("vm0", 20).context("traffic before the reboot")?;
    b.reboot().context("reboot")?;
    a.sh("killall ping", SOON)?;
    a.ping_until_answered(&b.ip(), SOON).context("ping after the reboot")?;
    Transfer::begin(&mut a, &mut b, 8)?.finish(&mut a, &mut b).context("8 MiB after the reboot")?;

    for port in node.stats()?.ports {
        ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
    }
    node.terminate()
}

#[test]
fn two_guests_on_packed_rings() {
    scenario::run(|work| guests_talk(work, Ring::Packed, Ring::Packed));
}

#[test]
fn two_guests_on_split_rings() {
    scenario::run(|work| guests_talk(work, Ring::Split, Ring::Split));
}

#[test]
fn a_guest_on_packed_and_one_on_split_rings() {
    scenario::run(|work| guests_talk(work, Ring::Packed, Ring::Split));
}
