// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy of ports under real traffic, on one worker and across workers.

mod support;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use backend::config::PollMode;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use packet::{DropCause, Tunnel};
use support::{BROADCAST, Guest, NodeSpec, TestNode};
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions};
use switch::model::{
    Action, Answer, Content, Controller, Default, Destination, Direction, Edit, Encap, Group, Mapping, Mappings, Nat,
    PortPolicy, PortRange, Resource, Rule, Source, Stateful, Transaction,
};
use switch::tally::Total;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn name(text: &str) -> Name {
    Name::new(text).expect("name")
}

fn guests(workers: usize) -> (TestNode, Guest, Guest) {
    let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
    let node = spec.port_on("a", 0).port_on("b", workers - 1).start();
    let mut guests = ["a", "b"].map(|name| Guest::attach(node.socket(name)));
    // Both are known to the bridge when each has heard the other.
    for (from, mac) in [(0, A), (1, B)] {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        assert_eq!(guests[1 - from].receive(1).len(), 1);
    }
    let [a, b] = guests;
    (node, a, b)
}

/// The policy of one port, and what it was.
struct Policy {
    port: &'static str,
    policy: PortPolicy,
    snapshot: Arc<Snapshot>,
}

impl Policy {
    fn of(port: &'static str) -> Self {
        Self { port, policy: PortPolicy::empty(), snapshot: Arc::new(Snapshot::empty()) }
    }

    fn edit(&mut self, node: &TestNode, edits: Vec<Edit>) {
        let controller = Controller { name: name("test"), order: [0, 100] };
        let transaction = Transaction { controller, preconditions: Vec::new(), edits };
        let (policy, snapshot) = commit(&self.policy, &self.snapshot, &transaction, 1).expect("a valid transaction");
        (self.policy, self.snapshot) = (policy, Arc::new(snapshot));
        node.handle().set_policy(self.port, Arc::clone(&self.snapshot)).expect("node").expect("port");
    }

    fn layer(&mut self, node: &TestNode, layer: &str, default: Default, rules: Vec<Rule>) {
        let group = Group { name: name("g"), order: 0, when: Conditions::default(), lpm: None, rules };
        let put = Edit::PutLayer { name: name(layer), order: 10, default };
        self.edit(node, vec![put, Edit::PutGroup { layer: name(layer), group: Arc::new(group) }]);
    }
}

fn rule(text: &str, direction: Direction, matches: &[(&str, &str)], action: Action) -> Rule {
    let conditions = matches.iter().map(|(field, value)| Condition::from_text(field, [*value]).expect("condition"));
    let conditions = Conditions::new(conditions.collect()).expect("conditions");
    Rule { name: name(text), priority: 1, direction, conditions, action, terminating: false }
}

fn idle() -> Stateful {
    Stateful { idle_s: NonZeroU32::new(60).expect("60") }
}

/// A UDP frame with `len` bytes of payload that follow from its ports.
fn udp(to: [u8; 6], from: [u8; 6], source: ([u8; 4], u16), destination: ([u8; 4], u16), len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(from, to).ipv4(source.0, destination.0, 64);
    let payload: Vec<u8> =
        (0..=u8::MAX).cycle().map(|n| n.wrapping_mul(source.1.to_le_bytes()[0] | 1)).take(len).collect();
    builder.udp(source.1, destination.1).write(&mut bytes, &payload).expect("frame");
    bytes
}

/// Source port, destination port, payload; checksums verified.
fn read(frame: &[u8]) -> (u16, u16, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP") };
    let ip = packet.net.as_ref().and_then(|net| net.ipv4_ref()).expect("IPv4").header();
    assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
    let header = udp.to_header();
    let sum = header.calc_checksum_ipv4(&ip.to_header(), udp.payload()).expect("checksum");
    assert_eq!(sum, header.checksum, "the checksum of UDP");
    (header.source_port, header.destination_port, udp.payload().to_vec())
}

