// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a queue is configured with, on both sides of the ring.

use virtio_bindings::bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_net::{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::error::QueueError;

/// The most entries a ring may have, in both formats (virtio 1.3, 2.7 and 2.8.10).
pub const MAX_RING_SIZE: u16 = 32768;

/// The format of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingKind {
    /// Descriptor table, available ring and used ring (virtio 1.3, 2.7).
    Split,
    /// One ring of descriptors that both sides write (virtio 1.3, 2.8).
    Packed,
}

/// The negotiated features that change how a ring is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueFeatures {
    /// Ring format.
    pub kind: RingKind,
    /// VIRTIO_F_IN_ORDER: buffers are used in the order they were made available.
    pub in_order: bool,
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may point at a table of descriptors.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX: notifications are asked for by ring position.
    pub event_idx: bool,
    /// VIRTIO_NET_F_MRG_RXBUF: a received frame may span several buffers.
    pub mrg_rxbuf: bool,
    /// Bytes of virtio-net header before each frame: 10, 12, or 0 for none.
    pub header_len: u8,
    /// Checksum or segmentation offloads were negotiated (VIRTIO_NET_F_CSUM or GUEST_CSUM, without
    /// which there are no others): the fields of the virtio-net header mean something. If not,
    /// it is all zeros but for `num_buffers`, and of frames the guest sends it is not even read.
    pub offloads: bool,
}

impl QueueFeatures {
    /// Derives them from the feature bits both sides agreed on.
    ///
    /// The header has 12 bytes as soon as VERSION_1, RING_PACKED or MRG_RXBUF is there, else 10.
    #[must_use]
    pub fn from_bits(virtio_features: u64) -> Self {
        let has = |bit: u32| virtio_features & (1 << bit) != 0;
        let packed = has(VIRTIO_F_RING_PACKED);
        let mrg_rxbuf = has(VIRTIO_NET_F_MRG_RXBUF);
        let long_header = packed || mrg_rxbuf || has(VIRTIO_F_VERSION_1);
        Self {
            kind: if packed { RingKind::Packed } else { RingKind::Split },
            in_order: has(VIRTIO_F_IN_ORDER),
            indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
            event_idx: has(VIRTIO_RING_F_EVENT_IDX),
            mrg_rxbuf,
            header_len: if long_header { 12 } else { 10 },
            offloads: has(VIRTIO_NET_F_CSUM) || has(VIRTIO_NET_F_GUEST_CSUM),
        }
    }
}

/// Where the three areas of a ring lie, as **guest** addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RingAddresses {
    /// Split: descriptor table. Packed: descriptor ring. 16-byte aligned.
    pub desc: u64,
    /// What the driver writes. Split: available ring, 2-byte aligned. Packed: driver event
    /// suppression, 4-byte aligned.
    pub driver: u64,
    /// What the device writes. Split: used ring. Packed: device event suppression. 4-byte aligned.
    pub device: u64,
}

/// Where in the ring a queue starts.
///
/// Split: both indices run freely through all 16 bits and the wrap flags are `false`.
/// Packed: indices are below the ring size and the wrap flags are the wrap counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingBase {
    /// Next available entry the device will look at.
    pub avail: u16,
    /// Driver's wrap counter at that entry.
    pub avail_wrap: bool,
    /// Next used entry the device will write.
    pub used: u16,
    /// Device's wrap counter at that entry.
    pub used_wrap: bool,
}

impl RingBase {
    /// The position of a ring that was never used.
    #[must_use]
    pub const fn initial(kind: RingKind) -> Self {
        let wrap = matches!(kind, RingKind::Packed);
        Self { avail: 0, avail_wrap: wrap, used: 0, used_wrap: wrap }
    }

