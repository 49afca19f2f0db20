// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt port`: the ports of a running node.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::Context;
use backend::config::{FlowLimits, MAX_QUEUE_PAIRS, Name, PortConfig, PortKind, Role, XdpMode};
use backend::stats::PortStatus;
use clap::builder::{PossibleValuesParser, RangedI64ValueParser};
use serde_json::{Value, json};

use crate::client::{Client, Control};
use crate::columns::Columns;
use crate::output::print;

/// Lists, adds and removes ports of a running node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Lists the ports
    List {
        /// Print JSON, all there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Adds a port
    Add(Box<Add>),
    /// Removes a port; its guest is disconnected
    Remove {
        /// The port
        name: Name,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The new port
    name: Name,
    /// What is at the other end [default: af-packet with --interface, udp with --peer, else vhost-user]
    #[arg(long)]
    kind: Option<String>,
    /// Socket on which front end and node meet
    #[arg(long, value_name = "PATH", required_unless_present_any = ["interface", "peer"])]
    socket: Option<PathBuf>,
    /// Whether the node listens on it (server) or connects to it (client)
    #[arg(long, value_parser = PossibleValuesParser::new(Role::NAMES))]
    role: Option<String>,
    /// Queue pairs offered
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUE_PAIRS)))]
    queues: Option<u16>,
    /// Network interface of an uplink
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    interface: Option<String>,
    /// Which of the interface's queues (af-xdp)
    #[arg(long, value_name = "N")]
    xdp_queue: Option<u16>,
    /// Where the XDP program runs [default: auto]
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(XdpMode::NAMES))]
    xdp_mode: Option<String>,
    /// Whether to share memory with the device if its driver can [default: true]
    #[arg(long, value_name = "BOOL")]
    xdp_zero_copy: Option<bool>,
    /// Where the datagrams of an uplink arrive
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["socket", "interface"])]
    local: Option<String>,
    /// Where they go to, and from where alone they are taken
    #[arg(long, value_name = "IP:PORT", requires = "local", conflicts_with_all = ["socket", "interface"])]
    peer: Option<String>,
    /// The node's own addresses there
    #[arg(long, value_delimiter = ',', value_name = "IP/PREFIX,..")]
    address: Vec<String>,
    /// The routers there
    #[arg(long, value_delimiter = ',', value_name = "IP,..")]
    gateway: Vec<String>,
    /// Longest IP packet that is sent there [default: the link's MTU]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// The one MAC address that is at the port
    #[arg(long)]
    mac: Option<String>,
    /// The virtual network that the port is in
    #[arg(long)]
    vni: Option<u32>,
    /// Workers that serve it; all unless given
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    workers: Vec<Name>,
    /// Flows of its policy that are confirmed, two for each connection, at most
    #[arg(long, value_name = "N", value_parser = within(FlowLimits::CONFIRMED))]
    max_flows: Option<u32>,
    /// Flows that nobody has answered yet, at most, on top of those
    #[arg(long, value_name = "N", value_parser = within(FlowLimits::UNCONFIRMED))]
    max_unconfirmed_flows: Option<u32>,
    /// Flows that may begin in a second
    #[arg(long, value_name = "N", value_parser = within(FlowLimits::PLANS_PER_SECOND))]
    plans_per_second: Option<u32>,
    /// Whether aggregates are spoken there [default: at a guest's port, if the guest begins]
    #[arg(long, value_name = "BOOL")]
    aggregate: Option<bool>,
    /// Whether the other end may say where groups of packets come from and go to [default: false]
    #[arg(long, value_name = "BOOL")]
    trusted: Option<bool>,
    /// Most bytes of an aggregate that is sent there [default: what the peer takes]
    #[arg(long, value_name = "BYTES")]
    tx_aggr_max_bytes: Option<u32>,
    /// Most packets of one [default: what the peer takes]
    #[arg(long, value_name = "N")]
    tx_aggr_max_frames: Option<u32>,
    /// How long a packet is held at most, so that others join it [default: 0]
    #[arg(long, value_name = "MICROSECONDS")]
    tx_aggr_time_usecs: Option<u32>,
    /// Whether the Ethernet header of a run of packets is said once in what is sent by an uplink [default: false]
    #[arg(long, value_name = "BOOL")]
    template: Option<bool>,
    #[command(flatten)]
    control: Control,
}

