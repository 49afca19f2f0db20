// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Room and budget.

use packet::DropCause;
use switch::engine::EngineConfig;
use switch::model::Direction::{In, Out};

use crate::support::{self, PASS, Packet, What};
use crate::{SERVER, STRANGER, VM, both, dropped, firewall, roomy};

/// VF-22, decision 17: what nobody has confirmed gives way to what comes later, then what is over, then what is silent.
#[test]
fn what_can_be_missed_makes_room() {
    both(EngineConfig { flows: 4, small_flows: 3, ..roomy() }, |bench| {
        firewall(bench, 3600);
        let ask = |port| Packet::udp((VM.0, port), SERVER);
        let answer = |port| Packet::udp(SERVER, (VM.0, port));
        let begins = "misses+1 flows+1 connections+1 acl/g/out+1";
        bench.packet(Out, ask(1), PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        bench.packet(Out, ask(2), PASS, begins);
        bench.packet(Out, ask(3), PASS, begins);
        bench.packet(Out, ask(4), PASS, "misses+1 evicted_small+1 flows+0 acl/g/out+1");
        bench.packet(
            In,
            answer(1),
            dropped(DropCause::PolicyDefault),
            "misses+1 evicted_small+1 connections-1 paths+1 flows+0 acl/default+1",
        );
        // Two that are confirmed: there is no room for more of those.
        bench.packet(In, answer(3), PASS, "misses+1 flows+1 confirmed+2 paths+1 acl/entry+1");
        bench.wait(1);
        bench.packet(In, answer(4), PASS, "misses+1 flows+1 confirmed+2 acl/entry+1");
        bench.packet(Out, ask(5), PASS, "misses+1 flows+1 connections+1 acl/g/out+1");
        bench.wait(1);
        // The one that was silent for longest goes.
        bench.packet(
            In,
            answer(5),
            PASS,
            "misses+1 evicted+1 flows-2 connections-1 confirmed-2 flows+1 confirmed+2 acl/entry+1",
        );
        bench.packet(Out, ask(4), PASS, "hits+1 acl/g/out+1");
        bench.packet(In, answer(5), PASS, "hits+1 acl/entry+1");
    });
}

/// VF-22: beginning is bounded, going on is not.
#[test]
fn more_than_may_begin_is_dropped() {
    both(EngineConfig { plans_per_second: 4, ..roomy() }, |bench| {
        firewall(bench, 60);
        let ask = |port| Packet::udp((VM.0, port), SERVER);
        bench.packet(Out, ask(1), PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        let begins = "misses+1 flows+1 connections+1 acl/g/out+1";
        for port in 2..=4 {
            bench.packet(Out, ask(port), PASS, begins);
        }
        // Half a second's worth is to be had after a while.
        bench.packet(Out, ask(5), PASS, begins);
        bench.packet(Out, ask(6), PASS, begins);
        let over = dropped(DropCause::PlanBudget);
        bench.packet(Out, ask(7), over, "misses+1 over_budget+1");
        let stranger = What::Unreachable { from: VM, to: SERVER, protocol: 17 };
        let error = Packet { from: STRANGER, to: VM, what: stranger, payload: 0 };
        bench.packet(In, error, over, "icmp_errors+1 over_budget+1");
        bench.packet(Out, ask(1), PASS, "hits+1 acl/g/out+1");
        bench.now += support::SECOND / 4;
        bench.packet(Out, ask(7), PASS, begins);
        bench.packet(Out, ask(8), over, "misses+1 over_budget+1");
        bench.packet(Out, ask(7), PASS, "hits+1 acl/g/out+1");
    });
}
