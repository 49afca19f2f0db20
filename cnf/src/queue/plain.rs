// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets as frames of their own. What a packet's sender left undone is done here: nobody behind a plain frame would.

use ::packet::checksum::complete_checksum;
use ::packet::{Offload, Segmenter};

use super::QueueCounters;
use crate::packet::Packet;
use crate::port::{Port, PortError};

/// The longest segment that is made.
const LONGEST: usize = 1 << 14;

/// Sends packets as they are, or finishes them first.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    scratch: Vec<u8>,
}

impl Plain {
    /// Stages a packet as one frame, or as the segments that it is to be cut into. False: there is no room, and nothing was
    /// taken.
    #[inline]
    pub(crate) fn send(
        &mut self,
        port: &mut Port,
        packet: &Packet<'_>,
        counters: &mut QueueCounters,
    ) -> Result<bool, PortError> {
        if packet.meta.offload != Offload::default() {
            return self.finish(port, packet, counters);
        }
        stage(port, packet.bytes, counters)
    }

    fn finish(
        &mut self,
        port: &mut Port,
        packet: &Packet<'_>,
        counters: &mut QueueCounters,
    ) -> Result<bool, PortError> {
        if packet.meta.offload.segmentation.is_some() {
            return self.cut(port, packet, counters);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(packet.bytes);
        if complete_checksum(&mut self.scratch, packet.meta.offload.checksum).is_err() {
            counters.unfinishable += 1;
            return Ok(true);
        }
        stage(port, &self.scratch, counters)
    }

    fn cut(&mut self, port: &mut Port, packet: &Packet<'_>, counters: &mut QueueCounters) -> Result<bool, PortError> {
        let Ok(mut segments) = Segmenter::new(packet.bytes, &packet.meta.offload) else {
            counters.unfinishable += 1;
            return Ok(true);
        };
        // All or nothing: half of it would be sent twice.
        if segments.remaining() > port.buffers() {
            counters.too_long += 1;
            return Ok(true);
        }
        if !port.has_room(segments.remaining())? {
            return Ok(false);
        }
        self.scratch.resize(LONGEST, 0);
        loop {
            match segments.next_into(&mut self.scratch) {
                Ok(Some(len)) => {
                    if !stage(port, self.scratch.get(..len).unwrap_or(&[]), counters)? {
                        return Ok(true);
                    }
                }
                Ok(None) => return Ok(true),
                Err(_) => {
                    counters.unfinishable += 1;
                    return Ok(true);
                }
            }
        }
    }
}

/// Stages a frame. One that no buffer holds is dropped and counted.
#[inline]
pub(crate) fn stage(port: &mut Port, frame: &[u8], counters: &mut QueueCounters) -> Result<bool, PortError> {
    if frame.len() > port.longest_frame() {
        counters.too_long += 1;
        return Ok(true);
    }
    let Some(token) = port.claim()? else { return Ok(false) };
    port.fill(token, 0, frame);
    port.stage(frame.len());
    Ok(true)
}
