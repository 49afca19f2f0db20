// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of our own, to be given to a backend: what a front end that is no virtual machine has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use super::error::MapError;
use super::map::MemoryMap;
use super::region::{Region, RegionSpec, page_size};

/// One memfd, mapped, with guest and front-end addresses equal to ours, as virtio-user has it.
///
/// Its size is sealed, so a backend that maps it need not fear for SIGBUS.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    spec: RegionSpec,
    map: Arc<MemoryMap>,
}

impl SharedMemory {
    /// Makes a memfd of `size` bytes, rounded up to whole pages, of huge pages if `huge`.
    ///
    /// # Errors
    /// [`MapError::HugePages`] when huge pages cannot be had: the caller decides whether ordinary
    /// ones will do. Else whatever creating or mapping the file reports.
    pub fn create(name: &str, size: u64, huge: bool) -> Result<Self, MapError> {
        let failed = |call: &'static str| {
            move |errno: Errno| match huge {
                true => MapError::HugePages { size, call, errno },
                false => MapError::File { call, errno },
            }
        };
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        flags.set(MemfdFlags::HUGETLB, huge);
        let fd = memfd_create(name, flags).map_err(failed("memfd_create"))?;
        let size = size.checked_next_multiple_of(page_size(&fd)?).ok_or(MapError::Overflow { base: 0, size })?;
        ftruncate(&fd, size).map_err(failed("ftruncate"))?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(failed("fcntl(F_ADD_SEALS)"))?;
        let ours = fd.try_clone().map_err(|cause| {
            let errno = Errno::from_io_error(&cause).unwrap_or(Errno::MFILE);
            MapError::File { call: "dup", errno }
        })?;
        let spec = RegionSpec { guest_addr: 0, size, user_addr: 0, mmap_offset: 0 };
        let region = Region::map(spec, ours).map_err(|error| match error {
            MapError::Mmap { .. } if huge => MapError::HugePages { size, call: "mmap", errno: Errno::NOMEM },
            other => other,
        })?;
        let map = MemoryMap::at_own_address(region);
        let spec = map.specs().next().unwrap_or(spec);
        Ok(Self { fd, spec, map: Arc::new(map) })
    }

    /// The file, to be sent to the backend.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The region, to be told to the backend.
    #[must_use]
    pub fn spec(&self) -> RegionSpec {
        self.spec
    }

    /// The memory, to be used by driver queues and buffer pools.
    #[must_use]
    pub fn map(&self) -> Arc<MemoryMap> {
        Arc::clone(&self.map)
    }
}
