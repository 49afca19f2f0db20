// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is sent in aggregates arrives as the packets that were sent.

use std::collections::BTreeMap;

use crate::stage::{Kind, MACS, NAMES, Spec, Stage, assert_counts, flows, mix, send_all, sent_to};
use crate::support::{BROADCAST, Cnf};

/// Requirement A2, decisions 23, 24 and 27: two that aggregate and one that does not, on a bridge with and without policy. Packets of all lengths,
/// also those that no frame holds, arrive once, in order, byte for byte; who does not aggregate receives plain frames only.
#[test]
fn packets_arrive_as_they_were_sent() {
    for with_policy in [false, true] {
        let mut stage = Stage::start(|spec| spec);
        let mut a = Cnf::attach_with(
            stage.node.socket("a"),
            |wanted| (wanted.tx_aggr_max_bytes, wanted.rx_max_bytes) = (6000, 6000),
            |_| {},
        );
        a.agree();
        if with_policy {
            stage.blocking_policy();
        }
        let before = [stage.node.status("b"), stage.node.status("c")];
        let specs = mix(6000);
        let got = send_all(&mut stage, &mut a, &specs, 100, |_| false);
        for (to, got) in [1, 2].into_iter().zip(&got) {
            assert_eq!(flows(got), flows(&sent_to(&specs, to)), "{}, policy {with_policy}", NAMES[to]);
        }
        assert!(got[1].iter().all(|packet| packet[12..14] != [0x88, 0xb5]), "an aggregate to who knows none");
        // All that was counted, at all ports.
        let [from, to, unaware] = NAMES.map(|port| assert_counts(&stage.node, port, &[]));
        let sent = a.queues[0].counters();
        assert_eq!((from.rx_packets, sent.packets_sent), (6000, 6000));
        assert_eq!(from.rx_bytes, specs.iter().map(|spec| spec.len as u64).sum::<u64>());
        assert_eq!(from.aggregation.rx_packets, sent.packets_packed);
        assert_eq!(from.aggregation.rx_aggregates, sent.aggregates_sent);
        assert!(sent.packets_packed > 5000, "{sent:?}");
        let received = stage.b.queues[0].counters();
        assert_eq!(to.tx_packets - before[0].tx_packets, got[0].len() as u64);
        assert_eq!(
            (to.aggregation.tx_packets, to.aggregation.tx_aggregates),
            (received.packets_unpacked, received.aggregates_received)
        );
        assert!(received.packets_unpacked > 2500, "{received:?}");
        assert_eq!((received.unexpected, received.aggregates_lost, received.damaged().count()), (0, 0, 0));
        assert_eq!(unaware.tx_packets - before[1].tx_packets, got[1].len() as u64);
        let nothing = (
            unaware.aggregation.tx_aggregates,
            unaware.aggregation.tx_control,
            unaware.aggregation.packets_per_frame.count,
        );
        assert_eq!(nothing, (0, 0, 0));
        let up: BTreeMap<_, _> = [("up".to_owned(), 1)].into();
        assert_eq!(
            [from.aggregation.peers, to.aggregation.peers, unaware.aggregation.peers],
            [up.clone(), up, BTreeMap::new()]
        );
    }
}

/// Decision 23: runs of a flow that policy changes are taken apart, and every packet is changed.
#[test]
fn runs_are_translated_packet_by_packet() {
    let mut stage = Stage::start(|spec| spec);
    let mut a = Cnf::attach(stage.node.socket("a"));
    a.agree();
    stage.nat_policy();
    let specs: Vec<_> = (0..2000)
        .map(|n| Spec {
            kind: Kind::Udp,
            to: 1 + n / 50 % 2,
            flow: u8::try_from(n / 10 % 4).expect("few"),
            len: 60 + n % 300,
        })
        .collect();
    let got = send_all(&mut stage, &mut a, &specs, 50, |_| false);
    for (to, got) in [1, 2].into_iter().zip(&got) {
        let mut translated = flows(got).into_iter();
        // A flow keeps its port; which one it has is for the node to say. Order of flows: by what their first packet says.
        let mut by_first: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for ((protocol, port), packets) in translated.by_ref() {
            assert_eq!(protocol, 17);
            assert!((40_000..41_000).contains(&port), "{port}");
            let first = u32::from_be_bytes(packets[0][42..46].try_into().expect("a number"));
            by_first.insert(first, packets);
        }
        let sent = flows(&sent_to(&specs, to));
        assert_eq!(by_first.len(), sent.len());
        let sent_by_first: BTreeMap<u32, _> = sent
            .into_values()
            .map(|packets| (u32::from_be_bytes(packets[0][42..46].try_into().expect("a number")), packets))
            .collect();
        for ((first, got), (expected, sent)) in by_first.iter().zip(&sent_by_first) {
            assert_eq!((first, got.len()), (expected, sent.len()));
            for (got, sent) in got.iter().zip(sent) {
                assert_eq!((&got[42..], &got[26..30]), (&sent[42..], &[192, 0, 2, 1][..]), "payload and source");
                let ip = etherparse::Ipv4Header::from_slice(&got[14..]).expect("IPv4").0;
                assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                let udp = etherparse::UdpHeader::from_slice(&got[34..]).expect("UDP").0;
                assert_eq!(udp.calc_checksum_ipv4(&ip, &got[42..]), Ok(udp.checksum));
            }
        }
    }
    for port in NAMES {
        assert_counts(&stage.node, port, &[]);
    }
    assert_eq!(stage.node.status("a").rx_packets, 2000);
}

