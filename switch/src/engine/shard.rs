// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A port's flows, and what happens to a burst of its packets.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;

use packet::{Burst, DropCause, Field, Fragment, Layout, Parsed, PortId, QuickTcp, Verdict};

use super::batch::{Batch, Member};
use super::budget::Budget;
use super::flow::{Beside, Marks, Openings, Unified, Watched};
use super::fragments::Fragments;
use super::path::Paths;
use super::treatment::{Change, Fate};
use super::tunnels::{SYN, Tunnels};
use super::{EngineConfig, Outside, ShardStats, to_ms};
use crate::Name;
use crate::compile::Snapshot;
use crate::flow::connection::{Fact, Role, Tcp};
use crate::flow::connections::Connections;
use crate::flow::tcp::{self, Progress, Segment};
use crate::flow::tuple::{Kind, Tuple};
use crate::flow::{FlowKey, FlowTable, Handle, Scope, Secret};
use crate::model::Direction;
use crate::plan::{Outcome, Request};

/// A flow that was silent for so long is looked at closely: its connection's time may be over.
pub(super) const SILENT_MS: u32 = 1000;
/// Ways through the layers that the flows of a port may take.
const MAX_PATHS: usize = 1 << 18;

/// One port's policy and flows.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) port: PortId,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) config: EngineConfig,
    pub(super) flows: FlowTable<Unified, Beside>,
    /// Bytes of the programs of all flows: a sum that is kept, because who asks is answered between two bursts.
    pub(super) programs: usize,
    pub(super) connections: Connections,
    pub(super) fragments: Fragments,
    pub(super) openings: Openings,
    pub(super) paths: Paths,
    /// Flows that nobody has confirmed, oldest first, among them some that are gone or confirmed by now.
    pub(super) small: VecDeque<Handle>,
    pub(super) budget: Budget,
    pub(super) tunnels: Tunnels,
    pub(super) stats: ShardStats,
    /// Questions that were asked, and when.
    pub(super) asked: HashMap<Request, u64, foldhash::fast::RandomState>,
    pub(super) sweep_at: u32,
    /// Grows with each snapshot: what flows compare.
    pub(super) epoch: u32,
    /// Where room for confirmed flows was last looked for.
    pub(super) hand: u32,
    batch: Option<Box<Batch>>,
    /// When the burst came that is dealt with.
    pub(super) now_ms: u32,
    /// Room for the handles of a slice.
    pub(super) swept: Vec<Handle>,
}

/// A packet of the burst that is to be dealt with.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) len: u32,
    pub(super) parsed: Parsed,
    sort: Sort,
}

/// What a known flow wants to know of its packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) at: usize,
    pub(super) len: u32,
    pub(super) layout: &'a Layout,
    pub(super) hash: u64,
    /// Of what is not TCP nothing.
    pub(super) segment: Segment,
}

/// What a first look at the flows of a batch has shown, a bit for each packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways {
    /// Its flow leads on to the next.
    pub(super) through: u64,
    /// It went through both: there is nothing left to do.
    pub(super) gone: u64,
}

/// Packets that are dealt with each in their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Common,
    FirstFragment,
    LaterFragment,
    IcmpError,
}

/// The moment, and where packets go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) ns: u64,
    pub(super) ms: u32,
    pub(super) direction: Direction,
    pub(super) snapshot: &'a Snapshot,
    /// That of the shard.
    pub(super) epoch: u32,
    /// What ports are called, by number.
    pub(super) names: &'a [Option<Name>],
}

