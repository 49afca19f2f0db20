// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bridge against a naive one: a map, no buckets, nothing remembered between frames. After every
//! step the whole state must be equal: verdicts, stations, counters, announcements.

use std::collections::{BTreeMap, VecDeque};

use packet::{Burst, DropCause, MacAddr, Offload, PortId, Verdict};
use proptest::{collection::vec, prelude::*};
use switch::{Announcement, Bridge, BridgeConfig, BridgeStats, Entry};

const MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Operation {
    AddPort(PortId),
    Advance(u64),
    Burst(Vec<Frame>),
    Fix(PortId, MacAddr),
    LearnRemote(MacAddr, PortId, u64),
    RemovePort(PortId),
    Sweep(usize),
    TakeAnnouncements(usize),
}

#[derive(Clone, Debug)]
struct Frame {
    ingress: PortId,
    destination: MacAddr,
    source: MacAddr,
    len: u32,
    verdict: Verdict,
}

/// The naive bridge. All its rules are written out once more, in their plainest form.
struct Oracle {
    config: BridgeConfig,
    now: u64,
    stations: BTreeMap<MacAddr, (PortId, u64)>,
    retired: Vec<PortId>,
    fixed: Vec<PortId>,
    outbox: VecDeque<Announcement>,
    stats: BridgeStats,
}

impl Oracle {
    fn frame(&mut self, frame: &Frame) -> Verdict {
        if frame.verdict != Verdict::Pending {
            return frame.verdict;
        }
        if frame.len < 14 {
            return Verdict::Drop(DropCause::Runt);
        }
        if !self.fixed.contains(&frame.ingress) {
            self.learn(frame.source, frame.ingress);
        }
        if frame.destination.is_reserved() {
            Verdict::Drop(DropCause::ReservedAddress)
        } else if frame.destination.is_multicast() {
            self.stats.flooded_group += 1;
            Verdict::Flood
        } else {
            match self.stations.get(&frame.destination) {
                None => {
                    self.stats.flooded_unknown += 1;
                    Verdict::Flood
                }
                Some((port, _)) if *port == frame.ingress => Verdict::Drop(DropCause::Reflection),
                Some((port, _)) => Verdict::Forward(*port),
            }
        }
    }

    fn learn(&mut self, mac: MacAddr, port: PortId) {
        let now = self.now;
        if !mac.is_unicast() {
            self.stats.unlearnable += 1;
            return;
        }
        match self.stations.get(&mac).copied() {
            Some((_, Entry::FIXED)) => self.stats.claimed += 1,
            Some((at, seen)) if at == port => {
                if now.saturating_sub(seen) < MS {
                    return;
                }
                let quarter = self.config.ageing_ns / 4;
                if now / quarter != seen / quarter && !self.announce(mac, port, now) {
                    self.stats.outbox_full += 1;
                    return;
                }
                self.stats.refreshed += 1;
                self.stations.insert(mac, (port, now));
            }
            _ if self.retired.contains(&port) => self.stats.retired_port += 1,
            _ if self.outbox_is_full() => self.stats.outbox_full += 1,
            Some(_) => {
                self.stats.moved += 1;
                self.announce(mac, port, now);
                self.stations.insert(mac, (port, now));
            }
            None => {
                if self.add(mac, port, now) {
                    self.stats.learned += 1;
                    self.announce(mac, port, now);
                }
            }
        }
    }

    fn add(&mut self, mac: MacAddr, port: PortId, now: u64) -> bool {
        let at_port = self.stations.values().filter(|(at, _)| *at == port).count();
        if at_port >= self.config.port_limit as usize {
            self.stats.port_full += 1;
            return false;
        }
        if self.stations.len() >= self.config.capacity as usize {
            let oldest = self.stations.iter().map(|(mac, (_, seen))| (*seen, *mac)).min();
            match oldest {
                Some((seen, old)) if seen.saturating_add(self.config.ageing_ns / 2) <= now => {
                    self.stats.replaced += 1;
                    self.stations.remove(&old);
                }
                _ => {
                    self.stats.table_full += 1;
                    return false;
                }
            }
        }
        self.stations.insert(mac, (port, now));
        true
    }

