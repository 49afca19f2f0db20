// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fast path against the slow one, and connections by hand.

use core::net::IpAddr;
use std::num::NonZeroU32;

use etherparse::PacketBuilder;
use packet::{DropCause, Offload, Verdict};
use proptest::prelude::*;

use super::shard::scope;
use super::*;
use crate::condition::{Condition, Conditions, REGISTERS};
use crate::flow::Secret;
use crate::flow::connections::Connections;
use crate::flow::tcp;
use crate::model::{
    Action, Balance, Content, Controller, Default, Edit, Endpoint, Group, Nat, PortPolicy, PortRange, Resource, Rule,
    Source, Stateful, Transaction,
};
use crate::plan::Outcome;
use crate::plan::tests::{direction, policy, stateless};

const PORT: PortId = PortId(1);
const SECOND: u64 = 1_000_000_000;

/// A UDP packet between the addresses that the policies speak of.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (0u8..8, 0u8..8, 0u16..6, prop::bool::weighted(0.1)).prop_map(|(src, dst, port, tcp)| {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = builder.ipv4([10, 0, 0, src], [10, 0, 0, dst], 64);
        let mut bytes = Vec::new();
        let payload = [src; 20];
        let written = match tcp {
            true => builder.tcp(7, port, 9, 1000).ack(1).write(&mut bytes, &payload),
            false => builder.udp(7, port).write(&mut bytes, &payload),
        };
        written.unwrap();
        bytes
    })
}

fn burst(frames: &[Vec<u8>], direction: Direction) -> Box<Burst> {
    let mut burst = Burst::new();
    for frame in frames {
        burst.push(PORT, frame.len() as u32, Offload::NONE, 0).unwrap().copy_from_slice(frame);
    }
    if direction == Direction::In {
        burst.set_pending(Verdict::Forward(PORT));
    }
    burst
}

/// Verdicts and bytes.
fn outcome(burst: &Burst) -> Vec<(Verdict, Vec<u8>)> {
    (0..burst.len()).map(|i| (burst.verdict(i), burst.window(i).to_vec())).collect()
}

const fn passed(direction: Direction) -> Verdict {
    match direction {
        Direction::Out => Verdict::Pending,
        Direction::In => Verdict::Forward(PORT),
    }
}

