// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets that are put together in frames.
//!
//! Theory of operation. Packets wait in one open frame, in private memory, until a flush, or until the frame is full. One
//! that does not belong into a frame goes as a plain one, after those that wait: a queue is first in, first out. A frame
//! is closed by one copy into a transmit buffer; if none is free, it stays open, and the packet that would have needed it
//! closed is not taken. When the terms end, what waits is taken apart again and sent plain, before anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use aggregation::negotiation::{Features, Grant};
use aggregation::wire::{ETHERNET, MAX_FRAME, SUBFRAME_HEADER, padded};
use aggregation::{
    Format, GroupKey, Item, Knobs, Limits, Meta as Extensions, Queue as Waiting, Reader, Trigger, Writer,
};

use super::speaker::ethernet;
use super::{Aggregation, extensions};
use crate::packet::Packet;
use crate::port::{Port, PortError};
use crate::queue::{Plain, QueueCounters};

/// Who writes: a CNF.
const STAGE: u8 = 1;
/// What the shortest packet takes up.
const LEAST: usize = SUBFRAME_HEADER + padded(ETHERNET);
/// Bytes of a frame's headers before its first packet, with all that can be there.
const FRONT: usize = 12 + 12 + 8 + 16;

/// Puts packets together.
#[derive(Debug)]
pub(crate) struct Packer {
    config: Aggregation,
    key: GroupKey,
    header: [u8; ETHERNET],
    /// Numbers of the link's aggregates; its queues share them.
    numbers: Arc<AtomicU16>,
    writer: Writer,
    waiting: Waiting,
    /// What the receiver takes, while there are terms.
    features: Option<Features>,
    format: Format,
    /// A frame that was open when its terms ended, and how many of its packets have been sent plain.
    leftover: Vec<u8>,
    taken_apart: u32,
    reader: Reader,
    scratch: Vec<u8>,
}

/// What a packer sends through, and what it writes down there.
pub(crate) struct Outlet<'a> {
    pub(crate) port: &'a mut Port,
    pub(crate) plain: &'a mut Plain,
    pub(crate) counters: &'a mut QueueCounters,
    /// The clock's nanoseconds.
    pub(crate) now: u64,
}

impl Packer {
    pub(crate) fn new(config: &Aggregation, numbers: Arc<AtomicU16>) -> Self {
        let format =
            Format { max_bytes: 0, max_packets: 0, stage: STAGE, check: false, group_crc: false, template: false };
        Self {
            key: GroupKey { origin: config.node, destination: 0, class: 0 },
            header: ethernet(config),
            config: config.clone(),
            numbers,
            writer: Writer::new(config.tx_aggr_max_bytes.min(MAX_FRAME), ETHERNET),
            waiting: Waiting::new(Knobs::natural(0, 1)),
            features: None,
            format,
            leftover: Vec::new(),
            taken_apart: 0,
            reader: Reader::default(),
            scratch: Vec::new(),
        }
    }

    /// Other terms from now on; frames have `room` bytes. What waits goes first, and plain.
    pub(crate) fn set_terms(&mut self, grant: Option<&Grant>, room: usize) {
        if !self.waiting.is_empty() {
            // At most one can be left over: nothing is put together before it is gone.
            self.leftover.clear();
            self.leftover.extend_from_slice(self.writer.finish(0));
            self.waiting.lost();
        }
        self.features = None;
        let Some(grant) = grant else { return };
        let max_bytes = grant.max_bytes.min(room.saturating_sub(ETHERNET)).min(self.config.tx_aggr_max_bytes);
        // Too little for two of the shortest packets is not worth it.
        if max_bytes < FRONT + 2 * LEAST {
            return;
        }
        let max_packets = self.config.tx_aggr_max_frames.min(u32::from(grant.max_packets)).max(1);
        self.format = Format { max_bytes, max_packets, ..grant.format(STAGE) };
        self.features = Some(grant.features);
        self.waiting.set_knobs(Knobs {
            tx_aggr_max_bytes: max_bytes.saturating_sub(FRONT),
            tx_aggr_max_frames: self.format.max_packets,
            tx_aggr_time_usecs: self.config.tx_aggr_time_usecs,
        });
    }

