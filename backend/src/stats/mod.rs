// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a running node says about itself: the JSON of `GET /stats`, `shunt stats --json` and the source of `/metrics`.
//!
//! All counts are totals since the object came to be; they only grow, unless they say what is now. Directions are the node's: *rx* was received from
//! the guest, *tx* was delivered to it. Field names are a contract with scripts: fields are added, never renamed.

mod policy;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::policy::{FlowCounts, PolicyStats};
use crate::config::{Endpoint, LinkConfig, PollMode, PortKind, Role, UplinkConfig, XdpMode};

/// Everything that a node counts, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Seconds since the node started.
    pub uptime_s: f64,
    /// The poll threads.
    pub workers: Vec<WorkerStats>,
    /// The ports, by name.
    pub ports: Vec<PortStatus>,
    /// The forwarding table.
    pub bridge: BridgeStats,
    /// The ports that have policy, by name, where the control API answers and is not asked to leave them out.
    #[serde(default)]
    pub policies: Vec<PolicyStats>,
}

/// What one worker counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStats {
    /// Its name.
    pub name: String,
    /// The CPU it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// What it does while there is nothing to do.
    pub poll: PollMode,
    /// Packets it forwarded or dropped.
    pub packets: u64,
    /// TSC cycles spent in turns that found packets.
    pub busy_cycles: u64,
    /// TSC cycles spent in turns that found none; sleep is in neither.
    pub idle_cycles: u64,
    /// Turns of its loop.
    pub polls: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Packets it handed to another worker for delivery.
    #[serde(default)]
    pub handed_over: u64,
    /// Times that a queue sat out a turn, because its port had had more time than others.
    #[serde(default)]
    pub deferred: u64,
    /// TSC cycles of its longest turn of late, from the end of one round of bursts to the end of the next: what a packet
    /// may have waited that came at a bad time. Of the one or two seconds before its last turn; what it sleeps is no turn.
    #[serde(default)]
    pub longest_turn_cycles: u64,
}

/// The state of one port and what it counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// What is at the other end.
    pub kind: PortKind,
    /// Who listens; vhost-user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The socket on which front end and node meet; vhost-user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// What only uplinks have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkStatus>,
    /// How far the connection has come.
    pub state: PortState,
    /// The negotiated ring layout, once there is one.
    pub ring: Option<RingLayout>,
    /// Names of the negotiated virtio features.
    pub features: Vec<String>,
    /// Queue pairs that the front end has enabled.
    pub queue_pairs: u16,
    /// Frames received from the guest.
    pub rx_packets: u64,
    /// Their bytes, without virtio-net headers.
    pub rx_bytes: u64,
    /// Frames delivered to the guest.
    pub tx_packets: u64,
    /// Their bytes, without virtio-net headers.
    pub tx_bytes: u64,
    /// Frames dropped, by cause.
    pub drops: BTreeMap<String, u64>,
    /// Broken queues and refused connections, by cause.
    pub errors: BTreeMap<String, u64>,
    /// Times the guest was told of used buffers by an eventfd write.
    #[serde(default)]
    pub notifications: u64,
    /// What came and went in aggregates. Packets in them are counted above, too.
    #[serde(default)]
    pub aggregation: AggregationStatus,
}

