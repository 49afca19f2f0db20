// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One packet, and what is known of it besides its bytes.

use ::packet::Offload;

/// What a packet has besides its bytes. It arrives with the packet and leaves with it, unless the CNF changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// What the switch calls the packet's flow: opaque, to be given back as it came. Only aggregates carry it.
    pub flow: Option<u32>,
    /// What the sender left undone. Nothing, unless the configuration says that the CNF takes unfinished packets.
    pub offload: Offload,
}

/// A packet to look at or to send: bytes of the Ethernet frame, from its destination address on and without its check
/// sequence.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The frame.
    pub bytes: &'a [u8],
    /// What is known of it.
    pub meta: Meta,
}

impl<'a> Packet<'a> {
    /// A finished frame of which nothing more is known.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, meta: Meta::default() }
    }
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(bytes)
    }
}
