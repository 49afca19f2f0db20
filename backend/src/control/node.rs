// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The running node as what the API controls.

use super::{ControlError, Controlled};
use crate::config::{Name, Place, PortConfig, Problem};
use crate::inspect::{Capture, CaptureRequest, DropTrace};
use crate::stats::{PortStatus, Stats};
use crate::{ChangeError, NodeGone, NodeHandle, PortError};

impl Controlled for NodeHandle {
    fn add_port(&self, port: PortConfig) -> Result<(), ControlError> {
        let name = port.name.to_string();
        Self::add_port(self, port)?.map_err(|error| refusal(name, error))
    }

    fn remove_port(&self, name: &str) -> Result<(), ControlError> {
        Self::remove_port(self, name)?.map_err(|error| refusal(name.to_owned(), error))
    }

    fn ports(&self) -> Result<Vec<PortStatus>, ControlError> {
        Ok(Self::ports(self)?)
    }

    fn stats(&self) -> Result<Stats, ControlError> {
        Ok(Self::stats(self)?)
    }

    fn capture(&self, port: &Name, request: &CaptureRequest, filter: String) -> Result<Capture, ControlError> {
        Self::capture(self, port, request, filter)?.map_err(|error| refusal(port.to_string(), error))
    }

    fn trace_drops(&self, port: Option<&str>, rate: u32) -> Result<DropTrace, ControlError> {
        let trace = Self::trace_drops(self, port, rate);
        let trace = trace.map_err(|error| refusal(port.unwrap_or_default().to_owned(), error))?;
        trace.ok_or(ControlError::TooManyTraces)
    }
}

impl From<NodeGone> for ControlError {
    fn from(_: NodeGone) -> Self {
        Self::Gone
    }
}

/// Why the node refuses a change of the port `name`.
fn refusal(name: String, error: ChangeError) -> ControlError {
    let field = match &error {
        ChangeError::Taken { what, .. } => what.key(),
        ChangeError::Wired(_) => "name",
        ChangeError::Port(PortError::Link { key, .. }) => key,
        _ => "socket",
    };
    match error {
        ChangeError::Exists(_) => ControlError::DuplicatePort { name },
        ChangeError::Unknown(_) => ControlError::UnknownPort { name },
        ChangeError::UnknownWorker { worker, .. } => {
            let problem = Problem::NoSuchWorker { port: name, worker: worker.to_string() };
            ControlError::Invalid(Place::in_port(0, "workers").fault(problem))
        }
        ChangeError::NoPair { pair, last, .. } => ControlError::NoPair { name, pair, last },
        ChangeError::TooMany => ControlError::TooManyPorts,
        ChangeError::TooManyCaptures => ControlError::TooManyCaptures,
        ChangeError::Worker(_) => ControlError::Gone,
        cause @ (ChangeError::Port(_)
        | ChangeError::Taken { .. }
        | ChangeError::Watch { .. }
        | ChangeError::Wired(_)) => ControlError::Open { name, field, cause: Box::new(cause) },
    }
}
