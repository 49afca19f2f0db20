// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of dirty pages: one bit for each page of guest-physical memory, in a file that the front end shares with us.
//!
//! Theory of operation. While a guest migrates its front end copies memory that we go on writing. It takes the set bits of
//! the log, clears them, and copies those pages anew. So a page must be written *before* its bit is set, and the bit must
//! be looked at after the write is visible: a bit that was seen as set, and was therefore left alone, may be one that the
//! front end is about to clear, and what it then copies must have our bytes in it. Whoever sets bits executes one full fence
//! between its writes and all looks at the log; a bit that is not set is set by an atomic *or*, because the front end, and
//! other back ends of the same guest, change the same bytes.
//!
//! The log is as little to be trusted as guest memory. It is mapped with the same checks and under the same guard against
//! SIGBUS, what lies beyond its end is counted and otherwise left alone, and nothing is ever decided on its contents.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::access::full_fence;
use super::error::MapError;
use super::map::MemoryMap;
use super::region::{Region, RegionSpec};

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its file cannot be mapped there.
    #[error("log of dirty pages: {0}")]
    Map(#[from] MapError),
    /// It is larger than any memory that there is.
    #[error("log of dirty pages: {size} bytes, at most {limit} are of use")]
    TooLarge {
        /// Bytes.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// It has no bits for some of the memory.
    #[error("log of dirty pages: {size} bytes, but the guest's memory needs {due}")]
    TooShort {
        /// Bytes.
        size: u64,
        /// Bytes needed.
        due: u64,
    },
}

/// A log, mapped as long as this lives.
#[derive(Debug)]
pub struct DirtyLog {
    region: Region,
    /// Pages written for which there is no bit.
    beyond: AtomicU64,
}

/// Pages that one [`DirtyLog::set`] is about.
pub(crate) const GROUP: u64 = u64::BITS as u64;

impl DirtyLog {
    /// Bytes of guest memory for each bit (VHOST_LOG_PAGE).
    pub const PAGE: u64 = 4096;
    /// The largest log: that of 4 TiB of guest addresses. Marking all of it takes as long as filling so much memory.
    pub const MAX_SIZE: u64 = 128 << 20;

    /// Maps `size` bytes at `offset` of a file.
    ///
    /// # Errors
    /// The size is 0 or above [`DirtyLog::MAX_SIZE`], or the file cannot be mapped there, writable.
    pub fn map(fd: OwnedFd, offset: u64, size: u64) -> Result<Self, LogError> {
        if size > Self::MAX_SIZE {
            return Err(LogError::TooLarge { size, limit: Self::MAX_SIZE });
        }
        let spec = RegionSpec { guest_addr: 0, size, user_addr: 0, mmap_offset: offset };
        Ok(Self { region: Region::map(spec, fd)?, beyond: AtomicU64::new(0) })
    }

    /// Checks that there is a bit for each page of the guest's memory.
    ///
    /// # Errors
    /// [`LogError::TooShort`].
    pub fn check_covers(&self, map: &MemoryMap) -> Result<(), LogError> {
        let last = map.specs().map(|spec| spec.guest_addr.saturating_add(spec.size - 1)).max();
        let due = last.map_or(0, |last| last / Self::PAGE / 8 + 1);
        let size = self.region.spec.size;
        if due > size { Err(LogError::TooShort { size, due }) } else { Ok(()) }
    }

    /// Marks every page of the guest's memory: something was written, and nobody knows where.
    pub fn mark_all(&self, map: &MemoryMap) {
        full_fence();
        for spec in map.specs() {
            let first = spec.guest_addr / Self::PAGE;
            let end = spec.guest_addr.saturating_add(spec.size - 1) / Self::PAGE + 1;
            // Whole groups in one go: an *or* with nothing but ones is a store.
            let (inner, outer) = (first.next_multiple_of(GROUP), end / GROUP * GROUP);
            if inner >= outer {
                self.set_pages(first, end);
                continue;
            }
            self.set_pages(first, inner);
            self.fill(inner / 8, outer / 8);
            self.set_pages(outer, end);
        }
    }

    /// Sets the bits of fewer pages than two groups have.
    fn set_pages(&self, first: u64, end: u64) {
        for page in first..end {
            self.set(page / GROUP, 1 << (page % GROUP));
        }
    }

    /// Sets all bits of the log's bytes from `first` to `end`, as far as there are such.
    fn fill(&self, first: u64, end: u64) {
        let size = self.region.spec.size;
        self.beyond.fetch_add((end - end.min(size).max(first)) * 8, Ordering::Relaxed);
        let (Ok(at), Ok(len)) = (usize::try_from(first), usize::try_from(end.min(size).saturating_sub(first))) else {
            return;
        };
        if len > 0 {
            // SAFETY: `at + len` is at most the size of the region, which is mapped as long as `self`.
            unsafe { self.region.host.offset(at).fill(u8::MAX, len) };
        }
    }

    /// Sets the bits of pages in `group` (64 pages, the first being page `64 * group`). The caller has executed a full fence
    /// since it wrote into them. Those for which the log has no bit are counted.
    pub(crate) fn set(&self, group: u64, bits: u64) {
        let mut beyond = 0;
        for (at, byte) in (0..).zip(bits.to_le_bytes()) {
            if byte == 0 {
                continue;
            }
            let index = group.checked_mul(GROUP / 8).and_then(|first| first.checked_add(at));
            let index =
                index.filter(|index| *index < self.region.spec.size).and_then(|index| usize::try_from(index).ok());
            let Some(index) = index else {
                beyond += u64::from(byte.count_ones());
                continue;
            };
            let host = self.region.host.offset(index);
            // SAFETY: `index` is below the size of the region, which is mapped as long as `self`.
            unsafe {
                if host.load_u8() & byte != byte {
                    host.or_u8(byte);
                }
            }
        }
        if beyond > 0 {
            self.beyond.fetch_add(beyond, Ordering::Relaxed);
        }
    }

    /// How many pages were written for which the log has no bit, since this was asked last.
    #[must_use]
    pub fn take_beyond(&self) -> u64 {
        self.beyond.swap(0, Ordering::Relaxed)
    }

    /// Whether the file was truncated under us, so that what is logged is lost.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.region.poisoned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, OFlags, ftruncate, memfd_create};

    use super::*;

    fn file(len: u64) -> OwnedFd {
        let fd = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, len).unwrap();
        fd
    }

    fn copy(fd: &OwnedFd) -> OwnedFd {
        fd.as_fd().try_clone_to_owned().unwrap()
    }

    fn memory(regions: &[(u64, u64)]) -> MemoryMap {
        let region = |&(guest_addr, size): &(u64, u64)| {
            let spec = RegionSpec { guest_addr, size, user_addr: 0x7000_0000_0000 + guest_addr, mmap_offset: 0 };
            (spec, file(size))
        };
        MemoryMap::from_regions(regions.iter().map(region).collect()).unwrap()
    }

    #[test]
    fn bits_are_where_the_specification_has_them_and_others_stay() {
        let fd = file(4096);
        let log = DirtyLog::map(copy(&fd), 100, 64).unwrap();
        let contents = File::from(fd);
        contents.write_at(&[0x80], 101).unwrap();
        log.set(0, 1 << 9);
        log.set(7, 1 << 63 | 1);
        assert_eq!(log.take_beyond(), 0);
        let mut bytes = [0; 66];
        contents.read_at(&mut bytes, 99).unwrap();
        let set: Vec<_> = (0..).zip(bytes).filter(|(_, byte)| *byte != 0).collect();
        assert_eq!(set, [(2, 0x82), (57, 1), (64, 0x80)]);
    }

    #[test]
    fn what_lies_beyond_is_counted() {
        let log = DirtyLog::map(file(4096), 0, 9).unwrap();
        // One byte of the second group is there.
        log.set(1, 0x1ff);
        log.set(u64::MAX, 1);
        log.set(u64::MAX / 8 + 1, 3);
        assert_eq!((log.take_beyond(), log.take_beyond()), (1 + 1 + 2, 0));
    }

    #[test]
    fn all_pages_of_all_regions_and_no_others_are_marked() {
        let fd = file(4096);
        let log = DirtyLog::map(copy(&fd), 0, 4096).unwrap();
        let map = memory(&[(0x3000, 0x2000), (0x40_0000, 0x20_1000), (0x7ff_f000, 0x1000)]);
        log.check_covers(&map).unwrap();
        log.mark_all(&map);
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).unwrap();
        let marked: Vec<u64> =
            (0..4096 * 8).filter(|page| bytes[page / 8] >> (page % 8) & 1 != 0).map(|page| page as u64).collect();
        let due: Vec<u64> = (3..5).chain(0x400..0x601).chain([0x7fff]).collect();
        assert_eq!((marked, log.take_beyond()), (due, 0));
        // One that ends within the second region, and before the third.
        let short = DirtyLog::map(file(4096), 0, 0x500 / 8 + 1).unwrap();
        short.mark_all(&map);
        assert_eq!(short.take_beyond(), 0x601 - 0x508 + 1);
    }

    #[test]
    fn what_cannot_be_a_log_is_refused() {
        let refused = |fd, offset, size| DirtyLog::map(fd, offset, size).unwrap_err();
        assert!(matches!(refused(file(4096), 0, 0), LogError::Map(MapError::Empty { .. })));
        assert!(matches!(refused(file(4096), 1, 4096), LogError::Map(MapError::PastEndOfFile { end: 4097, .. })));
        assert!(matches!(refused(file(4096), u64::MAX, 2), LogError::Map(MapError::Overflow { .. })));
        assert!(matches!(refused(file(4096), 0, DirtyLog::MAX_SIZE + 1), LogError::TooLarge { .. }));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(matches!(refused(pipe, 0, 64), LogError::Map(MapError::NotRegular { .. })));
        let fd = file(4096);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let read_only = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
        assert!(matches!(refused(read_only, 0, 64), LogError::Map(MapError::Mmap { .. })));
    }

    #[test]
    fn a_log_must_have_a_bit_for_every_page() {
        let map = memory(&[(0, 0x1000), (0x8_0000, 0x1001)]);
        let covers = |size| DirtyLog::map(file(4096), 0, size).unwrap().check_covers(&map);
        covers(17).unwrap();
        assert!(matches!(covers(16), Err(LogError::TooShort { size: 16, due: 17 })));
        DirtyLog::map(file(1), 0, 1).unwrap().check_covers(&MemoryMap::empty()).unwrap();
    }
}