/// Decision 23: what policy drops is counted packet by packet, in runs or not.
#[test]
fn policy_drops_are_counted_per_packet() {
    let mut stage = Stage::start(|spec| spec);
    let mut a = Cnf::attach(stage.node.socket("a"));
    a.agree();
    let snapshot = stage.blocking_policy();
    let specs: Vec<_> = (0..1200)
        .map(|n| Spec {
            kind: if n / 20 % 3 == 0 { Kind::Blocked } else { Kind::Udp },
            to: 1 + n / 60 % 2,
            flow: 0,
            len: 60,
        })
        .collect();
    let got = send_all(&mut stage, &mut a, &specs, 60, |spec| spec.kind == Kind::Blocked);
    for (to, got) in [1, 2].into_iter().zip(&got) {
        let allowed: Vec<_> = specs
            .iter()
            .zip(0..)
            .filter(|(spec, _)| spec.is_for(to) && spec.kind == Kind::Udp)
            .map(|(spec, n)| spec.packet(n))
            .collect();
        assert_eq!(*got, allowed);
    }
    let status = assert_counts(&stage.node, "a", &[("policy_block", 400)]);
    assert_eq!(status.rx_packets, 1200);
    let folded = stage.node.handle().ask_engine("a", |engine, port, _| engine.fold(port, 0, usize::MAX));
    assert_eq!(folded.expect("node").expect("port"), None, "all flows");
    let total = snapshot.totals()[0].groups[0].all;
    assert_eq!((total.packets, total.bytes), (1200, 1200 * 60));
}

/// Decision 27: packets that alternate between guests are put together for each, and what is for all stays in its place among them.
#[test]
fn each_guest_gets_its_packets_in_their_order() {
    for with_policy in [false, true] {
        let mut stage = Stage::start(|spec| spec);
        let mut a = Cnf::attach(stage.node.socket("a"));
        a.agree();
        if with_policy {
            stage.blocking_policy();
        }
        let to = |number: usize| (number % 13 != 7).then_some(1 + number % 3 % 2);
        let packets: Vec<Vec<u8>> = (0..1800)
            .map(|number: usize| {
                let numbered = u32::try_from(number).expect("few");
                match to(number) {
                    Some(to) => {
                        let flow = u8::try_from(number % 5).expect("few");
                        Spec { kind: Kind::Udp, to, flow, len: 64 }.packet(numbered)
                    }
                    None => [&BROADCAST[..], &MACS[0], &[0x88, 0xb6], &numbered.to_be_bytes(), &[0; 46]].concat(),
                }
            })
            .collect();
        let expected: [Vec<Vec<u8>>; 2] = [1, 2].map(|receiver| {
            let is_for = |number: usize| to(number).is_none_or(|to| to == receiver);
            packets.iter().enumerate().filter(|(number, _)| is_for(*number)).map(|(_, packet)| packet.clone()).collect()
        });
        let mut got: [Vec<Vec<u8>>; 2] = Default::default();
        for first in (0..packets.len()).step_by(60) {
            let slice = first..first + 60;
            let counts = [1, 2]
                .map(|receiver| slice.clone().filter(|number| to(*number).is_none_or(|to| to == receiver)).count());
            let mut sent = 0;
            let arrived = stage.receive(counts, || sent += a.offer(&packets[slice.clone()][sent..]));
            got.iter_mut().zip(arrived).for_each(|(got, arrived)| got.extend(arrived));
        }
        assert_eq!(got, expected, "policy {with_policy}");
        assert_counts(&stage.node, "a", &[]);
        assert!(stage.b.queues[0].counters().packets_unpacked > 500);
    }
}
