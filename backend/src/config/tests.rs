// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each way to be refused, with the exact line the operator sees, and the ways to be accepted.

use super::*;

/// The contract's example, and everything it leaves out.
const EXAMPLE: &str = r#"
[control]
socket = "/run/shunt/control.sock"      # REST, OpenAPI at /openapi.json, Prometheus text at /metrics
state_dir = "/run/shunt"                # ring records; tmpfs
http   = "127.0.0.1:9464"               # optional; loopback unless the operator says otherwise

[[worker]]
name = "w0"
cpu  = 0
poll = "busy"                           # busy | adaptive (default) | interrupt

[[port]]
name   = "vm0"
kind   = "vhost-user"
socket = "/run/shunt/vm0.sock"
role   = "server"
queues = 1
workers = ["w0"]                        # default: all

[[port]]
name = "vm1"
socket = "/run/shunt/vm1.sock"
role = "client"
queues = 128

[[crossconnect]]
ports = ["vm0", "vm1"]
"#;

pub(super) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "node.toml".as_ref(), &Machine::with_cpus([0, 1, 2, 8])).map_err(|error| error.to_string())
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Refusals: the text, and the message.
pub(super) fn refused(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        assert_eq!(parse(text).expect_err(text), *message, "for {text}");
    }
}

#[test]
fn the_contract_example_means_what_it_says() {
    let socket = |path: &str| SocketPath::new(path).expect("a path");
    let expected = Config {
        node: NodeConfig::default(),
        control: ControlConfig {
            socket: socket("/run/shunt/control.sock"),
            state_dir: "/run/shunt".into(),
            http: Some("127.0.0.1:9464".parse().expect("an address")),
            http_allow_remote: false,
        },
        process: ProcessConfig::default(),
        workers: vec![WorkerConfig { name: name("w0"), cpu: Some(0), poll: PollMode::Busy }],
        ports: vec![
            PortConfig {
                name: name("vm0"),
                endpoint: Endpoint::VhostUser(VhostUser {
                    socket: socket("/run/shunt/vm0.sock"),
                    role: Role::Server,
                    queues: 1,
                }),
                mac: None,
                vni: None,
                workers: vec![name("w0")],
                limits: FlowLimits::default(),
                aggregation: Aggregation::of(PortKind::VhostUser),
            },
            PortConfig {
                name: name("vm1"),
                endpoint: Endpoint::VhostUser(VhostUser {
                    socket: socket("/run/shunt/vm1.sock"),
                    role: Role::Client,
                    queues: 128,
                }),
                mac: None,
                vni: None,
                workers: Vec::new(),
                limits: FlowLimits::default(),
                aggregation: Aggregation::of(PortKind::VhostUser),
            },
        ],
        crossconnects: vec![CrossConnect { ports: [name("vm0"), name("vm1")] }],
        controllers: Vec::new(),
    };
    assert_eq!(parse(EXAMPLE), Ok(expected));
}

#[test]
fn the_example_that_the_readme_runs_is_accepted() {
    let config = parse(include_str!("../../../docs/examples/node.toml")).expect("accepted");
    assert_eq!(config.ports.len(), 2);
}

#[test]
fn an_empty_file_is_a_node_with_one_adaptive_worker() {
    let expected = Config { workers: vec![WorkerConfig::fallback()], ..Config::default() };
    assert_eq!(parse(""), Ok(expected));
    let control = ControlConfig::default();
    assert_eq!(
        (control.socket.to_string().as_str(), control.state_dir.to_str()),
        (DEFAULT_SOCKET, Some(DEFAULT_RUN_DIR))
    );
}

