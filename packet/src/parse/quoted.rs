// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The IP header of a packet that an ICMP error quotes, most of which is not there.

use super::{bytes::Packet, ipv4, ipv6};
use crate::Fragment;

/// What is known of a packet whose end was cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    pub(crate) protocol: u8,
    pub(crate) fragment: Fragment,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// Where the packet ended before it was cut.
    pub(crate) packet_end: usize,
}

/// Reads the header of a version that begins at `at`. `None` if it is impossible, or not there as a whole.
pub(crate) fn quoted(window: &[u8], at: usize, version: u8) -> Option<Quoted> {
    let packet = Packet::new(window, u32::MAX);
    let network = if version == 4 { ipv4::parse(packet, at) } else { ipv6::parse(packet, at) }.ok()?;
    Some(Quoted {
        protocol: network.protocol,
        fragment: network.fragment,
        transport: network.end,
        packet_end: network.packet_end,
    })
}
