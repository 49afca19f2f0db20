// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pointers into memory that another party writes at any time.
//!
//! Theory of operation. Guest memory is shared with a process, or a virtual machine, that may
//! write any byte of it at any moment. A Rust reference promises that nobody else writes, so none
//! is ever made over it: not `&[u8]`, not `&mut [u8]`, not `&T`. What remains are three kinds of
//! access, the same that the crate vm-memory allows itself:
//!
//! * **words** of rings and tables, which carry meaning: always relaxed, acquire or release
//!   atomics, one access per look, so that a value is fetched once and then judged;
//! * **bytes** of buffers, which carry none until they are private: raw copies into or out of
//!   private memory, or between two guests. If the other side writes meanwhile, the copy holds a
//!   mixture, which is that side's own loss. A compiler fence after each copy keeps the compiler
//!   from fetching a byte a second time from the guest instead of from the copy;
//! * **hints**, that is prefetches, which touch nothing.
//!
//! [`HostPtr`] is a bare address and does not know its bounds. Whoever makes one (only the memory
//! map does) has checked a range, and the `unsafe` of every access here is the promise that the
//! access stays in such a range while its map is alive.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

/// An address in guest memory as this process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct HostPtr(*mut u8);

// SAFETY: a bare address; every access through it is unsafe and states its own conditions, and all
// accesses are ones that tolerate concurrent access by others.
unsafe impl Send for HostPtr {}
// SAFETY: as for Send.
unsafe impl Sync for HostPtr {}

impl HostPtr {
    /// Points nowhere; not to be accessed, but for ranges of no bytes.
    pub(crate) const DANGLING: Self = Self(std::ptr::dangling_mut());

    #[inline(always)]
    pub(crate) const fn new(ptr: *mut u8) -> Self {
        Self(ptr)
    }

    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut u8 {
        self.0
    }

    /// The address `bytes` further on. Harmless in itself: only accesses have conditions.
    #[inline(always)]
    pub(crate) const fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Reads a byte, relaxed.
    ///
    /// # Safety
    /// One mapped byte.
    #[inline(always)]
    pub(crate) unsafe fn load_u8(self) -> u8 {
        // SAFETY: mapped, by the caller's promise; an atomic may be written by others.
        unsafe { AtomicU8::from_ptr(self.0) }.load(Ordering::Relaxed)
    }

    /// Sets bits of a byte, after everything that was written before.
    ///
    /// # Safety
    /// One mapped byte.
    #[inline(always)]
    pub(crate) unsafe fn or_u8(self, bits: u8) {
        // SAFETY: as in load_u8.
        unsafe { AtomicU8::from_ptr(self.0) }.fetch_or(bits, Ordering::AcqRel);
    }

