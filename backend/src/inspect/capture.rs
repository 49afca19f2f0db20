// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A capture as the control plane has it: what comes from all workers, in the order of time, as pcapng.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use packet::PortId;
use packet::filter::Filter;

use super::pcapng::{self, PacketHead, Statistics};
use super::record::{HEADER, Head, Reader, ring};
use super::tap::{CaptureId, Sink, TapCounters};
use crate::config::Name;
use crate::sys::{Clock, cycles};

/// Most captures at once.
pub const MAX_CAPTURES: usize = 4;
/// Most bytes of a packet that can be kept.
pub const MAX_SNAPLEN: u32 = 262_144;
/// Bytes of a packet that are kept if nothing else is said: all headers that policy can match.
pub const DEFAULT_SNAPLEN: u32 = 256;
/// Bytes that wait for who reads a capture, of all workers together, and of one worker at least.
const ROOM: usize = 8 << 20;
const LEAST_ROOM: usize = 1 << 20;
/// How long a packet may wait for an older one of another worker.
const PATIENCE: Duration = Duration::from_millis(10);

/// What is to be captured of a port.
#[derive(Clone, Debug)]
pub struct CaptureRequest {
    /// The one queue pair; `None`: all.
    pub pair: Option<u16>,
    /// Whether what the node receives there.
    pub inward: bool,
    /// Whether what it delivers there.
    pub outward: bool,
    /// Which packets; `None`: all.
    pub filter: Option<Filter>,
    /// Bytes of a packet that are kept.
    pub snaplen: u32,
}

/// The ends of a capture's rings, and what is counted of them.
#[derive(Debug)]
pub(crate) struct Ends(Vec<End>);

/// What comes from one worker.
#[derive(Debug)]
struct End {
    reader: Reader,
    counters: Arc<[TapCounters]>,
}

/// A capture that runs until it is dropped.
pub struct Capture {
    port: Name,
    filter: String,
    snaplen: u32,
    ends: Vec<End>,
    /// Queue pairs that were seen, in the order of the interfaces' numbers, and what was last said of each.
    pairs: Vec<(u16, Statistics)>,
    clock: Clock,
    /// Nanoseconds from 1970 to the beginning of the clock.
    origin_ns: u64,
    /// Taps end with it.
    _guard: Box<dyn Send>,
}

/// What came of taking packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many were taken.
    pub packets: u64,
    /// Whether none will come any more: the port is gone.
    pub ended: bool,
}

/// What a worker's share of a capture is made of: a sink for it, and the end for who reads.
pub(crate) fn share(
    id: CaptureId,
    port: PortId,
    pairs: u16,
    request: &CaptureRequest,
    workers: usize,
    ends: &mut Ends,
) -> Sink {
    let (records, reader) = ring((ROOM / workers.max(1)).max(LEAST_ROOM));
    let counters: Arc<[TapCounters]> = (0..pairs).map(|_| TapCounters::default()).collect();
    ends.0.push(End { reader, counters: Arc::clone(&counters) });
    let CaptureRequest { pair, inward, outward, filter, snaplen } = request.clone();
    let missed = vec![0; usize::from(pairs)];
    let (snaplen, clock) = (snaplen.min(MAX_SNAPLEN), Clock::get());
    Sink { id, port, pair, inward, outward, filter, snaplen, records, counters, missed, clock }
}

impl Ends {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }
}

impl Capture {
    pub(crate) fn new(port: Name, filter: String, snaplen: u32, ends: Ends, guard: Box<dyn Send>) -> Self {
        let clock = Clock::get();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let origin_ns = now_ns.saturating_sub(clock.nanos_at(cycles()));
        Self { port, filter, snaplen, ends: ends.0, pairs: Vec::new(), clock, origin_ns, _guard: guard }
    }

    /// Writes the head of a file.
    pub fn begin(&self, out: &mut Vec<u8>) {
        pcapng::section(out);
    }

    /// Now, as packets are stamped.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.clock.nanos_at(cycles())
    }

    /// Writes what was captured up to a time, at most `most` packets and not many more than `bytes` bytes. `last`: what is there will not be waited
    /// for.
    pub fn take(&mut self, out: &mut Vec<u8>, (most, bytes): (u64, usize), until_ns: Option<u64>, last: bool) -> Taken {
        let patience = u64::try_from(PATIENCE.as_nanos()).unwrap_or(0);
        let patient_ns = self.now_ns().saturating_sub(patience);
        let mut taken = Taken::default();
        let full = out.len() + bytes;
        while taken.packets < most && out.len() < full {
            let ended = self.ends.iter().all(|end| end.reader.is_abandoned());
            let (mut oldest, mut all_have) = (None, true);
            for (at, end) in self.ends.iter_mut().enumerate() {
                match end.reader.peek() {
                    Some(head) if oldest.is_none_or(|(_, at_ns)| head.at_ns < at_ns) => oldest = Some((at, head.at_ns)),
                    Some(_) => {}
                    None => all_have = false,
                }
            }
            let Some((at, at_ns)) = oldest else {
                taken.ended = ended;
                break;
            };
            if !(all_have || last || ended || at_ns <= patient_ns) || until_ns.is_some_and(|until| at_ns > until) {
                break;
            }
            self.write_next(at, out);
            taken.packets += 1;
        }
        taken
    }

    /// Writes what was counted, of those interfaces of which there is something new; `all`: of all.
    pub fn tell(&mut self, out: &mut Vec<u8>, all: bool) {
        let at_ns = self.origin_ns.saturating_add(self.now_ns());
        for interface in 0..self.pairs.len() {
            let Some((pair, told)) = self.pairs.get_mut(interface) else { break };
            let counts = counted(&self.ends, *pair);
            if all || told.dropped != counts.dropped {
                *told = counts;
                pcapng::statistics(out, u32::try_from(interface).unwrap_or(u32::MAX), at_ns, counts);
            }
        }
    }

    fn write_next(&mut self, at: usize, out: &mut Vec<u8>) {
        let Some(end) = self.ends.get_mut(at) else { return };
        let Some(Head { pair, .. }) = end.reader.peek() else { return };
        let known = self.pairs.iter().position(|(known, _)| *known == pair);
        let interface = known.unwrap_or_else(|| {
            pcapng::interface(out, &pcapng::name_of(self.port.as_str(), pair), &self.filter, self.snaplen);
            self.pairs.push((pair, Statistics::default()));
            self.pairs.len() - 1
        });
        let origin_ns = self.origin_ns;
        end.reader.take(|head, pieces| {
            let head = PacketHead {
                interface: u32::try_from(interface).unwrap_or(u32::MAX),
                at_ns: origin_ns.saturating_add(head.at_ns),
                length: head.length,
                inward: head.inward,
                lost: head.lost,
            };
            pcapng::packet(out, head, pieces);
        });
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("port", &self.port).finish_non_exhaustive()
    }
}

fn counted(ends: &[End], pair: u16) -> Statistics {
    let counters = ends.iter().filter_map(|end| end.counters.get(usize::from(pair)));
    counters.fold(Statistics::default(), |sum, counters| Statistics {
        received: sum.received + counters.seen.get(),
        accepted: sum.accepted + counters.accepted.get(),
        dropped: sum.dropped + counters.lost.get(),
    })
}

/// The largest record fits.
const _: () = assert!(LEAST_ROOM >= HEADER + MAX_SNAPLEN as usize);

#[cfg(test)]
mod tests;
