// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arbitrary bytes in all areas of two rings, on which a device and a driver work meanwhile.

use std::sync::Arc;

use virtqueue::{
    Buffer, Completion, DriverQueue, NetHeader, QueueConfig, RingError, RingKind, RxQueue, Tail, TxQueue, forward,
    full_fence,
};

use crate::guest::{config, guest};
use crate::input::Input;

/// Where the two rings lie; everything else is buffers.
const TX_RING: u64 = 0;
const RX_RING: u64 = 8 << 10;

/// Interprets bytes as a configuration and a sequence of scribbles and calls.
///
/// Whatever they are, nothing panics, a broken queue stays broken with the same error, and a frame
/// is as long as it says.
pub fn ring_contents(data: &[u8]) {
    let mut input = Input(data);
    let kind = if input.u8() & 1 == 0 { RingKind::Split } else { RingKind::Packed };
    let map = guest();
    let (tx_config, rx_config) = (config(&mut input, kind, TX_RING), config(&mut input, kind, RX_RING));
    let drivers =
        DriverQueue::new(tx_config, Arc::clone(&map)).ok().zip(DriverQueue::new(rx_config, Arc::clone(&map)).ok());
    let devices =
        TxQueue::new(tx_config, Arc::clone(&map), None).ok().zip(RxQueue::new(rx_config, Arc::clone(&map), None).ok());
    let (Some((mut tx_driver, mut rx_driver)), Some((mut tx, mut rx))) = (drivers, devices) else {
        panic!("{tx_config:?} or {rx_config:?} was refused");
    };
    let mut errors = Errors::default();
    while !input.is_empty() {
        match input.u8() % 16 {
            0..=4 => scribble(&mut input, &map, &tx_config, TX_RING),
            5..=9 => scribble(&mut input, &map, &rx_config, RX_RING),
            10 => {
                drive(&mut tx_driver, &mut input, false, &mut errors.tx_driver);
                drive(&mut rx_driver, &mut input, true, &mut errors.rx_driver);
            }
            11 | 12 => {
                let result = tx.harvest(usize::from(input.u8())).map(|held| check_frames(&tx, held));
                note(&mut errors.tx, result);
            }
            13 => {
                let result = rx.prefetch(usize::from(input.u8()));
                note(&mut errors.rx, result.map(|_| ()));
                let (index, offset) = (usize::from(input.u8() % 4), u32::from(input.u8()));
                let tail = match input.u8() % 3 {
                    0 => Tail::None,
                    1 => Tail::Bytes(&[7; 500]),
                    _ => Tail::Frame { queue: &tx, index, offset },
                };
                note(&mut errors.rx, rx.deliver(&NetHeader::default(), &[1; 64], tail).map(|_| ()));
            }
            14 => {
                if let Ok(result) = forward(&mut tx, &mut rx, 1 + usize::from(input.u8())) {
                    assert_eq!(result.left, tx.held());
                }
            }
            _ => {
                tx.release(usize::from(input.u8() % 70));
                rx.publish();
                tx.publish();
                full_fence();
                let _ = (tx.should_notify(), rx.should_notify());
                let enabled = input.u8() & 1 != 0;
                let _ = (tx.set_kicks(enabled), rx.set_kicks(enabled));
                let _ = (tx.has_available(), rx.has_available(), tx.base(), rx.base());
            }
        }
    }
}

/// The first error of each queue.
#[derive(Default)]
struct Errors {
    tx: Option<RingError>,
    rx: Option<RingError>,
    tx_driver: Option<RingError>,
    rx_driver: Option<RingError>,
}

/// After the first error there is no other answer.
fn note(known: &mut Option<RingError>, result: Result<(), RingError>) {
    if let Some(known) = known {
        assert_eq!(result, Err(*known));
    }
    if let Err(error) = result {
        assert!(RingError::CAUSES.contains(&error.cause()));
        *known = Some(error);
    }
}

fn drive(driver: &mut DriverQueue, input: &mut Input<'_>, writable: bool, known: &mut Option<RingError>) {
    let buffer = Buffer { addr: u64::from(input.u16()), len: u32::from(input.u8()) };
    let _ = driver.post_burst(&[buffer; 4], &[1, 2, 3, 4], writable);
    let (readable, writable) = if writable { (&[][..], &[buffer; 3][..]) } else { (&[buffer; 3][..], &[][..]) };
    let _ = driver.post(readable, writable, 5);
    let _ = driver.post_indirect(u64::from(input.u16()) & !15, readable, writable, 6);
    driver.publish();
    full_fence();
    let _ = (driver.should_kick(), driver.set_calls(input.u8() & 1 != 0));
    let result = driver.complete(&mut [Completion::default(); 5]);
    assert!(driver.free() <= driver.config().size);
    note(known, result.map(|_| ()));
}

fn check_frames(tx: &TxQueue, held: usize) {
    assert_eq!(held, tx.held());
    for i in 0..held {
        let _ = tx.net_header(i);
        let len = tx.frame_len(i);
        let mut dst = [0; 600];
        let most = usize::try_from(len).map_or(dst.len(), |len| len.min(dst.len()));
        assert_eq!(tx.read(i, 0, &mut dst), most);
        assert_eq!(tx.read(i, len, &mut dst), 0);
    }
}

/// Writes eight bytes into a ring: as they are, or tamed so that they mean something.
fn scribble(input: &mut Input<'_>, map: &Arc<virtqueue::MemoryMap>, config: &QueueConfig, ring: u64) {
    let total = DriverQueue::ring_bytes(config.features.kind, config.size).total;
    let (how, place, value) = (input.u8(), u64::from(input.u16()), input.u64());
    let value = match how % 4 {
        0 => value,
        // An address.
        1 => value & 0xffff,
        // A length, and small numbers with flags behind it.
        2 => value & 0x8087_0003_0000_0fff,
        _ => value & 0x0007_8083_0000_0fff,
    };
    // Half of them where the base is, and what follows.
    let at = if how & 4 == 0 { place % total } else { 16 * (u64::from(config.base.used) + place % 4) % total };
    let _ = map.write(ring + at / 8 * 8, &value.to_le_bytes());
    if how & 8 != 0 && config.features.kind == RingKind::Split {
        // The available index, without which nobody looks.
        let _ = map.write(
            config.addresses.driver + 2,
            &config.base.used.wrapping_add(place.to_le_bytes()[0].into()).to_le_bytes(),
        );
    }
}
