// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TCP, UDP and ICMP.

use super::{
    Header, ParseError,
    bytes::{Packet, impossible, offset, wide},
    network::Network,
};
use crate::Fragment;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Types of an ICMP echo: request and reply.
pub(crate) const ECHO: [u8; 2] = [8, 0];
/// Types of an `ICMPv6` echo: request and reply.
pub(crate) const ECHO_V6: [u8; 2] = [128, 129];

const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;

/// The transport header of the inner group, in the form of a UFID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transport {
    /// Where it begins; `None` if it is not understood or not there.
    pub(super) at: Option<u16>,
    /// L4 source, and above it L4 destination.
    pub(super) ports: u32,
    pub(super) tcp_flags: u8,
    pub(super) tcp_seq: u32,
    pub(super) tcp_ack: u32,
    pub(super) payload_len: u32,
    /// Where the headers end that were understood. TCP options are not among them.
    pub(super) end: usize,
}

impl Transport {
    #[inline(always)]
    pub(super) fn parse(packet: Packet<'_>, network: &Network) -> Result<Self, ParseError> {
        if network.fragment == Fragment::Later {
            return Ok(Self::none(network));
        }
        let packet = packet.until(network.packet_end);
        match (network.version, network.protocol) {
            (4 | 6, TCP) => tcp(packet, network.end),
            (4 | 6, UDP) => udp(packet, network),
            (4, ICMP) => icmp(packet, network.end, ECHO),
            (6, ICMPV6) => icmp(packet, network.end, ECHO_V6),
            _ => Ok(Self::none(network)),
        }
    }

    #[inline]
    fn none(network: &Network) -> Self {
        let payload_len = wide(network.packet_end.saturating_sub(network.end));
        Self { at: None, ports: 0, tcp_flags: 0, tcp_seq: 0, tcp_ack: 0, payload_len, end: network.end }
    }
}

/// The ports and length of a UDP header, checked.
#[inline]
pub(super) fn udp_header(packet: Packet<'_>, network: &Network) -> Result<(u32, usize), ParseError> {
    let at = network.end;
    let [s0, s1, d0, d1, l0, l1, _, _] = packet.header::<UDP_LEN>(at, Header::Udp)?;
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    if len < UDP_LEN {
        return Err(impossible(Header::Udp, at, len));
    }
    // Of a first fragment the length is that of the whole datagram.
    if network.fragment == Fragment::Whole {
        packet.contains(at, len, Header::Udp)?;
    }
    Ok((ports([*s0, *s1, *d0, *d1]), len))
}

#[inline(always)]
fn tcp(packet: Packet<'_>, at: usize) -> Result<Transport, ParseError> {
    let header = packet.header::<TCP_LEN>(at, Header::Tcp)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, data_offset, flags, ..] = header;
    let len = usize::from(data_offset >> 4).saturating_mul(4);
    if len < TCP_LEN {
        return Err(impossible(Header::Tcp, at, len));
    }
    let payload = packet.contains(at, len, Header::Tcp)?;
    Ok(Transport {
        at: Some(offset(at)),
        ports: ports([*s0, *s1, *d0, *d1]),
        tcp_flags: *flags,
        tcp_seq: u32::from_be_bytes([*q0, *q1, *q2, *q3]),
        tcp_ack: u32::from_be_bytes([*a0, *a1, *a2, *a3]),
        payload_len: wide(packet.end().saturating_sub(payload)),
        end: at.saturating_add(TCP_LEN),
    })
}

#[inline]
fn udp(packet: Packet<'_>, network: &Network) -> Result<Transport, ParseError> {
    let (ports, _) = udp_header(packet, network)?;
    Ok(without_tcp(packet, network.end, UDP_LEN, ports))
}

/// The identifier is part of the identity only where it names a conversation: in an echo.
fn icmp(packet: Packet<'_>, at: usize, echo: [u8; 2]) -> Result<Transport, ParseError> {
    let [kind, code, _, _, id0, id1, _, _] = packet.header::<ICMP_LEN>(at, Header::Icmp)?;
    let id = if echo.contains(kind) { [*id0, *id1] } else { [0; 2] };
    Ok(without_tcp(packet, at, ICMP_LEN, ports([id[0], id[1], *kind, *code])))
}

#[inline]
fn without_tcp(packet: Packet<'_>, at: usize, len: usize, ports: u32) -> Transport {
    let end = at.saturating_add(len);
    let payload_len = wide(packet.end().saturating_sub(end));
    Transport { at: Some(offset(at)), ports, tcp_flags: 0, tcp_seq: 0, tcp_ack: 0, payload_len, end }
}

/// From the order of the wire to that of a UFID, source lowest.
#[inline]
const fn ports(wire: [u8; 4]) -> u32 {
    u32::from_be_bytes(wire).rotate_left(16)
}
