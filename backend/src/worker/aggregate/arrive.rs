// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What arrives at an uplink on which there may be aware nodes.
//!
//! # Theory of operation
//!
//! A slot of a link's ring is private memory while it is held, so check words are compared, and groups can be sent on as they lie. A
//! group for another node goes whole into the frame of the peer behind which that node is; nothing behind its header is
//! looked at, whatever is in it. All others are taken apart, in the order of the frames they came in.

use aggregation::{GroupKey, Item, Reader};
use packet::{Burst, Checksum, DropCause, EthernetHeader, MAX_BURST, MacAddr, PortId, Verdict};
use switch::model::Direction;

use super::super::bridge::{Ingress, Path};
use super::super::payload::Payload;
use super::runs::{self, Hope, Ranges};
use super::wire;
use crate::counters::PortCounters;
use crate::link::PEER;

/// Stations that newcomers are told of at once; they learn of others as those speak.
const WELCOME: usize = 1024;

/// The tools with which frames are taken apart.
pub(in crate::worker) struct Tools<'a> {
    pub(in crate::worker) reader: &'a mut Reader,
    pub(in crate::worker) ranges: &'a mut Ranges,
    pub(in crate::worker) hope: &'a mut Hope,
    pub(in crate::worker) counters: Option<&'a PortCounters>,
    pub(in crate::worker) now_ns: u64,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Arrived {
    pub(in crate::worker) packets: usize,
    pub(in crate::worker) bytes: u64,
}

impl Path {
    /// Deals with a frame of the type of aggregates that arrived at an uplink.
    pub(in crate::worker) fn arrive(&mut self, uplink: usize, frame: &[u8], tools: &mut Tools<'_>) -> Arrived {
        let (counters, now_ns) = (tools.counters, tools.now_ns);
        let refused = || {
            counters.into_iter().for_each(|counters| counters.drop_packets(DropCause::Aggregate, 1));
            Arrived::default()
        };
        let Some(ethernet) = EthernetHeader::parse(frame) else { return refused() };
        let (from, to) = (ethernet.source(), ethernet.destination());
        let Some(link) = self.uplinks.get_mut(uplink) else { return refused() };
        let Some(wire) = link.wire.as_mut() else { return refused() };
        // Where there is one peer its packets come without such headers: one that has one is a packet that claims to be more.
        if wire.config.one_peer && from != PEER {
            return refused();
        }
        // A switch that does not know a station shows its frames to all.
        let (own, mine) = (wire.config.mac, wire.config.one_peer || to == wire.config.mac);
        if !from.is_unicast() || from == own {
            return refused();
        }
        let limits = wire.limits();
        let header = match tools.reader.begin(frame, EthernetHeader::LEN, &limits) {
            Ok(header) => header,
            Err(cause) => {
                counters.into_iter().for_each(|counters| counters.damage(cause));
                return refused();
            }
        };
        if !(mine || header.control && to.is_multicast()) {
            return refused();
        }
        if header.control {
            // What is open is sent under what was agreed.
            link.ship_all();
            let Some(wire) = link.wire.as_mut() else { return refused() };
            let body = frame.get(EthernetHeader::LEN..).unwrap_or_default();
            if let Err(cause) = wire.negotiate(from, body, now_ns) {
                counters.into_iter().for_each(|counters| counters.damage(cause));
                return refused();
            }
            link.speak(now_ns);
            return Arrived::default();
        }
        let Some(wire) = link.wire.as_mut() else { return refused() };
        if !wire.takes(from, header.sequence, now_ns) {
            return refused();
        }
        let mut arrived = self.pass_on(uplink, from, frame, tools);
        let taken = self.take_apart(uplink, from, frame, tools);
        arrived.packets += taken.packets;
        arrived.bytes += taken.bytes;
        if let Some(counters) = counters {
            counters.rx_aggregates.add(1);
            counters.rx_aggregated.add(arrived.packets as u64);
        }
        arrived
    }

    /// Sends on the groups of a frame that are for other nodes.
    fn pass_on(&mut self, uplink: usize, from: MacAddr, frame: &[u8], tools: &mut Tools<'_>) -> Arrived {
        let mut arrived = Arrived::default();
        let Some((own, true)) = self.wire_at(uplink).map(|wire| (wire.node, wire.config.trusted)) else {
            return arrived;
        };
        // What is wrong with a group is told when the frame is taken apart.
        while let Some(group) = tools.reader.next_group(frame) {
            let Ok(group) = group else { continue };
            let node = group.header.destination;
            let Some(bytes) = frame.get(group.at..group.at.saturating_add(group.header.len)) else { continue };
            if node == 0 || node == own {
                continue;
            }
            let packets = usize::from(group.header.packets);
            arrived.packets += packets;
            arrived.bytes += bytes.len() as u64;
            if !self.splice(uplink, from, node, bytes)
                && let Some(counters) = tools.counters
            {
                counters.drop_packets(DropCause::NoDestination, packets as u64);
            }
        }
        arrived
    }

