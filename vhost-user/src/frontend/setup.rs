// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a front end is given, and what it finds.

use crate::backend::Offer;
use crate::wire::{Region, VringAddresses};

/// What a front end wants of any back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendConfig {
    /// Virtio features to acknowledge where offered.
    pub features: u64,
    /// Those of them without which there is no point.
    pub required: u64,
    /// Protocol features to acknowledge where offered.
    pub protocol_features: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// Whose habits to follow.
    pub order: Order,
}

impl FrontendConfig {
    /// Wants `features`, requires none, acknowledges the protocol features that this crate knows how to use, in
    /// virtio-user's order.
    #[must_use]
    pub fn new(features: u64, pairs: u16) -> Self {
        Self { features, required: 0, protocol_features: Offer::PROTOCOL_FEATURES, pairs, order: Order::VirtioUser }
    }
}

/// In which order a device is started; both are legal, and real back ends were written against one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// DPDK: call descriptors of all rings, features, memory table, each ring, enable.
    VirtioUser,
    /// QEMU: enable, call descriptors, features, regions one by one (if the back end can), each ring with its call
    /// descriptor.
    Qemu,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// Virtio features, without the protocol features' bit.
    pub features: u64,
    /// Protocol features.
    pub protocol_features: u64,
    /// Queue pairs of the back end; `None` if it did not say.
    pub max_pairs: Option<u64>,
    /// Memory regions that the back end takes: 8 if it did not say.
    pub max_mem_slots: u64,
}

/// What a device is started with. Descriptors are moved into the messages.
#[derive(Debug)]
pub struct DeviceSetup<F> {
    /// Memory, each region with its file.
    pub memory: Vec<(Region, F)>,
    /// Rings by index: two for each pair, first the one that we receive from, then the one that we send to.
    pub queues: Vec<QueueSetup<F>>,
    /// Pairs to enable; others start disabled.
    pub enabled_pairs: u16,
}

/// What a ring is started with.
#[derive(Debug)]
pub struct QueueSetup<F> {
    /// Descriptors.
    pub size: u16,
    /// As the ring layout defines it; a fresh packed ring begins at `0x8000_8000` (virtio-user sends `0x8000`), a
    /// split ring at 0.
    pub base: u32,
    /// In the space of the regions' `user_addr`.
    pub addresses: VringAddresses,
    /// With which we wake the back end; `None`: it must poll.
    pub kick: Option<F>,
    /// With which it wakes us; `None`: we poll.
    pub call: Option<F>,
    /// With which it reports a broken ring; `None`: the message is not sent.
    pub err: Option<F>,
}
