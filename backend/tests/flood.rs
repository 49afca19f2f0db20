// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A flood through a whole node: guests that talk through stateful policy go on, on the worker that is flooded, too.

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;

use backend::config::PollMode;
use etherparse::PacketBuilder;
use support::{BROADCAST, Guest, NodeSpec, Shape, TestNode, until};
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions};
use switch::engine::PortReport;
use switch::model::{Action, Controller, Default, Direction, Edit, Group, PortPolicy, Rule, Stateful, Transaction};

const NAMES: [&str; 3] = ["a", "b", "flooder"];
const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
const ADDRESSES: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
/// Connections between `a` and `b`.
const CONNECTIONS: u16 = 50;
/// Frames that each of them sends, and of these at most so many on their way.
const FRAMES: u64 = 20_000;
const WINDOW: u64 = 64;
/// Frames of the flood.
const FLOOD: u32 = 60_000;
/// Flows of a port that nobody has confirmed, at most.
const SMALL_FLOWS: u64 = 1 << 14;
/// Where the number of a frame stands: behind Ethernet, IPv4 and UDP.
const NUMBER_AT: usize = 14 + 20 + 8;

fn name(text: &str) -> Name {
    Name::new(text).expect("name")
}

/// What the guest asks is answered, the other guest may ask, and nothing else comes in.
fn firewall() -> Arc<Snapshot> {
    let stateful = Stateful { idle_s: NonZeroU32::new(60).expect("60") };
    let rule = |text, direction, conditions| Rule {
        name: name(text),
        priority: 1,
        direction,
        conditions: Conditions::new(conditions).expect("conditions"),
        action: Action::Allow { stateful: Some(stateful) },
        terminating: false,
    };
    let friends = Condition::from_text("src_ip", ["10.0.0.0/24"]).expect("a prefix");
    let rules = vec![rule("out", Direction::Out, Vec::new()), rule("friends", Direction::In, vec![friends])];
    let group = Group { name: name("g"), order: 0, when: Conditions::default(), lpm: None, rules };
    let edits = vec![
        Edit::PutLayer { name: name("acl"), order: 10, default: Default::Block },
        Edit::PutGroup { layer: name("acl"), group: Arc::new(group) },
    ];
    let controller = Controller { name: name("test"), order: [0, 100] };
    let transaction = Transaction { controller, preconditions: Vec::new(), edits };
    let next = commit(&PortPolicy::empty(), &Snapshot::empty(), &transaction, 1);
    Arc::new(next.expect("a transaction").1)
}

/// A numbered frame of a connection, from one of the two to the other.
fn talk(from: usize, number: u64) -> Vec<u8> {
    let to = 1 - from;
    let port = 5000 + u16::try_from(number % u64::from(CONNECTIONS)).expect("a port");
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(MACS[from], MACS[to]).ipv4(ADDRESSES[from], ADDRESSES[to], 64);
    builder.udp(port, port).write(&mut bytes, &number.to_be_bytes()).expect("frame");
    bytes
}

/// A frame that nobody asked for, from ends of its own, to one of the two.
fn stray(number: u32) -> Vec<u8> {
    let to = usize::from(!number.is_multiple_of(2));
    let [high, a, b, c] = number.to_be_bytes();
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(MACS[2], MACS[to]).ipv4([100, a, b, c], ADDRESSES[to], 64);
    builder.udp(2000 + u16::from(high), 80).write(&mut bytes, &[0; 8]).expect("frame");
    bytes
}

/// One of the two while they talk: how much it has sent and received.
struct Talker {
    guest: Guest,
    sent: u64,
    received: u64,
}

impl Talker {
    /// Sends what there is room for; `heard`: how much of it has arrived.
    fn say(&mut self, me: usize, heard: u64) {
        let end = FRAMES.min(heard + WINDOW);
        let frames: Vec<Vec<u8>> = (self.sent..end).map(|number| talk(me, number)).collect();
        self.sent += self.guest.pairs[0].offer(&frames, Shape::One) as u64;
    }

