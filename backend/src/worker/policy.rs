// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy around the bridge: what a port's guest sends meets the port's policy before the bridge sees it, and what is
//! to be delivered to a port meets its policy after that (VF-2).
//!
//! A port's policy is carried out by one worker, its *home*, because its flows are there. Packets that another worker
//! holds are handed over.

use packet::{Burst, DropCause, MAX_BURST, Offload, PortId, Verdict, WINDOW};
use switch::engine::{Engine, Todo};
use switch::model::Direction;

use super::Worker;
use super::bridge::{Ingress, Path};
use super::finish::gather;
use super::park::{Park, Parked};
use super::payload::Payload;
use crate::sys::cycles;
use crate::topology::Routes;

/// Policy of the ports whose home this worker is.
#[derive(Debug)]
pub(super) struct Police {
    pub(super) engine: Engine,
    pub(super) park: Park,
    /// Ports whose packets that wait may go on.
    pub(super) due: Vec<PortId>,
    /// Copies of packets for all, for ports that have policy.
    copies: Box<Burst>,
}

/// What is to be known of packets that must wait.
pub(super) struct Waiting<'a> {
    pub(super) payload: Payload<'a>,
    pub(super) pair: u16,
    pub(super) since_ns: u64,
}

impl Police {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, park: Park::default(), due: Vec::new(), copies: Burst::new() }
    }

    /// What a port's guest sent meets the port's policy.
    #[inline]
    pub(super) fn outbound(&mut self, burst: &mut Burst, port: PortId, now_ns: u64, waiting: &Waiting<'_>) {
        let todo = self.engine.process(burst, port, Direction::Out, now_ns);
        self.note(port, todo);
        if todo.parked > 0 {
            keep(&mut self.park, burst, port, Direction::Out, waiting);
        }
    }

    /// What is to be delivered meets the policy of the ports that it is for, if they have one here.
    #[inline]
    pub(super) fn inbound(
        &mut self,
        burst: &mut Burst,
        routes: &Routes,
        worker: usize,
        now_ns: u64,
        waiting: &Waiting<'_>,
    ) {
        let mut done = [PortId::NONE; MAX_BURST];
        let mut count = 0;
        for at in 0..burst.len() {
            let Verdict::Forward(port) = burst.verdict(at) else { continue };
            // All of a port's packets are dealt with at once, and none twice.
            if routes.home(port) != Some(worker) || done.iter().take(count).any(|known| *known == port) {
                continue;
            }
            if let Some(slot) = done.get_mut(count) {
                *slot = port;
                count += 1;
            }
            let todo = self.engine.process(burst, port, Direction::In, now_ns);
            self.note(port, todo);
            if todo.parked > 0 {
                keep(&mut self.park, burst, port, Direction::In, waiting);
            }
        }
    }

    /// Copies of what is for many ports, as the policy of one of them leaves them if it is carried out here. `is_for` says
    /// whether a packet is for it. `None`: there are none.
    pub(super) fn copies_for(
        &mut self,
        burst: &Burst,
        port: PortId,
        is_for: impl Fn(usize) -> bool,
        here: bool,
        now_ns: u64,
        waiting: &Waiting<'_>,
    ) -> Option<&Burst> {
        self.copies.clear();
        for at in (0..burst.len()).filter(|at| burst.verdict(*at) == Verdict::Flood && is_for(*at)) {
            self.copies.push_copy(burst, at, Verdict::Forward(port));
        }
        if self.copies.is_empty() {
            return None;
        }
        self.engine.leave_burst();
        let todo =
            if here { self.engine.process(&mut self.copies, port, Direction::In, now_ns) } else { Todo::default() };
        self.note(port, todo);
        if todo.parked > 0 {
            keep(&mut self.park, &mut self.copies, port, Direction::In, waiting);
        }
        Some(&self.copies)
    }
}

impl Police {
    /// Remembers that packets of a port that wait may go on.
    #[inline]
    fn note(&mut self, port: PortId, todo: Todo) {
        if todo.release && !self.park.is_empty() && !self.due.contains(&port) {
            self.due.push(port);
        }
    }
}

