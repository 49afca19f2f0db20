// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tests of this directory share: what a frame is to hold, as a value; frames made of it; and what a reader finds.

use aggregation::{
    Cause, Checksum, Format, GroupKey, Gso, GsoKind, Item, Limits, Meta, Reader, Source, TlvSet, Writer,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A packet and what travels with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) key: GroupKey,
    pub(crate) bytes: Vec<u8>,
    pub(crate) meta: Meta,
}

/// What a frame is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Packet(Sent),
    /// A group begins with these TLVs.
    Tlvs(GroupKey, Vec<(u8, Vec<u8>)>),
}

/// TLV types that tests use: critical and not, *consume* and *follow*.
pub(crate) const KINDS: [u8; 4] = [0x3f, 0x7e, 0xbd, 0xfc];

pub(crate) fn limits(verify: bool) -> Limits {
    let tlvs = KINDS.iter().fold(TlvSet::NONE, |set, kind| set.with(*kind));
    Limits { tlv_bytes: 4000, tlvs, verify, ..Limits::NONE }
}

pub(crate) fn any_key() -> impl Strategy<Value = GroupKey> {
    (0_u16..3, 0_u16..3, 0_u8..2).prop_map(|(origin, destination, class)| GroupKey { origin, destination, class })
}

pub(crate) fn any_meta() -> impl Strategy<Value = Meta> {
    let kind = prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::Udp)];
    let gso = (kind, any::<bool>(), 1..=u16::MAX, any::<u16>());
    let gso = gso.prop_map(|(kind, ecn, size, header_len)| Gso { kind, ecn, size, header_len });
    let unfinished = (0_u16..6, 0_u16..6).prop_map(|(start, offset)| Checksum::Unfinished { start, offset });
    let checksum = prop_oneof![
        Just((Checksum::Unknown, None)),
        Just((Checksum::Verified, None)),
        (unfinished, proptest::option::of(gso)),
    ];
    let parts = (checksum, proptest::option::of(any::<u32>()));
    let some = parts.prop_map(|((checksum, gso), flow)| Meta { checksum, gso, flow });
    prop_oneof![3 => Just(Meta::NONE), 1 => some]
}

/// A packet with one of a few Ethernet headers, so that runs occur, or with bytes all over.
pub(crate) fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![10 => 14_usize..90, 2 => 200_usize..300, 1 => 300_usize..3000];
    (len, 0_u8..2, any::<u8>()).prop_map(|(len, station, fill)| {
        let mut bytes: Vec<u8> = (0..len).map(|i| fill.wrapping_add(i.to_le_bytes()[0].wrapping_mul(7))).collect();
        bytes[..14].fill(station);
        bytes
    })
}

pub(crate) fn any_parts(most: usize) -> impl Strategy<Value = Vec<Part>> {
    let tlv = (proptest::sample::select(&KINDS), vec(any::<u8>(), 0..30));
    let packets = (any_key(), vec((any_packet(), any_meta()), 1..12));
    let part = prop_oneof![
        5 => packets.prop_map(|(key, packets)| {
            packets.into_iter().map(|(bytes, meta)| Part::Packet(Sent { key, bytes, meta })).collect()
        }),
        1 => (any_key(), vec(tlv, 0..4)).prop_map(|(key, tlvs)| vec![Part::Tlvs(key, tlvs)]),
    ];
    vec(part, 0..most).prop_map(|parts: Vec<Vec<Part>>| parts.concat())
}

pub(crate) fn any_format() -> impl Strategy<Value = Format> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(check, group_crc, template)| Format {
        max_bytes: 65_535,
        max_packets: 100_000,
        stage: 2,
        check,
        group_crc,
        template,
    })
}

/// The frame that holds as many of the parts as fit, and how many those are. Of each packet `split` bytes are the head.
pub(crate) fn write(writer: &mut Writer, format: &Format, parts: &[Part], split: usize) -> (Vec<u8>, usize) {
    writer.begin(format);
    let mut n = 0;
    for part in parts {
        let done = match part {
            Part::Packet(sent) => {
                let (head, tail) = sent.bytes.split_at(sent.bytes.len().min(split.max(14)));
                writer.push(sent.key, head, tail.len(), |to| to.copy_from_slice(tail), &sent.meta)
            }
            Part::Tlvs(key, tlvs) => {
                let tlvs: Vec<_> = tlvs.iter().map(|(kind, data)| (*kind, data.as_slice())).collect();
                writer.begin_group(*key, &tlvs)
            }
        };
        if !done {
            break;
        }
        n += 1;
    }
    (writer.finish(77).to_vec(), n)
}

/// What a reader found in a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) packets: Vec<Sent>,
    pub(crate) tlvs: Vec<(GroupKey, u8, Vec<u8>)>,
    pub(crate) damage: Vec<(Cause, u32)>,
    /// Of each group that was entered: key, packets that it says, template.
    pub(crate) groups: Vec<(GroupKey, u16, bool)>,
}

/// Reads all; `fast` says how many plain packets to take at once between two calls of `next`.
pub(crate) fn read<S: Source + ?Sized>(
    reader: &mut Reader,
    source: &S,
    limits: &Limits,
    fast: usize,
) -> Result<Found, Cause> {
    reader.begin(source, 0, limits)?;
    let mut found = Found::default();
    let mut key = GroupKey::default();
    loop {
        let plain = |head: &mut [u8]| found.packets.push(Sent { key, bytes: head.to_vec(), meta: Meta::NONE });
        reader.plain(fast, plain);
        let Some(item) = reader.next(source) else { break };
        match item {
            Item::Group(group) => {
                key = GroupKey { origin: group.origin, destination: group.destination, class: group.class };
                found.groups.push((key, group.packets, group.template));
            }
            Item::Tlv { kind, data } => found.tlvs.push((key, kind, data.to_vec())),
            Item::Packet(packet) => {
                let mut bytes = packet.head.to_vec();
                bytes.resize(packet.len as usize, 0);
                let n = packet.head.len();
                if n < bytes.len() {
                    assert_eq!(source.read(packet.rest_at, &mut bytes[n..]), packet.len as usize - n);
                }
                found.packets.push(Sent { key, bytes, meta: packet.meta });
            }
            Item::Damaged(damage) => found.damage.push((damage.cause, damage.packets)),
        }
    }
    Ok(found)
}
