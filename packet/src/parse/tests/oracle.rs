// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our parser against `etherparse`, group by group.
//!
//! Where that gives up (MACsec, IGMP or timestamps cut short, hop-by-hop options not in front, ...)
//! there is nothing to compare; it knows no tunnels, and no transport header in fragments.

use etherparse::{Ipv6ExtensionSlice, LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{parse_whole, strategy::stack};
use crate::{Field, Fragment, Layout, Parsed, Transient, Tunnel, Ufid, parse::ParseError};

const OUTER: [(Field, Field); 7] = [
    (Field::OuterEthDst, Field::EthDst),
    (Field::OuterEthSrc, Field::EthSrc),
    (Field::OuterVlan, Field::Vlan),
    (Field::OuterIpVersion, Field::IpVersion),
    (Field::OuterIpSrc, Field::IpSrc),
    (Field::OuterIpDst, Field::IpDst),
    (Field::OuterDscp, Field::Dscp),
];

/// What the other parser says of one group: identity, IP payload length, and whether it has read the
/// transport header.
struct Theirs {
    ufid: Ufid,
    hops: (u8, u8),
    /// Fragment offset in bytes, whether more follow, identification.
    piece: (u16, bool, u32),
    has_transport: bool,
    payload_len: Option<usize>,
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

fn fragment(is_fragment: bool, offset: u16) -> u128 {
    match (is_fragment, offset) {
        (false, _) => Fragment::Whole as u128,
        (true, 0) => Fragment::First as u128,
        (true, _) => Fragment::Later as u128,
    }
}

/// `None` if it met a header type that ours does not know.
fn theirs(sliced: &SlicedPacket<'_>) -> Option<Theirs> {
    let mut theirs =
        Theirs { ufid: Ufid::ZERO, hops: (0, 0), piece: (0, false, 0), has_transport: false, payload_len: None };
    if let Some(LinkSlice::Ethernet2(link)) = &sliced.link {
        theirs.ufid.set(Field::EthDst, number(&link.destination()));
        theirs.ufid.set(Field::EthSrc, number(&link.source()));
        theirs.ufid.set(Field::EtherType, link.ether_type().0.into());
    }
    for (field, tag) in [Field::Vlan, Field::SecondVlan].into_iter().zip(&sliced.link_exts) {
        let LinkExtSlice::Vlan(tag) = tag else { return None };
        // They take one more type for a tag's than IEEE 802.1Q has.
        if theirs.ufid.get(Field::EtherType) == 0x9100 {
            return None;
        }
        let priority = u16::from(tag.priority_code_point().value());
        theirs.ufid.set(field, (priority << 13 | 0x1000 | tag.vlan_identifier().value()).into());
        theirs.ufid.set(Field::EtherType, tag.ether_type().0.into());
    }
    if theirs.ufid.get(Field::EtherType) < 0x600 {
        theirs.ufid.set(Field::EtherType, 0);
    }
    if sliced.link_exts.len() <= 2 {
        network(sliced, &mut theirs)?;
    }
    Some(theirs)
}

fn network(sliced: &SlicedPacket<'_>, theirs: &mut Theirs) -> Option<()> {
    let ufid = &mut theirs.ufid;
    match sliced.net.as_ref() {
        None => return Some(()),
        Some(NetSlice::Arp(arp)) => {
            let is_ipv4 = arp.proto_addr_type().0 == 0x800 && arp.proto_addr_size() == 4;
            if arp.hw_addr_type().0 == 1 && arp.hw_addr_size() == 6 && is_ipv4 {
                ufid.set(Field::IpProto, (arp.operation().0 & 0xff).into());
                ufid.set(Field::IpSrc, number(arp.sender_protocol_addr()));
                ufid.set(Field::IpDst, number(arp.target_protocol_addr()));
            }
        }
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            ufid.set(Field::IpVersion, 4);
            ufid.set(Field::IpSrc, number(&header.source()));
            ufid.set(Field::IpDst, number(&header.destination()));
            ufid.set(Field::IpProto, header.protocol().0.into());
            ufid.set(Field::Dscp, header.dcp().value().into());
            let is_fragment = header.is_fragmenting_payload();
            ufid.set(Field::Fragment, fragment(is_fragment, header.fragments_offset().value()));
            theirs.hops = (header.ttl(), header.ecn().value());
            let offset = header.fragments_offset().value() * 8;
            theirs.piece = (offset, header.more_fragments(), header.identification().into());
            theirs.payload_len = Some(ip.payload().payload.len());
            // They look behind an authentication header here, we do so in IPv6 only.
            if ip.extensions().auth.is_some() {
                theirs.payload_len = None;
                return Some(());
            }
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            ufid.set(Field::IpVersion, 6);
            ufid.set(Field::IpSrc, number(&header.source()));
            ufid.set(Field::IpDst, number(&header.destination()));
            ufid.set(Field::IpProto, ip.payload().ip_number.0.into());
            ufid.set(Field::Dscp, header.dscp().value().into());
            // They take an absent payload for a jumbogram of unknown length.
            if header.payload_length() == 0 {
                return None;
            }
            let mut is_later = false;
            for extension in ip.extensions().clone() {
                // They take the payload of a later fragment for the headers it announces.
                if is_later {
                    return None;
                }
                if let Ipv6ExtensionSlice::Fragment(header) = extension {
                    let kind = fragment(header.is_fragmenting_payload(), header.fragment_offset().value());
                    is_later = kind == Fragment::Later as u128;
                    ufid.set(Field::Fragment, kind);
                    let offset = header.fragment_offset().value() * 8;
                    theirs.piece = (offset, header.more_fragments(), header.identification());
                }
            }
            theirs.hops = (header.hop_limit(), header.ecn().value());
            theirs.payload_len = Some(ip.payload().payload.len());
        }
    }
    let (source, destination) = match &sliced.transport {
        None => (0, 0),
        Some(TransportSlice::Igmp(_)) => return Some(()),
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => {
            // They take whatever IP version carries it.
            let is_echo = matches!(icmp.type_u8(), 0 | 8);
            let [a, b, ..] = icmp.bytes5to8();
            (if is_echo { u16::from_be_bytes([a, b]) } else { 0 }, u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let is_echo = matches!(icmp.type_u8(), 128 | 129);
            let [a, b, ..] = icmp.bytes5to8();
            (if is_echo { u16::from_be_bytes([a, b]) } else { 0 }, u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]))
        }
    };
    let protocol = (theirs.ufid.get(Field::IpVersion), theirs.ufid.get(Field::IpProto));
    if sliced.transport.is_some() && !matches!(protocol, (4, 58) | (6, 1)) {
        theirs.has_transport = true;
        theirs.ufid.set(Field::L4Src, source.into());
        theirs.ufid.set(Field::L4Dst, destination.into());
    }
    Some(())
}

