// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cross-connect: frames of one guest's transmit queue into another's receive queue.
//!
//! Theory of operation. At 64 bytes a packet costs what its cache lines cost on their way between
//! cores, so a burst first asks for all lines it will touch and then touches them: descriptors of
//! the source (whose frames are asked for as they are found), descriptors of the destination,
//! ownership of the destination's lines, and only then the copies. A run is as many frames as are
//! simple on both sides (one descriptor each, and the frame fits); whatever is not simple goes
//! through [`RxQueue::deliver`], frame by frame, still with one copy.

use super::MAX_BURST;
use super::copy::{copy_frame, write_plain_header};
use super::held::Held;
use super::net_header::NetHeader;
use super::pending::Pending;
use super::queue::Queue;
use super::ring::{DeviceRing, FIRST_BYTES, on};
use super::rx::{Delivered, RxQueue, Tail};
use super::tx::TxQueue;
use crate::error::RingError;
use crate::mem::{HostPtr, copy_from_guest, copy_to_guest, prefetch_write};

/// What one call of [`forward`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Frames delivered.
    pub frames: u32,
    /// Bytes in them, without virtio-net headers.
    pub bytes: u64,
    /// Frames dropped because they do not fit the destination's buffers.
    pub too_big: u32,
    /// Whether it stopped because the destination has no buffers.
    pub no_buffers: bool,
    /// Frames still held by the source: the next call tries them again, or the caller releases
    /// them, which drops them.
    pub left: usize,
}

/// Which of the two rings broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The ring frames were taken from.
    #[error("source ring: {0}")]
    Source(RingError),
    /// The ring frames were delivered to.
    #[error("destination ring: {0}")]
    Destination(RingError),
}

/// Delivers up to `max` frames of `src` to `dst` and releases them. Publishing both is left to the
/// caller: the destination first, so that a crash in between repeats frames and loses none.
///
/// Virtio-net headers arrive as zeros, and are not even read, unless both queues have offloads.
///
/// # Errors
/// Either ring is malformed. Frames delivered before stay delivered.
pub fn forward(src: &mut TxQueue, dst: &mut RxQueue, max: usize) -> Result<Forwarded, ForwardError> {
    let mut result = Forwarded::default();
    let frames = src.harvest(max).map_err(ForwardError::Source)?.min(max.min(MAX_BURST));
    if frames == 0 {
        return Ok(result);
    }
    dst.prefetch(frames + MAX_BURST).map_err(ForwardError::Destination)?;
    // Frame by frame, then.
    let logged = dst.queue.dirty.is_some();
    let mut done = 0;
    while done < frames {
        let run = run(&src.queue, &mut dst.queue, done, if logged { 0 } else { frames - done });
        result.frames += run.frames;
        result.bytes += run.bytes;
        done += run.frames as usize;
        if done == frames {
            break;
        }
        let tail = Tail::Frame { queue: src, index: done, offset: 0 };
        let header = if dst.queue.config.features.offloads { src.net_header(done) } else { NetHeader::default() };
        match dst.deliver(&header, &[], tail).map_err(ForwardError::Destination)? {
            Delivered::NoBuffers => {
                result.no_buffers = true;
                break;
            }
            Delivered::Ok => {
                result.frames += 1;
                result.bytes += u64::from(src.frame_len(done));
            }
            Delivered::TooBig => result.too_big += 1,
        }
        done += 1;
    }
    src.release(done);
    result.left = src.held();
    Ok(result)
}

/// Frames and bytes of a run.
struct Run {
    frames: u32,
    bytes: u64,
}

/// Copies frames `from..` of the source as long as everything is simple; at most `max`.
#[inline(always)]
fn run(src: &Queue<false>, dst: &mut Queue<true>, from: usize, max: usize) -> Run {
    let source = &*src.held;
    let frames = max.min(dst.held.count());
    if source.complex > 0 || dst.held.complex > 0 || frames == 0 {
        return Run { frames: 0, bytes: 0 };
    }
    let offloads = src.config.features.offloads && dst.config.features.offloads;
    let headers = Headers {
        source: usize::from(src.config.features.header_len),
        target: usize::from(dst.config.features.header_len),
        offloads,
    };
    let Queue { ring, held, pending, .. } = dst;
    let plain = headers.target == NetHeader::MAX_LEN && !offloads;
    on!(ring, ring => {
        if pending.room() < frames {
            ring.publish(pending, None);
        }
        if plain {
            copy_run::<_, true>(source, from, held, ring, pending, frames, headers)
        } else {
            copy_run::<_, false>(source, from, held, ring, pending, frames, headers)
        }
    })
}

