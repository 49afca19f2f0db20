// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What sends a frame, and what the settings of a port do.

use std::collections::BTreeMap;
use std::time::Instant;

use aggregation::negotiation::Message;
use backend::config::{Aggregation, PollMode, PortConfig, PortKind};
use backend::stats::{AggregationStatus, Bucket, PortState};

use crate::stage::{Kind, MACS, Spec};
use crate::support::{BROADCAST, Guest, NodeSpec, Speaker, TestNode, aggregates, control, frame, until};

fn flushes(status: &AggregationStatus) -> Vec<(&str, u64)> {
    status.flushes.iter().map(|(trigger, n)| (trigger.as_str(), *n)).collect()
}

/// A plain guest at "a", and one that takes aggregates at "b", whose port has these settings.
fn pair(poll: PollMode, change: impl FnOnce(&mut Aggregation)) -> (TestNode, Guest, Speaker) {
    let with = |port: &mut PortConfig| change(&mut port.aggregation);
    let node = NodeSpec::new().workers(1, poll).port("a").port_with("b", with).start();
    let mut b = Speaker::attach(node.socket("b"), 7, 77);
    b.agree();
    until("the node may send", || node.status("b").aggregation.peers.contains_key("up").then_some(()));
    let mut a = Guest::attach(node.socket("a"));
    b.guest.send(&[frame(BROADCAST, MACS[1], 60, 1)]);
    assert_eq!(a.receive(1).len(), 1);
    (node, a, b)
}

fn packets(count: u32, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| Spec { kind: Kind::Udp, to: 1, flow: 1, len }.packet(number)).collect()
}

#[track_caller]
fn receive(b: &mut Speaker, sent: &[Vec<u8>]) {
    let mut got = Vec::new();
    until("the packets arrive", || {
        got.extend(b.poll());
        (got.len() >= sent.len()).then_some(())
    });
    assert_eq!(got, sent);
}

/// Decision 27: an aggregate is no longer, and holds no more packets, than the port's settings say.
#[test]
fn frames_are_as_large_as_the_port_allows() {
    let (node, mut a, mut b) = pair(PollMode::Adaptive, |port| port.max_frames = Some(3));
    let sent = packets(30, 60);
    a.send(&sent);
    receive(&mut b, &sent);
    let status = node.status("b").aggregation;
    assert!(status.packets_per_frame.buckets.iter().all(|bucket| bucket.le.is_some_and(|le| le <= 3)), "{status:?}");
    assert_eq!(status.packets_per_frame.sum, 30);
    assert!(status.flushes.get("frames").is_some_and(|n| *n >= 1), "{status:?}");

    let (node, mut a, mut b) = pair(PollMode::Adaptive, |port| port.max_bytes = Some(300));
    // What no frame holds goes plain, after what waits: all in order.
    let mut sent = packets(30, 60);
    sent.extend(packets(1, 400));
    sent.extend(packets(20, 60));
    a.send(&sent);
    receive(&mut b, &sent);
    let status = node.status("b").aggregation;
    // Four packets of 64 bytes, two headers of 20 together.
    assert!(status.packets_per_frame.buckets.iter().all(|bucket| bucket.le.is_some_and(|le| le <= 7)), "{status:?}");
    assert_eq!(status.packets_per_frame.sum, 50, "the long one is in none");
    assert!(status.flushes.get("bytes").is_some_and(|n| *n >= 1), "{status:?}");
    assert_eq!(node.status("b").tx_packets, 51);
}

/// Nothing waits by default: a packet alone goes as it is, at once, and was not held.
#[test]
fn a_packet_alone_goes_at_once() {
    let (node, mut a, mut b) = pair(PollMode::Adaptive, |_| {});
    for number in 0..20 {
        let sent = packets(number + 1, 60).split_off(number as usize);
        a.send(&sent);
        receive(&mut b, &sent);
    }
    let status = node.status("b").aggregation;
    assert_eq!((flushes(&status), status.packets_per_frame.sum), (vec![("burst", 20)], 20));
    assert_eq!((status.held_ns.count, status.held_ns.sum), (20, 0));
    assert_eq!((status.tx_aggregates, b.aggregates), (0, 0));
}

/// With a time, packets that come one by one are held for others, but for no longer, whether the worker polls or sleeps.
#[test]
fn packets_are_held_for_as_long_as_the_port_says() {
    for poll in [PollMode::Busy, PollMode::Adaptive, PollMode::Interrupt] {
        const HELD_USECS: u32 = 50_000;
        let (node, mut a, mut b) = pair(poll, |port| port.time_usecs = HELD_USECS);
        // Closer together than the time, but not at once: so the next is expected.
        let sent = packets(200, 60);
        let mut got = Vec::new();
        for packet in &sent {
            let before = node.status("a").rx_packets;
            a.send(std::slice::from_ref(packet));
            until("the node has it", || (node.status("a").rx_packets > before).then_some(()));
            got.extend(b.poll());
        }
        // The last are sent when their time has come, though nothing else happens.
        let since = Instant::now();
        until("the last have come", || {
            got.extend(b.poll());
            (got.len() == sent.len()).then_some(())
        });
        assert_eq!(got, sent, "{poll}");
        let status = node.status("b").aggregation;
        assert_eq!(status.packets_per_frame.sum, 200);
        assert!(status.packets_per_frame.count < 150, "{poll}: {status:?}");
        assert!(status.flushes.get("age").is_some_and(|n| *n >= 1), "{poll}: {status:?}, waited {:?}", since.elapsed());
        assert!(status.held_ns.sum > 0, "{poll}: {status:?}");
    }
}

