// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A link: opened, tended, closed.

use std::ffi::{c_char, c_int};
use std::mem::size_of;
use std::time::Duration;

use cnf::{Event, Link};

use crate::SHUNT_CNF_VERSION;
use crate::config::{parse, shunt_cnf_config};
use crate::error::{Failure, guard};
use crate::pointer::{Structure, handle, put, read, write};
use crate::queue::shunt_cnf_queue;

/// Nothing happened.
pub const SHUNT_CNF_NOTHING: u32 = 0;
/// A backend is attached.
pub const SHUNT_CNF_UP: u32 = 1;
/// The backend was lost.
pub const SHUNT_CNF_DOWN: u32 = 2;
/// No backend could be attached; the next attempt follows.
pub const SHUNT_CNF_NOT_YET: u32 = 3;
/// Packets are put together in frames from now on.
pub const SHUNT_CNF_AGGREGATING: u32 = 4;
/// Packets are frames of their own from now on, or for the time being.
pub const SHUNT_CNF_PLAIN: u32 = 5;

/// Bytes of an event's text, with the zero at its end.
pub const SHUNT_CNF_TEXT: usize = 256;

/// A link to a backend. Opaque.
#[derive(Debug)]
#[expect(non_camel_case_types, reason = "its name in C")]
pub struct shunt_cnf_link {
    link: Link,
    /// Made by [`Box::into_raw`]: each may be in use in another thread while the link is tended, so no reference to one is
    /// made here before the link is closed.
    queues: Vec<*mut shunt_cnf_queue>,
}

/// Something that happened to a link. The program fills in size and version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shunt_cnf_event {
    /// sizeof(struct shunt_cnf_event).
    pub size: u32,
    /// SHUNT_CNF_VERSION, as the program knows it.
    pub version: u32,
    /// SHUNT_CNF_UP and so on.
    pub kind: u32,
    /// Zero.
    pub reserved: [u32; 5],
    /// What happened, in English.
    pub text: [c_char; SHUNT_CNF_TEXT],
}

// SAFETY: numbers only, and size and version come first.
unsafe impl Structure for shunt_cnf_event {
    fn blank() -> Self {
        let size = u32::try_from(size_of::<Self>()).unwrap_or(u32::MAX);
        Self { size, version: SHUNT_CNF_VERSION, kind: SHUNT_CNF_NOTHING, reserved: [0; 5], text: [0; SHUNT_CNF_TEXT] }
    }
}

/// Opens a link, and waits for its backend unless SHUNT_CNF_DONT_WAIT says otherwise. Returns 0 or an error; the link is
/// put into `*link`, or NULL.
///
/// # Safety
/// `config` is as shunt_cnf_config_init left it, but for what the program set; `link` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_open(config: *const shunt_cnf_config, link: *mut *mut shunt_cnf_link) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { put(link, std::ptr::null_mut()) }?;
        // SAFETY: the caller's promise.
        let (config, dont_wait) = unsafe { parse(config) }?;
        let opened = if dont_wait { Link::open(config) } else { Link::attach(config) };
        let (opened, queues) = opened.map_err(Failure::Attach)?;
        let queues = queues.into_iter().map(|queue| Box::into_raw(Box::new(shunt_cnf_queue::new(queue)))).collect();
        let opened = Box::into_raw(Box::new(shunt_cnf_link { link: opened, queues }));
        // SAFETY: the caller's promise.
        unsafe { put(link, opened) }?;
        Ok(0)
    })
}

/// Queue pair `index` of a link, or NULL if there is none. It is valid until the link is closed, and is used by one
/// thread at a time.
///
/// # Safety
/// `link` is NULL or an open link.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_queue_of(link: *const shunt_cnf_link, index: u16) -> *mut shunt_cnf_queue {
    // SAFETY: the caller's promise; the list of queues does not change while the link is open.
    let link = unsafe { link.as_ref() };
    link.and_then(|link| link.queues.get(usize::from(index)).copied()).unwrap_or(std::ptr::null_mut())
}

/// Does what is due at a link: notices that its backend was lost, attaches it again, speaks with it about aggregation. To be
/// called again and again, at least ten times a second, by one thread at a time; queues may be in use in others. Returns
/// the kind of what happened, SHUNT_CNF_NOTHING if nothing did, or an error. `event` may be NULL.
///
/// # Safety
/// `link` is NULL or an open link; `event` is NULL, or as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_tend(link: *mut shunt_cnf_link, event: *mut shunt_cnf_event) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let link = unsafe { handle(link) }?;
        if !event.is_null() {
            // One that cannot be written is refused before anything is lost.
            // SAFETY: the caller's promise.
            unsafe { read(event.cast_const()) }?;
        }
        let happened = link.link.tend();
        let kind = match &happened {
            None => SHUNT_CNF_NOTHING,
            Some(Event::Up) => SHUNT_CNF_UP,
            Some(Event::Down(_)) => SHUNT_CNF_DOWN,
            Some(Event::NotYet { .. }) => SHUNT_CNF_NOT_YET,
            Some(Event::Aggregating { .. }) => SHUNT_CNF_AGGREGATING,
            Some(Event::Plain { .. }) => SHUNT_CNF_PLAIN,
        };
        if !event.is_null() {
            let mut value = shunt_cnf_event { kind, ..shunt_cnf_event::blank() };
            let text = happened.map_or_else(String::new, |happened| happened.to_string());
            // The last byte stays zero.
            for (place, byte) in value.text.iter_mut().take(SHUNT_CNF_TEXT - 1).zip(text.bytes()) {
                *place = byte.cast_signed();
            }
            // SAFETY: the caller's promise.
            unsafe { write(event, &value) }?;
        }
        c_int::try_from(kind).map_err(|_| Failure::Value("kind"))
    })
}

/// Sends what waits, takes leave of the other end, waits at most `timeout_ms` milliseconds until the backend has taken
/// everything, and frees the link and its queues. NULL is no link, and nothing is done.
///
/// # Safety
/// `link` is NULL or an open link, of which nothing is in use; it is no more afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_close(link: *mut shunt_cnf_link, timeout_ms: u32) {
    if link.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: made by Box::into_raw in shunt_cnf_open, and not freed yet by the caller's promise.
        let shunt_cnf_link { link, queues } = *unsafe { Box::from_raw(link) };
        let queues = queues.into_iter().map(|queue| {
            // SAFETY: likewise; it belongs to this link alone, and nobody uses it any more by the caller's promise.
            unsafe { Box::from_raw(queue) }.into_queue()
        });
        link.close(queues.collect(), Duration::from_millis(u64::from(timeout_ms)));
        Ok(0)
    });
}
