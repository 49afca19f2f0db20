// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two nodes whose uplinks are the two ends of a veth pair, and a guest at each: what one sends, the other receives,
//! byte for byte. The kernel takes VLAN tags out of frames on their way; they must be back in their place.

use anyhow::{Result, ensure};
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};

use crate::Link;
use crate::kinds::{Ip, udp};
use crate::station::Station;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const TAGS: [&[u8]; 3] = [&[], &[0x81, 0x00, 0x60, 0x64], &[0x88, 0xa8, 0x00, 0x07]];

/// A frame of `len` bytes besides its tag, all of which follow from `number`.
fn frame(to: [u8; 6], from: [u8; 6], tag: &[u8], len: usize, number: u32) -> Vec<u8> {
    let mut bytes = [&to[..], &from, tag, &[0x88, 0xb6]].concat();
    bytes.extend(number.to_le_bytes());
    let mut state = number | 1;
    while bytes.len() < len + tag.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push(state.to_be_bytes()[0]);
    }
    bytes.truncate(len + tag.len());
    bytes
}

/// Two nodes with these uplinks, on a link of this MTU.
fn frames_arrive(work: &WorkDir, link: &Link, uplinks: [UplinkConfig; 2], mtu: usize) -> Result<()> {
    for (ns, interface) in [(&link.near, "up0"), (&link.far, "far0")] {
        // What has no such interface has no need of one.
        if uplinks.iter().any(|uplink| uplink.interface == interface) {
            ns.ip(&format!("link set {interface} mtu {mtu}"))?;
        }
    }
    let work_of_b = WorkDir::create()?;
    let [near, far] = uplinks;
    let far = NodeConfig { uplinks: vec![far], more_workers: 1, ..NodeConfig::bridge(&["vm"]) };
    let near = UplinkConfig { extra: format!("{}workers = [\"w0\"]\n", near.extra), ..near };
    let near = NodeConfig { poll: "busy".to_owned(), uplinks: vec![near], ..NodeConfig::bridge(&["vm"]) };
    let mut nodes = [Node::start_in(work, &near, &link.near)?, Node::start_in(&work_of_b, &far, &link.far)?];
    let mut stations = [Station::attach(&nodes[0].socket("vm"))?, Station::attach(&nodes[1].socket("vm"))?];
    for node in &nodes {
        node.wait_up(&["vm", "up"])?;
    }
    // Lengths around all that matters: the least, the window with and without a tag, the link's limit.
    let lens = [14, 15, 20, 59, 60, 64, 251, 252, 253, 255, 256, 257, 300, 1000, 1499, 1513, 1514];
    // And around a chunk of memory, where the link takes more.
    let long = [3838, 3839, 3840, 3841, 4095, 4096, 4097, 8191, 8192, 8193, 9000, 9014];
    let fits = |len: &usize| *len <= mtu + 14;
    let lens: Vec<usize> = lens.into_iter().chain(long).filter(fits).collect();
    let mut number = 0;
    for lap in 0..20 {
        let (from, to) = (lap % 2, 1 - lap % 2);
        let (source, target) = if from == 0 { (A, B) } else { (B, A) };
        let mut sent = Vec::new();
        let all = lens.iter().flat_map(|len| TAGS.map(|tag| (*len, tag)));
        // The kernel drops a tagged frame that ends before its type.
        for (len, tag) in all.filter(|(len, tag)| tag.is_empty() || *len >= 16) {
            number += 1;
            sent.push(frame(target, source, tag, len, number));
        }
        stations[from].send(&sent)?;
        for (at, expected) in sent.iter().enumerate() {
            let got = stations[to].receive(&format!("frame {at} of lap {lap}"), |_| true)?;
            ensure!(got == *expected, "frame {at} of lap {lap}: {} bytes became {}", expected.len(), got.len());
        }
    }
    for node in &nodes {
        for port in node.stats()?.ports {
            ensure!(port.drops.values().all(|&n| n == 0), "drops: {port:?}");
        }
    }
    nodes.iter_mut().try_for_each(Node::terminate)
}

#[test]
fn every_frame_arrives_as_it_was_sent() {
    scenario::run(|work| {
        let uplinks = [UplinkConfig::new("up", "af-packet", "up0"), UplinkConfig::new("up", "af-packet", "far0")];
        frames_arrive(work, &Link::create()?, uplinks, 1500)
    });
}

fn xdp(interface: &str, mode: &str) -> UplinkConfig {
    UplinkConfig { extra: format!("xdp_mode = {mode:?}\n"), ..UplinkConfig::new("up", "af-xdp", interface) }
}

#[test]
fn every_frame_arrives_by_xdp() {
    scenario::run(|work| frames_arrive(work, &Link::create()?, [xdp("up0", "native"), xdp("far0", "generic")], 1500));
}

#[test]
fn frames_of_several_chunks_arrive_by_xdp() {
    scenario::run(|work| frames_arrive(work, &Link::create()?, [xdp("up0", "native"), xdp("far0", "native")], 9000));
}

#[test]
fn frames_of_several_chunks_arrive_by_generic_xdp() {
    scenario::run(|work| frames_arrive(work, &Link::create()?, [xdp("up0", "generic"), xdp("far0", "generic")], 9000));
}

#[test]
fn frames_pass_between_xdp_and_a_packet_socket() {
    scenario::run(|work| {
        let uplinks = [xdp("up0", "native"), UplinkConfig::new("up", "af-packet", "far0")];
        frames_arrive(work, &Link::create()?, uplinks, 1500)
    });
}

#[test]
fn every_frame_arrives_by_udp() {
    scenario::run(|work| {
        for ip in [Ip::V4, Ip::V6] {
            let link = Link::create()?;
            // Room for the longest frame and what is around it.
            link.near.ip("link set up0 mtu 1700")?;
            link.far.ip("link set far0 mtu 1700")?;
            ip.assign(&link)?;
            let [near, far] = ip.ends();
            frames_arrive(work, &link, [udp([near, far]), udp([far, near])], 1500)?;
        }
        Ok(())
    });
}
