// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a packet costs in a frame: `cargo run --release --package shunt-aggregation --example frame_cost`.
//!
//! Each line is the median of rounds, in nanoseconds for each packet (each group, for splicing). The frames of one line are more than a
//! first-level cache holds, and less than a second-level one. Each round checks that what was read is what was written.

use std::hint::black_box;
use std::time::Instant;

use aggregation::{Format, GroupKey, Item, Limits, Meta, Piece, Reader, Splice, Writer, wire};

const ROUNDS: usize = 301;
const FRAMES: usize = 16;
const MAX_BYTES: usize = 9000;

fn main() {
    println!("packets of 60 bytes, frames of up to {MAX_BYTES} bytes; ns per packet, median of {ROUNDS} rounds");
    println!("{:>12} {:>8} {:>8} {:>8} {:>8} {:>8}", "run length", "write", "read", "plain", "run", "packets");
    for run in [1, 2, 4, 8, 16, 64] {
        packets(60, run);
    }
    println!("packets of other lengths, run length 8");
    for len in [124, 252, 508, 1514] {
        packets(len, 8);
    }
    println!("frames of eight groups, of packets of 60 bytes, spliced into others; ns per group");
    println!("{:>12} {:>8} {:>8}", "packets each", "named", "copied");
    for each in [1, 4, 16, 64, 127] {
        groups(each);
    }
}

/// Groups of `run` packets, alternating between two destinations.
fn packets(len: usize, run: usize) {
    let format = format();
    let keys = [1, 2].map(|destination| GroupKey { origin: 9, destination, class: 0 });
    let packet = vec![0x5a; len];
    let mut writer = Writer::new(MAX_BYTES, 0);
    let mut frames = vec![Vec::new(); FRAMES];
    let fill = |writer: &mut Writer| {
        writer.begin(&format);
        let mut n = 0_usize;
        while writer.push(keys[n / run % 2], black_box(&packet), 0, |_| (), &Meta::NONE) {
            n += 1;
        }
        n
    };
    let per_frame = fill(&mut writer);
    for (sequence, frame) in (0..).zip(&mut frames) {
        fill(&mut writer);
        *frame = writer.finish(sequence).to_vec();
    }
    let total = per_frame * FRAMES;
    let write = median(total, || {
        let mut n = 0;
        for sequence in 0..16 {
            n += fill(&mut writer);
            black_box(writer.finish(sequence));
        }
        assert_eq!(n, total);
    });
    let mut reader = Reader::default();
    let by_item = median(total, || {
        let (mut n, mut bytes) = (0, 0);
        for frame in &frames {
            reader.begin(frame, 0, &Limits::NONE).expect("a good frame");
            while let Some(item) = reader.next(frame) {
                if let Item::Packet(packet) = item {
                    n += 1;
                    bytes += black_box(packet.head).len();
                }
            }
        }
        assert!(n == total && bytes == total * len.min(256));
    });
    let plain = median(total, || {
        let (mut n, mut bytes) = (0, 0);
        for frame in &frames {
            reader.begin(frame, 0, &Limits::NONE).expect("a good frame");
            while let Some(item) = reader.next(frame) {
                if let Item::Packet(packet) = item {
                    n += 1;
                    bytes += black_box(packet.head).len();
                }
                n += reader.plain(64, |head| bytes += black_box(head).len());
            }
        }
        assert!(n == total && bytes == total * len.min(256));
    });
    let by_run = median(total, || {
        let mut n = 0;
        for frame in &frames {
            reader.begin(frame, 0, &Limits::NONE).expect("a good frame");
            while let Some(item) = reader.next(frame) {
                if let Item::Packet(packet) = item {
                    n += 1;
                    black_box(packet.head);
                }
                while let Some(run) = reader.run(64) {
                    n += usize::from(black_box(run).packets());
                }
            }
        }
        assert_eq!(n, total);
    });
    let name = if len == 60 { format!("{run}") } else { format!("{len} B") };
    println!("{name:>12} {write:>8.2} {by_item:>8.2} {plain:>8.2} {by_run:>8.2} {per_frame:>8}");
}

/// Frames of eight groups of `each` packets, spliced into others.
fn groups(each: usize) {
    let format = Format { max_bytes: wire::MAX_FRAME, ..format() };
    let mut writer = Writer::new(wire::MAX_FRAME, 0);
    writer.begin(&format);
    for destination in 0..8 {
        let key = GroupKey { destination, ..GroupKey::default() };
        assert!((0..each).all(|_| writer.push(key, &[7; 60], 0, |_| (), &Meta::NONE)));
    }
    let frame = writer.finish(0).to_vec();
    let total = 8 * FRAMES;
    let mut reader = Reader::default();
    let mut splice = Splice::new();
    let named = median(total, || {
        for sequence in 0..16 {
            splice.begin(&format);
            reader.begin(&frame, 0, &Limits::NONE).expect("a good frame");
            while let Some(Ok(group)) = reader.next_group(&frame) {
                assert!(splice.push(group.bytes, group.at + 12..group.at + group.header.len));
            }
            let mut bytes = 0;
            for piece in splice.finish(sequence) {
                bytes += match piece {
                    Piece::Header(header) => black_box(header).len(),
                    Piece::Body(range) => black_box(range).len(),
                };
            }
            assert_eq!(bytes, frame.len());
        }
    });
    let copied = median(total, || {
        for sequence in 0..16 {
            writer.begin(&format);
            reader.begin(&frame, 0, &Limits::NONE).expect("a good frame");
            while let Some(Ok(group)) = reader.next_group(&frame) {
                assert!(writer.splice(&frame[group.at..group.at + group.header.len]));
            }
            assert_eq!(writer.finish(sequence).len(), frame.len());
        }
    });
    println!("{each:>12} {named:>8.2} {copied:>8.2}");
}

const fn format() -> Format {
    Format { max_bytes: MAX_BYTES, max_packets: 10_000, stage: 2, check: false, group_crc: false, template: false }
}

/// Nanoseconds for one of `n`.
fn median(n: usize, mut body: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64() * 1e9 / n as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}
