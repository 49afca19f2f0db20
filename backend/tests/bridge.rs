// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bridge between guests: flood, learning, moves, groups, no reflection.

mod support;

use backend::config::{Name, PollMode};
use packet::MacAddr;
use support::{BROADCAST, Guest, NodeSpec, Numbered, TestNode, exchange, frame, port, until};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, u8::try_from(n).expect("few")]
}

/// Four guests on a bridge of `workers`, each with a worker of its own if there are enough.
fn guests(workers: usize) -> (TestNode, Vec<Guest>) {
    let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
    let node = NAMES.iter().enumerate().fold(spec, |spec, (n, name)| spec.port_on(name, n % workers)).start();
    let guests = NAMES.iter().map(|name| Guest::attach(node.socket(name))).collect();
    (node, guests)
}

/// Sends one frame from a guest and checks who receives it. A fence frame from the same guest follows, so that what is
/// not there then does not come.
fn sends_to(guests: &mut [Guest], from: usize, frame: &[u8], receivers: &[usize]) {
    guests[from].send(&[frame.to_vec()]);
    for &to in receivers {
        assert_eq!(guests[to].receive(1), [frame.to_vec()], "guest {to}");
    }
    let fence = support::frame(BROADCAST, mac(from), 60, u64::MAX);
    guests[from].send(std::slice::from_ref(&fence));
    for to in (0..guests.len()).filter(|&to| to != from) {
        assert_eq!(guests[to].receive(1), std::slice::from_ref(&fence), "guest {to} received something else");
    }
    assert!(guests[from].poll().is_empty(), "a reflection");
}

#[test]
fn unknown_and_group_addresses_flood_and_known_ones_do_not() {
    for workers in [1, 2] {
        let (node, mut guests) = guests(workers);
        sends_to(&mut guests, 0, &frame(mac(9), mac(0), 100, 1), &[1, 2, 3]);
        sends_to(&mut guests, 1, &frame(BROADCAST, mac(1), 300, 2), &[0, 2, 3]);
        sends_to(&mut guests, 2, &frame([1, 0, 0x5e, 0, 0, 1], mac(2), 1514, 3), &[0, 1, 3]);
        // Learned by now, by all replicas as soon as the news has arrived.
        until("stations spread", || (node.stats().bridge.entries == 3).then_some(()));
        if workers > 1 {
            settle(&mut guests);
        }
        sends_to(&mut guests, 3, &frame(mac(0), mac(3), 60, 4), &[0]);
        sends_to(&mut guests, 0, &frame(mac(1), mac(0), 60, 5), &[1]);
        sends_to(&mut guests, 1, &frame(mac(2), mac(1), 1000, 6), &[2]);
        assert!(node.stats().bridge.learned >= 4);
    }
}

/// Has every guest heard by every replica: hand-over rings are in order, so what was told before has arrived when a later
/// frame has.
fn settle(guests: &mut [Guest]) {
    for from in 0..guests.len() {
        sends_to(guests, from, &frame(BROADCAST, mac(from), 60, 77), &others(guests.len(), from));
    }
}

fn others(count: usize, than: usize) -> Vec<usize> {
    (0..count).filter(|&n| n != than).collect()
}

#[test]
fn a_station_that_moves_is_followed() {
    for workers in [1, 2] {
        let (node, mut guests) = guests(workers);
        settle(&mut guests);
        let roaming = [2, 0, 0, 0, 0xff, 1];
        for (n, at) in [1, 2, 3, 1, 0].into_iter().enumerate() {
            sends_to(&mut guests, at, &frame(BROADCAST, roaming, 60, 1), &others(4, at));
            settle(&mut guests);
            let from = (at + 1) % 4;
            sends_to(&mut guests, from, &frame(roaming, mac(from), 60, 2), &[at]);
            assert!(node.stats().bridge.moves >= n as u64);
        }
    }
}

/// A frame for a station behind the port it came from goes nowhere, and is counted.
#[test]
fn nothing_is_reflected() {
    let (node, mut guests) = guests(1);
    let (one, two) = ([2, 0, 0, 1, 0, 1], [2, 0, 0, 1, 0, 2]);
    sends_to(&mut guests, 0, &frame(BROADCAST, one, 60, 1), &[1, 2, 3]);
    sends_to(&mut guests, 0, &frame(one, two, 60, 2), &[]);
    node.wait_for_drops("a", "reflection", 1);
}

/// Addresses that 802.1D reserves stay on their link.
#[test]
fn reserved_addresses_are_not_forwarded() {
    let (node, mut guests) = guests(1);
    sends_to(&mut guests, 0, &frame([1, 0x80, 0xc2, 0, 0, 0], mac(0), 60, 1), &[]);
    sends_to(&mut guests, 0, &frame([1, 0x80, 0xc2, 0, 0, 0xf], mac(0), 60, 2), &[]);
    node.wait_for_drops("a", "reserved_address", 2);
}

