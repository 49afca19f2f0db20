// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Other values in headers, and checksums summed from scratch.

use core::net::IpAddr;

use packet::Fragment;

use super::fields::{address_place, is_echo, octets, place_of_address};
use super::{GRE, Group, ICMP, ICMPV6, TCP, Tuple, UDP, half, read};

/// Gives the packet other addresses, of its IP version.
pub(crate) fn set_addresses(bytes: &mut [u8], source: IpAddr, destination: IpAddr) {
    let view = read(bytes).unwrap();
    for (which, address) in [(0, source), (1, destination)] {
        let (at, len) = place_of_address(&view.inner, which).unwrap();
        bytes[at..at + len].copy_from_slice(&octets(address));
    }
    mend(bytes);
}

/// Makes the packet one of another tuple, of the same protocol and IP version.
pub(crate) fn set_tuple(bytes: &mut [u8], to: Tuple) {
    let view = read(bytes).unwrap();
    let ip = view.inner.ip.unwrap();
    for (which, address) in [(0, to.source), (1, to.destination)] {
        let (at, len) = address_place(ip.version, view.inner.network, which);
        bytes[at..at + len].copy_from_slice(&octets(address));
    }
    if ip.fragment != Fragment::Later {
        let at = ip.transport;
        if is_echo(bytes, &ip) {
            bytes[at + 4..at + 6].copy_from_slice(&to.source_port.to_be_bytes());
        } else if to.has_ports() {
            bytes[at..at + 2].copy_from_slice(&to.source_port.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&to.destination_port.to_be_bytes());
        }
    }
    mend(bytes);
}

pub(crate) fn set_class(bytes: &mut [u8], group: &Group, class: u8) {
    let at = group.network;
    if bytes[at] >> 4 == 4 {
        bytes[at + 1] = class;
    } else {
        bytes[at] = 0x60 | class >> 4;
        bytes[at + 1] = class << 4 | bytes[at + 1] & 15;
    }
}

pub(crate) fn set_ttl(bytes: &mut [u8], group: &Group, ttl: u8) {
    bytes[group.network + if bytes[group.network] >> 4 == 4 { 8 } else { 7 }] = ttl;
}

/// Makes the lengths of an outer group right after what it carries has grown or shrunk.
pub(crate) fn resize_outer(bytes: &mut [u8], by: i32) {
    let first = network_of_first(bytes);
    let add = |bytes: &mut [u8], at: usize| {
        let new = u16::try_from(i32::from(half(bytes, at).unwrap()) + by).unwrap();
        bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    };
    let (protocol, transport) = if bytes[first] >> 4 == 4 {
        add(bytes, first + 2);
        (bytes[first + 9], first + usize::from(bytes[first] & 15) * 4)
    } else {
        add(bytes, first + 4);
        (bytes[first + 6], first + 40)
    };
    if protocol == UDP {
        add(bytes, transport + 4);
    }
}

fn network_of_first(bytes: &[u8]) -> usize {
    if matches!(half(bytes, 12).unwrap(), 0x8100 | 0x88a8) { 18 } else { 14 }
}

/// Computes all checksums anew, from the inside out. A UDP checksum of 0, which says that there is none,
/// stays; so does that of a fragment's transport header, of which only a part is here.
pub(crate) fn mend(bytes: &mut [u8]) {
    let view = read(bytes).unwrap();
    mend_group(bytes, &view.inner);
    if let Some((group, shim)) = &view.outer {
        mend_group(bytes, group);
        if group.ip.as_ref().unwrap().protocol == GRE && bytes[shim.at] & 0x80 != 0 {
            let at = shim.at;
            bytes[at + 4..at + 6].fill(0);
            let sum = !sum(&bytes[at..shim.end], 0);
            bytes[at + 4..at + 6].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn mend_group(bytes: &mut [u8], group: &Group) {
    let Some(ip) = &group.ip else { return };
    let at = group.network;
    if ip.version == 4 {
        let end = at + usize::from(bytes[at] & 15) * 4;
        bytes[at + 10..at + 12].fill(0);
        let sum = !sum(&bytes[at..end], 0);
        bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if ip.fragment != Fragment::Whole {
        return;
    }
    let start = ip.transport;
    let (offset, pseudo, end) = match ip.protocol {
        TCP => (16, true, ip.end),
        UDP => (6, true, start + usize::from(half(bytes, start + 4).unwrap())),
        ICMP if ip.version == 4 => (2, false, ip.end),
        ICMPV6 if ip.version == 6 => (2, true, ip.end),
        _ => return,
    };
    let field = start + offset..start + offset + 2;
    if ip.protocol == UDP && bytes[field.clone()] == [0, 0] {
        return;
    }
    bytes[field.clone()].fill(0);
    let mut header = 0;
    if pseudo {
        let (source, len) = address_place(ip.version, at, 0);
        header = u32::from(sum(&bytes[source..source + 2 * len], 0))
            + u32::from(ip.protocol)
            + u32::try_from(end - start).unwrap();
    }
    let computed = !sum(&bytes[start..end], header);
    let computed = if computed == 0 && matches!(ip.protocol, TCP | UDP) { 0xffff } else { computed };
    bytes[field].copy_from_slice(&computed.to_be_bytes());
}

/// The sum of all pairs of bytes in ones' complement.
pub(super) fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
