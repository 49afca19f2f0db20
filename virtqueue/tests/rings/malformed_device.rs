// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our driver against devices that break the rules: an error with a cause, the same ever after,
//! and never a panic.

use proptest::prelude::*;
use virtqueue::{Buffer, Completion, DriverQueue, RingBase, RingError, RingKind};

use crate::model::{Desc, Guest, ModelDevice, Setup, WRITE, all_features, plain, sizes};

const BUFFER: Buffer = Buffer { addr: 0x1000, len: 100 };

/// A ring of eight in which three writable buffers were published and none used.
fn three_posted(kind: RingKind, in_order: bool) -> (Setup, DriverQueue, Guest) {
    let mut features = plain(kind);
    features.in_order = in_order;
    let setup = Setup::new(8, features, RingBase::initial(kind), 0);
    let mut driver = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
    assert_eq!(driver.post_burst(&[BUFFER; 3], &[10, 11, 12], true), 3);
    driver.publish();
    let guest = setup.guest();
    (setup, driver, guest)
}

/// Writes used element `position`, and for split rings the used index after it.
fn use_raw(setup: &Setup, guest: &Guest, position: u16, id: u32, len: u32) {
    let addresses = &setup.config.addresses;
    match setup.config.features.kind {
        RingKind::Packed => {
            let desc = Desc { addr: 0, len, flags: 1 << 7 | 1 << 15 | WRITE, other: (id & 0xffff) as u16 };
            desc.write(guest, RingKind::Packed, addresses.desc + 16 * u64::from(position));
        }
        RingKind::Split => {
            let at = addresses.device + 4 + 8 * u64::from(position);
            guest.set_u32(at, id);
            guest.set_u32(at + 4, len);
            guest.set_u16(addresses.device + 2, position + 1);
        }
    }
}

fn fails(driver: &mut DriverQueue, error: RingError) {
    let mut out = [Completion::default(); 16];
    assert_eq!(driver.complete(&mut out), Err(error));
    assert_eq!(driver.complete(&mut out), Err(error), "for good");
    assert!(driver.has_completions(), "nobody may sleep over an error");
    assert!(RingError::CAUSES.contains(&error.cause()));
}

#[test]
fn unknown_id() {
    for kind in [RingKind::Split, RingKind::Packed] {
        for in_order in [false, true] {
            for id in [8, 0xffff] {
                let (setup, mut driver, guest) = three_posted(kind, in_order);
                use_raw(&setup, &guest, 0, id, 1);
                fails(&mut driver, RingError::UnknownId { id, size: 8 });
            }
        }
    }
    let (setup, mut driver, guest) = three_posted(RingKind::Split, false);
    use_raw(&setup, &guest, 0, 0x1_0000, 1);
    fails(&mut driver, RingError::UnknownId { id: 0x1_0000, size: 8 });
}

#[test]
fn not_outstanding() {
    for kind in [RingKind::Split, RingKind::Packed] {
        for in_order in [false, true] {
            let (setup, mut driver, guest) = three_posted(kind, in_order);
            use_raw(&setup, &guest, 0, 3, 1);
            fails(&mut driver, RingError::NotOutstanding { id: 3 });
            // Twice the same.
            let (setup, mut driver, guest) = three_posted(kind, in_order);
            use_raw(&setup, &guest, 0, 0, 1);
            assert_eq!(driver.complete(&mut [Completion::default(); 4]), Ok(1));
            use_raw(&setup, &guest, 1, 0, 1);
            fails(&mut driver, RingError::NotOutstanding { id: 0 });
        }
    }
}

#[test]
fn split_batch_beyond_the_used_index() {
    let (setup, mut driver, guest) = three_posted(RingKind::Split, true);
    use_raw(&setup, &guest, 0, 2, 1);
    fails(&mut driver, RingError::NotOutstanding { id: 2 });
}

