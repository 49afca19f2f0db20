// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control API: how operators, tools and scrapers speak to a running node.
//!
//! # Theory of operation
//!
//! One thread runs a single-threaded `tokio`; nothing of it ever touches a worker. It serves HTTP/1.1 on a UNIX socket
//! and, when asked, on a TCP address. Who a caller is, and so what it may do, is known from its user id or its token
//! ([`policy`](crate::policy)); the socket's mode is 0600 unless controllers run as other users.
//! A request becomes a call of [`Controlled`] on a helper thread, because the node may take milliseconds to answer, and is
//! given up after a bounded time. Connections, request sizes and waiting times are bounded, so that a client that stalls or
//! floods costs others nothing but its share.
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs` | the thread, connections and their bounds |
//! | `access.rs` | whom a request comes from, and what that caller may do |
//! | `routes.rs` | all paths; those about ports and counters, one function per path and method |
//! | `policy.rs`, `resources.rs`, `documents.rs`, `flows.rs`, `events.rs` | those about policy |
//! | `inspect.rs` | those that show what passes and what is dropped |
//! | `api.rs` | what all routes share |
//! | `answers.rs`, `schema.rs` | what the API says, and what is said to it |
//! | `openapi.rs` | the description at `/openapi.json` |
//! | `metrics.rs`, `policy_metrics.rs` | [`Stats`] as Prometheus text, and what is counted of policy |
//! | `node.rs` | the running node as [`Controlled`] |
//! | `error.rs` | refusals, and their JSON |

mod access;
mod answers;
mod api;
mod documents;
mod error;
mod events;
mod flows;
mod inspect;
mod metrics;
mod node;
mod openapi;
mod policy;
mod policy_metrics;
mod resources;
mod routes;
mod schema;
mod server;

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;

pub use self::answers::{
    ApplyAnswer, Count, FlowAffected, FlowInfo, FlowList, FlowsAffected, GroupInfo, LayerInfo, PortLayers,
    ResourceInfo, TraceAnswer, TraceStep, Written,
};
pub use self::error::{ControlError, ErrorBody};
pub use self::routes::Version;
pub use self::server::{ControlListener, ControlServer, ServerError};
pub use crate::sys::{DirectoryFault, SocketError};

use crate::config::{Name, PortConfig};
use crate::inspect::{Capture, CaptureRequest, DropTrace};
use crate::stats::{PortStatus, Stats};

/// What the API controls: a running node, or a stand-in for it.
///
/// Calls may block for some milliseconds; they come from several threads.
pub trait Controlled: Send + Sync + 'static {
    /// Adds a port; when it returns, the port listens or tries to connect.
    ///
    /// # Errors
    /// If the node cannot have it; nothing has changed then.
    fn add_port(&self, port: PortConfig) -> Result<(), ControlError>;

    /// Removes a port; when it returns, its guest is disconnected and its memory unmapped.
    ///
    /// # Errors
    /// If there is no such port, or it cannot go.
    fn remove_port(&self, name: &str) -> Result<(), ControlError>;

    /// All ports, by name.
    ///
    /// # Errors
    /// If the node does not answer.
    fn ports(&self) -> Result<Vec<PortStatus>, ControlError>;

    /// All that the node counts.
    ///
    /// # Errors
    /// If the node does not answer.
    fn stats(&self) -> Result<Stats, ControlError>;

    /// Captures what passes a port, until what this returns is dropped. `filter` is what the request's filter was made from.
    ///
    /// # Errors
    /// If there is no such port or queue pair, or there are too many captures.
    fn capture(&self, port: &Name, request: &CaptureRequest, filter: String) -> Result<Capture, ControlError>;

    /// Tells of drops at one port, or at all, as they happen, at most `rate` in a second.
    ///
    /// # Errors
    /// If there is no such port, or there are too many traces.
    fn trace_drops(&self, port: Option<&str>, rate: u32) -> Result<DropTrace, ControlError>;
}
