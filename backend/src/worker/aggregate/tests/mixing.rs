// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of one burst that go different ways to one peer: in a group, in another, plain.

use aggregation::Features;
use packet::Offload;
use proptest::prelude::*;

use super::super::wire::{Wire, WireConfig};
use super::unfinished::{tcp, unfinished};
use crate::worker::lab::{Came, Lab, Peer, mac_of, node, packet, station, wire_config};

const AWARE: usize = 0;
const PLAIN: usize = 1;
/// Longest frame that the node puts together.
const MOST: usize = 1500;
/// What a packet of that many bytes has around it in a frame of its own.
const AROUND: usize = 36;

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
enum To {
    /// A station at the peer.
    Peer,
    /// One at a node behind it.
    Behind,
    /// One that nobody knows.
    Nobody,
}

/// A packet of the burst.
#[derive(Clone, Copy, Debug)]
struct Packet {
    to: To,
    from: u8,
    len: usize,
    class: u8,
    tagged: bool,
    unfinished: bool,
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let to = prop_oneof![4 => Just(To::Peer), 2 => Just(To::Behind), 1 => Just(To::Nobody)];
    let len = prop_oneof![8 => 60..300_usize, 1 => 1400..1600_usize];
    let rare = || prop::bool::weighted(0.1);
    let one = (to, 10..12_u8, len, 0..2_u8, rare(), rare());
    let one = one.prop_map(|(to, from, len, class, tagged, unfinished)| {
        // Those that go plain would be finished here.
        let unfinished = unfinished && len < 300 && !matches!(to, To::Nobody);
        Packet { to, from, len, class, tagged: tagged && !unfinished, unfinished }
    });
    // Runs, as senders have them.
    let run = (one, 1..9_usize).prop_map(|(packet, n)| vec![packet; n]);
    prop::collection::vec(run, 1..20).prop_map(|runs| runs.concat())
}

impl Packet {
    fn frame(self, number: u32) -> Vec<u8> {
        let to = match self.to {
            To::Peer => station(2),
            To::Behind => station(5),
            To::Nobody => station(9),
        };
        if self.unfinished {
            let mut frame = tcp(self.len);
            frame[..6].copy_from_slice(&to.0);
            frame[6..12].copy_from_slice(&station(self.from).0);
            frame[38..42].copy_from_slice(&number.to_be_bytes());
            return frame;
        }
        let mut frame = packet(to, station(self.from), number, self.len);
        frame[12..16].copy_from_slice(&[8, 0, 0x45, self.class << 5]);
        if self.tagged {
            frame.splice(12..12, [0x81, 0, 0, 7]);
        }
        frame
    }
}

proptest! {
    /// None is overtaken by another to the same station, whichever way it goes, and each is in a group of the node that takes it out.
    #[test]
    fn packets_of_a_burst_keep_their_order_and_go_where_they_are_to(burst in packets()) {
        let mut lab = Lab::new(1, &[Some(WireConfig { max_bytes: MOST, ..wire_config(1) }), None]);
        let all = Features::CHECKSUM.with(Features::CHECK).with(Features::GROUP_CRC);
        let wire = Wire::with_features(node(2), wire_config(2), all, lab.now_ns());
        let mut peer = Peer::join_as(&mut lab, AWARE, wire);
        peer.send(&mut lab, 0, &[packet(mac_of(9), station(2), 0, 60)]);
        lab.run();
        peer.wire.node = 5;
        peer.send(&mut lab, 0, &[packet(mac_of(9), station(5), 0, 60)]);
        lab.run();
        peer.receive(&mut lab);
        peer.got.clear();
        let frames: Vec<_> = (0..).zip(&burst).map(|(number, packet)| packet.frame(number)).collect();
        for (frame, packet) in frames.iter().zip(&burst) {
            let offload = if packet.unfinished { unfinished(false) } else { Offload::NONE };
            lab.send_unfinished(PLAIN, std::slice::from_ref(frame), offload);
        }
        lab.run();
        peer.receive(&mut lab);
        peer.got.retain(|(_, frame)| frame[12..14] != [0x80, 0x35]);
        let expected: Vec<_> = frames.into_iter().zip(&burst).map(|(frame, packet)| {
            let group = match packet.to {
                _ if frame.len() + AROUND > MOST => None,
                To::Peer => Some((1, 0)),
                To::Behind => Some((1, 5)),
                To::Nobody => None,
            };
            (group, frame)
        }).collect();
        // Packets for a station that nobody knows go plain at once; nothing that they belong to waits in a frame.
        for to in [2, 5, 9] {
            let is_to = |came: &&Came| came.1[..6] == station(to).0;
            prop_assert!(peer.got.iter().filter(is_to).eq(expected.iter().filter(is_to)), "to station {}", to);
        }
        prop_assert_eq!(peer.got.len(), expected.len());
        prop_assert_eq!(lab.drops(PLAIN).len() + lab.drops(AWARE).len(), 0);
    }
}
