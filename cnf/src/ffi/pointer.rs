// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The only ways in which this crate follows a pointer from C: each checks what can be checked, and says what cannot.

use std::ffi::{CStr, c_char};
use std::mem::size_of;

use crate::error::Failure;

/// A structure of C: plain numbers and pointers, of which every pattern of bits is a value, that begins with its size and
/// version, both 32 bits.
///
/// # Safety
/// That it is one.
pub(crate) unsafe trait Structure: Copy {
    /// One with its size and version, and zeros.
    fn blank() -> Self;
}

/// Bytes of size and version.
const FRONT: usize = 8;

/// Reads as much of a structure as its caller knows; the rest is as in a blank one.
///
/// # Safety
/// `from` is NULL, or points to a `T` as some version of the header had it: readable for as many bytes as its first word
/// says, and not written meanwhile.
pub(crate) unsafe fn read<T: Structure>(from: *const T) -> Result<T, Failure> {
    // SAFETY: the caller's promise, unless NULL, which `size_of_that` looks for.
    let size = unsafe { size_of_that(from) }?;
    let mut value = T::blank();
    // SAFETY: `from` is readable for `size` bytes by the caller's promise; `value` has at least as many, for `size` is at
    // most its size; any bytes are a `T`; the two do not overlap, since `value` is our own.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), size) };
    Ok(value)
}

/// Writes as much of a structure as its caller knows, and leaves its size and version alone.
///
/// # Safety
/// As for [`read`], and writable.
pub(crate) unsafe fn write<T: Structure>(to: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: the caller's promise, unless NULL, which `size_of_that` looks for.
    let size = unsafe { size_of_that(to) }?;
    let from = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: `to` is writable for `size` bytes by the caller's promise; `value` has as many, and is our own.
    unsafe {
        std::ptr::copy_nonoverlapping(from.wrapping_add(FRONT), to.cast::<u8>().wrapping_add(FRONT), size - FRONT);
    }
    Ok(())
}

/// What the first word of a structure says of its size.
///
/// # Safety
/// `from` is NULL or readable for four bytes.
unsafe fn size_of_that<T: Structure>(from: *const T) -> Result<usize, Failure> {
    if from.is_null() {
        return Err(Failure::Null);
    }
    // SAFETY: readable by the caller's promise; an unaligned read asks for no alignment.
    let size = unsafe { from.cast::<u32>().read_unaligned() } as usize;
    // A later version of the caller may have a longer one; what this library does not know of it must be left out.
    if (FRONT..=size_of::<T>()).contains(&size) { Ok(size) } else { Err(Failure::Size) }
}

/// Something of ours that C holds a pointer to.
///
/// # Safety
/// `handle` is NULL, or was made by [`Box::into_raw`] and not been given back; nobody else uses it while the result lives.
pub(crate) unsafe fn handle<'a, T>(handle: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise; NULL is looked for by `as_mut`.
    unsafe { handle.as_mut() }.ok_or(Failure::Null)
}

/// A string of C.
///
/// # Safety
/// `text` is NULL, or points to bytes that end with a zero and that nobody writes while the result lives.
pub(crate) unsafe fn string<'a>(text: *const c_char) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err(Failure::Null);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// An array of C. One of no elements may be NULL.
///
/// # Safety
/// `first` is NULL, or points to `count` aligned elements that nobody writes while the result lives.
pub(crate) unsafe fn slice<'a, T>(first: *const T, count: usize) -> Result<&'a [T], Failure> {
    match (count, first.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Failure::Null),
        // SAFETY: the caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts(first, count) }),
    }
}

/// Gives C a pointer through a place of its own.
///
/// # Safety
/// `place` is NULL or writable, and aligned.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) -> Result<(), Failure> {
    if place.is_null() {
        return Err(Failure::Null);
    }
    // SAFETY: the caller's promise; what was there is a pointer or nothing, and needs no drop.
    unsafe { place.write(value) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Sample {
        size: u32,
        version: u32,
        old: u64,
        new: u64,
    }

    // SAFETY: numbers only, and size and version first.
    unsafe impl Structure for Sample {
        fn blank() -> Self {
            Self { size: 24, version: 1, old: 0, new: 0 }
        }
    }

    fn read_sample(sample: &Sample) -> Result<Sample, Failure> {
        // SAFETY: a reference is readable for the size of its type, and sizes beyond are refused.
        unsafe { read(sample) }
    }

    #[test]
    fn structures_of_all_ages_are_understood() {
        let whole = Sample { size: 24, version: 1, old: 7, new: 8 };
        assert_eq!(read_sample(&whole).unwrap(), whole);
        let short = Sample { size: 16, ..whole };
        assert_eq!(read_sample(&short).unwrap(), Sample { new: 0, ..short });
        for size in [0, 7, 25, u32::MAX] {
            assert!(matches!(read_sample(&Sample { size, ..whole }), Err(Failure::Size)), "{size}");
        }
        let mut target = short;
        // SAFETY: as above.
        unsafe { write(&raw mut target, &Sample { size: 24, version: 9, old: 70, new: 80 }) }.unwrap();
        assert_eq!(target, Sample { old: 70, ..short });
    }

    #[test]
    fn null_is_an_error() {
        // SAFETY: NULL is allowed.
        unsafe {
            assert!(matches!(read::<Sample>(std::ptr::null()), Err(Failure::Null)));
            assert!(matches!(write::<Sample>(std::ptr::null_mut(), &Sample::blank()), Err(Failure::Null)));
            assert!(matches!(handle::<Sample>(std::ptr::null_mut()), Err(Failure::Null)));
            assert!(matches!(string(std::ptr::null()), Err(Failure::Null)));
            assert!(matches!(slice::<u8>(std::ptr::null(), 1), Err(Failure::Null)));
            assert!(slice::<u8>(std::ptr::null(), 0).unwrap().is_empty());
            assert!(matches!(put::<u8>(std::ptr::null_mut(), 1), Err(Failure::Null)));
        }
    }
}