    /// Reads a word, relaxed.
    ///
    /// # Safety
    /// Two mapped bytes, 2-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u16(self) -> u16 {
        // SAFETY: mapped and aligned, by the caller's promise; an atomic may be written by others.
        unsafe { AtomicU16::from_ptr(self.0.cast()) }.load(Ordering::Relaxed)
    }

    /// Reads a word; what the writer wrote before it is seen afterwards.
    ///
    /// # Safety
    /// Two mapped bytes, 2-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u16_acquire(self) -> u16 {
        // SAFETY: as in load_u16.
        unsafe { AtomicU16::from_ptr(self.0.cast()) }.load(Ordering::Acquire)
    }

    /// Writes a word, relaxed.
    ///
    /// # Safety
    /// Two mapped bytes, 2-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u16(self, value: u16) {
        // SAFETY: as in load_u16.
        unsafe { AtomicU16::from_ptr(self.0.cast()) }.store(value, Ordering::Relaxed);
    }

    /// Writes a word after everything that was written before.
    ///
    /// # Safety
    /// Two mapped bytes, 2-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u16_release(self, value: u16) {
        // SAFETY: as in load_u16.
        unsafe { AtomicU16::from_ptr(self.0.cast()) }.store(value, Ordering::Release);
    }

    /// Reads a word, relaxed.
    ///
    /// # Safety
    /// Four mapped bytes, 4-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u32(self) -> u32 {
        // SAFETY: mapped and aligned, by the caller's promise; an atomic may be written by others.
        unsafe { AtomicU32::from_ptr(self.0.cast()) }.load(Ordering::Relaxed)
    }

    /// Writes a word, relaxed.
    ///
    /// # Safety
    /// Four mapped bytes, 4-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u32(self, value: u32) {
        // SAFETY: as in load_u32.
        unsafe { AtomicU32::from_ptr(self.0.cast()) }.store(value, Ordering::Relaxed);
    }

    /// Reads a word, relaxed.
    ///
    /// # Safety
    /// Eight mapped bytes, 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u64(self) -> u64 {
        // SAFETY: mapped and aligned, by the caller's promise; an atomic may be written by others.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }.load(Ordering::Relaxed)
    }

    /// Reads a word; what the writer wrote before it is seen afterwards.
    ///
    /// # Safety
    /// Eight mapped bytes, 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u64_acquire(self) -> u64 {
        // SAFETY: as in load_u64.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }.load(Ordering::Acquire)
    }

    /// Writes a word, relaxed.
    ///
    /// # Safety
    /// Eight mapped bytes, 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u64(self, value: u64) {
        // SAFETY: as in load_u64.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }.store(value, Ordering::Relaxed);
    }

    /// Writes a word after everything that was written before.
    ///
    /// # Safety
    /// Eight mapped bytes, 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u64_release(self, value: u64) {
        // SAFETY: as in load_u64.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }.store(value, Ordering::Release);
    }

    /// Writes a word of any alignment. Not atomic: for bytes, not for words of a ring.
    ///
    /// # Safety
    /// Eight mapped bytes.
    #[inline(always)]
    pub(crate) unsafe fn write_u64_unaligned(self, value: u64) {
        // SAFETY: mapped, by the caller's promise.
        unsafe { self.0.cast::<u64>().write_unaligned(value) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Reads a word of any alignment. Not atomic: for bytes, not for words of a ring.
    ///
    /// # Safety
    /// Eight mapped bytes.
    #[inline(always)]
    pub(crate) unsafe fn read_u64_unaligned(self) -> u64 {
        // SAFETY: mapped, by the caller's promise.
        let value = unsafe { self.0.cast::<u64>().read_unaligned() };
        compiler_fence(Ordering::SeqCst);
        value
    }

    /// Fills bytes with a value.
    ///
    /// # Safety
    /// `len` mapped bytes.
    pub(crate) unsafe fn fill(self, value: u8, len: usize) {
        // SAFETY: mapped, by the caller's promise.
        unsafe { self.0.write_bytes(value, len) };
        compiler_fence(Ordering::SeqCst);
    }
}

/// Copies `dst.len()` bytes out of guest memory. They are fetched once.
///
/// # Safety
/// `src` has that many mapped bytes.
#[inline(always)]
pub(crate) unsafe fn copy_from_guest(src: HostPtr, dst: &mut [u8]) {
    // SAFETY: the source is mapped by the caller's promise; the destination is private and cannot
    // overlap guest memory, over which no slice exists.
    unsafe { copy(src.0, dst.as_mut_ptr(), dst.len()) };
}

/// Copies private bytes into guest memory.
///
/// # Safety
/// `dst` has `src.len()` mapped bytes.
#[inline(always)]
pub(crate) unsafe fn copy_to_guest(dst: HostPtr, src: &[u8]) {
    // SAFETY: as in copy_from_guest, with the sides exchanged.
    unsafe { copy(src.as_ptr(), dst.0, src.len()) };
}

/// Copies from one guest to another, or within one. Where the two ranges share bytes, which only
/// a guest that sends into its own receive buffer brings about, the result is a mixture.
///
/// # Safety
/// Both have `len` mapped bytes.
#[inline(always)]
pub(crate) unsafe fn copy_guest_to_guest(src: HostPtr, dst: HostPtr, len: usize) {
    // Two regions may map the same file, so ranges can overlap without their addresses doing so;
    // where the addresses do, `copy_nonoverlapping` would be undefined.
    let apart = (dst.0 as usize).wrapping_sub(src.0 as usize);
    if apart < len || apart.wrapping_neg() < len {
        // SAFETY: both are mapped by the caller's promise.
        unsafe { std::ptr::copy(src.0, dst.0, len) };
        compiler_fence(Ordering::SeqCst);
        return;
    }
    // SAFETY: both are mapped by the caller's promise and their addresses were just checked.
    unsafe { copy(src.0, dst.0, len) };
}

/// Short lengths inline, as two overlapping halves made of 16-byte moves: no call, one or two
/// branches. Longer ones are `memcpy`, which picks the widest vectors of the machine.
///
/// # Safety
/// `len` mapped bytes on both sides, which do not overlap.
#[inline(always)]
unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: each arm reads and writes at offsets below `len` only: an arm for lengths in N..=2N
    // moves N bytes at the start and N bytes that end at `len`.
    unsafe {
        match len {
            33..=64 => ends::<[u128; 2]>(src, dst, len),
            65..=128 => ends::<[u128; 4]>(src, dst, len),
            16..=32 => ends::<u128>(src, dst, len),
            8..=15 => ends::<u64>(src, dst, len),
            4..=7 => ends::<u32>(src, dst, len),
            2..=3 => ends::<u16>(src, dst, len),
            1 => dst.write(src.read()),
            0 => {}
            _ => std::ptr::copy_nonoverlapping(src, dst, len),
        }
    }
    compiler_fence(Ordering::SeqCst);
}

