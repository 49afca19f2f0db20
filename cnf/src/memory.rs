// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the rings and buffers of a device lie in its shared memory.
//!
//! ```text
//! | pair 0: rx ring | tx ring | pair 1: … | pair 0: tx buffers | rx buffers | tables | pair 1: … |
//! ```
//!
//! Buffers are an odd number of cache lines apart: a power of two would put the first line of every frame, which is
//! the one both sides touch, into the same few sets of the cache.

use virtqueue::{RingAddresses, RingKind, RingLayout};

use crate::DeviceConfig;

const LINE: u64 = 64;

/// Bytes of a descriptor table for one indirect chain: 8 descriptors.
pub(crate) const TABLE_BYTES: u32 = 128;

/// Offsets of all parts, from the start of the shared memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    ring: RingLayout,
    ring_pitch: u64,
    buffers_at: u64,
    pair_pitch: u64,
    /// Bytes from one transmit buffer to the next.
    pub(crate) tx_stride: u32,
    /// Bytes from one receive buffer to the next.
    pub(crate) rx_stride: u32,
    tx_count: u64,
    rx_count: u64,
    /// Bytes in all.
    pub(crate) total: u64,
}

/// The parts of one pair's buffer memory, as offsets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) tx: u64,
    pub(crate) rx: u64,
    pub(crate) tables: u64,
}

impl Plan {
    /// `kind` is the negotiated format, which need not be the one that was asked for.
    pub(crate) fn new(config: &DeviceConfig, kind: RingKind) -> Self {
        let ring = RingLayout::new(kind, config.queue_size);
        let pairs = u64::from(config.queue_pairs);
        let (tx_count, rx_count) = (u64::from(config.tx_count()), u64::from(config.queue_size));
        // Room for the larger of the two formats: a backend that comes back may offer another one.
        let other = RingLayout::new(RingKind::Split, config.queue_size);
        let ring_pitch = ring.total.max(other.total);
        let (tx_stride, rx_stride) = (stride(config.tx_buffer), stride(config.rx_buffer));
        let tables = if config.indirect { u64::from(TABLE_BYTES) } else { 0 };
        let buffers_at = ring_pitch * 2 * pairs;
        let pair_pitch = tx_count * u64::from(tx_stride) + rx_count * (u64::from(rx_stride) + tables);
        let total = buffers_at + pair_pitch * pairs;
        Self { ring, ring_pitch, buffers_at, pair_pitch, tx_stride, rx_stride, tx_count, rx_count, total }
    }

    /// Guest addresses of the areas of vring `index` (even: receive, odd: transmit), the memory being at `base`.
    pub(crate) fn ring(&self, base: u64, index: u16) -> RingAddresses {
        let at = base + self.ring_pitch * u64::from(index);
        RingAddresses { desc: at + self.ring.desc, driver: at + self.ring.driver, device: at + self.ring.device }
    }

    pub(crate) fn buffers(&self, base: u64, pair: u16) -> Buffers {
        let tx = base + self.buffers_at + self.pair_pitch * u64::from(pair);
        let rx = tx + self.tx_count * u64::from(self.tx_stride);
        Buffers { tx, rx, tables: rx + self.rx_count * u64::from(self.rx_stride) }
    }
}

fn stride(bytes: u32) -> u32 {
    let lines = u64::from(bytes).div_ceil(LINE) | 1;
    u32::try_from(lines * LINE).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_keep_their_alignment() {
        for (kind, size, indirect) in
            [(RingKind::Packed, 256, false), (RingKind::Packed, 1000, true), (RingKind::Split, 1024, true)]
        {
            let mut config = DeviceConfig::new("s");
            (config.queue_size, config.queue_pairs, config.indirect) = (size, 3, indirect);
            config.tx_buffers = Some(3000);
            let plan = Plan::new(&config, kind);
            let mut parts = Vec::new();
            for index in 0..6 {
                let ring = plan.ring(0, index);
                assert_eq!(ring.desc % 16, 0);
                parts.push((ring.desc, ring.desc + plan.ring.total));
            }
            for pair in 0..3 {
                let buffers = plan.buffers(0, pair);
                let count = u64::from(size);
                assert_eq!(buffers.tx % LINE, 0);
                parts.push((buffers.tx, buffers.tx + 3000 * u64::from(plan.tx_stride)));
                parts.push((buffers.rx, buffers.rx + count * u64::from(plan.rx_stride)));
                if indirect {
                    parts.push((buffers.tables, buffers.tables + count * u64::from(TABLE_BYTES)));
                }
            }
            parts.sort_unstable();
            assert!(parts.windows(2).all(|two| two[0].1 <= two[1].0), "{parts:?}");
            assert!(parts.last().unwrap().1 <= plan.total);
        }
    }

    #[test]
    fn strides_are_odd_numbers_of_lines() {
        for (bytes, lines) in [(64, 1), (65, 3), (1526, 25), (2048, 33)] {
            assert_eq!(u64::from(stride(bytes)), lines * LINE);
        }
    }
}
