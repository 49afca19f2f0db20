// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a shard says about itself.

use packet::{DropCause, PortId, Ufid};

use super::FlowLimits;
use super::flow::{Marks, Unified};
use super::shard::{Now, Shard, scope};
use super::to_ms;
use super::treatment::Fate;
use super::tunnels::TunnelStats;
use crate::Name;
use crate::compile::Snapshot;
use crate::condition::{Key, REGISTERS};
use crate::flow::tuple::{Kind, Tuple};
use crate::flow::{Handle, tcp};
use crate::model::Direction;
use crate::plan::{Membership, Plan};

/// What a shard counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Packets of flows that were known, and right.
    pub hits: u64,
    /// Hits that came straight from the flow at another port.
    pub through: u64,
    /// Packets whose flow was not known.
    pub misses: u64,
    /// Flows that were found right after policy changed, without being planned again.
    pub revalidated: u64,
    /// Flows and connections that were planned again.
    pub replanned: u64,
    /// Connections that ended because policy allows them no longer.
    pub ended_by_policy: u64,
    /// Packets that were dropped because too many flows began.
    pub over_budget: u64,
    /// Misses of which nothing could be kept.
    pub not_cached: u64,
    /// Packets that could not be parsed.
    pub unparsed: u64,
    /// TCP segments that fit nothing their connection may carry.
    pub implausible: u64,
    /// Flows and connections that were silent for too long.
    pub expired: u64,
    /// Unconfirmed flows that made room for others.
    pub evicted_small: u64,
    /// Confirmed flows that made room for others.
    pub evicted: u64,
    /// Flows and connections that found no room.
    pub table_full: u64,
    /// Connections that would have had another's name.
    pub name_conflicts: u64,
    /// Connections that found no address and port free.
    pub nat_exhausted: u64,
    /// ICMP errors.
    pub icmp_errors: u64,
    /// Fragments that came before the first of their datagram.
    pub early_fragments: u64,
    /// Fragments that overlap others, or contradict them.
    pub bad_fragments: u64,
    /// Packets that had to wait for an answer.
    pub waiting: u64,
    /// Flows that are confirmed now.
    pub confirmed: u64,
}

/// What a shard holds and has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortReport {
    /// Version of the policy.
    pub version: u64,
    /// How many flows there may be.
    pub limits: FlowLimits,
    /// Flows.
    pub flows: u64,
    /// Connections.
    pub connections: u64,
    /// Ways through the layers.
    pub paths: u64,
    /// Datagrams of which more fragments may come.
    pub datagrams: u64,
    /// Names that rest.
    pub resting: u64,
    /// Bytes of tables, programs and what belongs to them.
    pub memory: u64,
    /// What was counted.
    pub stats: ShardStats,
    /// What was too long for tunnels.
    pub tunnels: TunnelStats,
}

/// What there is to say about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// Its number, for as long as it lives.
    pub id: u32,
    /// Which way it goes.
    pub direction: Direction,
    /// What its packets are.
    pub ufid: Ufid,
    /// The tuple in that.
    pub tuple: Option<Tuple>,
    /// Packets since it began.
    pub packets: u64,
    /// Bytes since it began.
    pub bytes: u64,
    /// Packets and bytes that its rules have not been told of yet.
    pub pending: (u32, u64),
    /// Milliseconds of the switch's clock when it last saw a packet.
    pub last_ms: u32,
    /// Whether it is confirmed.
    pub confirmed: bool,
    /// How far its TCP connection has come.
    pub tcp: Option<tcp::State>,
    /// Segments that were sent again, of the initiator and of the responder.
    pub retransmits: [u32; 2],
    /// Smoothed round trips of TCP in microseconds, from here to the responder and back (of what the initiator sends), and
    /// from here to the initiator and back.
    pub rtt_us: [Option<u32>; 2],
    /// Packets of TCP that were marked as having met congestion, of the initiator and of the responder.
    pub congestion_marks: [u32; 2],
    /// Why its packets are dropped.
    pub dropped: Option<DropCause>,
    /// Where its packets go whatever they say.
    pub redirected: Option<PortId>,
    /// What that port is called.
    pub redirected_to: Option<Name>,
}

