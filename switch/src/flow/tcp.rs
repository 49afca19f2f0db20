// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of a TCP connection that passes by (VF-22).
//!
//! # Theory of operation
//!
//! Both directions are watched, and believed only as far as they confirm each other: a connection is
//! *established* when a SYN, a SYN-ACK that acknowledges it and an ACK of that were seen, with the right
//! numbers; until then it can be had for one forged packet each. A connection that was there before the
//! switch (*mid-stream*) becomes established when each side acknowledged something the other side really
//! sent. A RST counts only if its number is one that the other side may be waiting for; one that does not
//! is passed on and changes nothing here. When both FINs are acknowledged the connection waits out
//! its TIME_WAIT, so that whoever translated its ports knows when they may be used again.
//!
//! Nothing is dropped here: packets that fit nothing are told to the caller, who has the policy.

/// Which end sent a segment: the one that opened the connection, as far as that is known, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sent the first packet that was seen.
    Initiator = 0,
    /// The other one.
    Responder = 1,
}

/// What of a segment matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The flags byte of the TCP header.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means nothing without [`ACK`].
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
}

/// Flag bits (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Ends it at once.
pub const RST: u8 = 0x04;
/// The acknowledgement number means something.
pub const ACK: u8 = 0x10;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// A SYN was seen.
    SynSent,
    /// A SYN-ACK that answers it was seen.
    SynReceived,
    /// Neither was seen, but packets of an open connection: nothing is proven yet.
    Midstream,
    /// Both sides have confirmed each other's numbers.
    Established,
    /// One side has sent its FIN, or both have, and not all of them are acknowledged.
    Closing,
    /// Both FINs are acknowledged.
    TimeWait,
    /// Reset by one side.
    Reset,
}

/// What a segment meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing new.
    Unchanged,
    /// The connection came to another state.
    Became(State),
    /// A SYN for a connection that is over: a new one of the same ends begins. The caller forgets this
    /// one and tracks the segment anew.
    Reopened,
    /// It fits nothing that this connection may carry: a SYN-ACK that answers no SYN, an acknowledgement of
    /// what was never sent, a RST out of window.
    Implausible,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    state: State,
    /// Whether each side sent its FIN, and whether that was acknowledged.
    fins: Sides,
    /// Whether of each side a segment was seen, and, in a connection picked up midstream, whether that side acknowledged
    /// what the other really sent.
    known: Sides,
    /// The number behind each side's FIN, if it was sent.
    fin_end: [u32; 2],
    /// The number behind the last that each side sent.
    next: [u32; 2],
    /// The highest of its numbers that the other side acknowledged.
    acked: [u32; 2],
    /// Segments of each side that had been seen before.
    retransmits: [u32; 2],
}

/// Two facts about each side: a bit of the first by [`Side`], and above both, one of the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sides(u8);

impl Sides {
    const fn first(self) -> u8 {
        self.0 & BOTH
    }

    const fn second(self) -> u8 {
        self.0 >> 2
    }

    const fn has_first(self, side: Side) -> bool {
        self.first() & side.bit() != 0
    }

    const fn set_first(&mut self, side: Side) {
        self.0 |= side.bit();
    }

    const fn set_second(&mut self, side: Side) {
        self.0 |= side.bit() << 2;
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Segment {
    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it neither begins nor ends anything.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.flags & (SYN | FIN | RST) == 0
    }

    /// The number behind its last byte; SYN and FIN count as one each.
    pub(super) const fn end(self) -> u32 {
        let phantoms = self.has(SYN) as u32 + self.has(FIN) as u32;
        self.seq.wrapping_add(self.len).wrapping_add(phantoms)
    }
}

impl Connection {
    /// Begins with the first segment that is seen of a connection, which makes its sender the initiator.
    /// `None` if no connection can begin so: a RST, a SYN-ACK, whose SYN would have been seen, or what has
    /// neither SYN nor ACK.
    #[must_use]
    pub const fn begin(first: Segment) -> Option<Self> {
        let state = match (first.has(SYN), first.has(ACK)) {
            _ if first.has(RST) => return None,
            (true, true) | (false, false) => return None,
            (true, false) => State::SynSent,
            (false, true) => State::Midstream,
        };
        let sender = Sides(Side::Initiator.bit());
        let acked = if first.has(ACK) { [first.seq, first.ack] } else { [first.seq, 0] };
        Some(Self {
            state,
            fins: if first.has(FIN) { sender } else { Sides(0) },
            known: sender,
            fin_end: [first.end(), 0],
            next: [first.end(), acked[1]],
            acked,
            retransmits: [0; 2],
        })
    }

