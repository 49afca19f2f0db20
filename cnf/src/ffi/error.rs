// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Error codes, their names, and what happened last.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cnf::AttachError;

use crate::pointer::put;

/// A pointer is NULL that must not be.
pub const SHUNT_CNF_E_NULL: i32 = -1;
/// A structure has a size that this library does not know.
pub const SHUNT_CNF_E_SIZE: i32 = -2;
/// A value is out of range.
pub const SHUNT_CNF_E_VALUE: i32 = -3;
/// The backend could not be attached; `shunt_cnf_last_error` says why.
pub const SHUNT_CNF_E_ATTACH: i32 = -4;
/// A bug of the library; `shunt_cnf_last_error` says more.
pub const SHUNT_CNF_E_INTERNAL: i32 = -5;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Null,
    Size,
    Value(&'static str),
    Attach(AttachError),
}

thread_local! {
    /// What the last failure in this thread was.
    static LAST: RefCell<CString> = RefCell::default();
}

/// What an error code means, in English. Never NULL; the string is the library's.
#[unsafe(no_mangle)]
pub extern "C" fn shunt_cnf_strerror(code: c_int) -> *const c_char {
    let text: &CStr = match code {
        0.. => c"no error",
        SHUNT_CNF_E_NULL => c"a pointer is NULL",
        SHUNT_CNF_E_SIZE => c"a structure of unknown size",
        SHUNT_CNF_E_VALUE => c"a value out of range",
        SHUNT_CNF_E_ATTACH => c"the backend could not be attached",
        SHUNT_CNF_E_INTERNAL => c"a bug of the library",
        _ => c"an unknown error",
    };
    text.as_ptr()
}

/// Copies what is known of the last error in this thread to `text`, cut to `size` bytes with the zero at its end. Returns
/// the number of bytes that the whole of it takes without the zero.
///
/// # Safety
/// `text` is NULL or writable for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_last_error(text: *mut c_char, size: usize) -> usize {
    LAST.with_borrow(|last| {
        let bytes = last.as_bytes();
        let copied = bytes.len().min(size.saturating_sub(1));
        if size > 0 && !text.is_null() {
            // SAFETY: `text` is writable for `size` bytes by the caller's promise, and `copied` is less than that; `bytes`
            // is our own.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), text.cast::<u8>(), copied) };
            // SAFETY: the byte after those, the last of `size` at most.
            let _ = unsafe { put(text.wrapping_add(copied), 0) };
        }
        bytes.len()
    })
}

/// Runs what a function of the interface does: a failure becomes its code, a panic does not get out.
pub(crate) fn guard(body: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            note(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
            return SHUNT_CNF_E_INTERNAL;
        }
    };
    match failure {
        Failure::Null => known(SHUNT_CNF_E_NULL),
        Failure::Size => known(SHUNT_CNF_E_SIZE),
        Failure::Value(what) => {
            note(what);
            SHUNT_CNF_E_VALUE
        }
        Failure::Attach(error) => {
            note(&error.to_string());
            SHUNT_CNF_E_ATTACH
        }
    }
}

/// An error of which there is no more to say than its name.
fn known(code: c_int) -> c_int {
    note(match code {
        SHUNT_CNF_E_NULL => "a pointer is NULL",
        _ => "a structure of unknown size",
    });
    code
}

fn note(text: &str) {
    // A path with a zero in it does not exist, so none is named in a message.
    LAST.set(CString::new(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(size: usize) -> (usize, String) {
        let mut text = vec![0x55u8; 200];
        // SAFETY: 200 bytes, and no more than that is asked for.
        let len = unsafe { shunt_cnf_last_error(text.as_mut_ptr().cast(), size) };
        assert!(text[size..].iter().all(|byte| *byte == 0x55), "written beyond {size}");
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
        (len, String::from_utf8_lossy(&text[..end]).into_owned())
    }

    #[test]
    fn what_happened_is_told_within_bounds() {
        assert_eq!(guard(|| Err(Failure::Value("too many"))), SHUNT_CNF_E_VALUE);
        assert_eq!(last(100), (8, "too many".to_owned()));
        assert_eq!(last(4), (8, "too".to_owned()));
        assert_eq!(last(1), (8, String::new()));
        assert_eq!(last(0).0, 8);
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { shunt_cnf_last_error(std::ptr::null_mut(), 10) }, 8);
    }

    #[test]
    fn a_panic_stays_inside() {
        assert_eq!(guard(|| panic!("number {}", 7)), SHUNT_CNF_E_INTERNAL);
        assert_eq!(last(100).1, "number 7");
        assert_eq!(guard(|| Ok(5)), 5);
    }

    #[test]
    fn every_code_has_a_name() {
        let names: std::collections::HashSet<_> = (-7..=1)
            .map(|code| {
                // SAFETY: the string is static.
                unsafe { CStr::from_ptr(shunt_cnf_strerror(code)) }.to_str().unwrap()
            })
            .collect();
        assert_eq!(names.len(), 7);
    }
}
