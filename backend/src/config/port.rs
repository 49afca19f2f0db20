// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[[port]]`: one port, in the file or added to a running node.

use packet::MacAddr;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, PortKind, Role, VhostUser};
use super::{
    AfXdp, Aggregation, BadSocketPath, Fault, FlowLimits, LinkConfig, Name, SocketPath, Vni, XdpMode, fields, parse,
};

/// One port: a table `[[port]]`, or the JSON body of `POST /ports` ([`PortBody`]).
///
/// Only [`PortConfig::from_json`] reads the JSON that `serde` writes, so that one parser says what a port may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Unique among ports.
    pub name: Name,
    /// What is at the other end.
    pub endpoint: Endpoint,
    /// The one address that is there. The port then learns none, and other sources are dropped.
    pub mac: Option<MacAddr>,
    /// The virtual network that it is in; never without `mac`. `None`: it is on the bridge.
    pub vni: Option<Vni>,
    /// The workers that serve it; empty: all.
    pub workers: Vec<Name>,
    /// How many flows it may have, once it has policy.
    pub limits: FlowLimits,
    /// How it deals with aggregates.
    pub aggregation: Aggregation,
}

impl PortConfig {
    /// A vhost-user port that listens on `socket`, with one queue pair, served by all workers.
    ///
    /// # Errors
    /// If `socket` does not fit a socket address.
    ///
    /// ```
    /// use backend::config::{Name, PortConfig, Role};
    ///
    /// let port = PortConfig::vhost_user(Name::new("vm0").unwrap(), "/tmp/vm0.sock").unwrap();
    /// let guest = port.guest().unwrap();
    /// assert_eq!((guest.role, guest.queues, port.workers.len()), (Role::Server, 1, 0));
    /// ```
    pub fn vhost_user(name: Name, socket: impl Into<std::path::PathBuf>) -> Result<Self, BadSocketPath> {
        let guest = VhostUser { socket: SocketPath::new(socket)?, role: Role::Server, queues: 1 };
        Ok(Self {
            name,
            endpoint: Endpoint::VhostUser(guest),
            mac: None,
            vni: None,
            workers: Vec::new(),
            limits: FlowLimits::default(),
            aggregation: Aggregation::of(PortKind::VhostUser),
        })
    }

    /// Reads the JSON form, with the same keys, defaults and errors as the TOML form.
    ///
    /// Whether its name, socket and workers fit a node is not known here: that node says it.
    ///
    /// # Errors
    /// The first thing found wrong; [`Fault::place`] names the key.
    pub fn from_json(body: &[u8]) -> Result<Self, Fault> {
        parse::port(&fields::json_object(body)?, 0)
    }

    /// What kind of thing is at the other end.
    pub fn kind(&self) -> PortKind {
        self.endpoint.kind()
    }

    /// What only vhost-user ports have.
    pub fn guest(&self) -> Option<&VhostUser> {
        match &self.endpoint {
            Endpoint::VhostUser(guest) => Some(guest),
            Endpoint::Uplink(_) => None,
        }
    }

    /// What only vhost-user ports have, to be changed.
    pub fn guest_mut(&mut self) -> Option<&mut VhostUser> {
        match &mut self.endpoint {
            Endpoint::VhostUser(guest) => Some(guest),
            Endpoint::Uplink(_) => None,
        }
    }

    /// By what it is known in the (VNI, MAC) table of overlays.
    pub fn overlay_key(&self) -> Option<(Vni, MacAddr)> {
        Some((self.vni?, self.mac?))
    }
}

impl Serialize for PortConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PortBody::from(self).serialize(serializer)
    }
}

