// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `tx-aggr-time-usecs` at uplinks: what waits for others, and what does not. What waits is timed by the machine's clock, so it is held for
//! longer than any machine takes for a test, but where its time is to come.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use packet::PortId;
use packet::synth::rarp_announcement;

use super::super::WireConfig;
use crate::worker::lab::{Lab, Peer, packet, station, wire_config};
use crate::worker::mailbox::Command;

const AWARE: usize = 0;
const GUEST: usize = 1;
/// Longer than a test ever takes, however busy the machine is.
const NEVER: Duration = Duration::from_secs(3600);
/// What passes in a test.
const SOON: Duration = Duration::from_millis(20);

/// A node with a peer that has station 2, and packets for it held for so long.
fn scene(time: Duration) -> (Lab, Peer) {
    let time_usecs = u32::try_from(time.as_micros()).unwrap();
    let held = WireConfig { time_usecs, max_packets: 50, ..wire_config(1) };
    let mut lab = Lab::new(1, &[Some(held), None]);
    let mut peer = Peer::join(&mut lab, AWARE, 2);
    peer.send(&mut lab, 0, &[packet(station(1), station(2), 0, 60)]);
    lab.run();
    clear(&mut lab, &mut peer);
    (lab, peer)
}

fn clear(lab: &mut Lab, peer: &mut Peer) {
    peer.receive(lab);
    (peer.got, peer.aggregates) = (Vec::new(), 0);
}

/// Sends packets in a turn of their own, and returns how many have arrived.
fn send(lab: &mut Lab, peer: &mut Peer, packets: &[Vec<u8>]) -> usize {
    lab.send(GUEST, packets);
    lab.turn();
    peer.receive(lab);
    peer.got.len()
}

fn some(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| packet(station(2), station(1), number, 60)).collect()
}

/// Two turns with packets, one behind the other: now more are expected soon, and the second waits.
fn begin(lab: &mut Lab, peer: &mut Peer) {
    assert_eq!(send(lab, peer, &some(0..1)), 1, "nothing is known yet");
    assert_eq!(send(lab, peer, &some(1..2)), 1);
    assert!(lab.worker.held_until.is_some());
}

fn triggers(lab: &Lab) -> Vec<(&'static str, u64)> {
    lab.ports[AWARE].counters[0].triggers().filter(|(_, n)| *n > 0).collect()
}

/// KA-9.
#[test]
fn nothing_is_held_by_default() {
    let (mut lab, mut peer) = scene(Duration::ZERO);
    for n in 1..10 {
        assert_eq!(send(&mut lab, &mut peer, &some(n - 1..n)), n as usize);
        assert_eq!(lab.worker.held_until, None);
    }
    assert!(triggers(&lab).iter().all(|(trigger, _)| *trigger == "burst"));
}

#[test]
fn a_packet_waits_for_others() {
    let (mut lab, mut peer) = scene(NEVER);
    begin(&mut lab, &mut peer);
    for n in 1..10 {
        assert_eq!(send(&mut lab, &mut peer, &some(n + 1..n + 2)), 1);
        // A sweep, and a turn in which the kernel is tried again, send nothing before its time.
        lab.worker.sweep(lab.now());
        lab.run();
        peer.receive(&mut lab);
        assert_eq!(peer.got.len(), 1);
    }
    assert!(lab.worker.held_until.is_some());
}

#[test]
fn a_packet_waits_no_longer_than_it_may() {
    let (mut lab, mut peer) = scene(SOON);
    let before = triggers(&lab);
    let start = Instant::now();
    begin(&mut lab, &mut peer);
    while peer.got.len() < 2 {
        lab.run();
        peer.receive(&mut lab);
    }
    assert!(start.elapsed() >= SOON);
    assert!(peer.got.iter().map(|(_, packet)| packet).eq(&some(0..2)));
    assert_eq!((peer.aggregates, lab.worker.held_until), (2, None));
    let all = |triggers: Vec<(_, u64)>| triggers.into_iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!(all(before) + 2, all(triggers(&lab)));
    assert!(triggers(&lab).contains(&("age", 1)));
}

