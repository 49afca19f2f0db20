// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports come and go on a running node.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use backend::ChangeError;
use backend::config::{Name, PollMode, Role};
use backend::stats::PortState;
use support::{BROADCAST, Guest, NodeSpec, Numbered, TestNode, alone, exchange, frame, open_files, port, until};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

fn add(node: &TestNode, name: &str) -> Result<(), ChangeError> {
    node.handle().add_port(port(name, node.socket(name))).expect("node")
}

fn remove(node: &TestNode, name: &str) -> Result<(), ChangeError> {
    node.handle().remove_port(name).expect("node")
}

/// Ports come and go, with guests on them, while two others exchange packets: these lose none.
#[test]
fn ports_come_and_go_under_traffic() {
    let _alone = alone();
    for workers in [1, 2] {
        let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
        let node = spec.port_on("a", 0).port_on("b", workers - 1).start();
        let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
        let (mut there, mut back) = (Numbered::new(B, A), Numbered::new(A, B));
        exchange(&mut a.pairs[0], &mut b.pairs[0], &there.burst(1, 60), 1);
        exchange(&mut b.pairs[0], &mut a.pairs[0], &back.burst(1, 60), 1);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    exchange(&mut a.pairs[0], &mut b.pairs[0], &there.burst(200, 300), 64);
                    exchange(&mut b.pairs[0], &mut a.pairs[0], &back.burst(200, 300), 64);
                }
            });
            for round in 0..20 {
                let name = format!("x{}", round % 3);
                add(&node, &name).expect("add");
                let mut guest = Guest::attach(node.socket(&name));
                assert_eq!(node.status(&name).state, PortState::Up);
                remove(&node, &name).expect("remove");
                until("the guest is told", || (!guest.device().is_connected()).then_some(()));
                assert!(!node.socket(&name).exists());
            }
            stop.store(true, Ordering::Relaxed);
            traffic.join().expect("traffic");
        });
        for name in ["a", "b"] {
            assert!(node.status(name).drops.is_empty(), "{:?}", node.status(name).drops);
        }
        assert_eq!(node.handle().ports().expect("node").len(), 2);
    }
}

/// One end of a wire is taken away and put back: the other one is not disturbed.
#[test]
fn one_end_of_a_wire_comes_back() {
    let _alone = alone();
    let node = TestNode::pair();
    let mut a = Guest::attach(node.socket("a"));
    for round in 1..=5 {
        let mut b = Guest::attach(node.socket("b"));
        exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
        remove(&node, "b").expect("remove");
        a.send(&[frame(B, A, 60, 0)]);
        node.wait_for_drops("a", "no_destination", round);
        add(&node, "b").expect("add");
    }
}

#[test]
fn names_and_sockets_are_checked() {
    let _alone = alone();
    let node = TestNode::bridge(&["a"]);
    let error = add(&node, "a").expect_err("twice").to_string();
    assert_eq!(error, "port \"a\" exists already");
    let error = remove(&node, "nobody").expect_err("unknown").to_string();
    assert_eq!(error, "no port \"nobody\"");
    // The socket of another port.
    let error = node.handle().add_port(port("b", node.socket("a"))).expect("node").expect_err("taken").to_string();
    assert!(error.contains("\"b\"") && error.contains("a.sock"), "{error}");
    let mut elsewhere = port("c", node.socket("c"));
    elsewhere.workers = vec![Name::new("w9").expect("name")];
    let error = node.handle().add_port(elsewhere).expect("node").expect_err("no worker").to_string();
    assert_eq!(error, "port \"c\" names worker \"w9\", which does not exist");
    let nowhere = port("d", "/nonexistent/d.sock".into());
    let error = node.handle().add_port(nowhere).expect("node").expect_err("no directory").to_string();
    assert!(error.contains("\"d\"") && error.contains("/nonexistent/d.sock"), "{error}");
    // Nothing of that left a trace.
    assert_eq!(node.handle().ports().expect("node").len(), 1);
    drop(Guest::attach(node.socket("a")));
    add(&node, "b").expect("add");
}

