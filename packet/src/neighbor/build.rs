// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that ask for an address, and that say whose it is.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    ADVERTISEMENT, ARP_KIND, ARP_REPLY, ARP_REQUEST, HOP_LIMIT, ICMPV6, OVERRIDE, SOLICITATION, SOLICITED, SOURCE_LINK,
    TARGET_LINK, sum_v6,
};
use crate::{EtherType, MacAddr, synth::MIN_LEN};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Asks for `target`. `to` is [`MacAddr::BROADCAST`], or the station that is asked whether it still has it.
#[must_use]
pub fn arp_request(own: (MacAddr, Ipv4Addr), target: Ipv4Addr, to: MacAddr) -> Vec<u8> {
    arp(ARP_REQUEST, own, (MacAddr::ZERO, target), to)
}

/// Says to `to` who has `own.1`.
#[must_use]
pub fn arp_reply(own: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    arp(ARP_REPLY, own, to, to.0)
}

/// Says to all who has `own.1`: gratuitous ARP, in the form that RFC 5227 recommends, a request.
#[must_use]
pub fn arp_announcement(own: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    arp(ARP_REQUEST, own, (MacAddr::ZERO, own.1), MacAddr::BROADCAST)
}

/// Asks for `target`: all that may have it, or if `to` is given one station whether it still has it.
#[must_use]
pub fn solicitation(own: (MacAddr, Ipv6Addr), target: Ipv6Addr, to: Option<MacAddr>) -> Vec<u8> {
    let group = solicited_node(target);
    let (mac, destination) = to.map_or_else(|| (multicast(group), group), |mac| (mac, target));
    discovery([SOLICITATION, 0], target, (SOURCE_LINK, own.0), own, (mac, destination))
}

/// Says to `to`, who asked, who has `own.1`. An asker without an address ([`Ipv6Addr::UNSPECIFIED`]) is
/// told together with all others.
#[must_use]
pub fn advertisement(own: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr)) -> Vec<u8> {
    if to.1.is_unspecified() {
        return unsolicited_advertisement(own);
    }
    discovery([ADVERTISEMENT, SOLICITED | OVERRIDE], own.1, (TARGET_LINK, own.0), own, to)
}

/// Says to all who has `own.1`.
#[must_use]
pub fn unsolicited_advertisement(own: (MacAddr, Ipv6Addr)) -> Vec<u8> {
    discovery([ADVERTISEMENT, OVERRIDE], own.1, (TARGET_LINK, own.0), own, (multicast(ALL_NODES), ALL_NODES))
}

/// The group that whoever has `address` listens to (RFC 4291, 2.7.1).
#[must_use]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet group of an IPv6 group (RFC 2464, 7).
const fn multicast(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

fn arp(operation: u8, own: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr), to: MacAddr) -> Vec<u8> {
    let mut frame = ethernet(to, own.0, EtherType::ARP);
    frame.extend(ARP_KIND);
    frame.extend([0, operation]);
    frame.extend(own.0.0);
    frame.extend(own.1.octets());
    frame.extend(target.0.0);
    frame.extend(target.1.octets());
    frame.resize(MIN_LEN, 0);
    frame
}

fn discovery(
    [kind, flags]: [u8; 2],
    target: Ipv6Addr,
    (option, mac): (u8, MacAddr),
    own: (MacAddr, Ipv6Addr),
    to: (MacAddr, Ipv6Addr),
) -> Vec<u8> {
    const LEN: usize = 32;
    let mut frame = ethernet(to.0, own.0, EtherType::IPV6);
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, HOP_LIMIT]);
    frame.extend(own.1.octets());
    frame.extend(to.1.octets());
    let mut icmp = Vec::with_capacity(LEN);
    icmp.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
    icmp.extend(target.octets());
    icmp.extend([option, 1]);
    icmp.extend(mac.0);
    let [high, low] = sum_v6(own.1, to.1, &icmp).checksum().to_be_bytes();
    if let [_, _, to_high, to_low, ..] = icmp.as_mut_slice() {
        (*to_high, *to_low) = (high, low);
    }
    frame.extend(icmp);
    frame
}

fn ethernet(to: MacAddr, from: MacAddr, ether_type: EtherType) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ether_type.0.to_be_bytes());
    frame
}
