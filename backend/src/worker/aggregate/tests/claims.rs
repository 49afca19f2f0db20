// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who says that a station is behind it, and is wrong.

use std::time::Duration;

use packet::synth::rarp_announcement;
use packet::{MacAddr, PortId};

use super::super::WireConfig;
use crate::worker::lab::{Lab, Peer, packet, station, wire_config};

const SECOND: Duration = Duration::from_secs(1);
const AWARE: usize = 0;
const GUEST: usize = 1;

fn scene(trusted: bool) -> (Lab, Peer) {
    let mut lab = Lab::new(1, &[Some(WireConfig { trusted, ..wire_config(1) }), None]);
    let peer = Peer::join(&mut lab, AWARE, 2);
    (lab, peer)
}

/// The peer says that station 1 is behind it.
fn claim(lab: &mut Lab, peer: &mut Peer) {
    peer.send(lab, 0, &[packet(station(7), station(1), 0, 60)]);
    lab.run();
}

fn is_believed(lab: &Lab) -> bool {
    lab.worker.path.uplinks[AWARE].wire.as_ref().unwrap().knows(station(1))
}

/// Station 1 sends a frame for all. How often the peer is told where it is.
fn speak(lab: &mut Lab, peer: &mut Peer) -> usize {
    peer.got.clear();
    lab.send(GUEST, &[packet(MacAddr::BROADCAST, station(1), 0, 60)]);
    lab.run();
    peer.receive(lab);
    peer.got.iter().filter(|(of, packet)| *of == Some((1, 0)) && *packet == rarp_announcement(station(1))).count()
}

/// A station that comes from somewhere else, a while after it was seen behind a peer, has moved, and is announced again.
#[test]
fn a_station_that_has_come_back_is_announced() {
    let (mut lab, mut peer) = scene(true);
    claim(&mut lab, &mut peer);
    assert_eq!((speak(&mut lab, &mut peer), is_believed(&lab)), (0, true), "a copy may still be on its way");
    for _ in 0..6 {
        lab.pass(SECOND);
        peer.talk(&mut lab);
    }
    assert_eq!((speak(&mut lab, &mut peer), is_believed(&lab)), (1, false));
    assert_eq!(speak(&mut lab, &mut peer), 0, "once is enough");
}

/// Who is not believed does not get a guest's packets by a claim, unless the bridge has seen the station move.
#[test]
fn who_is_not_believed_claims_no_guest() {
    for trusted in [false, true] {
        let (mut lab, mut peer) = scene(trusted);
        speak(&mut lab, &mut peer);
        claim(&mut lab, &mut peer);
        assert_eq!(is_believed(&lab), trusted);
        // It goes on sending from there, and the guest does not answer: now it has moved.
        claim(&mut lab, &mut peer);
        assert!(is_believed(&lab));
    }
}

/// A station with a fixed place is nowhere else, whoever says so.
#[test]
fn nobody_claims_a_fixed_station() {
    for trusted in [false, true] {
        let (mut lab, mut peer) = scene(trusted);
        assert!(lab.worker.path.bridge.fix(PortId(1), station(1)));
        for _ in 0..3 {
            claim(&mut lab, &mut peer);
            assert!(!is_believed(&lab), "{trusted}");
        }
        lab.worker.path.bridge.remove_port(PortId(1));
        claim(&mut lab, &mut peer);
        assert!(is_believed(&lab), "{trusted}");
    }
}
