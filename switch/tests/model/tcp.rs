// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be told from outside about a TCP connection: how long it is remembered, and whether a SYN takes its
//! place. Written from the words of `switch::flow::tcp`, not from its code.

use crate::wire::Segment;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The largest window there is.
const WINDOW: u32 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    SynSent,
    SynReceived,
    Midstream,
    Established,
    Closing,
    TimeWait,
    Reset,
}

/// What is known of what one end sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    seen: bool,
    /// The number behind the last byte.
    next: u32,
    /// Up to where the other end has confirmed.
    confirmed: u32,
    /// The number behind the FIN.
    fin: Option<u32>,
    fin_confirmed: bool,
    /// It confirmed something that the other end was seen to send.
    honest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) stage: Stage,
    /// The initiator, the responder.
    ends: [End; 2],
}

fn between(low: u32, number: u32, high: u32) -> bool {
    number.wrapping_sub(low) <= high.wrapping_sub(low)
}

fn not_behind(low: u32, high: u32) -> bool {
    high.wrapping_sub(low) < 1 << 31
}

impl Segment {
    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn end(&self) -> u32 {
        let phantom = u32::from(self.is(SYN)) + u32::from(self.is(FIN));
        self.seq.wrapping_add(self.len).wrapping_add(phantom)
    }

    /// Whether a connection can begin with it: a SYN, or an ACK picked up midstream.
    pub(crate) fn can_begin(&self) -> bool {
        !self.is(RST) && self.is(SYN) != self.is(ACK)
    }
}

impl Tcp {
    pub(crate) fn begin(first: &Segment) -> Self {
        let stage = if first.is(SYN) { Stage::SynSent } else { Stage::Midstream };
        let fin = first.is(FIN).then(|| first.end());
        let initiator = End { seen: true, next: first.end(), confirmed: first.seq, fin, ..End::default() };
        let expected = if first.is(ACK) { first.ack } else { 0 };
        Self { stage, ends: [initiator, End { next: expected, confirmed: expected, ..End::default() }] }
    }

    /// Whether a segment is a SYN for which this connection gives way. `side` is 0 for the initiator.
    pub(crate) fn gives_way(&self, side: usize, segment: &Segment) -> bool {
        if !segment.is(SYN) || segment.is(ACK) || segment.is(RST) {
            return false;
        }
        match self.stage {
            Stage::TimeWait | Stage::Reset | Stage::Midstream => true,
            // Another SYN than the one that was seen.
            Stage::SynSent => side == 0 && segment.seq != self.ends[0].confirmed,
            Stage::SynReceived | Stage::Established | Stage::Closing => false,
        }
    }

    /// Takes in a segment. What is not plausible leaves no trace.
    pub(crate) fn see(&mut self, side: usize, segment: &Segment) {
        let mut after = self.clone();
        if after.follow(side, segment) {
            *self = after;
        }
    }

    fn follow(&mut self, side: usize, segment: &Segment) -> bool {
        if segment.is(RST) {
            let believed = self.believes_reset(side, segment);
            self.stage = if believed { Stage::Reset } else { self.stage };
            return believed;
        }
        match self.stage {
            Stage::Reset => false,
            Stage::SynSent => self.answer(side, segment),
            Stage::Midstream => self.pick_up(side, segment),
            Stage::SynReceived | Stage::Established | Stage::Closing | Stage::TimeWait => self.go_on(side, segment),
        }
    }

    fn confirms_syn(&self, segment: &Segment) -> bool {
        segment.is(ACK) && between(self.ends[0].confirmed.wrapping_add(1), segment.ack, self.ends[0].next)
    }

    fn believes_reset(&self, side: usize, segment: &Segment) -> bool {
        let end = self.ends[side];
        match (self.stage, side) {
            (Stage::SynSent, 1) => self.confirms_syn(segment),
            (Stage::SynSent, _) => segment.seq == end.next,
            _ if !end.seen => segment.seq == end.confirmed,
            _ => between(end.confirmed, segment.seq, end.next),
        }
    }

    fn answer(&mut self, side: usize, segment: &Segment) -> bool {
        if side == 0 || !segment.is(SYN) || !self.confirms_syn(segment) {
            return false;
        }
        self.stage = Stage::SynReceived;
        self.ends[0].confirmed = segment.ack;
        self.ends[1] = End { seen: true, next: segment.end(), confirmed: segment.seq, ..End::default() };
        true
    }

    fn pick_up(&mut self, side: usize, segment: &Segment) -> bool {
        if segment.is(SYN) || !segment.is(ACK) {
            return false;
        }
        let end = &mut self.ends[side];
        if !end.seen {
            // What the other end waits for is about to be sent.
            if !between(segment.seq.wrapping_sub(WINDOW), end.next, segment.end()) {
                return false;
            }
            (end.seen, end.next) = (true, segment.seq);
        }
        let other = self.ends[1 - side];
        let honest = other.seen && between(other.confirmed, segment.ack, other.next);
        if !self.go_on(side, segment) {
            return false;
        }
        self.ends[side].honest |= honest;
        if self.ends.iter().all(|end| end.honest) {
            let closing = self.ends.iter().any(|end| end.fin.is_some());
            self.stage = if closing { Stage::Closing } else { Stage::Established };
        }
        true
    }

    fn go_on(&mut self, side: usize, segment: &Segment) -> bool {
        if segment.is(SYN) {
            return false;
        }
        let (mine, other) = (self.ends[side], self.ends[1 - side]);
        let far = |from: u32, to: u32| (from.wrapping_sub(WINDOW), to);
        let (oldest, newest) = far(other.confirmed, other.next);
        if !segment.is(ACK) || !between(oldest, segment.ack, newest) {
            return false;
        }
        let (oldest, newest) = far(mine.confirmed, mine.confirmed.wrapping_add(WINDOW));
        if !between(oldest, segment.end(), newest) {
            return false;
        }
        if segment.is(FIN) {
            match mine.fin {
                Some(fin) if fin != segment.end() => return false,
                None if !not_behind(mine.next, segment.end()) => return false,
                _ => self.ends[side].fin = Some(segment.end()),
            }
        }
        // The initiator confirms the SYN-ACK.
        let answered = between(other.confirmed.wrapping_add(1), segment.ack, other.next);
        if self.stage == Stage::SynReceived && side == 0 && answered {
            self.stage = Stage::Established;
        }
        if not_behind(mine.next, segment.end()) {
            self.ends[side].next = segment.end();
        }
        if not_behind(other.confirmed, segment.ack) {
            self.ends[1 - side].confirmed = segment.ack;
        }
        let other = &mut self.ends[1 - side];
        other.fin_confirmed |= other.fin.is_some_and(|fin| not_behind(fin, other.confirmed));
        // One step a segment.
        match self.stage {
            Stage::Established if self.ends.iter().any(|end| end.fin.is_some()) => self.stage = Stage::Closing,
            Stage::Closing if self.ends.iter().all(|end| end.fin_confirmed) => self.stage = Stage::TimeWait,
            _ => {}
        }
        true
    }
}
