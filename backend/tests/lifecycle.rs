// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol on a live device: memory, rings and doorbells change while traffic runs.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use backend::config::PollMode;
use backend::stats::PortState;
use support::{
    BROADCAST, Guest, Layout, NodeSpec, Numbered, RawDevice, SIZE, Shape, TestNode, alone, eventfd, exchange, fired,
    frame, guest_config, until,
};
use vhost_user::{Event, Order, Request};
use virtqueue::RingKind;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const RINGS: [RingKind; 2] = [RingKind::Packed, RingKind::Split];
const LAYOUTS: [Layout; 2] = [Layout::Packed, Layout::Split];

fn guests(node: &TestNode, kind: RingKind) -> (Guest, Guest) {
    let attach = |name| {
        let mut config = guest_config(node.socket(name));
        config.rings = kind;
        Guest::attach_with(config)
    };
    (attach("a"), attach("b"))
}

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}

/// Disabled rings lose what is sent; nothing is repeated when they are enabled again.
#[test]
fn rings_are_disabled_and_enabled_under_traffic() {
    let _alone = alone();
    for kind in RINGS {
        let node = TestNode::pair();
        let (mut a, mut b) = guests(&node, kind);
        let mut numbers = Numbered::new(B, A);
        for round in 1..=10 {
            exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(50, 60), 50);
            a.device().set_enabled(0, false).expect("disable");
            a.send(&numbers.burst(20, 60));
            node.wait_for_drops("a", "not_ready", 40 * round - 20);
            a.device().set_enabled(0, true).expect("enable");
            b.device().set_enabled(0, false).expect("disable");
            assert_eq!(node.status("b").state, PortState::Connected);
            a.send(&numbers.burst(20, 60));
            node.wait_for_drops("a", "not_ready", 40 * round);
            b.device().set_enabled(0, true).expect("enable");
            assert_eq!(node.status("b").state, PortState::Up);
        }
        assert_eq!(node.status("b").tx_packets, 500);
    }
}

/// GET_VRING_BASE in the middle of traffic, and a restart where it stopped: every frame arrives once.
#[test]
fn rings_stop_and_go_on_at_their_base() {
    let _alone = alone();
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        let mut expected = 0;
        for round in 0..50_u64 {
            // A burst is under way when the rings stop; what was not taken then is taken after the restart.
            let count = 1 + round % 7;
            for number in 0..count {
                let bytes = frame(BROADCAST, A, 60, round * 100 + number);
                let buffer = RawDevice::buffer(8 + number);
                device.memory.write(buffer, &[[0; 12].as_slice(), &bytes].concat()).expect("memory");
                device.post(1, buffer, 72);
            }
            expected += count;
            for ring in [1, 0] {
                let base = device.stop(ring);
                match layout {
                    Layout::Packed => assert_eq!(base & 0xffff, base >> 16, "both halves say the same"),
                    Layout::Split => assert_eq!(base >> 16, 0),
                }
                device.describe(ring, base);
            }
            let numbers: Vec<u64> =
                b.receive(count.try_into().expect("few")).iter().map(|f| support::number_of(f)).collect();
            assert_eq!(numbers, (round * 100..round * 100 + count).collect::<Vec<_>>());
        }
        until("all counted", || (node.status("a").rx_packets == expected).then_some(()));
        assert!(u64::from(SIZE) * 4 < expected, "the ring went round");
        device.receives(&mut b, 3);
    }
}

/// A stopped ring is not touched any more: frames for it are lost, frames in it stay.
#[test]
fn a_stopped_ring_is_left_alone() {
    let _alone = alone();
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        device.works(&mut b, 1);
        let bases = [device.stop(0), device.stop(1)];
        // Told twice, it says the same.
        assert_eq!(bases, [device.stop(0), device.stop(1)]);
        let table = |device: &RawDevice| {
            let mut bytes = vec![0; 0x8000];
            device.memory.read(RawDevice::table(0), &mut bytes).expect("memory");
            bytes
        };
        device.post(0, RawDevice::buffer(2), 2048);
        device.post(1, RawDevice::buffer(1), 72);
        let before = table(&device);
        b.send(&Numbered::new(A, B).burst(5, 60));
        node.wait_for_drops("b", "not_ready", 5);
        assert!(table(&device) == before, "a stopped ring was written");
        device.describe(0, bases[0]);
        device.describe(1, bases[1]);
        assert_eq!(b.receive(1), [frame(BROADCAST, A, 60, 1)], "what was in the ring");
        b.send(&[frame(A, B, 60, 9)]);
        until("the buffer is used", || (device.used(0) == 2).then_some(()));
    }
}

