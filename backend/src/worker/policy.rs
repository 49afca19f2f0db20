// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy around the bridge: what a port's guest sends meets the port's policy before the bridge sees it, and what is
//! to be delivered to a port meets its policy after that (VF-2).
//!
//! A port's policy is carried out by one worker, its *home*, because its flows are there. Packets that another worker
//! holds are handed over.

use packet::{Burst, DropCause, MAX_BURST, Offload, PortId, Verdict, WINDOW};
use switch::engine::Engine;
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
}

/// What is to be known of packets that must wait.
pub(super) struct Waiting<'a> {
    pub(super) payload: Payload<'a>,
    pub(super) pair: u16,
    pub(super) since_ns: u64,
}

impl Police {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, park: Park::default(), due: Vec::new() }
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
            self.apply(burst, port, Direction::In, now_ns, waiting);
        }
    }

    /// Packets of the burst meet the policy of one port: outbound those that are pending, inbound those that are for it. What
    /// must wait is kept, and what waited may go on.
    #[inline]
    pub(super) fn apply(
        &mut self,
        burst: &mut Burst,
        port: PortId,
        direction: Direction,
        now_ns: u64,
        waiting: &Waiting<'_>,
    ) {
        let todo = self.engine.process(burst, port, direction, now_ns);
        if todo.release && !self.park.is_empty() && !self.due.contains(&port) {
            self.due.push(port);
        }
        if todo.parked > 0 {
            keep(&mut self.park, burst, port, direction, waiting);
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
        let Some(rest) = self.load(ingress, bytes, offload) else { return };
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
        let Some(rest) = self.load(PortId::NONE, bytes, Offload::NONE) else { return };
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
                counters.drop_frame(parked.cause, &parked.bytes, parked.bytes.len());
            }
        }
    }
}
