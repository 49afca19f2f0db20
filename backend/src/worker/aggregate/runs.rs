// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of one flow that stand together in an aggregate: one look-up for all, and one copy where they may stay together.
//!
//! # Theory of operation
//!
//! The packets of a burst lie one behind the other, framed as sub-frames, in the reader's private memory. Each is compared with the one
//! before, under the mask of what a flow's identity depends on; those that are the same are a *run*, of which only the first has
//! a window. What is decided for the first holds for all if the engine says so: their flow has nothing to learn and nothing is
//! changed. Then the run goes into the next aggregate as it lies. In every other case its packets become windows of their own,
//! behind all that stood before them: they keep their order.
//!
//! To compare costs something. Where runs are short, or are always taken apart, it is left alone for some bursts.

use packet::{Burst, DropCause, Offload, PortId, Quick, Run, Verdict};
use switch::model::Direction;

use super::super::bridge::{Ingress, Path};
use super::super::payload::Payload;
use super::link;
use crate::topology::{Forwarding, Route};

/// Bytes of a sub-frame's header: the length of its packet in the first two, no more in the others.
const SUBFRAME: usize = 4;

/// Bursts without runs after one in which they were of no use.
const PAUSE: u32 = 8;

/// Places of a burst that are runs, by handle: where in the bytes.
pub(in crate::worker) type Ranges = [(u32, u32); packet::MAX_BURST];

/// Whether it is worth looking for runs.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Hope {
    pause: u32,
    /// What to do meanwhile: let the engine compare, because there are runs, but not such as can stay together.
    compare: bool,
}

impl Hope {
    /// Before a burst: whether to look.
    #[inline]
    fn is_there(&mut self) -> bool {
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0
    }

    /// After a burst with so many packets at so many places. `expanded`: some had to be looked at one by one.
    #[inline]
    fn learn(&mut self, places: usize, packets: usize, expanded: bool) {
        let has_runs = packets * 4 >= places * 5;
        if expanded || !has_runs {
            self.pause = PAUSE;
        }
        self.compare = expanded || has_runs;
    }
}

/// Fills the burst with the packets of a reader's run, whole sub-frames. Returns the bytes of the packets.
#[inline]
pub(in crate::worker) fn fill(
    burst: &mut Burst,
    ranges: &mut Ranges,
    port: PortId,
    run: &aggregation::Run<'_>,
    hope: &mut Hope,
) -> u64 {
    burst.clear();
    if !hope.is_there() {
        let frames = run.iter().map(|bytes| {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            (len, move |window: &mut [u8]| copy(window, bytes))
        });
        burst.refill(port, frames);
        burst.set_runs(hope.compare);
        return burst.bytes();
    }
    let (mut all, mut at, mut first) = (0, 0_u32, 0);
    let mut before: Option<(Quick, &[u8])> = None;
    let mut open = Run { packets: 0, bytes: 0 };
    let mut is_tcp = false;
    for packet in run.iter() {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let stored = u32::try_from(SUBFRAME + packet.len().next_multiple_of(4)).unwrap_or(u32::MAX);
        let same = before.and_then(|(quick, bytes)| quick.again(bytes, packet, len)).filter(|quick| !quick.is_tcp());
        match same {
            Some(quick) => {
                open = Run { packets: open.packets + 1, bytes: open.bytes + u64::from(len) };
                before = Some((quick, packet));
            }
            None => {
                close(burst, ranges, open, (first, at));
                (first, open) = (at, Run { packets: 1, bytes: len.into() });
                let handle = u32::try_from(burst.len()).unwrap_or(u32::MAX);
                let Some(window) = burst.push(port, len, Offload::NONE, handle) else { break };
                copy(window, packet);
                before = Quick::parse(packet, len).map(|quick| (quick, packet));
                is_tcp |= before.is_some_and(|(quick, _)| quick.is_tcp());
            }
        }
        all += u64::from(len);
        at += stored;
    }
    close(burst, ranges, open, (first, at));
    // Of TCP every segment is looked at, but it need not be looked up.
    burst.set_runs(is_tcp);
    all
}

/// The last packet of the burst stands for a run.
#[inline]
fn close(burst: &mut Burst, ranges: &mut Ranges, run: Run, range: (u32, u32)) {
    let Some(i) = burst.len().checked_sub(1) else { return };
    if let Some(slot) = ranges.get_mut(i) {
        *slot = range;
    }
    if run.packets > 1 {
        burst.set_run(i, run);
    }
}

impl Path {
    /// Whether what comes from a port may be dealt with in runs here.
    pub(in crate::worker) fn takes_runs(&self, port: PortId) -> bool {
        let here = self.routes.home(port).is_none_or(|home| home == self.index);
        here && matches!(self.routes.forwarding(port), Forwarding::Bridged | Forwarding::Overlay(_))
    }

