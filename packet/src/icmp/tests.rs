// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An error about a rewritten packet against the same error built anew about the new packet, byte for byte;
//! and what is built against an independent parser.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    Checksum, DropCause, WINDOW,
    parse::{
        parse,
        tests::{
            stack::{Body, Group, Ip, L4, Link, Outer, Piece, Stack},
            strategy::{group, stack},
        },
    },
};

/// A packet, and an error about it that quotes so many of its bytes.
#[derive(Clone, Debug)]
struct Scene {
    /// Its inner packet is the error, the payload of which is replaced.
    around: Stack,
    quoted: Ip,
    cut: Index,
}

fn ip() -> impl Strategy<Value = Ip> {
    group().prop_filter_map("IP is quoted", |group| match group.body {
        Body::Ip(ip) => Some(ip),
        _ => None,
    })
}

fn scene() -> impl Strategy<Value = Scene> {
    let seen = stack().prop_filter("the error is seen", |stack| stack.outer.as_ref().is_none_or(Outer::is_visible));
    (seen, ip(), any::<Index>(), any::<[bool; 2]>()).prop_map(|(mut around, quoted, cut, [code, atomic])| {
        let mut error = Ip {
            v6: quoted.v6,
            source: 0x2001_0db8_0000_0000_0000_0000_0a00_0001,
            destination: 0x2001_0db8_0000_0000_0000_0000_0a00_0002,
            tos: 0,
            ttl: 64,
            id: 1,
            options: Vec::new(),
            extensions: [Vec::new(), Vec::new()],
            piece: Piece::Whole,
            l4: L4::Icmp { kind: if quoted.v6 { 1 } else { 3 }, code: u8::from(code), id: 0x1234 },
            payload: Vec::new(),
        };
        if let Body::Ip(ip) = &around.inner.body {
            (error.options, error.extensions) = (ip.options.clone(), ip.extensions.clone());
        }
        if let Some(link) = &mut around.inner.link {
            link.tags.truncate(2);
        }
        error.piece = if atomic { Piece::Atomic } else { Piece::Whole };
        around.inner.body = Body::Ip(error);
        Scene { around, quoted, cut }
    })
}

/// The bytes of a packet alone.
fn packet(ip: &Ip) -> Vec<u8> {
    let link = Link { destination: [2; 6], source: [4; 6], tags: Vec::new() };
    let inner = Group { link: Some(link), body: Body::Ip(ip.clone()) };
    Stack { outer: None, inner, padding: 0 }.build().bytes.split_off(14)
}

impl Scene {
    /// The frame of the error about a packet.
    fn frame(&self, quoted: &Ip) -> Vec<u8> {
        let bytes = packet(quoted);
        let len = self.cut.index(bytes.len() + 1);
        let mut stack = self.around.clone();
        let Body::Ip(error) = &mut stack.inner.body else { panic!("not IP") };
        error.payload = bytes[..len].to_vec();
        stack.build().bytes
    }
}

fn parsed(frame: &[u8]) -> Option<Parsed> {
    parse(frame, u32::try_from(frame.len()).unwrap()).ok()
}

/// Where the transport header of a packet lies, behind its headers.
fn transport_of(ip: &Ip) -> usize {
    let l4 = match &ip.l4 {
        L4::Tcp { options, .. } => 20 + 4 * options.len(),
        L4::Udp { .. } | L4::Icmp { .. } => 8,
        L4::Other { .. } => 0,
    };
    packet(ip).len() - ip.payload.len() - l4
}

fn is_echo(ip: &Ip) -> bool {
    matches!((&ip.l4, ip.v6), (L4::Icmp { kind: 0 | 8, .. }, false) | (L4::Icmp { kind: 128 | 129, .. }, true))
}

/// How much of a transport header must be there, and where its checksum is.
fn least(ip: &Ip) -> (usize, Option<usize>) {
    match ip.l4 {
        L4::Tcp { .. } => (4, Some(16)),
        L4::Udp { .. } => (4, Some(6)),
        L4::Icmp { .. } => (8, Some(2)),
        L4::Other { .. } => (0, None),
    }
}

