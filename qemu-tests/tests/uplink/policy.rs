// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 2 of policy, in this process: policy puts a guest's packets into VXLAN, the kernel's VXLAN device at the far end of
//! the uplink takes them out, and the other way round; kernel TCP crosses it, with segmentation left to the node.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use backend::Node;
use backend::config::{Config, Machine};
use backend::stats::{PortState, PortStatus};
use harness::netns::NetNs;
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, Testpmd, VirtioUser};
use harness::wait::wait_until;
use packet::Tunnel;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions};
use switch::model::{
    Action, Controller, Default as Otherwise, Destination, Direction, Edit, Encap, Group, PortPolicy, Rule, Transaction,
};

use crate::kernel::transfer;
use crate::{Link, SOON};

const GUEST_IP: &str = "10.5.0.1";
const FAR_IP: &str = "10.5.0.2";
const VNI: u32 = 5001;

/// Starts a node in this process, whose threads are in a namespace.
fn start(ns: &NetNs, text: &str) -> Result<Node> {
    let config = Config::parse(text, "node.toml".as_ref(), &Machine::current())?;
    let file = File::open(ns.path()).context("the namespace")?;
    let started = std::thread::spawn(move || {
        // The thread ends with this; those that it starts stay where it is.
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Node::start(&config).map_err(anyhow::Error::from)
    });
    started.join().unwrap_or_else(|_| bail!("the node did not start"))
}

fn rule(name: &str, direction: Direction, matches: &[(&str, &str)], action: Action) -> Result<Rule> {
    let conditions: Result<Vec<_>, _> =
        matches.iter().map(|(field, value)| Condition::from_text(field, [*value])).collect();
    let conditions = Conditions::new(conditions?)?;
    Ok(Rule { name: Name::new(name)?, priority: 1, direction, conditions, action, terminating: false })
}

/// What is to 10.5.0.0/24, and ARP, goes into the tunnel; what comes in it is taken out.
fn policy() -> Result<Arc<Snapshot>> {
    let tunnel = || {
        Action::Encap(Encap {
            tunnel: Tunnel::Vxlan,
            vni: Some(VNI),
            source: IpAddr::from([192, 0, 2, 1]),
            destination: Destination::Among(vec![IpAddr::from([192, 0, 2, 2])]),
        })
    };
    let rules = vec![
        rule("ip", Direction::Out, &[("dst_ip", "10.5.0.0/24")], tunnel())?,
        rule("arp", Direction::Out, &[("ether_type", "arp")], tunnel())?,
        rule("decap", Direction::In, &[("tunnel", "vxlan")], Action::Decap)?,
    ];
    let group = Group { name: Name::new("g")?, order: 0, when: Conditions::default(), lpm: None, rules };
    let put = Edit::PutLayer { name: Name::new("vnet")?, order: 10, default: Otherwise::Allow };
    let edits = vec![put, Edit::PutGroup { layer: Name::new("vnet")?, group: Arc::new(group) }];
    let controller = Controller { name: Name::new("test")?, order: [0, 100] };
    let transaction = Transaction { controller, preconditions: Vec::new(), edits };
    let (_, snapshot) = commit(&PortPolicy::empty(), &Snapshot::empty(), &transaction, 1)?;
    Ok(Arc::new(snapshot))
}

fn status(node: &Node, name: &str) -> Result<PortStatus> {
    node.handle().ports()?.into_iter().find(|port| port.name == name).with_context(|| format!("no port {name}"))
}

fn overlay(work: &WorkDir, workers: [&str; 2]) -> Result<()> {
    let link = Link::create()?;
    link.far.ip("addr add 192.0.2.2/24 dev far0")?;
    link.far.ip("link add vx type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dstport 4789 dev far0")?;
    link.far.ip(&format!("addr add {FAR_IP}/24 dev vx"))?;
    link.far.ip("link set vx up")?;
    let dir = work.path().display();
    let [of_vm, of_up] = workers;
    let node = start(
        &link.near,
        &format!(
            "[control]\nsocket = \"{dir}/control.sock\"\nstate_dir = \"{dir}\"\n[[worker]]\nname = \"w0\"\n\
             [[worker]]\nname = \"w1\"\n[[port]]\nname = \"vm\"\nsocket = \"{dir}/vm.sock\"\nworkers = [\"{of_vm}\"]\n\
             mac = \"02:00:00:00:05:01\"\nvni = {VNI}\n[[port]]\nname = \"up\"\nkind = \"af-packet\"\n\
             interface = \"up0\"\naddress = \"192.0.2.1/24\"\nworkers = [\"{of_up}\"]\n"
        ),
    )?;
    if node.handle().set_policy("vm", policy()?)?.is_err() {
        bail!("no policy");
    }
    let guest = NetNs::create("guest")?;
    let port = VirtioUser { ring: Ring::Packed, mrg_rxbuf: true, ..VirtioUser::new(&work.file("vm.sock"), 3) };
    let mut bridge = Testpmd::spawn_bridge_to_tap(work, "bridge", &guest, &port, "tap0")?;
    bridge.ready()?;
    guest.ip("link set tap0 address 02:00:00:00:05:01 mtu 1450")?;
    guest.ip(&format!("addr add {GUEST_IP}/24 dev tap0"))?;
    guest.ip("link set tap0 up")?;
    bridge.start()?;
    wait_until("both ports to be up", SOON, || {
        Ok(status(&node, "vm")?.state == PortState::Up && status(&node, "up")?.state == PortState::Up)
    })?;
    wait_until("an answer to the guest's ping", SOON, || {
        Ok(guest.sh(&format!("busybox ping -c 1 -W 1 {FAR_IP}")).is_ok())
    })
    .with_context(|| format!("{:#?}", node.handle().ports()))?;
    let before = status(&node, "up")?.uplink.context("an uplink")?;
    transfer(work, &link.far, &guest, GUEST_IP).context("from the far end")?;
    let up = status(&node, "up")?.uplink.context("an uplink")?;
    let oversized = up.rx_oversized - before.rx_oversized;
    ensure!(oversized > 100 && up.segments - before.segments > 8 * oversized, "the frames came cut: {up:?}");
    transfer(work, &guest, &link.far, FAR_IP).context("to the far end")?;
    for port in node.handle().ports()? {
        let wrong = |cause: &&str| port.drops.get(*cause).is_some_and(|n| *n > 0);
        let wrong = ["bad_offload", "unsegmentable", "malformed", "no_headroom", "link_mtu"].iter().find(|c| wrong(c));
        ensure!(wrong.is_none() && port.errors.values().all(|n| *n == 0), "{port:?}");
    }
    node.stop();
    Ok(())
}

#[test]
fn kernel_tcp_crosses_an_overlay_of_policy() {
    scenario::run(|work| overlay(work, ["w0", "w0"]));
}

#[test]
fn kernel_tcp_crosses_an_overlay_of_policy_between_workers() {
    scenario::run(|work| overlay(work, ["w0", "w1"]));
}
