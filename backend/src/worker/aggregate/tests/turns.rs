// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much of what an uplink holds one turn takes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::sync_channel;

use aggregation::Features;
use packet::{Offload, PortId};

use super::super::wire::Wire;
use super::unfinished::{SEGMENT, tcp, unfinished};
use crate::worker::lab::{Lab, Peer, mac_of, node, packet, station, wire_config};
use crate::worker::mailbox::Command;

const AWARE: usize = 0;
const PLAIN: usize = 1;

/// A node with an aware peer at one port, and a station at the other.
fn scene() -> (Lab, Peer) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), None]);
    let peer = Peer::join(&mut lab, AWARE, 2);
    lab.send(PLAIN, &[packet(mac_of(9), station(1), 0, 60)]);
    lab.run();
    lab.take(AWARE);
    (lab, peer)
}

fn packets(numbers: Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| packet(station(1), station(2), number, 60)).collect()
}

/// Decision 23: budgets count packets, not frames. A frame is finished; then the next port has its turn, and nothing is lost or swapped.
#[test]
fn a_turn_ends_behind_the_frame_with_which_there_were_enough_packets() {
    let (mut lab, mut peer) = scene();
    let all = packets(0..2000);
    for frame in all.chunks(100) {
        peer.send(&mut lab, 0, frame);
    }
    let mut got = Vec::new();
    while got.len() < all.len() {
        let before = got.len();
        assert_eq!(lab.turn(), 300.min(all.len() - before));
        got.extend(lab.take(PLAIN));
        assert_eq!(got.len(), (before + 300).min(all.len()));
    }
    assert!(got == all);
    assert_eq!((lab.turn(), lab.drops(AWARE).len()), (0, 0));
}

/// A worker that goes to sleep would not be woken for what the ring holds already.
#[test]
fn what_a_turn_left_is_work_to_do() {
    let (mut lab, mut peer) = scene();
    peer.send(&mut lab, 0, &packets(0..300));
    peer.send(&mut lab, 0, &packets(300..310));
    assert_eq!(lab.turn(), 300);
    assert!(!lab.ports[AWARE].tx.has_unsent() && lab.worker.uplinks[AWARE].has_frames());
    assert_eq!(lab.turn(), 10);
    assert!(!lab.worker.uplinks[AWARE].has_frames());
}

/// Plain frames are counted with the packets of aggregates, and keep their places among them.
#[test]
fn plain_frames_between_aggregates_count_and_keep_their_places() {
    let (mut lab, mut peer) = scene();
    let all = packets(0..1000);
    for (n, chunk) in all.chunks(50).enumerate() {
        if n % 2 == 0 {
            peer.send(&mut lab, 0, chunk);
        } else {
            // More than fit what a ring holds at once, together with the others.
            lab.send(AWARE, chunk);
        }
    }
    let mut got = Vec::new();
    loop {
        let moved = lab.turn();
        let came = lab.take(PLAIN);
        assert!(moved < 256 + 50 && came.len() == moved);
        if moved == 0 {
            break;
        }
        got.extend(came);
    }
    assert!(got == all);
}

/// KA-6: whole groups cost a turn what they are: one look each, however many packets they are of.
#[test]
fn groups_that_go_whole_count_as_one() {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), Some(wire_config(1))]);
    let (mut near, mut far) = (Peer::join(&mut lab, 0, 2), Peer::join(&mut lab, 1, 3));
    let all: Vec<_> = (0..6400).map(|number| packet(station(1), station(2), number, 60)).collect();
    for frame in all.chunks(200) {
        near.send(&mut lab, 3, frame);
    }
    assert_eq!(lab.turn(), 6400);
    far.receive(&mut lab);
    assert!(far.got.iter().map(|(_, packet)| packet).eq(&all));
    assert!(far.got.iter().all(|(of, _)| *of == Some((2, 3))));
}

/// Groups of which each packet has to be looked at, as who is on the way has granted less than their sender, count as their packets.
#[test]
fn groups_that_are_looked_through_count_as_their_packets() {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), Some(wire_config(1))]);
    let [more, less] = [Features::CHECK.with(Features::CHECKSUM), Features::CHECK];
    let [near, far] =
        [(2, more), (3, less)].map(|(id, grants)| Wire::with_features(node(id), wire_config(id), grants, lab.now_ns()));
    let (mut near, mut far) = (Peer::join_as(&mut lab, 0, near), Peer::join_as(&mut lab, 1, far));
    let all: Vec<_> = (0..1000).map(|number| packet(station(1), station(2), number, 60)).collect();
    for frame in all.chunks(20) {
        near.send(&mut lab, 3, frame);
    }
    let mut moved = 0;
    while moved < all.len() {
        // Each frame is a group and its packets.
        let frames = 256_usize.div_ceil(21).min((all.len() - moved) / 20);
        assert_eq!(lab.turn(), frames * 20, "after {moved}");
        moved += frames * 20;
    }
    far.receive(&mut lab);
    assert!(far.got.iter().map(|(_, packet)| packet).eq(&all));
    assert!(far.got.iter().all(|(of, _)| *of == Some((2, 3))), "as they were");
}

