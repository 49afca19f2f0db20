// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every kind of uplink carries the kernel's TCP and UDP. The guest is a kernel, too, behind a tap device that was moved
//! into a namespace of its own.

use std::net::UdpSocket;
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig, XdpStats};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;

use crate::kernel::transfer;
use crate::{Link, SOON};

pub(crate) const GUEST_IP: &str = "10.9.0.100";
pub(crate) const FAR_IP: &str = "10.9.0.1";
const UDP_PORT: u16 = 6000;

/// How the network is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AfPacket,
    Tap,
    Xdp(&'static str),
    /// Datagrams to another node, which has the far kernel behind a tap device.
    Udp(Ip),
}

/// What the datagrams go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

impl Ip {
    /// Both ends of a path.
    pub(crate) fn ends(self) -> [&'static str; 2] {
        match self {
            Self::V4 => ["192.0.2.1:34997", "192.0.2.2:34997"],
            Self::V6 => ["[2001:db8::1]:34997", "[2001:db8::2]:34997"],
        }
    }

    /// Gives both ends of a link their addresses.
    pub(crate) fn assign(self, link: &Link) -> Result<()> {
        for (ns, device, v4, v6) in [
            (&link.near, "up0", "192.0.2.1/24", "2001:db8::1/64"),
            (&link.far, "far0", "192.0.2.2/24", "2001:db8::2/64"),
        ] {
            if self == Self::V4 {
                ns.ip(&format!("addr add {v4} dev {device}"))?;
            } else {
                ns.sh(&format!("echo 0 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6"))?;
                ns.ip(&format!("addr add {v6} dev {device} nodad"))?;
            }
        }
        Ok(())
    }
}

/// An uplink of datagrams.
pub(crate) fn udp([local, peer]: [&str; 2]) -> UplinkConfig {
    UplinkConfig { extra: format!("local = {local:?}\npeer = {peer:?}\n"), ..UplinkConfig::new("up", "udp", "") }
}

/// A node between two kernels: `guest` behind the uplink `vm`, a tap device, and `far` behind the uplink `up`.
pub(crate) struct Scene {
    pub(crate) link: Link,
    pub(crate) guest: NetNs,
    pub(crate) node: Node,
    /// The other node, where there is one.
    pub(crate) other: Option<(WorkDir, Node)>,
}

impl Scene {
    pub(crate) fn start(work: &WorkDir, kind: Kind) -> Result<Self> {
        Self::start_with(work, kind, |_| {})
    }

    /// As [`start`](Self::start), with changes to the configuration of the nodes; the second uplink is that to the network.
    fn start_with(work: &WorkDir, kind: Kind, change: impl Fn(&mut NodeConfig)) -> Result<Self> {
        let link = match kind {
            Kind::AfPacket => Link::create()?,
            Kind::Tap => Link::unwired()?,
            Kind::Xdp(_) => Link::for_xdp()?,
            Kind::Udp(ip) => {
                let link = Link::create()?;
                ip.assign(&link)?;
                link
            }
        };
        let guest = NetNs::create("guest")?;
        guest.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        let up = match kind {
            Kind::AfPacket => UplinkConfig::new("up", "af-packet", "up0"),
            Kind::Tap => UplinkConfig::new("up", "tap", "far0"),
            Kind::Xdp(mode) => {
                UplinkConfig { extra: format!("xdp_mode = {mode:?}\n"), ..UplinkConfig::new("up", "af-xdp", "up0") }
            }
            Kind::Udp(ip) => udp(ip.ends()),
        };
        let mut config =
            NodeConfig { uplinks: vec![UplinkConfig::new("vm", "tap", "vm0"), up], ..NodeConfig::default() };
        change(&mut config);
        let node = Node::start_in(work, &config, &link.near)?;
        let mut scene = Self { link, guest, node, other: None };
        scene.move_tap("vm0", &scene.guest, GUEST_IP)?;
        match kind {
            Kind::Tap => scene.move_tap("far0", &scene.link.far, FAR_IP)?,
            Kind::Udp(ip) => {
                let [near, far] = ip.ends();
                let uplinks = vec![UplinkConfig::new("vm", "tap", "vm0"), udp([far, near])];
                let work = WorkDir::create()?;
                let mut config = NodeConfig { uplinks, ..NodeConfig::default() };
                change(&mut config);
                let other = Node::start_in(&work, &config, &scene.link.far)?;
                scene.link.far.ip(&format!("addr add {FAR_IP}/24 dev vm0"))?;
                scene.link.far.ip("link set vm0 up")?;
                other.wait_up(&["vm", "up"])?;
                // Who is at the other end of a tunnel must know by itself how long its packets may be.
                let mtu = other.port("up")?.uplink()?.mtu.context("an MTU")?;
                ensure!((1380..1420).contains(&mtu), "{mtu} bytes fit a datagram");
                for (ns, device) in [(&scene.link.far, "vm0"), (&scene.guest, "vm0")] {
                    ns.ip(&format!("link set {device} mtu {mtu}"))?;
                }
                // What is on its way while a node takes in that an interface has changed may be lost.
                wait_until("the new MTU", SOON, || Ok(other.port("vm")?.uplink()?.mtu == Some(mtu)))?;
                scene.other = Some((work, other));
            }
            Kind::AfPacket | Kind::Xdp(_) => drop(scene.link.far.ip(&format!("addr add {FAR_IP}/24 dev far0"))?),
        }
        scene.node.wait_up(&["vm", "up"])?;
        scene.ping()?;
        Ok(scene)
    }

