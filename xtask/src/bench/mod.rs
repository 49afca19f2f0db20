// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Benchmarks side by side: one generator, the backend under test on the other core, runs of two sides interleaved.
//!
//! A shared machine's speed drifts by a factor of two within minutes, so no single run and no absolute figure means
//! anything: each pair of runs gives one ratio, the order within pairs alternates, and the median of ratios is reported
//! with its spread. Beside it stands the least number of TSC cycles per packet that each side counted of itself.

mod backend;
mod scenarios;

use std::io::{Write, stdout};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::command::{cargo, run as execute};
use crate::setup;
use backend::{Sample, measure};
use scenarios::{SCENARIOS, Scenario};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Shunt against DPDK's vhost library and OVS-DPDK, packed rings against split ones, bridge against cross-connect
    Peers(Options),
}

/// How it is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pairs of runs in each comparison
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Seconds of each run
    #[arg(long, default_value = "2")]
    seconds: String,
    /// Only comparisons whose name contains this
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(what: &What) -> Result<()> {
    let What::Peers(options) = what;
    ensure!(options.pairs > 0, "--pairs: at least one is needed");
    setup::run(&setup::PEERS)?;
    execute(&mut cargo(&["build", "--release", "--package", "shunt-cli", "--quiet"]))?;
    let wanted = |scenario: &&Scenario| options.only.as_ref().is_none_or(|name| scenario.name.contains(name.as_str()));
    println!("| scenario | what | first | second | median ratio | spread | cycles per packet |");
    println!("|---|---|---|---|---|---|---|");
    let mut any = false;
    for scenario in SCENARIOS.iter().filter(wanted) {
        compare(scenario, options)?;
        any = true;
    }
    ensure!(any, "no scenario has that name");
    Ok(())
}

fn compare(scenario: &Scenario, options: &Options) -> Result<()> {
    let [first, second] = &scenario.sides;
    let (mut firsts, mut seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        let (a, b) = if pair % 2 == 0 {
            let a = measure(first, scenario, &options.seconds)?;
            (a, measure(second, scenario, &options.seconds)?)
        } else {
            let b = measure(second, scenario, &options.seconds)?;
            (measure(first, scenario, &options.seconds)?, b)
        };
        ratios.push(scenario.metric.of(&a) / scenario.metric.of(&b));
        firsts.push(a);
        seconds.push(b);
        eprint!(".");
    }
    eprintln!();
    let values = |samples: &[Sample]| median(samples.iter().map(|sample| scenario.metric.of(sample)).collect());
    let least = |samples: &[Sample]| {
        let least = samples.iter().filter_map(|sample| sample.cycles).min_by(f64::total_cmp);
        least.map_or_else(|| "–".to_owned(), |cycles| format!("{cycles:.0}"))
    };
    let (low, high) = (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    println!(
        "| {} | {} | {} {} | {} {} | {:.2} | {low:.2}–{high:.2} | {} / {} |",
        scenario.name,
        scenario.metric.unit(),
        first.label,
        scenario.metric.show(values(&firsts)),
        second.label,
        scenario.metric.show(values(&seconds)),
        median(ratios),
        least(&firsts),
        least(&seconds),
    );
    stdout().flush()?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
