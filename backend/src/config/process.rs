// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[process]`: what the daemon gives up once it has started (docs/threat-model.md).

use std::fmt;
use std::str::FromStr;

use super::fields::{Fields, Table};
use super::{Fault, PortKind, Problem};

/// What the process may do while it serves guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Whether it gives up what it does not need: capabilities, and system calls.
    pub confined: bool,
    /// Capabilities that it keeps though no port of the configuration needs them, for ports that are added later.
    pub capabilities: Vec<Capability>,
}

/// A privilege that a kind of port needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// CAP_NET_ADMIN.
    NetAdmin,
    /// CAP_NET_RAW.
    NetRaw,
    /// CAP_BPF.
    Bpf,
    /// CAP_IPC_LOCK.
    IpcLock,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { confined: true, capabilities: Vec::new() }
    }
}

impl Capability {
    /// All of them, as they are spelled in the configuration.
    pub const NAMES: &[&str] = &["net_admin", "net_raw", "bpf", "ipc_lock"];

    /// What ports of a kind need.
    #[must_use]
    pub const fn of(kind: PortKind) -> &'static [Self] {
        match kind {
            PortKind::VhostUser => &[],
            // For the device; for socket buffers beyond what everybody may have (`net.core.rmem_max`).
            PortKind::Tap | PortKind::Udp => &[Self::NetAdmin],
            PortKind::AfPacket => &[Self::NetAdmin, Self::NetRaw],
            // The kernel locks the memory for frames, more than RLIMIT_MEMLOCK usually lets a process have.
            PortKind::AfXdp => &[Self::NetAdmin, Self::NetRaw, Self::Bpf, Self::IpcLock],
        }
    }
}

/// As the kernel's documentation spells it.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Bpf => "CAP_BPF",
            Self::IpcLock => "CAP_IPC_LOCK",
        })
    }
}

/// As the configuration spells it.
impl FromStr for Capability {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "net_admin" => Ok(Self::NetAdmin),
            "net_raw" => Ok(Self::NetRaw),
            "bpf" => Ok(Self::Bpf),
            "ipc_lock" => Ok(Self::IpcLock),
            _ => Err(()),
        }
    }
}

/// Reads `[process]`.
pub(super) fn parse(table: &Table) -> Result<ProcessConfig, Fault> {
    let fields = Fields::new(table, "process", 0, &["confined", "capabilities"])?;
    let capabilities = fields
        .list("capabilities", |name| name.parse().map_err(|()| Problem::BadCapability { found: name.to_owned() }))?;
    Ok(ProcessConfig { confined: fields.boolean("confined")?.unwrap_or(true), capabilities })
}
