// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `[node]` and a `[[port]]` say about aggregates (decisions 25 and 26).

use std::num::NonZero;
use std::ops::RangeInclusive;

use super::error::Section;
use super::fields::{Fields, Table};
use super::{Fault, Place, PortKind, Problem};

/// A node, as others know it that put packets together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Unique among the nodes and network functions that can reach each other; announced in every HELLO.
    pub id: NonZero<u16>,
    /// Whether it is the top of a rack, which joins what comes from many nodes: what it sends says so.
    pub tor: bool,
}

/// How a port deals with aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregation {
    /// Whether aggregates are spoken there. At a guest's port the guest has to begin.
    pub aggregate: bool,
    /// Whether what is at the other end may say where groups come from and go to, and what it knows of them.
    pub trusted: bool,
    /// Most bytes of an aggregate that is sent there; `None`: what the peer takes.
    pub max_bytes: Option<u32>,
    /// Most packets of one; `None`: what the peer takes.
    pub max_frames: Option<u16>,
    /// Microseconds for which a packet is held at most, so that others join it.
    pub time_usecs: u32,
    /// Whether the Ethernet header that a run of packets shares is said once in what is sent by an uplink, if the peer takes that: fewer
    /// bytes, more work at both ends. Guests are sent all headers.
    pub template: bool,
}

const AGGREGATE: &str = "aggregate";
const TRUSTED: &str = "trusted";
const MAX_BYTES: &str = "tx-aggr-max-bytes";
const MAX_FRAMES: &str = "tx-aggr-max-frames";
const TIME_USECS: &str = "tx-aggr-time-usecs";
const TEMPLATE: &str = "template";

impl Default for NodeConfig {
    fn default() -> Self {
        Self { id: NonZero::<u16>::MIN, tor: false }
    }
}

impl NodeConfig {
    /// What frames are called that it puts together (`docs/aggregate-frame.md`, 3).
    pub(crate) fn stage(self) -> u8 {
        if self.tor { 3 } else { 2 }
    }
}

impl Aggregation {
    /// Bytes of an aggregate: the least that two sides may agree on, and the most that its header can say.
    pub const MAX_BYTES: RangeInclusive<u32> = 52..=65_535;
    /// Packets of an aggregate.
    pub const MAX_FRAMES: RangeInclusive<u16> = 1..=u16::MAX;
    /// Longest time for which packets are held, in microseconds.
    pub const MAX_TIME_USECS: u32 = 100_000;

    /// What a port has that says nothing: guests may begin, and nothing is held.
    pub fn of(kind: PortKind) -> Self {
        let aggregate = kind == PortKind::VhostUser;
        Self { aggregate, trusted: false, max_bytes: None, max_frames: None, time_usecs: 0, template: false }
    }

    /// Reads the keys of a port.
    pub(super) fn parse(fields: &Fields<'_>, kind: PortKind) -> Result<Self, Fault> {
        let default = Self::of(kind);
        let (bytes, frames) = (Self::MAX_BYTES, Self::MAX_FRAMES);
        Ok(Self {
            aggregate: fields.boolean(AGGREGATE)?.unwrap_or(default.aggregate),
            trusted: fields.boolean(TRUSTED)?.unwrap_or(default.trusted),
            max_bytes: fields.integer(MAX_BYTES, (*bytes.start()).into(), (*bytes.end()).into())?,
            max_frames: fields.integer(MAX_FRAMES, (*frames.start()).into(), (*frames.end()).into())?,
            time_usecs: fields.integer(TIME_USECS, 0, Self::MAX_TIME_USECS.into())?.unwrap_or(default.time_usecs),
            template: fields.boolean(TEMPLATE)?.unwrap_or(default.template),
        })
    }

    /// Checks what nobody has parsed.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |key, found: u32, min: u32, max: u32| {
            let section = Section("port");
            let problem = Problem::OutOfRange { section, key, found: found.into(), min: min.into(), max: max.into() };
            Err(Place::in_port(0, key).fault(problem))
        };
        if let Some(found) = self.max_bytes.filter(|bytes| !Self::MAX_BYTES.contains(bytes)) {
            return wrong(MAX_BYTES, found, *Self::MAX_BYTES.start(), *Self::MAX_BYTES.end());
        }
        if self.max_frames == Some(0) {
            return wrong(MAX_FRAMES, 0, 1, u16::MAX.into());
        }
        if self.time_usecs > Self::MAX_TIME_USECS {
            return wrong(TIME_USECS, self.time_usecs, 0, Self::MAX_TIME_USECS);
        }
        Ok(())
    }
}

/// Reads `[node]`.
pub(super) fn node(table: &Table) -> Result<NodeConfig, Fault> {
    let fields = Fields::new(table, "node", 0, &["id", "tor"])?;
    let default = NodeConfig::default();
    let id = fields.integer("id", 1, u16::MAX.into())?.and_then(NonZero::new).unwrap_or(default.id);
    Ok(NodeConfig { id, tor: fields.boolean("tor")?.unwrap_or(default.tor) })
}
