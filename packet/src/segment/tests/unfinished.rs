// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which unfinished checksums are some header's: all that senders leave, and none that reaches what policy reads.

use proptest::prelude::*;

use super::stacks::scene;
use crate::{
    Checksum, Offload, OffloadError,
    checksum::complete_checksum,
    parse::{
        parse,
        tests::strategy::{stack, tunnelled},
    },
};

/// Ethernet with tags, and this behind them.
fn ethernet(tags: usize, ether_type: u16, content: &[u8]) -> Vec<u8> {
    let tags = [0x81, 0x00, 0x00, 0x07].repeat(tags);
    [&[2; 12][..], &tags, &ether_type.to_be_bytes(), content].concat()
}

fn ipv4(protocol: u8, options: usize, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + 4 * options + content.len()).unwrap().to_be_bytes();
    let first = 0x45 + u8::try_from(options).unwrap();
    let header = [first, 0, len[0], len[1], 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], &vec![1; 4 * options], content].concat()
}

/// With these bytes of extension headers, of which the first is of this kind.
fn ipv6(next: u8, extensions: &[u8], content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(extensions.len() + content.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 64][..], &[0x20; 32], extensions, content].concat()
}

fn tcp() -> Vec<u8> {
    [&[0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x02, 1, 0, 0xab, 0xcd, 0, 0][..], b"payload"].concat()
}

fn udp(port: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + content.len()).unwrap().to_be_bytes();
    [&[0xc0, 0][..], &port.to_be_bytes(), &len, &[0, 0], content].concat()
}

fn vxlan(port: u16, frame: &[u8]) -> Vec<u8> {
    udp(port, &[&[8, 0, 0, 0, 0, 0, 42, 0][..], frame].concat())
}

fn unfinished(start: usize, offset: usize) -> Offload {
    let (start, offset) = (start.try_into().unwrap(), offset.try_into().unwrap());
    Offload { checksum: Checksum::Unfinished { start, offset }, segmentation: None }
}

/// All that is accepted of a frame. No header is so long that its checksum could lie beyond these offsets.
fn accepted(frame: &[u8]) -> Vec<(usize, usize)> {
    let places = (0..frame.len()).flat_map(|start| (0..40).map(move |offset| (start, offset)));
    places.filter(|(start, offset)| unfinished(*start, *offset).check_place(frame).is_ok()).collect()
}

/// What it is, the frame, and all that is accepted of it.
type Case = (&'static str, Vec<u8>, &'static [(usize, usize)]);

#[test]
fn each_header_of_a_stack_has_one_place() {
    let plain = ethernet(0, 0x0800, &ipv4(6, 0, &tcp()));
    let cases: [Case; 17] = [
        ("TCP", plain.clone(), &[(34, 16)]),
        ("a tag", ethernet(1, 0x0800, &ipv4(6, 0, &tcp())), &[(38, 16)]),
        ("two tags", ethernet(2, 0x86dd, &ipv6(17, &[], &udp(53, b"query"))), &[(62, 6)]),
        ("options", ethernet(0, 0x0800, &ipv4(17, 3, &udp(53, b"query"))), &[(46, 6)]),
        (
            "extensions",
            ethernet(0, 0x86dd, &ipv6(0, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0], &tcp())),
            &[(70, 16)],
        ),
        (
            "source-routed",
            ethernet(
                0,
                0x86dd,
                &ipv6(43, &[6, 2, 4, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &tcp()),
            ),
            &[(78, 16)],
        ),
        ("VXLAN", ethernet(0, 0x0800, &ipv4(17, 0, &vxlan(4789, &plain))), &[(34, 6), (84, 16)]),
        ("VXLAN at the port of Linux", ethernet(0, 0x0800, &ipv4(17, 0, &vxlan(8472, &plain))), &[(34, 6), (84, 16)]),
        (
            "VXLAN in VXLAN",
            ethernet(0, 0x0800, &ipv4(17, 0, &vxlan(4789, &ethernet(1, 0x0800, &ipv4(17, 0, &vxlan(4789, &plain)))))),
            &[(34, 6), (88, 6), (138, 16)],
        ),
        (
            "Geneve",
            ethernet(
                0,
                0x0800,
                &ipv4(17, 0, &udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 9, 0, 1, 2, 3, 0][..], &plain].concat())),
            ),
            &[(34, 6), (88, 16)],
        ),
        ("GRE", ethernet(0, 0x0800, &ipv4(47, 0, &[&[0, 0, 8, 0][..], &ipv4(6, 0, &tcp())].concat())), &[(58, 16)]),
        (
            "GRE with all there is",
            ethernet(
                0,
                0x0800,
                &ipv4(47, 0, &[&[0xb0, 0, 8, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2][..], &ipv4(6, 0, &tcp())].concat()),
            ),
            &[(34, 4), (70, 16)],
        ),
        ("IP in IP", ethernet(0, 0x0800, &ipv4(41, 0, &ipv6(6, &[], &tcp()))), &[(74, 16)]),
        ("ICMP", ethernet(0, 0x0800, &ipv4(1, 0, &[8, 0, 0, 0, 0, 1, 0, 1])), &[]),
        ("SCTP", ethernet(0, 0x0800, &ipv4(132, 0, &[7; 28])), &[]),
        ("ARP", ethernet(0, 0x0806, &[1; 28]), &[]),
        ("less than a header", ethernet(0, 0x0800, &ipv4(6, 0, &tcp()[..19])), &[]),
    ];
    for (what, frame, places) in cases {
        assert_eq!(accepted(&frame), places, "{what}");
        // A window with less than the headers is not taken on trust.
        if let Some((start, _)) = places.last() {
            assert!(accepted(&frame[..start + 2]).len() < places.len(), "{what}");
        }
    }
    let mut fragment = plain;
    fragment[20] = 0x20;
    assert_eq!(accepted(&fragment), []);
}

#[test]
fn what_is_finished_is_in_no_place() {
    for checksum in [Checksum::Unknown, Checksum::Verified] {
        assert_eq!(Offload { checksum, segmentation: None }.check_place(&[]), Ok(()));
    }
    let misplaced = OffloadError::ChecksumMisplaced { start: 36, offset: 0 };
    assert_eq!(unfinished(36, 0).check_place(&[0; 60]), Err(misplaced));
}

proptest! {
    #[test]
    fn the_transport_header_of_any_stack_is_accepted(scene in scene(prop_oneof![stack(), tunnelled()].boxed())) {
        let (frame, start, _) = scene.build(&scene.stack);
        prop_assert_eq!(scene.offload(start).check_place(&frame), Ok(()));
    }

    /// Whatever is accepted changes nothing that is read, neither before a tunnel's headers are taken off nor after.
    #[test]
    fn no_header_changes_when_a_checksum_is_finished(stack in prop_oneof![stack(), tunnelled()]) {
        let frame = stack.build().bytes;
        for (start, offset) in accepted(&frame) {
            let mut finished = frame.clone();
            complete_checksum(&mut finished, unfinished(start, offset).checksum).unwrap();
            let [before, after] = [&frame, &finished].map(|frame| parse(frame, frame.len().try_into().unwrap()));
            prop_assert_eq!(before, after);
            if let Ok(layout) = before.map(|parsed| parsed.layout)
                && let (Some(outer), Some(_)) = (layout.outer, layout.ethernet)
            {
                let inner = |frame: &[u8]| parse(&frame[outer.end.into()..], u32::try_from(frame.len()).unwrap() - u32::from(outer.end));
                prop_assert_eq!(inner(&frame), inner(&finished));
            }
        }
    }
}
