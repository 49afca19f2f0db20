// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Benchmarks side by side: one generator, the backend under test on the other core, runs of two sides interleaved.
//!
//! A shared machine's speed drifts by a factor of two within minutes, so no single run and no absolute figure means
//! anything: each pair of runs gives one ratio, the order within pairs alternates, and the median of ratios is reported with
//! the interval that the true one lies in with 95 % probability, and their spread. Beside it stands the least number of TSC
//! cycles per packet that each side counted of itself, and the median of the differences within pairs, with its interval.
//!
//! | module | job |
//! |---|---|
//! | `scenarios` | what is compared with what |
//! | `backend` | one run |
//! | `ovs` | OVS-DPDK, its tables, and whether they were used |
//! | `policy` | policies that every flow of the generator meets uniformly |
//! | `cells` | how rules divide the flows among themselves |
//! | `wire` | a veth pair for two nodes with an uplink between them |
//! | `statistics` | medians, and how sure they are |

mod backend;
mod cells;
mod ovs;
mod policy;
mod scenarios;
mod statistics;
mod wire;

use std::io::{Write, stdout};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::command::{cargo, run as execute};
use crate::setup;
use backend::{Sample, measure};
use policy::Policy;
use scenarios::{SCENARIOS, Scenario, Side};
use statistics::{interval, median, spread};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Shunt against DPDK's vhost library and OVS-DPDK, packed rings against split ones, bridge against cross-connect
    Peers(Options),
    /// Print a policy file whose rules every flow of `shunt bench pvp` meets uniformly
    Policy(PolicyOptions),
}

/// What policy it is.
#[derive(Debug, Args)]
pub(crate) struct PolicyOptions {
    #[command(flatten)]
    policy: Policy,
}

/// How it is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pairs of runs in each comparison [default: 7, or 15 where a difference is to be shown to be small]
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds of each run
    #[arg(long, default_value = "2")]
    seconds: String,
    /// Only comparisons whose name contains this
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(what: &What) -> Result<()> {
    match what {
        What::Peers(options) => peers(options),
        What::Policy(PolicyOptions { policy }) => {
            policy.check()?;
            Ok(write!(stdout().lock(), "{policy}")?)
        }
    }
}

fn peers(options: &Options) -> Result<()> {
    ensure!(options.pairs != Some(0), "--pairs: at least one is needed");
    setup::run(&setup::PEERS)?;
    execute(&mut cargo(&["build", "--release", "--package", "shunt-cli", "--quiet"]))?;
    let wanted = |scenario: &&Scenario| options.only.as_ref().is_none_or(|name| scenario.name.contains(name.as_str()));
    println!(
        "| scenario | what | first | second | median ratio | 95 % interval | spread | least cycles | difference |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
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
    let (mut firsts, mut seconds, mut ratios, mut differences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let measure = |side: &Side| patiently(|| measure(side, scenario, &options.seconds));
    for pair in 0..options.pairs.unwrap_or(scenario.pairs) {
        let (a, b) = if pair % 2 == 0 {
            let a = measure(first)?;
            (a, measure(second)?)
        } else {
            let b = measure(second)?;
            (measure(first)?, b)
        };
        ratios.push(scenario.metric.of(&a) / scenario.metric.of(&b));
        differences.extend(a.cycles.zip(b.cycles).map(|(a, b)| a - b));
        firsts.push(a);
        seconds.push(b);
        eprint!(".");
    }
    eprintln!();
    let values =
        |samples: &[Sample]| median(&samples.iter().map(|sample| scenario.metric.of(sample)).collect::<Vec<_>>());
    let least = |samples: &[Sample]| {
        let least = samples.iter().filter_map(|sample| sample.cycles).min_by(f64::total_cmp);
        least.map_or_else(|| "–".to_owned(), |cycles| format!("{cycles:.0}"))
    };
    let range = |ends: Option<(f64, f64)>, digits: usize| {
        ends.map_or_else(|| "–".to_owned(), |(low, high)| format!("{low:.digits$} to {high:.digits$}"))
    };
    let difference = match &*differences {
        [] => "–".to_owned(),
        some => format!("{:.0} ({})", median(some), range(interval(some), 0)),
    };
    println!(
        "| {} | {} | {} {} | {} {} | {:.2} | {} | {} | {} / {} | {difference} |",
        scenario.name,
        scenario.metric.unit(),
        first.label,
        scenario.metric.show(values(&firsts)),
        second.label,
        scenario.metric.show(values(&seconds)),
        median(&ratios),
        range(interval(&ratios), 2),
        range(Some(spread(&ratios)), 2),
        least(&firsts),
        least(&seconds),
    );
    stdout().flush()?;
    Ok(())
}

/// Once more if it fails, saying why: among dozens of runs on a shared machine, one in which a backend stood still for
/// seconds must not be the end of all.
fn patiently(mut run: impl FnMut() -> Result<Sample>) -> Result<Sample> {
    run().or_else(|error| {
        eprintln!("\na run failed and is repeated: {error:#}");
        run()
    })
}
