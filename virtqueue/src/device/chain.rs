// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One chain of descriptors, direct or indirect, on its way into the list of held chains.
//!
//! The rings walk their own descriptors and hand each one over; what is the same for both formats
//! is here: directions, lengths, bounds, translation and indirect tables. Every field arrives by
//! value, read from the guest exactly once.

use super::held::Held;
use crate::config::RingKind;
use crate::error::RingError;
use crate::layout::{DESC_SIZE, F_INDIRECT, F_NEXT, F_WRITE, PackedWord, SplitWord};
use crate::mem::MemoryMap;

/// Bytes of an entry of a table.
const ENTRY: u32 = 16;

/// What a queue demands of its chains, and where their addresses are looked up.
pub(super) struct Rules<'a> {
    pub(super) map: &'a MemoryMap,
    /// Region of the last hit.
    pub(super) hint: &'a mut usize,
    /// Whether the device writes into these chains.
    pub(super) writable: bool,
    /// Whether indirect tables were negotiated.
    pub(super) indirect: bool,
    /// Bytes every chain must at least have.
    pub(super) header_len: u8,
    /// Bytes at the start of every chain that will not be read.
    pub(super) skip: usize,
    /// Most descriptors in a chain, those of indirect tables included.
    pub(super) limit: u16,
}

/// Why a chain was not appended.
#[derive(Debug)]
pub(super) enum Stop {
    /// The ring is malformed.
    Broken(RingError),
    /// Not enough room until held chains are released; nothing was consumed.
    Full,
}

impl From<RingError> for Stop {
    fn from(error: RingError) -> Self {
        Self::Broken(error)
    }
}

/// A chain being read.
pub(super) struct Chain<'a, 'b> {
    rules: &'a mut Rules<'b>,
    held: &'a mut Held,
    /// What errors call the chain: head index, or in a packed ring the slot of its head.
    head: u16,
    descriptors: u16,
    len: u32,
}

impl<'a, 'b> Chain<'a, 'b> {
    pub(super) fn begin(rules: &'a mut Rules<'b>, held: &'a mut Held, head: u16) -> Self {
        held.begin();
        Self { rules, held, head, descriptors: 0, len: 0 }
    }

    /// Adds a descriptor that points at a buffer. One of no bytes adds nothing.
    pub(super) fn buffer(&mut self, addr: u64, len: u32, flags: u16) -> Result<(), Stop> {
        let index = self.descriptors;
        if index >= self.rules.limit {
            return Err(RingError::ChainTooLong { head: self.head, limit: self.rules.limit }.into());
        }
        self.descriptors += 1;
        if (flags & F_WRITE != 0) != self.rules.writable {
            return Err(RingError::WrongDirection { head: self.head, index }.into());
        }
        let overflow = RingError::LengthOverflow { addr, len };
        self.len = self.len.checked_add(len).ok_or(overflow)?;
        let (mut at, mut left) = (addr, u64::from(len));
        while left > 0 {
            let unmapped = RingError::Unmapped { addr, len };
            let (host, there) = self.rules.map.host_prefix(at, left, self.rules.hint).ok_or(unmapped)?;
            let bytes = u32::try_from(there).map_err(|_| overflow)?;
            if !self.held.piece(host, bytes) {
                let head = self.head;
                return Err(if self.held.pool_is_otherwise_empty() {
                    RingError::ChainTooLong { head, limit: self.rules.limit }.into()
                } else {
                    Stop::Full
                });
            }
            left -= there;
            if left > 0 {
                at = at.checked_add(there).ok_or(overflow)?;
            }
        }
        Ok(())
    }

    /// Adds all descriptors of an indirect table, which its own flags introduced.
    ///
    /// In a packed ring's table of a frame that the guest sends, `F_WRITE` means nothing: DPDK's driver (22.11 and others)
    /// sets it in every entry of such tables, and every other device takes them. Nothing is ever written there.
    pub(super) fn table(&mut self, addr: u64, len: u32, flags: u16, kind: RingKind) -> Result<(), Stop> {
        let entry = DESC_SIZE as u64;
        let bad = RingError::BadIndirect { addr, len };
        let entries = u64::from(len) / entry;
        if !self.rules.indirect || entries == 0 || !u64::from(len).is_multiple_of(entry) {
            return Err(bad.into());
        }
        if flags & F_NEXT != 0 {
            return Err(RingError::NestedIndirect { head: self.head }.into());
        }
        addr.checked_add(u64::from(len)).ok_or(RingError::LengthOverflow { addr, len })?;
        // At most `limit` descriptors are looked at, whatever the length says.
        let mut index = 0_u64;
        let mut steps = 0_u64;
        loop {
            let (buffer, word) = self.entry(addr + index * entry)?;
            // The two formats order the second half differently.
            let (bytes, flags, next) = match kind {
                RingKind::Packed => {
                    let word = PackedWord(word);
                    let last = index + 1 == entries;
                    let meaningless = if self.rules.writable { 0 } else { F_WRITE };
                    (word.len(), word.flags() & !meaningless, (!last).then_some(index + 1))
                }
                RingKind::Split => {
                    let word = SplitWord(word);
                    let on = word.flags() & F_NEXT != 0;
                    (word.len(), word.flags(), on.then_some(u64::from(word.next())))
                }
            };
            if flags & F_INDIRECT != 0 {
                return Err(RingError::NestedIndirect { head: self.head }.into());
            }
            self.buffer(buffer, bytes, flags)?;
            let Some(next) = next else { return Ok(()) };
            if next >= entries {
                let size = u16::try_from(entries).unwrap_or(u16::MAX);
                let index = u16::try_from(next).unwrap_or(u16::MAX);
                return Err(RingError::IndexBeyondSize { index, size }.into());
            }
            steps += 1;
            if steps >= entries {
                return Err(RingError::Loop { head: self.head }.into());
            }
            index = next;
        }
    }

    /// Ends the chain: `id` is what its used element says, `entries` what it occupies in the ring.
    pub(super) fn finish(self, id: u16, entries: u16) -> Result<(), Stop> {
        let header = self.rules.header_len;
        if self.len < u32::from(header) {
            return Err(RingError::NoHeader { len: self.len, header }.into());
        }
        self.held.finish(self.len, id, entries);
        Ok(())
    }

    /// Copies one entry of a table, which may lie across two regions, out of the guest.
    fn entry(&self, addr: u64) -> Result<(u64, u64), Stop> {
        let mut bytes = [0; DESC_SIZE];
        let unmapped = RingError::Unmapped { addr, len: ENTRY };
        self.rules.map.read(addr, &mut bytes).map_err(|_| unmapped)?;
        let raw = u128::from_le_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Ok((raw as u64, (raw >> 64) as u64))
    }
}
