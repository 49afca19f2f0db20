// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The running node as what the API controls.

use super::{ControlError, Controlled};
use crate::config::{Place, PortConfig, Problem};
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
        ChangeError::TooMany => ControlError::TooManyPorts,
        ChangeError::Worker(_) => ControlError::Gone,
        cause @ (ChangeError::Port(_)
        | ChangeError::Taken { .. }
        | ChangeError::Watch { .. }
        | ChangeError::Wired(_)) => ControlError::Open { name, field, cause: Box::new(cause) },
    }
}
