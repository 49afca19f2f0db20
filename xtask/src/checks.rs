// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Formatting, lints, documentation, tests.

use anyhow::Result;

use crate::stage::{cargo, sh, sh_with, stage};
use crate::{house, readme, setup};

/// Everything that must hold before a change lands.
pub(crate) fn all(full: bool) -> Result<()> {
    stage("setup", setup::ensure)?;
    lint()?;
    docs()?;
    unit()?;
    end_to_end(full, None)?;
    stage("the README's commands", readme::run)?;
    println!("==> all stages passed");
    Ok(())
}

pub(crate) fn format() -> Result<()> {
    sh(&cargo(), &["fmt", "--all"])
}

pub(crate) fn lint() -> Result<()> {
    stage("format", || sh(&cargo(), &["fmt", "--all", "--check"]))?;
    stage("house", house::check)?;
    stage("clippy", || {
        sh(&cargo(), &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])
    })
}

pub(crate) fn docs() -> Result<()> {
    stage("docs", || {
        let args = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"];
        sh_with(&cargo(), &args, &[("RUSTDOCFLAGS", "-D warnings")])
    })
}

pub(crate) fn unit() -> Result<()> {
    stage("unit and property tests", || {
        sh(&cargo(), &["test", "--workspace", "--exclude", "shunt-qemu-tests", "--locked", "--quiet"])
    })
}

/// The tests of `qemu-tests/`, one after the other because each takes both cores.
pub(crate) fn end_to_end(full: bool, name: Option<&str>) -> Result<()> {
    stage("release build", || sh(&cargo(), &["build", "--release", "--package", "shunt-cli", "--locked", "--quiet"]))?;
    stage("end-to-end tests", || {
        let mut args = vec!["test", "--release", "--package", "shunt-qemu-tests", "--locked", "--"];
        args.extend(["--test-threads=1", "--nocapture"]);
        args.extend(name);
        let env: &[_] = if full { &[("SHUNT_FULL", "1")] } else { &[] };
        sh_with(&cargo(), &args, env)
    })
}

pub(crate) fn fuzz(target: &str, seconds: &str) -> Result<()> {
    let time = format!("-max_total_time={seconds}");
    let args = ["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", "--features", "libfuzzer", target, "--", &time];
    sh("cargo", &args)
}