#[test]
fn a_reset_device_starts_anew() {
    let _alone = alone();
    for layout in LAYOUTS {
        let node = TestNode::pair();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        for number in 0..5 {
            device.works(&mut b, number);
            assert_eq!(device.raw.value(Request::ResetDevice), 0);
            assert_eq!(node.status("a").state, PortState::Connected);
            let bits = RawDevice::features(layout) | vhost_user::features::VHOST_USER_F_PROTOCOL_FEATURES;
            assert_eq!(device.raw.value(Request::SetFeatures(bits)), 0);
            device.set_up(0);
            device.set_up(1);
            assert_eq!(node.status("a").state, PortState::Up);
        }
        // The same by the device status, after which rings are described anew.
        assert_eq!(device.raw.value(Request::SetStatus(15)), 0);
        assert_eq!(device.raw.value(Request::GetStatus), 15);
        assert_eq!(device.raw.value(Request::SetStatus(0)), 0);
        assert_eq!(device.raw.value(Request::GetStatus), 0);
        device.set_up(0);
        device.set_up(1);
        device.works(&mut b, 9);
    }
}

/// Doorbells are replaced while the ring runs: kicks on the new one wake, calls arrive at the new one; without them the
/// ring is polled, and the guest is not called.
#[test]
fn doorbells_are_replaced_live() {
    let _alone = alone();
    for mode in [PollMode::Interrupt, PollMode::Adaptive] {
        for layout in LAYOUTS {
            let node = NodeSpec::new().workers(1, mode).port("a").port("b").wired("a", "b").start();
            let mut b = Guest::attach(node.socket("b"));
            let mut device = RawDevice::attach(&node.socket("a"), layout);
            device.works(&mut b, 1);
            for round in 0..5 {
                device.kicks[1] = eventfd();
                device.calls[0] = eventfd();
                let (kick, call) = (copy(&device.kicks[1]), copy(&device.calls[0]));
                assert_eq!(device.raw.value(Request::SetVringKick { vring: 1, fd: Some(kick) }), 0);
                assert_eq!(device.raw.value(Request::SetVringCall { vring: 0, fd: Some(call) }), 0);
                assert!(fired(&device.calls[0]), "a late eventfd is told of what it missed");
                device.works(&mut b, 2 + round);
                assert!(fired(&device.calls[0]));
            }
            // No descriptors at all: the node polls, and does not call.
            assert_eq!(device.raw.value(Request::SetVringKick { vring: 1, fd: None }), 0);
            assert_eq!(device.raw.value(Request::SetVringCall { vring: 0, fd: None }), 0);
            device.kicks[1] = eventfd();
            device.works(&mut b, 20);
            // And with them once more.
            let (kick, call) = (copy(&device.kicks[1]), copy(&device.calls[0]));
            assert_eq!(device.raw.value(Request::SetVringCall { vring: 0, fd: Some(call) }), 0);
            assert_eq!(device.raw.value(Request::SetVringKick { vring: 1, fd: Some(kick) }), 0);
            assert!(fired(&device.calls[0]));
            device.works(&mut b, 21);
            assert!(fired(&device.calls[0]));
        }
    }
}

/// A base that comes after the kick restarts the ring with the doorbell it has: it is not polled from then on.
#[test]
fn a_late_base_keeps_the_doorbell() {
    let _alone = alone();
    for layout in LAYOUTS {
        let node = NodeSpec::new().workers(1, PollMode::Interrupt).port("a").port("b").wired("a", "b").start();
        let mut b = Guest::attach(node.socket("b"));
        let mut device = RawDevice::attach(&node.socket("a"), layout);
        device.stop(1);
        device.clear(1);
        assert_eq!(device.raw.value(Request::ResetDevice), 0);
        let bits = RawDevice::features(layout) | vhost_user::features::VHOST_USER_F_PROTOCOL_FEATURES;
        assert_eq!(device.raw.value(Request::SetFeatures(bits)), 0);
        let (vring, addresses) = (1, RawDevice::addresses(1));
        let base = if layout == Layout::Packed { 0x8000_8000 } else { 0 };
        for request in [
            Request::SetVringEnable { vring, enable: 1 },
            Request::SetVringNum { vring, num: u32::from(SIZE) },
            Request::SetVringAddr { vring, flags: 0, addresses, log: 0 },
            Request::SetVringKick { vring: 1, fd: Some(copy(&device.kicks[1])) },
            Request::SetVringBase { vring, base },
        ] {
            assert_eq!(device.raw.value(request), 0);
        }
        device.sends(&mut b, 1);
        let sleeps = || node.stats().workers[0].sleeps;
        let before = sleeps();
        thread::sleep(std::time::Duration::from_millis(100));
        assert!(sleeps() - before < 20, "the ring is polled");
        device.sends(&mut b, 2);
    }
}

