// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The first packet of a flow: it is planned, and what the plan wants is committed in one place.

use std::sync::Arc;

use packet::{Burst, DropCause, EtherType, Field, Layout, OuterLayout, Parsed, Tunnel, Ufid, Verdict};

use super::flow::{Beside, Marks, Told, Unified};
use super::reconcile::Settled;
use super::shard::{Beginning, CE, Now, Place, Shard, Tracked, beginning, scope, segment};
use super::treatment::{Change, Fate, Treatment};
use super::{Event, Outside};
use crate::compile::Snapshot;
use crate::condition::{Key, REGISTERS};
use crate::flow::connection::{Connection, Entry, Fact, Role, Tcp};
use crate::flow::tcp::Side;
use crate::flow::tuple::{Kind, Tuple};
use crate::flow::{FlowKey, Handle};
use crate::model::Direction;
use crate::plan::{Choice, Membership, Outcome, Plan, Question, Request, plan};

/// A question is asked again after so long without an answer.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Questions that may be open.
const MAX_ASKED: usize = 4096;

/// A plan and what it was made for.
struct Planned {
    plan: Plan,
    connection: Option<(Handle, Role)>,
    /// What can begin: TCP with its state.
    begins: Option<Beginning>,
    /// The tuple of the packet as it came.
    enter: Option<Tuple>,
}

impl Shard {
    /// Deals with a packet whose flow is not known.
    #[cold]
    #[inline(never)]
    pub(super) fn begin(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        if !self.budget.take(now.ns, self.config.plans_per_second) {
            return self.refuse(burst, place.at);
        }
        let planned = self.plan_first(&place.parsed, now);
        if let Outcome::Pending(request) = &planned.plan.outcome {
            self.ask(request, now.ns, outside);
            outside.parked += 1;
            return burst.set_verdict(place.at, Verdict::Park(DropCause::Unresolved));
        }
        let fate = now.fate(&planned.plan.outcome, self.port);
        if fate == Fate::Drop(DropCause::NatExhausted) {
            self.tell_exhausted(&planned.plan, now.snapshot, outside);
        }
        match self.commit(place, key, now, &planned, fate) {
            Ok(handle) => {
                self.take(burst, &place.packet(key.hash), handle, now);
                if now.direction == Direction::In && fate == Fate::Pass {
                    self.pair(handle, &planned.plan.after.ufid, now);
                } else if now.direction == Direction::Out && fate == Fate::Pass {
                    self.meet_pair(handle, &planned.plan.after.ufid);
                }
            }
            Err(uncached) => {
                self.stats.not_cached += 1;
                let path = self.paths.intern(&planned.plan, now.snapshot);
                self.paths.count(path, 1, place.len.into());
                self.paths.release(path);
                self.tunnels.carry(uncached.fate, &uncached.change, burst, &place.packet(key.hash), now);
            }
        }
    }

    /// Plans a packet that has no flow: as part of its connection, or as what may begin one.
    fn plan_first(&mut self, parsed: &Parsed, now: &Now<'_>) -> Planned {
        let enter = Kind::of(&parsed.ufid).tuple();
        let key = Key { ufid: parsed.ufid, registers: [0; REGISTERS] };
        let found = enter.and_then(|tuple| self.connections.find(now.direction, &tuple));
        let found = found.and_then(|(at, role)| Some((at, role, self.join(at, now)?)));
        if let Some((at, role, settled)) = found {
            let connection = Some((at, role));
            if let Settled::Waits(plan) = settled {
                return Planned { plan: *plan, connection, begins: None, enter };
            }
            let plan = self.plan(&key, self.membership(connection, false), now);
            let goes_on = match plan.outcome {
                Outcome::Forward | Outcome::Hairpin(_) => {
                    self.track(at, role, segment(parsed), parsed.transient.ecn == CE, now) == Tracked::Goes
                }
                Outcome::Ended => false,
                // What policy drops has nothing to do with the connection.
                Outcome::Drop(_) | Outcome::Pending(_) => true,
            };
            if goes_on {
                return Planned { plan, connection, begins: None, enter };
            }
            self.end(at, now.ms);
        }
        let begins = beginning(parsed);
        let plan = self.plan(&key, self.membership(None, begins.is_some()), now);
        Planned { plan, connection: None, begins, enter }
    }

    /// How a packet without a flow of its own goes on with a connection; `None`: that is over.
    fn join(&mut self, at: Handle, now: &Now<'_>) -> Option<Settled> {
        self.hear_from_flows(at);
        if self.connections.is_over(at, now.ms) {
            self.stats.expired += 1;
            self.end(at, now.ms);
            return None;
        }
        let settled = self.reconcile_connection(at, now);
        (!matches!(settled, Settled::Ended)).then_some(settled)
    }

