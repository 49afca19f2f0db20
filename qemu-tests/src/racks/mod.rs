// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Three nodes in three network namespaces: host A, the top of the rack (ToR), host B. At each host are a QEMU guest and a CNF of the SDK, with
//! a kernel behind it; at the ToR is a host that knows nothing of any of this. Everybody is in one network.
//!
//! ```text
//! guest ═ vhost-user ──┐                                                               ┌── vhost-user ═ guest
//!                      ├ node A ─ up ── bridge ── a ─ ToR ─ b ── bridge ── up ─ node B ┤
//! kernel ─ tap ─ l2fwd ┘                               c                               └ l2fwd ─ tap ─ kernel
//!                                                      └── bridge ── kernel
//! ```
//!
//! On each wire is a bridge of the ToR's kernel, which is unaware of aggregates. What passes it is captured there: what XDP takes
//! from an interface is not seen at that interface.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | namespaces, wires, nodes |
//! | `clients.rs` | who talks, and what arrived |
//! | `wiretap.rs` | captures on the wires |
//! | `ledger.rs` | what was on a wire, decoded by `tools/aggdump.py` and added up |
//! | `moment.rs` | what the nodes count |

mod clients;
mod ledger;
mod moment;
mod wiretap;

use std::time::Duration;

use anyhow::Result;

pub use clients::{Arrivals, Clients, STATIONS, Station};
pub use ledger::{Count, Group, Inside, Ledger, Sender, Way};
pub use moment::{Counted, Moment};
pub use wiretap::{Tapped, Wiretap};

use crate::netns::NetNs;
use crate::node::{Node, NodeConfig, PortConfig, PortStats, UplinkConfig};
use crate::scenario::WorkDir;
use crate::wait::wait_until;

/// How long anything may take that takes no time to speak of.
const SOON: Duration = Duration::from_secs(30);
/// How long counters must stay the same before and after the time that they are taken for.
const QUIET: Duration = Duration::from_millis(200);

/// The places of the nodes in arrays.
pub const A: usize = 0;
/// See [`A`].
pub const TOR: usize = 1;
/// See [`A`].
pub const B: usize = 2;

/// Node ids of A, ToR and B.
pub const IDS: [u16; 3] = [11, 12, 13];

/// The stages that A, ToR and B give in what they put together (docs/aggregate-frame.md, section 3).
pub const STAGES: [u64; 3] = [2, 3, 2];

/// A wire of the ToR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// `A`, `B` or `C`.
    pub label: &'static str,
    /// The interface at its far end.
    pub far: &'static str,
    /// That one's MAC address.
    pub far_mac: &'static str,
    /// The ToR's port.
    pub port: &'static str,
    /// The ToR's interface.
    pub near: &'static str,
    /// That one's MAC address.
    pub near_mac: &'static str,
    /// The stations behind the far end, by their places.
    pub stations: &'static [usize],
    /// The addresses of both ends on links of kind `udp`: far and near.
    addresses: [&'static str; 2],
}

/// The wires to A and B, and that to the host which is nobody's.
pub const WIRES: [Wire; 3] = [
    Wire {
        label: "A",
        far: "upA",
        far_mac: "02:00:00:00:02:0a",
        port: "a",
        near: "downA",
        near_mac: "02:00:00:00:03:0a",
        stations: &[0, 2],
        addresses: ["192.0.2.1", "192.0.2.2"],
    },
    Wire {
        label: "B",
        far: "upB",
        far_mac: "02:00:00:00:02:0b",
        port: "b",
        near: "downB",
        near_mac: "02:00:00:00:03:0b",
        stations: &[1, 3],
        addresses: ["192.0.2.5", "192.0.2.6"],
    },
    Wire {
        label: "C",
        far: "far0",
        far_mac: STATIONS[4].mac,
        port: "c",
        near: "downC",
        near_mac: "02:00:00:00:03:0c",
        stations: &[4],
        addresses: ["", ""],
    },
];

impl Wire {
    /// Who sends one way in its own name.
    pub fn sender(&self, way: Way) -> &'static str {
        if way == Way::Up { self.far_mac } else { self.near_mac }
    }
}

/// What the wires are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The kind of the nodes' uplinks: `af-packet`, `af-xdp` or `udp`.
    pub kind: &'static str,
    /// Of the wires; that of stations is 1500.
    pub mtu: u16,
}

/// The racks.
#[derive(Debug)]
pub struct Racks {
    wiring: Wiring,
    /// A, ToR and B, once they are started.
    nodes: Vec<Node>,
    /// The nodes' namespaces.
    spaces: [NetNs; 3],
    /// Of the kernel that is nobody's.
    unaware: NetNs,
    work: [WorkDir; 3],
}

impl Racks {
    /// Lays the wires. No node is started.
    pub fn lay(wiring: Wiring) -> Result<Self> {
        let spaces = [NetNs::create("rack-a")?, NetNs::create("rack-t")?, NetNs::create("rack-b")?];
        let unaware = NetNs::create("rack-c")?;
        for space in spaces.iter().chain([&unaware]) {
            silence(space)?;
        }
        let [a, tor, b] = &spaces;
        for (wire, space) in WIRES.iter().zip([a, b, &unaware]) {
            lay(wiring, wire, space, tor)?;
        }
        unaware.ip(&format!("addr add {}/24 dev far0", STATIONS[4].ip))?;
        let work = [WorkDir::create()?, WorkDir::create()?, WorkDir::create()?];
        Ok(Self { wiring, nodes: Vec::new(), spaces, unaware, work })
    }

