// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames from guest to guest: every ring format and feature, every size, byte for byte, in order, and counted.

mod support;

use backend::config::PollMode;
use cnf::DeviceConfig;
use support::{
    BROADCAST, Guest, NodeSpec, Numbered, Shape, TestNode, exchange, exchange_shaped, frame, guest_config, until,
};
use virtqueue::RingKind;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// All combinations of ring features.
fn combinations() -> Vec<(String, impl Fn(&mut DeviceConfig))> {
    let bit = |n: u32, at: u32| n >> at & 1 == 1;
    (0..32_u32)
        .map(|n| {
            let kind = if bit(n, 0) { RingKind::Packed } else { RingKind::Split };
            let name = format!(
                "{kind:?} in_order={} mrg={} event_idx={} indirect={}",
                bit(n, 1),
                bit(n, 2),
                bit(n, 3),
                bit(n, 4)
            );
            let apply = move |config: &mut DeviceConfig| {
                config.rings = kind;
                config.in_order = bit(n, 1);
                config.mrg_rxbuf = bit(n, 2);
                config.event_idx = bit(n, 3);
                config.indirect = bit(n, 4);
            };
            (name, apply)
        })
        .collect()
}

fn attach(node: &TestNode, name: &str, change: impl Fn(&mut DeviceConfig)) -> Guest {
    let mut config = guest_config(node.socket(name));
    config.queue_size = 64;
    change(&mut config);
    Guest::attach_with(config)
}

/// Sends frames of many sizes both ways, in every shape that the guest may use.
fn both_ways(a: &mut Guest, b: &mut Guest) {
    let (mut there, mut back) = (Numbered::new(B, A), Numbered::new(A, B));
    // Bridges learn from the first frame of each.
    exchange(&mut a.pairs[0], &mut b.pairs[0], &there.burst(1, 60), 1);
    exchange(&mut b.pairs[0], &mut a.pairs[0], &back.burst(1, 60), 1);
    for shape in [Shape::One, Shape::Chain, Shape::Indirect] {
        // Descriptors as this guest may send them.
        let shape_of = |guest: &Guest| match guest.pairs[0].queues.tx_tables {
            None if shape == Shape::Indirect => Shape::One,
            _ => shape,
        };
        let (from_a, from_b) = (shape_of(a), shape_of(b));
        let sizes = [60, 61, 64, 65, 127, 128, 129, 255, 256, 257, 268, 269, 1000, 1513, 1514];
        let there: Vec<_> = sizes.iter().cycle().take(150).map(|&size| there.take(size)).collect();
        let back: Vec<_> = sizes.iter().rev().cycle().take(150).map(|&size| back.take(size)).collect();
        exchange_shaped(&mut a.pairs[0], &mut b.pairs[0], &there, 48, from_a);
        exchange_shaped(&mut b.pairs[0], &mut a.pairs[0], &back, 48, from_b);
    }
}

/// What one guest sent is what the other got, by the counters of both ports.
fn assert_counters_agree(node: &TestNode, packets: u64, what: &str) {
    // A worker counts after it delivered.
    let (a, b) = until(&format!("counters agree: {what}"), || {
        let (a, b) = (node.status("a"), node.status("b"));
        let agree = (a.rx_packets, a.rx_bytes, b.rx_packets, b.rx_bytes)
            == (b.tx_packets, b.tx_bytes, a.tx_packets, a.tx_bytes);
        agree.then_some((a, b))
    });
    assert!(a.rx_packets >= packets && b.rx_packets >= packets, "{what}");
    assert!(a.drops.is_empty() && b.drops.is_empty(), "{what}: {:?} {:?}", a.drops, b.drops);
    assert!(a.errors.is_empty() && b.errors.is_empty(), "{what}: {:?} {:?}", a.errors, b.errors);
}

/// KA-1, KA-13: every ring feature, wired back to back.
#[test]
fn every_feature_combination_crosses_a_wire() {
    for (name, apply) in combinations() {
        let node = TestNode::pair();
        let (mut a, mut b) = (attach(&node, "a", &apply), attach(&node, "b", &apply));
        both_ways(&mut a, &mut b);
        assert_counters_agree(&node, 300, &name);
        let status = node.status("a");
        let kind = if name.starts_with("Packed") { "packed" } else { "split" };
        assert_eq!(status.ring.map(backend::stats::RingLayout::name), Some(kind));
    }
}