    /// All that arrives is the other's, whole and in its order.
    fn hear(&mut self, me: usize) {
        for frame in self.guest.poll() {
            assert_eq!(frame[NUMBER_AT..], self.received.to_be_bytes(), "frame {} at {}", self.received, NAMES[me]);
            assert_eq!(frame, talk(1 - me, self.received));
            self.received += 1;
        }
    }
}

fn report(node: &TestNode, port: &str) -> PortReport {
    let report = node.handle().ask_engine(port, |engine, port, _| engine.report(port));
    report.expect("node").expect("port").expect("policy")
}

/// VF-22: on one worker, so that all they share is shared.
#[test]
fn guests_that_talk_go_on_while_another_floods_them() {
    let spec = NodeSpec::new().workers(1, PollMode::Adaptive);
    let node = NAMES.into_iter().fold(spec, |spec, name| spec.port_on(name, 0)).start();
    let mut guests = NAMES.map(|name| Guest::attach(node.socket(name)));
    for (from, mac) in MACS.into_iter().enumerate() {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        for (to, guest) in guests.iter_mut().enumerate() {
            assert_eq!(guest.receive(usize::from(to != from)).len(), usize::from(to != from));
        }
    }
    for port in ["a", "b"] {
        node.handle().set_policy(port, firewall()).expect("node").expect("port");
    }
    let [a, b, mut flooder] = guests;
    let mut talkers = [a, b].map(|guest| Talker { guest, sent: 0, received: 0 });

    // `a` begins, and `b` answers.
    for from in [0, 1] {
        let frames: Vec<Vec<u8>> = (0..u64::from(CONNECTIONS)).map(|number| talk(from, number)).collect();
        talkers[from].guest.send(&frames);
        talkers[from].sent = u64::from(CONNECTIONS);
        until("the first frames", || {
            talkers[1 - from].hear(1 - from);
            (talkers[1 - from].received == u64::from(CONNECTIONS)).then_some(())
        });
    }
    let established = ["a", "b"].map(|port| report(&node, port));
    for report in established {
        assert_eq!((report.connections, report.stats.confirmed), (50, 100));
    }

    let mut flooded = 0;
    until("all frames of those that talk, and of the flood", || {
        if flooded < FLOOD {
            let frames: Vec<Vec<u8>> = (flooded..FLOOD.min(flooded + 64)).map(stray).collect();
            flooded += u32::try_from(flooder.pairs[0].offer(&frames, Shape::One)).expect("64");
        }
        for me in [0, 1] {
            let heard = talkers[1 - me].received;
            talkers[me].say(me, heard);
            talkers[me].hear(me);
        }
        (flooded == FLOOD && talkers.iter().all(|talker| talker.received == FRAMES)).then_some(())
    });

    // Every frame of the flood is counted where it came from, and none of the others was lost.
    until("all drops are counted", || {
        let [policy, budget] = ["policy_default", "plan_budget"].map(|cause| node.drops("flooder", cause));
        (policy + budget == u64::from(FLOOD)).then_some(())
    });
    for port in ["a", "b"] {
        assert!(node.status(port).drops.values().all(|count| *count == 0), "{:?}", node.status(port).drops);
    }
    assert!(flooder.poll().is_empty());
    for (port, before) in ["a", "b"].into_iter().zip(established) {
        let after = report(&node, port);
        // The connections are the same ones, none of their packets had to be planned, and the flood pushed out itself.
        assert_eq!((after.connections, after.stats.confirmed, after.stats.evicted), (50, 100, 0));
        let strays = u64::from(FLOOD / 2);
        assert_eq!(after.stats.misses - before.stats.misses, strays);
        assert!(after.stats.evicted_small > 0 && after.flows <= 100 + SMALL_FLOWS, "{after:#?}");
    }
}
