// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that arrive at an uplink become a burst.

use std::ops::Range;

use packet::{Burst, DropCause, PortId, Verdict, WINDOW};

use super::Worker;
use super::aggregate::{self, Tools};
use super::bridge::{Ingress, Path};
use super::finish::{offload_of, pieces};
use super::payload::Payload;
use super::uplink::UplinkRx;
use crate::counters::PortCounters;
use crate::link::LinkRx;
use crate::sys::Received;

/// Packets after which an uplink's turn ends, though it may hold more frames: as many as of a guest's queue. An oversized one counts
/// as those that it may have to be cut into.
const ENOUGH: usize = 256;

/// Where a VLAN tag stands: behind both addresses.
const TAG_AT: usize = 12;
const TAG: usize = 4;

impl Worker {
    /// Switches one burst of uplink `index`. Returns the packets that arrived, at least one for each frame.
    #[inline]
    pub(super) fn receive_uplink(&mut self, index: usize, now: u64) -> usize {
        let Some(uplink) = self.uplinks.get_mut(index) else { return 0 };
        let held = uplink.hold();
        if held.is_empty() {
            return 0;
        }
        let UplinkRx { port, ring, counters, .. } = uplink;
        let counters = counters.get(self.path.index);
        let now_ns = self.clock.nanos_at(now);
        let own = self.path.uplinks.iter().position(|uplink| uplink.port == *port && uplink.wire.is_some());
        let mut plain = Plain::new(*port, counters);
        let Some(own) = own else {
            let Range { start, end } = held;
            let (frames, _) = plain.load(ring, held, &mut self.path.burst, ENOUGH);
            plain.run(&mut self.path, now_ns);
            uplink.leave(start + frames..end);
            return frames;
        };
        // Plain frames between aggregates keep their places.
        let is_aggregate = |frame: &Received<'_>| {
            let kind = frame.bytes.and_then(|bytes| bytes.get(TAG_AT..)).and_then(|kind| kind.first_chunk::<2>());
            frame.vlan.is_none() && kind == Some(&aggregate::ETHER_TYPE.0.to_be_bytes())
        };
        let (mut at, mut packets, mut work) = (held.start, 0, 0);
        while at < held.end && work < ENOUGH {
            let frame = ring.frame(at);
            if is_aggregate(&frame) {
                let Self { reader, ranges, hope, path, .. } = self;
                let mut tools = Tools { reader, ranges, hope, counters, now_ns };
                let arrived = path.arrive(own, frame.bytes.unwrap_or_default(), &mut tools);
                if let Some(counters) = counters {
                    counters.rx_packets.add(arrived.packets as u64);
                    counters.rx_bytes.add(arrived.bytes);
                }
                path.spread_news(own, now_ns);
                packets += arrived.packets.max(1);
                work += arrived.work.max(1);
                at += 1;
                continue;
            }
            let end = (at..held.end).find(|at| is_aggregate(&ring.frame(*at))).unwrap_or(held.end);
            let (frames, more) = plain.load(ring, at..end, &mut self.path.burst, ENOUGH - work);
            packets += frames;
            work += more;
            self.path.hear_plain(own, now_ns);
            plain.run(&mut self.path, now_ns);
            at += frames;
        }
        if let Some(uplink) = self.uplinks.get_mut(index) {
            uplink.leave(at..held.end);
        }
        packets
    }
}

/// Plain frames of a link's ring, on their way into a burst.
struct Plain<'a> {
    port: PortId,
    counters: Option<&'a PortCounters>,
    payloads: [&'a [u8]; packet::MAX_BURST],
    offloads: bool,
}

impl<'a> Plain<'a> {
    const fn new(port: PortId, counters: Option<&'a PortCounters>) -> Self {
        Self { port, counters, payloads: [&[]; packet::MAX_BURST], offloads: false }
    }