    fn learn_remote(&mut self, mac: MacAddr, port: PortId, seen: u64) {
        let fixed = matches!(self.stations.get(&mac), Some((_, Entry::FIXED)));
        if !mac.is_unicast() || self.retired.contains(&port) || self.fixed.contains(&port) || fixed {
            self.stats.remote_refused += 1;
            return;
        }
        let applied = match self.stations.get(&mac).copied() {
            None => self.add(mac, port, seen),
            Some((at, ours)) if at == port => {
                self.stations.insert(mac, (port, ours.max(seen)));
                true
            }
            Some((at, ours)) if ours > seen || (ours == seen && at < port) => {
                if !self.announce(mac, at, ours) {
                    let quarter = self.config.ageing_ns / 4;
                    let overdue = (ours / quarter * quarter).saturating_sub(1);
                    self.stations.insert(mac, (at, overdue));
                }
                false
            }
            Some(_) => {
                self.stations.insert(mac, (port, seen));
                true
            }
        };
        if applied {
            self.stats.remote_applied += 1;
        } else {
            self.stats.remote_refused += 1;
        }
    }

    fn outbox_is_full(&self) -> bool {
        self.config.outbox > 0 && self.outbox.len() == self.config.outbox
    }

    fn fix(&mut self, port: PortId, mac: MacAddr) -> bool {
        self.stats.flushed += self.forget(|at, _| at == port) as u64;
        self.retired.retain(|retired| *retired != port);
        self.fixed.push(port);
        let taken = matches!(self.stations.get(&mac), Some((_, Entry::FIXED)));
        if taken || !mac.is_unicast() {
            return false;
        }
        if self.stations.len() == 8 && !self.stations.contains_key(&mac) {
            let oldest = self.stations.iter().map(|(mac, (_, seen))| (*seen, *mac)).min();
            match oldest {
                Some((seen, old)) if seen != Entry::FIXED => {
                    self.stats.replaced += 1;
                    self.stations.remove(&old);
                }
                _ => return false,
            }
        }
        self.stations.insert(mac, (port, Entry::FIXED));
        true
    }

    fn announce(&mut self, mac: MacAddr, port: PortId, seen_ns: u64) -> bool {
        if self.outbox_is_full() {
            return false;
        }
        if self.config.outbox > 0 {
            self.outbox.push_back(Announcement { mac, port, seen_ns });
        }
        true
    }

    fn forget(&mut self, which: impl Fn(PortId, u64) -> bool) -> usize {
        let before = self.stations.len();
        self.stations.retain(|_, (port, seen)| !which(*port, *seen));
        before - self.stations.len()
    }
}

/// At most eight stations fit, so the table has one bucket and its replacement is that of the map.
fn config() -> impl Strategy<Value = BridgeConfig> {
    (1u32..=8, 1u32..=8, 1u64..=40, 0usize..6, any::<u64>()).prop_map(|(capacity, port_limit, ageing, outbox, seed)| {
        BridgeConfig { capacity, port_limit, ageing_ns: ageing * MS, outbox, seed }
    })
}

fn mac() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        20 => (0u8..12).prop_map(|i| MacAddr([2, 0, 0, 0, 0, i])),
        1 => Just(MacAddr::BROADCAST),
        1 => Just(MacAddr([0x33, 0x33, 0, 0, 0, 1])),
        1 => Just(MacAddr([1, 0x80, 0xc2, 0, 0, 0xe])),
        1 => Just(MacAddr::ZERO),
    ]
}

fn port() -> impl Strategy<Value = PortId> {
    prop_oneof![5 => 0u16..5, 1 => 65_530u16..65_535].prop_map(PortId)
}

fn frame() -> impl Strategy<Value = Frame> {
    let verdict = prop_oneof![
        20 => Just(Verdict::Pending),
        1 => Just(Verdict::Flood),
        1 => Just(Verdict::Drop(DropCause::BadOffload)),
    ];
    let len = prop_oneof![20 => 14u32..100, 1 => 0u32..14];
    (port(), mac(), mac(), len, verdict).prop_map(|(ingress, destination, source, len, verdict)| Frame {
        ingress,
        destination,
        source,
        len,
        verdict,
    })
}

