// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that send without end, or write while the node reads: bounded, counted, and harmless to others (decisions 1 and 26).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aggregation::negotiation::{Message, Reason};
use backend::stats::{PortState, PortStatus};
use packet::MacAddr;

use crate::arena::{Arena, FIRST, GROUP, U, packets};
use crate::stage::MACS;
use crate::support::{Layout, OFFER, Random, RawDevice, Speaker, aggregates, control, frame, until};

/// Thousands of control frames, good ones and others: each gets at most one answer, strangers less, and nobody waits for it.
#[test]
fn floods_of_control_frames_are_bounded() {
    let mut arena = Arena::start(|_| {});
    let mut evil = Speaker::attach(arena.node.socket("a"), 7, 77);
    let (mut random, mut sent) = (Random::new(4), 0_u64);
    for round in 0..100_u32 {
        let flood: Vec<_> = (0..100)
            .map(|n| match n % 6 {
                0 => control(Message::Hello, |control| control.session = round * 1000 + n + 1),
                1 => control(Message::HelloAck, |control| control.peer_session = 1234),
                2 => control(Message::Keepalive, |control| control.session = 5000 + n),
                3 => control(Message::Bye, |control| control.reason = Some(Reason::Other(9))),
                4 => control(Message::Hello, |control| (control.node, control.session) = (1, n + 1)),
                _ => {
                    let mut noise = control(Message::Hello, |_| {});
                    let at = 14 + random.below(noise.len() - 14);
                    noise[at] ^= 0x55;
                    noise
                }
            })
            .collect();
        sent += flood.len() as u64;
        evil.guest.send(&flood);
        evil.guest.poll();
        arena.others_forward();
    }
    let status = until("all are counted", || {
        let status = arena.node.status("a");
        let bad = status.drops.get("aggregate").copied().unwrap_or(0);
        (status.aggregation.rx_control + bad == sent).then_some(status)
    });
    assert_eq!(status.rx_packets, 0);
    assert!(status.aggregation.tx_control <= 2 * sent, "{status:?}");
    assert_eq!(status.aggregation.peers.get("up"), None, "{status:?}");
    let labels: Vec<_> = status.drops.keys().map(String::as_str).collect();
    assert!(labels.iter().all(|label| ["aggregate", "no_buffers"].contains(label)), "{labels:?}");
    drop(evil);
    arena.node.wait_for("a", PortState::Listening);
    let evil = arena.speaker();
    arena.assert_unharmed(evil);
}

/// Headers and packets are rewritten by another thread while they are read. What was judged is what is delivered: no packet leaves
/// with an address that its sender may not have, or as a frame of the node's; and whatever is read, it is bounded and counted.
#[test]
fn frames_that_change_while_they_are_read_are_read_once() {
    for layout in [Layout::Split, Layout::Packed] {
        let mut arena = Arena::start(|port| port.mac = Some(MacAddr(MACS[0])));
        let mut evil = RawDevice::attach(&arena.node.socket("a"), layout);
        let send = |evil: &mut RawDevice, frame: &[u8]| {
            evil.memory.write(RawDevice::buffer(1), &[&[0; 12], frame].concat()).expect("memory");
            evil.post(1, RawDevice::buffer(1), u32::try_from(12 + frame.len()).expect("short"));
        };
        send(&mut evil, &control(Message::Hello, |control| control.offer = Some(OFFER)));
        until("it is taken", || (arena.node.status("a").aggregation.rx_control == 1).then_some(()));
        // One buffer of 4 KiB, always in the ring's sight, written without end.
        let sent: Vec<_> = packets(50);
        let honest = aggregates(&sent, 4000, false).remove(0);
        let stop = AtomicBool::new(false);
        let rounds = 300_u64;
        let memory = RawDevice::map(&evil.file);
        let mut got = 0;
        thread::scope(|scope| {
            let (memory, stop, honest) = (&memory, &stop, &honest);
            scope.spawn(move || {
                let mut random = Random::new(9);
                while !stop.load(Ordering::Relaxed) {
                    let packet = random.below(50);
                    let at = FIRST + packet * 64;
                    // Lengths, flags, the source and the type, back and forth.
                    let (at, with): (usize, &[u8]) = match random.below(6) {
                        0 => (at, &[0xff, 0xff]),
                        1 => (at + 2, &[0x80, 7]),
                        2 => (at + 4 + 6, &[2, 0, 0, 0, 0, 0x66]),
                        3 => (at + 4 + 12, &[0x88, 0xb5]),
                        4 => (GROUP, &[0xff, 0xff, 4, 0]),
                        _ => (at, &[0, 0, 0, 0]),
                    };
                    let place = RawDevice::buffer(1) + 12 + at as u64;
                    memory.write(place, with).expect("memory");
                    memory.write(place, &honest[at..at + with.len()]).expect("memory");
                }
            });
            for round in 0..rounds {
                let before = arena.node.status("a");
                send(&mut evil, honest);
                until("the frame is dealt with", || {
                    got += arena.b.poll().iter().map(|packet| judge(packet)).sum::<u64>();
                    let status = arena.node.status("a");
                    let count = |status: &PortStatus| {
                        status.aggregation.rx_aggregates + status.drops.get("aggregate").copied().unwrap_or(0)
                    };
                    (count(&status) > count(&before)).then_some(())
                });
                if round % 10 == 0 {
                    arena.others_forward();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // What is still on its way comes before this does.
        let fence = frame(MACS[1], U, 60, 7);
        arena.u.send(std::slice::from_ref(&fence));
        let mut is_last = false;
        until("all has arrived", || {
            for packet in arena.b.poll() {
                is_last = packet == fence;
                got += if is_last { 0 } else { judge(&packet) };
            }
            is_last.then_some(())
        });
        let status = arena.node.status("a");
        // Whatever was read as a packet arrived, or was dropped for what it was then.
        let dropped: u64 = status.drops.values().sum();
        assert_eq!(got + dropped, status.rx_packets, "{status:?}");
        assert!(status.rx_packets <= rounds * 50, "{status:?}");
        assert_eq!(status.errors, BTreeMap::new());
        let damages: u64 = status.aggregation.damages.values().sum();
        assert!(damages + dropped > 0, "nothing was ever changed");
        assert!(got > 0, "nothing ever arrived");
        drop(evil);
        arena.node.wait_for("a", PortState::Listening);
        let evil = arena.speaker();
        arena.assert_unharmed(evil);
    }
}

/// A packet of the scribbler, as it may arrive.
#[track_caller]
fn judge(packet: &[u8]) -> u64 {
    assert_eq!(packet[6..12], MACS[0], "a forged source");
    assert_ne!(packet[12..14], [0x88, 0xb5], "a frame of the node's");
    1
}
