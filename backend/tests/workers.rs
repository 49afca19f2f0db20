// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several workers: queues in their places, packets between them, every poll mode, sleep and waking.

mod support;

use std::time::{Duration, Instant};

use backend::config::{Name, PollMode};
use cnf::DeviceConfig;
use support::{
    Guest, NodeSpec, Numbered, Shape, TestNode, alone, exchange, frame, guest_config, number_of, process_cpu, until,
};
use virtqueue::RingKind;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

const MODES: [PollMode; 3] = [PollMode::Adaptive, PollMode::Interrupt, PollMode::Busy];

fn attach(node: &TestNode, name: &str, change: impl Fn(&mut DeviceConfig)) -> Guest {
    let mut config = guest_config(node.socket(name));
    change(&mut config);
    Guest::attach_with(config)
}

fn across_workers(mode: PollMode, wired: bool) -> TestNode {
    let spec = NodeSpec::new().workers(2, mode).port_on("a", 0).port_on("b", 1);
    if wired { spec.wired("a", "b") } else { spec }.start()
}

/// KA-3, KA-5: packets cross from worker to worker in every poll mode, in order, none lost at moderate load.
#[test]
fn packets_cross_workers_in_every_mode() {
    let _alone = alone();
    for mode in MODES {
        for wired in [true, false] {
            let node = across_workers(mode, wired);
            let kinds = [RingKind::Packed, RingKind::Split];
            let mut a = attach(&node, "a", |config| config.rings = kinds[0]);
            let mut b = attach(&node, "b", |config| config.rings = kinds[1]);
            let (mut there, mut back) = (Numbered::new(B, A), Numbered::new(A, B));
            exchange(&mut a.pairs[0], &mut b.pairs[0], &there.burst(1, 60), 1);
            exchange(&mut b.pairs[0], &mut a.pairs[0], &back.burst(1, 60), 1);
            for len in [60, 256, 257, 1514] {
                exchange(&mut a.pairs[0], &mut b.pairs[0], &there.burst(300, len), 128);
                exchange(&mut b.pairs[0], &mut a.pairs[0], &back.burst(300, len), 128);
            }
            until("counters", || (node.status("b").tx_packets == 1201).then_some(()));
            let stats = node.stats();
            let handed: u64 = stats.workers.iter().map(|worker| worker.handed_over).sum();
            assert_eq!(handed, 2402, "{mode} wired {wired}");
            assert!(stats.ports.iter().all(|port| port.drops.is_empty()), "{mode} wired {wired}");
        }
    }
}

/// KA-1: frames of 64 KiB cross workers, in one piece.
#[test]
fn jumbo_frames_cross_workers() {
    let _alone = alone();
    for wired in [true, false] {
        let node = across_workers(PollMode::Adaptive, wired);
        let jumbo = |config: &mut DeviceConfig| {
            config.mrg_rxbuf = true;
            config.tx_buffers = Some(16);
            config.tx_buffer = 66_000;
        };
        let (mut a, mut b) = (attach(&node, "a", jumbo), attach(&node, "b", jumbo));
        let mut numbers = Numbered::new(B, A);
        let frames: Vec<_> = [60, 9000, 65_535, 300, 65_549].iter().map(|&len| numbers.take(len)).collect();
        for _ in 0..30 {
            exchange(&mut a.pairs[0], &mut b.pairs[0], &frames, 4);
        }
    }
}

