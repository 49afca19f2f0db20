// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt bench`: the load generator.
//!
//! `shunt bench pvp` starts a node in this process, pinned to one core, attaches two devices to it over real
//! vhost-user sockets, and drives both from another core. `--sockets A,B` leaves the node out and attaches to any
//! vhost-user backend that forwards between those two sockets; with `--server` the backend connects to us. Scripts use
//! `--json`: one line, and a non-zero exit with one line on standard error when something failed. The generator waits
//! ten seconds for a backend to appear, so the two can be started together:
//!
//! ```text
//! dpdk-testpmd … --vdev net_vhost0,iface=/tmp/a --vdev net_vhost1,iface=/tmp/b … &
//! shunt bench pvp --sockets /tmp/a,/tmp/b --seconds 3 --json
//! ```
//!
//! Compare runs only when they were interleaved on the same machine: its speed drifts by a factor of two.
//!
//! | module | job |
//! |---|---|
//! | `options` | the command line |
//! | `pvp` | one run from start to report |
//! | `engine` | all queue pairs, round and round |
//! | `lane` | one queue pair: the hot loop |
//! | `cycle` | buffers that go round: posted, used, posted again |
//! | `frames` | what is sent |
//! | `stamp` | what makes a frame unique; the account of what arrived |
//! | `latency` | how long frames took |
//! | `pace` | sending at a rate |
//! | `report` | what is printed |

mod cycle;
mod engine;
mod frames;
mod lane;
mod latency;
mod options;
mod pace;
mod pvp;
mod report;
mod stamp;

/// Measures how fast packets are forwarded.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Pvp(options::Options),
}

/// Runs the benchmark that was asked for.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Pvp(options) => pvp::run(options),
    }
}
