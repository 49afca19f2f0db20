// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From filled windows to delivered packets: what every burst goes through that is looked at, wherever it came from.
//!
//! The first bytes of each frame are copied into a private window; the window is judged, and what was judged is what is
//! delivered. Payload beyond the window is copied once, from its source to its destination.
//!
//! Forged sources and what is for the node itself are taken out first; then a packet meets the policy of the port that it
//! came from, is forwarded (by tunnel, virtual network or bridge), and meets the policy of the port that it is for.

use std::sync::Arc;

use packet::{Burst, DropCause, EthernetHeader, MacAddr, Offload, PortId, Verdict, WINDOW};
use switch::model::Direction;
use switch::{Bridge, bridge::admit};

use super::Worker;
use super::aggregate;
use super::egress::Egress;
use super::finish::{Cutter, complete_checksum};
use super::handover::Sender;
use super::payload::Payload;
use super::policy::{Police, Waiting};
use super::slots::RxSlot;
use super::tunnel;
use super::uplink::UplinkTx;
use crate::config::Vni;
use crate::counters::WorkerCounters;
use crate::inspect::Sinks;
use crate::topology::{Forwarding, Route, Routes, Topology};

/// Everything of a worker but the queues that bursts come from.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) index: usize,
    pub(super) counters: Arc<[WorkerCounters]>,
    pub(super) topology: Arc<Topology>,
    pub(super) routes: Routes,
    /// How often the routes were compiled, or addresses fixed.
    pub(super) changes: u64,
    pub(super) bridge: Bridge,
    pub(super) police: Police,
    pub(super) burst: Box<Burst>,
    /// Copies of packets for all, for ports that have policy.
    pub(super) copies: Box<Burst>,
    /// Packets of runs that are looked at one by one.
    pub(super) spare: Box<Burst>,
    pub(super) rxs: Vec<RxSlot>,
    pub(super) uplinks: Vec<UplinkTx>,
    /// Who captures.
    pub(super) sinks: Sinks,
    pub(super) outbound: Vec<Option<Sender>>,
    pub(super) cutter: Cutter,
    /// Whether of the last burst with runs some were looked at one by one.
    pub(super) expanded: bool,
    /// Which stations bridges between nodes are shown next.
    pub(super) round: aggregate::Round,
}

/// Where a burst came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ingress<'a> {
    pub(super) port: PortId,
    pub(super) pair: u16,
    pub(super) payload: Payload<'a>,
    /// Whether a packet may have been left unfinished by its sender.
    pub(super) offloads: bool,
    /// Since when a packet waits that waited before, in nanoseconds.
    pub(super) waits_since: Option<u64>,
}

impl Worker {
    /// Switches one burst of transmit slot `index`. Returns the frames that left the source.
    #[inline]
    pub(super) fn bridge(&mut self, index: usize, now: u64) -> usize {
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        if source.linked {
            return self.bridge_linked(index, now);
        }
        let held = source.harvest();
        if held == 0 {
            return 0;
        }
        self.path.burst.refill(source.common.port(), source.queue.frames(held));
        if aggregate::refuse(&mut self.path.burst) && self.link(index, now) {
            // Once more, now that somebody takes them.
            return self.bridge_linked(index, now);
        }
        let Some(source) = self.txs.get_mut(index) else { return 0 };
        let bytes = self.path.burst.bytes();
        let ingress = Ingress {
            port: source.common.port(),
            pair: source.common.id.pair,
            payload: Payload::Queue(&source.queue),
            offloads: false,
            waits_since: None,
        };
        self.path.enter(&ingress, self.clock.nanos_at(now));
        source.count_received(held, bytes);
        source.finish(held);
        held
    }

