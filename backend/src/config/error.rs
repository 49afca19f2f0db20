// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way in which a configuration can be refused.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use super::{
    BadInterfaceAddress, BadInterfaceName, BadName, BadSocketPath, Capability, Conflict, MAX_QUEUE_PAIRS, PortKind,
};

/// Why a configuration file was refused. The message is one line: file, line where known, cause.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is longer than any configuration.
    #[error("{}: longer than {limit} bytes", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it says is wrong.
    #[error("{}{}: {problem}", file.display(), Line(*line))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The line, from 1; `None` where nothing stands that could be pointed at.
        line: Option<usize>,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// One thing found wrong, and where: the form for configurations that have no lines (JSON, values built in code).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct Fault {
    /// Where it was found.
    pub place: Place,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// A key in a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `node`, `control`, `worker`, `port`, `crossconnect` or `controller`; empty: the top level.
    pub section: &'static str,
    /// Which of several tables of that name, from 0.
    pub index: usize,
    /// The key; empty: the table as such.
    pub key: Cow<'static, str>,
}

impl Place {
    /// A key at the top level.
    pub(super) fn top(key: impl Into<Cow<'static, str>>) -> Self {
        Self { section: "", index: 0, key: key.into() }
    }

    /// A key of `[control]`.
    pub(super) fn in_control(key: &'static str) -> Self {
        Self { section: "control", index: 0, key: key.into() }
    }

    /// A key of the `index`th `[[worker]]`.
    pub(super) fn in_worker(index: usize, key: &'static str) -> Self {
        Self { section: "worker", index, key: key.into() }
    }

    /// A key of the `index`th `[[port]]`.
    pub(crate) fn in_port(index: usize, key: &'static str) -> Self {
        Self { section: "port", index, key: key.into() }
    }

    /// The ports of the `index`th `[[crossconnect]]`.
    pub(super) fn in_crossconnect(index: usize) -> Self {
        Self { section: "crossconnect", index, key: "ports".into() }
    }

    /// `problem` at this place.
    pub(crate) fn fault(self, problem: Problem) -> Fault {
        Fault { place: self, problem: problem.into() }
    }
}

