// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two wires that hear each other.

use aggregation::{Item, Reader, Trigger};

use super::super::load::Room;
use super::*;

const SECOND: u64 = 1_000_000_000;
/// The node that is the top of a rack.
const TOR: u16 = 3;
const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn mac(node: u16) -> MacAddr {
    let [high, low] = node.to_be_bytes();
    MacAddr([2, 1, 0, 0, high, low])
}

fn wire(node: u16) -> Wire {
    let session = 7 + u32::from(node);
    let config = WireConfig {
        session,
        mac: mac(node),
        longest: 1500,
        one_peer: false,
        trusted: true,
        max_bytes: usize::MAX,
        max_packets: u32::MAX,
        time_usecs: 0,
        template: true,
    };
    Wire::new(NodeConfig { id: node.try_into().unwrap(), tor: node == TOR }, config, SECOND)
}

/// Lets both speak until neither has anything to say.
fn speak(wires: &mut [Wire; 2], now_ns: u64) {
    let mut silent = 0;
    let mut at = 0;
    while silent < 2 {
        let mut frame = [0; CONTROL];
        let (from, to) = (at % 2, 1 - at % 2);
        match wires[from].speak(now_ns, &mut frame) {
            Some(len) => {
                silent = 0;
                let source = wires[from].config.mac;
                assert_eq!(frame[6..12], source.0);
                wires[to].negotiate(source, &frame[EthernetHeader::LEN..len], None, now_ns).unwrap();
            }
            None => {
                silent += 1;
                at += 1;
            }
        }
    }
}

fn pair() -> [Wire; 2] {
    let mut wires = [wire(1), wire(2)];
    speak(&mut wires, SECOND);
    wires
}

fn shipped(wire: &mut Wire, peer: usize) -> Option<(Vec<u8>, u32, u64)> {
    let mut out = None;
    wire.ship(peer, Trigger::Burst, |frame, packets, bytes| {
        out = Some((frame.to_vec(), packets, bytes));
        None
    });
    out
}

