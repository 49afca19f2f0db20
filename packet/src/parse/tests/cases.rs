// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cases that the generator does not build.

use super::{
    parse_whole,
    stack::{Body, Group, Ip, L4, Link, Outer, Piece, Shim, Stack},
};
use crate::{
    DropCause, Field, Tunnel,
    parse::{Header, ParseError, parse},
};

fn ip(v6: bool, l4: L4) -> Ip {
    Ip {
        v6,
        source: 0x2001_0db8_0000_0000_0000_0000_0a00_0001,
        destination: 0x2001_0db8_0000_0000_0000_0000_0a00_0002,
        tos: 0,
        ttl: 64,
        id: 1,
        options: Vec::new(),
        extensions: [Vec::new(), Vec::new()],
        piece: Piece::Whole,
        l4,
        payload: vec![0; 20],
    }
}

fn group(ip: Ip) -> Group {
    let link = Link { destination: [2, 0, 0, 0, 0, 2], source: [2, 0, 0, 0, 0, 1], tags: Vec::new() };
    Group { link: Some(link), body: Body::Ip(ip) }
}

fn udp(port: u16) -> L4 {
    L4::Udp { ports: [1000, port] }
}

fn frame(ip: Ip) -> Vec<u8> {
    Stack { outer: None, inner: group(ip), padding: 0 }.build().bytes
}

fn tunnelled(shim: Shim) -> Vec<u8> {
    let mut inner = group(ip(false, udp(53)));
    if matches!(shim, Shim::Gre { .. }) {
        inner.link = None;
    }
    let outer = Outer { group: group(ip(false, udp(0))), shim, src_port: 5000 };
    Stack { outer: Some(outer), inner, padding: 0 }.build().bytes
}

/// Start of the transport header behind Ethernet and IPv4.
const L4_AT: usize = 34;

#[test]
fn a_frame_without_an_ethernet_header_is_a_runt() {
    for len in 0..14 {
        assert_eq!(parse_whole(&[0; 20][..len]).unwrap_err().cause(), DropCause::Runt);
    }
    assert_eq!(parse(&[0; 13], 14).unwrap_err().cause(), DropCause::HeaderBeyondWindow);
    assert_eq!(parse(&[0; 14], 13).unwrap_err().cause(), DropCause::Runt, "the frame is what counts");
    assert_eq!(parse_whole(&[0; 14]).unwrap().layout.end, 14);
}

#[test]
fn lengths_that_cannot_be() {
    let cases: [(usize, &[u8], ParseError); 7] = [
        (14, &[0x44], ParseError::Length { header: Header::Ipv4, at: 14, len: 16 }),
        (14, &[0x65], ParseError::Version { header: Header::Ipv4, at: 14, version: 6 }),
        (16, &[0, 19], ParseError::Length { header: Header::Ipv4, at: 14, len: 19 }),
        (16, &[0, 63], ParseError::CutShort { header: Header::Ipv4, at: 14, need: 77, end: 62 }),
        (16, &[0, 27], ParseError::CutShort { header: Header::Udp, at: 34, need: 42, end: 41 }),
        (L4_AT + 4, &[0, 7], ParseError::Length { header: Header::Udp, at: 34, len: 7 }),
        (L4_AT + 4, &[0, 29], ParseError::CutShort { header: Header::Udp, at: 34, need: 63, end: 62 }),
    ];
    for (at, bytes, error) in cases {
        let mut frame = frame(ip(false, udp(53)));
        frame[at..][..bytes.len()].copy_from_slice(bytes);
        assert_eq!(parse_whole(&frame), Err(error));
        assert_eq!(error.cause(), DropCause::Malformed, "{error}");
    }
    let tcp = L4::Tcp { ports: [1, 2], seq: 0, ack: 0, flags: 2, options: Vec::new() };
    let mut frame = frame(ip(false, tcp));
    frame[L4_AT + 12] = 0x40;
    assert_eq!(parse_whole(&frame), Err(ParseError::Length { header: Header::Tcp, at: 34, len: 16 }));
    frame[L4_AT + 12] = 0xb0;
    let error = ParseError::CutShort { header: Header::Tcp, at: 34, need: 78, end: 74 };
    assert_eq!(parse_whole(&frame), Err(error));
}

