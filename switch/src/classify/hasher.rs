// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hashing for what is compiled: quick, and the same every time, so that a group always becomes the same.

use std::hash::{BuildHasherDefault, Hasher};

/// Makes [`Mixer`]s.
pub(super) type Quick = BuildHasherDefault<Mixer>;

/// Folds a word at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0, value);
    }

    fn write_u128(&mut self, value: u128) {
        let [low, high] = halves(value);
        self.write_u64(low);
        self.write_u64(high);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A full product folded in half: every bit of the word reaches every bit of the hash.
#[inline]
pub(super) const fn mix(hash: u64, word: u64) -> u64 {
    let [low, high] = halves((hash ^ word) as u128 * 0xf39c_c060_5ced_c835_u128);
    (low ^ high).wrapping_add(0x2545_f491_4f6c_dd1d)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
const fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}
