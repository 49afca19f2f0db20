// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregates on a link with several stations: who is aware there, behind whom which station is, and what is put together for
//! each peer.
//!
//! # Theory of operation
//!
//! Nodes find each other by HELLOs to a group address, which others ignore. A *station* is an inner MAC address; it is behind the peer
//! in whose aggregates it was last seen as a source, and belongs to the node that the group came from. Packets for a station that is
//! behind a peer go into that peer's next frame, in groups addressed to the station's node; all others go plain, and behind what was put
//! together before for the same peer. So that somebody begins, a station that sends plain frames is announced to the peers by a
//! RARP frame inside an aggregate (decision 24: only there addresses map to nodes), and what is learned from one link is
//! announced on the others under its own node's id.
//!
//! A station that is seen in a plain frame, long after it was seen in an aggregate, has moved to somebody unaware.

use std::collections::HashMap;

use aggregation::negotiation::{self, Announce, Config, Event, Features, Grant, MAX_CONTROL, Offer};
use aggregation::{Cause, Checksum, Format, GroupKey, Gso, GsoKind, Limits, Meta, Sequence, TlvSet, Writer};
use packet::synth::rarp_announcement;
use packet::{EthernetHeader, MacAddr, Offload};

use super::guard::ETHER_TYPE;

/// To whom HELLOs go: a group address of local administration.
const EVERYBODY: MacAddr = MacAddr([0x03, 0x53, 0x48, 0x55, 0x4e, 0x54]);
const MAX_PEERS: usize = 64;
/// Stations that are remembered; behind others packets go plain.
const MAX_STATIONS: usize = 65_536;
/// How long a silent station is remembered, in milliseconds: as long as a bridge remembers it.
const STATION_MS: u32 = 300_000;
/// A plain frame of a station counts as a move if it was not in an aggregate for so long.
const MOVED_MS: u32 = 5_000;
/// A station is announced again after so long: before a bridge forgets it, and before peers do.
const ANNOUNCE_MS: u32 = 60_000;
/// That a station has moved is told no more often.
const TELL_MS: u32 = 1_000;
const KEEPALIVE_MS: u16 = 1000;
const MAX_PACKETS: u16 = 4096;
/// The node.
const STAGE: u8 = 2;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

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
}

/// A link on which there may be aware nodes.
#[derive(Debug)]
pub(in crate::worker) struct Wire {
    talk: negotiation::Link<MacAddr>,
    pub(in crate::worker) config: WireConfig,
    /// The node's id.
    pub(in crate::worker) node: u16,
    peers: Vec<Peer>,
    stations: Map<MacAddr, Station>,
    /// When stations were announced here, and as whose.
    announced: Map<MacAddr, (u16, u32)>,
    /// Whether any of these is another node's.
    has_foreign: bool,
    /// A peer has come that knows no station yet.
    newcomer: bool,
    /// Nodes behind peers, as their groups said.
    nodes: Map<u16, MacAddr>,
    /// Stations that are new here, and their nodes: to be told on other links.
    news: Vec<(MacAddr, u16)>,
}

/// An aware node.
#[derive(Debug)]
struct Peer {
    address: MacAddr,
    node: u16,
    out: Option<Box<Load>>,
    heard: Sequence,
}

/// What is put together for a peer.
#[derive(Debug)]
struct Load {
    format: Format,
    features: Features,
    writer: Writer,
    sequence: u16,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Station {
    peer: MacAddr,
    node: u16,
    seen_ms: u32,
    told_ms: u32,
}

/// Where a packet is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Target {
    /// The peer's place.
    pub(in crate::worker) peer: usize,
    /// The node that takes the packet out, 0 for the peer.
    pub(in crate::worker) node: u16,
}

/// Whether there is room for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Room {
    Now,
    /// When the frame has gone.
    Next,
    /// It has to go plain, behind the frame.
    Never,
}

