// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bridges between nodes are shown the stations that they would forget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use packet::synth::rarp_announcement;
use packet::{MacAddr, PortId};
use switch::bridge::Announcement;
use switch::{Bridge, BridgeConfig};

use super::super::is_refresh;
use crate::topology::Topology;
use crate::worker::lab::{Lab, Peer, mac_of, packet, station, wire_config};
use crate::worker::mailbox::Command;

/// Where the peer is, behind a bridge that knows nothing of aggregates.
const AWARE: usize = 0;
/// Where the node's own stations are.
const GUEST: usize = 1;
/// Another aware link, at which nobody is.
const OTHER: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

/// A node with a peer that has station 2.
fn scene() -> (Lab, Peer) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), None, Some(wire_config(1))]);
    let mut peer = Peer::join(&mut lab, AWARE, 2);
    peer.send(&mut lab, 0, &[packet(MacAddr::BROADCAST, station(2), 0, 60)]);
    settle(&mut lab, &mut peer);
    (lab, peer)
}

/// What was sent so far is no matter.
fn settle(lab: &mut Lab, peer: &mut Peer) {
    peer.talk(lab);
    peer.got.clear();
    lab.take(GUEST);
    lab.take(OTHER);
}

/// A second passes, in which the peer shows that it lives. Whom the node has shown.
fn second(lab: &mut Lab, peer: &mut Peer) -> Vec<MacAddr> {
    lab.pass(SECOND);
    peer.talk(lab);
    let plain = std::mem::take(&mut peer.got).into_iter().filter(|(of, _)| of.is_none());
    let shown = plain.filter(|(_, frame)| is_refresh(frame));
    shown.map(|(_, frame)| MacAddr(frame[6..12].try_into().unwrap())).collect()
}

fn invented(n: u16) -> MacAddr {
    let [high, low] = n.to_be_bytes();
    MacAddr([2, 9, 0, 0, high, low])
}

/// A bridge forgets after 300 s; a station that only it does not see is shown to it well before, and no more often than needed.
#[test]
fn stations_whose_packets_go_in_aggregates_are_shown() {
    let (mut lab, mut peer) = scene();
    let mut shown: BTreeMap<MacAddr, Vec<u32>> = BTreeMap::new();
    for at in 0..600 {
        lab.send(GUEST, &[packet(station(2), station(1), at, 60)]);
        peer.send(&mut lab, 0, &[packet(station(1), station(2), at, 60)]);
        if at % 20 == 0 {
            // One that sends plain frames shows itself; one that fell silent may have moved.
            lab.send(GUEST, &[packet(MacAddr::BROADCAST, station(3), at, 60)]);
        }
        if at == 0 {
            lab.send(GUEST, &[packet(station(2), station(4), at, 60)]);
        }
        second(&mut lab, &mut peer).into_iter().for_each(|mac| shown.entry(mac).or_default().push(at));
    }
    let times = shown.remove(&station(1)).unwrap();
    assert!((5..=6).contains(&times.len()) && times[0] <= 100, "{times:?}");
    assert!(times.windows(2).all(|pair| (95..=105).contains(&(pair[1] - pair[0]))), "{times:?}");
    assert!(shown.remove(&station(4)).is_some_and(|times| times.len() == 1 && times[0] < 100));
    assert!(shown.is_empty(), "{shown:?}");
}

/// Many stations make no burst of frames, and each is shown once in a round.
#[test]
fn so_many_are_shown_in_a_second() {
    let (mut lab, mut peer) = scene();
    let mut shown: BTreeMap<MacAddr, u32> = BTreeMap::new();
    for at in 0..100 {
        if at % 50 == 0 {
            let frames: Vec<_> = (0..4000).map(|n| packet(station(2), invented(n), 0, 60)).collect();
            lab.send(GUEST, &frames);
        }
        let now = second(&mut lab, &mut peer);
        assert!(now.len() <= 280, "{}", now.len());
        now.into_iter().for_each(|mac| *shown.entry(mac).or_default() += 1);
    }
    // The bridge's table has no room for some.
    assert!(shown.len() > 3800, "{}", shown.len());
    assert!(shown.values().all(|times| *times <= 1));
}

#[test]
fn nobody_is_shown_where_nobody_aggregates() {
    let (mut lab, mut peer) = scene();
    for at in 0..150 {
        lab.send(GUEST, &[packet(station(2), station(1), at, 60)]);
        second(&mut lab, &mut peer);
    }
    assert!(!lab.take(OTHER).iter().any(|frame| is_refresh(frame)), "all see plain frames there");
}

