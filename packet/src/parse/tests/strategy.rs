// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random [`Stack`]s.

use proptest::{collection::vec, prelude::*, sample::select};

use super::stack::{Body, Group, Ip, L4, Link, Outer, Piece, Shim, Stack};

/// Any stack of headers that a parser must understand, with or without a tunnel.
pub(crate) fn stack() -> BoxedStrategy<Stack> {
    let plain = (group(), 0_usize..20).prop_map(|(inner, padding)| {
        let mut stack = Stack { outer: None, inner, padding };
        avoid_tunnel(&mut stack.inner);
        stack
    });
    prop_oneof![plain, tunnelled()].boxed()
}

/// Stacks with an outer group, which in some cannot be seen: [`Outer::is_visible`].
pub(crate) fn tunnelled() -> BoxedStrategy<Stack> {
    let outer_ip = || prop_oneof![3 => ip(Just(Piece::Whole).boxed()), 1 => ip(piece())];
    let outer = (link(), outer_ip(), any::<u16>());
    (outer, shim(), group(), 0_usize..20)
        .prop_map(|((link, ip, src_port), shim, mut inner, padding)| {
            if let Shim::Gre { .. } = shim {
                inner.link = None;
            }
            let group = Group { link: Some(link), body: Body::Ip(ip) };
            (Stack { outer: Some(Outer { group, shim, src_port }), inner, padding }, ())
        })
        .prop_filter_map("GRE carries IP", |(stack, ())| {
            let is_ip = matches!(stack.inner.body, Body::Ip(_));
            (stack.inner.link.is_some() || is_ip).then_some(stack)
        })
        .boxed()
}

/// A group that is alone must not look like the outer one of a tunnel, where that would be seen.
fn avoid_tunnel(group: &mut Group) {
    let tags = group.link.as_ref().map_or(0, |link| link.tags.len());
    let Body::Ip(ip) = &mut group.body else { return };
    if tags > 1 || !matches!(ip.piece, Piece::Whole | Piece::Atomic) {
        return;
    }
    match &mut ip.l4 {
        L4::Udp { ports: [_, port] } if matches!(port, 4789 | 6081) => *port ^= 2,
        L4::Other { protocol } if *protocol == 47 => *protocol = 46,
        _ => {}
    }
}

pub(crate) fn group() -> BoxedStrategy<Group> {
    let arp = (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(operation, sender, target)| Body::Arp {
        operation,
        sender,
        target,
    });
    let known = [0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8];
    let ether_type = any::<u16>().prop_map(move |kind| if known.contains(&kind) { 0x88cc } else { kind });
    let other = (prop_oneof![ether_type, 0_u16..0x600], vec(any::<u8>(), 0..60))
        .prop_map(|(ether_type, payload)| Body::Other { ether_type, payload });
    let body = prop_oneof![8 => ip(piece()).prop_map(Body::Ip), 1 => arp, 1 => other];
    (link(), body).prop_map(|(link, body)| Group { link: Some(link), body }).boxed()
}

fn link() -> BoxedStrategy<Link> {
    let tags = || vec((select(&[0x8100, 0x88a8][..]), any::<u16>()), 0..4);
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => tags()];
    (any::<[u8; 6]>(), any::<[u8; 6]>(), tags)
        .prop_map(|(destination, source, tags)| Link { destination, source, tags })
        .boxed()
}

fn piece() -> BoxedStrategy<Piece> {
    let later = (1_u16..0x2000, any::<bool>()).prop_map(|(eights, more)| Piece::Later { eights, more });
    prop_oneof![6 => Just(Piece::Whole), 1 => Just(Piece::Atomic), 1 => Just(Piece::First), 1 => later].boxed()
}

fn ip(piece: BoxedStrategy<Piece>) -> BoxedStrategy<Ip> {
    let addresses = (any::<u128>(), any::<u128>());
    let numbers = (any::<u8>(), any::<u8>(), any::<u32>());
    let options = prop_oneof![2 => Just(Vec::new()), 1 => vec(any::<[u8; 4]>(), 0..11)];
    let chain = || vec((select(&[0, 43, 51, 60][..]), 0_u8..3), 0..4);
    let extensions = prop_oneof![2 => Just([Vec::new(), Vec::new()]), 1 => [chain(), chain()]];
    let rest = (l4(), vec(any::<u8>(), 0..60));
    (any::<bool>(), addresses, numbers, options, extensions, piece, rest)
        .prop_map(|(v6, (source, destination), (tos, ttl, id), options, extensions, piece, (l4, payload))| {
            let l4 = match l4 {
                // What is an extension header, or known, in one version is neither in the other.
                L4::Other { protocol } if v6 && matches!(protocol, 0 | 43 | 44 | 51 | 58 | 60) => {
                    L4::Other { protocol: 1 }
                }
                L4::Other { protocol: 1 } if !v6 => L4::Other { protocol: 58 },
                other => other,
            };
            Ip { v6, source, destination, tos, ttl, id, options, extensions, piece, l4, payload }
        })
        .boxed()
}

fn l4() -> BoxedStrategy<L4> {
    let port = || prop_oneof![4 => any::<u16>(), 1 => select(&[4789, 6081][..])];
    let words = (any::<u32>(), any::<u32>(), any::<u8>());
    let options = prop_oneof![Just(Vec::new()), vec(any::<[u8; 4]>(), 0..11)];
    let tcp = ([port(), port()], words, options).prop_map(|(ports, (seq, ack, flags), options)| L4::Tcp {
        ports,
        seq,
        ack,
        flags,
        options,
    });
    let udp = [port(), port()].prop_map(|ports| L4::Udp { ports });
    let kind = prop_oneof![select(&[0, 8, 128, 129][..]), any::<u8>()];
    let icmp = (kind, any::<u8>(), any::<u16>()).prop_map(|(kind, code, id)| L4::Icmp { kind, code, id });
    let unknown = any::<u8>().prop_map(|n| if matches!(n, 6 | 17) { 132 } else { n });
    let protocol = prop_oneof![select(&[0, 1, 2, 43, 44, 47, 50, 51, 58, 59, 60][..]), unknown];
    let other = protocol.prop_map(|protocol| L4::Other { protocol });
    prop_oneof![3 => tcp, 3 => udp, 1 => icmp, 1 => other].boxed()
}

fn shim() -> BoxedStrategy<Shim> {
    let vni = || 0_u32..1 << 24;
    let optional = any::<[bool; 2]>;
    prop_oneof![
        vni().prop_map(|vni| Shim::Vxlan { vni }),
        (vni(), vec(any::<[u8; 4]>(), 0..10)).prop_map(|(vni, options)| Shim::Geneve { vni, options }),
        (vni(), any::<u8>(), optional()).prop_map(|(subnet, flow, optional)| Shim::Nvgre { subnet, flow, optional }),
        (any::<Option<u32>>(), optional()).prop_map(|(key, optional)| Shim::Gre { key, optional }),
    ]
    .boxed()
}
