// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets put together, as a CNF does that is aware.

use aggregation::{Format, GroupKey, Item as Part, Limits, Meta, Reader, Writer};

use super::source::Item;

/// The type of aggregates.
pub(super) const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Bytes before the first sub-frame: Ethernet header, common header, group header.
const FRONT: usize = 14 + 8 + 12;
/// Bytes of a sub-frame's header.
const SUBFRAME: usize = 4;

/// Puts packets together, each with its flow and its frame, in frames of at most so many bytes.
pub(super) fn bundles<'a>(packets: impl Iterator<Item = (usize, &'a Box<[u8]>)>, bytes: usize) -> Vec<Item> {
    let format =
        Format { max_bytes: bytes, max_packets: u32::MAX, stage: 1, check: false, group_crc: false, template: false };
    let mut writer = Writer::new(bytes, 14);
    writer.begin(&format);
    let (mut items, mut places, mut at) = (Vec::new(), Vec::new(), FRONT);
    let mut end = |writer: &mut Writer, places: &mut Vec<(usize, usize)>| {
        let frame = writer.finish_with_room(0);
        if let Some(header) = frame.first_chunk_mut::<14>() {
            *header = [2, 0x53, 0x48, 0x55, 0x4e, 0x54, 2, 0x53, 0x48, 0x55, 0x4e, 0x43, ETHER_TYPE[0], ETHER_TYPE[1]];
        }
        items.push(Item { bytes: (&*frame).into(), packets: std::mem::take(places).into() });
        writer.begin(&format);
    };
    for (flow, frame) in packets {
        if !writer.push(GroupKey::default(), frame, 0, |_| {}, &Meta::NONE) {
            end(&mut writer, &mut places);
            at = FRONT;
            writer.push(GroupKey::default(), frame, 0, |_| {}, &Meta::NONE);
        }
        places.push((at + SUBFRAME, flow));
        at += SUBFRAME + frame.len().next_multiple_of(4);
    }
    if !places.is_empty() {
        end(&mut writer, &mut places);
    }
    items
}

/// Gives each packet of a frame to `with`: the frame itself, or what it was put together from. For what is damaged no bytes:
/// that is not what was sent.
#[inline]
pub(super) fn packets(reader: &mut Reader, frame: &[u8], mut with: impl FnMut(&[u8])) {
    if frame.get(12..14) != Some(&ETHER_TYPE) {
        return with(frame);
    }
    if reader.begin(frame, 14, &Limits::NONE).is_err() {
        return with(&[]);
    }
    loop {
        reader.plain(usize::MAX, |packet| with(packet));
        match reader.next(frame) {
            Some(Part::Packet(packet)) => {
                let rest =
                    frame.get(packet.rest_at..).and_then(|rest| rest.get(..packet.len as usize - packet.head.len()));
                match rest {
                    Some([]) => with(packet.head),
                    Some(rest) => with(&[&*packet.head, rest].concat()),
                    None => with(&[]),
                }
            }
            Some(Part::Damaged(_)) => with(&[]),
            Some(Part::Group(_) | Part::Tlv { .. }) => {}
            None => return,
        }
    }
}
