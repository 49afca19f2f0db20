// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A named step of a longer run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Does `work` and says how long it took; a failure names the stage.
pub(crate) fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("==> {name}");
    let start = Instant::now();
    work().with_context(|| format!("stage \"{name}\" failed"))?;
    println!("==> {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a command in the workspace's root; anything but success is an error that shows the command.
pub(crate) fn sh(program: &str, args: &[&str]) -> Result<()> {
    sh_with(program, args, &[])
}

/// As [`sh`], with environment variables.
pub(crate) fn sh_with(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let line = format!("{program} {}", args.join(" "));
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().copied()).current_dir(root());
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
