// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[[port]]`: one port, in the file or added to a running node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BadSocketPath, Fault, Name, SocketPath, fields, parse};

/// One port: a table `[[port]]`, or the JSON body of `POST /ports`.
///
/// `serde` writes it, but only [`PortConfig::from_json`] reads it, so that one parser says what a port may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PortConfig {
    /// Unique among ports.
    #[schema(value_type = String, example = "vm0")]
    pub name: Name,
    /// What is at the other end; vhost-user where it is not given.
    #[schema(required = false)]
    pub kind: PortKind,
    /// The socket on which front end and node meet.
    #[schema(value_type = String, example = "/run/shunt/vm0.sock")]
    pub socket: SocketPath,
    /// Who listens on that socket; the node (`server`) where it is not given.
    #[schema(required = false)]
    pub role: Role,
    /// Queue pairs offered, 1 to 128; 1 where it is not given.
    #[schema(required = false, minimum = 1, maximum = 128)]
    pub queues: u16,
    /// The workers that serve it; empty or not given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    pub workers: Vec<Name>,
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
    /// assert_eq!((port.role, port.queues, port.workers.len()), (Role::Server, 1, 0));
    /// ```
    pub fn vhost_user(name: Name, socket: impl Into<std::path::PathBuf>) -> Result<Self, BadSocketPath> {
        Ok(Self {
            name,
            kind: PortKind::VhostUser,
            socket: SocketPath::new(socket)?,
            role: Role::Server,
            queues: 1,
            workers: Vec::new(),
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
}

/// What is at the other end of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A VM, container or process with a vhost-user front end.
    #[default]
    VhostUser,
}

impl PortKind {
    /// The kinds that this version serves, as they are spelled.
    pub const NAMES: &[&str] = &["vhost-user"];
    /// Kinds that are planned: asking for one is told apart from a misspelling.
    pub(super) const PLANNED: &[&str] = &["tap", "af-packet", "af-xdp", "udp"];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::VhostUser => "vhost-user",
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
        if text == Self::VhostUser.name() { Ok(Self::VhostUser) } else { Err(()) }
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
