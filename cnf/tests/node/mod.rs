// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real node in this process, whose ports are wired in pairs.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use backend::config::{Config, ControlConfig, CrossConnect, Name, PollMode, PortConfig, SocketPath, WorkerConfig};
use backend::{Node, stats::PortState};
use cnf::{Event, Link, Queue};
use tempfile::TempDir;

/// How long anything may take on a loaded machine. Nothing waits for so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node that knows nothing of aggregation on its wires: what one end sends, the other one gets.
pub(crate) struct Wires {
    node: Option<Node>,
    config: Config,
    dir: TempDir,
}

impl Wires {
    /// Ports `a0` and `b0` are wired, `a1` and `b1`, and so on.
    pub(crate) fn start(count: usize, queues: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = ControlConfig {
            socket: SocketPath::new(dir.path().join("control.sock")).unwrap(),
            state_dir: dir.path().join("state"),
            ..ControlConfig::default()
        };
        let workers = vec![WorkerConfig { name: Name::new("w0").unwrap(), cpu: None, poll: PollMode::Adaptive }];
        let mut config = Config { control, workers, ..Config::default() };
        for index in 0..count {
            let names = ["a", "b"].map(|side| Name::new(format!("{side}{index}")).unwrap());
            for name in &names {
                let mut port = PortConfig::vhost_user(name.clone(), dir.path().join(format!("{name}.sock"))).unwrap();
                port.guest_mut().unwrap().queues = queues;
                config.ports.push(port);
            }
            config.crossconnects.push(CrossConnect { ports: names });
        }
        let node = Some(Node::start(&config).unwrap());
        Self { node, config, dir }
    }

    pub(crate) fn socket(&self, port: &str) -> PathBuf {
        self.dir.path().join(format!("{port}.sock"))
    }

    pub(crate) fn wait_until_up(&self) {
        let handle = self.node.as_ref().unwrap().handle();
        until("all ports are up", || handle.ports().unwrap().iter().all(|port| port.state == PortState::Up));
    }

    /// Stops it and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.node = Some(Node::start(&self.config).unwrap());
    }

    pub(crate) fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }
}

/// Polls until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        yield_now();
    }
}

/// A link with its queues, and what it told.
pub(crate) struct End {
    pub(crate) link: Link,
    pub(crate) queues: Vec<Queue>,
    pub(crate) told: Vec<Event>,
}

impl End {
    pub(crate) fn attach(config: cnf::LinkConfig) -> Self {
        let (link, queues) = Link::attach(config).unwrap();
        Self { link, queues, told: Vec::new() }
    }

    /// Does what is due.
    pub(crate) fn tend(&mut self) {
        self.told.extend(self.link.tend());
        self.queues.iter_mut().for_each(Queue::flush);
    }

    pub(crate) fn is_aggregating(&self) -> bool {
        let last = self.told.iter().rev().find(|event| !matches!(event, Event::NotYet { .. }));
        matches!(last, Some(Event::Aggregating { .. }))
    }
}
