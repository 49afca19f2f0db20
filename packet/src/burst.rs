// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The burst: what workers and the switch pass around.
//!
//! # Theory of operation
//!
//! A guest can rewrite its buffers at any moment, so nothing is ever decided on them. Of each frame
//! the first [`WINDOW`] bytes are copied once into a private *window*; only the window is matched,
//! edited and delivered. What lies beyond stays in the source guest until it is copied once into the
//! destination, and the burst only carries an opaque `handle` by which the worker finds it: the
//! payload of packet `i` is bytes [`WINDOW`]`..` of the source frame, if there are that many.
//!
//! ```text
//!  slot i:  | HEADROOM 128 | WINDOW 256                     |
//!                          ^ window(i) starts here; prepend() moves the start left, strip() right
//! ```
//!
//! A burst is allocated once and reused; `clear` does not wipe the windows. Whoever pushes a packet
//! therefore fills the whole slice it is given: what is left of an earlier packet is another guest's.
//!
//! Accessors take indexes below [`Burst::len`]. An index beyond it is answered with an empty packet
//! (no bytes, port 0, [`Verdict::Pending`]) and ignored by setters, never with a panic.

use std::fmt;

use crate::{Offload, PortId, Verdict};

/// Bytes of a frame that are copied into private memory.
pub const WINDOW: usize = 256;
/// Bytes before the window into which headers may be pushed.
pub const HEADROOM: usize = 128;
/// Most packets in a burst.
pub const MAX_BURST: usize = 64;

const SLOT: usize = HEADROOM + WINDOW;
const FRESH_START: u16 = 128;
const FRESH_MAX: u16 = 256;
const _: () = assert!(FRESH_START as usize == HEADROOM && FRESH_MAX as usize == WINDOW);

/// Up to [`MAX_BURST`] packets as a structure of arrays.
pub struct Burst {
    len: usize,
    /// Where the window starts in its slot, and its length: start + length <= SLOT.
    span: [Span; MAX_BURST],
    frame_len: [u32; MAX_BURST],
    ingress: [PortId; MAX_BURST],
    verdict: [Verdict; MAX_BURST],
    offload: [Offload; MAX_BURST],
    handle: [u32; MAX_BURST],
    slots: [Slot; MAX_BURST],
}

#[derive(Clone, Copy)]
struct Span {
    start: u16,
    len: u16,
}

/// Aligned so that a 64-byte frame lies in one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot([u8; SLOT]);

