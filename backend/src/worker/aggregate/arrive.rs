// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What arrives at an uplink on which there may be aware nodes.
//!
//! # Theory of operation
//!
//! A slot of a link's ring is private memory while it is held, so check words are compared, and groups can be sent on as they lie. A
//! group for another node goes whole into the frame of the peer behind which that node is; nothing behind its header is
//! looked at, unless that peer has granted less than the group's sender may use: then who of both is right depends on what is in
//! it. All others are taken apart, in the order in which they came.
//!
//! No group leaves by the uplink that it came by, as no frame leaves a bridge by the port that it came by, but to the node itself that takes it
//! apart; and none of this node's own goes on that comes back to it. So none goes round among nodes that each believe another to be on the
//! way; who are on one link hear each other.

use aggregation::{Damage, Features, GroupHeader, GroupKey, Item, Reader, Trigger};
use packet::{Burst, Checksum, DropCause, EthernetHeader, MAX_BURST, MacAddr, PortId, Verdict};
use switch::Bridge;

use super::super::bridge::{Ingress, Path};
use super::super::finish::work_of;
use super::super::payload::Payload;
use super::runs::{self, Hope, Ranges};
use super::wire::{Target, Wire};
use super::{is_refresh, meta};
use crate::counters::PortCounters;
use crate::link::PEER;
use crate::topology::{Forwarding, Route, Routes};

/// The tools with which frames are taken apart.
pub(in crate::worker) struct Tools<'a> {
    pub(in crate::worker) reader: &'a mut Reader,
    pub(in crate::worker) ranges: &'a mut Ranges,
    pub(in crate::worker) hope: &'a mut Hope,
    pub(in crate::worker) counters: Option<&'a PortCounters>,
    pub(in crate::worker) now_ns: u64,
}

/// What came in a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Arrived {
    pub(in crate::worker) packets: usize,
    /// Of the packets.
    pub(in crate::worker) bytes: u64,
    /// In packets: those that were taken out, in what state ever, with those that they may have to be cut into, and whole groups as one
    /// each, but those whose packets have to be looked at.
    pub(in crate::worker) work: usize,
}

/// Who sent what is being taken apart.
#[derive(Debug)]
struct Sender {
    uplink: usize,
    /// The uplink's.
    port: PortId,
    from: MacAddr,
    /// The node that the packets at hand belong to.
    origin: u16,
    /// Whether the uplink is.
    trusted: bool,
    /// The last node to which the way was learned.
    seen: Option<u16>,
    /// The last source that was learned: most packets have that of the one before.
    last: MacAddr,
    /// Whether a packet of the burst may have been left unfinished.
    offloads: bool,
}

/// What became of a group for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    On {
        /// Its packets that were looked at for that.
        looked_at: u16,
    },
    /// There is no way to that node.
    Lost,
    /// Who is on the way there does not take it as it is.
    Unfit,
}

impl Tools<'_> {
    fn count(&self, damage: Damage, arrived: &mut Arrived) {
        arrived.work += damage.packets as usize;
        if let Some(counters) = self.counters {
            counters.damage(damage.cause);
            counters.damaged.add(damage.packets.into());
        }
    }
}

impl Path {
    /// Deals with a frame of the type of aggregates that arrived at an uplink.
    pub(in crate::worker) fn arrive(&mut self, uplink: usize, frame: &[u8], tools: &mut Tools<'_>) -> Arrived {
        let (counters, now_ns) = (tools.counters, tools.now_ns);
        let refused = || {
            counters.into_iter().for_each(|counters| counters.drop_frame(DropCause::Aggregate, frame, frame.len()));
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
            link.ship_all(Trigger::Order);
            let Some(wire) = link.wire.as_mut() else { return refused() };
            let body = frame.get(EthernetHeader::LEN..).unwrap_or_default();
            if let Err(cause) = wire.negotiate(from, body, counters, now_ns) {
                counters.into_iter().for_each(|counters| counters.damage(cause));
                return refused();
            }
            link.speak(now_ns);
            return Arrived::default();
        }
        let Some(wire) = link.wire.as_mut() else { return refused() };
        if !wire.takes(from, header.sequence, counters, now_ns) {
            return refused();
        }
        let arrived = self.take(uplink, from, frame, tools);
        if let Some(counters) = counters {
            counters.rx_aggregates.add(1);
            counters.rx_aggregated.add(arrived.packets as u64);
        }
        arrived
    }

