// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Uplinks that a worker owns: a receiving end that fills bursts, and a sending end with its neighbours.
//!
//! # Theory of operation
//!
//! Both ends belong to one worker, the first of the port's. What another worker has for an uplink is handed over like a
//! packet for a guest. Frames are copied into the link's own memory at once and leave together at the end of the turn.
//!
//! A packet in a tunnel that begins at the node gets its Ethernet addresses here: the next hop is looked up, asked for if
//! it is not known, and the packet waits for the answer in the uplink's park. Only the owner of an uplink knows its
//! neighbours, so whoever else has such a packet leaves its addresses as they are.

mod aware;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use aggregation::Trigger;
use packet::{DropCause, EthernetHeader, MacAddr, Offload, PortId};
use switch::neighbors::{Neighbor, Neighbors, NeighborsStats, Resolution};
use virtqueue::NetHeader;

use super::aggregate::{self, Wire, WireConfig};
use super::finish::header_of;
use super::hop_park::HopPark;
use crate::config::NodeConfig;
use crate::counters::PortCounters;
use crate::inspect::Tap;
use crate::link::{LinkRx, LinkTx};
use crate::sys::Flushed;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// An uplink on its way to a worker, or back.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) port: PortId,
    pub(crate) rx: LinkRx,
    pub(crate) tx: LinkTx,
    /// Longest IP packet that is sent.
    pub(crate) mtu: usize,
    /// Who is where on the link; `None`: the uplink has no address and routes nothing.
    pub(crate) neighbors: Option<Box<Neighbors>>,
    /// How aware nodes are looked for; `None`: they are not.
    pub(crate) wire: Option<WireConfig>,
}

/// What can be told about an uplink's link.
#[derive(Debug, Default)]
pub(crate) struct LinkReport {
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) stats: NeighborsStats,
    /// Packets that wait for a neighbour.
    pub(crate) parked: usize,
    /// What was wrong with what came since the last report, by cause.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct UplinkRx {
    pub(super) port: PortId,
    pub(super) ring: LinkRx,
    pub(super) counters: Arc<[PortCounters]>,
    /// Frames that the ring holds and a turn has left to the next, by their places.
    pub(super) left: Range<usize>,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct UplinkTx {
    pub(super) port: PortId,
    pub(super) ring: LinkTx,
    counters: Arc<[PortCounters]>,
    worker: usize,
    mtu: usize,
    neighbors: Option<Box<Neighbors>>,
    park: HopPark,
    /// Who captures what leaves here.
    pub(super) tap: Option<Box<Tap>>,
    /// Who is aware on the link; `None`: nobody is looked for.
    pub(super) wire: Option<Box<Wire>>,
}

impl Uplink {
    /// Takes it apart for a worker.
    pub(super) fn split(
        self,
        counters: Arc<[PortCounters]>,
        worker: usize,
        node: NodeConfig,
        now_ns: u64,
    ) -> (UplinkRx, UplinkTx) {
        let Self { port, rx, mut tx, mtu, neighbors, wire } = self;
        tx.set_stage(node.stage());
        let wire = wire.map(|config| Box::new(Wire::new(node, config, now_ns)));
        let mut rx = rx;
        if wire.is_some() {
            rx.show_control();
        }
        let receiving = UplinkRx { port, ring: rx, counters: Arc::clone(&counters), left: 0..0 };
        let sending =
            UplinkTx { port, ring: tx, counters, worker, mtu, neighbors, park: HopPark::default(), tap: None, wire };
        (receiving, sending)
    }

    /// Puts it together again. What is held for others to join it goes before. What is parked is lost: its neighbours are. So are frames that a turn has left to the next.
    pub(super) fn join(mut rx: UplinkRx, mut tx: UplinkTx) -> Self {
        tx.ship_all(Trigger::Order);
        tx.flush();
        if let Some(counters) = tx.counters.get(tx.worker) {
            counters.drop_packets(DropCause::Unresolved, tx.park.len() as u64);
            counters.drop_packets(DropCause::NotReady, rx.left.len() as u64);
        }
        rx.ring.release();
        let wire = tx.wire.map(|wire| wire.config);
        Self { port: rx.port, rx: rx.ring, tx: tx.ring, mtu: tx.mtu, neighbors: tx.neighbors, wire }
    }
}

