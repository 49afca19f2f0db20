// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The eight bytes that make every frame unique, and the account that is kept of them.
//!
//! ```text
//! bits 63..56  55..48   47..0
//!      magic   source   sequence number, from 0 for each source
//! ```
//!
//! The stamp lies in the first cache line of the buffer, so that a packet costs the generator one line to write and
//! one to read, whatever its size.

/// Where the stamp lies in a buffer: bytes 44..52 of the frame, after a virtio-net header of 12. Ethernet, IPv4 and UDP
/// headers end at 42.
pub(super) const STAMP_AT: u32 = 56;

/// Every so many packets of a source, one is timed.
pub(super) const SAMPLE: u64 = 64;

const MAGIC: u64 = 0x5b;
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
    use super::*;

    #[test]
    fn stamps_come_back() {
        for (source, sequence) in [(0, 0), (255, SEQUENCE), (7, 1 << 40)] {
            assert_eq!(read(stamp(source, sequence)), Some((source, sequence)));
        }
        assert_eq!(read(0), None);
        assert_eq!(read(u64::MAX), None);
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
