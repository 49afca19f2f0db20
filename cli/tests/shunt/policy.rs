// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy as operators meet it: documents in, tables and traces out, against a running node.

use serde_json::Value;

use super::{Node, fails};

const DOCUMENT: &str = r#"controller = "acl"

[[layer]]
port = "vm0"
name = "acl"
order = 10
default = "block"

[[layer.group]]
name = "web"
order = 0

[[layer.group.rule]]
name = "http"
priority = 0
dir = "out"
match = { ip_proto = "tcp", dst_port = ["80", "8000-8080"] }
action = { type = "allow", stateful = true, idle_s = 60 }
"#;

/// Writes a file beside the node's.
fn write(node: &Node, name: &str, text: &str) -> String {
    let path = node.path(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

#[test]
fn a_document_is_compared_applied_and_shown() {
    let node = Node::start();
    let file = write(&node, "acl.toml", DOCUMENT);
    let changes = "+ vm0: layer acl: order 10, default block\n+ vm0: group acl/web: 1 rule\n";
    assert_eq!(node.ask(&["policy", "show"]), "no policy\n");
    assert_eq!(node.ask(&["policy", "diff", &file]), changes);
    let tried = node.ask(&["policy", "apply", &file, "--dry-run"]);
    assert_eq!(tried, format!("{changes}vm0: 0 of 0 flows would be treated otherwise\n"));
    assert_eq!(node.ask(&["policy", "apply", &file]), format!("{changes}vm0: version 1\n"));
    assert_eq!(node.ask(&["policy", "apply", &file]), "nothing changes\n");
    assert_eq!(node.ask(&["policy", "show", "--controller", "acl"]), DOCUMENT);
    let table = "\
PORT  ORDER  LAYER  CONTROLLER  DEFAULT  GROUPS  RULES  PACKETS  BYTES
vm0      10  acl    acl         block         1      1        0      0
";
    assert_eq!(node.ask(&["policy", "show"]), table);

    // JSON is the same document, and what is shown can be applied.
    let json = node.ask(&["policy", "show", "--controller", "acl", "--json"]);
    let other = write(&node, "acl.json", &json.replace("8000-8080", "8000-8090"));
    assert_eq!(node.ask(&["policy", "apply", &other]), "~ vm0: group acl/web: 1 rule changed\nvm0: version 2\n");
    let answer: Value = serde_json::from_str(&node.ask(&["policy", "apply", &file, "--json"])).expect("JSON");
    assert_eq!(answer["versions"]["vm0"], 3);
    let ports: Value = serde_json::from_str(&node.ask(&["policy", "show", "--json"])).expect("JSON");
    assert_eq!((&ports[0]["layers"][0]["name"], &ports[1]["layers"]), (&Value::from("acl"), &Value::from([0; 0])));
    let diff: Value = serde_json::from_str(&node.ask(&["policy", "diff", &other, "--json"])).expect("JSON");
    assert_eq!(diff[0]["object"], "group acl/web");
}

#[test]
fn limits_of_an_added_port_are_seen_once_it_has_policy() {
    let node = Node::start();
    let socket = node.path("vm2.sock");
    let add = ["port", "add", "vm2", "--socket", socket.to_str().expect("text")];
    let limits = ["--max-flows", "1000", "--max-unconfirmed-flows", "100", "--plans-per-second", "50"];
    node.ask(&[&add[..], &limits].concat());
    assert!(!node.ask(&["stats"]).contains("CONFIRMED"));
    node.ask(&["policy", "apply", &write(&node, "acl.toml", &DOCUMENT.replace("vm0", "vm2"))]);
    let text = node.ask(&["stats"]);
    let row = text.lines().skip_while(|line| !line.contains("CONFIRMED")).nth(1).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..5], ["vm2", "1", "0/1000", "0/100", "0"], "{text}");
    let stats: Value = serde_json::from_str(&node.ask(&["stats", "--json"])).expect("JSON");
    assert_eq!(
        (&stats["policies"][0]["port"], &stats["policies"][0]["flows"]["plans_per_second"]),
        (&"vm2".into(), &50.into())
    );
}

