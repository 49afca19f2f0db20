// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file behind the journals of a port: created, locked, versioned and mapped.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::page::{Page, QueueJournal};

/// Begins every journal file; the last byte is the version of the layout.
const MAGIC: [u8; 8] = *b"shuntj\0\x01";

/// Why a journal file could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal is in use by another process")]
    Locked,
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// Which call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

/// The journals of all queues of a port, in one file; tmpfs is the place for it.
///
/// The file is locked for as long as this or a journal handed out lives, so that of two nodes only
/// one continues a port.
#[derive(Debug)]
pub struct JournalFile {
    mapping: Arc<Mapping>,
}

impl JournalFile {
    /// Opens the file, or creates it with mode 0600, with room for `queues` journals. A file in
    /// another layout is emptied first.
    ///
    /// # Errors
    /// [`JournalError::Locked`] if another process has it open; else what the system said.
    pub fn open(path: &Path, queues: u16) -> Result<Self, JournalError> {
        let system = |call| move |errno| JournalError::System { call, errno };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(system("open"))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(JournalError::Locked),
            Err(errno) => return Err(system("flock")(errno)),
        }
        let mut magic = [0; MAGIC.len()];
        let read = rustix::io::pread(&fd, &mut magic, 0).map_err(system("pread"))?;
        if read != magic.len() || magic != MAGIC {
            rustix::fs::ftruncate(&fd, 0).map_err(system("ftruncate"))?;
        }
        let len = Page::SIZE * (1 + usize::from(queues));
        let stat = rustix::fs::fstat(&fd).map_err(system("fstat"))?;
        if u64::try_from(stat.st_size).unwrap_or(0) < len as u64 {
            rustix::fs::ftruncate(&fd, len as u64).map_err(system("ftruncate"))?;
        }
        // Pages of tmpfs are taken now: a full file system must not kill us at a later store.
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, len as u64).map_err(system("fallocate"))?;
        rustix::io::pwrite(&fd, &MAGIC, 0).map_err(system("pwrite"))?;
        Ok(Self { mapping: Arc::new(Mapping::new(fd, len, queues).map_err(system("mmap"))?) })
    }

    /// The journal of a queue. `None` if the file has no such queue, or while its journal is in
    /// other hands.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<QueueJournal> {
        let page = self.mapping.take(index)?;
        Some(QueueJournal::new(Arc::clone(&self.mapping), page, index))
    }
}

/// The mapped file, with the lock that the descriptor holds.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Which pages are in someone's hands.
    taken: Box<[AtomicBool]>,
    _lock: OwnedFd,
}

// SAFETY: the mapping itself is only an address and a length; its pages are handed out to one
// owner each.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `taken` is atomic.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: OwnedFd, len: usize, queues: u16) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, access, MapFlags::SHARED, &fd, 0)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let taken = (0..queues).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { base, len, taken, _lock: fd })
    }

    fn take(&self, index: u16) -> Option<NonNull<Page>> {
        if self.taken.get(usize::from(index))?.swap(true, Ordering::AcqRel) {
            return None;
        }
        let offset = Page::SIZE * (1 + usize::from(index));
        debug_assert!(offset + Page::SIZE <= self.len);
        // SAFETY: the mapping has 1 + queues pages, and `index` is below the number of queues.
        Some(unsafe { self.base.add(offset) }.cast())
    }

    pub(super) fn give_back(&self, index: u16) {
        if let Some(taken) = self.taken.get(usize::from(index)) {
            taken.store(false, Ordering::Release);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and every page handed out held an `Arc` of this
        // mapping, so none is left.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(result.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_and_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let file = JournalFile::open(&path, 2).unwrap();
        assert_eq!(JournalFile::open(&path, 2).unwrap_err(), JournalError::Locked);
        let first = file.queue(0).unwrap();
        assert!(file.queue(0).is_none() && file.queue(2).is_none());
        assert!(file.queue(1).is_some());
        drop(first);
        let again = file.queue(0).unwrap();
        drop(file);
        assert_eq!(JournalFile::open(&path, 2).unwrap_err(), JournalError::Locked);
        drop(again);
        assert!(JournalFile::open(&path, 4).unwrap().queue(3).is_some(), "a file can grow");
    }

    #[test]
    fn another_layout_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        std::fs::write(&path, vec![0xff; 3 * Page::SIZE]).unwrap();
        let file = JournalFile::open(&path, 2).unwrap();
        assert!(file.queue(1).unwrap().identity().is_none());
        drop(file);
        assert!(std::fs::read(&path).unwrap()[Page::SIZE..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = JournalFile::open(&path, 1).unwrap_err();
        assert_eq!(error, JournalError::System { call: "open", errno: Errno::LOOP });
    }
}
