// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that prove themselves: each carries its number and a checksum over everything it carries.
//!
//! ```text
//! | Ethernet 14 | IPv4 20 | UDP 8 | sequence number 8 | checksum 8 | data … |
//! ```
//!
//! The checksum covers the number and the data, and with them the length. Data are a stretch of random bytes that
//! begins elsewhere for each number, so that one packet's data in another's place do not pass.

use packet::checksum::checksum;

/// Bytes of the longest frame, without its own checksum: full Ethernet.
pub(super) const LONGEST: usize = 1514;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const HEADERS: usize = ETHERNET + IPV4 + UDP;
const DATA_AT: usize = HEADERS + 16;

/// Seven short frames, four of middle size and one full one in twelve: the mix that stands for the Internet.
const SIZES: [usize; 12] = [64, 594, 64, 64, 1514, 64, 594, 64, 594, 64, 594, 64];

/// Ports that packets come from: as many flows.
const FLOWS: u64 = 64;

/// Random bytes to send.
const BLOCK: usize = 1 << 14;

/// Who sends or receives: a number that its addresses end in.
pub(super) type Station = u8;

/// Builds the frames of one station, in order of their numbers.
#[derive(Debug)]
pub(super) struct Source {
    from: Station,
    to: Station,
    block: Vec<u8>,
    next: u64,
}

impl Source {
    pub(super) fn new(from: Station, to: Station) -> Self {
        let mut state = 0x5348_554e_5400_0001 + u64::from(from);
        let mut random = || {
            // xorshift64: good enough to tell data apart.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let block = (0..(BLOCK + LONGEST) / 8 + 1).flat_map(|_| random()).collect();
        Self { from, to, block, next: 0 }
    }

    /// Writes the next frame into `frame`.
    pub(super) fn next(&mut self, frame: &mut Vec<u8>) {
        let sequence = self.next;
        self.next += 1;
        let place = usize::try_from(sequence % SIZES.len() as u64).unwrap_or(0);
        let size = SIZES.get(place).copied().unwrap_or(LONGEST);
        frame.clear();
        self.put_headers(frame, size, sequence);
        frame.extend(sequence.to_le_bytes());
        frame.extend([0; 8]);
        let start = usize::try_from(sequence.wrapping_mul(41) % BLOCK as u64).unwrap_or(0);
        frame.extend(self.block.iter().skip(start).take(size.saturating_sub(DATA_AT)));
        let sum = digest(sequence, frame.get(DATA_AT..).unwrap_or(&[]));
        if let Some(field) = frame.get_mut(HEADERS + 8..DATA_AT) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
    }

    fn put_headers(&self, frame: &mut Vec<u8>, size: usize, sequence: u64) {
        let be16 = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        let port = 1024 + u16::try_from(sequence % FLOWS).unwrap_or(0);
        frame.extend(mac(self.to));
        frame.extend(mac(self.from));
        frame.extend([0x08, 0x00]);
        let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, self.from, 10, 0, 0, self.to];
        ip[2..4].copy_from_slice(&be16(size - ETHERNET));
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(port.to_be_bytes());
        frame.extend(9000u16.to_be_bytes());
        frame.extend(be16(size - ETHERNET - IPV4));
        // No UDP checksum, as IPv4 allows: ours is stronger.
        frame.extend([0, 0]);
    }
}

/// The number of a frame that `to` received from `from`, if nothing of it was changed.
pub(super) fn verify(frame: &[u8], from: Station, to: Station) -> Option<u64> {
    let (headers, rest) = frame.split_first_chunk::<HEADERS>()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (sum, data) = rest.split_first_chunk()?;
    let sequence = u64::from_le_bytes(*sequence);
    let addressed = headers.starts_with(&mac(to)) && headers.get(6..12) == Some(&mac(from)[..]);
    let whole = headers.get(16..18) == Some(&u16::try_from(frame.len() - ETHERNET).ok()?.to_be_bytes()[..]);
    let intact = checksum(headers.get(ETHERNET..ETHERNET + IPV4)?) == 0;
    (addressed && whole && intact && digest(sequence, data) == u64::from_le_bytes(*sum)).then_some(sequence)
}

/// The MAC address of a station: locally administered.
pub(super) fn mac(station: Station) -> [u8; 6] {
    [0x02, 0x53, 0x48, 0x55, 0x4e, station]
}

/// A checksum of 64 bits: every bit of number and data decides about half of its bits.
fn digest(sequence: u64, data: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| ((hash ^ word).wrapping_mul(ODD)).rotate_left(29);
    let (words, rest) = data.as_chunks();
    let hash = words.iter().fold(mix(ODD, sequence), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, &byte| mix(hash, u64::from(byte)));
    mix(hash, data.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_verify_and_count_up() {
        let mut source = Source::new(1, 2);
        let mut frame = Vec::new();
        for sequence in 0..1000 {
            source.next(&mut frame);
            assert!((64..=LONGEST).contains(&frame.len()));
            assert_eq!(verify(&frame, 1, 2), Some(sequence));
            assert_eq!(verify(&frame, 2, 1), None);
        }
    }

    #[test]
    fn any_changed_byte_shows() {
        let mut source = Source::new(1, 2);
        let mut frame = Vec::new();
        for _ in 0..5 {
            source.next(&mut frame);
        }
        assert_eq!(frame.len(), LONGEST);
        // UDP's ports and length are not looked at: nothing here depends on them.
        for at in (0..34).chain(HEADERS..frame.len()) {
            frame[at] ^= 0x10;
            let ethertype = at == 12 || at == 13;
            assert_eq!(verify(&frame, 1, 2).is_some(), ethertype, "byte {at}");
            frame[at] ^= 0x10;
        }
        assert_eq!(verify(&frame[..frame.len() - 1], 1, 2), None);
        assert_eq!(verify(&frame[..20], 1, 2), None);
    }
}
