// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packed against split: the same operations have the same observable result.

use proptest::prelude::*;
use virtqueue::{Completion, Forwarded, QueueFeatures, RingBase, RingKind, RxQueue, TxQueue, forward, full_fence};

use crate::ends::{Receiver, Sender, Shape};
use crate::model::all_features;

#[derive(Clone, Debug)]
enum Operation {
    Send(u8),
    Receive,
    Forward(u8),
    Publish,
    Kicks(bool),
    Calls(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..20_u8).prop_map(Operation::Send),
        2 => Just(Operation::Receive),
        3 => (0..70_u8).prop_map(Operation::Forward),
        2 => Just(Operation::Publish),
        1 => any::<bool>().prop_map(Operation::Kicks),
        1 => any::<bool>().prop_map(Operation::Calls),
    ]
}

/// Everything a user of the rings can see.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    forwarded: Vec<Forwarded>,
    kicks: Vec<bool>,
    calls: Vec<bool>,
    waiting: Vec<bool>,
    free: Vec<u16>,
    log: Vec<Completion>,
    received: u64,
}

fn run(features: QueueFeatures, size: u16, operations: &[Operation]) -> Seen {
    let shape = Shape::of(size);
    let base = RingBase::initial(features.kind);
    let mut sender = Sender::new(shape, shape.setup(features, base));
    let mut receiver = Receiver::new(shape, shape.setup(features, base));
    let mut tx = TxQueue::new(sender.setup.config, sender.setup.memory.map(), None).unwrap();
    let mut rx = RxQueue::new(receiver.setup.config, receiver.setup.memory.map(), None).unwrap();
    let mut seen = Seen::default();
    for operation in operations {
        match *operation {
            Operation::Send(count) => {
                sender.work(sender.next + u64::from(count));
                full_fence();
                seen.kicks.push(sender.queue.should_kick());
            }
            Operation::Receive => {
                receiver.work();
                full_fence();
                seen.kicks.push(receiver.queue.should_kick());
            }
            Operation::Forward(max) => seen.forwarded.push(forward(&mut tx, &mut rx, usize::from(max)).unwrap()),
            Operation::Publish => {
                rx.publish();
                tx.publish();
                full_fence();
                seen.calls.extend([rx.should_notify(), tx.should_notify()]);
            }
            Operation::Kicks(enabled) => seen.waiting.extend([tx.set_kicks(enabled), rx.set_kicks(enabled)]),
            Operation::Calls(enabled) => {
                seen.waiting.extend([sender.queue.set_calls(enabled), receiver.queue.set_calls(enabled)]);
            }
        }
        seen.free.extend([sender.queue.free(), receiver.queue.free()]);
    }
    seen.received = receiver.next;
    seen.log = std::mem::take(&mut receiver.log);
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packed_agrees_with_split(
        features in 0..32_usize,
        size in 0..9_u32,
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let with = |kind| {
            let features = all_features(kind).nth(features).unwrap();
            // Where one position is a chain in one format and a descriptor in the other, when to
            // notify differs; that is checked against the model.
            run(QueueFeatures { event_idx: false, ..features }, 1 << size, &operations)
        };
        let (split, packed) = (with(RingKind::Split), with(RingKind::Packed));
        prop_assert_eq!(split, packed);
    }
}
