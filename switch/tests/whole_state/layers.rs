// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several layers, and packets that go elsewhere.

use packet::{DropCause, Verdict};
use switch::model::Direction::{In, Out};
use switch::model::{Action, Default, Edit};

use crate::support::{PASS, Packet, name, rule, stateful};
use crate::{PUBLIC, SERVER, VM, both, dropped, ends, roomy, snat};

/// VF-4, VF-28: two controllers that both remember, one of which translates; each knows the packets as it saw them.
#[test]
fn two_layers_remember_one_connection() {
    both(roomy(), |bench| {
        snat(bench, 5000);
        bench.layer("acl", 5, Default::Block, vec![rule("out", Out, &[("src_ip", "10.0.0.0/8")], stateful(30))]);
        bench.layer("edge", 20, Default::Block, vec![rule("out", Out, &[("src_ip", "192.0.2.1")], stateful(90))]);
        let (ask, answer) = (Packet::udp(VM, SERVER), Packet::udp(SERVER, (PUBLIC, 5000)));
        let out = "acl/g/out+1 nat/g/out+1 edge/g/out+1";
        let back = "edge/entry+1 nat/entry+1 acl/entry+1";
        bench.packet(Out, ask, PASS, &format!("misses+1 flows+1 connections+1 paths+1 {out}"));
        let got = bench.packet(In, answer, PASS, &format!("misses+1 flows+1 confirmed+2 paths+1 {back}"));
        assert_eq!(ends(&got), (SERVER, VM));
        bench.packet(Out, ask, PASS, &format!("hits+1 {out}"));
        bench.packet(In, answer, PASS, &format!("hits+1 {back}"));
        // A layer that remembers goes: the connection stays, and its entry there is gone.
        bench.edit(vec![Edit::RemoveLayer { name: name("edge") }]);
        let (out, back) = ("acl/g/out+1 nat/g/out+1", "nat/entry+1 acl/entry+1");
        bench.packet(In, answer, PASS, &format!("hits+1 replanned+2 paths+0 {back}"));
        bench.packet(Out, ask, PASS, &format!("hits+1 {out}"));
        // The least of its rules' times.
        bench.sweep_after(31, "expired+1 flows-2 connections-1 confirmed-2 paths-2 resting+1");
    });
}

/// VF-8: outbound packets go where the rule says, and the layers behind still count.
#[test]
fn hairpins_go_where_they_are_told() {
    both(roomy(), |bench| {
        let to = |text: Option<&str>| Action::Hairpin { to: text.map(name) };
        let rules = vec![
            rule("back", Out, &[("dst_port", "1")], to(None)),
            rule("there", Out, &[("dst_port", "2")], to(Some("other"))),
            rule("nowhere", Out, &[("dst_port", "3")], to(Some("nobody"))),
        ];
        bench.layer("turn", 10, Default::Block, rules);
        bench.layer("meter", 20, Default::Block, vec![rule("all", Out, &[], Action::Count)]);
        bench.engine.name_port(packet::PortId(4), Some(name("other")));
        let sent = |port| Packet::udp(VM, (SERVER.0, port));
        let first = |rule: &str| format!("misses+1 flows+1 paths+1 turn/g/{rule}+1 meter/g/all+1");
        let goes = |port| Some(Verdict::Forward(packet::PortId(port)));
        bench.packet(Out, sent(1), goes(1), &first("back"));
        bench.packet(Out, sent(1), goes(1), "hits+1 turn/g/back+1 meter/g/all+1");
        bench.packet(Out, sent(2), goes(4), &first("there"));
        bench.packet(Out, sent(3), dropped(DropCause::UnknownPort), &first("nowhere"));
        bench.packet(Out, sent(3), dropped(DropCause::UnknownPort), "hits+1 turn/g/nowhere+1 meter/g/all+1");
    });
}