/// A worker that sleeps wakes when the time of what it holds has come, not when it would have woken anyhow.
#[test]
fn a_sleeping_worker_wakes_for_what_it_holds() {
    const HELD_USECS: u32 = 20_000;
    for poll in [PollMode::Adaptive, PollMode::Interrupt] {
        let (node, mut a, mut b) = pair(poll, |port| port.time_usecs = HELD_USECS);
        for number in 0..30 {
            let sent = packets(number + 1, 60).split_off(number as usize);
            a.send(&sent);
            receive(&mut b, &sent);
        }
        let held = node.status("b").aggregation.held_ns;
        // The first few teach the node that others follow.
        let long = |bucket: &&Bucket| bucket.le.is_none_or(|le| le > 1000 * u64::from(HELD_USECS));
        let waited: u64 = held.buckets.iter().filter(long).map(|bucket| bucket.count).sum();
        assert!(waited >= 20, "{poll}: {held:?}");
        // Up to 34 ms, in most cases: it would look after its links ten times a second.
        let late = |bucket: &&Bucket| bucket.le.is_none_or(|le| le > 1 << 25);
        let late: u64 = held.buckets.iter().filter(late).map(|bucket| bucket.count).sum();
        assert!(late < waited / 2, "{poll}: {held:?}");
    }
}

/// The same of runs, which go from frame to frame together.
#[test]
fn urgent_runs_do_not_wait() {
    let (node, a, mut b) = pair(PollMode::Adaptive, |port| port.time_usecs = Aggregation::MAX_TIME_USECS);
    drop(a);
    node.wait_for("a", PortState::Listening);
    let mut a = Speaker::attach(node.socket("a"), 8, 88);
    a.agree();
    for round in 0..20 {
        let mut sent = packets(20, 60);
        sent.iter_mut().skip(10).for_each(|packet| packet[15] = 0xe0);
        a.guest.send(&aggregates(&sent, 4000, false));
        receive(&mut b, &sent);
        let status = node.status("b").aggregation;
        assert_eq!(status.flushes.get("urgent"), Some(&(round + 1)), "{status:?}");
        assert_eq!(status.packets_per_frame.sum, 20 * (round + 1), "{status:?}");
    }
}

/// What opens or ends a connection, or is of class 6 or 7, takes along what is held before it.
#[test]
fn urgent_packets_do_not_wait() {
    // So long that nothing but urgency sends anything.
    let (node, mut a, mut b) = pair(PollMode::Adaptive, |port| port.time_usecs = Aggregation::MAX_TIME_USECS);
    let mut urgent = 0;
    let mut held = 0;
    while urgent < 20 {
        let calm = packets(5, 60);
        let mut hasty = packets(1, 60).remove(0);
        if urgent % 2 == 0 {
            hasty[15] = 0xc0;
        } else {
            hasty = Spec { kind: Kind::Tcp, to: 1, flow: 1, len: 60 }.packet(1);
            hasty[47] = 0x11;
        }
        let sent = [calm, vec![hasty]].concat();
        let before = node.status("b").aggregation.flushes.get("urgent").copied().unwrap_or(0);
        a.send(&sent);
        receive(&mut b, &sent);
        let status = node.status("b").aggregation;
        assert_eq!(status.flushes.get("urgent").copied().unwrap_or(0), before + 1, "{status:?}");
        urgent += 1;
        held += sent.len() as u64;
    }
    let status = node.status("b").aggregation;
    assert_eq!(status.packets_per_frame.sum, held);
    assert_eq!(status.flushes.get("age"), None, "{status:?}");
}

/// Decision 26: at a port that does not aggregate, who speaks of it is not answered, and dropped and counted; other packets pass.
#[test]
fn a_port_that_does_not_aggregate_answers_nobody() {
    let with = |port: &mut PortConfig| port.aggregation.aggregate = false;
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).port_with("a", with).port("b").start();
    let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    let sent = frame(BROADCAST, MACS[0], 60, 1);
    let mut all = vec![control(Message::Hello, |_| {}); 10];
    all.extend(aggregates(&packets(10, 60), 1500, false));
    all.push(sent.clone());
    a.send(&all);
    assert_eq!(b.receive(1), [sent]);
    assert_eq!(a.poll(), Vec::<Vec<u8>>::new());
    let status = node.status("a");
    assert_eq!(status.drops, BTreeMap::from([("aggregate".to_owned(), 11)]));
    assert_eq!((status.aggregation, status.tx_packets, status.rx_packets), (AggregationStatus::default(), 0, 12));
    // The default of a guest's port is another.
    assert!(Aggregation::of(PortKind::VhostUser).aggregate);
}
