// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregate frames of any bytes, read, written again and spliced; control frames of any bytes, answered.

use aggregation::negotiation::{Announce, Config, Control, Features, Link, MAX_CONTROL, Message, Reason};
use aggregation::{
    Format, GroupKey, Item, Limits, Meta, Offer, Piece, Reader, Scattered, Source, Splice, TlvSet, Writer,
};

use crate::input::Input;

/// The first two bytes say how to read, and where the frame is cut in two; the rest is the frame.
///
/// # Panics
/// If reading panics, if more comes out than went in, or if what is written of what was read is not read as the same.
pub fn aggregate(data: &[u8]) {
    let Some((&[how, cut], bytes)) = data.split_first_chunk::<2>() else { return };
    let limits = Limits {
        tlv_bytes: 512,
        tlvs: TlvSet::NONE.with(2).with(0x44),
        foreign_tlvs: how & 1 != 0,
        verify: how & 2 != 0,
        check_required: how & 4 != 0,
        ..Limits::NONE
    };
    let (front, back) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let source = &Scattered(&[front, back]);
    let mut reader = Reader::new(usize::from(how) << 3);
    let Ok(header) = reader.begin(source, 0, &limits) else { return };
    assert!(header.len <= bytes.len());
    let format =
        Format { max_bytes: 65_535, max_packets: 70_000, stage: 2, check: true, group_crc: true, template: true };
    let mut writer = Writer::new(65_535, 0);
    writer.begin(&format);
    let (packets, written) = rewrite(&mut reader, source, usize::from(how >> 5), &mut writer);
    assert!(packets <= bytes.len() / 4);
    let frame = writer.finish(7).to_vec();
    let all = Limits { verify: true, check_required: true, ..Limits::NONE };
    assert!(reader.begin(&frame, 0, &all).is_ok(), "what was written is refused");
    let mut found = 0;
    while let Some(item) = reader.next(&frame) {
        match item {
            Item::Packet(_) => found += 1,
            Item::Damaged(damage) => panic!("what was written is damaged: {damage:?}"),
            Item::Group(_) | Item::Tlv { .. } => {}
        }
    }
    assert_eq!(found, written);
    splice(&mut reader, source, &limits, &format);
}

/// Writes what a frame holds into another. How many packets there were, and how many found room.
fn rewrite<S: Source + ?Sized>(reader: &mut Reader, source: &S, fast: usize, writer: &mut Writer) -> (usize, usize) {
    let (mut packets, mut written) = (0, 0);
    let mut key = GroupKey::default();
    loop {
        let mut push = |head: &mut [u8]| {
            packets += 1;
            written += usize::from(writer.push(key, head, 0, |_| (), &Meta::NONE));
        };
        reader.plain(fast, &mut push);
        if let Some(run) = reader.run(fast) {
            assert!(run.iter().count() == usize::from(run.packets()) && run.iter().all(|head| head.len() >= 14));
            packets += usize::from(run.packets());
            written += if writer.push_run(key, run.bytes(), run.packets()) { usize::from(run.packets()) } else { 0 };
        }
        match reader.next(source) {
            Some(Item::Group(group)) => {
                key = GroupKey { origin: group.origin, destination: group.destination, class: group.class };
            }
            Some(Item::Packet(packet)) => {
                packets += 1;
                let rest = packet.len as usize - packet.head.len();
                let tail = |to: &mut [u8]| assert_eq!(source.read(packet.rest_at, to), to.len());
                written += usize::from(writer.push(key, packet.head, rest, tail, &packet.meta));
            }
            Some(Item::Tlv { .. } | Item::Damaged(_)) => {}
            None => return (packets, written),
        }
    }
}

fn splice<S: Source + ?Sized>(reader: &mut Reader, source: &S, limits: &Limits, format: &Format) {
    if reader.begin(source, 0, limits).is_err() {
        return;
    }
    let mut splice = Splice::new();
    splice.begin(format);
    while let Some(group) = reader.next_group(source) {
        if let Ok(mut group) = group {
            group.readdress(1, 2);
            splice.push(group.bytes, group.header.len - group.bytes.len());
        }
    }
    let len = splice.len();
    let pieces = splice.finish(1).map(|piece| match piece {
        Piece::Header(bytes) => bytes.len(),
        Piece::Body(len) => *len,
    });
    assert_eq!(pieces.sum::<usize>(), len);
}

/// The bytes are control frames for one station: of each, one byte says from whom and of what form it is, and then come its fields, few values of each,
/// or as many bytes as are left of 64. Check words are put right, since no random bytes have right ones.
///
/// # Panics
/// If the station panics, has more peers than it may have, or does not come to rest.
pub fn aggregate_control(data: &[u8]) {
    let (announce, max_peers) = (Announce::Group(255), 3);
    let config = Config { node: 1, session: 1, offer: OFFER, name: vec![b'f'], announce, max_peers };
    let mut link = Link::new(config, 0);
    let (mut input, mut now) = (Input(data), 0);
    while !input.is_empty() {
        let form = input.u8();
        let from = form & 7;
        let frame = if form & 0x80 == 0 { control(&mut input) } else { noise(&mut input) };
        let _ = link.handle(from, &frame, now, |_| ());
        now += u64::from(input.u8()) << 22;
        link.tick(now, |_| ());
        let mut to = [0; MAX_CONTROL];
        let mut sent = 0;
        while link.poll_transmit(now, &mut to).is_some() {
            sent += 1;
            assert!(sent < 20, "it does not stop speaking");
        }
        assert!(link.peers().count() <= max_peers && link.timeout().is_some());
    }
}

const OFFER: Offer = Offer {
    versions: (1, 1),
    encapsulations: 1,
    align_log2: 2,
    max_bytes: 9000,
    max_packets: 256,
    features: Features(0x3f),
    keepalive_ms: 100,
};

/// A good control frame that may be out of place.
fn control(input: &mut Input<'_>) -> Vec<u8> {
    let fields = input.u16();
    let control = Control {
        message: [Message::Hello, Message::HelloAck, Message::Keepalive, Message::Bye][usize::from(fields & 3)],
        node: fields >> 2 & 3,
        session: u32::from(fields >> 4 & 3),
        peer_session: u32::from(fields >> 6 & 3),
        offer: (fields & 0x100 != 0).then_some(Offer { encapsulations: fields.to_be_bytes()[0] >> 5, ..OFFER }),
        name: &[],
        reason: (fields & 0x200 != 0).then_some(Reason::from_code(input.u8())),
    };
    let mut to = [0; MAX_CONTROL];
    let len = control.write(0, &mut to);
    to[..len].to_vec()
}

fn noise(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = vec![0x13, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let n = input.u8() & 63;
    frame.extend((0..n).map(|_| input.u8()));
    frame[3] = 12 + n;
    let word = crc32c::crc32c(&frame).to_be_bytes();
    frame.splice(8..12, word);
    frame
}
