// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What senders leave to the device, on its way in aggregates (docs/aggregate-frame.md, 7).

use std::collections::BTreeMap;

use aggregation::Features;
use packet::{Checksum, GsoKind, Offload, Segmentation};

use super::super::wire::Wire;
use crate::worker::lab::{Lab, Peer, node, station, wire_config};

const AWARE: usize = 0;
const GUEST: usize = 1;
/// Bytes of Ethernet, IPv4 and TCP headers.
pub(super) const HEADERS: usize = 14 + 20 + 20;
pub(super) const SEGMENT: u16 = 1000;

/// A node with a peer that grants these features and has station 2.
fn scene(features: &[Features]) -> (Lab, Peer) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), None]);
    let features = features.iter().fold(Features::CHECK, |all, more| all.with(*more));
    let wire = Wire::with_features(node(2), wire_config(2), features, lab.now_ns());
    let mut peer = Peer::join_as(&mut lab, AWARE, wire);
    peer.send(&mut lab, 0, &[tcp(0)]);
    lab.run();
    peer.receive(&mut lab);
    peer.got.clear();
    lab.take(GUEST);
    (lab, peer)
}

/// A segment with so much payload, from station 1 to station 2 or back, whose checksum is that of the pseudo header.
pub(super) fn tcp(payload: usize) -> Vec<u8> {
    let (to, from) = if payload == 0 { (1, 2) } else { (2, 1) };
    let mut frame = [&station(to).0[..], &station(from).0, &[8, 0, 0x45, 0]].concat();
    let ip_len = u16::try_from(40 + payload).unwrap();
    frame.extend(ip_len.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([4, 0, 4, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let mut sum = 0x0a00_u32 * 2 + 1 + 2 + 6 + u32::from(ip_len) - 20;
    sum = (sum & 0xffff) + (sum >> 16);
    frame[50..52].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    frame.extend((0..payload).map(|n| n.to_le_bytes()[0]));
    frame
}

pub(super) fn unfinished(oversized: bool) -> Offload {
    let cut = Segmentation { kind: GsoKind::TcpV4, ecn: false, size: SEGMENT, header_len: 54 };
    let checksum = Checksum::Unfinished { start: 34, offset: 16 };
    Offload { checksum, segmentation: oversized.then_some(cut) }
}

fn oversized(offload: Offload) -> Offload {
    Offload { segmentation: unfinished(true).segmentation, ..offload }
}

/// The sum over the TCP segment and its pseudo header of a correct packet is all ones.
fn is_correct(frame: &[u8]) -> bool {
    let len = u32::try_from(frame.len() - 34).unwrap();
    let words =
        frame[34..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum = words.chain([0x0a00, 1, 0x0a00, 2, 6, len]).fold(0, |sum, word| {
        let sum: u32 = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    sum == 0xffff
}

#[test]
fn what_was_granted_goes_as_it_is() {
    let (mut lab, mut peer) = scene(&[Features::CHECKSUM, Features::GSO]);
    let (short, long) = (tcp(500), tcp(20_000));
    lab.send_unfinished(GUEST, std::slice::from_ref(&short), unfinished(false));
    lab.send_unfinished(GUEST, std::slice::from_ref(&long), unfinished(true));
    lab.run();
    peer.receive(&mut lab);
    assert!(!is_correct(&short) && !is_correct(&long), "whoever gets it has to do it");
    assert_eq!(peer.got, [(Some((1, 0)), short), (Some((1, 0)), long)]);
    assert!(peer.used.has(Features::CHECKSUM.with(Features::GSO)));
    assert_eq!(peer.aggregates, 1);
}

#[test]
fn what_was_not_granted_is_finished_and_cut() {
    for grants in [&[][..], &[Features::CHECKSUM], &[Features::GSO]] {
        let (mut lab, mut peer) = scene(grants);
        lab.send_unfinished(GUEST, &[tcp(20_000)], unfinished(true));
        lab.run();
        peer.receive(&mut lab);
        assert_eq!(peer.got.len(), 20, "{grants:?}");
        for (of, segment) in &peer.got {
            assert!(of.is_some() && is_correct(segment) && segment.len() == HEADERS + usize::from(SEGMENT));
        }
        peer.got.clear();
        lab.send_unfinished(GUEST, &[tcp(500)], unfinished(false));
        lab.run();
        peer.receive(&mut lab);
        assert_eq!(peer.got.len(), 1);
        assert_eq!(is_correct(&peer.got[0].1), !grants.contains(&Features::CHECKSUM), "{grants:?}");
        assert!(!peer.used.has(Features::GSO));
    }
}

/// What does not fit a frame is cut, whatever was granted.
#[test]
fn what_is_longer_than_a_frame_is_cut() {
    let (mut lab, mut peer) = scene(&[Features::CHECKSUM, Features::GSO]);
    lab.send_unfinished(GUEST, &[tcp(65_490)], unfinished(true));
    lab.run();
    peer.receive(&mut lab);
    assert_eq!(peer.got.len(), 66);
    assert!(peer.got.iter().all(|(_, segment)| is_correct(segment)));
}

/// What came so in an aggregate is finished and cut for who does not take it.
#[test]
fn what_arrives_unfinished_is_finished_for_others() {
    let (mut lab, mut peer) = scene(&[Features::CHECKSUM, Features::GSO]);
    let mut back = tcp(20_000);
    back[..6].copy_from_slice(&station(1).0);
    back[6..12].copy_from_slice(&station(2).0);
    let frame = peer.frame(&lab, 0, &[back], unfinished(true));
    lab.send(AWARE, &[frame]);
    lab.run();
    let got = lab.take(GUEST);
    assert_eq!(got.len(), 20);
    assert!(got.iter().all(|segment| is_correct(segment)));
}

/// A sender names the field into which its checksum goes. Wherever that is but in the checksum itself, policy has judged what is there
/// already: the packet is dropped, and nothing of it is written over.
#[test]
fn no_other_field_is_written_over() {
    let fields =
        [("the port", 36), ("the destination", 30), ("the protocol", 22), ("the source", 6), ("the payload", 60)];
    let places =
        fields.into_iter().flat_map(|(what, at)| [0, 2, 16].map(|offset| (what, at - offset.min(at), offset.min(at))));
    let places = places.chain([("nothing before it", 0, 50), ("another place of it", 33, 17)]);
    let offload = |start, offset| Offload { checksum: Checksum::Unfinished { start, offset }, segmentation: None };
    let mut back = tcp(500);
    back[..12].copy_from_slice(&tcp(0)[..12]);
    for grants in [&[][..], &[Features::CHECKSUM, Features::GSO]] {
        let (mut lab, mut peer) = scene(grants);
        let mut count = 0;
        for (what, start, offset) in places.clone() {
            // Plain, whether the peer takes it as it is or not.
            for offload in [offload(start, offset), oversized(offload(start, offset))] {
                lab.send_unfinished(GUEST, &[tcp(500)], offload);
                lab.run();
                peer.receive(&mut lab);
                assert_eq!(peer.got, [], "{what}");
            }
            count += 1;
            // In an aggregate.
            if !grants.is_empty() {
                let frame = peer.frame(&lab, 0, std::slice::from_ref(&back), offload(start, offset));
                lab.send(AWARE, &[frame]);
                lab.run();
                assert_eq!(lab.take(GUEST), Vec::<Vec<u8>>::new(), "{what}");
            }
        }
        let drops = |n| BTreeMap::from([("bad_offload".to_owned(), n)]);
        assert_eq!(lab.drops(GUEST), drops(2 * count));
        if !grants.is_empty() {
            assert_eq!(lab.drops(AWARE), drops(count));
            // What is beside them is not harmed.
            let frame = peer.frame(&lab, 0, &[back.clone()], unfinished(false));
            lab.send(AWARE, &[frame]);
            lab.run();
            assert!(is_correct(&lab.take(GUEST)[0]));
        }
    }
}
