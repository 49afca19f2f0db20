// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `demo` and `bench pvp`: packets cross a node, and what is said about it keeps its shape.

use serde_json::Value;
use tempfile::TempDir;

use super::{fails, succeeds};

fn json(arguments: &[&str]) -> Value {
    let text = succeeds(arguments);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_demo_verifies_what_it_forwards() {
    let outcome = json(&["demo", "--seconds", "0.5", "--json"]);
    let mut named = keys(&outcome);
    named.sort_unstable();
    assert_eq!(named, ["corrupted", "forwarded", "lost", "ports", "seconds", "verified"]);
    let count = |key: &str| outcome[key].as_u64().expect("a count");
    assert_eq!((count("lost"), count("corrupted")), (0, 0));
    assert!(count("verified") > 1000, "{outcome}");
    assert_eq!(count("forwarded"), count("verified"));
    let ports = outcome["ports"].as_array().expect("a list");
    assert_eq!(ports.iter().map(|port| &port["name"]).collect::<Vec<_>>(), ["cnf-a", "cnf-b"]);
    for port in ports {
        assert_eq!(port["ring"], "packed");
        assert!(port["features"].as_array().expect("a list").contains(&Value::from("in_order")));
        assert_eq!(port["drops"], Value::Object(serde_json::Map::new()));
        assert!(port["rx_packets"].as_u64() > Some(0) && port["tx_packets"].as_u64() > Some(0));
    }
}

#[test]
fn the_demo_says_what_happened() {
    let text = succeeds(&["demo", "--seconds", "0.2"]);
    for part in ["✔", "0 lost, 0 corrupted", "What happened", "packed rings", "Try next", "shunt bench pvp"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn bench_measures_every_kind_of_ring() {
    for options in [
        &["--ring", "packed"][..],
        &["--ring", "split"],
        &["--bridge", "--flows", "100"],
        &["--mergeable", "--size", "65536"],
        &["--pairs", "2", "--no-in-order", "--queue-size", "100"],
        &["--poll", "interrupt", "--event-idx", "--rate", "20000"],
        &["--poll", "adaptive", "--size", "1518"],
        &["--tcp", "--fin", "--bridge", "--flows", "2000"],
        &["--tcp", "--fin", "--size", "1518", "--ring", "split", "--flows", "3", "--pairs", "2"],
        &["--tcp", "--mergeable", "--size", "65536", "--expect", "rewritten"],
    ] {
        let outcome = json(&[&["bench", "pvp", "--json", "--seconds", "0.2"], options].concat());
        assert!(outcome["rx_pps"].as_f64() > Some(0.0), "{options:?}: {outcome}");
        assert_eq!((&outcome["lost"], &outcome["reordered"]), (&0.into(), &0.into()), "{options:?}: {outcome}");
        assert!(outcome["cycles_per_packet"].as_f64() > Some(0.0), "{options:?}: {outcome}");
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|key| outcome["latency_ns"][key].as_u64().expect("a time"));
        assert!(0 < p50 && p50 <= p99 && p99 <= p999, "{options:?}: {outcome}");
        let flows = outcome["flows"].as_u64().expect("a count");
        let closed = if options.contains(&"--fin") { flows } else { 0 };
        assert_eq!((&outcome["opened"], &outcome["closed"]), (&flows.into(), &closed.into()), "{options:?}: {outcome}");
        assert_eq!(outcome["tcp"], options.contains(&"--tcp"), "{options:?}: {outcome}");
        // Whoever opens and closes flows is looked at.
        assert!(outcome["inspected"].as_u64() >= Some(2 * (flows + closed)), "{options:?}: {outcome}");
    }
}

#[test]
fn bench_keeps_the_names_of_its_figures() {
    let outcome =
        json(&["bench", "pvp", "--json", "--seconds", "0.2", "--size", "128", "--flows", "7", "--load", "10%"]);
    let named = keys(&outcome);
    for key in ["ring", "size", "flows", "seconds", "rx_pps", "tx_pps", "lost", "cycles_per_packet", "latency_ns"] {
        assert!(named.contains(&key), "no {key} in {outcome}");
    }
    assert_eq!((&outcome["ring"], &outcome["size"], &outcome["flows"]), (&"packed".into(), &128.into(), &7.into()));
    assert!(outcome["rate"].as_f64() < outcome["capacity_pps"].as_f64());
}

#[test]
fn bench_names_what_is_wrong() {
    let pvp = |options: &[&'static str]| [&["bench", "pvp"], options].concat();
    for (options, part) in [
        (&["--size", "59"][..], "--size: 60 to"),
        (&["--sockets", "/tmp/a"], "2 are needed"),
        (&["--scene", "uplink"], "--interfaces: two are needed"),
        (&["--scene", "bridge", "--interfaces", "a,b"], "--interfaces"),
        (&["--scene", "uplink", "--interfaces", "a,b", "--poll", "busy"], "cannot be busy"),
        (&["--imix"], "--imix"),
        (&["--flows", "0"], "--flows"),
        (&["--flows", "8000000", "--size", "1518"], "1 GiB"),
        (&["--flows", "30000000"], "--flows: 1 to 8388608"),
        (&["--tcp", "--size", "63"], "--size: 64 to"),
        (&["--tcp", "--pairs", "2"], "--flows"),
        (&["--pairs", "65"], "--pairs"),
        (&["--ring", "split", "--queue-size", "100"], "ring size 100"),
    ] {
        let line = fails(1, &pvp(options));
        assert!(line.contains(part), "{options:?}: {line}");
    }
    assert!(fails(2, &pvp(&["--load", "101%"])).contains("not between 0 and 100"));
    assert!(fails(2, &pvp(&["--server"])).contains("--sockets"));
    assert!(fails(2, &pvp(&["--fin"])).contains("--tcp"));

    let dir = TempDir::new().expect("a directory");
    let long = dir.path().join("x".repeat(110));
    let both = format!("{0},{0}", long.display());
    let line = fails(1, &["bench", "pvp", "--sockets", &both]);
    assert!(line.contains("cannot connect to") && line.contains("xxx"), "{line}");
}
