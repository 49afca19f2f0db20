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
    /// Whether any frame is longer than its window.
    has_payload: bool,
    /// Whether packets of one flow are likely to stand together.
    has_runs: bool,
    /// Places that stand for several packets, a bit each.
    many: u64,
    /// How many, and the bytes of all.
    run: [Run; MAX_BURST],
    /// Where the window starts in its slot, and its length: start + length <= SLOT.
    span: [Span; MAX_BURST],
    frame_len: [u32; MAX_BURST],
    ingress: [PortId; MAX_BURST],
    verdict: [Verdict; MAX_BURST],
    offload: [Offload; MAX_BURST],
    handle: [u32; MAX_BURST],
    slots: [Slot; MAX_BURST],
}

/// Packets of one flow that nobody has changed, and that are dealt with as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many there are.
    pub packets: u32,
    /// Bytes of all of them.
    pub bytes: u64,
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

/// A packet about which something is to be decided.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The port it came from.
    pub ingress: PortId,
    /// Its private first bytes.
    pub window: &'a [u8],
    /// What was decided.
    pub verdict: &'a mut Verdict,
}

impl Burst {
    /// An empty burst, on the heap because it holds 24 KiB of windows.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self {
            len: 0,
            has_payload: false,
            has_runs: false,
            many: 0,
            run: [Run { packets: 0, bytes: 0 }; MAX_BURST],
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
        self.has_payload = false;
        self.has_runs = false;
        self.many = 0;
    }

    /// Adds a packet and returns its window, `min(frame_len, WINDOW)` bytes, which the caller must
    /// fill entirely. `None` if the burst is full.
    ///
    /// `frame_len` is the length of the whole frame in bytes without any virtio-net header;
    /// `handle` names the source of the payload to whoever pushed, and means nothing to others.
    #[inline]
    pub fn push(&mut self, ingress: PortId, frame_len: u32, offload: Offload, handle: u32) -> Option<&mut [u8]> {
        let i = self.len;
        let slot = self.slots.get_mut(i)?;
        let span = Span::fresh(frame_len);
        *self.span.get_mut(i)? = span;
        *self.frame_len.get_mut(i)? = frame_len;
        self.has_payload |= frame_len > u32::from(FRESH_MAX);
        *self.ingress.get_mut(i)? = ingress;
        *self.verdict.get_mut(i)? = Verdict::Pending;
        *self.offload.get_mut(i)? = offload;
        *self.handle.get_mut(i)? = handle;
        self.len = i.saturating_add(1);
        Some(slot.window_mut(span))
    }

    /// Takes the last packet back.
    #[inline]
    pub const fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Replaces all packets by up to [`MAX_BURST`] new ones of one port, as [`clear`](Self::clear) and
    /// [`push`](Self::push) would, column by column: of each frame its length in bytes and who fills
    /// its window, entirely. Nothing is left undone in any; the handles are 0, 1, 2 and so on.
    #[inline]
    pub fn refill<F: FnOnce(&mut [u8])>(&mut self, ingress: PortId, frames: impl Iterator<Item = (u32, F)>) {
        let (mut len, mut longest) = (0_usize, 0);
        let columns = self.slots.iter_mut().zip(&mut self.span).zip(&mut self.frame_len);
        for (((slot, span), frame_len), (bytes, fill)) in columns.zip(frames) {
            *span = Span::fresh(bytes);
            *frame_len = bytes;
            fill(slot.window_mut(*span));
            longest = longest.max(bytes);
            len = len.saturating_add(1);
        }
        self.len = len;
        self.has_payload = longest > u32::from(FRESH_MAX);
        self.has_runs = false;
        self.many = 0;
        self.ingress.iter_mut().take(len).for_each(|slot| *slot = ingress);
        self.verdict.iter_mut().take(len).for_each(|slot| *slot = Verdict::Pending);
        self.offload.iter_mut().take(len).for_each(|slot| *slot = Offload::NONE);
        self.handle.iter_mut().take(len).zip(0..).for_each(|(slot, i)| *slot = i);
    }

    /// Adds packet `i` of another burst as it is there, with another verdict. `false` if this one is full or that one has
    /// no such packet.
    pub fn push_copy(&mut self, from: &Self, i: usize, verdict: Verdict) -> bool {
        let at = self.len;
        let (Some(i), Some(slot)) = (from.live(i), self.slots.get_mut(at)) else { return false };
        let (Some(from_slot), Some(span)) = (from.slots.get(i), from.span.get(i).copied()) else { return false };
        slot.window_mut(span).copy_from_slice(from_slot.window(span));
        let columns = (self.span.get_mut(at), self.frame_len.get_mut(at), self.ingress.get_mut(at));
        let (Some(to_span), Some(frame_len), Some(ingress)) = columns else { return false };
        (*to_span, *frame_len, *ingress) = (span, from.frame_len(i), from.ingress(i));
        let columns = (self.verdict.get_mut(at), self.offload.get_mut(at), self.handle.get_mut(at));
        let (Some(to_verdict), Some(offload), Some(handle)) = columns else { return false };
        (*to_verdict, *offload, *handle) = (verdict, from.offload(i), from.handle(i));
        self.has_payload |= from.payload_len(i) > 0;
        self.len = at.saturating_add(1);
        true
    }

    /// Packet `i` stands for a run of which it is the first. The others have its headers, but for what no flow depends on; they are
    /// neither matched nor edited, and whoever decides on the first has decided on all, or says [`Verdict::Expand`].
    #[inline]
    pub fn set_run(&mut self, i: usize, run: Run) {
        if let Some(slot) = self.live(i).and_then(|i| self.run.get_mut(i)) {
            *slot = run;
            self.many |= 1 << i;
        }
    }

    /// The run that packet `i` stands for; `None`: only itself.
    #[inline]
    #[must_use]
    pub fn run(&self, i: usize) -> Option<Run> {
        if self.many == 0 || i >= self.len || self.many >> i & 1 == 0 { None } else { self.run.get(i).copied() }
    }

    /// Whether any packet stands for a run.
    #[inline]
    #[must_use]
    pub const fn has_many(&self) -> bool {
        self.many != 0
    }

    /// How many packets packet `i` stands for.
    #[inline]
    #[must_use]
    pub fn packets(&self, i: usize) -> u64 {
        self.run(i).map_or(1, |run| run.packets.into())
    }

    /// Bytes of all frames together.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        debug_assert!(!self.has_many(), "whoever makes runs knows their bytes");
        self.frame_len.iter().take(self.len).map(|len| u64::from(*len)).sum()
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

    /// Whether any packet has [payload](Self::payload_len) beyond its window.
    #[inline]
    #[must_use]
    pub const fn has_payload(&self) -> bool {
        self.has_payload
    }

    /// Whether the type of any frame may be one of 88xx, or behind a tag. For frames that nobody has edited, and cheap: who is
    /// told so looks closely.
    #[inline]
    #[must_use]
    pub fn may_hold_type_88(&self) -> bool {
        const TYPE: usize = HEADROOM + 12;
        let slots = self.slots.get(..self.len).unwrap_or_default();
        // 88 begins 88xx and a service tag, 81 a customer's tag; what a frame too short to have a type has there is of no
        // consequence but time.
        slots.iter().fold(false, |any, Slot(bytes)| any | (bytes.get(TYPE).is_some_and(|byte| byte & 0xf6 == 0x80)))
    }

    /// Whether packets of one flow are likely to stand together, so that it pays to compare each with the one before.
    #[inline]
    #[must_use]
    pub const fn has_runs(&self) -> bool {
        self.has_runs
    }

    /// Says so, of the packets that are there and those to come until the burst is cleared. It is a hint: nothing is
    /// decided by it.
    #[inline]
    pub const fn set_runs(&mut self, has_runs: bool) {
        self.has_runs = has_runs;
    }

    /// [`window`](Self::window) and [`payload_len`](Self::payload_len) of packet `i` in one.
    #[inline]
    #[must_use]
    pub fn pieces(&self, i: usize) -> (&[u8], u32) {
        match (self.span.get(i), self.slots.get(i), self.frame_len.get(i)) {
            (Some(span), Some(slot), Some(len)) if i < self.len => {
                (slot.window(*span), len.saturating_sub(u32::from(span.len)))
            }
            _ => (&[], 0),
        }
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

    /// All packets, in order, to be judged: the loop forwarders run in. It walks the columns
    /// without index checks. A packet that is no longer pending is to be left alone.
    #[inline]
    pub fn judge(&mut self) -> impl Iterator<Item = Judged<'_>> {
        let len = self.len;
        let verdicts = self.verdict.get_mut(..len).unwrap_or_default();
        let ingress = self.ingress.get(..len).unwrap_or_default();
        let spans = self.span.get(..len).unwrap_or_default();
        let slots = self.slots.get(..len).unwrap_or_default();
        let columns = verdicts.iter_mut().zip(ingress).zip(spans).zip(slots);
        columns.map(|(((verdict, ingress), span), slot)| Judged {
            ingress: *ingress,
            window: slot.window(*span),
            verdict,
        })
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

impl Span {
    /// Of a frame of so many bytes that nobody has edited.
    #[inline]
    fn fresh(frame_len: u32) -> Self {
        Self { start: FRESH_START, len: u16::try_from(frame_len).map_or(FRESH_MAX, |len| len.min(FRESH_MAX)) }
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Checksum, DropCause};

    /// What a packet should be, kept in the plainest way.
    #[derive(Clone, Debug)]
    struct Model {
        ingress: PortId,
        window: Vec<u8>,
        payload_len: u32,
        verdict: Verdict,
        offload: Offload,
        handle: u32,
        headroom: usize,
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Clear,
        Prepend(usize, usize),
        Push(u16, u32, u8, Checksum),
        Refill(u16, Vec<u32>, u8),
        SetPending(Verdict),
        SetVerdict(usize, Verdict),
        Strip(usize, usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let checksum = prop_oneof![
            Just(Checksum::Unknown),
            Just(Checksum::Verified),
            (0u16..400, 0u16..40).prop_map(|(start, offset)| Checksum::Unfinished { start, offset }),
        ];
        let verdict = prop_oneof![
            Just(Verdict::Pending),
            Just(Verdict::Flood),
            (0u16..9).prop_map(|port| Verdict::Forward(PortId(port))),
            Just(Verdict::Drop(DropCause::Runt)),
        ];
        let index = 0..MAX_BURST + 2;
        prop_oneof![
            1 => Just(Operation::Clear),
            40 => (any::<u16>(), 0u32..70_000, any::<u8>(), checksum)
                .prop_map(|(port, len, fill, checksum)| Operation::Push(port, len, fill, checksum)),
            1 => (any::<u16>(), vec(0u32..70_000, 0..MAX_BURST + 2), any::<u8>())
                .prop_map(|(port, lens, fill)| Operation::Refill(port, lens, fill)),
            10 => (index.clone(), 0..150usize).prop_map(|(i, n)| Operation::Prepend(i, n)),
            10 => (index.clone(), 0..150usize).prop_map(|(i, n)| Operation::Strip(i, n)),
            10 => (index, verdict.clone()).prop_map(|(i, v)| Operation::SetVerdict(i, v)),
            1 => verdict.prop_map(Operation::SetPending),
        ]
    }

    fn moved(offload: Offload, by: i64) -> Option<Offload> {
        let Checksum::Unfinished { start, offset } = offload.checksum else {
            return Some(offload);
        };
        let start = u16::try_from(i64::from(start) + by).ok()?;
        Some(Offload { checksum: Checksum::Unfinished { start, offset }, ..offload })
    }

    fn apply(burst: &mut Burst, models: &mut Vec<Model>, operation: &Operation, step: u32) {
        match *operation {
            Operation::Clear => {
                burst.clear();
                models.clear();
            }
            Operation::Push(port, frame_len, fill, checksum) => {
                let offload = Offload { checksum, segmentation: None };
                let window = burst.push(PortId(port), frame_len, offload, step);
                assert_eq!(window.is_some(), models.len() < MAX_BURST);
                let Some(window) = window else { return };
                assert_eq!(window.len(), WINDOW.min(frame_len as usize));
                window.fill(fill);
                models.push(Model {
                    ingress: PortId(port),
                    window: window.to_vec(),
                    payload_len: frame_len.saturating_sub(256),
                    verdict: Verdict::Pending,
                    offload,
                    handle: step,
                    headroom: HEADROOM,
                });
            }
            Operation::Refill(port, ref lens, fill) => {
                let frames = lens.iter().map(|&len| (len, move |window: &mut [u8]| window.fill(fill)));
                burst.refill(PortId(port), frames);
                models.clear();
                models.extend(lens.iter().take(MAX_BURST).enumerate().map(|(i, &frame_len)| Model {
                    ingress: PortId(port),
                    window: vec![fill; WINDOW.min(frame_len as usize)],
                    payload_len: frame_len.saturating_sub(256),
                    verdict: Verdict::Pending,
                    offload: Offload::NONE,
                    handle: u32::try_from(i).unwrap(),
                    headroom: HEADROOM,
                }));
            }
            Operation::Prepend(i, n) => {
                let window = burst.prepend(i, n);
                let expected = models.get_mut(i).and_then(|model| {
                    let offload = moved(model.offload, i64::try_from(n).unwrap())?;
                    model.headroom = model.headroom.checked_sub(n)?;
                    model.offload = offload;
                    model.window.splice(..0, vec![0xee; n]);
                    Some(model)
                });
                assert_eq!(window.is_some(), expected.is_some());
                if let Some(window) = window {
                    window[..n].fill(0xee);
                }
            }
            Operation::Strip(i, n) => {
                let window = burst.strip(i, n);
                let expected = models.get_mut(i).and_then(|model| {
                    model.window.len().checked_sub(n)?;
                    model.offload = moved(model.offload, -i64::try_from(n).unwrap())?;
                    model.headroom += n;
                    model.window.drain(..n);
                    Some(model)
                });
                assert_eq!(window.is_some(), expected.is_some());
            }
            Operation::SetVerdict(i, verdict) => {
                burst.set_verdict(i, verdict);
                if let Some(model) = models.get_mut(i) {
                    model.verdict = verdict;
                }
            }
            Operation::SetPending(verdict) => {
                burst.set_pending(verdict);
                for model in models {
                    if model.verdict == Verdict::Pending {
                        model.verdict = verdict;
                    }
                }
            }
        }
    }

    fn check(burst: &mut Burst, models: &[Model]) {
        assert_eq!(burst.len(), models.len());
        assert_eq!(burst.is_empty(), models.is_empty());
        assert_eq!(burst.is_full(), models.len() == MAX_BURST);
        for (i, model) in models.iter().enumerate() {
            assert_eq!(burst.window(i), model.window);
            assert_eq!(burst.window_mut(i), model.window);
            assert_eq!(burst.payload_len(i), model.payload_len);
            assert_eq!(burst.pieces(i), (&model.window[..], model.payload_len));
            let window_len = u32::try_from(model.window.len()).unwrap();
            assert_eq!(burst.frame_len(i), window_len + model.payload_len);
            assert_eq!(burst.ingress(i), model.ingress);
            assert_eq!(burst.verdict(i), model.verdict);
            assert_eq!(burst.offload(i), model.offload);
            assert_eq!(burst.handle(i), model.handle);
        }
        assert_eq!(burst.has_payload(), models.iter().any(|model| model.payload_len > 0));
        assert_eq!(burst.bytes(), (0..models.len()).map(|i| u64::from(burst.frame_len(i))).sum::<u64>());
        let verdicts: Vec<_> = models.iter().map(|model| model.verdict).collect();
        assert_eq!(burst.verdicts(), verdicts);
        let mut judged = 0;
        for (packet, model) in burst.judge().zip(models) {
            assert_eq!(packet.ingress, model.ingress);
            assert_eq!(packet.window, model.window);
            assert_eq!(*packet.verdict, model.verdict);
            judged += 1;
        }
        assert_eq!(judged, models.len());
        assert_eq!(burst.window(models.len()), []);
        assert_eq!(burst.frame_len(models.len()), 0);
        assert_eq!(burst.payload_len(models.len()), 0);
    }

    proptest! {
        #[test]
        fn a_burst_is_a_list_of_packets(operations in vec(operation(), 1..150)) {
            let mut burst = Burst::new();
            let mut models = Vec::new();
            for (step, operation) in (0..).zip(&operations) {
                apply(&mut burst, &mut models, operation, step);
                check(&mut burst, &models);
            }
        }
    }
}
