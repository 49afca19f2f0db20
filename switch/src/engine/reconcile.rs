// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Flows and connections after policy changed (VF-20): lazily, with the first packet that comes.

use super::begin::layout_of;
use super::shard::{Now, Shard};
use super::treatment::{Fate, Treatment};
use crate::condition::{Key, REGISTERS};
use crate::flow::Handle;
use crate::flow::connection::{Entry, Role};
use crate::flow::tuple::Kind;
use crate::plan::{Membership, Outcome, Plan};

/// What became of a connection under a new policy.
#[derive(Debug)]
pub(super) enum Settled {
    Goes,
    Ended,
    /// An answer is needed first; until then it is what it was.
    Waits(Box<Plan>),
}

impl Shard {
    /// Makes a flow right under the present policy. `false`: it is gone, and its packet is a first one.
    pub(super) fn reconcile(&mut self, handle: Handle, now: &Now<'_>) -> bool {
        let Some(flow) = self.flows.get(handle) else { return false };
        if let Some(at) = flow.connection
            && !matches!(self.reconcile_connection(at, now), Settled::Goes)
        {
            return false;
        }
        let Some(flow) = self.flows.get_mut(handle) else { return false };
        // Its connection began with it, and both were planned again.
        if flow.epoch == now.epoch {
            return true;
        }
        if self.paths.holds(flow.path, now.snapshot) {
            flow.epoch = now.epoch;
            self.stats.revalidated += 1;
            return true;
        }
        self.replan(handle, now)
    }

    /// Plans a connection again from its beginning, if policy has changed since.
    pub(super) fn reconcile_connection(&mut self, at: Handle, now: &Now<'_>) -> Settled {
        let Some(connection) = self.connections.get_mut(at) else { return Settled::Ended };
        if connection.epoch == now.epoch {
            return Settled::Goes;
        }
        let (first, direction) = (connection.initiator, connection.direction());
        let path = first.and_then(|first| self.flows.get(first)).and_then(|flow| flow.path);
        if self.paths.holds(path, now.snapshot) {
            connection.epoch = now.epoch;
            return Settled::Goes;
        }
        let Some(identity) = first.and_then(|first| self.flows.identity(first)) else {
            self.end(at, now.ms);
            return Settled::Ended;
        };
        let now = Now { direction, ..*now };
        let key = Key { ufid: identity.1, registers: [0; REGISTERS] };
        let plan = match self.connections.get(at) {
            Some(connection) => {
                let membership = Membership::Of(connection, connection.role(direction));
                self.plan(&key, membership, &now)
            }
            None => return Settled::Ended,
        };
        self.stats.replanned += 1;
        if matches!(plan.outcome, Outcome::Pending(_)) {
            return Settled::Waits(Box::new(plan));
        }
        let leave = Kind::of(&plan.after.ufid).tuple();
        let Some(connection) = self.connections.get_mut(at) else { return Settled::Ended };
        let goes_on = matches!(plan.outcome, Outcome::Forward | Outcome::Hairpin(_))
            && !plan.entries.is_empty()
            && leave == Some(connection.leave());
        if !goes_on {
            self.stats.ended_by_policy += 1;
            self.end(at, now.ms);
            return Settled::Ended;
        }
        connection.epoch = now.epoch;
        connection.idle_s = plan.idle_s;
        let before: Vec<Entry> = connection.entries(&now.snapshot.layer_ids()).collect();
        if before != plan.entries || connection.entry_count() != before.len() {
            self.connections.amend(at, &plan.entries);
            self.doubt_flows(at);
        }
        let Some(first) = first else { return Settled::Ended };
        let fate = now.fate(&plan.outcome, self.port);
        self.renew(first, &key, &plan, fate, &now);
        Settled::Goes
    }

    /// Plans a flow again. Its connection is right already.
    fn replan(&mut self, handle: Handle, now: &Now<'_>) -> bool {
        let (Some((_, ufid)), Some(flow)) = (self.flows.identity(handle), self.flows.get(handle)) else {
            return false;
        };
        let key = Key { ufid, registers: [0; REGISTERS] };
        let connection = flow.connection.and_then(|at| self.connections.get(at));
        let membership = match connection {
            Some(connection) => Membership::Of(connection, connection.role(now.direction)),
            None => Membership::None,
        };
        let plan = self.plan(&key, membership, now);
        self.stats.replanned += 1;
        let known = matches!(plan.outcome, Outcome::Forward | Outcome::Hairpin(_) | Outcome::Drop(_));
        // A flow that would have a connection now begins anew, with the flags of its packet.
        if !known || plan.transient {
            self.forget(handle);
            return false;
        }
        if let Some(at) = self.flows.get(handle).and_then(|flow| flow.connection)
            && self.connections.get(at).map(|connection| connection.role(now.direction)) == Some(Role::Initiator)
        {
            self.add_entries(at, &plan, now.snapshot);
        }
        let fate = now.fate(&plan.outcome, self.port);
        self.renew(handle, &key, &plan, fate, now);
        true
    }

    /// Gives a flow a new plan.
    fn renew(&mut self, handle: Handle, key: &Key, plan: &Plan, fate: Fate, now: &Now<'_>) {
        self.fold_flow(handle);
        let path = self.paths.intern(plan, now.snapshot);
        let Some((flow, beside)) = self.flows.both_mut(handle) else { return self.paths.release(path) };
        let old = std::mem::replace(&mut flow.path, path);
        let layout = layout_of(&key.ufid);
        let treatment = layout.map(|layout| Treatment::compile(fate, plan, &key.ufid, &layout));
        let Treatment { fate, change } = treatment.unwrap_or_else(|| fate.into());
        flow.treat(fate, &change);
        flow.epoch = now.epoch;
        // Its packets may be others now, for another port.
        flow.next = None;
        self.programs = self.programs.saturating_sub(beside.change.heap()) + change.heap();
        beside.change = change;
        self.paths.release(old);
    }

    /// The plans of all flows of a connection hold no longer.
    pub(super) fn doubt_flows(&mut self, at: Handle) {
        let mut next = self.connections.get(at).and_then(|connection| connection.flows);
        while let Some(handle) = next {
            self.fold_flow(handle);
            let Some(flow) = self.flows.get_mut(handle) else { return };
            next = flow.link;
            flow.epoch = 0;
            let path = flow.path.take();
            self.paths.release(path);
        }
    }
}
