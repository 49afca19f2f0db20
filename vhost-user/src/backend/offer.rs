// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a node offers to a front end.

use super::config::NetConfig;
use crate::features::{self, VHOST_USER_F_PROTOCOL_FEATURES};

/// What a port offers; fixed for the life of a connection. A front end that reconnects ANDs the features it finds
/// with those it had, so an offer must not shrink between connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Virtio features. Bit 30 is added if there are protocol features.
    pub features: u64,
    /// Protocol features. Those beyond [`Offer::PROTOCOL_FEATURES`] reach the host as [`super::Action::Request`].
    pub protocol_features: u64,
    /// Rings, not pairs: twice the number of queue pairs, at most 256 (the wire has eight bits for a ring index).
    pub max_queues: u16,
    /// Largest ring, in descriptors.
    pub max_ring_size: u16,
    /// Most memory regions at a time.
    pub max_mem_slots: u16,
    /// The device's configuration space.
    pub config: NetConfig,
}

impl Offer {
    /// The protocol features that [`super::Backend`] serves itself.
    pub const PROTOCOL_FEATURES: u64 = features::PROTOCOL_F_MQ
        | features::PROTOCOL_F_LOG_SHMFD
        | features::PROTOCOL_F_REPLY_ACK
        | features::PROTOCOL_F_RARP
        | features::PROTOCOL_F_NET_MTU
        | features::PROTOCOL_F_STATUS
        | features::PROTOCOL_F_CONFIG
        | features::PROTOCOL_F_CONFIGURE_MEM_SLOTS
        | features::PROTOCOL_F_RESET_DEVICE;

    /// An offer of `features` and everything that this crate serves, for `pairs` queue pairs (at most 128).
    #[must_use]
    pub fn new(features: u64, pairs: u16) -> Self {
        let pairs = pairs.clamp(1, 128);
        Self {
            features,
            protocol_features: Self::PROTOCOL_FEATURES,
            max_queues: pairs * 2,
            max_ring_size: 32768,
            max_mem_slots: 509,
            config: NetConfig { max_pairs: pairs, ..NetConfig::default() },
        }
    }

    /// The virtio features as GET_FEATURES reports them.
    #[must_use]
    pub fn all_features(&self) -> u64 {
        let flag = if self.protocol_features == 0 { 0 } else { VHOST_USER_F_PROTOCOL_FEATURES };
        self.features | flag
    }
}
