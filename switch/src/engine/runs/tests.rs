// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs against packets one by one.

use std::num::NonZeroU32;
use std::sync::Arc;

use etherparse::PacketBuilder;
use packet::{Offload, PortId, Verdict};
use proptest::prelude::*;

use crate::Name;
use crate::compile::Snapshot;
use crate::condition::Conditions;
use crate::engine::{Engine, EngineConfig};
use crate::model::{Action, Controller, Default, Direction, Edit, Group, PortPolicy, Rule, Stateful, Transaction};

use super::*;

const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

/// Some packets of one conversation that stand together.
#[derive(Clone, Debug)]
struct Said {
    /// Whether the second port speaks.
    answers: bool,
    port: u16,
    /// Bytes of payload, of each packet.
    lens: Vec<u16>,
    tcp: Option<bool>,
    /// What is changed in the last of them: a byte of its headers.
    spoils: Option<(usize, u8)>,
}

fn said() -> impl Strategy<Value = Said> {
    let lens = prop::collection::vec(0u16..60, 1..9);
    let spoils = prop::option::weighted(0.2, (0usize..48, any::<u8>()));
    let tcp = prop::option::weighted(0.3, any::<bool>());
    (any::<bool>(), 1u16..4, lens, tcp, spoils).prop_map(|(answers, port, lens, tcp, spoils)| Said {
        answers,
        port,
        lens,
        tcp,
        spoils,
    })
}

impl Said {
    fn frames(&self) -> Vec<Vec<u8>> {
        let (mut from, mut to) = (([10, 0, 0, 1], 1000 + self.port), ([10, 0, 0, 2], self.port));
        if self.answers {
            (from, to) = (to, from);
        }
        let mut frames: Vec<_> = self
            .lens
            .iter()
            .map(|len| {
                let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, from.0[3]], [2, 0, 0, 0, 0, to.0[3]]);
                let builder = builder.ipv4(from.0, to.0, 60 + (len % 4) as u8);
                let (mut bytes, payload) = (Vec::new(), vec![7; usize::from(*len)]);
                let written = match self.tcp {
                    None => builder.udp(from.1, to.1).write(&mut bytes, &payload),
                    Some(true) => builder.tcp(from.1, to.1, 1, 1000).syn().write(&mut bytes, &[]),
                    Some(false) => builder.tcp(from.1, to.1, 2, 1000).ack(2).write(&mut bytes, &payload),
                };
                written.unwrap();
                bytes
            })
            .collect();
        if let (Some((at, byte)), Some(frame)) = (self.spoils, frames.last_mut())
            && let Some(slot) = frame.get_mut(at)
        {
            *slot = byte;
        }
        frames
    }
}

/// Two ports; the first has a layer with state, and both one without.
fn engine() -> Engine {
    let name = |text: &str| Name::new(text).unwrap();
    let rule = |direction, action| Rule {
        name: name("all"),
        direction,
        priority: 1,
        conditions: Conditions::default(),
        terminating: false,
        action,
    };
    let stateful = Some(Stateful { idle_s: NonZeroU32::new(60).unwrap() });
    let mut engine = Engine::new(EngineConfig { flows: 64, small_flows: 64, plans_per_second: u32::MAX, seed: 7 });
    for port in PORTS {
        let mut edits = Vec::new();
        for (at, stateful) in [stateful.filter(|_| port == PORTS[0]), None].into_iter().enumerate() {
            let (layer, order) = (name(["state", "plain"][at]), u32::try_from(at).unwrap());
            edits.push(Edit::PutLayer { name: layer.clone(), order, default: Default::Block });
            let allow = || Action::Allow { stateful };
            let mut rules = vec![rule(Direction::Out, allow())];
            if at == 1 || port == PORTS[1] {
                rules.push(Rule { name: name("back"), ..rule(Direction::In, allow()) });
            }
            let group = Group { name: name("all"), order: 0, when: Conditions::default(), lpm: None, rules };
            edits.push(Edit::PutGroup { layer, group: Arc::new(group) });
        }
        let controller = Controller { name: name("test"), order: [0, 100] };
        let policy = PortPolicy::empty().after(&Transaction { controller, preconditions: Vec::new(), edits }).unwrap();
        engine.set_policy(port, Arc::new(Snapshot::compile(&policy, None, 1).unwrap()));
    }
    engine
}

/// Takes frames from one port to the other.
fn cross(engine: &mut Engine, from: usize, frames: &[Vec<u8>], runs: bool, now_ns: u64) -> Box<Burst> {
    let mut burst = Burst::new();
    for frame in frames {
        let window = burst.push(PORTS[from], u32::try_from(frame.len()).unwrap(), Offload::NONE, 0).unwrap();
        window.copy_from_slice(frame);
    }
    burst.set_runs(runs);
    engine.begin_burst(1);
    engine.process(&mut burst, PORTS[from], Direction::Out, now_ns);
    burst.set_pending(Verdict::Forward(PORTS[1 - from]));
    engine.process(&mut burst, PORTS[1 - from], Direction::In, now_ns);
    burst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// VF-18, decision 7: a run is looked up once, and all that is counted and done is as if each packet were.
    #[test]
    fn a_run_is_its_packets(story in prop::collection::vec(prop::collection::vec(said(), 1..7), 1..30)) {
        let mut engines = [engine(), engine()];
        let mut now_ns = 1_000_000_000;
        for said in story {
            for from in 0..2 {
                let frames: Vec<_> = said.iter().filter(|said| usize::from(said.answers) == from).flat_map(Said::frames).collect();
                let [ran, each] = [true, false].map(|runs| {
                    let burst = cross(&mut engines[usize::from(runs)], from, &frames, runs, now_ns);
                    (0..burst.len()).map(|i| (burst.verdict(i), burst.window(i).to_vec())).collect::<Vec<_>>()
                });
                prop_assert_eq!(ran, each);
            }
            now_ns += 1_000_000;
            for port in PORTS {
                let [one, other] = engines.each_ref().map(|engine| {
                    let mut flows = Vec::new();
                    engine.list(port, 0, 1000, |flow| flows.push(flow));
                    (engine.report(port), flows)
                });
                prop_assert_eq!(one, other);
            }
        }
    }
}

#[test]
fn a_run_goes_straight_through() {
    let mut engine = engine();
    let said = |answers| Said { answers, port: 1, lens: vec![18; 16], tcp: None, spoils: None };
    for (lap, from) in [0, 1, 0, 1, 0, 1, 0, 1].into_iter().enumerate() {
        let before = engine.report(PORTS[1 - from]).unwrap().stats;
        let burst = cross(&mut engine, from, &said(from == 1).frames(), true, 1_000_000_000);
        let after = engine.report(PORTS[1 - from]).unwrap().stats;
        let verdict = if lap < 4 { burst.verdict(0) } else { Verdict::Deliver(PORTS[1 - from]) };
        assert!(burst.verdicts().iter().all(|found| *found == verdict), "{lap}: {:?}", burst.verdicts());
        assert_eq!(after.through - before.through, if lap < 4 { 0 } else { 16 }, "{lap}");
    }
}
