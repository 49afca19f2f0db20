// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `shunt` command as operators and scripts meet it: exit status, standard output, one line of standard error.

mod client;
mod node;
mod packets;
mod policy;
mod usage;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test says what did not happen.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `shunt` with arguments.
fn shunt<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shunt"))
        .args(arguments)
        .env_remove("SHUNT_CONTROL")
        .stdin(Stdio::null())
        .output()
        .expect("shunt runs")
}

/// Standard output of a run that succeeds.
fn succeeds<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(arguments: &[S]) -> String {
    let output = shunt(arguments);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "for {arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The one line of a run that fails, without `shunt: `.
fn fails<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(status: i32, arguments: &[S]) -> String {
    let output = shunt(arguments);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(status), &b""[..]),
        "for {arguments:?}: {errors}"
    );
    let line = errors.strip_suffix('\n').and_then(|line| line.strip_prefix("shunt: "));
    let line = line.unwrap_or_else(|| panic!("for {arguments:?}: {errors:?}"));
    assert!(!line.contains('\n'), "for {arguments:?}: {errors:?}");
    line.to_owned()
}

/// Waits for a condition, without sleeping through it.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not happen within {LIMIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory with a node in it: `shunt run` with a control socket and two ports.
struct Node {
    dir: TempDir,
    process: Child,
}

impl Node {
    /// Starts it with the usual configuration, and waits until it answers.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let config = format!(
            "[control]\nsocket = {:?}\nstate_dir = {:?}\n\n[[port]]\nname = 'vm0'\nsocket = {:?}\n\n\
             [[port]]\nname = 'vm1'\nsocket = {:?}\nrole = 'client'\n",
            at("control.sock"),
            at("state"),
            at("vm0.sock"),
            at("vm1.sock")
        );
        std::fs::write(at("node.toml"), config).expect("written");
        let process = launch(dir.path());
        Self { dir, process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control(&self) -> String {
        self.path("control.sock").to_str().expect("text").to_owned()
    }

    /// Asks it: a command that succeeds.
    fn ask(&self, arguments: &[&str]) -> String {
        succeeds(&[arguments, &["--control", &self.control()]].concat())
    }

    /// Asks it: a command that is refused.
    fn refuses(&self, arguments: &[&str]) -> String {
        fails(1, &[arguments, &["--control", &self.control()]].concat())
    }

    /// Ends it as an operator would; its exit status.
    fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let mut status = None;
        wait_until("the end of the node", || {
            status = self.process.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("a status").code()
    }

    /// Ends it as the kernel would, and starts it again in the same place.
    fn kill_and_start_again(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
        self.process = launch(self.dir.path());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts `shunt run` and waits for the line that says that it runs.
fn launch(dir: &Path) -> Child {
    let mut process = Command::new(env!("CARGO_BIN_EXE_shunt"))
        .args(["run", "--config"])
        .arg(dir.join("node.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("shunt starts");
    let mut log = BufReader::new(process.stderr.take().expect("its log"));
    let mut text = String::new();
    while !text.contains("] shunt ") {
        assert_ne!(log.read_line(&mut text).expect("its log"), 0, "the node ended: {text}");
    }
    // The pipe is read to its end, so that the node never waits for us.
    thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    process
}
