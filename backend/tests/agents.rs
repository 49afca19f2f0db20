// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Controllers at work: agents that speak REST to a running node whose guests send packets.

mod support;

use etherparse::PacketBuilder;
use serde_json::json;
use support::{BROADCAST, Guest, NodeSpec, Served, TestNode, listen};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A UDP frame from A to B's inner address.
fn udp(destination: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], destination, 64);
    builder.udp(7, 53).write(&mut bytes, &[9; 30]).expect("frame");
    bytes
}

/// Two guests that the bridge knows.
fn guests(node: &TestNode) -> [Guest; 2] {
    let mut guests = ["a", "b"].map(|name| Guest::attach(node.socket(name)));
    for (from, mac) in [(0, A), (1, B)] {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        assert_eq!(guests[1 - from].receive(1).len(), 1);
    }
    guests
}

/// VF-14: a directory agent hears of a miss by its port's name, answers, and the packets that waited go on.
#[test]
fn a_directory_agent_answers_misses() {
    let served = Served::start(NodeSpec::new().port_on("a", 0).port_on("b", 1));
    let [mut a, mut b] = guests(&served.node);
    let encap = json!({"type": "encap", "tunnel": "vxlan", "vni": 77, "source": "192.0.2.9", "map": "directory"});
    let rule = json!({"name": "r", "dir": "out", "match": {"dst_ip": "10.0.0.0/24"}, "action": encap});
    let document = json!({
        "controller": "vnet",
        "layer": [{
            "port": "a", "name": "vnet", "order": 10, "default": "allow", "group": [{"name": "g", "rule": [rule]}],
        }],
        "resource": [{"port": "a", "name": "directory", "type": "map"}],
    });
    let (status, applied) = served.ask("vnet", "POST /policy", &document);
    assert_eq!((status, &applied["versions"]), (200, &json!({"a": 1})), "{applied}");
    let mut heard = listen(&served.socket, "vnet");
    let mut others = listen(&served.socket, "acl");

    let frame = udp([10, 0, 0, 5]);
    a.send(std::slice::from_ref(&frame));
    assert_eq!(heard.next(), Some(json!({"port": "a", "resource": "directory", "address": "10.0.0.5"})));
    let entry = "PUT /ports/a/resources/directory/entries/10.0.0.5";
    assert_eq!(served.version("vnet", entry, &json!({"address": "192.0.2.8"})), 2);
    // Nobody has the outer addresses, so all hear of it.
    let [there] = b.receive(1).try_into().expect("one");
    assert_eq!((&there[26..34], &there[50..]), (&[192, 0, 2, 9, 192, 0, 2, 8][..], &frame[..]));

    assert_eq!(
        served.version("vnet", "PUT /ports/a/resources/directory/entries/10.0.0.6", &json!({"unknown_s": 60})),
        3
    );
    a.send(&[udp([10, 0, 0, 6])]);
    served.node.wait_for_drops("a", "no_mapping", 1);
    // What another controller hears first is of its own.
    let nat = json!({"type": "nat", "source_ranges": "pool"});
    let edits = json!({"edits": [
        {"put_layer": {"name": "acl", "order": 1, "default": "allow"}},
        {"put_resource": {"name": "pool", "type": "range", "ranges": [{"address": "203.0.113.1", "ports": "9-9"}]}},
        {"put_group": {"layer": "acl", "group": {"name": "g", "rule": [
            {"name": "r", "dir": "out", "match": {"dst_ip": "10.1.0.0/24"}, "action": nat},
        ]}}},
    ]});
    assert_eq!(served.version("acl", "POST /ports/a/transactions", &edits), 4);
    for port in [1, 2] {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64);
        builder.udp(port, 53).write(&mut bytes, &[0; 30]).expect("frame");
        a.send(&[bytes]);
    }
    assert_eq!(others.next(), Some(json!({"port": "a", "rule": "acl/g/r"})));
    served.stop();
}

/// Decision 18: when a change is answered, no packet meets the policy before. Counts are those of now.
#[test]
fn an_answered_change_is_in_effect() {
    let served = Served::start(NodeSpec::new().port_on("a", 0).port_on("b", 1));
    let [mut a, mut b] = guests(&served.node);
    served.version("acl", "PUT /ports/a/layers/acl", &json!({"order": 1, "default": "allow"}));
    let path = "PUT /ports/a/layers/acl/groups/g/rules/r";
    served.version("acl", "PUT /ports/a/layers/acl/groups/g", &json!({}));
    let mut blocked = 0;
    for round in 0..20 {
        let action = if round % 2 == 0 { "block" } else { "allow" };
        served.version("acl", path, &json!({"dir": "out", "match": {"ip_proto": "udp"}, "action": {"type": action}}));
        a.send(&[udp([10, 0, 0, 5])]);
        if action == "allow" {
            assert_eq!(b.receive(1).len(), 1);
        } else {
            blocked += 1;
            served.node.wait_for_drops("a", "policy_block", blocked);
        }
        assert!(b.poll().is_empty());
        let (_, rule) = served.ask("acl", "GET /ports/a/layers/acl/groups/g/rules/r", &json!({}));
        assert_eq!(rule["count"]["packets"], round + 1, "a rule of the same name goes on counting");
    }
    served.stop();
}