/// VF-6, decisions 2 and 5: translated on the way out and back, short frames and long ones, on one worker and across two.
#[test]
fn connections_are_translated_both_ways() {
    for workers in [1, 2] {
        let (node, mut a, mut b) = guests(workers);
        let mut policy = Policy::of("a");
        let address = IpAddr::from([192, 0, 2, 1]);
        let ranges = Content::Ranges([PortRange { address, first: 40_000, last: 40_099 }].into());
        let resource = Resource { name: name("pool"), controller: name("test"), content: ranges };
        policy.edit(&node, vec![Edit::PutResource { resource: Arc::new(resource) }]);
        let nat = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle() };
        let udp_only = [("ip_proto", "udp")];
        policy.layer(&node, "nat", Default::Block, vec![rule("out", Direction::Out, &udp_only, Action::Nat(nat))]);
        for (n, len) in (1000..).zip([18, 200, 700, 1400]) {
            let local = ([10, 0, 0, 1], n);
            let ask = udp(B, A, local, ([10, 0, 0, 2], 53), len);
            a.send(&[ask]);
            let [there] = b.receive(1).try_into().expect("one");
            let (port, 53, payload) = read(&there) else { panic!("the port asked") };
            assert!((40_000..40_100).contains(&port), "{port}");
            b.send(&[udp(A, B, ([10, 0, 0, 2], 53), ([192, 0, 2, 1], port), len)]);
            let [back] = a.receive(1).try_into().expect("one");
            let (53, to, answer) = read(&back) else { panic!("from the port asked") };
            assert_eq!((to, payload.len(), answer.len()), (local.1, len, len));
        }
        // Nobody asked for this, and what is for all meets policy too.
        b.send(&[udp(A, B, ([10, 0, 0, 2], 53), ([192, 0, 2, 1], 39_999), 18)]);
        node.wait_for_drops("b", "policy_default", 1);
        b.send(&[support::frame(BROADCAST, B, 60, 2)]);
        node.wait_for_drops("b", "policy_default", 2);
        assert!(a.poll().is_empty());
        let report = node.handle().ask_engine("a", |engine, port, _| engine.report(port)).expect("node").expect("port");
        let report = report.expect("policy");
        assert_eq!((report.connections, report.stats.confirmed), (4, 8));
    }
}

/// VF-14, decision 2: packets wait for the directory, in turn, and go on when it answers; or not.
#[test]
fn packets_wait_for_the_directory() {
    let (node, mut a, mut b) = guests(1);
    let events = node.handle().take_events().expect("nobody else listens");
    let mut policy = Policy::of("a");
    let content = Content::Map(Mappings::default());
    let resource = Resource { name: name("directory"), controller: name("test"), content };
    policy.edit(&node, vec![Edit::PutResource { resource: Arc::new(resource) }]);
    let encap = Action::Encap(Encap {
        tunnel: Tunnel::Vxlan,
        vni: Some(77),
        source: IpAddr::from([192, 0, 2, 9]),
        destination: Destination::Mapped(name("directory")),
    });
    let to = [("dst_ip", "10.0.0.0/24")];
    policy.layer(&node, "vnet", Default::Allow, vec![rule("out", Direction::Out, &to, encap)]);
    let frames: Vec<Vec<u8>> = [30, 900, 60]
        .into_iter()
        .zip(1..)
        .map(|(len, port)| udp(B, A, ([10, 0, 0, 1], 7), ([10, 0, 0, 5], port), len))
        .collect();
    a.send(&frames);
    let event = events.recv_timeout(support::PATIENCE).expect("a miss");
    let switch::engine::Event::Miss { request, .. } = event else { panic!("{event:?}") };
    assert_eq!((request.address, &*request.resource), (IpAddr::from([10, 0, 0, 5]), "directory"));
    let known = Mapping { address: IpAddr::from([192, 0, 2, 8]), vni: None, mac: None };
    let put = |answer| Edit::PutMapping { resource: name("directory"), address: request.address, answer };
    policy.edit(&node, vec![put(Some(Answer::Known(known)))]);
    // Nobody has the outer addresses, so all hear of it.
    for (frame, inner) in b.receive(3).iter().zip(&frames) {
        assert_eq!(&frame[50..], &inner[..], "in turn and whole");
        assert_eq!((&frame[26..30], &frame[30..34]), (&[192, 0, 2, 9][..], &[192, 0, 2, 8][..]));
    }
    // It changes its mind.
    policy.edit(&node, vec![put(Some(Answer::Unknown { until_ns: u64::MAX }))]);
    a.send(&frames[..1]);
    node.wait_for_drops("a", DropCause::NoMapping.label(), 1);
    // It never answers.
    policy.edit(&node, vec![put(None)]);
    a.send(&frames[..1]);
    node.wait_for_drops("a", DropCause::Unresolved.label(), 1);
    assert!(b.poll().is_empty());
    // The rule counted it all the same: three that went on, one denied, one that waited in vain.
    let folded = node.handle().ask_engine("a", |engine, port, _| engine.fold(port, 0, usize::MAX));
    assert_eq!(folded.expect("node").expect("port"), None, "all flows");
    let bytes = frames.iter().chain(&[&frames[0]; 2].map(Clone::clone)).map(|frame| frame.len() as u64).sum();
    assert_eq!(policy.snapshot.totals()[0].groups[0].all, Total { packets: 5, bytes });
}

/// What is wired meets no policy, and whoever wants it to is told.
#[test]
fn wired_ports_have_no_policy() {
    let node = NodeSpec::new().port("a").port("b").wired("a", "b").start();
    let refused = node.handle().set_policy("a", Arc::new(Snapshot::empty())).expect("node");
    assert_eq!(
        refused.expect_err("wired").to_string(),
        "port \"a\" is wired to another port, so that it can have no policy"
    );
    let refused = node.handle().set_policy("c", Arc::new(Snapshot::empty())).expect("node");
    assert_eq!(refused.expect_err("unknown").to_string(), "no port \"c\"");
}