/// Every packet by itself, layer by layer: parsed anew in front of each. Without state.
fn slowly(policy: &PortPolicy, direction: Direction, frame: &[u8], flow_hash: u32) -> (Verdict, Vec<u8>) {
    let mut burst = burst(&[frame.to_vec()], direction);
    let original = packet::parse::parse(frame, frame.len() as u32).unwrap();
    let snapshot = Snapshot::compile(policy, None, 1).unwrap();
    let connections = Connections::new(8, Secret::new(1));
    let key = Key { ufid: original.ufid, registers: [0; REGISTERS] };
    let plan = stateless(&snapshot, direction, &key, &connections);
    for step in plan.trace(&snapshot).steps {
        let Some((group, rule)) = step.decided_by.split_once('/') else { continue };
        let group = &policy.layer(&step.layer).unwrap().group(group).unwrap().group;
        let rule = group.rules.iter().find(|held| &*held.name == rule).unwrap();
        if let Action::Transpose { transposition } = &rule.action {
            let parsed = packet::parse::parse(burst.window(0), burst.frame_len(0)).unwrap();
            let Ok(program) = transposition.compile(&parsed.ufid, &parsed.layout) else {
                return (Verdict::Drop(DropCause::Untransposable), frame.to_vec());
            };
            program.apply(&mut burst, 0, &parsed.layout, flow_hash).unwrap();
        }
    }
    match plan.outcome {
        Outcome::Drop(cause) => (Verdict::Drop(cause), frame.to_vec()),
        _ => (passed(direction), burst.window(0).to_vec()),
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
        let mut engine = Engine::new(EngineConfig { flows: 4096, small_flows: 4096, ..EngineConfig::default() });
        for policy in [&first, &second] {
            // Both policies have the same version.
            let snapshot = Arc::new(Snapshot::compile(policy, None, 1).unwrap());
            let is_empty = snapshot.is_empty();
            engine.set_policy(PORT, snapshot);
            for lap in 0..2 {
                let before = engine.report(PORT).unwrap().stats;
                let mut fast = burst(&frames, direction);
                engine.process(&mut fast, PORT, direction, 1);
                for ((verdict, bytes), frame) in outcome(&fast).into_iter().zip(&frames) {
                    let ufid = packet::parse::parse(frame, frame.len() as u32).unwrap().ufid;
                    let hash = engine.shard(PORT).unwrap().flows.key(scope(direction), &ufid).hash as u32;
                    prop_assert_eq!((verdict, bytes), slowly(policy, direction, frame, hash));
                }
                let after = engine.report(PORT).unwrap().stats;
                if lap == 1 && !is_empty {
                    prop_assert_eq!(after.hits - before.hits, frames.len() as u64, "the path that was meant");
                }
                prop_assert_eq!((after.not_cached, after.unparsed), (0, 0));
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn idle(seconds: u32) -> Stateful {
    Stateful { idle_s: NonZeroU32::new(seconds).unwrap() }
}

/// A port's policy and everything that happens to it.
struct Bench {
    engine: Engine,
    policy: PortPolicy,
    snapshot: Arc<Snapshot>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let (policy, snapshot) = (PortPolicy::empty(), Arc::new(Snapshot::empty()));
        Self { engine: Engine::new(EngineConfig::default()), policy, snapshot, now: SECOND }
    }

    fn edit(&mut self, edits: Vec<Edit>) {
        let controller = Controller { name: name("test"), order: [0, 100] };
        let transaction = Transaction { controller, preconditions: Vec::new(), edits };
        let (policy, snapshot) = crate::compile::commit(&self.policy, &self.snapshot, &transaction, 1).unwrap();
        (self.policy, self.snapshot) = (policy, Arc::new(snapshot));
        self.engine.set_policy(PORT, Arc::clone(&self.snapshot));
    }

    /// A layer of one group.
    fn layer(&mut self, layer: &str, order: u32, default: Default, rules: Vec<Rule>) {
        let group = Group { name: name("g"), order: 0, when: Conditions::default(), lpm: None, rules };
        self.edit(vec![
            Edit::PutLayer { name: name(layer), order, default },
            Edit::PutGroup { layer: name(layer), group: Arc::new(group) },
        ]);
    }

    fn send(&mut self, direction: Direction, frame: &[u8]) -> Result<Vec<u8>, Verdict> {
        let mut packets = burst(&[frame.to_vec()], direction);
        self.engine.process(&mut packets, PORT, direction, self.now);
        let (verdict, bytes) = outcome(&packets).remove(0);
        if verdict == passed(direction) { Ok(bytes) } else { Err(verdict) }
    }

    fn report(&self) -> PortReport {
        self.engine.report(PORT).unwrap()
    }
}

fn rule(text: &str, direction: Direction, matches: &[(&str, &str)], action: Action) -> Rule {
    let conditions = matches.iter().map(|(field, value)| Condition::from_text(field, [*value]).unwrap()).collect();
    let conditions = Conditions::new(conditions).unwrap();
    Rule { name: name(text), priority: 1, direction, conditions, action, terminating: false }
}

fn allow() -> Action {
    Action::Allow { stateful: Some(idle(60)) }
}

fn udp(src: &str, dst: &str) -> Vec<u8> {
    let end = |text: &str| text.parse::<core::net::SocketAddrV4>().unwrap();
    let (src, dst) = (end(src), end(dst));
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src.ip().octets(), dst.ip().octets(), 64);
    builder.udp(src.port(), dst.port()).write(&mut bytes, &[7; 20]).unwrap();
    bytes
}

fn ends(frame: &[u8]) -> String {
    let ufid = packet::parse::parse(frame, frame.len() as u32).unwrap().ufid;
    crate::flow::tuple::Kind::of(&ufid).tuple().unwrap().to_string()
}

#[test]
fn answers_pass_by_their_connection_and_others_do_not() {
    // VF-6, VF-21
    let mut bench = Bench::new();
    let out = rule("out", Direction::Out, &[], allow());
    bench.layer("acl", 10, Default::Block, vec![out]);
    let (ask, answer) = (udp("10.0.0.1:1000", "10.0.0.2:53"), udp("10.0.0.2:53", "10.0.0.1:1000"));
    let blocked = Err(Verdict::Drop(DropCause::PolicyDefault));
    assert_eq!(bench.send(Direction::In, &answer), blocked);
    assert_eq!(bench.send(Direction::Out, &ask), Ok(ask.clone()));
    assert_eq!(bench.report().connections, 1);
    assert_eq!(bench.report().stats.confirmed, 0);
    // It was dropped before there was a connection, and a flow that says so is there.
    assert_eq!(bench.send(Direction::In, &answer), Ok(answer.clone()));
    assert_eq!(bench.report().stats.confirmed, 2);
    assert_eq!(bench.send(Direction::In, &udp("10.0.0.3:53", "10.0.0.1:1000")), blocked);
    bench.now += 61 * SECOND;
    assert_eq!(bench.send(Direction::In, &answer), blocked, "its time is over");
    assert_eq!(bench.report().connections, 0);
}

#[test]
fn one_port_serves_many_destinations_and_rests_when_it_is_free() {
    let mut bench = Bench::new();
    let address = IpAddr::from([192, 0, 2, 1]);
    let ranges = Content::Ranges([PortRange { address, first: 5000, last: 5001 }].into());
    let resource = Resource { name: name("pool"), controller: name("test"), content: ranges };
    bench.edit(vec![Edit::PutResource { resource: Arc::new(resource) }]);
    let nat = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle(60) };
    bench.layer("nat", 10, Default::Allow, vec![rule("out", Direction::Out, &[], Action::Nat(nat))]);
    let mut seen = std::collections::HashSet::new();
    for (source, destination) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let frame = udp(&format!("10.0.0.{source}:77"), &format!("203.0.113.{destination}:80"));
        let sent = ends(&bench.send(Direction::Out, &frame).unwrap());
        assert!(sent.starts_with("udp 192.0.2.1:500"), "{sent}");
        assert!(seen.insert(sent.clone()), "{sent}");
        assert_eq!(ends(&bench.send(Direction::Out, &frame).unwrap()), sent, "it stays the same");
        let (from, to) = sent["udp ".len()..].split_once(" > ").unwrap();
        let answer = bench.send(Direction::In, &udp(to, from)).unwrap();
        assert_eq!(ends(&answer), format!("udp 203.0.113.{destination}:80 > 10.0.0.{source}:77"));
    }
    let third = udp("10.0.0.3:77", "203.0.113.1:80");
    assert_eq!(bench.send(Direction::Out, &third), Err(Verdict::Drop(DropCause::NatExhausted)));
    assert!(bench.engine.take_events().any(|event| matches!(event, Event::NatExhausted { .. })));
    bench.now += 61 * SECOND;
    bench.engine.sweep(bench.now, 1000);
    assert_eq!(bench.report().connections, 0);
    assert_eq!(bench.send(Direction::Out, &third), Err(Verdict::Drop(DropCause::NatExhausted)), "its names rest");
    bench.now += 31 * SECOND;
    bench.send(Direction::Out, &third).unwrap();
}