fn address(v6: bool, bits: u128) -> IpAddr {
    if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32).into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_quoted_is_found(scene in scene()) {
        let frame = scene.frame(&scene.quoted);
        let parsed = parsed(&frame).unwrap();
        let found = embedded(&frame, &parsed);
        let ip = &scene.quoted;
        let len = scene.cut.index(packet(ip).len() + 1);
        let later = matches!(ip.piece, Piece::Later { .. });
        // Of a later fragment nothing is quoted that has ports.
        if later {
            prop_assert_eq!(found, None);
            return Ok(());
        }
        let (need, _) = least(ip);
        let at = transport_of(ip);
        if len < at + need {
            prop_assert_eq!(found, None);
            return Ok(());
        }
        let found = found.unwrap();
        prop_assert_eq!(found.src, address(ip.v6, ip.source));
        prop_assert_eq!(found.dst, address(ip.v6, ip.destination));
        let quote = usize::from(parsed.layout.transport.unwrap()) + 8;
        prop_assert_eq!(usize::from(found.ip), quote);
        prop_assert_eq!(usize::from(found.transport), quote + at);
        let (ports, proto) = match &ip.l4 {
            L4::Tcp { ports, .. } => (*ports, 6),
            L4::Udp { ports } => (*ports, 17),
            L4::Icmp { kind, code, id } => {
                let id = if is_echo(ip) { *id } else { 0 };
                ([id, u16::from_be_bytes([*kind, *code])], if ip.v6 { 58 } else { 1 })
            }
            L4::Other { protocol } => ([0; 2], *protocol),
        };
        prop_assert_eq!(([found.src_port, found.dst_port], found.proto), (ports, proto));
    }

    /// With every packet whole, within the window of a burst or all of it.
    #[test]
    fn a_rewritten_error_is_that_about_the_new_packet(
        scene in scene(),
        new: (Option<u128>, Option<u128>, Option<u16>, Option<u16>),
        narrow: bool,
    ) {
        let ip = &scene.quoted;
        prop_assume!(matches!(ip.piece, Piece::Whole | Piece::Atomic));
        let before = scene.frame(ip);
        let window = if narrow { before.len().min(WINDOW) } else { before.len() };
        let Ok(parsed) = parse(&before[..window], u32::try_from(before.len()).unwrap()) else { return Ok(()) };
        let Some(found) = embedded(&before[..window], &parsed) else { return Ok(()) };
        let mut edit = EmbeddedEdit {
            src: new.0.map(|bits| address(ip.v6, bits)),
            dst: new.1.map(|bits| address(ip.v6, bits)),
            src_port: new.2,
            dst_port: new.3,
        };
        let mut wanted = ip.clone();
        wanted.source = new.0.unwrap_or(ip.source);
        wanted.destination = new.1.unwrap_or(ip.destination);
        let echo = is_echo(ip);
        match &mut wanted.l4 {
            L4::Tcp { ports, .. } | L4::Udp { ports } => {
                *ports = [new.2.unwrap_or(ports[0]), new.3.unwrap_or(ports[1])];
            }
            L4::Icmp { id, .. } if echo => {
                *id = new.2.unwrap_or(*id);
                edit.dst_port = None;
            }
            _ => (edit.src_port, edit.dst_port) = (None, None),
        }
        let quote_len = scene.cut.index(packet(ip).len() + 1);
        let at = transport_of(ip);
        let (_, sum) = least(ip);
        // Half a checksum is none.
        prop_assume!(sum.is_none_or(|sum| quote_len != at + sum + 1));

        let mut after = before.clone();
        let result = rewrite_embedded(&mut after[..window], &found, &edit, Checksum::Unknown);
        let sum_beyond = sum.is_some_and(|sum| {
            let end = usize::from(found.transport) + sum + 2;
            quote_len >= at + sum + 2 && end > window
        });
        if sum_beyond {
            prop_assert_eq!(result, Err(DropCause::HeaderBeyondWindow));
        } else {
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(after, scene.frame(&wanted));
        }
    }

    #[test]
    fn no_bytes_are_dangerous(
        scene in scene(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        cut: Index,
        new: (u128, u16),
    ) {
        let mut frame = scene.frame(&scene.quoted);
        let before = parsed(&frame);
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len() + 1));
        // Also with the places of another frame.
        for parsed in [parsed(&frame), before].into_iter().flatten() {
            let Some(found) = embedded(&frame, &parsed) else { continue };
            prop_assert!(usize::from(found.transport) <= frame.len());
            let edit = EmbeddedEdit {
                src: Some(address(found.src.is_ipv6(), new.0)),
                src_port: Some(new.1),
                ..EmbeddedEdit::default()
            };
            let len = frame.len();
            let _ = rewrite_embedded(&mut frame, &found, &edit, Checksum::Unknown);
            prop_assert_eq!(frame.len(), len);
            let _ = too_big(&frame, &parsed, 1400, address(found.src.is_ipv6(), 0x0a00_0001));
        }
    }
}

