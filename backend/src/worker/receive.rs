// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that arrive at an uplink become a burst.

use packet::{DropCause, WINDOW};
use switch::model::Direction;

use super::Worker;
use super::aggregate;
use super::bridge::Ingress;
use super::finish::offload_of;
use super::payload::Payload;
use super::uplink::UplinkRx;
use crate::sys::Received;

/// Where a VLAN tag stands: behind both addresses.
const TAG_AT: usize = 12;
const TAG: usize = 4;

impl Worker {
    /// Switches one burst of uplink `index`. Returns the frames that arrived.
    #[inline]
    pub(super) fn receive_uplink(&mut self, index: usize, now: u64) -> usize {
        let Some(UplinkRx { port, ring, counters }) = self.uplinks.get_mut(index) else { return 0 };
        let held = ring.harvest();
        if held == 0 {
            return 0;
        }
        let counters = counters.get(self.path.index);
        let burst = &mut self.path.burst;
        burst.clear();
        let mut payloads: [&[u8]; packet::MAX_BURST] = [&[]; packet::MAX_BURST];
        let (mut bytes, mut unfinished, mut oversized, mut lost) = (0, 0, 0, 0);
        for (i, payload) in payloads.iter_mut().enumerate().take(held) {
            let Some(Piece { len, offload, tag, body }) = Piece::of(&ring.frame(i)) else {
                lost += 1;
                continue;
            };
            bytes += u64::from(len);
            let offload = match offload {
                Ok(offload) => offload,
                Err(cause) => {
                    counters.iter().for_each(|counters| counters.drop_packets(cause, 1));
                    continue;
                }
            };
            oversized += u64::from(offload.segmentation.is_some());
            unfinished += u64::from(!offload.is_finished());
            let handle = u32::try_from(i).unwrap_or(0);
            let Some(window) = burst.push(*port, len, offload, handle) else { break };
            *payload = fill(window, tag.as_ref().map_or(&[], |tag| tag), body);
        }
        if let Some(counters) = counters {
            counters.rx_packets.add(held as u64);
            counters.rx_bytes.add(bytes);
            counters.unfinished.add(unfinished);
            counters.oversized.add(oversized);
            counters.drop_packets(DropCause::TooBig, lost);
        }
        aggregate::refuse(burst);
        let payload = Payload::Slices(&payloads);
        let ingress = Ingress { port: *port, pair: 0, payload, offloads: unfinished > 0, waits_since: None };
        self.path.run(&ingress, Direction::Out, self.clock.nanos_at(now));
        ring.release();
        held
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
