// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the headers of a packet lie in its window.

use crate::Tunnel;

/// Offsets in bytes from the start of the window. All of them, and the fixed part of each header that
/// they name, lie inside the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The headers around the inner group, if there is a tunnel. Then the outer Ethernet header is at 0.
    pub outer: Option<OuterLayout>,
    /// The inner Ethernet header; `None` only in a tunnel that carries IP (GRE).
    pub ethernet: Option<u16>,
    /// VLAN tags behind the inner Ethernet addresses: 0 to 2, four bytes each.
    pub vlans: u8,
    /// The inner network header: IPv4, IPv6 or ARP. `None`: something else.
    pub network: Option<u16>,
    /// The inner transport header, behind IPv4 options and IPv6 extension headers. `None`: not TCP, UDP
    /// or ICMP(v6), a later fragment, or no IP.
    pub transport: Option<u16>,
    /// The IPv6 fragment header of the inner packet, if it has one.
    pub fragment_header: Option<u16>,
    /// Where the headers that were understood end. TCP options are not among them.
    pub end: u16,
}

/// The outer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterLayout {
    /// What carries the inner group; never [`Tunnel::None`].
    pub tunnel: Tunnel,
    /// Whether there is one VLAN tag behind the Ethernet addresses. More than one is not looked into.
    pub vlan: bool,
    /// The IP header.
    pub ip: u16,
    /// The UDP header (VXLAN, Geneve) or the GRE header.
    pub transport: u16,
    /// Where the inner group begins.
    pub end: u16,
}
