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

use super::scenarios::{Kind, Scenario, Side};
use crate::command::target_dir;

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
    let directory = Scratch::new()?;
    let sockets = [directory.file("a.sock"), directory.file("b.sock")];
    let server = side.kind == Kind::Ovs;
    let mut backend = start(side.kind, &directory, &sockets)?;
    if !server {
        wait_for(|| sockets.iter().all(|socket| socket.exists()), "the backend's sockets")?;
    }
    let report = generate(&sockets, server, side, scenario, seconds);
    let cycles = match side.kind {
        Kind::Wired | Kind::Bridged => our_cycles(&directory),
        Kind::Testpmd | Kind::Ovs => Ok(None),
    };
    let output = backend.finish()?;
    let report = report.with_context(|| format!("{} under {}:\n{output}", side.label, scenario.name))?;
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let sample = Sample {
        pps: number("/rx_pps"),
        p50: number("/latency_ns/p50"),
        p99: number("/latency_ns/p99"),
        cycles: cycles?.or_else(|| peer_cycles(side.kind, &output)),
    };
    ensure!(sample.pps > 0.0, "{}: nothing was received: {report}", side.label);
    Ok(sample)
}

fn generate(sockets: &[PathBuf; 2], server: bool, side: &Side, scenario: &Scenario, seconds: &str) -> Result<Value> {
    let [a, b] = sockets;
    let mut command = Command::new(shunt());
    command.args(["bench", "pvp", "--json", "--seconds", seconds, "--sockets"]);
    command.arg(format!("{},{}", a.display(), b.display())).args(scenario.load).args(side.extra);
    if server {
        command.arg("--server");
    }
    let output = command.stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "the generator: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the generator's report")
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

fn start(kind: Kind, directory: &Scratch, sockets: &[PathBuf; 2]) -> Result<Backend> {
    match kind {
        Kind::Wired | Kind::Bridged => {
            let config = directory.file("node.toml");
            fs::write(&config, node_toml(kind, directory, sockets))?;
            let mut command = Command::new(shunt());
            command.args(["run", "--config"]).arg(config);
            Backend::start(command, directory, Signal::TERM)
        }
        Kind::Testpmd => Backend::start(testpmd(sockets), directory, Signal::INT),
        Kind::Ovs => Backend::start(ovs(directory, sockets)?, directory, Signal::TERM),
    }
}

fn node_toml(kind: Kind, directory: &Scratch, [a, b]: &[PathBuf; 2]) -> String {
    let wires = if kind == Kind::Wired { "\n[[crossconnect]]\nports = [\"a\", \"b\"]\n" } else { "" };
    format!(
        "[control]\nsocket = {:?}\nstate_dir = \"/dev/shm/shunt-bench-{}\"\n\
         [[worker]]\nname = \"w0\"\ncpu = 0\npoll = \"busy\"\n\
         [[port]]\nname = \"a\"\nsocket = {a:?}\n[[port]]\nname = \"b\"\nsocket = {b:?}\n{wires}",
        directory.file("control.sock"),
        std::process::id()
    )
}

fn testpmd([a, b]: &[PathBuf; 2]) -> Command {
    let mut command = Command::new("dpdk-testpmd");
    command.args(["--lcores", "0@0,1@0", "-m", "256", "--no-pci", "--single-file-segments", "--no-telemetry"]);
    command.arg(format!("--file-prefix=shunt-bench-{}", std::process::id()));
    command.args(["--vdev", &format!("net_vhost0,iface={}", a.display())]);
    command.args(["--vdev", &format!("net_vhost1,iface={}", b.display()), "--"]);
    command.args(["--forward-mode=io", "--total-num-mbufs=16384", "--auto-start", "--record-core-cycles"]);
    command.args(["--stats-period=3600", "--txd=1024", "--rxd=1024"]);
    command
}

/// A database, a daemon and two flows, in a shell because that is how OVS is operated; it ends with its own statistics.
fn ovs(directory: &Scratch, [a, b]: &[PathBuf; 2]) -> Result<Command> {
    const SCRIPT: &str = r#"
set -eu
export OVS_RUNDIR=$DIR OVS_LOGDIR=$DIR OVS_DBDIR=$DIR
daemon=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
db=unix:$DIR/db.sock
ovsdb-tool create $DIR/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server $DIR/conf.db --remote=p$db --pidfile=$DIR/db.pid --detach --log-file=$DIR/db.log
ovs-vsctl --db=$db --no-wait init
ovs-vsctl --db=$db --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask=0x1 \
  other_config:dpdk-lcore-mask=0x1 other_config:dpdk-socket-mem=256 "other_config:dpdk-extra=--no-pci --file-prefix=o$$"
$daemon $db --pidfile=$DIR/vs.pid --detach --log-file=$DIR/vs.log
ctl=$(ls $DIR/ovs-vswitchd*.ctl)
finish() {
  ovs-appctl -t $ctl dpif-netdev/pmd-stats-show || true
  kill $(cat $DIR/vs.pid) $(cat $DIR/db.pid)
  exit 0
}
trap finish TERM
ovs-vsctl --db=$db add-br br0 -- set bridge br0 datapath_type=netdev
ovs-vsctl --db=$db add-port br0 p1 -- set Interface p1 type=dpdkvhostuserclient options:vhost-server-path=$A ofport_request=1 mtu_request=9000
ovs-vsctl --db=$db add-port br0 p2 -- set Interface p2 type=dpdkvhostuserclient options:vhost-server-path=$B ofport_request=2 mtu_request=9000
ovs-ofctl del-flows unix:$DIR/br0.mgmt
ovs-ofctl add-flow unix:$DIR/br0.mgmt in_port=1,actions=output:2
ovs-ofctl add-flow unix:$DIR/br0.mgmt in_port=2,actions=output:1
touch $DIR/ready
while :; do sleep 0.2; done
"#;
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT]).env("DIR", directory.path()).env("A", a).env("B", b);
    Ok(command)
}

/// Busy cycles per packet of our node, over its life, which is this run.
fn our_cycles(directory: &Scratch) -> Result<Option<f64>> {
    let output =
        Command::new(shunt()).args(["stats", "--json", "--control"]).arg(directory.file("control.sock")).output()?;
    ensure!(output.status.success(), "stats: {}", String::from_utf8_lossy(&output.stderr).trim());
    let stats: Value = serde_json::from_slice(&output.stdout)?;
    let sum = |key: &str| {
        let workers = stats["workers"].as_array().into_iter().flatten();
        workers.filter_map(|worker| worker[key].as_f64()).sum::<f64>()
    };
    Ok((sum("packets") > 0.0).then(|| sum("busy_cycles") / sum("packets")))
}

/// What the peers print of themselves: testpmd `CPU cycles/packet=…`, OVS `avg processing cycles per packet: …`.
fn peer_cycles(kind: Kind, output: &str) -> Option<f64> {
    let marker = if kind == Kind::Testpmd { "CPU cycles/packet=" } else { "avg processing cycles per packet:" };
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
