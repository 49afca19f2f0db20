// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Forgetting: flows and connections that end, that are silent for too long, or that make room for others.

use super::flow::Marks;
use super::shard::Shard;
use super::to_ms;
use super::treatment::Fate;
use crate::flow::connection::Fact;
use crate::flow::{Handle, tcp};

/// A flow without a connection is forgotten after so long without a packet.
const IDLE_MS: u32 = 60_000;
/// One that is dropped, sooner.
const DROPPED_IDLE_MS: u32 = 10_000;
/// Flows that one connection may have: its packets may differ in what is no part of its names.
const MAX_SIBLINGS: usize = 8;
/// Flows that are looked at to find the one that can best be missed.
const CANDIDATES: usize = 16;

impl Shard {
    /// Ends a connection, with all its flows.
    pub(super) fn end(&mut self, at: Handle, now_ms: u32) {
        let Some(connection) = self.connections.close(at, now_ms) else { return };
        let mut next = connection.flows;
        while let Some(handle) = next {
            next = self.flows.get(handle).and_then(|flow| flow.link);
            self.drop_flow(handle);
        }
    }

    /// Forgets a flow. Its connection ends if the flow is the one that began it.
    pub(super) fn forget(&mut self, handle: Handle) {
        let Some(flow) = self.flows.get(handle) else { return };
        let (connection, sibling, now_ms) = (flow.connection, flow.link, flow.last_ms);
        if let Some(at) = connection
            && let Some(connection) = self.connections.get_mut(at)
        {
            if connection.initiator == Some(handle) {
                return self.end(at, now_ms);
            }
            if connection.flows == Some(handle) {
                connection.flows = sibling;
            } else {
                let mut next = connection.flows;
                while let Some(before) = next.and_then(|at| self.flows.get_mut(at)) {
                    if before.link == Some(handle) {
                        before.link = sibling;
                        break;
                    }
                    next = before.link;
                }
            }
        }
        self.drop_flow(handle);
    }

    fn drop_flow(&mut self, handle: Handle) {
        self.fold_flow(handle);
        if let Some((flow, beside)) = self.flows.remove(handle) {
            self.programs = self.programs.saturating_sub(beside.change.heap());
            self.paths.release(flow.path);
            if !flow.marks.has(Marks::SMALL) {
                self.stats.confirmed = self.stats.confirmed.saturating_sub(1);
            }
        }
    }

    /// Gives what a flow counted to the rules of its path.
    pub(super) fn fold_flow(&mut self, handle: Handle) {
        let Some((flow, beside)) = self.flows.both_mut(handle) else { return };
        let (packets, bytes) = (std::mem::take(&mut flow.packets), std::mem::take(&mut flow.bytes));
        if packets > 0 {
            beside.told.add(packets, bytes);
            self.paths.count(flow.path, packets, bytes);
        }
    }

