// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A port with many layers, groups, rules and connections (VF-33), small; whole: `examples/scale.rs`.

mod support;

use packet::PortId;
use support::{Large, Size};
use switch::engine::EngineConfig;

/// VF-20, VF-33: load, hit, change, expire. Each phase checks its counters.
#[test]
fn a_large_port_lives_its_life() {
    let size = Size { layers: 6, groups: 30, rules: 600, connections: 3000, chunk: 500 };
    let config = EngineConfig { flows: 6000, small_flows: 1100, plans_per_second: 1_000_000, seed: 9 };
    let (mut large, _, _) = Large::new(size, config, PortId(1));
    large.open();
    large.hit(20);
    large.change_group();
    large.change_all();
    large.hit(20);
    let offered = large.seen.stats.hits + large.seen.stats.misses;
    large.expire(256);
    assert!(large.counted().iter().all(|packets| *packets == offered), "{offered}: {:?}", large.counted());
}
