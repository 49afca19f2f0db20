// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is at the other end of a port, with all that only its kind has.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sys::MAX_MTU;

use super::{InterfaceAddress, InterfaceName, SocketPath};

/// What is at the other end of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A VM, container or process with a vhost-user front end.
    VhostUser(VhostUser),
    /// A network interface of the kernel: an uplink.
    AfPacket(AfPacket),
}

/// A vhost-user front end and how it is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUser {
    /// The socket on which front end and node meet.
    pub socket: SocketPath,
    /// Who listens on that socket.
    pub role: Role,
    /// Queue pairs offered, 1 to 128.
    pub queues: u16,
}

/// A network interface of the kernel, reached through a packet socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacket {
    /// The interface.
    pub interface: InterfaceName,
    /// The node's own addresses there: tunnels end at them, and the node answers ARP and neighbour solicitations for them.
    pub address: Vec<InterfaceAddress>,
    /// The routers to all that is not on the link: at most one for each version of IP, on the link itself.
    pub gateway: Vec<IpAddr>,
    /// Longest IP packet that is sent there; `None`: the interface's.
    pub mtu: Option<u16>,
}

impl Endpoint {
    /// What kind it is.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::VhostUser(_) => PortKind::VhostUser,
            Self::AfPacket(_) => PortKind::AfPacket,
        }
    }
}

impl AfPacket {
    /// Most addresses of one uplink.
    pub const MAX_ADDRESSES: usize = 16;
    /// The least MTU that IPv4 allows (RFC 791), and the most that a slot of the transmit ring has room for.
    pub const MTU: std::ops::RangeInclusive<u16> = 68..=MAX_MTU;
}

/// What kind of thing is at the other end of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A VM, container or process with a vhost-user front end.
    #[default]
    VhostUser,
    /// A network interface of the kernel.
    AfPacket,
}

impl PortKind {
    /// The kinds that this version serves, as they are spelled.
    pub const NAMES: &[&str] = &["vhost-user", "af-packet"];
    /// Kinds that are planned: asking for one is told apart from a misspelling.
    pub(super) const PLANNED: &[&str] = &["tap", "af-xdp", "udp"];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::VhostUser => "vhost-user",
            Self::AfPacket => "af-packet",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PortKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::VhostUser, Self::AfPacket].into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// Who listens on a port's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Shunt connects, and connects again whenever the socket reappears.
    Client,
    /// Shunt listens.
    #[default]
    Server,
}

impl Role {
    /// Both roles, as they are spelled.
    pub const NAMES: &[&str] = &["server", "client"];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Client, Self::Server].into_iter().find(|role| role.name() == text).ok_or(())
    }
}
