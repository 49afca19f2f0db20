// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `shunt` binary as a daemon: its configuration, its statistics, its restarts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::exchange::{Backend, BackendCounts};
use crate::netns::NetNs;
use crate::process::{self, Process};
use crate::scenario::WorkDir;
use crate::testpmd::PortCounts;
use crate::wait::wait_until;

/// How long the node may take from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a port may take to come up once a guest is there.
const UP_LIMIT: Duration = Duration::from_secs(30);

/// One vhost-user port of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The port's name; its socket is `<name>.sock` in the test's directory.
    pub name: String,
    /// The node connects to the guest's socket instead of listening.
    pub client: bool,
    /// Queue pairs.
    pub queues: u16,
    /// Further lines of its table.
    pub extra: String,
}

impl PortConfig {
    /// A listening port with one queue pair.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), client: false, queues: 1, extra: String::new() }
    }
}

/// One uplink of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// The port's name.
    pub name: String,
    /// `af-packet`, `af-xdp`, `tap` or `udp`.
    pub kind: String,
    /// Its interface, in the node's namespace; empty: it has none.
    pub interface: String,
    /// Further lines of its table.
    pub extra: String,
}

impl UplinkConfig {
    /// An uplink of this kind, on an interface.
    pub fn new(name: &str, kind: &str, interface: &str) -> Self {
        Self { name: name.to_owned(), kind: kind.to_owned(), interface: interface.to_owned(), extra: String::new() }
    }
}

/// What a node is configured with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The ports.
    pub ports: Vec<PortConfig>,
    /// Pairs of ports that are wired back to back; the others form a bridge.
    pub crossconnects: Vec<[String; 2]>,
    /// Interfaces of the kernel.
    pub uplinks: Vec<UplinkConfig>,
    /// `poll` of the workers; empty means the default.
    pub poll: String,
    /// Workers `w1` and so on besides `w0`, which is the only one that is pinned.
    pub more_workers: usize,
    /// Further tables of the file.
    pub extra: String,
}

impl NodeConfig {
    /// Ports of these names that form a bridge.
    pub fn bridge(names: &[&str]) -> Self {
        Self { ports: names.iter().map(|n| PortConfig::new(n)).collect(), ..Self::default() }
    }

    /// As [`bridge`](Self::bridge), the first two wired back to back.
    pub fn crossconnect(names: &[&str; 2]) -> Self {
        Self { crossconnects: vec![names.map(str::to_owned)], ..Self::bridge(names) }
    }

    fn to_toml(&self, work: &WorkDir) -> Result<String> {
        let path = |name: &str| work.file(name).display().to_string();
        let mut text = String::new();
        writeln!(text, "[control]\nsocket = {:?}\nstate_dir = {:?}", path("control.sock"), path("state"))?;
        for worker in 0..=self.more_workers {
            writeln!(text, "\n[[worker]]\nname = \"w{worker}\"")?;
            if worker == 0 {
                writeln!(text, "cpu = 0")?;
            }
            if !self.poll.is_empty() {
                writeln!(text, "poll = {:?}", self.poll)?;
            }
        }
        for port in &self.ports {
            let role = if port.client { "client" } else { "server" };
            let socket = path(&format!("{}.sock", port.name));
            writeln!(
                text,
                "\n[[port]]\nname = {:?}\nkind = \"vhost-user\"\nsocket = {socket:?}\nrole = {role:?}\nqueues = {}",
                port.name, port.queues
            )?;
            writeln!(text, "{}", port.extra)?;
        }
        for uplink in &self.uplinks {
            let UplinkConfig { name, kind, interface, extra } = uplink;
            writeln!(text, "\n[[port]]\nname = {name:?}\nkind = {kind:?}\n{extra}")?;
            if !interface.is_empty() {
                writeln!(text, "interface = {interface:?}")?;
            }
        }
        for pair in &self.crossconnects {
            writeln!(text, "\n[[crossconnect]]\nports = {pair:?}")?;
        }
        text.push_str(&self.extra);
        Ok(text)
    }
}

/// What `shunt stats --json` says, as far as tests look at it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Stats {
    /// One entry per port.
    pub ports: Vec<PortStats>,
}

/// One port of [`Stats`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PortStats {
    /// Its name.
    pub name: String,
    /// `listening`, `connecting`, `connected` or `up`.
    pub state: String,
    /// The negotiated layout, `packed` or `split`.
    pub ring: Option<String>,
    /// Names of the negotiated features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Queue pairs that the front end enabled.
    #[serde(default)]
    pub queue_pairs: u16,
    /// Frames received from the guest.
    pub rx_packets: u64,
    /// Frames delivered to the guest.
    pub tx_packets: u64,
    /// Frames dropped, by cause.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// What went wrong, by cause.
    #[serde(default)]
    pub errors: BTreeMap<String, u64>,
    /// What came and went in aggregates.
    #[serde(default)]
    pub aggregation: AggregationStats,
    /// What only uplinks have.
    pub uplink: Option<UplinkStats>,
}