#[test]
fn inline_tables_are_tables_too() {
    let text = "worker = [{ name = 'a' },\n  { name = 'b', pol = 'busy' }]";
    refused(&[(text, "node.toml:2: unknown key \"pol\" in [[worker]]; known keys: name, cpu, poll")]);
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    refused(&[
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nquues = 4\n",
            "node.toml:4: unknown key \"quues\" in [[port]]; known keys: name, kind, socket, role, queues, interface, xdp_queue, xdp_mode, xdp_zero_copy, local, peer, address, gateway, mtu, mac, vni, workers, max_flows, max_unconfirmed_flows, plans_per_second, aggregate, trusted, tx-aggr-max-bytes, tx-aggr-max-frames, tx-aggr-time-usecs, template",
        ),
        (
            "[control]\n\nsockets = '/s'\n",
            "node.toml:3: unknown key \"sockets\" in [control]; known keys: socket, state_dir, http, http_allow_remote",
        ),
        (
            "[[worker]]\nname = 'a'\n[[worker]]\nname = 'b'\ncore = 1\n",
            "node.toml:5: unknown key \"core\" in [[worker]]; known keys: name, cpu, poll",
        ),
        ("[[crossconnect]]\nport = 'a'\n", "node.toml:2: unknown key \"port\" in [[crossconnect]]; known keys: ports"),
        (
            "# nothing\n[[ports]]\nname = 'a'\n",
            "node.toml:2: unknown key \"ports\" at the top level; known keys: node, control, process, worker, port, crossconnect, controller",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nmacs = '02:00:00:00:00:01'\n",
            "node.toml:4: unknown key \"macs\" in [[port]]; known keys: name, kind, socket, role, queues, interface, xdp_queue, xdp_mode, xdp_zero_copy, local, peer, address, gateway, mtu, mac, vni, workers, max_flows, max_unconfirmed_flows, plans_per_second, aggregate, trusted, tx-aggr-max-bytes, tx-aggr-max-frames, tx-aggr-time-usecs, template",
        ),
    ]);
}

#[test]
fn values_of_a_wrong_type_or_range_are_named_with_their_line() {
    refused(&[
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nqueues = 'two'\n",
            "node.toml:4: [[port]] key \"queues\" must be a whole number, not a string",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nqueues = 0\n",
            "node.toml:4: [[port]] key \"queues\" is 0, which is outside 1..=128",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nqueues = 129\n",
            "node.toml:4: [[port]] key \"queues\" is 129, which is outside 1..=128",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nqueues = 99999999999999999999\n",
            "node.toml:4: no key takes a number beyond 64 bits",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nqueues = 1.5\n",
            "node.toml:4: [[port]] key \"queues\" must be a whole number, not a fraction",
        ),
        (
            "[[port]]\nname = 7\nsocket = '/s'\n",
            "node.toml:2: [[port]] key \"name\" must be a string, not a whole number",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nworkers = 'w0'\n",
            "node.toml:4: [[port]] key \"workers\" must be an array of names, not a string",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nworkers = [1]\n",
            "node.toml:4: [[port]] key \"workers\" must be an array of names, not an array with other things",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nworkers = []\n",
            "node.toml:4: [[port]] key \"workers\" must not be empty",
        ),
        ("[port]\nname = 'a'\n", "node.toml:1: top-level key \"port\" must be an array of tables, [[..]], not a table"),
        ("[[control]]\n", "node.toml:1: top-level key \"control\" must be one table, [..], not an array"),
        (
            "[control]\nhttp_allow_remote = 1\n",
            "node.toml:2: [control] key \"http_allow_remote\" must be true or false, not a whole number",
        ),
        ("[control]\nstate_dir = ''\n", "node.toml:2: [control] key \"state_dir\" must not be empty"),
        ("[[port]]\nname = 2026-01-01\n", "node.toml:2: no key takes a date"),
    ]);
}

