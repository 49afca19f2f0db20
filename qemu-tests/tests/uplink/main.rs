// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Uplinks against the kernel: a network stack at the other end of a veth pair, with what a veth pair hands on (checksums
//! nobody computed, frames nobody cut), links that go and come, and a kernel tunnel.
//!
//! | file | what it holds |
//! |---|---|
//! | `kernel.rs` | kernel TCP across an uplink, links that vanish, frames that are too long |
//! | `kinds.rs` | kernel TCP and UDP across an uplink of each kind |
//! | `neighbors.rs` | the node's own addresses, and those of its neighbours |
//! | `tap.rs` | tap devices that come, go and are busy |
//! | `tunnel.rs` | a kernel's VXLAN device and a guest that speaks VXLAN |
//! | `policy.rs` | a kernel's VXLAN device and policy that speaks VXLAN |
//! | `frames.rs` | two nodes, joined by their uplinks: every frame arrives as it was |
//! | `udp.rs` | paths of datagrams: peers, strangers, a way that changes |
//! | `xdp.rs` | AF_XDP sockets that are busy, lose their interface, or are full |
//! | `station.rs` | a guest in this process |

mod frames;
mod kernel;
mod kinds;
mod neighbors;
mod policy;
mod station;
mod tap;
mod tunnel;
mod udp;
mod xdp;

use std::time::Duration;

use anyhow::Result;
use harness::netns::NetNs;
use harness::node::{NodeConfig, UplinkConfig};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(30);

/// A namespace for the node with the interface `up0`, and one for who is at the other end, `far0`.
struct Link {
    near: NetNs,
    far: NetNs,
}

impl Link {
    fn create() -> Result<Self> {
        let link = Self::unwired()?;
        link.wire()?;
        Ok(link)
    }

    fn unwired() -> Result<Self> {
        let link = Self { near: NetNs::create("near")?, far: NetNs::create("far")? };
        // Nobody shall speak but whom a test lets.
        for ns in [&link.near, &link.far] {
            ns.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        Ok(link)
    }

    fn wire(&self) -> Result<()> {
        self.near.wire("up0", &self.far, "far0")
    }

    /// A link whose far end leaves nothing undone: what XDP does not see.
    fn for_xdp() -> Result<Self> {
        let link = Self::create()?;
        link.finish_frames()?;
        Ok(link)
    }

    fn finish_frames(&self) -> Result<()> {
        self.far.sh("ethtool -K far0 tx off txvlan off").map(drop)
    }
}

/// A node with the uplink `up`, and vhost-user ports of these names.
fn config(ports: &[&str], uplink: &str) -> NodeConfig {
    let uplink = UplinkConfig { extra: uplink.to_owned(), ..UplinkConfig::new("up", "af-packet", "up0") };
    NodeConfig { uplinks: vec![uplink], ..NodeConfig::bridge(ports) }
}
