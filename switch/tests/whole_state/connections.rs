// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connections that stateful rules remember, and flows without.

use packet::DropCause;
use switch::model::Direction::{In, Out};
use switch::model::{Action, Default};

use crate::support::{PASS, Packet, What, rule};
use crate::{PUBLIC, SERVER, STRANGER, VM, both, dropped, firewall, roomy, snat};

/// VF-6, VF-21
#[test]
fn udp_through_a_firewall() {
    both(roomy(), |bench| {
        firewall(bench, 60);
        let (ask, answer) = (Packet::udp(VM, SERVER), Packet::udp(SERVER, VM));
        let stranger = Packet::udp(STRANGER, VM);
        bench.packet(In, answer, dropped(DropCause::PolicyDefault), "misses+1 flows+1 paths+1 acl/default+1");
        bench.packet(In, answer, dropped(DropCause::PolicyDefault), "hits+1 acl/default+1");
        bench.packet(Out, ask, PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        bench.packet(Out, ask, PASS, "hits+1 acl/g/out+1");
        // The flow that drops it gives way to one that does not.
        bench.packet(In, answer, PASS, "misses+1 flows+0 confirmed+2 acl/entry+1");
        bench.packet(In, answer, PASS, "hits+1 acl/entry+1");
        bench.packet(Out, ask.with(700), PASS, "hits+1 acl/g/out+1");
        bench.packet(In, stranger, dropped(DropCause::PolicyDefault), "misses+1 flows+1 paths+1 acl/default+1");
        bench.sweep_after(9, "");
        bench.packet(Out, ask, PASS, "hits+1 acl/g/out+1");
        // What is dropped is remembered for 10 s.
        bench.sweep_after(2, "expired+1 flows-1 paths-1");
        // Packets of either side keep it alive.
        bench.wait(50);
        bench.packet(In, answer, PASS, "hits+1 acl/entry+1");
        bench.sweep_after(59, "");
        bench.packet(Out, ask, PASS, "hits+1 acl/g/out+1");
        bench.wait(61);
        bench.packet(
            In,
            answer,
            dropped(DropCause::PolicyDefault),
            "expired+1 flows-2 connections-1 confirmed-2 paths-2 misses+1 flows+1 paths+1 acl/default+1",
        );
        bench.packet(Out, ask, PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        // Nobody answers: 30 s.
        bench.sweep_after(29, "expired+1 flows-1 paths-1");
        bench.sweep_after(2, "expired+1 flows-1 connections-1 paths-1");
    });
}

#[test]
fn an_echo_is_a_connection_by_its_identifier() {
    both(roomy(), |bench| {
        snat(bench, 5000);
        let ask = Packet { from: VM, to: SERVER, what: What::Echo { reply: false }, payload: 30 };
        let sent = bench.packet(Out, ask, PASS, "misses+1 flows+1 connections+1 paths+1 nat/g/out+1");
        assert_eq!((&sent[26..30], &sent[38..40]), (&PUBLIC[..], &5000_u16.to_be_bytes()[..]));
        let reply = Packet { from: (SERVER.0, 5000), to: (PUBLIC, 0), what: What::Echo { reply: true }, payload: 30 };
        let got = bench.packet(In, reply, PASS, "misses+1 flows+1 confirmed+2 paths+1 nat/entry+1");
        let expected = Packet { from: (SERVER.0, VM.1), to: VM, ..reply };
        assert_eq!(got, expected.bytes(In));
        let other = Packet { from: (SERVER.0, 5001), ..reply };
        bench.packet(In, other, dropped(DropCause::PolicyDefault), "misses+1 flows+1 paths+1 nat/default+1");
    });
}

/// VF-21: without state it is the pair that confirms its flows.
#[test]
fn flows_without_connections_pair_too() {
    both(roomy(), |bench| {
        bench.layer("meter", 10, Default::Allow, vec![rule("out", Out, &[], Action::Count)]);
        let (ask, answer) = (Packet::udp(VM, SERVER), Packet::udp(SERVER, VM));
        bench.packet(Out, ask, PASS, "misses+1 flows+1 paths+1 meter/g/out+1");
        bench.packet(In, answer, PASS, "misses+1 flows+1 paths+1 meter/default+1");
        bench.packet(Out, ask, PASS, "hits+1 confirmed+2 meter/g/out+1");
        bench.packet(In, answer, PASS, "hits+1 meter/default+1");
        // That of the answers is made with the first that comes in, and is nobody's before it is used.
        let (ask, answer) = (Packet::udp(STRANGER, VM), Packet::udp(VM, STRANGER));
        bench.packet(In, ask, PASS, "misses+1 flows+2 meter/default+1");
        bench.packet(In, ask, PASS, "hits+1 meter/default+1");
        bench.packet(Out, answer, PASS, "hits+1 confirmed+2 meter/g/out+1");
        bench.sweep_after(60, "");
        bench.sweep_after(1, "expired+4 flows-4 confirmed-4 paths-2");
        // ARP is nobody's connection, and a flow.
        let mut arp = vec![0; 60];
        arp[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6]);
        arp[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        bench.frame(Out, &arp, PASS, "misses+1 flows+1 paths+1 meter/g/out+1");
        bench.frame(Out, &arp, PASS, "hits+1 meter/g/out+1");
        bench.frame(Out, &arp[..9], dropped(DropCause::Runt), "unparsed+1");
    });
}

/// Packets of one connection may differ in what is no part of its names; their flows are bounded.
#[test]
fn a_connection_has_several_flows_and_not_too_many() {
    both(roomy(), |bench| {
        firewall(bench, 60);
        let marked = |packet: Packet, direction, mark: u8| {
            let mut frame = packet.bytes(direction);
            frame[15] = mark << 2;
            frame
        };
        let ask = |mark| marked(Packet::udp(VM, SERVER), Out, mark);
        bench.frame(Out, &ask(0), PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        for mark in 1..8 {
            bench.frame(Out, &ask(mark), PASS, "misses+1 flows+1 acl/g/out+1");
        }
        for mark in 8..12 {
            bench.frame(Out, &ask(mark), PASS, "misses+1 flows+0 acl/g/out+1");
        }
        bench.frame(Out, &ask(0), PASS, "hits+1 acl/g/out+1");
        bench.frame(Out, &ask(11), PASS, "hits+1 acl/g/out+1");
        let answer = Packet::udp(SERVER, VM);
        bench.packet(In, answer, PASS, "misses+1 flows+0 confirmed+8 paths+1 acl/entry+1");
        bench.packet(In, answer, PASS, "hits+1 acl/entry+1");
        bench.sweep_after(61, "expired+1 flows-8 connections-1 confirmed-8 paths-2");
    });
}
