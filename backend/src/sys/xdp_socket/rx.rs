// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The receiving end.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use libc::xdp_desc;
use virtqueue::full_fence;

use super::{CHUNK, CHUNKS, XdpSocket};
use crate::sys::frame::{LONG_FRAME, MAX_HELD, Received};

/// Bytes for frames that are put together: some of the longest.
const LONG_FRAMES: usize = 8 * LONG_FRAME;

/// Takes frames from the receive ring. They are held until [`XdpRx::release`].
#[derive(Debug)]
pub(crate) struct XdpRx {
    socket: Arc<XdpSocket>,
    /// Entries of the receive ring that were looked at, and of the fill ring that were written.
    taken: u32,
    filled: u32,
    places: Box<[Place; MAX_HELD]>,
    held: usize,
    /// Chunks that the held frames lie in.
    chunks: Vec<u64>,
    /// Held frames that were in several chunks.
    long: Box<[u8]>,
    long_used: usize,
}

/// Where a held frame lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In one chunk: from here in the memory.
    Chunk { at: usize, len: usize },
    /// Among the long ones.
    Long { at: usize, len: usize },
    /// Nowhere: it was longer than any that is taken.
    Lost,
}

impl XdpRx {
    pub(crate) fn new(socket: Arc<XdpSocket>) -> Self {
        Self {
            socket,
            taken: 0,
            filled: CHUNKS,
            places: Box::new([Place::Lost; MAX_HELD]),
            held: 0,
            chunks: Vec::with_capacity(CHUNKS as usize),
            long: vec![0; LONG_FRAMES].into_boxed_slice(),
            long_used: 0,
        }
    }

    /// Whether a frame waits that is not held yet.
    pub(crate) fn has_frames(&self) -> bool {
        if self.socket.fill.wants_wakeup() {
            self.wake();
        }
        self.socket.receive.produced() != self.taken
    }

    /// Holds frames until there are [`MAX_HELD`], as far as there are any. Returns how many are held.
    #[inline]
    pub(crate) fn harvest(&mut self) -> usize {
        let produced = self.socket.receive.produced();
        while self.held < MAX_HELD && self.taken != produced && self.hold_next(produced) {}
        self.held
    }

    /// Held frame `i`; an empty one if there is none.
    #[inline]
    pub(crate) fn frame(&self, i: usize) -> Received<'_> {
        match self.places.get(i).filter(|_| i < self.held) {
            Some(&Place::Chunk { at, len }) => match self.socket.memory.range(at, len) {
                // SAFETY: within the memory. The chunk is ours from its entry in the receive ring until it is in the fill
                // ring again, which `release` brings about, and nothing here writes to it; `&self` keeps it held.
                Some(start) => Received::finished(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }),
                None => Received::lost(),
            },
            Some(&Place::Long { at, len }) => Received::finished(self.long.get(at..at + len).unwrap_or_default()),
            Some(Place::Lost) => Received::lost(),
            None => Received::finished(&[]),
        }
    }

    /// Gives all held frames' chunks back to the kernel.
    #[inline]
    pub(crate) fn release(&mut self) {
        let XdpSocket { fill, receive, .. } = &*self.socket;
        receive.consume(self.taken);
        for chunk in self.chunks.drain(..) {
            // There are no more chunks than entries, so that one is free.
            fill.write(self.filled, chunk);
            self.filled = self.filled.wrapping_add(1);
        }
        fill.produce(self.filled);
        (self.held, self.long_used) = (0, 0);
        // Orders the line above before the look at the kernel's wish; the kernel does it the other way round.
        full_fence();
        if fill.wants_wakeup() {
            self.wake();
        }
    }

    /// Holds the next frame, if all of it is there and there is room.
    #[inline]
    fn hold_next(&mut self, produced: u32) -> bool {
        let first = self.socket.receive.read(self.taken);
        if first.options & libc::XDP_PKT_CONTD != 0 {
            return self.hold_long(produced);
        }
        let place = Place::Chunk { at: usize::try_from(first.addr).unwrap_or(usize::MAX), len: first.len as usize };
        self.chunks.push(chunk_of(first));
        self.taken = self.taken.wrapping_add(1);
        self.hold(place);
        true
    }

    /// Holds a frame that lies in several chunks, in one piece.
    #[cold]
    fn hold_long(&mut self, produced: u32) -> bool {
        let (mut end, mut len, mut complete) = (self.taken, 0, false);
        while end != produced && !complete {
            let piece = self.socket.receive.read(end);
            len += piece.len as usize;
            complete = piece.options & libc::XDP_PKT_CONTD == 0;
            end = end.wrapping_add(1);
        }
        let fits = len <= LONG_FRAME;
        if !complete || fits && self.long.len() - self.long_used < len {
            return false;
        }
        let mut at = self.long_used;
        while self.taken != end {
            let piece = self.socket.receive.read(self.taken);
            if fits {
                self.copy_piece(piece, at);
                at += piece.len as usize;
            }
            self.chunks.push(chunk_of(piece));
            self.taken = self.taken.wrapping_add(1);
        }
        self.hold(if fits { Place::Long { at: self.long_used, len } } else { Place::Lost });
        self.long_used = at;
        true
    }

    fn copy_piece(&mut self, piece: xdp_desc, to: usize) {
        let (at, len) = (usize::try_from(piece.addr).unwrap_or(usize::MAX), piece.len as usize);
        let Some(room) = self.long.get_mut(to..to + len) else { return };
        match self.socket.memory.range(at, len) {
            // SAFETY: as in `frame`: within the memory, and the chunk is ours.
            Some(start) => room.copy_from_slice(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }),
            None => room.fill(0),
        }
    }

    #[inline]
    fn hold(&mut self, place: Place) {
        if let Some(entry) = self.places.get_mut(self.held) {
            *entry = place;
        }
        self.held += 1;
    }

    /// Lets the driver look into the fill ring.
    #[cold]
    fn wake(&self) {
        // SAFETY: no bytes are asked for, so that none are written.
        unsafe {
            let nowhere = std::ptr::null_mut();
            // It fails if the interface is down, which others see and say; it will be asked again.
            libc::recv(self.socket.as_raw_fd(), nowhere, 0, libc::MSG_DONTWAIT);
        }
    }
}

impl AsRawFd for XdpRx {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Where the chunk begins that a piece lies in.
fn chunk_of(piece: xdp_desc) -> u64 {
    piece.addr & !(CHUNK as u64 - 1)
}
