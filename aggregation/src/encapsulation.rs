// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What stands before a frame on a link.
//!
//! On Ethernet it is an Ethernet header with the frame's EtherType, and at most one VLAN tag. In UDP it is whatever the path needs; only the
//! ports are ours.

use crate::wire::ETHERNET;

const VLAN: [u16; 2] = [0x8100, 0x88a8];
const VLAN_TAG: usize = 4;
/// Where dynamic ports begin (RFC 6335, 6).
const DYNAMIC: u16 = 0xc000;

/// Where the aggregate or control frame begins in an Ethernet frame of which `head` holds the first bytes. `None` if it is no such frame.
#[inline]
#[must_use]
pub fn in_ethernet(head: &[u8], ethertype: u16) -> Option<usize> {
    let at_12 = u16::from_be_bytes(*head.get(12..)?.first_chunk()?);
    if at_12 == ethertype {
        return Some(ETHERNET);
    }
    if !VLAN.contains(&at_12) {
        return None;
    }
    let tagged = u16::from_be_bytes(*head.get(16..)?.first_chunk()?);
    (tagged == ethertype).then_some(ETHERNET + VLAN_TAG)
}

/// A UDP source port for frames of one (destination, class): the same for each, so that a path that balances by ports keeps their order, and
/// another for others, so that it balances.
#[inline]
#[must_use]
pub const fn udp_source_port(destination: u16, class: u8) -> u16 {
    // Multiplicative hashing (Knuth); the upper bits are the mixed ones.
    let key = (destination as u32) << 3 | (class & 7) as u32;
    let [high, low, _, _] = key.wrapping_mul(0x9e37_79b1).to_be_bytes();
    DYNAMIC | u16::from_be_bytes([high, low]) >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ETHERTYPE;

    #[test]
    fn at_most_one_tag_is_looked_behind() {
        let mut plain = [0; 64];
        plain[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!(in_ethernet(&plain, ETHERTYPE), Some(14));
        assert_eq!(in_ethernet(&plain, 0x88b6), None);
        for tag in [[0x81, 0], [0x88, 0xa8]] {
            let mut tagged = [0; 64];
            tagged[12..18].copy_from_slice(&[tag[0], tag[1], 0, 5, 0x88, 0xb5]);
            assert_eq!(in_ethernet(&tagged, ETHERTYPE), Some(18));
            assert_eq!(in_ethernet(&tagged[..17], ETHERTYPE), None);
            let mut twice = [0; 64];
            twice[12..22].copy_from_slice(&[tag[0], tag[1], 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5]);
            assert_eq!(in_ethernet(&twice, ETHERTYPE), None);
        }
        assert_eq!(in_ethernet(&[], ETHERTYPE), None);
    }

    #[test]
    fn source_ports_are_dynamic_and_differ() {
        let ports: std::collections::HashSet<_> = (0..64).map(|destination| udp_source_port(destination, 0)).collect();
        assert!(ports.len() > 60 && ports.iter().all(|port| *port >= DYNAMIC));
    }
}
