// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sending end of a tap device.

use std::sync::Arc;

use rustix::io::Errno;
use virtqueue::NetHeader;

use super::Tap;
use crate::sys::frame::{Flushed, LINK_HEADER, MAX_MTU, NET_HEADER, header_bytes};
use crate::sys::outbox::Outbox;

/// Most frames that wait, and the bytes that they have.
const MAX_WAITING: usize = 256;
const ROOM: usize = 512 << 10;
/// Longest frame with its header.
const LONGEST: usize = NET_HEADER + LINK_HEADER + MAX_MTU as usize;

/// Writes frames. They wait until [`TapTx::flush`].
#[derive(Debug)]
pub(crate) struct TapTx {
    tap: Arc<Tap>,
    outbox: Outbox,
}

impl TapTx {
    pub(crate) fn new(tap: Arc<Tap>) -> Self {
        Self { tap, outbox: Outbox::new(MAX_WAITING, ROOM, LONGEST) }
    }

    /// Whether frames wait for [`TapTx::flush`].
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether a frame of any length can be added now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Adds a frame of `len` bytes, which `fill` writes entirely. `false`: there is no room for it now.
    pub(crate) fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        self.outbox.push(NET_HEADER + len, |room| {
            let (head, frame) = room.split_at_mut(NET_HEADER);
            head.copy_from_slice(&header_bytes(header));
            fill(frame);
        })
    }

    /// Hands what waits to the kernel, one system call for each frame.
    pub(crate) fn flush(&mut self) -> Flushed {
        let mut lost = 0;
        while let Some(frame) = self.outbox.first() {
            match rustix::io::write(&self.tap.fd, frame) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    return if lost == 0 { Flushed::Later } else { Flushed::Lost(lost) };
                }
                Ok(_) => {}
                // It is down or gone, or the frame is one that the kernel does not take.
                Err(_) => lost += 1,
            }
            self.outbox.forget(1);
        }
        if lost == 0 { Flushed::All } else { Flushed::Lost(lost) }
    }
}