    /// Makes the burst some of the held frames, and counts them: so many that there is `most` work in them, if there are. Returns how many
    /// there were, and the work.
    #[inline]
    fn load(&mut self, ring: &'a LinkRx, places: Range<usize>, burst: &mut Burst, most: usize) -> (usize, usize) {
        burst.clear();
        let (mut bytes, mut unfinished, mut oversized, mut lost) = (0, 0, 0, 0);
        let (mut held, mut work) = (0, 0);
        for (i, (at, payload)) in places.zip(&mut self.payloads).enumerate() {
            if work >= most {
                break;
            }
            (held, work) = (held + 1, work + 1);
            let Some(Piece { len, offload, tag, body }) = Piece::of(&ring.frame(at)) else {
                lost += 1;
                continue;
            };
            bytes += u64::from(len);
            let offload = match offload {
                Ok(offload) => offload,
                Err(cause) => {
                    self.counters.iter().for_each(|counters| counters.drop_frame(cause, body, body.len()));
                    continue;
                }
            };
            oversized += u64::from(offload.segmentation.is_some());
            work += pieces(offload, len as usize).saturating_sub(1);
            unfinished += u64::from(!offload.is_finished());
            let handle = u32::try_from(i).unwrap_or(0);
            let Some(window) = burst.push(self.port, len, offload, handle) else { break };
            *payload = fill(window, tag.as_ref().map_or(&[], |tag| tag), body);
            if offload.check_place(window).is_err() {
                burst.set_verdict(burst.len() - 1, Verdict::Drop(DropCause::BadOffload));
            }
        }
        if let Some(counters) = self.counters {
            counters.rx_packets.add(held as u64);
            counters.rx_bytes.add(bytes);
            counters.unfinished.add(unfinished);
            counters.oversized.add(oversized);
            counters.drop_packets(DropCause::TooBig, lost);
        }
        self.offloads = unfinished > 0;
        (held, work)
    }

    /// Switches the burst.
    #[inline]
    fn run(&self, path: &mut Path, now_ns: u64) {
        aggregate::refuse(&mut path.burst);
        let payload = Payload::Slices(&self.payloads);
        let ingress = Ingress { port: self.port, pair: 0, payload, offloads: self.offloads, waits_since: None };
        path.enter(&ingress, now_ns);
    }
}

/// A received frame, as a burst takes it.
struct Piece<'a> {
    /// With the tag.
    len: u32,
    offload: Result<packet::Offload, DropCause>,
    tag: Option<[u8; TAG]>,
    /// The frame without the tag.
    body: &'a [u8],
}

impl<'a> Piece<'a> {
    /// `None`: not all of the frame is there.
    fn of(frame: &Received<'a>) -> Option<Self> {
        let body = frame.bytes?;
        let tag = frame.vlan.filter(|_| body.len() >= TAG_AT);
        let shift = if tag.is_some() { TAG } else { 0 };
        let len = u32::try_from(body.len() + shift).ok()?;
        let offload = offload_of(frame.header, u16::try_from(shift).ok()?, len);
        Some(Self { len, offload, tag, body })
    }
}

/// Fills the window of a frame, with its VLAN tag where it belongs. Returns what lies beyond.
fn fill<'a>(window: &mut [u8], tag: &[u8], body: &'a [u8]) -> &'a [u8] {
    debug_assert!(window.len() <= WINDOW);
    let in_window = (window.len() - tag.len().min(window.len())).min(body.len());
    let (head, beyond) = body.split_at(in_window);
    if tag.is_empty() {
        window.copy_from_slice(head);
        return beyond;
    }
    let (addresses, rest) = head.split_at(TAG_AT.min(head.len()));
    for (to, from) in window.iter_mut().zip(addresses.iter().chain(tag).chain(rest)) {
        *to = *from;
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_behind_the_addresses_whatever_the_length() {
        let body: Vec<u8> = (0..600u16).map(|n| n.to_le_bytes()[0]).collect();
        let tag = [0x81, 0x00, 0x00, 0x64];
        for len in [12, 13, 60, 251, 252, 253, 256, 257, 600] {
            let body = &body[..len];
            for tag in [&[][..], &tag] {
                let whole = [&body[..12], tag, &body[12..]].concat();
                let mut window = vec![0xee; whole.len().min(WINDOW)];
                let beyond = fill(&mut window, tag, body);
                assert_eq!([&window, beyond].concat(), whole, "{len} bytes, {} of tag", tag.len());
            }
        }
    }
}
