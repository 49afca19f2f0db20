// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy that changes under connections.

use packet::DropCause;
use switch::condition::{Condition, Conditions};
use switch::model::Direction::{In, Out};
use switch::model::{Action, Default, Edit, Group};

use crate::support::{PASS, Packet, allow, block, group, name, rule, stateful};
use crate::{SERVER, VM, both, dropped, roomy};

/// VF-20: what a change does not concern is looked at once; what it does is planned again, or ends.
#[test]
fn policy_changes_under_connections() {
    both(roomy(), |bench| {
        let ports = |text: &str, ports: &str, actions: Vec<Action>| {
            let rules = actions.into_iter().zip(1..).map(|(action, n)| rule(&format!("r{n}"), Out, &[], action));
            let when = Conditions::new(vec![Condition::from_text("src_port", [ports]).expect("ports")]);
            Group { when: when.expect("one"), ..group(text, rules.collect()) }
        };
        let low = |actions| ports("low", "1-1999", actions);
        let high = |actions| ports("high", "2000-65535", actions);
        let both = vec![high(vec![stateful(60)]), low(vec![stateful(60)])];
        bench.groups("acl", 10, Default::Block, both);
        for (port, rule, paths) in [(1000, "low", 1), (2000, "high", 1)] {
            let first = format!("misses+1 flows+1 connections+1 paths+{paths} acl/{rule}/r1+1");
            bench.packet(Out, Packet::udp((VM.0, port), SERVER), PASS, &first);
        }
        let (ask_low, answer_low) = (Packet::udp((VM.0, 1000), SERVER), Packet::udp(SERVER, (VM.0, 1000)));
        let (ask_high, answer_high) = (Packet::udp((VM.0, 2000), SERVER), Packet::udp(SERVER, (VM.0, 2000)));
        bench.packet(In, answer_low, PASS, "misses+1 flows+1 confirmed+2 paths+1 acl/entry+1");
        bench.packet(In, answer_high, PASS, "misses+1 flows+1 confirmed+2 acl/entry+1");
        // The low group changes, and says the same about this one.
        bench.groups("acl", 10, Default::Block, vec![low(vec![stateful(60), allow()])]);
        bench.packet(Out, ask_low, PASS, "hits+1 replanned+1 acl/low/r1+1");
        bench.packet(In, answer_low, PASS, "hits+1 revalidated+1 acl/entry+1");
        bench.packet(Out, ask_high, PASS, "hits+1 revalidated+1 acl/high/r1+1");
        bench.packet(In, answer_high, PASS, "hits+1 revalidated+1 acl/entry+1");
        bench.packet(In, answer_high, PASS, "hits+1 acl/entry+1");
        // A layer more: all are planned again, the answers' flows too; the paths of before go with the last flow that
        // has them.
        bench.layer("meter", 20, Default::Allow, vec![rule("all", Out, &[], Action::Count)]);
        bench.packet(In, answer_high, PASS, "hits+1 replanned+2 paths+1 meter/default+1 acl/entry+1");
        bench.packet(Out, ask_high, PASS, "hits+1 meter/g/all+1 acl/high/r1+1");
        bench.packet(Out, ask_low, PASS, "hits+1 replanned+1 paths+0 meter/g/all+1 acl/low/r1+1");
        bench.packet(In, answer_low, PASS, "hits+1 replanned+1 paths-1 meter/default+1 acl/entry+1");
        // The high group blocks now: its connection ends in both directions, the other one does not.
        bench.groups("acl", 10, Default::Block, vec![high(vec![block()])]);
        bench.packet(
            In,
            answer_high,
            dropped(DropCause::PolicyDefault),
            "replanned+1 ended_by_policy+1 connections-1 confirmed-2 flows-2 paths-1 misses+1 flows+1 paths+1 meter/default+1 acl/default+1",
        );
        bench.packet(Out, ask_high, dropped(DropCause::PolicyBlock), "misses+1 flows+1 paths+1 acl/high/r1+1");
        bench.packet(Out, ask_low, PASS, "hits+1 revalidated+1 meter/g/all+1 acl/low/r1+1");
        // It comes to be allowed again: what was dropped begins anew.
        bench.groups("acl", 10, Default::Block, vec![high(vec![stateful(60)])]);
        bench.packet(
            Out,
            ask_high,
            PASS,
            "replanned+1 flows-1 paths-1 misses+1 flows+1 connections+1 paths+1 meter/g/all+1 acl/high/r1+1",
        );
        bench.edit(vec![Edit::RemoveLayer { name: name("acl") }]);
        bench.packet(
            Out,
            ask_low,
            PASS,
            "replanned+1 ended_by_policy+1 connections-1 confirmed-2 flows-2 paths-2 misses+1 flows+1 paths+1 meter/g/all+1",
        );
    });
}
