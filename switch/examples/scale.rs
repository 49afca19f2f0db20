// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A port at the size that is promised (VF-33): `cargo run --release -p shunt-switch --example scale [connections] [rules]
//! [groups] [layers] [ports]`, by default 500,000 connections, 50,000 rules in a group, 300 groups in a layer, 20 layers, one
//! port. The connections are spread over several ports if there are any.
//!
//! Loads it, hits it, changes a group of its, then the large one, and lets everything expire; several ports are only loaded
//! and hit. Every phase asserts its path by the counters of the port. Times are those of the thread; the longest
//! call is the longest time that a worker would have been away from its queues.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use packet::PortId;
use support::{Large, Size, Watch, resident};
use switch::engine::EngineConfig;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number"));
    let mut argument = |default| arguments.next().unwrap_or(default);
    let (connections, rules, groups, layers) = (argument(500_000), argument(50_000), argument(300), argument(20));
    let ports = u16::try_from(argument(1)).expect("a number of ports");
    println!("{layers} layers, {groups} groups, {rules} rules, {connections} connections on {ports} ports");
    let connections = connections / u32::from(ports);
    let size = Size { layers, groups, rules, connections, chunk: 8192 };
    let flows = 2 * connections as usize;
    let small_flows = 40_000.min((1 << 20) - 1 - flows);
    let config = EngineConfig { flows, small_flows, plans_per_second: u32::MAX, seed: 9 };
    if ports == 1 {
        one_port(size, config);
    } else {
        several_ports(size, config, ports);
    }
}

fn one_port(size: Size, config: EngineConfig) {
    let n = u64::from(size.connections);
    let (mut large, compiled, taken) = Large::new(size, config, PortId(1));
    println!("policy compiled in {compiled:.1?}; set_policy of a new port {taken:.1?}");
    let before = resident();
    let [syn, answer, ack] = large.open();
    println!("first packet {:.0} ns, {syn}", syn.each(n));
    println!("first answer {:.0} ns, {answer}", answer.each(n));
    println!("handshake done {:.0} ns, {ack}", ack.each(n));
    println!(
        "memory: {} bytes a connection as reported, {} resident; {} MiB and {} MiB",
        large.seen.memory / n,
        (resident() - before) / n,
        large.seen.memory >> 20,
        (resident() - before) >> 20,
    );
    let watch = Watch::start();
    large.report();
    println!("report {:.1?}", watch.elapsed());
    let bursts = 20_000;
    let hits = large.hit(bursts);
    println!("hit, random order: {:.0} ns, {hits}", hits.each(u64::from(bursts) * 64));
    for change in [Large::change_group, Large::change_all] {
        let before = large.seen.stats;
        let (committed, taken, [out, back]) = change(&mut large);
        println!(
            "change: committed in {committed:.1?}, set_policy {taken:.1?}; {} planned again, {} found right",
            large.seen.stats.replanned - before.replanned,
            large.seen.stats.revalidated - before.revalidated,
        );
        println!("  outbound {:.0} ns a packet, {out}", out.each(n));
        println!("  inbound {:.0} ns a packet, {back}", back.each(n));
    }
    let resting = resident();
    let swept = large.expire(256);
    println!("expired: {:.0} ns a flow, {swept}", swept.each(2 * n));
    println!("resident {} MiB, before that {} MiB", resident() >> 20, resting >> 20);
    let watch = Watch::start();
    let retired = large.engine.remove_port(PortId(1));
    println!("remove_port {:.1?}", watch.elapsed());
    let begin = Instant::now();
    drop(retired);
    println!("freeing it elsewhere {:.1?}", begin.elapsed());
}

fn several_ports(size: Size, config: EngineConfig, ports: u16) {
    let (mut large, _, taken) = Large::new(size, config, PortId(0));
    println!("set_policy of a new port {taken:.1?}");
    let before = resident();
    for port in (1..ports).map(PortId) {
        large.also(port);
    }
    let mut opened = [support::Calls::default(); 3];
    for port in (0..ports).map(PortId) {
        (large.port, large.seen) = (port, large.engine.report(port).expect("policy"));
        for (all, calls) in opened.iter_mut().zip(large.open()) {
            all.merge(calls);
        }
    }
    let n = u64::from(size.connections) * u64::from(ports);
    assert_eq!(large.engine.flows() as u64, 2 * n);
    let [syn, answer, _] = opened;
    println!("first packet {:.0} ns, {syn}", syn.each(n));
    println!("first answer {:.0} ns, {answer}", answer.each(n));
    println!("resident {} bytes a connection", (resident() - before) / n);
    let mut hits = support::Calls::default();
    for _ in 0..20 {
        for port in (0..ports).map(PortId) {
            (large.port, large.seen) = (port, large.engine.report(port).expect("policy"));
            hits.merge(large.hit(100));
        }
    }
    println!("hit, random order, ports in turn: {:.0} ns, {hits}", hits.each(u64::from(hits.count) * 64));
}