    pub(crate) fn ping(&self) -> Result<()> {
        wait_until("an answer to the guest's ping", SOON, || {
            Ok(self.guest.sh(&format!("busybox ping -c 1 -W 1 {FAR_IP}")).is_ok())
        })
    }

    /// Moves a tap device of the node's into a namespace, where it gets an address.
    fn move_tap(&self, name: &str, to: &NetNs, ip: &str) -> Result<()> {
        self.link.near.ip(&format!("link set {name} netns {}", to.name()))?;
        to.ip(&format!("addr add {ip}/24 dev {name}"))?;
        to.ip(&format!("link set {name} up"))?;
        Ok(())
    }
}

/// The bytes of datagram `number`: none is like another, and they are of all lengths up to more than a frame.
fn datagram(number: u32) -> Vec<u8> {
    let len = 4 + (number as usize * 37) % 4000;
    let mut state = number | 1;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize_with(len, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes
}

/// Sends datagrams, eight at a time, which the other end sends back if they are what they should be.
fn exchange_datagrams(scene: &Scene) -> Result<()> {
    const ALL: u32 = 400;
    const AT_ONCE: u32 = 8;
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            scene.link.far.within(|| {
                let socket = UdpSocket::bind((FAR_IP, UDP_PORT));
                ready.wait();
                let socket = socket?;
                socket.set_read_timeout(Some(SOON))?;
                let mut room = vec![0; 65_536];
                for number in 0..ALL {
                    let (len, from) = socket.recv_from(&mut room).with_context(|| format!("datagram {number}"))?;
                    ensure!(room[..len] == datagram(number), "datagram {number} is not what was sent");
                    socket.send_to(&room[..len], from)?;
                }
                Ok(())
            })
        });
        let asked = scene.guest.within(|| {
            ready.wait();
            let socket = UdpSocket::bind((GUEST_IP, 0))?;
            socket.connect((FAR_IP, UDP_PORT))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut room = vec![0; 65_536];
            for first in (0..ALL).step_by(AT_ONCE as usize) {
                for number in first..first + AT_ONCE {
                    socket.send(&datagram(number))?;
                }
                for number in first..first + AT_ONCE {
                    let len = socket.recv(&mut room).with_context(|| format!("the echo of {number}"))?;
                    ensure!(room[..len] == datagram(number), "the echo of {number} is not what was sent");
                }
            }
            Ok(())
        });
        let echoed = echo.join().unwrap_or_else(|_| anyhow::bail!("the other end panicked"));
        asked.and(echoed)
    })
}

fn kernels_talk(work: &WorkDir, kind: Kind) -> Result<()> {
    kernels_talk_in(work, kind, Scene::start(work, kind)?)
}

