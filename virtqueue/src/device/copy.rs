// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy of a frame from one guest to another, for the inner loop of `forward`.
//!
//! The rules are those of `mem/access.rs`: no reference to guest memory, and nothing is decided on
//! bytes that a guest can still change. What is different is the effort: everything up to 256 bytes
//! goes through vector registers with one predictable branch per power of two, all loads before all
//! stores, so that a line that is still on its way holds up nothing but its own bytes.

use crate::mem::{HostPtr, copy_guest_to_guest};

/// Copies `len` bytes. Where the two ranges share bytes, which only a guest that sends into its own
/// receive buffer brings about, the result is a mixture.
///
/// # Safety
/// Both have `len` mapped bytes.
#[inline(always)]
pub(super) unsafe fn copy_frame(src: HostPtr, dst: HostPtr, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if (16..=256).contains(&len) {
        let (from, to) = (src.as_ptr().cast_const(), dst.as_ptr());
        // SAFETY: in each arm N <= len <= 2 * N, as `ends` asks.
        unsafe {
            match len {
                0..=32 => ends::<1>(from, to, len),
                33..=64 => ends::<2>(from, to, len),
                65..=128 => ends::<4>(from, to, len),
                _ => {
                    ends::<4>(from, to, 128);
                    let rest = len - 128;
                    ends::<4>(from.add(rest), to.add(rest), 128);
                }
            }
        }
        return;
    }
    // SAFETY: passed on.
    unsafe { copy_guest_to_guest(src, dst, len) };
}

/// Moves `N` vectors of 16 bytes from the front and `N` that end at `len`.
///
/// # Safety
/// `16 * N <= len <= 32 * N`, with `len` mapped bytes on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn ends<const N: usize>(src: *const u8, dst: *mut u8, len: usize) {
    use core::arch::x86_64::{_mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128};
    // SAFETY: all offsets are below `len - 15` by the caller's promise; SSE2 is part of x86-64 and
    // the moves need no alignment.
    unsafe {
        let back = len - 16 * N;
        let (mut head, mut tail) = ([_mm_setzero_si128(); N], [_mm_setzero_si128(); N]);
        for (i, vector) in head.iter_mut().enumerate() {
            *vector = _mm_loadu_si128(src.add(16 * i).cast());
        }
        for (i, vector) in tail.iter_mut().enumerate() {
            *vector = _mm_loadu_si128(src.add(back + 16 * i).cast());
        }
        for (i, vector) in head.iter().enumerate() {
            _mm_storeu_si128(dst.add(16 * i).cast(), *vector);
        }
        for (i, vector) in tail.iter().enumerate() {
            _mm_storeu_si128(dst.add(back + 16 * i).cast(), *vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_copies_exactly() {
        let mut source: Vec<u8> = (0..4000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..600).chain([1500, 1514, 2048, 3999]) {
            for skew in [0, 1] {
                let mut target = vec![0xa5_u8; 4010];
                let (from, to) = (HostPtr::new(source.as_mut_ptr()), HostPtr::new(target.as_mut_ptr()));
                // SAFETY: `skew + len <= 4000` in the source, `3 + len <= 4010` in the target.
                unsafe { copy_frame(from.offset(skew), to.offset(3), len) };
                assert_eq!(target[3..3 + len], source[skew..skew + len]);
                assert!(target[..3].iter().chain(&target[3 + len..]).all(|byte| *byte == 0xa5));
            }
        }
    }
}
