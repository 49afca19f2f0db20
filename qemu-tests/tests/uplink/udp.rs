// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Paths of datagrams: strangers, a peer that goes and comes back, several peers of one end, a way that is not there yet, and
//! datagrams that nobody takes.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use harness::accounting::Footprint;
use harness::node::{Node, NodeConfig, PortConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;

use crate::kinds::{Ip, udp};
use crate::station::Station;
use crate::{Link, SOON};

const MARK: [u8; 2] = [0x88, 0xb6];

fn config(ends: [&str; 2]) -> NodeConfig {
    NodeConfig { uplinks: vec![udp(ends)], ..NodeConfig::bridge(&["vm"]) }
}

fn frame(mark: u8) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &MARK, &[mark; 50]].concat()
}

fn error(node: &Node, cause: &str) -> Result<u64> {
    Ok(node.port("up")?.errors.get(cause).copied().unwrap_or(0))
}

/// Sends frames until one arrives: what is sent while nobody listens is lost.
fn passes(from: &mut Station, to: &mut Station, mark: u8) -> Result<()> {
    wait_until("a frame to pass", SOON, || {
        from.send(&[frame(mark)])?;
        Ok(to.try_receive(|frame| frame[12..14] == MARK)?.is_some_and(|frame| frame[14] == mark))
    })
}

/// The peer is killed and comes back; meanwhile the kernel is told by the other machine that nobody listens there.
#[test]
fn a_peer_goes_and_comes_back() {
    scenario::run(|work| {
        let link = Link::create()?;
        Ip::V4.assign(&link)?;
        let [near_end, far_end] = Ip::V4.ends();
        let work_of_far = WorkDir::create()?;
        let mut near = Node::start_in(work, &config([near_end, far_end]), &link.near)?;
        let mut far = Node::start_in(&work_of_far, &config([far_end, near_end]), &link.far)?;
        let mut here = Station::attach(&near.socket("vm"))?;
        let mut there = Station::attach(&far.socket("vm"))?;
        near.wait_up(&["vm", "up"])?;
        far.wait_up(&["vm", "up"])?;
        passes(&mut here, &mut there, 1)?;
        passes(&mut there, &mut here, 2)?;
        drop(there);
        far.kill()?;
        here.send(&vec![frame(3); 20])?;
        // Of many at once the kernel does not tell which was refused.
        wait_until("the peer's machine to say that nobody listens", SOON, || {
            here.send(&[frame(3)])?;
            Ok(error(&near, "refused")? > 0)
        })?;
        let pid = near.process().pid();
        let before = Footprint::cpu_ticks(pid)?;
        link.near.sh("busybox sleep 1")?;
        let spent = Footprint::cpu_ticks(pid)? - before;
        ensure!(spent < 20, "the node used {spent} hundredths of a second in which nothing happened");
        far.start_again(&work_of_far)?;
        let mut there = Station::attach(&far.socket("vm"))?;
        far.wait_up(&["vm", "up"])?;
        passes(&mut here, &mut there, 4)?;
        passes(&mut there, &mut here, 5)?;
        near.terminate()?;
        far.terminate()
    });
}

