// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What policy costs: `cargo run --release -p shunt-switch --example policy_cycles [flows] [layers] [rules] [stateful]
//! [rounds] [kind]`; the kind is 1 for TCP, 2 for SNAT in the last stateful layer, 3 for both.
//!
//! One port with `layers` layers of one group with `rules` rules each, of which the first `stateful` are stateful; every
//! flow meets a rule of each layer at a place of its own. `flows` connections, so twice as many unified flows. Prints the
//! time of the first packet of a connection, of the first answer, and of hits in bursts of 64 in random order, both
//! directions, the frames being copied into the burst outside of the time; and memory per connection.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packet::{Burst, MAX_BURST, Offload, PortId, Verdict};
use switch::Name;
use switch::compile::Snapshot;
use switch::condition::{Condition, Conditions, IpVersion, Subject, Value};
use switch::engine::{Engine, EngineConfig};
use switch::model::{
    Action, Content, Controller, Default, Direction, Edit, Group, Nat, PortPolicy, PortRange, Resource, Rule, Source,
    Stateful, Transaction,
};

const PORT: PortId = PortId(1);
const PER_ROUND: u32 = 200 * 64;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number"));
    let flows = arguments.next().unwrap_or(100_000);
    let layers = arguments.next().unwrap_or(5);
    let rules = arguments.next().unwrap_or(200);
    let stateful = arguments.next().unwrap_or(2);
    let rounds = arguments.next().unwrap_or(30);
    let kind = arguments.next().unwrap_or(0);
    let (tcp, nat) = (kind & 1 != 0, kind & 2 != 0);

    let begin = Instant::now();
    let snapshot = Arc::new(Snapshot::compile(&policy(layers, rules, stateful, nat), None, 7).expect("policy"));
    println!(
        "{layers} layers x {rules} rules, {stateful} stateful, {flows} connections; compiled in {:.1?}",
        begin.elapsed()
    );
    let config = EngineConfig { flows: 1_000_000, small_flows: 40_000, plans_per_second: u32::MAX, seed: 9 };
    let mut engine = Engine::new(config);
    engine.set_policy(PORT, Arc::clone(&snapshot));
    let mut burst = Burst::new();
    let mut now_ns = 1_000_000_000;
    // Of each connection the end that answers are for.
    let mut ends = vec![[0; 6]; flows as usize];

    // The first packets, a few thousand connections at a time, so that nothing small is pushed out.
    let (mut first, mut answer) = (Duration::ZERO, Duration::ZERO);
    for chunk in (0..flows).collect::<Vec<_>>().chunks(8192) {
        for (direction, spent) in [(Direction::Out, &mut first), (Direction::In, &mut answer)] {
            for numbers in chunk.chunks(MAX_BURST) {
                fill(&mut burst, numbers, direction, tcp.then_some(Segment::Syn), &ends);
                let begin = Instant::now();
                engine.process(&mut burst, PORT, direction, now_ns);
                *spent += begin.elapsed();
                check(&burst, direction);
                if direction == Direction::Out {
                    for (at, number) in numbers.iter().enumerate() {
                        let (end, window) = (&mut ends[*number as usize], burst.window(at));
                        end[..4].copy_from_slice(&window[26..30]);
                        end[4..].copy_from_slice(&window[34..36]);
                    }
                }
            }
        }
        for numbers in chunk.chunks(MAX_BURST).filter(|_| tcp) {
            fill(&mut burst, numbers, Direction::Out, Some(Segment::Ack), &ends);
            engine.process(&mut burst, PORT, Direction::Out, now_ns);
        }
    }
    let report = engine.report(PORT).expect("policy");
    assert_eq!(
        (report.stats.misses, report.stats.hits),
        (2 * u64::from(flows), u64::from(tcp) * u64::from(flows)),
        "the slow path"
    );
    assert_eq!(report.stats.confirmed, 2 * u64::from(flows));
    println!("first packet {:.0} ns, first answer {:.0} ns", per(first, flows), per(answer, flows));
    println!("memory {:.0} bytes a connection", report.memory as f64 / f64::from(flows));

    // Hits.
    let mut state = 88_172_645_463_325_252_u64;
    let mut times = Vec::new();
    for _ in 0..rounds {
        now_ns += 1_000_000;
        let mut spent = Duration::ZERO;
        for n in 0..200 {
            let direction = if n % 2 == 0 { Direction::Out } else { Direction::In };
            let numbers: Vec<u32> = (0..MAX_BURST)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    u32::try_from(state % u64::from(flows)).expect("below flows")
                })
                .collect();
            fill(&mut burst, &numbers, direction, tcp.then_some(Segment::Ack), &ends);
            let begin = Instant::now();
            engine.process(&mut burst, PORT, direction, now_ns);
            spent += begin.elapsed();
            check(&burst, direction);
        }
        times.push(per(spent, PER_ROUND));
    }
    let after = engine.report(PORT).expect("policy");
    assert_eq!(after.stats.misses, report.stats.misses, "hits only");
    assert_eq!(after.stats.hits - report.stats.hits, u64::from(rounds) * u64::from(PER_ROUND));
    times.sort_by(f64::total_cmp);
    println!("hit: least {:.0} ns, median {:.0} ns", times[0], times[times.len() / 2]);
}

fn per(time: Duration, count: u32) -> f64 {
    time.as_nanos() as f64 / f64::from(count)
}

