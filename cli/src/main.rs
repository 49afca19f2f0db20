// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `shunt` command: the daemon, and what operators say to it.
//!
//! | module | job |
//! |---|---|
//! | `run` | `shunt run`: a node until it is told to stop |
//! | `demo` | `shunt demo`: a node and two CNFs in one process |
//! | `bench` | `shunt bench`: the load generator |
//! | `embedded` | a node in this process, for `demo` and `bench` |
//! | `port` | `shunt port`: list, add, remove |
//! | `policy` | `shunt policy`: apply, show, diff, simulate |
//! | `flows` | `shunt flows`: what a port remembers |
//! | `stats` | `shunt stats`: what a node counts, once |
//! | `top` | `shunt top`: what a node counts, every second |
//! | `capture` | `shunt capture`: what passes a port, into a file |
//! | `trace` | `shunt trace`: what is dropped, as it happens |
//! | `client` | one request to a node's control socket |
//! | `columns` | text in columns |
//! | `output` | standard output that may be closed |
//!
//! Every command that fails exits non-zero and says why in one line on standard error: 1 if it could not be done, 2 if the
//! command line makes no sense.

#![forbid(unsafe_code)]

mod bench;
mod capture;
mod client;
mod columns;
mod demo;
mod embedded;
mod flows;
mod output;
mod policy;
mod port;
mod run;
mod stats;
mod top;
mod trace;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Exit status of a command line that makes no sense.
const USAGE: u8 = 2;

/// A virtual switch for VMs and containers, over vhost-user
#[derive(Debug, Parser)]
#[command(name = "shunt", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Port(port::Args),
    Policy(policy::Args),
    Flows(flows::Args),
    Stats(stats::Args),
    Top(top::Args),
    Capture(capture::Args),
    Trace(trace::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Port(args) => port::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Trace(args) => trace::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough, as in `shunt stats | head`.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, those left out that it has told already.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut line, cause| {
        let cause = cause.to_string();
        if !line.ends_with(&cause) {
            line.extend([if line.is_empty() { "" } else { ": " }, &cause]);
        }
        line
    })
}

/// Prints help that was asked for, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed standard output is no failure here either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // The first paragraph is the cause, in one line or as a list below it; the rest is usage, which --help has.
    let text = error.to_string();
    let cause: Vec<&str> = text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty()).collect();
    let cause = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing; --help lists them".to_owned(),
        _ => cause.join(" ").split_whitespace().collect::<Vec<_>>().join(" "),
    };
    complain(&cause);
    ExitCode::from(USAGE)
}

/// One line on standard error.
fn complain(cause: &str) {
    let line = cause.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ");
    // If even that is closed, only the exit status is left.
    let _ = writeln!(io::stderr(), "shunt: {line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::Error::msg("no room").context("port a: no room").context("cannot add a port");
        assert_eq!(told(&error), "cannot add a port: port a: no room");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
