// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What passes, for who captures it (`docs/adr/0013-looking-inside-a-queue.md`). While nobody does, nothing here is called.

use packet::Burst;
use switch::model::Direction;
use virtqueue::{DeliveredBurst, ForwardError, Forwarded, forward};

use super::Worker;
use super::aggregate::first_of;
use super::bridge::{Ingress, Path};
use super::payload::Payload;
use super::slots::{RxSlot, TxSlot};
use crate::inspect::{CaptureId, Seen, Sink, Sinks, Tap, copy};

impl Path {
    /// Takes a burst that has just come from a guest or a link to where it goes.
    #[inline]
    pub(super) fn enter(&mut self, ingress: &Ingress<'_>, now_ns: u64) {
        if !self.sinks.is_empty() {
            self.see(ingress);
        }
        self.run(ingress, Direction::Out, now_ns);
    }

    #[cold]
    fn see(&self, ingress: &Ingress<'_>) {
        let Ingress { port, pair, payload, .. } = *ingress;
        if !self.sinks.wants(port, pair) {
            return;
        }
        for i in 0..self.burst.len() {
            if self.burst.run(i).is_none() {
                let (head, _) = self.burst.pieces(i);
                let rest = |at, room: &mut [u8]| {
                    payload.read(self.burst.handle(i), at, room);
                };
                self.sinks.see(port, pair, self.burst.frame_len(i), head, rest);
                continue;
            }
            let mut frames = payload.run(self.burst.handle(i));
            while let Some((frame, behind)) = first_of(frames) {
                let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
                self.sinks.see(port, pair, length, frame, |_, _| {});
                frames = behind;
            }
        }
    }
}

impl Worker {
    /// Lets a capture have what it asks for, from now on.
    pub(super) fn start_capture(&mut self, sink: Sink) {
        self.path.sinks.add(sink);
        self.tap_all();
    }

    /// Ends a capture; what it had comes back.
    pub(super) fn end_capture(&mut self, id: CaptureId) -> Option<Box<Sink>> {
        let Path { rxs, uplinks, .. } = &mut self.path;
        rxs.iter_mut().for_each(|slot| slot.common.tap = None);
        uplinks.iter_mut().for_each(|uplink| uplink.tap = None);
        let sink = self.path.sinks.remove(id);
        self.tap_all();
        sink.map(Box::new)
    }

    /// Says to each way out whether somebody captures what goes there.
    pub(super) fn tap_all(&mut self) {
        let Path { rxs, uplinks, sinks, .. } = &mut self.path;
        for slot in rxs {
            slot.common.tap = sinks.tap(slot.common.port(), slot.common.id.pair);
        }
        for uplink in uplinks {
            uplink.tap = sinks.tap(uplink.port, 0);
        }
    }
}

/// Packets of a burst went out, a bit each.
#[cold]
pub(super) fn see_all(tap: &Tap, burst: &Burst, payload: Payload<'_>, mut packets: u64) {
    while packets != 0 {
        let i = packets.trailing_zeros() as usize;
        packets &= packets - 1;
        let (head, _) = burst.pieces(i);
        tap.see(burst.frame_len(i), head, |at, room| {
            payload.read(burst.handle(i), at, room);
        });
    }
}

/// Packets `at..at + run` of a burst were to go out, and this became of them.
#[cold]
pub(super) fn see_delivered(
    tap: &Tap,
    burst: &Burst,
    payload: Payload<'_>,
    (at, run): (usize, usize),
    delivered: &DeliveredBurst,
) {
    let reached = run.saturating_sub(delivered.no_buffers as usize);
    let went = (0..reached).filter(|i| delivered.too_big_at >> i & 1 == 0);
    see_all(tap, burst, payload, went.fold(0, |packets, i| packets | 1_u64.checked_shl(bit(at + i)).unwrap_or(0)));
}

/// Frames of a guest that are not looked at came in.
#[cold]
pub(super) fn see_held(sinks: &Sinks, source: &TxSlot, held: usize) {
    let (port, pair) = (source.common.port(), source.common.id.pair);
    for i in 0..held {
        let mut window = [0; packet::WINDOW];
        let copied = source.queue.read(i, 0, &mut window);
        sinks.see(port, pair, source.queue.frame_len(i), window.get(..copied).unwrap_or_default(), |at, room| {
            source.queue.read(i, at.saturating_add(bit(copied)), room);
        });
    }
}

fn bit(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}

/// Forwards as [`forward`] does, but frame by frame, so that it is known what became of each.
///
/// # Errors
/// As there.
#[cold]
pub(super) fn forward_watched(
    sinks: &Sinks,
    source: &mut TxSlot,
    destination: &mut RxSlot,
    max: usize,
) -> Result<Forwarded, ForwardError> {
    let (port, pair) = (source.common.port(), source.common.id.pair);
    let mut all = Forwarded::default();
    let mut window = [0; packet::WINDOW];
    let (mut rest, most) = (Vec::new(), sinks.longest());
    for _ in 0..max {
        if source.queue.harvest(1).map_err(ForwardError::Source)? == 0 {
            break;
        }
        // What is forwarded is released: it is read before.
        let length = source.queue.frame_len(0);
        let copied = source.queue.read(0, 0, &mut window);
        let head = window.get(..copied).unwrap_or_default();
        rest.resize((length.min(most) as usize).saturating_sub(copied), 0);
        source.queue.read(0, bit(copied), &mut rest);
        let one = forward(&mut source.queue, &mut destination.queue, 1)?;
        if one.frames + one.too_big == 0 {
            all.no_buffers |= one.no_buffers;
            all.left = one.left;
            break;
        }
        all.frames += one.frames;
        all.bytes += one.bytes;
        all.too_big += one.too_big;
        let behind = |at, room: &mut [u8]| copy(&rest, at, room);
        if sinks.wants(port, pair) {
            sinks.see(port, pair, length, head, behind);
        }
        if one.frames > 0 {
            if let Some(tap) = &destination.common.tap {
                tap.see(length, head, behind);
            }
        } else {
            let cause = packet::DropCause::TooBig;
            destination.common.drop_frames(cause, 1, |_, room| Seen::of(head, length, room));
        }
    }
    Ok(all)
}