/// KA-5: four queue pairs over two workers; packets of one queue stay in order, and nothing is lost.
#[test]
fn queue_pairs_are_spread_and_keep_their_order() {
    let _alone = alone();
    for wired in [true, false] {
        let spec = NodeSpec::new().workers(2, PollMode::Adaptive);
        let spec = spec
            .port_with("a", |port| port.guest_mut().expect("vhost-user").queues = 4)
            .port_with("b", |port| port.guest_mut().expect("vhost-user").queues = 4);
        let node = if wired { spec.wired("a", "b") } else { spec }.start();
        let four = |config: &mut DeviceConfig| config.queue_pairs = 4;
        let (mut a, mut b) = (attach(&node, "a", four), attach(&node, "b", four));
        let learn = frame(A, B, 60, 0);
        for pair in &mut b.pairs {
            pair.send(std::slice::from_ref(&learn));
        }
        let mut heard = 0;
        until("the bridge has learned", || {
            heard += a.pairs.iter_mut().map(|pair| pair.poll().len()).sum::<usize>();
            (heard == 4).then_some(())
        });
        const FRAMES: u64 = 1000;
        let mut sent = [0; 4];
        let mut arrived = [const { Vec::new() }; 4];
        until("all frames of all queues", || {
            for (queue, pair) in a.pairs.iter_mut().enumerate() {
                let outstanding = sent[queue] - u64::try_from(arrived[queue].len()).expect("few");
                if sent[queue] < FRAMES && outstanding < 32 {
                    // The queue is in the number, so that the receiver can tell.
                    let number = sent[queue] << 8 | queue as u64;
                    sent[queue] += pair.offer(&[frame(B, A, 100, number)], Shape::One) as u64;
                }
            }
            for frame in b.pairs.iter_mut().flat_map(|pair| pair.poll()) {
                let number = number_of(&frame);
                assert!(frame == support::frame(B, A, 100, number));
                arrived[(number & 0xff) as usize].push(number >> 8);
            }
            (arrived.iter().all(|queue| queue.len() as u64 == FRAMES)).then_some(())
        });
        for queue in arrived {
            assert!(queue.is_sorted(), "out of order");
        }
        let (a, b) = (node.status("a"), node.status("b"));
        assert_eq!((a.queue_pairs, b.queue_pairs), (4, 4));
        assert!(a.drops.is_empty() && b.drops.is_empty(), "{:?} {:?}", a.drops, b.drops);
        // Each worker keeps to its own receive queues.
        assert_eq!(node.stats().workers.iter().map(|worker| worker.handed_over).sum::<u64>(), 0);
        assert!(node.stats().workers.iter().all(|worker| worker.packets >= 2 * FRAMES));
    }
}

/// What one worker learns, the other knows: frames for a known station are not flooded.
#[test]
fn replicas_of_the_bridge_agree() {
    let _alone = alone();
    let node = NodeSpec::new().port_on("a", 0).port_on("b", 1).port_on("c", 1).start();
    let mut a = Guest::attach(node.socket("a"));
    let mut b = Guest::attach(node.socket("b"));
    let mut c = Guest::attach(node.socket("c"));
    a.send(&[frame(B, A, 60, 0)]);
    assert_eq!((b.receive(1).len(), c.receive(1).len()), (1, 1), "a flood");
    // The news went before the frame or with it; b's worker knows a.
    exchange(&mut b.pairs[0], &mut a.pairs[0], &Numbered::new(A, B).burst(100, 60), 50);
    exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
    assert!(c.poll().is_empty(), "flooded although learned");
}

/// A ring between workers that is full because its consumer stands still: counted, and all goes on afterwards.
#[test]
fn a_full_hand_over_ring_is_counted() {
    let _alone = alone();
    let node = NodeSpec::new().workers(2, PollMode::Interrupt).port_on("a", 0).port_on("b", 1).wired("a", "b").start();
    let big = |config: &mut DeviceConfig| {
        config.queue_size = 1024;
        config.tx_buffer = 66_000;
        config.tx_buffers = Some(256);
        config.mrg_rxbuf = true;
    };
    let (mut a, mut b) = (attach(&node, "a", big), attach(&node, "b", big));
    // 64 frames of 64 KiB are harvested at once, and the ring takes some 32 of them.
    let frames = Numbered::new(B, A).burst(64, 65_000);
    let deadline = Instant::now() + support::PATIENCE;
    let full = || node.drops("a", "handover_full");
    while full() == 0 {
        assert!(Instant::now() < deadline, "the ring was never full");
        a.send(&frames);
        b.poll();
    }
    until("all are sent", || (a.pairs[0].in_flight() == 0).then_some(()));
    until("what was not lost arrives", || {
        b.poll();
        let lost = node.status("a").drops.values().sum::<u64>() + node.status("b").drops.values().sum::<u64>();
        (node.status("a").rx_packets == node.status("b").tx_packets + lost).then_some(())
    });
    while !b.poll().is_empty() {}
    exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(20, 1000), 4);
}