impl Wire {
    pub(in crate::worker) fn new(node: u16, config: WireConfig, now_ns: u64) -> Self {
        let features = [Features::TEMPLATE, Features::CHECKSUM, Features::GSO, Features::CHECK, Features::GROUP_CRC];
        let features = features.into_iter().fold(Features::default(), Features::with);
        Self::with_features(node, config, features, now_ns)
    }

    /// One that grants these features only.
    pub(in crate::worker) fn with_features(node: u16, config: WireConfig, features: Features, now_ns: u64) -> Self {
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
            peers: Vec::new(),
            stations: Map::default(),
            announced: Map::default(),
            has_foreign: false,
            newcomer: false,
            nodes: Map::default(),
            news: Vec::new(),
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
    pub(in crate::worker) fn negotiate(&mut self, from: MacAddr, bytes: &[u8], now_ns: u64) -> Result<(), Cause> {
        let mut events = Vec::new();
        let understood = self.talk.handle(from, bytes, now_ns, |event| events.push(event));
        events.into_iter().for_each(|event| self.follow(event));
        understood.map(drop)
    }

    /// Lets time pass.
    pub(in crate::worker) fn tick(&mut self, now_ns: u64) {
        let mut events = Vec::new();
        self.talk.tick(now_ns, |event| events.push(event));
        events.into_iter().for_each(|event| self.follow(event));
        let now_ms = to_ms(now_ns);
        self.stations.retain(|_, station| now_ms.wrapping_sub(station.seen_ms) < STATION_MS);
        self.announced.retain(|_, (_, at)| now_ms.wrapping_sub(*at) < 2 * ANNOUNCE_MS);
    }

    /// Writes the next control frame that is due, its Ethernet header included. Returns its length.
    pub(in crate::worker) fn speak(&mut self, now_ns: u64, to: &mut [u8; CONTROL]) -> Option<usize> {
        let (header, body) = to.split_at_mut(EthernetHeader::LEN);
        let (address, len) = self.talk.poll_transmit(now_ns, body)?;
        header.copy_from_slice(&ethernet(address, self.config.mac));
        Some(EthernetHeader::LEN + len)
    }

    fn follow(&mut self, event: Event<MacAddr>) {
        let own = self.node;
        match event {
            Event::Accept { address, node } => {
                log::debug!("node {own}: aggregates are taken from node {node} at {address}");
                self.peers.retain(|peer| peer.address != address);
                self.peers.push(Peer { address, node, out: None, heard: Sequence::new() });
            }
            Event::Up { address, node, grant } => {
                log::debug!("node {own}: node {node} at {address} takes aggregates of {} bytes", grant.max_bytes);
                if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == address) {
                    peer.out = Some(Box::new(Load::new(&grant, &self.config)));
                }
                self.newcomer = true;
            }
            Event::Down { address, node, why } => {
                log::debug!("node {own}: no more aggregates with node {node} at {address}: {why:?}");
                self.peers.retain(|peer| peer.address != address);
                self.stations.retain(|_, station| station.peer != address);
                self.nodes.retain(|_, peer| *peer != address);
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
    pub(in crate::worker) fn takes(&mut self, from: MacAddr, sequence: u16, now_ns: u64) -> bool {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == from) else { return false };
        peer.heard.take(sequence);
        self.talk.heard(from, now_ns);
        true
    }

    /// What groups may use that come from an address. Who is not heard of yet may use all.
    pub(in crate::worker) fn features_from(&self, address: MacAddr) -> Features {
        let load = self.peers.iter().find(|peer| peer.address == address).and_then(|peer| peer.out.as_ref());
        load.map_or(Features(u16::MAX), |load| load.features)
    }

    /// What may be used in frames to a peer.
    pub(in crate::worker) fn features_of(&self, target: Target) -> Features {
        let load = self.peers.get(target.peer).and_then(|peer| peer.out.as_ref());
        load.map_or_else(Features::default, |load| load.features)
    }

    /// The node of a peer.
    pub(in crate::worker) fn node_of(&self, address: MacAddr) -> u16 {
        self.peers.iter().find(|peer| peer.address == address).map_or(0, |peer| peer.node)
    }

    /// A station was seen inside an aggregate.
    pub(in crate::worker) fn learn(&mut self, station: MacAddr, peer: MacAddr, node: u16, now_ns: u64) {
        if !station.is_unicast() || node == self.node {
            return;
        }
        let now_ms = to_ms(now_ns);
        let known = self.stations.get(&station).copied();
        if known.is_none() && self.stations.len() >= MAX_STATIONS {
            return;
        }
        let is_news = known.is_none_or(|known| {
            let moved = (known.peer, known.node) != (peer, node);
            now_ms.wrapping_sub(known.told_ms) >= if moved { TELL_MS } else { ANNOUNCE_MS }
        });
        let told_ms = if is_news { now_ms } else { known.map_or(now_ms, |known| known.told_ms) };
        self.stations.insert(station, Station { peer, node, seen_ms: now_ms, told_ms });
        if is_news {
            self.news.push((station, node));
        }
        self.announced.remove(&station);
        self.nodes.insert(node, peer);
    }

    /// A station was seen in a plain frame.
    pub(in crate::worker) fn heard_plain(&mut self, station: MacAddr, now_ns: u64) {
        if self.stations.is_empty() {
            return;
        }
        let known = self.stations.get(&station).map(|known| known.seen_ms);
        if known.is_some_and(|seen_ms| to_ms(now_ns).wrapping_sub(seen_ms) > MOVED_MS) {
            self.stations.remove(&station);
        }
    }

    /// Stations that are new here since this was last asked.
    pub(in crate::worker) fn take_news(&mut self) -> Vec<(MacAddr, u16)> {
        std::mem::take(&mut self.news)
    }

    /// Whether a peer has come since this was last asked, that is to be told of all stations.
    pub(in crate::worker) fn take_newcomer(&mut self) -> bool {
        let is_new = std::mem::take(&mut self.newcomer);
        if is_new {
            // It knows none of the node's own.
            let own = self.node;
            self.announced.retain(|_, (node, _)| *node != own);
        }
        is_new
    }

    /// Whether a station is behind a peer here.
    pub(in crate::worker) fn knows(&self, station: MacAddr) -> bool {
        self.stations.contains_key(&station)
    }

    /// All stations behind peers, and their nodes.
    pub(in crate::worker) fn stations(&self) -> impl Iterator<Item = (MacAddr, u16)> + '_ {
        self.stations.iter().map(|(station, known)| (*station, known.node))
    }

    /// Whether there is any.
    pub(in crate::worker) fn has_news(&self) -> bool {
        !self.news.is_empty()
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
        if let Some(known) = self.stations.get(&station) {
            let peer = self.peer_at(known.peer)?;
            let node = if self.peers.get(peer)?.node == known.node { 0 } else { known.node };
            return Some(Target { peer, node });
        }
        self.peer_at(station).map(|peer| Target { peer, node: 0 })
    }

    /// By which peer a node is reached.
    pub(in crate::worker) fn towards(&self, node: u16) -> Option<Target> {
        let direct = self.peers.iter().position(|peer| peer.node == node && peer.out.is_some());
        let peer = direct.or_else(|| self.peer_at(*self.nodes.get(&node)?))?;
        Some(Target { peer, node })
    }

    fn peer_at(&self, address: MacAddr) -> Option<usize> {
        self.peers.iter().position(|peer| peer.address == address && peer.out.is_some())
    }

    /// The address of a peer by its place.
    pub(in crate::worker) fn address(&self, peer: usize) -> Option<MacAddr> {
        self.peers.get(peer).map(|peer| peer.address)
    }

    /// The node at which a station is that sends here.
    #[inline]
    pub(in crate::worker) fn origin_of(&self, station: MacAddr) -> u16 {
        // Nearly all stations are the node's own, and then nobody's have been announced here.
        if !self.has_foreign {
            return self.node;
        }
        self.announced.get(&station).map_or(self.node, |(node, _)| *node)
    }

    /// Whether a station is to be announced as the node's own. One that was announced as another's a while
    /// ago is that other's.
    #[inline]
    pub(in crate::worker) fn should_announce(&self, station: MacAddr, now_ns: u64) -> bool {
        if self.peers.iter().all(|peer| peer.out.is_none())
            || !station.is_unicast()
            || self.stations.contains_key(&station)
        {
            return false;
        }
        if self.announced.len() >= MAX_STATIONS && !self.announced.contains_key(&station) {
            // There are too many to tell of all.
            return false;
        }
        let now_ms = to_ms(now_ns);
        let own = self.node;
        self.announced.get(&station).is_none_or(|(node, at)| {
            let since = now_ms.wrapping_sub(*at);
            since >= if *node == own { ANNOUNCE_MS } else { 2 * ANNOUNCE_MS }
        })
    }

    /// Tells all peers, or all but one, that a station is a node's. Frames that are full are told of by the places of their peers.
    pub(in crate::worker) fn announce(&mut self, station: MacAddr, node: u16, now_ns: u64) -> Vec<usize> {
        if self.announced.len() < MAX_STATIONS || self.announced.contains_key(&station) {
            self.announced.insert(station, (node, to_ms(now_ns)));
            self.has_foreign |= node != self.node;
        }
        let frame = rarp_announcement(station);
        let key = GroupKey { origin: node, destination: 0, class: 0 };
        let mut full = Vec::new();
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let Some(load) = &mut peer.out else { continue };
            if load.writer.push(key, &frame, 0, |_| {}, &Meta::NONE) {
                load.bytes += frame.len() as u64;
            } else {
                full.push(at);
            }
        }
        full
    }

