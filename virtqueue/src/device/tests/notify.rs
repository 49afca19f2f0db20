// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls and kicks, with and without EVENT_IDX.

use super::{Guest, combinations, completions};
use crate::full_fence;

#[test]
fn calls_follow_the_drivers_wish() {
    for features in combinations() {
        let guest = Guest::new(7_u16.next_power_of_two(), features, 64);
        let (mut driver, mut tx) = (guest.driver(), guest.tx());
        let burst = |driver: &mut crate::DriverQueue, tx: &mut crate::TxQueue| {
            for n in 0..3 {
                driver.post(&[guest.buffer(n, 72)], &[], 0).unwrap();
            }
            driver.publish();
            assert_eq!(tx.harvest(64), Ok(3));
            tx.release(3);
            assert!(!tx.should_notify(), "nothing is published yet");
            tx.publish();
            full_fence();
            let notify = tx.should_notify();
            assert!(!tx.should_notify(), "asked twice, answered once");
            assert_eq!(completions(driver).len(), 3);
            notify
        };
        for round in 0..20 {
            driver.set_calls(true);
            assert!(burst(&mut driver, &mut tx), "wanted, round {round}");
            driver.set_calls(false);
            let never = burst(&mut driver, &mut tx);
            // In a split ring with EVENT_IDX a wish cannot be taken back, only be overtaken.
            if !(features.event_idx && features.kind == crate::RingKind::Split) {
                assert!(!never, "unwanted, round {round}");
            }
        }
    }
}

#[test]
fn kicks_follow_ours() {
    for features in combinations() {
        let guest = Guest::new(8, features, 64);
        let (mut driver, mut tx) = (guest.driver(), guest.tx());
        for round in 0..20 {
            assert!(!tx.set_kicks(true), "nothing there yet");
            driver.post(&[guest.buffer(0, 72)], &[], 0).unwrap();
            driver.publish();
            full_fence();
            assert!(driver.should_kick(), "wanted, round {round}");
            assert!(tx.has_available() && tx.set_kicks(true), "must not sleep");
            tx.set_kicks(false);
            tx.harvest(64).unwrap();
            tx.release(1);
            tx.publish();
            driver.post(&[guest.buffer(0, 72)], &[], 0).unwrap();
            driver.publish();
            full_fence();
            if !(features.event_idx && features.kind == crate::RingKind::Split) {
                assert!(!driver.should_kick(), "unwanted, round {round}");
            }
            tx.harvest(64).unwrap();
            tx.release(1);
            tx.publish();
            assert_eq!(completions(&mut driver).len(), 2);
        }
    }
}
