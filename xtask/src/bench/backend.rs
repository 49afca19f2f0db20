// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One run: a backend on core 0, the generator on core 1.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::ovs::{self, Tables};
use super::policy::{Policy, Shape};
use super::scenarios::{Kind, Scenario, Side};
use super::wire::{self, Wire};
use crate::command::{output, target_dir};

/// How long a peer may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) pps: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// TSC cycles per packet that the backend counted of itself.
    pub(super) cycles: Option<f64>,
}

/// Runs one side once.
pub(super) fn measure(side: &Side, scenario: &Scenario, seconds: &str) -> Result<Sample> {
    match side.kind {
        Kind::Scene => {
            let mut command = Command::new(shunt());
            command.args(["bench", "pvp"]);
            return Ok(sample_of(&scene(command, side, scenario, seconds)?, None));
        }
        Kind::Uplink(mtu) => {
            let wire = Wire::new(mtu)?;
            let mut command = wire.within(shunt());
            command.args(["bench", "pvp", "--interfaces", wire::ENDS]);
            return Ok(sample_of(&scene(command, side, scenario, seconds)?, None));
        }
        _ => {}
    }
    let directory = Scratch::new()?;
    let sockets: Vec<PathBuf> = side.kind.ports().iter().map(|port| directory.file(&format!("{port}.sock"))).collect();
    let mut backend = start(side.kind, scenario, &directory, &sockets)?;
    let report = exercise(side, scenario, &directory, &sockets, seconds);
    let output = backend.finish()?;
    let report = report.with_context(|| format!("{} under {}:\n{output}", side.label, scenario.name))?;
    if let Some(tables) = tables(side.kind, scenario) {
        ovs::check(&output, &tables).with_context(|| format!("{}:\n{output}", scenario.name))?;
    }
    let sample = sample_of(&report, peer_cycles(side.kind, &output));
    ensure!(sample.pps > 0.0, "{}: nothing was received: {report}", side.label);
    Ok(sample)
}

/// What the generator found; `cycles` are what a backend said of itself that the generator cannot ask.
fn sample_of(report: &Value, cycles: Option<f64>) -> Sample {
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64);
    Sample {
        pps: number("/rx_pps").unwrap_or(f64::NAN),
        p50: number("/latency_ns/p50").unwrap_or(f64::NAN),
        p99: number("/latency_ns/p99").unwrap_or(f64::NAN),
        cycles: number("/cycles_per_packet").or(cycles),
    }
}

/// Lets the generator, as far as it is there, at nodes of its own.
fn scene(mut command: Command, side: &Side, scenario: &Scenario, seconds: &str) -> Result<Value> {
    command.args(["--json", "--seconds", seconds]).args(scenario.load).args(side.extra);
    let output = command.stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "{}: {}", side.label, String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the generator's report")
}

/// Lets the generator at a backend, once it is ready.
fn exercise(
    side: &Side,
    scenario: &Scenario,
    directory: &Scratch,
    sockets: &[PathBuf],
    seconds: &str,
) -> Result<Value> {
    let control = directory.file("control.sock");
    match side.kind {
        Kind::Wired | Kind::Bridged | Kind::Policy(_) => wait_for(|| control.exists(), "the node's control socket")?,
        Kind::Testpmd | Kind::TestpmdScene => {
            wait_for(|| sockets.iter().all(|socket| socket.exists()), "testpmd's sockets")?;
        }
        // It connects to us, whenever it is ready.
        Kind::Ovs | Kind::OvsTables(_) | Kind::OvsScene | Kind::Scene | Kind::Uplink(_) => {}
    }
    if let Kind::Policy(shape) = side.kind {
        let file = directory.file("policy.toml");
        fs::write(&file, Policy::new(shape).to_string())?;
        let mut command = Command::new(shunt());
        output(command.args(["policy", "apply"]).arg(file).arg("--control").arg(&control))?;
    }
    let list: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    let mut command = Command::new(shunt());
    command.args(["bench", "pvp", "--json", "--seconds", seconds, "--sockets", &list.join(",")]);
    command.args(scenario.load).args(side.extra);
    match side.kind {
        Kind::Ovs | Kind::OvsTables(_) | Kind::OvsScene => _ = command.arg("--server"),
        Kind::Wired | Kind::Bridged | Kind::Policy(_) => _ = command.arg("--control").arg(control),
        Kind::Testpmd | Kind::TestpmdScene | Kind::Scene | Kind::Uplink(_) => {}
    }
    let output = command.stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "the generator: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the generator's report")
}

/// OVS's tables under this load, if it is to have any.
fn tables(kind: Kind, scenario: &Scenario) -> Option<Tables> {
    let (shape, clients) = match kind {
        Kind::OvsTables(shape) => (shape, &[1][..]),
        Kind::OvsScene => (Shape { layers: 0, rules: 0, groups: 0, stateful: 0 }, &[1, 2][..]),
        _ => return None,
    };
    Some(Tables { shape, clients, tcp: scenario.load.contains(&"--tcp"), connections: scenario.flows() })
}

