// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that nobody should send: each costs what the specification says, is counted under its cause, and harms neither who gets the
//! packets beside it nor two others on the same worker. Proof of abuse (decisions 23 and 26).

use std::collections::BTreeMap;

use aggregation::negotiation::{Message, Reason};

use crate::arena::{Arena, FIRST, GROUP, HEADER, counts, good, packets};
use crate::stage::{Kind, MACS, Spec};
use crate::support::{Speaker, aggregates, control, until, wrap};

/// The same with something written over it.
fn bent(at: usize, with: &[u8]) -> Vec<u8> {
    let mut frame = good();
    frame[at..at + with.len()].copy_from_slice(with);
    frame
}

/// A frame with one group, whose front says this, and the rest of it.
fn of_group(packets: u16, tlv_words: u16, rest: &[u8]) -> Vec<u8> {
    let word = |n: usize| u16::try_from(n).expect("short").to_be_bytes();
    let group = 12 + rest.len();
    let mut body = [&[0x12, 0], &word(8 + group)[..], &[1, 1, 0, 9]].concat();
    body.extend(
        [&word(group)[..], &packets.to_be_bytes(), &[0xde, 0xad, 0xbe, 0xef, 0, 3], &tlv_words.to_be_bytes()].concat(),
    );
    body.extend(rest);
    wrap(&body)
}

fn sub_frame(packet: &[u8]) -> Vec<u8> {
    let len = u16::try_from(packet.len()).expect("short").to_be_bytes();
    let mut bytes = [&len[..], &[0, 0], packet].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What is wrong, the frame, and what comes of it: packets that arrive, causes, and frames dropped.
type Case<'a> = (&'a str, Vec<u8>, (&'a [usize], Vec<&'a str>, u64));

/// Everything that can be wrong with headers: lying counts and lengths, flags and versions.
#[test]
fn what_is_malformed_costs_what_the_specification_says() {
    let all: &[usize] = &[0, 1, 2, 3, 4];
    let whole = |cause| (&[][..], vec![cause], 1);
    let cases: Vec<Case<'_>> = vec![
        ("nothing is wrong", good(), (all, vec![], 0)),
        ("another version", bent(HEADER, &[0x22]), whole("version")),
        ("lengths in words", bent(HEADER + 1, &[0x40]), whole("frame_flag")),
        ("a critical flag", bent(HEADER + 1, &[0x10]), whole("frame_flag")),
        ("a header of one word", bent(HEADER, &[0x11]), whole("frame_length")),
        ("longer than it is", bent(HEADER + 2, &[0x7f, 0xff]), whole("frame_length")),
        ("shorter than its header", bent(HEADER + 2, &[0, 4]), whole("frame_length")),
        ("seven bytes", good()[..HEADER + 7].to_vec(), whole("frame_length")),
        ("groups that are not there", bent(HEADER + 4, &[255]), (all, vec!["group_length"], 0)),
        ("a group longer than the frame", bent(GROUP, &[0xff, 0xfc]), (&[], vec!["group_length"], 0)),
        ("a group of odd length", bent(GROUP, &[0, 101]), (&[], vec!["group_length"], 0)),
        ("a group shorter than its header", bent(GROUP, &[0, 8]), (&[], vec!["group_length"], 0)),
        ("a critical flag of the group", bent(GROUP + 8, &[0x20]), (&[], vec!["group_flag"], 0)),
        ("a group header of two words", bent(GROUP + 9, &[2]), (&[], vec!["group_header"], 0)),
        ("a group header beyond its group", bent(GROUP + 9, &[255]), (&[], vec!["group_header"], 0)),
        ("TLVs beyond the group", bent(GROUP + 10, &[0xff, 0xff]), (&[], vec!["group_header"], 0)),
        ("more packets than are taken", bent(GROUP + 2, &[4, 1]), (&[], vec!["too_many_packets"], 0)),
        ("65,535 packets", bent(GROUP + 2, &[0xff, 0xff]), (&[], vec!["too_many_packets"], 0)),
        ("one packet too many", bent(GROUP + 2, &[0, 6]), (all, vec!["subframe_length"], 0)),
        ("one packet too few", bent(GROUP + 2, &[0, 4]), (&all[..4], vec!["surplus"], 0)),
        ("a third packet that never ends", bent(FIRST + 128, &[0xff, 0xff]), (&all[..2], vec!["subframe_length"], 0)),
        ("a checksum to finish nowhere", bent(FIRST + 2, &[0x80]), (&all[1..], vec!["bad_extension"], 0)),
    ];
    let mut arena = Arena::start(|_| {});
    let mut evil = arena.speaker();
    let sent = packets(5);
    for (what, frame, (arrive, causes, dropped)) in cases {
        let before = arena.costs();
        evil.guest.send(&[frame]);
        let expected: Vec<_> = arrive.iter().map(|at| sent[*at].clone()).collect();
        assert_eq!(arena.at_b(&mut evil), expected, "{what}");
        let [drops, damages] = arena.costs();
        let more = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            let more = now.iter().map(|(label, n)| (label.clone(), n - then.get(label).copied().unwrap_or(0)));
            more.filter(|(_, n)| *n > 0).collect()
        };
        let expected: Vec<_> = causes.iter().map(|cause| (*cause, 1)).collect();
        assert_eq!(more(&damages, &before[1]), counts(&expected), "{what}");
        let dropped = if dropped > 0 { counts(&[("aggregate", dropped)]) } else { BTreeMap::new() };
        assert_eq!(more(&drops, &before[0]), dropped, "{what}");
        arena.others_forward();
    }
    arena.assert_unharmed(evil);
}

