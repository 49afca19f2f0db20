// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A bridge with three ports, what is sent there, and what is counted.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use backend::config::PollMode;
use backend::stats::PortStatus;
use etherparse::PacketBuilder;
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions};
use switch::model::{
    Action, Content, Controller, Default as Otherwise, Direction, Edit, Group, Nat, PortPolicy, PortRange, Resource,
    Rule, Stateful, Transaction,
};

use crate::support::{BROADCAST, Cnf, Guest, NodeSpec, TestNode, frame, guest_config, until};

/// Addresses of the guests of ports "a", "b" and "c".
pub(crate) const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a packet is like that a test sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    /// To whom: 1 is "b", which takes aggregates, 2 is "c", which knows nothing of them.
    pub(crate) to: usize,
    pub(crate) flow: u8,
    pub(crate) len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No IP, from 14 bytes on.
    Other,
    Udp,
    /// To a port that policy blocks where there is policy.
    Blocked,
    Tcp,
}

impl Spec {
    /// The packet, of which a number makes it different from all others, if there is room for one.
    pub(crate) fn packet(self, number: u32) -> Vec<u8> {
        let Self { kind, to, flow, len } = self;
        let (destination, source) = (MACS[to], MACS[0]);
        let port = 1000 + u16::from(flow);
        let builder = PacketBuilder::ethernet2(source, destination).ipv4(
            [10, 0, 0, 1],
            [10, 0, 0, u8::try_from(to).expect("few")],
            64,
        );
        let payload = |headers: usize| -> Vec<u8> {
            let number = number.to_be_bytes();
            (0..len.saturating_sub(headers))
                .map(|at| number.get(at).copied().unwrap_or_else(|| (at * 7).to_le_bytes()[0]))
                .collect()
        };
        let mut bytes = Vec::new();
        let written = match kind {
            Kind::Other => {
                bytes = [&destination[..], &source, &[0x88, 0xb6]].concat();
                bytes.extend(payload(14));
                Ok(())
            }
            Kind::Udp => builder.udp(port, 53).write(&mut bytes, &payload(42)),
            Kind::Blocked => builder.udp(port, 666).write(&mut bytes, &payload(42)),
            Kind::Tcp => builder.tcp(port, 80, number, 1000).ack(1).write(&mut bytes, &payload(54)),
        };
        written.expect("a packet");
        bytes
    }

    pub(crate) fn is_for(self, to: usize) -> bool {
        self.to == to
    }
}

/// Packets by protocol and source port, in order; what is no IP is one flow.
pub(crate) type Flows = BTreeMap<(u8, u16), Vec<Vec<u8>>>;

pub(crate) fn flows<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> Flows {
    let mut flows = Flows::new();
    for packet in packets {
        let is_ip = packet.len() >= 42 && packet[12..14] == [8, 0];
        let key = if is_ip { (packet[23], u16::from_be_bytes([packet[34], packet[35]])) } else { (0, 0) };
        flows.entry(key).or_default().push(packet.clone());
    }
    flows
}

/// A node with a bridge of three ports on one worker, whose stations are known.
pub(crate) struct Stage {
    pub(crate) node: TestNode,
    pub(crate) b: Cnf,
    pub(crate) c: Guest,
}

impl Stage {
    pub(crate) fn start(with: impl FnOnce(NodeSpec) -> NodeSpec) -> Self {
        let spec = NodeSpec::new().workers(1, PollMode::Adaptive);
        let node = with(spec.port("a").port("b").port("c")).start();
        let mut b = Cnf::attach(node.socket("b"));
        b.agree();
        let mut config = guest_config(node.socket("c"));
        (config.tx_buffer, config.rx_buffer) = (17_000, 17_000);
        let mut c = Guest::attach_with(config);
        // Nobody hears but the two: "a" is not there yet.
        c.send(&[frame(BROADCAST, MACS[2], 60, 1)]);
        until("b hears c", || (b.poll().len() == 1).then_some(()));
        assert_eq!(b.offer(&[frame(BROADCAST, MACS[1], 60, 2)]), 1);
        assert_eq!(c.receive(1).len(), 1);
        Self { node, b, c }
    }

    /// What arrives at each of the two until there are so many, and no more then.
    pub(crate) fn receive(&mut self, sent: [usize; 2], mut also: impl FnMut()) -> [Vec<Vec<u8>>; 2] {
        let mut got = [Vec::new(), Vec::new()];
        until(&format!("{sent:?} packets arrive"), || {
            also();
            got[0].extend(self.b.poll());
            got[1].extend(self.c.poll());
            (got[0].len() >= sent[0] && got[1].len() >= sent[1]).then_some(())
        });
        assert_eq!([got[0].len(), got[1].len()], sent, "more packets than were due");
        got
    }

    pub(crate) fn policy(&self, port: &str, edits: Vec<Edit>) -> Arc<Snapshot> {
        let controller = Controller { name: name("test"), order: [0, 100] };
        let transaction = Transaction { controller, preconditions: Vec::new(), edits };
        let empty = Arc::new(Snapshot::empty());
        let (_, snapshot) = commit(&PortPolicy::empty(), &empty, &transaction, 1).expect("a valid transaction");
        let snapshot = Arc::new(snapshot);
        self.node.handle().set_policy(port, Arc::clone(&snapshot)).expect("node").expect("port");
        snapshot
    }

