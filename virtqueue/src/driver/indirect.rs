// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tables of indirect descriptors.

use super::{Buffer, PostError};
use crate::config::RingKind;
use crate::layout::{DESC_SIZE, F_NEXT, F_WRITE, PackedWord, SplitWord};
use crate::mem::MemoryMap;

/// Writes a table and returns the buffer that the descriptor in the ring must describe.
///
/// Split tables are linked by NEXT (virtio 1.3, 2.7.5.3); in packed ones the order of the table
/// is the order of the chain, and only WRITE means anything (2.8.7).
pub(super) fn write(
    mem: &MemoryMap,
    kind: RingKind,
    addr: u64,
    readable: &[Buffer],
    writable: &[Buffer],
) -> Result<Buffer, PostError> {
    let entries = readable.len() + writable.len();
    let fault = PostError::Table { addr, entries };
    // At most 32768 entries, the caller checked: half a mebibyte.
    let len = u32::try_from(entries * DESC_SIZE).map_err(|_| fault)?;
    let table = mem.host_range(addr, u64::from(len), &mut 0).ok_or(fault)?;
    if !addr.is_multiple_of(DESC_SIZE as u64) || !table.as_ptr().addr().is_multiple_of(DESC_SIZE) {
        return Err(fault);
    }
    let chain = readable.iter().map(|b| (b, 0)).chain(writable.iter().map(|b| (b, F_WRITE)));
    for (next, (at, (buffer, flags))) in (1_u16..).zip(chain_places(chain)) {
        let word = match kind {
            RingKind::Packed => PackedWord::new(buffer.len, 0, flags).0,
            RingKind::Split if usize::from(next) == entries => SplitWord::new(buffer.len, flags, 0).0,
            RingKind::Split => SplitWord::new(buffer.len, flags | F_NEXT, next).0,
        };
        let desc = table.offset(at);
        // SAFETY: `at` is a multiple of 16 below `len`, the length of the range that was looked
        // up and found aligned; `mem` is alive.
        unsafe {
            desc.store_u64(buffer.addr);
            desc.offset(8).store_u64(word);
        }
    }
    Ok(Buffer { addr, len })
}

/// Pairs the items with their byte offsets in the table.
fn chain_places<T>(chain: impl Iterator<Item = T>) -> impl Iterator<Item = (usize, T)> {
    chain.enumerate().map(|(index, item)| (index * DESC_SIZE, item))
}
