// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask`: the developer's front door. Always works on the whole workspace.
//!
//! | module | job |
//! |---|---|
//! | `stage` | running a named step and saying how long it took |
//! | `setup` | Debian packages, hugepages and a guest kernel for the end-to-end tests |
//! | `house` | dependency arrows, licence lines, file lengths |
//! | `checks` | formatting, lints, documentation, tests |
//! | `readme` | the README's commands |
//! | `peers` | benchmarks side by side with DPDK and OVS |

#![forbid(unsafe_code)]

mod checks;
mod house;
mod peers;
mod readme;
mod setup;
mod stage;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  test [--full]     everything: setup, lint, docs, unit tests, end-to-end tests, the README's commands
                    --full: the end-to-end tests as the full product, not a cover of all pairs
  ci                what CI runs: the same as test
  setup             installs what the end-to-end tests need (as root), or says what is missing
  fmt               formats the sources
  lint              formatting, clippy, dependency arrows, licence lines, file lengths
  unit              unit and property tests, fuzz targets briefly
  e2e [NAME] [--full]
                    end-to-end tests, those whose name contains NAME
  docs              builds the documentation, warnings are errors
  fuzz TARGET [SECONDS]
                    coverage-guided fuzzing (needs cargo-fuzz and a nightly toolchain)
  bench peers [--pairs N] [--seconds N] [--only NAME]
                    the benchmark, interleaved with DPDK and OVS-DPDK
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["test" | "ci"] => checks::all(false),
        ["test" | "ci", "--full"] => checks::all(true),
        ["setup"] => setup::ensure(),
        ["fmt"] => checks::format(),
        ["lint"] => checks::lint(),
        ["unit"] => checks::unit(),
        ["docs"] => checks::docs(),
        ["e2e", rest @ ..] => {
            let full = rest.contains(&"--full");
            let name = rest.iter().find(|word| !word.starts_with("--"));
            checks::end_to_end(full, name.copied())
        }
        ["fuzz", target] => checks::fuzz(target, "60"),
        ["fuzz", target, seconds] => checks::fuzz(target, seconds),
        ["bench", "peers", rest @ ..] => peers::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command {:?}; `cargo xtask help` lists them", other.join(" ")),
    }
}
