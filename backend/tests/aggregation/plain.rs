// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The oracle of aggregation is plain delivery: the same packets, sent plain and sent aggregated, arrive the same and are judged the
//! same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use switch::tally::Total;

use crate::stage::{Flows, Kind, MACS, Spec, Stage, flows};
use crate::support::{Guest, Speaker, TestNode, aggregates, frame, guest_config, until};

/// How "a" sends its packets.
#[derive(Debug, Clone, Copy)]
enum How {
    Plain,
    Aggregated { max_bytes: usize, template: bool },
}

/// What came of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    at_b: Flows,
    at_c: Flows,
    received: (u64, u64),
    drops: BTreeMap<String, u64>,
    /// Flows, connections, packets that hit a flow and that did not.
    policy: [u64; 4],
    /// What the rules counted.
    rules: Total,
}

fn spec() -> impl Strategy<Value = (Spec, usize)> {
    let kind =
        prop_oneof![4 => Just(Kind::Udp), 1 => Just(Kind::Blocked), 2 => Just(Kind::Tcp), 1 => Just(Kind::Other)];
    let len = prop_oneof![3 => Just(60_usize), 3 => 58..130_usize, 1 => 130..1600_usize, 1 => 4000..4100_usize];
    // Several of the same in a row are runs.
    let run = prop_oneof![1 => Just(1_usize), 2 => 2..12_usize];
    (kind, 1..3_usize, 0..3_u8, len, run).prop_map(|(kind, to, flow, len, run)| (Spec { kind, to, flow, len }, run))
}

fn outcome(specs: &[Spec], how: How) -> Outcome {
    let mut stage = Stage::start(|spec| spec);
    let packets: Vec<_> = specs.iter().zip(0..).map(|(spec, number)| spec.packet(number)).collect();
    let snapshot = stage.blocking_policy();
    let before = stage.node.status("a");
    let (mut plain, mut speaker);
    let from: &mut Guest = match how {
        How::Plain => {
            let mut config = guest_config(stage.node.socket("a"));
            config.tx_buffer = 17_000;
            plain = Guest::attach_with(config);
            &mut plain
        }
        How::Aggregated { .. } => {
            speaker = Speaker::attach(stage.node.socket("a"), 7, 77);
            speaker.agree();
            &mut speaker.guest
        }
    };
    // In slices that the receivers have buffers for.
    let (mut at_b, mut at_c) = (Vec::new(), Vec::new());
    for (specs, packets) in specs.chunks(100).zip(packets.chunks(100)) {
        match how {
            How::Plain => from.send(packets),
            How::Aggregated { max_bytes, template } => {
                // What no frame holds goes plain, in its place.
                let fits = |packet: &Vec<u8>| packet.len() + 60 <= max_bytes;
                for part in packets.chunk_by(|one, other| fits(one) == fits(other)) {
                    let frames = if fits(&part[0]) { aggregates(part, max_bytes, template) } else { part.to_vec() };
                    from.send(&frames);
                }
            }
        }
        let due = |to| specs.iter().filter(|spec| spec.is_for(to) && spec.kind != Kind::Blocked).count();
        let [b, c] = stage.receive([due(1), due(2)], || {});
        at_b.extend(b);
        at_c.extend(c);
    }
    // What was dropped is counted when a frame has come that was sent behind it.
    from.send(&[frame(MACS[2], MACS[0], 60, 9)]);
    stage.receive([0, 1], || {});
    let status = until("all is counted", || {
        let status = stage.node.status("a");
        (status.rx_packets == specs.len() as u64 + 1).then_some(status)
    });
    let report = stage.node.handle().ask_engine("a", |engine, port, _| {
        let folded = engine.fold(port, 0, usize::MAX);
        assert_eq!(folded, None, "all flows");
        engine.report(port)
    });
    let report = report.expect("node").expect("port").expect("policy");
    let policy = [report.flows, report.connections, report.stats.hits, report.stats.misses];
    let received = (status.rx_packets - before.rx_packets, status.rx_bytes - before.rx_bytes);
    no_damage(&stage.node);
    let rules = snapshot.totals()[0].groups[0].all;
    Outcome { at_b: flows(&at_b), at_c: flows(&at_c), received, drops: status.drops, policy, rules }
}

fn no_damage(node: &TestNode) {
    for status in node.stats().ports {
        assert!(status.aggregation.damages.is_empty() && status.errors.is_empty(), "{status:?}");
        assert!(status.name == "a" || status.drops.is_empty(), "{status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Decisions 23 and 28: per-flow sequences, and the counters of port, flows and rules.
    #[test]
    fn plain_and_aggregated_packets_fare_the_same(
        runs in proptest::collection::vec(spec(), 1..60),
        max_bytes in prop_oneof![Just(200_usize), Just(1500), Just(4100), Just(16_384)],
        template in any::<bool>(),
    ) {
        let specs: Vec<Spec> = runs.iter().flat_map(|(spec, run)| std::iter::repeat_n(*spec, *run)).collect();
        let plain = outcome(&specs, How::Plain);
        let aggregated = outcome(&specs, How::Aggregated { max_bytes, template });
        prop_assert_eq!(&aggregated, &plain);
        let blocked = specs.iter().filter(|spec| spec.kind == Kind::Blocked).count() as u64;
        check(&specs, &plain, blocked)?;
    }
}

/// Plain delivery itself is what was sent.
fn check(specs: &[Spec], outcome: &Outcome, blocked: u64) -> Result<(), TestCaseError> {
    let sent = |to: usize| {
        let numbered = specs.iter().zip(0..).filter(|(spec, _)| spec.is_for(to) && spec.kind != Kind::Blocked);
        flows(&numbered.map(|(spec, number)| spec.packet(number)).collect::<Vec<_>>())
    };
    prop_assert_eq!((&outcome.at_b, &outcome.at_c), (&sent(1), &sent(2)));
    prop_assert_eq!(outcome.drops.get("policy_block").copied().unwrap_or(0), blocked);
    Ok(())
}