/// What a port received and sent in aggregates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AggregationStatus {
    /// Aggregates received.
    pub rx_aggregates: u64,
    /// Packets in them.
    pub rx_packets: u64,
    /// Groups received that went on whole, to other nodes.
    #[serde(default)]
    pub rx_groups_spliced: u64,
    /// Packets in them.
    #[serde(default)]
    pub rx_packets_spliced: u64,
    /// Aggregates sent.
    pub tx_aggregates: u64,
    /// Packets in them.
    pub tx_packets: u64,
    /// Aggregates that were sent to the node and did not arrive, by their numbers.
    #[serde(default)]
    pub rx_lost: u64,
    /// Frames received that negotiate, as far as they were understood.
    #[serde(default)]
    pub rx_control: u64,
    /// Frames sent that negotiate.
    #[serde(default)]
    pub tx_control: u64,
    /// Frames that were put together and sent, aggregates and single packets, by what sent them.
    #[serde(default)]
    pub flushes: BTreeMap<String, u64>,
    /// Packets in each of them.
    #[serde(default)]
    pub packets_per_frame: Distribution,
    /// Nanoseconds for which the first packet of each was held; 0 where nothing is.
    #[serde(default)]
    pub held_ns: Distribution,
    /// What became of those that speak aggregates here: `up`, and how that ended.
    #[serde(default)]
    pub peers: BTreeMap<String, u64>,
    /// Packets that were lost with what was not taken, as far as headers say how many.
    #[serde(default)]
    pub packets_damaged: u64,
    /// What was not taken of frames received, by cause: whole frames, groups, or packets, as the cause says.
    pub damages: BTreeMap<String, u64>,
}

/// How often numbers of which size occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Distribution {
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// How many were how large; sizes that did not occur are left out.
    pub buckets: Vec<Bucket>,
}

/// Numbers of about one size: beyond half of `le`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// The largest of them: 2 to the power of something, less 1. `None`: whatever is beyond all others.
    pub le: Option<u64>,
    /// How many.
    pub count: u64,
}

impl Distribution {
    /// Adds counts by size, in the order of [`aggregation::flush::Histogram`].
    pub(crate) fn add(&mut self, sum: u64, counts: impl Iterator<Item = u64>) {
        self.sum += sum;
        for (i, count) in counts.enumerate().filter(|(_, count)| *count > 0) {
            self.count += count;
            let le = aggregation::flush::Histogram::bound(i);
            let key = |bucket: &Bucket| bucket.le.unwrap_or(u64::MAX);
            match self.buckets.binary_search_by_key(&le.unwrap_or(u64::MAX), key) {
                Ok(at) => self.buckets.get_mut(at).into_iter().for_each(|bucket| bucket.count += count),
                Err(at) => self.buckets.insert(at, Bucket { le, count }),
            }
        }
    }
}

impl PortStatus {
    /// A port as it is before anything connected: all counts zero.
    pub fn new(port: &crate::config::PortConfig) -> Self {
        Self {
            name: port.name.to_string(),
            kind: port.kind(),
            role: port.guest().map(|guest| guest.role),
            socket: port.guest().map(|guest| guest.socket.to_string()),
            uplink: match &port.endpoint {
                Endpoint::VhostUser(_) => None,
                Endpoint::Uplink(uplink) => Some(UplinkStatus::new(uplink)),
            },
            state: match port.guest().map(|guest| guest.role) {
                Some(Role::Client) => PortState::Connecting,
                Some(Role::Server) => PortState::Listening,
                None => PortState::Down,
            },
            ring: None,
            features: Vec::new(),
            queue_pairs: 0,
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            drops: BTreeMap::new(),
            errors: BTreeMap::new(),
            notifications: 0,
            aggregation: AggregationStatus::default(),
        }
    }
}

/// What an uplink has besides what all ports have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UplinkStatus {
    /// The network interface; empty: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Where datagrams arrive; udp only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Where datagrams go to; udp only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// How frames are exchanged with the device, while it is there; af-xdp only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<XdpStatus>,
    /// The node's own addresses there.
    pub address: Vec<String>,
    /// Their MAC address, while the interface is there.
    pub mac: Option<String>,
    /// Longest IP packet that is sent there, once it is known.
    pub mtu: Option<u16>,
    /// Frames received that their sender left unfinished: without a checksum, or not cut.
    pub rx_unfinished: u64,
    /// Those of them that were longer than a link takes.
    pub rx_oversized: u64,
    /// What the node cut the latter into, for who does not take them whole.
    pub segments: u64,
    /// Who is where on the link, as far as the node needed to know.
    pub neighbors: Vec<NeighborStatus>,
    /// Frames in which the node asked where a neighbour is.
    pub neighbors_asked: u64,
    /// Requests for the node's addresses that it answered.
    pub neighbors_answered: u64,
    /// Neighbours that became known, or moved.
    pub neighbors_learned: u64,
    /// Neighbours that did not answer.
    pub neighbors_failed: u64,
    /// Messages of other stations that claim an address of the node's.
    pub neighbors_duplicates: u64,
    /// Packets that wait for a neighbour to say where it is.
    pub parked: u64,
}

