// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Uplinks that a worker owns: a receiving end that fills bursts, and a sending end with its neighbours.
//!
//! # Theory of operation
//!
//! Both ends belong to one worker, the first of the port's. What another worker has for an uplink is handed over like a
//! packet for a guest. Frames are copied into a slot of the transmit ring at once and leave with one system call per turn.
//!
//! A packet that the node itself routes (it put a tunnel around it) gets its Ethernet addresses here: the next hop is
//! looked up, asked for if it is not known, and the packet waits for the answer in the uplink's park. Only the owner of an
//! uplink knows its neighbours, so another worker hands such a packet over as *to be routed*.

use std::net::IpAddr;
use std::sync::Arc;

use packet::{DropCause, EthernetHeader, MacAddr, Offload, PortId};
use switch::neighbors::{Neighbor, Neighbors, NeighborsStats, Resolution};
use virtqueue::NetHeader;

use super::finish::{Cutter, header_of};
use super::park::Park;
use crate::counters::PortCounters;
use crate::sys::{Flushed, PacketSocket, RxRing, TxRing};

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// An uplink on its way to a worker, or back.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) port: PortId,
    pub(crate) rx: RxRing,
    pub(crate) tx: TxRing,
    /// Longest IP packet that is sent.
    pub(crate) mtu: usize,
    /// Who is where on the link; `None`: the uplink has no address and routes nothing.
    pub(crate) neighbors: Option<Box<Neighbors>>,
}

/// What can be told about an uplink's link.
#[derive(Debug, Default)]
pub(crate) struct LinkReport {
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) stats: NeighborsStats,
    /// Packets that wait for a neighbour.
    pub(crate) parked: usize,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct UplinkRx {
    pub(super) port: PortId,
    pub(super) ring: RxRing,
    pub(super) counters: Arc<[PortCounters]>,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct UplinkTx {
    pub(super) port: PortId,
    pub(super) ring: TxRing,
    counters: Arc<[PortCounters]>,
    worker: usize,
    mtu: usize,
    neighbors: Option<Box<Neighbors>>,
    park: Park,
}

/// Where a packet that is routed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// To this station.
    Known(MacAddr),
    /// Into the park, until this neighbour is known.
    Wait(IpAddr),
    /// Nowhere.
    None,
}

impl Uplink {
    /// Takes it apart for a worker.
    pub(super) fn split(self, counters: Arc<[PortCounters]>, worker: usize) -> (UplinkRx, UplinkTx) {
        let Self { port, rx, tx, mtu, neighbors } = self;
        let receiving = UplinkRx { port, ring: rx, counters: Arc::clone(&counters) };
        let sending = UplinkTx { port, ring: tx, counters, worker, mtu, neighbors, park: Park::default() };
        (receiving, sending)
    }

    /// Puts it together again. What is parked is lost: its neighbours are.
    pub(super) fn join(rx: UplinkRx, tx: UplinkTx) -> Self {
        if let Some(counters) = tx.counters.get(tx.worker) {
            counters.drop_packets(DropCause::Unresolved, tx.park.len() as u64);
        }
        Self { port: rx.port, rx: rx.ring, tx: tx.ring, mtu: tx.mtu, neighbors: tx.neighbors }
    }

    pub(crate) fn socket(&self) -> &Arc<PacketSocket> {
        self.rx.socket()
    }
}

impl UplinkTx {
    /// Puts a frame into the ring: `head`, and `tail_len` bytes more that `tail` writes.
    pub(super) fn send(&mut self, header: NetHeader, head: &[u8], tail_len: usize, tail: impl FnOnce(&mut [u8])) {
        let len = head.len() + tail_len;
        let Some(ethernet) = EthernetHeader::parse(head) else { return self.drop_packets(DropCause::Runt, 1) };
        let tag = if ethernet.ether_type().is_vlan() { TAG } else { 0 };
        if len > self.mtu + EthernetHeader::LEN + tag {
            return self.drop_packets(DropCause::LinkMtu, 1);
        }
        let fill = |room: &mut [u8]| {
            let (first, rest) = room.split_at_mut(head.len().min(room.len()));
            first.copy_from_slice(head);
            tail(rest);
        };
        if !self.ring.has_room() {
            // Once more after all that waits has gone; that it goes at the end of the turn is only for speed.
            self.flush();
        }
        if self.ring.push(len, header, fill) {
            if let Some(counters) = self.counters.get(self.worker) {
                counters.tx_packets.add(1);
                counters.tx_bytes.add(len as u64);
            }
        } else {
            self.drop_packets(DropCause::NoBuffers, 1);
        }
    }

    /// Puts a frame into the ring that is in one piece.
    pub(super) fn send_bytes(&mut self, header: NetHeader, bytes: &[u8]) {
        self.send(header, bytes, 0, |_| {});
    }

    /// Hands what is in the ring to the kernel. Returns whether all of it went.
    pub(super) fn flush(&mut self) -> bool {
        match self.ring.flush() {
            Flushed::All => true,
            Flushed::Later => false,
            Flushed::Lost(frames) => {
                self.drop_packets(DropCause::NotReady, frames);
                true
            }
        }
    }

