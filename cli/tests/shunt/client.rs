// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands to a node that is not there, or is something else.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use super::fails;

#[test]
fn a_node_that_is_not_there_is_named_by_its_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("c.sock");
    let name = socket.to_str().expect("text");
    for command in [
        &["port", "list"][..],
        &["port", "list", "--json"],
        &["port", "add", "a", "--socket", "/s"],
        &["port", "remove", "a"],
        &["stats"],
        &["stats", "--json"],
        &["top"],
        &["policy", "show"],
        &["policy", "show", "--controller", "acl"],
        &["flows", "--port", "a"],
    ] {
        let message = fails(1, &[command, &["--control", name]].concat());
        let expected = format!("no node answers on {name}: it does not exist; is \"shunt run\" running?");
        assert_eq!(message, expected, "for {command:?}");
    }
    drop(UnixListener::bind(&socket).expect("bound"));
    let message = fails(1, &["stats", "--control", name]);
    assert_eq!(message, format!("no node answers on {name}: nobody listens on it; is \"shunt run\" running?"));
    let long = "/".repeat(120);
    assert_eq!(
        fails(1, &["stats", "--control", &long]),
        format!("control socket: socket path {long} has 120 bytes; the longest that the system takes has 107")
    );
}

#[test]
fn what_is_not_a_node_is_said_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("c.sock");
    let name = socket.to_str().expect("text");
    let listener = UnixListener::bind(&socket).expect("bound");
    let answers: [&[u8]; 4] = [
        b"",
        b"+PONG\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    ];
    let server = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).expect("a request");
            assert!(request[..read].starts_with(b"GET /stats HTTP/1.1\r\n"));
            stream.write_all(answer).expect("answered");
        }
    });
    for _ in answers {
        let message = fails(1, &["stats", "--control", name]);
        assert!(message.starts_with(&format!("what answers on {name} is not a Shunt node: ")), "{message}");
    }
    server.join().expect("no panic");
}

#[test]
fn a_port_that_cannot_be_is_refused_before_anybody_is_asked() {
    let message = fails(1, &["port", "add", "a", "--socket", "/s", "--kind", "tun"]);
    assert_eq!(
        message,
        "port a: [[port]] key \"kind\" is \"tun\"; it can be \"vhost-user\", \"af-packet\", \"af-xdp\", \"tap\" or \"udp\""
    );
    let message = fails(1, &["port", "add", "a", "--local", "192.0.2.1:1", "--peer", "192.0.2.1:1"]);
    assert_eq!(message, "port a: [[port]] key \"peer\" is 192.0.2.1:1, which is \"local\" itself");
    let message = fails(1, &["port", "add", "a", "--kind", "tap", "--interface", "tap0", "--xdp-queue", "1"]);
    assert_eq!(message, "port a: [[port]] key \"xdp_queue\" is not for kind \"tap\"");
    let long = format!("/{}", "s".repeat(107));
    let message = fails(1, &["port", "add", "a", "--socket", &long]);
    assert_eq!(
        message,
        format!(
            "port a: [[port]] key \"socket\": socket path {long} has 108 bytes; \
             the longest that the system takes has 107"
        )
    );
}