/// Frames come in runs, as they do in reality, so that what is remembered is used.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    vec((frame(), 1usize..5), 1..12).prop_map(|runs| runs.into_iter().flat_map(|(frame, n)| vec![frame; n]).collect())
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => frames().prop_map(Operation::Burst),
        6 => (0u64..8 * MS).prop_map(Operation::Advance),
        4 => (mac(), port(), 0u64..20 * MS).prop_map(|(m, p, back)| Operation::LearnRemote(m, p, back)),
        3 => (0usize..3).prop_map(Operation::Sweep),
        4 => (0usize..8).prop_map(Operation::TakeAnnouncements),
        1 => port().prop_map(Operation::RemovePort),
        1 => port().prop_map(Operation::AddPort),
        1 => (port(), mac()).prop_map(|(port, mac)| Operation::Fix(port, mac)),
    ]
}

fn apply(bridge: &mut Bridge, oracle: &mut Oracle, burst: &mut Burst, operation: Operation) {
    match operation {
        Operation::Burst(frames) => {
            burst.clear();
            for (i, frame) in frames.iter().enumerate() {
                let window = burst.push(frame.ingress, frame.len, Offload::NONE, 0).unwrap();
                let mut bytes = [frame.destination.0, frame.source.0].concat();
                bytes.resize(100, 0xaa);
                window.copy_from_slice(&bytes[..window.len()]);
                burst.set_verdict(i, frame.verdict);
            }
            bridge.process(burst, oracle.now);
            let expected: Vec<_> = frames.iter().map(|frame| oracle.frame(frame)).collect();
            assert_eq!(burst.verdicts(), expected);
        }
        Operation::Advance(by) => oracle.now += by,
        Operation::LearnRemote(mac, port, back) => {
            let seen_ns = oracle.now.saturating_sub(back);
            bridge.learn_remote(Announcement { mac, port, seen_ns });
            oracle.learn_remote(mac, port, seen_ns);
        }
        Operation::Sweep(budget) => {
            let (now, ageing) = (oracle.now, oracle.config.ageing_ns);
            let aged = oracle.forget(|_, seen| budget > 0 && seen.saturating_add(ageing) <= now);
            oracle.stats.aged += aged as u64;
            assert_eq!(bridge.sweep(now, budget), aged);
        }
        Operation::TakeAnnouncements(max) => {
            let max = max.min(oracle.outbox.len());
            let expected: Vec<_> = oracle.outbox.drain(..max).collect();
            assert_eq!(bridge.take_announcements(max).collect::<Vec<_>>(), expected);
        }
        Operation::RemovePort(port) => {
            let flushed = oracle.forget(|at, _| at == port);
            oracle.stats.flushed += flushed as u64;
            oracle.retired.push(port);
            oracle.fixed.retain(|fixed| *fixed != port);
            assert_eq!(bridge.remove_port(port), flushed);
        }
        Operation::Fix(port, mac) => assert_eq!(bridge.fix(port, mac), oracle.fix(port, mac)),
        Operation::AddPort(port) => {
            oracle.retired.retain(|retired| *retired != port);
            bridge.add_port(port);
        }
    }
}

fn check(bridge: &Bridge, oracle: &Oracle) {
    let entries: BTreeMap<_, _> = bridge.entries().map(|Entry { mac, port, seen_ns }| (mac, (port, seen_ns))).collect();
    assert_eq!(entries, oracle.stations);
    assert_eq!(bridge.len(), oracle.stations.len());
    assert_eq!(bridge.is_empty(), oracle.stations.is_empty());
    assert_eq!(*bridge.stats(), oracle.stats);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_bridge_is_the_naive_bridge(
        config in config(),
        start in prop_oneof![Just(0), any::<u32>().prop_map(|ms| u64::from(ms) * MS)],
        operations in vec(operation(), 1..60),
    ) {
        let mut bridge = Bridge::new(config);
        let mut burst = Burst::new();
        let mut oracle = Oracle {
            config,
            now: start,
            stations: BTreeMap::new(),
            retired: Vec::new(),
            fixed: Vec::new(),
            outbox: VecDeque::new(),
            stats: BridgeStats::default(),
        };
        for operation in operations {
            apply(&mut bridge, &mut oracle, &mut burst, operation);
            check(&bridge, &oracle);
        }
    }
}