/// Packets of a frame, with the origin and destination of their groups.
fn packets(frame: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
    let mut reader = Reader::default();
    reader.begin(frame, EthernetHeader::LEN, &wire(9).limits()).unwrap();
    let (mut found, mut of) = (Vec::new(), (0, 0));
    while let Some(item) = reader.next(frame) {
        match item {
            Item::Group(group) => of = (group.origin, group.destination),
            Item::Packet(packet) => found.push((of.0, of.1, packet.head.to_vec())),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[test]
fn stations_are_reached_through_the_peer_they_were_seen_behind() {
    // Decision 24.
    let [mut one, _] = pair();
    assert_eq!(one.target(STATION), None);
    assert_eq!(one.target(mac(2)), Some(Target { peer: 0, node: 0 }), "what is for the peer itself");
    one.learn(STATION, mac(2), 2, SECOND);
    assert_eq!(one.target(STATION), Some(Target { peer: 0, node: 0 }));
    // Behind another node, which the peer can reach.
    one.learn(STATION, mac(2), 5, 3 * SECOND);
    assert!(one.learn_way(5, mac(2), 3 * SECOND));
    let there = Target { peer: 0, node: 5 };
    assert_eq!((one.target(STATION), one.way_to(5, 4 * SECOND)), (Some(there), Some((there, 1000))));
    assert_eq!(one.take_news(), [(STATION, 2), (STATION, 5)]);
    // Groups have no place behind a peer, and silent stations are forgotten.
    one.learn(MacAddr::BROADCAST, mac(2), 2, SECOND);
    assert_eq!(one.target(MacAddr::BROADCAST), None);
    one.tick(None, SECOND + 300 * SECOND);
    assert_eq!(one.target(STATION), None, "and so is a silent peer");
}

#[test]
fn what_is_put_together_arrives() {
    // KA-6: next-hop aware, and the other node's id is on the group.
    let [mut one, mut two] = pair();
    let target = one.target(mac(2)).unwrap();
    let frames: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 60 + usize::from(n)]).collect();
    for frame in &frames {
        let key = GroupKey { origin: 1, destination: 0, class: 0 };
        assert_eq!(one.room(target, key, frame.len(), Offload::NONE), Room::Now);
        assert!(one.put(target, key, frame, 0, |_| {}, Offload::NONE));
    }
    assert_eq!(one.next_open(0), Some(0));
    let (bytes, count, len) = shipped(&mut one, 0).unwrap();
    assert_eq!((count, len, one.next_open(0)), (3, 60 + 61 + 62, None));
    assert_eq!((&bytes[..6], &bytes[6..12]), (&mac(2).0[..], &mac(1).0[..]));
    assert!(two.takes(mac(1), 1, None, SECOND) && !two.takes(mac(3), 1, None, SECOND));
    let expected: Vec<_> = frames.into_iter().map(|frame| (1, 0, frame)).collect();
    assert_eq!(packets(&bytes), expected);
    // A whole group goes on as it is.
    let group = &bytes[EthernetHeader::LEN + aggregation::wire::HEADER_CHECKED..];
    assert!(two.splice(Target { peer: 0, node: 1 }, 0, group));
    let (again, ..) = shipped(&mut two, 0).unwrap();
    assert_eq!(packets(&again), expected);
}

/// A group may have no packets. Where packets are held it waits for none.
#[test]
fn a_group_without_packets_is_not_held() {
    let mut wires = [wire(1), wire(2)];
    wires[0].config.time_usecs = 3_600_000_000;
    speak(&mut wires, SECOND);
    let [mut one, _] = wires;
    let target = one.target(mac(2)).unwrap();
    let group = [0, 12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0];
    assert!(one.splice(target, 0, &group));
    assert_eq!(one.end_turn(target.peer), Ok(Trigger::Burst));
    let (bytes, count, _) = shipped(&mut one, target.peer).unwrap();
    assert_eq!((count, packets(&bytes)), (0, vec![]));
}

/// KA-6: whoever looks at frames sees who put them together.
#[test]
fn frames_of_the_top_of_a_rack_say_so() {
    for (node, stage) in [(2, 2), (TOR, 3)] {
        let mut wires = [wire(1), wire(node)];
        speak(&mut wires, SECOND);
        let target = wires[1].target(mac(1)).unwrap();
        assert!(wires[1].put(target, GroupKey::default(), &[7; 60], 0, |_| {}, Offload::NONE));
        let (frame, ..) = shipped(&mut wires[1], 0).unwrap();
        assert_eq!(frame[EthernetHeader::LEN + 5], stage);
    }
}

#[test]
fn what_does_not_fit_goes_later_or_plain() {
    // Decision 27.
    let [mut one, _] = pair();
    let target = one.target(mac(2)).unwrap();
    let key = GroupKey { origin: 1, destination: 0, class: 0 };
    assert_eq!(one.room(target, key, 1500, Offload::NONE), Room::Never);
    let frame = [7; 700];
    assert!(one.put(target, key, &frame, 0, |_| {}, Offload::NONE));
    assert!(one.put(target, key, &frame, 0, |_| {}, Offload::NONE));
    assert_eq!(one.room(target, key, frame.len(), Offload::NONE), Room::Next);
    assert_eq!(shipped(&mut one, 0).unwrap().1, 2);
    assert_eq!(one.room(target, key, frame.len(), Offload::NONE), Room::Now);
}

#[test]
fn stations_are_announced_as_whose_they_are() {
    let [mut one, _] = pair();
    assert_eq!((one.take_newcomers(SECOND), one.take_newcomers(SECOND)), (vec![0], vec![]));
    assert!(one.should_announce(STATION, SECOND));
    assert!(one.announce(STATION, 1, true, SECOND).is_empty());
    assert!(!one.should_announce(STATION, 2 * SECOND) && one.should_announce(STATION, 62 * SECOND));
    let other = MacAddr([2, 0, 0, 0, 0, 8]);
    assert!(one.announce(other, 5, false, SECOND).is_empty());
    assert!(!one.should_announce(other, 62 * SECOND), "it is another node's");
    assert_eq!((one.origin_of(STATION), one.origin_of(other)), (1, 5));
    let (bytes, ..) = shipped(&mut one, 0).unwrap();
    let announced: Vec<_> =
        packets(&bytes).into_iter().map(|(from, to, frame)| (from, to, frame[6..12].to_vec())).collect();
    assert_eq!(announced, [(1, 0, STATION.0.to_vec()), (5, 0, other.0.to_vec())]);
}

/// Whoever comes waits for the next round, and if there are too many for the one after.
#[test]
fn so_many_are_welcomed_in_a_second() {
    let mut one = wire(1);
    for node in 2..=20 {
        let mut wires = [one, wire(node)];
        speak(&mut wires, SECOND);
        [one, _] = wires;
    }
    let mut at = |now_ns| one.take_newcomers(now_ns).len();
    assert_eq!([at(SECOND), at(SECOND), at(2 * SECOND - 1), at(2 * SECOND), at(9 * SECOND)], [16, 0, 0, 3, 0]);
}

#[test]
fn a_station_that_is_heard_plain_has_moved_unless_it_was_just_here() {
    let [mut one, _] = pair();
    one.learn(STATION, mac(2), 2, SECOND);
    assert_eq!(one.heard_plain(STATION, 2 * SECOND), None);
    assert!(one.target(STATION).is_some());
    assert_eq!((one.heard_plain(STATION, 7 * SECOND), one.target(STATION)), (Some(0), None));
    assert_eq!(one.heard_plain(STATION, 7 * SECOND), None);
}

#[test]
fn a_peer_that_falls_silent_is_sent_plain_frames() {
    // Decision 28.
    let mut wires = pair();
    wires[0].learn(STATION, mac(2), 2, SECOND);
    wires[0].tick(None, SECOND + 2 * SECOND);
    assert!(wires[0].target(STATION).is_some());
    wires[0].tick(None, SECOND + 4 * SECOND);
    assert_eq!((wires[0].target(STATION), wires[0].target(mac(2)), wires[0].peer_that_is(2)), (None, None, None));
    assert!(!wires[0].takes(mac(2), 1, None, 6 * SECOND));
    // It comes back.
    speak(&mut wires, 40 * SECOND);
    speak(&mut wires, 80 * SECOND);
    assert!(wires[0].target(mac(2)).is_some());
}
