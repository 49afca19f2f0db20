// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device asks of the backend it attaches to.

use std::path::PathBuf;
use std::time::Duration;

use vhost_user::Order;
use vhost_user::features::{
    VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtqueue::RingKind;

use crate::AttachError;

/// Pairs that the vhost-user protocol can number: vrings have 8-bit indices.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// The shortest receive buffer a frame without MRG_RXBUF may need: 12 bytes of header and a full Ethernet frame
/// (virtio 1.3, 5.1.6.3.1).
const MIN_RX_BUFFER: u32 = 1526;

/// Which end of the UNIX socket the device takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The backend listens, the device connects.
    #[default]
    Client,
    /// The device listens, the backend connects, and connects again after it was restarted.
    Server,
}

/// What a device asks for. [`DeviceConfig::new`] gives packed in-order rings of 256 entries, one pair.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Path of the UNIX socket.
    pub socket: PathBuf,
    /// Which end of the socket is ours.
    pub role: Role,
    /// Ring format.
    pub rings: RingKind,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// VIRTIO_NET_F_MRG_RXBUF: a received frame may span several buffers.
    pub mrg_rxbuf: bool,
    /// VIRTIO_RING_F_EVENT_IDX: ask for notifications by ring position.
    pub event_idx: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC; also reserves descriptor tables in shared memory.
    pub indirect: bool,
    /// Take what the backend has: a feature that was asked for and is not offered is done without. Else it is an
    /// error that names what is missing.
    pub fallback: bool,
    /// Queue pairs, 1 to 128.
    pub queue_pairs: u16,
    /// Entries of every ring.
    pub queue_size: u16,
    /// Transmit buffers of each pair; `None`: as many as the ring has entries.
    pub tx_buffers: Option<u32>,
    /// Bytes of a transmit buffer, the virtio-net header included.
    pub tx_buffer: u32,
    /// Bytes of a receive buffer, the virtio-net header included; at least 1526 unless `mrg_rxbuf`.
    pub rx_buffer: u32,
    /// Huge pages for the shared memory; an error where there are none.
    pub huge_pages: bool,
    /// Whose habits to follow in the handshake and when the backend comes back.
    pub order: Order,
    /// How long the backend may take to appear, and how long for each reply.
    pub timeout: Duration,
}

impl DeviceConfig {
    /// Packed in-order rings of 256 entries, one pair, ordinary Ethernet frames, ten seconds of patience.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            role: Role::Client,
            rings: RingKind::Packed,
            in_order: true,
            mrg_rxbuf: false,
            event_idx: false,
            indirect: false,
            fallback: false,
            queue_pairs: 1,
            queue_size: 256,
            tx_buffers: None,
            tx_buffer: MIN_RX_BUFFER,
            rx_buffer: MIN_RX_BUFFER,
            huge_pages: false,
            order: Order::VirtioUser,
            timeout: Duration::from_secs(10),
        }
    }

    /// The virtio feature bits that express this configuration.
    #[must_use]
    pub fn wanted_features(&self) -> u64 {
        let bits = [
            (self.rings == RingKind::Packed, VIRTIO_F_RING_PACKED),
            (self.in_order, VIRTIO_F_IN_ORDER),
            (self.mrg_rxbuf, VIRTIO_NET_F_MRG_RXBUF),
            (self.event_idx, VIRTIO_RING_F_EVENT_IDX),
            (self.indirect, VIRTIO_RING_F_INDIRECT_DESC),
            (self.queue_pairs > 1, VIRTIO_NET_F_MQ),
        ];
        bits.iter().filter(|(asked, _)| *asked).fold(VIRTIO_F_VERSION_1, |all, (_, bit)| all | bit)
    }

    /// What a fallback cannot do without: the header's length depends on VERSION_1, pairs on MQ.
    pub(crate) fn indispensable_features(&self) -> u64 {
        self.wanted_features() & (VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MQ)
    }

    /// How many transmit buffers each pair gets.
    pub(crate) fn tx_count(&self) -> u32 {
        self.tx_buffers.map_or_else(|| u32::from(self.queue_size), |count| count.max(1))
    }

    pub(crate) fn check(&self) -> Result<(), AttachError> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(AttachError::QueuePairs { asked: self.queue_pairs, most: MAX_QUEUE_PAIRS });
        }
        if !self.mrg_rxbuf && self.rx_buffer < MIN_RX_BUFFER {
            return Err(AttachError::RxBuffer { bytes: self.rx_buffer, least: MIN_RX_BUFFER });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_say_what_was_asked() {
        let mut config = DeviceConfig::new("s");
        assert_eq!(config.wanted_features(), VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER);
        config.rings = RingKind::Split;
        config.in_order = false;
        config.mrg_rxbuf = true;
        config.queue_pairs = 2;
        assert_eq!(config.wanted_features(), VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MQ);
    }

    #[test]
    fn limits() {
        let mut config = DeviceConfig::new("s");
        config.queue_pairs = 129;
        assert!(matches!(config.check(), Err(AttachError::QueuePairs { asked: 129, .. })));
        config.queue_pairs = 128;
        config.rx_buffer = 512;
        assert!(matches!(config.check(), Err(AttachError::RxBuffer { bytes: 512, .. })));
        config.mrg_rxbuf = true;
        config.check().unwrap();
    }
}
