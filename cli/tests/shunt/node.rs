// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running node, and the commands to it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Node, fails, shunt, wait_until};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Name, role and state of each port.
fn ports(node: &Node) -> Vec<(String, String, String)> {
    let text = |port: &Value, key: &str| port[key].as_str().expect("text").to_owned();
    let list = json_of(&node.ask(&["port", "list", "--json"]));
    let ports = list.as_array().expect("an array").iter();
    ports.map(|port| (text(port, "name"), text(port, "role"), text(port, "state"))).collect()
}

fn port(name: &str, role: &str, state: &str) -> (String, String, String) {
    (name.to_owned(), role.to_owned(), state.to_owned())
}

#[test]
fn ports_come_and_go_on_the_live_node() {
    let mut node = Node::start();
    let configured = [port("vm0", "server", "listening"), port("vm1", "client", "connecting")];
    assert_eq!(ports(&node), configured);
    let socket = node.path("vm2.sock");
    let path = socket.to_str().expect("text").to_owned();
    let limits = ["--max-flows", "1000", "--max-unconfirmed-flows", "100", "--plans-per-second", "50"];
    let command = ["port", "add", "vm2", "--socket", &path, "--queues", "4", "--workers", "w0"];
    let aggregation = ["--aggregate", "false", "--trusted", "true", "--tx-aggr-max-bytes", "1500"];
    let more = ["--tx-aggr-max-frames", "20", "--tx-aggr-time-usecs", "50", "--template", "true"];
    let added = node.ask(&[&command[..], &limits, &aggregation, &more].concat());
    assert_eq!(added, format!("port vm2 is listening on {path}\n"));
    let [vm0, vm1] = configured.clone();
    assert_eq!(ports(&node), [vm0, vm1, port("vm2", "server", "listening")]);
    let guest = UnixStream::connect(&socket).expect("it listens");
    wait_until("the port to see its guest", || ports(&node)[2].2 == "connected");
    assert_eq!(node.ask(&["port", "remove", "vm2"]), "port vm2 is removed\n");
    assert_eq!((&guest).read(&mut [0]).expect("disconnected"), 0);
    assert!(!socket.exists());
    assert_eq!(ports(&node), configured);
    assert_eq!(node.terminate(), Some(0));
    for name in ["control.sock", "vm0.sock"] {
        assert!(!node.path(name).exists(), "{name} is left behind");
    }
}

#[test]
fn refusals_name_the_port() {
    let node = Node::start();
    let taken = node.path("taken.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&taken).expect("bound");
    let path = taken.to_str().expect("text");
    assert_eq!(node.refuses(&["port", "remove", "vm9"]), "there is no port \"vm9\"");
    assert_eq!(node.refuses(&["port", "add", "vm0", "--socket", "/tmp/x"]), "port \"vm0\" exists already");
    let message = node.refuses(&["port", "add", "vm2", "--socket", "/tmp/x", "--workers", "w0,w7"]);
    assert_eq!(message, "port \"vm2\" names worker \"w7\", which does not exist");
    for socket in [path, "/nonexistent/x.sock"] {
        let message = node.refuses(&["port", "add", "vm2", "--socket", socket]);
        assert!(message.starts_with("port \"vm2\"") && message.contains(socket), "{message}");
    }
    assert_eq!(ports(&node).len(), 2);
}

/// The only kind of uplink that needs neither an interface nor a capability.
#[test]
fn an_uplink_over_udp_is_added_and_shown() {
    let node = Node::start();
    let free = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address");
    let (local, peer) = (free().to_string(), free().to_string());
    let add = |name: &'static str| ["port", "add", name, "--local", &local, "--peer", &peer, "--mtu", "1400"];
    let place = format!("{local} > {peer}");
    assert_eq!(node.ask(&add("east")), format!("port east is up on {place}\n"));
    assert_eq!(node.refuses(&add("west")), format!("port \"west\": path {place} is that of port \"east\""));
    let list = node.ask(&["port", "list"]);
    let row = list.lines().find(|line| line.starts_with("east")).expect("listed");
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["east", "udp", "up"]);
    assert!(row.ends_with(&place), "{row}");
    let stats = json_of(&node.ask(&["stats", "--json"]));
    let uplink = &stats["ports"][0]["uplink"];
    assert_eq!([&uplink["local"], &uplink["peer"], &uplink["mtu"]], [&json!(local), &json!(peer), &json!(1400)]);
    assert!(uplink["interface"].is_null() && uplink["xdp"].is_null(), "{uplink}");
    node.ask(&["port", "remove", "east"]);
    assert_eq!(node.ask(&add("west")), format!("port west is up on {place}\n"));
}

