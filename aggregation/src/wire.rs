// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers of the wire format. `docs/aggregate-frame.md` says what they mean.

/// The only version there is.
pub const VERSION: u8 = 1;
/// Bytes of the common header without a check word.
pub const HEADER: usize = 8;
/// Bytes of the common header with a check word.
pub const HEADER_CHECKED: usize = 12;
/// Bytes of a group header.
pub const GROUP_HEADER: usize = 12;
/// Bytes of a sub-frame's header.
pub const SUBFRAME_HEADER: usize = 4;
/// Bytes of a TLV's header.
pub const TLV_HEADER: usize = 4;
/// Bytes of an Ethernet header, and of what a template holds of it.
pub const ETHERNET: usize = 14;
/// Bytes that a template takes up.
pub const TEMPLATE: usize = 16;
/// Bytes of the longest frame.
pub const MAX_FRAME: usize = 65_535;
/// Bytes of a group's CRC, with its TLV header.
pub const GROUP_CRC: usize = 8;

/// EtherType by default: IEEE 802 local experimental 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// UDP destination port by default.
pub const UDP_PORT: u16 = 34_997;
/// Where a HELLO goes on an Ethernet link: a locally administered group address.
pub const HELLO_ADDRESS: [u8; 6] = [0x03, 0x53, 0x48, 0x55, 0x4e, 0x54];

/// Flags of the common header.
pub mod frame_flag {
    /// A control frame.
    pub const CONTROL: u8 = 0x80;
    /// Reserved for lengths in words.
    pub const LARGE: u8 = 0x40;
    /// There is a check word.
    pub const CHECKED: u8 = 0x20;
    /// Flags that a reader must know.
    pub const CRITICAL: u8 = LARGE | 0x10;
}

/// Flags of a group header; the low three bits are the class.
pub mod group_flag {
    /// The sender believes that all packets are of one flow.
    pub const UNIFORM: u8 = 0x80;
    /// An Ethernet template stands before the sub-frames.
    pub const TEMPLATE: u8 = 0x40;
    /// Flags that a reader must know.
    pub const CRITICAL: u8 = 0x20;
    /// The class.
    pub const CLASS: u8 = 0x07;
}

/// Flags of a sub-frame.
pub mod subframe_flag {
    /// The checksum is unfinished: four bytes of extension.
    pub const CHECKSUM: u8 = 0x80;
    /// To be segmented: eight bytes of extension.
    pub const GSO: u8 = 0x40;
    /// A flow id: four bytes of extension.
    pub const FLOW: u8 = 0x20;
    /// Reserved for a time stamp: eight bytes of extension.
    pub const TIMESTAMP: u8 = 0x10;
    /// The checksum was verified.
    pub const VERIFIED: u8 = 0x08;
}

/// So many bytes, padded to a multiple of four.
#[inline]
#[must_use]
pub const fn padded(len: usize) -> usize {
    len.saturating_add(3) & !3
}