/// Keeps copies of what must wait, as long as there is room.
#[cold]
fn keep(park: &mut Park, burst: &mut Burst, port: PortId, direction: Direction, waiting: &Waiting<'_>) {
    for at in 0..burst.len() {
        let length = burst.frame_len(at) as usize;
        let Verdict::Park(cause) = burst.verdict(at) else { continue };
        if !park.has_room(length) {
            continue;
        }
        let mut bytes = vec![0; length];
        if !gather(burst, waiting.payload, at, &mut bytes) {
            continue;
        }
        let (ingress, pair, since_ns) = (burst.ingress(at), waiting.pair, waiting.since_ns);
        park.push(Parked { cause, port, direction, ingress, pair, since_ns, offload: burst.offload(at), bytes });
        burst.set_verdict(at, Verdict::Parked);
    }
}

impl Worker {
    /// Lets a port's packets go on that waited, in the order in which they came.
    #[cold]
    pub(super) fn release(&mut self, port: PortId) {
        let now_ns = self.clock.nanos_at(cycles());
        for Parked { port, direction, ingress, pair, since_ns, offload, bytes, .. } in
            self.path.police.park.take(Some(port))
        {
            let packet = Resumed { bytes: &bytes, offload, port, ingress, pair, waits_since: Some(since_ns) };
            self.path.take_on(&packet, direction, now_ns);
        }
        self.notify();
    }

    /// Gives guests what policy has to say to them.
    #[cold]
    pub(super) fn reply(&mut self) {
        let now_ns = self.clock.nanos_at(cycles());
        let replies: Vec<_> = self.path.police.engine.take_replies().collect();
        for (port, bytes) in replies {
            self.path.deliver_own(port, &bytes, now_ns);
        }
        self.notify();
    }
}

/// A packet in the middle of its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resumed<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) offload: Offload,
    /// Whose policy comes next: outbound, the port that it came from; inbound, the one that it is for.
    pub(super) port: PortId,
    pub(super) ingress: PortId,
    pub(super) pair: u16,
    pub(super) waits_since: Option<u64>,
}

impl Path {
    /// Takes a packet through the rest of its way.
    pub(super) fn take_on(&mut self, packet: &Resumed<'_>, direction: Direction, now_ns: u64) {
        let Resumed { bytes, offload, port, ingress, pair, waits_since } = *packet;
        let (head, rest) = bytes.split_at(bytes.len().min(WINDOW));
        self.burst.clear();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Some(window) = self.burst.push(ingress, length, offload, 0) else { return };
        if window.len() != head.len() {
            return;
        }
        window.copy_from_slice(head);
        if direction == Direction::In {
            self.burst.set_verdict(0, Verdict::Forward(port));
        }
        let payloads = [rest];
        let payload = Payload::Slices(&payloads);
        let ingress = Ingress { port: ingress, pair, payload, offloads: !offload.is_finished(), waits_since };
        self.run(&ingress, direction, now_ns);
    }

    /// Delivers a frame that policy itself has made. It is not for any policy.
    fn deliver_own(&mut self, port: PortId, bytes: &[u8], now_ns: u64) {
        let (head, rest) = bytes.split_at(bytes.len().min(WINDOW));
        self.burst.clear();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Some(window) = self.burst.push(PortId::NONE, length, Offload::NONE, 0) else { return };
        if window.len() != head.len() {
            return;
        }
        window.copy_from_slice(head);
        self.burst.set_verdict(0, Verdict::Deliver(port));
        let payloads = [rest];
        let payload = Payload::Slices(&payloads);
        let ingress = Ingress { port: PortId::NONE, pair: 0, payload, offloads: false, waits_since: None };
        self.run(&ingress, Direction::In, now_ns);
    }

    /// Drops what waited for too long. What waited for a controller has met rules on its way, which count it.
    #[cold]
    pub(super) fn give_up(&mut self, now_ns: u64) {
        if self.police.park.is_empty() {
            return;
        }
        let (topology, index) = (&self.topology, self.index);
        let Police { park, engine, .. } = &mut self.police;
        for parked in park.overdue(now_ns) {
            if parked.cause == DropCause::Unresolved {
                let len = u32::try_from(parked.bytes.len()).unwrap_or(u32::MAX);
                let window = parked.bytes.get(..WINDOW).unwrap_or(&parked.bytes);
                engine.give_up(parked.port, parked.direction, window, len, now_ns);
            }
            if let Some(counters) = topology.port(parked.ingress).and_then(|entry| entry.counters.get(index)) {
                counters.drop_packets(parked.cause, 1);
            }
        }
    }
}