impl Shard {
    pub(super) fn new(port: PortId, snapshot: Arc<Snapshot>, config: EngineConfig, tunnel_mtu: Option<u32>) -> Self {
        let flows = config.flows.saturating_add(config.small_flows);
        // What is true of one shard's keys is of no use against another's.
        let secret = |n: u64| Secret::new(config.seed ^ (u64::from(port.0) << 32 | n));
        Self {
            port,
            snapshot,
            config,
            flows: FlowTable::new(flows, secret(1)),
            programs: 0,
            connections: Connections::new((config.flows / 2).saturating_add(config.small_flows), secret(2)),
            fragments: Fragments::default(),
            openings: Openings::new(),
            paths: Paths::new(MAX_PATHS),
            small: VecDeque::new(),
            budget: Budget::new(config.plans_per_second),
            tunnels: Tunnels::new(tunnel_mtu),
            stats: ShardStats::default(),
            asked: HashMap::default(),
            sweep_at: 0,
            epoch: 1,
            hand: 0,
            batch: Some(Batch::new()),
            now_ms: 0,
            swept: Vec::new(),
        }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn set_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        // What was missing may be there now: if not, it is asked for again.
        self.asked.clear();
        // 0 is nobody's.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn process(&mut self, burst: &mut Burst, direction: Direction, now_ns: u64, outside: &mut Outside<'_>) {
        if self.snapshot.is_empty() {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot);
        let now = Now {
            ns: now_ns,
            ms: to_ms(now_ns),
            direction,
            snapshot: &snapshot,
            epoch: self.epoch,
            names: outside.names,
        };
        self.now_ms = now.ms;
        let Some(mut batch) = self.batch.take() else { return };
        let wanted = match direction {
            Direction::Out => Verdict::Pending,
            Direction::In => Verdict::Forward(self.port),
        };
        let scope = scope(direction);
        self.stats.unparsed += batch.read(burst, wanted, &self.flows, scope);
        batch.find(&self.flows, scope);
        let has_runs = batch.has_runs() || burst.has_many();
        let mut ways = Ways::default();
        if direction == Direction::Out {
            outside.trail.start(self.port, burst.len());
            ways = if has_runs {
                self.look_ahead(&batch, &now, outside)
            } else {
                self.pass_all(burst, &batch, &now, outside)
            };
        } else {
            // Nothing comes of it but that all connections are waited for together.
            let flows = batch.plain_flows().filter_map(|(_, handle)| self.flows.get(handle?));
            black_box(flows.filter(|flow| self.is_followed(flow)).count());
        }
        let hits = if has_runs {
            self.hit_runs(burst, &batch, &now, ways.through, outside)
        } else if ways.gone == 0 {
            self.hit_each(burst, &batch, &now, ways.through, outside)
        } else {
            self.hit_left(burst, &batch, &now, ways, outside)
        };
        self.stats.hits += hits + u64::from(ways.gone.count_ones());
        self.batch = Some(batch);
    }

    /// Deals with the packets one by one. `through`: of which the flow leads on, a bit each. Returns how many were calm.
    #[inline]
    fn hit_each(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        now: &Now<'_>,
        through: u64,
        outside: &mut Outside<'_>,
    ) -> u64 {
        let mut hits = 0;
        for (i, member) in batch.members().iter().enumerate() {
            if self.hit_one(burst, batch, i, member, now, through >> i & 1 != 0, outside) {
                hits += 1;
            }
        }
        hits
    }

