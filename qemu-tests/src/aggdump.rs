// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Captures of links that carry aggregate frames, decoded by `tools/aggdump.py`, which shares nothing with what is tested.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The decoder.
#[must_use]
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/aggdump.py")
}

/// What is in a capture, frame by frame and then as a summary, in the decoder's words. Options are the decoder's.
pub fn decode(capture: &Path, options: &[&str]) -> Result<(Vec<Value>, Value)> {
    let output = Command::new("python3").arg(script()).args(options).arg(capture).output().context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    let mut lines = lines.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let mut last = lines.pop().context("no summary")?;
    Ok((lines, last["summary"].take()))
}

/// The summary only: how many plain frames, aggregates, groups and packets there are, of which stages, origins and destinations, and what was
/// wrong.
pub fn summary(capture: &Path, options: &[&str]) -> Result<Value> {
    Ok(decode(capture, &[&["--summary"], options].concat())?.1)
}
