// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policies, as a controller writes them, and the controller.
//!
//! Layer `acl` of a large port has one group of [`RULES`] rules, a prefix of the server's address times a range of the
//! client's port, of which each connection meets one of its own. It comes in generations: each has other rules that say the
//! same, and lets through one probe that no other generation lets through. Layer `net` has one rule, met by all. The other
//! layers have 200 rules for either direction and remember nothing.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) const CONTROLLER: &str = "test";
const NETWORKS: u32 = 250;
/// Ports of a range.
const RANGE: u32 = 280;
/// Above those of tunnels: what is for one of those is read as one.
const FIRST_PORT: u32 = 7000;
pub(crate) const RULES: u32 = 50_000;
/// Layers besides `acl` and `net`.
const MORE_LAYERS: u32 = 3;
pub(crate) const CLIENT: [u8; 4] = [10, 0, 0, 1];
pub(crate) const PROBE: ([u8; 4], u16) = ([203, 0, 113, 9], 777);

/// The client's port and the server's address of a connection.
pub(crate) fn ends(connection: u32) -> (u16, [u8; 4]) {
    let (network, slice) = (connection % NETWORKS, connection / NETWORKS);
    let port = FIRST_PORT + slice * RANGE + connection * 11 % RANGE;
    (u16::try_from(port).expect("a port"), server(network))
}

/// The destination port that a generation lets through.
pub(crate) fn probe_port(generation: u32) -> u16 {
    u16::try_from(10_000 + generation).expect("a port")
}

fn server(network: u32) -> [u8; 4] {
    let [_, _, high, low] = network.to_be_bytes();
    [198, 18 + high, low, 1]
}

/// The large group.
pub(crate) fn large_group(generation: u32) -> String {
    let priority = 1 + generation % 2;
    let [a, b, c, d] = PROBE.0;
    let mut body = format!(
        r#"{{"rule": [{{"name": "probe", "priority": 1, "dir": "out", "match": {{"dst_ip": "{a}.{b}.{c}.{d}", "dst_port": {}}},
            "action": {{"type": "allow"}}}}"#,
        probe_port(generation)
    );
    for n in 0..RULES {
        let ([a, b, c, _], low) = (server(n % NETWORKS), FIRST_PORT + n / NETWORKS * RANGE);
        let high = low + RANGE - 1;
        write!(
            body,
            r#",{{"name": "r{n}", "priority": {priority}, "dir": "out", "match": {{"dst_ip": "{a}.{b}.{c}.0/24", "src_port": "{low}-{high}"}},
                "action": {{"type": "allow", "stateful": true, "idle_s": 3600}}}}"#
        )
        .expect("memory");
    }
    body + "]}"
}

/// The group of one rule that all connections meet.
pub(crate) fn common_group(generation: u32) -> String {
    let action = r#"{"type": "allow", "stateful": true, "idle_s": 3600}"#;
    format!(r#"{{"rule": [{{"name": "all", "priority": {}, "dir": "out", "action": {action}}}]}}"#, 1 + generation)
}

/// A controller of the node, on its socket.
pub(crate) struct Client {
    pub(crate) socket: PathBuf,
}

impl Client {
    /// A port with a group of so many rules.
    pub(crate) fn make_large(&self, port: &str) {
        self.put_layer(port, "acl", 0, "block");
        self.put_group(port, "acl", &large_group(0));
        self.put_layer(port, "net", 1, "block");
        self.put_group(port, "net", &common_group(0));
        for at in 2..2 + MORE_LAYERS {
            let layer = format!("layer{at}");
            self.put_layer(port, &layer, at, "block");
            self.put_group(port, &layer, &ports_of_the_client());
        }
    }

    /// A port that anybody may speak to, and that answers.
    pub(crate) fn make_server(&self, port: &str) {
        self.put_layer(port, "guard", 0, "block");
        let action = r#"{"type": "allow", "stateful": true, "idle_s": 3600}"#;
        self.put_group(port, "guard", &format!(r#"{{"rule": [{{"name": "in", "dir": "in", "action": {action}}}]}}"#));
    }

    fn put_layer(&self, port: &str, layer: &str, order: u32, default: &str) {
        let body = format!(r#"{{"order": {order}, "default": "{default}"}}"#);
        self.put(&format!("/ports/{port}/layers/{layer}"), &body);
    }

    /// Replaces the group of a layer; how long it took until the answer.
    pub(crate) fn put_group(&self, port: &str, layer: &str, body: &str) -> Duration {
        self.put(&format!("/ports/{port}/layers/{layer}/groups/g"), body)
    }

    fn put(&self, path: &str, body: &str) -> Duration {
        let begin = Instant::now();
        let mut stream = UnixStream::connect(&self.socket).expect("the control socket");
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: node\r\nShunt-Controller: {CONTROLLER}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        begin.elapsed()
    }
}

/// All ports of the client, cut into 200 ranges, for either direction.
fn ports_of_the_client() -> String {
    let mut rules = Vec::new();
    for n in 0..200 {
        let [low, high] = [n * 65_536 / 200, (n + 1) * 65_536 / 200 - 1];
        for (direction, field) in [("out", "src_port"), ("in", "dst_port")] {
            rules.push(format!(
                r#"{{"name": "{direction}{n}", "dir": "{direction}", "match": {{"{field}": "{low}-{high}"}}, "action": {{"type": "allow"}}}}"#
            ));
        }
    }
    format!(r#"{{"rule": [{}]}}"#, rules.join(","))
}