/// A neighbour of an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeighborStatus {
    /// Its IP address.
    pub ip: String,
    /// Its MAC address, if that is known.
    pub mac: Option<String>,
    /// What is known of it: incomplete, reachable, stale, failed.
    pub state: String,
}

/// How an AF_XDP socket exchanges frames with its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct XdpStatus {
    /// Where the program runs: `native` or `generic`.
    pub mode: XdpMode,
    /// Whether memory is shared with the device; else frames are copied.
    pub zero_copy: bool,
    /// Whether a frame may lie in several chunks.
    pub multi_buffer: bool,
}

impl UplinkStatus {
    /// An uplink whose interface nobody has looked at.
    fn new(uplink: &UplinkConfig) -> Self {
        let (local, peer) = match &uplink.link {
            LinkConfig::Udp { local, peer } => (Some(local.to_string()), Some(peer.to_string())),
            LinkConfig::AfPacket { .. } | LinkConfig::AfXdp(_) | LinkConfig::Tap { .. } => (None, None),
        };
        Self {
            interface: uplink.link.interface().map(ToString::to_string).unwrap_or_default(),
            local,
            peer,
            address: uplink.address.iter().map(ToString::to_string).collect(),
            mtu: uplink.mtu,
            ..Self::default()
        }
    }
}

/// How far the connection of a port has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Server role: nobody has connected.
    Listening,
    /// Client role: nobody answers on the socket; tried again all the time.
    Connecting,
    /// A front end is connected and negotiating.
    Connected,
    /// Uplink: the interface is not there, or down.
    Down,
    /// Rings run, or the interface is up: packets can flow.
    Up,
}

impl PortStatus {
    /// Where the port is met: its socket, its interface, or both ends of its path.
    pub fn place(&self) -> String {
        match (&self.socket, &self.uplink) {
            (Some(socket), _) => socket.clone(),
            (None, Some(UplinkStatus { local: Some(local), peer: Some(peer), .. })) => format!("{local} > {peer}"),
            (None, Some(uplink)) => uplink.interface.clone(),
            (None, None) => "-".to_owned(),
        }
    }
}

impl PortState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Listening, Self::Connecting, Self::Connected, Self::Down, Self::Up];

    /// As it is spelled in JSON, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The layout of a port's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RingLayout {
    /// One ring for both directions (virtio 1.1).
    Packed,
    /// Separate available and used rings.
    Split,
}

impl RingLayout {
    /// As it is spelled in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Split => "split",
        }
    }
}

impl fmt::Display for RingLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The MAC-learning table, summed over the workers' replicas where that makes sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BridgeStats {
    /// Addresses known now, in the fullest replica.
    pub entries: u64,
    /// Most addresses that a replica holds.
    pub capacity: u64,
    /// Addresses learned.
    #[serde(default)]
    pub learned: u64,
    /// Addresses that changed port.
    #[serde(default)]
    pub moves: u64,
    /// Addresses forgotten because nothing was heard of them.
    #[serde(default)]
    pub aged: u64,
    /// Addresses not learned because the table was full.
    #[serde(default)]
    pub full: u64,
    /// Frames sent to all ports because their destination was unknown or a group.
    #[serde(default)]
    pub flooded: u64,
}
