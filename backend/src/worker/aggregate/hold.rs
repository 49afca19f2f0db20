// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When what was put together for a guest or a peer is sent, and what is counted of it.
//!
//! A frame knows itself how full it is. So where nothing is held, nothing is done for a packet: a frame is accounted for when it is
//! sent. Where packets may be held, each is looked at for whether it may wait, and the clock is read for each frame.

use aggregation::flush::{Knobs, Queue, Trigger};
use aggregation::{Format, Grant};

use crate::config::Aggregation;
use crate::counters::PortCounters;
use crate::sys::{Clock, cycles};

/// Lowest class of packets that may not wait: network control, as routing protocols have it (RFC 4594).
const URGENT_CLASS: u8 = 6;
/// TCP segments that open or end a connection.
const TCP_FIN_SYN_RST: u8 = 0x07;

/// What is to be sent when.
#[derive(Debug)]
pub(super) struct Hold {
    queue: Queue,
    /// Whether packets may be held at all.
    holds: bool,
    /// Whether a packet is in the frame that may not wait.
    is_urgent: bool,
    clock: Clock,
}

impl Hold {
    pub(super) fn new(format: &Format, port: &Aggregation) -> Self {
        Self::for_time(format, port.time_usecs)
    }

    /// Of frames whose packets wait for so many microseconds at most.
    pub(super) fn for_time(format: &Format, time_usecs: u32) -> Self {
        let knobs = Knobs {
            tx_aggr_max_bytes: format.max_bytes,
            tx_aggr_max_frames: format.max_packets,
            tx_aggr_time_usecs: time_usecs,
        };
        Self { queue: Queue::new(knobs), holds: time_usecs > 0, is_urgent: false, clock: Clock::get() }
    }

    /// A packet joins the frame.
    #[inline]
    pub(super) fn note(&mut self, head: &[u8], class: u8) {
        if self.holds {
            self.is_urgent |= class >= URGENT_CLASS || opens_or_ends(head);
        }
    }

    /// A group joins the frame that is not looked into.
    #[inline]
    pub(super) fn note_group(&mut self, class: u8) {
        self.is_urgent |= self.holds && class >= URGENT_CLASS;
    }

    /// Whether the frame may not wait for the end of the turn.
    #[inline]
    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The turn ends: whether a frame with so many packets, which holds something, is to be sent.
    pub(super) fn turn(&mut self, packets: u32, bytes: usize) -> Option<Trigger> {
        if !self.holds {
            return Some(Trigger::Burst);
        }
        let now = self.now();
        self.account(packets, bytes, now);
        // Groups without a packet, which nothing is expected to join: no clock runs for them.
        if self.queue.is_empty() { Some(Trigger::Burst) } else { self.queue.turn(now) }
    }

    /// Until when it is held, by the worker's clock.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.queue.deadline()
    }

    /// A frame with so many packets was sent, or, with no `counters`, was lost.
    pub(super) fn flushed(&mut self, packets: u32, bytes: usize, trigger: Trigger, counters: Option<&PortCounters>) {
        self.is_urgent = false;
        let mut held = 0;
        if self.holds {
            let now = self.now();
            self.account(packets, bytes, now);
            if !self.queue.is_empty() {
                held = now.saturating_sub(self.queue.first_at());
            }
            match counters {
                Some(_) => self.queue.flushed(trigger, now),
                None => self.queue.lost(),
            }
        }
        if let Some(counters) = counters {
            counters.flushed(trigger, packets, held);
        }
    }

    /// Tells the queue what has come since it was told last.
    fn account(&mut self, packets: u32, bytes: usize, now: u64) {
        let (new, more) = (packets.saturating_sub(self.queue.frames()), bytes.saturating_sub(self.queue.bytes()));
        if new > 0 {
            self.queue.push_all(new, more, now);
        }
    }

    fn now(&self) -> u64 {
        self.clock.nanos_at(cycles())
    }
}

/// What an aggregate of a stage to a peer may be like that takes so much, at a port with these settings.
pub(super) fn format_of(grant: &Grant, stage: u8, port: &Aggregation) -> Format {
    let most = |knob: Option<u32>| knob.and_then(|knob| usize::try_from(knob).ok()).unwrap_or(usize::MAX);
    Format {
        max_bytes: grant.max_bytes.min(most(port.max_bytes)),
        max_packets: u32::from(grant.max_packets.min(port.max_frames.unwrap_or(u16::MAX))),
        stage,
        check: false,
        group_crc: false,
        template: false,
    }
}

