// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The receiving end of a tap device.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::Tap;
use crate::sys::frame::{LONG_FRAME, MAX_HELD, NET_HEADER, Received};

/// Bytes of the frames that are held: many short ones, or seven of the longest.
const ROOM: usize = 7 * LONG_FRAME;
/// Frames begin at multiples of this: a cache line.
const ALIGN: usize = 64;

/// Reads frames. They are held until [`TapRx::release`].
#[derive(Debug)]
pub(crate) struct TapRx {
    tap: Arc<Tap>,
    room: Box<[u8]>,
    used: usize,
    /// Where each held frame lies, with its header; one that did not fit is empty.
    places: Box<[(usize, usize); MAX_HELD]>,
    held: usize,
    /// There was nothing to read when last looked. The device's file tells of the next frame.
    drained: bool,
}

impl TapRx {
    pub(crate) fn new(tap: Arc<Tap>) -> Self {
        let room = vec![0; ROOM].into_boxed_slice();
        Self { tap, room, used: 0, places: Box::new([(0, 0); MAX_HELD]), held: 0, drained: false }
    }

    /// Whether a frame may wait that is not held yet. A frame that comes after `false` is told by the device's file.
    #[inline]
    pub(crate) fn has_frames(&self) -> bool {
        !self.drained
    }

    /// Holds frames until there are [`MAX_HELD`] or room ends, as far as there are any. Returns how many are held.
    #[inline]
    pub(crate) fn harvest(&mut self) -> usize {
        self.drained = false;
        while self.held < MAX_HELD && self.hold_next() {}
        self.held
    }

    /// Held frame `i`; an empty one if there is none.
    pub(crate) fn frame(&self, i: usize) -> Received<'_> {
        match self.places.get(i).filter(|_| i < self.held) {
            Some(&(at, len)) if len >= NET_HEADER => {
                Received::behind_header(self.room.get(at..at + len).unwrap_or_default())
            }
            Some(_) => Received::lost(),
            None => Received::finished(&[]),
        }
    }

    /// Lets go of all held frames.
    #[inline]
    pub(crate) fn release(&mut self) {
        (self.held, self.used) = (0, 0);
    }

    /// Reads one more frame, if there is one and room for the longest.
    fn hold_next(&mut self) -> bool {
        let Some(room) = self.room.get_mut(self.used..self.used + LONG_FRAME) else { return false };
        let read = loop {
            match rustix::io::read(&self.tap.fd, &mut *room) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        // An error is that there is nothing, or that the device is gone, which others see and say.
        let Ok(read) = read else {
            self.drained = true;
            return false;
        };
        // The driver cuts what is too long, and does not say so.
        let len = if read < LONG_FRAME { read } else { 0 };
        if let Some(place) = self.places.get_mut(self.held) {
            *place = (self.used, len);
        }
        self.held += 1;
        self.used += len.next_multiple_of(ALIGN);
        true
    }
}

impl AsRawFd for TapRx {
    fn as_raw_fd(&self) -> RawFd {
        self.tap.as_raw_fd()
    }
}