/// As many packets without a byte as a frame has room for, and more than are granted: bounded by what is granted.
#[test]
fn packets_of_no_length_are_bounded() {
    let mut arena = Arena::start(|_| {});
    let mut evil = arena.speaker();
    // All that a header can say: too long to be taken at all.
    let most = of_group(16_378, 0, &[0; 16_378 * 4]);
    assert_eq!(most.len() - 14, 65_532);
    // As many as have room, more than are taken; as many as are taken, the rest is surplus; a lie about both.
    let room = of_group(4_091, 0, &[0; 4_091 * 4]);
    let taken = of_group(1024, 0, &[0; 4_091 * 4]);
    let lie = of_group(1024, 0, &[0; 1000 * 4]);
    let rounds = 30;
    for _ in 0..rounds {
        for frame in [&most[..39_000], &room, &taken, &lie] {
            evil.guest.send(&[frame.to_vec()]);
        }
        arena.others_forward();
    }
    assert_eq!(arena.at_b(&mut evil), Vec::<Vec<u8>>::new());
    let [drops, damages] = arena.costs();
    assert_eq!(drops, counts(&[("aggregate", rounds)]));
    let expected = [
        ("frame_length", rounds),
        ("too_many_packets", rounds),
        ("runt", rounds * 2),
        ("surplus", rounds),
        ("subframe_length", rounds),
    ];
    assert_eq!(damages, counts(&expected));
    let status = arena.node.status("a");
    assert_eq!(status.aggregation.packets_damaged, rounds * (4_091 + 1024 + 1024));
    assert_eq!((status.rx_packets, status.aggregation.rx_packets), (1, 0), "the last one only");
    arena.assert_unharmed(evil);
}

/// Frames longer than was granted are not taken, however good they are.
#[test]
fn frames_larger_than_granted_are_not_taken() {
    let mut arena = Arena::start(|_| {});
    let mut evil = arena.speaker();
    let large: Vec<_> =
        (0..40).map(|number| Spec { kind: Kind::Udp, to: 1, flow: 1, len: 900 }.packet(number)).collect();
    evil.guest.send(&aggregates(&large, 38_000, false));
    assert_eq!(arena.at_b(&mut evil), Vec::<Vec<u8>>::new());
    let [drops, damages] = arena.costs();
    assert_eq!((drops, damages), (counts(&[("aggregate", 1)]), counts(&[("frame_length", 1)])));
    arena.assert_unharmed(evil);
}

