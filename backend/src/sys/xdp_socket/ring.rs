// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A ring that the socket shares with the kernel, and the memory that frames lie in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{off_t, xdp_ring_offset};

use super::Entry;

/// Pages that go with the value.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping lives as long as the value and is valid in every thread; who may touch what in it is said by those
// who have it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory of this process, present from the start.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0)
    }

    fn of(fd: &OwnedFd, len: usize, offset: off_t) -> io::Result<Self> {
        Self::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn new(len: usize, flags: i32, fd: i32, offset: off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { at, len })
    }

    pub(super) fn address(&self) -> u64 {
        self.at.addr().get() as u64
    }

    /// `len` bytes from `at`, if the mapping has them.
    pub(super) fn range(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        let end = at.checked_add(len)?;
        // SAFETY: within the mapping.
        (end <= self.len).then(|| unsafe { self.at.add(at) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; what borrowed from it is gone with the last handle.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// One of the four rings. One side writes entries and then the producer's index, the other reads them and then writes the
/// consumer's; both run freely and are taken modulo the number of entries.
#[derive(Debug)]
pub(super) struct Ring<T> {
    mapping: Mapping,
    offsets: xdp_ring_offset,
    entries: u32,
    kind: std::marker::PhantomData<fn(T) -> T>,
}

impl<T: Entry> Ring<T> {
    /// Maps a ring that was set up with so many entries, a power of two.
    pub(super) fn map(fd: &OwnedFd, page: off_t, offsets: xdp_ring_offset, entries: u32) -> io::Result<Self> {
        let descriptors = index(offsets.desc)?;
        let mapping = Mapping::of(fd, descriptors + entries as usize * size_of::<T>(), page)?;
        for offset in [offsets.producer, offsets.consumer, offsets.flags] {
            let offset = index(offset)?;
            if !offset.is_multiple_of(align_of::<AtomicU32>()) || mapping.range(offset, size_of::<u32>()).is_none() {
                return Err(io::Error::other("the kernel's offsets into a ring are not in it"));
            }
        }
        if !descriptors.is_multiple_of(align_of::<T>()) {
            return Err(io::Error::other("the kernel's entries of a ring are not aligned"));
        }
        Ok(Self { mapping, offsets, entries, kind: std::marker::PhantomData })
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Entries written so far, modulo 2³².
    #[inline]
    pub(super) fn produced(&self) -> u32 {
        self.word(self.offsets.producer).load(Ordering::Acquire)
    }

    /// Entries taken so far, modulo 2³².
    #[inline]
    pub(super) fn consumed(&self) -> u32 {
        self.word(self.offsets.consumer).load(Ordering::Acquire)
    }

    /// Hands over what was written before `end`.
    #[inline]
    pub(super) fn produce(&self, end: u32) {
        self.word(self.offsets.producer).store(end, Ordering::Release);
    }

    /// Gives back what was read before `end`.
    #[inline]
    pub(super) fn consume(&self, end: u32) {
        self.word(self.offsets.consumer).store(end, Ordering::Release);
    }

    /// Whether the kernel sleeps over this ring until it is called.
    #[inline]
    pub(super) fn wants_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entry `n`, which must be this side's to read.
    #[inline]
    pub(super) fn read(&self, n: u32) -> T {
        // SAFETY: within the ring, aligned, and any bytes are an entry. The kernel does not write an entry that is ours.
        unsafe { self.entry(n).read() }
    }

    /// Sets entry `n`, which must be this side's to write.
    #[inline]
    pub(super) fn write(&self, n: u32, entry: T) {
        // SAFETY: within the ring and aligned. The kernel does not read an entry that is ours, and of this side only the one
        // who has the end of this ring writes.
        unsafe { self.entry(n).write(entry) }
    }

    fn entry(&self, n: u32) -> NonNull<T> {
        let slot = (n & (self.entries - 1)) as usize;
        let at = usize::try_from(self.offsets.desc).unwrap_or(0) + slot * size_of::<T>();
        // SAFETY: `map` made the mapping as long as the entries need, `slot` is less than their number.
        unsafe { self.mapping.at.add(at).cast::<T>() }
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `map` found the three words in the mapping and aligned; both sides access them atomically.
        unsafe { self.mapping.at.add(usize::try_from(offset).unwrap_or(0)).cast::<AtomicU32>().as_ref() }
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
