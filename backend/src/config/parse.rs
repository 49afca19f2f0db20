// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generic values to typed sections. What a section says is checked here; how sections fit together, in `check.rs`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::address::is_host;
use super::fields::{Fields, Table};
use super::{
    AfXdp, Aggregation, Config, ControlConfig, CrossConnect, Endpoint, Fault, InterfaceAddress, InterfaceName,
    LinkConfig, MAX_QUEUE_PAIRS, NodeConfig, PollMode, PortConfig, PortKind, Problem, ProcessConfig, Role,
    UplinkConfig, VhostUser, Vni, WorkerConfig, XdpMode,
};

/// Largest CPU number that is worth comparing with the machine's.
const MAX_CPU: i64 = 1 << 16;

/// Parses the top level and everything below it.
pub(super) fn config(root: &Table) -> Result<Config, Fault> {
    let fields =
        Fields::new(root, "", 0, &["node", "control", "process", "worker", "port", "crossconnect", "controller"])?;
    let mut workers = numbered(&fields, "worker", worker)?;
    if workers.is_empty() {
        workers.push(WorkerConfig::fallback());
    }
    Ok(Config {
        node: fields.table("node")?.map_or_else(|| Ok(NodeConfig::default()), super::aggregation::node)?,
        control: fields.table("control")?.map_or_else(|| Ok(ControlConfig::default()), control)?,
        process: fields.table("process")?.map_or_else(|| Ok(ProcessConfig::default()), super::process::parse)?,
        workers,
        ports: numbered(&fields, "port", port)?,
        crossconnects: numbered(&fields, "crossconnect", crossconnect)?,
        controllers: numbered(&fields, "controller", super::controller::parse)?,
    })
}

/// Keys of every port, and those that only one kind has.
const PORT_KEYS: [&str; 26] = [
    "name",
    "kind",
    "socket",
    "role",
    "queues",
    "interface",
    "xdp_queue",
    "xdp_mode",
    "xdp_zero_copy",
    "local",
    "peer",
    "address",
    "gateway",
    "mtu",
    "mac",
    "vni",
    "workers",
    "max_flows",
    "max_unconfirmed_flows",
    "plans_per_second",
    "aggregate",
    "trusted",
    "tx-aggr-max-bytes",
    "tx-aggr-max-frames",
    "tx-aggr-time-usecs",
    "template",
];
const KIND_KEYS: [&str; 12] = [
    "socket",
    "role",
    "queues",
    "interface",
    "xdp_queue",
    "xdp_mode",
    "xdp_zero_copy",
    "local",
    "peer",
    "address",
    "gateway",
    "mtu",
];

/// Of the keys that not every kind has, those that `kind` does not have.
fn others_keys(kind: PortKind) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        PortKind::VhostUser => &["socket", "role", "queues"],
        PortKind::AfPacket | PortKind::Tap => &["interface", "address", "gateway", "mtu"],
        PortKind::AfXdp => &["interface", "xdp_queue", "xdp_mode", "xdp_zero_copy", "address", "gateway", "mtu"],
        PortKind::Udp => &["local", "peer", "address", "gateway", "mtu"],
    };
    KIND_KEYS.into_iter().filter(|key| !own.contains(key)).collect()
}

/// Parses the `index`th `[[port]]`, or the only port of a request.
pub(super) fn port(table: &Table, index: usize) -> Result<PortConfig, Fault> {
    let fields = Fields::new(table, "port", index, &PORT_KEYS)?;
    let kind = fields.choice::<PortKind>("kind", PortKind::NAMES)?.unwrap_or_default();
    let name = fields.required("name", fields.name("name")?)?;
    fields.refuse(&others_keys(kind), kind)?;
    let endpoint = match kind {
        PortKind::VhostUser => Endpoint::VhostUser(vhost_user(&fields)?),
        PortKind::AfPacket | PortKind::AfXdp | PortKind::Tap | PortKind::Udp => {
            Endpoint::Uplink(uplink(&fields, kind)?)
        }
    };
    let mac = fields.parsed("mac", |text| {
        let mac = text.parse().ok().filter(|mac: &packet::MacAddr| mac.is_unicast());
        mac.ok_or_else(|| Problem::BadMac { found: text.to_owned() })
    })?;
    let vni = fields.integer::<u32>("vni", 0, Vni::MAX.into())?.and_then(Vni::new);
    if vni.is_some() && mac.is_none() {
        return Err(fields.fault("vni", |_| Problem::VniWithoutMac));
    }
    let workers = fields.names("workers")?;
    if workers.as_ref().is_some_and(Vec::is_empty) {
        return Err(fields.fault("workers", |section| Problem::Empty { section, key: "workers" }));
    }
    let limits = super::limits::parse(&fields)?;
    let aggregation = Aggregation::parse(&fields, kind)?;
    Ok(PortConfig { name, endpoint, mac, vni, workers: workers.unwrap_or_default(), limits, aggregation })
}