/// What a port received and sent in aggregates.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct AggregationStats {
    /// Aggregates received.
    pub rx_aggregates: u64,
    /// Packets in them.
    pub rx_packets: u64,
    /// Groups received that went on whole.
    pub rx_groups_spliced: u64,
    /// Packets in them.
    pub rx_packets_spliced: u64,
    /// Aggregates sent.
    pub tx_aggregates: u64,
    /// Packets in them.
    pub tx_packets: u64,
    /// Frames sent that negotiate.
    pub tx_control: u64,
    /// What was not taken, by cause.
    pub damages: BTreeMap<String, u64>,
    /// What became of those that speak aggregates.
    pub peers: BTreeMap<String, u64>,
}

/// What an uplink counts besides.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct UplinkStats {
    /// Its MAC address.
    pub mac: Option<String>,
    /// Longest IP packet that is sent.
    pub mtu: Option<u16>,
    /// Frames received that were unfinished.
    pub rx_unfinished: u64,
    /// Frames received that were longer than a link takes.
    pub rx_oversized: u64,
    /// What those were cut into.
    pub segments: u64,
    /// Stations of the link.
    pub neighbors: Vec<NeighborStats>,
    /// Requests answered.
    pub neighbors_answered: u64,
    /// Packets that wait for a neighbour.
    pub parked: u64,
    /// How an AF_XDP socket exchanges frames.
    pub xdp: Option<XdpStats>,
}

/// How an AF_XDP socket exchanges frames.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct XdpStats {
    /// `native` or `generic`.
    pub mode: String,
    /// The device has part in the memory.
    pub zero_copy: bool,
    /// Frames may be in several chunks.
    pub multi_buffer: bool,
}

/// A neighbour of an uplink.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct NeighborStats {
    /// Its IP address.
    pub ip: String,
    /// Its MAC address.
    pub mac: Option<String>,
    /// What is known of it.
    pub state: String,
}

impl PortStats {
    /// What it counts as an uplink.
    pub fn uplink(&self) -> Result<&UplinkStats> {
        self.uplink.as_ref().with_context(|| format!("{} is no uplink", self.name))
    }

    /// Frames dropped for one cause.
    pub fn dropped(&self, cause: &str) -> u64 {
        self.drops.get(cause).copied().unwrap_or(0)
    }
}

impl Stats {
    /// The port of that name.
    pub fn port(&self, name: &str) -> Result<&PortStats> {
        self.ports.iter().find(|p| p.name == name).with_context(|| format!("no port {name} in {self:?}"))
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    dir: PathBuf,
    ports: Vec<String>,
    prefix: Vec<OsString>,
    process: Process,
}

impl Node {
    /// Writes the configuration, starts the node and waits until it answers.
    pub fn start(work: &WorkDir, config: &NodeConfig) -> Result<Self> {
        Self::start_with(work, config, Vec::new())
    }

    /// As [`start`](Self::start), in a namespace.
    pub fn start_in(work: &WorkDir, config: &NodeConfig, ns: &NetNs) -> Result<Self> {
        Self::start_with(work, config, ns.command(&[]))
    }

    fn start_with(work: &WorkDir, config: &NodeConfig, prefix: Vec<OsString>) -> Result<Self> {
        fs::write(work.file("node.toml"), config.to_toml(work)?)?;
        fs::create_dir_all(work.file("state"))?;
        let mut node = Self {
            dir: work.path().to_owned(),
            ports: config.ports.iter().map(|p| p.name.clone()).collect(),
            process: launch(work, &prefix)?,
            prefix,
        };
        node.answers()?;
        Ok(node)
    }

    /// Starts it again after [`terminate`](Self::terminate) or [`kill`](Self::kill).
    pub fn start_again(&mut self, work: &WorkDir) -> Result<()> {
        self.process = launch(work, &self.prefix)?;
        self.answers()
    }

    /// The socket of a port.
    pub fn socket(&self, port: &str) -> PathBuf {
        self.dir.join(format!("{port}.sock"))
    }

    /// What it counts now.
    pub fn stats(&self) -> Result<Stats> {
        let control = self.dir.join("control.sock");
        let text = process::run(&[
            binary()?.as_os_str(),
            "stats".as_ref(),
            "--json".as_ref(),
            "--control".as_ref(),
            control.as_os_str(),
        ])?;
        serde_json::from_str(&text).with_context(|| format!("not the statistics we know: {text}"))
    }