    /// Reads the value of VHOST_USER_SET_VRING_BASE.
    ///
    /// Of a packed base the low half decides: front ends exist that leave rubbish in the high
    /// half, and the used position of a drained ring is the available one anyway.
    ///
    /// # Errors
    /// A packed position outside the ring.
    pub fn from_wire(kind: RingKind, size: u16, value: u32) -> Result<Self, QueueError> {
        let low = (value & 0xffff) as u16;
        match kind {
            RingKind::Split => Ok(Self { avail: low, avail_wrap: false, used: low, used_wrap: false }),
            RingKind::Packed => {
                let (index, wrap) = (low & 0x7fff, low & 0x8000 != 0);
                if index >= size {
                    return Err(QueueError::BaseOutsideRing { index, size });
                }
                Ok(Self { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap })
            }
        }
    }

    /// The value for VHOST_USER_GET_VRING_BASE: the used position, because what is available but
    /// not used must be processed again by whoever comes next. Packed: in both halves.
    #[must_use]
    pub fn to_wire(&self, kind: RingKind) -> u32 {
        match kind {
            RingKind::Split => u32::from(self.used),
            RingKind::Packed => {
                let half = u32::from(self.used) | u32::from(self.used_wrap) << 15;
                half | half << 16
            }
        }
    }
}

/// All a queue needs to know to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries in the ring: 1..=32768; a split ring needs a power of two.
    pub size: u16,
    /// Negotiated features.
    pub features: QueueFeatures,
    /// Guest addresses of the three areas.
    pub addresses: RingAddresses,
    /// Where to start.
    pub base: RingBase,
}

impl QueueConfig {
    /// Checks size and base against the limits of the format.
    ///
    /// # Errors
    /// [`QueueError::Size`], [`QueueError::HeaderLength`] or [`QueueError::BaseOutsideRing`].
    pub fn check(&self) -> Result<(), QueueError> {
        let size = self.size;
        let valid =
            (1..=MAX_RING_SIZE).contains(&size) && (self.features.kind == RingKind::Packed || size.is_power_of_two());
        if !valid {
            return Err(QueueError::Size { size });
        }
        let header = self.features.header_len;
        if !matches!(header, 0 | 10 | 12) {
            return Err(QueueError::HeaderLength { header });
        }
        let base = &self.base;
        if self.features.kind == RingKind::Packed && base.avail.max(base.used) >= size {
            return Err(QueueError::BaseOutsideRing { index: base.avail.max(base.used), size });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_base_believes_the_low_half() {
        // virtio-user sends 0x0000_8000, QEMU 0x8000_8000: both mean "from the start".
        for value in [0x0000_8000, 0x8000_8000] {
            let base = RingBase::from_wire(RingKind::Packed, 256, value).unwrap();
            assert_eq!(base, RingBase::initial(RingKind::Packed));
            assert_eq!(base.to_wire(RingKind::Packed), 0x8000_8000);
        }
        let base = RingBase::from_wire(RingKind::Packed, 256, 255).unwrap();
        assert_eq!(base.to_wire(RingKind::Packed), 0x00ff_00ff);
        RingBase::from_wire(RingKind::Packed, 256, 0x8000 | 256).unwrap_err();
    }

    #[test]
    fn split_base_runs_freely() {
        let base = RingBase::from_wire(RingKind::Split, 256, 0xffff).unwrap();
        assert_eq!(base.avail, 0xffff);
        assert_eq!(base.to_wire(RingKind::Split), 0xffff);
    }

    #[test]
    fn sizes() {
        let mut config = QueueConfig {
            size: 1,
            features: QueueFeatures::from_bits(0),
            addresses: RingAddresses::default(),
            base: RingBase::initial(RingKind::Split),
        };
        for (size, split, packed) in [
            (0, false, false),
            (1, true, true),
            (3, false, true),
            (1000, false, true),
            (32768, true, true),
            (32769, false, false),
        ] {
            config.size = size;
            config.features.kind = RingKind::Split;
            assert_eq!(config.check().is_ok(), split, "split {size}");
            config.features.kind = RingKind::Packed;
            assert_eq!(config.check().is_ok(), packed, "packed {size}");
        }
    }

    #[test]
    fn header_length_follows_the_features() {
        assert_eq!(QueueFeatures::from_bits(0).header_len, 10);
        for bit in [VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED, VIRTIO_NET_F_MRG_RXBUF] {
            assert_eq!(QueueFeatures::from_bits(1 << bit).header_len, 12);
        }
    }
}
