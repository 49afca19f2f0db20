// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cases worked out by hand, and what no random frame meets.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::{
    applied,
    frame::{Frame, Ip, Network, Sum, Transport},
};
use crate::{
    Burst, Checksum, DropCause, Field, GsoKind, HEADROOM, MacAddr, Offload, PortId, Segmentation, Tunnel,
    transpose::{
        Ecn, Encap, Outer, OuterEdit, Program, Tag, TransposeError, Transposition, Ttl, Value, Vlans, value::Header,
    },
};

fn packet(proto: u8, src: &str, dst: &str) -> Frame {
    let ip = Ip {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        dscp: 10,
        ecn: 2,
        ttl: 64,
        word: 0,
        options: vec![],
    };
    let transport = Transport { proto, src: 1000, dst: 80, sum: Sum::Full, later: false, payload: b"payload".to_vec() };
    Frame { outer: None, macs: [[2; 6], [4; 6]], tags: vec![], network: Network::Ip(ip, transport), padding: 0 }
}

fn vxlan() -> Encap {
    let end = |last: u8| (MacAddr([6, 0, 0, 0, 0, last]), [10, 0, 0, last].into());
    Encap::new(Tunnel::Vxlan, 0x12_3456, end(1), end(2))
}

/// Checks every checksum that `etherparse` knows.
fn check_sums(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let (stored, right) = match transport {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap())
                }
                TransportSlice::Udp(udp) => {
                    (udp.checksum(), udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(stored, right);
        }
        (NetSlice::Ipv6(ip), transport) => {
            let header = ip.header().to_header();
            let (stored, right) = match transport {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).unwrap())
                }
                TransportSlice::Udp(udp) => {
                    (udp.checksum(), udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(stored, right);
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn vf_16_checksums_are_right_to_an_independent_parser() {
    for proto in [6, 17] {
        for (src, dst, new) in [
            ("192.0.2.1", "198.51.100.2", Value::Ipv4([203, 0, 113, 9].into())),
            ("2001:db8::1", "2001:db8::2", Value::Ipv6("2001:db8:1::9".parse().unwrap())),
        ] {
            let nat = Transposition::default().with(Field::IpSrc, new).with(Field::L4Src, Value::Number(4321));
            let nat = nat.with_ttl(Ttl::Minus(Header::Inner, 1));
            let frame = packet(proto, src, dst);
            check_sums(&frame.bytes());
            let program = nat.compile(&frame.ufid(), &frame.layout()).unwrap();
            check_sums(&applied(&program, &frame, 0).unwrap().0);
        }
    }
}

#[test]
fn vf_16_nat_then_encapsulation_is_one_push_with_one_edit_and_the_way_back_one_pop() {
    let nat = Transposition::default().with(Field::IpSrc, Value::Ipv4([203, 0, 113, 9].into()));
    let both = nat.then(&Transposition::push(vxlan())).unwrap();
    assert_eq!(both.outer, Outer::Push(vxlan()));
    assert_eq!(both.fields, nat.fields);

    let frame = packet(17, "192.0.2.1", "198.51.100.2");
    let (bytes, _) = applied(&both.compile(&frame.ufid(), &frame.layout()).unwrap(), &frame, 0xffff_0001).unwrap();
    let outer = [
        6, 0, 0, 0, 0, 2, 6, 0, 0, 0, 0, 1, 8, 0, // Ethernet
        0x45, 0x02, 0, 85, 0, 0, 0x40, 0, 64, 17, 0x26, 0x94, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4, ECT(0)
        0xc0, 0x01, 0x12, 0xb5, 0, 65, 0, 0, // UDP
        8, 0, 0, 0, 0x12, 0x34, 0x56, 0, // VXLAN
    ];
    assert_eq!(bytes[..50], outer);
    assert_eq!(bytes[50 + 26..50 + 30], [203, 0, 113, 9]);

    let back = both.reverse(&frame.ufid()).unwrap();
    assert_eq!(back.outer, Outer::Pop);
    assert_eq!(back.fields, [(Field::IpDst, Value::Ipv4([192, 0, 2, 1].into()))].into());
}

#[test]
fn an_absent_udp_checksum_stays_absent() {
    let mut frame = packet(17, "192.0.2.1", "198.51.100.2");
    let Network::Ip(_, transport) = &mut frame.network else { unreachable!() };
    transport.sum = Sum::Zero;
    let nat = Transposition::default().with(Field::L4Dst, Value::Number(53));
    let (bytes, _) = applied(&nat.compile(&frame.ufid(), &frame.layout()).unwrap(), &frame, 0).unwrap();
    assert_eq!(bytes[40..42], [0, 0]);
}

/// There is a program for each direction of each flow.
#[test]
fn a_program_is_small() {
    let heap = |ht: &Transposition, frame: &Frame| ht.compile(&frame.ufid(), &frame.layout()).unwrap().heap_bytes();
    let plain = packet(6, "192.0.2.1", "198.51.100.2");
    let nat = Transposition::default()
        .with(Field::IpSrc, Value::Ipv4([203, 0, 113, 9].into()))
        .with(Field::IpDst, Value::Ipv4([203, 0, 113, 8].into()))
        .with(Field::L4Src, Value::Number(4000))
        .with(Field::L4Dst, Value::Number(4001));
    let encap = nat.then(&Transposition::push(vxlan())).unwrap();
    assert_eq!(size_of::<Program>(), 48);
    assert_eq!(heap(&nat, &plain), 0);
    assert!(heap(&encap, &plain) <= 104, "{}", heap(&encap, &plain));
    let (tunnelled, _) =
        applied(&Transposition::push(vxlan()).compile(&plain.ufid(), &plain.layout()).unwrap(), &plain, 7).unwrap();
    let parsed = crate::parse::parse(&tunnelled, tunnelled.len() as u32).unwrap();
    let decap = Transposition::pop().then(&nat).unwrap().compile(&parsed.ufid, &parsed.layout).unwrap();
    assert_eq!(decap.heap_bytes(), 0);
}

/// 0 and 0xffff are the same to a sum, but not to whoever is addressed.
#[test]
fn a_change_that_no_checksum_notices_is_made_all_the_same() {
    let mut frame = packet(17, "255.255.255.255", "198.51.100.2");
    let Network::Ip(_, transport) = &mut frame.network else { panic!("no IP") };
    transport.src = 0xffff;
    let zero =
        Transposition::default().with(Field::IpSrc, Value::Ipv4([0; 4].into())).with(Field::L4Src, Value::Number(0));
    let program = zero.compile(&frame.ufid(), &frame.layout()).unwrap();
    let (bytes, _) = applied(&program, &frame, 7).unwrap();
    let parsed = crate::parse::parse(&bytes, bytes.len() as u32).unwrap();
    assert_eq!((parsed.ufid.get(Field::IpSrc), parsed.ufid.get(Field::L4Src)), (0, 0));
    check_sums(&bytes);
}

#[test]
fn rfc_6040_figure_4() {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    const DROP: u8 = 5;
    // Arriving outer header: not-ECT, ECT(0), ECT(1), CE.
    for (inner, results) in [
        (NOT, [NOT, NOT, NOT, DROP]),
        (ECT0, [ECT0, ECT0, ECT1, CE]),
        (ECT1, [ECT1, ECT1, ECT1, CE]),
        (CE, [CE, CE, CE, CE]),
    ] {
        for (outer, result) in [NOT, ECT0, ECT1, CE].into_iter().zip(results) {
            assert_eq!(Ecn::decapsulate().of(inner, outer), result, "{inner} in {outer}");
        }
    }
}

#[test]
fn what_no_packet_can_undergo_is_no_composition() {
    let (push, pop) = (Transposition::push(vxlan()), Transposition::pop());
    let v4 = Transposition::default().with(Field::IpSrc, Value::Ipv4([1; 4].into()));
    let v6 = Transposition::default().with(Field::IpDst, Value::Ipv6([1; 16].into()));
    let key = Transposition::default().with(Field::TunnelKey, Value::Number(5));
    let tag =
        |n| Vlans { pushes: vec![Tag { tpid: crate::EtherType::VLAN, tci: Value::Number(7) }; n], ..Vlans::default() };
    let tags = |n| Transposition::default().with_vlans(tag(n));
    let ttl = |ttl| Transposition::default().with_ttl(ttl);
    for (first, second, error) in [
        (&push, &push, TransposeError::Outer),
        (&pop, &pop, TransposeError::Outer),
        (&pop, &key, TransposeError::Outer),
        (&key, &push, TransposeError::Outer),
        (&v4, &v6, TransposeError::Version),
        (&tags(2), &tags(1), TransposeError::Vlans),
        (&ttl(Ttl::Literal(3)), &ttl(Ttl::Minus(Header::Inner, 3)), TransposeError::TtlExpires),
        (&push, &Transposition::default().with(Field::OuterVlan, Value::Number(1)), TransposeError::OuterKind),
        (
            &v4,
            &Transposition::default().with(Field::EtherType, Value::Number(1)),
            TransposeError::BadValue(Field::EtherType),
        ),
    ] {
        assert_eq!(first.then(second), Err(error), "{first:?} then {second:?}");
    }
}

#[test]
fn ttl_changes_fold() {
    let minus = |n| Transposition::default().with_ttl(Ttl::Minus(Header::Inner, n));
    let set = Transposition::default().with_ttl(Ttl::Literal(9));
    assert_eq!(minus(1).then(&minus(2)).unwrap().ttl, Some(Ttl::Minus(Header::Inner, 3)));
    assert_eq!(set.then(&minus(2)).unwrap().ttl, Some(Ttl::Literal(7)));
    // What has expired on the way is not revived.
    let revived = minus(64).then(&set).unwrap();
    let frame = packet(6, "192.0.2.1", "198.51.100.2");
    let program = revived.compile(&frame.ufid(), &frame.layout()).unwrap();
    assert_eq!(applied(&program, &frame, 0), Err(DropCause::TtlExpired));
    assert_eq!(minus(200).then(&minus(200)), Err(TransposeError::TtlExpires));
}

#[test]
fn headers_need_headroom_and_datagrams_end() {
    let frame = packet(6, "192.0.2.1", "198.51.100.2");
    let program = Transposition::push(vxlan()).compile(&frame.ufid(), &frame.layout()).unwrap();
    let bytes = frame.bytes();
    let apply = |frame_len: usize| {
        let mut burst = Burst::new();
        let segmentation = Segmentation { kind: GsoKind::TcpV4, ecn: false, size: 1400, header_len: 54 };
        let checksum = Checksum::Unfinished { start: 34, offset: 16 };
        let offload = Offload { checksum, segmentation: Some(segmentation) };
        let window = burst.push(PortId(0), frame_len as u32, offload, 0).unwrap();
        window.fill(0);
        window[..bytes.len()].copy_from_slice(&bytes);
        program.apply(&mut burst, 0, &frame.layout(), 0).map(|()| burst.offload(0))
    };
    // 36 bytes of outer IP, UDP and VXLAN headers before the inner frame.
    let most = usize::from(u16::MAX) - 36;
    let moved = apply(most).unwrap();
    assert_eq!(moved.checksum, Checksum::Unfinished { start: 84, offset: 16 });
    assert_eq!(moved.segmentation.map(|segmentation| segmentation.size), Some(1400));
    assert_eq!(apply(most + 1), Err(DropCause::TooBig));
    let mut burst = Burst::new();
    burst.push(PortId(0), bytes.len() as u32, Offload::NONE, 0).unwrap().copy_from_slice(&bytes);
    // 50 bytes are to be put on.
    const USED: u16 = HEADROOM as u16 - 49;
    burst.prepend(0, USED.into()).unwrap();
    let all = burst.window(0).len();
    let mut layout = frame.layout();
    layout.network = layout.network.map(|at| at + USED);
    layout.transport = layout.transport.map(|at| at + USED);
    assert_eq!(program.apply(&mut burst, 0, &layout, 0), Err(DropCause::NoHeadroom));
    assert_eq!(burst.window(0).len(), all);
}

#[test]
fn a_checksum_to_be_finished_in_what_is_popped_is_forgotten_unless_segments_need_it() {
    let frame = packet(6, "192.0.2.1", "198.51.100.2");
    let push = Transposition::push(vxlan());
    let (bytes, _) = applied(&push.compile(&frame.ufid(), &frame.layout()).unwrap(), &frame, 0).unwrap();
    let parsed = crate::parse::parse(&bytes, bytes.len() as u32).unwrap();
    let program = Transposition::pop().compile(&parsed.ufid, &parsed.layout).unwrap();
    let segmentation = Segmentation { kind: GsoKind::TcpV4, ecn: false, size: 1400, header_len: 54 };
    for (segmentation, answer) in [(None, Ok(())), (Some(segmentation), Err(DropCause::BadOffload))] {
        let mut burst = Burst::new();
        let offload = Offload { checksum: Checksum::Unfinished { start: 34, offset: 6 }, segmentation };
        burst.push(PortId(0), bytes.len() as u32, offload, 0).unwrap().copy_from_slice(&bytes);
        assert_eq!(program.apply(&mut burst, 0, &parsed.layout, 0), answer);
        if answer.is_ok() {
            assert_eq!(burst.offload(0), Offload::NONE);
            assert_eq!(burst.window(0), frame.bytes());
        }
    }
}

#[test]
fn a_pop_never_uncovers_a_tag_that_policy_has_not_seen() {
    let third = packet(6, "192.0.2.1", "198.51.100.2").ufid();
    let third = third.with(Field::Vlan, 0x1001).with(Field::SecondVlan, 0x1002).with(Field::EtherType, 0x8100);
    let pop = Transposition::default().with_vlans(Vlans::pop());
    assert_eq!(pop.after(&third), Err(TransposeError::Vlans));
    assert_eq!(pop.after(&third.with(Field::EtherType, 0x0800)).unwrap().get(Field::Vlan), 0x1002);
}

#[test]
fn a_layout_of_another_flow_is_refused() {
    let (tcp, mut tagged) = (packet(6, "192.0.2.1", "198.51.100.2"), packet(6, "192.0.2.1", "198.51.100.2"));
    tagged.tags = vec![[0x8100, 5]];
    let nothing = Transposition::default();
    assert_eq!(nothing.compile(&tcp.ufid(), &tagged.layout()).unwrap_err(), TransposeError::Layout);
    let modify = Transposition::default().with_outer(Outer::Modify(OuterEdit::default()));
    assert_eq!(modify.compile(&tcp.ufid(), &tcp.layout()).unwrap_err(), TransposeError::Outer);
}
