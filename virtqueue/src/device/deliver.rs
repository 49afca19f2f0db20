// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames from private memory into the guest's buffers, a burst at a time.
//!
//! Theory of operation. The lines of the buffers belong to another core until they are written, and
//! a store to such a line waits in the processor's store buffer, in order, with all stores behind
//! it. How many frames can wait at once is how many fit into that buffer; so a run copies its
//! frames with nothing stored in between (not even a counter that the compiler keeps on the stack),
//! and only then completes them.

use super::copy::{copy_frame, write_plain_header};
use super::held::Held;
use super::net_header::NetHeader;
use super::queue::Queue;
use super::ring::{DeviceRing, on};
use super::rx::{Delivered, RxQueue, Tail};
use crate::error::RingError;
use crate::journal::BATCH;
use crate::mem::copy_to_guest;

/// A frame to be delivered: `head`, then `tail`.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What the virtio-net header says; `num_buffers` is filled in.
    pub header: NetHeader,
    /// The first bytes, private ones.
    pub head: &'a [u8],
    /// The bytes behind them.
    pub tail: Tail<'a>,
}

/// What became of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveredBurst {
    /// Frames in the guest's buffers, visible after [`RxQueue::publish`].
    pub frames: u32,
    /// Bytes in them, without virtio-net headers.
    pub bytes: u64,
    /// Frames for which the guest has no buffers: all behind the first such.
    pub no_buffers: u32,
    /// Frames that do not fit, see [`Delivered::TooBig`].
    pub too_big: u32,
    /// Which those are, of the first 64: a bit each.
    pub too_big_at: u64,
}

impl RxQueue {
    /// Writes `count` frames as [`deliver`](Self::deliver) does, in order. `frame` says what the
    /// frame of an index below `count` is.
    ///
    /// # Errors
    /// The ring is malformed; every later call gives the same error. What was not
    /// published yet does not arrive.
    #[inline]
    pub fn deliver_burst<'a>(
        &mut self,
        count: usize,
        frame: impl Fn(usize) -> Frame<'a>,
    ) -> Result<DeliveredBurst, RingError> {
        let mut result = DeliveredBurst::default();
        let mut done = 0;
        while done < count {
            let (frames, bytes) = self.deliver_run(count - done, |i| frame(done + i));
            result.frames += frames;
            result.bytes += bytes;
            done += frames as usize;
            if done == count {
                break;
            }
            let next = frame(done);
            match self.deliver_any(&next.header, next.head, next.tail)? {
                Delivered::Ok => {
                    result.frames += 1;
                    result.bytes += next.len() as u64;
                }
                Delivered::TooBig => {
                    result.too_big += 1;
                    result.too_big_at |= place(done);
                }
                Delivered::NoBuffers => {
                    // A burst is far smaller than any counter.
                    result.no_buffers = u32::try_from(count - done).unwrap_or(u32::MAX);
                    break;
                }
            }
            done += 1;
        }
        Ok(result)
    }

    /// Writes up to `max` frames for as long as a simple chain is held for each that has room for
    /// it, and it is in at most two pieces, and nothing is logged. Returns how many, and their bytes.
    #[inline(always)]
    pub(super) fn deliver_run<'a>(&mut self, max: usize, frame: impl Fn(usize) -> Frame<'a>) -> (u32, u64) {
        let header_len = self.header_len();
        let Queue { ring, held, pending, dirty, .. } = &mut self.queue;
        let max = max.min(held.count()).min(BATCH);
        if max == 0 || held.complex > 0 || header_len != NetHeader::MAX_LEN || dirty.is_some() {
            return (0, 0);
        }
        let Copied { frames: count, bytes } = copy_frames(held, max, frame);
        if count > 0 {
            on!(ring, ring => {
                if pending.room() < count {
                    ring.publish(pending, None);
                }
                ring.complete_simple(pending, count, |i| (held.id.get(held.head + i), held.len.get(held.head + i)));
            });
            held.drop_simple(count);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
        (count as u32, bytes)
    }
}

impl Frame<'_> {
    /// Bytes, without a virtio-net header.
    #[inline(always)]
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// The bit of a frame, if it has one.
#[cold]
fn place(i: usize) -> u64 {
    u32::try_from(i).ok().and_then(|i| 1_u64.checked_shl(i)).unwrap_or(0)
}

/// Frames copied, and their bytes.
struct Copied {
    frames: usize,
    bytes: u64,
}

/// Copies up to `max` frames, one into each of the oldest chains held, all of them simple, and notes
/// the length of each in place of the room that the chain had. Apart from everything else, so that
/// nothing but the frames and that length is stored per frame.
#[inline(never)]
fn copy_frames<'a>(held: &mut Held, max: usize, frame: impl Fn(usize) -> Frame<'a>) -> Copied {
    let head = held.head;
    let mut copied = Copied { frames: 0, bytes: 0 };
    while copied.frames < max {
        let at = head + copied.frames;
        let Some(len) = copy_one(held, at, &frame(copied.frames)) else { break };
        #[expect(clippy::cast_possible_truncation, reason = "checked against a u32")]
        held.len.set(at, (NetHeader::MAX_LEN + len) as u32);
        copied.bytes += len as u64;
        copied.frames += 1;
    }
    copied
}

/// Copies a frame into the simple chain at `at`, behind its header. Returns its length, or `None`,
/// with nothing written, if it does not fit or has more than two pieces. All chains held are simple.
#[inline(always)]
fn copy_one(held: &Held, at: usize, frame: &Frame<'_>) -> Option<usize> {
    let (from, tail_len) = match frame.tail {
        Tail::None => (core::ptr::null(), 0),
        Tail::Bytes(bytes) => (bytes.as_ptr(), bytes.len()),
        Tail::Frame { queue, index, offset } => {
            let (ptr, len) = queue.contiguous(index, offset)?;
            (ptr.as_ptr().cast_const(), len)
        }
        Tail::Part { queue, index, offset, len } => {
            let (ptr, there) = queue.contiguous(index, offset)?;
            (ptr.as_ptr().cast_const(), there.min(len as usize))
        }
    };
    let len = frame.head.len() + tail_len;
    if NetHeader::MAX_LEN + len > held.len.get(at) as usize {
        return None;
    }
    let dst = held.ptr.get(at);
    // SAFETY: the chain is simple, so it is one piece with `held.len` mapped bytes (see `Queue::map`),
    // which is enough, as just checked. `from` has `tail_len` bytes: a slice, or what `contiguous`
    // vouches for.
    unsafe {
        if frame.header == NetHeader::default() {
            write_plain_header(dst);
        } else {
            copy_to_guest(dst, &frame.header.to_bytes(1));
        }
        let body = dst.offset(NetHeader::MAX_LEN);
        copy_frame(frame.head.as_ptr(), body.as_ptr(), frame.head.len());
        if tail_len > 0 {
            copy_frame(from, body.offset(frame.head.len()).as_ptr(), tail_len);
        }
    }
    Some(len)
}
