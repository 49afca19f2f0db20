// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask`: the developer's front door. It always works on the whole workspace.
//!
//! | module | job |
//! |---|---|
//! | `stages` | what `test` does, in order, each stage with its name and time |
//! | `command` | running other programs |
//! | `arrows` | the dependency arrows between the crates |
//! | `sources` | what every source file must look like |
//! | `header` | the C header of the SDK |
//! | `setup` | Debian packages, hugepages and the guest kernel that end-to-end tests need |
//! | `bench` | Shunt and its peers side by side |

#![forbid(unsafe_code)]

mod arrows;
mod bench;
mod command;
mod header;
mod setup;
mod sources;
mod stages;

use std::process::ExitCode;

use clap::Parser;

/// The developer's front door: checks, tests and benchmarks of the whole workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Everything: set-up, checks, tests of all kinds
    Test {
        /// All combinations of options in the end-to-end tests, instead of a cover of all pairs
        #[arg(long)]
        full: bool,
    },
    /// The same as `test`: what .ci/run runs
    Ci,
    /// Format all sources
    Fmt {
        /// Only say what would change, and fail
        #[arg(long)]
        check: bool,
    },
    /// The C header of the SDK, made anew
    Header,
    /// Clippy without warnings, dependency arrows, rules of source files, the C header
    Lint,
    /// The documentation of all crates, without warnings
    Docs,
    /// Unit and property tests only
    Unit,
    /// End-to-end tests only; FILTER is part of their names
    E2e {
        /// Run only tests whose names contain this
        filter: Option<String>,
        /// All combinations of options
        #[arg(long)]
        full: bool,
    },
    /// Every fuzz target, on pseudo-random bytes and on its corpus
    Fuzz,
    /// Benchmarks
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Make this machine ready for the end-to-end tests (as root), or say what is missing
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Test { full } => stages::test(full),
        Task::Ci => stages::test(false),
        Task::Fmt { check } => stages::fmt(check),
        Task::Header => header::write(),
        Task::Lint => stages::lint(),
        Task::Docs => stages::docs(),
        Task::Unit => stages::unit(),
        Task::E2e { filter, full } => setup::run(&setup::TESTS).and_then(|()| stages::e2e(filter.as_deref(), full)),
        Task::Fuzz => stages::fuzz(),
        Task::Bench { what } => bench::run(&what),
        Task::Setup => setup::run(&setup::TESTS),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
