// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The API as a client sees it: real sockets, bytes in, bytes out, against a stand-in for the node.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use super::*;
use crate::config::{Aggregation, ControlConfig, ControllerConfig, FlowLimits, Name, SocketPath};
use crate::policy::PolicyStore;
use crate::policy::tests::FakeBoard;
use crate::stats::{
    AggregationStatus, BridgeStats, Bucket, Distribution, NeighborStatus, PortState, RingLayout, WorkerStats,
};

/// Remembers ports; refuses what its names say it should.
#[derive(Debug, Default)]
pub(super) struct FakeNode(Mutex<Vec<PortStatus>>);

impl Controlled for FakeNode {
    fn add_port(&self, port: PortConfig) -> Result<(), ControlError> {
        let mut ports = self.0.lock().expect("lock");
        let name = port.name.to_string();
        assert_ne!(name, "bug", "a failure inside the node");
        if ports.iter().any(|p| p.name == name) {
            return Err(ControlError::DuplicatePort { name });
        }
        port.check(&[&Name::new("w0").expect("a name")])?;
        if name == "taken" {
            return Err(ControlError::Open { name, field: "socket", cause: "port \"taken\": no room".into() });
        }
        ports.push(PortStatus::new(&port));
        Ok(())
    }

    fn remove_port(&self, name: &str) -> Result<(), ControlError> {
        let mut ports = self.0.lock().expect("lock");
        let at = ports.iter().position(|p| p.name == name);
        ports.remove(at.ok_or_else(|| ControlError::UnknownPort { name: name.to_owned() })?);
        Ok(())
    }

    fn ports(&self) -> Result<Vec<PortStatus>, ControlError> {
        Ok(self.0.lock().expect("lock").clone())
    }

    fn stats(&self) -> Result<Stats, ControlError> {
        Ok(Stats {
            uptime_s: 1.5,
            workers: vec![WorkerStats { name: "w0".to_owned(), packets: 7, ..WorkerStats::default() }],
            ports: self.ports()?,
            bridge: BridgeStats { entries: 2, capacity: 4096, moves: 1, ..BridgeStats::default() },
            policies: Vec::new(),
        })
    }

    fn capture(&self, port: &Name, _: &CaptureRequest, _: String) -> Result<Capture, ControlError> {
        Err(ControlError::NoPair { name: port.to_string(), pair: 4, last: 3 })
    }

    fn trace_drops(&self, _: Option<&str>, _: u32) -> Result<DropTrace, ControlError> {
        Err(ControlError::TooManyTraces)
    }
}

/// A served fake node, in a directory of its own.
struct Served {
    server: ControlServer,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("control.sock");
        let server = serve_at(&socket).expect("served");
        Self { server, socket, _dir: dir }
    }

    /// One request over the UNIX socket: status and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        exchange(UnixStream::connect(&self.socket).expect("connect"), method, path, body)
    }

    fn ask_tcp(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        exchange(TcpStream::connect(self.server.http_address().expect("http")).expect("connect"), method, path, body)
    }
}

fn serve_at(socket: &Path) -> Result<ControlServer, ServerError> {
    let config = ControlConfig {
        socket: SocketPath::new(socket).expect("a path"),
        http: Some("127.0.0.1:0".parse().expect("an address")),
        ..ControlConfig::default()
    };
    start(&config)
}

