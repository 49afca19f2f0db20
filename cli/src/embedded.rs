// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A node in this process, for the demo and the benchmark: one worker, a few ports, everything in a directory of its own
//! that goes with it.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use backend::config::{
    Aggregation, Config, ControlConfig, CrossConnect, Endpoint, FlowLimits, InterfaceName, LinkConfig, Name,
    NodeConfig, PollMode, PortConfig, PortKind, SocketPath, UplinkConfig, WorkerConfig,
};
use backend::stats::{PortState, PortStatus, Stats};
use backend::{Node, NodeHandle};
use tempfile::TempDir;

/// How long a port may take from the end of its handshake until its rings run.
const START: Duration = Duration::from_secs(5);

/// What the node is to be.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'a> {
    /// Names of the ports.
    pub(crate) ports: &'a [&'static str],
    /// Queue pairs of each.
    pub(crate) queues: u16,
    /// Ports that are wired back to back; all others are on the bridge.
    pub(crate) wires: &'a [[&'static str; 2]],
    /// How the worker waits.
    pub(crate) poll: PollMode,
    /// Core of the worker.
    pub(crate) cpu: Option<usize>,
    /// What others know the node by.
    pub(crate) id: NonZero<u16>,
    /// Its ways to others, on the bridge.
    pub(crate) uplinks: &'a [Uplink<'a>],
    /// Whether it is the top of a rack.
    pub(crate) tor: bool,
}

/// A packet socket on an interface that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink<'a> {
    /// Name of the port.
    pub(crate) port: &'static str,
    pub(crate) interface: &'a InterfaceName,
    /// Whether nodes are looked for that aggregate.
    pub(crate) aggregate: bool,
    /// Whether they are believed what they say of groups.
    pub(crate) trusted: bool,
    /// Most packets of a frame.
    pub(crate) max_frames: Option<u16>,
}

/// A running node. Dropping it stops it and removes its files.
#[derive(Debug)]
pub(crate) struct EmbeddedNode {
    handle: NodeHandle,
    sockets: Vec<PathBuf>,
    // The node before the directory its sockets are in.
    _node: Node,
    _dir: TempDir,
}

impl EmbeddedNode {
    /// Starts it; its ports listen when this returns.
    pub(crate) fn start(shape: &Shape<'_>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("shunt-").tempdir().context("no directory for the sockets")?;
        let worker = Name::new("w0")?;
        let names: Vec<Name> = shape.ports.iter().map(|port| Name::new(*port)).collect::<Result<_, _>>()?;
        let sockets: Vec<PathBuf> = shape.ports.iter().map(|port| dir.path().join(format!("{port}.sock"))).collect();
        let mut ports = Vec::new();
        for (name, socket) in names.iter().zip(&sockets) {
            let mut port = PortConfig::vhost_user(name.clone(), socket)?;
            if let Some(guest) = port.guest_mut() {
                guest.queues = shape.queues;
            }
            ports.push(port);
        }
        for &Uplink { port, interface, aggregate, trusted, max_frames } in shape.uplinks {
            let kind = PortKind::AfPacket;
            ports.push(PortConfig {
                name: Name::new(port)?,
                endpoint: Endpoint::Uplink(UplinkConfig::new(LinkConfig::AfPacket { interface: interface.clone() })),
                mac: None,
                vni: None,
                workers: Vec::new(),
                limits: FlowLimits::default(),
                aggregation: Aggregation { aggregate, trusted, max_frames, ..Aggregation::of(kind) },
            });
        }
        let mut crossconnects = Vec::new();
        for [first, second] in shape.wires {
            crossconnects.push(CrossConnect { ports: [Name::new(*first)?, Name::new(*second)?] });
        }
        let control = ControlConfig {
            socket: SocketPath::new(dir.path().join("control.sock"))?,
            state_dir: dir.path().join("state"),
            ..ControlConfig::default()
        };
        let workers = vec![WorkerConfig { name: worker, cpu: shape.cpu, poll: shape.poll }];
        let node = Node::start(&Config {
            node: NodeConfig { id: shape.id, tor: shape.tor },
            control,
            workers,
            ports,
            crossconnects,
            ..Config::default()
        })
        .context("cannot start the node")?;
        Ok(Self { handle: node.handle(), sockets, _node: node, _dir: dir })
    }

    /// Where the ports listen, in the order of their names.
    pub(crate) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// The node itself.
    pub(crate) fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// What the node counts.
    pub(crate) fn stats(&self) -> anyhow::Result<Stats> {
        Ok(self.handle.stats()?)
    }

    /// Waits until the rings of every port run, after front ends were attached, and the link of every uplink is there.
    pub(crate) fn wait_until_up(&self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        loop {
            let ports = self.handle.ports()?;
            if ports.iter().all(|port| port.state == PortState::Up) {
                return Ok(());
            }
            let slow: Vec<String> =
                ports.iter().filter(|port| port.state != PortState::Up).map(what_is_missing).collect();
            ensure!(Instant::now() < end, "{}", slow.join(", "));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn what_is_missing(port: &PortStatus) -> String {
    match &port.uplink {
        Some(uplink) => format!("there is no interface {} that is up and has a carrier", uplink.interface),
        None => format!("{}: the rings do not start", port.name),
    }
}
