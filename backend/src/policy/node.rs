// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The running node as the switch that policies are published to.
//!
//! What walks over flows asks for a slice at a time: a worker answers between two bursts, and a slice is to take no longer
//! than a burst does.

use std::sync::Arc;

use switch::Name;
use switch::compile::Snapshot;
use switch::condition::Key;
use switch::engine::PortReport;
use switch::model::Direction;
use switch::plan::Trace;

use super::{Comparison, FlowChange, FlowPage, Switchboard, SwitchboardError};
use crate::sys::{Clock, cycles};
use crate::{ChangeError, NodeGone, NodeHandle};

/// Flows in a slice that are counted or listed.
const SLICE: usize = 256;
/// Flows in a slice that are planned, twice each.
const PLANNED_SLICE: usize = 16;

impl Switchboard for NodeHandle {
    fn now_ns(&self) -> u64 {
        Clock::get().nanos_at(cycles())
    }

    fn has_port(&self, port: &Name) -> Result<bool, SwitchboardError> {
        Ok(self.ports()?.iter().any(|status| status.name == port.as_str()))
    }

    fn publish(&self, port: &Name, snapshot: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, SwitchboardError> {
        self.set_policy(port, snapshot)?.map_err(|error| refusal(port, &error))
    }

    fn simulate(&self, port: &Name, direction: Direction, key: &Key) -> Result<Trace, SwitchboardError> {
        let key = *key;
        let traced = self.ask_engine(port, move |engine, id, now_ns| {
            engine.simulate(id, direction, &key, now_ns).map(|(plan, snapshot)| plan.trace(snapshot))
        })?;
        let trace = traced.map_err(|error| refusal(port, &error))?;
        Ok(trace.unwrap_or_else(|| Trace::of_nothing(direction)))
    }

    fn compare(&self, port: &Name, staged: Arc<Snapshot>, examples: usize) -> Result<Comparison, SwitchboardError> {
        let mut comparison = Comparison { flows: self.report(port)?.flows, ..Comparison::default() };
        let mut from = Some(0);
        while let Some(at) = from {
            let (staged, wanted) = (Arc::clone(&staged), examples.saturating_sub(comparison.examples.len()));
            let slice = self.ask_engine(port, move |engine, id, now_ns| {
                let (mut changed, mut found) = (0_u64, Vec::new());
                let current = engine.snapshot(id);
                let next = engine.compare(id, &staged, at, PLANNED_SLICE, now_ns, |flow, now, then| {
                    changed += 1;
                    if let Some(current) = current.as_deref().filter(|_| found.len() < wanted) {
                        found.push(FlowChange { flow, now: now.trace(current), then: then.trace(&staged) });
                    }
                });
                (changed, found, next)
            })?;
            let (changed, found, next) = slice.map_err(|error| refusal(port, &error))?;
            comparison.changed += changed;
            comparison.examples.extend(found);
            from = next;
        }
        Ok(comparison)
    }

    fn flows(&self, port: &Name, from: u64, limit: usize) -> Result<FlowPage, SwitchboardError> {
        let mut page = FlowPage { version: self.report(port)?.version, ..FlowPage::default() };
        let mut at = u32::try_from(from).ok();
        while let Some(place) = at.filter(|_| page.flows.len() < limit) {
            let budget = SLICE.min(limit - page.flows.len());
            let slice = self.ask_engine(port, move |engine, id, _| {
                let mut flows = Vec::with_capacity(budget);
                let next = engine.list(id, place, budget, |flow| flows.push(flow));
                (flows, next)
            })?;
            let (flows, next) = slice.map_err(|error| refusal(port, &error))?;
            page.flows.extend(flows);
            at = next;
        }
        page.next = at.map(u64::from);
        Ok(page)
    }

    fn settle(&self, port: &Name) -> Result<(), SwitchboardError> {
        let mut from = Some(0);
        while let Some(at) = from {
            let next = self.ask_engine(port, move |engine, id, _| engine.fold(id, at, SLICE))?;
            from = next.map_err(|error| refusal(port, &error))?;
        }
        Ok(())
    }

    fn report(&self, port: &Name) -> Result<PortReport, SwitchboardError> {
        let report = self.ask_engine(port, |engine, id, _| engine.report(id))?;
        Ok(report.map_err(|error| refusal(port, &error))?.unwrap_or_default())
    }
}

impl From<NodeGone> for SwitchboardError {
    fn from(_: NodeGone) -> Self {
        Self::Gone
    }
}

fn refusal(port: &Name, error: &ChangeError) -> SwitchboardError {
    match error {
        ChangeError::Unknown(_) => SwitchboardError::UnknownPort { port: port.clone() },
        ChangeError::Wired(_) => SwitchboardError::Wired { port: port.clone() },
        _ => SwitchboardError::Gone,
    }
}
