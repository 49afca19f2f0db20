// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What passes uplinks, captured, and what they drop, told.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use packet::{DropCause, PortId};

use crate::config::Name;
use crate::inspect::{Capture, CaptureId, CaptureRequest, DropHub, Ends, MAX_SNAPLEN, share};
use crate::worker::lab::{Lab, Peer, mac_of, packet, station, wire_config};
use crate::worker::mailbox::Command;

const AWARE: usize = 0;
const PLAIN: usize = 1;

fn capture(lab: &mut Lab, port: usize, inward: bool) -> Capture {
    let request = CaptureRequest { pair: None, inward, outward: !inward, filter: None, snaplen: MAX_SNAPLEN };
    let (id, of) = (CaptureId(2 * port as u64 + u64::from(inward)), PortId(u16::try_from(port).unwrap()));
    let mut ends = Ends::new();
    let sink = Box::new(share(id, of, 1, &request, 1, &mut ends));
    assert!(lab.worker.serve(Command::StartCapture { sink, reply: sync_channel(1).0 }));
    Capture::new(Name::new("up").unwrap(), String::new(), MAX_SNAPLEN, ends, Box::new(()))
}

/// The packets of a capture, whole.
fn packets(capture: &mut Capture) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    capture.take(&mut out, (u64::MAX, 1 << 20), None, true);
    let (mut rest, mut packets) = (&out[..], Vec::new());
    while !rest.is_empty() {
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        if number(0) == 6 {
            packets.push(rest[28..28 + number(20)].to_vec());
        }
        rest = &rest[number(4)..];
    }
    packets
}

/// A node with an aware peer at one port and a station at the other, and captures of what comes in and goes out at both.
fn scene() -> (Lab, Peer, [[Capture; 2]; 2]) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), None]);
    let mut peer = Peer::join(&mut lab, AWARE, 2);
    // Both stations are known.
    lab.send(PLAIN, &[packet(mac_of(9), station(1), 0, 60)]);
    peer.send(&mut lab, 0, &[packet(station(1), station(2), 0, 60)]);
    lab.run();
    peer.receive(&mut lab);
    peer.got.clear();
    lab.take(PLAIN);
    let captures = [AWARE, PLAIN].map(|port| [true, false].map(|inward| capture(&mut lab, port, inward)));
    (lab, peer, captures)
}

fn numbered(to: u8, from: u8) -> Vec<Vec<u8>> {
    let lengths = [60, 61, 256, 257, 258, 900, 1500].into_iter().cycle();
    (0..40).zip(lengths).map(|(number, length)| packet(station(to), station(from), number, length)).collect()
}

#[test]
fn what_passes_uplinks_is_captured_byte_for_byte() {
    let (mut lab, mut peer, [[mut aware_in, mut aware_out], [mut plain_in, mut plain_out]]) = scene();
    let (to_plain, to_aware) = (numbered(1, 2), numbered(2, 1));
    for packets in to_plain.chunks(8) {
        peer.send(&mut lab, 0, packets);
    }
    lab.run();
    lab.send(PLAIN, &to_aware);
    lab.run();
    assert!(lab.take(PLAIN) == to_plain);
    peer.receive(&mut lab);
    assert!(peer.got.iter().map(|(_, bytes)| bytes).eq(&to_aware));
    assert!(peer.got.iter().any(|(group, _)| group.is_some()), "nothing was put together");
    assert!(packets(&mut aware_in) == to_plain && packets(&mut plain_out) == to_plain);
    assert!(packets(&mut plain_in) == to_aware && packets(&mut aware_out) == to_aware);
    assert!(lab.drops(AWARE).is_empty() && lab.drops(PLAIN).is_empty());
}

#[test]
fn a_capture_that_ended_leaves_nothing_behind() {
    let (mut lab, _, captures) = scene();
    let (reply, answer) = sync_channel(4);
    for id in 0..4 {
        assert!(lab.worker.serve(Command::EndCapture { id: CaptureId(id), reply: reply.clone() }));
        assert!(answer.recv().unwrap().is_some(), "its sink comes back, for others to free");
    }
    assert!(lab.worker.path.sinks.is_empty() && lab.worker.path.uplinks.iter().all(|uplink| uplink.tap.is_none()));
    lab.send(PLAIN, &numbered(2, 1));
    lab.run();
    for mut capture in captures.into_iter().flatten() {
        assert!(capture.take(&mut Vec::new(), (1, 1 << 20), None, true).ended, "nobody writes any more");
    }
}

/// A group that cannot go on is lost as one; a frame from who may not send it, too.
#[test]
fn drops_at_uplinks_are_told() {
    let hub = Arc::new(DropHub::default());
    let mut lab = Lab::traced(1, &[Some(wire_config(1)), None], &hub);
    let mut peer = Peer::join(&mut lab, AWARE, 2);
    let mut trace = hub.trace(None, 100).unwrap();
    let group = [packet(station(1), station(2), 0, 60), packet(station(1), station(2), 1, 60)];
    peer.send(&mut lab, 77, &group);
    lab.send(PLAIN, &[vec![1, 2, 3]]);
    lab.run();
    let told: Vec<_> = std::iter::from_fn(|| trace.take()).collect();
    let of = |port: u16, cause: DropCause| {
        let mut of = told.iter().filter(|drop| (drop.port, drop.cause) == (PortId(port), cause));
        of.next().unwrap_or_else(|| panic!("{told:?}"))
    };
    assert_eq!(of(0, DropCause::NoDestination).packets, 2);
    let runt = of(1, DropCause::Runt);
    assert_eq!((runt.packets, runt.length, runt.bytes()), (1, 3, &[1, 2, 3][..]));
    assert_eq!((told.len(), trace.missed()), (2, 0));
}