/// Compares what both say of a frame, outer and inner group.
fn compare(bytes: &[u8], parsed: &Parsed) {
    let sliced = SlicedPacket::from_ethernet(bytes);
    let Some(outer) = parsed.layout.outer else {
        if let Ok(Some(theirs)) = sliced.as_ref().map(theirs) {
            compare_group(parsed, &theirs);
        }
        return;
    };
    if let Ok(Some(theirs)) = sliced.as_ref().map(theirs) {
        for (ours, field) in OUTER {
            assert_eq!(parsed.ufid.get(ours), theirs.ufid.get(field), "{ours:?}");
        }
        assert_eq!((parsed.transient.outer_ttl, parsed.transient.outer_ecn), theirs.hops);
        if outer.tunnel == Tunnel::Vxlan {
            let Some(TransportSlice::Udp(udp)) = sliced.unwrap().transport else { panic!("VXLAN without UDP") };
            assert_eq!(udp.source_port(), parsed.transient.outer_src_port);
            assert_eq!(udp.destination_port(), 4789);
        }
    }
    let inside = &bytes[usize::from(outer.end)..];
    let sliced =
        if outer.tunnel == Tunnel::Gre { SlicedPacket::from_ip(inside) } else { SlicedPacket::from_ethernet(inside) };
    if let Ok(Some(mut theirs)) = sliced.as_ref().map(theirs) {
        let only_ours = [Field::Tunnel, Field::TunnelKey].into_iter().chain(OUTER.map(|(outer, _)| outer));
        for field in only_ours {
            theirs.ufid.set(field, parsed.ufid.get(field));
        }
        if outer.tunnel == Tunnel::Gre {
            theirs.ufid.set(Field::EtherType, parsed.ufid.get(Field::EtherType));
        }
        compare_group(parsed, &theirs);
    }
}

fn compare_group(parsed: &Parsed, theirs: &Theirs) {
    let mut ours = parsed.ufid;
    if !theirs.has_transport {
        ours.set(Field::L4Src, 0);
        ours.set(Field::L4Dst, 0);
    }
    assert_eq!(ours, theirs.ufid);
    assert_eq!((parsed.transient.ttl, parsed.transient.ecn), theirs.hops);
    let Transient { fragment_offset, more_fragments, ip_id, .. } = parsed.transient;
    assert_eq!((fragment_offset, more_fragments, ip_id), theirs.piece);
    let Layout { network, transport, end, .. } = parsed.layout;
    if let (Some(payload_len), Some(network)) = (theirs.payload_len, network) {
        let packet_end = u32::from(network) + parsed.transient.ip_len;
        assert_eq!(packet_end - u32::from(transport.unwrap_or(end)), u32::try_from(payload_len).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// VF-15: every field, read by somebody else.
    #[test]
    fn an_independent_parser_agrees(stack in stack()) {
        let built = stack.build();
        compare(&built.bytes, &parse_whole(&built.bytes).unwrap());
    }

    #[test]
    fn it_agrees_on_mutated_frames(stack in stack(), edits in vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut bytes = stack.build().bytes;
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        match parse_whole(&bytes) {
            Ok(parsed) => compare(&bytes, &parsed),
            // What we refuse for the first group's sake they must not understand.
            Err(ParseError::Length { at: 14, .. } | ParseError::Version { at: 14, .. }) => {
                prop_assert!(SlicedPacket::from_ethernet(&bytes).is_err());
            }
            Err(_) => {}
        }
    }
}
