// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames with tunnels, and UDP: each segment is what the same stack of headers with a part of the payload is
//! when it is built anew.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::segments;
use crate::{
    Checksum, GsoKind, Offload, SegmentError, Segmentation, Segmenter, Tunnel,
    checksum::{Sum, checksum, complete_checksum},
    parse::{
        parse,
        tests::{
            stack::{Body, Ip, L4, Outer, Piece, Shim, Stack},
            strategy::{stack, tunnelled},
        },
    },
};

/// A frame to be cut.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) stack: Stack,
    size: u16,
    /// The outer group has no UDP checksum.
    unsummed: bool,
}

fn ip(body: &mut Body) -> Option<&mut Ip> {
    match body {
        Body::Ip(ip) => Some(ip),
        _ => None,
    }
}

/// What a sender of oversized frames does not do.
fn tame(ip: &mut Ip) {
    ip.piece = Piece::Whole;
    for chain in &mut ip.extensions {
        chain.retain(|(kind, _)| *kind != 51);
    }
}

pub(super) fn scene(stack: BoxedStrategy<Stack>) -> impl Strategy<Value = Scene> {
    let rest = (vec(any::<u8>(), 0..6000), 8_u16..3000, any::<bool>(), any::<[u16; 2]>());
    (stack, rest).prop_filter_map("TCP or UDP in IP is cut", |(mut stack, (payload, size, unsummed, ports))| {
        if let Some(Outer { group, shim, .. }) = &mut stack.outer {
            if let Shim::Nvgre { optional: [_, sequence], .. } | Shim::Gre { optional: [_, sequence], .. } = shim {
                *sequence = false;
            }
            group.link.as_mut()?.tags.truncate(1);
            tame(ip(&mut group.body)?);
        }
        if let Some(link) = &mut stack.inner.link {
            link.tags.truncate(2);
        }
        let inner = ip(&mut stack.inner.body)?;
        tame(inner);
        inner.payload = payload;
        if !matches!(inner.l4, L4::Tcp { .. } | L4::Udp { .. }) {
            // 4789 and 6081 would be tunnels to the parser.
            inner.l4 = L4::Udp { ports: ports.map(|port| port | 0x8000) };
        }
        Some(Scene { stack, size, unsummed })
    })
}

impl Scene {
    fn inner(&self) -> &Ip {
        match &self.stack.inner.body {
            Body::Ip(ip) => ip,
            _ => panic!("no IP"),
        }
    }

    /// The frame of a stack, its transport header, and the outer one's.
    pub(super) fn build(&self, stack: &Stack) -> (Vec<u8>, usize, Option<usize>) {
        let built = stack.build();
        let mut bytes = built.bytes;
        let layout = built.parsed.layout;
        let outer = layout.outer.map(|outer| usize::from(outer.transport));
        if let Some(at) = self.udp(outer).filter(|_| self.unsummed) {
            bytes[at + 6..at + 8].fill(0);
        }
        (bytes, layout.transport.unwrap().into(), outer)
    }

    fn udp(&self, outer: Option<usize>) -> Option<usize> {
        outer
            .filter(|_| matches!(&self.stack.outer, Some(Outer { shim: Shim::Vxlan { .. } | Shim::Geneve { .. }, .. })))
    }

    pub(super) fn offload(&self, start: usize) -> Offload {
        let (kind, offset) = match (&self.inner().l4, self.inner().v6) {
            (L4::Udp { .. }, _) => (GsoKind::Udp, 6),
            (_, false) => (GsoKind::TcpV4, 16),
            (_, true) => (GsoKind::TcpV6, 16),
        };
        Offload {
            checksum: Checksum::Unfinished { start: start.try_into().unwrap(), offset },
            segmentation: Some(Segmentation { kind, ecn: false, size: self.size, header_len: 0 }),
        }
    }

    /// The stack of segment `i` of `count`.
    fn part(&self, i: usize, count: usize) -> Stack {
        let mut stack = Stack { padding: 0, ..self.stack.clone() };
        let add = u32::try_from(i).unwrap();
        if let Some(Outer { group, .. }) = &mut stack.outer {
            let outer = ip(&mut group.body).unwrap();
            outer.id = outer.id.wrapping_add(add);
        }
        let inner = ip(&mut stack.inner.body).unwrap();
        inner.id = inner.id.wrapping_add(add);
        let size = usize::from(self.size);
        inner.payload = self.inner().payload.chunks(size).nth(i).unwrap_or_default().to_vec();
        if let L4::Tcp { seq, flags, .. } = &mut inner.l4 {
            *seq = seq.wrapping_add(u32::try_from(i * size).unwrap());
            *flags &= if i == 0 { 0xff } else { 0x7f };
            *flags &= if i + 1 == count { 0xff } else { 0xf6 };
        }
        stack
    }