    /// Whether packets go this way: there are terms, or something is left over from others.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.features.is_some() || !self.leftover.is_empty()
    }

    /// When what waits is to be flushed, in the clock's nanoseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.waiting.deadline()
    }

    /// Takes a packet. False: there is no room, and it was not taken.
    pub(crate) fn send(&mut self, packet: &Packet<'_>, outlet: &mut Outlet<'_>) -> Result<bool, PortError> {
        if !self.take_apart(outlet)? {
            return Ok(false);
        }
        let Some(features) = self.features else { return outlet.plain(packet) };
        let Some(extensions) = extensions::to_frame(&packet.meta, features) else {
            return self.after(Trigger::Order, packet, outlet);
        };
        let bytes = SUBFRAME_HEADER + extensions.ext_len() + padded(packet.bytes.len());
        match self.waiting.before(bytes) {
            Some(Trigger::Larger) => return self.after(Trigger::Larger, packet, outlet),
            Some(trigger) if !self.close(trigger, outlet)? => return Ok(false),
            _ => {}
        }
        if !self.push(packet, &extensions) {
            // There are more packets in the frame than it may have, or it is no frame at all.
            if !self.close(Trigger::Frames, outlet)? {
                return Ok(false);
            }
            if !self.push(packet, &extensions) {
                return outlet.plain(packet);
            }
        }
        let urgent = self.config.tx_aggr_time_usecs > 0 && is_urgent(packet.bytes);
        if let Some(trigger) = self.waiting.push(bytes, urgent, LEAST, outlet.now) {
            // If there is no room for it now, there will be when the next one comes.
            self.close(trigger, outlet)?;
        }
        Ok(true)
    }

    /// A burst has ended: sends what waits, unless it is to wait longer.
    pub(crate) fn turn(&mut self, outlet: &mut Outlet<'_>) -> Result<(), PortError> {
        if self.take_apart(outlet)?
            && let Some(trigger) = self.waiting.turn(outlet.now)
        {
            self.close(trigger, outlet)?;
        }
        Ok(())
    }

    fn push(&mut self, packet: &Packet<'_>, extensions: &Extensions) -> bool {
        if self.waiting.is_empty() {
            self.writer.begin(&self.format);
        }
        self.writer.push(self.key, packet.bytes, 0, |_| {}, extensions)
    }

    /// Sends a packet as a plain frame, after those that wait.
    fn after(&mut self, trigger: Trigger, packet: &Packet<'_>, outlet: &mut Outlet<'_>) -> Result<bool, PortError> {
        Ok(self.close(trigger, outlet)? && outlet.plain(packet)?)
    }

    /// Sends what waits. False: there is no room.
    fn close(&mut self, trigger: Trigger, outlet: &mut Outlet<'_>) -> Result<bool, PortError> {
        if self.waiting.is_empty() {
            return Ok(true);
        }
        let Some(token) = outlet.port.claim()? else { return Ok(false) };
        if let Some(packet) = self.writer.single() {
            outlet.port.fill(token, 0, packet);
            outlet.port.stage(packet.len());
        } else {
            outlet.counters.aggregates_sent += 1;
            outlet.counters.packets_packed += u64::from(self.writer.packets());
            let frame = self.writer.finish_with_room(self.numbers.fetch_add(1, Relaxed));
            if let Some(front) = frame.first_chunk_mut() {
                *front = self.header;
            }
            outlet.port.fill(token, 0, frame);
            outlet.port.stage(frame.len());
        }
        self.waiting.flushed(trigger, outlet.now);
        Ok(true)
    }

    /// Sends the packets of a frame plain whose terms have ended. False: there is no room for all.
    fn take_apart(&mut self, outlet: &mut Outlet<'_>) -> Result<bool, PortError> {
        if self.leftover.is_empty() {
            return Ok(true);
        }
        let frame = &self.leftover;
        let mut number = 0;
        // It is a frame of our own.
        if self.reader.begin(frame, 0, &Limits::NONE).is_ok() {
            while let Some(item) = self.reader.next(frame) {
                let Item::Packet(packet) = item else { continue };
                number += 1;
                if number <= self.taken_apart {
                    continue;
                }
                let rest = (packet.len as usize).saturating_sub(packet.head.len());
                self.scratch.clear();
                self.scratch.extend_from_slice(packet.head);
                self.scratch.extend(frame.iter().skip(packet.rest_at).take(rest));
                let packet = Packet { bytes: &self.scratch, meta: extensions::from_frame(&packet.meta) };
                if !outlet.plain(&packet)? {
                    return Ok(false);
                }
                self.taken_apart = number;
            }
        }
        self.leftover.clear();
        self.taken_apart = 0;
        Ok(true)
    }
}

impl Outlet<'_> {
    fn plain(&mut self, packet: &Packet<'_>) -> Result<bool, PortError> {
        self.plain.send(self.port, packet, self.counters)
    }
}

/// Whether a packet opens or ends a TCP connection: those are not to wait for others.
fn is_urgent(frame: &[u8]) -> bool {
    const SYN_FIN_RST: u8 = 0x02 | 0x01 | 0x04;
    let word = |at: usize| frame.get(at..).and_then(|bytes| bytes.first_chunk()).map(|two| u16::from_be_bytes(*two));
    let l3 = if matches!(word(12), Some(0x8100 | 0x88a8)) { 18 } else { 14 };
    let byte = |at: usize| frame.get(at).copied().unwrap_or(0);
    let l4 = match word(l3 - 2) {
        Some(0x0800) if byte(l3 + 9) == 6 => l3 + usize::from(byte(l3) & 15) * 4,
        Some(0x86dd) if byte(l3 + 6) == 6 => l3 + 40,
        _ => return false,
    };
    byte(l4 + 13) & SYN_FIN_RST != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_and_closing_segments_are_urgent() {
        let segment = |tagged: bool, v6: bool, flags: u8| {
            let mut frame = vec![2; 12];
            if tagged {
                frame.extend([0x81, 0, 0, 5]);
            }
            if v6 {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64].into_iter().chain([0; 32]));
            } else {
                frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0].into_iter().chain([0; 8]));
            }
            frame.extend([0; 13].into_iter().chain([flags]).chain([0; 6]));
            frame
        };
        for (tagged, v6) in [(false, false), (true, false), (false, true), (true, true)] {
            for flags in [0x02, 0x12, 0x11, 0x04] {
                assert!(is_urgent(&segment(tagged, v6, flags)), "{tagged} {v6} {flags:#x}");
            }
            assert!(!is_urgent(&segment(tagged, v6, 0x10)));
            let whole = segment(tagged, v6, 0x02);
            (0..whole.len() - 7).for_each(|len| assert!(!is_urgent(&whole[..len])));
        }
        assert!(!is_urgent(&[0xff; 60]));
    }
}