    /// Delivers a burst that may have runs, of which all is decided that can be decided of runs. Returns whether any had to be
    /// taken apart for policy.
    pub(in crate::worker) fn deliver_runs(&mut self, ingress: &Ingress<'_>, now_ns: u64) -> bool {
        let payload @ Payload::Runs { .. } = ingress.payload else { return false };
        let of_place = |i: usize| u32::try_from(i).map_or(&[][..], |i| payload.run(i));
        let mut expanded = false;
        for i in 0..self.burst.len() {
            match self.burst.verdict(i) {
                Verdict::Forward(port) | Verdict::Deliver(port) => match self.aware(port, ingress.pair) {
                    Some(receiver) => self.put(receiver, ingress, i, of_place(i)),
                    None => self.expand(ingress, i, of_place(i), Verdict::Deliver(port), now_ns),
                },
                Verdict::Flood => self.expand(ingress, i, of_place(i), Verdict::Flood, now_ns),
                Verdict::Drop(cause) => self.lose(ingress.port, cause, i),
                Verdict::Pending => self.lose(ingress.port, DropCause::NoDestination, i),
                Verdict::Park(cause) => self.lose(ingress.port, cause, i),
                Verdict::Expand | Verdict::ExpandTo(_) => expanded = true,
                Verdict::Parked | Verdict::Taken => {}
            }
        }
        if expanded {
            for i in 0..self.burst.len() {
                if let Verdict::ExpandTo(port) = self.burst.verdict(i) {
                    self.expand(ingress, i, of_place(i), Verdict::Forward(port), now_ns);
                }
            }
            for i in 0..self.burst.len() {
                if self.burst.verdict(i) == Verdict::Expand {
                    self.expand(ingress, i, of_place(i), Verdict::Pending, now_ns);
                }
            }
        }
        expanded
    }

    /// The receive queue here of a port whose guest takes aggregates.
    #[inline]
    fn aware(&self, port: PortId, pair: u16) -> Option<usize> {
        let elsewhere = self.routes.home(port).is_some_and(|home| home != self.index);
        let Route::Local(receiver) = self.routes.to(port, pair) else { return None };
        let slot = self.rxs.get(receiver).filter(|slot| !elsewhere && slot.common.usable())?;
        slot.link.as_ref().is_some_and(|link| link.sends()).then_some(receiver)
    }

    /// Puts the packets of a place together for a guest.
    #[inline]
    fn put(&mut self, receiver: usize, ingress: &Ingress<'_>, i: usize, bytes: &[u8]) {
        let Some(slot) = self.rxs.get_mut(receiver) else { return };
        match self.burst.run(i) {
            Some(run) => link::put_run(slot, self.burst.window(i), bytes, run),
            None => {
                let burst = &self.burst;
                let payload = ingress.payload;
                if link::put_together(slot, burst, payload, 1 << i) != 0 {
                    super::super::egress::deliver_bytes(slot, burst.window(i));
                }
            }
        }
    }

    /// Deals with the packets of a place one by one, from a verdict on.
    #[cold]
    fn expand(&mut self, ingress: &Ingress<'_>, i: usize, bytes: &[u8], verdict: Verdict, now_ns: u64) {
        let direction = if verdict == Verdict::Pending { Direction::Out } else { Direction::In };
        let alone = Ingress { payload: Payload::Slices(&[]), ..*ingress };
        if self.burst.run(i).is_none() {
            self.spare.clear();
            self.spare.push_copy(&self.burst, i, verdict);
            return self.run_spare(&alone, direction, now_ns);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            self.spare.clear();
            while let Some((packet, behind)) = first_of(rest).filter(|_| !self.spare.is_full()) {
                let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
                let at = self.spare.len();
                if let Some(window) = self.spare.push(ingress.port, len, Offload::NONE, 0) {
                    copy(window, packet);
                }
                self.spare.set_verdict(at, verdict);
                rest = behind;
            }
            if self.spare.is_empty() {
                break;
            }
            self.spare.set_runs(true);
            self.run_spare(&alone, direction, now_ns);
        }
    }

    fn run_spare(&mut self, ingress: &Ingress<'_>, direction: Direction, now_ns: u64) {
        std::mem::swap(&mut self.burst, &mut self.spare);
        self.run(ingress, direction, now_ns);
        std::mem::swap(&mut self.burst, &mut self.spare);
    }

    fn lose(&self, port: PortId, cause: DropCause, i: usize) {
        if let Some(counters) = self.topology.port(port).and_then(|entry| entry.counters.get(self.index)) {
            let (head, length) = (self.burst.window(i), self.burst.frame_len(i) as usize);
            counters.drop_alike(cause, self.burst.packets(i), head, length);
        }
    }
}

/// The first packet of some sub-frames, and those behind it.
pub(in crate::worker) fn first_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([high, low, _, _], rest) = bytes.split_first_chunk::<SUBFRAME>()?;
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    Some((rest.get(..len)?, rest.get(len.next_multiple_of(4)..)?))
}

/// Fills a window. Short frames are copied without a call.
#[inline]
pub(in crate::worker) fn copy(window: &mut [u8], bytes: &[u8]) {
    if let (Ok(to), Ok(from)) = (<&mut [u8; 64]>::try_from(&mut *window), <&[u8; 64]>::try_from(bytes)) {
        *to = *from;
    } else if window.len() == bytes.len() {
        window.copy_from_slice(bytes);
    }
}

/// What was learned from a burst.
#[inline]
pub(in crate::worker) fn learn(hope: &mut Hope, places: usize, packets: usize, expanded: bool) {
    if hope.pause == 0 {
        hope.learn(places, packets, expanded);
    }
}
