// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TCP connections as far as a switch in between can see them: sequence numbers that advance, and acknowledgements of
//! what has arrived.
//!
//! Nothing is retransmitted but what opens and closes a connection (see `dialog`): a segment that is lost is counted as that,
//! and the next one of its flow is acknowledged as if the lost one had come after all.

use super::flows::{self, Side};
use super::frames::{ACK, FIN, SYN, Signal};

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    /// The sequence number of what is sent next.
    next: u32,
    /// The sequence number that is expected of the other end.
    due: u32,
}

/// All connections of a run.
#[derive(Debug)]
pub(super) struct Connections {
    ends: [Box<[End]>; 2],
    /// Bytes that a data frame carries.
    payload: u32,
}

/// The three segments that open a connection, and those that close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The client's first word.
    Call,
    /// The server's.
    Answer,
    /// The client's last.
    Confirm,
}

impl Connections {
    /// Nothing is established yet.
    pub(super) fn new(flows: u32, payload: u32) -> Self {
        // Numbers begin anywhere, so in some flows they soon wrap.
        let ends = |salt: u32| {
            (0..flows).map(|flow| End { next: (flow ^ salt).wrapping_mul(0x9e37_79b9), due: 0 }).collect::<Box<[End]>>()
        };
        Self { ends: [ends(0), ends(0x5348_554e)], payload }
    }

    /// Sequence and acknowledgement number of the next data segment, as they stand on the wire.
    #[inline(always)]
    pub(super) fn send(&mut self, side: Side, flow: u32) -> u64 {
        let payload = self.payload;
        let Some(end) = self.end_mut(side, flow) else { return 0 };
        let numbers = wire(end.next, end.due);
        end.next = end.next.wrapping_add(payload);
        numbers
    }

    /// A data segment has arrived: its addresses, and its ports and sequence number, as they stand on the wire.
    #[inline(always)]
    pub(super) fn receive(&mut self, side: Side, addresses: u64, ports_and_sequence: u64) {
        let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
        let [i, j, k, l, sequence @ ..] = ports_and_sequence.to_le_bytes();
        let (client, port, server_port) = match side {
            Side::A => ([e, f, g, h], [k, l], [i, j]),
            Side::B => ([a, b, c, d], [i, j], [k, l]),
        };
        let payload = self.payload;
        if u16::from_be_bytes(server_port) == flows::SERVER_PORT
            && let Some(flow) = flows::number(u32::from_be_bytes(client), u16::from_be_bytes(port))
            && let Some(end) = self.end_mut(side, flow)
        {
            let after = u32::from_be_bytes(sequence).wrapping_add(payload);
            // What came late or twice does not take anything back.
            if after.wrapping_sub(end.due) <= 1 << 31 {
                end.due = after;
            }
        }
    }

    /// What is said on a flow to open it, or to close it.
    pub(super) fn signal(&self, line: Line, closing: bool, flow: u32) -> Signal {
        let end = |side: Side| self.ends[side.index()].get(flow as usize).copied().unwrap_or_default();
        let (a, b) = (end(Side::A), end(Side::B));
        let flag = if closing { FIN } else { SYN };
        let (flags, sequence, acknowledged) = match line {
            Line::Call if closing => (FIN | ACK, a.next, a.due),
            Line::Call => (SYN, a.next, 0),
            Line::Answer => (flag | ACK, b.next, a.next.wrapping_add(1)),
            Line::Confirm => (ACK, a.next.wrapping_add(1), b.next.wrapping_add(1)),
        };
        Signal { flags, sequence, acknowledged, longest: self.payload }
    }

    /// All three were said: SYN, or FIN, has taken a number of each side.
    pub(super) fn agree(&mut self, flow: u32) {
        let mut next = [0; 2];
        for side in Side::BOTH {
            if let Some(end) = self.end_mut(side, flow) {
                end.next = end.next.wrapping_add(1);
                next[side.index()] = end.next;
            }
        }
        for side in Side::BOTH {
            if let Some(end) = self.end_mut(side, flow) {
                end.due = next[side.other().index()];
            }
        }
    }

