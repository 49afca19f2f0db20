// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregates on a link with several stations: who is aware there, what was agreed with them, and where packets go.
//!
//! # Theory of operation
//!
//! Nodes find each other by HELLOs to a group address, which others ignore. Packets for a station that is behind a peer (`stations.rs`) go
//! into that peer's next frame, in groups addressed to the station's node; all others go plain, and behind what was put
//! together before for the same peer. So that somebody begins, a station that sends plain frames is announced to the peers by a
//! RARP frame inside an aggregate (decision 24: only there addresses map to nodes), and what is learned from one link is
//! announced on the others under its own node's id.

use aggregation::negotiation::{self, Announce, Config, Event, Features, MAX_CONTROL, Offer};
use aggregation::{Cause, GroupKey, Limits, Sequence, TlvSet};
use packet::synth::rarp_announcement;
use packet::{EthernetHeader, MacAddr, Offload};

use super::guard::ETHER_TYPE;
use super::link::counted;
use super::load::Load;
use super::stations::{Stations, Stay};
use crate::config::NodeConfig;
use crate::counters::PortCounters;

/// To whom HELLOs go: a group address of local administration.
pub(super) const EVERYBODY: MacAddr = MacAddr([0x03, 0x53, 0x48, 0x55, 0x4e, 0x54]);
const MAX_PEERS: usize = 64;
const KEEPALIVE_MS: u16 = 1000;
const MAX_PACKETS: u16 = 4096;
/// How often newcomers are welcomed, in nanoseconds, and how many at once: others wait. Whoever can send HELLOs can come again and again.
const WELCOMES_NS: u64 = 1_000_000_000;
const WELCOMED_AT_ONCE: usize = 16;

/// What a wire is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireConfig {
    pub(crate) session: u32,
    /// The address of the node's end.
    pub(crate) mac: MacAddr,
    /// Bytes of the longest aggregate that the link takes.
    pub(crate) longest: usize,
    /// Whether there is one peer at most, which gets whatever is sent.
    pub(crate) one_peer: bool,
    /// Whether origin and destination of what comes are believed.
    pub(crate) trusted: bool,
    /// Most bytes and packets of a frame that is sent, whatever peers take.
    pub(crate) max_bytes: usize,
    pub(crate) max_packets: u32,
    /// Microseconds for which a packet is held at most, so that others join it.
    pub(crate) time_usecs: u32,
    /// Whether the Ethernet header of a run of packets is said once, if the peer takes that.
    pub(crate) template: bool,
}

/// A link on which there may be aware nodes.
#[derive(Debug)]
pub(in crate::worker) struct Wire {
    talk: negotiation::Link<MacAddr>,
    pub(in crate::worker) config: WireConfig,
    /// The node's id.
    pub(in crate::worker) node: u16,
    /// As what its frames are known.
    stage: u8,
    pub(super) peers: Vec<Peer>,
    /// Peers that there have been.
    stays: u32,
    stations: Stations,
    /// When newcomers were welcomed last.
    welcomed_ns: Option<u64>,
}

/// An aware node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: MacAddr,
    stay: Stay,
    node: u16,
    /// How many newcomers there were with it; `None`: it has not been welcomed yet.
    came: Option<u32>,
    pub(super) out: Option<Box<Load>>,
    heard: Sequence,
}

/// Where a packet is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Target {
    /// The peer's place.
    pub(in crate::worker) peer: usize,
    /// The node that takes the packet out, 0 for the peer.
    pub(in crate::worker) node: u16,
}

impl Wire {
    pub(in crate::worker) fn new(node: NodeConfig, config: WireConfig, now_ns: u64) -> Self {
        let features = [Features::TEMPLATE, Features::CHECKSUM, Features::GSO, Features::CHECK, Features::GROUP_CRC];
        let features = features.into_iter().fold(Features::default(), Features::with);
        Self::with_features(node, config, features, now_ns)
    }

    /// One that grants these features only.
    pub(in crate::worker) fn with_features(
        node: NodeConfig,
        config: WireConfig,
        features: Features,
        now_ns: u64,
    ) -> Self {
        let (stage, node) = (node.stage(), node.id.get());
        let offer = Offer {
            versions: (1, 1),
            encapsulations: 1,
            align_log2: 2,
            max_bytes: u32::try_from(config.longest).unwrap_or(u32::MAX),
            max_packets: MAX_PACKETS,
            features,
            keepalive_ms: KEEPALIVE_MS,
        };
        let (session, announce) = (config.session, Announce::Group(EVERYBODY));
        let talk = Config { node, session, offer, name: Vec::new(), announce, max_peers: MAX_PEERS };
        Self {
            talk: negotiation::Link::new(talk, now_ns),
            config,
            node,
            stage,
            peers: Vec::new(),
            stays: 0,
            stations: Stations::new(node),
            welcomed_ns: None,
        }
    }