    /// Puts a group whole into the frame of the peer behind which a node is.
    fn splice(&mut self, uplink: usize, from: MacAddr, node: u16, group: &[u8]) -> bool {
        let found = self.uplinks.iter().enumerate().find_map(|(at, link)| {
            // Who is not believed is not sent what is others'.
            let wire = link.wire.as_ref().filter(|wire| wire.config.trusted)?;
            let target = wire.towards(node)?;
            // Not back to where it came from.
            (at != uplink || wire.address(target.peer) != Some(from)).then_some((at, target))
        });
        let Some((at, target)) = found else { return false };
        let Some(link) = self.uplinks.get_mut(at) else { return false };
        link.put_group(target, group)
    }

    /// Takes apart what of a frame is for this node.
    fn take_apart(&mut self, uplink: usize, from: MacAddr, frame: &[u8], tools: &mut Tools<'_>) -> Arrived {
        let mut arrived = Arrived::default();
        let Some(wire) = self.wire_at(uplink) else { return arrived };
        let (own, trusted, peer, limits) = (wire.node, wire.config.trusted, wire.node_of(from), wire.limits());
        let Some(port) = self.uplinks.get(uplink).map(|link| link.port) else { return arrived };
        if tools.reader.begin(frame, EthernetHeader::LEN, &limits).is_err() {
            return arrived;
        }
        let in_runs = self.takes_runs(port);
        let (mut here, mut origin, mut last) = (false, peer, MacAddr::ZERO);
        loop {
            if here
                && in_runs
                && let Some(run) = tools.reader.run(MAX_BURST)
            {
                arrived.packets += usize::from(run.packets());
                arrived.bytes += runs::fill(&mut self.burst, tools.ranges, port, &run, tools.hope);
                super::refuse(&mut self.burst);
                self.learn_behind(uplink, from, origin, &mut last, tools.now_ns);
                let places = self.burst.len();
                let payload = Payload::Runs { bytes: run.bytes(), ranges: tools.ranges };
                let ingress = Ingress { port, pair: 0, payload, offloads: false, waits_since: None };
                self.run(&ingress, Direction::Out, tools.now_ns);
                runs::learn(tools.hope, places, run.packets().into(), self.expanded);
                continue;
            }
            let mut unfinished = false;
            self.burst.clear();
            let mut more = true;
            while !self.burst.is_full() {
                match tools.reader.next(frame) {
                    Some(Item::Packet(packet)) if here => {
                        unfinished |= push(&mut self.burst, port, &packet, trusted);
                        if in_runs && tools.reader.may_run() {
                            break;
                        }
                    }
                    Some(Item::Packet(_) | Item::Tlv { .. }) => {}
                    Some(Item::Damaged(damage)) => {
                        tools.counters.into_iter().for_each(|counters| counters.damage(damage.cause));
                    }
                    Some(Item::Group(group)) => {
                        let is_here = !trusted || group.destination == 0 || group.destination == own;
                        let of = if trusted && group.origin != 0 { group.origin } else { peer };
                        if self.burst.is_empty() {
                            (here, origin) = (is_here, of);
                            if here {
                                break;
                            }
                        } else {
                            // What is in the burst belongs to the group before.
                            self.deliver_inside(
                                uplink,
                                (from, origin),
                                &mut last,
                                frame,
                                unfinished,
                                tools,
                                &mut arrived,
                            );
                            unfinished = false;
                            self.burst.clear();
                            (here, origin) = (is_here, of);
                            if here {
                                break;
                            }
                        }
                    }
                    None => {
                        more = false;
                        break;
                    }
                }
            }
            self.deliver_inside(uplink, (from, origin), &mut last, frame, unfinished, tools, &mut arrived);
            if !more {
                return arrived;
            }
        }
    }

    /// Switches the packets of the burst, which are inside a frame.
    #[expect(clippy::too_many_arguments, reason = "what is known of a frame on its way")]
    fn deliver_inside(
        &mut self,
        uplink: usize,
        (from, origin): (MacAddr, u16),
        last: &mut MacAddr,
        frame: &[u8],
        offloads: bool,
        tools: &Tools<'_>,
        arrived: &mut Arrived,
    ) {
        let Some(port) = self.uplinks.get(uplink).map(|link| link.port).filter(|_| !self.burst.is_empty()) else {
            return;
        };
        arrived.packets += self.burst.len();
        arrived.bytes += self.burst.bytes();
        super::refuse(&mut self.burst);
        self.learn_behind(uplink, from, origin, last, tools.now_ns);
        self.burst.set_runs(true);
        let payload = Payload::Inside(frame);
        let ingress = Ingress { port, pair: 0, payload, offloads, waits_since: None };
        self.run(&ingress, Direction::Out, tools.now_ns);
    }

