// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is written is read, wherever the frame lies, and whatever else lies there is survived.

use std::cell::{Cell, RefCell};

use crate::common::{Found, Part, any_format, any_parts, limits, read, write};
use aggregation::{Cause, Format, Item, Limits, Reader, Scattered, Source, TlvSet, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes that may be fetched once. A second time they are others, as if a guest had changed them.
struct Once<'a> {
    bytes: &'a [u8],
    fetched: RefCell<Vec<u8>>,
    again: Cell<usize>,
}

impl<'a> Once<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, fetched: RefCell::new(vec![0; bytes.len()]), again: Cell::new(0) }
    }
}

impl Source for Once<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let n = self.bytes.read(at, to);
        for (byte, fetched) in to[..n].iter_mut().zip(&mut self.fetched.borrow_mut()[at..]) {
            if *fetched > 0 {
                *byte ^= 0xff;
                self.again.set(self.again.get() + 1);
            }
            *fetched = 1;
        }
        n
    }
}

const PLAIN: Format =
    Format { max_bytes: 65_535, max_packets: 1000, stage: 1, check: false, group_crc: false, template: false };

/// What is to be found of what was written: groups that are entered anew because the key comes back are the writer's affair.
fn wanted(parts: &[Part]) -> Found {
    let mut found = Found::default();
    for part in parts {
        match part {
            Part::Packet(sent) => found.packets.push(sent.clone()),
            Part::Tlvs(key, tlvs) => {
                found.tlvs.extend(tlvs.iter().map(|(kind, data)| (*key, *kind, data.clone())));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// KA-6: packets of several next hops and classes, with all that travels with them, in order.
    #[test]
    fn ka_6_what_is_written_is_read(
        parts in any_parts(12),
        format in any_format(),
        split in 14_usize..300,
        cuts in vec(0_usize..4000, 0..20),
        fast in 0_usize..20,
        verify in any::<bool>(),
    ) {
        let (frame, n) = write(&mut Writer::new(65_535, 3), &format, &parts, split);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(frame.len())).collect();
        cuts.extend([0, frame.len()]);
        cuts.sort_unstable();
        let padded = [&frame[..], &[0xaa; 46]].concat();
        let mut pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &frame[pair[0]..pair[1]]).collect();
        pieces.push(&padded[frame.len()..]);
        let found = read(&mut Reader::default(), &Scattered(&pieces), &limits(verify), fast).unwrap();
        let wanted = wanted(&parts[..n]);
        prop_assert_eq!(&found.damage, &vec![]);
        prop_assert_eq!(found.tlvs, wanted.tlvs);
        prop_assert_eq!(found.packets, wanted.packets);
        prop_assert!(found.groups.iter().all(|group| format.template || !group.2));
    }

    /// Decision 1: what is judged and handed out was fetched once. Packets that are handed out by reference are not in here.
    #[test]
    fn decision_1_nothing_is_fetched_twice(parts in any_parts(12), format in any_format(), fast in 0_usize..20) {
        let parts: Vec<_> =
            parts.into_iter().filter(|part| !matches!(part, Part::Packet(sent) if sent.bytes.len() > 256)).collect();
        let (frame, n) = write(&mut Writer::new(65_535, 0), &format, &parts, 64);
        let source = Once::new(&frame);
        let found = read(&mut Reader::default(), &source, &limits(false), fast).unwrap();
        prop_assert_eq!(found.packets, wanted(&parts[..n]).packets);
        prop_assert_eq!(source.again.get(), 0);
    }

    /// Group by group, and with `verify`, too: group headers are used as they were checked.
    #[test]
    fn headers_are_fetched_once(parts in any_parts(12), format in any_format(), verify in any::<bool>()) {
        let (frame, _) = write(&mut Writer::new(65_535, 0), &format, &parts, 64);
        let source = Once::new(&frame);
        let mut reader = Reader::default();
        reader.begin(&source, 0, &limits(verify)).unwrap();
        let mut at = reader.header().header_len;
        while let Some(group) = reader.next_group(&source) {
            let group = group.unwrap();
            prop_assert_eq!(group.at, at);
            prop_assert_eq!(&group.bytes[..], &frame[at..at + 12]);
            at += group.header.len;
        }
        prop_assert_eq!(at, frame.len());
        prop_assert_eq!(source.again.get(), 0);
    }

    /// Runs of plain packets are taken over as they are.
    #[test]
    fn runs_are_copied_whole(lens in vec(14_usize..300, 1..80), most in 1_usize..20) {
        let key = aggregation::GroupKey { origin: 1, destination: 2, class: 3 };
        let mut writer = Writer::new(65_535, 0);
        writer.begin(&PLAIN);
        for len in &lens {
            prop_assert!(writer.push(key, &vec![len.to_le_bytes()[0]; *len], 0, |_| (), &aggregation::Meta::NONE));
        }
        let frame = writer.finish(5).to_vec();
        let mut reader = Reader::default();
        reader.begin(&frame, 0, &Limits::NONE).unwrap();
        writer.begin(&PLAIN);
        let mut runs = 0;
        while let Some(item) = reader.next(&frame) {
            if let Item::Packet(packet) = item {
                let rest = packet.len as usize - packet.head.len();
                let tail = |to: &mut [u8]| assert_eq!(frame.read(packet.rest_at, to), to.len());
                prop_assert!(writer.push(key, packet.head, rest, tail, &packet.meta));
            }
            if let Some(run) = reader.run(most) {
                prop_assert!(usize::from(run.packets()) <= most);
                prop_assert!(writer.push_run(key, run.bytes(), run.packets()));
                runs += 1;
            }
        }
        prop_assert_eq!(writer.finish(5), &frame);
        // The first one is taken by `next`, which is what reads ahead.
        prop_assert!(runs > 0 || lens.len() == 1 || lens.iter().any(|len| *len > 256));
    }

    /// Stopping anywhere and skipping the rest of a group leads to the next group.
    #[test]
    fn the_rest_of_a_group_can_be_skipped(parts in any_parts(12), format in any_format(), stops in vec(0_usize..9, 1..9)) {
        let (frame, _) = write(&mut Writer::new(65_535, 0), &format, &parts, 64);
        let mut reader = Reader::default();
        reader.begin(&frame, 0, &limits(true)).unwrap();
        let mut groups = 0;
        let mut stops = stops.into_iter().cycle();
        while let Some(group) = reader.next_group(&frame) {
            prop_assert!(group.is_ok());
            groups += 1;
            // Through a group that was entered as a whole nothing is read; the next one is, for some items.
            for _ in 0..stops.next().unwrap() {
                match reader.next(&frame) {
                    Some(Item::Group(_)) => groups += 1,
                    Some(Item::Damaged(damage)) => prop_assert!(false, "{:?}", damage),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        prop_assert_eq!(groups, usize::from(reader.header().groups));
    }

    /// Nothing of a frame depends on what the reader and the writer did before.
    #[test]
    fn they_can_be_reused(frames in vec((any_parts(6), any_format()), 1..6), noise in vec(any::<u8>(), 0..300)) {
        let (mut reader, mut writer) = (Reader::default(), Writer::new(65_535, 0));
        for (parts, format) in &frames {
            let noise = [&[0x12, 0, 0, 200, 9, 0, 0, 0, 0, 60, 0, 3][..], &noise].concat();
            let _ = reader.begin(&noise, 0, &limits(true));
            reader.next(&noise);
            let (frame, n) = write(&mut writer, format, parts, 64);
            let found = read(&mut reader, &frame, &limits(true), 3).unwrap();
            prop_assert_eq!(found.packets, wanted(&parts[..n]).packets);
        }
    }

    /// Any bytes at all, behind a header that is good enough to go on: never a panic, never more packets or bytes than there are, and a bounded
    /// number of items.
    #[test]
    fn any_bytes_are_survived(
        body in vec(any::<u8>(), 0..600),
        groups in any::<u8>(),
        flags in prop_oneof![Just(0_u8), Just(0x20)],
        lens in vec((0_u16..40, 0_u16..9, prop_oneof![Just(0_u8), Just(0x40), any::<u8>()], 0_u16..4), 0..8),
        fast in 0_usize..5,
    ) {
        let mut body = body;
        // Sometimes there is something like a group header where one is looked for.
        let mut at = 0;
        for (words, packets, flags, tlvs) in lens {
            let header = [(words * 4).to_be_bytes(), packets.to_be_bytes(), [0, 1], [0, 2], [flags, 3], tlvs.to_be_bytes()];
            let header = header.concat();
            if let Some(to) = body.get_mut(at..at + 12) {
                to.copy_from_slice(&header);
            }
            at += usize::from(words) * 4;
        }
        let words = if flags == 0 { 0x12 } else { 0x13 };
        let len = u16::try_from(8 + body.len()).unwrap().to_be_bytes();
        let frame = [&[words, flags, len[0], len[1], groups, 0, 0, 0], &body[..]].concat();
        let limits = Limits { foreign_tlvs: true, ..limits(false) };
        if let Ok(found) = read(&mut Reader::default(), &frame, &limits, fast) {
            let bytes: usize = found.packets.iter().map(|sent| sent.bytes.len().saturating_sub(14)).sum();
            prop_assert!(bytes <= frame.len());
            prop_assert!(found.packets.len() + found.damage.len() + found.tlvs.len() <= frame.len());
        }
    }

    /// A source that ends early, or says that it is longer than it can be read.
    #[test]
    fn a_source_that_fails_costs_the_rest(parts in any_parts(12), format in any_format(), at in 0_usize..6000) {
        struct Short<'a>(&'a [u8], usize);
        impl Source for Short<'_> {
            fn len(&self) -> usize {
                self.1
            }
            fn read(&self, at: usize, to: &mut [u8]) -> usize {
                self.0.read(at, to)
            }
        }
        let (frame, n) = write(&mut Writer::new(65_535, 0), &format, &parts, 64);
        let at = at.min(frame.len());
        let mut reader = Reader::default();
        let found = reader.begin(&Short(&frame[..at], frame.len()), 0, &limits(false));
        if found.is_err() {
            prop_assert!(at < 8);
            return Ok(());
        }
        let (mut packets, mut unreadable) = (0, 0);
        while let Some(item) = reader.next(&Short(&frame[..at], frame.len())) {
            match item {
                Item::Packet(_) => packets += 1,
                Item::Damaged(damage) => {
                    prop_assert_eq!(damage.cause, Cause::Unreadable);
                    unreadable += 1;
                }
                _ => {}
            }
        }
        let all = wanted(&parts[..n]).packets.len();
        prop_assert!(unreadable <= 1 && packets <= all);
        prop_assert!(unreadable == 1 || packets == all);
    }
}

/// Decision 26: TLVs that are not allowed are taken out; and all limits.
#[test]
fn decision_26_what_is_beyond_the_limits_is_counted() {
    let key = |destination| aggregation::GroupKey { origin: 1, destination, class: 0 };
    let mut writer = Writer::new(9000, 0);
    let format = Format { max_bytes: 9000, max_packets: 99, stage: 1, check: false, group_crc: false, template: false };
    writer.begin(&format);
    for destination in 1..=3 {
        assert!(writer.begin_group(key(destination), &[(9, &[0; 16])]));
        for _ in 0..4 {
            assert!(writer.push(key(destination), &[7; 60], 0, |_| (), &aggregation::Meta::NONE));
        }
    }
    let frame = writer.finish(0).to_vec();
    let read = |limits: &Limits| {
        let found = read(&mut Reader::default(), &frame, limits, 2)?;
        Ok((found.packets.len(), found.damage))
    };
    let all = Limits { tlv_bytes: 20, tlvs: TlvSet::NONE.with(9), ..Limits::NONE };
    assert_eq!(read(&all), Ok((12, vec![])));
    assert_eq!(read(&Limits { tlvs: TlvSet::NONE, ..all }), Ok((12, vec![(Cause::TlvRemoved, 0); 3])));
    assert_eq!(read(&Limits { tlv_bytes: 11, ..all }), Ok((0, vec![(Cause::TlvTooLong, 4); 3])));
    assert_eq!(read(&Limits { groups: 2, ..all }), Ok((8, vec![(Cause::TooManyGroups, 0)])));
    assert_eq!(read(&Limits { packets: 11, ..all }), Ok((8, vec![(Cause::TooManyPackets, 4)])));
    assert_eq!(read(&Limits { frame: frame.len(), ..all }), Ok((12, vec![])));
    assert_eq!(read(&Limits { frame: frame.len() - 1, ..all }), Err(Cause::FrameLength));
    assert_eq!(read(&Limits { check_required: true, ..all }), Err(Cause::HeaderCheck));
}

/// KA-7: what a later version appends to headers, extensions and reserved flags is skipped.
#[test]
fn ka_7_what_is_not_known_is_skipped() {
    let frame = [
        &[0x15, 0x0f, 0, 100, 1, 9, 0, 0][..],
        &[0xee; 12],                               // three header words more
        &[0, 80, 0, 2, 0, 1, 0, 2, 0x9b, 5, 0, 2], // a uniform group of class 3, reserved flags, two header words more
        &[0xee; 8],
        &[0x2a, 0, 0, 4, 1, 2, 3, 4], // an unknown TLV
        &[0, 14, 0x27, 3, 0, 0, 0, 9, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee], // a flow id and two words more
        &[1; 14],
        &[0, 0],
        &[0, 14, 0x07, 0], // reserved flags only
        &[2; 14],
        &[0, 0],
    ]
    .concat();
    let found = read(&mut Reader::default(), &frame, &Limits::NONE, 0).unwrap();
    let bytes: Vec<_> = found.packets.iter().map(|sent| (sent.bytes[0], sent.bytes.len(), sent.meta.flow)).collect();
    assert_eq!(bytes, [(1, 14, Some(9)), (2, 14, None)]);
    assert_eq!(found.damage, [(Cause::TlvRemoved, 0)]);
}

/// Frames in frames are bytes.
#[test]
fn a_frame_in_a_frame_is_a_packet() {
    let format = Format { max_bytes: 9000, max_packets: 99, stage: 1, check: false, group_crc: false, template: false };
    let mut writer = Writer::new(9000, 0);
    let mut inner = vec![0; 14];
    for _ in 0..5 {
        writer.begin(&format);
        assert!(writer.push(aggregation::GroupKey::default(), &inner, 0, |_| (), &aggregation::Meta::NONE));
        let frame = writer.finish(0).to_vec();
        let found = read(&mut Reader::default(), &frame, &Limits::NONE, 0).unwrap();
        assert_eq!(found.packets.len(), 1);
        assert_eq!(found.packets[0].bytes, inner);
        inner = [&[0; 12][..], &[0x88, 0xb5], &frame].concat();
    }
}
