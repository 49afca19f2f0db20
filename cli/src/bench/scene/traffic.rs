// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The flows of a scene, and the account of every packet.
//!
//! ```text
//!  0         14      34    42       46         50     58
//!  | Ethernet | IPv4 | UDP | flow   | sequence | time | pattern ...
//! ```
//!
//! Flow, sequence number and time (TSC) are little-endian; all else of a frame is the flow's and never changes, so that
//! every byte that arrives can be compared. UDP goes without a checksum, as it may over IPv4.

use anyhow::{Context, ensure};
use backend::sys::{Clock, cycles};
use hdrhistogram::Histogram;
use packet::checksum::checksum;

use super::super::latency::Percentiles;

/// Where the number of the flow stands; behind it four bytes of sequence number and eight of time.
pub(super) const STAMP: usize = 42;
const PATTERN: usize = STAMP + 16;

/// Shortest frame with room for all that.
pub(super) const SHORTEST: u32 = 60;

/// Of so many packets of a flow one is timed.
const TIMED: u32 = 16;

/// Longer than any packet that still counts as delivered.
const LONGEST_NS: u64 = 10_000_000_000;

/// Who sends: sources and sinks alternate over the flows.
pub(in crate::bench) const SOURCES: usize = 2;
pub(super) const SINKS: usize = 2;

/// Bytes of packets as they are mixed on the Internet, without their checksums: 64, 594 and 1518 with them, 7 to 4 to 1.
pub(super) const IMIX: [u32; 12] = [60, 590, 60, 60, 590, 60, IMIX_LONGEST, 60, 590, 60, 590, 60];
pub(in crate::bench) const IMIX_LONGEST: u32 = 1514;

/// Not those of tunnels.
const PORTS: [u16; 2] = [10_000, 10_001];

/// A five-tuple from one CNF to another.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) source: usize,
    pub(super) sink: usize,
    /// What is sent, without a stamp.
    pub(super) frame: Box<[u8]>,
    /// What is sent before, and what answers that: short, whatever the others are, so that it fits into any aggregate.
    pub(super) opening: Box<[u8]>,
    pub(super) answer: Box<[u8]>,
}

/// So many flows of frames of these sizes in bytes, from each that sends to each that receives. `wired`: source 0 reaches sink 0 only, and 1 reaches 1.
pub(super) fn flows(count: u32, sizes: &[u32], wired: bool) -> Vec<Flow> {
    (0..count)
        .map(|number| {
            let source = number as usize % SOURCES;
            let sink = if wired { source } else { (number as usize / SOURCES) % SINKS };
            let size = sizes.get(number as usize / (SOURCES * SINKS) % sizes.len().max(1)).copied().unwrap_or(SHORTEST);
            let (from, to) = (station(source), station(SOURCES + sink));
            let there = |size| frame([from, to], PORTS, number, size);
            let answer = frame([to, from], [PORTS[1], PORTS[0]], number, SHORTEST);
            Flow { source, sink, frame: there(size), opening: there(SHORTEST), answer }
        })
        .collect()
}

/// The address of a CNF, sources first.
fn station(number: usize) -> [u8; 6] {
    [0x02, 0x53, 0x48, 0x55, 0x4e, 0x10 + u8::try_from(number).unwrap_or(0)]
}

