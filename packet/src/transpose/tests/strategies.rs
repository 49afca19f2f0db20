// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random frames and transpositions. Values come from small pools, so that they meet.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::frame::{Frame, Ip, Network, Outer, Sum, Transport};
use crate::{
    EtherType, Field, Tunnel,
    transpose::{self, Ecn, Encap, Header, OuterEdit, Tag, Transposition, Ttl, Value, Vlans},
};

pub(super) fn frame() -> impl Strategy<Value = Frame> {
    let macs = any::<[[u8; 6]; 2]>();
    let tags = vec((select(vec![0x8100_u16, 0x88a8]), any::<u16>()).prop_map(|(tpid, tci)| [tpid, tci]), 0..3);
    let other = vec(any::<u8>(), 0..60).prop_map(|bytes| Network::Other(0x88b5, bytes));
    let ip = (ip(), transport()).prop_map(|(mut ip, mut transport)| {
        transport.later &= ip.src.is_ipv4();
        if transport.later {
            ip.word |= 0x0123;
            transport.sum = Sum::Full;
        }
        if ip.src.is_ipv6() && transport.proto == 1 {
            (transport.proto, transport.dst) = (58, transport.dst | 0x8000);
        }
        if ip.src.is_ipv4() && transport.proto == 58 {
            transport.proto = 1;
        }
        if !matches!(transport.proto, 1 | 6 | 17 | 58) {
            (transport.src, transport.dst) = (0, 0);
        }
        if !matches!(transport.proto, 6 | 17) || transport.sum == Sum::Zero && transport.proto == 6 {
            transport.sum = Sum::Full;
        }
        Network::Ip(ip, transport)
    });
    let network = prop_oneof![1 => other, 9 => ip];
    (option::of(outer()), macs, tags, network, 0..10usize).prop_map(|(outer, macs, tags, network, padding)| {
        let mut frame = Frame { outer, macs, tags, network, padding };
        if let (Some(outer), Network::Ip(_, Transport { sum: Sum::Unfinished, .. })) =
            (&mut frame.outer, &frame.network)
            && outer.sum == Sum::Unfinished
        {
            outer.sum = Sum::Full;
        }
        // An unchecked ICMP type that is no echo has no identifier for policy.
        if let Network::Ip(_, transport) = &mut frame.network
            && matches!(transport.proto, 1 | 58)
            && !transport.echo()
        {
            transport.src = 0;
        }
        match (&mut frame.outer, &frame.network) {
            (Some(Outer { tunnel: Tunnel::Gre, .. }), Network::Ip(..)) => {
                (frame.macs, frame.tags, frame.padding) = ([[0; 6]; 2], vec![], 0);
            }
            (Some(outer), Network::Other(..)) if outer.tunnel == Tunnel::Gre => outer.tunnel = Tunnel::Nvgre,
            _ => {}
        }
        frame
    })
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    (any::<[u16; 2]>(), 0..4_u16).prop_map(move |([a, b], pool)| {
        if v6 {
            [0x2001, 0xdb8, a, b, 0xffff, 0, 1, pool].into()
        } else {
            let [a, b] = a.to_be_bytes();
            [a, b, 0, pool as u8].into()
        }
    })
}

fn ip() -> impl Strategy<Value = Ip> {
    any::<bool>().prop_flat_map(|v6| {
        let options: Vec<u8> = if v6 { vec![0, 1, 4, 0, 0, 0, 0] } else { vec![1, 1, 1, 0] };
        let word =
            if v6 { (0..0x10_0000_u32).boxed() } else { any::<u16>().prop_map(|id| u32::from(id) << 16).boxed() };
        let ttl = prop_oneof![0..6_u8, any::<u8>()];
        (address(v6), address(v6), 0..64_u8, 0..4_u8, ttl, word, select(vec![vec![], options]))
            .prop_map(|(src, dst, dscp, ecn, ttl, word, options)| Ip { src, dst, dscp, ecn, ttl, word, options })
    })
}

fn transport() -> impl Strategy<Value = Transport> {
    let sum = select(vec![Sum::Zero, Sum::Full, Sum::Full, Sum::Unfinished]);
    let proto = select(vec![6_u8, 6, 17, 17, 1, 132]);
    let dst = prop_oneof![select(vec![0x0800_u16, 0, 0x0301]), 0..0x1000_u16];
    (proto, any::<u16>(), dst, sum, prop::bool::weighted(0.1), vec(any::<u8>(), 0..300))
        .prop_map(|(proto, src, dst, sum, later, payload)| Transport { proto, src, dst, sum, later, payload })
}