/// SEND_RARP is broadcast once to every other port, and the bridge knows the station from then on.
#[test]
fn a_rarp_is_broadcast_once() {
    let _alone = alone();
    for workers in [1, 2] {
        let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
        let node = spec.port_on("a", 0).port_on("b", 0).port_on("c", workers - 1).start();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| Guest::attach(node.socket(name)));
        let moved = [2, 0, 0, 0, 7, 7];
        let done = a.device().operate(|frontend| frontend.send_rarp(moved)).expect("rarp");
        assert!(matches!(done, Event::Done), "{done:?}");
        for guest in [&mut b, &mut c] {
            let [rarp] = &guest.receive(1)[..] else { panic!("one frame") };
            assert_eq!((&rarp[..6], &rarp[6..12], &rarp[12..14]), (&BROADCAST[..], &moved[..], &[0x80, 0x35][..]));
            assert_eq!(rarp.len(), 60);
        }
        b.send(&[frame(moved, B, 60, 1)]);
        assert_eq!(a.receive(1), [frame(moved, B, 60, 1)]);
        // Alone once more: nothing else arrives anywhere.
        c.send(&[frame(BROADCAST, [2, 0, 0, 0, 0, 0xc], 60, 2)]);
        assert_eq!((a.receive(1).len(), b.receive(1).len()), (1, 1));
        assert!(c.poll().is_empty());
    }
}

#[test]
fn mtu_configuration_and_status_are_served() {
    let _alone = alone();
    let node = TestNode::pair();
    let mut a = Guest::attach(node.socket("a"));
    assert!(matches!(a.device().operate(|frontend| frontend.set_mtu(9000)), Ok(Event::Done)));
    a.device().operate(|frontend| frontend.set_mtu(67)).expect_err("below virtio's minimum");
    assert_eq!(node.errors("a", "mtu"), 1);
    let Ok(Event::Config(Some(config))) = a.device().operate(|frontend| frontend.get_config(6, 6)) else {
        panic!("no configuration")
    };
    // Link up, one pair, the MTU that was set.
    assert_eq!(config.bytes, [1, 0, 1, 0, 0x28, 0x23]);
    assert!(matches!(a.device().operate(vhost_user::Frontend::get_status), Ok(Event::Status(15))));
    assert_eq!(node.status("a").state, PortState::Up, "refusals cost nothing");
}

/// KA-5: the most queue pairs there can be, on one port, over several workers.
#[test]
fn a_port_has_up_to_128_queue_pairs() {
    let _alone = alone();
    let spec = NodeSpec::new().workers(3, PollMode::Adaptive);
    let node = spec
        .port_with("a", |port| port.guest_mut().expect("vhost-user").queues = 128)
        .port_with("b", |port| port.guest_mut().expect("vhost-user").queues = 128)
        .start();
    let many = |name| {
        let mut config = guest_config(node.socket(name));
        config.queue_pairs = 127;
        config.queue_size = 8;
        Guest::attach_with(config)
    };
    let (mut a, mut b) = (many("a"), many("b"));
    assert_eq!(a.device().negotiated().max_pairs, Some(128));
    assert_eq!((node.status("a").queue_pairs, node.status("b").queue_pairs), (127, 127));
    for pair in &mut a.pairs {
        assert_eq!(pair.offer(&[frame(BROADCAST, A, 60, 1)], Shape::One), 1);
    }
    let mut arrived = 0;
    until("a frame from each", || {
        arrived += b.pairs.iter_mut().map(|pair| pair.poll().len()).sum::<usize>();
        (arrived == 127).then_some(())
    });
    assert!(node.status("a").drops.is_empty() && node.status("b").drops.is_empty());
    drop(a);
    node.wait_for("a", PortState::Listening);
    // The last pair, by hand.
    let mut last = RawDevice::attach_pair(&node.socket("a"), Layout::Packed, 127);
    let sent = frame(BROADCAST, A, 60, 2);
    last.memory.write(RawDevice::buffer(1), &[[0; 12].as_slice(), &sent].concat()).expect("memory");
    last.post(1, RawDevice::buffer(1), 72);
    until("it arrives", || b.pairs.iter_mut().any(|pair| pair.poll() == [sent.clone()]).then_some(()));
    drop(last);
    // And one beyond it.
    node.wait_for("a", PortState::Listening);
    let raw = support::Raw::connect(&node.socket("a"));
    raw.tell(Request::SetVringEnable { vring: 256, enable: 1 });
    assert!(raw.is_closed());
    node.wait_for_errors("a", "vring_index", 1);
}

/// Rings are started in either of the orders that front ends use.
#[test]
fn both_message_orders_start_a_device() {
    let _alone = alone();
    for kind in RINGS {
        for order in [Order::Qemu, Order::VirtioUser] {
            let node = TestNode::pair();
            let attach = |name| {
                let mut config = guest_config(node.socket(name));
                (config.rings, config.order) = (kind, order);
                Guest::attach_with(config)
            };
            let (mut a, mut b) = (attach("a"), attach("b"));
            exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
            assert_eq!(a.device().stop().expect("stop").len(), 2);
            assert_eq!(node.status("a").state, PortState::Connected);
        }
    }
}
