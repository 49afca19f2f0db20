// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A child process: everything it prints goes to one log file, its standard input is ours, and it dies with us.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::scenario::WorkDir;
use crate::wait::wait_for;

/// How long a child that was asked to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    born: u64,
}

impl Process {
    /// Starts `argv` with its output in `<name>.log` of `work` (appended, so that restarts of one thing read as one story).
    ///
    /// The child runs under `setpriv --pdeathsig KILL`: should the thread that started it end without dropping it, the
    /// kernel ends it.
    pub fn spawn<S: AsRef<OsStr>>(work: &WorkDir, name: &str, argv: &[S]) -> Result<Self> {
        Self::spawn_into(work, name, name, argv)
    }

    /// As [`spawn`](Self::spawn), but its error output goes to `<name>-errors.log`: for a child whose output is a
    /// conversation.
    pub fn spawn_errors_apart<S: AsRef<OsStr>>(work: &WorkDir, name: &str, argv: &[S]) -> Result<Self> {
        Self::spawn_into(work, name, &format!("{name}-errors"), argv)
    }

    fn spawn_into<S: AsRef<OsStr>>(work: &WorkDir, name: &str, errors: &str, argv: &[S]) -> Result<Self> {
        let open = |name: &str| File::options().create(true).append(true).open(work.file(&format!("{name}.log")));
        let out = open(name)?;
        let born = out.metadata()?.len();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(argv)
            .env("RUNTIME_DIRECTORY", work.path()) // where DPDK keeps its per-process files
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(open(errors)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, log: work.file(&format!("{name}.log")), born })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id (`setpriv` executes the program in place).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The mark at its start: where its own output begins in a log that earlier lives of it may have written to.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// How much it has printed so far; what comes later is after this mark.
    pub fn mark(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |m| m.len())
    }

    /// What it has printed since `mark`.
    pub fn printed_since(&self, mark: u64) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(mark))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until it has printed something after `mark` that `look` finds, and returns what `look` made of it. Ends early
    /// when the process dies.
    pub fn wait_printed<T>(
        &mut self,
        mark: u64,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let name = self.name.clone();
        wait_for(&format!("{name} to print {what}"), limit, || {
            let ended = self.child.try_wait()?;
            let text = self.printed_since(mark)?;
            match (look(&text), ended) {
                (Some(found), _) => Ok(Some(found)),
                (None, None) => Ok(None),
                (None, Some(status)) => {
                    bail!("{name} ended with {status} before it printed {what}; its last words: {}", last_words(&text))
                }
            }
        })
    }

    /// Types a line into its standard input.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("{} has no input", self.name))?;
        stdin.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("cannot write to {}", self.name))
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for it to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for(&format!("{} to end", self.name), limit, || Ok(self.child.try_wait()?))
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(STOP_LIMIT)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Runs a command to its end and returns what it printed; fails with its error output when it fails.
pub fn run<S: AsRef<OsStr>>(argv: &[S]) -> Result<String> {
    let shown: Vec<OsString> = argv.iter().map(|a| a.as_ref().to_owned()).collect();
    let (program, args) = argv.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown:?}"))?;
    if !output.status.success() {
        bail!("{shown:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_child_is_spoken_to_and_heard() -> Result<()> {
        let work = WorkDir::create()?;
        let mut cat = Process::spawn(&work, "cat", &["cat"])?;
        cat.type_line("one")?;
        cat.wait_printed(0, "one", LIMIT, |t| t.contains("one\n").then_some(()))?;
        let mark = cat.mark();
        cat.type_line("two")?;
        let got = cat.wait_printed(mark, "two", LIMIT, |t| t.strip_suffix('\n').map(str::to_owned))?;
        assert_eq!(got, "two");
        Ok(())
    }

    #[test]
    fn a_child_that_dies_early_is_told_apart_from_a_slow_one() -> Result<()> {
        let work = WorkDir::create()?;
        let mut sh = Process::spawn(&work, "sh", &["sh", "-c", "echo alas; exit 3"])?;
        let error = sh.wait_printed(0, "a rose", LIMIT, |t| t.contains("rose").then_some(())).unwrap_err().to_string();
        assert!(error.contains("before it printed a rose") && error.contains("alas"), "{error}");
        Ok(())
    }

    #[test]
    fn dropping_kills() -> Result<()> {
        let work = WorkDir::create()?;
        let child = Process::spawn(&work, "sleep", &["sleep", "1000"])?;
        let proc_dir = PathBuf::from(format!("/proc/{}", child.pid()));
        assert!(proc_dir.exists());
        drop(child);
        assert!(!proc_dir.exists());
        Ok(())
    }
}