    /// Whether there is room for a packet of `len` bytes.
    #[inline]
    pub(in crate::worker) fn room(&self, target: Target, key: GroupKey, len: usize, offload: Offload) -> Room {
        let Some(load) = self.peers.get(target.peer).and_then(|peer| peer.out.as_ref()) else { return Room::Never };
        let Some(meta) = load.meta(offload) else { return Room::Never };
        if load.writer.has_room(key, len, &meta) {
            Room::Now
        } else if load.fits_any(len, &meta) {
            Room::Next
        } else {
            Room::Never
        }
    }

    /// Appends a packet for which there is room.
    #[inline]
    pub(in crate::worker) fn put(
        &mut self,
        target: Target,
        key: GroupKey,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        offload: Offload,
    ) -> bool {
        let Some(load) = self.peers.get_mut(target.peer).and_then(|peer| peer.out.as_mut()) else { return false };
        let Some(meta) = load.meta(offload) else { return false };
        let put = load.writer.push(key, head, tail_len, tail, &meta);
        if put {
            load.bytes += (head.len() + tail_len) as u64;
        }
        put
    }

    /// Appends a whole group, nothing of which is looked at. `false`: there is no room.
    pub(in crate::worker) fn splice(&mut self, target: Target, group: &[u8]) -> bool {
        let Some(load) = self.peers.get_mut(target.peer).and_then(|peer| peer.out.as_mut()) else { return false };
        let put = load.writer.splice(group);
        if put {
            load.bytes += group.len() as u64;
        }
        put
    }

