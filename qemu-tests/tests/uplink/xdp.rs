// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! AF_XDP sockets whose queue is busy, whose interface goes and comes back, and whose rings are full.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use harness::accounting::Footprint;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;

use crate::kernel::transfer;
use crate::kinds::{FAR_IP, GUEST_IP, Kind, Scene};
use crate::station::Station;
use crate::{Link, SOON};

fn config(extra: &str) -> NodeConfig {
    let up = UplinkConfig { extra: extra.to_owned(), ..UplinkConfig::new("up", "af-xdp", "up0") };
    NodeConfig { uplinks: vec![up], ..NodeConfig::bridge(&["vm"]) }
}

fn errors(node: &Node, cause: &str) -> Result<u64> {
    Ok(node.port("up")?.errors.get(cause).copied().unwrap_or(0))
}

/// A queue that another node has is tried until it is free, and had when that node is killed, whose socket the kernel is
/// still clearing up.
#[test]
fn a_queue_that_is_busy_is_had_when_it_is_free() {
    scenario::run(|work| {
        let link = Link::for_xdp()?;
        let work_of_other = WorkDir::create()?;
        let mut other = Node::start_in(&work_of_other, &config(""), &link.near)?;
        other.wait_up(&["up"])?;
        let mut node = Node::start_in(work, &config(""), &link.near)?;
        wait_until("the node to say that it is busy", SOON, || Ok(errors(&node, "busy")? > 0))?;
        ensure!(node.port("up")?.state == "down");
        other.kill()?;
        node.wait_up(&["up"])?;
        for _ in 0..3 {
            node.kill()?;
            node.start_again(work)?;
            node.wait_up(&["up"])?;
        }
        node.terminate()?;
        ensure!(!link.near.ip("link show up0")?.contains("xdp"), "the program is still there");
        Ok(())
    });
}

/// What cannot be is said at once, with its cause.
#[test]
fn what_cannot_be_is_said() {
    scenario::run(|work| {
        let link = Link::for_xdp()?;
        let refused = |extra: &str, expected: &str| -> Result<()> {
            let Err(error) = Node::start_in(work, &config(extra), &link.near) else {
                anyhow::bail!("{extra} was taken");
            };
            let text = format!("{error:#}");
            ensure!(text.contains(expected), "{text}");
            Ok(())
        };
        refused("xdp_queue = 3", "port \"up\": interface up0: there is no queue 3: it has 1")?;
        // The driver takes nothing else if the other end's frames are longer than it thinks it can.
        link.near.ip("link add br0 type bridge")?;
        link.near.ip("link set br0 up")?;
        let bridge =
            UplinkConfig { extra: "xdp_mode = \"native\"".to_owned(), ..UplinkConfig::new("up", "af-xdp", "br0") };
        let Err(error) =
            Node::start_in(work, &NodeConfig { uplinks: vec![bridge], ..NodeConfig::default() }, &link.near)
        else {
            anyhow::bail!("a bridge has no native XDP");
        };
        let text = format!("{error:#}");
        ensure!(text.contains("port \"up\": interface br0: attaching the XDP program: "), "{text}");
        // But generic, it has.
        let bridge = UplinkConfig::new("up", "af-xdp", "br0");
        let mut node =
            Node::start_in(work, &NodeConfig { uplinks: vec![bridge], ..NodeConfig::default() }, &link.near)?;
        let xdp = node.port("up")?.uplink()?.xdp.clone().context("an AF_XDP socket")?;
        ensure!(xdp.mode == "generic" && !xdp.zero_copy, "{xdp:?}");
        node.terminate()
    });
}