    #[inline(always)]
    fn end_mut(&mut self, side: Side, flow: u32) -> Option<&mut End> {
        self.ends[side.index()].get_mut(flow as usize)
    }
}

/// Two numbers in network order, side by side.
#[inline(always)]
fn wire(sequence: u32, acknowledged: u32) -> u64 {
    u64::from(sequence.swap_bytes()) | u64::from(acknowledged.swap_bytes()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frames::{self, ADDRESSES, PORTS, Transport};

    fn word(frame: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(frame[at..at + 8].try_into().unwrap())
    }

    /// A segment from one side arrives at the other one.
    fn pass(connections: &mut Connections, from: Side, flow: u32, arrives: bool) -> (u32, u32) {
        let numbers = connections.send(from, flow);
        let mut frame = frames::data(Transport::Tcp, from, flow, 64);
        frames::write_stamp(&mut frame, Transport::Tcp, 1, numbers);
        if arrives {
            connections.receive(from.other(), word(&frame, ADDRESSES), word(&frame, PORTS));
        }
        let [a, b, c, d, e, f, g, h] = numbers.to_le_bytes();
        (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
    }

    #[test]
    fn numbers_follow_on_from_the_handshake_to_the_end() {
        let mut connections = Connections::new(40_000, 10);
        for flow in [0, 1, 39_999] {
            let syn = connections.signal(Line::Call, false, flow);
            let answer = connections.signal(Line::Answer, false, flow);
            let ack = connections.signal(Line::Confirm, false, flow);
            let (a, b) = (syn.sequence, answer.sequence);
            assert_eq!((syn.flags, syn.acknowledged), (SYN, 0));
            assert_eq!((answer.flags, answer.acknowledged), (SYN | ACK, a.wrapping_add(1)));
            assert_eq!((ack.flags, ack.sequence, ack.acknowledged), (ACK, a.wrapping_add(1), b.wrapping_add(1)));
            connections.agree(flow);

            let (a, b) = (a.wrapping_add(1), b.wrapping_add(1));
            let at = |base: u32, segments: u32| base.wrapping_add(10 * segments);
            assert_eq!(pass(&mut connections, Side::A, flow, true), (a, b));
            assert_eq!(pass(&mut connections, Side::A, flow, true), (at(a, 1), b));
            assert_eq!(pass(&mut connections, Side::B, flow, true), (b, at(a, 2)));
            assert_eq!(pass(&mut connections, Side::A, flow, false), (at(a, 2), at(b, 1)));
            assert_eq!(
                pass(&mut connections, Side::B, flow, true),
                (at(b, 1), at(a, 2)),
                "what was lost is not acknowledged"
            );
            assert_eq!(pass(&mut connections, Side::A, flow, true), (at(a, 3), at(b, 2)));
            assert_eq!(pass(&mut connections, Side::B, flow, true), (at(b, 2), at(a, 4)));

            let fin = connections.signal(Line::Call, true, flow);
            assert_eq!((fin.flags, fin.sequence, fin.acknowledged), (FIN | ACK, at(a, 4), at(b, 3)));
            let answer = connections.signal(Line::Answer, true, flow);
            assert_eq!((answer.sequence, answer.acknowledged), (at(b, 3), at(a, 4).wrapping_add(1)));
        }
    }

    #[test]
    fn what_is_no_segment_of_ours_moves_nothing() {
        let mut connections = Connections::new(2, 10);
        let before = connections.ends.clone();
        connections.receive(Side::A, u64::MAX, u64::MAX);
        connections.receive(Side::B, 0, 0);
        let other = frames::data(Transport::Tcp, Side::A, 2, 64);
        connections.receive(Side::B, word(&other, ADDRESSES), word(&other, PORTS));
        assert_eq!(connections.ends, before);
    }
}
