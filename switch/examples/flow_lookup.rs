// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What finding a flow costs: nanoseconds per packet, in bursts and one by one, by number of flows.
//!
//! ```text
//! cargo run --release -p shunt-switch --example flow_lookup
//! ```
//!
//! Every look-up is asserted to be a hit. Keys are asked for in random order, so that nothing but the
//! table's own layout is in a cache; hashing is part of what is measured, parsing is not. The median of
//! 15 rounds that alternate between both ways.

use std::hint::black_box;
use std::time::Instant;

use packet::{Field, Ufid};
use switch::flow::{FlowKey, FlowTable, Scope, Secret};

const BURST: usize = 64;
const ROUNDS: usize = 15;
const LOOKUPS: usize = 1 << 18;
/// What a flow's own state comes to.
type State = [u64; 8];

fn main() {
    println!("{:>9} flows | in bursts | one by one", "");
    for flows in [1_000_u32, 10_000, 100_000, 1_000_000] {
        measure(flows);
    }
}

fn measure(flows: u32) {
    let mut table: FlowTable<State> = FlowTable::new(flows as usize, Secret::new(0x5eed));
    for n in 0..flows {
        let ufid = ufid(n);
        let key = table.key(Scope(1), &ufid);
        assert!(table.insert(&key, [0; 8]).is_ok(), "flow {n} finds no room");
    }
    let mut random = 1_u64;
    let asked: Vec<Ufid> = (0..LOOKUPS)
        .map(|_| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            ufid(u32::try_from((random >> 33) % u64::from(flows)).unwrap_or(0))
        })
        .collect();
    let (mut bursts, mut singles) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bursts.push(time(|| in_bursts(&mut table, &asked)));
        singles.push(time(|| one_by_one(&mut table, &asked)));
    }
    println!("{flows:>9} flows | {:>6.1} ns | {:>6.1} ns", median(bursts), median(singles));
}

fn in_bursts(table: &mut FlowTable<State>, asked: &[Ufid]) -> usize {
    let mut found = [None; BURST];
    let mut hits = 0;
    for burst in asked.chunks_exact(BURST) {
        let keys: [FlowKey<'_>; BURST] =
            std::array::from_fn(|i| table.key(Scope(1), burst.get(i).unwrap_or(&Ufid::ZERO)));
        table.find_all(keys.iter(), &mut found);
        for handle in found.iter().flatten() {
            hits += count(table.get_mut(*handle));
        }
    }
    hits
}

fn one_by_one(table: &mut FlowTable<State>, asked: &[Ufid]) -> usize {
    let mut hits = 0;
    for ufid in asked {
        let key = table.key(Scope(1), ufid);
        if let Some(handle) = black_box(table.find(&key)) {
            hits += count(table.get_mut(handle));
        }
    }
    hits
}

/// What every hit does to its flow.
fn count(state: Option<&mut State>) -> usize {
    state.map_or(0, |[packets, ..]| {
        *packets += 1;
        1
    })
}

fn time(mut look_up: impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    let hits = look_up();
    let elapsed = start.elapsed().as_secs_f64() * 1e9;
    assert_eq!(hits, LOOKUPS, "every look-up is a hit");
    elapsed / LOOKUPS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A TCP flow over IPv4.
fn ufid(n: u32) -> Ufid {
    let ports = u128::from(n % 50_000 + 1024);
    Ufid::ZERO
        .with(Field::EtherType, 0x0800)
        .with(Field::IpVersion, 4)
        .with(Field::IpProto, 6)
        .with(Field::IpSrc, (0x0a00_0000 + n / 50_000).into())
        .with(Field::IpDst, 0x0a01_0001)
        .with(Field::L4Src, ports)
        .with(Field::L4Dst, 443)
}