/// What passes is compared where there are guests (backend/tests/inspect.rs).
#[test]
fn a_capture_is_a_file_once_the_node_has_agreed() {
    let node = Node::start();
    let (file, control) = (node.path("vm0.pcapng"), node.path("control.sock"));
    let [path, control] = [&file, &control].map(|path| path.to_str().expect("text"));
    assert_eq!(node.refuses(&["capture", "vm9", "--write", path]), "there is no port \"vm9\"");
    let message = node.refuses(&["capture", "vm0", "--queue", "3", "--write", path]);
    assert_eq!(message, "port \"vm0\" has no queue pair 3: they are 0 to 0");
    assert!(!file.exists());
    let captured = shunt(&["capture", "vm0", "--seconds", "1", "--write", path, "--control", control]);
    let said = String::from_utf8(captured.stderr).expect("text");
    assert_eq!((captured.status.code(), said.as_str()), (Some(0), "0 packets captured, 0 lost for want of room\n"));
    let written = std::fs::read(&file).expect("a file");
    assert!(captured.stdout.is_empty() && written.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]), "{written:x?}");
    let piped = shunt(&["capture", "vm0", "--seconds", "1", "--write", "-", "--control", control]);
    assert_eq!((piped.status.code(), piped.stdout), (Some(0), written));
    assert_eq!(node.refuses(&["trace", "drops", "--port", "vm9"]), "there is no port \"vm9\"");
}

#[test]
fn tables_are_for_people_and_json_for_scripts() {
    let node = Node::start();
    let list = node.ask(&["port", "list"]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    let (vm0, vm1) = (node.path("vm0.sock"), node.path("vm1.sock"));
    let expected = [
        ["PORT", "KIND", "STATE", "RING", "PAIRS", "ROLE", "PLACE"],
        ["vm0", "vhost-user", "listening", "-", "0", "server", vm0.to_str().expect("text")],
        ["vm1", "vhost-user", "connecting", "-", "0", "client", vm1.to_str().expect("text")],
    ];
    assert_eq!(rows, expected);

    let stats = json_of(&node.ask(&["stats", "--json"]));
    assert!(stats["uptime_s"].as_f64().expect("seconds") > 0.0);
    assert_eq!(stats["workers"][0]["name"], "w0");
    assert_eq!(stats["workers"][0]["poll"], "adaptive");
    let mut port = stats["ports"][0].clone();
    // Every cause is listed, with nothing counted yet.
    for counts in ["drops", "errors"] {
        let counts = port[counts].take();
        assert!(counts.as_object().expect("counts").values().all(|count| *count == 0), "{counts}");
    }
    let aggregation = port["aggregation"].take();
    let counts =
        ["rx_aggregates", "rx_packets", "tx_aggregates", "tx_packets"].map(|count| aggregation[count].as_u64());
    assert_eq!(counts, [Some(0); 4], "{aggregation}");
    let expected = json!({
        "name": "vm0", "kind": "vhost-user", "role": "server", "socket": vm0, "state": "listening",
        "ring": null, "features": [], "queue_pairs": 0, "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0,
        "drops": null, "errors": null, "notifications": 0,
        "aggregation": null
    });
    assert_eq!(port, expected);

    let text = node.ask(&["stats"]);
    for part in ["up 00:00:", "\nWORKER ", "\nw0 ", "\nPORT ", "\nvm0 ", "\nvm1 ", "\nbridge: 0 of "] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = node.ask(&["top", "--count", "2"]);
    assert_eq!(text.matches("PORT ").count(), 2, "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn the_socket_can_come_from_the_environment_and_output_may_be_closed() {
    let node = Node::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
    command.arg("stats").env("SHUNT_CONTROL", node.control()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().expect("shunt runs");
    assert!(output.status.success() && output.stdout.starts_with(b"up "));
    let mut child = command.spawn().expect("shunt runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_second_node_of_the_same_configuration_is_refused_and_harms_nothing() {
    let node = Node::start();
    let config = node.path("node.toml");
    let message = fails(1, &["run", "--log", "off", "--config", config.to_str().expect("text")]);
    assert_eq!(message, format!("cannot listen on {}: another process does", node.control()));
    assert_eq!(ports(&node).len(), 2);
    UnixStream::connect(node.path("vm0.sock")).expect("the first one still listens");
}

#[test]
fn a_killed_node_starts_again_where_it_was() {
    let mut node = Node::start();
    for _ in 0..3 {
        node.kill_and_start_again();
        assert_eq!(ports(&node).len(), 2);
    }
    assert_eq!(node.terminate(), Some(0));
}
