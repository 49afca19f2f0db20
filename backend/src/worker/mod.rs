// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A poll worker: owns rings, runs packets to completion, sleeps when there are none.
//!
//! # Theory of operation
//!
//! One turn of the loop serves each transmit queue once, a burst each: cross-connected ports guest to guest
//! ([`crossconnect`]), all others by way of the burst's private windows ([`bridge`], [`egress`]); then each uplink
//! ([`receive`]), and what other workers handed over ([`handover`]). Notifications come last: one full fence for all
//! queues, then one look at each touched ring's event-suppression area, and one call for each uplink that sends. Between
//! turns the mailbox is served ([`mod@mailbox`]). Nothing in a turn allocates, locks or makes a system call, except these,
//! what concerns packets that must wait ([`park`], [`hop_park`]), and uplinks without a ring of the kernel's: a tap device
//! is asked for each frame, a UDP socket for each batch.

mod aggregate;
mod bridge;
mod commands;
mod crossconnect;
mod egress;
mod finish;
mod handover;
mod hop_park;
mod incoming;
#[cfg(test)]
mod lab;
mod longest;
mod mailbox;
mod park;
mod payload;
mod policy;
mod receive;
mod share;
mod sleep;
mod slots;
mod tunnel;
mod uplink;
mod watch;

pub(crate) use aggregate::{WireConfig, offload_of};
pub(crate) use finish::header_of;
pub(crate) use handover::{Receiver, Sender, Waker, ring};
pub use mailbox::WorkerGone;
pub(crate) use mailbox::{Attachment, Bell, Command, Inbox, Job, Mailbox, QueueId, Side, mailbox};
pub(crate) use slots::Queue;
pub(crate) use uplink::{LinkReport, Uplink};

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use aggregation::Reader;
use packet::{Burst, PortId};
use switch::engine::{Engine, EngineConfig, Event};
use switch::{Bridge, BridgeConfig};
use virtqueue::full_fence;

use self::aggregate::{Hope, Ranges};
use self::bridge::Path;
use self::finish::Cutter;
use self::longest::Longest;
use self::policy::Police;
use self::share::Shares;
use self::sleep::Sleeper;
use self::slots::TxSlot;
use self::uplink::{UplinkRx, UplinkTx};
use crate::config::{NodeConfig, PollMode};
use crate::counters::WorkerCounters;
use crate::inspect::Sinks;
use crate::sys::{Clock, cycles};
use crate::topology::{Forwarding, Routes};

/// How long a cross-connected source waits for a destination without buffers before its packets are dropped: some ten
/// bursts, so that a peer that is merely late loses nothing.
const STALL_LIMIT: Duration = Duration::from_micros(100);
/// By how much the time may differ that ports have had: a few bursts.
const QUANTUM: Duration = Duration::from_micros(20);
/// How far back the longest turn is told of, and up to twice as far.
const LATELY: Duration = Duration::from_secs(1);
/// How often a part of the bridge's table is looked at for stations to forget.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// How long an uplink whose ring the kernel did not take is left alone.
const RETRY_INTERVAL: Duration = Duration::from_micros(100);
/// The whole table is looked at this often in the ageing time.
const SWEEPS_PER_AGEING: u64 = 4;

/// All flows are looked after once in this time.
const FLOW_SWEEP: Duration = Duration::from_secs(2);
/// In how many slices.
const FLOW_SLICES: u64 = 20_000;
/// Most flows that are looked after between two bursts: some ten microseconds.
const MAX_FLOW_SLICE: usize = 256;
/// And while there are no packets.
const MAX_IDLE_SLICE: usize = 16_384;
/// How long a worker sleeps that has flows to forget, or packets that wait.
const FLOW_NAP: Duration = Duration::from_millis(250);

