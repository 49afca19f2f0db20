// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Translation, back ends and maps.

use std::net::IpAddr;

use packet::{DropCause, Tunnel, Verdict};
use switch::model::Direction::{In, Out};
use switch::model::{
    Action, Answer, Balance, Content, Default, Destination, Edit, Encap, Endpoint, Mapping, Mappings, Nat, Resource,
    Source,
};

use crate::support::{self, PASS, Packet, idle, name, pool, rule};
use crate::{PUBLIC, SERVER, STRANGER, VM, both, dropped, ends, roomy, snat};

/// VF-14, VF-22: names rest, and a list that is used up is told.
#[test]
fn source_nat_gives_ports_and_takes_them_back() {
    both(roomy(), |bench| {
        snat(bench, 5001);
        let begins = "misses+1 flows+1 connections+1 paths+0 nat/g/out+1";
        let mut given = Vec::new();
        for (n, changes) in [(1, "misses+1 flows+1 connections+1 paths+1 nat/g/out+1"), (2, begins)] {
            let ask = Packet::udp((VM.0, n), SERVER);
            let sent = bench.packet(Out, ask, PASS, changes);
            let (from, to) = ends(&sent);
            assert_eq!((from.0, to), (PUBLIC, SERVER));
            given.push(from.1);
            assert_eq!(bench.packet(Out, ask, PASS, "hits+1 nat/g/out+1"), sent);
        }
        given.sort_unstable();
        assert_eq!(given, [5000, 5001]);
        let third = Packet::udp((VM.0, 3), SERVER);
        let exhausted = dropped(DropCause::NatExhausted);
        bench.packet(Out, third, exhausted, "misses+1 not_cached+1 nat_exhausted+1 nat_events+1 nat/g/out+1");
        bench.packet(Out, third, exhausted, "misses+1 not_cached+1 nat_exhausted+1 nat_events+1 nat/g/out+1");
        // To somebody else the same ports do.
        bench.packet(Out, Packet::udp((VM.0, 3), STRANGER), PASS, begins);
        let answer = |port| Packet::udp(SERVER, (PUBLIC, port));
        let got = bench.packet(In, answer(5000), PASS, "misses+1 flows+1 confirmed+2 paths+1 nat/entry+1");
        assert_eq!((ends(&got).0, ends(&got).1.0), (SERVER, VM.0));
        bench.packet(In, answer(5001), PASS, "misses+1 flows+1 confirmed+2 nat/entry+1");
        bench.packet(In, answer(5002), dropped(DropCause::PolicyDefault), "misses+1 flows+1 paths+1 nat/default+1");
        // What was not answered goes after 30 s, the rest after 60; each name rests for 30 s more.
        bench.sweep_after(31, "expired+2 flows-2 connections-1 paths-1 resting+1");
        bench.sweep_after(29, "");
        bench.sweep_after(1, "expired+2 flows-4 connections-2 confirmed-4 paths-2 resting+2 resting-1");
        bench.packet(Out, third, exhausted, "misses+1 not_cached+1 nat_exhausted+1 nat_events+1 nat/g/out+1");
        bench.sweep_after(31, "resting-2");
        bench.packet(Out, third, PASS, "misses+1 flows+1 connections+1 paths+1 nat/g/out+1");
    });
}

#[test]
fn two_connections_never_have_one_name() {
    both(roomy(), |bench| {
        let to = Endpoint { address: IpAddr::from(PUBLIC), port: Some(99) };
        let nat = Nat { source: Some(Source::Fixed(to)), destination: None, stateful: idle(60) };
        bench.layer("nat", 10, Default::Allow, vec![rule("out", Out, &[], Action::Nat(nat))]);
        bench.packet(Out, Packet::udp(VM, SERVER), PASS, "misses+1 flows+1 connections+1 paths+1 nat/g/out+1");
        bench.packet(
            Out,
            Packet::udp((VM.0, 7), SERVER),
            dropped(DropCause::NatExhausted),
            "misses+1 name_conflicts+1 not_cached+1 nat/g/out+1",
        );
        bench.packet(Out, Packet::udp((VM.0, 7), STRANGER), PASS, "misses+1 flows+1 connections+1 nat/g/out+1");
    });
}

/// VF-6, VF-21: the flow of the answers is made with the first packet that comes in.
#[test]
fn a_balanced_connection_comes_in_and_is_answered() {
    both(roomy(), |bench| {
        let backend = |last| Endpoint { address: IpAddr::from([10, 0, 0, last]), port: Some(8080) };
        let balance = Balance { backends: vec![backend(1), backend(2)], stateful: idle(60) };
        let vip = rule("vip", In, &[("dst_ip", "198.51.100.1")], Action::Balance(balance));
        bench.layer("lb", 20, Default::Block, vec![vip]);
        let vip = ([198, 51, 100, 1], 80);
        let got = bench.packet(In, Packet::udp(SERVER, vip), PASS, "misses+1 flows+2 connections+1 paths+2 lb/g/vip+1");
        let (from, chosen) = ends(&got);
        assert_eq!((from, chosen.1), (SERVER, 8080));
        let answer = Packet::udp(chosen, SERVER);
        let sent = bench.packet(Out, answer, PASS, "hits+1 confirmed+2 lb/entry+1");
        assert_eq!(ends(&sent), (vip, SERVER));
        bench.packet(Out, answer, PASS, "hits+1 lb/entry+1");
        bench.packet(In, Packet::udp(SERVER, vip), PASS, "hits+1 lb/g/vip+1");
        // Another client begins another, of which nothing is answered.
        bench.packet(In, Packet::udp(STRANGER, vip), PASS, "misses+1 flows+2 connections+1 lb/g/vip+1");
        // What the guest sends by itself is none of the balancer's business.
        bench.packet(
            Out,
            Packet::udp(VM, STRANGER),
            dropped(DropCause::PolicyDefault),
            "misses+1 flows+1 paths+1 lb/default+1",
        );
        bench.sweep_after(31, "expired+2 flows-3 connections-1 paths-1");
        bench.sweep_after(30, "expired+1 flows-2 connections-1 confirmed-2 paths-2");
    });
}

