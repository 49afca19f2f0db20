// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keys that rules match: what the cost model tries candidates with.

use super::entry::{Entries, View};
use crate::condition::{IpVersion, Key, Subject, Value};

/// Up to `count` keys, each matching one of the entries (but for its lists), spread evenly over them.
/// What an entry leaves open is taken from another, as packets are made of what rules speak of.
pub(super) fn keys(entries: &Entries, count: usize) -> Vec<Key> {
    let mut random = Random(1);
    let step = entries.len().checked_div(count).unwrap_or(0).max(1);
    let mut keys = Vec::with_capacity(count);
    for entry in entries.iter().step_by(step).take(count) {
        let mut key = Key::default();
        let number = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let other = u32::try_from(random.next() >> 96).unwrap_or(0).checked_rem(number).unwrap_or(0);
        for entry in entries.get(other).into_iter().chain([entry]) {
            overlay(&mut key, entry, &mut random);
        }
        keys.push(key);
    }
    keys
}

/// Makes a key match an entry.
fn overlay(key: &mut Key, entry: View<'_>, random: &mut Random) {
    for term in entry.terms {
        match term.value() {
            Value::Exact(value) => key.set(term.subject, value),
            Value::Range { lo, hi } => {
                let width = hi.saturating_sub(lo).saturating_add(1);
                key.set(term.subject, lo.saturating_add(random.next().checked_rem(width).unwrap_or(0)));
            }
            Value::Prefix { version, value, len } => {
                if let Some((field, says)) = version.says(term.subject) {
                    key.set(Subject::Field(field), says);
                }
                let all = version.prefix_mask(u8::MAX);
                key.set(term.subject, value | random.next() & all & !version.prefix_mask(len));
            }
        }
    }
    // An IPv4 address beside an IPv6 one is nothing that a packet has.
    if entry
        .terms
        .iter()
        .any(|term| matches!(term.value(), Value::Prefix { version: IpVersion::V4 | IpVersion::Arp, .. }))
    {
        for subject in [packet::Field::IpSrc, packet::Field::IpDst].map(Subject::Field) {
            key.set(subject, key.get(subject) & u128::from(u32::MAX));
        }
    }
}

/// SplitMix64, twice for 128 bits: the same group is always compiled to the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u128 {
        u128::from(self.half()) << 64 | u128::from(self.half())
    }

    fn half(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
