// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tunnels around an oversized packet: VXLAN, Geneve, GRE and NVGRE.
//!
//! That there is one was said by the offload metadata: the checksum to be finished lies deeper than the first
//! transport header. So, other than in [`parse`](mod@crate::parse), any UDP port may carry VXLAN, whose port
//! 8472 is as common as the standard's. Whether the guess was right shows where the inner packet ends up.

use super::{
    SegmentError,
    layout::{Ip, Shim, byte, half, network_layer},
};
use crate::{EtherType, parse::transport::UDP};

pub(super) const GRE: u8 = 47;
/// Flags of GRE.
pub(super) const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GENEVE_PORT: u16 = 6081;
const UDP_LEN: usize = 8;
const VXLAN_LEN: usize = 8;
const GENEVE_LEN: usize = 8;
/// Transparent Ethernet bridging: the payload is an Ethernet frame.
const BRIDGING: EtherType = EtherType(0x6558);

/// What carries the packet inside `ip`, and where that begins, with its type.
pub(super) fn inside(frame: &[u8], ip: &Ip) -> Result<(Shim, usize, EtherType), SegmentError> {
    let unknown = SegmentError::UnknownTunnel { at: ip.l4 };
    let (shim, at, ether_type) = match ip.protocol {
        UDP if half(frame, ip.l4.saturating_add(2))? == GENEVE_PORT => geneve(frame, ip.l4.saturating_add(UDP_LEN))?,
        UDP => vxlan(frame, ip.l4.saturating_add(UDP_LEN))?,
        GRE => gre(frame, ip.l4)?,
        _ => return Err(SegmentError::WrongProtocol { protocol: ip.protocol }),
    };
    match ether_type {
        BRIDGING => network_layer(frame, at).map(|(at, ether_type)| (shim, at, ether_type)),
        EtherType::IPV4 | EtherType::IPV6 => Ok((shim, at, ether_type)),
        _ => Err(unknown),
    }
}

fn vxlan(frame: &[u8], at: usize) -> Result<(Shim, usize, EtherType), SegmentError> {
    const KEY_VALID: u8 = 0x08;
    if byte(frame, at)? & KEY_VALID == 0 {
        return Err(SegmentError::UnknownTunnel { at });
    }
    Ok((Shim::Udp, at.saturating_add(VXLAN_LEN), BRIDGING))
}

fn geneve(frame: &[u8], at: usize) -> Result<(Shim, usize, EtherType), SegmentError> {
    let first = byte(frame, at)?;
    if first >> 6 != 0 {
        return Err(SegmentError::UnknownTunnel { at });
    }
    let options = usize::from(first & 0x3f).saturating_mul(4);
    let ether_type = EtherType(half(frame, at.saturating_add(2))?);
    Ok((Shim::Udp, at.saturating_add(GENEVE_LEN).saturating_add(options), ether_type))
}

fn gre(frame: &[u8], at: usize) -> Result<(Shim, usize, EtherType), SegmentError> {
    let flags = half(frame, at)?;
    if flags & !(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE) != 0 {
        return Err(SegmentError::UnknownTunnel { at });
    }
    let ether_type = EtherType(half(frame, at.saturating_add(2))?);
    let fields = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE].into_iter().filter(|flag| flags & flag != 0).count();
    let shim = Shim::Gre { has_checksum: flags & GRE_CHECKSUM != 0, has_sequence: flags & GRE_SEQUENCE != 0 };
    Ok((shim, at.saturating_add(4).saturating_add(fields.saturating_mul(4)), ether_type))
}
