// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the control socket says of flows while guests send packets, and what it makes of their limits.

mod support;

use std::time::Instant;

use backend::config::{FlowLimits, PollMode};
use backend::stats::{FlowCounts, PolicyStats, Stats};
use etherparse::PacketBuilder;
use serde_json::{Value, json};
use support::{BROADCAST, Guest, NodeSpec, Served, until};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// All that the guest begins is remembered.
fn stateful(served: &Served, port: &str) {
    outbound(served, port, &json!({"type": "allow", "stateful": true}));
}

/// A layer that does this with all that the guest sends.
fn outbound(served: &Served, port: &str, action: &Value) {
    let rule = json!({"name": "out", "dir": "out", "action": action});
    let layer =
        json!({"port": port, "name": "acl", "order": 10, "default": "block", "group": [{"name": "g", "rule": [rule]}]});
    let document = json!({"controller": format!("acl-{port}"), "layer": [layer]});
    let (status, applied) = served.ask(&format!("acl-{port}"), "POST /policy", &document);
    assert_eq!(status, 200, "{applied}");
}

/// What `GET /stats` says of a port's policy.
fn policy_stats(served: &Served, port: &str) -> PolicyStats {
    let stats: Stats = serde_json::from_value(served.get("/stats")).expect("statistics");
    stats.policies.into_iter().find(|policy| policy.port == port).expect("a port with policy")
}

fn udp(source: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(MACS[0], MACS[1]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(source, 53).write(&mut bytes, &[9; 30]).expect("frame");
    bytes
}

/// A TCP segment: whether it is of the guest that asks, its flags and numbers, its payload's length, and whether it met congestion.
fn tcp(asks: bool, flags: &str, seq: u32, ack: u32, len: usize, congested: bool) -> Vec<u8> {
    let [from, to] = if asks { [0, 1] } else { [1, 0] };
    let (addresses, ports) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [7000, 80]);
    let ecn = etherparse::IpEcn::try_new(if congested { 3 } else { 0 }).expect("two bits");
    let mut ip =
        etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, addresses[from], addresses[to]).expect("short");
    ip.ecn = ecn;
    let builder =
        PacketBuilder::ethernet2(MACS[from], MACS[to]).ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
    let mut builder = builder.tcp(ports[from], ports[to], seq, 1000);
    for flag in flags.chars() {
        builder = if flag == 'S' { builder.syn() } else { builder.ack(ack) };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![7; len]).expect("frame");
    frame
}