    /// What is taken from peers.
    pub(in crate::worker) fn limits(&self) -> Limits {
        Limits {
            frame: aggregation::wire::MAX_FRAME,
            groups: u8::MAX,
            packets: MAX_PACKETS.into(),
            tlv_bytes: 64,
            tlvs: TlvSet::NONE,
            foreign_tlvs: false,
            verify: true,
            check_required: true,
        }
    }

    /// Takes a control frame.
    ///
    /// # Errors
    /// Why it was not understood.
    pub(in crate::worker) fn negotiate(
        &mut self,
        from: MacAddr,
        bytes: &[u8],
        counters: Option<&PortCounters>,
        now_ns: u64,
    ) -> Result<(), Cause> {
        let mut events = Vec::new();
        let understood = self.talk.handle(from, bytes, now_ns, |event| events.push(event));
        if let Some(counters) = counters.filter(|_| understood.is_ok()) {
            counters.rx_control.add(1);
        }
        events.into_iter().for_each(|event| self.follow(event, counters));
        understood.map(drop)
    }

    /// Whether time has something to say about what was agreed.
    pub(in crate::worker) fn is_due(&self, now_ns: u64) -> bool {
        self.talk.timeout().is_some_and(|at| at <= now_ns)
    }

    /// Lets time pass. Returns whether a station was forgotten: what was put together for it goes before what goes to it from now on.
    pub(in crate::worker) fn tick(&mut self, counters: Option<&PortCounters>, now_ns: u64) -> bool {
        let mut events = Vec::new();
        self.talk.tick(now_ns, |event| events.push(event));
        events.into_iter().for_each(|event| self.follow(event, counters));
        let Self { stations, peers, .. } = self;
        stations.sweep(to_ms(now_ns), |stay| is_here(peers, stay))
    }

    /// Writes the next control frame that is due, its Ethernet header included. Returns its length.
    pub(in crate::worker) fn speak(&mut self, now_ns: u64, to: &mut [u8; CONTROL]) -> Option<usize> {
        let (header, body) = to.split_at_mut(EthernetHeader::LEN);
        let (address, len) = self.talk.poll_transmit(now_ns, body)?;
        header.copy_from_slice(&ethernet(address, self.config.mac));
        Some(EthernetHeader::LEN + len)
    }