impl UplinkRx {
    /// Whether a frame may wait; one that comes later is told by the ring's descriptor.
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        !self.left.is_empty() || self.ring.has_frames()
    }

    /// The places of frames that the ring holds now: those that were left, or new ones.
    #[inline]
    pub(super) fn hold(&mut self) -> Range<usize> {
        if self.left.is_empty() {
            return 0..self.ring.harvest();
        }
        std::mem::take(&mut self.left)
    }

    /// A turn ends with these still to be dealt with.
    #[inline]
    pub(super) fn leave(&mut self, left: Range<usize>) {
        if left.is_empty() {
            self.ring.release();
        }
        self.left = left;
    }
}

impl UplinkTx {
    /// Puts a frame into the ring: `head`, and `tail_len` bytes more that `tail` writes. A frame that the node routes goes
    /// to `station`.
    pub(super) fn send(
        &mut self,
        station: Option<MacAddr>,
        offload: Offload,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        now_ns: u64,
    ) {
        let len = head.len() + tail_len;
        let Some(ethernet) = EthernetHeader::parse(head) else { return self.drop_frame(DropCause::Runt, head, len) };
        let tag = if ethernet.ether_type().is_vlan() { TAG } else { 0 };
        if len > self.mtu + EthernetHeader::LEN + tag {
            return self.drop_frame(DropCause::LinkMtu, head, len);
        }
        if self.wire.is_some() {
            return self.send_aware(station, offload, head, tail_len, tail, now_ns);
        }
        self.send_plain(station, offload, head, tail_len, tail);
    }

