// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fast path against the slow one.

use etherparse::PacketBuilder;
use packet::{Offload, PortId};
use proptest::prelude::*;

use super::*;
use crate::model::PortPolicy;
use crate::plan::tests::{direction, policy};

/// A UDP packet between the addresses that the policies speak of.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (0u8..8, 0u8..8, 0u16..6, prop::bool::weighted(0.1)).prop_map(|(src, dst, port, tcp)| {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = builder.ipv4([10, 0, 0, src], [10, 0, 0, dst], 64);
        let mut bytes = Vec::new();
        let payload = [src; 20];
        let written = match tcp {
            true => builder.tcp(7, port, 9, 1000).write(&mut bytes, &payload),
            false => builder.udp(7, port).write(&mut bytes, &payload),
        };
        written.unwrap();
        bytes
    })
}

fn burst(frames: &[Vec<u8>]) -> Box<Burst> {
    let mut burst = Burst::new();
    for frame in frames {
        burst.push(PortId(1), frame.len() as u32, Offload::NONE, 0).unwrap().copy_from_slice(frame);
    }
    burst
}

/// Verdicts and bytes.
fn outcome(burst: &Burst) -> Vec<(Verdict, Vec<u8>)> {
    (0..burst.len()).map(|i| (burst.verdict(i), burst.window(i).to_vec())).collect()
}

/// Every packet by itself, layer by layer: parsed anew in front of each.
fn slowly(policy: &PortPolicy, direction: Direction, frame: &[u8], flow_hash: u32) -> (Verdict, Vec<u8>) {
    let mut burst = burst(&[frame.to_vec()]);
    let original = packet::parse::parse(frame, frame.len() as u32).unwrap();
    let snapshot = Snapshot::compile(policy, None, 1).unwrap();
    let plan = plan(&snapshot, direction, &Key { ufid: original.ufid, registers: [0; 8] });
    for stage in &plan.stages {
        if let crate::plan::Effect::Transpose(transposition) = &stage.effect {
            let parsed = packet::parse::parse(burst.window(0), burst.frame_len(0)).unwrap();
            let Ok(program) = transposition.compile(&parsed.ufid, &parsed.layout) else {
                return (Verdict::Drop(DropCause::Untransposable), frame.to_vec());
            };
            program.apply(&mut burst, 0, &parsed.layout, flow_hash).unwrap();
        }
    }
    match plan.outcome {
        Outcome::Forward => (Verdict::Pending, burst.window(0).to_vec()),
        Outcome::Drop(cause) => (Verdict::Drop(cause), frame.to_vec()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// VF-5, VF-17, VF-18: one composed change, found again, is what the layers do in turn.
    #[test]
    fn a_hit_is_what_the_layers_do(
        first in policy(),
        second in policy(),
        direction in direction(),
        frames in prop::collection::vec(frame(), 1..40),
    ) {
        let mut engine = Engine::new(4096, 5);
        for (version, policy) in [&first, &second].into_iter().enumerate() {
            // Both policies have the same version.
            let snapshot = Snapshot::compile(policy, None, 1).unwrap();
            for lap in 0..2 {
                let before = *engine.stats();
                let mut fast = burst(&frames);
                engine.process(&mut fast, Scope(1), direction, &snapshot);
                for ((verdict, bytes), frame) in outcome(&fast).into_iter().zip(&frames) {
                    let ufid = packet::parse::parse(frame, frame.len() as u32).unwrap().ufid;
                    let hash = engine.flows.key(Scope(1), &ufid).hash as u32;
                    prop_assert_eq!((verdict, bytes), slowly(policy, direction, frame, hash));
                }
                let after = *engine.stats();
                if lap == 1 {
                    prop_assert_eq!(after.hits - before.hits, frames.len() as u64, "the path that was meant");
                }
                prop_assert_eq!(after.misses - before.misses, if version + lap == 0 { engine.len() as u64 } else { 0 });
                prop_assert_eq!((after.not_cached, after.unparsed), (0, 0));
            }
        }
    }
}

#[test]
fn a_full_table_plans_and_counts() {
    let mut engine = Engine::new(8, 5);
    let snapshot = Snapshot::compile(&PortPolicy::empty(), None, 1).unwrap();
    let frames: Vec<_> = (0..40)
        .map(|port| {
            let mut bytes = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            builder.udp(port, 1).write(&mut bytes, &[0; 20]).unwrap();
            bytes
        })
        .collect();
    let mut packets = burst(&frames);
    engine.process(&mut packets, Scope(1), Direction::Out, &snapshot);
    assert!(packets.verdicts().iter().all(|verdict| *verdict == Verdict::Pending));
    assert!(engine.len() <= 8);
    let stats = *engine.stats();
    assert_eq!((stats.misses, stats.not_cached), (40, 40 - engine.len() as u64));
    // The same packets in another scope are other flows.
    engine.process(&mut burst(&frames[..1]), Scope(2), Direction::Out, &snapshot);
    assert_eq!(engine.stats().misses, 41);
}

#[test]
fn what_cannot_be_parsed_is_dropped_and_judged_packets_are_left_alone() {
    let mut engine = Engine::new(8, 5);
    let snapshot = Snapshot::compile(&PortPolicy::empty(), None, 1).unwrap();
    let mut packets = burst(&[vec![0; 9], vec![0; 60]]);
    packets.set_verdict(1, Verdict::Flood);
    engine.process(&mut packets, Scope(1), Direction::In, &snapshot);
    assert_eq!(packets.verdicts(), [Verdict::Drop(DropCause::Runt), Verdict::Flood]);
    assert_eq!(*engine.stats(), EngineStats { unparsed: 1, ..EngineStats::default() });
}
