// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that speaks VXLAN itself, from the node's own address, and a kernel's VXLAN device at the far end. So the node's
//! part of it is seen without policy: the way to the next hop, the wait for it, and the way back by virtual network and
//! inner address. The guest sends by a port that has neither policy nor a fixed address, and so may claim any, and receives
//! by one that is in the virtual network.

use anyhow::{Context, Result, ensure};
use harness::node::{Node, NodeConfig, PortConfig};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;
use packet::checksum::checksum;

use crate::station::Station;
use crate::{Link, SOON, config};

const MAC: [u8; 6] = [2, 0, 0, 0, 5, 1];
const OWN: [u8; 4] = [192, 0, 2, 1];
const FAR: [u8; 4] = [192, 0, 2, 2];
const INNER: [u8; 4] = [10, 5, 0, 1];
const INNER_FAR: [u8; 4] = [10, 5, 0, 2];
const VNI: u32 = 5001;
/// Outer Ethernet, IPv4, UDP and VXLAN.
const OUTER: usize = 14 + 20 + 8 + 8;

fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).expect("short");
    let [a, b] = len.to_be_bytes();
    let mut header = [&[0x45, 0, a, b, 0, 0, 0x40, 0, 64, protocol, 0, 0][..], &source, &destination].concat();
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

/// An inner frame in a tunnel. Where the outer Ethernet header says it goes is of no interest.
fn vxlan(vni: u32, to: [u8; 4], inner: &[u8]) -> Vec<u8> {
    let [_, v0, v1, v2] = vni.to_be_bytes();
    let [l0, l1] = u16::try_from(16 + inner.len()).expect("short").to_be_bytes();
    let udp = [&[0xc0, 0, 0x12, 0xb5, l0, l1, 0, 0, 8, 0, 0, 0, v0, v1, v2, 0][..], inner].concat();
    [&[2, 0, 0, 0, 0, 0xee][..], &MAC, &[8, 0], &ipv4(17, OWN, to, &udp)].concat()
}

/// A question for the far inner address.
fn arp() -> Vec<u8> {
    [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC, &INNER, &[0; 6], &INNER_FAR].concat()
}

/// An ICMP echo request with `len` bytes of payload.
fn echo(to: [u8; 6], number: u16, len: usize) -> Vec<u8> {
    let [n0, n1] = number.to_be_bytes();
    let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34, n0, n1][..], &vec![number.to_le_bytes()[0]; len]].concat();
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    [&to[..], &MAC, &[8, 0], &ipv4(1, INNER, INNER_FAR, &icmp)].concat()
}

/// The inner frame of one that arrived in the tunnel.
fn inner(frame: &[u8]) -> Option<&[u8]> {
    let [_, v0, v1, v2] = VNI.to_be_bytes();
    let ours = frame.get(46..49)? == [v0, v1, v2] && frame.get(30..34)? == OWN && frame.get(36..38)? == [0x12, 0xb5];
    ours.then(|| frame.get(OUTER..)).flatten()
}

/// A far end with a VXLAN device towards the node.
fn far_end() -> Result<Link> {
    let link = Link::create()?;
    link.far.ip("addr add 192.0.2.2/24 dev far0")?;
    link.far.ip("link add vx type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dstport 4789 dev far0")?;
    link.far.ip("addr add 10.5.0.2/24 dev vx")?;
    link.far.ip("link set vx up")?;
    Ok(link)
}

/// Takes the next echo reply, which must be that to request `n` with `len` bytes.
fn reply_to(guest: &mut Station, n: u16, len: usize) -> Result<()> {
    let is_reply = |frame: &[u8]| inner(frame).is_some_and(|inner| inner[12..14] == [8, 0] && inner[34] == 0);
    let reply = guest.receive(&format!("the reply to {n}"), is_reply)?;
    let reply = inner(&reply).context("in the tunnel")?;
    ensure!(reply[40..42] == n.to_be_bytes() && reply.len() == 14 + 20 + 8 + len, "reply to {n}: {reply:02x?}");
    Ok(())
}

fn overlay(work: &WorkDir, node: &NodeConfig) -> Result<()> {
    let link = far_end()?;
    let mut node = Node::start_in(work, node, &link.near)?;
    let (mut guest, mut tunnel) = (Station::attach(&node.socket("vm"))?, Station::attach(&node.socket("tunnel"))?);
    node.wait_up(&["vm", "tunnel", "up"])?;

    // The node does not know the far end yet: these wait for it, in order.
    let question = vxlan(VNI, FAR, &arp());
    let waiting: Vec<Vec<u8>> = (0..40).map(|n| vxlan(VNI, FAR, &echo([0xff; 6], n, usize::from(n) * 30))).collect();
    tunnel.send(&[&[question][..], &waiting].concat())?;
    let answer = guest.receive("an answer", |frame| inner(frame).is_some_and(|inner| inner[12..14] == [8, 6]))?;
    let answer = inner(&answer).context("in the tunnel")?;
    let far_mac: [u8; 6] = answer[22..28].try_into()?;
    ensure!(answer[20..22] == [0, 2] && answer[28..32] == INNER_FAR, "not an answer: {answer:02x?}");

    // The far end answers what waited, too, in the order in which it left.
    for n in 0..40 {
        reply_to(&mut guest, n, usize::from(n) * 30)?;
    }
    let more = 1000..1060;
    let echoes: Vec<Vec<u8>> = more.clone().map(|n| vxlan(VNI, FAR, &echo(far_mac, n, 1000))).collect();
    tunnel.send(&echoes)?;
    for n in more {
        reply_to(&mut guest, n, 1000)?;
    }

    let up = node.port("up")?;
    let neighbors = &up.uplink()?.neighbors;
    ensure!(neighbors.len() == 1 && neighbors[0].ip == "192.0.2.2" && neighbors[0].mac.is_some(), "{neighbors:?}");
    ensure!(up.uplink()?.parked == 0 && up.dropped("unresolved") + up.dropped("park_full") == 0, "{up:?}");
    node.terminate()
}

