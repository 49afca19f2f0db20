// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the bridge costs per packet.
//!
//! ```text
//! cargo run --release -p shunt-switch --example bridge_cycles            nanoseconds, by flow pattern
//! valgrind --tool=callgrind --toggle-collect='*measured*' \
//!     target/release/examples/bridge_cycles run 1000                     instructions, one pattern
//! ```
//!
//! The figure is that of [`Bridge::process`] on a burst of 32 frames of 64 bytes whose windows are in
//! the L1 cache, as they are after the copy out of guest memory. Of several rounds the median counts.

use std::{env, hint::black_box, time::Instant};

use packet::{Burst, Offload, PortId, Verdict};
use switch::{Bridge, BridgeConfig};

const FRAMES: usize = 32;
const ROUNDS: usize = 101;

/// How many different source and destination addresses a burst holds.
const PATTERNS: [(&str, usize, usize); 4] =
    [("run", 1, 1), ("alternating", 2, 2), ("destinations", 1, FRAMES), ("all", FRAMES, FRAMES)];

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let only = arguments.first().map(String::as_str);
    let bursts = arguments.get(1).and_then(|n| n.parse().ok());
    for (name, sources, destinations) in PATTERNS {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let (mut bridge, mut burst) = scene(sources, destinations);
        if let Some(bursts) = bursts {
            measured(&mut bridge, &mut burst, bursts);
            println!("{name}: {bursts} bursts of {FRAMES} frames");
            continue;
        }
        let per_round = 20_000;
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                measured(&mut bridge, &mut burst, per_round);
                start.elapsed().as_secs_f64() * 1e9 / (per_round * FRAMES) as f64
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        println!("{name:>12}: {:.2} ns per packet (least {:.2})", rounds[ROUNDS / 2], rounds[0]);
    }
}

/// A bridge that knows the stations of both sides, and a burst from port 0 to port 1.
fn scene(sources: usize, destinations: usize) -> (Bridge, Box<Burst>) {
    let mut bridge = Bridge::new(BridgeConfig { seed: 0x5eed, ..BridgeConfig::default() });
    let mut burst = Burst::new();
    for (from, to) in [(1, 0), (0, 1)] {
        let (near, far) = if from == 0 { (sources, destinations) } else { (destinations, sources) };
        burst.clear();
        for i in 0..FRAMES {
            let window = burst.push(PortId(from), 64, Offload::NONE, 0).expect("room");
            window.fill(0);
            window[..6].copy_from_slice(&station(to, i % far));
            window[6..12].copy_from_slice(&station(from, i % near));
        }
        bridge.process(&mut burst, 0);
    }
    assert!(burst.verdicts().iter().all(|v| *v == Verdict::Forward(PortId(1))));
    (bridge, burst)
}

fn station(port: u16, i: usize) -> [u8; 6] {
    let [low, high] = u16::try_from(i).expect("few").to_le_bytes();
    [0x52, 0x54, 0, u8::try_from(port).expect("few"), high, low]
}

#[inline(never)]
fn measured(bridge: &mut Bridge, burst: &mut Burst, bursts: usize) {
    for _ in 0..bursts {
        burst.judge().for_each(|packet| *packet.verdict = Verdict::Pending);
        bridge.process(black_box(burst), black_box(1000));
    }
}