impl Burst {
    /// An empty burst, on the heap because it holds 24 KiB of windows.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self {
            len: 0,
            span: [Span { start: 0, len: 0 }; MAX_BURST],
            frame_len: [0; MAX_BURST],
            ingress: [PortId(0); MAX_BURST],
            verdict: [Verdict::Pending; MAX_BURST],
            offload: [Offload::NONE; MAX_BURST],
            handle: [0; MAX_BURST],
            slots: [Slot([0; SLOT]); MAX_BURST],
        })
    }

    /// Forgets all packets. Their bytes stay behind until they are overwritten.
    #[inline]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a packet and returns its window, `min(frame_len, WINDOW)` bytes, which the caller must
    /// fill entirely. `None` if the burst is full.
    ///
    /// `frame_len` is the length of the whole frame in bytes without any virtio-net header;
    /// `handle` names the source of the payload to whoever pushed, and means nothing to others.
    #[inline]
    pub fn push(&mut self, ingress: PortId, frame_len: u32, offload: Offload, handle: u32) -> Option<&mut [u8]> {
        let i = self.len;
        let window_len = u16::try_from(frame_len).map_or(FRESH_MAX, |len| len.min(FRESH_MAX));
        let slot = self.slots.get_mut(i)?;
        let span = Span { start: FRESH_START, len: window_len };
        *self.span.get_mut(i)? = span;
        *self.frame_len.get_mut(i)? = frame_len;
        *self.ingress.get_mut(i)? = ingress;
        *self.verdict.get_mut(i)? = Verdict::Pending;
        *self.offload.get_mut(i)? = offload;
        *self.handle.get_mut(i)? = handle;
        self.len = i.saturating_add(1);
        Some(slot.window_mut(span))
    }

    /// Number of packets.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no packets.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room for another packet.
    #[inline]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == MAX_BURST
    }

    /// The private first bytes of packet `i`: the whole frame if it is no longer than [`WINDOW`].
    #[inline]
    #[must_use]
    pub fn window(&self, i: usize) -> &[u8] {
        match (self.span.get(i), self.slots.get(i)) {
            (Some(span), Some(slot)) if i < self.len => slot.window(*span),
            _ => &[],
        }
    }

    /// The private first bytes of packet `i`, to be edited.
    #[inline]
    pub fn window_mut(&mut self, i: usize) -> &mut [u8] {
        match (self.span.get(i), self.slots.get_mut(i)) {
            (Some(span), Some(slot)) if i < self.len => slot.window_mut(*span),
            _ => &mut [],
        }
    }

    /// Grows the front of packet `i` by `n` bytes and returns its window; the new bytes come first
    /// and must be filled. `None`, and no change, if the headroom is too small.
    ///
    /// The offload metadata is moved along: its offsets still name the same bytes.
    pub fn prepend(&mut self, i: usize, n: usize) -> Option<&mut [u8]> {
        self.live(i)?;
        let span = self.span.get_mut(i)?;
        let frame_len = self.frame_len.get_mut(i)?;
        let moved = u16::try_from(n).ok()?;
        let shifted = self.offload.get(i)?.moved(i32::from(moved))?;
        let grown = Span { start: span.start.checked_sub(moved)?, len: span.len.checked_add(moved)? };
        *frame_len = frame_len.checked_add(u32::from(moved))?;
        *span = grown;
        *self.offload.get_mut(i)? = shifted;
        Some(self.slots.get_mut(i)?.window_mut(grown))
    }

    /// Removes the first `n` bytes of packet `i` and returns its window. `None`, and no change, if
    /// the window is shorter or the unfinished checksum starts within those bytes.
    ///
    /// The offload metadata is moved along: its offsets still name the same bytes.
    pub fn strip(&mut self, i: usize, n: usize) -> Option<&mut [u8]> {
        self.live(i)?;
        let span = self.span.get_mut(i)?;
        let frame_len = self.frame_len.get_mut(i)?;
        let moved = u16::try_from(n).ok()?;
        let shifted = self.offload.get(i)?.moved(i32::from(moved).saturating_neg())?;
        let shrunk = Span { start: span.start.checked_add(moved)?, len: span.len.checked_sub(moved)? };
        *frame_len = frame_len.checked_sub(u32::from(moved))?;
        *span = shrunk;
        *self.offload.get_mut(i)? = shifted;
        Some(self.slots.get_mut(i)?.window_mut(shrunk))
    }

    /// Length of the whole frame `i` in bytes, window and payload.
    #[inline]
    #[must_use]
    pub fn frame_len(&self, i: usize) -> u32 {
        self.live(i).and_then(|i| self.frame_len.get(i)).copied().unwrap_or_default()
    }

    /// Bytes of frame `i` beyond its window: they lie at [`WINDOW`] of the source frame.
    #[inline]
    #[must_use]
    pub fn payload_len(&self, i: usize) -> u32 {
        let window_len = self.span.get(i).map_or(0, |span| span.len);
        self.frame_len(i).saturating_sub(u32::from(window_len))
    }

    /// The port packet `i` came from.
    #[inline]
    #[must_use]
    pub fn ingress(&self, i: usize) -> PortId {
        self.live(i).and_then(|i| self.ingress.get(i)).copied().unwrap_or_default()
    }

    /// What the sender of packet `i` left undone.
    #[inline]
    #[must_use]
    pub fn offload(&self, i: usize) -> Offload {
        self.live(i).and_then(|i| self.offload.get(i)).copied().unwrap_or_default()
    }

    /// Replaces the offload metadata of packet `i`, when something of it was done.
    #[inline]
    pub fn set_offload(&mut self, i: usize, offload: Offload) {
        if let Some(slot) = self.live(i).and_then(|i| self.offload.get_mut(i)) {
            *slot = offload;
        }
    }

    /// The handle packet `i` was pushed with.
    #[inline]
    #[must_use]
    pub fn handle(&self, i: usize) -> u32 {
        self.live(i).and_then(|i| self.handle.get(i)).copied().unwrap_or_default()
    }

    /// What was decided about packet `i`.
    #[inline]
    #[must_use]
    pub fn verdict(&self, i: usize) -> Verdict {
        self.live(i).and_then(|i| self.verdict.get(i)).copied().unwrap_or_default()
    }

    /// Decides about packet `i`.
    #[inline]
    pub fn set_verdict(&mut self, i: usize, verdict: Verdict) {
        if let Some(slot) = self.live(i).and_then(|i| self.verdict.get_mut(i)) {
            *slot = verdict;
        }
    }

    /// All verdicts, in the order of the packets.
    #[inline]
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        self.verdict.get(..self.len).unwrap_or_default()
    }

    /// Decides about all packets that are still pending.
    #[inline]
    pub fn set_pending(&mut self, verdict: Verdict) {
        for slot in self.verdict.iter_mut().take(self.len) {
            if *slot == Verdict::Pending {
                *slot = verdict;
            }
        }
    }

    /// Asks `judge` about every packet that is still pending, in order, with its ingress port and
    /// its window. This is the loop forwarders run in: it walks the columns without index checks.
    #[inline]
    pub fn judge(&mut self, mut judge: impl FnMut(PortId, &[u8]) -> Verdict) {
        let columns = self.verdict.iter_mut().zip(&self.ingress).zip(&self.span).zip(&self.slots).take(self.len);
        for (((verdict, ingress), span), slot) in columns {
            if *verdict == Verdict::Pending {
                *verdict = judge(*ingress, slot.window(*span));
            }
        }
    }

    #[inline]
    fn live(&self, i: usize) -> Option<usize> {
        (i < self.len).then_some(i)
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Windows are guests' data and have no place in a log.
        f.debug_struct("Burst").field("len", &self.len).field("verdicts", &self.verdicts()).finish_non_exhaustive()
    }
}

impl Slot {
    #[inline]
    fn window(&self, span: Span) -> &[u8] {
        let start = usize::from(span.start);
        self.0.get(start..start.saturating_add(usize::from(span.len))).unwrap_or_default()
    }

    #[inline]
    fn window_mut(&mut self, span: Span) -> &mut [u8] {
        let start = usize::from(span.start);
        self.0.get_mut(start..start.saturating_add(usize::from(span.len))).unwrap_or_default()
    }
}
