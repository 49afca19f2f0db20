// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connections that go on, and floods: for the tests and examples of many packets.

use packet::{Burst, MAX_BURST, Offload, PortId, Verdict};
use switch::engine::Engine;
use switch::model::Direction;

use super::{ACK, End, Packet, RST, SYN, What};

/// The guest of a port that is flooded.
pub(crate) const GUEST: [u8; 4] = [10, 0, 0, 1];
/// What it serves.
pub(crate) const SERVICE: u16 = 80;

/// Frames of one direction, ready to be offered again and again.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Connections of one port that are established, and what they say while nothing else happens.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) port: PortId,
    pub(crate) outbound: Frames,
    pub(crate) inbound: Frames,
}

/// Sorts of packets of which no two have the same ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Syn,
    Ack,
    Rst,
    Udp,
    Fragment,
    IcmpError,
}

impl Frames {
    pub(crate) fn push(&mut self, packet: &Packet, direction: Direction) {
        let mut bytes = Vec::new();
        packet.write(direction, &mut bytes);
        self.bytes.extend_from_slice(&bytes);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Fills a burst with up to 64 of them from `from` on.
    pub(crate) fn fill(&self, burst: &mut Burst, port: PortId, direction: Direction, from: usize) {
        burst.clear();
        let begin = from.checked_sub(1).map_or(0, |before| self.ends[before]);
        let ends = self.ends[from..].iter().take(MAX_BURST);
        ends.fold(begin, |begin, end| {
            push(burst, port, &self.bytes[begin..*end]);
            *end
        });
        turn(burst, port, direction);
    }
}

impl Crowd {
    /// Which client of which server connection `n` is: the guest's clients of a server, and its server's clients.
    fn ends(n: u32) -> (End, End) {
        let [_, high, middle, low] = n.to_be_bytes();
        ((GUEST, 20_000 + u16::from_be_bytes([0, low])), ([198, 18 + high, middle, low], 443))
    }

    /// Opens `tcp` and `udp` connections from the guest's side and has them answered. All packets must pass.
    pub(crate) fn establish(engine: &mut Engine, port: PortId, now_ns: u64, tcp: u32, udp: u32) -> Self {
        let mut steps: [(Direction, Frames); 3] =
            [Direction::Out, Direction::In, Direction::Out].map(|direction| (direction, Frames::default()));
        let mut crowd = Self { port, outbound: Frames::default(), inbound: Frames::default() };
        for n in 0..tcp + udp {
            let (client, server) = Self::ends(n);
            let [(_, first), (_, second), (_, third)] = &mut steps;
            if n < tcp {
                first.push(&Packet::tcp(client, server, SYN, 1000, 0), Direction::Out);
                second.push(&Packet::tcp(server, client, SYN | ACK, 9000, 1001), Direction::In);
                third.push(&Packet::tcp(client, server, ACK, 1001, 9001), Direction::Out);
                crowd.outbound.push(&Packet::tcp(client, server, ACK, 1001, 9001), Direction::Out);
                crowd.inbound.push(&Packet::tcp(server, client, ACK, 9001, 1001), Direction::In);
            } else {
                let (ask, answer) = (Packet::udp(client, server), Packet::udp(server, client));
                first.push(&ask, Direction::Out);
                second.push(&answer, Direction::In);
                third.push(&ask, Direction::Out);
                crowd.outbound.push(&ask, Direction::Out);
                crowd.inbound.push(&answer, Direction::In);
            }
        }
        let mut burst = Burst::new();
        // In turn, so that nothing unconfirmed is pushed out.
        for from in (0..crowd.outbound.len()).step_by(MAX_BURST) {
            for (direction, frames) in &steps {
                frames.fill(&mut burst, port, *direction, from);
                engine.begin_burst(0);
                engine.process(&mut burst, port, *direction, now_ns);
                assert_passed(&burst, port, *direction);
            }
        }
        crowd
    }

    /// All of them say something in both directions; nothing of that may be new. Returns how many packets it were.
    #[track_caller]
    pub(crate) fn talk(&self, engine: &mut Engine, burst: &mut Burst, now_ns: u64) -> u64 {
        let before = engine.report(self.port).expect("policy").stats;
        let mut count = 0;
        for (direction, frames) in [(Direction::Out, &self.outbound), (Direction::In, &self.inbound)] {
            for from in (0..frames.len()).step_by(MAX_BURST) {
                frames.fill(burst, self.port, direction, from);
                engine.begin_burst(0);
                engine.process(burst, self.port, direction, now_ns);
                assert_passed(burst, self.port, direction);
                count += burst.len() as u64;
            }
        }
        let after = engine.report(self.port).expect("policy").stats;
        assert_eq!((after.hits - before.hits, after.misses), (count, before.misses), "all are known");
        count
    }
}

impl Flood {
    pub(crate) const ALL: [Self; 6] = [Self::Syn, Self::Ack, Self::Rst, Self::Udp, Self::Fragment, Self::IcmpError];

    /// Packet `n` to the guest or from it: one of 2^28 pairs of ends.
    pub(crate) fn packet(self, direction: Direction, n: u32) -> Packet {
        let [high, a, b, c] = n.to_be_bytes();
        let stranger = ([100, a, b, c], 1024 + u16::from(high));
        let guest = (GUEST, SERVICE);
        let (from, to) = if direction == Direction::In { (stranger, guest) } else { (guest, stranger) };
        match self {
            Self::Syn => Packet::tcp(from, to, SYN, n, 0),
            Self::Ack => Packet::tcp(from, to, ACK, n, !n),
            Self::Rst => Packet::tcp(from, to, RST, n, 0),
            Self::Udp => Packet::udp(from, to),
            // Firsts and others, none of the same datagram.
            Self::Fragment => Packet::fragment(from, to, b.into(), if n.is_multiple_of(2) { 0 } else { 64 }, 24, true),
            Self::IcmpError => {
                let what = What::Unreachable { from: to, to: from, protocol: 17 };
                Packet { from, to, what, payload: 0 }
            }
        }
    }

    /// Fills a burst with packets from number `from` on.
    pub(crate) fn fill(self, burst: &mut Burst, port: PortId, direction: Direction, from: u32, room: &mut Vec<u8>) {
        burst.clear();
        for n in (from..).take(MAX_BURST) {
            self.packet(direction, n).write(direction, room);
            push(burst, port, room);
        }
        turn(burst, port, direction);
    }
}

fn push(burst: &mut Burst, port: PortId, frame: &[u8]) {
    let len = u32::try_from(frame.len()).expect("a frame");
    burst.push(port, len, Offload::NONE, 0).expect("room").copy_from_slice(frame);
}

fn turn(burst: &mut Burst, port: PortId, direction: Direction) {
    if direction == Direction::In {
        burst.set_pending(Verdict::Forward(port));
    }
}

/// All packets were let through.
#[track_caller]
pub(crate) fn assert_passed(burst: &Burst, port: PortId, direction: Direction) {
    let passed = if direction == Direction::In { Verdict::Forward(port) } else { Verdict::Pending };
    assert!(burst.verdicts().iter().all(|verdict| *verdict == passed), "{:?}", burst.verdicts());
}