    /// Ends the nodes, if they are running. Clients wait for others at the same place.
    pub fn stop(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::terminate)?;
        self.nodes.clear();
        Ok(())
    }

    /// Starts the nodes; whether A, ToR and B speak aggregates is said by `aware`.
    pub fn start(&mut self, aware: [bool; 3]) -> Result<()> {
        let [a, b, c] = &WIRES;
        let uplinks = [vec![("up", a, 0)], vec![("a", a, 1), ("b", b, 1), ("c", c, 1)], vec![("up", b, 0)]];
        for (at, uplinks) in uplinks.iter().enumerate() {
            let uplinks = uplinks.iter().map(|(name, wire, end)| self.uplink(name, wire, *end, aware[at])).collect();
            let ports = if at == TOR { Vec::new() } else { host_ports(aware[at]) };
            let extra = format!("[node]\nid = {}\ntor = {}\n", IDS[at], at == TOR);
            let config = NodeConfig { ports, uplinks, extra, ..NodeConfig::default() };
            self.nodes.push(Node::start_in(&self.work[at], &config, &self.spaces[at])?);
        }
        self.nodes[TOR].wait_up(&["a", "b", "c"])?;
        self.nodes[A].wait_up(&["up"])?;
        self.nodes[B].wait_up(&["up"])
    }

    /// Waits until all ports are up and all that speak aggregates have agreed with each other: each end of a wire has then sent one.
    pub fn agreed(&self, aware: [bool; 3], clients: &mut Clients) -> Result<()> {
        for (host, end) in [(A, "a"), (B, "b")] {
            self.nodes[host].wait_up(&["vm", "cnf"])?;
            clients.ping(self)?;
            if aware[host] {
                let agreed = || Ok(self.port(host, "cnf")?.aggregation.peers.get("up").is_some_and(|up| *up > 0));
                wait_until("the CNF to have agreed", SOON, agreed)?;
            }
            let ends = [(host, "up"), (TOR, end)];
            for (node, port) in ends.into_iter().filter(|_| aware[host] && aware[TOR]) {
                wait_until(&format!("an aggregate of {port} of node {}", IDS[node]), SOON, || {
                    clients.ping(self)?;
                    Ok(self.port(node, port)?.aggregation.tx_aggregates > 0)
                })?;
            }
        }
        Ok(())
    }

    /// What a port counts now.
    fn port(&self, node: usize, port: &str) -> Result<PortStats> {
        self.nodes[node].port(port)
    }

    /// Waits until nothing has moved for a while, and returns what was counted until then.
    pub fn moment(&self) -> Result<Moment> {
        Moment::wait(self)
    }

    fn uplink(&self, name: &str, wire: &Wire, end: usize, aware: bool) -> UplinkConfig {
        let aware = if aware { "aggregate = true\ntrusted = true\n" } else { "aggregate = false\n" };
        let has_udp = self.wiring.kind == "udp" && !wire.addresses[end].is_empty();
        if has_udp {
            let (local, peer) = (wire.addresses[end], wire.addresses[1 - end]);
            let extra = format!("{aware}local = \"{local}:34997\"\npeer = \"{peer}:34997\"\n");
            return UplinkConfig { extra, ..UplinkConfig::new(name, "udp", "") };
        }
        let kind = if self.wiring.kind == "udp" { "af-packet" } else { self.wiring.kind };
        let interface = if end == 0 { wire.far } else { wire.near };
        UplinkConfig { extra: aware.to_owned(), ..UplinkConfig::new(name, kind, interface) }
    }
}

/// The ports of a host.
fn host_ports(aware: bool) -> Vec<PortConfig> {
    let cnf = PortConfig { extra: format!("aggregate = {aware}\n"), ..PortConfig::new("cnf") };
    vec![PortConfig::new("vm"), cnf]
}

/// Nobody in a namespace speaks unasked, or answers for others.
fn silence(space: &NetNs) -> Result<()> {
    space.sh("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")?;
    space.sh("cd /proc/sys/net/ipv6/conf; echo 1 > all/disable_ipv6; echo 1 > default/disable_ipv6").map(drop)
}

/// Joins a namespace and the ToR's, with a bridge between.
fn lay(wiring: Wiring, wire: &Wire, space: &NetNs, tor: &NetNs) -> Result<()> {
    let Wire { label, far, far_mac, near, near_mac, .. } = wire;
    let [outer, inner] = [format!("out{label}"), format!("in{label}")];
    tor.ip(&format!("link add br{label} type bridge forward_delay 0 mcast_snooping 0"))?;
    space.wire(far, tor, &outer)?;
    tor.wire(near, tor, &inner)?;
    for (space, end) in [(space, *far), (tor, *near), (tor, &outer), (tor, &inner)] {
        space.ip(&format!("link set {end} mtu {}", wiring.mtu))?;
        if wiring.kind == "af-xdp" {
            // What the kernel leaves unfinished is invisible to XDP.
            space.sh(&format!("ethtool -K {end} tx off tso off gso off"))?;
        }
    }
    space.ip(&format!("link set {far} address {far_mac}"))?;
    tor.ip(&format!("link set {near} address {near_mac}"))?;
    for end in [outer, inner] {
        tor.ip(&format!("link set {end} master br{label}"))?;
        // A wire keeps nothing back, as a bridge does that knows the receiver to be where the frame came from.
        tor.ip(&format!("link set {end} type bridge_slave learning off"))?;
    }
    tor.ip(&format!("link set br{label} up"))?;
    if wiring.kind == "udp" && !wire.addresses[0].is_empty() {
        space.ip(&format!("addr add {}/30 dev {far}", wire.addresses[0]))?;
        tor.ip(&format!("addr add {}/30 dev {near}", wire.addresses[1]))?;
    }
    Ok(())
}