    /// Notes behind which peer the sources of the burst are. Who is not believed cannot claim stations of others who are.
    fn learn_behind(&mut self, uplink: usize, from: MacAddr, origin: u16, last: &mut MacAddr, now_ns: u64) {
        let trusted = self.wire_at(uplink).is_some_and(|wire| wire.config.trusted);
        let Self { burst, uplinks, .. } = self;
        for i in 0..burst.len() {
            let Some(source) = EthernetHeader::parse(burst.window(i)).map(|header| header.source()) else { continue };
            if source == *last || burst.verdict(i) != Verdict::Pending {
                continue;
            }
            *last = source;
            let others = uplinks.iter().enumerate().filter(|(at, _)| *at != uplink);
            let mut wires = others.filter_map(|(_, link)| link.wire.as_ref());
            if !trusted && wires.any(|wire| wire.config.trusted && wire.knows(source)) {
                continue;
            }
            if let Some(wire) = uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut()) {
                wire.learn(source, from, origin, now_ns);
            }
        }
    }

    /// Notes who of the stations that the burst came from has sent a plain frame.
    pub(in crate::worker) fn hear_plain(&mut self, uplink: usize, now_ns: u64) {
        let Self { burst, uplinks, .. } = self;
        let Some(wire) = uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut()) else { return };
        for i in 0..burst.len() {
            if let Some(header) = EthernetHeader::parse(burst.window(i)) {
                wire.heard_plain(header.source(), now_ns);
            }
        }
    }

    fn wire_at(&self, uplink: usize) -> Option<&wire::Wire> {
        self.uplinks.get(uplink)?.wire.as_deref()
    }

    /// Lets time pass at all wires, and tells on each what is new on the others.
    pub(in crate::worker) fn tick_wires(&mut self, now_ns: u64) {
        for at in 0..self.uplinks.len() {
            let Some(link) = self.uplinks.get_mut(at) else { break };
            if link.wire.is_none() {
                continue;
            }
            link.ship_all();
            let Some(wire) = link.wire.as_mut() else { continue };
            wire.tick(now_ns);
            link.speak(now_ns);
            self.spread_news(at, now_ns);
            self.welcome(at, now_ns);
        }
    }

    /// Tells newcomers on a wire of the stations that are known on the others.
    fn welcome(&mut self, uplink: usize, now_ns: u64) {
        let wire = self.uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut());
        if !wire.is_some_and(|wire| wire.take_newcomer()) {
            return;
        }
        let others = self.uplinks.iter().enumerate().filter(|(at, _)| *at != uplink);
        let wires = others.filter_map(|(_, link)| link.wire.as_ref());
        let known: Vec<_> = wires.flat_map(|wire| wire.stations()).take(WELCOME).collect();
        if let Some(link) = self.uplinks.get_mut(uplink) {
            known.into_iter().for_each(|(station, node)| link.announce_station(station, node, now_ns));
        }
    }

    /// Tells on all other wires what is new on one.
    pub(in crate::worker) fn spread_news(&mut self, uplink: usize, now_ns: u64) {
        let Some(wire) = self.uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut()) else { return };
        if !wire.has_news() {
            return;
        }
        // Nodes that are not believed are not told of: who wants to reach them asks this one.
        let (own, trusted) = (wire.node, wire.config.trusted);
        let mut news = wire.take_news();
        news.iter_mut().filter(|_| !trusted).for_each(|(_, node)| *node = own);
        for (at, link) in self.uplinks.iter_mut().enumerate() {
            if at != uplink {
                news.iter().for_each(|(station, node)| link.announce_station(*station, *node, now_ns));
            }
        }
    }
}

/// Adds a packet. Returns whether its sender left something undone.
fn push(burst: &mut Burst, port: PortId, packet: &aggregation::Packet<'_>, trusted: bool) -> bool {
    let handle = u32::try_from(packet.rest_at).unwrap_or(u32::MAX);
    let mut offload = wire::offload_of(&packet.meta);
    if !trusted && offload.checksum == Checksum::Verified {
        offload.checksum = Checksum::Unknown;
    }
    if let Some(window) = burst.push(port, packet.len, offload, handle) {
        runs::copy(window, packet.head);
    }
    !offload.is_finished()
}

/// The key of groups of packets that this node puts together for another.
pub(in crate::worker) const fn key(origin: u16, destination: u16, class: u8) -> GroupKey {
    GroupKey { origin, destination, class }
}