impl Shard {
    pub(super) fn report(&self) -> PortReport {
        debug_assert_eq!(self.programs, self.count_programs());
        let memory = self.flows.memory() + self.connections.memory() + self.paths.memory() + self.programs;
        PortReport {
            version: self.snapshot.version(),
            limits: self.config.limits(),
            flows: self.flows.len() as u64,
            connections: self.connections.len() as u64,
            paths: self.paths.len() as u64,
            datagrams: self.fragments.len() as u64,
            resting: self.connections.resting() as u64,
            memory: memory as u64,
            stats: self.stats,
            tunnels: self.tunnels.stats,
        }
    }

    /// What [`Self::programs`] is to be: all flows are walked over.
    fn count_programs(&self) -> usize {
        let beside = self.flows.iter().filter_map(|(handle, _)| self.flows.beside(handle));
        beside.map(|beside| beside.change.heap()).sum()
    }

    pub(super) fn list(&self, from: u32, budget: usize, mut hear: impl FnMut(FlowReport)) -> Option<u32> {
        let (flows, next) = self.flows.slice(from, budget);
        for (handle, flow) in flows {
            if let Some(report) = self.describe(handle, flow) {
                hear(report);
            }
        }
        (next != 0).then_some(next)
    }

    pub(super) fn compare(
        &self,
        staged: &Snapshot,
        from: u32,
        budget: usize,
        now_ns: u64,
        mut hear: impl FnMut(FlowReport, Plan, Plan),
    ) -> Option<u32> {
        let (flows, next) = self.flows.slice(from, budget);
        for (handle, flow) in flows {
            let Some(report) = self.describe(handle, flow) else { continue };
            let key = Key { ufid: report.ufid, registers: [0; REGISTERS] };
            let connection = flow.connection.and_then(|at| self.connections.get(at));
            let membership = match connection {
                Some(connection) => Membership::Of(connection, connection.role(report.direction)),
                None if report.tuple.is_some() => Membership::Begins,
                None => Membership::None,
            };
            let under = |snapshot| {
                let now = Now {
                    ns: now_ns,
                    ms: to_ms(now_ns),
                    direction: report.direction,
                    snapshot,
                    epoch: self.epoch,
                    names: &[],
                };
                self.plan(&key, membership, &now)
            };
            let (now, then) = (under(&self.snapshot), under(staged));
            if now.outcome != then.outcome || now.transposition != then.transposition {
                hear(report, now, then);
            }
        }
        (next != 0).then_some(next)
    }

    fn describe(&self, handle: Handle, flow: &Unified) -> Option<FlowReport> {
        let (at, ufid) = self.flows.identity(handle)?;
        let tcp = flow.tcp().and_then(|at| self.connections.tcp(at));
        let retransmits = |side| tcp.map_or(0, |tcp| tcp.state.retransmits(side));
        let (told_packets, told_bytes) = self.flows.beside(handle)?.told.get();
        Some(FlowReport {
            id: handle.to_bits(),
            direction: if at == scope(Direction::In) { Direction::In } else { Direction::Out },
            ufid,
            tuple: Kind::of(&ufid).tuple(),
            packets: told_packets + u64::from(flow.packets),
            bytes: told_bytes + flow.bytes,
            pending: (flow.packets, flow.bytes),
            last_ms: flow.last_ms,
            confirmed: !flow.marks.has(Marks::SMALL),
            tcp: tcp.map(|tcp| tcp.state.state()),
            retransmits: [retransmits(tcp::Side::Initiator), retransmits(tcp::Side::Responder)],
            rtt_us: tcp.map_or([None; 2], |tcp| tcp.timing.smoothed_us()),
            congestion_marks: tcp.map_or([0; 2], |tcp| tcp.timing.marked()),
            dropped: match flow.fate {
                Fate::Drop(cause) => Some(cause),
                Fate::Pass | Fate::Redirect(_) => None,
            },
            redirected: match flow.fate {
                Fate::Redirect(port) => Some(port),
                Fate::Pass | Fate::Drop(_) => None,
            },
            // The engine knows.
            redirected_to: None,
        })
    }
}
