// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be said to `shunt bench pvp`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use backend::config::InterfaceName;
use clap::ValueEnum;
use cnf::{DeviceConfig, Role};
use virtqueue::RingKind;

use super::flood::Flood;
use super::flows;
use super::frames::{self, Transport};
use super::inspect::Expect;
use super::scene;

/// Memory that the frames of one queue pair may take.
const MOST_FRAME_BYTES: u64 = 1 << 30;

/// Header and the longest ordinary frame.
const FULL_BUFFER: u32 = 1526;

/// Transmit buffers that are made as long as that.
const CACHED_BUFFERS: u32 = 1024;

/// Bytes of the virtio-net header, with all features that are asked for here.
pub(super) const HEADER: u32 = 12;

/// Throughput and latency between two ports: one thread sends and receives on both.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds to measure, after a warm-up of half a second
    #[arg(long, default_value_t = 3.0, value_name = "N")]
    pub(super) seconds: f64,
    /// Bytes of each frame, without its checksum
    #[arg(long, default_value_t = 64, value_name = "B")]
    pub(super) size: u32,
    /// Different five-tuples; every one is sent by the first port, and reversed by the second one
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) flows: u32,
    /// TCP instead of UDP: a handshake on every flow, then segments whose numbers advance
    #[arg(long)]
    pub(super) tcp: bool,
    /// Close every connection at the end
    #[arg(long, requires = "tcp")]
    pub(super) fin: bool,
    /// In what shape frames are to arrive; looked at are those that open and close flows, and a sample of the others
    #[arg(long, value_enum, default_value_t = Expect::Unchanged)]
    pub(super) expect: Expect,
    /// Ring format
    #[arg(long, value_enum, default_value_t = Ring::Packed)]
    pub(super) ring: Ring,
    /// Do without VIRTIO_F_IN_ORDER
    #[arg(long)]
    pub(super) no_in_order: bool,
    /// Mergeable receive buffers (VIRTIO_NET_F_MRG_RXBUF), of 2048 bytes
    #[arg(long)]
    pub(super) mergeable: bool,
    /// Notifications by ring position (VIRTIO_RING_F_EVENT_IDX)
    #[arg(long)]
    pub(super) event_idx: bool,
    /// Entries of each ring
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(super) queue_size: u16,
    /// Queue pairs of each port
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) pairs: u16,
    /// Shared memory in huge pages
    #[arg(long)]
    pub(super) huge_pages: bool,
    /// Send so many packets per second in all, instead of as many as go
    #[arg(long, value_name = "PPS", conflicts_with = "load")]
    pub(super) rate: Option<f64>,
    /// Measure how many packets go, then measure at this share of it, as in 10%
    #[arg(long, value_name = "PERCENT")]
    pub(super) load: Option<Percent>,
    /// Be the front end of the backend behind these two sockets, instead of a node of our own; in a scene four, A and B send
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "A,B")]
    pub(super) sockets: Vec<PathBuf>,
    /// Control socket of that backend, if it is a Shunt node: its cycles are asked for
    #[arg(long, requires = "sockets", value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Listen on the sockets, for a backend that connects
    #[arg(long, requires = "sockets")]
    pub(super) server: bool,
    /// Our own node forwards by MAC address instead of wiring the two ports together
    #[arg(long, conflicts_with = "sockets")]
    pub(super) bridge: bool,
    /// Policy of our own node's ports a and b, as a file for `shunt policy apply`; on the bridge
    #[arg(long, requires = "bridge", value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// A third port sends as much as it can, through stateful policy of its own and for nobody
    #[arg(long, value_enum, requires = "bridge", value_name = "WHAT")]
    pub(super) flood: Option<Flood>,
    /// Two CNFs that send and two that receive, on our own node: on its bridge under a stateful layer, wired in pairs, or with an
    /// uplink between those that send and those that receive
    #[arg(long, value_enum, conflicts_with_all = ["bridge", "flood", "tcp", "expect", "pairs"], value_name = "WHICH")]
    pub(super) scene: Option<Scene>,
    /// With `--scene uplink`: the two ends of a veth pair, or two interfaces on one link, that nobody else uses; of two pairs, as A,C,D,B,
    /// the inner ends are those of a node between the two, as at the top of a rack
    #[arg(long, value_delimiter = ',', value_parser = interface, conflicts_with = "sockets", value_name = "A,B")]
    pub(super) interfaces: Vec<InterfaceName>,
    /// Most packets of a frame on the uplinks
    #[arg(long, requires = "interfaces", requires = "aggregate", value_name = "N")]
    pub(super) group: Option<u16>,
    /// Packets of 60, 590 and 1514 bytes, 7 to 4 to 1, instead of one size; in a scene
    #[arg(long, conflicts_with = "size")]
    pub(super) imix: bool,
    /// CNFs and node put packets together, and nodes on an uplink between them; in a scene on a node of our own
    #[arg(long, conflicts_with = "sockets")]
    pub(super) aggregate: bool,
    /// Packets of a flow that are sent one behind the other; in a scene
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(super) run_length: u32,
    /// Bytes of a frame that a CNF puts together; in a scene
    #[arg(long, default_value_t = 4096, value_name = "B")]
    pub(super) bundle: u32,
    /// How our own node waits for packets [default: busy; interrupt where two share a core]
    #[arg(long, value_enum, conflicts_with = "sockets")]
    pub(super) poll: Option<Poll>,
    /// Core of our own node, or of both
    #[arg(long, default_value_t = 0, value_name = "CPU", conflicts_with = "sockets")]
    pub(super) node_cpu: u16,
    /// Core of the generator
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub(super) cpu: u16,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Ring format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Ring {
    /// One ring of descriptors
    Packed,
    /// Three rings
    Split,
}

