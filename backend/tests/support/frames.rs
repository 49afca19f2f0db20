// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames whose every byte follows from their number, so that a frame that arrives can be compared with what it must be.

/// Everybody.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// Bytes before the pattern: addresses, EtherType, number.
const PATTERN_AT: usize = 22;

/// An Ethernet frame of `len` bytes (at least 22) that carries `number`.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], len: usize, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&to);
    bytes.extend_from_slice(&from);
    // Local experimental EtherType 2 (IEEE 802); the first is that of aggregates.
    bytes.extend_from_slice(&[0x88, 0xb6]);
    bytes.extend_from_slice(&number.to_le_bytes());
    let mut state = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..4.min(len - bytes.len())]);
    }
    assert!(len >= PATTERN_AT, "too short for a number");
    bytes
}

/// The number in a frame.
pub(crate) fn number_of(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[14..PATTERN_AT].try_into().expect("eight bytes"))
}

/// A source of frames of one flow, numbered from 0.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) next: u64,
}

impl Numbered {
    pub(crate) fn new(to: [u8; 6], from: [u8; 6]) -> Self {
        Self { to, from, next: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        self.next += 1;
        frame(self.to, self.from, len, self.next - 1)
    }

    pub(crate) fn burst(&mut self, count: usize, len: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.take(len)).collect()
    }
}
