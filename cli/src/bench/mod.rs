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
//! Flows go both ways: port A sends as many five-tuples as were asked for, port B the same reversed. Every one is opened
//! before anything is measured, so a run proves that all of them pass; with `--tcp` by a handshake. A frame that is lost without
//! the backend having stalled, or that does not arrive in the shape expected, is a failure.
//!
//! Compare runs only when they were interleaved on the same machine: its speed drifts by a factor of two.
//!
//! | module | job |
//! |---|---|
//! | `options` | the command line |
//! | `pvp` | one run from start to report |
//! | `node` | the node, ours or a stranger, as far as it is asked |
//! | `engine` | all queue pairs, round and round |
//! | `dialog` | what opens flows, and closes them |
//! | `lane` | one queue pair: the hot loop |
//! | `window` | how many packets may be on their way |
//! | `cycle` | buffers that go round: posted, used, posted again |
//! | `flows` | which five-tuples there are |
//! | `flood` | a third port that sends for nobody |
//! | `frames` | what is sent |
//! | `tcp` | sequence numbers and acknowledgements |
//! | `stamp` | what makes a frame unique; the account of what arrived |
//! | `ledger` | all accounts |
//! | `inspect` | whether frames arrive as they were sent |
//! | `latency` | how long frames took |
//! | `pace` | sending at a rate |
//! | `report` | what is printed |
//! | `scene` | two CNFs that send and two that receive, with or without aggregates |

mod cycle;
mod dialog;
mod engine;
mod flood;
mod flows;
mod frames;
mod inspect;
mod lane;
mod latency;
mod ledger;
mod node;
mod options;
mod pace;
mod pvp;
mod report;
mod scene;
mod stamp;
mod tcp;
mod window;

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
    let What::Pvp(options) = &args.what;
    options.check()?;
    match &args.what {
        What::Pvp(options) if options.is_scene() => scene::run(options),
        What::Pvp(options) => pvp::run(options),
    }
}
