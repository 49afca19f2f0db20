// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sending end of a tap device.

use std::sync::Arc;

use rustix::io::Errno;
use virtqueue::NetHeader;

use super::Tap;
use crate::sys::frame::{Flushed, LINK_HEADER, MAX_MTU, NET_HEADER, header_bytes};

/// Most frames that wait, and the bytes that they have.
const MAX_WAITING: usize = 256;
const ROOM: usize = 512 << 10;
/// Longest frame with its header.
const LONGEST: usize = NET_HEADER + LINK_HEADER + MAX_MTU as usize;

/// Writes frames. They wait until [`TapTx::flush`], one behind the other.
#[derive(Debug)]
pub(crate) struct TapTx {
    tap: Arc<Tap>,
    room: Box<[u8]>,
    used: usize,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// How many of them are written.
    written: usize,
}

impl TapTx {
    pub(crate) fn new(tap: Arc<Tap>) -> Self {
        let room = vec![0; ROOM].into_boxed_slice();
        Self { tap, room, used: 0, ends: Vec::with_capacity(MAX_WAITING), written: 0 }
    }

    /// Whether frames wait for [`TapTx::flush`].
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.written < self.ends.len()
    }

    /// Whether a frame of any length can be added now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.ends.len() < MAX_WAITING && self.used + LONGEST <= ROOM
    }

    /// Adds a frame of `len` bytes, which `fill` writes entirely. `false`: there is no room for it now.
    pub(crate) fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        let end = self.used + NET_HEADER + len;
        let room = self.room.get_mut(self.used..end).filter(|_| self.ends.len() < MAX_WAITING);
        let Some((head, frame)) = room.and_then(|room| room.split_at_mut_checked(NET_HEADER)) else { return false };
        head.copy_from_slice(&header_bytes(header));
        fill(frame);
        self.used = end;
        self.ends.push(end);
        true
    }

    /// Hands what waits to the kernel, one system call for each frame.
    pub(crate) fn flush(&mut self) -> Flushed {
        let mut lost = 0;
        while let Some(&end) = self.ends.get(self.written) {
            let begin = self.written.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            match rustix::io::write(&self.tap.fd, self.room.get(begin..end).unwrap_or_default()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) if lost == 0 => return Flushed::Later,
                Ok(_) => {}
                // It is down or gone, or the frame is one that the kernel does not take.
                Err(_) => lost += 1,
            }
            self.written += 1;
        }
        (self.used, self.written) = (0, 0);
        self.ends.clear();
        if lost == 0 { Flushed::All } else { Flushed::Lost(lost) }
    }
}