/// VF-22: what flows know of their connection is told over the socket.
#[test]
fn flows_tell_what_they_carried_and_how_their_connection_is() {
    let served = Served::start(NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b"));
    let mut guests = ["a", "b"].map(|name| Guest::attach(served.node.socket(name)));
    for (from, mac) in MACS.into_iter().enumerate() {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        assert_eq!(guests[1 - from].receive(1).len(), 1);
    }
    stateful(&served, "a");
    let mut sent = [(0, 0); 2];
    for (asks, flags, seq, ack, len, congested) in [
        (true, "S", 100, 0, 0, false),
        (false, "SA", 900, 101, 0, false),
        (true, "A", 101, 901, 10, false),
        (false, "A", 901, 111, 0, true),
        (true, "A", 101, 901, 10, false),
        (true, "A", 101, 901, 10, true),
    ] {
        let (from, frame) = (usize::from(!asks), tcp(asks, flags, seq, ack, len, congested));
        sent[from] = (sent[from].0 + 1, sent[from].1 + frame.len());
        guests[from].send(std::slice::from_ref(&frame));
        assert_eq!(guests[1 - from].receive(1), [frame]);
    }
    let list = served.get("/ports/a/flows");
    let flows = list["flows"].as_array().expect("flows");
    assert_eq!(flows.len(), 2, "{list:#}");
    for flow in flows {
        let (packets, bytes) = sent[usize::from(flow["direction"] == "in")];
        assert_eq!(flow["count"], json!({"packets": packets, "bytes": bytes}), "{flow:#}");
        assert_eq!((&flow["tcp"], &flow["confirmed"]), (&Value::from("established"), &Value::from(true)));
        assert_eq!((&flow["retransmits"], &flow["congestion_marks"]), (&json!([2, 0]), &json!([1, 1])));
        for rtt in [&flow["rtt_us"][0], &flow["rtt_us"][1]] {
            assert!(rtt.as_u64().is_some_and(|us| (1..20_000_000).contains(&us)), "{flow:#}");
        }
    }
    // UDP has none of that.
    guests[0].send(&[udp(53)]);
    assert_eq!(guests[1].receive(1).len(), 1);
    let list = served.get("/ports/a/flows");
    let is_udp = |flow: &&Value| flow["tuple"].as_str().is_some_and(|tuple| tuple.starts_with("udp "));
    let flow = list["flows"].as_array().and_then(|flows| flows.iter().find(is_udp)).expect("a flow of UDP");
    assert_eq!((&flow["tcp"], &flow["rtt_us"]), (&Value::Null, &json!([null, null])));
    assert_eq!(flow["redirected"], Value::Null);

    outbound(&served, "a", &json!({"type": "hairpin", "to": "b"}));
    guests[0].send(&[udp(54)]);
    assert_eq!(guests[1].receive(1).len(), 1);
    let list = served.get("/ports/a/flows");
    let is_new = |flow: &&Value| flow["fields"]["src_port"] == "54";
    let flow = list["flows"].as_array().and_then(|flows| flows.iter().find(is_new)).expect("a flow that is sent to b");
    assert_eq!(flow["redirected"], "b", "{flow:#}");
    served.stop();
}

/// Of each port with policy the same numbers as JSON, for Prometheus and in the tree of layers, and what rules count as JSON only.
#[test]
fn counts_of_a_port_its_layers_groups_and_rules_are_told() {
    let served = Served::start(NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b"));
    let mut guests = ["a", "b"].map(|name| Guest::attach(served.node.socket(name)));
    for (from, mac) in MACS.into_iter().enumerate() {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        assert_eq!(guests[1 - from].receive(1).len(), 1);
    }
    stateful(&served, "a");
    // Three connections that nobody answers, a packet more of the last of them, and one from outside that is blocked.
    for source in [1, 2, 3, 3] {
        guests[0].send(&[udp(source)]);
        assert_eq!(guests[1].receive(1).len(), 1);
    }
    guests[1].send(&[tcp(false, "S", 1, 0, 0, false)]);
    served.node.wait_for_drops("b", "policy_default", 1);

    let PolicyStats { version, flows, .. } = policy_stats(&served, "a");
    assert_eq!((version, flows.flows, flows.confirmed, flows.connections), (1, 4, 0, 3));
    assert_eq!((flows.hits, flows.misses, flows.over_budget, flows.paths), (1, 4, 0, 2));
    assert!(flows.memory > 0);
    let layers = served.get("/ports/a/layers");
    assert_eq!(serde_json::from_value::<FlowCounts>(layers["flows"].clone()).expect("counts"), flows);
    assert_eq!(served.get("/stats?policies=false")["policies"], json!([]));

    let bytes = 4 * udp(1).len();
    let rule = served.get("/ports/a/layers/acl/groups/g/rules/out");
    let group = served.get("/ports/a/layers/acl/groups/g");
    for count in [&rule["count"], &group["count"], &layers["layers"][0]["groups"][0]["count"]] {
        assert_eq!(count, &json!({"packets": 4, "bytes": bytes}));
    }
    assert_eq!(layers["layers"][0]["default_count"]["packets"], 1);
    let metrics = served.page("/metrics");
    for line in [
        r#"shunt_policy_flows{port="a"} 4"#,
        r#"shunt_policy_connections{port="a"} 3"#,
        r#"shunt_policy_hits_total{port="a"} 1"#,
        r#"shunt_policy_misses_total{port="a"} 4"#,
        r#"shunt_policy_max_flows{port="a"} 131072"#,
        &format!(r#"shunt_policy_memory_bytes{{port="a"}} {}"#, flows.memory),
        r#"shunt_policy_layer_packets_total{port="a",layer="acl",by="default"} 1"#,
        r#"shunt_policy_group_packets_total{port="a",layer="acl",group="g"} 4"#,
        &format!(r#"shunt_policy_group_bytes_total{{port="a",layer="acl",group="g"}} {bytes}"#),
        r#"shunt_port_drops_total{port="b",cause="policy_default"} 1"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("rule=\""), "rules have no lines: {metrics}");
    served.stop();
}

/// VF-22: the keys of a `[[port]]`, and the same of a port that is added later, bound its flows.
#[test]
fn a_port_has_as_many_flows_as_its_configuration_says() {
    const FLOWS: u16 = 400;
    let limits = FlowLimits { confirmed: 8, unconfirmed: 4, plans_per_second: 20 };
    let served = Served::start(NodeSpec::new().port_with("a", |port| port.limits = limits).port("b"));
    let later = json!({
        "name": "later", "socket": served.node.socket("later"),
        "max_flows": 8, "max_unconfirmed_flows": 4, "plans_per_second": 20,
    });
    assert_eq!(served.ask("test", "POST /ports", &later).0, 201);
    let mut b = Guest::attach(served.node.socket("b"));
    for port in ["a", "later"] {
        let mut guest = Guest::attach(served.node.socket(port));
        b.send(&[support::frame(BROADCAST, MACS[1], 60, 1)]);
        assert_eq!(guest.receive(1).len(), 1);
        stateful(&served, port);

        let begin = Instant::now();
        guest.send(&(1..=FLOWS).map(udp).collect::<Vec<_>>());
        let mut passed = 0;
        until("all packets to pass, or to be dropped", || {
            passed += b.poll().len() as u64;
            (passed + served.node.drops(port, "plan_budget") == u64::from(FLOWS)).then_some(())
        });
        // Those of a second at once, at most half a second's from before, and then as they are earned.
        let earned = 20 + 10 + 20 * begin.elapsed().as_millis() / 1000;
        assert!((20..=earned).contains(&u128::from(passed)), "{passed} of {FLOWS} flows began");
        let PolicyStats { flows, .. } = policy_stats(&served, port);
        assert_eq!((flows.max_flows, flows.max_unconfirmed_flows, flows.plans_per_second), (8, 4, 20));
        assert_eq!((flows.flows, flows.connections, flows.evicted_unconfirmed), (4, 4, passed - 4));
        assert_eq!((flows.misses, flows.over_budget), (u64::from(FLOWS), u64::from(FLOWS) - passed));
    }
    served.stop();
}