#[test]
fn a_change_of_policy_keeps_what_it_allows_and_ends_what_it_does_not() {
    // VF-20, decision 15
    let mut bench = Bench::new();
    let backend = |last, port| Endpoint { address: IpAddr::from([10, 1, 0, last]), port: Some(port) };
    let balance = |backends| Action::Balance(Balance { backends, stateful: idle(60) });
    let vip = |backends| vec![rule("vip", Direction::In, &[("dst_ip", "198.51.100.1")], balance(backends))];
    bench.layer("lb", 20, Default::Allow, vip(vec![backend(1, 8080), backend(2, 8080)]));
    let ask = udp("203.0.113.9:999", "198.51.100.1:80");
    let chosen = ends(&bench.send(Direction::In, &ask).unwrap());
    let which = if chosen.contains("10.1.0.1") { 1 } else { 2 };
    let answer = udp(&format!("10.1.0.{which}:8080"), "203.0.113.9:999");
    assert_eq!(ends(&bench.send(Direction::Out, &answer).unwrap()), "udp 198.51.100.1:80 > 203.0.113.9:999");
    // More of them, and another layer: the connection stays where it is.
    bench.layer("lb", 20, Default::Allow, vip((1..20).map(|last| backend(last, 8080)).collect()));
    bench.layer("acl", 10, Default::Allow, Vec::new());
    assert_eq!(ends(&bench.send(Direction::In, &ask).unwrap()), chosen);
    assert_eq!(ends(&bench.send(Direction::Out, &answer).unwrap()), "udp 198.51.100.1:80 > 203.0.113.9:999");
    // Its own is gone: it ends, and the next packet begins anew.
    bench.layer("lb", 20, Default::Allow, vip(vec![backend(30, 8080)]));
    assert_eq!(ends(&bench.send(Direction::Out, &answer).unwrap()), ends(&answer), "nobody's");
    assert_eq!(ends(&bench.send(Direction::In, &ask).unwrap()), "udp 203.0.113.9:999 > 10.1.0.30:8080");
    // Blocked in front of it: both directions end.
    let block = rule("no", Direction::In, &[], Action::Block { cause: DropCause::PolicyBlock });
    bench.layer("acl", 10, Default::Allow, vec![block]);
    assert_eq!(bench.send(Direction::In, &ask), Err(Verdict::Drop(DropCause::PolicyBlock)));
    assert_eq!(bench.report().connections, 0);
}