    /// The first peer from a place on for whom something was put together.
    pub(in crate::worker) fn next_open(&self, from: usize) -> Option<usize> {
        let is_open = |peer: &Peer| peer.out.as_ref().is_some_and(|load| !load.writer.is_empty());
        self.peers.iter().skip(from).position(is_open).map(|at| from + at)
    }

    /// Ends a peer's frame and hands it to `with`, with its Ethernet header, the packets in it and their bytes.
    pub(in crate::worker) fn ship(&mut self, peer: usize, with: impl FnOnce(&[u8], u32, u64)) {
        let own = self.config.mac;
        let Some(peer) = self.peers.get_mut(peer) else { return };
        let Some(load) = peer.out.as_mut().filter(|load| !load.writer.is_empty()) else { return };
        load.sequence = load.sequence.wrapping_add(1);
        let (packets, bytes) = (load.writer.packets(), std::mem::take(&mut load.bytes));
        let frame = load.writer.finish_with_room(load.sequence);
        if let Some(header) = frame.first_chunk_mut() {
            *header = ethernet(peer.address, own);
        }
        with(frame, packets, bytes);
        let format = load.format;
        load.writer.begin(&format);
    }
}

impl Load {
    fn new(grant: &Grant, config: &WireConfig) -> Self {
        let mut format = grant.format(STAGE);
        format.max_bytes = format.max_bytes.min(config.max_bytes);
        format.max_packets = format.max_packets.min(config.max_packets);
        let mut writer = Writer::new(format.max_bytes, EthernetHeader::LEN);
        writer.begin(&format);
        Self { format, features: grant.features, writer, sequence: 0, bytes: 0 }
    }

