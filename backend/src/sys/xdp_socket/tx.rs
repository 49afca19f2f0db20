// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sending end.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use libc::xdp_desc;
use virtqueue::full_fence;

use super::{CHUNK, CHUNKS, MANY_CHUNKS_MTU, XdpSocket};
use crate::sys::frame::{Flushed, LINK_HEADER};

/// Longest frame, and the chunks that it takes.
const LONGEST: usize = LINK_HEADER + MANY_CHUNKS_MTU;
const MOST_CHUNKS: usize = LONGEST.div_ceil(CHUNK);
/// How often the kernel is called for what waits, without another reason to stop: it takes some ten frames each time.
const CALLS: usize = 128;
/// Options that no kernel knows: it skips such an entry. That more of the frame follows must stay as it was, for the rest
/// is skipped, too.
const NOT_TO_BE_SENT: u32 = !libc::XDP_PKT_CONTD;

/// Puts frames into the transmit ring. They are sent together by [`XdpTx::flush`].
#[derive(Debug)]
pub(crate) struct XdpTx {
    socket: Arc<XdpSocket>,
    /// Entries of the transmit ring that were written, and of the completion ring that were read.
    written: u32,
    completed: u32,
    /// Chunks that no frame is in.
    free: Vec<u64>,
    /// Frames written that the kernel has not taken as far as is known.
    unsent: usize,
    /// A frame of several chunks, before it is cut up.
    long: Box<[u8]>,
}

impl XdpTx {
    pub(crate) fn new(socket: Arc<XdpSocket>) -> Self {
        let free = (CHUNKS..2 * CHUNKS).map(|n| u64::from(n) * CHUNK as u64).collect();
        let long = vec![0; MOST_CHUNKS * CHUNK].into_boxed_slice();
        Self { socket, written: 0, completed: 0, free, unsent: 0, long }
    }

    /// Whether frames wait for [`XdpTx::flush`].
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// Whether a frame of any length can be put into the ring now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.free.len() >= MOST_CHUNKS && self.free_entries() >= MOST_CHUNKS
    }

    /// Puts a frame of `len` bytes, which `fill` writes entirely, behind those that wait. `false`: there is no room for it
    /// now, or at all.
    pub(crate) fn push(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        if self.free.len() < MOST_CHUNKS {
            self.take_completed();
        }
        if len > CHUNK {
            return self.push_long(len, fill);
        }
        if self.free_entries() == 0 {
            return false;
        }
        let Some(chunk) = self.free.pop() else { return false };
        if let Some(room) = self.chunk(chunk, len) {
            fill(room);
        }
        self.write(chunk, len, 0);
        self.unsent += 1;
        true
    }

    /// Hands what waits to the kernel.
    pub(crate) fn flush(&mut self) -> Flushed {
        if self.unsent == 0 {
            return Flushed::All;
        }
        self.socket.transmit.produce(self.written);
        // Orders the line above before the look at the kernel's wish; the kernel does it the other way round.
        full_fence();
        let mut flushed = Flushed::Later;
        for _ in 0..CALLS {
            if !self.socket.transmit.wants_wakeup() {
                // The driver takes them by itself.
                flushed = Flushed::All;
                break;
            }
            let before = self.socket.transmit.consumed();
            // SAFETY: no pointer is given: the frames are in the ring.
            let sent = unsafe {
                libc::sendto(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let error = if sent < 0 { io::Error::last_os_error().raw_os_error() } else { None };
            let consumed = self.socket.transmit.consumed();
            match error {
                Some(libc::EINTR) => continue,
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                    flushed = Flushed::Lost(self.take_back());
                    break;
                }
                // The device was told; it takes them in its own time.
                None if self.socket.mode.zero_copy => flushed = Flushed::All,
                _ if consumed == self.written => flushed = Flushed::All,
                // The kernel takes so many at a time, or has no memory for more.
                _ if consumed != before => continue,
                _ => {}
            }
            break;
        }
        self.take_completed();
        if flushed != Flushed::Later {
            self.unsent = 0;
        }
        flushed
    }

    #[cold]
    fn push_long(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let chunks = len.div_ceil(CHUNK);
        if !self.socket.mode.multi_buffer || chunks > self.free.len().min(self.free_entries()) {
            return false;
        }
        let mut long = std::mem::take(&mut self.long);
        let fits = long.get_mut(..len).map(|room| {
            fill(room);
            let mut left = chunks;
            for piece in room.chunks(CHUNK) {
                left -= 1;
                let Some(chunk) = self.free.pop() else { break };
                if let Some(room) = self.chunk(chunk, piece.len()) {
                    room.copy_from_slice(piece);
                }
                self.write(chunk, piece.len(), if left > 0 { libc::XDP_PKT_CONTD } else { 0 });
            }
        });
        self.long = long;
        self.unsent += usize::from(fits.is_some());
        fits.is_some()
    }

    /// Takes back the frames that the kernel has not looked at. It does so in system calls only, unless it shares the memory
    /// with the device: then they stay and are sent when the device is up again.
    fn take_back(&mut self) -> usize {
        if self.socket.mode.zero_copy {
            return self.unsent;
        }
        let ring = &self.socket.transmit;
        let mut n = ring.consumed();
        // The kernel may have begun with a frame: what it has must be followed by the rest of it.
        while n != self.written && ring.read(n.wrapping_sub(1)).options & libc::XDP_PKT_CONTD != 0 {
            n = n.wrapping_add(1);
        }
        let mut frames = 0;
        while n != self.written {
            let entry = ring.read(n);
            frames += usize::from(entry.options & libc::XDP_PKT_CONTD == 0);
            ring.write(n, xdp_desc { options: entry.options | NOT_TO_BE_SENT, ..entry });
            self.free.push(entry.addr);
            n = n.wrapping_add(1);
        }
        frames
    }

    /// Takes back the chunks of frames that are sent.
    fn take_completed(&mut self) {
        let ring = &self.socket.completion;
        let end = ring.produced();
        while self.completed != end {
            self.free.push(ring.read(self.completed) & !(CHUNK as u64 - 1));
            self.completed = self.completed.wrapping_add(1);
        }
        ring.consume(end);
    }

    fn write(&mut self, chunk: u64, len: usize, options: u32) {
        let entry = xdp_desc { addr: chunk, len: u32::try_from(len).unwrap_or_default(), options };
        self.socket.transmit.write(self.written, entry);
        self.written = self.written.wrapping_add(1);
    }

    #[inline]
    fn free_entries(&self) -> usize {
        let ring = &self.socket.transmit;
        (ring.entries() - self.written.wrapping_sub(ring.consumed()).min(ring.entries())) as usize
    }

    /// The first `len` bytes of a chunk that no frame is in.
    fn chunk(&mut self, chunk: u64, len: usize) -> Option<&mut [u8]> {
        let start = self.socket.memory.range(usize::try_from(chunk).ok()?, len)?;
        // SAFETY: within the memory. The chunk was among the free ones, of the half that is for sending: nobody else looks
        // at it before it is in the ring, and `&mut self` says that no other view of it is given out.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    }
}
