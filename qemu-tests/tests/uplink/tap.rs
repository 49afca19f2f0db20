// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tap devices that come, go, belong to somebody else, and are not read in time.

use anyhow::{Context, Result, ensure};
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::scenario;
use harness::wait::wait_until;

use crate::station::Station;
use crate::{Link, SOON};

fn config() -> NodeConfig {
    NodeConfig { uplinks: vec![UplinkConfig::new("up", "tap", "tap0")], ..NodeConfig::bridge(&["vm"]) }
}

fn errors(node: &Node, cause: &str) -> Result<u64> {
    Ok(node.port("up")?.errors.get(cause).copied().unwrap_or(0))
}

/// What the kernel of the node's namespace hears of a broadcast that a station of the node sends.
fn heard(link: &Link, station: &mut Station) -> Result<()> {
    let received =
        || -> Result<u64> { Ok(link.near.sh("cat /sys/class/net/tap0/statistics/rx_packets")?.trim().parse()?) };
    let before = received()?;
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb6], &[7; 86]].concat();
    station.send(&[frame])?;
    wait_until("the kernel to hear a station", SOON, || Ok(received()? == before + 1))
}

/// A device is made if there is none, made again if it is deleted, and gone when the node is.
#[test]
fn a_tap_is_made_and_made_again_and_goes() {
    scenario::run(|work| {
        let link = Link::unwired()?;
        let mut node = Node::start_in(work, &config(), &link.near)?;
        let mut station = Station::attach(&node.socket("vm"))?;
        node.wait_up(&["vm"])?;
        ensure!(node.port("up")?.state == "down", "nobody has switched it on");
        link.near.ip("link set tap0 up")?;
        node.wait_up(&["up"])?;
        heard(&link, &mut station)?;
        let mac = node.port("up")?.uplink()?.mac.clone().context("an address")?;
        let own = link.near.sh("cat /sys/class/net/tap0/address")?;
        ensure!(!own.contains(&mac), "the node has the address of the kernel's end: {mac}");

        link.near.ip("link delete tap0")?;
        wait_until("the device again", SOON, || Ok(link.near.ip("link show tap0").is_ok()))?;
        link.near.ip("link set tap0 up")?;
        node.wait_up(&["up"])?;
        heard(&link, &mut station)?;
        ensure!(errors(&node, "interface_gone")? == 1, "{:?}", node.port("up")?);

        // What changes about a device must not cost the device.
        link.near.ip("addr add 192.0.2.9/24 dev tap0")?;
        link.near.ip("link set tap0 mtu 1300")?;
        wait_until("the new MTU", SOON, || Ok(node.port("up")?.uplink()?.mtu == Some(1300)))?;
        node.wait_up(&["up"])?;
        ensure!(link.near.ip("addr show dev tap0")?.contains("192.0.2.9"), "the device was made anew");
        heard(&link, &mut station)?;
        node.terminate()?;
        ensure!(link.near.ip("link show tap0").is_err(), "the device is still there");
        Ok(())
    });
}

/// A device that somebody else has is tried until it is free; a name that is no tap device's is an error at once.
#[test]
fn a_tap_that_is_busy_is_had_when_it_is_free() {
    scenario::run(|work| {
        let link = Link::create()?;
        link.near.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
        link.near.ip("link set tap0 up")?;
        // Somebody who has it: whoever has opened its file.
        let config = NodeConfig { uplinks: vec![UplinkConfig::new("up", "tap", "tap0")], ..NodeConfig::default() };
        let other_work = scenario::WorkDir::create()?;
        let mut other = Node::start_in(&other_work, &config, &link.near)?;
        other.wait_up(&["up"])?;
        let mut node = Node::start_in(work, &config, &link.near)?;
        wait_until("the node to say that it is busy", SOON, || Ok(errors(&node, "busy")? == 1))?;
        ensure!(node.port("up")?.state == "down");
        other.kill()?;
        node.wait_up(&["up"])?;
        node.terminate()?;

        let config = NodeConfig { uplinks: vec![UplinkConfig::new("up", "tap", "up0")], ..NodeConfig::default() };
        let Err(error) = Node::start_in(work, &config, &link.near) else { anyhow::bail!("up0 is no tap device") };
        let text = format!("{error:#}");
        ensure!(text.contains("port \"up\": interface up0: not a tap device with one queue"), "{text}");
        Ok(())
    });
}

/// More frames than the device's queue holds while the node stands still: they are lost in the kernel, and counted.
#[test]
fn frames_that_nobody_reads_are_counted() {
    scenario::run(|work| {
        let link = Link::unwired()?;
        let mut node = Node::start_in(work, &config(), &link.near)?;
        link.near.ip("link set tap0 up")?;
        node.wait_up(&["up"])?;
        ensure!(node.port("up")?.dropped("uplink_full") == 0, "{:?}", node.port("up")?);
        let pid = rustix::process::Pid::from_raw(i32::try_from(node.process().pid())?).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        link.near.ip("addr add 192.0.2.1/24 dev tap0")?;
        link.near.ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0")?;
        link.near.within(|| {
            let socket = std::net::UdpSocket::bind(("192.0.2.1", 0))?;
            for _ in 0..3000 {
                let _ = socket.send_to(&[1; 100], ("192.0.2.2", 9));
            }
            Ok(())
        })?;
        rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
        wait_until("all to be received or counted", SOON, || {
            let up = node.port("up")?;
            Ok(up.dropped("uplink_full") > 0 && up.rx_packets + up.dropped("uplink_full") >= 3000)
        })?;
        node.terminate()
    });
}
