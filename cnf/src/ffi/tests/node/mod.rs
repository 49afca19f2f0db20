// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A real node in this process, whose ports are wired in pairs.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

use backend::config::{Config, ControlConfig, CrossConnect, Name, PollMode, PortConfig, SocketPath, WorkerConfig};
use backend::{Node, stats::PortState};
use tempfile::TempDir;

use crate::wires::until;

/// A running node.
pub(crate) struct Wired {
    node: Option<Node>,
    config: Config,
    dir: TempDir,
}

impl Wired {
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
