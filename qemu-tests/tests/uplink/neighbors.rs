// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel asks for the node's own addresses, by ARP and by neighbour discovery.

use anyhow::{Result, ensure};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;

use crate::station::Station;
use crate::{Link, SOON};

const ARP: [u8; 2] = [0x08, 0x06];

/// Whether the node, with this uplink, is found by the kernel that has `device` in the namespace `far`.
fn is_found(work: &WorkDir, link: &Link, uplink: UplinkConfig, far: &NetNs, device: &str) -> Result<()> {
    let extra = format!("{}address = [\"192.0.2.1/24\", \"2001:db8::1/64\"]\n", uplink.extra);
    let uplinks = vec![UplinkConfig { extra, ..uplink }];
    let mut node = Node::start_in(work, &NodeConfig { uplinks, ..NodeConfig::bridge(&["vm"]) }, &link.near)?;
    let mut guest = Station::attach(&node.socket("vm"))?;
    far.ip(&format!("link set {device} up"))?;
    far.sh(&format!("echo 0 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6"))?;
    far.ip(&format!("addr add 192.0.2.2/24 dev {device}"))?;
    far.ip(&format!("addr add 2001:db8::2/64 dev {device} nodad"))?;
    node.wait_up(&["vm", "up"])?;
    let mac = node.port("up")?.uplink()?.mac.clone().unwrap_or_default();
    for (ip, ping) in [("192.0.2.1", "busybox ping"), ("2001:db8::1", "busybox ping6")] {
        wait_until(&format!("{ip} to be known"), SOON, || {
            // The node answers who has it, and nothing else.
            far.sh(&format!("{ping} -c 1 -W 1 {ip} >/dev/null || true"))?;
            Ok(far.ip(&format!("neigh show {ip}"))?.contains(&format!("lladdr {mac}")))
        })?;
    }
    let up = node.port("up")?;
    ensure!(up.uplink()?.neighbors_answered >= 2, "{up:?}");
    // Pings of the node's addresses are for nobody else.
    ensure!(up.dropped("no_destination") > 0, "{up:?}");

    // The guest sees what is asked of others, and saw nothing of what was asked of the node.
    far.sh("busybox ping -c 1 -W 1 192.0.2.9 >/dev/null || true")?;
    let asked = guest.receive("a question for somebody else", |frame| frame[12..14] == ARP)?;
    ensure!(asked[38..42] == [192, 0, 2, 9], "asked for {:?}", &asked[38..42]);
    let own = link.near.ip("link show")?;
    let is_interfaces_own = own.contains(&mac);
    node.terminate()?;
    // At the other end of a tap device is somebody else than who has the device.
    ensure!(is_interfaces_own == (device != "up0"), "{mac} in {own}");
    Ok(())
}

#[test]
fn own_addresses_are_answered_for_and_others_are_not() {
    scenario::run(|work| {
        let link = Link::create()?;
        is_found(work, &link, UplinkConfig::new("up", "af-packet", "up0"), &link.far, "far0")
    });
}

#[test]
fn own_addresses_are_answered_for_by_xdp() {
    scenario::run(|work| {
        let link = Link::for_xdp()?;
        is_found(work, &link, UplinkConfig::new("up", "af-xdp", "up0"), &link.far, "far0")
    });
}

#[test]
fn own_addresses_are_answered_for_behind_a_tap() {
    scenario::run(|work| {
        let link = Link::unwired()?;
        is_found(work, &link, UplinkConfig::new("up", "tap", "up0"), &link.near, "up0")
    });
}
