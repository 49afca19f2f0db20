// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies between guest memory and private memory, or between two guests.
//!
//! The other side may write while we read: what arrives is then some mixture of old and new bytes,
//! which is all the same to us, because nothing is decided on bytes copied here before they are
//! private. No reference to guest memory is ever made.

/// From here on a call of the platform's `memmove` costs less than it saves.
const SMALL: usize = 256;

/// Copies `len` bytes, fastest for the sizes of small frames.
///
/// Up to [`SMALL`] bytes as two runs of fixed size, one from the front and one from the back, which
/// overlap as far as needed: no loop, no call, and one branch per power of two.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes. They may overlap (a guest can
/// post the same memory twice); the result is then unspecified bytes.
#[inline(always)]
pub(crate) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: passed on from the caller; `both_ends::<N>` is called with N <= len <= 2 * N only.
    unsafe {
        if len > 64 {
            if len > SMALL {
                core::ptr::copy(src, dst, len);
            } else if len > 128 {
                both_ends::<128>(src, dst, len);
            } else {
                both_ends::<64>(src, dst, len);
            }
        } else if len >= 32 {
            both_ends::<32>(src, dst, len);
        } else if len >= 16 {
            both_ends::<16>(src, dst, len);
        } else if len >= 8 {
            both_ends::<8>(src, dst, len);
        } else {
            bytes(src, dst, len);
        }
    }
}

/// # Safety
/// As [`copy`], and `N <= len <= 2 * N`.
#[inline(always)]
unsafe fn both_ends<const N: usize>(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: both runs lie inside `len` bytes, since N <= len. A `[u8; N]` needs no alignment.
    unsafe {
        let front = src.cast::<[u8; N]>().read();
        let back = src.add(len - N).cast::<[u8; N]>().read();
        dst.cast::<[u8; N]>().write(front);
        dst.add(len - N).cast::<[u8; N]>().write(back);
    }
}

/// # Safety
/// As [`copy`], and `len < 8`.
#[inline(always)]
unsafe fn bytes(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: N <= len <= 2 * N in each arm; the caller vouches for the ranges.
    unsafe {
        match len {
            0 => {}
            1 => both_ends::<1>(src, dst, len),
            2 | 3 => both_ends::<2>(src, dst, len),
            _ => both_ends::<4>(src, dst, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_copies_exactly() {
        let source: Vec<u8> = (0..4000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..600).chain([1500, 1514, 2048, 3999]) {
            for skew in [0, 1] {
                let mut target = vec![0xa5_u8; 4010];
                // SAFETY: `skew + len <= 4000` in the source, `3 + len <= 4010` in the target.
                unsafe { copy(source.as_ptr().add(skew), target.as_mut_ptr().add(3), len) };
                assert_eq!(&target[3..3 + len], &source[skew..skew + len]);
                assert!(target[..3].iter().chain(&target[3 + len..]).all(|b| *b == 0xa5));
            }
        }
    }
}
