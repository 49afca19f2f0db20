// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stateful policy, packet by packet: after every one the whole state of the port is what it was, plus what the test says
//! (VF-22, VF-28). See [`support::Whole`] for the words.
//!
//! Every scenario runs twice: rules are told what flows counted after every packet, and only when it happens by itself.

mod support;

use std::net::IpAddr;

use packet::{DropCause, Tunnel, Verdict};
use support::{ACK, Bench, FIN, PASS, Packet, RST, SYN, What, allow, block, group, idle, name, pool, rule, stateful};
use switch::condition::{Condition, Conditions};
use switch::engine::EngineConfig;
use switch::flow::tcp::State;
use switch::model::Direction::{In, Out};
use switch::model::{
    Action, Answer, Balance, Content, Default, Destination, Edit, Encap, Endpoint, Group, Mapping, Mappings, Nat,
    Resource, Source,
};

const VM: support::End = ([10, 0, 0, 1], 1000);
const SERVER: support::End = ([203, 0, 113, 7], 80);
const STRANGER: support::End = ([203, 0, 113, 66], 80);
const PUBLIC: [u8; 4] = [192, 0, 2, 1];

/// Runs a scenario in both ways.
fn both(config: EngineConfig, scenario: impl Fn(&mut Bench)) {
    for eager in [true, false] {
        let mut bench = Bench::new(config, eager);
        scenario(&mut bench);
        bench.finish();
    }
}

fn roomy() -> EngineConfig {
    EngineConfig { flows: 64, small_flows: 32, plans_per_second: 1_000_000, seed: 5 }
}

const fn dropped(cause: DropCause) -> Option<Verdict> {
    Some(Verdict::Drop(cause))
}

/// The ends of a UDP or TCP frame.
fn ends(frame: &[u8]) -> (support::End, support::End) {
    let address = |at: usize| frame[at..at + 4].try_into().expect("four bytes");
    let port = |at: usize| u16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes"));
    ((address(26), port(34)), (address(30), port(36)))
}

/// A firewall: what the guest asks is answered, and nothing else comes in.
fn firewall(bench: &mut Bench, seconds: u32) {
    bench.layer("acl", 10, Default::Block, vec![rule("out", Out, &[], stateful(seconds))]);
}

fn snat(bench: &mut Bench, last: u16) {
    bench.edit(vec![pool("pool", PUBLIC, 5000, last)]);
    let nat = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle(60) };
    bench.layer("nat", 10, Default::Block, vec![rule("out", Out, &[], Action::Nat(nat))]);
}

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

/// What the two ends of a TCP connection say to each other.
struct Tcp {
    client: support::End,
    server: support::End,
    /// What each has sent.
    next: [u32; 2],
}

impl Tcp {
    const fn new(client: support::End, server: support::End) -> Self {
        Self { client, server, next: [1000, 70_000] }
    }

    const fn client(&mut self, flags: u8, len: u16) -> Packet {
        let [seq, ack] = self.next;
        let ack = if flags & ACK == 0 { 0 } else { ack };
        self.next[0] += len as u32 + (flags & (SYN | FIN)).count_ones();
        Packet::tcp(self.client, self.server, flags, seq, ack).with(len)
    }

    const fn server(&mut self, flags: u8, len: u16) -> Packet {
        let [ack, seq] = self.next;
        self.next[1] += len as u32 + (flags & (SYN | FIN)).count_ones();
        Packet::tcp(self.server, self.client, flags, seq, ack).with(len)
    }
}

/// Opens a connection through [`firewall`].
fn handshake(bench: &mut Bench, tcp: &mut Tcp, paths: u32) {
    let first = format!("misses+1 flows+1 connections+1 paths+{paths} acl/g/out+1");
    bench.packet(Out, tcp.client(SYN, 0), PASS, &first);
    assert_eq!(bench.tcp().last(), Some(&State::SynSent));
    let second = format!("misses+1 flows+1 paths+{paths} acl/entry+1");
    bench.packet(In, tcp.server(SYN | ACK, 0), PASS, &second);
    bench.packet(Out, tcp.client(ACK, 0), PASS, "hits+1 confirmed+2 acl/g/out+1");
}