/// KA-1: every ring feature, through the bridge.
#[test]
fn every_feature_combination_crosses_the_bridge() {
    for (name, apply) in combinations() {
        let node = TestNode::bridge(&["a", "b"]);
        let (mut a, mut b) = (attach(&node, "a", &apply), attach(&node, "b", &apply));
        both_ways(&mut a, &mut b);
        assert_counters_agree(&node, 300, &name);
    }
}

/// KA-8: neither side knows what the other negotiated.
#[test]
fn unlike_guests_understand_each_other() {
    let combinations = combinations();
    for (n, (name, apply)) in combinations.iter().enumerate() {
        let (other_name, other) = &combinations[(n * 7 + 13) % combinations.len()];
        let node = if n % 2 == 0 { TestNode::pair() } else { TestNode::bridge(&["a", "b"]) };
        let (mut a, mut b) = (attach(&node, "a", apply), attach(&node, "b", other));
        both_ways(&mut a, &mut b);
        assert_counters_agree(&node, 300, &format!("{name} with {other_name}"));
    }
}

/// KA-1: mergeable buffers carry frames of any size; ring sizes need not be powers of two in packed rings.
#[test]
fn large_frames_cross_in_mergeable_buffers() {
    let sizes = [60, 1514, 1515, 3000, 4096, 9014, 9018, 16_384, 32_767, 32_768, 65_534, 65_535];
    for (kind, size) in [(RingKind::Packed, 256), (RingKind::Packed, 200), (RingKind::Split, 256)] {
        for wired in [true, false] {
            let node = if wired { TestNode::pair() } else { TestNode::bridge(&["a", "b"]) };
            let jumbo = |config: &mut DeviceConfig| {
                config.rings = kind;
                config.mrg_rxbuf = true;
                config.indirect = true;
                config.queue_size = size;
                config.tx_buffers = Some(16);
                config.tx_buffer = 66_000;
            };
            let (mut a, mut b) = (attach(&node, "a", jumbo), attach(&node, "b", jumbo));
            let (mut there, mut back) = (Numbered::new(B, A), Numbered::new(A, B));
            for shape in [Shape::One, Shape::Chain, Shape::Indirect] {
                let frames: Vec<_> = sizes.iter().map(|&size| there.take(size)).collect();
                exchange_shaped(&mut a.pairs[0], &mut b.pairs[0], &frames, 4, shape);
                let frames: Vec<_> = sizes.iter().map(|&size| back.take(size)).collect();
                exchange_shaped(&mut b.pairs[0], &mut a.pairs[0], &frames, 4, shape);
            }
            assert_counters_agree(&node, 36, &format!("{kind:?} {size}"));
        }
    }
}

/// Ring positions wrap many times in small rings of every kind.
#[test]
fn tiny_rings_wrap_in_every_position() {
    for (kind, size) in [
        (RingKind::Packed, 4),
        (RingKind::Packed, 5),
        (RingKind::Packed, 7),
        (RingKind::Packed, 61),
        (RingKind::Split, 4),
        (RingKind::Split, 8),
    ] {
        let node = TestNode::pair();
        let small = |config: &mut DeviceConfig| {
            config.rings = kind;
            config.queue_size = size;
        };
        let (mut a, mut b) = (attach(&node, "a", small), attach(&node, "b", small));
        let frames = Numbered::new(B, A).burst(500, 100);
        exchange(&mut a.pairs[0], &mut b.pairs[0], &frames, usize::from(size));
    }
}

#[test]
fn a_wire_without_a_peer_drops_as_not_ready() {
    let node = TestNode::pair();
    let mut a = Guest::attach(node.socket("a"));
    a.send(&Numbered::new(B, A).burst(10, 60));
    node.wait_for_drops("a", "not_ready", 10);
    // And as soon as it has one, it delivers.
    let mut b = Guest::attach(node.socket("b"));
    exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(10, 60), 10);
    assert_eq!(node.status("a").rx_packets, 20);
}

#[test]
fn a_wire_whose_other_port_does_not_exist_has_no_destination() {
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b").wired("a", "b").start();
    node.handle().remove_port("b").expect("node").expect("port");
    let mut a = Guest::attach(node.socket("a"));
    a.send(&Numbered::new(B, A).burst(3, 60));
    node.wait_for_drops("a", "no_destination", 3);
}

