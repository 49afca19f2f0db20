// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One region of guest memory: a piece of a file, mapped and kept mapped.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, fstat, fstatfs};
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

use super::access::HostPtr;
use super::error::MapError;
use super::sigbus::Registration;

/// A region as VHOST_USER_SET_MEM_TABLE describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RegionSpec {
    /// Address of the first byte in the guest.
    pub guest_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Address of the first byte in the front end's process; ring addresses are told in these.
    pub user_addr: u64,
    /// Offset of the first byte in the file.
    pub mmap_offset: u64,
}

impl RegionSpec {
    /// Checks that the region has bytes, and that its addresses and offset do not overflow.
    pub(super) fn check(&self) -> Result<(), MapError> {
        if self.size == 0 {
            return Err(MapError::Empty { guest_addr: self.guest_addr });
        }
        for base in [self.guest_addr, self.user_addr, self.mmap_offset] {
            if base.checked_add(self.size).is_none() {
                return Err(MapError::Overflow { base, size: self.size });
            }
        }
        Ok(())
    }
}

/// Identity of the file behind a region: the same for every descriptor of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

impl RegionId {
    /// Asks the file.
    pub(super) fn of(fd: impl AsFd) -> Result<Self, MapError> {
        let stat = fstat(fd).map_err(|errno| MapError::File { call: "fstat", errno })?;
        Ok(Self { dev: stat.st_dev, ino: stat.st_ino })
    }
}

/// A mapped region. Unmapped when the last map that holds it goes.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) spec: RegionSpec,
    pub(super) id: RegionId,
    /// Where the first byte of the region is.
    pub(super) host: HostPtr,
    // Dropped in this order: the guard must forget the range before it can be mapped anew.
    registration: Registration,
    _mapping: MmapRegion,
}

impl Region {
    /// Maps a region.
    ///
    /// `mmap_offset` need not be a multiple of the page size, which for hugetlbfs is the size of
    /// its huge pages: whole pages are mapped around the region, because the kernel takes offsets,
    /// and for hugetlbfs lengths of munmap too, in whole pages only.
    pub(super) fn map(spec: RegionSpec, fd: OwnedFd) -> Result<Self, MapError> {
        spec.check()?;
        let stat = fstat(&fd).map_err(|errno| MapError::File { call: "fstat", errno })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MapError::NotRegular { mode: stat.st_mode });
        }
        let end = spec.mmap_offset.saturating_add(spec.size);
        let file_len = u64::try_from(stat.st_size).unwrap_or(0);
        if end > file_len {
            return Err(MapError::PastEndOfFile { end, file_len });
        }
        let page = page_size(&fd)?;
        let overflow = || MapError::Overflow { base: spec.mmap_offset, size: spec.size };
        let start = spec.mmap_offset / page * page;
        let lead = spec.mmap_offset - start;
        let len = (lead.checked_add(spec.size))
            .and_then(|len| len.checked_next_multiple_of(page))
            .and_then(|len| usize::try_from(len).ok())
            .filter(|&len| isize::try_from(len).is_ok())
            .ok_or_else(overflow)?;
        // Not NORESERVE, unlike the default of vm-memory: huge pages that cannot be had must fail
        // here, not as SIGBUS at the first touch.
        let mapping: MmapRegion = MmapRegionBuilder::new(len)
            .with_file_offset(FileOffset::new(File::from(fd), start))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .build()
            .map_err(|cause| MapError::Mmap { size: len as u64, cause })?;
        let base = mapping.as_ptr();
        let registration = Registration::new(base as usize, len)?;
        let lead = usize::try_from(lead).map_err(|_| overflow())?;
        Ok(Self {
            spec,
            id: RegionId { dev: stat.st_dev, ino: stat.st_ino },
            host: HostPtr::new(base).offset(lead),
            registration,
            _mapping: mapping,
        })
    }

    /// Whether the file was truncated under us, so that its contents are lost.
    pub(super) fn poisoned(&self) -> bool {
        self.registration.poisoned()
    }
}

/// `f_type` of hugetlbfs, which memfds with huge pages have too.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Bytes of a page of this file: of a huge page for hugetlbfs, else of an ordinary one.
pub(super) fn page_size(fd: impl AsFd) -> Result<u64, MapError> {
    let fs = fstatfs(fd).map_err(|errno| MapError::File { call: "fstatfs", errno })?;
    // The kernel's long is 64 bits wide here, and both values are positive.
    if fs.f_type.cast_unsigned() == HUGETLBFS_MAGIC && fs.f_bsize > 0 {
        return Ok(fs.f_bsize.cast_unsigned());
    }
    Ok(rustix::param::page_size() as u64)
}
