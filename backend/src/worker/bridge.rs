// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From filled windows to delivered packets: what every burst goes through that is looked at, wherever it came from.
//!
//! The first bytes of each frame are copied into a private window; the window is judged, and what was judged is what is
//! delivered. Payload beyond the window is copied once, from its source to its destination.

use std::sync::Arc;

use packet::{Burst, DropCause, EthernetHeader, MacAddr, Offload, PortId, Verdict, WINDOW};
use switch::{Bridge, bridge::admit};

use super::Worker;
use super::egress::Egress;
use super::finish::{Cutter, complete_checksum};
use super::handover::Sender;
use super::payload::Payload;
use super::slots::RxSlot;
use super::uplink::UplinkTx;
use crate::config::Vni;
use crate::counters::{PortCounters, WorkerCounters};
use crate::topology::{Forwarding, Routes, Topology};

/// Everything of a worker but the queues that bursts come from.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) index: usize,
    pub(super) counters: Arc<[WorkerCounters]>,
    pub(super) topology: Arc<Topology>,
    pub(super) routes: Routes,
    pub(super) bridge: Bridge,
    pub(super) burst: Box<Burst>,
    pub(super) rxs: Vec<RxSlot>,
    pub(super) uplinks: Vec<UplinkTx>,
    pub(super) outbound: Vec<Option<Sender>>,
    pub(super) cutter: Cutter,
    /// Packets of the burst, by their bits, whose link addresses the owner of their uplink is to find.
    pub(super) unrouted: u64,
}

/// Where a burst came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ingress<'a> {
    pub(super) port: PortId,
    pub(super) pair: u16,
    pub(super) payload: Payload<'a>,
    /// Whether a packet may have been left unfinished by its sender.
    pub(super) offloads: bool,
    pub(super) counters: Option<&'a PortCounters>,
}

impl Worker {
    /// Switches one burst of transmit slot `index`. Returns the frames that left the source.
    #[inline]
    pub(super) fn bridge(&mut self, index: usize, now: u64) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        self.path.burst.refill(source.common.port(), source.queue.frames(held));
        let bytes = self.path.burst.bytes();
        let ingress = Ingress {
            port: source.common.port(),
            pair: source.common.id.pair,
            payload: Payload::Queue(&source.queue),
            offloads: false,
            counters: source.common.counters(),
        };
        self.path.run(&ingress, self.clock.nanos_at(now));
        source.count_received(held, bytes);
        source.finish(held);
        held
    }

    /// Sends a frame that the node itself made, as if the guest at `port` had sent it.
    pub(super) fn inject(&mut self, port: PortId, frame: &[u8], now: u64) {
        self.path.burst.clear();
        let length = u32::try_from(frame.len().min(WINDOW)).unwrap_or(0);
        let Some(window) = self.path.burst.push(port, length, Offload::NONE, 0) else { return };
        window.copy_from_slice(frame.get(..window.len()).unwrap_or_default());
        let counters = self.path.topology.port(port).map(|entry| Arc::clone(&entry.counters));
        let counters = counters.as_ref().and_then(|counters| counters.get(self.path.index));
        let ingress = Ingress { port, pair: 0, payload: Payload::None, offloads: false, counters };
        self.path.run(&ingress, self.clock.nanos_at(now));
        self.notify();
    }
}

impl Path {
    /// Decides about the packets of the burst, which are all of one port, and delivers them.
    #[inline]
    pub(super) fn run(&mut self, ingress: &Ingress<'_>, now_ns: u64) {
        self.unrouted = 0;
        match self.routes.forwarding(ingress.port) {
            Forwarding::Wired(peer) => self.burst.set_pending(Verdict::Forward(peer)),
            Forwarding::Bridged => {
                self.admit(ingress, now_ns);
                self.bridge.process(&mut self.burst, now_ns);
            }
            Forwarding::Overlay(vni) => {
                self.admit(ingress, now_ns);
                self.switch_overlay(vni);
            }
            Forwarding::None => self.burst.set_pending(Verdict::Drop(DropCause::NoDestination)),
        }
        if ingress.offloads {
            self.complete_checksums(ingress);
        }
        self.deliver(ingress);
        self.tell_learned();
    }

    /// Takes out what no forwarder is to see: forged sources, what is for the node, what is in a tunnel.
    #[inline]
    fn admit(&mut self, ingress: &Ingress<'_>, now_ns: u64) {
        if let Some(mac) = self.routes.mac(ingress.port) {
            admit(&mut self.burst, mac);
        }
        if self.routes.has_own_addresses() {
            self.take_own(ingress, now_ns);
        }
    }

    /// Forwards among the ports of one virtual network, whose stations are all known.
    fn switch_overlay(&mut self, vni: Vni) {
        let routes = &self.routes;
        for packet in self.burst.judge().filter(|packet| *packet.verdict == Verdict::Pending) {
            *packet.verdict = match EthernetHeader::parse(packet.window) {
                None => Verdict::Drop(DropCause::Runt),
                Some(header) => station_verdict(routes, vni, header.destination(), packet.ingress),
            };
        }
    }

    /// Completes checksums of all packets but those that go to an uplink, which takes them as they are.
    fn complete_checksums(&mut self, ingress: &Ingress<'_>) {
        for i in 0..self.burst.len() {
            let to_uplink = |port| self.routes.uplink(port).is_some();
            let due = match self.burst.verdict(i) {
                Verdict::Forward(port) => !to_uplink(port),
                Verdict::Flood => true,
                Verdict::Pending | Verdict::Drop(_) | Verdict::Taken => false,
            };
            let offload = self.burst.offload(i);
            if !due || offload.is_finished() || offload.segmentation.is_some() {
                continue;
            }
            if let Err(cause) = complete_checksum(&mut self.burst, ingress.payload, i) {
                self.burst.set_verdict(i, Verdict::Drop(cause));
            }
        }
    }

    /// Does what the verdicts say.
    #[inline]
    pub(super) fn deliver(&mut self, ingress: &Ingress<'_>) {
        let Self { burst, routes, rxs, uplinks, outbound, cutter, unrouted, .. } = self;
        let own = self.counters.get(self.index);
        let mut egress = Egress { burst, routes, rxs, uplinks, outbound, cutter, unrouted: *unrouted, ingress, own };
        egress.deliver_all();
    }

    /// Tells the other workers' replicas what this one learned.
    #[inline]
    fn tell_learned(&mut self) {
        let Some(room) = self.outbound.iter().flatten().map(Sender::room_for_news).min() else { return };
        for news in self.bridge.take_announcements(room) {
            for sender in self.outbound.iter_mut().flatten() {
                sender.learned(news);
            }
        }
    }
}

/// Where a frame for `destination` goes in a virtual network.
pub(super) fn station_verdict(routes: &Routes, vni: Vni, destination: MacAddr, ingress: PortId) -> Verdict {
    if destination.is_multicast() {
        return if destination.is_reserved() { Verdict::Drop(DropCause::ReservedAddress) } else { Verdict::Flood };
    }
    match routes.station(vni, destination) {
        Some(port) if port == ingress => Verdict::Drop(DropCause::Reflection),
        Some(port) => Verdict::Forward(port),
        None => Verdict::Drop(DropCause::NoDestination),
    }
}
