// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A node in this process, in a directory of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::yield_now;
use std::time::Instant;

use backend::config::{
    Config, ControlConfig, CrossConnect, Name, PollMode, PortConfig, Role, SocketPath, WorkerConfig,
};
use backend::stats::{PortState, PortStatus, Stats};
use backend::{Node, NodeHandle};
use tempfile::TempDir;

use super::{PATIENCE, until};

/// What a node is to be. By default two adaptive workers and no ports.
#[derive(Debug)]
pub(crate) struct NodeSpec {
    dir: TempDir,
    config: Config,
}

/// A running node and its directory.
#[derive(Debug)]
pub(crate) struct TestNode {
    node: Option<Node>,
    dir: TempDir,
    pub(crate) config: Config,
}

/// A port by name and socket: one queue pair, all workers, server.
pub(crate) fn port(name: &str, socket: PathBuf) -> PortConfig {
    PortConfig::vhost_user(Name::new(name).expect("name"), socket).expect("socket path")
}

impl NodeSpec {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let control = ControlConfig {
            socket: SocketPath::new(dir.path().join("control.sock")).expect("socket path"),
            state_dir: dir.path().join("state"),
            http: None,
            http_allow_remote: false,
        };
        Self { dir, config: Config { control, ..Config::default() } }.workers(2, PollMode::Adaptive)
    }

    pub(crate) fn workers(mut self, count: usize, poll: PollMode) -> Self {
        let worker = |n| WorkerConfig { name: Name::new(format!("w{n}")).expect("name"), cpu: None, poll };
        self.config.workers = (0..count).map(worker).collect();
        self
    }

    /// Worker `n` runs on this CPU only.
    pub(crate) fn pinned(mut self, n: usize, cpu: usize) -> Self {
        self.config.workers[n].cpu = Some(cpu);
        self
    }

    pub(crate) fn port(self, name: &str) -> Self {
        self.port_with(name, |_| {})
    }

    /// A port served by one worker.
    pub(crate) fn port_on(self, name: &str, worker: usize) -> Self {
        self.port_with(name, |port| port.workers = vec![Name::new(format!("w{worker}")).expect("name")])
    }

    /// A port on whose socket the front end listens.
    pub(crate) fn client(self, name: &str) -> Self {
        self.port_with(name, |port| port.guest_mut().expect("vhost-user").role = Role::Client)
    }

    pub(crate) fn port_with(mut self, name: &str, change: impl FnOnce(&mut PortConfig)) -> Self {
        let mut port = port(name, self.dir.path().join(format!("{name}.sock")));
        change(&mut port);
        self.config.ports.push(port);
        self
    }

    pub(crate) fn wired(mut self, a: &str, b: &str) -> Self {
        let ports = [a, b].map(|name| Name::new(name).expect("name"));
        self.config.crossconnects.push(CrossConnect { ports });
        self
    }

    pub(crate) fn start(self) -> TestNode {
        let Self { dir, config } = self;
        let node = Node::start(&config).expect("node");
        TestNode { node: Some(node), dir, config }
    }
}

impl TestNode {
    /// Two wired ports "a" and "b" of one worker.
    pub(crate) fn pair() -> Self {
        NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b").wired("a", "b").start()
    }

    /// Bridged ports of one worker.
    pub(crate) fn bridge(names: &[&str]) -> Self {
        let spec = NodeSpec::new().workers(1, PollMode::Adaptive);
        names.iter().fold(spec, |spec, name| spec.port(name)).start()
    }

    pub(crate) fn handle(&self) -> NodeHandle {
        self.node.as_ref().expect("running").handle()
    }

    /// The socket of a port.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.config.control.state_dir.clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.handle().stats().expect("stats")
    }

    pub(crate) fn status(&self, name: &str) -> PortStatus {
        let all = self.handle().ports().expect("ports");
        all.into_iter().find(|port| port.name == name).unwrap_or_else(|| panic!("no port {name}"))
    }

    #[track_caller]
    pub(crate) fn drops(&self, name: &str, cause: &str) -> u64 {
        count(&self.status(name).drops, cause)
    }

    #[track_caller]
    pub(crate) fn errors(&self, name: &str, cause: &str) -> u64 {
        count(&self.status(name).errors, cause)
    }

    /// Waits until a port is in a state.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, state: PortState) {
        until(&format!("{name} is {state}"), || (self.status(name).state == state).then_some(()));
    }

    /// Waits until a port's drop counter is `n`, then makes sure that it is no more.
    #[track_caller]
    pub(crate) fn wait_for_drops(&self, name: &str, cause: &str, n: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.drops(name, cause) < n && Instant::now() < deadline {
            yield_now();
        }
        assert_eq!(self.drops(name, cause), n, "{cause} at {name}: {:?}", self.status(name).drops);
    }

    #[track_caller]
    pub(crate) fn wait_for_errors(&self, name: &str, cause: &str, n: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.errors(name, cause) < n && Instant::now() < deadline {
            yield_now();
        }
        assert_eq!(self.errors(name, cause), n, "{cause} at {name}: {:?}", self.status(name).errors);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }

    /// The same node once more: same sockets, same state directory.
    pub(crate) fn start_again(&mut self) {
        assert!(self.node.is_none(), "still running");
        self.node = Some(Node::start(&self.config).expect("node"));
    }
}

fn count(counts: &BTreeMap<String, u64>, cause: &str) -> u64 {
    counts.get(cause).copied().unwrap_or(0)
}
