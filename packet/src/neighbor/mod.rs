// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who has an address: ARP (RFC 826, 5227) and IPv6 neighbour discovery (RFC 4861), read and built.
//!
//! Both say the same two things, so both are read as one [`Message`]: somebody asks for an address, or
//! somebody says that it is his. Only untagged frames are looked at: a tagged one is of another link. A
//! message that does not lie in the window as a whole, or that breaks a *must* of its RFC, is none.
//!
//! | message | ARP | `ICMPv6` |
//! |---|---|---|
//! | [`Request`] | request, probe (no sender), announcement (target is the sender) | neighbour solicitation |
//! | [`Answer`] | reply | neighbour advertisement |

mod build;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::build::{
    advertisement, arp_announcement, arp_reply, arp_request, solicitation, solicited_node, unsolicited_advertisement,
};
use crate::{EtherType, EthernetHeader, MacAddr, checksum::Sum};

/// What a frame says about who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks for an address.
    Request(Request),
    /// Somebody says that an address is his.
    Answer(Answer),
}

/// Somebody asks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The asker's address; `None` if it has none yet and asks whether it may have the target.
    pub sender: Option<IpAddr>,
    /// Where the sender says that it is reached; always there in ARP.
    pub mac: Option<MacAddr>,
    /// The frame's source, to which an answer may go if `mac` is not there.
    pub source: MacAddr,
    /// The address asked for. In an ARP announcement it is the sender's own.
    pub target: IpAddr,
}

/// Somebody says that an address is his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub sender: IpAddr,
    /// Where it is reached. `None` only in an advertisement that confirms what the receiver knows.
    pub mac: Option<MacAddr>,
    /// To whom it is said: the target of an ARP reply, or the destination of the IPv6 packet.
    pub recipient: IpAddr,
    /// Whether it says that it was asked. An ARP reply does when it goes to one station.
    pub solicited: bool,
    /// Whether it shall replace what the receiver knows. An ARP reply shall.
    pub overrides: bool,
}

/// ARP for IPv4 over Ethernet: hardware and protocol type, lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

const ICMPV6: u8 = 58;
/// What no router has touched: the sender is on the link.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Options: the link-layer address of the sender, and of the target.
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

impl Message {
    /// The message in the frame that begins with `window`; `None` if it is none, or breaks the rules.
    #[must_use]
    pub fn parse(window: &[u8]) -> Option<Self> {
        let ethernet = EthernetHeader::parse(window)?;
        let packet = window.get(EthernetHeader::LEN..)?;
        match ethernet.ether_type() {
            EtherType::ARP => arp(ethernet, packet),
            EtherType::IPV6 => discovery(ethernet, packet),
            _ => None,
        }
    }
}

fn arp(ethernet: EthernetHeader<'_>, packet: &[u8]) -> Option<Message> {
    let [kind @ .., _, _] = packet.first_chunk::<8>()?;
    let [_, _, _, _, _, _, 0, operation, body @ ..] = packet.first_chunk::<28>()? else { return None };
    let [m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = *body;
    let mac = MacAddr([m0, m1, m2, m3, m4, m5]);
    let (sender, target) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(t0, t1, t2, t3));
    if *kind != ARP_KIND || !mac.is_unicast() || !(sender.is_unspecified() || can_be_a_host(sender)) {
        return None;
    }
    match *operation {
        ARP_REQUEST if can_be_a_host(target) => Some(Message::Request(Request {
            sender: (!sender.is_unspecified()).then_some(sender.into()),
            mac: Some(mac),
            source: ethernet.source(),
            target: target.into(),
        })),
        ARP_REPLY if !sender.is_unspecified() => Some(Message::Answer(Answer {
            sender: sender.into(),
            mac: Some(mac),
            recipient: target.into(),
            solicited: ethernet.destination().is_unicast() && target != sender,
            overrides: true,
        })),
        _ => None,
    }
}

/// RFC 4861, 7.1. A message behind extension headers is none of ours: nobody sends such.
fn discovery(ethernet: EthernetHeader<'_>, packet: &[u8]) -> Option<Message> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let [version, _, _, _, len0, len1, ICMPV6, HOP_LIMIT, addresses @ ..] = header else { return None };
    let (source, destination) = halves(addresses)?;
    let icmp = rest.get(..usize::from(u16::from_be_bytes([*len0, *len1])))?;
    let ([kind, code, _, _, flags, _, _, _, target @ ..], options) = icmp.split_first_chunk::<24>()?;
    let target = Ipv6Addr::from(*target);
    if version >> 4 != 6 || *code != 0 || target.is_multicast() || target.is_unspecified() || source.is_multicast() {
        return None;
    }
    let wanted = if *kind == SOLICITATION { SOURCE_LINK } else { TARGET_LINK };
    let link = link_option(options, wanted)?;
    if sum_v6(source, destination, icmp).checksum() != 0 || link.is_some_and(|mac| !mac.is_unicast()) {
        return None;
    }
    match *kind {
        SOLICITATION if source.is_unspecified() => {
            (link.is_none() && destination == solicited_node(target)).then(|| {
                Message::Request(Request { sender: None, mac: None, source: ethernet.source(), target: target.into() })
            })
        }
        SOLICITATION => Some(Message::Request(Request {
            sender: Some(source.into()),
            mac: link,
            source: ethernet.source(),
            target: target.into(),
        })),
        ADVERTISEMENT if flags & SOLICITED != 0 && destination.is_multicast() || source.is_unspecified() => None,
        ADVERTISEMENT => Some(Message::Answer(Answer {
            sender: target.into(),
            mac: link,
            recipient: destination.into(),
            solicited: flags & SOLICITED != 0,
            overrides: flags & OVERRIDE != 0,
        })),
        _ => None,
    }
}

/// The link-layer address in the options, if one is there. `None` outside if they are malformed.
#[expect(clippy::option_option, reason = "malformed is not absent")]
fn link_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [kind, units, ..] = options {
        let len = usize::from(*units).saturating_mul(8);
        let (option, rest) = options.split_at_checked(len)?;
        // An empty option would be met for ever.
        let [_, _, body @ ..] = option else { return None };
        if *kind == wanted && found.is_none() {
            let octets: &[u8; 6] = body.first_chunk()?;
            found = Some(MacAddr(*octets));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

fn halves(addresses: &[u8; 32]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    Some((Ipv6Addr::from(*addresses.first_chunk::<16>()?), Ipv6Addr::from(*addresses.last_chunk::<16>()?)))
}

/// The sum over an `ICMPv6` message and its pseudo-header.
fn sum_v6(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> Sum {
    let mut sum = Sum::new();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    sum.add_value(ICMPV6.into());
    // Its length field has 16 bits.
    sum.add_value(u16::try_from(icmp.len()).unwrap_or(u16::MAX));
    sum.add(icmp);
    sum
}

/// Whether an address can be that of one station.
const fn can_be_a_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}
