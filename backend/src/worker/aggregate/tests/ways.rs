// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! By which way groups for other nodes go on, when nodes move, fall silent, or believe what is no longer so.

use std::time::Duration;

use packet::Offload;

use crate::worker::lab::{Lab, Peer, packet, station, wire_config};

const SECOND: Duration = Duration::from_secs(1);
/// Node 1's peer from which groups come, and its other two uplinks.
const FROM: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;
/// And one at which nobody is yet.
const FRESH: usize = 3;
/// The node whose way is at stake: it is not at node 1's links, if nothing else is said.
const FAR: u16 = 9;

/// Node 1 with a peer at each of three uplinks of four: nodes 2, 3 and 4.
fn scene() -> (Lab, [Peer; 3]) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)); 4]);
    let peers = [(FROM, 2), (LEFT, 3), (RIGHT, 4)].map(|(port, node)| Peer::join(&mut lab, port, node));
    (lab, peers)
}

/// Lets seconds pass in which all show that they live.
fn pass(lab: &mut Lab, peers: &mut [Peer], seconds: u32) {
    for _ in 0..seconds {
        lab.pass(SECOND);
        peers.iter_mut().for_each(|peer| peer.talk(lab));
    }
}

/// A peer sends packets that node `origin` put together, for node `destination`.
fn send(lab: &mut Lab, peer: &mut Peer, origin: u16, destination: u16) {
    let own = std::mem::replace(&mut peer.wire.node, origin);
    let frame =
        peer.frame(lab, destination, &[packet(station(1), station(origin.to_be_bytes()[1]), 0, 60)], Offload::NONE);
    peer.wire.node = own;
    lab.send(peer.port, &[frame]);
    lab.run();
}

/// Who gets a group for the far node that the first peer sends: 1 for each that has it.
fn through(lab: &mut Lab, peers: &mut [Peer]) -> Vec<usize> {
    for peer in peers.iter_mut() {
        peer.receive(lab);
        peer.got.clear();
    }
    send(lab, &mut peers[0], 2, FAR);
    let mut count = |peer: &mut Peer| {
        peer.receive(lab);
        peer.got.iter().filter(|(of, _)| *of == Some((2, FAR))).count()
    };
    peers.iter_mut().map(&mut count).collect()
}

fn lost(lab: &Lab) -> u64 {
    lab.drops(FROM).get("no_destination").copied().unwrap_or(0)
}

/// A node that was behind one peer and then is behind another is reached there.
#[test]
fn a_node_is_where_it_was_seen_last() {
    let (mut lab, mut peers) = scene();
    assert_eq!((through(&mut lab, &mut peers), lost(&lab)), (vec![0, 0, 0], 1));
    for way in [LEFT, RIGHT, LEFT] {
        pass(&mut lab, &mut peers, 1);
        send(&mut lab, &mut peers[way], FAR, 0);
        let there = (0..3).map(|at| usize::from(at == way)).collect::<Vec<_>>();
        assert_eq!(through(&mut lab, &mut peers), there);
    }
    // What goes on whole says as well where who sent it is.
    send(&mut lab, &mut peers[RIGHT], FAR, 2);
    assert_eq!(through(&mut lab, &mut peers), [0, 0, 1]);
    assert_eq!(lost(&lab), 1);
}

/// A peer that is the node is the way, whoever it was seen behind before; and then no longer is.
#[test]
fn a_node_that_is_a_peer_is_reached_at_once() {
    let (mut lab, mut peers) = scene();
    send(&mut lab, &mut peers[LEFT], FAR, 0);
    let mut far = Peer::join(&mut lab, FRESH, FAR);
    assert_eq!(through(&mut lab, &mut peers), [0, 0, 0]);
    far.receive(&mut lab);
    assert!(far.got.iter().any(|(of, _)| *of == Some((2, FAR))));
    send(&mut lab, &mut far, FAR, 0);
    pass(&mut lab, &mut peers, 10);
    assert_eq!(
        (through(&mut lab, &mut peers), lost(&lab)),
        (vec![0, 0, 0], 1),
        "it is not behind who it was behind once"
    );
}

/// A way is forgotten as a station is, and not while the node is seen.
#[test]
fn ways_age() {
    let (mut lab, mut peers) = scene();
    send(&mut lab, &mut peers[LEFT], FAR, 0);
    for _ in 0..2 {
        pass(&mut lab, &mut peers, 200);
        assert_eq!(through(&mut lab, &mut peers), [0, 1, 0]);
        send(&mut lab, &mut peers[LEFT], FAR, 2);
    }
    pass(&mut lab, &mut peers, 301);
    assert_eq!((through(&mut lab, &mut peers), lost(&lab)), (vec![0, 0, 0], 1));
}

/// A group whose way is back is lost here: who sent it would have to know better, and three that each believe it behind the next would
/// send it round for ever.
#[test]
fn a_group_does_not_go_back() {
    let (mut lab, mut peers) = scene();
    // The second peer on the link takes what is for both: nobody is asked what came there.
    let mut other = Peer::join(&mut lab, FROM, 5);
    for way in [FROM, LEFT] {
        send(&mut lab, &mut peers[LEFT], FAR, 0);
        // Now it is behind a peer on the link from which the group comes: the same, or another.
        send(&mut lab, if way == FROM { &mut peers[FROM] } else { &mut other }, FAR, 0);
        let before = lost(&lab);
        (0..4).for_each(|port| drop(lab.take(port)));
        send(&mut lab, &mut peers[FROM], 2, FAR);
        let sent: usize = (0..4).map(|port| lab.take(port).len()).sum();
        assert_eq!((sent, lost(&lab) - before), (0, 1));
    }
    // Who takes it apart may be on that link.
    (0..4).for_each(|port| drop(lab.take(port)));
    send(&mut lab, &mut peers[FROM], 2, 5);
    let there: Vec<_> = lab.take(FROM).iter().map(|frame| frame[..6].to_vec()).collect();
    assert_eq!((there, lost(&lab)), (vec![other.wire.config.mac.0.to_vec()], 2));
    // But it does not get back what it sent itself.
    send(&mut lab, &mut peers[FROM], 7, 2);
    assert_eq!((lab.take(FROM), lost(&lab)), (vec![], 3));
    // Nor does one of its own that comes back go round once more.
    send(&mut lab, &mut peers[LEFT], FAR, 0);
    (0..4).for_each(|port| drop(lab.take(port)));
    send(&mut lab, &mut peers[FROM], 1, FAR);
    assert_eq!((lab.take(LEFT), lost(&lab)), (vec![], 4));
}