/// Two peers of one end: each is a port, and nobody else is heard there. What the peer's machine sends from its end, and is no
/// frame, is counted.
#[test]
fn one_end_has_several_peers_and_hears_no_strangers() {
    scenario::run(|work| {
        let link = Link::create()?;
        Ip::V4.assign(&link)?;
        let [near, _] = Ip::V4.ends();
        let one = UplinkConfig { name: "one".to_owned(), ..udp([near, "192.0.2.2:5001"]) };
        let two = UplinkConfig { name: "two".to_owned(), ..udp([near, "192.0.2.2:5002"]) };
        let vm = PortConfig::new("vm");
        let node = NodeConfig { uplinks: vec![one, two], ports: vec![vm], ..NodeConfig::default() };
        let mut node = Node::start_in(work, &node, &link.near)?;
        let mut station = Station::attach(&node.socket("vm"))?;
        node.wait_up(&["vm", "one", "two"])?;
        let [one, two, stranger] = link.far.within(|| {
            [5001, 5002, 5003]
                .map(|port| UdpSocket::bind(("192.0.2.2", port)))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?
                .try_into()
                .map_err(|_| anyhow::anyhow!("three sockets"))
        })?;
        // A broadcast goes to both; what one is sent is a frame that the other may say, too.
        station.send(&[frame(1)])?;
        let mut room = [0; 2048];
        let mut received = Vec::new();
        for socket in [&one, &two] {
            socket.set_read_timeout(Some(SOON))?;
            let (len, from) = socket.recv_from(&mut room).context("a datagram of the node")?;
            ensure!(from == near.parse()?, "from {from}");
            received = room[..len].to_vec();
        }
        stranger.send_to(&received, near)?;
        one.send_to(b"no frame at all", near)?;
        two.send_to(&received, near)?;
        let got = station.receive("what a peer says", |frame| frame[12..14] == MARK)?;
        ensure!(got == frame(1), "{got:02x?}");
        wait_until("the datagram that is none to be counted", SOON, || {
            Ok(node.port("one")?.errors.values().sum::<u64>() == 1)
        })?;
        let (one, two) = (node.port("one")?, node.port("two")?);
        ensure!((one.rx_packets, two.rx_packets, two.errors.is_empty()) == (0, 1, true), "{one:?} {two:?}");
        node.terminate()
    });
}

/// An end that is not there yet, and a path that takes less than it did.
#[test]
fn a_path_that_comes_and_shrinks_is_followed() {
    scenario::run(|work| {
        let link = Link::create()?;
        let [near_end, far_end] = Ip::V4.ends();
        let mut near = Node::start_in(work, &config([near_end, far_end]), &link.near)?;
        ensure!(near.port("up")?.state == "down" && error(&near, "unreachable")? == 1, "{:?}", near.port("up")?);
        Ip::V4.assign(&link)?;
        near.wait_up(&["up"])?;
        let mtu = || -> Result<u16> { near.port("up")?.uplink()?.mtu.context("an MTU") };
        let before = mtu()?;
        link.near.ip("route add 192.0.2.2 dev up0 mtu 1300")?;
        wait_until("the shorter path", SOON, || Ok(mtu()? == before - 200))?;
        near.wait_up(&["up"])?;
        link.near.ip("addr flush dev up0")?;
        link.near.ip("addr add 192.0.2.1/32 dev up0")?;
        wait_until("the path to be gone", SOON, || Ok(near.port("up")?.state == "down"))?;
        link.near.ip("route add 192.0.2.2 dev up0")?;
        near.wait_up(&["up"])?;
        wait_until("the longer path", SOON, || Ok(mtu()? == before))?;
        near.terminate()
    });
}

/// More datagrams than the socket holds while the node stands still.
#[test]
fn datagrams_that_nobody_takes_are_counted() {
    scenario::run(|work| {
        const SENT: u64 = 6000;
        let link = Link::create()?;
        Ip::V4.assign(&link)?;
        let [near, far] = Ip::V4.ends();
        let mut node = Node::start_in(work, &config([near, far]), &link.near)?;
        node.wait_up(&["up"])?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(node.process().pid())?).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        link.far.within(|| {
            let socket = UdpSocket::bind(far)?;
            // No frame, but each is counted.
            for _ in 0..SENT {
                socket.send_to(&[0; 1000], near)?;
            }
            Ok(())
        })?;
        rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
        wait_until("all to be received or counted", SOON, || {
            let up = node.port("up")?;
            let lost = up.dropped("uplink_full");
            Ok(lost > 0 && up.errors.values().sum::<u64>() + lost == SENT)
        })?;
        node.terminate()
    });
}
