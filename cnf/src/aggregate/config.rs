// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a CNF offers and wants.

use std::time::Duration;

use aggregation::negotiation::{Features, Offer};
use aggregation::wire;

use super::speaker::random;
use crate::DeviceConfig;

/// The Ethernet encapsulation, as HELLO numbers them.
const ETHERNET: u8 = 1;
/// Bytes of a virtio-net header and of an Ethernet header with one tag.
pub(crate) const FRONT: u32 = 12 + 18;

/// Aggregation as a CNF wants it. Whether it comes about is for the other end to say.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// The CNF's id on the link, not 0 and not the other end's. By default a random one from 0x8000 on.
    pub node: u16,
    /// What it calls itself, for people; at most 64 bytes are sent.
    pub name: String,
    /// EtherType of aggregates and of the frames that they are agreed on with.
    pub ether_type: u16,
    /// Bytes of packets, with what each takes up in the frame, after which a frame is sent; at most what the other end
    /// takes, and a transmit buffer holds.
    pub tx_aggr_max_bytes: usize,
    /// Packets after which a frame is sent; at most what the other end takes.
    pub tx_aggr_max_frames: u32,
    /// Microseconds that the first packet of a frame may wait for others. 0: until the next flush only.
    pub tx_aggr_time_usecs: u32,
    /// Bytes of the longest frame that is taken; at most what the receive buffers hold.
    pub rx_max_bytes: u32,
    /// Packets of a frame that is taken.
    pub rx_max_packets: u16,
    /// Packets are taken with unfinished checksums, and uncut: [`Meta::offload`](crate::Meta) says so. They can be sent on as
    /// they are; where the receiver cannot finish them, the SDK does. For CNFs that know what that means.
    pub unfinished: bool,
    /// Frames may say the Ethernet header of a run of packets once. Shorter frames, more work: for links that are short of
    /// bytes.
    pub template: bool,
    /// Time between two signs of life; after three without one the other end is gone.
    pub keepalive: Duration,
}

impl Default for Aggregation {
    /// Frames of up to 16 KiB, nothing is held back, packets are finished.
    fn default() -> Self {
        Self {
            node: 0x8000 | random(),
            name: String::new(),
            ether_type: wire::ETHERTYPE,
            tx_aggr_max_bytes: 1 << 14,
            tx_aggr_max_frames: 1024,
            tx_aggr_time_usecs: 0,
            rx_max_bytes: 1 << 14,
            rx_max_packets: 1024,
            unfinished: false,
            template: false,
            keepalive: Duration::from_secs(1),
        }
    }
}

impl Aggregation {
    /// Makes the buffers of a device large enough.
    pub(crate) fn enlarge(&self, device: &mut DeviceConfig) {
        let longest = |bytes: u32| bytes.min(u32::from(u16::MAX)) + FRONT;
        let tx = u32::try_from(self.tx_aggr_max_bytes).unwrap_or(u32::MAX);
        device.tx_buffer = device.tx_buffer.max(longest(tx));
        if !device.mrg_rxbuf {
            device.rx_buffer = device.rx_buffer.max(longest(self.rx_max_bytes));
        }
    }

    /// What is said in HELLO, if receive buffers hold frames of so many bytes, both headers included.
    pub(crate) fn offer(&self, capacity: u32) -> Offer {
        let mut features = Features::FLOW;
        if self.unfinished {
            features = features.with(Features::CHECKSUM).with(Features::GSO);
        }
        if self.template {
            features = features.with(Features::TEMPLATE);
        }
        Offer {
            versions: (wire::VERSION, wire::VERSION),
            encapsulations: ETHERNET,
            align_log2: 2,
            max_bytes: self.rx_max_bytes.min(capacity.saturating_sub(FRONT)),
            max_packets: self.rx_max_packets,
            features,
            keepalive_ms: u16::try_from(self.keepalive.as_millis()).unwrap_or(u16::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_hold_what_is_offered() {
        let (aggregation, mut device) = (Aggregation::default(), DeviceConfig::new("s"));
        aggregation.enlarge(&mut device);
        assert_eq!((device.rx_buffer, device.tx_buffer), (16384 + 30, 16384 + 30));
        assert_eq!(aggregation.offer(device.rx_buffer).max_bytes, 16384);
        assert_eq!(aggregation.offer(2048).max_bytes, 2018, "no more than there is room for");
        // Merged buffers may stay short.
        let mut device = DeviceConfig { mrg_rxbuf: true, rx_buffer: 512, ..DeviceConfig::new("s") };
        aggregation.enlarge(&mut device);
        assert_eq!(device.rx_buffer, 512);
    }

    #[test]
    fn unfinished_packets_are_asked_for() {
        let plain = Aggregation::default().offer(1 << 15).features;
        assert_eq!(plain, Features::FLOW);
        let rich = Aggregation { unfinished: true, template: true, ..Aggregation::default() }.offer(1 << 15).features;
        assert!(
            [Features::CHECKSUM, Features::GSO, Features::TEMPLATE, Features::FLOW].into_iter().all(|f| rich.has(f))
        );
    }
}