/// Moves a `T` from the start and a `T` from the end of `len` bytes.
///
/// # Safety
/// `size_of::<T>() <= len <= 2 * size_of::<T>()`, with `len` mapped bytes on both sides.
#[inline(always)]
unsafe fn ends<T: Copy>(src: *const u8, dst: *mut u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: both moves lie within `len` bytes, by the caller's promise; `T` is plain integers.
    unsafe {
        let head = src.cast::<T>().read_unaligned();
        let tail = src.add(last).cast::<T>().read_unaligned();
        dst.cast::<T>().write_unaligned(head);
        dst.add(last).cast::<T>().write_unaligned(tail);
    }
}

/// Asks for a line to be read soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_read(at: HostPtr) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint; it neither faults nor changes anything.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.0.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for a line to be owned soon, because it will be written. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write(at: HostPtr) {
    // The intrinsic with the ET0 hint falls back to a read prefetch unless the whole build targets
    // machines with PREFETCHW; the instruction itself is a no-op on those without it.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint; it neither faults nor changes registers, flags or memory.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at.0.addr(), options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Orders everything before it against everything after it, on both sides of a ring: between
/// making entries visible and asking whether the other side wants to be notified.
#[inline]
pub fn full_fence() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_short_length_exactly() {
        for len in 0..=300usize {
            let src: Vec<u8> = (0..len).map(|i| (i * 7 + len).to_le_bytes()[0]).collect();
            let mut guest = vec![0xeeu8; len + 64];
            let mut back = vec![0u8; len];
            let at = HostPtr::new(guest.as_mut_ptr()).offset(17);
            // SAFETY: `guest` has room for `len` bytes after 17.
            unsafe {
                copy_to_guest(at, &src);
                copy_from_guest(at, &mut back);
            }
            assert_eq!(back, src);
            assert!(guest[..17].iter().chain(&guest[17 + len..]).all(|&b| b == 0xee), "len {len}");
        }
    }

    #[test]
    fn overlapping_guest_copies_are_defined() {
        let mut guest: Vec<u8> = (0..200).collect();
        let at = HostPtr::new(guest.as_mut_ptr());
        // SAFETY: 100 bytes from 0, 10 and 100 lie inside 200.
        unsafe {
            copy_guest_to_guest(at, at.offset(10), 100);
            copy_guest_to_guest(at.offset(10), at.offset(110), 90);
        }
        assert_eq!(guest[10..110], (0..100).collect::<Vec<u8>>());
        assert_eq!(guest[110..], (0..90).collect::<Vec<u8>>());
    }

    #[test]
    fn words_and_hints() {
        let mut words = [0u64; 4];
        let at = HostPtr::new(words.as_mut_ptr().cast());
        prefetch_read(at);
        prefetch_write(at);
        // SAFETY: 32 bytes, 8-byte aligned.
        unsafe {
            at.store_u64(0x0102_0304_0506_0708);
            assert_eq!(at.load_u16(), 0x0708);
            assert_eq!(at.offset(4).load_u32(), 0x0102_0304);
            at.offset(2).store_u16_release(0xffff);
            assert_eq!(at.load_u64_acquire(), 0x0102_0304_ffff_0708);
            at.offset(9).write_u64_unaligned(u64::MAX);
            assert_eq!(at.offset(9).read_u64_unaligned(), u64::MAX);
            at.fill(0, 32);
        }
        assert_eq!(words, [0; 4]);
    }
}
