// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drops, one by one, for whoever asks: a sample, bounded in every way.
//!
//! # Theory of operation
//!
//! Counters say how many packets were dropped and why; a *trace* says which. There is room for a few of them in a hub that all workers
//! share. While none runs, a drop costs one load more than counting it, and a packet that is not dropped nothing. A worker that drops
//! a packet of a traced port takes one from the trace's budget, and copies the packet's first bytes into the trace's ring, under a
//! lock for which it does not wait. What finds no budget, no room or the lock taken is counted as missed. Who reads fills the
//! budget up as time passes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use packet::{DropCause, PortId};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::config::Name;

/// Most traces at once.
pub const MAX_TRACES: usize = 4;
/// Bytes of a dropped packet that are told.
pub const FIRST_BYTES: usize = 128;
/// Most drops that one trace tells of in a second.
pub const MAX_RATE: u32 = 10_000;
/// Drops that wait for a reader.
const RING: usize = 1024;
/// All ports.
const ANY: u32 = u32::MAX;

/// A packet that was dropped, or several that were dropped as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// The port at which it is counted.
    pub port: PortId,
    /// Why.
    pub cause: DropCause,
    /// How many packets it stands for.
    pub packets: u32,
    /// Bytes of the frame; 0: not known.
    pub length: u32,
    first: [u8; FIRST_BYTES],
    count: u8,
}

/// What a worker knows of a packet that it drops: how many of its first bytes it copied, and how long it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) copied: usize,
    pub(crate) length: u32,
}

/// The traces of a node.
#[derive(Debug, Default)]
pub(crate) struct DropHub {
    /// A bit for each trace that runs.
    running: AtomicU32,
    places: [Place; MAX_TRACES],
    names: Mutex<BTreeMap<u16, (Name, bool)>>,
}

/// Room for a trace.
#[derive(Debug)]
struct Place {
    /// The port that is traced, or [`ANY`].
    port: AtomicU32,
    /// Drops that may still be told of.
    budget: AtomicU32,
    missed: AtomicU64,
    ring: Mutex<Option<Producer<Dropped>>>,
}

/// A trace that runs until it is dropped.
#[derive(Debug)]
pub struct DropTrace {
    hub: Arc<DropHub>,
    at: usize,
    ring: Consumer<Dropped>,
    rate: u32,
    filled: Instant,
}

impl Dropped {
    /// The first bytes of the packet, as far as they are known.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.first.get(..usize::from(self.count)).unwrap_or_default()
    }
}

impl Seen {
    /// Copies the first bytes of a frame of `length` bytes.
    #[inline]
    pub(crate) fn of(head: &[u8], length: u32, room: &mut [u8]) -> Self {
        let copied = head.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..copied), head.get(..copied)) {
            to.copy_from_slice(from);
        }
        Self { copied, length }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self { port: AtomicU32::new(ANY), budget: AtomicU32::new(0), missed: AtomicU64::new(0), ring: Mutex::new(None) }
    }
}

impl DropHub {
    /// A port has this name from now on, or is gone.
    pub(crate) fn name_port(&self, port: PortId, name: &Name, is_there: bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(port.0, (name.clone(), is_there));
    }