/// As `kernel::links_go_and_come_back`.
#[test]
fn links_go_and_come_back() {
    scenario::run(|work| {
        let mut scene = Scene::start(work, Kind::Xdp("auto"))?;
        let state = |scene: &Scene, wanted: &str| {
            wait_until(&format!("the uplink to be {wanted}"), SOON, || Ok(scene.node.port("up")?.state == wanted))
        };
        scene.link.far.ip("link set far0 down")?;
        state(&scene, "down").context("no carrier")?;
        let pid = scene.node.process().pid();
        let before = Footprint::cpu_ticks(pid)?;
        scene.guest.sh(&format!("busybox ping -c 2 -W 1 {FAR_IP} || true"))?;
        let spent = Footprint::cpu_ticks(pid)? - before;
        ensure!(spent < 40, "the node used {spent} hundredths of two seconds in which nothing happened");
        scene.link.far.ip("link set far0 up")?;
        state(&scene, "up").context("carrier again")?;
        scene.ping()?;

        scene.link.near.ip("link delete up0")?;
        state(&scene, "down").context("deleted")?;
        scene.link.wire()?;
        scene.link.finish_frames()?;
        scene.link.far.ip(&format!("addr add {FAR_IP}/24 dev far0"))?;
        state(&scene, "up").context("made anew")?;
        scene.guest.ip("neigh flush dev vm0")?;
        scene.ping()?;
        transfer(work, &scene.link.far, &scene.guest, GUEST_IP)?;
        let errors = scene.node.port("up")?.errors;
        ensure!(errors.get("interface_gone") == Some(&1) && errors.get("link_down") == Some(&1), "{errors:?}");
        scene.node.terminate()
    });
}

/// What was put into the ring of an interface that is switched off is lost, counted, and not sent when it is on again.
#[test]
fn frames_for_a_link_that_is_off_do_not_come_late() {
    scenario::run(|work| {
        let link = Link::for_xdp()?;
        let work_of_far = WorkDir::create()?;
        let mut near = Node::start_in(work, &config(""), &link.near)?;
        let far = UplinkConfig::new("up", "af-packet", "far0");
        let far = NodeConfig { uplinks: vec![far], ..NodeConfig::bridge(&["vm"]) };
        let mut far = Node::start_in(&work_of_far, &far, &link.far)?;
        let (mut here, mut there) = (Station::attach(&near.socket("vm"))?, Station::attach(&far.socket("vm"))?);
        near.wait_up(&["vm", "up"])?;
        far.wait_up(&["vm", "up"])?;
        let frame = |mark: u8, n: u32| {
            [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb6, mark], &n.to_be_bytes(), &[0; 60]].concat()
        };
        let mut n = 0;
        // The node looks at interfaces five times a second: some frames find the ring, the others no port.
        for lap in 0..20 {
            link.near.ip("link set up0 down")?;
            let late: Vec<Vec<u8>> = (0..50).map(|i| frame(0, i)).collect();
            here.send(&late)?;
            wait_until("the link to be down", SOON, || Ok(near.port("up")?.state == "down"))?;
            link.near.ip("link set up0 up")?;
            near.wait_up(&["up"])?;
            far.wait_up(&["up"])?;
            n += 1;
            here.send(&[frame(1, n)])?;
            let got = there
                .receive("a frame", |frame| frame[12..14] == [0x88, 0xb6])
                .with_context(|| format!("near {:?}, far {:?}", near.stats(), far.stats()))?;
            ensure!(got[14] == 1 && got[15..19] == n.to_be_bytes(), "lap {lap}: a frame came late: {got:02x?}");
            if near.port("up")?.dropped("not_ready") > 0 {
                near.terminate()?;
                return far.terminate();
            }
        }
        anyhow::bail!("no frame was ever in the ring: {:?}", near.stats()?);
    });
}

/// More frames than the ring holds while the node stands still: they are lost in the kernel, and counted.
#[test]
fn frames_that_nobody_takes_are_counted() {
    scenario::run(|work| {
        const SENT: u64 = 6000;
        let link = Link::for_xdp()?;
        let mut node = Node::start_in(work, &config(""), &link.near)?;
        node.wait_up(&["up"])?;
        link.far.ip("addr add 192.0.2.1/24 dev far0")?;
        link.far.ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev far0")?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(node.process().pid())?).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        link.far.within(|| {
            let socket = UdpSocket::bind(("192.0.2.1", 0))?;
            for _ in 0..SENT {
                socket.send_to(&[1; 100], ("192.0.2.2", 9))?;
            }
            Ok(())
        })?;
        rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
        wait_until("all to be received or counted", SOON, || {
            let up = node.port("up")?;
            Ok(up.dropped("uplink_full") > 0 && up.rx_packets + up.dropped("uplink_full") >= SENT)
        })?;
        let up = node.port("up")?;
        ensure!(up.rx_packets >= 2000, "the ring held {} frames", up.rx_packets);
        node.terminate()
    });
}
