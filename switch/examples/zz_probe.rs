#[allow(unused_imports)]
use packet::Field;
use std::hint::black_box;
use std::time::Instant;
#[allow(unused_imports)]
use switch::classify::{Compiled, Cost, Entries, Kind, Lookup, Meter, Probe, Rule, Selection};
#[allow(unused_imports)]
use switch::condition::{Condition, Conditions, IpVersion, Key, Subject, Value};
#[path = "../src/classify/sets.rs"]
mod sets;
use sets::{Random, RuleSet};
#[derive(Default)]
struct Counts([u64; 8]);
impl Meter for Counts {
    fn count(&mut self, p: Probe, _: usize) {
        self.0[p as usize] += 1;
    }
}
#[inline(never)]
fn look_up_all(g: &Compiled, keys: &[Key]) {
    for key in keys {
        black_box(g.best(black_box(key), None));
    }
}
fn main() {
    let arg = |n: usize, d: usize| std::env::args().nth(n).map_or(d, |a| a.parse().unwrap());
    let (count, which, nkeys, rounds) = (arg(1, 50000), arg(2, 9), arg(3, 4096), arg(4, 300));
    for (i, set) in RuleSet::all(count, 1).iter().enumerate() {
        if which != 9 && which != i {
            continue;
        }
        let mut best_build = f64::INFINITY;
        let mut best_exp = f64::INFINITY;
        for _ in 0..if rounds > 20 { 15 } else { 1 } {
            let t = Instant::now();
            let e = Entries::new(set.iter(), set.selection).unwrap();
            best_exp = best_exp.min(t.elapsed().as_secs_f64() * 1e3);
            drop(e);
            let t = Instant::now();
            black_box(Compiled::new(set.iter(), set.selection, 1).unwrap());
            best_build = best_build.min(t.elapsed().as_secs_f64() * 1e3);
        }
        let g = Compiled::new(set.iter(), set.selection, 1).unwrap();
        let mut random = Random(2);
        let mut keys = Vec::new();
        for _ in 0..nkeys * 8 {
            let rule = random.below(set.rules.len() as u64) as usize;
            let key = set.key(rule, &mut random);
            if keys.len() < nkeys && g.best(&key, None).is_some_and(|f| f.rule() == rule) {
                keys.push(key);
            }
        }
        let mut least = f64::INFINITY;
        let mut all = Vec::new();
        for _ in 0..rounds {
            let t = Instant::now();
            look_up_all(&g, &keys);
            let ns = t.elapsed().as_secs_f64() * 1e9 / keys.len() as f64;
            least = least.min(ns);
            all.push(ns);
        }
        all.sort_by(f64::total_cmp);
        let mut c = Counts::default();
        for key in &keys {
            black_box(g.best_metered(key, None, &mut c));
        }
        let names = ["next", "row", "list", "slot", "node", "item", "seg", "filt"];
        let per: Vec<_> = names
            .iter()
            .zip(c.0)
            .filter(|(_, n)| *n > 0)
            .map(|(n, v)| format!("{n} {:.1}", v as f64 / keys.len() as f64))
            .collect();
        println!(
            "{:<24} keys {} least {least:.1} q1 {:.1} med {:.1} | expand {best_exp:.1} compile {best_build:.1} ms {} kB | {} | {:?}",
            set.name,
            keys.len(),
            all[all.len() / 4],
            all[all.len() / 2],
            g.bytes() / 1000,
            per.join(", "),
            g.parts()
        );
    }
}