fn tcp(v6: bool) -> Ip {
    Ip {
        v6,
        source: 0x2001_0db8_0000_0000_0000_0000_0a00_0002,
        destination: 0x2001_0db8_0000_0000_0000_0000_0a00_0003,
        tos: 0,
        ttl: 64,
        id: 1,
        options: Vec::new(),
        extensions: [Vec::new(), Vec::new()],
        piece: Piece::Whole,
        l4: L4::Tcp { ports: [1000, 80], seq: 1, ack: 2, flags: 0x10, options: Vec::new() },
        payload: vec![7; 1400],
    }
}

fn framed(ip: Ip, destination: [u8; 6], tags: Vec<(u16, u16)>) -> Vec<u8> {
    let link = Link { destination, source: [4; 6], tags };
    let inner = Group { link: Some(link), body: Body::Ip(ip) };
    Stack { outer: None, inner, padding: 0 }.build().bytes
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let mut frame = framed(
        Ip { l4: L4::Icmp { kind: 3, code: 0, id: 0 }, payload: packet(&tcp(false))[..28].to_vec(), ..tcp(false) },
        [2; 6],
        Vec::new(),
    );
    let found = embedded(&frame, &parsed(&frame).unwrap()).unwrap();
    let v6 = EmbeddedEdit { src: Some("fd00::1".parse().unwrap()), ..EmbeddedEdit::default() };
    assert_eq!(
        rewrite_embedded(&mut frame, &found, &v6, Checksum::Unknown),
        Err(DropCause::Untransposable),
        "another version"
    );
    let esp = Ip { l4: L4::Other { protocol: 50 }, ..tcp(false) };
    let mut frame = framed(
        Ip { l4: L4::Icmp { kind: 3, code: 0, id: 0 }, payload: packet(&esp)[..28].to_vec(), ..tcp(false) },
        [2; 6],
        Vec::new(),
    );
    let found = embedded(&frame, &parsed(&frame).unwrap()).unwrap();
    let port = EmbeddedEdit { src_port: Some(1), ..EmbeddedEdit::default() };
    assert_eq!(rewrite_embedded(&mut frame, &found, &port, Checksum::Unknown), Err(DropCause::Untransposable));
}

#[test]
fn a_checksum_left_unfinished_stays_so() {
    for v6 in [false, true] {
        let kind = if v6 { 1 } else { 3 };
        let error = Ip { l4: L4::Icmp { kind, code: 0, id: 0 }, payload: packet(&tcp(v6))[..60].to_vec(), ..tcp(v6) };
        let mut frame = framed(error, [2; 6], Vec::new());
        let finished = frame.clone();
        let found_in = parsed(&frame).unwrap();
        let start = found_in.layout.transport.unwrap();
        let state = Checksum::Unfinished { start, offset: 2 };
        // The field holds the pseudo-header's sum, of IPv4 nothing.
        let at = usize::from(start);
        let mut pseudo = crate::checksum::Sum::new();
        pseudo.add_value(!u16::from_be_bytes([frame[at + 2], frame[at + 3]]));
        frame[at + 2..at + 4].fill(0);
        let mut rest = crate::checksum::Sum::new();
        rest.add(&frame[at..]);
        pseudo.add_value(!rest.partial());
        frame[at + 2..at + 4].copy_from_slice(&pseudo.partial().to_be_bytes());
        let edit = EmbeddedEdit { src: Some(address(v6, 0xc000_0201)), ..EmbeddedEdit::default() };

        let found = embedded(&frame, &found_in).unwrap();
        rewrite_embedded(&mut frame, &found, &edit, state).unwrap();
        crate::checksum::complete_checksum(&mut frame, state).unwrap();
        let mut expected = finished;
        rewrite_embedded(&mut expected, &found, &edit, Checksum::Unknown).unwrap();
        assert_eq!(frame, expected);
    }
}

fn source(v6: bool) -> IpAddr {
    address(v6, 0xfd00_0000_0000_0000_0000_0000_0a00_0001)
}