/// Whether a frame is a TCP segment with SYN, FIN or RST. Fragments and what is behind tags or extension headers is not looked at.
fn opens_or_ends(head: &[u8]) -> bool {
    let flags = match (head.get(12..14), head.get(14)) {
        (Some([8, 0]), Some(first)) if head.get(23) == Some(&6) => {
            let is_first =
                head.get(20..22).is_some_and(|at| at.first().is_some_and(|b| b & 0x1f == 0) && at.last() == Some(&0));
            is_first.then(|| 14 + usize::from(first & 0xf) * 4 + 13)
        }
        (Some([0x86, 0xdd]), _) if head.get(20) == Some(&6) => Some(14 + 40 + 13),
        _ => None,
    };
    flags.and_then(|at| head.get(at)).is_some_and(|flags| flags & TCP_FIN_SYN_RST != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp4(options: usize, fragment: u16, flags: u8) -> Vec<u8> {
        let ihl = u8::try_from(5 + options).unwrap();
        let mut frame = [&[2; 12][..], &[8, 0, 0x40 | ihl, 0, 0, 0, 0, 0]].concat();
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, 6]);
        frame.extend(vec![0; 10 + options * 4 + 13]);
        frame.push(flags);
        frame
    }

    fn tcp6(flags: u8) -> Vec<u8> {
        let mut frame = [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]].concat();
        frame.extend(vec![0; 32 + 13]);
        frame.push(flags);
        frame
    }

    #[test]
    fn what_opens_or_ends_a_connection_may_not_wait() {
        for (flags, urgent) in [(0x02, true), (0x12, true), (0x11, true), (0x04, true), (0x10, false), (0x18, false)] {
            for frame in [tcp4(0, 0, flags), tcp4(10, 0x4000, flags), tcp6(flags)] {
                assert_eq!(opens_or_ends(&frame), urgent, "{flags:x}");
                assert!((0..frame.len()).all(|len| !opens_or_ends(&frame[..len])), "nothing is read beyond the end");
            }
            assert!(!opens_or_ends(&tcp4(0, 1, flags)), "a later fragment has no flags");
            assert!(!opens_or_ends(&tcp4(0, 0x0100, flags)), "nor has this one");
        }
        let mut udp = tcp4(0, 0, 0xff);
        udp[23] = 17;
        assert!(!opens_or_ends(&udp));
    }

    #[test]
    fn a_frame_is_no_more_than_peer_and_port_allow() {
        // Decision 27.
        let grant = Grant {
            version: 1,
            encapsulations: 1,
            align_log2: 2,
            max_bytes: 9000,
            max_packets: 100,
            features: aggregation::Features::default(),
            keepalive: 1_000_000_000,
        };
        let port = Aggregation::of(crate::config::PortKind::VhostUser);
        let of = |port: Aggregation| {
            let format = format_of(&grant, 2, &port);
            (format.max_bytes, format.max_packets)
        };
        assert_eq!(of(port), (9000, 100));
        assert_eq!(of(Aggregation { max_bytes: Some(1500), max_frames: Some(20), ..port }), (1500, 20));
        assert_eq!(of(Aggregation { max_bytes: Some(65_535), max_frames: Some(101), ..port }), (9000, 100));
    }

    #[test]
    fn nothing_is_held_unless_the_port_says_so() {
        let port = Aggregation::of(crate::config::PortKind::VhostUser);
        let format =
            Format { max_bytes: 1500, max_packets: 64, stage: 2, check: false, group_crc: false, template: false };
        let counters = PortCounters::default();
        let mut hold = Hold::new(&format, &port);
        hold.note(&tcp4(0, 0, 2), 7);
        assert!(!hold.is_urgent(), "nothing waits anyhow");
        assert_eq!((hold.turn(1, 64), hold.deadline()), (Some(Trigger::Burst), None));
        hold.flushed(1, 64, Trigger::Burst, Some(&counters));
        // With a time it is held once another is promised in it.
        let mut hold = Hold::new(&format, &Aggregation { time_usecs: 100_000, ..port });
        assert_eq!(hold.turn(1, 64), Some(Trigger::Burst), "nothing is known yet");
        hold.flushed(1, 64, Trigger::Burst, Some(&counters));
        assert_eq!(hold.turn(1, 64), None, "one came just before");
        assert!(hold.deadline().is_some());
        hold.note(&tcp4(0, 0, 0x10), 5);
        assert!(!hold.is_urgent());
        hold.note(&tcp6(0x04), 0);
        assert!(hold.is_urgent());
        hold.flushed(3, 200, Trigger::Urgent, Some(&counters));
        assert!(!hold.is_urgent() && hold.deadline().is_none());
        let triggers: Vec<_> = counters.triggers().filter(|(_, n)| *n > 0).collect();
        assert_eq!(triggers, [("burst", 2), ("urgent", 1)]);
        hold.note(&tcp4(0, 0, 0x10), 6);
        assert!(hold.is_urgent(), "class 6");
        hold.flushed(1, 64, Trigger::Urgent, None);
        assert_eq!(counters.triggers().map(|(_, n)| n).sum::<u64>(), 3, "what was lost was not sent");
    }

    /// Groups may have no packets (docs/aggregate-frame.md, 5); what they are in is sent, and nobody has waited.
    #[test]
    fn a_frame_without_packets_is_not_held() {
        let port = Aggregation { time_usecs: 100_000, ..Aggregation::of(crate::config::PortKind::VhostUser) };
        let format =
            Format { max_bytes: 1500, max_packets: 64, stage: 2, check: false, group_crc: false, template: false };
        let counters = PortCounters::default();
        let mut hold = Hold::new(&format, &port);
        for _ in 0..3 {
            hold.note_group(0);
            assert_eq!((hold.turn(0, 16), hold.deadline()), (Some(Trigger::Burst), None));
            hold.flushed(0, 16, Trigger::Burst, Some(&counters));
        }
        assert_eq!(counters.held_ns.get().0, 0);
        // Nor if packets are expected.
        for trigger in [Some(Trigger::Burst), None] {
            assert_eq!(hold.turn(1, 64), trigger);
            hold.flushed(1, 64, Trigger::Burst, None);
        }
        assert_eq!(hold.turn(0, 16), Some(Trigger::Burst));
    }
}