    /// The name that a port has, or had before it went.
    pub(crate) fn name_of(&self, port: PortId) -> Option<Name> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&port.0).map(|(name, _)| name.clone())
    }

    /// The port of a name.
    pub(crate) fn port_named(&self, name: &str) -> Option<PortId> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ports = names.iter().filter(|(_, (known, is_there))| *is_there && known.as_str() == name);
        ports.next().map(|(port, _)| PortId(*port))
    }

    /// Begins a trace of one port's drops, or of all, at most `rate` in a second. `None`: there are too many already.
    pub(crate) fn trace(self: &Arc<Self>, port: Option<PortId>, rate: u32) -> Option<DropTrace> {
        let rate = rate.clamp(1, MAX_RATE);
        for (at, place) in self.places.iter().enumerate() {
            let mut slot = place.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.is_some() {
                continue;
            }
            let (producer, ring) = RingBuffer::new(RING);
            place.port.store(port.map_or(ANY, |port| port.0.into()), Ordering::Relaxed);
            place.budget.store(rate, Ordering::Relaxed);
            place.missed.store(0, Ordering::Relaxed);
            *slot = Some(producer);
            self.running.fetch_or(1 << at, Ordering::Release);
            return Some(DropTrace { hub: Arc::clone(self), at, ring, rate, filled: Instant::now() });
        }
        None
    }

    /// Whether any trace runs.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.running.load(Ordering::Relaxed) != 0
    }

    /// Tells of `frames` frames that were dropped at a port, each of which stands for `packets` packets. `seen` copies the first
    /// bytes of one.
    #[cold]
    pub(crate) fn tell(
        &self,
        port: PortId,
        cause: DropCause,
        (frames, packets): (u64, u32),
        seen: &mut dyn FnMut(usize, &mut [u8]) -> Seen,
    ) {
        let running = self.running.load(Ordering::Acquire);
        for (at, place) in self.places.iter().enumerate().filter(|(at, _)| running >> at & 1 != 0) {
            let traced = place.port.load(Ordering::Relaxed);
            if traced != ANY && traced != u32::from(port.0) {
                continue;
            }
            debug_assert!(at < MAX_TRACES);
            let told = place.tell(port, cause, (frames, packets), seen);
            place.missed.fetch_add((frames - told) * u64::from(packets), Ordering::Relaxed);
        }
    }
}

impl Place {
    /// Returns of how many frames was told.
    fn tell(
        &self,
        port: PortId,
        cause: DropCause,
        (frames, packets): (u64, u32),
        seen: &mut dyn FnMut(usize, &mut [u8]) -> Seen,
    ) -> u64 {
        let Ok(mut ring) = self.ring.try_lock() else { return 0 };
        let Some(ring) = ring.as_mut() else { return frames };
        let room = u32::try_from(ring.slots()).unwrap_or(u32::MAX);
        let want = u32::try_from(frames).unwrap_or(u32::MAX).min(room);
        // The lock is held, and who fills the budget up only adds.
        let most = self.budget.load(Ordering::Relaxed).min(want);
        self.budget.fetch_sub(most, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        for i in 0..most {
            let mut first = [0; FIRST_BYTES];
            let Seen { copied, length } = seen(i as usize, &mut first);
            let count = u8::try_from(copied.min(FIRST_BYTES)).unwrap_or(0);
            // There is room, as just seen.
            let _ = ring.push(Dropped { at_ns, port, cause, packets, length, first, count });
        }
        most.into()
    }
}

impl DropTrace {
    /// The next drop, if there is one.
    pub fn take(&mut self) -> Option<Dropped> {
        self.ring.pop().ok()
    }

    /// How many packets were dropped since this was last asked and are not told of.
    pub fn missed(&mut self) -> u64 {
        self.place().map_or(0, |place| place.missed.swap(0, Ordering::Relaxed))
    }

    /// The name that a port has, or had before it went.
    #[must_use]
    pub fn name_of(&self, port: PortId) -> Option<Name> {
        self.hub.name_of(port)
    }

    /// Lets the time until `now` count: what may be told in it, may.
    pub fn fill_up(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let earned = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        let Ok(earned @ 1..) = u32::try_from(earned) else { return };
        // What is not a whole drop yet is earned the next time.
        self.filled = now;
        let Some(place) = self.place() else { return };
        let has = place.budget.load(Ordering::Relaxed);
        place.budget.fetch_add(earned.min(self.rate.saturating_sub(has)), Ordering::Relaxed);
    }

