// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policy of each port, and how it changes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::document::Document;
use switch::model::{Controller, Edit, PortPolicy, Precondition, Transaction};

use super::change::{Change, Difference};
use super::{Comparison, EventHub, PolicyError, PolicyEvent, Switchboard, SwitchboardError, What};
use crate::stats::PolicyStats;

/// Flows that a dry run tells in full, of each port.
const EXAMPLES: usize = 100;

/// The policies of a node's ports.
pub struct PolicyStore {
    board: Arc<dyn Switchboard>,
    ports: Mutex<HashMap<Name, Arc<Port>>>,
    events: Arc<EventHub>,
    /// Of the classifiers; secret.
    seed: u64,
}

/// A port's policy at a moment.
#[derive(Clone, Debug)]
pub struct PortView {
    /// The policy.
    pub policy: Arc<PortPolicy>,
    /// The same, compiled; it has the counters.
    pub snapshot: Arc<Snapshot>,
}

/// What applying a document did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What changed.
    pub changes: Vec<Change>,
    /// The version of each port that changed.
    pub versions: BTreeMap<Name, u64>,
}

/// What applying a document would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DryRun {
    /// What would change.
    pub changes: Vec<Change>,
    /// What would become of the live flows of each port that would change.
    pub flows: BTreeMap<Name, Comparison>,
}

struct Port {
    /// Held while a change is worked out and published.
    writing: Mutex<Life>,
    /// Held for a moment only.
    now: Mutex<PortView>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Here,
    /// The port was removed while somebody waited.
    Gone,
}

/// A change that is compiled and yet to be published.
struct Staged {
    port: Name,
    policy: PortPolicy,
    snapshot: Arc<Snapshot>,
}

impl PolicyStore {
    /// Of ports without policy.
    #[must_use]
    pub fn new(board: Arc<dyn Switchboard>) -> Self {
        let seed = RandomState::new().hash_one(0);
        Self { board, ports: Mutex::default(), events: Arc::default(), seed }
    }

    /// The running switch.
    #[must_use]
    pub fn board(&self) -> &dyn Switchboard {
        &*self.board
    }

    /// Where events are heard.
    #[must_use]
    pub fn events(&self) -> &Arc<EventHub> {
        &self.events
    }

    /// The policy of a port.
    ///
    /// # Errors
    /// There is no such port, or the node does not answer.
    pub fn view(&self, port: &Name) -> Result<PortView, PolicyError> {
        if let Some(known) = self.known(port) {
            return Ok(known.view());
        }
        self.check_port(port)?;
        Ok(PortView::default())
    }