/// VF-14: a packet waits, and later ones ask again only after a second.
#[test]
fn a_map_is_asked_and_its_answers_hold_as_long_as_it_says_the_same() {
    both(roomy(), |bench| {
        let content = Content::Map(Mappings::default());
        let directory = Resource { name: name("directory"), controller: name("test"), content };
        bench.edit(vec![Edit::PutResource { resource: std::sync::Arc::new(directory) }]);
        let encap = Encap {
            tunnel: Tunnel::Vxlan,
            vni: Some(77),
            source: IpAddr::from([192, 0, 2, 9]),
            destination: Destination::Mapped(name("directory")),
        };
        bench.layer("meter", 5, Default::Allow, vec![rule("out", Out, &[], Action::Count)]);
        bench.layer("vnet", 10, Default::Allow, vec![rule("out", Out, &[], Action::Encap(encap))]);
        bench.layer("wire", 20, Default::Allow, vec![rule("out", Out, &[], Action::Count)]);
        let (one, other) = (([10, 0, 9, 1], 53), ([10, 0, 9, 2], 53));
        let put = |to: support::End, answer| Edit::PutMapping {
            resource: name("directory"),
            address: IpAddr::from(to.0),
            answer,
        };
        let known =
            |last| Some(Answer::Known(Mapping { address: IpAddr::from([192, 0, 2, last]), vni: None, mac: None }));
        let parked = Some(Verdict::Park(DropCause::Unresolved));
        let (to_one, to_other) = (Packet::udp(VM, one), Packet::udp(VM, other));
        bench.packet(Out, to_one, parked, "misses+1 waiting+1 miss_events+1");
        bench.packet(Out, to_one, parked, "misses+1 waiting+1");
        bench.packet(Out, to_other, parked, "misses+1 waiting+1 miss_events+1");
        bench.wait(1);
        bench.packet(Out, to_one, parked, "misses+1 waiting+1 miss_events+1");
        bench.edit(vec![put(one, known(8)), put(other, known(8))]);
        // The layer behind sees it in its tunnel: 50 bytes more.
        let first = "misses+1 flows+1 paths+1 meter/g/out+1 vnet/g/out+1 wire/g/out+1:112";
        let hit = "hits+1 meter/g/out+1 vnet/g/out+1 wire/g/out+1:112";
        bench.packet(Out, to_one, PASS, first);
        bench.packet(Out, to_one, PASS, hit);
        bench.packet(Out, to_other, PASS, first);
        // One of them moves: only its flows are planned again.
        bench.edit(vec![put(one, known(7))]);
        let sent = bench.packet(Out, to_one, PASS, &format!("{hit} replanned+1"));
        assert_eq!(sent[30..34], [192, 0, 2, 7]);
        bench.packet(Out, to_other, PASS, &format!("{hit} revalidated+1"));
        bench.packet(Out, to_one, PASS, hit);
        bench.packet(Out, to_other, PASS, hit);
        // There is no such address, for a while.
        let until_ns = bench.now + 2 * support::SECOND;
        bench.edit(vec![put(one, Some(Answer::Unknown { until_ns }))]);
        let denied = dropped(DropCause::NoMapping);
        bench.packet(Out, to_one, denied, "hits+1 replanned+1 meter/g/out+1 vnet/g/out+1");
        bench.packet(Out, to_one, denied, "hits+1 meter/g/out+1 vnet/g/out+1");
        bench.wait(3);
        bench.packet(Out, to_one, parked, "flows-1 paths-1 misses+1 waiting+1 miss_events+1");
        // It is forgotten, whoever had it: the next packet waits.
        bench.edit(vec![put(other, None)]);
        bench.packet(Out, to_other, parked, "flows-1 paths-1 replanned+1 misses+1 waiting+1 miss_events+1");
        // What waited in vain has met these rules, the last of which asked.
        bench.give_up(Out, to_other, "meter/g/out+1 vnet/g/out+1");
    });
}

/// VF-13: a list of ranges is changed alone; what it gave stays as long as it is still in it.
#[test]
fn ranges_change_under_connections() {
    both(roomy(), |bench| {
        snat(bench, 5000);
        let (ask, answer) = (Packet::udp(VM, SERVER), Packet::udp(SERVER, (PUBLIC, 5000)));
        let begins = "misses+1 flows+1 connections+1 paths+1 nat/g/out+1";
        let answered = "misses+1 flows+1 confirmed+2 paths+1 nat/entry+1";
        bench.packet(Out, ask, PASS, begins);
        bench.packet(In, answer, PASS, answered);
        bench.edit(vec![pool("pool", PUBLIC, 4000, 5000)]);
        assert_eq!(ends(&bench.packet(Out, ask, PASS, "hits+1 replanned+1 nat/g/out+1")).0, (PUBLIC, 5000));
        bench.packet(In, answer, PASS, "hits+1 revalidated+1 nat/entry+1");
        bench.edit(vec![pool("pool", PUBLIC, 6000, 6000)]);
        let sent = bench.packet(
            Out,
            ask,
            PASS,
            "replanned+1 ended_by_policy+1 flows-2 connections-1 confirmed-2 paths-2 resting+1 misses+1 flows+1 connections+1 paths+1 nat/g/out+1",
        );
        assert_eq!(ends(&sent).0, (PUBLIC, 6000));
    });
}
