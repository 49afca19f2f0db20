// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Command lines that make no sense, and those that ask for help.

use super::{fails, succeeds};

#[test]
fn each_mistake_is_one_line_and_status_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "a command is missing; --help lists them"),
        (&["port"], "a command is missing; --help lists them"),
        (&["frob"], "unrecognized subcommand 'frob'"),
        (&["run"], "the following required arguments were not provided: --config <FILE>"),
        (
            &["run", "--config", "x", "--log", "loud"],
            "invalid value 'loud' for '--log <LEVEL>' [possible values: off, error, warn, info, debug, trace]",
        ),
        (&["port", "add", "vm0"], "the following required arguments were not provided: --socket <PATH>"),
        (
            &["port", "add", "a/b", "--socket", "s"],
            "invalid value 'a/b' for '<NAME>': \"a/b\" has '/' at position 2; \
             names have letters, digits, '.', '_' and '-'",
        ),
        (
            &["port", "add", "a", "--socket", "s", "--queues", "129"],
            "invalid value '129' for '--queues <N>': 129 is not in 1..=128",
        ),
        (
            &["port", "add", "a", "--socket", "s", "--max-flows", "1"],
            "invalid value '1' for '--max-flows <N>': 1 is not in 2..=1000000",
        ),
        (
            &["port", "add", "a", "--socket", "s", "--role", "master"],
            "invalid value 'master' for '--role <ROLE>' [possible values: server, client]",
        ),
        (&["stats", "--jsn"], "unexpected argument '--jsn' found"),
        (&["capture", "vm0"], "the following required arguments were not provided: --write <FILE>"),
        (
            &["capture", "vm0", "--write", "f", "--filter", "tcp port"],
            "invalid value 'tcp port' for '--filter <EXPR>': at byte 8: the end where a port from 0 to 65535 is expected",
        ),
        (&["trace"], "a command is missing; --help lists them"),
        (&["trace", "drops", "--rate", "0"], "invalid value '0' for '--rate <N>': 0 is not in 1..=10000"),
    ];
    for (arguments, message) in cases {
        assert_eq!(fails(2, arguments), *message);
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for command in [&["--help"][..], &["run", "--help"], &["port", "add", "--help"], &["stats", "--help"]] {
        assert!(succeeds(command).contains("Usage: shunt"));
    }
    assert_eq!(succeeds(&["--version"]), format!("shunt {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_configuration_that_is_wrong_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    let name = file.to_str().expect("text");
    let message = fails(1, &["run", "--config", name]);
    assert_eq!(message, format!("cannot read {name}: No such file or directory (os error 2)"));
    let cases = [
        (
            "[[port]]\nname = 'a'\nsocket = '/s'\nquues = 4\n",
            ":4: unknown key \"quues\" in [[port]]; known keys: name, kind, socket, role, queues, interface, xdp_queue, xdp_mode, xdp_zero_copy, local, peer, address, gateway, mtu, mac, vni, workers, max_flows, max_unconfirmed_flows, plans_per_second, aggregate, trusted, tx-aggr-max-bytes, tx-aggr-max-frames, tx-aggr-time-usecs, template",
        ),
        (
            "[[port]]\nname = 'a'\nkind = 'tun'\n",
            ":3: [[port]] key \"kind\" is \"tun\"; it can be \"vhost-user\", \"af-packet\", \"af-xdp\", \"tap\" or \"udp\"",
        ),
        ("[control]\nsocket = '/nonexistent/c.sock'\n", ""),
    ];
    for (text, message) in cases {
        std::fs::write(&file, text).expect("written");
        let expected = if message.is_empty() {
            "cannot listen on /nonexistent/c.sock: its directory /nonexistent does not exist".to_owned()
        } else {
            format!("{name}{message}")
        };
        assert_eq!(fails(1, &["run", "--config", name]), expected);
    }
}
