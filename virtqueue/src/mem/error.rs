// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong with guest memory.

use rustix::io::Errno;

/// Why a region could not be mapped, added or removed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A system call on the backing file failed.
    #[error("{call} on the file behind guest memory: {errno}")]
    File {
        /// Name of the call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// A hugetlb file could not be created; usually no huge pages are reserved.
    #[error("{size} bytes of huge pages ({call}): {errno}; see /proc/sys/vm/nr_hugepages")]
    HugePages {
        /// Bytes asked for.
        size: u64,
        /// Name of the call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// `mmap` failed.
    #[error("mapping {size} bytes of guest memory: {cause}")]
    Mmap {
        /// Bytes asked for, rounded up to whole pages.
        size: u64,
        /// The system's reason.
        cause: vm_memory::mmap::MmapRegionError,
    },
    /// The region to be removed is not there.
    #[error("no region of {size} bytes at guest {guest_addr:#x}, user {user_addr:#x}")]
    NoSuchRegion {
        /// Guest address asked for.
        guest_addr: u64,
        /// Front-end address asked for.
        user_addr: u64,
        /// Size asked for.
        size: u64,
    },
    /// The descriptor is not a regular file, memfd or hugetlbfs file.
    #[error("the file behind guest memory has mode {mode:#o}, which is no regular file")]
    NotRegular {
        /// `st_mode`.
        mode: u32,
    },
    /// A region has no bytes.
    #[error("region at guest {guest_addr:#x} is empty")]
    Empty {
        /// Guest address.
        guest_addr: u64,
    },
    /// An address plus the size, or an offset plus the size, exceeds 64 bits.
    #[error("region of {size} bytes at {base:#x} overflows the address space")]
    Overflow {
        /// Address or offset.
        base: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Two regions overlap, in guest or in front-end addresses.
    #[error("regions at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Address of the lower one.
        first: u64,
        /// Address of the higher one.
        second: u64,
    },
    /// The file ends before the region does.
    #[error("region ends at offset {end} of a file of {file_len} bytes")]
    PastEndOfFile {
        /// Offset after the last byte of the region.
        end: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// The process maps as many regions as the SIGBUS guard can watch.
    #[error("more than {limit} regions are mapped in this process")]
    RegistryFull {
        /// The limit.
        limit: usize,
    },
    /// One map has too many regions.
    #[error("{count} regions; {limit} are the limit")]
    TooManyRegions {
        /// Regions asked for.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why guest memory could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemError {
    /// A byte of the range is in no region.
    #[error("{addr:#x} of {len} bytes is not mapped")]
    Unmapped {
        /// First byte that is not mapped.
        addr: u64,
        /// Bytes that were left to do.
        len: u64,
    },
}
