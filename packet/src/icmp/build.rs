// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! "Fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443, 3.2), to the sender of a packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{LEN, addresses_v4, addresses_v6};
use crate::{
    EthernetHeader, Field, Fragment, Parsed,
    checksum::{Sum, checksum},
    parse::transport::{ICMP, ICMPV6},
};

const IPV4: usize = 20;
const IPV6: usize = 40;
/// Longest error of each version (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c).
const MAX_V4: usize = 576;
const MAX_V6: usize = 1280;
/// What must be quoted besides the header (RFC 792).
const LEAST_PAYLOAD: usize = 8;
const DONT_FRAGMENT: u8 = 0x40;
const TTL: u8 = 64;
/// Precedence "internetwork control" (RFC 1812, 4.3.2.5).
const CLASS: u8 = 0xc0;

/// The frame that tells the sender of a packet that it does not fit into `mtu` bytes. `window` begins the
/// packet's frame as it was sent, of which the inner group is answered: MAC addresses exchanged, the same
/// VLAN tags. `source` is who says so.
///
/// `None` where no such error may be sent: about ICMP errors and redirects; about later fragments; to or
/// from what is not one station; about an IPv4 packet that may be fragmented. Also if `source` is of
/// another version, and if too little of the packet is in the window.
#[must_use]
pub fn too_big(window: &[u8], parsed: &Parsed, mtu: u16, source: IpAddr) -> Option<Vec<u8>> {
    let ip = usize::from(parsed.layout.network?);
    let ethernet = usize::from(parsed.layout.ethernet?);
    let header = window.get(ethernet..)?;
    let link = EthernetHeader::parse(header)?;
    if !link.destination().is_unicast() || !link.source().is_unicast() || is_unanswerable(parsed) {
        return None;
    }
    // Tags and EtherType.
    let rest = window.get(ethernet.checked_add(12)?..ip)?;
    let packet = window.get(ip..)?;
    let packet = packet.get(..usize::try_from(parsed.transient.ip_len).ok()?).unwrap_or(packet);
    let mut frame = Vec::with_capacity(window.len().saturating_add(64));
    frame.extend(link.source().0);
    frame.extend(link.destination().0);
    frame.extend(rest);
    let version = parsed.ufid.get(Field::IpVersion);
    match (version, source) {
        (4, IpAddr::V4(source)) => fragmentation_needed(&mut frame, packet, mtu, source)?,
        (6, IpAddr::V6(source)) => packet_too_big(&mut frame, packet, mtu, source)?,
        _ => return None,
    }
    Some(frame)
}

/// Whether a packet is a later fragment, or an ICMP message that no error is sent about.
fn is_unanswerable(parsed: &Parsed) -> bool {
    const REDIRECT: u128 = 137;
    let kind = parsed.ufid.get(Field::L4Dst) >> 8;
    let is_message = match (parsed.ufid.get(Field::IpVersion), parsed.ufid.get(Field::IpProto)) {
        (4, proto) if proto == u128::from(ICMP) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (6, proto) if proto == u128::from(ICMPV6) => kind < 128 || kind == REDIRECT,
        _ => false,
    };
    is_message || parsed.ufid.get(Field::Fragment) == Fragment::Later as u128
}

fn fragmentation_needed(frame: &mut Vec<u8>, packet: &[u8], mtu: u16, source: Ipv4Addr) -> Option<()> {
    let [first, _, _, _, _, _, flags, ..] = packet.first_chunk::<IPV4>()?;
    let (IpAddr::V4(sender), IpAddr::V4(destination)) = addresses_v4(packet)? else { return None };
    let is_one = |address: Ipv4Addr| {
        !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
    };
    if flags & DONT_FRAGMENT == 0 || !is_one(sender) || !is_one(destination) {
        return None;
    }
    let header_len = usize::from(first & 0xf).saturating_mul(4);
    let quote = packet.get(..MAX_V4.saturating_sub(IPV4).saturating_sub(LEN)).unwrap_or(packet);
    if quote.len() < header_len.saturating_add(LEAST_PAYLOAD).min(usize::from(total_len(packet)?)) {
        return None;
    }
    let len = u16::try_from(quote.len().saturating_add(IPV4).saturating_add(LEN)).ok()?;
    let [l, m] = len.to_be_bytes();
    let [a, b, c, d] = source.octets();
    let [e, f, g, h] = sender.octets();
    let header = |x, y| [0x45, CLASS, l, m, 0, 0, DONT_FRAGMENT, 0, TTL, ICMP, x, y, a, b, c, d, e, f, g, h];
    let [x, y] = checksum(&header(0, 0)).to_be_bytes();
    frame.extend(header(x, y));
    let [n, o] = mtu.to_be_bytes();
    message(frame, Sum::new(), [3, 4], [0, 0, n, o], quote);
    Some(())
}

fn packet_too_big(frame: &mut Vec<u8>, packet: &[u8], mtu: u16, source: Ipv6Addr) -> Option<()> {
    let (IpAddr::V6(sender), IpAddr::V6(destination)) = addresses_v6(packet)? else { return None };
    let is_one = |address: Ipv6Addr| !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
    if !is_one(sender) || !is_one(destination) {
        return None;
    }
    let quote = packet.get(..MAX_V6.saturating_sub(IPV6).saturating_sub(LEN)).unwrap_or(packet);
    let len = u16::try_from(quote.len().saturating_add(LEN)).ok()?;
    let [l, m] = len.to_be_bytes();
    frame.extend([0x60 | CLASS >> 4, CLASS << 4, 0, 0, l, m, ICMPV6, TTL]);
    frame.extend(source.octets());
    frame.extend(sender.octets());
    let mut pseudo = Sum::new();
    pseudo.add(&source.octets());
    pseudo.add(&sender.octets());
    pseudo.add_value(ICMPV6.into());
    pseudo.add_value(len);
    let [n, o] = mtu.to_be_bytes();
    message(frame, pseudo, [2, 0], [0, 0, n, o], quote);
    Some(())
}

fn message(frame: &mut Vec<u8>, pseudo: Sum, [kind, code]: [u8; 2], rest: [u8; 4], quote: &[u8]) {
    let mut sum = pseudo;
    sum.add(&[kind, code]);
    sum.add(&rest);
    sum.add(quote);
    frame.extend([kind, code]);
    frame.extend(sum.checksum().to_be_bytes());
    frame.extend(rest);
    frame.extend(quote);
}

fn total_len(packet: &[u8]) -> Option<u16> {
    let [_, _, high, low] = *packet.first_chunk()?;
    Some(u16::from_be_bytes([high, low]))
}