/// Decisions 25 and 26: who a node is, and how a port deals with aggregates, is said in words that ethtool has for it.
#[test]
fn aggregation_is_as_a_port_says() {
    assert_eq!(parse("[node]\nid = 65535\n").map(|config| config.node.id.get()), Ok(65_535));
    assert_eq!(parse("[node]\n").map(|config| config.node.id.get()), Ok(1));
    assert_eq!(parse("").map(|config| config.node.id.get()), Ok(1));
    let stage = |text: &str| parse(text).map(|config| config.node.stage());
    assert_eq!([stage(""), stage("[node]\ntor = false\n"), stage("[node]\ntor = true\n")], [Ok(2), Ok(2), Ok(3)]);
    let guest = "[[port]]\nname = 'a'\nsocket = '/s'\n";
    let uplink = "[[port]]\nname = 'a'\nkind = 'tap'\ninterface = 't'\n";
    let aggregation = |text: &str, rest: &str| parse(&format!("{text}{rest}")).expect(rest).ports[0].aggregation;
    let default = Aggregation::of(PortKind::VhostUser);
    assert_eq!(aggregation(guest, ""), default, "a guest may begin");
    assert_eq!(aggregation(uplink, ""), Aggregation { aggregate: false, ..default }, "an uplink would have to");
    assert_eq!(aggregation(uplink, "aggregate = true\n"), default);
    let all = "aggregate = false\ntrusted = true\ntx-aggr-max-bytes = 52\ntx-aggr-max-frames = 65535\ntx-aggr-time-usecs = 100000\ntemplate = true\n";
    let expected = Aggregation {
        aggregate: false,
        trusted: true,
        max_bytes: Some(52),
        max_frames: Some(u16::MAX),
        time_usecs: 100_000,
        template: true,
    };
    assert_eq!((aggregation(guest, all), aggregation(uplink, all)), (expected, expected));
    for (line, message) in [
        ("aggregate = 1", "\"aggregate\" must be true or false, not a whole number"),
        ("template = 'no'", "\"template\" must be true or false, not a string"),
        ("trusted = 'yes'", "\"trusted\" must be true or false, not a string"),
        ("tx-aggr-max-bytes = 51", "\"tx-aggr-max-bytes\" is 51, which is outside 52..=65535"),
        ("tx-aggr-max-bytes = 65536", "\"tx-aggr-max-bytes\" is 65536, which is outside 52..=65535"),
        ("tx-aggr-max-frames = 0", "\"tx-aggr-max-frames\" is 0, which is outside 1..=65535"),
        ("tx-aggr-max-frames = 65536", "\"tx-aggr-max-frames\" is 65536, which is outside 1..=65535"),
        ("tx-aggr-time-usecs = -1", "\"tx-aggr-time-usecs\" is -1, which is outside 0..=100000"),
        ("tx-aggr-time-usecs = 100001", "\"tx-aggr-time-usecs\" is 100001, which is outside 0..=100000"),
        ("tx-aggr-time-usecs = 1.5", "\"tx-aggr-time-usecs\" must be a whole number, not a fraction"),
    ] {
        refused(&[(&format!("{guest}{line}\n"), &format!("node.toml:4: [[port]] key {message}"))]);
    }
    let spelled = parse(&format!("{guest}tx_aggr_max_bytes = 1500\n")).expect_err("another spelling");
    assert!(spelled.starts_with("node.toml:4: unknown key \"tx_aggr_max_bytes\" in [[port]]"), "{spelled}");
    refused(&[
        ("[node]\n\nid = 0\n", "node.toml:3: [node] key \"id\" is 0, which is outside 1..=65535"),
        ("[node]\nid = 65536\n", "node.toml:2: [node] key \"id\" is 65536, which is outside 1..=65535"),
        ("[node]\nname = 'n'\n", "node.toml:2: unknown key \"name\" in [node]; known keys: id, tor"),
        ("[node]\ntor = 1\n", "node.toml:2: [node] key \"tor\" must be true or false, not a whole number"),
        ("[[node]]\nid = 1\n", "node.toml:1: top-level key \"node\" must be one table, [..], not an array"),
    ]);
    for (change, key) in [
        (Aggregation { max_bytes: Some(51), ..default }, "tx-aggr-max-bytes"),
        (Aggregation { max_frames: Some(0), ..default }, "tx-aggr-max-frames"),
        (Aggregation { time_usecs: 100_001, ..default }, "tx-aggr-time-usecs"),
    ] {
        let mut built = parse(guest).expect("accepted");
        built.ports[0].aggregation = change;
        let fault = built.check(&Machine::with_cpus([0])).expect_err("refused");
        assert_eq!(fault.place, Place { section: "port", index: 0, key: key.into() });
    }
}