    /// How far it has come.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How many segments of a side were sent again.
    #[must_use]
    pub const fn retransmits(&self, side: Side) -> u32 {
        let [initiator, responder] = self.retransmits;
        match side {
            Side::Initiator => initiator,
            Side::Responder => responder,
        }
    }

    /// Takes in the segment that nearly all are: of an open connection, the next of its side, acknowledging what was sent.
    /// `false`: it is another, and nothing was done. [`track`](Self::track) would say that nothing is new.
    #[inline]
    pub(crate) fn continues(&mut self, side: Side, segment: Segment) -> bool {
        let [initiator, responder] = self.next;
        let ([next, other_next], [acked, other_acked]) = match (side, self.acked) {
            (Side::Initiator, acked) => ([initiator, responder], acked),
            (Side::Responder, [first, second]) => ([responder, initiator], [second, first]),
        };
        let end = segment.seq.wrapping_add(segment.len);
        let continues = self.state == State::Established
            && segment.is_plain()
            && segment.has(ACK)
            && segment.seq == next
            && in_window(segment.ack, other_acked, other_next)
            && end.wrapping_sub(acked) <= MAX_WINDOW;
        if continues {
            *self.next_of(side) = end;
            *self.acked_of(side.other()) = segment.ack;
        }
        continues
    }

    /// Takes in a segment that was seen after the first.
    pub fn track(&mut self, side: Side, segment: Segment) -> Progress {
        let before = self.state;
        if segment.has(SYN) && !segment.has(ACK) && !segment.has(RST) && self.gives_way(side, segment) {
            return Progress::Reopened;
        }
        let saved = *self;
        let plausible = match before {
            _ if segment.has(RST) => self.reset(side, segment),
            State::SynSent => self.answer(side, segment),
            State::Midstream => self.pick_up(side, segment),
            State::SynReceived | State::Established | State::Closing | State::TimeWait => self.advance(side, segment),
            State::Reset => false,
        };
        if !plausible {
            // What is not believed leaves no trace.
            *self = saved;
            return Progress::Implausible;
        }
        if self.state == before { Progress::Unchanged } else { Progress::Became(self.state) }
    }

    /// Whether a SYN begins a new connection in place of this one: it is over, or nothing of it is proven
    /// and the SYN is not the one that was seen.
    fn gives_way(&mut self, side: Side, syn: Segment) -> bool {
        match self.state {
            State::TimeWait | State::Reset | State::Midstream => true,
            State::SynSent => side == Side::Initiator && syn.seq != *self.acked_of(side),
            State::SynReceived | State::Established | State::Closing => false,
        }
    }

    /// Only what the other side may be waiting for ends a connection: from what it has acknowledged to
    /// the last that was sent (RFC 5961, 3). Before it has acknowledged anything, only an answer to the SYN.
    fn reset(&mut self, side: Side, segment: Segment) -> bool {
        let believed = match (self.state, side) {
            (State::SynSent, Side::Responder) => segment.has(ACK) && self.answers_syn(segment),
            (State::SynSent, Side::Initiator) => segment.seq == *self.next_of(Side::Initiator),
            _ if !self.known.has_first(side) => segment.seq == *self.acked_of(side),
            _ => in_window(segment.seq, *self.acked_of(side), *self.next_of(side)),
        };
        if believed {
            self.state = State::Reset;
        }
        believed
    }

    /// The answer to a SYN, or the SYN again.
    fn answer(&mut self, side: Side, segment: Segment) -> bool {
        match side {
            Side::Initiator => {
                // With or without the data that the first one carried (RFC 7413).
                let again = segment.has(SYN) && !segment.has(ACK);
                if again {
                    self.count_retransmit(side);
                }
                again
            }
            Side::Responder => {
                let answers = segment.has(SYN) && segment.has(ACK) && self.answers_syn(segment);
                if answers {
                    self.state = State::SynReceived;
                    self.known.set_first(side);
                    self.acked = [segment.ack, segment.seq];
                    *self.next_of(side) = segment.end();
                }
                answers
            }
        }
    }

    /// Whether a segment acknowledges the SYN, and perhaps data that came with it.
    fn answers_syn(&mut self, segment: Segment) -> bool {
        let first = self.acked_of(Side::Initiator).wrapping_add(1);
        in_window(segment.ack, first, *self.next_of(Side::Initiator))
    }

