// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One of the three areas of a ring: shared words, each read or written as one atomic.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// A host-contiguous stretch of guest memory, valid as long as the queue that owns it keeps the
/// memory map it was translated with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    base: *mut u8,
    len: usize,
}

impl Area {
    /// # Safety
    /// `base` must be valid for reads and writes of `len` bytes for as long as the area is used.
    pub(super) const unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len }
    }

    /// # Safety
    /// `offset + 8` must be inside the area and its address a multiple of 8.
    #[inline(always)]
    pub(super) unsafe fn u64(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= self.len);
        // SAFETY: in bounds and aligned by the caller's promise, mapped by that of `new`; an
        // atomic may be shared with whoever else has the memory mapped.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).cast()) }
    }

    /// # Safety
    /// `offset + 4` must be inside the area and its address a multiple of 4.
    #[inline(always)]
    pub(super) unsafe fn u32(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.len);
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// # Safety
    /// `offset + 2` must be inside the area and its address a multiple of 2.
    #[inline(always)]
    pub(super) unsafe fn u16(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset + 2 <= self.len);
        // SAFETY: as for `u64`.
        unsafe { AtomicU16::from_ptr(self.base.add(offset).cast()) }
    }

    /// The address of a byte, for prefetching only: it may lie outside.
    #[inline(always)]
    pub(super) fn hint(&self, offset: usize) -> *const u8 {
        self.base.wrapping_add(offset)
    }
}