fn check(burst: &Burst, direction: Direction) {
    let expected = if direction == Direction::Out { Verdict::Pending } else { Verdict::Forward(PORT) };
    assert!(burst.verdicts().iter().all(|verdict| *verdict == expected), "{:?}", burst.verdicts());
}

/// The policy: rule `n` of each layer is for local ports from `n * 65536 / rules` on.
fn policy(layers: u32, rules: u32, stateful: u32, nat: bool) -> PortPolicy {
    let (pool, controller) = (Name::new("pool").expect("name"), Name::new("bench").expect("name"));
    let range = |last| PortRange { address: [10, 255, 0, last].into(), first: 1, last: u16::MAX };
    let content = Content::Ranges((0..16).map(range).collect());
    let resource = Arc::new(Resource { name: pool.clone(), controller, content });
    let mut edits = vec![Edit::PutResource { resource }];
    for at in 0..layers {
        let name = Name::new(format!("layer{at}")).expect("name");
        edits.push(Edit::PutLayer { name: name.clone(), order: at, default: Default::Block });
        let idle = Stateful { idle_s: NonZeroU32::new(3600).expect("3600") };
        let action = Action::Allow { stateful: (at < stateful).then_some(idle) };
        let rules = (0..rules).flat_map(|n| {
            let span = |n: u32| u128::from(u64::from(n) * 65_536 / u64::from(rules));
            let action = action.clone();
            let source = Some(Source::Ranges(pool.clone()));
            let translate =
                (nat && at + 1 == stateful).then_some(Action::Nat(Nat { source, destination: None, stateful: idle }));
            [
                (Direction::Out, packet::Field::L4Src, packet::Field::IpSrc),
                (Direction::In, packet::Field::L4Dst, packet::Field::IpDst),
            ]
            .into_iter()
            .map(move |(direction, port, address)| {
                let range = Value::Range { lo: span(n), hi: span(n + 1) - 1 };
                let prefix = Value::Prefix { version: IpVersion::V4, value: 10 << 24, len: 8 };
                let conditions = vec![
                    Condition::new(Subject::Field(port), vec![range]).expect("range"),
                    Condition::new(Subject::Field(address), vec![prefix]).expect("prefix"),
                ];
                Rule {
                    name: Name::new(format!("r{n}-{}", direction as u8)).expect("name"),
                    priority: 1,
                    direction,
                    conditions: Conditions::new(conditions).expect("conditions"),
                    action: match &translate {
                        Some(translate) if direction == Direction::Out => translate.clone(),
                        _ => action.clone(),
                    },
                    terminating: false,
                }
            })
        });
        let group = Group {
            name: Name::new("all").expect("name"),
            order: 0,
            when: Conditions::default(),
            lpm: None,
            rules: rules.collect(),
        };
        edits.push(Edit::PutGroup { layer: name, group: Arc::new(group) });
    }
    let controller = Controller { name: Name::new("bench").expect("name"), order: [0, 100] };
    PortPolicy::empty().after(&Transaction { controller, preconditions: Vec::new(), edits }).expect("transaction")
}

/// What TCP says.
#[derive(Clone, Copy)]
enum Segment {
    /// The first of each side.
    Syn,
    Ack,
}

/// Frames of connections by number: 10.x.y.z and a port of its own to one server, or back.
fn fill(burst: &mut Burst, numbers: &[u32], direction: Direction, tcp: Option<Segment>, ends: &[[u8; 6]]) {
    burst.clear();
    for number in numbers {
        let mut frame = [0_u8; 60];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[17] = 46;
        frame[22] = 64;
        frame[23] = 17;
        let local = (10_u32 << 24 | number >> 8).to_be_bytes();
        let [.., high, low] = number.wrapping_mul(40_503).to_be_bytes();
        let port = [high, low];
        let (server, service) = ([192, 0, 2, 1], [0, 53]);
        let [a, b, c, d, e, f] = ends[*number as usize];
        let (translated, outer_port) = ([a, b, c, d], [e, f]);
        let (source, destination) = match direction {
            Direction::Out => ((local, port), (server, service)),
            Direction::In => ((server, service), (translated, outer_port)),
        };
        let (a, b) = match direction {
            Direction::Out => ([2; 6], [4; 6]),
            Direction::In => ([4; 6], [2; 6]),
        };
        frame[..6].copy_from_slice(&b);
        frame[6..12].copy_from_slice(&a);
        frame[26..30].copy_from_slice(&source.0);
        frame[30..34].copy_from_slice(&destination.0);
        frame[34..36].copy_from_slice(&source.1);
        frame[36..38].copy_from_slice(&destination.1);
        frame[39] = 26;
        if let Some(segment) = tcp {
            frame[17] = 40;
            frame[23] = 6;
            let (flags, seq, ack) = match (segment, direction) {
                (Segment::Syn, Direction::Out) => (0x02, 0, 0),
                (Segment::Syn, Direction::In) => (0x12, 0, 1),
                (Segment::Ack, _) => (0x10, 1, 1),
            };
            frame[38..48].copy_from_slice(&[0, 0, 0, seq, 0, 0, 0, ack, 0x50, flags]);
        }
        burst.push(PORT, 60, Offload::NONE, 0).expect("room").copy_from_slice(&frame);
    }
    if direction == Direction::In {
        burst.set_pending(Verdict::Forward(PORT));
    }
}