    /// A connection whose beginning was not seen: proven when each side has acknowledged what the other
    /// really sent.
    fn pick_up(&mut self, side: Side, segment: Segment) -> bool {
        if segment.has(SYN) || !segment.has(ACK) {
            return false;
        }
        let first = !self.known.has_first(side);
        if first {
            // What the other side acknowledged before must be something that this one is about to send.
            let expected = *self.next_of(side);
            if !in_window(expected, segment.seq.wrapping_sub(MAX_WINDOW), segment.end()) {
                return false;
            }
            self.known.set_first(side);
            *self.next_of(side) = segment.seq;
        }
        let other = side.other();
        // The first segment's own acknowledgement is of what was not seen, so it proves nothing.
        let proof = self.known.has_first(other) && in_window(segment.ack, *self.acked_of(other), *self.next_of(other));
        if !self.advance(side, segment) {
            return false;
        }
        if proof {
            self.known.set_second(side);
        }
        if self.known.second() == BOTH {
            self.state = if self.fins.first() == 0 { State::Established } else { State::Closing };
        }
        true
    }

    /// A segment of an open connection.
    fn advance(&mut self, side: Side, segment: Segment) -> bool {
        let other = side.other();
        if segment.has(SYN) {
            // The SYN-ACK again, or the SYN.
            let again = before_or_at(segment.end(), *self.next_of(side));
            if again {
                self.count_retransmit(side);
            }
            return again;
        }
        // All segments of an open connection acknowledge; receivers drop what does not (RFC 9293, 3.10.7.4).
        let oldest = self.acked_of(other).wrapping_sub(MAX_WINDOW);
        if !segment.has(ACK) || !in_window(segment.ack, oldest, *self.next_of(other)) {
            return false;
        }
        // Further ahead than any window of the other side, or older than any: not of this connection.
        let (next, confirmed) = (*self.next_of(side), *self.acked_of(side));
        if !in_window(segment.end(), confirmed.wrapping_sub(MAX_WINDOW), confirmed.wrapping_add(MAX_WINDOW)) {
            return false;
        }
        if segment.has(FIN) && !self.closes(side, segment) {
            return false;
        }
        if segment.len > 0 && segment.seq != next && before_or_at(segment.end(), next) {
            self.count_retransmit(side);
        }
        // The handshake ends with the initiator's first acknowledgement of the SYN-ACK; what was
        // acknowledged until then is the number that the SYN-ACK began with.
        let unanswered = self.acked_of(Side::Responder).wrapping_add(1);
        let answers = in_window(segment.ack, unanswered, *self.next_of(Side::Responder));
        if self.state == State::SynReceived && side == Side::Initiator && answers {
            self.state = State::Established;
        }
        if before_or_at(next, segment.end()) {
            *self.next_of(side) = segment.end();
        }
        if before_or_at(*self.acked_of(other), segment.ack) {
            *self.acked_of(other) = segment.ack;
        }
        self.settle(other);
        true
    }

    /// Takes in a FIN. `false`: there was another, or more than it ends was sent already.
    fn closes(&mut self, side: Side, segment: Segment) -> bool {
        let (end, next) = (segment.end(), *self.next_of(side));
        let known = self.fins.has_first(side);
        let fin_end = self.fin_end_of(side);
        if known {
            return *fin_end == end;
        }
        *fin_end = end;
        self.fins.set_first(side);
        before_or_at(next, end)
    }

    /// What the numbers now say about the state; those of `acked` were just acknowledged.
    fn settle(&mut self, acked: Side) {
        let covered = before_or_at(*self.fin_end_of(acked), *self.acked_of(acked));
        if self.fins.has_first(acked) && covered {
            self.fins.set_second(acked);
        }
        match self.state {
            State::Established if self.fins.first() != 0 => self.state = State::Closing,
            State::Closing if self.fins.second() == BOTH => self.state = State::TimeWait,
            _ => {}
        }
    }

    fn count_retransmit(&mut self, side: Side) {
        let [initiator, responder] = &mut self.retransmits;
        let count = if side == Side::Initiator { initiator } else { responder };
        *count = count.saturating_add(1);
    }

    fn fin_end_of(&mut self, side: Side) -> &mut u32 {
        let [initiator, responder] = &mut self.fin_end;
        if side == Side::Initiator { initiator } else { responder }
    }

    fn next_of(&mut self, side: Side) -> &mut u32 {
        let [initiator, responder] = &mut self.next;
        if side == Side::Initiator { initiator } else { responder }
    }

    fn acked_of(&mut self, side: Side) -> &mut u32 {
        let [initiator, responder] = &mut self.acked;
        if side == Side::Initiator { initiator } else { responder }
    }
}

/// Bits of both sides.
const BOTH: u8 = 3;

/// The largest window that window scaling allows (RFC 7323, 2.3).
const MAX_WINDOW: u32 = 1 << 30;

/// Whether `low <= number <= high` on the circle of sequence numbers.
const fn in_window(number: u32, low: u32, high: u32) -> bool {
    number.wrapping_sub(low) <= high.wrapping_sub(low)
}

/// Whether `a` is not behind `b` on the circle of sequence numbers.
const fn before_or_at(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests;
