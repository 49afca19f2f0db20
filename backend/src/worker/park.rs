// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The park: packets of which policy cannot say yet what becomes of them (decision 2).
//!
//! # Theory of operation
//!
//! A packet waits for a directory's answer or for the first fragment of its datagram. It is copied whole, so
//! that its guest's buffer goes back at once. Whenever policy of its port changes (an answer is such a
//! change), all of the port's packets go through policy again in the order in which they came, before any later
//! packet does: so packets of one flow stay in turn. What must still wait goes back to where it was; what waits for
//! longer than a second is dropped and counted.

use std::collections::VecDeque;

use packet::{DropCause, Offload, PortId};
use switch::model::Direction;

/// Most packets that wait at one worker.
const MAX_PACKETS: usize = 1024;
/// Most bytes of them.
const MAX_BYTES: usize = 8 << 20;
/// How long a packet waits.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) port: PortId,
    pub(super) direction: Direction,
    /// Where it came from, and by which queue pair.
    pub(super) ingress: PortId,
    pub(super) pair: u16,
    pub(super) since_ns: u64,
    /// Why it is dropped if nothing comes of it.
    pub(super) cause: DropCause,
    /// What its sender left undone.
    pub(super) offload: Offload,
    pub(super) bytes: Vec<u8>,
}

/// Packets in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Park {
    packets: VecDeque<Parked>,
    bytes: usize,
}

impl Park {
    /// Whether there is room for another packet of so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.packets.len() < MAX_PACKETS && self.bytes.saturating_add(bytes) <= MAX_BYTES
    }

    /// Adds a packet; [`has_room`](Self::has_room) was asked.
    pub(super) fn push(&mut self, packet: Parked) {
        self.bytes += packet.bytes.len();
        self.packets.push_back(packet);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes out all packets of a port, or of all.
    pub(super) fn take(&mut self, port: Option<PortId>) -> VecDeque<Parked> {
        self.take_if(|packet| port.is_none_or(|port| port == packet.port))
    }

    /// Takes out those that waited for too long.
    pub(super) fn overdue(&mut self, now_ns: u64) -> impl Iterator<Item = Parked> {
        // They came in this order, but for those that were let go on and came back: all are looked at.
        self.take_if(|packet| now_ns.saturating_sub(packet.since_ns) > PATIENCE_NS).into_iter()
    }

    fn take_if(&mut self, is_wanted: impl FnMut(&Parked) -> bool) -> VecDeque<Parked> {
        let (taken, kept) = std::mem::take(&mut self.packets).into_iter().partition(is_wanted);
        self.packets = kept;
        self.bytes = self.packets.iter().map(|packet| packet.bytes.len()).sum();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(port: u16, since_ns: u64) -> Parked {
        let (direction, ingress) = (Direction::Out, PortId(9));
        let cause = DropCause::Unresolved;
        Parked {
            cause,
            port: PortId(port),
            direction,
            ingress,
            pair: 0,
            since_ns,
            offload: Offload::NONE,
            bytes: vec![0; 1000],
        }
    }

    #[test]
    fn packets_stay_in_turn_and_within_bounds() {
        let mut park = Park::default();
        let mut put = 0;
        while park.has_room(1000) {
            park.push(packet(put % 3, u64::from(put)));
            put += 1;
        }
        assert_eq!(usize::from(put), MAX_PACKETS);
        let times: Vec<u64> = park.take(Some(PortId(1))).iter().map(|parked| parked.since_ns).collect();
        assert_eq!(times, (0..u64::from(put)).filter(|n| n % 3 == 1).collect::<Vec<_>>());
        assert!(park.has_room(1000));
        let late = park.overdue(PATIENCE_NS + 30).count();
        assert_eq!(late, 20, "those of ports 0 and 2 that came before");
        assert_eq!(park.take(None).len(), MAX_PACKETS - times.len() - late);
        assert!(park.is_empty() && park.bytes == 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut park = Park::default();
        while park.has_room(64 << 10) {
            park.push(Parked { bytes: vec![0; 64 << 10], ..packet(0, 0) });
        }
        assert_eq!(park.take(None).len(), MAX_BYTES / (64 << 10));
    }
}
