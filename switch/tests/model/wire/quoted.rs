// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What ICMP errors quote.

use packet::Fragment;

use super::change::{mend, sum};
use super::fields::{address_place, ip_address, octets};
use super::{Group, ICMP, ICMPV6, TCP, Tuple, UDP, View, byte, half, read};

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// Where its IP header lies, and its transport header.
    network: usize,
    transport: usize,
    /// Where the quotation ends.
    end: usize,
    pub(crate) tuple: Tuple,
}

/// Whether the packet is an ICMP error.
pub(crate) fn is_error(bytes: &[u8]) -> bool {
    let Ok(View { inner: Group { ip: Some(ip), .. }, .. }) = read(bytes) else { return false };
    let kind = byte(bytes, ip.transport).unwrap_or(0);
    ip.fragment == Fragment::Whole
        && match (ip.version, ip.protocol) {
            (4, ICMP) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (6, ICMPV6) => matches!(kind, 1..=4),
            _ => false,
        }
}

/// What an ICMP error quotes, if it has a tuple.
pub(crate) fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let outer = read(bytes).ok()?.inner.ip.filter(|_| is_error(bytes))?;
    let network = outer.transport + 8;
    let quote = bytes.get(network..outer.end)?;
    let (version, header_len, protocol) = match quote.first()? >> 4 {
        4 => (4, usize::from(quote[0] & 15) * 4, *quote.get(9)?),
        6 => (6, 40, *quote.get(6)?),
        _ => return None,
    };
    let transport = network + header_len;
    let port = |offset| half(&bytes[..outer.end], transport + offset).ok();
    let echo = match (version, protocol) {
        (4, ICMP) => Some([0, 8]),
        (6, ICMPV6) => Some([128, 129]),
        _ => None,
    };
    let (source_port, destination_port) = match (protocol, echo) {
        (TCP | UDP, _) => (port(0)?, port(2)?),
        (_, Some(kinds)) if kinds.contains(&byte(bytes, transport).ok()?) => (port(4)?, port(4)?),
        (_, Some(_)) => return None,
        _ => (0, 0),
    };
    let address = |which| {
        let (at, len) = address_place(version, network, which);
        bytes.get(at..at + len).filter(|_| at + len <= outer.end).map(ip_address)
    };
    let tuple = Tuple { protocol, source: address(0)?, source_port, destination: address(1)?, destination_port };
    (version == outer.version).then_some(Quoted { network, transport, end: outer.end, tuple })
}

/// Makes what an ICMP error quotes a packet of another tuple. Of what is not quoted no checksum can be made
/// anew: those that are there follow by what has changed.
pub(crate) fn set_quoted(bytes: &mut [u8], to: Tuple) {
    let Quoted { network, transport, end, tuple } = quoted(bytes).unwrap();
    let version = bytes[network] >> 4;
    let mut changed = 0;
    let mut put = |bytes: &mut [u8], at: usize, new: &[u8]| {
        changed += i64::from(sum(&bytes[at..at + new.len()], 0)) - i64::from(sum(new, 0));
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    for (which, address) in [(0, to.source), (1, to.destination)] {
        put(bytes, address_place(version, network, which).0, &octets(address));
    }
    // The checksum of ICMP for IPv4 does not cover addresses.
    let covers = !(version == 4 && tuple.protocol == ICMP);
    let addresses = std::mem::take(&mut changed);
    let mut put = |bytes: &mut [u8], at: usize, new: &[u8]| {
        changed += i64::from(sum(&bytes[at..at + new.len()], 0)) - i64::from(sum(new, 0));
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    match tuple.protocol {
        TCP | UDP => {
            put(bytes, transport, &to.source_port.to_be_bytes());
            put(bytes, transport + 2, &to.destination_port.to_be_bytes());
        }
        _ if tuple.is_echo() => put(bytes, transport + 4, &to.source_port.to_be_bytes()),
        _ => {}
    }
    let follow = |bytes: &mut [u8], at: usize, changed: i64| {
        let new = (i64::from(half(bytes, at).unwrap()) + changed).rem_euclid(0xffff);
        bytes[at..at + 2].copy_from_slice(&u16::try_from(new).unwrap().to_be_bytes());
    };
    if version == 4 {
        follow(bytes, network + 10, addresses);
    }
    let offset = match tuple.protocol {
        TCP => Some(16),
        UDP => Some(6),
        _ if tuple.is_echo() => Some(2),
        _ => None,
    };
    if let Some(at) = offset.map(|offset| transport + offset).filter(|at| at + 2 <= end) {
        let is_udp = tuple.protocol == UDP;
        if !(is_udp && bytes[at..at + 2] == [0, 0]) {
            follow(bytes, at, changed + if covers { addresses } else { 0 });
            if is_udp && bytes[at..at + 2] == [0, 0] {
                bytes[at..at + 2].fill(0xff);
            }
        }
    }
    mend(bytes);
}
