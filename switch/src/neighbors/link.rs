// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an uplink is on its link: its addresses, its prefixes, its gateways; and the frames in which it
//! says so.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{MacAddr, neighbor};

use super::{NeighborsConfig, NeighborsError};

/// The uplink itself; never changes.
#[derive(Debug)]
pub(super) struct Link {
    mac: MacAddr,
    /// Longest prefix first, so that the first that covers an address is the closest.
    addresses: Vec<(IpAddr, u8)>,
    gateway_v4: Option<IpAddr>,
    gateway_v6: Option<IpAddr>,
}

impl Link {
    pub(super) fn new(config: &NeighborsConfig) -> Result<Self, NeighborsError> {
        if !config.mac.is_unicast() {
            return Err(NeighborsError::BadMac { mac: config.mac });
        }
        for &(address, prefix) in &config.addresses {
            if !is_host(address) {
                return Err(NeighborsError::BadAddress { address });
            }
            if prefix > bits(address) {
                return Err(NeighborsError::BadPrefix { address, prefix });
            }
        }
        let mut addresses = config.addresses.clone();
        addresses.sort_by_key(|(_, prefix)| std::cmp::Reverse(*prefix));
        let link = Self {
            mac: config.mac,
            addresses,
            gateway_v4: config.gateway_v4.map(IpAddr::V4),
            gateway_v6: config.gateway_v6.map(IpAddr::V6),
        };
        for gateway in [link.gateway_v4, link.gateway_v6].into_iter().flatten() {
            if !link.is_neighbor(gateway) {
                return Err(NeighborsError::BadGateway { gateway });
            }
        }
        Ok(link)
    }

    pub(super) const fn mac(&self) -> MacAddr {
        self.mac
    }