/// The station of a port that is gone is flooded for again, and a port that takes its place does not inherit it.
#[test]
fn a_removed_port_is_forgotten() {
    for workers in [1, 2] {
        let (node, mut guests) = guests(workers);
        settle(&mut guests);
        node.handle().remove_port("d").expect("node").expect("port");
        drop(guests.pop());
        assert_eq!(node.stats().bridge.entries, 3);
        sends_to(&mut guests, 0, &frame(mac(3), mac(0), 60, 1), &[1, 2]);
        node.handle().add_port(port("e", node.socket("e"))).expect("node").expect("port");
        guests.push(Guest::attach(node.socket("e")));
        sends_to(&mut guests, 0, &frame(mac(3), mac(0), 60, 2), &[1, 2, 3]);
    }
}

#[test]
fn a_known_station_without_a_guest_is_not_ready() {
    let (node, mut guests) = guests(1);
    settle(&mut guests);
    drop(guests.remove(3));
    node.wait_for("d", backend::stats::PortState::Listening);
    guests[0].send(&[frame(mac(3), mac(0), 60, 1)]);
    node.wait_for_drops("a", "not_ready", 1);
}

#[test]
fn a_flood_with_nobody_else_has_no_destination() {
    let node = TestNode::bridge(&["a", "b"]);
    let mut a = Guest::attach(node.socket("a"));
    a.send(&Numbered::new(BROADCAST, mac(0)).burst(5, 60));
    node.wait_for_drops("a", "no_destination", 5);
}

/// Wired ports are not on the bridge.
#[test]
fn floods_spare_wired_ports() {
    let spec = NodeSpec::new().workers(1, PollMode::Adaptive);
    let node = spec.port("a").port("b").port("c").port("d").wired("c", "d").start();
    let mut guests: Vec<_> = NAMES.iter().map(|name| Guest::attach(node.socket(name))).collect();
    let broadcast = frame(BROADCAST, mac(0), 60, 1);
    guests[0].send(std::slice::from_ref(&broadcast));
    assert_eq!(guests[1].receive(1), [broadcast]);
    let wired = frame(BROADCAST, mac(2), 60, 2);
    guests[2].send(std::slice::from_ref(&wired));
    assert_eq!(guests[3].receive(1), [wired]);
    assert!(guests.iter_mut().all(|guest| guest.poll().is_empty()));
}

/// KA-13: payload beyond the private window travels from guest to guest, also to several receivers and across workers.
#[test]
fn long_frames_are_flooded_whole() {
    for workers in [1, 2] {
        let (_node, mut guests) = guests(workers);
        for len in [255, 256, 257, 1514] {
            sends_to(&mut guests, 0, &frame(BROADCAST, mac(0), len, 1), &[1, 2, 3]);
        }
    }
}

/// Two flows cross without disturbing each other, and no third guest hears them.
#[test]
fn flows_are_private_once_learned() {
    let (node, mut guests) = guests(2);
    settle(&mut guests);
    let [a, b, c, d] = guests.as_mut_slice() else { panic!("four guests") };
    for _ in 0..5 {
        exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(mac(1), mac(0)).burst(200, 300), 64);
        exchange(&mut c.pairs[0], &mut d.pairs[0], &Numbered::new(mac(3), mac(2)).burst(200, 300), 64);
    }
    assert!(a.poll().is_empty() && b.poll().is_empty() && c.poll().is_empty() && d.poll().is_empty());
    for name in NAMES {
        assert!(node.status(name).drops.is_empty(), "{name}");
    }
}

/// Decision 22: a port with a fixed address is known from the start, sends as nobody else, and nobody else becomes it.
#[test]
fn a_fixed_address_is_known_kept_and_the_only_one() {
    for workers in [1, 2] {
        let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
        let worker = |n: usize| Name::new(format!("w{}", n % workers)).expect("name");
        let node = NAMES.iter().enumerate().fold(spec, |spec, (n, name)| {
            spec.port_with(name, |port| {
                port.mac = (n == 0).then(|| MacAddr(mac(0)));
                port.workers = vec![worker(n)];
            })
        });
        let node = node.start();
        let mut guests: Vec<Guest> = NAMES.iter().map(|name| Guest::attach(node.socket(name))).collect();
        // It has not sent anything yet.
        sends_to(&mut guests, 1, &frame(mac(0), mac(1), 60, 1), &[0]);
        // Another claims its address: this is forwarded, and changes nothing.
        guests[2].send(&[frame(BROADCAST, mac(0), 60, 2)]);
        for to in [0, 1, 3] {
            assert_eq!(guests[to].receive(1), [frame(BROADCAST, mac(0), 60, 2)]);
        }
        sends_to(&mut guests, 3, &frame(mac(0), mac(3), 60, 3), &[0]);
        // It claims another's, which is neither forwarded nor believed.
        sends_to(&mut guests, 0, &frame(BROADCAST, mac(1), 60, 4), &[]);
        sends_to(&mut guests, 3, &frame(mac(1), mac(3), 60, 5), &[1]);
        node.wait_for_drops("a", "spoofed_source", 1);
        // It goes with its port.
        node.handle().remove_port("a").expect("node").expect("port");
        guests.remove(0);
        guests[0].send(&[frame(mac(0), mac(1), 60, 6)]);
        for to in [1, 2] {
            assert_eq!(guests[to].receive(1), [frame(mac(0), mac(1), 60, 6)], "flooded for");
        }
    }
}
