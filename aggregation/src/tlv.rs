// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TLVs: what a group carries besides packets.
//!
//! A type is one byte. With [`CRITICAL`] set, who does not know the type drops the group; with [`FOLLOW`] set, the TLV goes on
//! with the group's packets, otherwise whoever takes the group apart consumes it.

use crate::Cause;
use crate::wire::{TLV_HEADER, padded};

/// Who does not know the type drops the group.
pub const CRITICAL: u8 = 0x80;
/// The TLV goes on with the packets: on the first group to the same next hop.
pub const FOLLOW: u8 = 0x40;

/// CRC-32C of the group behind its header, four bytes; the first TLV of its group.
pub const GROUP_CRC: u8 = CRITICAL | 1;
/// Reserved: flow ids and what is known of them.
pub const FLOWS: u8 = 2;
/// Reserved: a recorded action, to be run instead of the CNF.
pub const ACTION: u8 = 3;
/// Reserved: a log of state that goes along a chain of replicas.
pub const STATE_LOG: u8 = FOLLOW | 4;
/// Reserved: what has been committed, going back.
pub const COMMIT: u8 = FOLLOW | 5;
/// Reserved: a keyed tag over the group.
pub const TAG: u8 = CRITICAL | 6;
/// Reserved: a fragment of a packet.
pub const FRAGMENT: u8 = CRITICAL | 7;

/// The bits of a type that are its number; the others belong to it and say what to do with it if it is not known.
const NUMBER: u8 = 0x3f;

/// Types of TLVs, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlvSet([u64; 4]);

impl TlvSet {
    /// No type.
    pub const NONE: Self = Self([0; 4]);

    /// With one type more.
    #[must_use]
    pub fn with(mut self, kind: u8) -> Self {
        if let Some(word) = self.0.get_mut(usize::from(kind >> 6)) {
            *word |= 1 << (kind & 63);
        }
        self
    }

    /// Whether a type is in it.
    #[inline]
    #[must_use]
    pub fn contains(&self, kind: u8) -> bool {
        self.0.get(usize::from(kind >> 6)).is_some_and(|word| word >> (kind & 63) & 1 != 0)
    }
}

/// The next TLV in an area: its type, its data, and the area behind it. `None` if it does not fit.
#[inline]
#[must_use]
pub fn split(area: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, _, len0, len1], rest) = area.split_first_chunk::<TLV_HEADER>()?;
    let len = usize::from(u16::from_be_bytes([*len0, *len1]));
    Some((*kind, rest.get(..len)?, rest.get(padded(len)..)?))
}

/// Looks at all TLVs of a group before anything of it is believed.
pub(crate) fn check(mut area: &[u8], known: TlvSet) -> Result<(), Cause> {
    let mut first = true;
    while !area.is_empty() {
        let (kind, data, rest) = split(area).ok_or(Cause::TlvMalformed)?;
        if kind == GROUP_CRC {
            if !first || data.len() != 4 {
                return Err(Cause::TlvMalformed);
            }
        } else if kind & NUMBER == GROUP_CRC & NUMBER {
            // Damage in its type must not switch the CRC off.
            return Err(Cause::TlvMalformed);
        } else if kind & CRITICAL != 0 && !known.contains(kind) {
            return Err(Cause::TlvCritical);
        }
        first = false;
        area = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let kinds = [0, 1, 63, 64, 127, 128, 255];
        let set = kinds.iter().fold(TlvSet::NONE, |set, kind| set.with(*kind));
        for kind in 0..=255 {
            assert_eq!(set.contains(kind), kinds.contains(&kind), "{kind}");
        }
    }

    #[test]
    fn areas_are_checked_as_a_whole() {
        let crc: &[u8] = &[GROUP_CRC, 0, 0, 4, 1, 2, 3, 4];
        let note: &[u8] = &[9, 0, 0, 1, 5, 0, 0, 0];
        let must: &[u8] = &[0x80 | 9, 0, 0, 0];
        let check = |parts: &[&[u8]], known| check(&parts.concat(), known);
        assert_eq!(check(&[], TlvSet::NONE), Ok(()));
        assert_eq!(check(&[crc, note], TlvSet::NONE), Ok(()));
        assert_eq!(check(&[note, crc], TlvSet::NONE), Err(Cause::TlvMalformed), "the CRC comes first");
        assert_eq!(check(&[note, must], TlvSet::NONE), Err(Cause::TlvCritical));
        assert_eq!(check(&[note, must], TlvSet::NONE.with(0x89)), Ok(()));
        assert_eq!(check(&[&note[..4]], TlvSet::NONE), Err(Cause::TlvMalformed), "data beyond the area");
        assert_eq!(check(&[&note[..3]], TlvSet::NONE), Err(Cause::TlvMalformed));
        assert_eq!(check(&[&[GROUP_CRC, 0, 0, 3, 0, 0, 0, 0]], TlvSet::NONE), Err(Cause::TlvMalformed));
        assert_eq!(check(&[&[1, 0, 0, 4, 0, 0, 0, 0]], TlvSet::NONE), Err(Cause::TlvMalformed));
    }
}
