// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many frames packets become: `cargo run --release --package shunt-aggregation --example frame_count`.
//!
//! Nothing is timed. Bursts of 64 packets, each for one of so many next hops by chance (a fixed sequence), are put together as a node
//! does that never waits: a frame for each next hop, sent when it is full and at the end of the turn. A turn takes one burst, or as many as
//! arrive meanwhile under load; both are shown. Frames have what uplinks agree on: check words and CRCs. A packet that fits no
//! frame goes plain, behind what was put together for its next hop. Every frame is read again, and has all packets in order.

use aggregation::{Format, GroupKey, Item, Limits, Meta, Reader, Writer, wire};

const BURST: usize = 64;
const BURSTS: usize = 4096;
/// Bursts that a turn of a worker under load takes: as many as a ring of 1,024 holds.
const LOADED: usize = 16;
/// Bytes without checksums: 64, 594 and 1518 with them, 7 to 4 to 1.
const IMIX: &[usize] = &[60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60];
/// What VXLAN puts around a packet: Ethernet, IPv4, UDP, its own header.
const VXLAN: usize = 50;
const HOPS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() {
    println!("frames per packet; a turn of {BURST} packets, and of {}", BURST * LOADED);
    print!("{:>24}", "next hops");
    HOPS.iter().for_each(|hops| print!(" {hops:>15}"));
    println!();
    for mtu in [1500, 9000] {
        for (name, sizes, around) in [
            ("60 B", &[60][..], 0),
            ("60 B in VXLAN", &[60], VXLAN),
            ("IMIX", IMIX, 0),
            // Inner packets are kept to what the link takes.
            ("IMIX in VXLAN", IMIX, VXLAN),
        ] {
            print!("{:>24}", format!("MTU {mtu}, {name}"));
            let sizes: Vec<usize> = sizes.iter().map(|size| (size + around).min(mtu + wire::ETHERNET)).collect();
            for hops in HOPS {
                let [one, many] = [1, LOADED].map(|bursts| ratio(mtu, &sizes, hops, bursts));
                print!(" {:>15}", format!("{one:.3}, {many:.3}"));
            }
            println!();
        }
    }
}

/// Frames for each packet.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn ratio(mtu: usize, sizes: &[usize], hops: usize, bursts_in_turn: usize) -> f64 {
    let format = Format { max_bytes: mtu, max_packets: 4096, stage: 2, check: true, group_crc: true, template: false };
    let mut open: Vec<Hop> = (0..hops).map(|_| Hop::new(&format)).collect();
    let (mut random, mut number) = (1_u64, 0_usize);
    for burst in 0..BURSTS {
        for _ in 0..BURST {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let hop = usize::try_from(random >> 33).expect("31 bits") % hops;
            let size = sizes[number % sizes.len()];
            open[hop].take(&packet(hop, size, number), &format);
            number += 1;
        }
        if (burst + 1) % bursts_in_turn == 0 {
            open.iter_mut().for_each(|hop| hop.ship(&format));
        }
    }
    open.iter().map(|hop| hop.frames).sum::<usize>() as f64 / number as f64
}

/// What is put together for one next hop.
struct Hop {
    writer: Writer,
    reader: Reader,
    waiting: Vec<Vec<u8>>,
    frames: usize,
}

impl Hop {
    fn new(format: &Format) -> Self {
        let mut writer = Writer::new(format.max_bytes, 0);
        writer.begin(format);
        Self { writer, reader: Reader::default(), waiting: Vec::new(), frames: 0 }
    }

    fn take(&mut self, packet: &[u8], format: &Format) {
        if !self.put(packet) {
            self.ship(format);
            if !self.put(packet) {
                // Plain.
                self.frames += 1;
            }
        }
    }

    fn put(&mut self, packet: &[u8]) -> bool {
        let put = self.writer.push(GroupKey { origin: 1, destination: 0, class: 0 }, packet, 0, |_| {}, &Meta::NONE);
        if put {
            self.waiting.push(packet.to_vec());
        }
        put
    }

    fn ship(&mut self, format: &Format) {
        if self.waiting.is_empty() {
            return;
        }
        self.frames += 1;
        let frame = self.writer.finish(0).to_vec();
        assert!(frame.len() <= format.max_bytes);
        self.reader.begin(&frame, 0, &Limits::NONE).expect("a good frame");
        let mut found = 0;
        while let Some(item) = self.reader.next(&frame) {
            if let Item::Packet(packet) = item {
                let rest = &frame[packet.rest_at..][..packet.len as usize - packet.head.len()];
                assert!([&*packet.head, rest].concat() == self.waiting[found], "another packet than was put in");
                found += 1;
            }
        }
        assert_eq!(found, self.waiting.len());
        self.waiting.clear();
        self.writer.begin(format);
    }
}

/// A packet to a station behind a next hop.
fn packet(hop: usize, size: usize, number: usize) -> Vec<u8> {
    let hop = u8::try_from(hop).expect("few");
    let mut bytes = vec![2, 0, 0, 0, 1, hop, 2, 0, 0, 0, 2, 1, 8, 0];
    bytes.extend(number.to_le_bytes());
    bytes.resize(size, 0x5a);
    bytes
}