    /// Deals with the groups of a frame whose header has been read, in order.
    fn take(&mut self, uplink: usize, from: MacAddr, frame: &[u8], tools: &mut Tools<'_>) -> Arrived {
        let mut arrived = Arrived::default();
        let Some(link) = self.uplinks.get(uplink) else { return arrived };
        let Some(wire) = &link.wire else { return arrived };
        let (own, trusted, peer, port) = (wire.node, wire.config.trusted, wire.node_of(from), link.port);
        let mut sender =
            Sender { uplink, port, from, origin: peer, trusted, seen: None, last: MacAddr::ZERO, offloads: false };
        self.burst.clear();
        while let Some(group) = tools.reader.next_group(frame) {
            arrived.work += 1;
            let group = match group {
                Ok(group) => group,
                Err(damage) => {
                    tools.count(damage, &mut arrived);
                    continue;
                }
            };
            let GroupHeader { destination, origin, packets, len, .. } = group.header;
            let from_node = if trusted && origin != 0 { origin } else { peer };
            if trusted && destination != 0 && destination != own {
                // Everything goes in the order in which it came.
                self.switch_taken(&mut sender, frame, tools.now_ns, &mut arrived);
                let bytes = frame.get(group.at..group.at.saturating_add(len)).unwrap_or_default();
                self.learn_way(&mut sender, from_node, tools.now_ns);
                let passed = self.pass_on(&sender, &group.header, bytes, tools.now_ns);
                if passed != Passed::Unfit {
                    arrived.packets += usize::from(packets);
                    arrived.bytes += bytes.len() as u64;
                }
                match passed {
                    Passed::On { looked_at } => {
                        arrived.work += usize::from(looked_at);
                        if let Some(counters) = tools.counters {
                            counters.spliced.add(1);
                            counters.spliced_packets.add(packets.into());
                        }
                        continue;
                    }
                    Passed::Lost => {
                        let lost = |counters: &PortCounters| {
                            // It goes whole, and is lost as one.
                            counters.drop_alike(DropCause::NoDestination, packets.into(), bytes, bytes.len());
                        };
                        tools.counters.into_iter().for_each(lost);
                        continue;
                    }
                    Passed::Unfit => {}
                }
            }
            if from_node != sender.origin {
                self.switch_taken(&mut sender, frame, tools.now_ns, &mut arrived);
                (sender.origin, sender.last) = (from_node, MacAddr::ZERO);
            }
            match tools.reader.open_group(frame, &group) {
                Ok(()) => self.take_apart(&mut sender, frame, tools, &mut arrived),
                Err(damage) => tools.count(damage, &mut arrived),
            }
        }
        self.switch_taken(&mut sender, frame, tools.now_ns, &mut arrived);
        arrived
    }

    /// Puts a group whole into the frame of the peer behind which its destination is.
    fn pass_on(&mut self, sender: &Sender, header: &GroupHeader, group: &[u8], now_ns: u64) -> Passed {
        // One of the node's own has come back.
        if self.wire_at(sender.uplink).is_some_and(|wire| wire.node == header.origin) {
            return Passed::Lost;
        }
        let Some((at, target)) = self.way_on(sender, header.destination, now_ns) else { return Passed::Lost };
        let may_have =
            self.wire_at(sender.uplink).map_or_else(Features::default, |wire| wire.features_from(sender.from));
        let Some(link) = self.uplinks.get_mut(at) else { return Passed::Lost };
        let grants = link.wire.as_ref().map_or_else(Features::default, |wire| wire.features_of(target));
        let Some(looked_at) = fits(may_have.without(grants), header, group) else { return Passed::Unfit };
        if link.put_group(target, header.class, group) { Passed::On { looked_at } } else { Passed::Unfit }
    }

