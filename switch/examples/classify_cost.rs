// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What finding a rule costs: every classifier alone and the assigned compound, against a linear scan.
//!
//! ```text
//! cargo run --release -p shunt-switch --example classify_cost [rules, 50000 if not said]
//! ```
//!
//! Keys meet every rule equally often. The rounds of all candidates are interleaved; medians are shown,
//! and the least, for machines that others use as well. "Built" of the compound includes expanding the rules;
//! "kB" is what the compiled group takes of memory.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use packet::Field;
use switch::classify::{Compiled, Cost, Entries, Kind, Lookup, Rule, Selection};
use switch::condition::{Condition, Conditions, IpVersion, Key, Subject, Value};

#[path = "../src/classify/sets.rs"]
mod sets;

use sets::{Random, RuleSet};

const ROUNDS: usize = 15;
/// Of the compound; the quickest is shown.
const BUILDS: usize = 3;
const KEYS: usize = 4096;
/// A scan of a long list takes so long that a few keys do.
const LINEAR_KEYS: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).map_or(Ok(50_000), |count| count.parse())?;
    for set in RuleSet::all(count, 1) {
        report(&set)?;
    }
    Ok(())
}

struct Candidate {
    name: String,
    group: Compiled,
    build_ms: f64,
    ns: Vec<f64>,
}

fn report(set: &RuleSet) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let entries = Entries::new(set.iter(), set.selection)?;
    let expansion_ms = milliseconds(start);
    let mut candidates = Vec::new();
    let kinds = [
        Kind::Linear,
        Kind::Hash,
        Kind::Trie(Field::IpSrc),
        Kind::Trie(Field::IpDst),
        Kind::Interval(Subject::Field(Field::L4Src)),
        Kind::Interval(Subject::Field(Field::L4Dst)),
        Kind::Tuple,
    ];
    for kind in kinds {
        let start = Instant::now();
        if let Some(group) = Compiled::single(kind, &entries, 1) {
            candidates.push(Candidate { name: format!("{kind:?}"), group, build_ms: milliseconds(start), ns: vec![] });
        }
    }
    let mut build_ms = f64::INFINITY;
    let mut group = Compiled::new(set.iter(), set.selection, 1)?;
    for _ in 0..BUILDS {
        let start = Instant::now();
        group = Compiled::new(set.iter(), set.selection, 1)?;
        build_ms = build_ms.min(milliseconds(start));
    }
    candidates.push(Candidate { name: "compound".to_owned(), group, build_ms, ns: vec![] });

    let keys = keys(set, &candidates.last().ok_or("no candidates")?.group);
    for _ in 0..ROUNDS {
        for candidate in &mut candidates {
            let keys = if candidate.name == "Linear" { &keys[..LINEAR_KEYS.min(keys.len())] } else { &keys };
            // Once for the caches, which the other candidates' tables have filled.
            look_up(&candidate.group, keys);
            candidate.ns.push(look_up(&candidate.group, keys));
        }
    }
    print(set, &mut candidates, &keys, expansion_ms);
    Ok(())
}

/// Nanoseconds per look-up.
fn look_up(group: &Compiled, keys: &[Key]) -> f64 {
    let start = Instant::now();
    for key in keys {
        black_box(group.best(black_box(key), None));
    }
    milliseconds(start) * 1e6 / keys.len() as f64
}

/// Keys whose best match is any rule equally likely.
#[expect(clippy::cast_possible_truncation, reason = "a place among the rules")]
fn keys(set: &RuleSet, group: &Compiled) -> Vec<Key> {
    let mut random = Random(2);
    let mut keys = Vec::with_capacity(KEYS);
    for _ in 0..KEYS * 8 {
        let rule = random.below(set.rules.len() as u64) as usize;
        let key = set.key(rule, &mut random);
        if keys.len() < KEYS && group.best(&key, None).is_some_and(|found| found.rule() == rule) {
            keys.push(key);
        }
    }
    keys
}

fn print(set: &RuleSet, candidates: &mut [Candidate], keys: &[Key], expansion_ms: f64) {
    println!("{}: {} rules, expanded in {expansion_ms:.1} ms, {} keys", set.name, set.rules.len(), keys.len());
    println!(
        "  {:<24} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8} {:>8}",
        "", "ns", "least ns", "model ns", "× linear", "of best", "built ms", "kB"
    );
    candidates.iter_mut().for_each(|candidate| candidate.ns.sort_by(f64::total_cmp));
    let median = |candidate: &Candidate| candidate.ns[candidate.ns.len() / 2];
    let linear = median(&candidates[0]);
    let singles = &candidates[..candidates.len() - 1];
    let best = singles.iter().map(median).fold(f64::INFINITY, f64::min);
    for candidate in candidates.iter() {
        let ns = median(candidate);
        let mut model = Cost::default();
        for key in &keys[..LINEAR_KEYS.min(keys.len())] {
            black_box(candidate.group.best_metered(key, None, &mut model));
        }
        println!(
            "  {:<24} {ns:>10.1} {:>10.1} {:>10.1} {:>9.1} {:>9.2} {:>8.1} {:>8}",
            candidate.name.replace("Field", "").replace("((", "(").replace("))", ")"),
            candidate.ns[0],
            model.ns / LINEAR_KEYS.min(keys.len()) as f64,
            linear / ns,
            ns / best,
            candidate.build_ms,
            candidate.group.bytes() / 1000,
        );
    }
    if let Some(compound) = candidates.last() {
        let parts: Vec<_> =
            compound.group.parts().into_iter().map(|(kind, rules)| format!("{kind:?} {rules}")).collect();
        println!("  compound of {}\n", parts.join(", "));
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