    /// Puts a frame into the ring. `false`: there is no room.
    fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        if !self.ring.has_room() {
            // Once more after all that waits has gone; that it goes at the end of the turn is only for speed.
            self.flush();
        }
        self.ring.push(len, header, fill)
    }

    /// Puts a plain frame into the ring.
    fn send_plain(
        &mut self,
        station: Option<MacAddr>,
        offload: Offload,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
    ) {
        let len = head.len() + tail_len;
        // Whoever is aware would take it for the node's.
        if self.wire.is_some() && aggregate::is_aggregate(head) {
            return self.drop_frame(DropCause::Aggregate, head, len);
        }
        if self.tap.is_none() {
            return self.put_plain(station, offload, head, tail_len, tail, |_| {});
        }
        let tap = self.tap.take();
        self.put_plain(station, offload, head, tail_len, tail, |frame| tap.iter().for_each(|tap| tap.see_bytes(frame)));
        self.tap = tap;
    }

    /// As [`UplinkTx::send_plain`], and shows the frame to `see` if it has gone.
    #[inline]
    fn put_plain(
        &mut self,
        station: Option<MacAddr>,
        offload: Offload,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        see: impl FnOnce(&[u8]),
    ) {
        let len = head.len() + tail_len;
        let header = header_of(offload);
        let addresses = station.map(|station| self.addresses(station));
        let fill = |room: &mut [u8]| {
            let (first, rest) = room.split_at_mut(head.len().min(room.len()));
            first.copy_from_slice(head);
            tail(rest);
            for (to, from) in first.iter_mut().zip(addresses.iter().flatten()) {
                *to = *from;
            }
            see(room);
        };
        if self.push(len, header, fill) {
            if let Some(counters) = self.counters.get(self.worker) {
                counters.tx_packets.add(1);
                counters.tx_bytes.add(len as u64);
            }
        } else {
            self.drop_frame(DropCause::NoBuffers, head, len);
        }
    }

    /// Puts a frame into the ring that the node routes towards `destination`, or parks it. As [`UplinkTx::send`].
    pub(super) fn send_routed(
        &mut self,
        destination: IpAddr,
        offload: Offload,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        now_ns: u64,
    ) {
        let unresolved = |uplink: &Self| uplink.drop_frame(DropCause::Unresolved, head, head.len() + tail_len);
        let Some(neighbors) = &mut self.neighbors else { return unresolved(self) };
        let Some(hop) = neighbors.next_hop(destination) else { return unresolved(self) };
        match neighbors.resolve(hop, now_ns) {
            Resolution::Known(mac) => self.send(Some(mac), offload, head, tail_len, tail, now_ns),
            Resolution::Failed => unresolved(self),
            Resolution::Unresolved { ask } => {
                if let Some(ask) = ask {
                    self.send_bytes(&ask);
                }
                let fill = |room: &mut [u8]| {
                    let (first, rest) = room.split_at_mut(head.len().min(room.len()));
                    first.copy_from_slice(head);
                    tail(rest);
                };
                if !self.park.put(hop, head.len() + tail_len, offload, now_ns, fill) {
                    self.drop_frame(DropCause::ParkFull, head, head.len() + tail_len);
                }
            }
        }
    }

    /// Puts a frame into the ring that the node itself made.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.send_plain(None, Offload::NONE, bytes, 0, |_| {});
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

    /// The addresses of the link's own header for a frame to `station`.
    fn addresses(&self, station: MacAddr) -> [u8; 12] {
        let own = self.neighbors.as_ref().map_or(MacAddr::ZERO, |neighbors| neighbors.mac());
        let mut bytes = [0; 12];
        let (to, from) = bytes.split_at_mut(6);
        to.copy_from_slice(&station.0);
        from.copy_from_slice(&own.0);
        bytes
    }

    /// Takes in a frame that arrived here. Returns whether it was for the node itself.
    pub(super) fn hear(&mut self, window: &[u8], now_ns: u64) -> bool {
        let Some(neighbors) = &mut self.neighbors else { return false };
        let heard = neighbors.receive(window, now_ns);
        if let Some(reply) = heard.reply {
            self.send_bytes(&reply);
        }
        if let Some(neighbor) = heard.learned {
            self.release(neighbor, now_ns);
        }
        heard.ours
    }

    /// Tells the link of the node's addresses.
    pub(super) fn announce(&mut self) {
        let frames = self.neighbors.as_ref().map(|neighbors| neighbors.announcements()).unwrap_or_default();
        for frame in frames {
            self.send_bytes(&frame);
        }
    }

    /// Does what is due.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        let Some(neighbors) = &mut self.neighbors else { return };
        let swept = neighbors.sweep(now_ns);
        for ask in swept.asks {
            self.send_bytes(&ask);
        }
        let mut lost = self.park.expire(now_ns);
        lost.extend(swept.failed.into_iter().flat_map(|hop| self.park.take(hop)));
        for waiting in lost {
            self.drop_frame(DropCause::Unresolved, &waiting.bytes, waiting.bytes.len());
        }
    }

    /// Whether something will be due that no packet brings about.
    pub(super) fn has_timers(&self) -> bool {
        self.wire.is_some()
            || self.park.len() > 0
            || self.neighbors.as_ref().is_some_and(|neighbors| neighbors.entries().next().is_some())
    }

    pub(super) fn report(&self) -> LinkReport {
        let Some(neighbors) = &self.neighbors else { return LinkReport::default() };
        LinkReport {
            neighbors: neighbors.entries().collect(),
            stats: neighbors.stats(),
            parked: self.park.len(),
            faults: BTreeMap::new(),
        }
    }

    /// Counts a packet of `length` bytes that begins with `head`.
    #[inline]
    pub(super) fn drop_frame(&self, cause: DropCause, head: &[u8], length: usize) {
        self.drop_alike(cause, 1, head, length);
    }

    /// Counts packets that are dropped as one frame.
    #[inline]
    pub(super) fn drop_alike(&self, cause: DropCause, n: usize, head: &[u8], length: usize) {
        if let Some(counters) = self.counters.get(self.worker) {
            counters.drop_alike(cause, n as u64, head, length);
        }
    }

    /// Counts packets whose bytes are not at hand any more.
    #[inline]
    pub(super) fn drop_packets(&self, cause: DropCause, n: usize) {
        if let Some(counters) = self.counters.get(self.worker) {
            counters.drop_packets(cause, n as u64);
        }
    }

    /// Sends what waited for a neighbour.
    fn release(&mut self, hop: IpAddr, now_ns: u64) {
        let Some(Resolution::Known(mac)) = self.neighbors.as_mut().map(|n| n.resolve(hop, now_ns)) else { return };
        for waiting in self.park.take(hop) {
            self.send(Some(mac), waiting.offload, &waiting.bytes, 0, |_| {}, now_ns);
        }
    }
}
