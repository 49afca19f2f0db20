// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets cut into fragments, which what the parser says of them is enough to put together again.

use proptest::{collection::vec, prelude::*};

use super::{
    parse_whole,
    stack::{Body, Group, Ip, L4, Link, Piece, Stack},
};
use crate::{Field, Fragment};

const PROTOCOL: u8 = 17;

fn whole(v6: bool, id: u32, payload: Vec<u8>) -> Ip {
    Ip {
        v6,
        source: 0x2001_0db8_0000_0000_0000_0000_0a00_0001,
        destination: 0x2001_0db8_0000_0000_0000_0000_0a00_0002,
        tos: 0,
        ttl: 64,
        id,
        options: Vec::new(),
        extensions: [Vec::new(), Vec::new()],
        piece: Piece::Whole,
        l4: L4::Udp { ports: [1000, 53] },
        payload,
    }
}

fn frame(ip: Ip) -> Vec<u8> {
    let link = Link { destination: [2; 6], source: [4; 6], tags: Vec::new() };
    Stack { outer: None, inner: Group { link: Some(link), body: Body::Ip(ip) }, padding: 0 }.build().bytes
}

/// The fragments of a packet, each with so many units of eight bytes, by RFC 791, 3.2, and RFC 8200, 4.5.
fn fragments(ip: &Ip, units: &[usize]) -> Vec<Vec<u8>> {
    let bytes = frame(ip.clone());
    let header = 14 + if ip.v6 { 40 } else { 20 };
    let (header, mut rest) = bytes.split_at(header);
    let mut all = Vec::new();
    let (mut offset, mut units) = (0_usize, units.iter().cycle());
    while !rest.is_empty() {
        let (part, after) = rest.split_at((units.next().unwrap() * 8).min(rest.len()));
        let more = u16::from(!after.is_empty());
        let mut fragment = header.to_vec();
        let eights = u16::try_from(offset / 8).unwrap();
        if ip.v6 {
            fragment[14 + 6] = 44;
            fragment.extend([PROTOCOL, 0]);
            fragment.extend((eights << 3 | more).to_be_bytes());
            fragment.extend(ip.id.to_be_bytes());
        } else {
            fragment[14 + 6..14 + 8].copy_from_slice(&(eights | more << 13).to_be_bytes());
        }
        fragment.extend(part);
        let len = u16::try_from(fragment.len() - 14 - if ip.v6 { 40 } else { 0 }).unwrap();
        let at = if ip.v6 { 18 } else { 16 };
        fragment[at..at + 2].copy_from_slice(&len.to_be_bytes());
        // Of Ethernet, which is no part of it.
        fragment.resize(fragment.len().max(60), 0xee);
        all.push(fragment);
        (offset, rest) = (offset + part.len(), after);
    }
    all
}

proptest! {
    #[test]
    fn fragments_can_be_put_together(
        v6: bool,
        id: u32,
        payload in vec(any::<u8>(), 0..2000),
        units in vec(1_usize..40, 1..6),
        order: u64,
    ) {
        let ip = whole(v6, id, payload);
        let sent = frame(ip.clone());
        let at = 14 + if v6 { 40 } else { 20 };
        let mut all = fragments(&ip, &units);
        let count = all.len();
        all.rotate_left(usize::try_from(order % 7).unwrap() % count);

        let (mut together, mut total) = (vec![None; sent.len() - at], None);
        for bytes in all {
            let parsed = parse_whole(&bytes).unwrap();
            let (layout, transient) = (parsed.layout, parsed.transient);
            let offset = usize::from(transient.fragment_offset);
            let kind = match (offset, transient.more_fragments) {
                (0, false) => Fragment::Whole,
                (0, true) => Fragment::First,
                _ => Fragment::Later,
            };
            prop_assert_eq!(parsed.ufid.get(Field::Fragment), kind as u128);
            prop_assert_eq!(parsed.ufid.get(Field::IpProto), u128::from(PROTOCOL));
            prop_assert_eq!(layout.transport.is_some(), offset == 0);
            prop_assert_eq!(layout.fragment_header, v6.then_some(54));
            prop_assert_eq!(transient.ip_id, if v6 { id } else { id & 0xffff });
            let start = usize::from(layout.transport.unwrap_or(layout.end));
            let header = if layout.transport.is_some() { 8 } else { 0 };
            let end = start + header + usize::try_from(transient.l4_payload_len).unwrap();
            for (slot, byte) in together[offset..].iter_mut().zip(&bytes[start..end]) {
                prop_assert!(slot.replace(*byte).is_none(), "twice");
            }
            if !transient.more_fragments {
                total = Some(offset + end - start);
            }
        }
        prop_assert_eq!(total, Some(sent.len() - at));
        let together: Option<Vec<_>> = together.into_iter().collect();
        prop_assert_eq!(together.as_deref(), Some(&sent[at..]));
    }
}