    /// Sends a frame that the node itself made, as if the guest at `port` had sent it. It does not meet policy of that
    /// port.
    pub(super) fn inject(&mut self, port: PortId, frame: &[u8], now: u64) {
        let path = &mut self.path;
        let Some(rest) = path.load(port, frame, Offload::NONE) else { return };
        let now_ns = self.clock.nanos_at(now);
        path.screen(port, now_ns);
        path.forward(port, now_ns);
        let payloads = [rest];
        let payload = Payload::Slices(&payloads);
        let ingress = Ingress { port, pair: 0, payload, offloads: false, waits_since: None };
        path.run(&ingress, Direction::In, now_ns);
        self.notify();
    }
}

impl Path {
    /// Takes the packets of the burst, which are all of one port, from there to where they go. `Out`: they come from that
    /// port; `In`: where they go is known.
    #[inline]
    pub(super) fn run(&mut self, ingress: &Ingress<'_>, direction: Direction, now_ns: u64) {
        let waiting =
            Waiting { payload: ingress.payload, pair: ingress.pair, since_ns: ingress.waits_since.unwrap_or(now_ns) };
        let any_policy = self.routes.any_policy();
        if any_policy {
            self.police.engine.begin_burst(self.bridge.stats().changes().wrapping_add(self.changes));
        }
        if direction == Direction::Out {
            // What is wired is not looked at.
            if !matches!(self.routes.forwarding(ingress.port), Forwarding::Wired(_)) {
                self.screen(ingress.port, now_ns);
                match self.routes.home(ingress.port) {
                    None => {}
                    Some(home) if home == self.index => {
                        self.police.apply(&mut self.burst, ingress.port, Direction::Out, now_ns, &waiting);
                    }
                    Some(home) => return self.egress(ingress, now_ns).hand_over_all(home),
                }
            }
            self.forward(ingress.port, now_ns);
        }
        if any_policy {
            self.police.inbound(&mut self.burst, &self.routes, self.index, now_ns, &waiting);
        }
        self.expanded = false;
        if self.burst.has_many() {
            self.expanded = self.deliver_runs(ingress, now_ns);
            return self.tell_learned();
        }
        if ingress.offloads {
            self.complete_checksums(ingress);
        }
        self.egress(ingress, now_ns).deliver_all();
        if any_policy && self.burst.verdicts().contains(&Verdict::Flood) {
            self.flood_policed(ingress, &waiting, now_ns);
        }
        self.tell_learned();
    }