#[test]
fn packets_are_simulated_and_flows_listed() {
    let node = Node::start();
    node.ask(&["policy", "apply", &write(&node, "acl.toml", DOCUMENT)]);
    let simulate = ["policy", "simulate", "--port", "vm0", "--direction"];
    let passes = node.ask(&[&simulate[..], &["out", "tcp 10.0.0.1:1234 > 10.0.0.2:80"]].concat());
    assert!(passes.starts_with("policy version 1, out\nlayer acl: web/http: "), "{passes}");
    assert!(passes.ends_with("\nforwarded\n"), "{passes}");
    let blocked = node.ask(&[&simulate[..], &["in", "udp 10.0.0.2:1 > 10.0.0.1:53"]].concat());
    assert!(blocked.ends_with("layer acl: default: block\ndropped: policy_default\n"), "{blocked}");
    let by_fields = ["out", "--field", "ip_proto=tcp", "--field", "src_ip=10.0.0.1", "--field", "dst_ip=10.0.0.2"];
    let fields = node.ask(&[&simulate[..], &by_fields, &["--field", "dst_port=8001", "--json"]].concat());
    let trace: Value = serde_json::from_str(&fields).expect("JSON");
    assert_eq!((&trace["outcome"], &trace["steps"][0]["decided_by"]), (&"forwarded".into(), &"web/http".into()));
    let bytes = "525400000002 525400000001 0800 45000028 00000000 40060000 0a000001 0a000002 04d2 0051 00000000 00000000 5002 0000 00000000";
    let packet = node.ask(&[&simulate[..], &["out", "--packet", bytes]].concat());
    assert!(packet.ends_with("dropped: policy_default\n"), "{packet}");
    assert_eq!(node.ask(&["flows", "--port", "vm0"]), "no flows\n", "simulating leaves no trace");
    assert_eq!(node.ask(&["flows", "--port", "vm0", "--json"]), "{\"version\":1,\"flows\":[]}\n");
    assert_eq!(
        node.refuses(&[&simulate[..], &["out", "tcp 10.0.0.1"]].concat()),
        r#"tuple: "tcp 10.0.0.1" is not a five-tuple such as "tcp 10.0.0.1:1234 > 10.0.0.2:80""#
    );
    let usage = fails(2, &["policy", "simulate", "--port", "vm0", "--direction", "out"]);
    assert!(usage.contains("<TUPLE>"), "{usage}");
}

/// The documents of the user guide, side by side: which rule of which layer decides, and what comes of it.
#[test]
fn the_examples_do_what_they_say() {
    let node = Node::start();
    for name in ["metering", "acl", "loadbalancer", "vnet"] {
        let file = format!("{}/../docs/examples/policy/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        node.ask(&["policy", "apply", &file]);
    }
    for (direction, tuple, deciders, outcome) in [
        (
            "out",
            "tcp 10.0.0.5:1234 > 203.0.113.80:80",
            "by-network/sent-to-internet customer/all-out services/web to-internet/private overlay/encap",
            "forwarded",
        ),
        (
            "out",
            "udp 10.0.0.5:1234 > 10.0.0.77:53",
            "by-network/sent-to-region customer/all-out default to-internet/private overlay/encap",
            "waits for 10.0.0.77 of directory",
        ),
        (
            "out",
            "tcp 10.0.0.5:1234 > 169.254.169.254:80",
            "by-network/sent-to-internet infrastructure/no-wire-server",
            "dropped: policy_block",
        ),
        (
            "out",
            "udp 10.0.0.5:1234 > 8.8.8.8:53",
            "by-network/sent-to-internet customer/all-out default to-internet/public default",
            "dropped: policy_default",
        ),
        ("in", "tcp 10.0.0.9:1234 > 10.0.0.5:22", "default", "dropped: policy_default"),
    ] {
        let trace = node.ask(&["policy", "simulate", "--port", "vm0", "--direction", direction, tuple, "--json"]);
        let trace: Value = serde_json::from_str(&trace).expect("JSON");
        let steps = trace["steps"].as_array().expect("steps").iter();
        let decided: Vec<_> = steps.map(|step| step["decided_by"].as_str().expect("text")).collect();
        assert_eq!((decided.join(" ").as_str(), trace["outcome"].as_str()), (deciders, Some(outcome)), "{tuple}");
    }
}

#[test]
fn what_is_wrong_is_one_line_that_names_it() {
    let node = Node::start();
    let bad = write(&node, "bad.toml", &DOCUMENT.replace("\"80\"", "\"http\""));
    let message = node.refuses(&["policy", "apply", &bad]);
    let expected = format!(
        "{bad}: line 17: layer acl / group web / rule http: match.dst_port: \"http\" is not a number or a range of numbers"
    );
    assert_eq!(message, expected);
    let elsewhere = write(&node, "elsewhere.toml", &DOCUMENT.replace("vm0", "vm9"));
    for command in [&["policy", "apply"][..], &["policy", "diff"]] {
        assert_eq!(node.refuses(&[command, &[&elsewhere]].concat()), r#"there is no port "vm9""#);
    }
    assert_eq!(node.refuses(&["flows", "--port", "vm9"]), r#"there is no port "vm9""#);
    let missing = node.path("missing.toml");
    let expected = format!("cannot read {}: No such file or directory (os error 2)", missing.display());
    assert_eq!(node.refuses(&["policy", "apply", missing.to_str().expect("text")]), expected);
    let claimed = ["policy", "apply", &write(&node, "acl.toml", DOCUMENT), "--controller", "lb"];
    assert_eq!(node.refuses(&claimed), r#"the document is of controller "acl", and the request says "lb""#);
    let token = ["policy", "apply", claimed[2], "--token-file", claimed[2]];
    let message = node.refuses(&token);
    assert!(message.starts_with(&format!("token file {}: ", claimed[2])), "{message}");
    let short = write(&node, "token", "0123456789abcdef\n");
    let message = node.refuses(&["policy", "apply", claimed[2], "--token-file", &short]);
    assert_eq!(message, "the token is not that of a controller");
}