/// VF-22
#[test]
fn tcp_opens_talks_closes_and_opens_again() {
    both(roomy(), |bench| {
        firewall(bench, 3600);
        let mut tcp = Tcp::new(VM, SERVER);
        handshake(bench, &mut tcp, 1);
        assert_eq!(bench.tcp(), [State::Established; 2]);
        let (out, back) = ("hits+1 acl/g/out+1", "hits+1 acl/entry+1");
        bench.packet(Out, tcp.client(ACK, 500), PASS, out);
        bench.packet(In, tcp.server(ACK, 900), PASS, back);
        // Established ones are not half-open: it lives for as long as its rule says.
        bench.sweep_after(3599, "");
        bench.packet(Out, tcp.client(ACK, 0), PASS, out);
        // One that was not meant for this connection, and one that the server never sent.
        let forged = Packet::tcp(SERVER, VM, RST, 5, 0);
        bench.packet(In, forged, PASS, "hits+1 implausible+1 acl/entry+1");
        assert_eq!(bench.tcp(), [State::Established; 2]);
        bench.packet(Out, tcp.client(FIN | ACK, 0), PASS, out);
        assert_eq!(bench.tcp(), [State::Closing; 2]);
        bench.packet(In, tcp.server(ACK, 10), PASS, back);
        bench.packet(In, tcp.server(FIN | ACK, 0), PASS, back);
        assert_eq!(bench.tcp(), [State::Closing; 2]);
        bench.packet(Out, tcp.client(ACK, 0), PASS, out);
        assert_eq!(bench.tcp(), [State::TimeWait; 2]);
        bench.sweep_after(59, "");
        // The same ends once more.
        tcp.next = [5_000_000, 6_000_000];
        bench.packet(
            Out,
            tcp.client(SYN, 0),
            PASS,
            "flows-2 connections-1 confirmed-2 paths-2 misses+1 flows+1 connections+1 paths+1 acl/g/out+1",
        );
        bench.packet(In, tcp.server(SYN | ACK, 0), PASS, "misses+1 flows+1 paths+1 acl/entry+1");
        bench.packet(Out, tcp.client(ACK, 0), PASS, "hits+1 confirmed+2 acl/g/out+1");
        // Reset by the server, in its window: 10 s.
        bench.packet(In, tcp.server(RST | ACK, 0), PASS, back);
        assert_eq!(bench.tcp(), [State::Reset; 2]);
        bench.sweep_after(10, "");
        bench.sweep_after(1, "expired+1 flows-2 connections-1 confirmed-2 paths-2");
        // TIME_WAIT: 60 s; closing: 120 s.
        let mut tcp = Tcp::new((VM.0, 1001), SERVER);
        handshake(bench, &mut tcp, 1);
        bench.packet(Out, tcp.client(FIN | ACK, 0), PASS, out);
        bench.sweep_after(119, "");
        bench.packet(In, tcp.server(FIN | ACK, 0), PASS, back);
        bench.packet(Out, tcp.client(ACK, 0), PASS, out);
        bench.sweep_after(60, "");
        bench.sweep_after(1, "expired+1 flows-2 connections-1 confirmed-2 paths-2");
        handshake(bench, &mut Tcp::new((VM.0, 1002), SERVER), 1);
        bench.packet(Out, Packet::tcp((VM.0, 1002), SERVER, FIN | ACK, 1001, 70_001), PASS, out);
        bench.sweep_after(120, "");
        bench.sweep_after(1, "expired+1 flows-2 connections-1 confirmed-2 paths-2");
    });
}

