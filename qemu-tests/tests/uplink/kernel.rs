// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel of this machine in two namespaces: behind testpmd and a tap, and at the other end of a veth pair.

use anyhow::{Context, Result, ensure};
use harness::accounting::Footprint;
use harness::netns::NetNs;
use harness::node::Node;
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, Testpmd, VirtioUser};
use harness::transfer;
use harness::wait::wait_until;

use crate::{Link, SOON, config};

const GUEST_IP: &str = "10.9.0.100";
const FAR_IP: &str = "10.9.0.1";
const MIB: u64 = 16;

/// A node with an uplink, and a kernel on either side of it.
struct Both {
    link: Link,
    guest: NetNs,
    node: Node,
    _bridge: Testpmd,
}

impl Both {
    fn start(work: &WorkDir, uplink: &str) -> Result<Self> {
        let link = Link::create()?;
        link.far.ip(&format!("addr add {FAR_IP}/24 dev far0"))?;
        let node = Node::start_in(work, &config(&["vm"], uplink), &link.near)?;
        let guest = NetNs::create("guest")?;
        let port = VirtioUser { ring: Ring::Packed, mrg_rxbuf: true, ..VirtioUser::new(&node.socket("vm"), 3) };
        let mut bridge = Testpmd::spawn_bridge_to_tap(work, "bridge", &guest, &port, "tap0")?;
        bridge.ready()?;
        guest.ip(&format!("addr add {GUEST_IP}/24 dev tap0"))?;
        guest.ip("link set tap0 up")?;
        bridge.start()?;
        node.wait_up(&["vm", "up"])?;
        Ok(Self { link, guest, node, _bridge: bridge })
    }

    fn ping(&self) -> Result<()> {
        wait_until("an answer to the guest's ping", SOON, || {
            Ok(self.guest.sh(&format!("busybox ping -c 1 -W 1 {FAR_IP}")).is_ok())
        })
    }
}

/// Sends random bytes and compares the hashes.
pub(crate) fn transfer(work: &WorkDir, from: &NetNs, to: &NetNs, ip: &str) -> Result<()> {
    transfer::between(work, from, to, ip, MIB)
}

fn kernels_talk(work: &WorkDir, offloads: bool) -> Result<()> {
    let mut both = Both::start(work, "")?;
    if !offloads {
        both.link.far.sh("ethtool -K far0 tx off tso off gso off")?;
    }
    both.ping()?;
    let before = both.node.port("up")?.uplink()?.clone();
    transfer(work, &both.link.far, &both.guest, GUEST_IP).context("from the far end")?;
    let up = both.node.port("up")?.uplink()?.clone();
    let (unfinished, oversized) = (up.rx_unfinished - before.rx_unfinished, up.rx_oversized - before.rx_oversized);
    if offloads {
        // 16 MiB are 11,600 segments: most of them came in frames of many.
        ensure!(oversized > 100 && up.segments - before.segments > 8 * oversized, "the frames came cut: {up:?}");
        ensure!(unfinished > oversized, "acknowledgements came with their checksums: {up:?}");
    } else {
        ensure!((unfinished, oversized) == (0, 0), "the far end left something undone: {up:?}");
    }
    transfer(work, &both.guest, &both.link.far, FAR_IP).context("to the far end")?;
    for port in both.node.stats()?.ports {
        ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
        ensure!(port.dropped("bad_offload") + port.dropped("unsegmentable") == 0, "offloads were wrong: {port:?}");
    }
    both.node.terminate()
}

#[test]
fn kernel_tcp_crosses_with_checksums_and_segmentation_left_to_the_node() {
    scenario::run(|work| kernels_talk(work, true));
}

#[test]
fn kernel_tcp_crosses_with_complete_frames() {
    scenario::run(|work| kernels_talk(work, false));
}

