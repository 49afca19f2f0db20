// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connections as they pass by, honest and forged.

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
    assert_eq!(connection.track(B, segment(ACK, 7000, 1100, 30)), Progress::Unchanged);
    assert_eq!(connection.state(), State::Midstream, "one side has proven nothing yet");
    assert_eq!(connection.track(A, segment(ACK, 1100, 7030, 0)), Progress::Became(State::Established));
    assert_eq!(connection.retransmits(B), 0);
    let mut unproven = Connection::begin(segment(ACK, 1000, 7000, 100)).unwrap();
    unproven.track(B, segment(ACK, 7000, 5000, 30));
    assert_eq!(unproven.state(), State::Midstream, "it acknowledges what was never sent");
}

#[test]
fn forged_ends_do_not_close() {
    let open = opened(100, 500);
    for forged in [
        segment(FIN, 101, 0, 0),                    // acknowledges nothing
        segment(FIN | ACK, 90, 501, 0),             // ends before what was sent
        segment(ACK, 101 + 2 * MAX_WINDOW, 501, 1), // ahead of any window
    ] {
        let mut connection = open;
        assert_eq!(connection.track(A, forged), Progress::Implausible, "{forged:?}");
        assert_eq!(connection, open);
    }
    let mut closing = open;
    closing.track(A, segment(FIN | ACK, 101, 501, 0));
    let other_end = segment(FIN | ACK, 101, 501, 9);
    assert_eq!(closing.track(A, other_end), Progress::Implausible, "it has ended elsewhere");
}

#[test]
fn what_is_not_proven_gives_way_to_a_handshake() {
    let mut forged = Connection::begin(segment(ACK, 1000, 7000, 0)).unwrap();
    assert_eq!(forged.track(A, segment(SYN, 5, 0, 0)), Progress::Reopened);
    let mut retried = Connection::begin(segment(SYN, 100, 0, 0)).unwrap();
    assert_eq!(retried.track(A, segment(SYN, 100, 0, 0)), Progress::Unchanged);
    assert_eq!(retried.track(A, segment(SYN, 999, 0, 0)), Progress::Reopened);
    assert_eq!(opened(100, 500).track(A, segment(SYN, 5000, 0, 0)), Progress::Implausible);
    assert_eq!(Connection::begin(segment(0, 1, 0, 0)), None);
    // Data with the SYN that the responder does not take (RFC 7413).
    let mut fast = Connection::begin(segment(SYN, 100, 0, 50)).unwrap();
    assert_eq!(fast.track(B, segment(SYN | ACK, 500, 101, 0)), Progress::Became(State::SynReceived));
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

/// Tracks a segment; the short way, if it is open to it, comes to the same, and otherwise leaves no trace.
fn track(connection: &mut Connection, side: Side, segment: Segment) -> Progress {
    let (mut short, before) = (*connection, *connection);
    let progress = connection.track(side, segment);
    if short.continues(side, segment) {
        assert_eq!((short, Progress::Unchanged), (*connection, progress), "{segment:?} of {side:?} after {before:?}");
    } else {
        assert_eq!(short, before);
    }
    progress
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
            let mut short = connection;
            prop_assert!(short.continues(side, data));
            prop_assert_eq!(track(&mut connection, side, data), Progress::Unchanged);
            sent.push((side, data));
            if twice {
                let (side, old) = sent[len as usize % sent.len()];
                prop_assert_eq!(track(&mut connection, side, old), Progress::Unchanged);
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
    fn any_segments(
        open in any::<bool>(),
        steps in prop::collection::vec((any::<bool>(), any::<u8>(), 0u32..40, 0u32..40, 0u32..9), 1..80),
    ) {
        let mut connection: Option<Connection> = open.then(|| opened(10, 20));
        for (a, flags, seq, ack, len) in steps {
            let next = segment(flags, seq, ack, len);
            let Some(known) = &mut connection else {
                connection = Connection::begin(next);
                continue;
            };
            let before = known.state();
            let progress = track(known, if a { A } else { B }, next);
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