    /// All ports that have policy, by name.
    #[must_use]
    pub fn views(&self) -> Vec<(Name, PortView)> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<_> = ports.iter().map(|(name, port)| (name.clone(), port.view())).collect();
        views.sort_by(|a, b| a.0.cmp(&b.0));
        views
    }

    /// What the switch holds and counts of each port that has policy, by name.
    #[must_use]
    pub fn stats(&self) -> Vec<PolicyStats> {
        // A port that goes meanwhile has no counts any more.
        let of = |(port, _): (Name, PortView)| Some(PolicyStats::new(port.as_str(), &self.board.report(&port).ok()?));
        self.views().into_iter().filter_map(of).collect()
    }

    /// What a controller says on all ports, now.
    #[must_use]
    pub fn document(&self, controller: &Name) -> Document {
        let views = self.views();
        let ports = views.iter().map(|(name, view)| (name, &*view.policy));
        Document::of(controller, ports, self.board.now_ns())
    }

    /// Carries out a transaction; returns the policy's new version when every worker has passed a burst boundary under it.
    ///
    /// # Errors
    /// What is in the way. Nothing has changed then, except after [`SwitchboardError::Late`].
    pub fn transact(&self, port: &Name, transaction: &Transaction) -> Result<u64, PolicyError> {
        self.write(port, |view, _| self.stage(port, view, transaction))
    }

    /// Carries out what `steps` makes of the policy as it is, and of the switch's time.
    ///
    /// # Errors
    /// As [`transact`](Self::transact), and what `steps` says.
    pub fn update(
        &self,
        port: &Name,
        controller: &Controller,
        steps: impl FnOnce(&PortPolicy, u64) -> Result<(Vec<Precondition>, Vec<Edit>), PolicyError>,
    ) -> Result<u64, PolicyError> {
        self.write(port, |view, now_ns| {
            let (preconditions, edits) = steps(&view.policy, now_ns)?;
            let transaction = Transaction { controller: controller.clone(), preconditions, edits };
            self.stage(port, view, &transaction)
        })
    }

    /// Makes what a controller owns equal to its document, on all ports. All ports are worked out and compiled before the
    /// first one changes; nothing is promised about the moments at which they do.
    ///
    /// # Errors
    /// What is in the way.
    pub fn apply(&self, controller: &Controller, document: &Document) -> Result<Applied, PolicyError> {
        self.with_staged(controller, document, |staged, changes| {
            let mut versions = BTreeMap::new();
            for (cell, staged) in staged {
                let (port, version) = (staged.port.clone(), staged.policy.version());
                self.publish(&cell, staged)?;
                versions.insert(port, version);
            }
            Ok(Applied { changes, versions })
        })
    }

    /// What [`apply`](Self::apply) would do, to policy and to live flows (VF-30).
    ///
    /// # Errors
    /// As those of `apply`.
    pub fn dry_run(&self, controller: &Controller, document: &Document) -> Result<DryRun, PolicyError> {
        self.with_staged(controller, document, |staged, changes| {
            let flows = staged.into_iter().map(|(_, Staged { port, snapshot, .. })| {
                let comparison = self.board.compare(&port, snapshot, EXAMPLES)?;
                Ok((port, comparison))
            });
            Ok(DryRun { changes, flows: flows.collect::<Result<_, PolicyError>>()? })
        })
    }

    /// Forgets the policy of a port that `remove` removes. Transactions wait meanwhile, and find no port then.
    pub fn remove_port<T, E>(&self, port: &Name, remove: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(known) = self.known(port) else { return remove() };
        let mut life = known.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = remove()?;
        *life = Life::Gone;
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(port);
        Ok(removed)
    }

    /// Tells whom it concerns that `port` missed something in a map, or has no more of a range.
    pub fn tell(&self, port: &Name, event: &switch::engine::Event) {
        let (controller, what) = match event {
            switch::engine::Event::Miss { request, .. } => {
                let what = What::Miss { resource: request.resource.clone(), address: request.address };
                (Some(request.controller.clone()), what)
            }
            switch::engine::Event::NatExhausted { rule, .. } => {
                let layer = rule.split('/').next().unwrap_or_default();
                let view = self.known(port).map(|known| known.view());
                let owner = view.and_then(|view| Some(view.policy.layer(layer)?.controller.clone()));
                (owner, What::NatExhausted { rule: rule.clone() })
            }
        };
        // A layer that is gone has nobody to be told.
        if let Some(controller) = controller {
            self.events.tell(&PolicyEvent { controller, port: port.clone(), what });
        }
    }

    /// Stages `document` on all ports that it concerns, with all of them locked.
    fn with_staged<T>(
        &self,
        controller: &Controller,
        document: &Document,
        then: impl FnOnce(Vec<(Arc<Port>, Staged)>, Vec<Change>) -> Result<T, PolicyError>,
    ) -> Result<T, PolicyError> {
        let cells = self.concerned(document)?;
        // In the order of their names, so that two documents cannot wait for each other.
        let locks: Vec<MutexGuard<'_, Life>> =
            cells.values().map(|cell| cell.writing.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let now_ns = self.board.now_ns();
        let (mut staged, mut changes) = (Vec::new(), Vec::new());
        for ((port, cell), life) in cells.iter().zip(&locks) {
            if **life == Life::Gone {
                return Err(SwitchboardError::UnknownPort { port: port.clone() }.into());
            }
            let view = cell.view();
            let difference = Difference::between(port, &view.policy, document, now_ns)
                .map_err(|(resource, cause)| PolicyError::Resource { port: port.clone(), resource, cause })?;
            changes.extend(difference.changes);
            if !difference.edits.is_empty() {
                let (controller, edits) = (controller.clone(), difference.edits);
                let transaction = Transaction { controller, preconditions: Vec::new(), edits };
                staged.push((Arc::clone(cell), self.stage(port, &view, &transaction)?));
            }
        }
        then(staged, changes)
    }

    /// The ports that a document speaks of and those on which its controller owns something, by name.
    fn concerned(&self, document: &Document) -> Result<BTreeMap<Name, Arc<Port>>, PolicyError> {
        let mut cells = BTreeMap::new();
        for port in document.ports() {
            cells.insert(port.clone(), self.cell(port)?);
        }
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, port) in ports.iter() {
            let policy = port.view().policy;
            let owns = policy.layers().iter().any(|layer| layer.controller == document.controller)
                || policy.resources().iter().any(|held| held.resource.controller == document.controller);
            if owns {
                cells.entry(name.clone()).or_insert_with(|| Arc::clone(port));
            }
        }
        Ok(cells)
    }

    fn write(
        &self,
        port: &Name,
        stage: impl FnOnce(&PortView, u64) -> Result<Staged, PolicyError>,
    ) -> Result<u64, PolicyError> {
        let cell = self.cell(port)?;
        let life = cell.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if *life == Life::Gone {
            return Err(SwitchboardError::UnknownPort { port: port.clone() }.into());
        }
        let view = cell.view();
        let staged = stage(&view, self.board.now_ns())?;
        let version = staged.policy.version();
        self.publish(&cell, staged)?;
        Ok(version)
    }

    fn stage(&self, port: &Name, view: &PortView, transaction: &Transaction) -> Result<Staged, PolicyError> {
        let (policy, snapshot) = commit(&view.policy, &view.snapshot, transaction, self.seed)
            .map_err(|cause| PolicyError::Refused { port: port.clone(), cause: Box::new(cause) })?;
        Ok(Staged { port: port.clone(), policy, snapshot: Arc::new(snapshot) })
    }

    fn publish(&self, cell: &Port, staged: Staged) -> Result<(), PolicyError> {
        let Staged { port, policy, snapshot } = staged;
        let published = self.board.publish(&port, Arc::clone(&snapshot));
        if matches!(published, Ok(_) | Err(SwitchboardError::Late { .. })) {
            let next = PortView { policy: Arc::new(policy), snapshot };
            let before = std::mem::replace(&mut *cell.now.lock().unwrap_or_else(PoisonError::into_inner), next);
            drop(before);
        }
        if matches!(published, Err(SwitchboardError::UnknownPort { .. })) {
            self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
        }
        // The snapshot before is freed here, not by a worker.
        published.map(drop).map_err(PolicyError::from)
    }

    /// The cell of a port, which is made if there is such a port.
    fn cell(&self, port: &Name) -> Result<Arc<Port>, PolicyError> {
        if let Some(known) = self.known(port) {
            return Ok(known);
        }
        self.check_port(port)?;
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(ports.entry(port.clone()).or_default()))
    }

    fn known(&self, port: &Name) -> Option<Arc<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }

    fn check_port(&self, port: &Name) -> Result<(), PolicyError> {
        if self.board.has_port(port)? {
            return Ok(());
        }
        Err(SwitchboardError::UnknownPort { port: port.clone() }.into())
    }
}

impl Port {
    fn view(&self) -> PortView {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Port {
    fn default() -> Self {
        Self { writing: Mutex::new(Life::Here), now: Mutex::default() }
    }
}

impl Default for PortView {
    fn default() -> Self {
        Self { policy: Arc::new(PortPolicy::empty()), snapshot: Arc::new(Snapshot::empty()) }
    }
}

impl fmt::Debug for PolicyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyStore").field("events", &self.events).finish_non_exhaustive()
    }
}
