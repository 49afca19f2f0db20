// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Survives a guest that truncates the file behind its memory.
//!
//! Theory of operation. A front end hands us a file and may truncate it afterwards. The next touch
//! of a page that is no longer there raises SIGBUS in the worker that touches it, and would end
//! the process and with it every other guest. The handler installed here looks up the faulting
//! address in a registry of all mapped regions. If a region holds it, the handler maps anonymous
//! memory over the **whole** region and flags it poisoned; the access is then repeated and meets
//! zeros. The whole region, not the page, for three reasons: it is one mapping however many pages
//! fault, so a guest cannot make us reach the kernel's limit of mappings by truncating often; a
//! region of huge pages can only be replaced in huge pages, and a region is a whole number of
//! them; and a region that lost any contents is of no use to its port, which must be torn down as
//! soon as somebody asks [`MemoryMap::poisoned`](super::MemoryMap::poisoned).
//!
//! A SIGBUS for any other address goes to whatever handler was there before, in the end to the
//! default action. The registry is a fixed array of atomics, because a handler may take no lock
//! and call no allocator; a slot is claimed by a compare-and-swap and read only by threads that
//! fault inside the range, who keep the mapping alive by doing so.

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::io::Errno;

use super::error::MapError;

/// How many regions one process can have mapped: sixteen guests with all the regions one may have.
pub(super) const LIMIT: usize = 8192;

static SLOTS: [Slot; LIMIT] = [const { Slot::free() }; LIMIT];
/// No slot at or above this index was ever used.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);
/// What SIGBUS did before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

struct Slot {
    /// Address of the mapping; 0: free; 1: being filled in.
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicBool,
}

impl Slot {
    const fn free() -> Self {
        Self { start: AtomicUsize::new(0), len: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
    }
}

/// A mapped range the handler knows, until dropped.
#[derive(Debug)]
pub(super) struct Registration {
    slot: &'static Slot,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed))
    }
}

impl Registration {
    /// Enters a range: whole pages of the file it maps.
    pub(super) fn new(start: usize, len: usize) -> Result<Self, MapError> {
        for (index, slot) in SLOTS.iter().enumerate() {
            let free = slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
            if free.is_ok() {
                slot.len.store(len, Ordering::Relaxed);
                slot.poisoned.store(false, Ordering::Relaxed);
                HIGH_WATER.fetch_max(index + 1, Ordering::AcqRel);
                slot.start.store(start, Ordering::Release);
                return Ok(Self { slot });
            }
        }
        Err(MapError::RegistryFull { limit: LIMIT })
    }

    /// Whether the handler had to replace the contents.
    pub(super) fn poisoned(&self) -> bool {
        self.slot.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
    }
}

/// Makes this process survive guests that truncate the files behind their memory. Call it once at
/// start; further calls do nothing.
///
/// # Errors
/// What `sigaction` reports.
pub fn install_sigbus_guard() -> std::io::Result<()> {
    static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    Ok((*INSTALLED.get_or_init(install))?)
}

fn install() -> Result<(), Errno> {
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action, this stores the present one and changes nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: the call succeeded, so it was filled in.
    let _ = PREVIOUS.set(unsafe { previous.assume_init() });
    // SAFETY: all zeros is a valid sigaction: no flags, no handler, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as extern "C" fn(_, _, _) as usize;
    // On the alternate stack, where Rust's own handler for stack overflow runs, to which we chain.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is async-signal-safe: it uses atomics and raw system calls only.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(last_errno());
    }
    Ok(())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let (addr, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    // Positive codes come from the kernel; a signal that somebody sent has no address.
    if code <= 0 || !cover(addr) {
        chain(signal, info, context);
    }
}

/// Maps zeros over the region that holds `addr`. `false`: there is none, or it could not be done.
fn cover(addr: usize) -> bool {
    let used = HIGH_WATER.load(Ordering::Acquire);
    for slot in SLOTS.iter().take(used) {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        if start <= 1 || addr.wrapping_sub(start) >= len {
            continue;
        }
        // Before the contents change, so that whoever reads zeros can learn why.
        slot.poisoned.store(true, Ordering::Release);
        // SAFETY: `errno` belongs to this thread, which the signal interrupted between any two
        // instructions; it must find it unchanged. The range is a mapping of ours: it is
        // registered from after mmap to before munmap, and the faulting thread, which holds the
        // map alive, is this one.
        return unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            let mapped = libc::mmap(
                std::ptr::with_exposed_provenance_mut(start),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                -1,
                0,
            );
            *errno = saved;
            mapped != libc::MAP_FAILED
        };
    }
    false
}

/// Does what would have happened without us.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type Simple = extern "C" fn(libc::c_int);
    type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    let previous = PREVIOUS.get();
    match previous {
        Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
            if action.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: installed with SA_SIGINFO, so it is a function of this type.
                let full = unsafe { std::mem::transmute::<usize, Full>(action.sa_sigaction) };
                full(signal, info, context);
            } else {
                // SAFETY: installed without SA_SIGINFO, so it is a function of this type.
                let simple = unsafe { std::mem::transmute::<usize, Simple>(action.sa_sigaction) };
                simple(signal);
            }
        }
        // The access is repeated on return, faults again, and meets the default action. A signal
        // that was sent is not repeated by itself.
        _ => {
            // SAFETY: both calls are async-signal-safe and take plain numbers.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}
