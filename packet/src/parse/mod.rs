// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a frame's headers say and where they lie.
//!
//! # Theory of operation
//!
//! One pass over the private window, front to back, no allocation. The first group of headers is read
//! up to its network header. If that carries a tunnel, the group is the *outer* one and the pass goes on
//! with the group inside; else it is the *inner* one, the only one. A tunnel in a tunnel is not looked
//! into: it is UDP or GRE to us.
//!
//! Three things can be wrong with a header, and [`ParseError`] tells them apart: the packet ends before
//! it does, it lies beyond the window, or it contradicts itself. What is merely unknown is no error: the
//! identity then says what is known, and ends there. Whether that is let through is for policy to say.
//!
//! Every length is checked against the packet around it (the frame, or what the outer IP header says),
//! before anything behind it is believed. Ethernet padding behind an IP packet belongs to nothing.
//! Checksums are not verified.
//!
//! Every packet comes through here, so the way of untagged TCP and UDP without a tunnel is one straight
//! line, forced into one function; all that leaves it (tags, extension headers, tunnels, errors) is a call
//! that hands back a small value. Nothing on that line is changed through a reference: it would have to
//! live in memory, and copying it piecemeal on its way to the result costs more than reading the headers.

mod bytes;
mod error;
mod ipv4;
mod ipv6;
mod layout;
mod link;
mod network;
mod quick;
mod quoted;
mod reverse;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transport;
mod tunnel;

pub use error::{Header, ParseError};
pub use layout::{Layout, OuterLayout};
pub use quick::{Quick, QuickTcp};
pub(crate) use quoted::quoted;

use self::{
    bytes::{Packet, offset},
    link::Link,
    network::Network,
    transport::Transport,
    tunnel::Outer,
};
use crate::{EtherType, Ufid};

/// What there is to know about a packet's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Where the headers lie.
    pub layout: Layout,
    /// The identity of the packet's flow.
    pub ufid: Ufid,
    /// What differs between packets of one flow.
    pub transient: Transient,
}

/// Fields that are no part of a [`Ufid`]. What a packet has not is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transient {
    /// Time to live or hop limit of the inner packet.
    pub ttl: u8,
    /// Explicit congestion notification of the inner packet, 0 to 3 (RFC 3168).
    pub ecn: u8,
    /// TCP flags, FIN lowest, CWR highest.
    pub tcp_flags: u8,
    /// Time to live or hop limit of the outer packet.
    pub outer_ttl: u8,
    /// Explicit congestion notification of the outer packet, 0 to 3.
    pub outer_ecn: u8,
    /// Whether more fragments follow this one.
    pub more_fragments: bool,
    /// Where this fragment's payload begins in that of the whole inner packet, in bytes.
    pub fragment_offset: u16,
    /// UDP source port of the outer group.
    pub outer_src_port: u16,
    /// Identification: 16 bits of IPv4, or all of an IPv6 fragment header.
    pub ip_id: u32,
    /// Length of the inner IP packet with its header in bytes, as that header has it.
    pub ip_len: u32,
    /// Bytes behind the inner TCP (with options), UDP or ICMP header, or if [`Layout::transport`] is
    /// `None` behind the IP headers, by the lengths in these headers.
    pub l4_payload_len: u32,
    /// TCP sequence number.
    pub tcp_seq: u32,
    /// TCP acknowledgement number.
    pub tcp_ack: u32,
}

/// Parses the frame of `frame_len` bytes that begins with `window`. Of a window that is longer than
/// the frame the rest is ignored, and so is what lies beyond the first 65535 bytes.
///
/// # Errors
/// If a header is cut short, lies beyond the window, or is impossible.
pub fn parse(window: &[u8], frame_len: u32) -> Result<Parsed, ParseError> {
    let packet = Packet::new(window, frame_len);
    let link = Link::parse(packet, 0)?;
    // A branch for each, to its end: what is constant in one need not be kept for the others.
    match link.ether_type {
        EtherType::IPV4 => first(packet, &link, &ipv4::parse(packet, link.end)?),
        EtherType::IPV6 => first(packet, &link, &ipv6::parse(packet, link.end)?),
        ether_type => inner(packet, &Outer::NONE, &link, &Network::parse(packet, ether_type, link.end)?),
    }
}

/// The first group, which is IP: the outer one if it carries a tunnel, else the only one.
#[inline(always)]
fn first(packet: Packet<'_>, link: &Link, network: &Network) -> Result<Parsed, ParseError> {
    if tunnel::is_possible(packet, link, network)
        && let Some(outer) = tunnel::find(packet, link, network)?
    {
        return encapsulated(packet, &outer);
    }
    inner(packet, &Outer::NONE, link, network)
}

/// The group that an outer one carries.
#[inline(never)]
fn encapsulated(packet: Packet<'_>, outer: &Outer) -> Result<Parsed, ParseError> {
    let packet = packet.until(outer.payload_end);
    let link = match outer.ether_type {
        None => Link::parse(packet, outer.payload)?,
        Some(ether_type) => Link::none(ether_type, outer.payload),
    };
    let network = Network::parse(packet, link.ether_type, link.end)?;
    inner(packet, outer, &link, &network)
}

/// What is left of the inner group is its transport header; then all is known.
#[inline(always)]
fn inner(packet: Packet<'_>, outer: &Outer, link: &Link, network: &Network) -> Result<Parsed, ParseError> {
    let transport = Transport::parse(packet, network)?;
    let [source, destination] = link.addresses;
    let [first, second] = link.vlans;
    let ufid = Ufid::from_words([
        destination | u64::from(link.ether_type.0) << 48,
        source | u64::from(first) << 48,
        network.addresses,
        u64::from(transport.ports) | network.word(),
        outer.destination | u64::from(second) << 48,
        outer.source,
        outer.addresses,
        outer.key,
        network.upper[0],
        network.upper[1],
        network.upper[2],
        outer.upper[0],
        outer.upper[1],
        outer.upper[2],
    ]);
    let layout = Layout {
        outer: outer.layout,
        ethernet: link.at,
        vlans: link.tags,
        network: network.at,
        transport: transport.at,
        fragment_header: network.fragment_header,
        end: offset(transport.end),
    };
    let transient = Transient {
        ttl: network.ttl,
        ecn: network.ecn,
        tcp_flags: transport.tcp_flags,
        outer_ttl: outer.ttl,
        outer_ecn: outer.ecn,
        more_fragments: network.more_fragments,
        fragment_offset: network.fragment_offset,
        outer_src_port: outer.src_port,
        ip_id: network.id,
        ip_len: network.len,
        l4_payload_len: transport.payload_len,
        tcp_seq: transport.tcp_seq,
        tcp_ack: transport.tcp_ack,
    };
    Ok(Parsed { layout, ufid, transient })
}