/// TLVs of every type from a port that is not trusted: the critical cost their group, all others are taken out; the next hop sees none.
#[test]
fn tlvs_of_all_kinds_are_taken_out() {
    let mut arena = Arena::start(|_| {});
    let mut evil = arena.speaker();
    let sent = packets(3);
    let sub_frames: Vec<u8> = sent.iter().flat_map(|packet| sub_frame(packet)).collect();
    let mut expected = Vec::new();
    let (mut critical, mut malformed, mut removed) = (0, 0, 0);
    for kind in 0..=u8::MAX {
        let tlv = [&[kind, 0, 0, 5][..], b"hello\0\0\0"].concat();
        evil.guest.send(&[of_group(3, 3, &[&tlv[..], &sub_frames].concat())]);
        // A group CRC of five bytes, or with other bits, is none.
        match kind {
            kind if kind & 0x3f == 1 => malformed += 1,
            kind if kind & 0x80 != 0 => critical += 1,
            _ => {
                removed += 1;
                expected.extend(sent.clone());
            }
        }
        if kind % 16 == 15 {
            assert_eq!(arena.at_b(&mut evil), std::mem::take(&mut expected), "up to type {kind:#x}");
        }
    }
    // TLVs without an end, and more of them than are taken.
    evil.guest.send(&[of_group(3, 1, &[&[0x44, 0, 0xff, 0xff][..], &sub_frames].concat())]);
    let many = [0x44, 0, 0, 0].repeat(1000);
    evil.guest.send(&[of_group(3, 1000, &[&many[..], &sub_frames].concat())]);
    assert_eq!(arena.at_b(&mut evil), Vec::<Vec<u8>>::new());
    let [drops, damages] = arena.costs();
    assert_eq!(drops, BTreeMap::new());
    let expected =
        [("tlv_critical", critical), ("tlv_malformed", malformed + 1), ("tlv_removed", removed), ("tlv_too_long", 1)];
    assert_eq!(damages, counts(&expected));
    arena.assert_unharmed(evil);
}

/// A packet in an aggregate that is a frame itself is a packet: it is not opened, and as nobody but the node may send such frames it
/// does not reach anybody who would take it for the node's. Tagged or not, alone or beside others.
#[test]
fn frames_in_frames_are_neither_opened_nor_delivered() {
    let mut arena = Arena::start(|_| {});
    let mut evil = arena.speaker();
    let to_b = |frame: &[u8]| [&MACS[1][..], &MACS[0], &frame[12..]].concat();
    let tagged = |frame: &[u8], tags: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
    let bye = to_b(&control(Message::Bye, |control| {
        // The node's own words to "b", as well as can be guessed.
        (control.node, control.reason) = (1, Some(Reason::Closing));
    }));
    let inner = to_b(&good());
    let nested = [
        bye.clone(),
        inner.clone(),
        tagged(&inner, &[0x81, 0, 0, 5]),
        tagged(&inner, &[0x88, 0xa8, 0, 5]),
        tagged(&bye, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]),
        // Longer than what is copied out of a frame at once.
        to_b(&aggregates(&packets(60), 5000, false)[0]),
    ];
    let fine = packets(40);
    for at in [0, 1, 7, 40] {
        for template in [false, true] {
            let mut mixed = fine.clone();
            mixed.splice(at..at, nested.clone());
            evil.guest.send(&aggregates(&mixed, 16_000, template));
            assert_eq!(arena.at_b(&mut evil), fine, "nested at {at}");
        }
    }
    // Nor as frames of their own, once the guest has negotiated and may send such: those are for the node.
    let [drops, damages] = arena.costs();
    assert_eq!((drops, damages), (counts(&[("aggregate", 8 * 6)]), BTreeMap::new()));
    arena.assert_unharmed(evil);
}

/// Decision 26: who has not negotiated sends neither aggregates nor, once refused, anything that others would take for them.
#[test]
fn aggregates_without_an_agreement_are_dropped() {
    let mut arena = Arena::start(|_| {});
    let mut evil = Speaker::attach(arena.node.socket("a"), 7, 77);
    let tagged = [&good()[..12], &[0x81, 0, 0, 5][..], &good()[12..]].concat();
    let to_b = [&MACS[1][..], &MACS[0], &good()[12..]].concat();
    for frame in [good(), tagged, to_b] {
        evil.guest.send(&vec![frame; 50]);
        arena.others_forward();
    }
    let [drops, damages] = until("all are counted", || {
        let costs = arena.costs();
        (costs[0].get("aggregate") == Some(&150)).then_some(costs)
    });
    assert_eq!((drops.len(), damages), (1, BTreeMap::new()));
    assert_eq!(arena.b.poll(), Vec::<Vec<u8>>::new());
    // It may still come to an agreement.
    evil.agree();
    arena.assert_unharmed(evil);
}