/// A receiver that stands still costs its own packets, counted at it, and its wired sender is not stopped for good.
#[test]
fn a_wired_receiver_without_buffers_loses_packets() {
    let node = TestNode::pair();
    let mut a = Guest::attach(node.socket("a"));
    let mut b = attach(&node, "b", |config| config.queue_size = 16);
    a.send(&Numbered::new(B, A).burst(100, 60));
    node.wait_for_drops("b", "no_buffers", 84);
    until("all come back", || (a.pairs[0].in_flight() == 0).then_some(()));
    assert_eq!(b.receive(16).len(), 16);
    exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(16, 60), 16);
    let (a, b) = (node.status("a"), node.status("b"));
    assert_eq!((a.rx_packets, b.tx_packets), (116, 32));
}

#[test]
fn a_bridged_receiver_without_buffers_loses_packets() {
    let node = TestNode::bridge(&["a", "b"]);
    let mut a = Guest::attach(node.socket("a"));
    let mut b = attach(&node, "b", |config| config.queue_size = 16);
    a.send(&Numbered::new(B, A).burst(100, 60));
    node.wait_for_drops("b", "no_buffers", 84);
    assert_eq!(b.receive(16).len(), 16);
}

#[test]
fn frames_that_fit_no_buffer_are_too_big() {
    for wired in [true, false] {
        let node = if wired { TestNode::pair() } else { TestNode::bridge(&["a", "b"]) };
        let mut a = attach(&node, "a", |config| config.tx_buffer = 10_000);
        let mut b = attach(&node, "b", |_| {});
        let mut numbers = Numbered::new(B, A);
        a.send(&[numbers.take(9000), numbers.take(60), numbers.take(9000), numbers.take(61)]);
        assert_eq!(b.receive(2), [frame(B, A, 60, 1), frame(B, A, 61, 3)]);
        node.wait_for_drops("b", "too_big", 2);
        assert_eq!(node.status("a").rx_packets, 4);
    }
}

/// A frame of more than the 16 bits of an IPv4 length, which only a strange guest sends: with the same result wherever
/// it is delivered.
#[test]
fn oversize_frames_are_too_big_across_workers() {
    for wired in [true, false] {
        let spec = NodeSpec::new().port_on("a", 0).port_on("b", 1);
        let node = if wired { spec.wired("a", "b") } else { spec }.start();
        let mut a = attach(&node, "a", |config| {
            config.tx_buffers = Some(4);
            config.tx_buffer = 200_000;
        });
        let mut b = attach(&node, "b", |_| {});
        let mut numbers = Numbered::new(B, A);
        a.send(&[numbers.take(150_000), numbers.take(60)]);
        assert_eq!(b.receive(1), [frame(B, A, 60, 1)]);
        let dropped = |cause| node.drops("a", cause) + node.drops("b", cause);
        assert_eq!((dropped("too_big"), dropped("handover_full")), (1, 0), "wired {wired}");
    }
}

/// Runts are a matter for the bridge; a wire carries anything.
#[test]
fn the_bridge_drops_runts_and_a_wire_does_not() {
    let runt = vec![1, 2, 3];
    let node = TestNode::pair();
    let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    exchange(&mut a.pairs[0], &mut b.pairs[0], &[runt.clone(), Vec::new()], 2);
    let node = TestNode::bridge(&["a", "b"]);
    let (mut a, _b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    a.send(&[runt, Vec::new()]);
    node.wait_for_drops("a", "runt", 2);
}

/// A guest may send the moment it is attached: nothing is lost because some worker has not heard of it yet.
#[test]
fn nothing_is_lost_right_after_attaching() {
    for workers in [1, 2] {
        let spec = NodeSpec::new().workers(workers, PollMode::Adaptive).port_on("a", 0).port_on("b", workers - 1);
        let node = spec.wired("a", "b").start();
        for _ in 0..20 {
            let mut a = Guest::attach(node.socket("a"));
            let mut b = Guest::attach(node.socket("b"));
            exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(BROADCAST, A).burst(5, 60), 5);
            drop((a, b));
            node.wait_for("a", backend::stats::PortState::Listening);
            node.wait_for("b", backend::stats::PortState::Listening);
        }
    }
}