#[test]
fn rules_count_what_met_them() {
    let mut bench = Bench::new();
    bench.layer("acl", 10, Default::Allow, vec![rule("out", Direction::Out, &[], allow())]);
    let (ask, answer) = (udp("10.0.0.1:1000", "10.0.0.2:53"), udp("10.0.0.2:53", "10.0.0.1:1000"));
    for _ in 0..10 {
        bench.send(Direction::Out, &ask).unwrap();
        bench.send(Direction::In, &answer).unwrap();
    }
    bench.engine.fold(PORT, 0, 1000);
    let [layer] = bench.snapshot.totals().try_into().unwrap();
    let total = crate::tally::Total { packets: 10, bytes: 10 * ask.len() as u64 };
    assert_eq!((layer.groups[0].rules[0].1, layer.entries), (total, total));
}

#[test]
fn small_flows_push_out_each_other_and_never_those_that_work() {
    // Decision 17
    let mut bench = Bench::new();
    bench.engine = Engine::new(EngineConfig { small_flows: 64, ..EngineConfig::default() });
    bench.layer("acl", 10, Default::Block, vec![rule("out", Direction::Out, &[], allow())]);
    let (ask, answer) = (udp("10.0.0.1:1000", "10.0.0.2:53"), udp("10.0.0.2:53", "10.0.0.1:1000"));
    bench.send(Direction::Out, &ask).unwrap();
    bench.send(Direction::In, &answer).unwrap();
    for port in 1..5000 {
        bench.send(Direction::Out, &udp("10.0.0.9:1", &format!("10.0.0.7:{port}"))).unwrap();
    }
    let report = bench.report();
    assert_eq!((report.connections, report.flows, report.stats.confirmed), (65, 66, 2));
    assert_eq!(bench.send(Direction::In, &answer), Ok(answer.clone()));
    assert_eq!(bench.report().stats.misses, report.stats.misses, "a hit");
}

#[test]
fn a_port_has_limits_of_its_own_until_it_is_removed() {
    let own = FlowLimits { confirmed: 8, unconfirmed: 4, plans_per_second: 20 };
    let mut bench = Bench::new();
    bench.engine.limit_port(PORT, Some(own));
    bench.layer("acl", 10, Default::Block, vec![rule("out", Direction::Out, &[], allow())]);
    let (ask, answer) = (udp("10.0.0.1:1000", "10.0.0.2:53"), udp("10.0.0.2:53", "10.0.0.1:1000"));
    // At the very beginning as many flows as in any second.
    bench.now = 1;
    for (from, to) in (1..=5).map(|n| (format!("10.0.0.1:{n}"), format!("10.0.0.2:{n}"))) {
        bench.send(Direction::Out, &udp(&from, &to)).unwrap();
        bench.send(Direction::In, &udp(&to, &from)).unwrap();
    }
    let report = bench.report();
    assert_eq!((report.limits, report.stats.confirmed, report.stats.evicted), (own, 8, 1), "{report:#?}");
    for port in 6..=15 {
        bench.send(Direction::Out, &udp("10.0.0.1:1", &format!("10.0.0.2:{port}"))).unwrap();
    }
    let report = bench.report();
    assert_eq!((report.flows, report.stats.over_budget), (12, 0), "{report:#?}");
    assert_eq!(bench.send(Direction::Out, &ask), Err(Verdict::Drop(DropCause::PlanBudget)));
    assert_eq!(bench.report().stats.over_budget, 1);

    bench.engine.remove_port(PORT);
    bench.engine.set_policy(PORT, Arc::clone(&bench.snapshot));
    assert_eq!(bench.report().limits, FlowLimits::default(), "those of the engine");
    bench.send(Direction::Out, &ask).unwrap();
    bench.send(Direction::In, &answer).unwrap();
}

#[test]
fn what_cannot_be_parsed_is_dropped_and_judged_packets_are_left_alone() {
    let mut bench = Bench::new();
    bench.layer("acl", 10, Default::Allow, Vec::new());
    let mut packets = burst(&[vec![0; 9], vec![0; 60]], Direction::Out);
    packets.set_verdict(1, Verdict::Flood);
    bench.engine.process(&mut packets, PORT, Direction::Out, 1);
    assert_eq!(packets.verdicts(), [Verdict::Drop(DropCause::Runt), Verdict::Flood]);
    assert_eq!(bench.report().stats, ShardStats { unparsed: 1, ..ShardStats::default() });
}