/// Header lengths in bytes, and whether the header is carried over.
#[derive(Clone, Copy)]
struct Headers {
    source: usize,
    target: usize,
    offloads: bool,
}

/// The inner loops, once per ring format, and once for the `PLAIN` header of 12 bytes without
/// offloads. All chains held on both sides are simple.
#[inline(always)]
fn copy_run<R: DeviceRing, const PLAIN: bool>(
    source: &Held,
    from: usize,
    target: &mut Held,
    ring: &mut R,
    pending: &mut Pending,
    frames: usize,
    headers: Headers,
) -> Run {
    let (src_at, dst_at) = (source.head + from, target.head);
    hint_long_frames(source, src_at, target, frames, headers);
    let mut bytes = 0_u64;
    let mut done = 0;
    while done < frames {
        let len = source.len.get(src_at + done) as usize - headers.source;
        if len + headers.target > target.len.get(dst_at + done) as usize {
            break;
        }
        let (src, dst) = (source.ptr.get(src_at + done), target.ptr.get(dst_at + done));
        // SAFETY: both are the one piece of a held chain (`complex` is 0), mapped in full (see
        // `Queue::map`). The source has `headers.source + len` bytes, because a chain without room
        // for its header is never held; the target has room, as just checked.
        unsafe {
            if PLAIN {
                write_plain_header(dst);
            } else {
                write_any_header(src, dst, headers);
            }
            copy_frame(src.offset(headers.source).as_ptr(), dst.offset(headers.target).as_ptr(), len);
        }
        bytes += len as u64;
        done += 1;
    }
    ring.complete_simple(pending, done, |i| {
        let len = source.len.get(src_at + i) as usize - headers.source + headers.target;
        // Checked above against the target's length, a u32.
        #[expect(clippy::cast_possible_truncation, reason = "checked against a u32")]
        (target.id.get(dst_at + i), len as u32)
    });
    target.drop_simple(done);
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_BURST")]
    Run { frames: done as u32, bytes }
}

/// Asks for ownership of the lines that were not asked for when the buffers were harvested.
#[inline(always)]
fn hint_long_frames(source: &Held, src_at: usize, target: &Held, frames: usize, headers: Headers) {
    if source.longest as usize <= headers.source + FIRST_BYTES {
        return;
    }
    for i in 0..frames {
        let len = source.len.get(src_at + i) as usize;
        if len > headers.source + FIRST_BYTES {
            let start = target.ptr.get(target.head + i).offset(headers.target);
            let last = (len - headers.source).min(4 * FIRST_BYTES) - 1;
            for at in (FIRST_BYTES..=last).step_by(FIRST_BYTES) {
                prefetch_write(start.offset(at));
            }
            prefetch_write(start.offset(last));
        }
    }
}

/// Writes the header of a frame that takes one buffer, with offloads or without `num_buffers`.
///
/// # Safety
/// `src` has `headers.source` mapped bytes, `dst` has `headers.target`.
unsafe fn write_any_header(src: HostPtr, dst: HostPtr, headers: Headers) {
    let mut bytes = [0; NetHeader::MAX_LEN];
    if headers.offloads {
        let len = headers.source.min(NetHeader::MAX_LEN);
        // SAFETY: within the header of the source, by the caller's promise.
        unsafe { copy_from_guest(src, bytes.get_mut(..len).unwrap_or_default()) };
    }
    let due = NetHeader::from_bytes(bytes).to_bytes(1);
    let len = headers.target.min(NetHeader::MAX_LEN);
    // SAFETY: within the header of the target, by the caller's promise.
    unsafe { copy_to_guest(dst, due.get(..len).unwrap_or_default()) };
}
