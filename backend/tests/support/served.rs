// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A node that is asked over its control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use backend::control::ControlServer;
use backend::policy::{PolicyStore, tell_events};
use serde_json::Value;

use super::{NodeSpec, PATIENCE, TestNode};

/// A node with its control API.
pub(crate) struct Served {
    pub(crate) socket: PathBuf,
    teller: JoinHandle<()>,
    server: ControlServer,
    pub(crate) node: TestNode,
}

impl Served {
    pub(crate) fn start(spec: NodeSpec) -> Self {
        let node = spec.start();
        let policy = Arc::new(PolicyStore::new(Arc::new(node.handle())));
        let teller = tell_events(node.handle(), Arc::clone(&policy)).expect("a thread");
        let config = &node.config.control;
        let server = ControlServer::start(config, &[], Arc::new(node.handle()), policy).expect("served");
        Self { socket: config.socket.to_path_buf(), teller, server, node }
    }

    /// One request of a controller.
    pub(crate) fn ask(&self, controller: &str, request: &str, body: &Value) -> (u16, Value) {
        let (status, answer) = self.text(controller, request, &body.to_string());
        (status, serde_json::from_str(&answer).expect("JSON"))
    }

    /// What the node's owner is told at a path.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.page(path)).expect("JSON")
    }

    /// The same, as text.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> String {
        let (status, text) = self.text("test", &format!("GET {path}"), "");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// A request that succeeds, with the version that it leads to.
    #[track_caller]
    pub(crate) fn version(&self, controller: &str, request: &str, body: &Value) -> u64 {
        let (status, answer) = self.ask(controller, request, body);
        assert_eq!(status, 200, "{answer}");
        answer["version"].as_u64().expect("a version")
    }

    fn text(&self, controller: &str, request: &str, body: &str) -> (u16, String) {
        let mut stream = connect(&self.socket, controller, request, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
    }

    pub(crate) fn stop(self) {
        self.server.stop();
        drop(self.node);
        self.teller.join().expect("no panic");
    }
}

fn connect(socket: &Path, controller: &str, request: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: n\r\nConnection: close\r\nShunt-Controller: {controller}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
    stream
}

/// Hears what concerns a controller, once it is sure to be heard.
pub(crate) fn listen(socket: &Path, controller: &str) -> impl Iterator<Item = Value> + use<> {
    let stream = connect(socket, controller, &format!("GET /events?controller={controller}"), "");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    assert!(lines.any(|line| line == ":"), "the stream begins");
    lines.filter_map(|line| line.strip_prefix("data: ").map(|data| serde_json::from_str(data).expect("JSON")))
}