/// A UDP datagram cut into IPv4 fragments of `piece` bytes of payload.
fn fragments(src: &str, dst: &str, id: u16, len: usize, piece: usize) -> Vec<Vec<u8>> {
    let end = |text: &str| text.parse::<core::net::SocketAddrV4>().unwrap();
    let (src, dst) = (end(src), end(dst));
    let mut datagram = Vec::new();
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    etherparse::UdpHeader::without_ipv4_checksum(src.port(), dst.port(), len)
        .map(|mut header| {
            let ip =
                etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, src.ip().octets(), dst.ip().octets());
            header.checksum = header.calc_checksum_ipv4(&ip.unwrap(), &payload).unwrap();
            datagram.extend(header.to_bytes());
        })
        .unwrap();
    datagram.extend(payload);
    let count = datagram.len().div_ceil(piece);
    let pieces = datagram.chunks(piece).enumerate().map(|(n, bytes)| {
        let mut ip = etherparse::Ipv4Header::new(
            bytes.len() as u16,
            64,
            etherparse::IpNumber::UDP,
            src.ip().octets(),
            dst.ip().octets(),
        )
        .unwrap();
        ip.dont_fragment = false;
        ip.identification = id;
        ip.more_fragments = n + 1 < count;
        ip.fragment_offset = etherparse::IpFragOffset::try_new((n * piece / 8) as u16).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = vec![2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0];
        frame.extend(ip.to_bytes());
        frame.extend(bytes);
        frame
    });
    pieces.collect()
}

fn snat(bench: &mut Bench) {
    let address = IpAddr::from([192, 0, 2, 1]);
    let ranges = Content::Ranges([PortRange { address, first: 5000, last: 5999 }].into());
    let resource = Resource { name: name("pool"), controller: name("test"), content: ranges };
    bench.edit(vec![Edit::PutResource { resource: Arc::new(resource) }]);
    let nat = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle(60) };
    bench.layer("nat", 10, Default::Block, vec![rule("out", Direction::Out, &[], Action::Nat(nat))]);
}

#[test]
fn later_fragments_go_the_way_of_the_first() {
    // Decision 16
    let mut bench = Bench::new();
    snat(&mut bench);
    let pieces = fragments("10.0.0.1:77", "203.0.113.1:80", 5, 150, 64);
    let early = Err(Verdict::Park(DropCause::FragmentTimeout));
    assert_eq!(bench.send(Direction::Out, &pieces[1]), early);
    let sent = bench.send(Direction::Out, &pieces[0]).unwrap();
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent[14..]).unwrap();
    assert_eq!((ip.source(), ip.to_header().calc_header_checksum()), ([192, 0, 2, 1], ip.header_checksum()));
    for piece in &pieces[1..] {
        let sent = bench.send(Direction::Out, piece).unwrap();
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent[14..]).unwrap();
        assert_eq!((ip.source(), ip.to_header().calc_header_checksum()), ([192, 0, 2, 1], ip.header_checksum()));
        assert_eq!(sent[34..], piece[34..]);
    }
    let report = bench.report();
    assert_eq!((report.datagrams, report.stats.early_fragments, report.connections), (0, 1, 1));
    // Overlaps: what was judged is what arrives.
    let pieces = fragments("10.0.0.1:77", "203.0.113.1:80", 6, 150, 64);
    let bad = Err(Verdict::Drop(DropCause::BadFragment));
    bench.send(Direction::Out, &pieces[0]).unwrap();
    assert_eq!(bench.send(Direction::Out, &pieces[0]), bad);
    bench.send(Direction::Out, &pieces[1]).unwrap();
    assert_eq!(bench.send(Direction::Out, &pieces[1]), bad);
    bench.send(Direction::Out, &pieces[2]).unwrap();
    assert_eq!((bench.report().datagrams, bench.report().stats.bad_fragments), (0, 2));
    // Dropped with the first.
    let pieces = fragments("203.0.113.1:80", "10.0.0.1:78", 7, 150, 64);
    let blocked = Err(Verdict::Drop(DropCause::PolicyDefault));
    assert_eq!(bench.send(Direction::In, &pieces[0]), blocked);
    assert_eq!(bench.send(Direction::In, &pieces[1]), blocked);
    bench.now += 31 * SECOND;
    bench.engine.sweep(bench.now, 1000);
    assert_eq!(bench.report().datagrams, 0);
}

