// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One test's working directory, and what is shown when the test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// How many lines of each log a failed test shows.
const SHOWN_LINES: usize = 60;

/// A directory of one test: sockets, configuration, logs. It is on tmpfs where there is one, has a short name (a socket
/// path holds 107 bytes), and goes away with the value.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes a fresh directory.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("shunt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The ends of all logs in it, each under its name.
    fn logs(&self) -> String {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.0)
            .map(|entries| entries.filter_map(|e| e.ok().map(|e| e.path())).collect())
            .unwrap_or_default();
        names.retain(|p| p.extension().is_some_and(|e| e == "log"));
        names.sort();
        names.iter().map(|p| tail(p)).collect()
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a test in a fresh directory. When it fails, the ends of all logs are printed before the panic that names the
/// cause.
pub fn run(body: impl FnOnce(&WorkDir) -> Result<()>) {
    if let Err(causes) = attempt(body) {
        panic!("{causes}");
    }
}

/// As [`run`], for one of several things that a test tries: returns the causes of a failure instead of panicking. The
/// children are dead by the time that the logs are printed, because they belong to `body`.
pub fn attempt(body: impl FnOnce(&WorkDir) -> Result<()>) -> Result<(), String> {
    let work = WorkDir::create().map_err(|e| format!("{e:#}"))?;
    body(&work).map_err(|error| {
        eprintln!("{}", work.logs());
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        causes.join("\n  because: ")
    })
}

/// True when the full product of options was asked for (`cargo xtask test --full`).
pub fn full() -> bool {
    std::env::var_os("SHUNT_FULL").is_some_and(|v| v == "1")
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.len().saturating_sub(SHOWN_LINES);
    format!("---- {} (last of {} lines)\n{}\n", path.display(), lines.len(), lines[shown..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_differ_and_vanish() -> Result<()> {
        let (a, b) = (WorkDir::create()?, WorkDir::create()?);
        assert_ne!(a.path(), b.path());
        let gone = a.path().to_owned();
        drop(a);
        assert!(!gone.exists() && b.path().exists());
        Ok(())
    }
}
