// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the reader makes of frames.

use super::*;
use crate::{Format, GroupKey, Writer};

const KEY: GroupKey = GroupKey { origin: 1, destination: 2, class: 3 };
const FORMAT: Format =
    Format { max_bytes: 65_535, max_packets: 10_000, stage: 1, check: false, group_crc: false, template: false };

/// What packet `i` is filled with.
fn low(i: usize) -> u8 {
    i.to_le_bytes()[0]
}

fn frame(lens: &[usize]) -> Vec<u8> {
    let mut writer = Writer::new(65_535, 0);
    writer.begin(&FORMAT);
    for (i, len) in lens.iter().enumerate() {
        assert!(writer.push(KEY, &vec![low(i); *len], 0, |_| (), &Meta::NONE));
    }
    writer.finish(0).to_vec()
}

/// Lengths of the packets and causes of damage.
fn read(bytes: &[u8]) -> (Vec<u32>, Vec<(Cause, u32)>) {
    let (mut lens, mut damage) = (Vec::new(), Vec::new());
    let mut reader = Reader::default();
    reader.begin(bytes, 0, &Limits::NONE).unwrap();
    while let Some(item) = reader.next(bytes) {
        match item {
            Item::Packet(packet) => lens.push(packet.len),
            Item::Damaged(found) => damage.push((found.cause, found.packets)),
            _ => {}
        }
    }
    (lens, damage)
}

#[test]
fn long_packets_have_a_head_and_a_rest() {
    let bytes = frame(&[60, 256, 257, 9000, 14, 60]);
    let mut reader = Reader::default();
    reader.begin(&bytes, 0, &Limits::NONE).unwrap();
    let mut found = Vec::new();
    while let Some(item) = reader.next(&bytes) {
        if let Item::Packet(packet) = item {
            let rest = packet.len as usize - packet.head.len();
            assert!(packet.head.len() <= HEAD && (rest == 0 || packet.head.len() == HEAD));
            let i = low(found.len());
            assert!(packet.head.iter().all(|byte| *byte == i));
            assert!(rest == 0 || bytes[packet.rest_at..][..rest].iter().all(|byte| *byte == i));
            found.push(packet.len);
        }
    }
    assert_eq!(found, [60, 256, 257, 9000, 14, 60]);
}

#[test]
fn runs_of_plain_packets_are_taken_at_once() {
    let bytes = frame(&[60; 500]);
    let mut reader = Reader::default();
    reader.begin(&bytes, 0, &Limits::NONE).unwrap();
    let mut n = 0_usize;
    let mut calls = 0;
    while let Some(item) = reader.next(&bytes) {
        calls += 1;
        if let Item::Packet(packet) = item {
            assert_eq!(packet.head, [low(n); 60]);
            n += 1;
        }
        n += reader.plain(7, |head| assert_eq!(head.len(), 60));
        while let Some(run) = reader.run(16) {
            assert!(run.iter().all(|head| head.len() == 60));
            assert_eq!(run.iter().count(), usize::from(run.packets()));
            n += usize::from(run.packets());
        }
    }
    assert_eq!(n, 500);
    assert!(calls <= 1 + 500 * 64 / LOOK_AHEAD + 1, "{calls} slow steps");
}

#[test]
fn lying_counts_are_harmless() {
    let mut bytes = frame(&[60; 3]);
    bytes[11] = 2;
    assert_eq!(read(&bytes), (vec![60; 2], vec![(Cause::Surplus, 0)]));
    bytes[11] = 200;
    assert_eq!(read(&bytes), (vec![60; 3], vec![(Cause::SubframeLength, 197)]));
}

#[test]
fn empty_subframes_are_counted_together() {
    let mut bytes = vec![0x12, 0, 0xff, 0xfc, 1, 1, 0, 0, 0xff, 0xf4, 0x3f, 0xfa, 0, 0, 0, 0, 0, 3, 0, 0];
    bytes.resize(0xfffc, 0);
    assert_eq!(read(&bytes), (vec![], vec![(Cause::Runt, 0x3ffa)]));
}

