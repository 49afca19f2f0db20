// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TCP, from its first segment to its last.

use packet::DropCause;
use switch::flow::tcp::State;
use switch::model::Direction::{In, Out};

use crate::support::{self, ACK, Bench, FIN, PASS, Packet, RST, SYN};
use crate::{SERVER, VM, both, dropped, firewall, roomy};

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