    pub(super) fn membership(&self, connection: Option<(Handle, Role)>, begins: bool) -> Membership<'_> {
        let member = connection.and_then(|(at, role)| Some((self.connections.get(at)?, role)));
        match member {
            Some((connection, role)) => Membership::Of(connection, role),
            None if begins => Membership::Begins,
            None => Membership::None,
        }
    }

    pub(super) fn plan(&self, key: &Key, membership: Membership<'_>, now: &Now<'_>) -> Plan {
        plan(&Question {
            snapshot: now.snapshot,
            direction: now.direction,
            key,
            membership,
            connections: &self.connections,
            now_ns: now.ns,
        })
    }

    /// Counts a packet that waited in vain with the rules that it met, the one that asked included. It leaves nothing else
    /// behind.
    pub(super) fn give_up(&mut self, window: &[u8], len: u32, direction: Direction, now_ns: u64) {
        let Ok(parsed) = packet::parse::parse(window, len) else { return };
        let snapshot = Arc::clone(&self.snapshot);
        let ms = super::to_ms(now_ns);
        let now = Now { ns: now_ns, ms, direction, snapshot: &snapshot, epoch: self.epoch, names: &[] };
        let tuple = Kind::of(&parsed.ufid).tuple();
        let connection = tuple.and_then(|tuple| self.connections.find(direction, &tuple));
        let membership = self.membership(connection, beginning(&parsed).is_some());
        let plan = self.plan(&Key { ufid: parsed.ufid, registers: [0; REGISTERS] }, membership, &now);
        let path = self.paths.intern(&plan, &snapshot);
        self.paths.count(path, 1, len.into());
        self.paths.release(path);
    }

    pub(super) fn simulate(&self, direction: Direction, key: &Key, now_ns: u64) -> Plan {
        let now = Now {
            ns: now_ns,
            ms: super::to_ms(now_ns),
            direction,
            snapshot: &self.snapshot,
            epoch: self.epoch,
            names: &[],
        };
        let tuple = Kind::of(&key.ufid).tuple();
        let connection = tuple.and_then(|tuple| self.connections.find(direction, &tuple));
        self.plan(key, self.membership(connection, tuple.is_some()), &now)
    }

    /// Does what a plan wants: the connection, then the flow. If the flow cannot be kept, it comes back, to be used once.
    fn commit(
        &mut self,
        place: &Place,
        key: &FlowKey<'_>,
        now: &Now<'_>,
        planned: &Planned,
        fate: Fate,
    ) -> Result<Handle, Treatment> {
        let mut treatment = Treatment::compile(fate, &planned.plan, &place.parsed.ufid, &place.parsed.layout);
        let fate = treatment.fate;
        let mut flow = Unified::new(fate, &treatment.change, now);
        let passes = !matches!(fate, Fate::Drop(_));
        // An answer of the pool may be another next time.
        let of_the_pool = fate == Fate::Drop(DropCause::NatExhausted) || !passes && planned.plan.from_ranges;
        if planned.plan.transient || of_the_pool {
            return Err(treatment);
        }
        let opens = passes && planned.connection.is_none() && !planned.plan.entries.is_empty();
        if opens {
            match self.open(planned, now) {
                Ok(at) => flow.connection = Some(at),
                Err(cause) => {
                    treatment.fate = Fate::Drop(cause);
                    return Err(treatment);
                }
            }
        } else if let Some((at, role)) = planned.connection {
            // One that is dropped, too: when the connection ends it may be let through.
            flow.connection = Some(at);
            if passes && role == Role::Initiator {
                self.add_entries(at, &planned.plan, now.snapshot);
            }
        }
        flow.path = self.paths.intern(&planned.plan, now.snapshot);
        let (path, connection) = (flow.path, flow.connection);
        self.keep(key, flow, treatment.change, now.ms).map_err(|change| {
            self.paths.release(path);
            // A connection without a flow would never end.
            let ends = connection.filter(|_| opens);
            let fate = if ends.is_some() { Fate::Drop(DropCause::FlowTableFull) } else { fate };
            ends.into_iter().for_each(|at| self.end(at, now.ms));
            Treatment { fate, change }
        })
    }

    /// Opens the connection that a plan wants.
    fn open(&mut self, planned: &Planned, now: &Now<'_>) -> Result<Handle, DropCause> {
        let plan = &planned.plan;
        let (Some(enter), Some(leave)) = (planned.enter, Kind::of(&plan.after.ufid).tuple()) else {
            return Err(DropCause::Untransposable);
        };
        let tcp = planned.begins.as_ref().and_then(|begins| {
            let mut tcp = Tcp::new(begins.tcp?);
            tcp.timing.observe(Side::Initiator, begins.segment, false, begins.marked, now.us());
            Some(tcp)
        });
        let mut connection = Connection::new(now.direction, [enter, leave], &plan.entries);
        connection.idle_s = plan.idle_s;
        connection.set(Fact::Rests, plan.from_ranges);
        (connection.epoch, connection.last_ms) = (now.epoch, now.ms);
        let Some(hashes) = self.connections.hashes(&connection) else {
            self.stats.name_conflicts += 1;
            return Err(DropCause::NatExhausted);
        };
        hashes.into_iter().for_each(|hash| self.openings.opened(hash));
        self.connections.open(connection, hashes, tcp).or_else(|connection| {
            self.make_room_small(now.ms);
            self.connections.open(connection, hashes, tcp).map_err(|_| {
                self.stats.table_full += 1;
                DropCause::FlowTableFull
            })
        })
    }

    /// What an initiator's packet met that the connection does not remember yet.
    pub(super) fn add_entries(&mut self, at: Handle, plan: &Plan, snapshot: &Snapshot) {
        let Some(connection) = self.connections.get(at) else { return };
        let is_new = |entry: &Entry| connection.entry(entry.layer).is_none();
        if plan.entries.iter().any(is_new) {
            let layers = snapshot.layer_ids();
            let kept = connection.entries(&layers).filter(|old| plan.entries.iter().all(|new| new.layer != old.layer));
            let entries: Vec<Entry> = kept.chain(plan.entries.iter().copied()).collect();
            self.connections.amend(at, &entries);
            if let Some(connection) = self.connections.get_mut(at) {
                connection.idle_s = connection.idle_s.min(plan.idle_s);
            }
            // Answers need not ask rules there any more.
            self.doubt_flows(at);
        }
    }

    /// Puts a flow into the table, among the small ones unless its connection is established.
    pub(super) fn keep(
        &mut self,
        key: &FlowKey<'_>,
        mut flow: Unified,
        change: Change,
        now_ms: u32,
    ) -> Result<Handle, Change> {
        let connection = flow.connection.and_then(|at| self.connections.get(at));
        let established = connection.is_some_and(|connection| connection.is(Fact::Established));
        flow.marks.set(Marks::QUIET, established && connection.is_some_and(|connection| connection.tcp().is_none()));
        flow.marks.set(Marks::SMALL, !established || !self.room_for_confirmed());
        if flow.marks.has(Marks::SMALL) {
            self.make_room(now_ms);
            // What made room may have been the connection itself.
            if flow.connection.is_some_and(|at| self.connections.get(at).is_none()) {
                return Err(change);
            }
        }
        let direction = if key.scope == scope(Direction::In) { Direction::In } else { Direction::Out };
        if let Some(connection) = flow.connection.and_then(|at| self.connections.get(at)) {
            flow.link = connection.flows;
            flow.tie = connection.tcp().into();
            flow.marks.set(Marks::ANSWERS, connection.role(direction) == Role::Responder);
        } else {
            flow.tie = self.watched(direction, Kind::of(key.ufid).tuple()).into();
        }
        let (small, at) = (flow.marks.has(Marks::SMALL), flow.connection);
        let programs = change.heap();
        let beside = Beside { change, told: Told::default() };
        let handle = self.flows.insert(key, flow, beside).map_err(|(_, beside)| {
            self.stats.table_full += 1;
            beside.change
        })?;
        self.programs += programs;
        if small {
            self.small.push_back(handle);
        } else {
            self.stats.confirmed += 1;
        }
        if let Some(connection) = at.and_then(|at| self.connections.get_mut(at)) {
            connection.flows = Some(handle);
            if connection.initiator.is_none() && key.scope == scope(connection.direction()) {
                connection.initiator = Some(handle);
            }
        }
        self.trim_siblings(at);
        Ok(handle)
    }

    /// Makes the flow of the answers to an inbound one, if it is not there (VF-21).
    fn pair(&mut self, handle: Handle, after: &Ufid, now: &Now<'_>) {
        let answer = after.reversed();
        let key = self.flows.key(scope(Direction::Out), &answer);
        if let Some(other) = self.flows.find(&key) {
            return self.join_pair(handle, other);
        }
        let now = Now { direction: Direction::Out, ..*now };
        let tuple = Kind::of(&answer).tuple();
        let connection = tuple.and_then(|tuple| self.connections.find(Direction::Out, &tuple));
        let question = Key { ufid: answer, registers: [0; REGISTERS] };
        let plan = self.plan(&question, self.membership(connection, false), &now);
        let makes_state = matches!(connection, Some((_, Role::Initiator))) || plan.transient;
        if makes_state || plan.outcome != Outcome::Forward {
            return;
        }
        let treatment = layout_of(&answer).map(|layout| Treatment::compile(Fate::Pass, &plan, &answer, &layout));
        let Some(Treatment { fate: Fate::Pass, change }) = treatment else { return };
        let mut flow = Unified::new(Fate::Pass, &change, &now);
        flow.connection = connection.map(|(at, _)| at);
        flow.path = self.paths.intern(&plan, now.snapshot);
        let path = flow.path;
        match self.keep(&key, flow, change, now.ms) {
            Ok(other) => self.join_pair(handle, other),
            Err(_) => self.paths.release(path),
        }
    }

    /// Finds the flow that an outbound one answers.
    fn meet_pair(&mut self, handle: Handle, after: &Ufid) {
        // A connection knows its flows, and one that was made without it learns of it from the openings.
        if self.flows.get(handle).is_none_or(|flow| flow.connection.is_some()) {
            return;
        }
        let answer = after.reversed();
        let key = self.flows.key(scope(Direction::In), &answer);
        if let Some(other) = self.flows.find(&key) {
            self.join_pair(handle, other);
        }
    }

    fn join_pair(&mut self, one: Handle, other: Handle) {
        for (one, other) in [(one, other), (other, one)] {
            if let Some(flow) = self.flows.get_mut(one)
                && flow.connection.is_none()
            {
                flow.link = Some(other);
            }
        }
    }

    /// Asks the controller, unless that was done a moment ago.
    pub(super) fn ask(&mut self, request: &Request, now_ns: u64, outside: &mut Outside<'_>) {
        self.stats.waiting += 1;
        let asked = self.asked.get(request).copied();
        if asked.is_some_and(|asked| now_ns.saturating_sub(asked) < ASK_AGAIN_NS) {
            return;
        }
        if asked.is_none() && self.asked.len() >= MAX_ASKED {
            self.asked.retain(|_, asked| now_ns.saturating_sub(*asked) < ASK_AGAIN_NS);
            if self.asked.len() >= MAX_ASKED {
                return;
            }
        }
        self.asked.insert(request.clone(), now_ns);
        outside.tell(Event::Miss { port: self.port, request: request.clone() });
    }

    fn tell_exhausted(&mut self, plan: &Plan, snapshot: &Snapshot, outside: &mut Outside<'_>) {
        self.stats.nat_exhausted += 1;
        let Some(stage) = plan.stages.last() else { return };
        let Choice::Rule { group, place } = stage.choice else { return };
        let Some(layer) = snapshot.layers().get(stage.layer) else { return };
        let Some(group) = layer.groups.get(group) else { return };
        let Some(rule) = group.group.rules.get(place) else { return };
        let rule = format!("{}/{}/{}", layer.layer.name, group.group.name, rule.name);
        outside.tell(Event::NatExhausted { port: self.port, rule });
    }
}

/// How packets of an identity are laid out, as far as compiling wants to know: which headers there are.
pub(super) fn layout_of(ufid: &Ufid) -> Option<Layout> {
    let tunnels = [Tunnel::None, Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve, Tunnel::Gre];
    let tunnel = tunnels.into_iter().find(|tunnel| *tunnel as u128 == ufid.get(Field::Tunnel))?;
    let outer = (tunnel != Tunnel::None).then(|| OuterLayout {
        tunnel,
        vlan: ufid.get(Field::OuterVlan) != 0,
        ip: 0,
        transport: 0,
        end: 0,
    });
    let tags = [Field::Vlan, Field::SecondVlan].into_iter().filter(|field| ufid.get(*field) != 0).count();
    let there = ufid.get(Field::IpVersion) != 0 || ufid.get(Field::EtherType) == u128::from(EtherType::ARP.0);
    Some(Layout {
        outer,
        ethernet: (tunnel != Tunnel::Gre).then_some(0),
        vlans: u8::try_from(tags).unwrap_or(2),
        network: there.then_some(0),
        transport: there.then_some(0),
        fragment_header: None,
        end: 0,
    })
}
