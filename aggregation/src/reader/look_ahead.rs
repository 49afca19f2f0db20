// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The private copy of the part of a frame that is being looked at.
//!
//! ```text
//!   buf:  | ROOM | ...passed... | pos ..... unread ..... end | free |
//!                                ^ offset `at()` of the source
//! ```
//!
//! It is filled in one pass, front to back. Bytes before `pos` are no longer needed, and may be written over: that is
//! how a template gets before its packet without a copy.

use crate::Source;
use crate::reader::HEAD;
use crate::wire::{SUBFRAME_HEADER, TEMPLATE};

/// Bytes before the first byte of the source that can be written over.
pub(crate) const ROOM: usize = TEMPLATE;
/// Bytes read at once while packets are long: a sub-frame's head, its extensions, and the next one's header.
const SHORT: usize = HEAD + 64;
/// Whoever skips more bytes than this goes on to do so.
const FAR: usize = 512;
/// Bytes read at once to begin with: the common header, a group header and then some.
const LITTLE: usize = 64;

#[derive(Debug)]
pub(crate) struct LookAhead {
    buf: Box<[u8]>,
    /// Offset in the source of the byte at `ROOM`.
    start: usize,
    pub(crate) pos: usize,
    pub(crate) end: usize,
    /// Offset in the source where the frame ends: nothing is read from there on.
    limit: usize,
    /// Bytes to be read at once.
    step: usize,
}

impl LookAhead {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(SHORT.saturating_add(SUBFRAME_HEADER));
        let buf = vec![0; ROOM.saturating_add(capacity)].into_boxed_slice();
        Self { buf, start: 0, pos: ROOM, end: ROOM, limit: 0, step: capacity }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buf.len().saturating_sub(ROOM)
    }

    /// Forgets all and goes to an offset of another source.
    pub(crate) const fn begin(&mut self, at: usize, limit: usize) {
        self.start = at;
        self.pos = ROOM;
        self.end = ROOM;
        self.limit = limit;
    }

    /// Learns where the frame ends.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.end = self.end.min(self.index_of(limit));
    }

    /// Offset in the source of the next unread byte.
    #[inline]
    pub(crate) const fn at(&self) -> usize {
        self.start.saturating_add(self.pos.saturating_sub(ROOM))
    }

    /// Where in the buffer the byte at an offset of the source is or would be.
    #[inline]
    pub(crate) const fn index_of(&self, at: usize) -> usize {
        at.saturating_sub(self.start).saturating_add(ROOM)
    }

    /// Bytes of the source from `at` on that are here, `most` at most.
    pub(crate) fn held(&self, at: usize, most: usize) -> &[u8] {
        if at < self.start {
            return &[];
        }
        let from = self.index_of(at);
        self.bytes(from, from.saturating_add(most).min(self.end))
    }

    /// Goes on at an offset that is not before the current one.
    #[inline]
    pub(crate) const fn seek(&mut self, at: usize) {
        let index = self.index_of(at);
        if index <= self.end {
            self.pos = index;
        } else {
            // What is in between is never read.
            let skipped = index.saturating_sub(self.end);
            self.begin(at, self.limit);
            if skipped > FAR {
                self.step = SHORT;
            }
        }
    }

    /// The next `n` bytes, and little more: as much as a caller who is interested in groups only may need.
    pub(crate) fn need_little<S: Source + ?Sized>(&mut self, source: &S, n: usize) -> Option<&mut [u8]> {
        let step = std::mem::replace(&mut self.step, LITTLE);
        let found = self.fill(source, n);
        self.step = step;
        found?;
        self.buf.get_mut(self.pos..self.pos.saturating_add(n))
    }

    /// The next `n` bytes, read if need be. `None` if there are not as many in the frame, or in the buffer.
    #[inline]
    pub(crate) fn need<S: Source + ?Sized>(&mut self, source: &S, n: usize) -> Option<&mut [u8]> {
        let to = self.pos.saturating_add(n);
        if to > self.end {
            self.fill(source, n)?;
        }
        let to = self.pos.saturating_add(n);
        self.buf.get_mut(self.pos..to)
    }

    #[inline]
    pub(crate) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        self.buf.get(from..to).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self, from: usize, to: usize) -> &mut [u8] {
        self.buf.get_mut(from..to).unwrap_or_default()
    }

    /// The packets ahead are long: less is read at once.
    pub(crate) const fn expect_long(&mut self) {
        self.step = SHORT;
    }

    #[cold]
    fn fill<S: Source + ?Sized>(&mut self, source: &S, n: usize) -> Option<()> {
        let capacity = self.capacity();
        let held = self.end.saturating_sub(self.pos);
        let at = self.at();
        if n > capacity {
            return None;
        }
        self.buf.copy_within(self.pos..self.end, ROOM);
        self.start = at;
        self.pos = ROOM;
        self.end = ROOM.saturating_add(held);
        let wanted = self.step.max(n).min(self.limit.saturating_sub(at));
        let to = self.buf.get_mut(self.end..ROOM.saturating_add(wanted)).unwrap_or_default();
        let got = source.read(at.saturating_add(held), to).min(to.len());
        self.end = self.end.saturating_add(got);
        self.step = self.step.saturating_mul(2).min(capacity);
        (self.end.saturating_sub(ROOM) >= n).then_some(())
    }
}
