// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fragments, and ICMP errors that quote a packet.

use packet::{DropCause, Verdict};
use switch::model::Direction::{In, Out};

use crate::support::{PASS, Packet, What};
use crate::{PUBLIC, SERVER, STRANGER, VM, both, dropped, ends, roomy, snat};

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
