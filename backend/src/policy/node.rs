// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The running node as a [`Switchboard`]. Its workers do not run policy yet.

use std::sync::Arc;

use switch::Name;
use switch::compile::Snapshot;
use switch::condition::Key;
use switch::engine::PortReport;
use switch::model::Direction;
use switch::plan::Trace;

use super::{Comparison, FlowPage, Switchboard, SwitchboardError};
use crate::NodeHandle;

impl Switchboard for NodeHandle {
    fn now_ns(&self) -> u64 {
        0
    }

    fn has_port(&self, port: &Name) -> Result<bool, SwitchboardError> {
        let ports = self.ports().map_err(|_| SwitchboardError::Gone)?;
        Ok(ports.iter().any(|known| known.name == port.as_str()))
    }

    fn publish(&self, _: &Name, _: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }

    fn simulate(&self, _: &Name, _: Direction, _: &Key) -> Result<Trace, SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }

    fn compare(&self, _: &Name, _: Arc<Snapshot>, _: usize) -> Result<Comparison, SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }

    fn flows(&self, _: &Name, _: u64, _: usize) -> Result<FlowPage, SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }

    fn settle(&self, _: &Name) -> Result<(), SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }

    fn report(&self, _: &Name) -> Result<PortReport, SwitchboardError> {
        Err(SwitchboardError::NotServed)
    }
}
