// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The eight bytes that make every frame unique, and the account that is kept of them.
//!
//! ```text
//! bits 63..56  55..48   47..0
//!      magic   source   sequence number, from 0 for each source
//!      magic'  0        number of the flow, in the datagrams that open flows
//! ```
//!
//! In front of the stamp stand two bytes that balance it: with them, and with TCP's numbers where there are any, the ones'
//! complement sum of the frame is what it was before. So the checksum in a frame's header is right once and for all. Stamp
//! and balance are in network terms little-endian.

/// Every so many packets of a source, one is timed.
pub(super) const SAMPLE: u64 = 64;

/// Every so many packets of a source, one is looked at whole. A multiple of the timed ones, for those are looked at anyway.
pub(super) const INSPECTED: u64 = SAMPLE * 17;

const MAGIC: u64 = 0x5b;
const GREETING: u64 = 0x5c;
const SEQUENCE: u64 = (1 << 48) - 1;

/// The stamp of a packet.
#[inline(always)]
pub(super) const fn stamp(source: u8, sequence: u64) -> u64 {
    MAGIC << 56 | (source as u64) << 48 | sequence & SEQUENCE
}

/// The sequence number in a stamp.
#[inline(always)]
pub(super) const fn sequence(stamp: u64) -> u64 {
    stamp & SEQUENCE
}

/// Source and sequence number, if it is a stamp at all.
#[inline(always)]
pub(super) const fn read(stamp: u64) -> Option<(u8, u64)> {
    if stamp >> 56 == MAGIC { Some(((stamp >> 48 & 0xff) as u8, stamp & SEQUENCE)) } else { None }
}

/// The stamp of a datagram that opens a flow.
pub(super) fn greeting(flow: u32) -> u64 {
    GREETING << 56 | u64::from(flow)
}

/// The flow that is opened, if that is what the stamp says.
pub(super) fn greeted(stamp: u64) -> Option<u32> {
    if stamp >> 32 == GREETING << 24 { u32::try_from(stamp & 0xffff_ffff).ok() } else { None }
}

/// The balance of a stamp and of eight more bytes, and the first six bytes of the stamp behind it: what is written at the
/// balance's place, before the stamp is written at its own.
#[inline(always)]
pub(super) const fn balanced(stamp: u64, others: u64) -> u64 {
    const EVEN: u64 = 0x0000_ffff_0000_ffff;
    let pairs = (stamp & EVEN) + (stamp >> 16 & EVEN) + (others & EVEN) + (others >> 16 & EVEN);
    let sum = (pairs & 0xffff_ffff) + (pairs >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    stamp << 16 | !sum & 0xffff
}

/// What has arrived of one source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// The sequence number that is due: what was sent before has arrived, or is lost.
    pub(super) due: u64,
    /// Packets that arrived.
    pub(super) received: u64,
    /// Packets that came after a later one, or twice.
    pub(super) late: u64,
}

impl Account {
    /// A packet has arrived.
    pub(super) fn enter(&mut self, sequence: u64) {
        self.received += 1;
        if sequence >= self.due {
            self.due = sequence + 1;
        } else {
            self.late += 1;
        }
    }

    /// All packets up to this number have arrived in turn.
    #[inline(always)]
    pub(super) fn advance(&mut self, due: u64) {
        self.received += due.saturating_sub(self.due);
        self.due = self.due.max(due);
    }
}

#[cfg(test)]
mod tests {
    use packet::checksum::checksum;

    use super::*;

    #[test]
    fn stamps_come_back() {
        for (source, sequence) in [(0, 0), (255, SEQUENCE), (7, 1 << 40)] {
            assert_eq!(read(stamp(source, sequence)), Some((source, sequence)));
            assert_eq!(greeted(stamp(source, sequence)), None);
        }
        assert_eq!(read(0), None);
        assert_eq!(read(u64::MAX), None);
        assert_eq!(greeted(greeting(u32::MAX)), Some(u32::MAX));
        assert_eq!(read(greeting(7)), None);
    }

    #[test]
    fn a_balanced_stamp_adds_nothing_to_a_sum() {
        for (stamp, others) in
            [(0, 0), (stamp(3, 77), 0), (u64::MAX, u64::MAX), (stamp(255, SEQUENCE), 0x0102_0304_ffff_0000)]
        {
            let mut bytes = others.to_le_bytes().to_vec();
            bytes.extend(&balanced(stamp, others).to_le_bytes()[..2]);
            bytes.extend(stamp.to_le_bytes());
            assert_eq!(checksum(&bytes), 0, "{stamp:x} {others:x}");
            assert_eq!(balanced(stamp, others).to_le_bytes()[2..], stamp.to_le_bytes()[..6]);
        }
    }

    #[test]
    fn gaps_are_no_lateness() {
        let mut account = Account::default();
        for sequence in [0, 1, 5, 2, 6, 6] {
            account.enter(sequence);
        }
        assert_eq!((account.received, account.late, account.due), (6, 2, 7));
        account.advance(10);
        assert_eq!((account.received, account.late, account.due), (9, 2, 10));
    }
}