    /// Lets a connection know when its flows last saw a packet.
    pub(super) fn hear_from_flows(&mut self, at: Handle) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        let mut next = connection.flows;
        while let Some(flow) = next.and_then(|handle| self.flows.get(handle)) {
            // The later one, on a clock that goes round. What is dropped keeps nothing alive.
            if flow.marks.has(Marks::SEEN)
                && !matches!(flow.fate, Fate::Drop(_))
                && flow.last_ms.wrapping_sub(connection.last_ms) < u32::MAX / 2
            {
                connection.last_ms = flow.last_ms;
            }
            next = flow.link;
        }
    }

    /// A connection has confirmed itself: its flows are small no longer.
    pub(super) fn establish(&mut self, at: Handle) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        connection.set(Fact::Established, true);
        let (mut next, quiet) = (connection.flows, connection.tcp().is_none());
        while let Some(handle) = next {
            self.confirm(handle, quiet);
            next = self.flows.get(handle).and_then(|flow| flow.link);
        }
    }

    /// Both flows of a pair were seen. One that has a connection is confirmed by that: it still has to be watched.
    pub(super) fn confirm_pair(&mut self, handle: Handle) {
        let pair = self.flows.get(handle).and_then(|flow| flow.link);
        for handle in [Some(handle), pair].into_iter().flatten() {
            if self.flows.get(handle).is_some_and(|flow| flow.connection.is_none()) {
                self.confirm(handle, true);
            }
        }
    }

    fn confirm(&mut self, handle: Handle, quiet: bool) {
        let room = self.room_for_confirmed();
        let Some(flow) = self.flows.get_mut(handle) else { return };
        if quiet {
            flow.marks.set(Marks::QUIET, true);
        }
        if flow.marks.has(Marks::SMALL) && room {
            flow.marks.set(Marks::SMALL, false);
            self.stats.confirmed += 1;
        }
    }

    /// Whether one more flow can be confirmed, perhaps because another gives way.
    pub(super) fn room_for_confirmed(&mut self) -> bool {
        self.stats.confirmed < self.config.flows as u64 || self.evict()
    }

    /// Forgets, of some flows, the one that can best be missed: whose connection is over or about to be, then
    /// the one that was silent for longest. Connections that work are missed last.
    fn evict(&mut self) -> bool {
        let mut best: Option<((u8, u32), Handle)> = None;
        let (candidates, next) = self.flows.slice(self.hand, CANDIDATES);
        for (handle, flow) in candidates {
            if flow.marks.has(Marks::SMALL) {
                continue;
            }
            let rank = flow
                .connection
                .and_then(|at| self.connections.get(at))
                .map_or(2, |held| rank(self.connections.state(held)));
            let silent = self.now_ms.wrapping_sub(flow.last_ms);
            if best.is_none_or(|(score, _)| (rank, silent) > score) {
                best = Some(((rank, silent), handle));
            }
        }
        self.hand = next;
        let Some((_, handle)) = best else { return false };
        self.stats.evicted += 1;
        match self.flows.get(handle).and_then(|flow| flow.connection.map(|at| (at, flow.last_ms))) {
            Some((at, now_ms)) => self.end(at, now_ms),
            None => self.drop_flow(handle),
        }
        true
    }

    /// Makes room for one more small flow; the oldest ones go.
    pub(super) fn make_room(&mut self, now_ms: u32) {
        while self.small.len() >= self.config.small_flows.max(1) {
            self.make_room_small(now_ms);
        }
    }

    /// Takes the oldest out of the queue of the small.
    pub(super) fn make_room_small(&mut self, now_ms: u32) {
        let Some(handle) = self.small.pop_front() else { return };
        let Some(flow) = self.flows.get(handle).filter(|flow| flow.marks.has(Marks::SMALL)) else { return };
        self.stats.evicted_small += 1;
        let unfinished =
            flow.connection.filter(|at| self.connections.get(*at).is_some_and(|held| !held.is(Fact::Established)));
        match unfinished {
            Some(at) => self.end(at, now_ms),
            None => self.forget(handle),
        }
    }

    /// Forgets flows of a connection that has too many.
    pub(super) fn trim_siblings(&mut self, at: Option<Handle>) {
        let Some(connection) = at.and_then(|at| self.connections.get(at)) else { return };
        let (mut next, initiator) = (connection.flows, connection.initiator);
        let (mut count, mut last) = (0, None);
        while let Some(handle) = next {
            count += 1;
            if Some(handle) != initiator {
                last = Some(handle);
            }
            next = self.flows.get(handle).and_then(|flow| flow.link);
        }
        if count > MAX_SIBLINGS
            && let Some(last) = last
        {
            self.forget(last);
        }
    }

    /// Looks after up to `budget` places. Returns how many there were, and whether all have been seen now.
    pub(super) fn sweep(&mut self, now_ns: u64, budget: usize) -> (usize, bool) {
        let now_ms = to_ms(now_ns);
        let (done, next) = self.visit(self.sweep_at, budget, |shard, handle| shard.look_after(handle, now_ms));
        self.sweep_at = next;
        self.flows.settle(budget);
        self.connections.settle(budget);
        self.paths.settle(budget);
        if next == 0 {
            self.connections.wake(now_ms);
            self.forget_datagrams(now_ms);
        }
        (done, next == 0)
    }

    fn look_after(&mut self, handle: Handle, now_ms: u32) {
        self.fold_flow(handle);
        let Some(flow) = self.flows.get(handle) else { return };
        match flow.connection {
            Some(at) => {
                // Once for each connection is enough.
                if self.connections.get(at).is_some_and(|connection| connection.flows == Some(handle)) {
                    self.hear_from_flows(at);
                    if self.connections.is_over(at, now_ms) {
                        self.stats.expired += 1;
                        self.end(at, now_ms);
                    }
                }
            }
            None => {
                let idle = if matches!(flow.fate, Fate::Drop(_)) { DROPPED_IDLE_MS } else { IDLE_MS };
                let silent = now_ms.wrapping_sub(flow.last_ms);
                // A packet may have come after this moment was taken.
                if silent > idle && silent < u32::MAX / 2 {
                    self.stats.expired += 1;
                    self.forget(handle);
                }
            }
        }
    }

    /// Gives what up to `budget` flows counted to their rules.
    pub(super) fn fold(&mut self, from: u32, budget: usize) -> Option<u32> {
        let (_, next) = self.visit(from, budget, Self::fold_flow);
        (next != 0).then_some(next)
    }

    /// Does something with the flows at up to `budget` places from one on. Returns how many there were, and where to go on.
    fn visit(&mut self, from: u32, budget: usize, what: impl Fn(&mut Self, Handle)) -> (usize, u32) {
        let mut handles = std::mem::take(&mut self.swept);
        let (flows, next) = self.flows.slice(from, budget);
        handles.extend(flows.map(|(handle, _)| handle));
        let done = handles.len();
        handles.drain(..).for_each(|handle| what(self, handle));
        self.swept = handles;
        (done, next)
    }
}

/// How well a connection can be missed.
fn rank(tcp: Option<tcp::State>) -> u8 {
    match tcp {
        Some(tcp::State::Reset) => 5,
        Some(tcp::State::TimeWait) => 4,
        Some(tcp::State::Closing) => 3,
        Some(tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Midstream) => 2,
        Some(tcp::State::Established) => 0,
        None => 1,
    }
}