    fn follow(&mut self, event: Event<MacAddr>, counters: Option<&PortCounters>) {
        let (own, stage) = (self.node, self.stage);
        if let (Some(event), Some(counters)) = (counted(&event), counters) {
            counters.peer(event);
        }
        match event {
            Event::Accept { address, node } => {
                log::debug!("node {own}: aggregates are taken from node {node} at {address}");
                self.peers.retain(|peer| peer.address != address);
                self.stays = self.stays.wrapping_add(1);
                let stay = Stay(self.stays);
                self.peers.push(Peer { address, stay, node, came: None, out: None, heard: Sequence::new() });
            }
            Event::Up { address, node, grant } => {
                log::debug!("node {own}: node {node} at {address} takes aggregates of {} bytes", grant.max_bytes);
                if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == address) {
                    (peer.out, peer.came) = (Some(Box::new(Load::new(&grant, stage, &self.config))), None);
                }
            }
            Event::Down { address, node, why } => {
                log::debug!("node {own}: no more aggregates with node {node} at {address}: {why:?}");
                self.peers.retain(|peer| peer.address != address);
            }
            Event::Refused { address, node, reason } => {
                log::debug!("node {own}: node {node} at {address} is refused: {reason:?}");
            }
            Event::RefusedBy { address, node, reason } => {
                log::debug!("node {own}: node {node} at {address} refuses: {reason:?}");
            }
        }
    }

    /// Whether aggregates are taken from an address; the frame counts as a sign of life.
    pub(in crate::worker) fn takes(
        &mut self,
        from: MacAddr,
        sequence: u16,
        counters: Option<&PortCounters>,
        now_ns: u64,
    ) -> bool {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == from) else { return false };
        let lost = peer.heard.take(sequence);
        if let Some(counters) = counters.filter(|_| lost > 0) {
            counters.rx_lost.add(lost);
        }
        self.talk.heard(from, now_ns);
        true
    }

    /// What groups may use that come from an address. Who is not heard of yet may use all.
    pub(in crate::worker) fn features_from(&self, address: MacAddr) -> Features {
        let load = self.peers.iter().find(|peer| peer.address == address).and_then(|peer| peer.out.as_ref());
        load.map_or(Features(u16::MAX), |load| load.features())
    }

    /// What may be used in frames to a peer.
    pub(in crate::worker) fn features_of(&self, target: Target) -> Features {
        let load = self.peers.get(target.peer).and_then(|peer| peer.out.as_ref());
        load.map_or_else(Features::default, |load| load.features())
    }

    /// The node of a peer.
    pub(in crate::worker) fn node_of(&self, address: MacAddr) -> u16 {
        self.peers.iter().find(|peer| peer.address == address).map_or(0, |peer| peer.node)
    }

    /// A node was seen behind a peer. Returns whether it was not the last time: then it is behind nobody on other wires.
    pub(in crate::worker) fn learn_way(&mut self, node: u16, peer: MacAddr, now_ns: u64) -> bool {
        let stay = self.peers.iter().find(|known| known.address == peer).map(|known| known.stay);
        stay.is_some_and(|stay| self.stations.learn_way(node, stay, to_ms(now_ns)))
    }

    /// A node was seen on another wire.
    pub(in crate::worker) fn forget_way(&mut self, node: u16) {
        self.stations.forget_way(node);
    }

    /// A station was seen inside an aggregate of a peer.
    pub(in crate::worker) fn learn(&mut self, station: MacAddr, peer: MacAddr, node: u16, now_ns: u64) {
        let Self { stations, peers, .. } = self;
        let Some(stay) = peers.iter().find(|known| known.address == peer).map(|known| known.stay) else { return };
        stations.learn(station, stay, node, to_ms(now_ns), |stay| is_here(peers, stay));
    }

    /// A station was seen in a plain frame, or on another link. Returns the place of the peer behind which it is no longer, if that is so.
    pub(in crate::worker) fn heard_plain(&mut self, station: MacAddr, now_ns: u64) -> Option<usize> {
        let stay = self.stations.heard_plain(station, to_ms(now_ns))?;
        self.peer_of(stay)
    }

    /// Stations that are new here since this was last asked.
    pub(in crate::worker) fn take_news(&mut self) -> Vec<(MacAddr, u16)> {
        self.stations.take_news()
    }

    /// The places of peers that have come and are to be told of all stations now.
    pub(in crate::worker) fn take_newcomers(&mut self, now_ns: u64) -> Vec<usize> {
        let is_new = |peer: &Peer| peer.out.is_some() && peer.came.is_none();
        let welcomed_lately = self.welcomed_ns.is_some_and(|at| now_ns.saturating_sub(at) < WELCOMES_NS);
        if welcomed_lately || !self.peers.iter().any(is_new) {
            return Vec::new();
        }
        self.welcomed_ns = Some(now_ns);
        let came = self.stations.greet();
        let newcomers = self.peers.iter_mut().enumerate().filter(|(_, peer)| is_new(peer)).take(WELCOMED_AT_ONCE);
        newcomers.map(|(at, peer)| (peer.came = Some(came), at).1).collect()
    }

    /// Whether a station is behind a peer here.
    pub(in crate::worker) fn knows(&self, station: MacAddr) -> bool {
        self.stations.behind(station).is_some_and(|known| is_here(&self.peers, known.peer))
    }

    /// Stations behind peers, and their nodes: some, if there are many.
    pub(in crate::worker) fn some_stations(&self) -> impl Iterator<Item = (MacAddr, u16)> {
        self.stations.some(|stay| is_here(&self.peers, stay))
    }

    /// Whether there is any.
    pub(in crate::worker) fn has_news(&self) -> bool {
        self.stations.has_news()
    }

    /// For whom a frame to a station is to be put together.
    #[inline]
    pub(in crate::worker) fn target(&self, station: MacAddr) -> Option<Target> {
        if self.peers.is_empty() {
            return None;
        }
        if self.config.one_peer {
            return self.peers.first().filter(|peer| peer.out.is_some()).map(|_| Target { peer: 0, node: 0 });
        }
        if let Some((known, peer)) =
            self.stations.behind(station).and_then(|known| Some((known, self.peer_of(known.peer)?)))
        {
            let node = if self.peers.get(peer)?.node == known.node { 0 } else { known.node };
            return Some(Target { peer, node });
        }
        self.peer_at(station).map(|peer| Target { peer, node: 0 })
    }

    /// The peer that is a node.
    pub(in crate::worker) fn peer_that_is(&self, node: u16) -> Option<Target> {
        let peer = self.peers.iter().position(|peer| peer.node == node && peer.out.is_some())?;
        Some(Target { peer, node })
    }

    /// The peer behind which a node was lately, and how many milliseconds ago.
    pub(in crate::worker) fn way_to(&self, node: u16, now_ns: u64) -> Option<(Target, u32)> {
        let (stay, since_ms) = self.stations.way(node, to_ms(now_ns))?;
        Some((Target { peer: self.peer_of(stay)?, node }, since_ms))
    }

    fn peer_at(&self, address: MacAddr) -> Option<usize> {
        self.peers.iter().position(|peer| peer.address == address && peer.out.is_some())
    }

    fn peer_of(&self, stay: Stay) -> Option<usize> {
        self.peers.iter().position(|peer| peer.stay == stay && peer.out.is_some())
    }

    /// The node at which a station is that sends here.
    #[inline]
    pub(in crate::worker) fn origin_of(&self, station: MacAddr) -> u16 {
        self.stations.origin_of(station)
    }

    /// Whether a station is to be announced as the node's own that sends a plain frame.
    #[inline]
    pub(in crate::worker) fn should_announce(&self, station: MacAddr, now_ns: u64) -> bool {
        self.takes_any() && !self.knows(station) && self.stations.should_announce(station, to_ms(now_ns))
    }

    /// Whether a station has been announced in the last `within_ms` milliseconds for a plain frame that went.
    pub(super) fn went_plain(&self, station: MacAddr, within_ms: u32, now_ns: u64) -> bool {
        self.stations.went_plain(station, within_ms, to_ms(now_ns))
    }

    /// Whether a peer takes aggregates.
    pub(in crate::worker) fn takes_any(&self) -> bool {
        self.peers.iter().any(|peer| peer.out.is_some())
    }

    /// Tells the peers that a station is a node's, if they were not told lately; `with_plain`: for a plain frame that goes. Frames that are
    /// full are told of by the places of their peers.
    pub(in crate::worker) fn announce(
        &mut self,
        station: MacAddr,
        node: u16,
        with_plain: bool,
        now_ns: u64,
    ) -> Vec<usize> {
        let told = self.stations.announce(station, node, with_plain, to_ms(now_ns));
        let mut full = Vec::new();
        for at in 0..self.peers.len() {
            let is_told = self.peers.get(at).and_then(|peer| peer.came).is_some_and(|came| came <= told);
            if !is_told && !self.announce_to(at, station, node) {
                full.push(at);
            }
        }
        full
    }

    /// A station that is a node's is announced to newcomers only.
    pub(in crate::worker) fn remember(&mut self, station: MacAddr, node: u16, now_ns: u64) {
        self.stations.announce(station, node, false, to_ms(now_ns));
    }

    /// Tells the peer at a place that a station is a node's. `false`: its frame is full.
    pub(in crate::worker) fn announce_to(&mut self, peer: usize, station: MacAddr, node: u16) -> bool {
        let Some(load) = self.peers.get_mut(peer).and_then(|peer| peer.out.as_mut()) else { return true };
        let key = GroupKey { origin: node, destination: 0, class: 0 };
        load.put(key, &rarp_announcement(station), 0, |_| {}, Offload::NONE)
    }
}

/// Whether a peer has not gone.
fn is_here(peers: &[Peer], stay: Stay) -> bool {
    peers.iter().any(|peer| peer.stay == stay)
}

/// Bytes of the longest control frame with its Ethernet header.
pub(in crate::worker) const CONTROL: usize = EthernetHeader::LEN + MAX_CONTROL;

/// The Ethernet header of a frame.
pub(super) fn ethernet(to: MacAddr, from: MacAddr) -> [u8; EthernetHeader::LEN] {
    let ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]) = (to.0, from.0);
    let [high, low] = ETHER_TYPE.0.to_be_bytes();
    [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, high, low]
}

#[expect(clippy::cast_possible_truncation, reason = "it goes round")]
const fn to_ms(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

#[cfg(test)]
mod tests;