/// What can be wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means, and its fields are the values in it")]
pub enum Problem {
    #[error("[[port]] key \"address\": {cause}")]
    BadAddress { cause: BadInterfaceAddress },
    #[error("[[port]] key \"gateway\": \"{found}\" is not the address of a station, such as \"192.0.2.254\"")]
    BadGateway { found: String },
    #[error("[process] key \"capabilities\": \"{found}\" is not one that a port can need; known: {}", Capability::NAMES.join(", "))]
    BadCapability { found: String },
    #[error("[[port]] key \"interface\": {cause}")]
    BadInterface { cause: BadInterfaceName },
    #[error("[[port]] key \"{key}\": \"{found}\" is not {what}, such as \"192.0.2.1:34997\"")]
    BadEnd { key: &'static str, found: String, what: &'static str },
    #[error("[[port]] key \"peer\": {peer} cannot be reached from \"local\" {local}: one is IPv4, the other IPv6")]
    EndsOfTwoVersions { local: IpAddr, peer: IpAddr },
    #[error("[[port]] key \"peer\" is {peer}, which is \"local\" itself")]
    PeerIsLocal { peer: SocketAddr },
    #[error("[[port]] key \"mac\": \"{found}\" is not the address of one station, such as \"52:54:00:12:34:56\"")]
    BadMac { found: String },
    #[error("[[port]] key \"address\" has {address} twice")]
    AddressTwice { address: IpAddr },
    #[error("[[port]] key \"address\" has {found} addresses; at most {max} are served")]
    TooManyAddresses { found: usize, max: usize },
    #[error("[[port]] key \"gateway\": {gateway} is not another station in the prefix of an \"address\"")]
    GatewayOffLink { gateway: IpAddr },
    #[error("[[port]] key \"gateway\" has two IPv{version} routers")]
    GatewayTwice { version: u8 },
    #[error("{section} key \"{key}\" is not for kind \"{kind}\"")]
    NotForKind { section: Section, key: &'static str, kind: PortKind },
    #[error("[[port]] key \"vni\" needs key \"mac\"")]
    VniWithoutMac,
    #[error(transparent)]
    Controller(#[from] super::ControllerProblem),
    #[error("{section} key \"{key}\": {cause}")]
    BadName { section: Section, key: &'static str, cause: BadName },
    #[error("{section} key \"{key}\": {cause}")]
    BadSocketPath { section: Section, key: &'static str, cause: BadSocketPath },
    #[error("{section} key \"{key}\" must not be empty")]
    Empty { section: Section, key: &'static str },
    #[error("{section} key \"{key}\" is {found}, which is outside {min}..={max}")]
    OutOfRange { section: Section, key: &'static str, found: i64, min: i64, max: i64 },
    #[error("{section} key \"{key}\" is missing")]
    Missing { section: Section, key: &'static str },
    #[error("{section} key \"{key}\" must be {wanted}, not {found}")]
    Type { section: Section, key: &'static str, wanted: &'static str, found: &'static str },
    #[error("unknown key \"{key}\" {section:#}; known keys: {}", known.join(", "))]
    UnknownKey { section: Section, key: String, known: &'static [&'static str] },
    #[error("{section} key \"{key}\" is \"{found}\"; it can be {}", Choices(known))]
    UnknownValue { section: Section, key: &'static str, found: String, known: &'static [&'static str] },
    #[error("http address \"{found}\" is not an IP address and a port, such as \"127.0.0.1:9464\"")]
    HttpAddress { found: String },
    #[error(
        "http address {address} is not a loopback address; set http_allow_remote = true to let other machines read from it"
    )]
    HttpNotLoopback { address: SocketAddr },
    #[error("cpu {cpu} of worker \"{worker}\" is not one that this process may use: {available}")]
    NoSuchCpu { worker: String, cpu: usize, available: String },
    #[error("worker name \"{name}\" is used twice")]
    DuplicateWorker { name: String },
    #[error("port name \"{name}\" is used twice")]
    DuplicatePort { name: String },
    #[error("port \"{port}\" uses {what}, which {other} uses already")]
    Conflict { port: String, what: Conflict, other: String },
    #[error("port \"{port}\" names worker \"{worker}\", which does not exist; there is {}", Choices(known))]
    UnknownWorker { port: String, worker: String, known: Vec<String> },
    #[error("port \"{port}\" names worker \"{worker}\", which does not exist")]
    NoSuchWorker { port: String, worker: String },
    #[error("port \"{port}\" names worker \"{worker}\" twice")]
    WorkerTwice { port: String, worker: String },
    #[error("crossconnect names port \"{port}\", which does not exist")]
    CrossconnectUnknown { port: String },
    #[error("crossconnect wires port \"{port}\" to itself")]
    CrossconnectSelf { port: String },
    #[error("port \"{port}\" is in two crossconnects")]
    CrossconnectTwice { port: String },
    #[error("crossconnect wires 2 ports, not {found}")]
    CrossconnectCount { found: usize },
    #[error("{found} [[{section}]] tables; at most {max} are served")]
    TooMany { section: &'static str, found: usize, max: usize },
    #[error("queues of port \"{port}\" is {found}, which is outside 1..={max}", max = MAX_QUEUE_PAIRS)]
    Queues { port: String, found: u16 },
    #[error("no key takes {found}")]
    NoKeyTakes { found: &'static str },
    #[error("not valid {format}: {message}")]
    Syntax { format: &'static str, message: String },
}

/// A section as the operator writes it; empty: the top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section(pub &'static str);

/// As a subject `[[port]]`, or with `#` as a place: `in [[port]]`.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, f.alternate()) {
            ("", true) => f.write_str("at the top level"),
            ("", false) => f.write_str("top-level"),
            (name @ ("control" | "node" | "process"), true) => write!(f, "in [{name}]"),
            (name @ ("control" | "node" | "process"), false) => write!(f, "[{name}]"),
            (name, true) => write!(f, "in [[{name}]]"),
            (name, false) => write!(f, "[[{name}]]"),
        }
    }
}

/// `:12`, or nothing.
struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// `"a", "b" or "c"`.
struct Choices<'a, T>(&'a [T]);

impl<T: AsRef<str>> fmt::Display for Choices<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, choice) in self.0.iter().enumerate() {
            let join = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{join}\"{}\"", choice.as_ref())?;
        }
        Ok(())
    }
}