#[test]
fn flows_of_a_port_are_as_many_as_it_says() {
    let port = "[[port]]\nname = 'a'\nsocket = '/s'\n";
    let limits = |rest: &str| parse(&format!("{port}{rest}")).expect(rest).ports[0].limits;
    let default = FlowLimits { confirmed: 131_072, unconfirmed: 16_384, plans_per_second: 200_000 };
    assert_eq!((limits(""), FlowLimits::default()), (default, default));
    assert_eq!(limits("max_flows = 2\n"), FlowLimits { confirmed: 2, ..default });
    let most = "max_flows = 1000000\nmax_unconfirmed_flows = 48000\nplans_per_second = 10000000\n";
    let expected = FlowLimits { confirmed: 1_000_000, unconfirmed: 48_000, plans_per_second: 10_000_000 };
    assert_eq!(limits(most), expected);
    for (line, message) in [
        ("max_flows = 1", "[[port]] key \"max_flows\" is 1, which is outside 2..=1000000"),
        ("max_flows = 1000001", "[[port]] key \"max_flows\" is 1000001, which is outside 2..=1000000"),
        ("max_unconfirmed_flows = 0", "[[port]] key \"max_unconfirmed_flows\" is 0, which is outside 1..=48000"),
        (
            "max_unconfirmed_flows = 48001",
            "[[port]] key \"max_unconfirmed_flows\" is 48001, which is outside 1..=48000",
        ),
        ("plans_per_second = 0", "[[port]] key \"plans_per_second\" is 0, which is outside 1..=10000000"),
        ("plans_per_second = -1", "[[port]] key \"plans_per_second\" is -1, which is outside 1..=10000000"),
        ("plans_per_second = 1.5", "[[port]] key \"plans_per_second\" must be a whole number, not a fraction"),
    ] {
        refused(&[(&format!("{port}{line}\n"), &format!("node.toml:4: {message}"))]);
    }
    let mut built = parse(port).expect("accepted");
    built.ports[0].limits.unconfirmed = 0;
    let fault = built.check(&Machine::with_cpus([0])).expect_err("refused");
    assert_eq!(fault.to_string(), "[[port]] key \"max_unconfirmed_flows\" is 0, which is outside 1..=48000");
    assert_eq!(fault.place, Place { section: "port", index: 0, key: "max_unconfirmed_flows".into() });
}

#[test]
fn missing_keys_are_named_with_the_line_of_their_table() {
    refused(&[
        ("\n[[port]]\nsocket = '/s'\n", "node.toml:2: [[port]] key \"name\" is missing"),
        ("[[port]]\nname = 'a'\n", "node.toml:1: [[port]] key \"socket\" is missing"),
        ("[[worker]]\nname = 'a'\n\n[[worker]]\ncpu = 1\n", "node.toml:4: [[worker]] key \"name\" is missing"),
        ("[[crossconnect]]\n", "node.toml:1: [[crossconnect]] key \"ports\" is missing"),
    ]);
}

#[test]
fn spelled_values_list_what_they_can_be() {
    refused(&[
        (
            "[[worker]]\nname = 'a'\npoll = 'bussy'\n",
            "node.toml:3: [[worker]] key \"poll\" is \"bussy\"; it can be \"busy\", \"adaptive\" or \"interrupt\"",
        ),
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nrole = 'master'\n",
            "node.toml:4: [[port]] key \"role\" is \"master\"; it can be \"server\" or \"client\"",
        ),
        (
            "[[port]]\nname = 'a'\nkind = 'vhost'\n",
            "node.toml:3: [[port]] key \"kind\" is \"vhost\"; it can be \"vhost-user\", \"af-packet\", \"af-xdp\", \"tap\" or \"udp\"",
        ),
    ]);
}

#[test]
fn names_can_stand_in_file_names_and_urls() {
    let long = "n".repeat(64);
    let cases = [
        ("", "it is empty"),
        ("a/b", "\"a/b\" has '/' at position 2; names have letters, digits, '.', '_' and '-'"),
        ("größe", "\"größe\" has 'ö' at position 3; names have letters, digits, '.', '_' and '-'"),
        ("..", "\"..\" must begin with a letter or a digit"),
        ("-x", "\"-x\" must begin with a letter or a digit"),
        (long.as_str(), "it has 64 bytes; the longest allowed has 63"),
    ];
    for (name, cause) in cases {
        let text = format!("[[port]]\nname = '{name}'\nsocket = '/s'\n");
        refused(&[(&text, &format!("node.toml:2: [[port]] key \"name\": {cause}"))]);
    }
    Name::new("n".repeat(63)).expect("as long as can be");
}

