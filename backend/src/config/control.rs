// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[control]`: how the node is spoken to, and where its records live.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Fault, Place, Problem, SocketPath};

/// Where the node keeps its sockets and ring records unless told otherwise. The one directory that Shunt creates itself.
pub const DEFAULT_RUN_DIR: &str = "/run/shunt";
/// The control socket unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/shunt/control.sock";

/// How the node is spoken to, and where its records live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// UNIX socket of the REST API; created with mode 0600.
    pub socket: SocketPath,
    /// Directory of the ring records, on tmpfs, so that they outlive the process but not the machine.
    pub state_dir: PathBuf,
    /// TCP address of the same API, read-only. A loopback address unless `http_allow_remote` is set.
    pub http: Option<SocketAddr>,
    /// The operator's word that `http` may be an address that other machines reach.
    pub http_allow_remote: bool,
}

impl ControlConfig {
    /// Checks what concerns two keys at once.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.http {
            Some(address) if !address.ip().is_loopback() && !self.http_allow_remote => {
                Err(Place::in_control("http").fault(Problem::HttpNotLoopback { address }))
            }
            _ => Ok(()),
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            socket: SocketPath::from_static(DEFAULT_SOCKET),
            state_dir: DEFAULT_RUN_DIR.into(),
            http: None,
            http_allow_remote: false,
        }
    }
}
