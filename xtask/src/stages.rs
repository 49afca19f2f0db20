// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `cargo xtask test` does, in order. A stage prints its name before and its time after; a failure names the stage.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::command::{cargo, run};
use crate::{arrows, header, setup, sources};

/// Everything.
pub(crate) fn test(full: bool) -> Result<()> {
    let start = Instant::now();
    stage("set-up", || setup::run(&setup::TESTS))?;
    stage("format", || fmt(true))?;
    lint()?;
    docs()?;
    unit()?;
    stage("release build", || run(&mut cargo(&["build", "--release", "--package", "shunt-cli"])))?;
    e2e(None, full)?;
    eprintln!("== all stages passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Formats, or checks the format.
pub(crate) fn fmt(check: bool) -> Result<()> {
    run(&mut cargo(if check { &["fmt", "--all", "--check"] } else { &["fmt", "--all"] }))
}

/// Clippy, arrows, rules of source files, the C header.
pub(crate) fn lint() -> Result<()> {
    stage("dependency arrows", arrows::check)?;
    stage("source files", sources::check)?;
    stage("C header", header::check)?;
    stage("clippy", || run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])))
}

/// Documentation, private items included.
pub(crate) fn docs() -> Result<()> {
    stage("documentation", || {
        let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
        run(command.env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// Unit, property and documentation tests of all crates but the end-to-end tests.
pub(crate) fn unit() -> Result<()> {
    stage("unit and property tests", || run(&mut cargo(&["test", "--workspace", "--exclude", "shunt-qemu-tests"])))
}

/// End-to-end tests. One at a time: each of them uses both processors and counts on its timing. What they start is a release build;
/// they themselves need none, and linking them all as one takes minutes.
pub(crate) fn e2e(filter: Option<&str>, full: bool) -> Result<()> {
    stage("end-to-end tests", || {
        let mut command = cargo(&["test", "--package", "shunt-qemu-tests", "--"]);
        command.args(filter).args(["--test-threads=1", "--nocapture"]);
        if full {
            command.env("SHUNT_FULL", "1");
        }
        run(&mut command)
    })
}

/// Fuzz targets, briefly, with optimised code.
pub(crate) fn fuzz() -> Result<()> {
    stage("fuzz targets", || run(&mut cargo(&["test", "--release", "--package", "shunt-fuzz"])))
}

fn stage(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    eprintln!("== {name}");
    body().with_context(|| format!("stage '{name}' failed"))?;
    eprintln!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