    fn expected(&self, i: usize, count: usize) -> Vec<u8> {
        let (mut bytes, l4, outer) = self.build(&self.part(i, count));
        // 0 and 0xffff are the same number, and we always send the latter.
        if matches!(self.inner().l4, L4::Tcp { .. }) && bytes[l4 + 16..l4 + 18] == [0, 0] {
            bytes[l4 + 16..l4 + 18].fill(0xff);
        }
        // The stack does not compute this one.
        if let Some(Outer { shim: Shim::Nvgre { optional, .. } | Shim::Gre { optional, .. }, .. }) = &self.stack.outer
            && optional[0]
        {
            let at = outer.unwrap();
            bytes[at + 4..at + 6].fill(0);
            let sum = checksum(&bytes[at..]).to_be_bytes();
            bytes[at + 4..at + 6].copy_from_slice(&sum);
        }
        bytes
    }
}

/// What another parser says of the checksums of a UDP datagram, if it sees one.
fn their_udp_checksum(frame: &[u8]) -> Option<(u16, u16)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    let header = udp.to_header();
    let theirs = match sliced.net? {
        NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
        NetSlice::Arp(_) => return None,
    };
    Some((udp.checksum(), theirs.unwrap()))
}

proptest! {
    #[test]
    fn segments_are_the_same_stack_with_less_payload(
        scene in scene(prop_oneof![1 => stack(), 3 => tunnelled()].boxed()),
    ) {
        let (mut frame, start, outer) = scene.build(&scene.stack);
        // What is unfinished means nothing, and neither does an outer checksum but for being there.
        let Checksum::Unfinished { offset, .. } = scene.offload(start).checksum else { panic!("finished") };
        let unfinished = [Some(start + usize::from(offset)), scene.udp(outer).map(|at| at + 6)];
        for at in unfinished.into_iter().flatten() {
            if frame[at..at + 2] != [0, 0] {
                frame[at..at + 2].fill(0x5a);
            }
        }
        let all = segments(&frame, &scene.offload(start));
        prop_assert_eq!(all.len(), scene.inner().payload.len().div_ceil(scene.size.into()).max(1));
        for (i, segment) in all.iter().enumerate() {
            prop_assert_eq!(segment, &scene.expected(i, all.len()), "segment {}", i);
            if let Some((ours, theirs)) = their_udp_checksum(segment) {
                prop_assert!(ours == theirs || ours == 0 && scene.unsummed && outer.is_some());
            }
        }
    }

    /// A checksum inside a tunnel is finished, and the outer one is then right, because its sender computed it
    /// as if it were (Linux calls that local checksum offload); or is still 0.
    #[test]
    fn an_outer_checksum_is_right_once_the_inner_one_is_finished(scene in scene(tunnelled())) {
        let (finished, start, outer) = scene.build(&scene.stack);
        let Checksum::Unfinished { offset, .. } = scene.offload(start).checksum else { panic!("finished") };
        let state = Checksum::Unfinished { start: start.try_into().unwrap(), offset };
        let mut frame = finished[..finished.len() - scene.stack.padding].to_vec();
        let at = start + usize::from(offset);
        let mut rest = Sum::new();
        rest.add(&frame[start..at]);
        rest.add(&frame[at + 2..]);
        let mut pseudo = Sum::new();
        pseudo.add_value(!u16::from_be_bytes([frame[at], frame[at + 1]]));
        pseudo.add_value(!rest.partial());
        frame[at..at + 2].copy_from_slice(&pseudo.partial().to_be_bytes());
        complete_checksum(&mut frame, state).unwrap();
        if let Some((ours, theirs)) = their_udp_checksum(&frame) {
            prop_assert!(ours == theirs || ours == 0 && scene.unsummed);
        }
        let same = |at: usize| [frame[at], frame[at + 1]] == [finished[at], finished[at + 1]];
        prop_assert!(outer.is_none_or(|outer| same(outer + 6)));
        prop_assert!(same(at) || [frame[at], frame[at + 1]] == [0xff, 0xff]);
    }

    /// What is behind the outer packet may be missing. Padding of the inner frame is a part of it, and may not.
    #[test]
    fn a_cut_or_changed_frame_is_refused_or_segmented(
        scene in scene(tunnelled()),
        behind in 0_usize..20,
        cut: Index,
        near_the_end in option::of(0_usize..50),
        edits in vec((0_usize..200, any::<u8>()), 0..6),
    ) {
        let (mut frame, start, _) = scene.build(&scene.stack);
        let whole = frame.len();
        frame.resize(whole + behind, 0xfb);
        let cut = near_the_end.map_or_else(|| cut.index(frame.len() + 1), |missing| frame.len() - missing);
        match Segmenter::new(&frame[..cut], &scene.offload(start)) {
            Ok(_) => prop_assert!(cut >= whole),
            Err(error) => prop_assert!(cut < whole && matches!(error, SegmentError::Truncated { .. }), "{}", error),
        }
        let mut frame = frame[..cut].to_vec();
        for (at, value) in edits {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(mut segmenter) = Segmenter::new(&frame, &scene.offload(start)) {
            let mut out = vec![0; 70_000];
            while let Ok(Some(_)) = segmenter.next_into(&mut out) {}
            prop_assert_eq!(segmenter.remaining(), 0);
        }
    }
}

/// A TCP frame of 3000 bytes of payload in a tunnel over IPv4, and where its headers lie.
fn tcp_in(shim: Shim) -> (Scene, Vec<u8>, usize, usize) {
    use crate::parse::tests::stack::{Group, Link};
    let ip = |l4, payload| Ip {
        v6: false,
        source: 1,
        destination: 2,
        tos: 0,
        ttl: 64,
        id: 9,
        options: Vec::new(),
        extensions: [Vec::new(), Vec::new()],
        piece: Piece::Whole,
        l4,
        payload,
    };
    let link = || Some(Link { destination: [2; 6], source: [4; 6], tags: Vec::new() });
    let tcp = L4::Tcp { ports: [1, 2], seq: 3, ack: 4, flags: 0x18, options: Vec::new() };
    let inner_link = if matches!(shim, Shim::Gre { .. }) { None } else { link() };
    let inner = Group { link: inner_link, body: Body::Ip(ip(tcp, vec![7; 3000])) };
    let group = Group { link: link(), body: Body::Ip(ip(L4::Udp { ports: [0; 2] }, Vec::new())) };
    let stack = Stack { outer: Some(Outer { group, shim, src_port: 5000 }), inner, padding: 0 };
    let scene = Scene { stack, size: 1000, unsummed: true };
    let (frame, start, outer) = scene.build(&scene.stack);
    (scene, frame, start, outer.unwrap())
}

#[test]
fn padding_in_a_tunnel_is_a_part_of_the_outer_packet_and_of_no_segment() {
    let (mut scene, frame, start, _) = tcp_in(Shim::Gre { key: None, optional: [true, false] });
    let short = segments(&frame, &scene.offload(start));
    scene.stack.padding = 16;
    let (mut frame, ..) = scene.build(&scene.stack);
    let whole = frame.len();
    assert_eq!(segments(&frame, &scene.offload(start)), short);
    for cut in whole - 16..whole {
        let error = Segmenter::new(&frame[..cut], &scene.offload(start)).unwrap_err();
        assert_eq!(error, SegmentError::Truncated { need: whole, have: cut });
    }
    // What is behind the outer packet belongs to nobody.
    frame.extend([0xfb; 9]);
    assert_eq!(segments(&frame, &scene.offload(start)), short);
}

#[test]
fn vxlan_may_have_any_port() {
    let (scene, mut frame, start, udp) = tcp_in(Shim::Vxlan { vni: 7 });
    frame[udp + 2..udp + 4].copy_from_slice(&8472_u16.to_be_bytes());
    for (i, mut segment) in segments(&frame, &scene.offload(start)).into_iter().enumerate() {
        assert_eq!(segment[udp + 2..udp + 4], 8472_u16.to_be_bytes());
        segment[udp + 2..udp + 4].copy_from_slice(&4789_u16.to_be_bytes());
        assert_eq!(segment, scene.expected(i, 3));
        let parsed = parse(&segment, u32::try_from(segment.len()).unwrap()).unwrap();
        assert_eq!(parsed.layout.outer.map(|outer| outer.tunnel), Some(Tunnel::Vxlan));
    }
}

#[test]
fn what_is_in_no_known_tunnel_is_refused() {
    let refused = |shim: Shim, at: usize, value: u8| {
        let (scene, mut frame, start, outer) = tcp_in(shim);
        frame[outer + at] = value;
        (Segmenter::new(&frame, &scene.offload(start)).unwrap_err(), outer)
    };
    let (error, outer) = refused(Shim::Vxlan { vni: 7 }, 8, 0);
    assert_eq!(error, SegmentError::UnknownTunnel { at: outer + 8 });
    let (error, outer) = refused(Shim::Geneve { vni: 7, options: Vec::new() }, 8, 0x40);
    assert_eq!(error, SegmentError::UnknownTunnel { at: outer + 8 });
    let (error, outer) = refused(Shim::Gre { key: None, optional: [false, true] }, 1, 0);
    assert_eq!(error, SegmentError::UnknownTunnel { at: outer }, "with a sequence number");
    let (error, outer) = refused(Shim::Gre { key: None, optional: [false, false] }, 3, 1);
    assert_eq!(error, SegmentError::UnknownTunnel { at: outer }, "of an unknown type");

    let (scene, frame, start, _) = tcp_in(Shim::Vxlan { vni: 7 });
    let elsewhere = Segmenter::new(&frame, &scene.offload(start + 4)).unwrap_err();
    assert_eq!(elsewhere, SegmentError::WrongStart { start: start + 4, l4: start });
    let mut other = scene.offload(start);
    let segmentation = other.segmentation.as_mut().unwrap();
    segmentation.kind = GsoKind::Udp;
    assert_eq!(Segmenter::new(&frame, &other).unwrap_err(), SegmentError::WrongProtocol { protocol: 6 });
}
