// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device against driver across two threads, for every combination of features and sizes that
//! wrap. Both sides sleep whenever they find nothing to do, so a notification that is not sent is
//! a test that does not end in time.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use virtqueue::{Delivered, QueueFeatures, RingKind, RxQueue, Tail, TxQueue, forward, full_fence};

use crate::ends::{Receiver, Sender, Shape};
use crate::model::{all_features, bases, sizes};

/// Stands for an eventfd.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    fn wait(&self, who: &str) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, timeout) = self.heard.wait_timeout_while(rung, Duration::from_secs(60), |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "{who} was never woken");
        *rung = false;
    }
}

#[derive(Debug, Default)]
struct Bells {
    driver: Bell,
    device: Bell,
}

/// The driver's thread: sends `frames` frames and receives them.
fn drive(sender: &mut Sender, receiver: &mut Receiver, frames: u64, bells: &Bells) {
    while receiver.next < frames || !sender.all_back() {
        let mut worked = receiver.work();
        worked |= sender.work(frames);
        full_fence();
        // Not short-circuit: both must be asked.
        if sender.queue.should_kick() | receiver.queue.should_kick() {
            bells.device.ring();
        }
        if worked || receiver.next == frames && sender.all_back() {
            continue;
        }
        let waiting = sender.queue.set_calls(true) | receiver.queue.set_calls(true);
        if !waiting {
            bells.driver.wait("the driver");
        }
        sender.queue.set_calls(false);
        receiver.queue.set_calls(false);
    }
}

/// The device's thread: carries frames over until `frames` of them went by.
fn serve(tx: &mut TxQueue, rx: &mut RxQueue, frames: u64, bells: &Bells, cross_connect: bool) {
    let mut carried = 0;
    while carried < frames {
        let (now, no_buffers) = if cross_connect {
            let result = forward(tx, rx, 64).unwrap();
            assert_eq!(result.too_big, 0);
            (u64::from(result.frames), result.no_buffers)
        } else {
            deliver(tx, rx)
        };
        carried += now;
        rx.publish();
        tx.publish();
        full_fence();
        if tx.should_notify() | rx.should_notify() {
            bells.driver.ring();
        }
        if now > 0 {
            continue;
        }
        let waiting = if no_buffers { rx.set_kicks(true) } else { tx.set_kicks(true) };
        if !waiting {
            bells.device.wait("the device");
        }
        if no_buffers {
            rx.set_kicks(false)
        } else {
            tx.set_kicks(false)
        };
    }
}

/// As the bridge does it: the head is copied into private memory, the rest goes from guest to guest.
fn deliver(tx: &mut TxQueue, rx: &mut RxQueue) -> (u64, bool) {
    let held = tx.harvest(64).unwrap();
    let mut head = [0; 256];
    let mut done = 0;
    let mut no_buffers = false;
    rx.prefetch(held).unwrap();
    for i in 0..held {
        let count = tx.read(i, 0, &mut head);
        let tail = Tail::Frame { queue: tx, index: i, offset: 256 };
        match rx.deliver(&tx.net_header(i), &head[..count], tail).unwrap() {
            Delivered::Ok => done += 1,
            Delivered::NoBuffers => {
                no_buffers = true;
                break;
            }
            Delivered::TooBig => panic!("a frame of {} bytes is too big", tx.frame_len(i)),
        }
    }
    tx.release(done);
    (done as u64, no_buffers)
}

fn run(features: QueueFeatures, size: u16, base: usize, frames: u64) {
    let shape = Shape::of(size);
    let bases = bases(features.kind, size);
    let base = bases[base % bases.len()];
    let mut sender = Sender::new(shape, shape.setup(features, base));
    let mut receiver = Receiver::new(shape, shape.setup(features, base));
    let mut tx = TxQueue::new(sender.setup.config, sender.setup.memory.map(), None).unwrap();
    let mut rx = RxQueue::new(receiver.setup.config, receiver.setup.memory.map(), None).unwrap();
    let bells = Arc::new(Bells::default());
    let theirs = Arc::clone(&bells);
    let cross_connect = base.used.is_multiple_of(2);
    let device = std::thread::spawn(move || {
        serve(&mut tx, &mut rx, frames, &theirs, cross_connect);
        (tx.base(), rx.base())
    });
    drive(&mut sender, &mut receiver, frames, &bells);
    let (transmit, _) = device.join().unwrap();
    assert_eq!((receiver.next, sender.next), (frames, frames), "{features:?} size {size}");
    assert_eq!(transmit.used, transmit.avail);
}

fn every_combination(kind: RingKind) {
    // Offloads make no difference to a ring: on in every other combination.
    for (turn, features) in all_features(kind).filter(|f| f.offloads == f.mrg_rxbuf).enumerate() {
        for &size in sizes(kind).iter().filter(|&&size| size <= 1000) {
            run(features, size, turn + usize::from(size), (4 * u64::from(size)).max(200));
        }
    }
}

#[test]
fn split_every_combination() {
    every_combination(RingKind::Split);
}

#[test]
fn packed_every_combination() {
    every_combination(RingKind::Packed);
}

#[test]
fn largest_rings() {
    for kind in [RingKind::Split, RingKind::Packed] {
        for (turn, features) in all_features(kind).enumerate().take(16) {
            run(features, 32768, turn, 34_000);
        }
    }
}
