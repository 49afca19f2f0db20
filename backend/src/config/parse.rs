// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generic values to typed sections. What a section says is checked here; how sections fit together, in `check.rs`.

use std::net::IpAddr;
use std::path::PathBuf;

use super::address::is_host;
use super::error::Section;
use super::fields::{Fields, Table};
use super::{
    AfPacket, Config, ControlConfig, CrossConnect, Endpoint, Fault, InterfaceAddress, InterfaceName, MAX_QUEUE_PAIRS,
    PollMode, PortConfig, PortKind, Problem, Role, VhostUser, Vni, WorkerConfig,
};

/// Largest CPU number that is worth comparing with the machine's.
const MAX_CPU: i64 = 1 << 16;

/// Parses the top level and everything below it.
pub(super) fn config(root: &Table) -> Result<Config, Fault> {
    let fields = Fields::new(root, "", 0, &["control", "worker", "port", "crossconnect", "controller"])?;
    let mut workers = numbered(&fields, "worker", worker)?;
    if workers.is_empty() {
        workers.push(WorkerConfig::fallback());
    }
    Ok(Config {
        control: fields.table("control")?.map_or_else(|| Ok(ControlConfig::default()), control)?,
        workers,
        ports: numbered(&fields, "port", port)?,
        crossconnects: numbered(&fields, "crossconnect", crossconnect)?,
        controllers: numbered(&fields, "controller", super::controller::parse)?,
    })
}

/// Keys of every port, and those that only one kind has.
const PORT_KEYS: [&str; 15] = [
    "name",
    "kind",
    "socket",
    "role",
    "queues",
    "interface",
    "address",
    "gateway",
    "mtu",
    "mac",
    "vni",
    "workers",
    "max_flows",
    "max_unconfirmed_flows",
    "plans_per_second",
];
const VHOST_USER_KEYS: [&str; 3] = ["socket", "role", "queues"];
const AF_PACKET_KEYS: [&str; 4] = ["interface", "address", "gateway", "mtu"];

/// Parses the `index`th `[[port]]`, or the only port of a request.
pub(super) fn port(table: &Table, index: usize) -> Result<PortConfig, Fault> {
    let fields = Fields::new(table, "port", index, &PORT_KEYS)?;
    let kind = fields.parsed("kind", |text| {
        text.parse().map_err(|()| {
            if PortKind::PLANNED.contains(&text) {
                return Problem::KindNotServed { kind: text.to_owned() };
            }
            Problem::UnknownValue {
                section: Section("port"),
                key: "kind",
                found: text.to_owned(),
                known: PortKind::NAMES,
            }
        })
    })?;
    let name = fields.required("name", fields.name("name")?)?;
    let endpoint = match kind.unwrap_or_default() {
        PortKind::VhostUser => Endpoint::VhostUser(vhost_user(&fields)?),
        PortKind::AfPacket => Endpoint::AfPacket(af_packet(&fields)?),
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
    Ok(PortConfig { name, endpoint, mac, vni, workers: workers.unwrap_or_default(), limits })
}

fn vhost_user(fields: &Fields<'_>) -> Result<VhostUser, Fault> {
    fields.refuse(&AF_PACKET_KEYS, PortKind::VhostUser)?;
    Ok(VhostUser {
        socket: fields.required("socket", fields.socket("socket")?)?,
        role: fields.choice::<Role>("role", Role::NAMES)?.unwrap_or_default(),
        queues: fields.integer("queues", 1, MAX_QUEUE_PAIRS.into())?.unwrap_or(1),
    })
}

fn af_packet(fields: &Fields<'_>) -> Result<AfPacket, Fault> {
    fields.refuse(&VHOST_USER_KEYS, PortKind::AfPacket)?;
    let interface =
        fields.parsed("interface", |text| InterfaceName::new(text).map_err(|cause| Problem::BadInterface { cause }))?;
    let address: Vec<InterfaceAddress> =
        fields.list("address", |text| text.parse().map_err(|cause| Problem::BadAddress { cause }))?;
    let gateway: Vec<IpAddr> = fields.list("gateway", |text| {
        let gateway = text.parse().ok().filter(|gateway| is_host(*gateway));
        gateway.ok_or_else(|| Problem::BadGateway { found: text.to_owned() })
    })?;
    let mtu = fields.integer("mtu", (*AfPacket::MTU.start()).into(), (*AfPacket::MTU.end()).into())?;
    let uplink = AfPacket { interface: fields.required("interface", interface)?, address, gateway, mtu };
    uplink.check_addresses().map_err(|(key, problem)| fields.fault(key, |_| problem))?;
    Ok(uplink)
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
