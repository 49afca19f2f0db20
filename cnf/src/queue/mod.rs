// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bursts of packets in and out of one queue pair of a link.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the queue: receives, sends, gives its port back when it is recalled |
//! | `counters.rs` | what it has done |
//! | `plain.rs` | packets as frames of their own |
//! | `wait.rs` | sleeping until one of several queues has something |

mod counters;
mod plain;
mod wait;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

pub use counters::QueueCounters;
pub(crate) use plain::{Plain, stage};
pub use wait::wait_any;

use crate::aggregate::{Aggregation, Clock, Outlet, Packer, Unpacker};
use crate::burst::Burst;
use crate::link::Slot;
use crate::packet::{Meta, Packet};
use crate::port::{MAX_BURST, Port, PortError};
use crate::received::Received;

/// Frames that are taken at once where they may be aggregates, and packets of them after which it is enough for a burst.
const AGGREGATES: usize = 8;
const ENOUGH: usize = 256;
/// How often a sleeper looks whether a full ring has room again for what waits.
const ROOM: Duration = Duration::from_micros(50);

/// One queue pair of a [`Link`](crate::Link). It belongs to one thread at a time, which need not be the link's.
///
/// While no backend is attached nothing arrives and nothing is taken; the calls need not be told apart.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    slot: Arc<Slot>,
    seen: u32,
    port: Option<Port>,
    /// The connection that the port belongs to, to sleep on.
    line: Option<OwnedFd>,
    /// The rings go on under the next backend.
    lasting: bool,
    plain: Plain,
    aggregates: Option<Box<Aggregates>>,
    counters: QueueCounters,
}

/// What a queue needs besides if its link speaks of aggregation.
#[derive(Debug)]
struct Aggregates {
    packer: Packer,
    unpacker: Unpacker,
    clock: Clock,
    /// The time at the last receive or flush.
    now: u64,
    /// Frames of the negotiation that are to be sent before anything else.
    outbox: Vec<Vec<u8>>,
}

/// What a queue shares with the others of its link.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) lasting: bool,
    pub(crate) clock: Clock,
    pub(crate) aggregation: Option<Aggregation>,
    /// Numbers of aggregates.
    pub(crate) numbers: Arc<AtomicU16>,
    /// The link has one queue pair.
    pub(crate) alone: bool,
}

impl Queue {
    pub(crate) fn new(index: u16, slot: Arc<Slot>, common: &Common) -> Self {
        let aggregates = common.aggregation.as_ref().map(|config| {
            Box::new(Aggregates {
                packer: Packer::new(config, Arc::clone(&common.numbers)),
                unpacker: Unpacker::new(config, common.alone),
                clock: common.clock,
                now: 0,
                outbox: Vec::new(),
            })
        });
        Self {
            index,
            slot,
            seen: 0,
            port: None,
            line: None,
            lasting: common.lasting,
            plain: Plain::default(),
            aggregates,
            counters: QueueCounters::default(),
        }
    }