/// VF-22: what nobody has confirmed does not last, and forged packets confirm nothing.
#[test]
fn tcp_that_is_not_what_it_seems() {
    both(roomy(), |bench| {
        firewall(bench, 3600);
        let mut tcp = Tcp::new(VM, SERVER);
        let syn = tcp.client(SYN, 0);
        bench.packet(Out, syn, PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        bench.packet(Out, syn, PASS, "hits+1 acl/g/out+1");
        // Answers nothing that was asked.
        let forged = Packet::tcp(SERVER, VM, SYN | ACK, 9, 999_999);
        bench.packet(In, forged, PASS, "misses+1 implausible+1 flows+1 paths+1 acl/entry+1");
        bench.packet(Out, Packet::tcp(VM, SERVER, ACK, 1001, 10), PASS, "hits+1 implausible+1 acl/g/out+1");
        assert_eq!(bench.tcp(), [State::SynSent; 2]);
        bench.packet(In, Packet::tcp(SERVER, VM, RST | ACK, 0, 77), PASS, "hits+1 implausible+1 acl/entry+1");
        bench.packet(In, tcp.server(SYN | ACK, 0), PASS, "hits+1 acl/entry+1");
        assert_eq!(bench.tcp(), [State::SynReceived; 2]);
        bench.sweep_after(30, "");
        bench.sweep_after(1, "expired+1 flows-2 connections-1 paths-2");
        // A SYN that is refused.
        let mut tcp = Tcp::new((VM.0, 1001), SERVER);
        bench.packet(Out, tcp.client(SYN, 0), PASS, "misses+1 flows+1 connections+1 paths+1 acl/g/out+1");
        bench.packet(In, tcp.server(RST | ACK, 0), PASS, "misses+1 flows+1 paths+1 acl/entry+1");
        assert_eq!(bench.tcp(), [State::Reset; 2]);
        bench.sweep_after(11, "expired+1 flows-2 connections-1 paths-2");
        // What can begin nothing leaves nothing behind.
        for flags in [RST, RST | ACK, SYN | ACK, 0] {
            let stray = Packet::tcp((VM.0, 1002), SERVER, flags, 7, 7);
            bench.packet(Out, stray, PASS, "misses+1 not_cached+1 acl/g/out+1");
        }
        bench.packet(
            In,
            Packet::tcp(SERVER, (VM.0, 1002), SYN | ACK, 7, 7),
            dropped(DropCause::PolicyDefault),
            "misses+1 flows+1 paths+1 acl/default+1",
        );
        // A connection that was there before: nothing is proven until both have said something that fits.
        let (client, server) = ((VM.0, 1003), SERVER);
        let begins = "misses+1 flows+1 connections+1 paths+1 acl/g/out+1";
        bench.packet(Out, Packet::tcp(client, server, ACK, 100, 900).with(50), PASS, begins);
        bench.packet(In, Packet::tcp(server, client, ACK, 900, 150), PASS, "misses+1 flows+1 paths+1 acl/entry+1");
        bench.packet(In, Packet::tcp(server, client, ACK, 900, 150).with(20), PASS, "hits+1 acl/entry+1");
        bench.packet(Out, Packet::tcp(client, server, ACK, 150, 920), PASS, "hits+1 confirmed+2 acl/g/out+1");
        assert_eq!(bench.tcp().iter().filter(|state| **state == State::Established).count(), 2);
    });
}

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

/// Decision 16
#[test]
fn fragments_follow_their_first() {
    both(roomy(), |bench| {
        snat(bench, 5999);
        let fragment = |id, at, payload, more| Packet::fragment(VM, SERVER, id, at, payload, more);
        let early = Some(Verdict::Park(DropCause::FragmentTimeout));
        bench.packet(Out, fragment(1, 32, 32, true), early, "early_fragments+1");
        let first = "misses+1 flows+1 connections+1 paths+1 datagrams+1 nat/g/out+1";
        bench.packet(Out, fragment(1, 0, 24, true), PASS, first);
        let later = bench.packet(Out, fragment(1, 32, 32, true), PASS, "nat/g/out+1");
        assert_eq!(later[26..30], PUBLIC);
        // What was judged is what arrives.
        let bad = dropped(DropCause::BadFragment);
        bench.packet(Out, fragment(1, 32, 32, true), bad, "bad_fragments+1");
        bench.packet(Out, fragment(1, 56, 16, true), bad, "bad_fragments+1");
        bench.packet(Out, fragment(1, 0, 24, true), bad, "bad_fragments+1");
        bench.packet(Out, fragment(1, 64, 10, false), PASS, "datagrams-1 nat/g/out+1");
        bench.packet(Out, fragment(1, 64, 10, false), early, "early_fragments+1");
        // The next datagram of the same flow.
        bench.packet(Out, fragment(2, 0, 24, true), PASS, "hits+1 datagrams+1 nat/g/out+1");
        bench.packet(Out, fragment(2, 32, 9, false), PASS, "datagrams-1 nat/g/out+1");
        // Dropped with the first.
        let dropped = dropped(DropCause::PolicyDefault);
        let first = Packet::fragment(STRANGER, VM, 9, 0, 24, true);
        let later = Packet::fragment(STRANGER, VM, 9, 32, 32, true);
        bench.packet(In, first, dropped, "misses+1 flows+1 paths+1 datagrams+1 nat/default+1");
        bench.packet(In, later, dropped, "");
        bench.sweep_after(31, "expired+2 flows-2 connections-1 paths-2 resting+1 datagrams-1");
    });
}

/// Decision 16: they leave nothing behind, and keep nothing alive.
#[test]
fn icmp_errors_change_nothing() {
    both(roomy(), |bench| {
        snat(bench, 5999);
        let sent =
            bench.packet(Out, Packet::udp(VM, SERVER), PASS, "misses+1 flows+1 connections+1 paths+1 nat/g/out+1");
        let (from, to) = ends(&sent);
        let about = |from, to| {
            let what = What::Unreachable { from, to, protocol: 17 };
            Packet { from: (STRANGER.0, 0), to: (PUBLIC, 0), what, payload: 0 }
        };
        let got = bench.packet(In, about(from, to), PASS, "icmp_errors+1 nat/entry+1");
        let expected = Packet { to: (VM.0, 0), ..about(VM, SERVER) };
        assert_eq!((&got[26..34], &got[54..66]), (&expected.bytes(In)[26..34], &expected.bytes(In)[54..66]));
        let stray = about((PUBLIC, 4000), SERVER);
        bench.packet(In, stray, dropped(DropCause::PolicyDefault), "icmp_errors+1 nat/default+1");
        bench.wait(29);
        bench.packet(In, about(from, to), PASS, "icmp_errors+1 nat/entry+1");
        bench.sweep_after(2, "expired+1 flows-1 connections-1 paths-1 resting+1");
        bench.packet(In, about(from, to), dropped(DropCause::PolicyDefault), "icmp_errors+1 nat/default+1");
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
