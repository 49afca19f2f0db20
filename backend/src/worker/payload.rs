// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the bytes of a burst's frames beyond their windows are.

use packet::WINDOW;
use virtqueue::{Tail, TxQueue};

use super::aggregate::Ranges;

/// Where the payload beyond a window begins in its frame.
#[expect(clippy::cast_possible_truncation, reason = "256")]
const PAYLOAD_AT: u32 = WINDOW as u32;

/// The source of payloads, by the handles of a burst's packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    /// Frames held by a guest's transmit queue; the handle is the place among them.
    Queue(&'a TxQueue),
    /// Packets within one frame of such a queue; the handle is where in the frame what lies beyond the window begins.
    Within { queue: &'a TxQueue, frame: usize },
    /// Packets within one private frame; the handle is where in it what lies beyond the window begins.
    Inside(&'a [u8]),
    /// Packets without any, some of which stand for runs: the sub-frames of all, and where those of each handle are.
    Runs { bytes: &'a [u8], ranges: &'a Ranges },
    /// What lies beyond each window, by handle.
    Slices(&'a [&'a [u8]]),
}

impl<'a> Payload<'a> {
    /// The payload of the packet with this handle, `len` bytes, to be delivered to a guest.
    #[inline(always)]
    pub(super) fn tail(self, handle: u32, len: u32) -> Tail<'a> {
        match self {
            Self::Queue(queue) => Tail::Frame { queue, index: handle as usize, offset: PAYLOAD_AT },
            Self::Within { queue, frame } => Tail::Part { queue, index: frame, offset: handle, len },
            Self::Inside(frame) => {
                let bytes = frame.get(handle as usize..).and_then(|rest| rest.get(..len as usize));
                bytes.map_or(Tail::None, Tail::Bytes)
            }
            Self::Runs { .. } => Tail::None,
            Self::Slices(slices) => slices.get(handle as usize).map_or(Tail::None, |bytes| Tail::Bytes(bytes)),
        }
    }

    /// The sub-frames of the run with this handle.
    pub(super) fn run(self, handle: u32) -> &'a [u8] {
        let Self::Runs { bytes, ranges } = self else { return &[] };
        let (from, to) = ranges.get(handle as usize).copied().unwrap_or_default();
        bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Fills `to` with the payload. A frame is as long as it was when it was harvested; were it not, nothing of an earlier one may show: what its
    /// sender has cut short becomes zeros.
    #[inline]
    pub(super) fn fill(self, handle: u32, to: &mut [u8]) {
        let read = self.read(handle, 0, to);
        to.iter_mut().skip(read).for_each(|byte| *byte = 0);
    }

    /// Copies the payload from byte `at` of it on. Returns how many bytes there were.
    pub(super) fn read(self, handle: u32, at: u32, to: &mut [u8]) -> usize {
        match self {
            Self::Queue(queue) => queue.read(handle as usize, PAYLOAD_AT + at, to),
            Self::Within { queue, frame } => queue.read(frame, handle.saturating_add(at), to),
            Self::Runs { .. } => 0,
            Self::Inside(frame) => copy(frame.get((handle as usize).saturating_add(at as usize)..), to),
            Self::Slices(slices) => copy(slices.get(handle as usize).and_then(|bytes| bytes.get(at as usize..)), to),
        }
    }
}

/// Copies as many bytes as there are and are wanted.
fn copy(bytes: Option<&[u8]>, to: &mut [u8]) -> usize {
    let bytes = bytes.unwrap_or_default();
    let count = bytes.len().min(to.len());
    if let (Some(to), Some(from)) = (to.get_mut(..count), bytes.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}