fn answer_to(frame: &[u8], v6: bool) -> Option<Vec<u8>> {
    let window = &frame[..frame.len().min(WINDOW)];
    let parsed = parse(window, u32::try_from(frame.len()).unwrap()).unwrap();
    too_big(window, &parsed, 1450, source(v6))
}

#[test]
fn too_big_is_what_the_rfcs_say() {
    for v6 in [false, true] {
        for tags in [vec![], vec![(0x88a8, 7), (0x8100, 9)]] {
            let sent = framed(tcp(v6), [2; 6], tags.clone());
            let answer = answer_to(&sent, v6).unwrap();
            let link = 14 + 4 * tags.len();
            assert_eq!((&answer[..6], &answer[6..12], &answer[12..link]), (&[4; 6][..], &[2; 6][..], &sent[12..link]));
            let sliced = SlicedPacket::from_ethernet(&answer).unwrap();
            let quote = match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.calc_header_checksum(), header.header_checksum);
                    assert_eq!(header.destination, [10, 0, 0, 2]);
                    assert_eq!(header.source, [10, 0, 0, 1]);
                    assert!(header.total_len <= 576);
                    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), (3, 4, [0, 0, 5, 170]));
                    let sum = checksum_of(&[icmp.slice()]);
                    assert_eq!(sum, 0);
                    icmp.payload().to_vec()
                }
                (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                    let header = ip.header().to_header();
                    assert_eq!(IpAddr::from(header.source), source(true));
                    assert_eq!(header.destination, tcp(true).source.to_be_bytes());
                    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), (2, 0, [0, 0, 5, 170]));
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                    icmp.payload().to_vec()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(quote, sent[link..WINDOW]);
            // The sender of the packet would know it again.
            let found = embedded(&answer, &parsed(&answer).unwrap()).unwrap();
            assert_eq!((found.src_port, found.dst_port), (1000, 80));
        }
    }
}

fn checksum_of(pieces: &[&[u8]]) -> u16 {
    let mut sum = crate::checksum::Sum::new();
    pieces.iter().for_each(|piece| sum.add(piece));
    sum.checksum()
}

#[test]
fn of_a_long_window_no_more_is_quoted_than_may_be() {
    let v4 = framed(tcp(false), [2; 6], Vec::new());
    let answer = too_big(&v4, &parsed(&v4).unwrap(), 1450, source(false)).unwrap();
    assert_eq!(answer.len(), 14 + 576);
    let v6 = framed(tcp(true), [2; 6], Vec::new());
    let answer = too_big(&v6, &parsed(&v6).unwrap(), 1450, source(true)).unwrap();
    assert_eq!(answer.len(), 14 + 1280);
}

#[test]
fn nobody_is_told_what_must_not_be_told() {
    let none = |ip: Ip, why: &str| {
        let v6 = ip.v6;
        assert_eq!(answer_to(&framed(ip, [2; 6], Vec::new()), v6), None, "{why}");
    };
    for v6 in [false, true] {
        let sent = framed(tcp(v6), [2; 6], Vec::new());
        assert!(answer_to(&sent, v6).is_some());
        assert_eq!(answer_to(&sent, !v6), None, "a source of the other version");
        none(Ip { piece: Piece::Later { eights: 3, more: false }, ..tcp(v6) }, "a later fragment");
        let group = if v6 { 0xff02 << 112 | 1 } else { 0xe000_0001 };
        none(Ip { destination: group, ..tcp(v6) }, "to a group");
        none(Ip { source: group, ..tcp(v6) }, "from a group");
        none(Ip { source: 0, ..tcp(v6) }, "from nobody");
        for kind in if v6 { &[1, 2, 3, 4, 100, 137][..] } else { &[3, 4, 5, 11, 12][..] } {
            none(Ip { l4: L4::Icmp { kind: *kind, code: 0, id: 0 }, ..tcp(v6) }, "about an error");
        }
        let echo = Ip { l4: L4::Icmp { kind: if v6 { 128 } else { 8 }, code: 0, id: 0 }, ..tcp(v6) };
        assert!(answer_to(&framed(echo, [2; 6], Vec::new()), v6).is_some());
        let to_all = framed(tcp(v6), [0xff; 6], Vec::new());
        assert_eq!(answer_to(&to_all, v6), None, "a broadcast of the link");
    }
    none(Ip { destination: 0xffff_ffff, ..tcp(false) }, "to all");
    none(Ip { piece: Piece::First, ..tcp(false) }, "may be fragmented");
}