/// A port as JSON: all keys of a `[[port]]`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = PortConfig)]
pub struct PortBody {
    /// Unique among ports.
    #[schema(example = "vm0")]
    name: String,
    /// What is at the other end; vhost-user where it is not given.
    #[schema(required = false)]
    kind: PortKind,
    /// The socket on which front end and node meet; required for vhost-user, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/run/shunt/vm0.sock")]
    socket: Option<String>,
    /// Who listens on that socket; the node (`server`) where it is not given. Only vhost-user.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Queue pairs offered, 1 to 128; 1 where it is not given. Only vhost-user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 128)]
    queues: Option<u16>,
    /// The network interface; required for af-packet, af-xdp and tap, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "eth0")]
    interface: Option<String>,
    /// Which of the interface's queues; 0 where it is not given. Only af-xdp.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1023)]
    xdp_queue: Option<u16>,
    /// Where the XDP program runs: in the driver if it can (`auto`) where it is not given. Only af-xdp.
    #[serde(skip_serializing_if = "Option::is_none")]
    xdp_mode: Option<XdpMode>,
    /// Whether to share memory with the device if its driver can; true where it is not given. Only af-xdp.
    #[serde(skip_serializing_if = "Option::is_none")]
    xdp_zero_copy: Option<bool>,
    /// Where datagrams arrive; required for udp, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.1:34997")]
    local: Option<String>,
    /// Where datagrams go to, and from where they are taken; required for udp, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.2:34997")]
    peer: Option<String>,
    /// The node's own addresses on the link, each with its prefix; one may be given without the array. Only uplinks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["192.0.2.1/24", "2001:db8::1/64"]))]
    address: Vec<String>,
    /// The routers to all that is not on the link; one may be given without the array. Only uplinks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["192.0.2.254"]))]
    gateway: Vec<String>,
    /// Longest IP packet that is sent there; what the link says where it is not given. Only uplinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 68, maximum = 65535)]
    mtu: Option<u16>,
    /// The one address that is there: others are neither learnt nor let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "52:54:00:00:00:01")]
    mac: Option<String>,
    /// The virtual network that the port is in; needs `mac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 16_777_215)]
    vni: Option<u32>,
    /// The workers that serve it; empty or not given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    workers: Vec<String>,
    /// Flows of the port's policy that both ends have confirmed, two for each connection; 131072 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2, maximum = 1_000_000)]
    max_flows: Option<u32>,
    /// Flows that nobody has answered yet, on top of those; 16384 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 48_000)]
    max_unconfirmed_flows: Option<u32>,
    /// Flows that may begin in a second; 200000 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    plans_per_second: Option<u32>,
    /// Whether aggregates are spoken there. Where it is not given: at a vhost-user port yes, if the guest begins; else no.
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<bool>,
    /// Whether the other end may say where groups of packets come from and go to; false where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<bool>,
    /// Most bytes of an aggregate that is sent there; what the peer takes where it is not given.
    #[serde(rename = "tx-aggr-max-bytes", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 52, maximum = 65535)]
    tx_aggr_max_bytes: Option<u32>,
    /// Most packets of an aggregate that is sent there; what the peer takes where it is not given.
    #[serde(rename = "tx-aggr-max-frames", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535)]
    tx_aggr_max_frames: Option<u16>,
    /// Microseconds for which a packet is held at most, so that others join it; 0 where it is not given: not at all.
    #[serde(rename = "tx-aggr-time-usecs", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100_000)]
    tx_aggr_time_usecs: Option<u32>,
    /// Whether the Ethernet header of a run of packets is said once in what is sent by an uplink, if the peer takes that; false where it is
    /// not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<bool>,
}

impl From<&PortConfig> for PortBody {
    fn from(port: &PortConfig) -> Self {
        let (limits, default) = (&port.limits, FlowLimits::default());
        let (aggregation, usual) = (&port.aggregation, Aggregation::of(port.kind()));
        let unless = |default: u32, value: u32| (value != default).then_some(value);
        let unlike = |usual: bool, value: bool| (value != usual).then_some(value);
        let common = Self {
            name: port.name.to_string(),
            kind: port.kind(),
            mac: port.mac.map(|mac| mac.to_string()),
            vni: port.vni.map(Vni::get),
            workers: port.workers.iter().map(ToString::to_string).collect(),
            max_flows: unless(default.confirmed, limits.confirmed),
            max_unconfirmed_flows: unless(default.unconfirmed, limits.unconfirmed),
            plans_per_second: unless(default.plans_per_second, limits.plans_per_second),
            aggregate: unlike(usual.aggregate, aggregation.aggregate),
            trusted: unlike(usual.trusted, aggregation.trusted),
            tx_aggr_max_bytes: aggregation.max_bytes,
            tx_aggr_max_frames: aggregation.max_frames,
            tx_aggr_time_usecs: unless(usual.time_usecs, aggregation.time_usecs),
            template: unlike(usual.template, aggregation.template),
            ..Self::default()
        };
        match &port.endpoint {
            Endpoint::VhostUser(VhostUser { socket, role, queues }) => Self {
                // Lossy only for paths that came from neither TOML nor JSON, which are text.
                socket: Some(socket.to_string_lossy().into_owned()),
                role: Some(*role),
                queues: Some(*queues),
                ..common
            },
            Endpoint::Uplink(uplink) => Self {
                address: uplink.address.iter().map(ToString::to_string).collect(),
                gateway: uplink.gateway.iter().map(ToString::to_string).collect(),
                mtu: uplink.mtu,
                ..common.with_link(&uplink.link)
            },
        }
    }
}

impl PortBody {
    /// With the keys that say what an uplink goes through; what has its default is left out.
    fn with_link(self, link: &LinkConfig) -> Self {
        let with = Self { interface: link.interface().map(ToString::to_string), ..self };
        match link {
            LinkConfig::AfPacket { .. } | LinkConfig::Tap { .. } => with,
            LinkConfig::AfXdp(AfXdp { interface: _, queue, mode, zero_copy }) => Self {
                xdp_queue: (*queue != 0).then_some(*queue),
                xdp_mode: (*mode != XdpMode::default()).then_some(*mode),
                xdp_zero_copy: (!zero_copy).then_some(false),
                ..with
            },
            LinkConfig::Udp { local, peer } => {
                Self { local: Some(local.to_string()), peer: Some(peer.to_string()), ..with }
            }
        }
    }
}