/// 128 ports at once, each with a guest, flooded and forwarded; then all removed: nothing is left.
#[test]
fn a_node_has_128_ports_at_once() {
    let _alone = alone();
    let before = open_files();
    let mut node = NodeSpec::new().workers(2, PollMode::Adaptive).start();
    let idle = open_files();
    let names: Vec<String> = (0..128).map(|n| format!("vm{n}")).collect();
    for name in &names {
        add(&node, name).expect("add");
    }
    let attach = |name: &String| {
        let mut config = support::guest_config(node.socket(name));
        config.queue_size = 16;
        Guest::attach_with(config)
    };
    let mut guests: Vec<Guest> = names.iter().map(attach).collect();
    assert!(node.handle().ports().expect("node").iter().all(|port| port.state == PortState::Up));
    let broadcast = frame(BROADCAST, A, 100, 1);
    guests[0].send(std::slice::from_ref(&broadcast));
    for guest in &mut guests[1..] {
        assert_eq!(guest.receive(1), std::slice::from_ref(&broadcast));
    }
    guests[127].send(&[frame(A, B, 60, 2)]);
    assert_eq!(guests[0].receive(1), [frame(A, B, 60, 2)]);
    let total = node.stats().ports.iter().map(|port| port.tx_packets).sum::<u64>();
    assert_eq!(total, 128);
    drop(guests);
    for name in &names {
        remove(&node, name).expect("remove");
    }
    until("descriptors are closed", || (open_files() == idle).then_some(()));
    node.stop();
    until("the node's too", || (open_files() == before).then_some(()));
}

/// The id of a removed port is used again only after all others: packets on their way to it do not reach its successor.
#[test]
fn removed_and_added_ports_count_from_zero() {
    let _alone = alone();
    let node = TestNode::bridge(&["a", "b"]);
    for _ in 0..5 {
        let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
        exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(50, 60), 50);
        until("counted", || (node.status("b").tx_packets == 50).then_some(()));
        for name in ["a", "b"] {
            remove(&node, name).expect("remove");
            add(&node, name).expect("add");
            assert_eq!((node.status(name).rx_packets, node.status(name).tx_packets), (0, 0));
        }
    }
}

/// Requests from many threads at once are all answered.
#[test]
fn many_ask_at_once() {
    let _alone = alone();
    let node = TestNode::bridge(&["a"]);
    thread::scope(|scope| {
        for n in 0..4 {
            let node = &node;
            scope.spawn(move || {
                for _ in 0..25 {
                    let name = format!("t{n}");
                    add(node, &name).expect("add");
                    assert!(node.stats().ports.iter().any(|port| port.name == name));
                    remove(node, &name).expect("remove");
                }
            });
        }
    });
    assert_eq!(node.handle().ports().expect("node").len(), 1);
}

/// A client port is added while its front end listens already, and removed while it does not.
#[test]
fn client_ports_come_and_go() {
    let _alone = alone();
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).start();
    for _ in 0..5 {
        let mut client = port("c", node.socket("c"));
        client.guest_mut().expect("vhost-user").role = Role::Client;
        node.handle().add_port(client).expect("node").expect("add");
        assert_eq!(node.status("c").state, PortState::Connecting);
        let mut config = support::guest_config(node.socket("c"));
        config.role = cnf::Role::Server;
        let guest = Guest::attach_with(config);
        assert_eq!(node.status("c").state, PortState::Up);
        remove(&node, "c").expect("remove");
        drop(guest);
    }
}

/// A node that is stopped answers nobody, and says so.
#[test]
fn a_stopped_node_is_gone() {
    let _alone = alone();
    let mut node = TestNode::bridge(&["a"]);
    let handle = node.handle();
    let guest = Guest::attach(node.socket("a"));
    node.stop();
    handle.ports().expect_err("stopped");
    handle.stats().expect_err("stopped");
    drop(guest);
}