    /// Connections from "a" are allowed and remembered, and what is for port 666 is not.
    pub(crate) fn blocking_policy(&self) -> Arc<Snapshot> {
        let stateful = Stateful { idle_s: NonZeroU32::new(60).expect("60") };
        let allow = rule("allow", 1, &[], Action::Allow { stateful: Some(stateful) });
        let block = rule(
            "block",
            2,
            &[("ip_proto", "udp"), ("dst_port", "666")],
            Action::Block { cause: packet::DropCause::PolicyBlock },
        );
        self.policy("a", layer(Otherwise::Block, vec![allow, block]))
    }

    /// UDP from "a" gets another source port and address.
    pub(crate) fn nat_policy(&self) -> Arc<Snapshot> {
        let address = std::net::IpAddr::from([192, 0, 2, 1]);
        let ranges = Content::Ranges([PortRange { address, first: 40_000, last: 40_999 }].into());
        let resource = Resource { name: name("pool"), controller: name("test"), content: ranges };
        let stateful = Stateful { idle_s: NonZeroU32::new(60).expect("60") };
        let nat = Nat { source: Some(switch::model::Source::Ranges(name("pool"))), destination: None, stateful };
        let edits = vec![Edit::PutResource { resource: Arc::new(resource) }];
        let rules = vec![rule("nat", 1, &[("ip_proto", "udp")], Action::Nat(nat))];
        self.policy("a", [edits, layer(Otherwise::Allow, rules)].concat())
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("name")
}

pub(crate) fn rule(text: &str, priority: u32, matches: &[(&str, &str)], action: Action) -> Rule {
    let conditions = matches.iter().map(|(field, value)| Condition::from_text(field, [*value]).expect("condition"));
    let conditions = Conditions::new(conditions.collect()).expect("conditions");
    Rule { name: name(text), priority, direction: Direction::Out, conditions, action, terminating: false }
}

pub(crate) fn layer(default: Otherwise, rules: Vec<Rule>) -> Vec<Edit> {
    let group = Group { name: name("g"), order: 0, when: Conditions::default(), lpm: None, rules };
    let put = Edit::PutLayer { name: name("l"), order: 10, default };
    vec![put, Edit::PutGroup { layer: name("l"), group: Arc::new(group) }]
}

/// A mix of everything, in runs and out of them.
pub(crate) fn mix(count: usize) -> Vec<Spec> {
    let lens = [60, 60, 60, 60, 60, 60, 14, 61, 62, 63, 64, 255, 256, 257, 260, 1514, 300, 9000, 42, 60];
    (0..count)
        .map(|n| {
            let kind = match n / 6 % 4 {
                0 | 1 => Kind::Udp,
                2 => Kind::Tcp,
                _ => Kind::Other,
            };
            let least = [(Kind::Udp, 46), (Kind::Tcp, 58), (Kind::Other, 14)].into_iter().find(|(of, _)| *of == kind);
            let len = lens[(n / 6 + n * (n / 120)) % lens.len()].max(least.map_or(0, |(_, len)| len));
            Spec { kind, to: 1 + n / 30 % 2, flow: u8::try_from(n / 12 % 5).expect("few"), len }
        })
        .collect()
}

/// Sends packets from a CNF in slices of so many, and gets what arrives at the others.
pub(crate) fn send_all(
    stage: &mut Stage,
    a: &mut Cnf,
    specs: &[Spec],
    at_once: usize,
    lost: impl Fn(Spec) -> bool,
) -> [Vec<Vec<u8>>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for (n, specs) in specs.chunks(at_once).enumerate() {
        let first = u32::try_from(n * at_once).expect("few");
        let packets: Vec<_> = specs.iter().zip(first..).map(|(spec, number)| spec.packet(number)).collect();
        let count = |to| specs.iter().filter(|spec| spec.is_for(to) && !lost(**spec)).count();
        let mut sent = 0;
        let got = stage.receive([count(1), count(2)], || {
            assert_eq!(a.poll(), Vec::<Vec<u8>>::new());
            sent += a.offer(&packets[sent..]);
        });
        for (all, got) in all.iter_mut().zip(got) {
            all.extend(got);
        }
    }
    all
}

pub(crate) fn sent_to(specs: &[Spec], to: usize) -> Vec<Vec<u8>> {
    let numbered = specs.iter().zip(0..).filter(|(spec, _)| spec.is_for(to));
    numbered.map(|(spec, number)| spec.packet(number)).collect()
}

/// What the counters of all ports say together: nothing was dropped but what is said here.
pub(crate) fn assert_counts(node: &TestNode, port: &str, drops: &[(&str, u64)]) -> PortStatus {
    let status = node.status(port);
    let expected: BTreeMap<String, u64> = drops.iter().map(|(cause, n)| ((*cause).to_owned(), *n)).collect();
    assert_eq!((&status.drops, &status.errors), (&expected, &BTreeMap::new()), "{port}");
    assert_eq!(status.aggregation.damages, BTreeMap::new(), "{port}");
    assert_eq!(status.aggregation.rx_lost, 0, "{port}");
    let flushes: u64 = status.aggregation.flushes.values().sum();
    let packets = &status.aggregation.packets_per_frame;
    assert_eq!((flushes, flushes), (packets.count, status.aggregation.held_ns.count), "{port}");
    assert!(packets.sum <= status.tx_packets && status.aggregation.tx_packets <= packets.sum, "{port}: {status:?}");
    status
}
