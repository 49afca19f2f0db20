// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bursts of packets in and out of one queue pair of a link.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the queue: receives, sends, gives its port back when it is recalled |
//! | `counters.rs` | what it has done |
//! | `wait.rs` | sleeping until one of several queues has something |

mod counters;
mod wait;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use counters::QueueCounters;
pub use wait::wait_any;

use crate::burst::Burst;
use crate::link::Slot;
use crate::packet::{Meta, Packet};
use crate::port::{MAX_BURST, Port, PortError};
use crate::received::Received;

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
    counters: QueueCounters,
}

impl Queue {
    pub(crate) fn new(index: u16, slot: Arc<Slot>, lasting: bool) -> Self {
        Self { index, slot, seen: 0, port: None, line: None, lasting, counters: QueueCounters::default() }
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

    /// Fills `burst` with what has arrived, in its order, and says how many packets that is. What was in it is forgotten.
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        burst.clear();
        self.look();
        let Some(port) = &mut self.port else { return 0 };
        if let Err(error) = port.receive_burst(MAX_BURST, |received| take(burst, &received)) {
            self.give_back(Some(error));
        }
        burst.len()
    }

    /// Takes a packet to be sent; the device sees it at the latest after the next [`flush`](Self::flush). False: there is
    /// no room, and it was not taken. A packet that is too long for any frame is dropped and counted.
    #[inline]
    pub fn send<'a>(&mut self, packet: impl Into<Packet<'a>>) -> bool {
        let packet = packet.into();
        let Some(port) = &mut self.port else { return false };
        if packet.bytes.len() > port.longest_frame() {
            self.counters.too_long += 1;
            return true;
        }
        match port.claim() {
            Ok(Some(token)) => {
                port.fill(token, 0, packet.bytes);
                port.stage(packet.bytes.len());
                true
            }
            Ok(None) => false,
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

    /// Shows the device what was sent since the last time. To be called at the end of every burst.
    pub fn flush(&mut self) {
        self.look();
        if let Some(port) = &mut self.port
            && let Err(error) = port.push()
        {
            self.give_back(Some(error));
        }
    }

    /// Sleeps until something has arrived, `limit` has passed, or the backend comes or goes; true if something has
    /// arrived.
    pub fn wait(&mut self, limit: Duration) -> bool {
        wait_any(&mut [self], &[], limit)
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
        drop(shared);
        if recalled {
            self.give_back(None);
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

/// Copies a frame into the burst.
fn take(burst: &mut Burst, received: &Received<'_>) {
    let len = received.len();
    let at = burst.reserve(len);
    received.read(burst.reserved(at, len));
    burst.place(at, len, usize::MAX, Meta::default());
}