/// What a worker is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: usize,
    /// As what others know the node.
    pub(crate) node: NodeConfig,
    pub(crate) poll: PollMode,
    pub(crate) inbox: Inbox,
    pub(crate) waker: Arc<Waker>,
    /// Rings from the other workers, and towards each worker by index.
    pub(crate) inbound: Vec<Receiver>,
    pub(crate) outbound: Vec<Option<Sender>>,
    pub(crate) counters: Arc<[WorkerCounters]>,
    pub(crate) bridge: BridgeConfig,
    pub(crate) engine: EngineConfig,
    /// Who wants to know what happens in policy; what does not fit is forgotten, and asked again.
    pub(crate) events: SyncSender<Event>,
}

/// The state that one worker thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    inbox: Inbox,
    waker: Arc<Waker>,
    inbound: Vec<Receiver>,
    txs: Vec<TxSlot>,
    uplinks: Vec<UplinkRx>,
    path: Path,
    events: SyncSender<Event>,
    reader: Reader,
    ranges: Box<Ranges>,
    hope: Hope,
    /// As what others know the node.
    node: NodeConfig,
    sleeper: Sleeper,
    shares: Shares,
    longest: Longest,
    clock: Clock,
    stall_ticks: u64,
    sweep_ticks: u64,
    retry_ticks: u64,
    last_sweep: u64,
    last_flush: u64,
    last_flow_sweep: u64,
    flow_sweep_ticks: u64,
    ageing_ns: u64,
    /// When the first frame has to go that is held for others to join it, in nanoseconds.
    held_until: Option<u64>,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { index, node, poll, inbox, waker, inbound, outbound, counters, bridge, engine, events } = parts;
        let clock = Clock::get();
        let ageing_ns = bridge.ageing_ns;
        let sleeper = Sleeper::new(poll, clock)?;
        sleeper.watch(waker.event())?;
        let path = Path {
            index,
            counters,
            topology: Arc::default(),
            routes: Routes::default(),
            changes: 0,
            bridge: Bridge::new(bridge),
            police: Police::new(Engine::new(engine)),
            burst: Burst::new(),
            copies: Burst::new(),
            spare: Burst::new(),
            rxs: Vec::new(),
            uplinks: Vec::new(),
            sinks: Sinks::default(),
            outbound,
            cutter: Cutter::new(),
            expanded: false,
            round: aggregate::Round::default(),
        };
        Ok(Self {
            inbox,
            waker,
            inbound,
            txs: Vec::new(),
            uplinks: Vec::new(),
            path,
            events,
            reader: Reader::default(),
            ranges: Box::new([(0, 0); packet::MAX_BURST]),
            hope: Hope::default(),
            node,
            sleeper,
            shares: Shares::new(clock.to_ticks(QUANTUM)),
            longest: Longest::new(clock.to_ticks(LATELY)),
            clock,
            stall_ticks: clock.to_ticks(STALL_LIMIT),
            sweep_ticks: clock.to_ticks(SWEEP_INTERVAL),
            retry_ticks: clock.to_ticks(RETRY_INTERVAL),
            last_sweep: cycles(),
            last_flush: 0,
            last_flow_sweep: cycles(),
            flow_sweep_ticks: clock.to_ticks(FLOW_SWEEP),
            ageing_ns,
            held_until: None,
        })
    }

    /// Runs until [`Command::Stop`].
    pub(crate) fn run(mut self) {
        let mut last = cycles();
        loop {
            while let Some(command) = self.inbox.next() {
                if !self.serve(command) {
                    return;
                }
            }
            let packets = self.turn(last);
            let now = cycles();
            self.account(packets, now, now.wrapping_sub(last));
            last = now;
            if now.wrapping_sub(self.last_sweep) >= self.sweep_ticks {
                self.sweep(now);
            }
            self.sweep_flows(now, packets == 0);
            if packets > 0 {
                self.sleeper.busy();
            } else if self.sleeper.should_sleep(now) {
                self.sleep();
                last = cycles();
            }
        }
    }

    /// Serves every queue once. Returns the packets that were moved.
    #[inline]
    fn turn(&mut self, now: u64) -> usize {
        let mut packets = 0;
        self.shares.begin_turn(now);
        for index in 0..self.txs.len() {
            let Some(port) = self.txs.get(index).map(|slot| slot.common.port()) else { break };
            packets += self.give_turn(port, |worker| worker.transmit(index, now));
        }
        for index in 0..self.uplinks.len() {
            let Some(port) = self.uplinks.get(index).map(|uplink| uplink.port) else { break };
            packets += self.give_turn(port, |worker| worker.receive_uplink(index, now));
        }
        packets += self.take_handovers(now);
        while let Some(port) = self.path.police.due.pop() {
            self.release(port);
        }
        if packets > 0 {
            self.notify();
            if self.path.police.engine.has_events() {
                self.tell_events();
            }
            if self.path.police.engine.has_replies() {
                self.reply();
            }
        } else if self.held_until.is_some_and(|until| self.clock.nanos_at(now) >= until) {
            self.notify();
        } else if self.path.uplinks.iter().any(|uplink| uplink.ring.has_unsent())
            && now.wrapping_sub(self.last_flush) >= self.retry_ticks
        {
            self.flush_uplinks(now);
        }
        packets
    }

    /// Tells what happened in policy.
    #[cold]
    fn tell_events(&mut self) {
        for event in self.path.police.engine.take_events() {
            // A listener that does not keep up, or has gone, misses some; misses are asked again.
            let _ = self.events.try_send(event);
        }
    }

    /// Serves a queue of a port, unless the port has had more than its share of time.
    #[inline]
    fn give_turn(&mut self, port: PortId, serve: impl FnOnce(&mut Self) -> usize) -> usize {
        if !self.shares.may_have(port) {
            if let Some(counters) = self.path.counters.get(self.path.index) {
                counters.deferred.add(1);
            }
            return 0;
        }
        let packets = serve(self);
        if packets > 0 {
            self.shares.charge(port, cycles());
        }
        packets
    }

    #[inline]
    fn transmit(&mut self, index: usize, now: u64) -> usize {
        let Some(slot) = self.txs.get_mut(index) else { return 0 };
        if slot.common.broken.is_some() {
            return 0;
        }
        if !slot.common.enabled {
            // A started but disabled ring is drained and its packets are lost (vhost-user, "Ring states").
            return crossconnect::discard_burst(slot, packet::DropCause::NotReady);
        }
        match self.path.routes.forwarding(slot.common.port()) {
            Forwarding::Wired(peer) => self.crossconnect(index, peer, now),
            Forwarding::Bridged | Forwarding::Overlay(_) => self.bridge(index, now),
            Forwarding::None => crossconnect::discard_burst(slot, packet::DropCause::NoDestination),
        }
    }

    /// Ends what was put together, and tells the guests and workers that asked for it.
    fn notify(&mut self) {
        let mut held_until = self.path.rxs.iter_mut().filter_map(aggregate::end_turn).min();
        // Orders every publication above before the reads of the other sides' suppression areas and sleep flags below.
        full_fence();
        for slot in &mut self.txs {
            if std::mem::take(&mut slot.common.dirty) && slot.queue.should_notify() {
                slot.common.notify();
            }
        }
        for slot in &mut self.path.rxs {
            if std::mem::take(&mut slot.common.dirty) && slot.queue.should_notify() {
                slot.common.notify();
            }
        }
        for sender in self.path.outbound.iter_mut().flatten() {
            sender.notify();
        }
        for uplink in &mut self.path.uplinks {
            held_until = held_until.into_iter().chain(uplink.end_turn()).min();
        }
        self.held_until = held_until;
    }

    /// Tries again to hand to the kernel what it did not take.
    #[cold]
    fn flush_uplinks(&mut self, now: u64) {
        self.last_flush = now;
        for uplink in &mut self.path.uplinks {
            uplink.flush();
        }
    }

    #[inline]
    fn account(&mut self, packets: usize, now: u64, elapsed: u64) {
        let Some(counters) = self.path.counters.get(self.path.index) else { return };
        counters.polls.add(1);
        if let Some(longest) = self.longest.note(now, elapsed) {
            counters.longest_turn.set(longest);
        }
        if packets > 0 {
            counters.packets.add(packets as u64);
            counters.busy_cycles.add(elapsed);
        } else {
            counters.idle_cycles.add(elapsed);
        }
    }

    /// Forgets stations that fell silent, in a part of the table that grows with the time since the last look; finds
    /// queues whose memory was truncated.
    #[cold]
    fn sweep(&mut self, now: u64) {
        for slot in &mut self.txs {
            slot.common.check_memory(slot.queue.log_is_lost());
        }
        for slot in &mut self.path.rxs {
            slot.common.check_memory(slot.queue.log_is_lost());
        }
        let elapsed = self.clock.to_nanos(now.wrapping_sub(self.last_sweep));
        self.last_sweep = now;
        let Path { bridge, uplinks, .. } = &mut self.path;
        let share = u128::from(elapsed) * u128::from(SWEEPS_PER_AGEING) * bridge.buckets() as u128;
        let budget = usize::try_from(share / u128::from(self.ageing_ns.max(1))).unwrap_or(usize::MAX);
        let now_ns = self.clock.nanos_at(now);
        bridge.sweep(now_ns, budget.saturating_add(1).min(bridge.buckets()));
        for uplink in uplinks {
            uplink.sweep(now_ns);
            uplink.flush();
        }
        self.path.give_up(now_ns);
        self.path.tick_wires(now_ns);
        self.path.refresh_bridges(now_ns, elapsed);
        self.tick_links(now_ns);
    }

    /// Looks after a share of the flows, so that all have been seen once in [`FLOW_SWEEP`].
    #[inline]
    fn sweep_flows(&mut self, now: u64, idle: bool) {
        let elapsed = now.wrapping_sub(self.last_flow_sweep);
        if elapsed < self.flow_sweep_ticks / FLOW_SLICES {
            return;
        }
        self.last_flow_sweep = now;
        let flows = self.path.police.engine.flows() as u128;
        if flows > 0 {
            let share = flows * u128::from(elapsed) / u128::from(self.flow_sweep_ticks.max(1));
            let budget = usize::try_from(share).unwrap_or(usize::MAX).saturating_add(1);
            let budget = budget.min(if idle { MAX_IDLE_SLICE } else { MAX_FLOW_SLICE });
            self.path.police.engine.sweep(self.clock.nanos_at(now), budget);
        }
    }

    /// Asks for kicks, looks once more, and sleeps if there is still nothing.
    fn sleep(&mut self) {
        self.waker.set_asleep(true);
        for slot in self.txs.iter_mut().filter(|slot| slot.common.broken.is_none()) {
            slot.queue.set_kicks(true);
        }
        full_fence();
        let work = self.txs.iter().any(|slot| slot.common.broken.is_none() && slot.queue.has_available())
            || self.uplinks.iter().any(UplinkRx::has_frames)
            || self.inbound.iter().any(|ring| !ring.is_empty());
        if !work {
            if let Some(counters) = self.path.counters.get(self.path.index) {
                counters.sleeps.add(1);
            }
            self.sleeper.sleep(self.timer());
        }
        self.waker.set_asleep(false);
        for slot in self.txs.iter_mut().filter(|slot| slot.common.broken.is_none()) {
            slot.queue.set_kicks(false);
        }
    }

    /// How long it may sleep at most, though nothing happens.
    fn timer(&self) -> Option<Duration> {
        let held = self.held_until.map(|until| until.saturating_sub(self.clock.nanos_at(cycles())));
        let slow = self.slow_timer();
        held.map(Duration::from_nanos).map_or(slow, |held| Some(slow.map_or(held, |slow| slow.min(held))))
    }

    /// The same, of what is not in a hurry.
    fn slow_timer(&self) -> Option<Duration> {
        let uplinks = &self.path.uplinks;
        if uplinks.iter().any(|uplink| uplink.ring.has_unsent()) {
            return Some(Duration::from_millis(1));
        }
        if uplinks.iter().any(UplinkTx::has_timers) || self.path.rxs.iter().any(|slot| slot.link.is_some()) {
            return Some(SWEEP_INTERVAL);
        }
        let police = &self.path.police;
        (police.engine.flows() > 0 || !police.park.is_empty()).then_some(FLOW_NAP)
    }
}