#[test]
fn what_is_no_tunnel_after_all_is_what_carries_it() {
    let gre = Shim::Gre { key: Some(7), optional: [false; 2] };
    let cases: [(Shim, usize, &[u8]); 9] = [
        (Shim::Vxlan { vni: 7 }, L4_AT + 8, &[0xf7]),
        (Shim::Geneve { vni: 7, options: Vec::new() }, L4_AT + 8, &[0x40]),
        (Shim::Geneve { vni: 7, options: Vec::new() }, L4_AT + 10, &[0x08, 0x00]),
        (Shim::Nvgre { subnet: 7, flow: 0, optional: [false; 2] }, L4_AT, &[0x00]),
        (gre.clone(), L4_AT, &[0x60]),
        (gre.clone(), L4_AT, &[0x24]),
        (gre.clone(), L4_AT + 1, &[1]),
        (gre.clone(), L4_AT + 2, &[0x88, 0xbe]),
        (gre, L4_AT + 2, &[0, 0]),
    ];
    for (shim, at, bytes) in cases {
        let mut frame = tunnelled(shim);
        assert!(parse_whole(&frame).unwrap().layout.outer.is_some());
        frame[at..][..bytes.len()].copy_from_slice(bytes);
        let parsed = parse_whole(&frame).unwrap();
        assert_eq!(parsed.layout.outer, None);
        assert_eq!(parsed.ufid.get(Field::Tunnel), Tunnel::None as u128);
        assert_eq!(parsed.ufid.get(Field::IpSrc), 0x0a00_0001);
    }
    for port in [4789, 6081] {
        let short = Ip { payload: vec![0xff; 7], ..ip(false, udp(port)) };
        assert_eq!(parse_whole(&frame(short)).unwrap().ufid.get(Field::L4Dst), port.into());
    }
}

/// Bytes that the frame has, but not the packet or datagram around a header, are not that header's.
#[test]
fn nothing_reaches_beyond_what_it_lies_in() {
    let cut_in = |mut frame: Vec<u8>, edits: &[(usize, u8)]| {
        frame.extend([0; 40]);
        for (at, value) in edits {
            frame[*at] = *value;
        }
        let error = parse_whole(&frame).unwrap_err();
        assert_eq!(error.cause(), DropCause::Malformed, "{error}");
        match error {
            ParseError::CutShort { header, at, need, end } => (header, at, need, end),
            other => panic!("{other}"),
        }
    };
    let vxlan = || tunnelled(Shim::Vxlan { vni: 7 });
    // A datagram that ends behind the inner Ethernet header, before it, and in the inner payload; an inner
    // packet that is longer than its datagram.
    assert_eq!(cut_in(vxlan(), &[(39, 30)]), (Header::Ipv4, 64, 84, 64));
    assert_eq!(cut_in(vxlan(), &[(39, 16)]), (Header::Ethernet, 50, 64, 50));
    assert_eq!(cut_in(vxlan(), &[(39, 77)]), (Header::Ipv4, 64, 112, 111));
    assert_eq!(cut_in(vxlan(), &[(67, 49)]), (Header::Ipv4, 64, 113, 112));
    let gre = tunnelled(Shim::Gre { key: Some(7), optional: [false; 2] });
    assert_eq!(cut_in(gre.clone(), &[(17, 23)]), (Header::Gre, 34, 38, 37));
    assert_eq!(cut_in(gre, &[(17, 27)]), (Header::Gre, 34, 42, 41));
    let options = Ip { extensions: [vec![(60, 1)], Vec::new()], ..ip(true, udp(53)) };
    assert_eq!(cut_in(frame(options), &[(19, 15)]), (Header::Ipv6Extension, 54, 70, 69));
    let options = Ip { options: vec![[0; 4]], ..ip(false, udp(53)) };
    let mut frame = frame(options);
    frame[17] = 22;
    assert_eq!(parse_whole(&frame), Err(ParseError::Length { header: Header::Ipv4, at: 14, len: 22 }));
}