const UP: &str = "address = \"192.0.2.1/24\"\nworkers = [\"w0\"]";

/// The uplink with its address, a port in the virtual network, and one that is on the bridge; `extra` for both.
fn tunnel_config(extra: &str) -> NodeConfig {
    let vm = format!("mac = \"02:00:00:00:05:01\"\nvni = {VNI}\n{extra}");
    let vm = PortConfig { extra: vm, ..PortConfig::new("vm") };
    let tunnel = PortConfig { extra: extra.to_owned(), ..PortConfig::new("tunnel") };
    NodeConfig { ports: vec![vm, tunnel], ..config(&[], UP) }
}

#[test]
fn a_kernel_tunnel_meets_a_guests() {
    scenario::run(|work| overlay(work, &tunnel_config("")));
}

#[test]
fn a_kernel_tunnel_meets_a_guests_on_another_worker() {
    let node = NodeConfig { more_workers: 1, ..tunnel_config("workers = [\"w1\"]") };
    scenario::run(|work| overlay(work, &node));
}

/// A neighbour that is not there: what waits for it is bounded and dropped in the end, and nobody else has to wait.
#[test]
fn what_waits_for_nobody_is_dropped() {
    scenario::run(|work| {
        let link = far_end()?;
        let mut node = Node::start_in(work, &tunnel_config(""), &link.near)?;
        let (mut guest, mut tunnel) = (Station::attach(&node.socket("vm"))?, Station::attach(&node.socket("tunnel"))?);
        node.wait_up(&["vm", "tunnel", "up"])?;
        let lost: Vec<Vec<u8>> = (0..100).map(|n| vxlan(VNI, [192, 0, 2, 77], &echo([0xff; 6], n, 64))).collect();
        tunnel.send(&lost)?;
        tunnel.send(&[vxlan(VNI, FAR, &arp())])?;
        guest.receive("an answer", |frame| inner(frame).is_some())?;
        wait_until("all to be dropped", SOON, || {
            let up = node.port("up")?;
            Ok(up.dropped("park_full") + up.dropped("unresolved") == 100 && up.uplink()?.parked == 0)
        })?;
        // 64 wait until it is known that nobody is there; the others find no room.
        ensure!(node.port("up")?.dropped("park_full") == 36, "{:?}", node.port("up")?);
        node.terminate()
    });
}

/// A port with a fixed address sends as nobody else; a tunnel's packet for a station that is not there is dropped.
#[test]
fn forged_sources_and_unknown_stations_are_dropped() {
    scenario::run(|work| {
        let link = far_end()?;
        let fixed = PortConfig { extra: "mac = \"02:00:00:00:00:01\"".to_owned(), ..PortConfig::new("fixed") };
        let free = PortConfig::new("free");
        let node = NodeConfig { ports: vec![fixed, free], ..config(&[], UP) };
        let mut node = Node::start_in(work, &node, &link.near)?;
        let mut guests = [Station::attach(&node.socket("fixed"))?, Station::attach(&node.socket("free"))?];
        node.wait_up(&["fixed", "free", "up"])?;
        let frame = |to: u8, from: u8, mark: u8| {
            [&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb6][..], &[mark; 50]].concat()
        };
        // Claimed by another port, and sent with another's source: the address stays where it is.
        guests[1].send(&[frame(9, 1, 1)])?;
        // In a tunnel that would begin at the node, too.
        let mut tunnel = vxlan(VNI, FAR, &arp());
        tunnel[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        guests[0].send(&[frame(9, 2, 2), tunnel, frame(9, 1, 3)])?;
        let got = guests[1].receive("what the port may send", |frame| frame[12] == 0x88)?;
        ensure!(got[14] == 3, "a frame with a forged source arrived: {got:02x?}");
        guests[1].send(&[frame(1, 7, 4)])?;
        let got = guests[0].receive("a frame for the fixed address", |frame| frame[12] == 0x88 && frame[14] != 1)?;
        ensure!(got[14] == 4, "{got:02x?}");
        ensure!(node.port("fixed")?.dropped("spoofed_source") == 2, "{:?}", node.port("fixed")?);
        // The far end asks in the tunnel for a station that no port has; a group is for all of the network: nobody.
        link.far.ip("neigh add 10.5.0.9 lladdr 02:00:00:00:05:09 dev vx")?;
        let before = node.port("up")?.dropped("no_destination");
        link.far.sh("busybox ping -c 1 -W 1 10.5.0.9 >/dev/null || true")?;
        wait_until("the drop", SOON, || Ok(node.port("up")?.dropped("no_destination") > before))?;
        node.terminate()
    });
}