#[test]
fn icmp_errors_are_translated_with_what_they_quote() {
    // Decision 16
    let mut bench = Bench::new();
    snat(&mut bench);
    let ask = udp("10.0.0.1:77", "203.0.113.1:80");
    let sent = bench.send(Direction::Out, &ask).unwrap();
    let complain = |about: &[u8], to: [u8; 4]| {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], to, 64);
        builder.icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, &about[14..14 + 28]).unwrap();
        bytes
    };
    let before = bench.report();
    let got = bench.send(Direction::In, &complain(&sent, [192, 0, 2, 1])).unwrap();
    assert_eq!(got[34 + 8..], ask[14..14 + 28], "as the guest knows it, checksums and all");
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&got[14..]).unwrap();
    assert_eq!((ip.source_addr().octets(), ip.destination()), ([198, 51, 100, 7], [10, 0, 0, 1]));
    let icmp = etherparse::Icmpv4Slice::from_slice(&got[34..]).unwrap();
    assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
    // About nothing that is known: its rules are asked, and there are none.
    let stray = complain(&udp("192.0.2.1:1", "203.0.113.1:80"), [192, 0, 2, 1]);
    assert_eq!(bench.send(Direction::In, &stray), Err(Verdict::Drop(DropCause::PolicyDefault)));
    let after = bench.report();
    let stats = ShardStats { icmp_errors: 2, ..before.stats };
    // A place for its path was used, and is free.
    assert_eq!(after, PortReport { stats, memory: after.memory, ..before }, "it left nothing behind");
}

/// Decision 7: from the flow of one port straight to that of the next, as long as nothing has changed.
#[test]
fn packets_go_straight_through_both_ports() {
    const OTHER: PortId = PortId(2);
    let mut bench = Bench::new();
    bench.layer("acl", 10, Default::Block, vec![rule("out", Direction::Out, &[], allow())]);
    let block = rule("no", Direction::In, &[("dst_port", "99")], Action::Block { cause: DropCause::PolicyBlock });
    let mut other = Bench::new();
    other.layer("acl", 10, Default::Allow, vec![block, rule("in", Direction::In, &[], allow())]);
    let inbound = Arc::clone(&other.snapshot);
    bench.engine.set_policy(OTHER, Arc::clone(&inbound));
    let (ask, answer) = (udp("10.0.0.1:1000", "10.0.0.2:53"), udp("10.0.0.2:53", "10.0.0.1:1000"));
    // Takes a packet from port to port, and says what the second policy was told of it.
    let cross = |bench: &mut Bench, frame: &[u8], from: PortId, to: PortId, forwarding: u64| {
        let mut packets = Burst::new();
        packets.push(from, frame.len() as u32, Offload::NONE, 0).unwrap().copy_from_slice(frame);
        bench.engine.begin_burst(forwarding);
        bench.engine.process(&mut packets, from, Direction::Out, bench.now);
        packets.set_pending(Verdict::Forward(to));
        bench.engine.process(&mut packets, to, Direction::In, bench.now);
        packets.verdict(0)
    };
    let through = |bench: &Bench, port| bench.engine.report(port).unwrap().stats.through;
    // Confirmed at both ports, and noted.
    for _ in 0..3 {
        cross(&mut bench, &ask, PORT, OTHER, 1);
        cross(&mut bench, &answer, OTHER, PORT, 1);
    }
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 1), Verdict::Deliver(OTHER));
    assert_eq!(cross(&mut bench, &answer, OTHER, PORT, 1), Verdict::Deliver(PORT));
    let before = through(&bench, OTHER);
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 1), Verdict::Deliver(OTHER));
    assert_eq!(through(&bench, OTHER), before + 1);
    // The forwarder has changed, a second has passed, the other port's policy has changed: the long way.
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Forward(OTHER));
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Deliver(OTHER));
    bench.now += 1100 * 1_000_000;
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Forward(OTHER));
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Forward(OTHER), "the first way was slow");
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Deliver(OTHER));
    bench.engine.set_policy(OTHER, Arc::new(Snapshot::compile(&PortPolicy::empty(), None, 3).unwrap()));
    assert_eq!(cross(&mut bench, &ask, PORT, OTHER, 2), Verdict::Forward(OTHER));
    // What each port counted is what went through it.
    bench.engine.fold(PORT, 0, 100);
    bench.engine.fold(OTHER, 0, 100);
    let [here] = bench.snapshot.totals().try_into().unwrap();
    let [there] = inbound.totals().try_into().unwrap();
    let out = here.groups[0].rules[0].1.packets;
    assert_eq!((out, there.groups[0].rules[1].1.packets), (11, 10), "the last met no policy there");
}