#[test]
fn geneve_options_are_skipped_however_many() {
    let frame = tunnelled(Shim::Geneve { vni: 7, options: vec![[0xff; 4]; 63] });
    let parsed = parse_whole(&frame).unwrap();
    assert_eq!(parsed.layout.outer.unwrap().end, 14 + 20 + 8 + 8 + 63 * 4);
    assert_eq!(parsed.ufid.get(Field::L4Dst), 53);
}

#[test]
fn types_begin_where_lengths_end() {
    for (number, ether_type) in [(0x5ff, 0), (0x600, 0x600)] {
        let link = group(ip(false, udp(0))).link;
        let body = Body::Other { ether_type: number, payload: vec![1; 46] };
        let frame = Stack { outer: None, inner: Group { link, body }, padding: 0 }.build().bytes;
        assert_eq!(parse_whole(&frame).unwrap().ufid.get(Field::EtherType), ether_type);
    }
}

#[test]
fn extension_headers_have_an_end() {
    let chain = |n| Ip { extensions: [vec![(60, 0); n], Vec::new()], ..ip(true, udp(53)) };
    assert_eq!(parse_whole(&frame(chain(8))).unwrap().ufid.get(Field::L4Dst), 53);
    let error = ParseError::TooManyExtensions { at: 14 + 40 + 8 * 8 };
    assert_eq!(parse_whole(&frame(chain(9))), Err(error));
    assert_eq!(error.cause(), DropCause::Malformed);

    let twice = Ip { piece: Piece::Atomic, extensions: [Vec::new(), vec![(60, 0)]], ..ip(true, udp(53)) };
    let mut twice = frame(twice);
    twice[14 + 40] = 44;
    assert_eq!(parse_whole(&twice), Err(ParseError::TooManyExtensions { at: 14 + 48 }));
}

#[test]
fn arp_of_another_kind_is_not_understood() {
    let link = group(ip(false, udp(0))).link;
    let arp = Group { link, body: Body::Arp { operation: 1, sender: 1, target: 2 } };
    let mut frame = Stack { outer: None, inner: arp, padding: 18 }.build().bytes;
    assert_eq!(parse_whole(&frame).unwrap().ufid.get(Field::IpDst), 2);
    frame[15] = 6;
    let parsed = parse_whole(&frame).unwrap();
    assert_eq!((parsed.layout.network, parsed.layout.end), (None, 14));
    assert_eq!(parsed.ufid.get(Field::EtherType), 0x0806);
    assert_eq!(parsed.ufid.get(Field::IpProto), 0);
}

#[test]
fn an_answer_is_the_reverse() {
    let answer = |v6, l4| {
        let mut ip = ip(v6, l4);
        (ip.source, ip.destination) = (ip.destination, ip.source);
        let mut group = group(ip);
        let link = group.link.as_mut().unwrap();
        (link.source, link.destination) = (link.destination, link.source);
        parse_whole(&Stack { outer: None, inner: group, padding: 0 }.build().bytes).unwrap().ufid
    };
    let icmp = |kind| L4::Icmp { kind, code: 3, id: 77 };
    for (v6, request, reply) in [
        (false, icmp(8), icmp(0)),
        (true, icmp(128), icmp(129)),
        (false, icmp(3), icmp(3)),
        (true, udp(53), L4::Udp { ports: [53, 1000] }),
    ] {
        let asked = parse_whole(&frame(ip(v6, request))).unwrap().ufid;
        assert_eq!(asked.reversed(), answer(v6, reply.clone()));
        assert_eq!(answer(v6, reply).reversed(), asked);
    }
    let outer = parse_whole(&tunnelled(Shim::Vxlan { vni: 7 })).unwrap().ufid;
    assert_eq!(outer.reversed().get(Field::OuterEthSrc), 0x0200_0000_0002);
    assert_eq!(outer.reversed().get(Field::OuterIpSrc), 0x0a00_0002);
    assert_eq!(outer.reversed().get(Field::OuterIpDst), 0x0a00_0001);
    assert_eq!(outer.reversed().get(Field::TunnelKey), 7);
    // Type 0 and no type at all are told apart.
    let later = Ip { piece: Piece::Later { eights: 3, more: false }, ..ip(false, icmp(0)) };
    let later = parse_whole(&frame(later)).unwrap().ufid;
    assert_eq!(later.reversed().get(Field::L4Dst), 0);
}