fn outer() -> impl Strategy<Value = Outer> {
    let tunnel = select(vec![Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve, Tunnel::Gre]);
    let sum = select(vec![Sum::Zero, Sum::Full, Sum::Unfinished]);
    let macs = any::<[[u8; 6]; 2]>();
    let rest = (any::<u16>(), select(vec![vec![], vec![0, 1, 2, 0, 9, 9, 9, 9, 0, 1, 2, 0]]), any::<u8>());
    (macs, option::of(any::<u16>()), ip(), tunnel, 0..0x100_0000_u32, sum, rest).prop_map(
        |(macs, vlan, ip, tunnel, key, sum, (src_port, geneve_options, flow_id))| {
            let gre = matches!(tunnel, Tunnel::Nvgre | Tunnel::Gre);
            let sum = if gre && sum == Sum::Unfinished { Sum::Zero } else { sum };
            let geneve_options = if tunnel == Tunnel::Geneve { geneve_options } else { vec![] };
            let (src_port, flow_id) = if gre { (0, flow_id) } else { (src_port, 0) };
            Outer { macs, vlan, ip, tunnel, key, src_port, sum, geneve_options, flow_id }
        },
    )
}

fn literal(field: Field, v6: bool) -> BoxedStrategy<Value> {
    match field {
        Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => {
            (0..1_u64 << 48).prop_map(Value::Number).boxed()
        }
        Field::IpSrc | Field::IpDst | Field::OuterIpSrc | Field::OuterIpDst => {
            address(v6).prop_map(Value::from).boxed()
        }
        Field::Dscp | Field::OuterDscp => (0..64_u64).prop_map(Value::Number).boxed(),
        Field::TunnelKey => (0..1_u64 << 24).prop_map(Value::Number).boxed(),
        // Not the ports of tunnels: a parser would find one.
        Field::L4Src | Field::L4Dst => (0..0x1000_u64).prop_map(Value::Number).boxed(),
        _ => any::<u16>().prop_map(Value::from).boxed(),
    }
}

fn value(field: Field, v6: bool, with_outer: bool) -> BoxedStrategy<Value> {
    let mut from = match field {
        Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => vec![Field::EthDst, Field::EthSrc],
        Field::IpSrc | Field::IpDst => vec![Field::IpSrc, Field::IpDst],
        Field::Dscp | Field::OuterDscp => vec![Field::Dscp],
        Field::L4Src => vec![Field::L4Src, Field::L4Src, Field::L4Dst],
        Field::L4Dst => vec![Field::L4Dst],
        Field::Vlan | Field::OuterVlan => vec![Field::Vlan, Field::Vlan, Field::SecondVlan],
        _ => vec![],
    };
    if with_outer {
        from.extend(match field {
            Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => vec![Field::OuterEthSrc],
            Field::Dscp | Field::OuterDscp => vec![Field::OuterDscp],
            Field::Vlan | Field::OuterVlan => vec![Field::OuterVlan],
            Field::TunnelKey => vec![Field::TunnelKey],
            _ => vec![],
        });
    }
    if from.is_empty() {
        return literal(field, v6);
    }
    prop_oneof![2 => literal(field, v6), 1 => select(from).prop_map(Value::Copy)].boxed()
}

fn fields(of: &[Field], v6: bool, with_outer: bool, most: usize) -> BoxedStrategy<BTreeMap<Field, Value>> {
    vec(select(of.to_vec()).prop_flat_map(move |field| (Just(field), value(field, v6, with_outer))), 0..=most)
        .prop_map(|fields| fields.into_iter().collect())
        .boxed()
}

fn ttl(with_outer: bool) -> impl Strategy<Value = Ttl> {
    prop_oneof![
        (0..6_u8).prop_map(Ttl::Literal),
        (0..3_u8).prop_map(|spent| Ttl::Minus(Header::Inner, spent)),
        (0..3_u8).prop_map(move |n| Ttl::Minus(if with_outer { Header::Outer } else { Header::Inner }, n)),
    ]
}

fn ecn(pop: bool) -> impl Strategy<Value = Ecn> {
    let mut rules = vec![Ecn::encapsulate(), Ecn::compatibility(), Ecn::set(1), Ecn::set(3)];
    if pop {
        rules.extend([Ecn::decapsulate(), Ecn::outer()]);
    }
    select(rules)
}

fn vlans(with_outer: bool) -> impl Strategy<Value = Vlans> {
    let tci = move || value(Field::Vlan, false, with_outer);
    let tag = (select(vec![EtherType::VLAN, EtherType::VLAN_SERVICE]), tci());
    let pushes = vec(tag.prop_map(|(tpid, tci)| Tag { tpid, tci }), 0..2);
    (select(vec![0_u8, 0, 1]), option::weighted(0.3, tci()), option::weighted(0.1, tci()), pushes)
        .prop_map(|(pops, first, second, pushes)| Vlans { pops, set: [first, second], pushes })
}

