// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator asks for, as a value.
//!
//! A [`Config`] is parsed once, from TOML, and after that cannot be wrong: names are checked [`Name`]s, paths fit a socket
//! address, numbers are in range, and every reference between sections resolves. The keys are a contract with the
//! operator's files and scripts; `docs/user-guide/configuration.md` lists them.
//!
//! | file | what it holds |
//! |---|---|
//! | `control.rs` | `[control]`: socket, state directory, HTTP address |
//! | `worker.rs` | `[[worker]]`: a poll thread |
//! | `process.rs` | `[process]`: what the daemon gives up once it has started |
//! | `controller.rs` | `[[controller]]`: who may write policy |
//! | `port.rs` | `[[port]]`: also the body of `POST /ports` |
//! | `limits.rs` | how many flows a port may have |
//! | `aggregation.rs` | `[node]`, and how a port deals with aggregates |
//! | `endpoint.rs` | what is at the other end of a port, by kind |
//! | `uplink.rs` | a way to a network, by kind |
//! | `address.rs`, `socket_path.rs` | checked strings and numbers |
//! | `machine.rs` | what the machine offers (CPUs) |
//! | `toml_text.rs` | TOML to generic values, and where each stood |
//! | `fields.rs`, `parse.rs` | generic values to the types above |
//! | `conflict.rs` | what two ports cannot both have |
//! | `check.rs` | what only shows when all sections are seen together |
//! | `error.rs` | every way in which a configuration can be refused |

mod address;
mod aggregation;
mod check;
mod conflict;
mod control;
mod controller;
mod endpoint;
mod error;
mod fields;
mod limits;
mod machine;
mod parse;
mod port;
mod process;
mod socket_path;
mod toml_text;
mod uplink;
mod worker;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod uplink_tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use self::address::{BadInterfaceAddress, BadInterfaceName, InterfaceAddress, InterfaceName, Vni};
pub use self::aggregation::{Aggregation, NodeConfig};
pub use self::conflict::Conflict;
pub use self::control::{ControlConfig, DEFAULT_RUN_DIR, DEFAULT_SOCKET};
pub use self::controller::{ControllerConfig, ControllerProblem};
pub use self::endpoint::{Endpoint, PortKind, Role, VhostUser};
pub use self::error::{ConfigError, Fault, Place, Problem};
pub use self::machine::Machine;
pub use self::port::{PortBody, PortConfig};
pub use self::process::{Capability, ProcessConfig};
pub use self::socket_path::{BadSocketPath, SocketPath};
pub use self::uplink::{AfXdp, LinkConfig, UplinkConfig, XdpMode};
pub use self::worker::{PollMode, WorkerConfig};
pub use switch::engine::FlowLimits;
pub use switch::{BadName, Name};

/// Most ports that one node serves: what a worker polls in a round is bounded.
pub const MAX_PORTS: usize = 1024;
/// Most workers of one node.
pub const MAX_WORKERS: usize = 64;
/// Most queue pairs of one port (the virtio-net device of a front end has up to 256 rings here).
pub const MAX_QUEUE_PAIRS: u16 = 128;
/// Longest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The whole configuration of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the node is to others.
    pub node: NodeConfig,
    /// Where the node is controlled from and keeps its records.
    pub control: ControlConfig,
    /// What its process gives up.
    pub process: ProcessConfig,
    /// The poll threads; never empty after [`Config::parse`] (without `[[worker]]`: one adaptive worker `w0`).
    pub workers: Vec<WorkerConfig>,
    /// The ports that exist from the start; more can be added while the node runs.
    pub ports: Vec<PortConfig>,
    /// Pairs of ports that are wired back to back. All other ports form one bridge.
    pub crossconnects: Vec<CrossConnect>,
    /// Who may write policy; empty: whoever owns the node, under any name.
    pub controllers: Vec<ControllerConfig>,
}

/// Two ports wired back to back: what one receives, the other sends, without a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossConnect {
    /// The two ends, which differ.
    pub ports: [Name; 2],
}

impl Config {
    /// Reads and parses a configuration file, and checks it against this machine.
    ///
    /// # Errors
    /// One [`ConfigError`] that names the file, the line and the key of the first thing found wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        let mut text = String::new();
        let read = File::open(file).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(unreadable)?;
        if read as u64 > MAX_FILE {
            return Err(ConfigError::TooLong { file: file.to_owned(), limit: MAX_FILE });
        }
        Self::parse(&text, file, &Machine::current())
    }

    /// Parses configuration text. `file` is only named in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    ///
    /// ```
    /// use backend::config::{Config, Machine, PollMode};
    ///
    /// let text = "[[port]]\nname = 'vm0'\nsocket = '/run/shunt/vm0.sock'\n";
    /// let config = Config::parse(text, "node.toml".as_ref(), &Machine::with_cpus(0..2)).unwrap();
    /// assert_eq!(config.workers[0].poll, PollMode::Adaptive);
    /// assert_eq!(config.ports[0].guest().unwrap().queues, 1);
    ///
    /// let text = "[[port]]\nname = 'vm0'\nquues = 4\n";
    /// let error = Config::parse(text, "node.toml".as_ref(), &Machine::with_cpus(0..2)).unwrap_err();
    /// assert!(error.to_string().starts_with("node.toml:3: unknown key \"quues\" in [[port]]; known keys: name, kind,"));
    /// ```
    pub fn parse(text: &str, file: &Path, machine: &Machine) -> Result<Self, ConfigError> {
        let (root, lines) = toml_text::read(text).map_err(|(line, problem)| ConfigError::Wrong {
            file: file.to_owned(),
            line,
            problem: problem.into(),
        })?;
        let located = |fault: Fault| ConfigError::Wrong {
            file: file.to_owned(),
            line: lines.find(&fault.place),
            problem: fault.problem,
        };
        let config = parse::config(&root).map_err(located)?;
        config.check(machine).map_err(located)?;
        Ok(config)
    }

    /// The port of that name, if it is configured.
    pub fn port(&self, name: &str) -> Option<&PortConfig> {
        self.ports.iter().find(|port| port.name == *name)
    }
}