    /// What one port counts now.
    pub fn port(&self, name: &str) -> Result<PortStats> {
        Ok(self.stats()?.port(name)?.clone())
    }

    /// Waits until a port has received `frames` more frames from its guest.
    pub fn wait_received(&self, port: &str, frames: u64) -> Result<()> {
        let goal = self.port(port)?.rx_packets + frames;
        wait_until(&format!("{frames} frames from {port}"), UP_LIMIT, || Ok(self.port(port)?.rx_packets >= goal))
    }

    /// Waits until the named ports are up.
    pub fn wait_up(&self, ports: &[&str]) -> Result<()> {
        wait_until(&format!("ports {ports:?} to be up"), UP_LIMIT, || {
            let stats = self.stats()?;
            Ok(ports.iter().all(|p| stats.port(p).is_ok_and(|p| p.state == "up")))
        })
    }

    /// Stops it with SIGTERM; it must end well.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.process.terminate()?;
        if !status.success() {
            bail!("the node ended with {status} after SIGTERM");
        }
        Ok(())
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn answers(&mut self) -> Result<()> {
        let mut last = None;
        wait_until("the node to answer", START_LIMIT, || {
            if !self.process.is_running() {
                bail!("the node ended: {}", self.process.printed_since(self.process.born())?.trim());
            }
            last = Some(self.stats());
            Ok(matches!(last, Some(Ok(_))))
        })
        .with_context(|| match last {
            Some(Err(error)) => format!("the last answer: {error:#}"),
            _ => "no answer at all".to_owned(),
        })
    }
}

impl Backend for Node {
    fn counts(&mut self) -> Result<BackendCounts> {
        let stats = self.stats()?;
        let count = |i: usize| -> Result<PortCounts> {
            let port = stats.port(self.ports.get(i).context("a node of two ports")?)?;
            Ok(PortCounts { rx: port.rx_packets, tx: port.tx_packets })
        };
        let dropped = stats.ports.iter().flat_map(|p| p.drops.values()).sum();
        Ok(BackendCounts { left: count(0)?, right: count(1)?, dropped: Some(dropped) })
    }
}

/// The `shunt` binary: `$SHUNT_BIN`, or the release build of this workspace, which is brought up to date first (once).
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| match std::env::var_os("SHUNT_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|e| format!("{e:#}")),
    });
    built.as_deref().map_err(|e| anyhow::anyhow!("no shunt binary: {e}"))
}

fn build() -> Result<PathBuf> {
    Ok(release_build(&["--package", "shunt-cli"])?.join("shunt"))
}

/// Brings a part of the workspace up to date in its release build, and says where that is.
pub fn release_build(what: &[&str]) -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let target = target_dir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut argv = vec![cargo];
    argv.extend(["build", "--quiet", "--release"].iter().chain(what).map(Into::into));
    argv.extend(["--manifest-path".into(), manifest.into_os_string()]);
    argv.extend(["--target-dir".into(), target.clone().into_os_string()]);
    process::run(&argv)?;
    Ok(target.join("release"))
}

/// The target directory that this test itself was built in: `<target>/<profile>/deps/<test>`.
pub fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.ancestors().nth(3).map(Path::to_owned).context("the test is not in a target directory")
}

fn launch(work: &WorkDir, prefix: &[OsString]) -> Result<Process> {
    let config = work.file("node.toml");
    let mut argv = prefix.to_vec();
    argv.extend([binary()?.as_os_str(), "run".as_ref(), "--config".as_ref(), config.as_os_str()].map(Into::into));
    Process::spawn(work, "node", &argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_the_one_users_write() -> Result<()> {
        let work = WorkDir::create()?;
        let mut config = NodeConfig::crossconnect(&["vm0", "vm1"]);
        config.ports[1].client = true;
        let text = config.to_toml(&work)?;
        let dir = work.path().display();
        assert!(text.contains(&format!("socket = \"{dir}/vm1.sock\"\nrole = \"client\"\nqueues = 1\n")), "{text}");
        assert!(text.ends_with("[[crossconnect]]\nports = [\"vm0\", \"vm1\"]\n"), "{text}");
        Ok(())
    }

    #[test]
    fn statistics_with_unknown_fields_are_read() -> Result<()> {
        let text = r#"{"uptime_s": 3, "ports": [{"name": "a", "state": "up", "ring": "packed", "rx_packets": 1, "tx_packets": 2, "drops": {"no_buffers": 3}}]}"#;
        let stats: Stats = serde_json::from_str(text)?;
        assert_eq!(stats.port("a")?.drops["no_buffers"], 3);
        assert_eq!(stats.port("b").ok(), None);
        Ok(())
    }
}
