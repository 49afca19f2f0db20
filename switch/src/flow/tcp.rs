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
    /// Whether each side sent its FIN, and whether that was acknowledged: bits by [`Side`].
    fin_sent: u8,
    fin_acked: u8,
    /// Sides of which at least one segment was seen.
    seen: u8,
    /// The number behind the last that each side sent.
    next: [u32; 2],
    /// The highest of its numbers that the other side acknowledged.
    acked: [u32; 2],
    /// Segments of each side that had been seen before.
    retransmits: [u32; 2],
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

    /// The number behind its last byte; SYN and FIN count as one each.
    const fn end(self) -> u32 {
        let phantoms = self.has(SYN) as u32 + self.has(FIN) as u32;
        self.seq.wrapping_add(self.len).wrapping_add(phantoms)
    }
}

impl Connection {
    /// Begins with the first segment that is seen of a connection, which makes its sender the initiator.
    /// `None` if no connection can begin so: a RST, or a SYN-ACK, whose SYN would have been seen.
    #[must_use]
    pub const fn begin(first: Segment) -> Option<Self> {
        let state = match (first.has(SYN), first.has(ACK)) {
            _ if first.has(RST) => return None,
            (true, true) => return None,
            (true, false) => State::SynSent,
            (false, _) => State::Midstream,
        };
        let fin = if first.has(FIN) { Side::Initiator.bit() } else { 0 };
        let acked = if first.has(ACK) { [first.seq, first.ack] } else { [first.seq, 0] };
        Some(Self {
            state,
            fin_sent: fin,
            fin_acked: 0,
            seen: Side::Initiator.bit(),
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

    /// Takes in a segment that was seen after the first.
    pub fn track(&mut self, side: Side, segment: Segment) -> Progress {
        let before = self.state;
        let over = matches!(before, State::TimeWait | State::Reset);
        if segment.has(SYN) && !segment.has(ACK) && over && !segment.has(RST) {
            return Progress::Reopened;
        }
        let plausible = match before {
            _ if segment.has(RST) => self.reset(side, segment),
            State::SynSent => self.answer(side, segment),
            State::Midstream => self.pick_up(side, segment),
            State::SynReceived | State::Established | State::Closing | State::TimeWait => self.advance(side, segment),
            State::Reset => false,
        };
        match plausible {
            false => Progress::Implausible,
            true if self.state == before => Progress::Unchanged,
            true => Progress::Became(self.state),
        }
    }

    /// Only what the other side may be waiting for ends a connection: from what it has acknowledged to
    /// the last that was sent (RFC 5961, 3). Before it has acknowledged anything, only an answer to the SYN.
    fn reset(&mut self, side: Side, segment: Segment) -> bool {
        let believed = match (self.state, side) {
            (State::SynSent, Side::Responder) => segment.has(ACK) && segment.ack == *self.next_of(Side::Initiator),
            (State::SynSent, Side::Initiator) => segment.seq == *self.next_of(Side::Initiator),
            _ if self.seen & side.bit() == 0 => segment.seq == *self.acked_of(side),
            _ => in_window(segment.seq, *self.acked_of(side), *self.next_of(side)),
        };
        if believed {
            self.state = State::Reset;
        }
        believed
    }

    /// The answer to a SYN, or the SYN again.
    fn answer(&mut self, side: Side, segment: Segment) -> bool {
        let initial = *self.next_of(Side::Initiator);
        match side {
            Side::Initiator => {
                let again = segment.has(SYN) && segment.end() == initial;
                if again {
                    self.count_retransmit(side);
                }
                again
            }
            Side::Responder => {
                let answers = segment.has(SYN) && segment.has(ACK) && segment.ack == initial;
                if answers {
                    self.state = State::SynReceived;
                    self.seen |= side.bit();
                    self.acked = [segment.ack, segment.seq];
                    *self.next_of(side) = segment.end();
                }
                answers
            }
        }
    }

    /// A connection whose beginning was not seen: proven when each side has acknowledged what the other
    /// really sent.
    fn pick_up(&mut self, side: Side, segment: Segment) -> bool {
        if segment.has(SYN) || !segment.has(ACK) {
            return false;
        }
        let first = self.seen & side.bit() == 0;
        if first {
            // What the other side acknowledged before must be something that this one is about to send.
            let expected = *self.next_of(side);
            if !in_window(expected, segment.seq.wrapping_sub(MAX_WINDOW), segment.end()) {
                return false;
            }
            self.seen |= side.bit();
            *self.next_of(side) = segment.seq;
        }
        let other = side.other();
        let proof = in_window(segment.ack, *self.acked_of(other), *self.next_of(other));
        let plausible = self.advance(side, segment);
        if plausible && proof && self.seen == BOTH && self.state == State::Midstream {
            self.state = if self.fin_sent == 0 { State::Established } else { State::Closing };
        }
        plausible
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
        if segment.has(ACK)
            && !in_window(segment.ack, self.acked_of(other).wrapping_sub(MAX_WINDOW), *self.next_of(other))
        {
            return false;
        }
        // Further ahead than any window, or older than any: not of this connection.
        let next = *self.next_of(side);
        if !in_window(segment.seq, next.wrapping_sub(MAX_WINDOW), next.wrapping_add(MAX_WINDOW)) {
            return false;
        }
        if segment.len > 0 && segment.seq != next && before_or_at(segment.end(), next) {
            self.count_retransmit(side);
        }
        // The handshake ends with the initiator's first acknowledgement of the SYN-ACK; what was
        // acknowledged until then is the number that the SYN-ACK began with.
        let unanswered = self.acked_of(Side::Responder).wrapping_add(1);
        let answers = segment.has(ACK) && in_window(segment.ack, unanswered, *self.next_of(Side::Responder));
        if self.state == State::SynReceived && side == Side::Initiator && answers {
            self.state = State::Established;
        }
        if before_or_at(next, segment.end()) {
            *self.next_of(side) = segment.end();
        }
        if segment.has(ACK) && before_or_at(*self.acked_of(other), segment.ack) {
            *self.acked_of(other) = segment.ack;
        }
        self.settle(side, segment);
        true
    }

    /// What the numbers now say about the state.
    fn settle(&mut self, side: Side, segment: Segment) {
        let other = side.other();
        if segment.has(FIN) {
            self.fin_sent |= side.bit();
        }
        if self.fin_sent & other.bit() != 0 && segment.has(ACK) && *self.acked_of(other) == *self.next_of(other) {
            self.fin_acked |= other.bit();
        }
        if self.fin_acked == BOTH {
            self.state = State::TimeWait;
        } else if self.fin_sent != 0 && self.state == State::Established {
            self.state = State::Closing;
        }
    }

    fn count_retransmit(&mut self, side: Side) {
        let [initiator, responder] = &mut self.retransmits;
        let count = if side == Side::Initiator { initiator } else { responder };
        *count = count.saturating_add(1);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Side = Side::Initiator;
    const B: Side = Side::Responder;

    fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Segment {
        Segment { flags, seq, ack, len }
    }

    fn opened(a: u32, b: u32) -> Connection {
        let mut connection = Connection::begin(segment(SYN, a, 0, 0)).unwrap();
        assert_eq!(connection.state(), State::SynSent);
        let answer = segment(SYN | ACK, b, a.wrapping_add(1), 0);
        assert_eq!(connection.track(B, answer), Progress::Became(State::SynReceived));
        let ack = segment(ACK, a.wrapping_add(1), b.wrapping_add(1), 0);
        assert_eq!(connection.track(A, ack), Progress::Became(State::Established));
        connection
    }

    #[test]
    fn a_handshake_with_wrong_numbers_opens_nothing() {
        // VF-22: a forged SYN, even with a forged answer, is no connection.
        let syn = Connection::begin(segment(SYN, 100, 0, 0)).unwrap();
        for forged in [segment(SYN | ACK, 5, 100, 0), segment(SYN | ACK, 5, 102, 0), segment(ACK, 5, 101, 0)] {
            let mut connection = syn;
            assert_eq!(connection.track(B, forged), Progress::Implausible, "{forged:?}");
            assert_eq!(connection, syn);
        }
        let mut half = syn;
        half.track(B, segment(SYN | ACK, 5, 101, 0));
        for forged in [segment(ACK, 101, 5, 0), segment(ACK, 101, 7, 0), segment(ACK, 101, 4, 1)] {
            let mut connection = half;
            connection.track(A, forged);
            assert_eq!(connection.state(), State::SynReceived, "{forged:?}");
        }
        // Data of the responder before the handshake's last segment does not hide that segment.
        half.track(B, segment(ACK, 6, 101, 10));
        assert_eq!(half.track(A, segment(ACK, 101, 6, 0)), Progress::Became(State::Established));
    }

    #[test]
    fn what_cannot_begin_a_connection() {
        assert_eq!(Connection::begin(segment(RST, 1, 0, 0)), None);
        assert_eq!(Connection::begin(segment(SYN | ACK, 1, 1, 0)), None);
        assert_eq!(Connection::begin(segment(ACK, 1, 1, 0)).map(|c| c.state()), Some(State::Midstream));
    }

    #[test]
    fn only_a_reset_in_window_resets() {
        // VF-22, RFC 5961.
        let mut connection = opened(100, 500);
        connection.track(A, segment(ACK, 101, 501, 50));
        for (side, seq) in [(A, 100), (A, 152), (B, 500), (B, 502), (A, 101 + (1 << 30))] {
            let mut forged = connection;
            assert_eq!(forged.track(side, segment(RST, seq, 0, 0)), Progress::Implausible, "{side:?} {seq}");
            assert_eq!(forged, connection);
        }
        for (side, seq) in [(A, 101), (A, 151), (B, 501)] {
            let mut honest = connection;
            assert_eq!(honest.track(side, segment(RST, seq, 0, 0)), Progress::Became(State::Reset), "{side:?} {seq}");
        }
        let mut refused = Connection::begin(segment(SYN, 100, 0, 0)).unwrap();
        assert_eq!(refused.track(B, segment(RST | ACK, 0, 100, 0)), Progress::Implausible);
        assert_eq!(refused.track(B, segment(RST | ACK, 0, 101, 0)), Progress::Became(State::Reset));
    }

    #[test]
    fn a_connection_closes_from_either_side_or_both() {
        for (first, second) in [(A, B), (B, A)] {
            let start = [101, 501];
            let mut connection = opened(100, 500);
            let (own, other) = (start[first as usize], start[second as usize]);
            assert_eq!(connection.track(first, segment(FIN | ACK, own, other, 0)), Progress::Became(State::Closing));
            assert_eq!(connection.track(second, segment(ACK, other, own + 1, 9)), Progress::Unchanged);
            let fin = segment(FIN | ACK, other + 9, own + 1, 0);
            assert_eq!(connection.track(second, fin), Progress::Unchanged);
            let last = segment(ACK, own + 1, other + 10, 0);
            assert_eq!(connection.track(first, last), Progress::Became(State::TimeWait));
            assert_eq!(connection.track(first, segment(SYN, 9000, 0, 0)), Progress::Reopened);
        }
        let mut both = opened(100, 500);
        both.track(A, segment(FIN | ACK, 101, 501, 0));
        assert_eq!(both.track(B, segment(FIN | ACK, 501, 101, 0)), Progress::Unchanged);
        assert_eq!(both.track(A, segment(ACK, 102, 502, 0)), Progress::Unchanged);
        assert_eq!(both.track(B, segment(ACK, 502, 102, 0)), Progress::Became(State::TimeWait));
    }

    #[test]
    fn a_connection_is_picked_up_in_the_middle() {
        let mut connection = Connection::begin(segment(ACK, 1000, 7000, 100)).unwrap();
        let forged = segment(ACK, 7001 + MAX_WINDOW, 1100, 0);
        assert_eq!(connection.track(B, forged), Progress::Implausible);
        assert_eq!(connection.state(), State::Midstream);
        assert_eq!(connection.track(B, segment(ACK, 7000, 1100, 30)), Progress::Became(State::Established));
        assert_eq!(connection.retransmits(B), 0);
        let mut unproven = Connection::begin(segment(ACK, 1000, 7000, 100)).unwrap();
        unproven.track(B, segment(ACK, 7000, 5000, 30));
        assert_eq!(unproven.state(), State::Midstream, "it acknowledges what was never sent");
    }

    #[test]
    fn what_is_sent_again_is_counted() {
        let mut connection = opened(u32::MAX - 50, 500);
        let first = u32::MAX - 49;
        for (seq, count) in [(first, 0), (first.wrapping_add(100), 0), (first, 1), (first.wrapping_add(100), 2)] {
            assert_eq!(connection.track(A, segment(ACK, seq, 501, 100)), Progress::Unchanged);
            assert_eq!((connection.retransmits(A), connection.retransmits(B)), (count, 0), "{seq}");
        }
        connection.track(A, segment(ACK, first.wrapping_add(200), 501, 0));
        assert_eq!(connection.retransmits(A), 2, "an acknowledgement is not data");
    }

    proptest! {
        /// Two honest ends, whatever they send and however much of it is delivered twice: never
        /// implausible, and at the end over.
        #[test]
        fn honest_connections_are_believed(
            start in any::<[u32; 2]>(),
            steps in prop::collection::vec((any::<bool>(), 0u32..2000, any::<bool>()), 0..60),
        ) {
            let mut connection = opened(start[0], start[1]);
            let mut next = start.map(|isn| isn.wrapping_add(1));
            let mut sent = Vec::new();
            for (a, len, twice) in steps {
                let side = if a { A } else { B };
                let (own, other) = (side as usize, side.other() as usize);
                let data = segment(ACK, next[own], next[other], len);
                next[own] = next[own].wrapping_add(len);
                prop_assert_eq!(connection.track(side, data), Progress::Unchanged);
                sent.push((side, data));
                if twice {
                    let (side, old) = sent[len as usize % sent.len()];
                    prop_assert_eq!(connection.track(side, old), Progress::Unchanged);
                }
            }
            prop_assert_eq!(connection.state(), State::Established);
            for (side, expected) in [(A, State::Closing), (B, State::Closing)] {
                let (own, other) = (side as usize, side.other() as usize);
                connection.track(side, segment(FIN | ACK, next[own], next[other], 0));
                next[own] = next[own].wrapping_add(1);
                prop_assert_eq!(connection.state(), expected);
            }
            connection.track(A, segment(ACK, next[0], next[1], 0));
            prop_assert_eq!(connection.state(), State::TimeWait);
        }

        /// Any segments at all: nothing panics, and what is over stays over unless it begins anew.
        #[test]
        fn any_segments(steps in prop::collection::vec((any::<bool>(), any::<u8>(), 0u32..40, 0u32..40, 0u32..9), 1..80)) {
            let mut connection: Option<Connection> = None;
            for (a, flags, seq, ack, len) in steps {
                let next = segment(flags, seq, ack, len);
                let Some(known) = &mut connection else {
                    connection = Connection::begin(next);
                    continue;
                };
                let before = known.state();
                let progress = known.track(if a { A } else { B }, next);
                prop_assert_eq!(matches!(progress, Progress::Became(_)), known.state() != before);
                if matches!(before, State::Reset) {
                    prop_assert_eq!(known.state(), State::Reset);
                }
                if progress == Progress::Reopened {
                    connection = Connection::begin(next);
                }
            }
        }
    }
}
