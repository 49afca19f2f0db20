// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the writer puts together.

use super::*;
use crate::{Item, Limits, Reader};

const KEY: GroupKey = GroupKey { origin: 1, destination: 2, class: 3 };
const PLAIN: Format =
    Format { max_bytes: 1500, max_packets: 1000, stage: 1, check: false, group_crc: false, template: false };

#[test]
fn a_frame_of_two_packets_is_these_bytes() {
    let mut writer = Writer::new(1500, 0);
    writer.begin(&PLAIN);
    assert!(writer.push(KEY, &[1; 14], 1, |to| to.fill(2), &Meta::NONE));
    assert!(writer.push(KEY, &[3; 16], 0, |_| (), &Meta::NONE));
    let wanted = [
        &[0x12, 0, 0, 60, 1, 1, 0, 9][..],
        &[0, 52, 0, 2, 0, 1, 0, 2, 3, 3, 0, 0],
        &[0, 15, 0, 0],
        &[1; 14],
        &[2, 0],
        &[0, 16, 0, 0],
        &[3; 16],
    ];
    assert_eq!(writer.finish(9), wanted.concat());
}

#[test]
fn nothing_of_an_earlier_frame_shows_in_padding() {
    let mut writer = Writer::new(1500, 0);
    writer.begin(&PLAIN);
    assert!(writer.push(KEY, &[0xff; 200], 0, |_| (), &Meta::NONE));
    writer.finish(0);
    writer.begin(&PLAIN);
    let flow = Meta { flow: Some(0), ..Meta::NONE };
    for meta in [Meta::NONE, Meta::NONE, flow] {
        assert!(writer.push(KEY, &[0; 17], 0, |_| (), &meta));
    }
    assert!(writer.finish(0)[20..].iter().all(|byte| *byte != 0xff));
}

#[test]
fn room_is_what_push_finds() {
    let flow = Meta { flow: Some(0), ..Meta::NONE };
    for template in [false, true] {
        for max_bytes in 0..200 {
            let mut writer = Writer::new(1500, 10);
            writer.begin(&Format { max_bytes, template, ..PLAIN });
            for (i, len) in [20, 14, 60, 33, 14, 15].into_iter().enumerate() {
                let key = GroupKey { class: u8::from(i > 3), ..KEY };
                let meta = if i == 2 { flow } else { Meta::NONE };
                let room = writer.has_room(key, len, &meta);
                let before = writer.len();
                let pushed = writer.push(key, &vec![1; len], 0, |_| (), &meta);
                assert!(pushed == room || template && pushed, "{i} of {max_bytes}");
                assert!(pushed || writer.len() == before);
            }
            assert!(writer.is_empty() || writer.finish(0).len() <= max_bytes);
        }
    }
}

#[test]
fn a_template_is_begun_when_it_pays_and_ended_when_the_header_changes() {
    let mut writer = Writer::new(9000, 0);
    writer.begin(&Format { max_bytes: 9000, template: true, ..PLAIN });
    let frame = |station: u8| [[station; 14].as_slice(), &[7; 46]].concat();
    for station in [1; 10].into_iter().chain([2; 3]) {
        assert!(writer.push(KEY, &frame(station), 0, |_| (), &Meta::NONE));
    }
    assert_eq!(writer.groups(), 3);
    let bytes = writer.finish(0).to_vec();
    let mut reader = Reader::default();
    reader.begin(&bytes, 0, &Limits::NONE).unwrap();
    let (mut groups, mut stations) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next(&bytes) {
        match item {
            Item::Group(group) => groups.push((group.packets, group.template)),
            Item::Packet(packet) => {
                stations.push(packet.head[0]);
                assert_eq!(packet.head, frame(packet.head[0]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(groups, [(3, false), (7, true), (3, false)]);
    assert_eq!(stations, [[1; 10].as_slice(), &[2; 3]].concat());
}

#[test]
fn one_packet_can_be_taken_out_again() {
    let mut writer = Writer::new(1500, 5);
    for group_crc in [false, true] {
        let format = Format { group_crc, check: true, ..PLAIN };
        writer.begin(&format);
        assert_eq!(writer.single(), None);
        writer.push(KEY, &[7; 61], 0, |_| (), &Meta::NONE);
        assert_eq!(writer.single(), Some([7; 61].as_slice()));
        writer.push(KEY, &[7; 61], 0, |_| (), &Meta::NONE);
        assert_eq!(writer.single(), None);
        writer.begin(&format);
        writer.push(KEY, &[7; 61], 0, |_| (), &Meta { flow: Some(1), ..Meta::NONE });
        assert_eq!(writer.single(), None, "its flow id would be lost");
        writer.begin(&format);
        writer.begin_group(KEY, &[(9, &[1])]);
        writer.push(KEY, &[7; 61], 0, |_| (), &Meta::NONE);
        assert_eq!(writer.single(), None, "so would be the TLV");
    }
}