fn start(config: &ControlConfig) -> Result<ControlServer, ServerError> {
    let policy = Arc::new(PolicyStore::new(FakeBoard::with_ports(&["vm0"])));
    ControlServer::start(config, &[], Arc::new(FakeNode::default()), policy)
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (u16, String) {
    stream.write_all(request(method, path, body).as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    split(&answer)
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
}

fn parsed(answer: &(u16, String)) -> (u16, Value) {
    (answer.0, serde_json::from_str(&answer.1).unwrap_or_else(|e| panic!("{answer:?}: {e}")))
}

#[test]
fn ports_come_and_go() {
    let served = Served::new();
    assert_eq!(served.ask("GET", "/ports", ""), (200, "[]".to_owned()));
    let (status, port) = parsed(&served.ask("POST", "/ports", r#"{"name":"vm0","socket":"/tmp/vm0.sock","queues":2}"#));
    let expected = json!({
        "name": "vm0", "kind": "vhost-user", "role": "server", "socket": "/tmp/vm0.sock", "state": "listening",
        "ring": null, "features": [], "queue_pairs": 0, "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0,
        "drops": {}, "errors": {}, "notifications": 0,
        "aggregation": {
            "rx_aggregates": 0, "rx_packets": 0, "rx_groups_spliced": 0, "rx_packets_spliced": 0,
            "tx_aggregates": 0, "tx_packets": 0,
            "rx_lost": 0, "packets_damaged": 0, "rx_control": 0, "tx_control": 0,
            "flushes": {}, "peers": {}, "damages": {},
            "packets_per_frame": {"count": 0, "sum": 0, "buckets": []},
            "held_ns": {"count": 0, "sum": 0, "buckets": []}
        }
    });
    assert_eq!((status, &port), (201, &expected));
    assert_eq!(parsed(&served.ask("GET", "/ports/vm0", "")), (200, expected.clone()));
    assert_eq!(parsed(&served.ask("GET", "/ports", "")), (200, json!([expected])));
    assert_eq!(served.ask("DELETE", "/ports/vm0", ""), (204, String::new()));
    assert_eq!(served.ask("GET", "/ports", ""), (200, "[]".to_owned()));
    let gone = json!({"error": "there is no port \"vm0\"", "object": "port vm0"});
    assert_eq!(parsed(&served.ask("DELETE", "/ports/vm0", "")), (404, gone.clone()));
    assert_eq!(parsed(&served.ask("GET", "/ports/vm0", "")), (404, gone));
}

#[test]
fn refused_ports_say_what_is_wrong_with_which_key() {
    let served = Served::new();
    let vm0 = r#"{"name":"vm0","socket":"/tmp/vm0.sock"}"#;
    assert_eq!(served.ask("POST", "/ports", vm0).0, 201);
    let cases = [
        (vm0, 409, json!({"error": "port \"vm0\" exists already", "object": "port vm0", "field": "name"})),
        (
            r#"{"name":"taken","socket":"/s"}"#,
            409,
            json!({"error": "port \"taken\": no room", "object": "port taken", "field": "socket"}),
        ),
        (
            r#"{"name":"vm1","socket":"/s","workers":["w9"]}"#,
            400,
            json!({
                "error": "port \"vm1\" names worker \"w9\", which does not exist; there is \"w0\"",
                "object": "port vm1", "field": "workers"
            }),
        ),
        (
            r#"{"name":"vm1","socket":"/s","queues":200}"#,
            400,
            json!({"error": "[[port]] key \"queues\" is 200, which is outside 1..=128", "field": "queues"}),
        ),
        (r#"{"name":"vm1"}"#, 400, json!({"error": "[[port]] key \"socket\" is missing"})),
        ("", 400, json!({"error": "not valid JSON: EOF while parsing a value at line 1 column 0"})),
        (
            r#"{"name":"bug","socket":"/s"}"#,
            500,
            json!({"error": "the node failed while it answered; its log says more"}),
        ),
    ];
    for (body, status, answer) in cases {
        assert_eq!(parsed(&served.ask("POST", "/ports", body)), (status, answer), "for {body}");
    }
    // And the server is as well as before.
    assert_eq!(served.ask("GET", "/version", "").0, 200);
}

#[test]
fn requests_outside_the_api_are_answered_in_json_too() {
    let served = Served::new();
    let unknown = json!({"error": "there is no path \"/nothing\"; /openapi.json lists them"});
    assert_eq!(parsed(&served.ask("GET", "/nothing", "")), (404, unknown));
    let wrong = json!({"error": "PUT is not for \"/ports\"; /openapi.json lists what is"});
    assert_eq!(parsed(&served.ask("PUT", "/ports", "")), (405, wrong));
    let (status, answer) = parsed(&served.ask("POST", "/ports", &"x".repeat(20_000)));
    assert_eq!((status, answer["error"].is_string()), (413, true));
    // Bytes that are no request end their own connection and nothing else.
    let mut stream = UnixStream::connect(&served.socket).expect("connect");
    stream.write_all(b"\x00\x01\x02\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("closed");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(served.ask("GET", "/version", "").0, 200);
}

#[test]
fn tcp_only_reads() {
    let served = Served::new();
    let body = r#"{"name":"vm0","socket":"/tmp/vm0.sock"}"#;
    let refusal =
        json!({"error": "this address is read-only without a token; changes are made through the control socket"});
    for (method, path) in [("POST", "/ports"), ("DELETE", "/ports/vm0"), ("PUT", "/stats"), ("POST", "/nothing")] {
        assert_eq!(parsed(&served.ask_tcp(method, path, body)), (403, refusal.clone()), "{method} {path}");
    }
    assert_eq!(served.ask("GET", "/ports", ""), (200, "[]".to_owned()));
    for path in ["/ports", "/stats", "/metrics", "/openapi.json", "/version"] {
        // All but the uptime is the same on both; the fake's stands still.
        assert_eq!(served.ask_tcp("GET", path, ""), served.ask("GET", path, ""), "{path}");
    }
}

/// What passes a port is more than what may be read by all who may read.
#[test]
fn only_the_owner_may_look_inside_and_what_makes_no_sense_is_refused() {
    let served = Served::new();
    for path in ["/ports/vm0/capture", "/drops"] {
        let (status, answer) = parsed(&served.ask_tcp("GET", path, ""));
        assert_eq!((status, answer["error"].is_string()), (403, true), "{path}: {answer}");
    }
    for (path, error) in [
        ("/ports/vm0/capture?direction=up", "parameter direction: \"up\" is not in, out or both"),
        ("/ports/vm0/capture?filter=tcp%20port", "filter: at byte 8: the end where a port from 0 to 65535 is expected"),
        ("/ports/vm0/capture?filter=%", "parameter filter: \"%\" is not text in the encoding of URLs"),
        ("/ports/vm0/capture?snaplen=-1", "parameter snaplen: \"-1\" is not a number of bytes"),
        ("/drops?rate=0", "parameter rate: 0 is outside 1..=10000"),
        ("/drops?rate=10001", "parameter rate: 10001 is outside 1..=10000"),
    ] {
        assert_eq!(parsed(&served.ask("GET", path, "")), (400, json!({ "error": error })), "{path}");
    }
    let no_pair =
        json!({"error": "port \"vm0\" has no queue pair 4: they are 0 to 3", "object": "port vm0", "field": "queue"});
    assert_eq!(parsed(&served.ask("GET", "/ports/vm0/capture?queue=4", "")), (400, no_pair));
    let busy = json!({"error": "4 traces run already, which is the most"});
    assert_eq!(parsed(&served.ask("GET", "/drops", "")), (503, busy));
}

/// Every cause is there from the first scrape on, so that a rate of it is known when it first happens.
#[test]
fn causes_of_drops_are_the_labels_of_the_metric_and_the_rows_of_the_guide() {
    let served = Served::new();
    served.ask("POST", "/ports", r#"{"name":"vm0","socket":"/tmp/vm0.sock"}"#);
    let (_, text) = served.ask("GET", "/metrics", "");
    let metric = "shunt_port_drops_total{port=\"vm0\",cause=\"";
    let mut labels: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(metric)?.split('"').next()).collect();
    labels.sort_unstable();
    let causes: Vec<&str> = packet::DropCause::ALL.iter().map(|cause| cause.label()).collect();
    assert_eq!(labels, causes);
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/user-guide/operating.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    let table = guide.split("| cause | counted at | meaning |").nth(1).expect("the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut documented: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).expect("a cell").split('`').skip(1).step_by(2)).collect();
    documented.sort_unstable();
    assert_eq!(documented, causes);
}

#[test]
fn stats_are_the_nodes_own() {
    let served = Served::new();
    assert_eq!(served.ask("POST", "/ports", r#"{"name":"vm0","socket":"/tmp/vm0.sock"}"#).0, 201);
    let (status, body) = served.ask("GET", "/stats", "");
    let stats: Stats = serde_json::from_str(&body).expect("statistics");
    let port = PortConfig::vhost_user(Name::new("vm0").expect("a name"), "/tmp/vm0.sock").expect("a path");
    let expected = Stats { ports: vec![PortStatus::new(&port)], ..FakeNode::default().stats().expect("statistics") };
    assert_eq!((status, stats), (200, expected));
}

#[test]
fn metrics_have_one_line_per_count_and_label() {
    let bucket = |le, count| Bucket { le, count };
    let buckets = vec![bucket(Some(0), 1), bucket(Some(63), 3), bucket(None, 1)];
    let distribution = Distribution { count: 5, sum: 1_000_000_120, buckets };
    let port = PortConfig::vhost_user(Name::new("vm0").expect("a name"), "/tmp/vm0.sock").expect("a path");
    let stats = Stats {
        uptime_s: 2.5,
        workers: vec![WorkerStats { name: "w0".to_owned(), packets: 12, sleeps: 3, ..WorkerStats::default() }],
        ports: vec![PortStatus {
            state: PortState::Up,
            ring: Some(RingLayout::Packed),
            queue_pairs: 2,
            rx_packets: 10,
            drops: [("no_buffers".to_owned(), 4), ("too_big".to_owned(), 5)].into(),
            errors: [("loop".to_owned(), 1)].into(),
            aggregation: AggregationStatus {
                rx_lost: 6,
                tx_control: 7,
                flushes: [("burst".to_owned(), 3), ("age".to_owned(), 2)].into(),
                peers: [("up".to_owned(), 1)].into(),
                packets_per_frame: distribution.clone(),
                held_ns: distribution,
                ..AggregationStatus::default()
            },
            ..PortStatus::new(&port)
        }],
        bridge: BridgeStats { entries: 2, ..BridgeStats::default() },
        policies: Vec::new(),
    };
    let up = br#"{"name":"up","kind":"af-packet","interface":"eth0","address":"192.0.2.1/24"}"#;
    let mut up = PortStatus::new(&PortConfig::from_json(up).expect("an uplink"));
    if let Some(uplink) = &mut up.uplink {
        (uplink.rx_oversized, uplink.segments, uplink.parked) = (3, 80, 2);
        let known = NeighborStatus { mac: Some("02:00:00:00:00:01".to_owned()), ..NeighborStatus::default() };
        uplink.neighbors = vec![known.clone(), NeighborStatus::default(), known];
    }
    let stats = Stats { ports: [stats.ports, vec![up]].concat(), ..stats };
    let text = metrics::encode(stats, policy_metrics::Policies::default()).expect("text");
    for line in [
        r#"shunt_port_state{port="up",state="down"} 1"#,
        r#"shunt_uplink_rx_oversized_total{port="up"} 3"#,
        r#"shunt_uplink_segments_total{port="up"} 80"#,
        r#"shunt_uplink_neighbors{port="up"} 2"#,
        r#"shunt_uplink_parked{port="up"} 2"#,
        "# TYPE shunt_port_drops counter",
        "# HELP shunt_port_drops Frames dropped, by cause",
        r#"shunt_port_drops_total{port="vm0",cause="no_buffers"} 4"#,
        r#"shunt_port_drops_total{port="vm0",cause="too_big"} 5"#,
        r#"shunt_port_errors_total{port="vm0",cause="loop"} 1"#,
        r#"shunt_port_rx_packets_total{port="vm0"} 10"#,
        r#"shunt_port_rx_aggregates_lost_total{port="vm0"} 6"#,
        r#"shunt_port_tx_aggregation_control_total{port="vm0"} 7"#,
        r#"shunt_port_aggregation_flushes_total{port="vm0",cause="burst"} 3"#,
        r#"shunt_port_aggregation_flushes_total{port="vm0",cause="age"} 2"#,
        r#"shunt_port_aggregation_peers_total{port="vm0",cause="up"} 1"#,
        "# TYPE shunt_port_aggregation_frame_packets histogram",
        r#"shunt_port_aggregation_frame_packets_bucket{le="0.0",port="vm0"} 1"#,
        r#"shunt_port_aggregation_frame_packets_bucket{le="63.0",port="vm0"} 4"#,
        r#"shunt_port_aggregation_frame_packets_bucket{le="+Inf",port="vm0"} 5"#,
        r#"shunt_port_aggregation_frame_packets_count{port="vm0"} 5"#,
        r#"shunt_port_aggregation_held_seconds_bucket{le="+Inf",port="vm0"} 5"#,
        r#"shunt_port_aggregation_held_seconds_sum{port="vm0"} 1.00000012"#,
        r#"shunt_port_aggregation_held_seconds_bucket{le="0.000001023",port="vm0"} 4"#,
        r#"shunt_port_aggregation_frame_packets_bucket{le="1.0",port="vm0"} 1"#,
        r#"shunt_port_queue_pairs{port="vm0"} 2"#,
        r#"shunt_port_state{port="vm0",state="up"} 1"#,
        r#"shunt_port_state{port="vm0",state="listening"} 0"#,
        r#"shunt_worker_packets_total{worker="w0"} 12"#,
        r#"shunt_worker_sleeps_total{worker="w0"} 3"#,
        "shunt_bridge_entries 2",
        "shunt_uptime_seconds 2.5",
        "shunt_bridge_moves_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_description_lists_what_is_served() {
    let served = Served::new();
    let (status, description) = parsed(&served.ask("GET", "/openapi.json", ""));
    assert_eq!(status, 200);
    let described: Vec<String> = description["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    let group = "/ports/{name}/layers/{layer}/groups/{group}";
    let expected = [
        ("/drops", "get"),
        ("/events", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
        ("/policy", "get post"),
        ("/ports", "get post"),
        ("/ports/{name}", "get delete"),
        ("/ports/{name}/capture", "get"),
        ("/ports/{name}/flows", "get"),
        ("/ports/{name}/layers", "get"),
        ("/ports/{name}/layers/{layer}", "get put delete"),
        (group, "get put delete"),
        (&format!("{group}/rules/{{rule}}"), "get put delete"),
        ("/ports/{name}/policy", "get"),
        ("/ports/{name}/resources/{resource}", "get put delete"),
        ("/ports/{name}/resources/{resource}/entries/{address}", "get put delete"),
        ("/ports/{name}/simulate", "post"),
        ("/ports/{name}/transactions", "post"),
        ("/stats", "get"),
        ("/version", "get"),
    ];
    let mut sorted = described.clone();
    sorted.sort();
    let mut listed: Vec<_> = expected
        .iter()
        .flat_map(|(path, methods)| methods.split(' ').map(move |method| format!("{method} {path}")))
        .collect();
    listed.sort_unstable();
    assert_eq!(sorted, listed);
    // What is described is routed, and what is routed by another method is not described.
    for (path, _) in expected {
        for method in ["get", "post", "put", "patch", "delete"] {
            let routed = match (method, path) {
                // The answer has no end.
                ("get", "/events") => true,
                _ => served.ask(&method.to_uppercase(), path, "").0 != 405,
            };
            assert_eq!(routed, described.contains(&format!("{method} {path}")), "{method} {path}");
        }
    }
    // Every reference resolves.
    let text = description.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(description["components"]["schemas"][name].is_object(), "{name}");
    }
    let port = &description["components"]["schemas"]["PortConfig"];
    assert_eq!(port["required"], json!(["name"]));
    for (key, range) in [
        ("max_flows", FlowLimits::CONFIRMED),
        ("max_unconfirmed_flows", FlowLimits::UNCONFIRMED),
        ("plans_per_second", FlowLimits::PLANS_PER_SECOND),
        ("tx-aggr-max-bytes", Aggregation::MAX_BYTES),
        ("tx-aggr-max-frames", 1..=u32::from(u16::MAX)),
        ("tx-aggr-time-usecs", 0..=Aggregation::MAX_TIME_USECS),
    ] {
        let described = &port["properties"][key];
        assert_eq!([&described["minimum"], &described["maximum"]], [range.start(), range.end()], "{key}: {described}");
    }
}

#[test]
fn a_client_may_send_a_byte_at_a_time_and_vanish_at_any_byte() {
    let served = Served::new();
    let bytes = request("GET", "/version", "");
    let mut stream = UnixStream::connect(&served.socket).expect("connect");
    for byte in bytes.bytes() {
        stream.write_all(&[byte]).expect("send");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    assert_eq!(split(&answer).0, 200);
    for length in 0..bytes.len() {
        let mut stream = UnixStream::connect(&served.socket).expect("connect");
        stream.write_all(&bytes.as_bytes()[..length]).expect("send");
    }
    assert_eq!(served.ask("GET", "/version", "").0, 200);
}

#[test]
fn connections_beyond_the_bound_wait_for_a_free_place() {
    let served = Served::new();
    let idle: Vec<_> = (0..32).map(|_| UnixStream::connect(&served.socket).expect("connect")).collect();
    let mut next = UnixStream::connect(&served.socket).expect("connect");
    next.write_all(request("GET", "/version", "").as_bytes()).expect("send");
    next.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let mut answer = String::new();
    let waiting = next.read_to_string(&mut answer).expect_err("all places are taken");
    assert_eq!(waiting.kind(), io::ErrorKind::WouldBlock);
    drop(idle);
    next.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    next.read_to_string(&mut answer).expect("answered");
    assert_eq!(split(&answer).0, 200);
}

#[test]
fn only_the_owner_may_connect() {
    let served = Served::new();
    let mode = fs::metadata(&served.socket).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Decision 20: where controllers run as other users, each caller is judged by who it is.
#[test]
fn with_controllers_of_other_users_everybody_may_connect() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("control.sock");
    let config = ControlConfig { socket: SocketPath::new(&socket).expect("a path"), ..ControlConfig::default() };
    let name = Name::new("acl").expect("a name");
    let controllers = [ControllerConfig { name, uid: Some(4_000_001), token_file: None, order: [0, 9] }];
    let policy = Arc::new(PolicyStore::new(FakeBoard::with_ports(&[])));
    let server = ControlServer::start(&config, &controllers, Arc::new(FakeNode::default()), policy).expect("served");
    assert_eq!(fs::metadata(&socket).expect("metadata").permissions().mode() & 0o777, 0o666);
    let answer = exchange(UnixStream::connect(&socket).expect("connect"), "GET", "/ports", "");
    assert_eq!(answer, (200, "[]".to_owned()), "the owner is known by the system's word");
    server.stop();
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("c.sock");
    drop(UnixListener::bind(&socket).expect("bind"));
    assert!(socket.exists());
    let first = serve_at(&socket).expect("the stale one is replaced");
    let message = serve_at(&socket).expect_err("the live one is not").to_string();
    assert_eq!(message, format!("cannot listen on {}: another process does", socket.display()));
    assert!(UnixStream::connect(&socket).is_ok(), "the first one still answers");
    first.stop();
    assert!(!socket.exists());
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("precious");
    fs::write(&file, "data").expect("write");
    let message = serve_at(&file).expect_err("refused").to_string();
    assert_eq!(message, format!("cannot listen on {}: it exists and is not a socket", file.display()));
    assert_eq!(fs::read_to_string(&file).expect("read"), "data");
}

#[test]
fn a_missing_directory_is_named_and_not_made() {
    let message = serve_at(Path::new("/nonexistent/c.sock")).expect_err("refused").to_string();
    assert_eq!(message, "cannot listen on /nonexistent/c.sock: its directory /nonexistent does not exist");
}

#[test]
fn a_taken_http_address_is_named_and_the_socket_goes() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("c.sock");
    let config = ControlConfig {
        socket: SocketPath::new(&socket).expect("a path"),
        http: Some(address),
        ..ControlConfig::default()
    };
    let message = start(&config).expect_err("taken").to_string();
    assert_eq!(message, format!("cannot serve http on {address}: Address already in use (os error 98)"));
    assert!(!socket.exists());
}

#[test]
fn stopping_leaves_a_file_that_somebody_else_put_there() {
    let served = Served::new();
    fs::remove_file(&served.socket).expect("remove");
    let _other = UnixListener::bind(&served.socket).expect("bind");
    served.server.stop();
    assert!(served.socket.exists());
}

#[test]
fn two_nodes_that_find_the_same_stale_socket_do_not_both_get_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("c.sock");
    for _ in 0..20 {
        drop(UnixListener::bind(&socket).expect("bind"));
        let results: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| serve_at(&socket))).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        drop(results);
        assert!(!socket.exists());
    }
}
