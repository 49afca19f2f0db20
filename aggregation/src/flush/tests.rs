// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policy, as stories and against a plain model.

use proptest::{collection::vec, prelude::*};

use super::*;

const US: u64 = 1000;

fn held(usecs: u32) -> Queue {
    Queue::new(Knobs { tx_aggr_max_bytes: 9000, tx_aggr_max_frames: 100, tx_aggr_time_usecs: usecs })
}

/// One packet every `gap` nanoseconds, one a turn; how long each frame was held and how many packets it had.
fn steady(queue: &mut Queue, gap: u64, packets: u64) -> Vec<(u64, u32)> {
    let mut frames = Vec::new();
    for i in 1..=packets {
        let now = i * gap;
        // In between the worker asks whenever the deadline has come.
        if let Some(deadline) = queue.deadline().filter(|at| *at <= now)
            && let Some(trigger) = queue.turn(deadline)
        {
            frames.push((deadline - queue.first_at, queue.frames()));
            queue.flushed(trigger, deadline);
        }
        assert_eq!(queue.push(64, false, 64, now), None);
        if let Some(trigger) = queue.turn(now) {
            frames.push((now - queue.first_at, queue.frames()));
            queue.flushed(trigger, now);
        }
    }
    frames
}

#[test]
fn ka_9_by_default_nothing_is_ever_held() {
    let mut queue = Queue::new(Knobs::natural(1000, 100));
    let frames = steady(&mut queue, 10, 1000);
    assert_eq!(frames, [(0, 1); 1000]);
    assert_eq!(queue.stats().triggers[Trigger::Burst.index()], 1000);
    assert_eq!((queue.stats().held.sum(), queue.stats().packets.sum()), (0, 1000));
}

#[test]
fn ka_9_nothing_is_held_if_the_rate_does_not_promise_another_packet() {
    let mut queue = held(20);
    assert!(steady(&mut queue, 21 * US, 1000).iter().all(|frame| *frame == (0, 1)));
}

#[test]
fn a_rate_that_promises_more_is_waited_for_and_no_longer_than_said() {
    let mut queue = held(20);
    let frames = steady(&mut queue, 5 * US, 1000);
    // The first packets teach the gap.
    let (early, late) = frames.split_at(3);
    assert!(late.iter().all(|frame| *frame == (20 * US, 4)), "{late:?}");
    assert!(early.iter().all(|(held, _)| *held <= 20 * US));
}

#[test]
fn packets_that_come_together_promise_nothing_sooner() {
    let mut queue = held(50);
    for i in 1..100 {
        for _ in 0..8 {
            assert_eq!(queue.push(64, false, 64, i * 100 * US), None);
        }
        assert_eq!(queue.turn(i * 100 * US), Some(Trigger::Burst));
        queue.flushed(Trigger::Burst, i * 100 * US);
    }
}

#[test]
fn when_gaps_become_long_packets_go_at_once() {
    let mut queue = held(20);
    steady(&mut queue, US, 1000);
    let now = 10_000 * US;
    if let Some(trigger) = queue.turn(now) {
        queue.flushed(trigger, now);
    }
    assert_eq!(queue.push(64, false, 64, now + 500 * US), None);
    assert_eq!(queue.turn(now + 500 * US), Some(Trigger::Burst));
}

#[test]
fn full_urgent_and_larger() {
    let mut queue = Queue::new(Knobs { tx_aggr_max_bytes: 200, tx_aggr_max_frames: 3, tx_aggr_time_usecs: 50 });
    assert_eq!(queue.before(201), Some(Trigger::Larger));
    assert_eq!(queue.before(200), None);
    assert_eq!(queue.push(64, true, 24, 0), Some(Trigger::Urgent));
    queue.flushed(Trigger::Urgent, 0);
    assert_eq!(queue.push(100, false, 24, 0), None);
    assert_eq!(queue.before(101), Some(Trigger::Bytes));
    assert_eq!(queue.before(100), None);
    assert_eq!(queue.push(80, false, 24, 0), Some(Trigger::Bytes), "not even the shortest fits behind it");
    queue.flushed(Trigger::Bytes, 0);
    assert_eq!(queue.push(20, false, 24, 0), None);
    assert_eq!(queue.push(20, false, 24, 0), None);
    assert_eq!(queue.push(20, false, 24, 0), Some(Trigger::Frames));
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Push { bytes: usize, urgent: bool },
    Turn,
    Wait(u64),
}