    /// Makes the burst one packet. Returns what of it is beyond its window, as the payload of handle 0; `None`: no packet can
    /// be as long.
    pub(super) fn load<'a>(&mut self, ingress: PortId, bytes: &'a [u8], offload: Offload) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at(bytes.len().min(WINDOW));
        self.burst.clear();
        let window = self.burst.push(ingress, u32::try_from(bytes.len()).ok()?, offload, 0)?;
        if window.len() != head.len() {
            return None;
        }
        window.copy_from_slice(head);
        Some(rest)
    }

    /// Takes out what a port may not send, and what is said about the neighbours of an uplink.
    #[inline]
    fn screen(&mut self, ingress: PortId, now_ns: u64) {
        if let Some(mac) = self.routes.mac(ingress) {
            admit(&mut self.burst, mac);
        }
        if self.routes.has_own_addresses() {
            self.screen_own(ingress, now_ns);
        }
    }

    /// Decides about the packets of the burst that are still pending, all from one port.
    #[inline]
    fn forward(&mut self, ingress: PortId, now_ns: u64) {
        let forwarding = self.routes.forwarding(ingress);
        if self.routes.has_own_addresses() && !matches!(forwarding, Forwarding::Wired(_)) {
            self.forward_tunnels(ingress);
        }
        match forwarding {
            Forwarding::Wired(peer) => self.burst.set_pending(Verdict::Forward(peer)),
            Forwarding::Bridged => self.bridge.process(&mut self.burst, now_ns),
            Forwarding::Overlay(vni) => self.switch_overlay(vni),
            Forwarding::None => self.burst.set_pending(Verdict::Drop(DropCause::NoDestination)),
        }
    }

    /// Gives ports with policy their own copies of what is for many, as their policy leaves them.
    #[cold]
    fn flood_policed(&mut self, ingress: &Ingress<'_>, waiting: &Waiting<'_>, now_ns: u64) {
        let Self { burst, copies, police, routes, rxs, uplinks, outbound, cutter, topology, counters, index, .. } =
            self;
        for port in routes.policed().filter(|port| *port != ingress.port) {
            let is_for = |i| {
                segment_of(routes, burst, i, ingress.port) == routes.forwarding(port)
                    && takes_refresh(routes, burst, i, ingress.port, port)
            };
            copies.clear();
            for at in (0..burst.len()).filter(|at| burst.verdict(*at) == Verdict::Flood && is_for(*at)) {
                copies.push_copy(burst, at, Verdict::Forward(port));
            }
            if copies.is_empty() {
                continue;
            }
            police.engine.leave_burst();
            if routes.home(port) == Some(*index) {
                police.apply(copies, port, Direction::In, now_ns, waiting);
            }
            let of_port = topology.port(ingress.port).and_then(|entry| entry.counters.get(*index));
            let own = counters.get(*index);
            let mut egress = Egress {
                burst: copies,
                routes,
                rxs,
                uplinks,
                outbound,
                cutter,
                ingress,
                of_port,
                own,
                worker: *index,
                now_ns,
            };
            egress.deliver_all();
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

    /// Completes checksums of all packets but those that go to an uplink that takes them as they are, or to somebody there who does.
    fn complete_checksums(&mut self, ingress: &Ingress<'_>) {
        for i in 0..self.burst.len() {
            let due = match self.burst.verdict(i) {
                Verdict::Forward(port) | Verdict::Deliver(port) => {
                    !self.routes.uplink(port).is_some_and(|uplink| uplink.takes_unfinished)
                        && !carries(&self.uplinks, &self.routes, &self.burst, port, ingress.pair, i)
                }
                Verdict::Flood => true,
                Verdict::Pending
                | Verdict::Drop(_)
                | Verdict::Park(_)
                | Verdict::Parked
                | Verdict::Taken
                | Verdict::Expand
                | Verdict::ExpandTo(_) => false,
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

    /// What the burst is delivered with.
    #[inline]
    fn egress<'a>(&'a mut self, ingress: &'a Ingress<'a>, now_ns: u64) -> Egress<'a> {
        let Self { burst, routes, rxs, uplinks, outbound, cutter, topology, counters, index, .. } = self;
        let of_port = topology.port(ingress.port).and_then(|entry| entry.counters.get(*index));
        let own = counters.get(*index);
        Egress { burst, routes, rxs, uplinks, outbound, cutter, ingress, of_port, own, worker: *index, now_ns }
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

/// Whether packet `i` can leave by a port as its sender left it: in an aggregate, to somebody who takes that. What is to be routed cannot.
pub(super) fn carries(uplinks: &[UplinkTx], routes: &Routes, burst: &Burst, port: PortId, pair: u16, i: usize) -> bool {
    let (Route::Uplink(uplink), offload) = (routes.to(port, pair), burst.offload(i)) else { return false };
    let (head, len) = (burst.window(i), burst.frame_len(i) as usize);
    !offload.is_finished()
        && uplinks.get(uplink).is_some_and(|uplink| uplink.carries(head, len, offload))
        && tunnel::begins_here(routes, head).is_none()
}

/// Whether packet `i`, which is for all, is for this port. What is only there to show a station to bridges goes from network to network.
pub(super) fn takes_refresh(routes: &Routes, burst: &Burst, i: usize, ingress: PortId, port: PortId) -> bool {
    routes.uplink(port).is_some() || routes.uplink(ingress).is_none() || !aggregate::is_refresh(burst.window(i))
}

/// To whom a flood of packet `i` goes: what is in a tunnel that ends here is for one virtual network, whoever brought it.
pub(super) fn segment_of(routes: &Routes, burst: &Burst, i: usize, ingress: PortId) -> Forwarding {
    let inner = tunnel::ends_here(routes, burst, i).map(|end| Forwarding::Overlay(end.vni));
    inner.unwrap_or_else(|| routes.forwarding(ingress))
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
