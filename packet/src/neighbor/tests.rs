// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is built is what an independent parser reads; what is cut, mutated or against the rules is
//! nothing.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn v4(low: u8) -> Ipv4Addr {
    [10, 0, 0, low].into()
}

fn v6(low: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low)
}

/// One of each that can be built.
fn frames() -> Vec<(Vec<u8>, Message)> {
    let request = |sender: IpAddr, mac, target: IpAddr| {
        Message::Request(Request { sender: Some(sender), mac: Some(mac), source: mac, target })
    };
    let answer = |sender: IpAddr, recipient: IpAddr, solicited| {
        Message::Answer(Answer { sender, mac: Some(OWN), recipient, solicited, overrides: true })
    };
    let (a, b, c, d) = (v4(1).into(), v4(2).into(), v6(1).into(), v6(2).into());
    let all = ALL_NODES.into();
    vec![
        (arp_request((OWN, v4(1)), v4(2), MacAddr::BROADCAST), request(a, OWN, b)),
        (arp_request((OWN, v4(1)), v4(2), PEER), request(a, OWN, b)),
        (arp_announcement((OWN, v4(1))), request(a, OWN, a)),
        (arp_reply((OWN, v4(1)), (PEER, v4(2))), answer(a, b, true)),
        (solicitation((OWN, v6(1)), v6(2), None), request(c, OWN, d)),
        (solicitation((OWN, v6(1)), v6(2), Some(PEER)), request(c, OWN, d)),
        (advertisement((OWN, v6(1)), (PEER, v6(2))), answer(c, d, true)),
        (advertisement((OWN, v6(1)), (PEER, Ipv6Addr::UNSPECIFIED)), answer(c, all, false)),
        (unsolicited_advertisement((OWN, v6(1))), answer(c, all, false)),
    ]
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// With the `ICMPv6` checksum made right.
fn resummed(mut frame: Vec<u8>) -> Vec<u8> {
    let len = usize::from(u16::from_be_bytes([frame[18], frame[19]])).min(frame.len() - 54);
    frame[56..58].fill(0);
    let (source, destination) = halves(frame[22..54].try_into().unwrap()).unwrap();
    let sum = sum_v6(source, destination, &frame[54..54 + len]).checksum();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn what_is_built_is_read() {
    for (frame, message) in frames() {
        assert_eq!(Message::parse(&frame), Some(message));
        let mut padded = frame.clone();
        padded.extend([0x5a; 20]);
        assert_eq!(Message::parse(&padded), Some(message));
    }
}

#[test]
fn what_is_built_is_read_by_others() {
    for (frame, message) in frames() {
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        match sliced.net.unwrap() {
            NetSlice::Arp(arp) => {
                assert_eq!((arp.hw_addr_type().0, arp.proto_addr_type().0), (1, 0x800));
                assert_eq!((arp.hw_addr_size(), arp.proto_addr_size()), (6, 4));
                assert_eq!(arp.sender_hw_addr(), OWN.0);
                assert_eq!(frame.len(), 60);
                let (sender, target) = match message {
                    Message::Request(Request { sender, target, .. }) => (sender.unwrap(), target),
                    Message::Answer(Answer { sender, recipient, .. }) => (sender, recipient),
                };
                assert_eq!(arp.sender_protocol_addr(), v4_octets(sender));
                assert_eq!(arp.target_protocol_addr(), v4_octets(target));
                assert_eq!(arp.operation().0, if matches!(message, Message::Request(_)) { 1 } else { 2 });
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                assert_eq!(header.hop_limit(), 255);
                let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMPv6") };
                assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                assert_eq!(icmp.type_u8(), if matches!(message, Message::Request(_)) { 135 } else { 136 });
                let destination = header.destination_addr();
                if destination.is_multicast() {
                    assert_eq!(frame[..2], [0x33, 0x33]);
                    assert_eq!(frame[2..6], destination.octets()[12..]);
                } else {
                    assert_eq!(frame[..6], PEER.0);
                }
            }
            NetSlice::Ipv4(_) => panic!("IPv4"),
        }
    }
}

fn v4_octets(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address.octets()
}

#[test]
fn a_solicitation_goes_to_the_group_of_its_target() {
    let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 1, 2, 0x3344, 0x5566);
    assert_eq!(solicited_node(target), "ff02::1:ff44:5566".parse::<Ipv6Addr>().unwrap());
    assert_eq!(solicitation((OWN, v6(1)), target, None)[..6], [0x33, 0x33, 0xff, 0x44, 0x55, 0x66]);
}

#[test]
fn an_asker_without_an_address_is_understood() {
    let probe = arp_request((OWN, Ipv4Addr::UNSPECIFIED), v4(2), MacAddr::BROADCAST);
    let expected = Request { sender: None, mac: Some(OWN), source: OWN, target: v4(2).into() };
    assert_eq!(Message::parse(&probe), Some(Message::Request(expected)));

    let mut frame = solicitation((OWN, Ipv6Addr::UNSPECIFIED), v6(2), None);
    assert_eq!(Message::parse(&frame), None, "it must not say where it is");
    frame.truncate(frame.len() - 8);
    frame[19] = 24;
    let frame = resummed(frame);
    let expected = Request { sender: None, mac: None, source: OWN, target: v6(2).into() };
    assert_eq!(Message::parse(&frame), Some(Message::Request(expected)));
    let mut elsewhere = frame;
    elsewhere[53] ^= 1;
    assert_eq!(Message::parse(&resummed(elsewhere)), None, "not to the target's group");
}

/// Each of the rules, broken.
#[test]
fn what_breaks_a_rule_is_no_message() {
    let all = frames();
    let broken = |index: usize, at: usize, value: u8| {
        let mut frame = all[index].0.clone();
        assert_ne!(frame[at], value);
        frame[at] = value;
        Message::parse(&if frame[12] == 0x86 { resummed(frame) } else { frame })
    };
    // ARP: hardware, protocol, lengths, operation, sender, target.
    for (at, value) in
        [(15, 6), (16, 7), (18, 8), (19, 6), (20, 1), (21, 3), (22, 3), (28, 224), (28, 127), (38, 224), (38, 0xff)]
    {
        let mut frame = all[0].0.clone();
        frame[at] = value;
        if value == 0xff {
            frame[38..42].fill(0xff);
        }
        assert_eq!(Message::parse(&frame), None, "{at}");
    }
    // Solicitation: version, length, next header, hop limit, source, code, target, option.
    for (at, value) in
        [(14, 0x70), (19, 23), (20, 0), (21, 254), (22, 0xff), (55, 1), (62, 0xff), (79, 0), (79, 2), (80, 1)]
    {
        assert_eq!(broken(4, at, value), None, "{at}");
    }
    // Advertisement: not a known type, solicited but to all.
    assert_eq!(broken(6, 54, 137), None);
    assert_eq!(broken(8, 58, 0x60), None);
    // Another option is none of ours, and its absence is no error.
    let Some(Message::Answer(answer)) = broken(6, 78, 1) else { panic!("refused") };
    assert_eq!(answer.mac, None);
}

proptest! {
    #[test]
    fn a_cut_message_is_none(choice: Index) {
        let all = frames();
        let (frame, message) = &all[choice.index(all.len())];
        let need = if frame[12] == 8 { 42 } else { frame.len() };
        for len in 0..=frame.len() {
            prop_assert_eq!(Message::parse(&frame[..len]), (len >= need).then_some(*message));
        }
    }

    /// Every bit of an `ICMPv6` message and its addresses counts.
    #[test]
    fn a_wrong_checksum_is_noticed(choice in 4..9_usize, at in 22..86_usize, by in 1..=255_u8) {
        let mut frame = frames()[choice].0.clone();
        frame[at] ^= by;
        prop_assert_eq!(Message::parse(&frame), None);
    }

    #[test]
    fn no_bytes_are_dangerous(
        choice: Index,
        edits in vec((any::<Index>(), any::<u8>()), 0..8),
        tail in vec(any::<u8>(), 0..40),
        cut: Index,
    ) {
        let all = frames();
        let mut frame = all[choice.index(all.len())].0.clone();
        frame.extend(tail);
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len() + 1));
        if frame.len() >= 58 && frame[12] == 0x86 {
            frame = resummed(frame);
        }
        if let Some(Message::Request(Request { mac: Some(mac), .. }) | Message::Answer(Answer { mac: Some(mac), .. })) =
            Message::parse(&frame)
        {
            prop_assert!(mac.is_unicast());
        }
    }
}
