// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several replicas that tell each other what they learn, and a crowd that does not fit.

use std::collections::{BTreeMap, HashMap, VecDeque};

use packet::{Burst, MacAddr, Offload, PortId, Verdict};
use proptest::{collection::vec, prelude::*};
use switch::{Announcement, Bridge, BridgeConfig};

const REPLICAS: usize = 3;
const MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Operation {
    Advance(u64),
    /// Carries up to that many announcements on the way from one replica to another.
    Deliver(usize, usize, usize),
    /// A station is seen by a replica at a port.
    Seen(usize, u8, u16),
}

fn operation() -> impl Strategy<Value = Operation> {
    let replica = 0..REPLICAS;
    prop_oneof![
        5 => (replica.clone(), 0u8..4, 0u16..3).prop_map(|(r, mac, port)| Operation::Seen(r, mac, port)),
        2 => (0u64..3 * MS).prop_map(Operation::Advance),
        5 => (replica.clone(), replica, 1usize..4).prop_map(|(a, b, n)| Operation::Deliver(a, b, n)),
    ]
}

fn station(i: u32) -> MacAddr {
    let [a, b, c, d] = i.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn see(bridge: &mut Bridge, burst: &mut Burst, mac: MacAddr, port: PortId, now: u64) -> Verdict {
    burst.clear();
    let window = burst.push(port, 60, Offload::NONE, 0).unwrap();
    window.fill(0xff);
    window[6..12].copy_from_slice(&mac.0);
    bridge.process(burst, now);
    burst.verdict(0)
}

/// The ways between replicas, `ways[from][to]`, in order and as long as they need to be.
type Ways = [[VecDeque<Announcement>; REPLICAS]; REPLICAS];

fn collect(bridges: &mut [Bridge], ways: &mut Ways) {
    for (bridge, ways) in bridges.iter_mut().zip(ways) {
        for news in bridge.take_announcements(usize::MAX) {
            for way in &mut *ways {
                way.push_back(news);
            }
        }
    }
}

fn deliver(bridges: &mut [Bridge], ways: &mut Ways, from: usize, to: usize, n: usize) {
    for _ in 0..n {
        if let Some(news) = ways[from][to].pop_front()
            && from != to
        {
            bridges[to].learn_remote(news);
        }
    }
}

fn ports(bridge: &Bridge) -> BTreeMap<MacAddr, PortId> {
    bridge.entries().map(|entry| (entry.mac, entry.port)).collect()
}

proptest! {
    /// However stations move and announcements are delayed: once all are delivered, all replicas
    /// agree, and on a port where each station was last seen, give or take a millisecond.
    #[test]
    fn replicas_agree_when_all_is_said(operations in vec(operation(), 1..120)) {
        let config = BridgeConfig { ageing_ns: 40 * MS, outbox: 1000, ..BridgeConfig::default() };
        let mut bridges: Vec<_> = (0..REPLICAS)
            .map(|i| Bridge::new(BridgeConfig { seed: i as u64, ..config }))
            .collect();
        let mut ways = Ways::default();
        let mut burst = Burst::new();
        let mut now = 0;
        let mut seen: HashMap<MacAddr, Vec<(u64, PortId)>> = HashMap::new();
        for operation in operations {
            match operation {
                Operation::Advance(by) => now += by,
                Operation::Deliver(from, to, n) => deliver(&mut bridges, &mut ways, from, to, n),
                Operation::Seen(replica, mac, port) => {
                    let (mac, port) = (station(mac.into()), PortId(port));
                    see(&mut bridges[replica], &mut burst, mac, port, now);
                    seen.entry(mac).or_default().push((now, port));
                }
            }
            collect(&mut bridges, &mut ways);
        }
        let mut rounds = 0;
        while ways.iter().flatten().any(|way| !way.is_empty()) {
            for from in 0..REPLICAS {
                for to in 0..REPLICAS {
                    deliver(&mut bridges, &mut ways, from, to, usize::from(u8::MAX));
                }
            }
            collect(&mut bridges, &mut ways);
            rounds += 1;
            prop_assert!(rounds < 10, "they argue for ever");
        }
        let agreed = ports(&bridges[0]);
        prop_assert_eq!(agreed.len(), seen.len());
        for bridge in &bridges[1..] {
            prop_assert_eq!(&ports(bridge), &agreed);
        }
        for (mac, sightings) in seen {
            let last = sightings.iter().map(|(at, _)| *at).max().unwrap();
            prop_assert!(
                sightings.iter().any(|(at, port)| *port == agreed[&mac] && at + MS >= last)
            );
        }
    }

    /// Far more stations than fit: the bounds hold, and what is known is right.
    #[test]
    fn a_crowd_is_bounded_and_never_misdirected(
        capacity in 1u32..300,
        port_limit in 1u32..300,
        seed: u64,
        frames in vec((0u32..600, 0u16..4, 0u64..MS), 1..2000),
    ) {
        let config = BridgeConfig { capacity, port_limit, ageing_ns: 100 * MS, outbox: 0, seed };
        let mut bridge = Bridge::new(config);
        let mut burst = Burst::new();
        let mut home = HashMap::new();
        let mut now = 0;
        for (i, port, later) in frames {
            now += later;
            // A station stays where it was first seen: no moves, which may exceed a port's share.
            let (mac, port) = (station(i), *home.entry(station(i)).or_insert(PortId(port)));
            see(&mut bridge, &mut burst, mac, port, now);
            bridge.sweep(now, 1);
            prop_assert!(bridge.len() <= capacity as usize);
        }
        let mut at_port = HashMap::new();
        for entry in bridge.entries() {
            prop_assert_eq!(home[&entry.mac], entry.port);
            *at_port.entry(entry.port).or_insert(0) += 1;
        }
        prop_assert!(at_port.values().all(|n| *n <= port_limit));
        prop_assert_eq!(at_port.values().sum::<u32>() as usize, bridge.len());
        let stats = *bridge.stats();
        prop_assert_eq!(stats.learned - stats.aged - stats.replaced, bridge.len() as u64);

        let known: HashMap<_, _> = bridge.entries().map(|e| (e.mac, e.port)).collect();
        let stranger = station(u32::MAX);
        for mac in home.keys() {
            burst.clear();
            let window = burst.push(PortId(9), 60, Offload::NONE, 0).unwrap();
            window.fill(0);
            window[..6].copy_from_slice(&mac.0);
            window[6..12].copy_from_slice(&stranger.0);
            // Nothing is learnt at a removed port, so the question changes nothing.
            bridge.remove_port(PortId(9));
            bridge.process(&mut burst, now);
            let expected = known.get(mac).map_or(Verdict::Flood, |port| Verdict::Forward(*port));
            prop_assert_eq!(burst.verdict(0), expected);
        }
        for port in 0..4 {
            bridge.remove_port(PortId(port));
        }
        prop_assert!(bridge.is_empty());
    }
}