fn kernels_talk_in(work: &WorkDir, kind: Kind, mut scene: Scene) -> Result<()> {
    exchange_datagrams(&scene).context("datagrams")?;
    transfer(work, &scene.link.far, &scene.guest, GUEST_IP).context("from the far end")?;
    transfer(work, &scene.guest, &scene.link.far, FAR_IP).context("to the far end")?;
    let up = scene.node.port("up")?.uplink()?.clone();
    match kind {
        Kind::AfPacket => ensure!(up.rx_oversized > 100 && up.xdp.is_none(), "the far end's frames came cut: {up:?}"),
        Kind::Tap => ensure!(up.rx_oversized > 100, "the far end's frames came cut: {up:?}"),
        Kind::Xdp(mode) => {
            let mode = if mode == "auto" { "native" } else { mode }.to_owned();
            let expected = XdpStats { mode, zero_copy: false, multi_buffer: true };
            ensure!(up.xdp == Some(expected) && up.rx_unfinished == 0, "{up:?}");
        }
        Kind::Udp(_) => ensure!(up.rx_unfinished == 0 && up.xdp.is_none(), "{up:?}"),
    }
    // The guest's kernel leaves its checksums and long frames to the node.
    let vm = scene.node.port("vm")?.uplink()?.clone();
    ensure!(vm.rx_oversized > 100 && vm.segments > 8 * vm.rx_oversized, "the guest's frames came cut: {vm:?}");
    let others =
        scene.other.as_ref().map_or_else(|| Ok(Vec::new()), |(_, node)| Ok::<_, anyhow::Error>(node.stats()?.ports))?;
    for port in scene.node.stats()?.ports.into_iter().chain(others) {
        // Before the other node is there, nobody takes what a path carries.
        let harmless = |cause: &String| matches!(cause.as_str(), "interface_changed" | "refused");
        ensure!(port.errors.keys().all(harmless), "errors: {port:?}");
        ensure!(port.drops.keys().all(|cause| cause == "uplink_full"), "drops: {port:?}");
    }
    scene.node.terminate()
}

#[test]
fn kernels_talk_across_a_packet_socket() {
    scenario::run(|work| kernels_talk(work, Kind::AfPacket));
}

#[test]
fn kernels_talk_across_a_tap() {
    scenario::run(|work| kernels_talk(work, Kind::Tap));
}

#[test]
fn kernels_talk_across_xdp_in_the_driver() {
    scenario::run(|work| kernels_talk(work, Kind::Xdp("auto")));
}

#[test]
fn kernels_talk_across_generic_xdp() {
    scenario::run(|work| kernels_talk(work, Kind::Xdp("generic")));
}

#[test]
fn kernels_talk_across_udp() {
    scenario::run(|work| kernels_talk(work, Kind::Udp(Ip::V4)));
}

#[test]
fn kernels_talk_across_udp_over_ipv6() {
    scenario::run(|work| kernels_talk(work, Kind::Udp(Ip::V6)));
}

const KINDS: [Kind; 6] =
    [Kind::AfPacket, Kind::Tap, Kind::Xdp("native"), Kind::Xdp("generic"), Kind::Udp(Ip::V4), Kind::Udp(Ip::V6)];

/// Workers that sleep whenever there is nothing: a wake-up that is missed would be seen.
#[test]
fn kernels_talk_while_workers_sleep() {
    for kind in KINDS {
        scenario::run(|work| {
            let scene = Scene::start_with(work, kind, |config| config.poll = "interrupt".to_owned())?;
            kernels_talk_in(work, kind, scene).with_context(|| format!("{kind:?}"))
        });
    }
}

/// What the guest's kernel left undone is done before it leaves, though another worker has the uplink.
#[test]
fn kernels_talk_from_worker_to_worker() {
    for kind in KINDS {
        scenario::run(|work| {
            let apart = |config: &mut NodeConfig| {
                config.more_workers = 1;
                for (uplink, worker) in config.uplinks.iter_mut().zip(["w0", "w1"]) {
                    uplink.extra.push_str(&format!("workers = [{worker:?}]\n"));
                }
            };
            let scene = Scene::start_with(work, kind, apart)?;
            kernels_talk_in(work, kind, scene).with_context(|| format!("{kind:?}"))
        });
    }
}
