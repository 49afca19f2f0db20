// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the store of policies wants of the running switch.

use std::sync::Arc;

use switch::Name;
use switch::compile::Snapshot;
use switch::condition::Key;
use switch::engine::{FlowReport, PortReport};
use switch::model::Direction;
use switch::plan::Trace;

/// The workers, as control sees them. Calls may block for as long as a worker's burst takes, and come from several
/// threads.
pub trait Switchboard: Send + Sync + 'static {
    /// The switch's clock, in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Whether there is such a port.
    ///
    /// # Errors
    /// If the node does not answer.
    fn has_port(&self, port: &Name) -> Result<bool, SwitchboardError>;

    /// Puts a port under this snapshot; returns when every worker has passed a burst boundary under it, with the snapshot
    /// that nobody uses any more.
    ///
    /// # Errors
    /// [`SwitchboardError::Late`]: the snapshot is on its way, but not all workers have it yet. After all others nothing has
    /// changed.
    fn publish(&self, port: &Name, snapshot: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, SwitchboardError>;

    /// What policy would do with a packet that came now (VF-29).
    ///
    /// # Errors
    /// If there is no such port, or no answer.
    fn simulate(&self, port: &Name, direction: Direction, key: &Key) -> Result<Trace, SwitchboardError>;

    /// With which live flows a snapshot would do something else. At most `examples` of them are told in full.
    ///
    /// # Errors
    /// If there is no such port, or no answer.
    fn compare(&self, port: &Name, staged: Arc<Snapshot>, examples: usize) -> Result<Comparison, SwitchboardError>;

    /// Up to `limit` flows of a port, from a cursor of an earlier answer on.
    ///
    /// # Errors
    /// If there is no such port, or no answer.
    fn flows(&self, port: &Name, from: u64, limit: usize) -> Result<FlowPage, SwitchboardError>;

    /// Has flows tell their rules what they counted, so that the totals of the port's snapshot are those of now.
    ///
    /// # Errors
    /// If there is no such port, or no answer.
    fn settle(&self, port: &Name) -> Result<(), SwitchboardError>;

    /// What the shards of a port say about themselves.
    ///
    /// # Errors
    /// If there is no such port, or no answer.
    fn report(&self, port: &Name) -> Result<PortReport, SwitchboardError>;
}

/// Why a switch does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchboardError {
    /// It has stopped, or does not answer.
    #[error("the node has stopped or does not answer")]
    Gone,
    /// Not all workers have taken over a snapshot in time; they will.
    #[error("port {port:?}: not all workers have passed a burst boundary under the new policy yet")]
    Late {
        /// The port.
        port: Name,
    },
    /// There is no such port.
    #[error("there is no port {port:?}")]
    UnknownPort {
        /// The name given.
        port: Name,
    },
    /// The port is wired to another, and what is wired meets no policy.
    #[error("port {port:?} is wired to another port, so that it can have no policy")]
    Wired {
        /// The port.
        port: Name,
    },
}

/// Some flows of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowPage {
    /// The version of the policy under which they were listed.
    pub version: u64,
    /// The flows.
    pub flows: Vec<FlowReport>,
    /// Where to go on; `None`: all were seen.
    pub next: Option<u64>,
}

/// What would become of live flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Flows that were looked at.
    pub flows: u64,
    /// Flows whose packets would be treated otherwise.
    pub changed: u64,
    /// Some of them.
    pub examples: Vec<FlowChange>,
}

/// A flow whose packets would be treated otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowChange {
    /// The flow.
    pub flow: FlowReport,
    /// What happens to its packets.
    pub now: Trace,
    /// What would.
    pub then: Trace,
}