    /// The same with those that have not gone, where some have.
    #[inline(never)]
    fn hit_left(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        now: &Now<'_>,
        Ways { through, gone }: Ways,
        outside: &mut Outside<'_>,
    ) -> u64 {
        let (mut hits, mut left) = (0, batch.all() & !gone);
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(member) = batch.member(i) else { break };
            if self.hit_one(burst, batch, i, member, now, through >> i & 1 != 0, outside) {
                hits += 1;
            }
        }
        hits
    }

    /// Deals with a packet. Returns whether it was calm.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as with `hit_calm`")]
    #[expect(clippy::too_many_arguments, reason = "a packet, its place in batch and burst, and what is around it")]
    pub(super) fn hit_one(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        i: usize,
        member: &Member,
        now: &Now<'_>,
        leads_on: bool,
        outside: &mut Outside<'_>,
    ) -> bool {
        let is_calm = member.is_plain() && self.hit_calm(burst, member, now, leads_on, outside);
        if !is_calm {
            self.slow(burst, batch, i, member, now, outside);
        }
        is_calm
    }

    /// Deals with a packet of a flow that has nothing to learn from it: nearly every packet comes here. `false`: there is
    /// more to it, and nothing was done.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "bursts with runs and without ask in two places: called for each packet it costs more"
    )]
    fn hit_calm(
        &mut self,
        burst: &mut Burst,
        member: &Member,
        now: &Now<'_>,
        leads_on: bool,
        outside: &mut Outside<'_>,
    ) -> bool {
        let Some(handle) = member.handle else { return false };
        let Some((flow, beside)) = self.flows.both_mut(handle) else { return false };
        if !flow.marks.is_steady() || !flow.is_settled(now.epoch, now.ms, &self.openings) {
            return false;
        }
        let layout = member.quick.layout();
        if flow.marks.has(Marks::TUNNEL) {
            // What a SYN says may have to be lowered, though all of its flow's packets have fitted so far.
            let is_syn = || member.quick.tcp(burst.window(member.at())).is_some_and(|tcp| tcp.flags & SYN != 0);
            if is_syn() || !self.tunnels.fits(&beside.change, layout, member.len) {
                return false;
            }
        }
        if !flow.marks.has(Marks::QUIET) && !follow(&mut self.connections, &mut self.stats, flow, burst, member, now) {
            return false;
        }
        let passes = if flow.marks.has(Marks::CHANGES) {
            beside.change.apply(flow.fate, burst, member.at(), layout, member.hash)
        } else {
            Change::None.apply(flow.fate, burst, member.at(), layout, member.hash)
        };
        flow.count(member.len, now.ms);
        if passes {
            match (leads_on, flow.next) {
                (true, Some(next)) => Self::go_through(burst, member, (flow.next_port, next), now, outside.shards),
                _ if now.direction == Direction::Out => outside.trail.note(member.at(), handle),
                _ => self.note_next(member.at(), handle, now, outside.shards, outside.trail),
            }
        }
        true
    }

    /// Whether a flow has nothing to learn but what [`follow`] sees to: its connection is TCP's, and open. Touches that.
    #[inline]
    pub(super) fn is_followed(&self, flow: &Unified) -> bool {
        flow.marks.has(Marks::QUIET) || flow.tcp().and_then(|at| self.connections.tcp(at)).is_some_and(Tcp::is_open)
    }

    /// Deals with a packet that is not plain, or not of a calm flow.
    #[inline(never)]
    fn slow(
        &mut self,
        burst: &mut Burst,
        batch: &Batch,
        i: usize,
        member: &Member,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        if member.is_plain()
            && let Some(handle) = member.handle
        {
            let tcp = member.quick.tcp(burst.window(member.at())).map(Segment::from);
            let (layout, hash) = (member.quick.layout(), member.hash);
            let packet = Packet { at: member.at(), len: member.len, layout, hash, segment: tcp.unwrap_or_default() };
            if self.hit(burst, &packet, handle, now) {
                return;
            }
        }
        // What floods is told by its short key that there is no flow of its name, and costs no more than that.
        if member.is_plain()
            && self.budget.is_dry(now.ns)
            && !self.flows.has_quick(scope(now.direction), &member.quick.words, member.hash)
        {
            self.stats.misses += 1;
            return self.refuse(burst, member.at());
        }
        let Some(place) = member.place(burst, batch.parsed(i)) else { return };
        let key = FlowKey { scope: scope(now.direction), ufid: &place.parsed.ufid, hash: member.hash };
        if place.sort != Sort::Common {
            return self.uncommon(burst, &place, &key, now, outside);
        }
        self.common(burst, &place, &key, member.handle, now, outside);
    }

    /// Drops a packet that may not be planned.
    pub(super) fn refuse(&mut self, burst: &mut Burst, at: usize) {
        self.stats.over_budget += 1;
        burst.set_verdict(at, Verdict::Drop(DropCause::PlanBudget));
    }

    #[cold]
    #[inline(never)]
    fn uncommon(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        match place.sort {
            Sort::IcmpError => self.error(burst, place, key, now, outside),
            Sort::LaterFragment => self.later(burst, place, key, now, outside),
            Sort::FirstFragment if !self.may_begin(&place.parsed, now) => {
                self.stats.bad_fragments += 1;
                burst.set_verdict(place.at, Verdict::Drop(DropCause::BadFragment));
            }
            Sort::FirstFragment | Sort::Common => {
                self.common(burst, place, key, None, now, outside);
                self.note_first(burst, place, now, outside);
            }
        }
    }

    #[inline]
    fn common(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        found: Option<Handle>,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        // An earlier packet of this burst may have begun the flow, or ended it.
        let found = found.filter(|handle| self.flows.get(*handle).is_some()).or_else(|| self.flows.find(key));
        if let Some(handle) = found
            && self.hit(burst, &place.packet(key.hash), handle, now)
        {
            return;
        }
        self.stats.misses += 1;
        self.begin(burst, place, key, now, outside);
    }

    /// Deals with a packet of a known flow. `false`: it is known no longer, and the packet is as if it were the first.
    #[inline]
    fn hit(&mut self, burst: &mut Burst, packet: &Packet<'_>, handle: Handle, now: &Now<'_>) -> bool {
        let Some(flow) = self.flows.get(handle) else { return false };
        let strange = !flow.is_settled(now.epoch, now.ms, &self.openings)
            || flow.marks.has(Marks::PASSING)
            || !flow.marks.has(Marks::SEEN);
        if strange && !self.examine(handle, now) {
            return false;
        }
        let Some(flow) = self.flows.get(handle) else { return false };
        if !flow.marks.has(Marks::QUIET) {
            let marked = has_met_congestion(burst.window(packet.at), packet.layout);
            if !self.watch(handle, packet.segment, marked, now) {
                return false;
            }
        }
        self.stats.hits += 1;
        self.take(burst, packet, handle, now);
        true
    }

    /// Counts a packet for its flow, and treats it as its flow's packets are treated.
    #[inline]
    pub(super) fn take(&mut self, burst: &mut Burst, packet: &Packet<'_>, handle: Handle, now: &Now<'_>) {
        let Some((flow, Beside { change, .. })) = self.flows.both_mut(handle) else { return };
        flow.count(packet.len, now.ms);
        self.tunnels.carry(flow.fate, change, burst, packet, now);
    }

    /// What a packet tells about its flow's connection, or pair. `false`: the connection is over.
    fn watch(&mut self, handle: Handle, segment: Segment, marked: bool, now: &Now<'_>) -> bool {
        let Some(flow) = self.flows.get(handle) else { return false };
        if matches!(flow.fate, Fate::Drop(_)) {
            return true;
        }
        let Some(at) = flow.connection else {
            // Without a connection it is the pair that confirms a flow.
            let pair = flow.link.and_then(|pair| self.flows.get(pair));
            if pair.is_some_and(|pair| pair.marks.has(Marks::SEEN)) {
                self.confirm_pair(handle);
            }
            return true;
        };
        match self.track(at, flow.role(), segment, marked, now) {
            Tracked::Goes => true,
            Tracked::Over => {
                self.end(at, now.ms);
                false
            }
        }
    }

    /// Takes a packet into account that belongs to a connection.
    pub(super) fn track(&mut self, at: Handle, role: Role, segment: Segment, marked: bool, now: &Now<'_>) -> Tracked {
        let Some(connection) = self.connections.get_mut(at) else { return Tracked::Over };
        let Some(tcp) = connection.tcp() else {
            if role == Role::Responder && !connection.is(Fact::Answered) {
                connection.set(Fact::Answered, true);
            }
            if connection.is(Fact::Answered) && !connection.is(Fact::Established) {
                self.establish(at);
            }
            return Tracked::Goes;
        };
        let Some(tcp) = self.connections.tcp_mut(tcp) else { return Tracked::Over };
        match tcp.take(role.side(), segment, marked, now.us()) {
            Progress::Unchanged => {}
            Progress::Became(tcp::State::Established) => self.establish(at),
            Progress::Became(_) => {}
            Progress::Reopened => return Tracked::Over,
            Progress::Implausible => self.stats.implausible += 1,
        }
        Tracked::Goes
    }

    pub(super) fn watched(&self, direction: Direction, tuple: Option<Tuple>) -> Watched {
        self.openings.watch(tuple.map(|tuple| self.connections.hash(direction, &tuple)))
    }

    /// Whether a flow may be used that was silent, made before policy changed, or never used yet.
    #[cold]
    #[inline(never)]
    fn examine(&mut self, handle: Handle, now: &Now<'_>) -> bool {
        let Some(flow) = self.flows.get(handle) else { return false };
        if let Some(at) = flow.connection {
            self.hear_from_flows(at);
            if self.connections.is_over(at, now.ms) {
                self.stats.expired += 1;
                self.end(at, now.ms);
                return false;
            }
        }
        let Some(flow) = self.flows.get(handle) else { return false };
        if flow.connection.is_none() && !self.openings.is_quiet(flow.watched()) {
            let tuple = self.flows.identity(handle).and_then(|(_, ufid)| Kind::of(&ufid).tuple());
            if tuple.is_some_and(|tuple| self.connections.find(now.direction, &tuple).is_some()) {
                self.forget(handle);
                return false;
            }
            let watched = self.watched(now.direction, tuple);
            if let Some(flow) = self.flows.get_mut(handle) {
                flow.tie = watched.into();
            }
        }
        let Some(flow) = self.flows.get(handle) else { return false };
        // Also if nothing else has changed with policy.
        if flow.marks.has(Marks::PASSING) && now.ns >= self.paths.until_ns(flow.path) {
            self.forget(handle);
            return false;
        }
        flow.epoch == now.epoch || self.reconcile(handle, now)
    }
}

