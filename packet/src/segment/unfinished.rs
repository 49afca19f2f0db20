// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether an unfinished checksum is that of a header that has one.
//!
//! Who finishes a checksum writes two bytes of the sender's choice. Policy has judged the frame before, so these may not be
//! bytes that it judged, nor any that it would judge once a tunnel's headers are taken off. The headers are therefore
//! followed to where the sum starts, as they are for cutting; there must be one whose checksum lies where it is said to.

use super::{
    SegmentError,
    layout::{Ip, IpVersion, half, network_layer},
    tunnel::{GRE, GRE_CHECKSUM, inside},
};
use crate::{
    EtherType,
    parse::transport::{TCP, UDP},
};

/// Tunnels in one another that are looked into: more than senders have a use for.
const MAX_TUNNELS: usize = 3;

/// IP in IP (RFC 2003, RFC 4213).
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// Whether the sum from `start` on, with its field at `start + offset`, is that of a TCP, UDP or GRE header of the frame that
/// begins with `window`, in a tunnel or not.
pub(crate) fn is_of_header(window: &[u8], start: u16, offset: u16) -> bool {
    find(window, start.into(), offset.into()).unwrap_or(false)
}

fn find(window: &[u8], start: usize, offset: usize) -> Result<bool, SegmentError> {
    let (mut l3, mut ether_type) = network_layer(window, 0)?;
    let mut content = window;
    for _ in 0..=MAX_TUNNELS {
        let Some(version) = IpVersion::of(ether_type) else { return Ok(false) };
        let Some(ip) = Ip::find(content, l3, version)? else { return Ok(false) };
        if start <= ip.l4 {
            let (field, len) = match ip.protocol {
                TCP => (16, 20),
                UDP => (6, 8),
                GRE if half(content, ip.l4)? & GRE_CHECKSUM != 0 => (4, 8),
                _ => return Ok(false),
            };
            return Ok(start == ip.l4 && offset == field && ip.l4.saturating_add(len) <= ip.end.min(content.len()));
        }
        content = content.get(..ip.end).unwrap_or(content);
        (l3, ether_type) = match ip.protocol {
            IPV4 => (ip.l4, EtherType::IPV4),
            IPV6 => (ip.l4, EtherType::IPV6),
            _ => inside(content, &ip).map(|(_, l3, ether_type)| (l3, ether_type))?,
        };
    }
    Ok(false)
}
