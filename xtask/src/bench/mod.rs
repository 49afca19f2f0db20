// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shunt and its peers side by side.
//!
//! The speed of a shared machine drifts by a factor of two within minutes. So nothing here is an absolute figure: a run of
//! ours and a run of the peer's make a pair, pairs follow each other at once, and what counts is the median of the ratios
//! within pairs. Each run starts its backend anew, because a backend that polls while another is measured takes its core.
//! Cycles per packet are the least of all runs: noise only ever adds to them.

mod figures;
mod generator;
mod ovs;
mod testpmd;

use std::path::Path;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use crate::command::{cargo, run as execute, target_dir};
use crate::setup;
use figures::Series;
use generator::{Backend, Outcome};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Shunt against DPDK's vhost library and OVS-DPDK, and packed rings against split ones
    Peers(Options),
}

/// How it is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pairs of runs in each comparison
    #[arg(long, default_value_t = 7)]
    pairs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Bytes of each frame
    #[arg(long, default_value_t = 64)]
    size: u32,
    /// Only these comparisons
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Comparison>,
    /// More options for the generator, as in `-- --mergeable --queue-size 1024`
    #[arg(last = true)]
    generator: Vec<String>,
}

/// Two ways to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Comparison {
    /// Packed rings, DPDK's net_vhost back to back without any switching
    NetVhost,
    /// Packed rings, OVS-DPDK with port-to-port flows
    Ovs,
    /// Our packed rings against our own split rings
    Split,
    /// Split rings, DPDK's net_vhost
    NetVhostSplit,
    /// Our bridge against our cross-connect
    Bridge,
}

impl Comparison {
    /// Ours, theirs.
    fn sides(self) -> (Backend, Backend) {
        let packed = Backend::Shunt { split: false, bridge: false };
        let split = Backend::Shunt { split: true, bridge: false };
        match self {
            Self::NetVhost => (packed, Backend::NetVhost { split: false }),
            Self::Ovs => (packed, Backend::Ovs),
            Self::Split => (packed, split),
            Self::NetVhostSplit => (split, Backend::NetVhost { split: true }),
            Self::Bridge => (Backend::Shunt { split: false, bridge: true }, packed),
        }
    }

    /// The least ratio that the project promises.
    fn promised(self) -> f64 {
        match self {
            Self::NetVhost | Self::NetVhostSplit => 1.0,
            Self::Ovs => 1.3,
            Self::Split => 1.1,
            Self::Bridge => 0.9,
        }
    }
}

/// Measures and prints one line per comparison.
pub(crate) fn run(what: &What) -> Result<()> {
    let What::Peers(options) = what;
    ensure!(options.pairs > 0 && options.seconds > 0, "nothing to measure");
    setup::run(&setup::PEERS)?;
    execute(&mut cargo(&["build", "--release", "--package", "shunt-cli"]))?;
    let binary = target_dir().join("release/shunt");
    let chosen = if options.only.is_empty() { Comparison::value_variants() } else { &options.only };
    println!(
        "{} B, {} pairs of runs of {} s; pps are the sum of both directions",
        options.size, options.pairs, options.seconds
    );
    for comparison in chosen {
        compare(*comparison, options, &binary)?;
    }
    Ok(())
}

fn compare(comparison: Comparison, options: &Options, binary: &Path) -> Result<()> {
    let (ours, theirs) = comparison.sides();
    let mut series = Series::default();
    for pair in 0..options.pairs {
        // who goes first alternates, so that a drift of the machine's speed favours neither
        let measure = |backend: Backend| generator::measure(backend, binary, options);
        let (a, b): (Outcome, Outcome) = if pair % 2 == 0 {
            let a = measure(ours)?;
            (a, measure(theirs)?)
        } else {
            let b = measure(theirs)?;
            (measure(ours)?, b)
        };
        eprintln!("  {}: {:.2} Mpps, {}: {:.2} Mpps", ours.name(), a.pps / 1e6, theirs.name(), b.pps / 1e6);
        series.add(a, b);
    }
    let verdict = if series.ratio() >= comparison.promised() { "kept" } else { "MISSED" };
    println!(
        "{} / {}: {:.2} x (promised {:.2}: {verdict}); best {:.2} / {:.2} Mpps; least cycles per packet {} / {}",
        ours.name(),
        theirs.name(),
        series.ratio(),
        comparison.promised(),
        series.best().0 / 1e6,
        series.best().1 / 1e6,
        figures::shown(series.least_cycles().0),
        figures::shown(series.least_cycles().1),
    );
    Ok(())
}
