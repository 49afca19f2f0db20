// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that break their rings in every way: the queue stops, its error eventfd fires, the counter named for the cause
//! moves; the port lives on, others are not harmed, and after a reset the ring works.

mod support;

use support::{BROADCAST, Guest, Layout, Numbered, RawDevice, SIZE, TestNode, exchange, fired, frame, until};

const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// Descriptor flags (virtio 1.3, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const NOWHERE: u64 = 0x10;
/// What a test does to a ring of the device.
type Breakage = fn(&mut RawDevice, u8);

/// Ways to break the transmit ring of either layout, and the cause each has.
fn breakages(layout: Layout) -> Vec<(&'static str, &'static str, Breakage)> {
    let both: [(&str, &str, Breakage); 9] = [
        ("a buffer nowhere", "unmapped", |device, ring| chain(device, ring, &[(NOWHERE, 100, 0)])),
        ("a buffer beyond the end of memory", "unmapped", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 4 << 20, 0)]);
        }),
        ("a buffer beyond the end of the address space", "unmapped", |device, ring| {
            chain(device, ring, &[(u64::MAX - 10, 100, 0)]);
        }),
        ("a writable buffer to be sent", "wrong_direction", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 100, WRITE)]);
        }),
        ("a writable buffer behind a readable one", "wrong_direction", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 100, 0), (RawDevice::buffer(1), 100, WRITE)]);
        }),
        ("no room for a header", "no_header", |device, ring| chain(device, ring, &[(RawDevice::buffer(0), 11, 0)])),
        ("an indirect table inside another", "nested_indirect", |device, ring| {
            let table = RawDevice::buffer(0);
            // Flags are in another place in each layout.
            let (third, fourth) = if device.layout == Layout::Split { (INDIRECT, 0) } else { (0, INDIRECT) };
            device.split_desc(table, 0, (RawDevice::buffer(1), 100, third, fourth));
            chain(device, ring, &[(table, 16, INDIRECT)]);
        }),
        ("an indirect table of half an entry", "bad_indirect", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 24, INDIRECT)]);
        }),
        ("an indirect table that is not mapped", "unmapped", |device, ring| {
            chain(device, ring, &[(NOWHERE, 32, INDIRECT)]);
        }),
    ];
    let split: [(&str, &str, Breakage); 5] = [
        ("a head beyond the ring", "index_beyond_size", |device, ring| device.make_available_split(ring, &[SIZE])),
        ("a next beyond the ring", "index_beyond_size", |device, ring| {
            device.split_desc(RawDevice::table(ring), 0, (RawDevice::buffer(0), 100, NEXT, SIZE));
            device.make_available_split(ring, &[0]);
        }),
        ("a loop", "loop", |device, ring| {
            device.split_desc(RawDevice::table(ring), 0, (RawDevice::buffer(0), 100, NEXT, 1));
            device.split_desc(RawDevice::table(ring), 1, (RawDevice::buffer(0), 100, NEXT, 0));
            device.make_available_split(ring, &[0]);
        }),
        ("more entries than the ring has", "driver_raced", |device, ring| device.set_avail_index(ring, SIZE + 1)),
        ("an available index that goes back", "driver_raced", |device, ring| device.set_avail_index(ring, 0xfff0)),
    ];
    let packed: [(&str, &str, Breakage); 1] = [("a chain longer than the ring", "chain_too_long", |device, ring| {
        let endless = [(RawDevice::buffer(0), 100, 0, NEXT); SIZE as usize];
        device.make_available_packed(ring, &endless);
    })];
    let own = if layout == Layout::Split { split.to_vec() } else { packed.to_vec() };
    both.into_iter().chain(own).collect()
}

/// Makes one chain available: {address, length, flags} each.
fn chain(device: &mut RawDevice, ring: u8, buffers: &[(u64, u32, u16)]) {
    let last = buffers.len() - 1;
    let next = |n: usize| if n < last { NEXT } else { 0 };
    match device.layout {
        Layout::Split => {
            for (n, &(addr, len, flags)) in buffers.iter().enumerate() {
                let index = u16::try_from(n).expect("few");
                device.split_desc(RawDevice::table(ring), index, (addr, len, flags | next(n), index + 1));
            }
            device.make_available_split(ring, &[0]);
        }
        Layout::Packed => {
            let descriptors =
                buffers.iter().enumerate().map(|(n, &(addr, len, flags))| (addr, len, 0, flags | next(n)));
            device.make_available_packed(ring, &descriptors.collect::<Vec<_>>());
        }
    }
}

fn wired() -> TestNode {
    let spec = support::NodeSpec::new().workers(1, backend::config::PollMode::Adaptive);
    spec.port("evil").port("peer").wired("evil", "peer").port("a").port("b").start()
}