    pub(super) fn addresses(&self) -> &[(IpAddr, u8)] {
        &self.addresses
    }

    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// Whether an address can be that of another station on the link. A link-local one is, whatever
    /// prefixes there are, if IPv6 is spoken at all.
    pub(super) fn is_neighbor(&self, address: IpAddr) -> bool {
        if !is_host(address) || self.is_own(address) {
            return false;
        }
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => self.addresses.iter().any(|(own, _)| own.is_ipv6()),
            _ => self.around(address).is_some_and(|own| !is_broadcast_of(own, address)),
        }
    }

    /// The longest prefix that has an address.
    fn around(&self, address: IpAddr) -> Option<(IpAddr, u8)> {
        self.addresses.iter().copied().find(|own| covers(*own, address))
    }

    /// To whom a packet for `destination` goes.
    pub(super) fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if !is_host(destination) || self.is_own(destination) {
            return None;
        }
        if self.is_neighbor(destination) {
            return Some(destination);
        }
        // What a prefix covers and is no neighbour is its broadcast.
        if self.around(destination).is_some() {
            return None;
        }
        match destination {
            IpAddr::V4(_) => self.gateway_v4,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
            IpAddr::V6(_) => self.gateway_v6,
        }
    }

    /// The own address from which `destination` is best spoken to: that with the longest prefix around the
    /// next hop, else the first of its version.
    pub(super) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let hop = self.next_hop(destination).unwrap_or(destination);
        let first = || self.addresses.iter().copied().find(|(own, _)| own.is_ipv4() == hop.is_ipv4());
        self.around(hop).or_else(first).map(|(own, _)| own)
    }

    /// The frame that asks for `target`: all, or one station. `None` without an address to ask from.
    pub(super) fn ask(&self, target: IpAddr, to: Option<MacAddr>) -> Option<Vec<u8>> {
        match (target, self.source_for(target)?) {
            (IpAddr::V4(target), IpAddr::V4(own)) => {
                Some(neighbor::arp_request((self.mac, own), target, to.unwrap_or(MacAddr::BROADCAST)))
            }
            (IpAddr::V6(target), IpAddr::V6(own)) => Some(neighbor::solicitation((self.mac, own), target, to)),
            _ => None,
        }
    }

    /// The frame that answers a request for an own address.
    pub(super) fn answer(&self, request: &neighbor::Request) -> Option<Vec<u8>> {
        let to = request.mac.unwrap_or(request.source);
        match (request.target, request.sender) {
            (IpAddr::V4(own), Some(IpAddr::V4(sender))) => Some(neighbor::arp_reply((self.mac, own), (to, sender))),
            (IpAddr::V4(own), None) => Some(neighbor::arp_reply((self.mac, own), (to, Ipv4Addr::UNSPECIFIED))),
            (IpAddr::V6(own), Some(IpAddr::V6(sender))) => Some(neighbor::advertisement((self.mac, own), (to, sender))),
            (IpAddr::V6(own), None) => Some(neighbor::advertisement((self.mac, own), (to, Ipv6Addr::UNSPECIFIED))),
            _ => None,
        }
    }

    /// The frames that tell all stations of the own addresses.
    pub(super) fn announcements(&self) -> Vec<Vec<u8>> {
        let announce = |(own, _): &(IpAddr, u8)| match own {
            IpAddr::V4(own) => neighbor::arp_announcement((self.mac, *own)),
            IpAddr::V6(own) => neighbor::unsolicited_advertisement((self.mac, *own)),
        };
        self.addresses.iter().map(announce).collect()
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether an address can be that of one station.
fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(is_broadcast || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

fn covers((own, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    // A shift by all bits there are, of prefix 0, leaves nothing.
    match (own, address) {
        (IpAddr::V4(own), IpAddr::V4(address)) => {
            let difference = own.to_bits() ^ address.to_bits();
            difference.checked_shr(32_u32.saturating_sub(prefix.into())).unwrap_or(0) == 0
        }
        (IpAddr::V6(own), IpAddr::V6(address)) => {
            let difference = own.to_bits() ^ address.to_bits();
            difference.checked_shr(128_u32.saturating_sub(prefix.into())).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether an address is the first or last of a prefix that covers it: the broadcast addresses of IPv4,
/// except of point-to-point links (RFC 3021).
fn is_broadcast_of((own, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    let (IpAddr::V4(_), IpAddr::V4(address)) = (own, address) else { return false };
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    prefix < 31 && (address.to_bits() & hosts == 0 || address.to_bits() & hosts == hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link() -> Link {
        Link::new(&config()).unwrap()
    }

    fn config() -> NeighborsConfig {
        NeighborsConfig {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec![
                (ip("10.1.0.1"), 16),
                (ip("10.1.2.1"), 24),
                (ip("192.0.2.6"), 31),
                (ip("fd00::1"), 64),
                (ip("fd00::1:0:0:1"), 128),
            ],
            gateway_v4: Some([10, 1, 0, 254].into()),
            gateway_v6: Some("fe80::1".parse().unwrap()),
            ..NeighborsConfig::default()
        }
    }

    #[test]
    fn the_next_hop_is_on_the_link_or_the_gateway() {
        let link = link();
        for (destination, hop, source) in [
            ("10.1.0.7", Some("10.1.0.7"), "10.1.0.1"),
            ("10.1.2.7", Some("10.1.2.7"), "10.1.2.1"),
            ("192.0.2.7", Some("192.0.2.7"), "192.0.2.6"),
            ("10.2.0.7", Some("10.1.0.254"), "10.1.0.1"),
            ("8.8.8.8", Some("10.1.0.254"), "10.1.0.1"),
            ("10.1.255.255", None, "10.1.0.1"),
            ("fd00::7", Some("fd00::7"), "fd00::1"),
            ("fe80::7", Some("fe80::7"), "fd00::1:0:0:1"),
            ("2001:db8::1", Some("fe80::1"), "fd00::1:0:0:1"),
        ] {
            assert_eq!(link.next_hop(ip(destination)), hop.map(ip), "{destination}");
            assert_eq!(link.source_for(ip(destination)), Some(ip(source)), "{destination}");
        }
        for nobody in ["10.1.0.0", "10.1.2.0", "10.1.2.255"] {
            assert_eq!(link.next_hop(ip(nobody)), None, "{nobody}");
        }
        for nobody in ["10.1.0.1", "fd00::1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1"] {
            assert_eq!(link.next_hop(ip(nobody)), None, "{nobody}");
        }
    }

    #[test]
    fn without_gateway_or_address_there_is_no_way() {
        let config = NeighborsConfig { gateway_v4: None, gateway_v6: None, ..config() };
        let link = Link::new(&config).unwrap();
        assert_eq!(link.next_hop(ip("8.8.8.8")), None);
        assert_eq!(link.next_hop(ip("2001:db8::1")), None);
        let only_v4 = NeighborsConfig { addresses: vec![(ip("10.0.0.1"), 8)], ..config };
        let link = Link::new(&only_v4).unwrap();
        assert_eq!(link.next_hop(ip("fe80::7")), None);
        assert_eq!(link.source_for(ip("fd00::7")), None);
        assert_eq!(link.ask(ip("fd00::7"), None), None);
    }

    #[test]
    fn a_prefix_of_no_bits_covers_all_of_its_version() {
        let all = (ip("10.0.0.1"), 0);
        assert!(covers(all, ip("255.0.0.1")) && !covers(all, ip("::1")));
        assert!(covers((ip("fd00::1"), 0), ip("::1")));
        assert!(covers((ip("fd00::1"), 128), ip("fd00::1")) && !covers((ip("fd00::1"), 128), ip("fd00::")));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |config: NeighborsConfig| Link::new(&config).unwrap_err();
        let with = |address, prefix| NeighborsConfig { addresses: vec![(ip(address), prefix)], ..config() };
        assert_eq!(
            refused(NeighborsConfig { mac: MacAddr::BROADCAST, ..config() }),
            NeighborsError::BadMac { mac: MacAddr::BROADCAST }
        );
        assert_eq!(refused(with("224.0.0.1", 8)), NeighborsError::BadAddress { address: ip("224.0.0.1") });
        assert_eq!(refused(with("10.0.0.1", 33)), NeighborsError::BadPrefix { address: ip("10.0.0.1"), prefix: 33 });
        assert_eq!(refused(with("10.0.0.1", 24)), NeighborsError::BadGateway { gateway: ip("10.1.0.254") });
        let own = NeighborsConfig { gateway_v4: Some([10, 1, 0, 1].into()), ..config() };
        assert_eq!(refused(own), NeighborsError::BadGateway { gateway: ip("10.1.0.1") });
    }
}