/// Decision 7 for TCP: segments of open connections go straight on, tracked at both ports; what ends them does not, nor what
/// follows it in its burst.
#[test]
fn segments_go_straight_through_while_both_connections_are_open() {
    const OTHER: PortId = PortId(2);
    let mut bench = Bench::new();
    bench.layer("acl", 10, Default::Block, vec![rule("out", Direction::Out, &[], allow())]);
    let mut other = Bench::new();
    other.layer("acl", 10, Default::Block, vec![rule("in", Direction::In, &[], allow())]);
    bench.engine.set_policy(OTHER, Arc::clone(&other.snapshot));
    let segment = |out: bool, flags: &str, seq, ack, len: usize| {
        let (from, to) =
            if out { (([10, 0, 0, 1], 7), ([10, 0, 0, 2], 80)) } else { (([10, 0, 0, 2], 80), ([10, 0, 0, 1], 7)) };
        let macs = if out { ([2; 6], [4; 6]) } else { ([4; 6], [2; 6]) };
        let step = PacketBuilder::ethernet2(macs.0, macs.1).ipv4(from.0, to.0, 64).tcp(from.1, to.1, seq, 1000);
        let step = if flags.contains('S') { step.syn() } else { step };
        let step = if flags.contains('F') { step.fin() } else { step };
        let step = if flags.contains('A') { step.ack(ack) } else { step };
        let mut frame = Vec::new();
        step.write(&mut frame, &vec![1; len]).unwrap();
        frame
    };
    let cross = |bench: &mut Bench, out: bool, frames: &[Vec<u8>]| {
        let (from, to) = if out { (PORT, OTHER) } else { (OTHER, PORT) };
        let mut packets = burst(frames, Direction::Out);
        bench.engine.begin_burst(1);
        bench.engine.process(&mut packets, from, Direction::Out, bench.now);
        packets.set_pending(Verdict::Forward(to));
        bench.engine.process(&mut packets, to, Direction::In, bench.now);
        packets.verdicts().to_vec()
    };
    let states = |bench: &Bench| {
        let mut states = Vec::new();
        for port in [PORT, OTHER] {
            bench.engine.list(port, 0, 100, |report| states.push((report.tcp.unwrap(), report.retransmits)));
        }
        states
    };
    cross(&mut bench, true, &[segment(true, "S", 100, 0, 0)]);
    cross(&mut bench, false, &[segment(false, "SA", 900, 101, 0)]);
    let (mut seq, mut ack) = (101, 901);
    for round in 0..5 {
        let straight = round > 1;
        let there = cross(&mut bench, true, &[segment(true, "A", seq, ack, 10)]);
        seq += 10;
        let back = cross(&mut bench, false, &[segment(false, "A", ack, seq, 20)]);
        ack += 20;
        if straight {
            assert_eq!((there, back), (vec![Verdict::Deliver(OTHER)], vec![Verdict::Deliver(PORT)]), "{round}");
        }
        assert_eq!(states(&bench), [(tcp::State::Established, [0, 0]); 4], "{round}");
    }
    // Both ports see what is sent again.
    assert_eq!(cross(&mut bench, true, &[segment(true, "A", seq - 10, ack, 10)]), [Verdict::Deliver(OTHER)]);
    assert_eq!(states(&bench), [(tcp::State::Established, [1, 0]); 4]);
    let end =
        [segment(true, "A", seq, ack, 5), segment(true, "FA", seq + 5, ack, 0), segment(true, "A", seq + 6, ack, 0)];
    let ways = [Verdict::Deliver(OTHER), Verdict::Forward(OTHER), Verdict::Forward(OTHER)];
    assert_eq!(cross(&mut bench, true, &end), ways);
    assert_eq!(states(&bench), [(tcp::State::Closing, [1, 0]); 4]);
}

#[test]
fn flows_know_what_they_carried_and_how_far_it_is() {
    // VF-22, on a virtual clock.
    let mut bench = Bench::new();
    bench.layer("acl", 10, Default::Block, vec![rule("out", Direction::Out, &[], allow())]);
    let tcp = |out: bool, flags: &str, seq, ack, len: usize, tos: u8| {
        let (from, to) = if out { ([10, 0, 0, 1], [10, 0, 0, 2]) } else { ([10, 0, 0, 2], [10, 0, 0, 1]) };
        let (from_port, to_port) = if out { (7, 80) } else { (80, 7) };
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
        let builder = builder.tcp(from_port, to_port, seq, 1000);
        let builder = if flags.contains('S') { builder.syn() } else { builder };
        let builder = if flags.contains('A') { builder.ack(ack) } else { builder };
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![1; len]).unwrap();
        frame[15] = tos;
        // The header's checksum is not looked at.
        frame
    };
    let start = bench.now;
    let steps = [
        (0, true, "S", 100, 0, 0, 0),
        (3000, false, "SA", 900, 101, 0, 0),
        (3500, true, "A", 101, 901, 10, 0),
        (6500, false, "A", 901, 111, 0, 3),
        (7000, true, "A", 101, 901, 10, 1),
    ];
    let mut bytes = [0, 0];
    for (us, out, flags, seq, ack, len, tos) in steps {
        let frame = tcp(out, flags, seq, ack, len, tos);
        bytes[usize::from(!out)] += frame.len() as u64;
        bench.now = start + us * 1000;
        bench.send(if out { Direction::Out } else { Direction::In }, &frame).unwrap();
        // What was told to the rules counts too.
        bench.engine.fold(PORT, 0, 1000);
    }
    let mut reports = Vec::new();
    bench.engine.list(PORT, 0, 100, |report| reports.push(report));
    assert_eq!(reports.len(), 2);
    for report in reports {
        let at = usize::from(report.direction == Direction::In);
        assert_eq!((report.packets, report.bytes), ([3, 2][at], bytes[at]));
        assert_eq!(report.tcp, Some(tcp::State::Established));
        assert_eq!((report.retransmits, report.congestion_marks), ([1, 0], [0, 1]));
        let rtt = report.rtt_us.map(|rtt| rtt.map(|us| us.div_ceil(10) * 10));
        assert_eq!(rtt, [Some(3000), Some(500)]);
    }
}