const OUTER: [Field; 7] = [
    Field::OuterEthDst,
    Field::OuterEthSrc,
    Field::OuterVlan,
    Field::OuterIpSrc,
    Field::OuterIpDst,
    Field::OuterDscp,
    Field::TunnelKey,
];
const INNER: [Field; 7] =
    [Field::EthDst, Field::EthSrc, Field::IpSrc, Field::IpDst, Field::Dscp, Field::L4Src, Field::L4Dst];

pub(super) fn encap(with_outer: bool) -> impl Strategy<Value = Encap> {
    any::<bool>().prop_flat_map(move |v6| {
        let tunnel = select(vec![Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve]);
        let few = [Field::OuterEthDst, Field::OuterVlan, Field::OuterDscp, Field::TunnelKey];
        let more = fields(&few, v6, with_outer, 3);
        (tunnel, address(v6), address(v6), more, ttl(with_outer), ecn(with_outer)).prop_map(
            |(tunnel, src, dst, more, ttl, ecn)| {
                let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].map(crate::MacAddr);
                let ecn = if ecn == Ecn::decapsulate() { Ecn::encapsulate() } else { ecn };
                let mut encap = Encap { ttl, ecn, ..Encap::new(tunnel, 7, (macs[0], src), (macs[1], dst)) };
                encap.fields.extend(more);
                encap
            },
        )
    })
}

/// A transposition for packets with or without an outer group, most of them; and whether they have one then.
fn of_group(tunnelled: bool, v6: bool, outer_v6: bool) -> impl Strategy<Value = (Transposition, bool)> {
    let edit = (fields(&OUTER, outer_v6, true, 3), option::of(ttl(true)), option::of(ecn(true))).prop_map(
        |(fields, ttl, ecn)| {
            let ecn = ecn.filter(|ecn| *ecn != Ecn::decapsulate()).unwrap_or_else(Ecn::outer);
            transpose::Outer::Modify(OuterEdit { fields, ttl, ecn })
        },
    );
    let ignore = Just(transpose::Outer::Ignore);
    let outer = if tunnelled {
        let replace = encap(true).prop_map(transpose::Outer::Replace);
        prop_oneof![2 => ignore, 3 => edit, 3 => Just(transpose::Outer::Pop), 2 => replace].boxed()
    } else {
        prop_oneof![3 => ignore, 3 => encap(false).prop_map(transpose::Outer::Push)].boxed()
    };
    let inner = (fields(&INNER, v6, tunnelled, 3), option::weighted(0.4, vlans(tunnelled)));
    let marks = (option::weighted(0.3, ttl(tunnelled)), option::weighted(0.4, ecn(tunnelled)));
    (outer, inner, marks).prop_map(move |(outer, (fields, vlans), (ttl, ecn))| {
        let after = match outer {
            transpose::Outer::Pop => false,
            transpose::Outer::Push(_) | transpose::Outer::Replace(_) => true,
            _ => tunnelled,
        };
        let ht = Transposition { outer, fields, ttl, ecn: ecn.unwrap_or_else(Ecn::inner), ..Transposition::default() };
        (ht.with_vlans(vlans.unwrap_or_default()), after)
    })
}

/// A frame, and transpositions to apply to it in turn. Most are for what is left of it, some for others.
pub(super) fn run(most: usize) -> impl Strategy<Value = (Frame, Vec<Transposition>)> {
    frame().prop_flat_map(move |frame| {
        let v6 = matches!(&frame.network, Network::Ip(ip, _) if ip.src.is_ipv6());
        let outer_v6 = frame.outer.as_ref().is_some_and(|outer| outer.ip.src.is_ipv6());
        let tunnelled = frame.outer.is_some();
        chain(tunnelled, v6, outer_v6, most).prop_map(move |hts| (frame.clone(), hts))
    })
}

fn chain(tunnelled: bool, v6: bool, outer_v6: bool, most: usize) -> BoxedStrategy<Vec<Transposition>> {
    if most == 0 {
        return Just(vec![]).boxed();
    }
    let tunnelled = prop::bool::weighted(0.05).prop_map(move |wrong| tunnelled != wrong);
    let v6 = prop::bool::weighted(0.03).prop_map(move |wrong| v6 != wrong);
    (tunnelled, v6)
        .prop_flat_map(move |(tunnelled, v6)| {
            of_group(tunnelled, v6, outer_v6).prop_flat_map(move |(first, tunnelled)| {
                let outer_v6 = match &first.outer {
                    transpose::Outer::Push(e) | transpose::Outer::Replace(e) => e.version() == Some(6),
                    _ => outer_v6,
                };
                chain(tunnelled, v6, outer_v6, most - 1).prop_map(move |mut rest| {
                    rest.insert(0, first.clone());
                    rest
                })
            })
        })
        .boxed()
}
