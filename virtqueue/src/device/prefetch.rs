// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hints to the cache. A hint never faults and never changes anything, whatever the address, so
//! these are safe functions.

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for a line to be read soon.
#[inline(always)]
pub(crate) fn read(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: PREFETCHT0 (SSE) has no architectural effect and does not fault on any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks for a line to be owned for writing soon, so that the later store does not have to take it
/// from the other core's cache a second time.
#[inline(always)]
pub(crate) fn write(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: PREFETCHW has no architectural effect and does not fault on any address; processors
    // without it execute it as a no-op. It is written as assembly because the compiler turns the
    // intrinsic into a read hint unless the target has the feature.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