#[test]
fn what_is_full_or_urgent_goes_at_once() {
    let (mut lab, mut peer) = scene(NEVER);
    begin(&mut lab, &mut peer);
    assert_eq!(send(&mut lab, &mut peer, &some(2..60)), 51, "50 are the most");
    clear(&mut lab, &mut peer);
    // The others go with a packet that opens a connection.
    let mut open = packet(station(2), station(1), 0, 60);
    open[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    open[20..22].fill(0);
    (open[23], open[47]) = (6, 0x02);
    assert_eq!(send(&mut lab, &mut peer, &[open]), 10);
    assert_eq!((peer.aggregates, lab.worker.held_until), (1, None));
    assert!(triggers(&lab).contains(&("frames", 1)) && triggers(&lab).contains(&("urgent", 1)));
}

/// What goes plain to the same peer goes behind what waits for it; what goes to others does not make it go.
#[test]
fn order_holds_across_plain_frames() {
    let (mut lab, mut peer) = scene(NEVER);
    begin(&mut lab, &mut peer);
    assert_eq!(send(&mut lab, &mut peer, &[packet(station(7), station(1), 9, 60)]), 2, "to nobody in particular");
    clear(&mut lab, &mut peer);
    let long = packet(station(2), station(1), 2, 65_530);
    assert_eq!(send(&mut lab, &mut peer, std::slice::from_ref(&long)), 3);
    let got: Vec<_> = peer.got.iter().map(|(of, packet)| (of.is_some(), &packet[..])).collect();
    // The station has sent a plain frame, of which the peer is told.
    assert_eq!(got, [(true, &some(1..2)[0][..]), (true, &rarp_announcement(station(1))), (false, &long)]);
    assert!(triggers(&lab).contains(&("larger", 1)));
}

/// What waits for a station goes before what goes to it plain, once it is no longer known to be behind the peer: it was heard plain, or was
/// silent for long.
#[test]
fn order_holds_when_a_station_is_forgotten() {
    const SECOND: Duration = Duration::from_secs(1);
    for silent in [6, 300] {
        let (mut lab, mut peer) = scene(NEVER);
        for _ in 1..silent {
            lab.pass(SECOND);
            peer.talk(&mut lab);
        }
        // No control frame is due in what is left, before which all would go.
        lab.pass(SECOND * 95 / 100);
        clear(&mut lab, &mut peer);
        begin(&mut lab, &mut peer);
        if silent < 300 {
            lab.send(AWARE, &[packet(station(1), station(2), 0, 60)]);
            lab.turn();
        } else {
            lab.pass(SECOND / 10);
        }
        send(&mut lab, &mut peer, &some(2..3));
        let knows = lab.worker.path.uplinks[AWARE].wire.as_ref().unwrap().knows(station(2));
        assert!(!knows, "{silent}");
        let is_one = |packet: &[u8]| packet[12..14] == [0x88, 0xb6];
        let got: Vec<_> = peer.got.iter().filter(|(_, packet)| is_one(packet)).collect();
        assert_eq!(got.iter().map(|(_, packet)| packet.clone()).collect::<Vec<_>>(), some(0..3), "{silent}");
        assert_eq!(got.iter().map(|(of, _)| of.is_some()).collect::<Vec<_>>(), [true, true, false], "{silent}");
    }
}

/// Decision 28: what waits is sent under what was agreed, before the agreement or the link goes.
#[test]
fn what_waits_goes_before_its_link() {
    let (mut lab, mut peer) = scene(NEVER);
    begin(&mut lab, &mut peer);
    let (reply, uplink) = sync_channel(1);
    lab.worker.serve(Command::DetachUplink { port: PortId(0), reply });
    assert!(uplink.recv().unwrap().is_some());
    peer.receive(&mut lab);
    assert_eq!(peer.got.len(), 2);
    assert_eq!(lab.drops(AWARE).len(), 0);
}