#[test]
fn socket_paths_must_fit_a_socket_address() {
    let long = format!("/{}", "d".repeat(107));
    let text = format!("[[port]]\nname = 'a'\nsocket = '{long}'\n");
    let message = format!(
        "node.toml:3: [[port]] key \"socket\": socket path {long} has 108 bytes; the longest that the system takes has 107"
    );
    refused(&[
        (&text, &message),
        ("[control]\nsocket = ''\n", "node.toml:2: [control] key \"socket\": socket path is empty"),
        (
            "[control]\nsocket = \"/a\\u0000b\"\n",
            "node.toml:2: [control] key \"socket\": socket path \"/a\\0b\" contains a NUL byte",
        ),
    ]);
    SocketPath::new(&long[..107]).expect("as long as can be");
}

#[test]
fn duplicates_and_broken_references_are_named() {
    let two = "[[port]]\nname = 'a'\nsocket = '/a'\n[[port]]\nname = 'b'\nsocket = '/b'\n";
    let with = |rest: &str| format!("{two}{rest}");
    let cases = [
        ("[[worker]]\nname = 'w'\n[[worker]]\nname = 'w'\n".to_owned(), "4: worker name \"w\" is used twice"),
        (with("[[port]]\nname = 'a'\nsocket = '/c'\n"), "8: port name \"a\" is used twice"),
        (with("[[port]]\nname = 'c'\nsocket = '/b'\n"), "9: port \"c\" uses socket /b, which port \"b\" uses already"),
        (
            with("[[port]]\nname = 'c'\nsocket = '/run/shunt/control.sock'\n"),
            "9: port \"c\" uses socket /run/shunt/control.sock, which [control] uses already",
        ),
        (
            with("[[port]]\nname = 'c'\nsocket = '/c'\nworkers = ['w0', 'w1']\n"),
            "10: port \"c\" names worker \"w1\", which does not exist; there is \"w0\"",
        ),
        (
            with("[[port]]\nname = 'c'\nsocket = '/c'\nworkers = ['w0', 'w0']\n"),
            "10: port \"c\" names worker \"w0\" twice",
        ),
        (with("[[crossconnect]]\nports = ['a', 'x']\n"), "8: crossconnect names port \"x\", which does not exist"),
        (with("[[crossconnect]]\nports = ['a', 'a']\n"), "8: crossconnect wires port \"a\" to itself"),
        (with("[[crossconnect]]\nports = ['a']\n"), "8: crossconnect wires 2 ports, not 1"),
        (
            with("[[crossconnect]]\nports = ['a', 'b']\n[[crossconnect]]\nports = ['b', 'a']\n"),
            "10: port \"b\" is in two crossconnects",
        ),
    ];
    for (text, message) in cases {
        refused(&[(&text, &format!("node.toml:{message}"))]);
    }
}

#[test]
fn a_worker_is_pinned_only_to_a_cpu_that_is_there() {
    refused(&[
        (
            "[[worker]]\nname = 'w0'\ncpu = 3\n",
            "node.toml:3: cpu 3 of worker \"w0\" is not one that this process may use: 0-2, 8",
        ),
        (
            "[[worker]]\nname = 'w0'\ncpu = -1\n",
            "node.toml:3: [[worker]] key \"cpu\" is -1, which is outside 0..=65536",
        ),
    ]);
    assert!(Machine::current().to_string().starts_with(|c: char| c.is_ascii_digit()));
}

#[test]
fn http_is_loopback_unless_said_otherwise() {
    refused(&[
        (
            "[control]\nhttp = '0.0.0.0:9464'\n",
            "node.toml:2: http address 0.0.0.0:9464 is not a loopback address; \
             set http_allow_remote = true to let other machines read from it",
        ),
        (
            "[control]\nhttp = 'localhost:9464'\n",
            "node.toml:2: http address \"localhost:9464\" is not an IP address and a port, such as \"127.0.0.1:9464\"",
        ),
    ]);
    parse("[control]\nhttp = '[::1]:9464'\n").expect("allowed");
    parse("[control]\nhttp = '0.0.0.0:9464'\nhttp_allow_remote = true\n").expect("allowed");
}

