// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the control socket says of flows while guests send packets, and what it makes of their limits.

mod support;

use std::time::Instant;

use backend::config::FlowLimits;
use etherparse::PacketBuilder;
use serde_json::json;
use support::{BROADCAST, Guest, NodeSpec, Served, until};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// All that the guest begins is remembered.
fn stateful(served: &Served, port: &str) {
    let rule = json!({"name": "out", "dir": "out", "action": {"type": "allow", "stateful": true}});
    let layer =
        json!({"port": port, "name": "acl", "order": 10, "default": "block", "group": [{"name": "g", "rule": [rule]}]});
    let document = json!({"controller": format!("acl-{port}"), "layer": [layer]});
    let (status, applied) = served.ask(&format!("acl-{port}"), "POST /policy", &document);
    assert_eq!(status, 200, "{applied}");
}

fn udp(source: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(MACS[0], MACS[1]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(source, 53).write(&mut bytes, &[9; 30]).expect("frame");
    bytes
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
        let report = served.node.handle().ask_engine(port, |engine, port, _| engine.report(port));
        let report = report.expect("node").expect("port").expect("policy");
        assert_eq!((report.limits, report.flows, report.connections), (limits, 4, 4));
        assert_eq!(report.stats.evicted_small, passed - 4);
        assert_eq!(report.stats.over_budget, u64::from(FLOWS) - passed);
    }
    served.stop();
}
