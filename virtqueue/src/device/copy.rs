// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copies of the inner loops, and the header they write most.
//!
//! The rules are those of `mem/access.rs`: no reference to guest memory, and nothing is decided on
//! bytes that a guest can still change. What is different is the effort: everything from 16 to 256
//! bytes goes through vector registers with one predictable branch per power of two, all loads
//! before all stores, so that a line that is still on its way holds up nothing but its own bytes.

use crate::mem::HostPtr;

/// Copies `len` bytes. Where the two ranges share bytes, which only a guest that sends into its own
/// receive buffer brings about, the result is a mixture.
///
/// # Safety
/// `src` is mapped (or private) and may be read, `dst` may be written, for `len` bytes.
#[inline(always)]
pub(super) unsafe fn copy_frame(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if (16..=256).contains(&len) {
        // SAFETY: each arm has the lengths its function asks for.
        unsafe {
            if len <= 64 {
                if len >= 32 {
                    ends_32(src, dst, len);
                } else {
                    ends_16(src, dst, len);
                }
            } else if len <= 128 {
                ends_64(src, dst, len);
            } else {
                let rest = len - 128;
                ends_64(src, dst, 128);
                ends_64(src.add(rest), dst.add(rest), 128);
            }
        }
        return;
    }
    // SAFETY: passed on; a move allows the ranges to overlap.
    unsafe { core::ptr::copy(src, dst, len) };
}

/// Writes the header of a frame that takes one buffer: all zeros but `num_buffers`.
///
/// The receiver seldom changes the header of a buffer it posts again, and where the header has a
/// line of its own, not dirtying that line spares it the way between the cores. So it is compared
/// first and written only when it differs. In registers: a comparison in memory would wait for
/// stores, and these for the lines of all frames before.
///
/// # Safety
/// `dst` has 12 mapped bytes.
#[inline(always)]
pub(super) unsafe fn write_plain_header(dst: HostPtr) {
    const TAIL: u64 = 1 << 48;
    // SAFETY: 12 bytes are the eight from 0 and the eight from 4.
    unsafe {
        if dst.read_u64_unaligned() | (dst.offset(4).read_u64_unaligned() ^ TAIL) != 0 {
            dst.write_u64_unaligned(0);
            dst.offset(4).write_u64_unaligned(TAIL);
        }
    }
}

/// Moves one vector of 16 bytes from the front and one that ends at `len`.
///
/// # Safety
/// `16 <= len <= 32`, with `len` mapped bytes on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn ends_16(src: *const u8, dst: *mut u8, len: usize) {
    let back = len - 16;
    // SAFETY: both vectors lie within `len` bytes.
    unsafe {
        let (a, b) = (load(src), load(src.add(back)));
        store(dst, a);
        store(dst.add(back), b);
    }
}

/// Moves two vectors of 16 bytes from the front and two that end at `len`.
///
/// # Safety
/// `32 <= len <= 64`, with `len` mapped bytes on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn ends_32(src: *const u8, dst: *mut u8, len: usize) {
    let back = len - 32;
    // SAFETY: all vectors lie within `len` bytes.
    unsafe {
        let (a, b) = (load(src), load(src.add(16)));
        let (c, d) = (load(src.add(back)), load(src.add(back + 16)));
        store(dst, a);
        store(dst.add(16), b);
        store(dst.add(back), c);
        store(dst.add(back + 16), d);
    }
}

/// Moves four vectors of 16 bytes from the front and four that end at `len`.
///
/// # Safety
/// `64 <= len <= 128`, with `len` mapped bytes on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn ends_64(src: *const u8, dst: *mut u8, len: usize) {
    let back = len - 64;
    // SAFETY: all vectors lie within `len` bytes.
    unsafe {
        let (a, b, c, d) = (load(src), load(src.add(16)), load(src.add(32)), load(src.add(48)));
        let (from, to) = (src.add(back), dst.add(back));
        let (e, f, g, h) = (load(from), load(from.add(16)), load(from.add(32)), load(from.add(48)));
        store(dst, a);
        store(dst.add(16), b);
        store(dst.add(32), c);
        store(dst.add(48), d);
        store(to, e);
        store(to.add(16), f);
        store(to.add(32), g);
        store(to.add(48), h);
    }
}

/// # Safety
/// 16 mapped bytes, of any alignment.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load(at: *const u8) -> core::arch::x86_64::__m128i {
    // SAFETY: mapped by the caller's promise; SSE2 is part of x86-64.
    unsafe { core::arch::x86_64::_mm_loadu_si128(at.cast()) }
}

/// # Safety
/// 16 mapped bytes, of any alignment.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store(at: *mut u8, vector: core::arch::x86_64::__m128i) {
    // SAFETY: mapped by the caller's promise; SSE2 is part of x86-64.
    unsafe { core::arch::x86_64::_mm_storeu_si128(at.cast(), vector) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_copies_exactly() {
        let byte = |i: u32| u8::try_from((i * 7 + i / 256) % 256).unwrap();
        let source: Vec<u8> = (0..4000).map(byte).collect();
        for len in (0..600).chain([1500, 1514, 2048, 3999]) {
            for skew in [0, 1] {
                let mut target = vec![0xa5_u8; 4010];
                // SAFETY: `skew + len <= 4000` in the source, `3 + len <= 4010` in the target.
                unsafe { copy_frame(source.as_ptr().add(skew), target.as_mut_ptr().add(3), len) };
                assert_eq!(target[3..3 + len], source[skew..skew + len]);
                assert!(target[..3].iter().chain(&target[3 + len..]).all(|byte| *byte == 0xa5));
            }
        }
    }
}