/// A frame that shows a station says nothing new to who is aware, and is for bridges only, on other links as well.
#[test]
fn a_station_that_is_shown_has_not_moved() {
    let (mut lab, mut peer) = scene();
    let knows = |lab: &Lab| lab.worker.path.uplinks[AWARE].wire.as_ref().unwrap().knows(station(2));
    let mut frame = rarp_announcement(station(2));
    frame[..6].copy_from_slice(&[0x03, 0x53, 0x48, 0x55, 0x4e, 0x54]);
    for _ in 0..10 {
        second(&mut lab, &mut peer);
    }
    settle(&mut lab, &mut peer);
    lab.send(AWARE, &[frame.to_vec()]);
    lab.run();
    assert!(knows(&lab));
    assert_eq!((lab.take(GUEST), lab.take(OTHER)), (vec![], vec![frame.to_vec()]));
    assert_eq!(lab.drops(AWARE), BTreeMap::new());
    assert!(lab.worker.path.bridge.entries().any(|entry| entry.mac == station(2)));
    // Anything else that it sends plain says that it has moved to somebody unaware.
    lab.send(AWARE, &[rarp_announcement(station(2)).to_vec()]);
    lab.run();
    assert!(!knows(&lab));
    assert_eq!(lab.take(GUEST).len(), 1);
    // From a guest it is a frame as any other, and is not announced as what it is not.
    frame[6..12].copy_from_slice(&mac_of(7).0);
    lab.send(GUEST, &[frame.to_vec()]);
    lab.run();
    peer.receive(&mut lab);
    assert_eq!(peer.got, [(None, frame.to_vec())]);
}

/// Nobody is shown whose port has nobody any more, though it spoke lately: it may be somewhere else.
#[test]
fn stations_whose_guest_has_gone_are_not_shown() {
    let (mut lab, mut peer) = scene();
    lab.send(GUEST, &[packet(station(2), station(1), 0, 60)]);
    lab.run();
    let (reply, uplink) = sync_channel(1);
    assert!(lab.worker.serve(Command::DetachUplink { port: PortId(1), reply }));
    assert!(uplink.recv().unwrap().is_some());
    let mut topology = Topology::default();
    for port in [0, 1, 2].map(PortId) {
        let mut entry = lab.worker.path.topology.port(port).unwrap().clone();
        entry.receivers.retain(|_| port != PortId(1));
        topology.insert(port, entry);
    }
    assert!(lab.worker.serve(Command::SetTopology { topology: Arc::new(topology), reply: sync_channel(1).0 }));
    assert!(lab.worker.path.bridge.station(station(1)).is_some());
    let shown: Vec<_> = (0..110).flat_map(|_| second(&mut lab, &mut peer)).collect();
    assert_eq!(shown, []);
}

/// One worker hears of what another sees only so often.
#[test]
fn stations_of_which_other_workers_tell_now_and_then_are_shown() {
    let (mut lab, mut peer) = scene();
    let ageing_ns = 1_200_000_000_000;
    lab.worker.path.bridge = Bridge::new(BridgeConfig { ageing_ns, outbox: 0, ..BridgeConfig::default() });
    let seen_ns = lab.now_ns();
    lab.worker.path.bridge.learn_remote(Announcement { mac: station(1), port: PortId(1), seen_ns });
    let shown: Vec<_> = (0..500).filter(|_| !second(&mut lab, &mut peer).is_empty()).collect();
    // Until it is told of again, after 300 s; then it may have fallen silent.
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown.last().is_some_and(|at| (200..310).contains(at)), "{shown:?}");
}

/// Somebody who says that a station is behind it keeps it from being shown no longer than it is known to be there.
#[test]
fn a_claim_keeps_nobody_from_being_shown() {
    let (mut lab, mut peer) = scene();
    peer.send(&mut lab, 0, &[packet(station(2), station(1), 0, 60)]);
    lab.run();
    let mut shown = 0;
    for at in 0..150 {
        lab.send(GUEST, &[packet(station(2), station(1), at, 60)]);
        shown += second(&mut lab, &mut peer).into_iter().filter(|mac| *mac == station(1)).count();
    }
    assert!((1..=2).contains(&shown), "{shown}");
}

/// Who is behind another node is shown by that one.
#[test]
fn stations_of_other_nodes_are_not_shown() {
    let (mut lab, mut peer) = scene();
    let mut other = Peer::join(&mut lab, OTHER, 3);
    let mut shown = Vec::new();
    for at in 0..250 {
        other.send(&mut lab, 0, &[packet(station(2), station(5), at, 60)]);
        other.talk(&mut lab);
        shown.extend(second(&mut lab, &mut peer));
    }
    assert_eq!(shown, []);
    assert!(lab.worker.path.bridge.entries().any(|entry| entry.mac == station(5)));
}
