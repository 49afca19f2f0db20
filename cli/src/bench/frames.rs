// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The frames that are sent: Ethernet, IPv4, UDP; as many five-tuples as flows were asked for.

/// Shortest frame there is, without its checksum.
pub(super) const SHORTEST: u32 = 60;

/// Longest frame that IPv4 can carry: Ethernet header and 65535 bytes.
pub(super) const LONGEST: u32 = 14 + 65535;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// Ports from here on tell flows apart.
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = 60_000;

/// The MAC address of a device: locally administered, ending in its number.
pub(super) fn mac(device: u8) -> [u8; 6] {
    [0x02, 0x53, 0x48, 0x55, 0x4e, device]
}

/// Frame `flow` of those that device `from` sends to device `to`, `size` bytes long. UDP carries no checksum, as IPv4
/// allows, so that stamping the payload leaves a valid frame.
pub(super) fn frame(from: u8, to: u8, flow: u32, size: u32) -> Vec<u8> {
    let size = size.clamp(SHORTEST, LONGEST) as usize;
    let (network, transport) = (size - ETHERNET, size - ETHERNET - IPV4);
    let port = FIRST_PORT + u16::try_from(flow % PORTS).unwrap_or(0);
    let [_, high, middle, low] = (flow / PORTS).to_be_bytes();

    let mut frame = Vec::with_capacity(size);
    frame.extend(mac(to));
    frame.extend(mac(from));
    frame.extend([0x08, 0x00]);
    let ip_at = frame.len();
    frame.extend([0x45, 0]);
    frame.extend(be16(network));
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend([10, high.wrapping_add(from), middle, low]);
    frame.extend([10, 128 | to, 0, 1]);
    let sum = packet::checksum::checksum(frame.get(ip_at..).unwrap_or(&[]));
    if let Some(field) = frame.get_mut(ip_at + 10..ip_at + 12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend(port.to_be_bytes());
    frame.extend(9000u16.to_be_bytes());
    frame.extend(be16(transport.max(UDP)));
    frame.extend([0, 0]);
    frame.extend((frame.len()..size).map(|at| at.to_le_bytes()[0]));
    frame
}

fn be16(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_asked_for_and_a_valid_header() {
        for size in [SHORTEST, 64, 1518, 65536, LONGEST] {
            let frame = frame(0, 1, 70_000, size);
            assert_eq!(frame.len(), size as usize);
            assert_eq!(packet::checksum::checksum(&frame[14..34]), 0, "a header sums to zero with its checksum");
            assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
            assert_eq!(usize::from(u16::from_be_bytes([frame[38], frame[39]])), frame.len() - 34);
        }
    }

    #[test]
    fn flows_differ() {
        let tuple = |flow| frame(0, 1, flow, 64)[26..38].to_vec();
        let tuples: std::collections::HashSet<_> = (0..130_000).map(tuple).collect();
        assert_eq!(tuples.len(), 130_000);
    }
}
