// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 1, what its variants leave out (KA-1, KA-2): DPDK's driver sends frames of several buffers, in tables and in
//! chains, and overruns the node through its packed vector path.

use anyhow::{Context, Result, ensure};
use harness::exchange::{Exchange, Side, Traffic};
use harness::node::{Node, NodeConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, VirtioUser};

/// Frames that the receiver must get before a step counts as done.
const FRAMES: u64 = 3000;
/// A frame of 74 bytes in four buffers; the first must have room for testpmd's own headers.
const SEGMENTS: [u16; 4] = [50, 8, 8, 8];

fn one_way(work: &WorkDir, like: &VirtioUser, segments: &[u16]) -> Result<()> {
    let mut node = Node::start(work, &NodeConfig::crossconnect(&["left", "right"]))?;
    let port = |name, number| VirtioUser { socket: node.socket(name), ..with_number(like, number) };
    let (left, right) = (port("left", 2), port("right", 3));
    let mut guests = Exchange::begin(work, Traffic::OneWay, &left, &right)?;
    if segments.len() > 1 {
        guests.guest(Side::Left).set_segments(segments)?;
    }
    node.wait_up(&["left", "right"])?;
    for lap in 0..2 {
        guests.start()?;
        guests.flows(FRAMES).with_context(|| format!("traffic in lap {lap}"))?;
        guests.settle(&mut node).with_context(|| format!("traffic in lap {lap}"))?;
    }
    for port in node.stats()?.ports {
        ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
    }
    node.terminate()
}

/// The same port with the addresses of guest `number`.
fn with_number(like: &VirtioUser, number: u8) -> VirtioUser {
    let VirtioUser { mac, peer_mac, .. } = VirtioUser::new(&like.socket, number);
    VirtioUser { mac, peer_mac, ..like.clone() }
}

fn port(ring: Ring) -> VirtioUser {
    VirtioUser { ring, ..VirtioUser::new("".as_ref(), 0) }
}

/// The driver writes tables in which every entry claims to be writable.
#[test]
fn packed_frames_of_several_buffers_arrive() {
    for in_order in [false, true] {
        let port = VirtioUser { in_order, ..port(Ring::Packed) };
        scenario::run(|work| one_way(work, &port, &SEGMENTS));
    }
}

#[test]
fn split_frames_of_several_buffers_arrive() {
    for in_order in [false, true] {
        let port = VirtioUser { in_order, ..port(Ring::Split) };
        scenario::run(|work| one_way(work, &port, &SEGMENTS));
    }
}

#[test]
fn the_packed_vector_path_overruns_the_node() {
    let port = VirtioUser { vectorized: true, queue_size: 1000, ..port(Ring::Packed) };
    scenario::run(|work| one_way(work, &port, &[64]));
}