/// What the four CNFs of a scene are connected by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Scene {
    /// The MAC bridge, with one stateful layer at every port
    #[default]
    Bridge,
    /// Wires, from each that sends to one that receives
    Crossconnect,
    /// The MAC bridges of two nodes, joined by uplinks, likewise with a stateful layer at every CNF's port
    Uplink,
}

impl Scene {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Crossconnect => "crossconnect",
            Self::Uplink => "uplink",
        }
    }
}

/// How the node waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Poll {
    /// Always looks
    Busy,
    /// Looks, then sleeps
    Adaptive,
    /// Sleeps
    Interrupt,
}

/// A share of the whole, from `10%` or `10`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percent(pub(super) f64);

impl FromStr for Percent {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let number: f64 = text.trim_end_matches('%').parse().context("not a number")?;
        ensure!(number > 0.0 && number <= 100.0, "not between 0 and 100");
        Ok(Self(number / 100.0))
    }
}

impl Options {
    /// Checks what clap cannot.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let (shortest, longest) = (self.transport().shortest(), frames::LONGEST);
        ensure!((shortest..=longest).contains(&self.size), "--size: {shortest} to {longest} bytes are possible");
        ensure!(
            !self.is_scene() || !self.bridge && self.pairs == 1,
            "--aggregate: a scene says itself how its CNFs are connected, and each has one queue pair"
        );
        ensure!(!self.imix || self.is_scene(), "--imix: only a scene has packets of different sizes");
        let is_uplink = self.scene == Some(Scene::Uplink);
        ensure!(
            if is_uplink { matches!(self.interfaces.len(), 2 | 4) } else { self.interfaces.is_empty() },
            "--interfaces: two are needed with --scene uplink, as A,B, or four, as A,C,D,B, and none without"
        );
        ensure!(
            !is_uplink || self.poll() != Poll::Busy && self.sockets.is_empty(),
            "--scene uplink: both nodes are our own and share a core, so they cannot be busy"
        );
        ensure!((512..=16_384).contains(&self.bundle), "--bundle: 512 to 16384 bytes are possible");
        ensure!((1..=4096).contains(&self.run_length), "--run-length: 1 to 4096 are possible");
        ensure!(self.seconds > 0.0 && self.seconds <= 86_400.0, "--seconds: not between 0 and a day");
        ensure!((1..=64).contains(&self.pairs), "--pairs: 1 to 64 are possible");
        ensure!((1..=flows::MOST).contains(&self.flows), "--flows: 1 to {} are possible", flows::MOST);
        ensure!(
            !self.tcp || self.flows >= u32::from(self.pairs),
            "--flows: with --tcp, as many are needed as there are queue pairs"
        );
        let bytes = u64::from(self.frame_buffers()) * u64::from(self.size + HEADER);
        ensure!(
            bytes <= MOST_FRAME_BYTES,
            "--flows: {} frames of {} bytes are prepared, which is more than 1 GiB",
            self.flows,
            self.size
        );
        let (ports, example) = if self.is_scene() { (scene::PORTS.len(), "A,B,C,D") } else { (2, "A,B") };
        ensure!(self.sockets.is_empty() || self.sockets.len() == ports, "--sockets: {ports} are needed, as {example}");
        Ok(())
    }

    /// Whether it is a scene that is asked for.
    pub(super) const fn is_scene(&self) -> bool {
        self.aggregate || self.scene.is_some()
    }

    /// Whether it is one on the bridge.
    pub(super) fn is_bridged_scene(&self) -> bool {
        self.is_scene() && self.scene.unwrap_or_default() != Scene::Crossconnect
    }

    /// The interfaces of a scene's uplinks, if it has any.
    pub(super) fn interfaces(&self) -> Option<&[InterfaceName]> {
        (!self.interfaces.is_empty()).then_some(&self.interfaces)
    }

    /// How our own nodes wait: two that share a core have to let each other have it.
    pub(super) fn poll(&self) -> Poll {
        let shares = self.scene == Some(Scene::Uplink);
        self.poll.unwrap_or(if shares { Poll::Interrupt } else { Poll::Busy })
    }

    pub(super) const fn transport(&self) -> Transport {
        if self.tcp { Transport::Tcp } else { Transport::Udp }
    }

    /// Frames that are prepared for each queue pair.
    fn frame_buffers(&self) -> u32 {
        self.flows.div_ceil(u32::from(self.pairs)).max(u32::from(self.queue_size))
    }

    /// Bytes of a transmit buffer: as programs have them, for a full frame, but no more than needed where they are so
    /// many that they would not stay in the cache.
    fn tx_buffer(&self) -> u32 {
        let frame = self.longest() + HEADER;
        if self.frame_buffers() <= CACHED_BUFFERS { frame.max(FULL_BUFFER) } else { frame }
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Bytes of the longest frame that is sent.
    pub(super) fn longest(&self) -> u32 {
        if self.imix { scene::IMIX_LONGEST } else { self.size }
    }

    /// The device to attach to `socket`.
    pub(super) fn device(&self, socket: PathBuf) -> DeviceConfig {
        DeviceConfig {
            role: if self.server { Role::Server } else { Role::Client },
            rings: match self.ring {
                Ring::Packed => RingKind::Packed,
                Ring::Split => RingKind::Split,
            },
            in_order: !self.no_in_order,
            mrg_rxbuf: self.mergeable,
            event_idx: self.event_idx,
            queue_pairs: self.pairs,
            queue_size: self.queue_size,
            tx_buffers: Some(if self.is_scene() { u32::from(self.queue_size) } else { self.frame_buffers() }),
            tx_buffer: if self.aggregate { self.bundle + 14 + HEADER } else { self.tx_buffer() },
            rx_buffer: if self.aggregate {
                16_384 + 14 + HEADER
            } else if self.mergeable {
                2048
            } else {
                (self.longest() + HEADER).max(FULL_BUFFER)
            },
            huge_pages: self.huge_pages,
            ..DeviceConfig::new(socket)
        }
    }
}

fn interface(text: &str) -> anyhow::Result<InterfaceName> {
    Ok(InterfaceName::new(text)?)
}
