// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is at the other end of a port, with all that only its kind has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SocketPath, UplinkConfig};

/// What is at the other end of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A VM, container or process with a vhost-user front end.
    VhostUser(VhostUser),
    /// A network: the port is an uplink.
    Uplink(UplinkConfig),
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

impl Endpoint {
    /// What kind it is.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::VhostUser(_) => PortKind::VhostUser,
            Self::Uplink(uplink) => uplink.link.kind(),
        }
    }
}

/// What kind of thing is at the other end of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A VM, container or process with a vhost-user front end.
    #[default]
    VhostUser,
    /// A network interface of the kernel, through a packet socket.
    AfPacket,
    /// A network interface of the kernel, through an AF_XDP socket.
    AfXdp,
    /// A tap device of the kernel.
    Tap,
    /// A tunnel of UDP datagrams to one peer.
    Udp,
}

impl PortKind {
    /// The kinds that this version serves, as they are spelled.
    pub const NAMES: &[&str] = &["vhost-user", "af-packet", "af-xdp", "tap", "udp"];
    const ALL: [Self; 5] = [Self::VhostUser, Self::AfPacket, Self::AfXdp, Self::Tap, Self::Udp];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::VhostUser => "vhost-user",
            Self::AfPacket => "af-packet",
            Self::AfXdp => "af-xdp",
            Self::Tap => "tap",
            Self::Udp => "udp",
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
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
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