/// Kernels speak through a tunnel of their own: what the far end leaves undone lies behind the tunnel's headers.
fn kernels_talk_in_a_tunnel(work: &WorkDir, options: &str) -> Result<()> {
    let mut both = Both::start(work, "")?;
    for (ns, device, own, other, inner) in
        [(&both.link.far, "far0", FAR_IP, GUEST_IP, "10.5.0.1"), (&both.guest, "tap0", GUEST_IP, FAR_IP, "10.5.0.2")]
    {
        ns.ip(&format!("link add vx type vxlan id 7 local {own} remote {other} dstport 4789 dev {device} {options}"))?;
        ns.ip(&format!("addr add {inner}/24 dev vx"))?;
        ns.ip("link set vx up")?;
    }
    both.ping()?;
    let before = both.node.port("up")?.uplink()?.clone();
    transfer(work, &both.link.far, &both.guest, "10.5.0.2").context("from the far end")?;
    let up = both.node.port("up")?.uplink()?.clone();
    let oversized = up.rx_oversized - before.rx_oversized;
    ensure!(oversized > 100 && up.segments - before.segments > 8 * oversized, "the frames came cut: {up:?}");
    transfer(work, &both.guest, &both.link.far, "10.5.0.1").context("to the far end")?;
    for port in both.node.stats()?.ports {
        ensure!(port.dropped("bad_offload") + port.dropped("unsegmentable") == 0, "offloads were wrong: {port:?}");
    }
    both.node.terminate()
}

#[test]
fn a_kernel_tunnel_crosses_with_inner_segmentation_left_to_the_node() {
    scenario::run(|work| kernels_talk_in_a_tunnel(work, "noudpcsum"));
}

#[test]
fn a_kernel_tunnel_crosses_with_outer_checksums() {
    scenario::run(|work| kernels_talk_in_a_tunnel(work, "udpcsum"));
}

/// A link that is down, an interface that is gone, and one of the same name that is another: each time the port says so,
/// the node does not spin, and the network is back when the interface is.
#[test]
fn links_go_and_come_back() {
    scenario::run(|work| {
        let mut both = Both::start(work, "")?;
        let state = |both: &Both, wanted: &str| {
            wait_until(&format!("the uplink to be {wanted}"), SOON, || Ok(both.node.port("up")?.state == wanted))
        };
        both.ping()?;
        both.link.far.ip("link set far0 down")?;
        state(&both, "down").context("no carrier")?;
        // What is sent now goes nowhere, and is counted.
        both.guest.sh(&format!("busybox ping -c 2 -W 1 {FAR_IP} || true"))?;
        let dropped =
            |both: &Both| both.node.port("vm").map(|vm| vm.dropped("not_ready") + vm.dropped("no_destination"));
        ensure!(dropped(&both)? > 0, "{:?}", both.node.port("vm")?);
        let pid = both.node.process().pid();
        let before = Footprint::cpu_ticks(pid)?;
        both.guest.sh("busybox sleep 1")?;
        let spent = Footprint::cpu_ticks(pid)? - before;
        ensure!(spent < 20, "the node used {spent} hundredths of a second in which nothing happened");
        both.link.far.ip("link set far0 up")?;
        state(&both, "up").context("carrier again")?;
        both.ping()?;

        both.link.near.ip("link delete up0")?;
        state(&both, "down").context("deleted")?;
        both.link.wire()?;
        both.link.far.ip(&format!("addr add {FAR_IP}/24 dev far0"))?;
        state(&both, "up").context("made anew")?;
        // The far end has another address now, which the guest would believe only after a while.
        both.guest.ip("neigh flush dev tap0")?;
        both.ping()?;
        let errors = both.node.port("up")?.errors;
        ensure!(errors.get("interface_gone") == Some(&1) && errors.get("link_down") == Some(&1), "{errors:?}");

        both.link.near.ip("link set up0 address 02:00:00:00:00:77")?;
        let mac = |both: &Both| Ok::<_, anyhow::Error>(both.node.port("up")?.uplink()?.mac.clone());
        wait_until("the new address", SOON, || Ok(mac(&both)?.as_deref() == Some("02:00:00:00:00:77")))?;
        both.ping()?;
        transfer(work, &both.link.far, &both.guest, GUEST_IP)?;
        both.node.terminate()
    });
}

/// Frames that a link does not take are dropped where they would leave, and counted there.
#[test]
fn frames_beyond_the_mtu_are_dropped() {
    scenario::run(|work| {
        let mut both = Both::start(work, "mtu = 1000")?;
        both.ping()?;
        ensure!(both.node.port("up")?.uplink()?.mtu == Some(1000));
        ensure!(both.node.port("up")?.dropped("link_mtu") == 0);
        // 972 bytes, with 8 of ICMP and 20 of IP, are just 1000.
        both.guest.sh(&format!("busybox ping -c 1 -W 5 -s 972 {FAR_IP}"))?;
        both.guest.sh(&format!("busybox ping -c 3 -W 1 -s 973 {FAR_IP} || true"))?;
        ensure!(both.node.port("up")?.dropped("link_mtu") == 3, "{:?}", both.node.port("up")?);
        both.node.terminate()
    });
}