    /// The uplink and the peer by which a node is reached: if one is the node, that one, else the one behind which it was seen last.
    /// `None`: there is no way, or none but back.
    fn way_on(&self, sender: &Sender, node: u16, now_ns: u64) -> Option<(usize, Target)> {
        // Who is not believed is not sent what is others'.
        let wires = || {
            let wires = self.uplinks.iter().enumerate().filter_map(|(at, link)| Some((at, link.wire.as_deref()?)));
            wires.filter(|(_, wire)| wire.config.trusted)
        };
        let direct = || wires().filter_map(|(at, wire)| Some((at, wire.peer_that_is(node)?)));
        if direct().next().is_some() {
            let sent_it = self.wire_at(sender.uplink).is_some_and(|wire| wire.node_of(sender.from) == node);
            let others = direct().filter(|(at, _)| *at != sender.uplink || !sent_it);
            return others.min_by_key(|(at, _)| *at == sender.uplink);
        }
        let ways = wires().filter_map(|(at, wire)| Some((at, wire.way_to(node, now_ns)?)));
        let (at, (target, _)) = ways.min_by_key(|(_, (_, since_ms))| *since_ms)?;
        (at != sender.uplink).then_some((at, target))
    }

    /// Notes that groups of a node come from a peer.
    fn learn_way(&mut self, sender: &mut Sender, node: u16, now_ns: u64) {
        if sender.seen.replace(node) == Some(node) {
            return;
        }
        let Some(wire) = self.uplinks.get_mut(sender.uplink).and_then(|link| link.wire.as_mut()) else { return };
        if !wire.learn_way(node, sender.from, now_ns) || !sender.trusted {
            return;
        }
        for (_, link) in self.uplinks.iter_mut().enumerate().filter(|(at, _)| *at != sender.uplink) {
            link.wire.iter_mut().for_each(|wire| wire.forget_way(node));
        }
    }

    /// Takes apart a group that was gone into. What is taken out waits in the burst, so that packets of small groups go together.
    fn take_apart(&mut self, sender: &mut Sender, frame: &[u8], tools: &mut Tools<'_>, arrived: &mut Arrived) {
        let port = sender.port;
        let in_runs = self.takes_runs(port);
        loop {
            if in_runs && let Some(run) = tools.reader.run(MAX_BURST) {
                self.switch_taken(sender, frame, tools.now_ns, arrived);
                arrived.packets += usize::from(run.packets());
                arrived.work += usize::from(run.packets());
                arrived.bytes += runs::fill(&mut self.burst, tools.ranges, port, &run, tools.hope);
                super::refuse(&mut self.burst);
                self.learn_behind(sender, tools.now_ns);
                let places = self.burst.len();
                let payload = Payload::Runs { bytes: run.bytes(), ranges: tools.ranges };
                let ingress = Ingress { port, pair: 0, payload, offloads: false, waits_since: None };
                self.enter(&ingress, tools.now_ns);
                runs::learn(tools.hope, places, run.packets().into(), self.expanded);
                self.burst.clear();
                continue;
            }
            while !self.burst.is_full() {
                match tools.reader.next_in_group(frame) {
                    Some(Item::Packet(packet)) => {
                        sender.offloads |= push(&mut self.burst, port, &packet, sender.trusted);
                        if in_runs && tools.reader.may_run() {
                            break;
                        }
                    }
                    Some(Item::Damaged(damage)) => tools.count(damage, arrived),
                    // TLVs are taken from none.
                    Some(Item::Tlv { .. } | Item::Group(_)) => {}
                    None => return,
                }
            }
            if self.burst.is_full() {
                self.switch_taken(sender, frame, tools.now_ns, arrived);
            }
        }
    }

    /// Switches the packets that were taken out of groups.
    fn switch_taken(&mut self, sender: &mut Sender, frame: &[u8], now_ns: u64, arrived: &mut Arrived) {
        if self.burst.is_empty() {
            return;
        }
        arrived.packets += self.burst.len();
        arrived.work += work_of(&self.burst, sender.offloads);
        arrived.bytes += self.burst.bytes();
        super::refuse(&mut self.burst);
        self.learn_behind(sender, now_ns);
        self.burst.set_runs(true);
        let (payload, offloads) = (Payload::Inside(frame), std::mem::take(&mut sender.offloads));
        let ingress = Ingress { port: sender.port, pair: 0, payload, offloads, waits_since: None };
        self.enter(&ingress, now_ns);
        self.burst.clear();
    }

