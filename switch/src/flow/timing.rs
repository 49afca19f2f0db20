// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Round trips and congestion marks of a TCP connection that passes by (VF-22).
//!
//! A side's round trip is from here to the other side and back: from a segment of it to the first
//! acknowledgement of all of that segment. One segment is timed at once, of whichever side sends next; what may have been
//! sent again is not timed (Karn), because nobody knows which one is acknowledged.

use super::tcp::{ACK, Segment, Side};

/// What was measured of a connection, the initiator's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Of the segment that is timed the number behind it.
    end: u32,
    /// When it was seen, in microseconds, round and round; in place of the lowest bit, whose it is. 0: none is timed.
    at_us: u32,
    /// The smoothed round trip in microseconds (RFC 6298); 0: none was measured.
    smoothed_us: [u32; 2],
    /// Packets that were marked as having met congestion.
    marked: [u32; 2],
}

impl Timing {
    /// Takes in a believed segment of a side. `again`: it was seen before.
    #[inline]
    pub(crate) fn observe(&mut self, side: Side, segment: Segment, again: bool, marked: bool, now_us: u32) {
        if marked {
            let count = of(&mut self.marked, side);
            *count = count.saturating_add(1);
        }
        let is_own = self.at_us & 1 == side as u32;
        if self.at_us != 0 {
            if is_own && again {
                self.at_us = 0;
            } else if !is_own && segment.flags & ACK != 0 && segment.ack.wrapping_sub(self.end) < 1 << 31 {
                let sample = now_us.wrapping_sub(self.at_us).clamp(1, MAX_SAMPLE_US);
                let smoothed = of(&mut self.smoothed_us, side.other());
                *smoothed = match *smoothed {
                    0 => sample,
                    old => (old - old / 8 + sample / 8).max(1),
                };
                self.at_us = 0;
            }
        }
        if self.at_us == 0 && !again && segment.end() != segment.seq {
            let at_us = now_us & !1;
            // 0 is no time.
            self.at_us = if at_us == 0 { 2 } else { at_us } | side as u32;
            self.end = segment.end();
        }
    }

    /// The smoothed round trip of each side, in microseconds.
    pub(crate) fn smoothed_us(&self) -> [Option<u32>; 2] {
        self.smoothed_us.map(|us| (us != 0).then_some(us))
    }

    /// Packets of each side that had met congestion.
    pub(crate) const fn marked(&self) -> [u32; 2] {
        self.marked
    }
}

const fn of(both: &mut [u32; 2], side: Side) -> &mut u32 {
    let [initiator, responder] = both;
    match side {
        Side::Initiator => initiator,
        Side::Responder => responder,
    }
}

/// An hour: longer than any connection waits.
const MAX_SAMPLE_US: u32 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tcp::SYN;

    #[test]
    fn round_trips_are_timed_in_either_direction() {
        // VF-22, on a clock that goes round in the middle.
        let mut timing = Timing::default();
        let start = u32::MAX - 500;
        let mut observe = |side, flags, seq, ack, len, again, us: u32| {
            timing.observe(side, Segment { flags, seq, ack, len }, again, false, start.wrapping_add(us));
            timing.smoothed_us()
        };
        assert_eq!(observe(Side::Initiator, SYN, 9, 0, 0, false, 0), [None, None]);
        let close = |found: Option<u32>, us: u32| found.is_some_and(|found| found.abs_diff(us) <= 1);
        assert!(close(observe(Side::Responder, SYN | ACK, 99, 10, 0, false, 800)[0], 800));
        assert!(close(observe(Side::Initiator, ACK, 10, 100, 0, false, 1000)[1], 200));
        // Acknowledging a part of it is not enough; an eighth of each new sample counts.
        observe(Side::Initiator, ACK, 10, 100, 50, false, 2000);
        assert!(close(observe(Side::Responder, ACK, 100, 40, 0, false, 2100)[0], 800));
        assert!(close(observe(Side::Responder, ACK, 100, 60, 0, false, 3600)[0], 900));
        // What was sent again is not timed.
        observe(Side::Initiator, ACK, 60, 100, 50, false, 4000);
        observe(Side::Initiator, ACK, 60, 100, 50, true, 5000);
        assert!(close(observe(Side::Responder, ACK, 100, 110, 0, false, 9000)[0], 900));
    }

    #[test]
    fn marks_are_counted_by_side() {
        let mut timing = Timing::default();
        for (side, marked) in [(Side::Initiator, true), (Side::Responder, false), (Side::Responder, true)] {
            timing.observe(side, Segment { flags: ACK, ..Segment::default() }, false, marked, 7);
        }
        assert_eq!((timing.marked(), timing.smoothed_us()), ([1, 1], [None, None]));
    }
}