/// The same policy, with a list of what waits and of all gaps.
struct Model {
    knobs: Knobs,
    waiting: Vec<(usize, u64)>,
    arrivals: Vec<u64>,
    fresh: bool,
}

impl Model {
    fn bytes(&self) -> usize {
        self.waiting.iter().map(|packet| packet.0).sum()
    }

    fn mean_gap(&self) -> Option<f64> {
        let mut gaps = self.arrivals.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        let first = gaps.next()?;
        Some(gaps.fold(first, |mean, gap| mean + (gap - mean) / 8.0))
    }
}

proptest! {
    /// Rounding makes the queue's mean differ from the model's by less than 8 ns; where that could decide, either answer is right.
    #[test]
    fn it_is_the_policy_of_the_model(
        operations in vec(prop_oneof![
            4 => (20_usize..300, prop::bool::weighted(0.05)).prop_map(|(bytes, urgent)| Operation::Push { bytes, urgent }),
            3 => Just(Operation::Turn),
            3 => (0_u64..30_000).prop_map(Operation::Wait),
        ], 0..200),
        usecs in prop_oneof![Just(0_u32), Just(10), Just(50)],
    ) {
        let knobs = Knobs { tx_aggr_max_bytes: 1000, tx_aggr_max_frames: 8, tx_aggr_time_usecs: usecs };
        let mut queue = Queue::new(knobs);
        let mut model = Model { knobs, waiting: vec![], arrivals: vec![], fresh: false };
        let (mut now, mut sent, mut frames) = (0, 0, 0);
        for operation in operations {
            let answer = match operation {
                Operation::Wait(ns) => { now += ns; continue }
                Operation::Push { bytes, urgent } => {
                    let over = model.bytes() + bytes > knobs.tx_aggr_max_bytes;
                    prop_assert_eq!(queue.before(bytes), over.then_some(Trigger::Bytes));
                    if over {
                        queue.flushed(Trigger::Bytes, now);
                        (sent, frames) = (sent + model.waiting.len() as u64, frames + 1);
                        model.waiting.clear();
                    }
                    model.waiting.push((bytes, now));
                    model.fresh = true;
                    let wanted = if urgent { Some(Trigger::Urgent) }
                        else if model.waiting.len() == 8 { Some(Trigger::Frames) }
                        else if model.bytes() + 24 > 1000 { Some(Trigger::Bytes) }
                        else { None };
                    let answer = queue.push(bytes, urgent, 24, now);
                    prop_assert_eq!(answer, wanted);
                    answer
                }
                Operation::Turn => {
                    if std::mem::take(&mut model.fresh) {
                        model.arrivals.push(now);
                    }
                    let answer = queue.turn(now);
                    if let Some((_, first_at)) = model.waiting.first() {
                        let deadline = (first_at + model.knobs.hold()) as f64;
                        let slack = model.mean_gap().map(|gap| deadline - *model.arrivals.last().unwrap() as f64 - gap);
                        match slack {
                            _ if usecs == 0 => prop_assert_eq!(answer, Some(Trigger::Burst)),
                            _ if now as f64 >= deadline => prop_assert_eq!(answer, Some(Trigger::Age)),
                            Some(slack) if slack > 8.0 => prop_assert_eq!(answer, None),
                            Some(slack) if slack >= -8.0 => {}
                            _ => prop_assert_eq!(answer, Some(Trigger::Burst)),
                        }
                    } else {
                        prop_assert_eq!(answer, None);
                    }
                    answer
                }
            };
            if let Some(trigger) = answer {
                queue.flushed(trigger, now);
                (sent, frames) = (sent + model.waiting.len() as u64, frames + 1);
                model.waiting.clear();
            }
            prop_assert_eq!((queue.frames() as usize, queue.bytes()), (model.waiting.len(), model.bytes()));
        }
        let stats = queue.stats();
        prop_assert_eq!(stats.packets.sum(), sent);
        prop_assert_eq!(stats.triggers.iter().sum::<u64>(), frames);
        prop_assert_eq!((stats.packets.count(), stats.held.count()), (frames, frames));
    }
}