#[test]
fn groups_are_gone_into_one_by_one() {
    let mut writer = Writer::new(65_535, 0);
    writer.begin(&Format { check: true, group_crc: true, template: true, ..FORMAT });
    let lens = [60, 300, 14, 2000];
    for destination in 1..=6 {
        for packet in 0..12 {
            let key = GroupKey { destination, ..KEY };
            let bytes = vec![low(usize::from(destination)); lens[packet % 4]];
            assert!(writer.push(key, &bytes, 0, |_| (), &Meta::NONE));
        }
    }
    let bytes = writer.finish(0).to_vec();
    let mut reader = Reader::default();
    // Some are gone into, some are not, some are left in the middle.
    for taken in 0..0x3f {
        reader.begin(&bytes, 0, &Limits { verify: true, ..Limits::NONE }).unwrap();
        let mut packets = [0; 7];
        while let Some(group) = reader.next_group(&bytes) {
            let group = group.unwrap();
            let destination = usize::from(group.header.destination);
            if taken >> (destination - 1) & 1 == 0 {
                assert!(reader.next_in_group(&bytes).is_none(), "it was not gone into");
                continue;
            }
            reader.open_group(&bytes, &group).unwrap();
            while let Some(item) = reader.next_in_group(&bytes) {
                let Item::Packet(packet) = item else { panic!("{item:?}") };
                assert!(packet.head.iter().all(|byte| *byte == low(destination)));
                packets[destination] += 1;
                if taken % 2 == 0 && packets[destination] == 7 {
                    break;
                }
            }
        }
        let expected = |destination: usize| match (taken >> (destination - 1) & 1, taken % 2) {
            (0, _) => 0,
            (_, 0) => 7,
            _ => 12,
        };
        // A group may have been ended for a template and gone on with in the next.
        for (destination, found) in packets.into_iter().enumerate().skip(1) {
            assert!(found >= expected(destination), "{taken:x}: {destination}: {found}");
            assert!(found <= if expected(destination) == 0 { 0 } else { 12 }, "{taken:x}: {destination}: {found}");
        }
        assert!(reader.is_done());
    }
}

#[test]
fn a_damaged_group_is_not_gone_into_and_the_next_one_is() {
    let mut writer = Writer::new(65_535, 0);
    writer.begin(&Format { group_crc: true, ..FORMAT });
    for destination in 1..=3 {
        assert!(writer.push(GroupKey { destination, ..KEY }, &[7; 600], 0, |_| (), &Meta::NONE));
    }
    let mut bytes = writer.finish(0).to_vec();
    bytes[900] ^= 1;
    let mut reader = Reader::default();
    reader.begin(&bytes, 0, &Limits { verify: true, ..Limits::NONE }).unwrap();
    let mut found = Vec::new();
    while let Some(group) = reader.next_group(&bytes) {
        let group = group.unwrap();
        match reader.open_group(&bytes, &group) {
            Ok(()) => found.push(Ok(std::iter::from_fn(|| reader.next_in_group(&bytes).map(|_| ())).count())),
            Err(damage) => found.push(Err((damage.cause, damage.packets))),
        }
    }
    assert_eq!(found, [Ok(1), Err((Cause::GroupCrc, 1)), Ok(1)]);
}

#[test]
fn reserved_flags_say_nothing_and_end_a_run() {
    let mut bytes = frame(&[60; 6]);
    let third = HEADER + GROUP_HEADER + 2 * 64;
    bytes[third + 2] = 0x07;
    assert_eq!(read(&bytes), (vec![60; 6], vec![]));
    let mut reader = Reader::default();
    reader.begin(&bytes, 0, &Limits::NONE).unwrap();
    let mut runs = Vec::new();
    while reader.next(&bytes).is_some() {
        while let Some(run) = reader.run(64) {
            assert!(run.bytes().chunks(64).all(|subframe| subframe[2] == 0), "they would be passed on");
            runs.push(run.packets());
        }
    }
    // The first two packets are read in two steps, because little was read ahead.
    assert_eq!(runs, [1, 3]);
}