#[test]
fn memory_of_a_pair_is_bounded() {
    // Five layers of which two are stateful: keys, flows, programs, connections, TCP and the slack of tables.
    const PAIRS: u32 = 20_000;
    for (tcp, nat, most) in [(false, false, 432), (true, false, 496), (false, true, 432), (true, true, 496)] {
        let mut bench = Bench::new();
        let config = EngineConfig { flows: 50_000, small_flows: 40_000, plans_per_second: u32::MAX, seed: 3 };
        bench.engine = Engine::new(config);
        if nat {
            let range = |last| PortRange { address: IpAddr::from([192, 0, 2, last]), first: 1024, last: 65_535 };
            let ranges = Content::Ranges([range(1), range(2)].into());
            let resource = Resource { name: name("pool"), controller: name("test"), content: ranges };
            bench.edit(vec![Edit::PutResource { resource: Arc::new(resource) }]);
        }
        for at in 0..5 {
            let translate = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle(60) };
            let action = match at {
                1 if nat => Action::Nat(translate),
                0 | 1 => allow(),
                _ => Action::Allow { stateful: None },
            };
            let rules = vec![rule("out", Direction::Out, &[], action)];
            bench.layer(&format!("layer{at}"), at, Default::Allow, rules);
        }
        for first in (0..PAIRS).step_by(64) {
            let frames: Vec<_> = (first..(first + 64).min(PAIRS)).map(|n| pair_frame(n, tcp)).collect();
            let mut out = burst(&frames, Direction::Out);
            bench.engine.process(&mut out, PORT, Direction::Out, bench.now);
            let answers: Vec<_> = (0..out.len()).map(|at| answer_to(out.window(at), tcp)).collect();
            let mut back = burst(&answers, Direction::In);
            bench.engine.process(&mut back, PORT, Direction::In, bench.now);
            if tcp {
                let frames: Vec<_> = frames.iter().map(|frame| last_of_handshake(frame)).collect();
                bench.engine.process(&mut burst(&frames, Direction::Out), PORT, Direction::Out, bench.now);
            }
        }
        let report = bench.report();
        assert_eq!((report.connections, report.stats.confirmed), (PAIRS.into(), 2 * u64::from(PAIRS)));
        let each = report.memory / u64::from(PAIRS);
        assert!(each <= most, "tcp {tcp}, nat {nat}: {each} bytes");
    }
}

/// The first frame of a connection by number.
fn pair_frame(number: u32, tcp: bool) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, a, b, c], [198, 51, 100, 1], 64);
    let mut frame = Vec::new();
    let written = match tcp {
        true => builder.tcp(7, 80, 100, 1000).syn().write(&mut frame, &[]),
        false => builder.udp(7, 80).write(&mut frame, &[1; 8]),
    };
    written.unwrap();
    frame
}

/// The answer: ends exchanged; of TCP a SYN-ACK.
fn answer_to(frame: &[u8], tcp: bool) -> Vec<u8> {
    let mut answer = frame.to_vec();
    answer[26..30].copy_from_slice(&frame[30..34]);
    answer[30..34].copy_from_slice(&frame[26..30]);
    answer[34..36].copy_from_slice(&frame[36..38]);
    answer[36..38].copy_from_slice(&frame[34..36]);
    if tcp {
        answer[38..46].copy_from_slice(&[0, 0, 3, 0, 0, 0, 0, 101]);
        answer[47] = 0x12;
    }
    answer
}

fn last_of_handshake(frame: &[u8]) -> Vec<u8> {
    let mut last = frame.to_vec();
    last[38..46].copy_from_slice(&[0, 0, 0, 101, 0, 0, 3, 1]);
    last[47] = 0x10;
    last
}
