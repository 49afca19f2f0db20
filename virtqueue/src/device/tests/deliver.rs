// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A burst delivered at once does to the guest what its frames do one by one.

use super::{Guest, Numbers, combinations, plain};
use crate::config::RingKind;
use crate::driver::DriverQueue;
use crate::{Delivered, DeliveredBurst, Frame, NetHeader, QueueFeatures, RxQueue, Tail, TxQueue};

const RING: u16 = 32;
const BUFFERS: u64 = 64;

/// One guest that receives, and one that sent a frame which is still held.
struct Side {
    guest: Guest,
    driver: DriverQueue,
    rx: RxQueue,
}

impl Side {
    fn new(features: QueueFeatures) -> Self {
        let guest = Guest::new(RING, features, BUFFERS);
        Self { driver: guest.driver(), rx: guest.rx(), guest }
    }

    /// Posts buffers, some of them in two pieces, as long as the ring takes them.
    fn post(&mut self, numbers: &mut Numbers, count: u64) {
        for token in 0..count {
            let place = numbers.below(BUFFERS / 2) * 2;
            let len = 80 + numbers.below(300) as u32;
            let halves = [self.guest.buffer(place, 70), self.guest.buffer(place + 1, len)];
            let pieces = if numbers.below(4) == 0 { &halves[..] } else { &halves[1..] };
            if self.driver.post(&[], pieces, token as u32).is_err() {
                break;
            }
        }
        self.driver.publish();
    }

    fn buffers(&self) -> Vec<u8> {
        self.guest.get(self.guest.data, (BUFFERS * super::STRIDE) as usize)
    }
}

/// A frame of 900 bytes, held by the queue of the guest that sent it.
fn sent() -> (Guest, TxQueue) {
    let guest = Guest::new(4, plain(RingKind::Packed), 4);
    let mut driver = guest.driver();
    let bytes: Vec<u8> = (0..912_u32).map(|i| i as u8).collect();
    let buffer = guest.buffer(0, 912);
    guest.set(buffer.addr, &bytes);
    driver.post(&[buffer], &[], 0).unwrap();
    driver.publish();
    let mut tx = guest.tx();
    assert_eq!(tx.harvest(1), Ok(1));
    (guest, tx)
}

/// The plain way, which stays as the oracle.
fn one_by_one(rx: &mut RxQueue, frames: &[Frame<'_>]) -> DeliveredBurst {
    let mut result = DeliveredBurst::default();
    for (i, frame) in frames.iter().enumerate() {
        match rx.deliver(&frame.header, frame.head, frame.tail).unwrap() {
            Delivered::Ok => {
                result.frames += 1;
                result.bytes += (frame.head.len() + frame.tail.len()) as u64;
            }
            Delivered::TooBig => {
                result.too_big += 1;
                result.too_big_at |= 1 << i;
            }
            Delivered::NoBuffers => {
                result.no_buffers = (frames.len() - i) as u32;
                break;
            }
        }
    }
    result
}

#[test]
fn a_burst_is_its_frames_one_by_one() {
    let (_sender, tx) = sent();
    let bytes: Vec<u8> = (0..512_u32).map(|i| !i as u8).collect();
    let marked = NetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..NetHeader::default() };
    for (seed, features) in combinations().enumerate() {
        let (mut burst, mut single) = (Side::new(features), Side::new(features));
        for lap in 0..200_u64 {
            let mut numbers = Numbers(seed as u64 * 1000 + lap);
            let posted = numbers.below(u64::from(RING));
            burst.post(&mut Numbers(lap), posted);
            single.post(&mut Numbers(lap), posted);
            let frames: Vec<Frame<'_>> = (0..numbers.below(40))
                .map(|_| {
                    let head = &bytes[..numbers.below(260) as usize];
                    let tail = match numbers.below(6) {
                        0 => Tail::Bytes(&bytes[..numbers.below(100) as usize]),
                        1 => Tail::Frame { queue: &tx, index: 0, offset: numbers.below(900) as u32 },
                        _ => Tail::None,
                    };
                    let header = if numbers.below(5) == 0 { marked } else { NetHeader::default() };
                    Frame { header, head, tail }
                })
                .collect();
            let result = burst.rx.deliver_burst(frames.len(), |i| frames[i]).unwrap();
            assert_eq!(result, one_by_one(&mut single.rx, &frames), "{features:?}, lap {lap}");
            burst.rx.publish();
            single.rx.publish();
            assert!(burst.buffers() == single.buffers(), "{features:?}, lap {lap}");
            let (done, expected) = (super::completions(&mut burst.driver), super::completions(&mut single.driver));
            assert_eq!(done, expected, "{features:?}, lap {lap}");
        }
    }
}