fn frame([from, to]: [[u8; 6]; 2], ports: [u16; 2], flow: u32, size: u32) -> Box<[u8]> {
    let size = size.max(SHORTEST) as usize;
    let [length, datagram] = [size - 14, size - 34].map(|len| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    let [_, _, high, low] = flow.to_be_bytes();
    let [source, destination] = [from, to].map(|[.., station]| [10, station, high, low]);
    let mut ip = [0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&destination);
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut bytes = [&to[..], &from, &[8, 0], &ip].concat();
    bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    bytes.extend([datagram[0], datagram[1], 0, 0]);
    bytes.extend(flow.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend((bytes.len()..size).map(|at| at.to_le_bytes()[0]));
    bytes.into()
}

/// Writes the stamp of a packet at `at` of some bytes, behind the number of its flow.
#[inline]
pub(super) fn stamp(bytes: &mut [u8], at: usize, sequence: u32, time: u64) {
    if let Some(room) = bytes.get_mut(at + STAMP + 4..).and_then(|room| room.first_chunk_mut::<12>()) {
        let (number, moment) = room.split_at_mut(4);
        number.copy_from_slice(&sequence.to_le_bytes());
        moment.copy_from_slice(&time.to_le_bytes());
    }
}

/// What has arrived, of every flow.
#[derive(Debug)]
pub(super) struct Account {
    /// By flow: what its frames are, the sink that they are for, and the number that is due.
    flows: Vec<(Box<[u8]>, usize, u32)>,
    pub(super) received: u64,
    /// Packets that came late or twice.
    pub(super) late: u64,
    /// Packets of a flow that did not come before a later one.
    pub(super) missing: u64,
    /// Packets that were not as they were sent, or not for whom they reached.
    pub(super) changed: u64,
    /// Packets since the restart that were longer than that: they have no room in an aggregate.
    pub(super) too_long: u64,
    longest: usize,
    times: Histogram<u64>,
    since: u64,
    clock: Clock,
}

impl Account {
    /// `longest`: bytes of the longest packet that an aggregate has room for.
    pub(super) fn new(flows: &[Flow], longest: usize) -> anyhow::Result<Self> {
        Ok(Self {
            flows: flows.iter().map(|flow| (flow.frame.clone(), flow.sink, 0)).collect(),
            received: 0,
            late: 0,
            missing: 0,
            changed: 0,
            too_long: 0,
            longest,
            times: Histogram::new_with_bounds(1, LONGEST_NS, 3)?,
            since: cycles(),
            clock: Clock::get(),
        })
    }

    /// A frame has arrived at a sink: every byte of it is compared. What is for a group nobody here has sent: a network has that of
    /// its own.
    #[inline]
    pub(super) fn enter(&mut self, sink: usize, frame: &[u8]) {
        if is_for_a_group(frame) {
            return;
        }
        self.received += 1;
        self.too_long += u64::from(frame.len() > self.longest);
        if self.compare(sink, frame).is_none() {
            self.changed += 1;
        }
    }

    #[inline]
    fn compare(&mut self, sink: usize, frame: &[u8]) -> Option<()> {
        let (head, rest) = frame.split_at_checked(STAMP)?;
        let ([f0, f1, f2, f3, s0, s1, s2, s3, time @ ..], pattern) = rest.split_first_chunk::<16>()?;
        let flow = u32::from_le_bytes([*f0, *f1, *f2, *f3]);
        let sequence = u32::from_le_bytes([*s0, *s1, *s2, *s3]);
        let (sent, reached, due) = self.flows.get_mut(flow as usize)?;
        if *reached != sink || sent.get(..STAMP)? != head || sent.get(PATTERN..)? != pattern {
            return None;
        }
        let ahead = sequence.wrapping_sub(*due);
        if ahead == 0 {
            *due = sequence.wrapping_add(1);
        } else if ahead < 1 << 31 {
            self.missing += u64::from(ahead);
            *due = sequence.wrapping_add(1);
        } else {
            self.late += 1;
        }
        if sequence.is_multiple_of(TIMED) {
            let departed = u64::from_le_bytes(*time);
            if departed >= self.since {
                self.times.saturating_record(self.clock.to_nanos(cycles().saturating_sub(departed)).max(1));
            }
        }
        Some(())
    }

    /// From now on times are taken.
    pub(super) fn restart(&mut self) {
        self.times.reset();
        self.too_long = 0;
        self.since = cycles();
    }

    pub(super) fn latency(&self) -> Percentiles {
        let at = |quantile| self.times.value_at_quantile(quantile);
        Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

    /// Fails if anything did not arrive once, in order, as it was sent.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Self { received, late, missing, changed, .. } = self;
        ensure!(
            late + missing + changed == 0,
            "of {received} packets {late} came late or twice, {changed} were changed, and {missing} did not come"
        );
        Ok(())
    }
}

/// Whether a frame goes to a group, or to all.
fn is_for_a_group(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 1 != 0)
}

/// The number of a flow from a frame that opens it; `None`: it goes to a group, as a network has frames of its own.
pub(super) fn opened(frame: &[u8], count: usize) -> Option<anyhow::Result<usize>> {
    let number = || {
        let flow = frame.get(STAMP..).and_then(|rest| rest.first_chunk()).context("a short frame")?;
        let flow = u32::from_le_bytes(*flow) as usize;
        ensure!(flow < count, "a frame that nobody sent");
        Ok(flow)
    };
    (!is_for_a_group(frame)).then(number)
}

#[cfg(test)]
mod tests {
    use packet::Quick;

    use super::*;

    #[test]
    fn flows_are_plain_packets_and_differ() {
        let flows = flows(1000, &[64], false);
        let mut words = std::collections::HashSet::new();
        for (number, flow) in flows.iter().enumerate() {
            assert_eq!((flow.source, flow.sink), (number % 2, number / 2 % 2));
            let [there, first, back] = [&flow.frame, &flow.opening, &flow.answer]
                .map(|frame| Quick::parse(frame, u32::try_from(frame.len()).unwrap()).unwrap());
            assert_eq!(there.ufid(), first.ufid());
            assert_eq!(there.ufid().reversed(), back.ufid());
            assert!(words.insert(there.words));
        }
    }

    #[test]
    fn mixed_sizes_are_mixed_between_all() {
        for pair in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let flows = flows(960, &IMIX, false);
            let between = flows.iter().filter(|flow| (flow.source, flow.sink) == pair);
            let mut sizes: Vec<usize> = between.map(|flow| flow.frame.len()).collect();
            sizes.sort_unstable();
            let count = |size| sizes.iter().filter(|found| **found == size).count();
            assert_eq!([60, 590, 1514].map(count), [140, 80, 20]);
        }
    }

    #[test]
    fn every_packet_is_accounted_for() {
        let flows = flows(4, &[64], false);
        let mut account = Account::new(&flows, usize::MAX).unwrap();
        let sent = |flow: usize, sequence| {
            let mut frame = flows[flow].frame.clone();
            stamp(&mut frame, 0, sequence, cycles());
            frame
        };
        for (flow, sequence) in [(0, 0), (1, 0), (0, 1), (3, 0)] {
            account.enter(flow / 2 % 2, &sent(flow, sequence));
        }
        account.check().unwrap();
        assert!(account.latency().p50 > 0);
        account.enter(0, &sent(0, 4));
        account.enter(0, &sent(0, 3));
        account.enter(1, &sent(0, 5));
        let mut changed = sent(1, 1);
        changed[60] ^= 1;
        account.enter(0, &changed);
        account.enter(0, &changed[..50]);
        account.enter(0, &[0xff; 64]);
        assert_eq!((account.received, account.late, account.missing, account.changed), (9, 1, 2, 3));
        account.check().unwrap_err();
    }
}