    /// What travels with a packet; `None`: the peer does not take that.
    #[inline]
    fn meta(&self, offload: Offload) -> Option<Meta> {
        if offload == Offload::NONE {
            return Some(Meta::NONE);
        }
        meta_of(offload, self.features)
    }

    /// Whether such a packet fits into a frame that holds nothing else.
    fn fits_any(&self, len: usize, meta: &Meta) -> bool {
        const FRONT: usize =
            aggregation::wire::HEADER_CHECKED + aggregation::wire::GROUP_HEADER + aggregation::wire::GROUP_CRC;
        let stored = len.next_multiple_of(4) + aggregation::wire::SUBFRAME_HEADER + meta.ext_len();
        FRONT + stored <= self.format.max_bytes
    }
}

/// What travels with a packet to a peer that has agreed to these features.
fn meta_of(offload: Offload, features: Features) -> Option<Meta> {
    let checksum = match offload.checksum {
        packet::Checksum::Unknown => Checksum::Unknown,
        packet::Checksum::Verified => Checksum::Verified,
        packet::Checksum::Unfinished { start, offset } if features.has(Features::CHECKSUM) => {
            Checksum::Unfinished { start, offset }
        }
        packet::Checksum::Unfinished { .. } => return None,
    };
    let gso = match offload.segmentation {
        None => None,
        Some(cut) if features.has(Features::GSO) => Some(Gso {
            kind: match cut.kind {
                packet::GsoKind::TcpV4 => GsoKind::TcpV4,
                packet::GsoKind::TcpV6 => GsoKind::TcpV6,
                packet::GsoKind::Udp => GsoKind::Udp,
            },
            ecn: cut.ecn,
            size: cut.size,
            header_len: cut.header_len,
        }),
        Some(_) => return None,
    };
    Some(Meta { checksum, gso, flow: None })
}

/// What travelled with a packet.
pub(in crate::worker) fn offload_of(meta: &Meta) -> Offload {
    Offload {
        checksum: match meta.checksum {
            Checksum::Unknown => packet::Checksum::Unknown,
            Checksum::Verified => packet::Checksum::Verified,
            Checksum::Unfinished { start, offset } => packet::Checksum::Unfinished { start, offset },
        },
        segmentation: meta.gso.map(|gso| packet::Segmentation {
            kind: match gso.kind {
                GsoKind::TcpV4 => packet::GsoKind::TcpV4,
                GsoKind::TcpV6 => packet::GsoKind::TcpV6,
                GsoKind::Udp => packet::GsoKind::Udp,
            },
            ecn: gso.ecn,
            size: gso.size,
            header_len: gso.header_len,
        }),
    }
}

/// Bytes of the longest control frame with its Ethernet header.
pub(in crate::worker) const CONTROL: usize = EthernetHeader::LEN + MAX_CONTROL;

fn ethernet(to: MacAddr, from: MacAddr) -> [u8; EthernetHeader::LEN] {
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
