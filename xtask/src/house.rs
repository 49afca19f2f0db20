// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shape of the house: dependency arrows, licence lines, file lengths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage::{cargo, root};

/// Which of our packages each package may depend on (docs/design.md). Development dependencies are free.
const ARROWS: &[(&str, &[&str])] = &[
    ("shunt-packet", &[]),
    ("shunt-vhost-user", &[]),
    ("shunt-virtqueue", &[]),
    ("shunt-switch", &["shunt-packet"]),
    ("shunt-backend", &["shunt-packet", "shunt-vhost-user", "shunt-virtqueue", "shunt-switch"]),
    ("shunt-cnf", &["shunt-packet", "shunt-vhost-user", "shunt-virtqueue"]),
    ("shunt-cli", &["shunt-backend", "shunt-cnf", "shunt-packet", "shunt-vhost-user", "shunt-virtqueue"]),
    ("shunt-fuzz", &["shunt-packet", "shunt-vhost-user", "shunt-virtqueue", "shunt-switch"]),
    ("shunt-qemu-tests", &["shunt-backend", "shunt-cnf"]),
    ("xtask", &[]),
];
/// Crates without `unsafe`, sockets, threads or a clock.
const PURE: &[&str] = &["packet", "vhost-user", "switch"];
/// What a pure crate must not name outside of its tests.
const IMPURE: &[&str] = &["std::net", "std::thread", "std::time::Instant", "SystemTime", "std::os::unix::net"];
/// The line that each source file begins with.
const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause";
/// A file longer than this is worth a look, and one longer than the second number must be split.
const LENGTHS: (usize, usize) = (600, 1000);

pub(crate) fn check() -> Result<()> {
    let mut faults = arrows()?;
    faults.extend(sources()?);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn arrows() -> Result<Vec<String>> {
    let args = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
    let output = Command::new(cargo()).args(args).current_dir(root()).output().context("cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata's answer")?;
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("{name}: not in the table of arrows (xtask/src/house.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let ours = ARROWS.iter().any(|(name, _)| *name == to);
            if ours && dependency["kind"].as_str() != Some("dev") && !allowed.contains(&to) {
                faults.push(format!("{name} must not depend on {to}"));
            }
        }
    }
    Ok(faults)
}

fn sources() -> Result<Vec<String>> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().context("git ls-files")?;
    let list = String::from_utf8(output.stdout).context("git ls-files")?;
    let mut faults = Vec::new();
    for name in list.lines() {
        let path = root().join(name);
        let Some(text) = text_of(&path) else { continue };
        if !text.lines().take(2).any(|line| line.contains(LICENCE)) {
            faults.push(format!("{name}: the licence line is missing"));
        }
        let (long, too_long) = LENGTHS;
        match text.lines().count() {
            lines if lines > too_long => faults.push(format!("{name}: {lines} lines; split it")),
            lines if lines > long && name.ends_with(".rs") => println!("note: {name} has {lines} lines"),
            _ => {}
        }
        faults.extend(impurities(name, &text));
    }
    Ok(faults)
}

/// The contents of a file that must carry the licence line and is still there.
fn text_of(path: &PathBuf) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    matches!(extension, "rs" | "toml" | "md" | "sh").then(|| std::fs::read_to_string(path).ok()).flatten()
}

fn impurities(name: &str, text: &str) -> Vec<String> {
    let path = Path::new(name);
    let in_pure = PURE.iter().any(|krate| path.starts_with(Path::new(krate).join("src")));
    if !in_pure {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for word in IMPURE.iter().filter(|word| code.contains(**word)) {
        faults.push(format!("{name}: {word} in a pure crate"));
    }
    if name.ends_with("src/lib.rs") && !text.contains("#![forbid(unsafe_code)]") {
        faults.push(format!("{name}: a pure crate forbids unsafe code"));
    }
    faults
}
