// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two ports wired back to back: packets go from guest to guest in one copy, nothing is looked at.

use packet::{DropCause, PortId};
use virtqueue::{ForwardError, MAX_BURST, NetHeader, forward};

use super::Worker;
use super::bridge::Path;
use super::handover::{Ports, Stage};
use super::slots::{RxSlot, TxSlot};
use super::watch::{forward_watched, see_held};
use crate::counters::PortCounters;
use crate::inspect::{Seen, Sinks};
use crate::topology::Route;

impl Worker {
    /// Forwards one burst of transmit slot `index` to the wired `peer`. Returns the frames that left the source.
    #[inline]
    pub(super) fn crossconnect(&mut self, index: usize, peer: PortId, now: u64) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let Path { routes, rxs, sinks, .. } = &mut self.path;
        match routes.to(peer, source.common.id.pair) {
            Route::Local(receiver) => {
                let Some(destination) = rxs.get_mut(receiver).filter(|slot| slot.common.usable()) else {
                    return discard_burst(source, DropCause::NotReady);
                };
                let watched = is_watched(sinks, source, destination);
                let forwarded = if watched {
                    forward_watched(sinks, source, destination, MAX_BURST)
                } else {
                    forward(&mut source.queue, &mut destination.queue, MAX_BURST)
                };
                let forwarded = match forwarded {
                    Ok(forwarded) => forwarded,
                    Err(ForwardError::Source(error)) => {
                        source.common.fail(error);
                        return 0;
                    }
                    Err(ForwardError::Destination(error)) => {
                        destination.common.fail(error);
                        // What was harvested for it must not stay held: a worker that holds frames finds no others, and sleeps.
                        return discard_burst(source, DropCause::QueueBroken);
                    }
                };
                if forwarded.left > 0 {
                    source.queue.forget();
                }
                let frames = forwarded.frames as usize;
                let too_big = forwarded.too_big as usize;
                if frames + too_big == 0 {
                    return if forwarded.no_buffers { stall(source, destination, now, self.stall_ticks) } else { 0 };
                }
                source.stalled_since = 0;
                destination.queue.publish();
                source.queue.publish();
                source.common.dirty = true;
                destination.common.dirty = true;
                if let (Some(rx), Some(tx)) = (source.common.counters(), destination.common.counters()) {
                    rx.rx_packets.add((frames + too_big) as u64);
                    rx.rx_bytes.add(forwarded.bytes);
                    tx.tx_packets.add(frames as u64);
                    tx.tx_bytes.add(forwarded.bytes);
                }
                if forwarded.too_big > 0 && !watched {
                    // Who watches was told frame by frame.
                    destination.common.drop_frames(DropCause::TooBig, too_big, |_, _| Seen::default());
                }
                frames + too_big
            }
            // There is no copying from guest to guest here.
            Route::Uplink(_) => self.bridge(index, now),
            Route::Remote(worker) => self.hand_over_burst(index, peer, worker),
            Route::None => discard_burst(source, DropCause::NotReady),
        }
    }

    /// Copies one burst of transmit slot `index` into the ring towards `worker`.
    fn hand_over_burst(&mut self, index: usize, egress: PortId, worker: usize) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        let Some(sender) = self.path.outbound.get_mut(worker).and_then(Option::as_mut) else {
            return discard_burst(source, DropCause::NotReady);
        };
        let pair = source.common.id.pair;
        let sinks = &self.path.sinks;
        if !sinks.is_empty() && sinks.wants(source.common.port(), pair) {
            see_held(sinks, source, held);
        }
        let ports = Ports { ingress: source.common.port(), egress };
        let mut refused = 0;
        for i in 0..held {
            let length = source.queue.frame_len(i) as usize;
            let fill = |room: &mut [u8]| source.queue.read(i, 0, room);
            if let Err(cause) = sender.packet(Stage::Deliver, ports, pair, NetHeader::default(), length, fill) {
                source.common.drop_frames(cause, 1, |_, room| source.seen(i, room));
                refused += 1;
            }
        }
        source.count_received(held, source.held_bytes(held));
        source.finish(held);
        if let Some(counters) = self.path.counters.get(self.path.index) {
            counters.handed_over.add((held - refused) as u64);
        }
        held
    }
}

/// Whether somebody wants to see what goes over a wire, or which of it is dropped.
#[inline]
fn is_watched(sinks: &Sinks, source: &TxSlot, destination: &RxSlot) -> bool {
    destination.common.tap.is_some()
        || !sinks.is_empty() && sinks.wants(source.common.port(), source.common.id.pair)
        || destination.common.counters().is_some_and(PortCounters::is_traced)
}

/// The destination has no buffers: its source waits for a bounded time, so that a short hiccup costs no packet, and loses
/// its packets after that until the destination takes some again, so that a guest that stands still stalls nobody.
#[cold]
fn stall(source: &mut TxSlot, destination: &RxSlot, now: u64, limit: u64) -> usize {
    if source.stalled_since == 0 {
        source.stalled_since = now.max(1);
        return 0;
    }
    if now.wrapping_sub(source.stalled_since) < limit {
        return 0;
    }
    let held = source.harvest();
    destination.common.drop_frames(DropCause::NoBuffers, held, |i, room| source.seen(i, room));
    lose(source, held)
}

/// Takes one burst and loses it: there is nowhere to deliver it.
#[cold]
pub(super) fn discard_burst(source: &mut TxSlot, cause: DropCause) -> usize {
    let held = source.harvest();
    source.common.drop_frames(cause, held, |i, room| source.seen(i, room));
    lose(source, held)
}

/// Receives what is held and returns its buffers; the caller has counted the drop where it belongs.
fn lose(source: &mut TxSlot, held: usize) -> usize {
    if held > 0 {
        source.count_received(held, source.held_bytes(held));
        source.finish(held);
    }
    held
}
