// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who comes is told where stations are: only who comes, at once, and no more often than it is worth.

use std::time::Duration;

use packet::MacAddr;
use packet::synth::rarp_announcement;

use super::super::wire::Wire;
use super::super::{ETHER_TYPE, WireConfig};
use crate::worker::lab::{Lab, Peer, mac_of, node, packet, station, wire_config};

const SECOND: Duration = Duration::from_secs(1);
/// Where node 2 is, with station 2.
const HOME: usize = 0;
/// To which others come.
const AWARE: usize = 1;
/// Where the node's own station 1 is.
const GUEST: usize = 2;

fn scene() -> (Lab, Peer) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), Some(wire_config(1)), None]);
    let mut peer = Peer::join(&mut lab, HOME, 2);
    peer.send(&mut lab, 0, &[packet(MacAddr::BROADCAST, station(2), 0, 60)]);
    lab.run();
    (lab, peer)
}

/// Node 4, in a session of its own, agrees with the node; no time passes.
fn come(lab: &mut Lab, session: u32) -> Peer {
    let config = WireConfig { session, ..wire_config(4) };
    let wire = Wire::new(node(4), config, lab.now_ns());
    let mut peer = Peer { wire, port: AWARE, got: Vec::new(), aggregates: 0, used: Default::default() };
    let own = mac_of(1);
    (0..10).for_each(|_| peer.talk(lab));
    assert!(peer.wire.target(own).is_some());
    peer
}

/// How often a peer was told where a station is, and at which node.
fn told(peer: &mut Peer, lab: &mut Lab, n: u8) -> Vec<u16> {
    peer.receive(lab);
    let tells = peer.got.iter().filter(|(_, packet)| *packet == rarp_announcement(station(n)));
    let nodes = tells.filter_map(|(of, _)| of.map(|(origin, _)| origin)).collect();
    peer.got.clear();
    nodes
}

/// The addresses to which aggregates go at a port.
fn addressees(lab: &mut Lab) -> Vec<[u8; 6]> {
    let frames = lab.take(AWARE).into_iter();
    let aggregates = frames.filter(|frame| frame[12..14] == ETHER_TYPE.0.to_be_bytes() && frame[15] & 0x80 == 0);
    aggregates.map(|frame| frame[..6].try_into().unwrap()).collect()
}

/// An idle node does not wait for a turn with packets to say what it has to say.
#[test]
fn who_comes_is_told_at_once() {
    let (mut lab, _) = scene();
    let mut fresh = come(&mut lab, 100);
    assert_eq!(told(&mut fresh, &mut lab, 2), vec![0; 0]);
    lab.worker.sweep(lab.now());
    assert_eq!(told(&mut fresh, &mut lab, 2), [2]);
}

/// What others know they are not told again.
#[test]
fn only_who_comes_is_told() {
    let (mut lab, _) = scene();
    let other = Peer::join(&mut lab, AWARE, 3);
    let own = || vec![packet(MacAddr::BROADCAST, station(1), 0, 60)];
    lab.send(GUEST, &own());
    lab.run();
    assert_eq!(addressees(&mut lab), [other.wire.config.mac.0]);
    lab.send(GUEST, &own());
    lab.run();
    assert_eq!(addressees(&mut lab), [[0; 6]; 0]);
    // Both are served; this one takes what is for the other, so it is not asked before.
    let fresh = come(&mut lab, 100);
    lab.pass(SECOND);
    assert_eq!(addressees(&mut lab), [fresh.wire.config.mac.0], "of station 2");
    lab.send(GUEST, &own());
    lab.run();
    assert_eq!(addressees(&mut lab), [fresh.wire.config.mac.0], "of station 1");
    lab.send(GUEST, &own());
    lab.run();
    assert_eq!(addressees(&mut lab), [[0; 6]; 0]);
}

/// Whoever comes again and again is told once a second.
#[test]
fn who_comes_often_is_told_now_and_then() {
    let (mut lab, mut home) = scene();
    let (mut of_two, mut of_one) = (0, 0);
    for session in 0..40 {
        let mut fresh = come(&mut lab, 100 + session);
        lab.pass(super::super::super::SWEEP_INTERVAL);
        lab.send(GUEST, &[packet(MacAddr::BROADCAST, station(1), 0, 60)]);
        lab.run();
        fresh.receive(&mut lab);
        let count = |n| fresh.got.iter().filter(|(_, packet)| *packet == rarp_announcement(station(n))).count();
        of_two += count(2);
        of_one += count(1);
        home.talk(&mut lab);
    }
    assert!((4..=5).contains(&of_two), "{of_two} in four seconds");
    assert!((4..=6).contains(&of_one), "{of_one} in four seconds");
}

/// A node that is not believed is not told of: its stations are this node's.
#[test]
fn stations_of_who_is_not_believed_are_the_nodes() {
    let untrusted = WireConfig { trusted: false, ..wire_config(1) };
    let mut lab = Lab::new(1, &[Some(untrusted), Some(wire_config(1)), None]);
    let mut peer = Peer::join(&mut lab, HOME, 2);
    peer.send(&mut lab, 0, &[packet(MacAddr::BROADCAST, station(2), 0, 60)]);
    lab.run();
    let mut fresh = come(&mut lab, 100);
    lab.worker.sweep(lab.now());
    assert_eq!(told(&mut fresh, &mut lab, 2), [1]);
}

/// Decision 28: an operator sees who came and went, what was said about it, and what was lost on the way.
#[test]
fn what_is_agreed_is_counted() {
    let (mut lab, _) = scene();
    let up = |lab: &Lab| lab.ports[AWARE].counters[0].peers().filter(|(_, n)| *n > 0).collect::<Vec<_>>();
    assert_eq!(up(&lab), []);
    let mut fresh = come(&mut lab, 100);
    assert_eq!(up(&lab), [("up", 1)]);
    let counters = &lab.ports[AWARE].counters[0];
    assert!(counters.rx_control.get() > 0 && counters.tx_control.get() > 0);
    let before = counters.rx_control.get();
    for number in 0..3 {
        let packets = [packet(MacAddr::BROADCAST, station(4), number, 60)];
        fresh.send(&mut lab, 0, &packets);
        lab.run();
    }
    let counters = &lab.ports[AWARE].counters[0];
    assert_eq!((counters.rx_lost.get(), counters.rx_control.get()), (0, before));
    lab.pass(60 * SECOND);
    assert_eq!(up(&lab), [("up", 1), ("silent", 1)]);
}