fn within(range: RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(i64::from(*range.start())..=i64::from(*range.end()))
}

/// Does what the command line says.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::List { json: true, control } => print(&(Client::new(control)?.text("/ports")? + "\n")),
        What::List { json: false, control } => list(&Client::new(control)?),
        What::Add(what) => add(what),
        What::Remove { name, control } => {
            Client::new(control)?.delete(&format!("/ports/{name}"))?;
            print(&format!("port {name} is removed\n"))
        }
    }
}

fn list(client: &Client) -> anyhow::Result<()> {
    let ports: Vec<PortStatus> = client.get("/ports")?;
    if ports.is_empty() {
        return print("no ports\n");
    }
    let mut table = Columns::new(&["PORT", "KIND", "STATE", "RING", "PAIRS", "ROLE", "PLACE"]);
    for port in ports {
        let place = port.place();
        table.row([
            port.name,
            port.kind.to_string(),
            port.state.to_string(),
            port.ring.map_or_else(|| "-".to_owned(), |ring| ring.to_string()),
            port.queue_pairs.to_string(),
            port.role.map_or_else(|| "-".to_owned(), |role| role.to_string()),
            place,
        ]);
    }
    print(&table.to_string())
}

fn add(what: &Add) -> anyhow::Result<()> {
    let name = &what.name;
    // The same judgement as the node's, but before anybody needs to answer.
    let port = PortConfig::from_json(what.body()?.to_string().as_bytes()).with_context(|| format!("port {name}"))?;
    let status: PortStatus = Client::new(&what.control)?.post("/ports", &port)?;
    print(&format!("port {name} is {} on {}\n", status.state, status.place()))
}

impl Add {
    /// The keys that were given, as the node takes them.
    fn body(&self) -> anyhow::Result<Value> {
        let default = match (&self.interface, &self.peer) {
            (Some(_), _) => PortKind::AfPacket,
            (None, Some(_)) => PortKind::Udp,
            (None, None) => PortKind::VhostUser,
        };
        let mut body = json!({ "name": self.name, "kind": self.kind.as_deref().unwrap_or_else(|| default.name()) });
        let mut set = |key: &str, value: Value| {
            if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
                body[key] = value;
            }
        };
        if let Some(socket) = &self.socket {
            // The node has its own idea of where relative paths begin.
            let socket = std::path::absolute(socket).with_context(|| format!("socket {}", socket.display()))?;
            let text = socket.to_str().with_context(|| format!("socket {} is not text", socket.display()))?;
            set("socket", json!(text));
        }
        set("role", json!(self.role));
        set("queues", json!(self.queues));
        set("interface", json!(self.interface));
        set("xdp_queue", json!(self.xdp_queue));
        set("xdp_mode", json!(self.xdp_mode));
        set("xdp_zero_copy", json!(self.xdp_zero_copy));
        set("local", json!(self.local));
        set("peer", json!(self.peer));
        set("address", json!(self.address));
        set("gateway", json!(self.gateway));
        set("mtu", json!(self.mtu));
        set("mac", json!(self.mac));
        set("vni", json!(self.vni));
        set("workers", json!(self.workers));
        set("max_flows", json!(self.max_flows));
        set("max_unconfirmed_flows", json!(self.max_unconfirmed_flows));
        set("plans_per_second", json!(self.plans_per_second));
        set("aggregate", json!(self.aggregate));
        set("trusted", json!(self.trusted));
        set("tx-aggr-max-bytes", json!(self.tx_aggr_max_bytes));
        set("tx-aggr-max-frames", json!(self.tx_aggr_max_frames));
        set("tx-aggr-time-usecs", json!(self.tx_aggr_time_usecs));
        set("template", json!(self.template));
        Ok(body)
    }
}