    fn place(&self) -> Option<&Place> {
        self.hub.places.get(self.at)
    }
}

impl Drop for DropTrace {
    fn drop(&mut self) {
        self.hub.running.fetch_and(!(1 << self.at), Ordering::Release);
        if let Some(place) = self.place() {
            *place.ring.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(3);
    const B: PortId = PortId(4);

    fn tell(hub: &DropHub, port: PortId, frames: u64) {
        if hub.is_on() {
            hub.tell(port, DropCause::Runt, (frames, 1), &mut |i, room| Seen::of(&[7, i.to_le_bytes()[0]], 13, room));
        }
    }

    #[test]
    fn a_trace_tells_of_its_port_and_what_it_missed() {
        let hub = Arc::new(DropHub::default());
        tell(&hub, A, 1);
        let (mut of_a, mut of_all) = (hub.trace(Some(A), 3).unwrap(), hub.trace(None, 1000).unwrap());
        tell(&hub, A, 2);
        tell(&hub, B, 1);
        tell(&hub, A, 2);
        let told = |trace: &mut DropTrace| {
            let drops: Vec<Dropped> = std::iter::from_fn(|| trace.take()).collect();
            assert!(drops.iter().all(|drop| (drop.cause, drop.length, drop.packets) == (DropCause::Runt, 13, 1)));
            drops.iter().map(|drop| (drop.port, drop.bytes().to_vec())).collect::<Vec<_>>()
        };
        let a = |i| (A, vec![7, i]);
        assert_eq!(told(&mut of_a), [a(0), a(1), a(0)]);
        assert_eq!((of_a.missed(), of_a.missed()), (1, 0));
        assert_eq!(told(&mut of_all), [a(0), a(1), (B, vec![7, 0]), a(0), a(1)]);
        assert_eq!(of_all.missed(), 0);
    }

    #[test]
    fn the_budget_grows_with_time_up_to_a_second() {
        let hub = Arc::new(DropHub::default());
        let mut trace = hub.trace(None, 10).unwrap();
        let begin = trace.filled;
        let tell_many = |trace: &mut DropTrace| {
            tell(&hub, A, 100);
            std::iter::from_fn(|| trace.take()).count()
        };
        assert_eq!(tell_many(&mut trace), 10);
        trace.fill_up(begin + Duration::from_millis(99));
        assert_eq!(tell_many(&mut trace), 0, "a tenth of a second is not over");
        trace.fill_up(begin + Duration::from_millis(150));
        assert_eq!(tell_many(&mut trace), 1);
        trace.fill_up(begin + Duration::from_secs(60));
        assert_eq!(tell_many(&mut trace), 10);
        assert_eq!(trace.missed(), 400 - 21);
    }

    #[test]
    fn a_reader_that_does_not_read_misses() {
        let hub = Arc::new(DropHub::default());
        let mut trace = hub.trace(None, MAX_RATE).unwrap();
        tell(&hub, A, 2 * RING as u64);
        assert_eq!(trace.missed(), RING as u64);
        assert_eq!(std::iter::from_fn(|| trace.take()).count(), RING);
    }

    #[test]
    fn places_of_traces_that_ended_are_free_again() {
        let hub = Arc::new(DropHub::default());
        let all: Vec<_> = (0..MAX_TRACES).map(|_| hub.trace(None, 1).unwrap()).collect();
        assert!(hub.trace(None, 1).is_none());
        drop(all);
        assert!(!hub.is_on());
        assert!(hub.trace(None, 1).is_some());
        assert!(!hub.is_on());
    }

    #[test]
    fn names_stay_known_and_are_found_while_the_port_is_there() {
        let hub = DropHub::default();
        let name = Name::new("vm0").unwrap();
        hub.name_port(A, &name, true);
        assert_eq!((hub.name_of(A), hub.port_named("vm0")), (Some(name.clone()), Some(A)));
        hub.name_port(A, &name, false);
        assert_eq!((hub.name_of(A), hub.port_named("vm0")), (Some(name), None));
    }
}