    /// Finds the next hop towards `destination`, and asks for it if need be.
    pub(super) fn resolve(&mut self, destination: IpAddr, now_ns: u64) -> Hop {
        let Some(neighbors) = &mut self.neighbors else { return Hop::None };
        let Some(hop) = neighbors.next_hop(destination) else { return Hop::None };
        match neighbors.resolve(hop, now_ns) {
            Resolution::Known(mac) => Hop::Known(mac),
            Resolution::Failed => Hop::None,
            Resolution::Unresolved { ask } => {
                if let Some(ask) = ask {
                    self.send_bytes(NetHeader::default(), &ask);
                }
                Hop::Wait(hop)
            }
        }
    }

    /// The addresses of the link's own header for a frame to `station`.
    pub(super) fn addresses(&self, station: MacAddr) -> [u8; 12] {
        let own = self.neighbors.as_ref().map_or(MacAddr::ZERO, |neighbors| neighbors.mac());
        let mut bytes = [0; 12];
        let (to, from) = bytes.split_at_mut(6);
        to.copy_from_slice(&station.0);
        from.copy_from_slice(&own.0);
        bytes
    }

    /// Parks a packet of `len` bytes that `fill` writes, until `hop` is known.
    pub(super) fn park(
        &mut self,
        hop: IpAddr,
        len: usize,
        offload: Offload,
        now_ns: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropCause> {
        if self.park.put(hop, len, offload, now_ns, fill) { Ok(()) } else { Err(DropCause::ParkFull) }
    }

    /// Sends a packet that is to be routed towards `destination` and came from another worker.
    pub(super) fn send_routed(&mut self, destination: IpAddr, offload: Offload, bytes: &[u8], now_ns: u64) {
        match self.resolve(destination, now_ns) {
            Hop::Known(mac) => self.send_to(mac, header_of(offload), bytes),
            Hop::None => self.drop_packets(DropCause::Unresolved, 1),
            Hop::Wait(hop) => {
                let parked = self.park(hop, bytes.len(), offload, now_ns, |room| room.copy_from_slice(bytes));
                if let Err(cause) = parked {
                    self.drop_packets(cause, 1);
                }
            }
        }
    }

    /// Takes in a frame that arrived here. Returns whether it was for the node itself.
    pub(super) fn hear(&mut self, window: &[u8], cutter: &mut Cutter, now_ns: u64) -> bool {
        let Some(neighbors) = &mut self.neighbors else { return false };
        let heard = neighbors.receive(window, now_ns);
        if let Some(reply) = heard.reply {
            self.send_bytes(NetHeader::default(), &reply);
        }
        if let Some(neighbor) = heard.learned {
            self.release(neighbor, cutter, now_ns);
        }
        heard.ours
    }

    /// Tells the link of the node's addresses.
    pub(super) fn announce(&mut self) {
        let frames = self.neighbors.as_ref().map(|neighbors| neighbors.announcements()).unwrap_or_default();
        for frame in frames {
            self.send_bytes(NetHeader::default(), &frame);
        }
    }

    /// Does what is due.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        let Some(neighbors) = &mut self.neighbors else { return };
        let swept = neighbors.sweep(now_ns);
        for ask in swept.asks {
            self.send_bytes(NetHeader::default(), &ask);
        }
        let failed: usize = swept.failed.into_iter().map(|hop| self.park.take(hop).len()).sum();
        let expired = self.park.expire(now_ns);
        self.drop_packets(DropCause::Unresolved, failed + expired);
    }

    /// Whether something will be due that no packet brings about.
    pub(super) fn has_timers(&self) -> bool {
        self.park.len() > 0 || self.neighbors.as_ref().is_some_and(|neighbors| neighbors.entries().next().is_some())
    }

    pub(super) fn report(&self) -> LinkReport {
        let Some(neighbors) = &self.neighbors else { return LinkReport::default() };
        LinkReport { neighbors: neighbors.entries().collect(), stats: neighbors.stats(), parked: self.park.len() }
    }

    #[inline]
    pub(super) fn drop_packets(&self, cause: DropCause, n: usize) {
        if let Some(counters) = self.counters.get(self.worker) {
            counters.drop_packets(cause, n as u64);
        }
    }

    /// Sends what waited for a neighbour.
    fn release(&mut self, hop: IpAddr, cutter: &mut Cutter, now_ns: u64) {
        let Some(Resolution::Known(mac)) = self.neighbors.as_mut().map(|n| n.resolve(hop, now_ns)) else { return };
        for waiting in self.park.take(hop) {
            if waiting.offload.segmentation.is_none() {
                self.send_to(mac, header_of(waiting.offload), &waiting.bytes);
                continue;
            }
            let cut = cutter.cut_frame(&waiting.bytes, waiting.offload, |segment| {
                self.send_to(mac, NetHeader::default(), segment);
            });
            if let Err(cause) = cut {
                self.drop_packets(cause, 1);
            }
        }
    }

    /// Sends a frame to a station of the link.
    fn send_to(&mut self, station: MacAddr, header: NetHeader, bytes: &[u8]) {
        let addresses = self.addresses(station);
        let rest = bytes.get(addresses.len()..).unwrap_or_default();
        // The header is read in `send`: it must have its type.
        let (ether_type, body) = rest.split_at(rest.len().min(2));
        let mut head = [0; EthernetHeader::LEN];
        for (to, from) in head.iter_mut().zip(addresses.iter().chain(ether_type)) {
            *to = *from;
        }
        self.send(header, &head, body.len(), |room| room.copy_from_slice(body));
    }
}