/// KA-1: the transmit ring, on a wire and on the bridge.
#[test]
fn a_broken_transmit_ring_costs_only_itself() {
    for layout in [Layout::Split, Layout::Packed] {
        for bridged in [false, true] {
            let node = if bridged { TestNode::bridge(&["evil", "peer", "a", "b"]) } else { wired() };
            let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
            let mut numbers = Numbered::new([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
            b.send(&[frame([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2], 60, 0)]);
            a.receive(1);
            let mut peer = Guest::attach(node.socket("peer"));
            let mut device = RawDevice::attach(&node.socket("evil"), layout);
            let mut causes = std::collections::BTreeMap::new();
            for (n, (what, cause, break_it)) in breakages(layout).into_iter().enumerate() {
                device.sends(&mut peer, n as u64);
                if bridged {
                    // A flood: everybody hears it.
                    assert_eq!((a.receive(1).len(), b.receive(1).len()), (1, 1));
                }
                device.stop(1);
                device.set_up(1);
                break_it(&mut device, 1);
                assert!(fired(&device.errors[1]), "{layout:?}: {what}: no error eventfd");
                *causes.entry(cause.to_owned()).or_insert(0_u64) += 1;
                assert_eq!(node.status("evil").errors, causes, "{layout:?}: {what}");
                exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(50, 300), 50);
                // The other ring of the port works as if nothing had happened.
                device.receives(&mut peer, n as u64);
                // A broken ring is not touched again.
                device.kick(1);
                assert_eq!(node.status("evil").errors, causes);
                device.stop(1);
                device.set_up(1);
                device.stop(0);
                device.set_up(0);
            }
            device.sends(&mut peer, 99);
            assert!(node.status("peer").errors.is_empty());
        }
    }
}

/// The same for the receive ring, which is looked at when there is something to deliver.
#[test]
fn a_broken_receive_ring_costs_only_itself() {
    let faults: [(&str, &str, Breakage); 4] = [
        ("a buffer nowhere", "unmapped", |device, ring| chain(device, ring, &[(NOWHERE, 2000, WRITE)])),
        ("a readable buffer to be received in", "wrong_direction", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 2000, 0)]);
        }),
        ("no room for a header", "no_header", |device, ring| chain(device, ring, &[(RawDevice::buffer(0), 4, WRITE)])),
        ("half an indirect entry", "bad_indirect", |device, ring| {
            chain(device, ring, &[(RawDevice::buffer(0), 8, INDIRECT)]);
        }),
    ];
    for layout in [Layout::Split, Layout::Packed] {
        for bridged in [false, true] {
            let node = if bridged { TestNode::bridge(&["evil", "peer"]) } else { TestNode::pair() };
            let (evil, other) = if bridged { ("evil", "peer") } else { ("a", "b") };
            let mut peer = Guest::attach(node.socket(other));
            let mut device = RawDevice::attach(&node.socket(evil), layout);
            for (n, (what, cause, break_it)) in faults.into_iter().enumerate() {
                let before = node.errors(evil, cause);
                break_it(&mut device, 0);
                peer.send(&Numbered::new(BROADCAST, B).burst(5, 60));
                assert!(fired(&device.errors[0]), "{layout:?}: {what}: no error eventfd");
                assert_eq!(node.errors(evil, cause), before + 1, "{layout:?}: {what}");
                // Nothing of the sender is stuck, and what could not be delivered is accounted for.
                until(&format!("{layout:?} bridged={bridged} {what}: the sender's buffers"), || {
                    (peer.pairs[0].in_flight() == 0).then_some(())
                });
                let lost = |name| node.status(name).drops.values().sum::<u64>();
                let due = 5 * (n as u64 + 1);
                until(&format!("{layout:?} {what}: {due} drops"), || (lost(evil) + lost(other) == due).then_some(()));
                device.sends(&mut peer, n as u64);
                device.stop(0);
                device.set_up(0);
                device.receives(&mut peer, n as u64);
                device.stop(0);
                device.set_up(0);
            }
        }
    }
}

/// A guest that rewrites its buffers while they are read harms nobody: what it sends is its own affair.
#[test]
fn buffers_that_change_under_the_reader_are_harmless() {
    let node = TestNode::bridge(&["evil", "peer"]);
    let mut peer = Guest::attach(node.socket("peer"));
    let mut device = RawDevice::attach(&node.socket("evil"), Layout::Split);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let memory = &device.memory;
        let scribbler = scope.spawn(|| {
            let mut random = support::Random::new(3);
            let mut noise = [0; 4096];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                random.fill(&mut noise);
                memory.write(RawDevice::buffer(0), &noise).expect("memory");
                // Descriptors and the available ring as well.
                let at = RawDevice::table(1) + random.next() % 0x1040;
                memory.write(at & !1, &noise[..2]).expect("memory");
            }
        });
        for _ in 0..2000 {
            device.kick(1);
            peer.poll();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        scribbler.join().expect("scribbler");
    });
    until("the node answers", || (node.status("evil").queue_pairs == 1).then_some(()));
    for ring in [0, 1] {
        device.stop(ring);
        device.set_up(ring);
    }
    // What was sent before the reset may still be arriving.
    until("nothing more", || peer.poll().is_empty().then_some(()));
    device.sends(&mut peer, 1);
}