/// Lets an open connection of TCP follow a packet. `false`: there is more to it, and nothing was done.
#[inline]
pub(super) fn follow(
    connections: &mut Connections,
    stats: &mut ShardStats,
    flow: &Unified,
    burst: &Burst,
    member: &Member,
    now: &Now<'_>,
) -> bool {
    let window = burst.window(member.at());
    let Some(segment) = member.quick.tcp(window).map(Segment::from).filter(|segment| segment.is_plain()) else {
        return false;
    };
    let Some(tcp) = flow.tcp().and_then(|at| connections.tcp_mut(at)).filter(|tcp| tcp.is_open()) else { return false };
    let marked = has_met_congestion(window, member.quick.layout());
    if tcp.take(flow.role().side(), segment, marked, now.us()) == Progress::Implausible {
        stats.implausible += 1;
    }
    true
}

impl Sort {
    #[inline]
    fn of(parsed: &Parsed) -> Self {
        let fragment = parsed.ufid.get(Field::Fragment);
        if fragment == Fragment::Later as u128 {
            Self::LaterFragment
        } else if fragment != 0 {
            Self::FirstFragment
        } else if packet::icmp::is_error(&parsed.ufid) {
            Self::IcmpError
        } else {
            Self::Common
        }
    }
}

/// What became of a connection with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracked {
    Goes,
    /// Another one of the same ends begins.
    Over,
}