/// A backend that runs, and what it said.
struct Backend {
    child: Child,
    log: PathBuf,
    interrupt: Signal,
}

impl Backend {
    fn start(mut command: Command, directory: &Scratch, interrupt: Signal) -> Result<Self> {
        let log = directory.file("backend.log");
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        Ok(Self { child, log, interrupt })
    }

    /// Ends it in order and returns what it printed.
    fn finish(&mut self) -> Result<String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        // It may have ended by itself, which shows in what it printed.
        let _ = kill_process(pid, self.interrupt);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("a backend did not end when it was told to");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        fs::File::open(&self.log)?.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // After an error nobody else does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(kind: Kind, scenario: &Scenario, directory: &Scratch, sockets: &[PathBuf]) -> Result<Backend> {
    match kind {
        Kind::Wired | Kind::Bridged | Kind::Policy(_) => {
            let config = directory.file("node.toml");
            fs::write(&config, node_toml(kind, directory, sockets))?;
            let mut command = Command::new(shunt());
            command.args(["run", "--config"]).arg(config);
            Backend::start(command, directory, Signal::TERM)
        }
        Kind::Testpmd | Kind::TestpmdScene => Backend::start(testpmd(sockets), directory, Signal::INT),
        Kind::Ovs | Kind::OvsTables(_) | Kind::OvsScene => {
            let command = ovs::command(directory.path(), sockets, tables(kind, scenario).as_ref())?;
            Backend::start(command, directory, Signal::TERM)
        }
        Kind::Scene | Kind::Uplink(_) => bail!("a scene has no backend of its own"),
    }
}

fn node_toml(kind: Kind, directory: &Scratch, sockets: &[PathBuf]) -> String {
    let more = match kind {
        Kind::Wired => "\n[[crossconnect]]\nports = [\"a\", \"b\"]\n".to_owned(),
        Kind::Policy(Shape { layers, .. }) => {
            let uid = rustix::process::getuid().as_raw();
            format!("\n[[controller]]\nname = \"bench\"\nuid = {uid}\norder = [0, {layers}]\n")
        }
        _ => String::new(),
    };
    let ports = kind.ports().iter().zip(sockets);
    let ports: String =
        ports.map(|(name, socket)| format!("[[port]]\nname = {name:?}\nsocket = {socket:?}\n")).collect();
    format!(
        "[control]\nsocket = {:?}\nstate_dir = \"/dev/shm/shunt-bench-{}\"\n\
         [[worker]]\nname = \"w0\"\ncpu = 0\npoll = \"busy\"\n{ports}{more}",
        directory.file("control.sock"),
        std::process::id()
    )
}

/// Wires the first port to the second, or of four the first to the third and the second to the fourth.
fn testpmd(sockets: &[PathBuf]) -> Command {
    // It pairs neighbours.
    let half = sockets.len() / 2;
    let neighbours =
        sockets.iter().zip(sockets.iter().skip(half)).take(half).flat_map(|(first, second)| [first, second]);
    let mut command = Command::new("dpdk-testpmd");
    // Who waits for the signal to end is not where packets move, else it never runs if that is a real-time thread.
    command.args(["--lcores", "0@1,1@0", "-m", "256", "--no-pci", "--single-file-segments", "--no-telemetry"]);
    command.arg(format!("--file-prefix=shunt-bench-{}", std::process::id()));
    for (number, socket) in neighbours.enumerate() {
        command.args(["--vdev", &format!("net_vhost{number},iface={}", socket.display())]);
    }
    command.args(["--", "--forward-mode=io", "--total-num-mbufs=16384", "--auto-start", "--record-core-cycles"]);
    command.args(["--stats-period=3600", "--txd=1024", "--rxd=1024"]);
    command
}

/// What the peers print of themselves: testpmd `CPU cycles/packet=…`, OVS `avg processing cycles per packet: …`.
fn peer_cycles(kind: Kind, output: &str) -> Option<f64> {
    let marker = if matches!(kind, Kind::Testpmd | Kind::TestpmdScene) {
        "CPU cycles/packet="
    } else {
        "avg processing cycles per packet:"
    };
    let rest = output.split(marker).nth(1)?.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

fn shunt() -> PathBuf {
    target_dir().join("release/shunt")
}

fn wait_for(mut condition: impl FnMut() -> bool, what: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        ensure!(Instant::now() < deadline, "{what} did not appear");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A directory with a short path, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("shunt-bench-{}", std::process::id()));
        // What an earlier run left is of no use.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is only litter.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_own_figures_are_found() {
        let testpmd = "  CPU cycles/packet=153.25 (busy cycles=99 / total io packets=7) at 2600 MHz Clock\n";
        assert_eq!(peer_cycles(Kind::Testpmd, testpmd), Some(153.25));
        let ovs = "  avg cycles per packet: 500.1 (2/3)\n  avg processing cycles per packet: 209.00 (1/2)\n";
        assert_eq!(peer_cycles(Kind::Ovs, ovs), Some(209.0));
        assert_eq!(peer_cycles(Kind::Ovs, ""), None);
    }
}