#[test]
fn used_too_long() {
    for kind in [RingKind::Split, RingKind::Packed] {
        for in_order in [false, true] {
            let (setup, mut driver, guest) = three_posted(kind, in_order);
            use_raw(&setup, &guest, 0, 0, 101);
            fails(&mut driver, RingError::UsedTooLong { id: 0, len: 101, limit: 100 });
        }
    }
}

#[test]
fn more_used_than_posted() {
    let (setup, mut driver, guest) = three_posted(RingKind::Split, false);
    guest.set_u16(setup.config.addresses.device + 2, 4);
    fails(&mut driver, RingError::DeviceRaced { used: 4, outstanding: 3 });
    for in_order in [false, true] {
        let (setup, mut driver, guest) = three_posted(RingKind::Packed, in_order);
        for (position, id) in (0..3).zip(0..3) {
            use_raw(&setup, &guest, position, id, 1);
        }
        assert_eq!(driver.complete(&mut [Completion::default(); 16]), Ok(3));
        use_raw(&setup, &guest, 3, 0, 1);
        fails(&mut driver, RingError::DeviceRaced { used: 1, outstanding: 0 });
    }
}

#[test]
fn used_before_it_was_published() {
    let (setup, mut driver, guest) = three_posted(RingKind::Packed, true);
    assert_eq!(driver.post_burst(&[BUFFER; 2], &[13, 14], true), 2);
    use_raw(&setup, &guest, 0, 4, 1);
    let mut out = [Completion::default(); 16];
    assert_eq!(driver.complete(&mut out), Err(RingError::DeviceRaced { used: 1, outstanding: 0 }));
}

#[test]
fn what_a_device_says_it_read_is_ignored() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let setup = Setup::new(8, plain(kind), RingBase::initial(kind), 0);
        let mut driver = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
        driver.post(&[BUFFER], &[], 5).unwrap();
        driver.publish();
        let mut device = ModelDevice::new(setup.guest(), setup.config);
        let chain = device.next().unwrap();
        device.use_chains(&[chain], 0);
        if kind == RingKind::Split {
            setup.guest().set_u32(setup.config.addresses.device + 8, 112);
        } else {
            setup.guest().set_u32(setup.config.addresses.desc + 8, 112);
        }
        let mut out = [Completion::default(); 2];
        assert_eq!(driver.complete(&mut out), Ok(1));
        assert_eq!(out[0], Completion { token: 5, len: 0 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A device that scribbles over every ring area: any answer will do, but a panic.
    #[test]
    fn scribbling_devices_cannot_panic(
        packed in any::<bool>(),
        features in 0..32_usize,
        size in any::<prop::sample::Index>(),
        rounds in prop::collection::vec((any::<u16>(), any::<u64>(), any::<u8>()), 1..60),
    ) {
        let kind = if packed { RingKind::Packed } else { RingKind::Split };
        let size = sizes(kind)[size.index(sizes(kind).len())];
        let features = all_features(kind).nth(features).unwrap();
        let setup = Setup::new(size, features, RingBase::initial(kind), 4096);
        let guest = setup.guest();
        let total = DriverQueue::ring_bytes(kind, size).total;
        let mut driver = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
        for (place, value, what) in rounds {
            let _ = driver.post_burst(&[BUFFER; 5], &[1, 2, 3, 4, 5], what & 1 != 0);
            let _ = driver.post(&[BUFFER; 2], &[BUFFER; 1], 9);
            let _ = driver.post_indirect(setup.data, &[BUFFER; 2], &[BUFFER; 1], 9);
            driver.publish();
            let _ = driver.should_kick();
            let _ = driver.set_calls(what & 2 != 0);
            // Mostly near the start, where something is going on.
            let at = u64::from(place) % if what & 4 == 0 { total } else { total.min(64) } / 8 * 8;
            let value = match what >> 3 & 3 {
                0 => value,
                1 => value & 0x8080_0007_ffff_ffff,
                2 => value & 0x0000_0007_0000_0007,
                _ => u64::MAX,
            };
            guest.set_u64(setup.config.addresses.desc + at, value);
            let _ = driver.complete(&mut [Completion::default(); 7]);
            prop_assert!(driver.free() <= size);
        }
    }
}
