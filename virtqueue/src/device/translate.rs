// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest addresses to pointers, remembering the region of the last hit.

use std::sync::Arc;

use super::area::Area;
use crate::error::QueueError;
use crate::mem::MemoryMap;

/// A memory map and the region that answered last. Most guests keep all buffers of a queue in one
/// region, so the common look-up is two comparisons in one cache line.
#[derive(Debug)]
pub(super) struct Translator {
    map: Arc<MemoryMap>,
    start: u64,
    size: u64,
    host: *mut u8,
}

// SAFETY: `host` points into a region that `map` keeps mapped; guest memory may be accessed from
// any thread.
unsafe impl Send for Translator {}

impl Translator {
    pub(super) fn new(map: Arc<MemoryMap>) -> Self {
        Self { map, start: 0, size: 0, host: core::ptr::null_mut() }
    }

    pub(super) fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// The pointer to `len > 0` bytes at `addr` when they lie in one region. The bytes stay valid
    /// for reads and writes as long as this translator lives.
    #[inline(always)]
    pub(super) fn contiguous(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        self.hit(addr, len).or_else(|| self.miss(addr, len))
    }

    /// As [`Translator::contiguous`], from the last region only.
    #[inline(always)]
    pub(super) fn hit(&self, addr: u64, len: u32) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.start);
        if offset < self.size && u64::from(len) <= self.size - offset {
            // `wrapping_add`: the offset is inside the region, as just checked.
            #[expect(clippy::cast_possible_truncation, reason = "64-bit targets only")]
            return Some(self.host.wrapping_add(offset as usize));
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn miss(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        let (start, size, host) = self.map.find(addr)?;
        (self.start, self.size, self.host) = (start, size, host);
        self.hit(addr, len)
    }

    /// Gives the pieces of `len` bytes at `addr` to `piece`, one per region touched; false when
    /// some byte is not mapped or `piece` returned false (then also `*refused` is set).
    pub(super) fn pieces(
        &mut self,
        addr: u64,
        len: u32,
        mut piece: impl FnMut(*mut u8, u32) -> bool,
    ) -> Result<bool, Unmapped> {
        let (mut addr, mut left) = (addr, len);
        while left > 0 {
            let ptr = self.contiguous(addr, 1).ok_or(Unmapped)?;
            let in_region = self.size - addr.wrapping_sub(self.start);
            let n = u32::try_from(in_region).map_or(left, |n| n.min(left));
            if !piece(ptr, n) {
                return Ok(false);
            }
            addr = addr.checked_add(u64::from(n)).ok_or(Unmapped)?;
            left -= n;
        }
        Ok(true)
    }

    /// Translates an area of a ring.
    pub(super) fn area(&mut self, addr: u64, (len, align): (u64, u64)) -> Result<Area, QueueError> {
        if !addr.is_multiple_of(align) {
            return Err(QueueError::Misaligned { addr, align });
        }
        let unmapped = QueueError::Unmapped { addr, len };
        let len = u32::try_from(len).map_err(|_| unmapped)?;
        let base = self.contiguous(addr, len).ok_or(unmapped)?;
        // Regions begin on page boundaries of both address spaces, so alignment carries over; a
        // map that offers anything else is refused here rather than believed.
        if !(base as u64).is_multiple_of(align.max(8)) && !(base as u64).is_multiple_of(align) {
            return Err(QueueError::Misaligned { addr, align });
        }
        // SAFETY: `contiguous` found `len` bytes inside one region of the map. The queue that asks
        // keeps the map as long as the area, and replaces both together.
        Ok(unsafe { Area::new(base, len as usize) })
    }
}

/// Some byte of the range is in no region.
#[derive(Debug)]
pub(super) struct Unmapped;