#[test]
fn bounds_on_the_number_of_things_are_named() {
    let many: String = (0..65).map(|n| format!("[[worker]]\nname = 'w{n}'\n")).collect();
    refused(&[(&many, "node.toml:1: 65 [[worker]] tables; at most 64 are served")]);
}

#[test]
fn what_is_not_toml_is_said_on_one_line() {
    for text in ["[control\n", "a = \n", "\n\n= 1", "[[port]]\nname = 'a'\nname = 'b'\n", "\u{0}"] {
        let message = parse(text).expect_err(text);
        assert!(message.starts_with("node.toml:") && message.contains(": not valid TOML: "), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let message = Config::load("/nonexistent/node.toml".as_ref()).expect_err("no such file").to_string();
    assert_eq!(message, "cannot read /nonexistent/node.toml: No such file or directory (os error 2)");
}

#[test]
fn a_port_is_read_back_from_its_own_json() {
    let mut port = PortConfig::vhost_user(name("vm0"), "/tmp/vm0.sock").expect("a path");
    let defaults = port.clone();
    assert_eq!(PortConfig::from_json(br#"{"name":"vm0","socket":"/tmp/vm0.sock"}"#), Ok(defaults));
    let guest = port.guest_mut().expect("vhost-user");
    (guest.role, guest.queues) = (Role::Client, 4);
    port.workers = vec![name("w1")];
    port.limits = FlowLimits { confirmed: 1000, unconfirmed: 100, plans_per_second: 10 };
    port.aggregation = Aggregation {
        aggregate: false,
        trusted: true,
        max_bytes: Some(1500),
        max_frames: Some(20),
        time_usecs: 50,
        template: true,
    };
    let uplinks = [uplink_tests::UPLINK, uplink_tests::LINKS].map(|text| parse(text).expect("accepted").ports);
    for port in [vec![port], uplinks.concat()].concat() {
        let json = serde_json::to_vec(&port).expect("JSON");
        assert_eq!(PortConfig::from_json(&json), Ok(port));
    }
}

#[test]
fn a_port_refused_as_json_names_the_key() {
    let cases = [
        (
            &br#"{"name":"a","socket":"/s","quues":1}"#[..],
            "quues",
            "unknown key \"quues\" in [[port]]; known keys: name, ",
        ),
        (br#"{"name":"a"}"#, "", "[[port]] key \"socket\" is missing"),
        (br#"{"name":"a","socket":null}"#, "socket", "[[port]] key \"socket\" must be a string, not null"),
        (br#"{"name":"a","socket":"/s","queues":18446744073709551615}"#, "queues", "[[port]] key \"queues\" is "),
        (br#"[1]"#, "", "not valid JSON: expected an object, found an array"),
        (br#"{"#, "", "not valid JSON: EOF while parsing"),
        (b"\xff", "", "not valid JSON: "),
    ];
    for (body, key, message) in cases {
        let fault = PortConfig::from_json(body).expect_err("refused");
        assert_eq!(fault.place.key, key);
        assert!(fault.to_string().starts_with(message), "{fault}");
    }
}

#[test]
fn a_process_is_confined_unless_it_says_otherwise() {
    let process = |text: &str| parse(text).map(|config| config.process);
    assert_eq!(process(""), Ok(ProcessConfig { confined: true, capabilities: Vec::new() }));
    let all = vec![Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::IpcLock];
    assert_eq!(
        process("[process]\nconfined = false\ncapabilities = ['net_admin', 'net_raw', 'bpf', 'ipc_lock']\n"),
        Ok(ProcessConfig { confined: false, capabilities: all })
    );
    refused(&[
        (
            "[process]\n\ncapabilities = 'sys_admin'\n",
            "node.toml:3: [process] key \"capabilities\": \"sys_admin\" is not one that a port can need; known: net_admin, net_raw, bpf, ipc_lock",
        ),
        (
            "[process]\nuser = 'x'\n",
            "node.toml:2: unknown key \"user\" in [process]; known keys: confined, capabilities",
        ),
    ]);
}
