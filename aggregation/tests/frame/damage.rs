// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Damage on wires: it costs the group in which it is, or the frame, and never yields another packet than was sent.

use crate::common::{Found, Part, any_parts, limits, read, write};
use aggregation::negotiation::Control;
use aggregation::{Cause, Format, GroupKey, Limits, Meta, Reader, Writer};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const WIRE: Format =
    Format { max_bytes: 9000, max_packets: 1000, stage: 2, check: true, group_crc: true, template: true };

fn on_wires() -> Limits {
    Limits { check_required: true, ..limits(true) }
}

/// Three groups, one of them with a template, and a packet that is longer than the look-ahead of the reader below.
fn frame() -> Vec<u8> {
    let mut writer = Writer::new(9000, 0);
    writer.begin(&WIRE);
    let key = |destination| GroupKey { origin: 1, destination, class: 0 };
    let packet = |station, len| [vec![station; 14], (0..len).map(|i: usize| i.to_le_bytes()[0]).collect()].concat();
    for station in 0..2 {
        assert!(writer.push(key(1), &packet(station, 46), 0, |_| (), &Meta::NONE));
    }
    for _ in 0..6 {
        assert!(writer.push(key(2), &packet(5, 31), 0, |_| (), &Meta { flow: Some(3), ..Meta::NONE }));
    }
    assert!(writer.push(key(3), &packet(2, 700), 0, |_| (), &Meta::NONE));
    assert!(writer.push(key(3), &packet(3, 20), 0, |_| (), &Meta::NONE));
    writer.finish(1).to_vec()
}

/// Whether all that was found was sent, in this order, and what is missing is of one group at most.
fn costs_a_group_at_most(found: &Found, good: &Found) -> bool {
    let mut sent = good.packets.iter();
    if !found.packets.iter().all(|packet| sent.any(|other| other == packet)) {
        return false;
    }
    let mut groups = good.groups.iter();
    let kept = found.groups.iter().all(|group| groups.any(|other| other == group));
    kept && found.groups.len() + 1 >= good.groups.len() && found.damage.len() <= 1
}

/// Issue 4: damage in a group's body costs that group, damage in a header costs the frame.
#[test]
fn each_flipped_bit_costs_a_group_or_if_in_a_header_the_frame() {
    let good_frame = frame();
    let good = read(&mut Reader::default(), &good_frame, &on_wires(), 8).unwrap();
    assert_eq!((good.groups.len(), good.packets.len(), good.damage.len()), (4, 10, 0));
    assert!(good.groups.iter().any(|group| group.2), "one has a template");
    let (mut headers, mut at) = (Vec::new(), 12);
    headers.push(0..at);
    while at < good_frame.len() {
        headers.push(at..at + 12);
        at += usize::from(u16::from_be_bytes([good_frame[at], good_frame[at + 1]]));
    }
    let mut reader = Reader::new(400);
    let (mut frames, mut groups) = (0, 0);
    for bit in 0..good_frame.len() * 8 {
        let mut bad = good_frame.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let in_header = headers.iter().any(|header| header.contains(&(bit / 8)));
        match read(&mut reader, &bad, &on_wires(), 8) {
            Err(_) => {
                assert!(in_header, "bit {bit} costs the frame");
                frames += 1;
            }
            // It passes for a control frame, and is found out there.
            Ok(_) if reader.header().control => assert_eq!(Control::parse(&bad), Err(Cause::ControlMalformed)),
            Ok(found) => {
                assert!(!in_header, "bit {bit} of a header goes unnoticed");
                assert!(costs_a_group_at_most(&found, &good), "bit {bit}: {:?}", found.damage);
                assert!(found.packets.len() < good.packets.len(), "bit {bit} goes unnoticed");
                let (cause, lost) = found.damage[0];
                assert!(matches!(cause, Cause::GroupCrc | Cause::TlvMalformed | Cause::TlvCritical), "{cause}");
                assert_eq!(found.packets.len() + lost as usize, good.packets.len(), "the loss is told");
                groups += 1;
            }
        }
    }
    assert_eq!(frames + groups + 1, good_frame.len() * 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes overwritten anywhere: no packet that was not sent. A CRC of 32 bits misses one burst in four billion.
    #[test]
    fn overwritten_bytes_never_yield_another_packet(
        parts in any_parts(8),
        at in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let (good_frame, _) = write(&mut Writer::new(9000, 0), &WIRE, &parts, 64);
        let good = read(&mut Reader::default(), &good_frame, &on_wires(), 8).unwrap();
        let mut bad = good_frame.clone();
        let at = at.index(bad.len());
        for (to, from) in bad[at..].iter_mut().zip(noise) {
            *to = from;
        }
        if let Ok(found) = read(&mut Reader::default(), &bad, &on_wires(), 8) {
            let mut sent = good.packets.iter();
            prop_assert!(found.packets.iter().all(|packet| sent.any(|other| other == packet)));
        }
    }

    /// A frame that was cut short is no frame: its length says more than there is.
    #[test]
    fn frames_cut_short_are_refused(parts in any_parts(8), at in any::<prop::sample::Index>()) {
        let (frame, _) = write(&mut Writer::new(9000, 0), &WIRE, &parts, 64);
        let cut = &frame[..at.index(frame.len())];
        prop_assert_eq!(read(&mut Reader::default(), cut, &on_wires(), 8), Err(Cause::FrameLength));
    }
}

#[test]
fn parts_are_of_both_kinds() {
    // What the strategies above make, so that they cannot quietly become trivial.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let parts: Vec<Part> = (0..50).flat_map(|_| any_parts(8).new_tree(&mut runner).unwrap().current()).collect();
    let long = |part: &Part| matches!(part, Part::Packet(sent) if sent.bytes.len() > 256);
    assert!(parts.iter().any(long) && parts.iter().any(|part| matches!(part, Part::Tlvs(..))));
}