/// Two workers that do not send to each other do not slow each other: a dead receiver on one, traffic on the other.
#[test]
fn a_dead_receiver_harms_nobody_else() {
    let _alone = alone();
    let spec = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b").port("c").port("d");
    let node = spec.wired("a", "b").wired("c", "d").start();
    let mut a = Guest::attach(node.socket("a"));
    // b posts its buffers once and never looks again.
    let _b = attach(&node, "b", |config| config.queue_size = 4);
    let (mut c, mut d) = (Guest::attach(node.socket("c")), Guest::attach(node.socket("d")));
    for _ in 0..20 {
        let flood = Numbered::new(B, A).burst(200, 60);
        a.pairs[0].offer(&flood, Shape::One);
        exchange(&mut c.pairs[0], &mut d.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
    }
    assert!(node.status("d").drops.is_empty());
    assert!(node.drops("b", "no_buffers") > 0);
}

/// KA-3: an idle adaptive node sleeps. Measured as processor time of its threads, so that others on the machine do not
/// matter; guests with attached rings, traffic before.
#[test]
fn an_idle_node_uses_no_processor() {
    let _alone = alone();
    for mode in [PollMode::Adaptive, PollMode::Interrupt] {
        let node = across_workers(mode, false);
        let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
        exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
        until("all are asleep", || {
            let before = node.stats().workers.iter().map(|worker| worker.polls).sum::<u64>();
            std::thread::sleep(Duration::from_millis(5));
            // Asking wakes each worker once or twice.
            let after = node.stats().workers.iter().map(|worker| worker.polls).sum::<u64>();
            (after < before + 1000).then_some(())
        });
        let node_time = || process_cpu(&["worker-", "ports"]);
        let (start, before) = (Instant::now(), node_time());
        std::thread::sleep(Duration::from_millis(700));
        let (used, passed) = (node_time() - before, start.elapsed());
        assert!(used < passed / 100, "{mode}: {used:?} in {passed:?}");
        // And it wakes.
        exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(1, 60), 1);
    }
}

/// KA-3: a sleeping worker is woken by a kick and by what another worker hands over, every time.
#[test]
fn kicks_and_hand_overs_wake_sleepers() {
    let _alone = alone();
    for mode in [PollMode::Adaptive, PollMode::Interrupt] {
        for kind in [RingKind::Packed, RingKind::Split] {
            for event_idx in [false, true] {
                let node = across_workers(mode, true);
                let rings = |config: &mut DeviceConfig| {
                    config.rings = kind;
                    config.event_idx = event_idx;
                };
                let (mut a, mut b) = (attach(&node, "a", rings), attach(&node, "b", rings));
                let mut numbers = Numbered::new(B, A);
                let sleeps = |worker: usize| node.stats().workers[worker].sleeps;
                for round in 0..30 {
                    if round % 3 == 0 {
                        let before = [sleeps(0), sleeps(1)];
                        until("both sleep", || (sleeps(0) > before[0] && sleeps(1) > before[1]).then_some(()));
                    }
                    exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(3, 60), 3);
                }
            }
        }
    }
}

/// A guest that sleeps until it is called is called: for received frames, in every ring format.
#[test]
fn sleeping_guests_are_called() {
    let _alone = alone();
    for kind in [RingKind::Packed, RingKind::Split] {
        for event_idx in [false, true] {
            let node = across_workers(PollMode::Adaptive, true);
            let rings = |config: &mut DeviceConfig| {
                config.rings = kind;
                config.event_idx = event_idx;
            };
            let (mut a, mut b) = (attach(&node, "a", rings), attach(&node, "b", rings));
            let mut numbers = Numbered::new(B, A);
            for _ in 0..50 {
                let queues = &mut b.pairs[0].queues;
                queues.rx_bells.call.take();
                assert!(!queues.rx.set_calls(true), "nothing has come");
                a.send(&numbers.burst(1, 60));
                assert!(b.pairs[0].queues.rx_bells.call.wait(support::PATIENCE), "{kind:?} {event_idx}: no call");
                assert_eq!(b.receive(1).len(), 1);
            }
            let queues = &mut b.pairs[0].queues;
            queues.rx.set_calls(false);
            let notified = node.status("b").notifications;
            exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(200, 60), 50);
            // A split ring with EVENT_IDX has no way to say never: once in 65536.
            assert!(node.status("b").notifications - notified <= 1, "calls that nobody asked for");
        }
    }
}

/// Workers named by a port serve it, and no other.
#[test]
fn ports_stay_on_their_workers() {
    let _alone = alone();
    let spec = NodeSpec::new().workers(3, PollMode::Adaptive);
    let on = |port: &mut backend::config::PortConfig| {
        port.workers = vec![Name::new("w2").expect("name"), Name::new("w0").expect("name")];
        port.guest_mut().expect("vhost-user").queues = 2;
    };
    let node = spec.port_with("a", on).port_with("b", on).wired("a", "b").start();
    let two = |config: &mut DeviceConfig| config.queue_pairs = 2;
    let (mut a, mut b) = (attach(&node, "a", two), attach(&node, "b", two));
    exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
    until("the first pair's worker", || (node.stats().workers[2].packets == 100).then_some(()));
    exchange(&mut a.pairs[1], &mut b.pairs[1], &Numbered::new(B, A).burst(50, 60), 50);
    until("the second pair's worker", || (node.stats().workers[0].packets == 50).then_some(()));
    assert_eq!(node.stats().workers[1].packets, 0);
}