    /// Its number in the link.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Whether a backend is attached, as far as this queue knows.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.port.is_some()
    }

    /// What it has done since it was made, all backends together.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        let mut counters = self.counters;
        if let Some(port) = &self.port {
            counters.add(port.counters());
        }
        counters
    }

    /// Fills `burst` with what has arrived, in its order, and says how many packets that is: at most 64 where they arrive
    /// one by one, and what eight aggregates hold on top of 256 where they do not. What was in the burst is forgotten.
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        burst.clear();
        self.look();
        let Some(port) = &mut self.port else { return 0 };
        let counters = &mut self.counters;
        let result = match &mut self.aggregates {
            None => port.receive_burst(MAX_BURST, |received| take(burst, &received)).map(drop),
            Some(aggregates) => aggregates.receive(port, burst, counters),
        };
        self.counters.packets_received += burst.len() as u64;
        self.report();
        if let Err(error) = result {
            self.give_back(Some(error));
        }
        burst.len()
    }

    /// Takes a packet to be sent; the device sees it at the latest after the next [`flush`](Self::flush), unless it is to
    /// wait for others. False: there is no room, and it was not taken. A packet that is too long for any frame is dropped
    /// and counted.
    #[inline]
    pub fn send<'a>(&mut self, packet: impl Into<Packet<'a>>) -> bool {
        let packet = packet.into();
        if self.port.is_none() {
            self.look();
        }
        let Some(port) = &mut self.port else { return false };
        let (plain, counters) = (&mut self.plain, &mut self.counters);
        let taken = match &mut self.aggregates {
            Some(aggregates) if aggregates.packer.is_active() => {
                let Aggregates { packer, now, .. } = &mut **aggregates;
                packer.send(&packet, &mut Outlet { port, plain, counters, now: *now })
            }
            _ => plain.send(port, &packet, counters),
        };
        match taken {
            Ok(taken) => {
                self.counters.packets_sent += u64::from(taken);
                taken
            }
            Err(error) => {
                self.give_back(Some(error));
                false
            }
        }
    }

    /// Sends the packets of a burst from number `first` on and flushes; says how many were taken.
    pub fn send_burst(&mut self, burst: &Burst, first: usize) -> usize {
        let taken = burst.iter().skip(first).take_while(|packet| self.send(*packet)).count();
        self.flush();
        taken
    }

    /// Shows the device what was sent since the last time. To be called at the end of every burst, and in every turn of
    /// the loop if packets may wait for others.
    pub fn flush(&mut self) {
        self.look();
        let Some(port) = &mut self.port else { return };
        let (plain, counters) = (&mut self.plain, &mut self.counters);
        let packed = match &mut self.aggregates {
            Some(aggregates) => aggregates.flush(port, plain, counters),
            None => Ok(()),
        };
        if let Err(error) = packed.and_then(|()| port.push()) {
            self.give_back(Some(error));
        }
    }

    /// Sleeps until something has arrived, `limit` has passed, or the backend comes or goes; true if something has
    /// arrived.
    pub fn wait(&mut self, limit: Duration) -> bool {
        wait_any(&mut [self], &[], limit)
    }

    /// Frames that were sent and that the device has not given back.
    pub(crate) fn on_their_way(&mut self) -> usize {
        self.port.as_mut().map_or(0, Port::on_their_way)
    }

    /// How long what waits may wait.
    fn patience(&self) -> Option<Duration> {
        let aggregates = self.aggregates.as_ref()?;
        let deadline = aggregates.packer.deadline()?;
        let left = Duration::from_nanos(deadline.saturating_sub(aggregates.clock.now()));
        // What is late waits for room in the ring.
        Some(left.max(ROOM))
    }

    /// Sees what the link has left for it.
    #[inline]
    fn look(&mut self) {
        if self.slot.news_for_queue(&mut self.seen) {
            self.take_news();
        }
    }

    #[cold]
    fn take_news(&mut self) {
        let mut shared = self.slot.lock();
        let recalled = shared.recalled || shared.closed;
        if !recalled
            && self.port.is_none()
            && let Some(port) = shared.port.take()
        {
            shared.lent = true;
            self.port = Some(port);
            self.line = shared.line.take();
        }
        if let (Some(aggregates), Some(port)) = (&mut self.aggregates, &self.port) {
            aggregates.outbox.append(&mut shared.outbox);
            if let Some(terms) = shared.terms.take() {
                aggregates.packer.set_terms(terms.send.as_ref(), port.longest_frame());
                aggregates.unpacker.accept(terms.accept);
            }
        }
        drop(shared);
        if recalled {
            self.give_back(None);
        }
    }

    /// Leaves for the link what came for it.
    #[inline]
    fn report(&mut self) {
        if let Some(aggregates) = &mut self.aggregates {
            let unpacker = &mut aggregates.unpacker;
            if std::mem::take(&mut unpacker.heard) {
                self.slot.heard();
            }
            if !unpacker.control.is_empty() {
                self.slot.lock().inbox.append(&mut unpacker.control);
                self.slot.tell_link();
            }
        }
    }

    /// The connection has hung up: the link is to look at it, and nobody sleeps on it any more.
    fn hung_up(&mut self) {
        self.line = None;
        self.slot.tell_link();
    }

    /// Lets the link have the port, which it wants or which is of no more use.
    #[cold]
    fn give_back(&mut self, fault: Option<PortError>) {
        if let Some(mut port) = self.port.take() {
            if let Some(aggregates) = &mut self.aggregates {
                aggregates.packer.set_terms(None, 0);
                aggregates.unpacker.accept(false);
                aggregates.outbox.clear();
            }
            self.counters.add(port.take_counters());
            if !self.lasting {
                self.counters.abandoned += port.on_their_way() as u64;
            }
            self.line = None;
            let mut shared = self.slot.lock();
            shared.port = Some(port);
            shared.lent = false;
            shared.fault = fault;
            drop(shared);
            self.slot.tell_link();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl Aggregates {
    fn receive(&mut self, port: &mut Port, burst: &mut Burst, counters: &mut QueueCounters) -> Result<(), PortError> {
        self.now = self.clock.now();
        let unpacker = &mut self.unpacker;
        let most = if unpacker.accepts() { AGGREGATES } else { MAX_BURST };
        loop {
            let frames = port.receive_burst(most, |received| {
                if !unpacker.take(&received, burst, counters) {
                    take(burst, &received);
                }
            })?;
            if frames == 0 || most == MAX_BURST || burst.len() >= ENOUGH {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, port: &mut Port, plain: &mut Plain, counters: &mut QueueCounters) -> Result<(), PortError> {
        let mut sent = 0;
        for frame in &self.outbox {
            if !stage(port, frame, counters)? {
                break;
            }
            sent += 1;
        }
        self.outbox.drain(..sent);
        self.now = self.clock.now();
        self.packer.turn(&mut Outlet { port, plain, counters, now: self.now })
    }
}

/// Copies a frame into the burst.
fn take(burst: &mut Burst, received: &Received<'_>) {
    let len = received.len();
    let at = burst.reserve(len);
    received.read(burst.reserved(at, len));
    burst.place(at, len, usize::MAX, Meta::default());
}
