// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy, applied to a node by its command line and REST API, as two network stacks of this machine's kernel see it: one is
//! a guest behind testpmd and a tap, the other is at the far end of a veth pair. Where that kernel lacks what is to be met, both
//! are QEMU guests.
//!
//! | file | what it holds |
//! |---|---|
//! | `vxlan.rs` | encapsulation and decapsulation against a kernel's VXLAN device; the directory |
//! | `tunnels.rs` | the same with NVGRE and Geneve, and neighbours that are found across the tunnel |
//! | `vlans.rs` | VLAN tags, one and two |
//! | `station.rs` | two QEMU guests, one on a port, one at the far end of the uplink |
//! | `acl.rs` | connections: who may begin them, what survives a change, what is billed |
//! | `vip.rs` | a service behind a virtual address |
//! | `controllers/` | four controllers at once, on two nodes, with QEMU guests |

mod acl;
mod controllers;
mod station;
mod tunnels;
mod vip;
mod vlans;
mod vxlan;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, PortConfig, UplinkConfig};
use harness::process::Process;
use harness::scenario::WorkDir;
use harness::testpmd::{Ring, Testpmd, VirtioUser};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);
/// The guest's address on the wire.
const GUEST_MAC: &str = "02:00:00:00:07:01";

/// A node with the port `vm`, behind which there is a network stack, and an uplink to another.
struct Both {
    guest: NetNs,
    far: NetNs,
    node: Node,
    _near: NetNs,
    _bridge: Testpmd,
}

impl Both {
    /// Starts all. The guest's device is `tap0` with the address `ip`, the far end's is `far0`.
    fn start(work: &WorkDir, ip: &str, far_ip: &str, vm: &str, uplink: &str) -> Result<Self> {
        let (near, far, guest) = (NetNs::create("near")?, NetNs::create("far")?, NetNs::create("guest")?);
        // Nobody shall speak but whom a test lets.
        for ns in [&near, &far, &guest] {
            ns.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        near.wire("up0", &far, "far0")?;
        far.ip(&format!("addr add {far_ip}/24 dev far0"))?;
        let vm = PortConfig { extra: format!("mac = {GUEST_MAC:?}\n{vm}"), ..PortConfig::new("vm") };
        let up = UplinkConfig { extra: uplink.to_owned(), ..UplinkConfig::new("up", "af-packet", "up0") };
        let config = NodeConfig { ports: vec![vm], uplinks: vec![up], ..NodeConfig::default() };
        let node = Node::start_in(work, &config, &near)?;
        let port = VirtioUser { ring: Ring::Packed, mrg_rxbuf: true, ..VirtioUser::new(&node.socket("vm"), 3) };
        let mut bridge = Testpmd::spawn_bridge_to_tap(work, "bridge", &guest, &port, "tap0")?;
        bridge.ready()?;
        guest.ip(&format!("link set tap0 address {GUEST_MAC}"))?;
        guest.ip("link set tap0 mtu 1450")?;
        guest.ip(&format!("addr add {ip}/24 dev tap0"))?;
        guest.ip("link set tap0 up")?;
        // What does not fit into the ring is tried again, so that nothing is lost between the tap and the node.
        bridge.command("set fwd io retry")?;
        bridge.command("set burst tx delay 10 retry 10000")?;
        bridge.start()?;
        node.wait_up(&["vm", "up"])?;
        Ok(Self { guest, far, node, _near: near, _bridge: bridge })
    }

    /// No port had an error, or an offload that nobody could finish.
    fn nothing_went_wrong(&self) -> Result<()> {
        for port in self.node.stats()?.ports {
            ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
            ensure!(port.dropped("bad_offload") + port.dropped("unsegmentable") == 0, "offloads were wrong: {port:?}");
        }
        Ok(())
    }
}

/// Waits for a miss of an address that is told after `mark`.
pub(crate) fn missed(events: &mut Process, mark: u64, address: &str) -> Result<()> {
    events.wait_printed(mark, &format!("a miss of {address}"), SOON, |text| {
        let missed = |line: &str| line.starts_with("data:") && line.contains(&format!("\"address\":\"{address}\""));
        text.lines().any(missed).then_some(())
    })
}