    /// Notes behind which peer the sources of the burst are. Who is not believed cannot claim stations of others who are.
    fn learn_behind(&mut self, sender: &mut Sender, now_ns: u64) {
        self.learn_way(sender, sender.origin, now_ns);
        let Self { burst, uplinks, bridge, routes, .. } = self;
        for i in 0..burst.len() {
            let Some(source) = EthernetHeader::parse(burst.window(i)).map(|header| header.source()) else { continue };
            if source == sender.last || burst.verdict(i) != Verdict::Pending {
                continue;
            }
            sender.last = source;
            if is_elsewhere(bridge, routes, sender, source) {
                continue;
            }
            let others = uplinks.iter().enumerate().filter(|(at, _)| *at != sender.uplink);
            let mut wires = others.filter_map(|(_, link)| link.wire.as_ref());
            if !sender.trusted && wires.any(|wire| wire.config.trusted && wire.knows(source)) {
                continue;
            }
            if let Some(wire) = uplinks.get_mut(sender.uplink).and_then(|link| link.wire.as_mut()) {
                wire.learn(source, sender.from, sender.origin, now_ns);
            }
        }
    }

    /// Notes who of the stations that the burst came from has sent a plain frame.
    pub(in crate::worker) fn hear_plain(&mut self, uplink: usize, now_ns: u64) {
        let Self { burst, uplinks, .. } = self;
        let Some(link) = uplinks.get_mut(uplink).filter(|link| link.wire.is_some()) else { return };
        for i in 0..burst.len() {
            if let Some(header) = EthernetHeader::parse(burst.window(i))
                && !is_refresh(burst.window(i))
            {
                link.heard_plain(header.source(), now_ns);
            }
        }
    }

    fn wire_at(&self, uplink: usize) -> Option<&Wire> {
        self.uplinks.get(uplink)?.wire.as_deref()
    }
}

/// Whether a group goes as it is to somebody who has not granted what is `missing` of what who sent it may use: how many packets were looked
/// at to know that it does.
fn fits(missing: Features, header: &GroupHeader, group: &[u8]) -> Option<u16> {
    let lacks = |needs: Features| !needs.common(missing).is_empty();
    if missing.is_empty() {
        return Some(0);
    }
    // Only if it may be there it is looked for.
    if lacks(Features::of_header(header)) {
        return None;
    }
    if !lacks(Features::OF_PACKETS) {
        return Some(0);
    }
    Features::of_packets(group).filter(|needs| !lacks(*needs)).map(|_| header.packets)
}

/// Whether the source of a packet that came in an aggregate is known to be somewhere else, whatever the sender says: it has a fixed place, or
/// it is at one of the node's guests and the sender is not believed. If it did move, the bridge learns that from this packet, and then it is
/// not known to be there any more.
fn is_elsewhere(bridge: &Bridge, routes: &Routes, sender: &Sender, source: MacAddr) -> bool {
    if routes.forwarding(sender.port) != Forwarding::Bridged {
        return false;
    }
    let Some(entry) = bridge.station(source).filter(|entry| entry.port != sender.port) else { return false };
    let is_guests = || routes.uplink(entry.port).is_none() && routes.to(entry.port, 0) != Route::None;
    entry.is_fixed() || !sender.trusted && is_guests()
}

/// Adds a packet. Returns whether its sender left something undone.
fn push(burst: &mut Burst, port: PortId, packet: &aggregation::Packet<'_>, trusted: bool) -> bool {
    let handle = u32::try_from(packet.rest_at).unwrap_or(u32::MAX);
    let mut offload = meta::offload_of(&packet.meta);
    if !trusted && offload.checksum == Checksum::Verified {
        offload.checksum = Checksum::Unknown;
    }
    if let Some(window) = burst.push(port, packet.len, offload, handle) {
        runs::copy(window, packet.head);
        if offload.check_place(window).is_err() {
            burst.set_verdict(burst.len() - 1, Verdict::Drop(DropCause::BadOffload));
        }
    }
    !offload.is_finished()
}

/// The key of groups of packets that this node puts together for another.
pub(in crate::worker) const fn key(origin: u16, destination: u16, class: u8) -> GroupKey {
    GroupKey { origin, destination, class }
}