fn vhost_user(fields: &Fields<'_>) -> Result<VhostUser, Fault> {
    Ok(VhostUser {
        socket: fields.required("socket", fields.socket("socket")?)?,
        role: fields.choice::<Role>("role", Role::NAMES)?.unwrap_or_default(),
        queues: fields.integer("queues", 1, MAX_QUEUE_PAIRS.into())?.unwrap_or(1),
    })
}

fn uplink(fields: &Fields<'_>, kind: PortKind) -> Result<UplinkConfig, Fault> {
    let link = match kind {
        PortKind::Udp => {
            let local = fields.required("local", end(fields, "local")?)?;
            LinkConfig::Udp { local, peer: fields.required("peer", end(fields, "peer")?)? }
        }
        PortKind::Tap => LinkConfig::Tap { interface: interface(fields)? },
        PortKind::AfXdp => LinkConfig::AfXdp(AfXdp {
            interface: interface(fields)?,
            queue: fields.integer("xdp_queue", 0, AfXdp::MAX_QUEUE.into())?.unwrap_or(0),
            mode: fields.choice("xdp_mode", XdpMode::NAMES)?.unwrap_or_default(),
            zero_copy: fields.boolean("xdp_zero_copy")?.unwrap_or(true),
        }),
        PortKind::AfPacket | PortKind::VhostUser => LinkConfig::AfPacket { interface: interface(fields)? },
    };
    let address: Vec<InterfaceAddress> =
        fields.list("address", |text| text.parse().map_err(|cause| Problem::BadAddress { cause }))?;
    let gateway: Vec<IpAddr> = fields.list("gateway", |text| {
        let gateway = text.parse().ok().filter(|gateway| is_host(*gateway));
        gateway.ok_or_else(|| Problem::BadGateway { found: text.to_owned() })
    })?;
    let mtu = fields.integer("mtu", (*UplinkConfig::MTU.start()).into(), (*UplinkConfig::MTU.end()).into())?;
    let uplink = UplinkConfig { link, address, gateway, mtu };
    uplink.check().map_err(|(key, problem)| fields.fault(key, |_| problem))?;
    Ok(uplink)
}

fn interface(fields: &Fields<'_>) -> Result<InterfaceName, Fault> {
    let name =
        fields.parsed("interface", |text| InterfaceName::new(text).map_err(|cause| Problem::BadInterface { cause }))?;
    fields.required("interface", name)
}

/// One end of a path of UDP datagrams.
fn end(fields: &Fields<'_>, key: &'static str) -> Result<Option<SocketAddr>, Fault> {
    fields.parsed(key, |text| {
        let what = "an IP address and a port";
        text.parse().map_err(|_| Problem::BadEnd { key, found: text.to_owned(), what })
    })
}

fn control(table: &Table) -> Result<ControlConfig, Fault> {
    let fields = Fields::new(table, "control", 0, &["socket", "state_dir", "http", "http_allow_remote"])?;
    let default = ControlConfig::default();
    let state_dir = fields.string("state_dir")?.map_or(default.state_dir, PathBuf::from);
    if state_dir.as_os_str().is_empty() {
        return Err(fields.fault("state_dir", |section| Problem::Empty { section, key: "state_dir" }));
    }
    Ok(ControlConfig {
        socket: fields.socket("socket")?.unwrap_or(default.socket),
        state_dir,
        http: fields
            .parsed("http", |text| text.parse().map_err(|_| Problem::HttpAddress { found: text.to_owned() }))?,
        http_allow_remote: fields.boolean("http_allow_remote")?.unwrap_or(false),
    })
}

fn worker(table: &Table, index: usize) -> Result<WorkerConfig, Fault> {
    let fields = Fields::new(table, "worker", index, &["name", "cpu", "poll"])?;
    Ok(WorkerConfig {
        name: fields.required("name", fields.name("name")?)?,
        cpu: fields.integer("cpu", 0, MAX_CPU)?,
        poll: fields.choice("poll", PollMode::NAMES)?.unwrap_or_default(),
    })
}

fn crossconnect(table: &Table, index: usize) -> Result<CrossConnect, Fault> {
    let fields = Fields::new(table, "crossconnect", index, &["ports"])?;
    let ports = fields.required("ports", fields.names("ports")?)?;
    let found = ports.len();
    let ports = ports.try_into().map_err(|_| fields.fault("ports", |_| Problem::CrossconnectCount { found }))?;
    Ok(CrossConnect { ports })
}

/// All tables `[[section]]`, parsed, in order.
fn numbered<T>(
    root: &Fields<'_>,
    section: &'static str,
    parse: impl Fn(&Table, usize) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    root.tables(section)?.into_iter().enumerate().map(|(index, table)| parse(table, index)).collect()
}