impl Now<'_> {
    /// Microseconds, round and round.
    #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
    pub(super) const fn us(&self) -> u32 {
        (self.ns / 1000) as u32
    }

    /// About a second, round and round.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
    pub(super) const fn seconds(&self) -> u16 {
        (self.ms >> 10) as u16
    }

    /// What an outcome means for a flow of a port.
    pub(super) fn fate(&self, outcome: &Outcome, own: PortId) -> Fate {
        match outcome {
            Outcome::Forward => Fate::Pass,
            Outcome::Hairpin(None) => Fate::Redirect(own),
            Outcome::Hairpin(Some(name)) => {
                let at = self.names.iter().position(|known| known.as_ref() == Some(name));
                let port = at.and_then(|at| u16::try_from(at).ok()).map(PortId);
                port.map_or(Fate::Drop(DropCause::UnknownPort), Fate::Redirect)
            }
            Outcome::Drop(cause) => Fate::Drop(*cause),
            Outcome::Ended => Fate::Drop(DropCause::NoConnection),
            Outcome::Pending(_) => Fate::Drop(DropCause::Unresolved),
        }
    }
}

impl From<QuickTcp> for Segment {
    fn from(tcp: QuickTcp) -> Self {
        Self { flags: tcp.flags, seq: tcp.seq, ack: tcp.ack, len: tcp.payload_len }
    }
}

impl Place {
    pub(super) fn new(at: usize, len: u32, parsed: Parsed) -> Self {
        Self { at, len, sort: Sort::of(&parsed), parsed }
    }

    pub(super) fn packet(&self, hash: u64) -> Packet<'_> {
        Packet { at: self.at, len: self.len, layout: &self.parsed.layout, hash, segment: segment(&self.parsed) }
    }
}

pub(super) const fn scope(direction: Direction) -> Scope {
    Scope(direction as u8)
}

/// Whether a packet that is no fragment is marked as having met congestion (RFC 3168).
fn has_met_congestion(window: &[u8], layout: &Layout) -> bool {
    let header = layout.network.and_then(|at| window.get(usize::from(at)..));
    match header {
        Some([first, second, ..]) if first >> 4 == 4 => second & CE == CE,
        Some([first, second, ..]) if first >> 4 == 6 => second >> 4 & CE == CE,
        _ => false,
    }
}

/// Congestion experienced.
pub(super) const CE: u8 = 3;

/// What TCP tracking wants to know.
pub(super) fn segment(parsed: &Parsed) -> Segment {
    let transient = &parsed.transient;
    Segment {
        flags: transient.tcp_flags,
        seq: transient.tcp_seq,
        ack: transient.tcp_ack,
        len: transient.l4_payload_len,
    }
}

/// How a packet may begin a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    /// Of TCP what is then known of it.
    pub(super) tcp: Option<tcp::Connection>,
    pub(super) segment: Segment,
    /// Whether it has met congestion.
    pub(super) marked: bool,
}

/// How a packet that belongs to no connection may begin one, if it may.
pub(super) fn beginning(parsed: &Parsed) -> Option<Beginning> {
    let tuple = Kind::of(&parsed.ufid).tuple()?;
    let segment = segment(parsed);
    let tcp = match tuple.protocol {
        crate::flow::tuple::TCP => Some(tcp::Connection::begin(segment)?),
        _ => None,
    };
    Some(Beginning { tcp, segment, marked: parsed.transient.ecn == CE })
}