/// What is damaged costs time as well.
#[test]
fn packets_that_are_none_count() {
    let (mut lab, mut peer) = scene();
    let frames: Vec<_> = (0..10)
        .map(|_| {
            let mut frame = peer.frame(&lab, 0, &[vec![0; 6300]], Offload::NONE);
            // A group of a hundred runts, without a CRC that would find out before they are looked at.
            let group = 14 + 12;
            frame[group + 2..group + 4].copy_from_slice(&[0, 100]);
            frame[group + 12..].fill(0);
            frame[group + 12..group + 20].copy_from_slice(&[0x02, 0, 0, 4, 0, 0, 0, 0]);
            seal(&mut frame);
            frame
        })
        .collect();
    lab.send(AWARE, &frames);
    assert_eq!(lab.turn(), 3);
    assert_eq!(lab.drops(AWARE), BTreeMap::new());
    assert_eq!(lab.ports[AWARE].counters[0].damaged.get(), 300);
}

/// Makes the check word that of the frame's headers, of which there is one of a group.
fn seal(frame: &mut [u8]) {
    let covered = [&frame[14..22], &[0; 4], &frame[26..38]].concat();
    let word = crc32c::crc32c(&covered);
    frame[22..26].copy_from_slice(&word.to_be_bytes());
}

/// A link that goes takes along what a turn has left, and says so.
#[test]
fn a_link_that_goes_counts_what_was_left() {
    let (mut lab, mut peer) = scene();
    for _ in 0..3 {
        peer.send(&mut lab, 0, &packets(0..300));
    }
    assert_eq!(lab.turn(), 300);
    let (reply, uplink) = sync_channel(1);
    lab.worker.serve(Command::DetachUplink { port: PortId(0), reply });
    assert!(uplink.recv().unwrap().is_some());
    assert_eq!(lab.drops(AWARE), [("not_ready".to_owned(), 2)].into());
}

/// Decision 23: an oversized packet counts as what it may have to be cut into, in an aggregate or plain, on a link with aware nodes or
/// without: the sender chooses the size of the pieces.
#[test]
fn oversized_packets_count_as_their_segments() {
    const FRAMES: usize = 40;
    const PIECES: usize = 20;
    let oversized = tcp(PIECES * usize::from(SEGMENT));
    let from_peer = {
        let mut back = oversized.clone();
        back[..12].copy_from_slice(&tcp(0)[..12]);
        back
    };
    // The headers count as a piece of their own.
    let most = 256_usize.div_ceil(PIECES + 1);
    let drained = |lab: &mut Lab, at: usize, to: usize, most: usize| {
        let mut segments = 0;
        let mut left = FRAMES;
        while left > 0 {
            assert_eq!(lab.turn(), left.min(most));
            left -= left.min(most);
            assert_eq!(lab.worker.uplinks[at].has_frames(), left > 0, "{left} are left");
            segments += lab.take(to).len();
        }
        segments
    };
    // Nobody is aware behind the plain port, and nothing is agreed with who is behind the other.
    let mut lab = Lab::new(1, &[Some(wire_config(1)), None]);
    for (from, to, frame) in [(PLAIN, AWARE, &oversized), (AWARE, PLAIN, &from_peer)] {
        lab.send_unfinished(from, &vec![frame.clone(); FRAMES], unfinished(true));
        assert!(drained(&mut lab, from, to, most) >= FRAMES * PIECES);
    }
    let (mut lab, mut peer) = scene();
    for _ in 0..FRAMES / 2 {
        let frame = peer.frame(&lab, 0, &[from_peer.clone(), from_peer.clone()], unfinished(true));
        lab.send(AWARE, &[frame]);
    }
    // A frame is finished, and its group counts too.
    let frames = 256_usize.div_ceil(2 * (PIECES + 1) + 1);
    assert_eq!(drained(&mut lab, AWARE, PLAIN, 2 * frames), FRAMES * PIECES);
}
