// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every fuzz target, briefly: pseudo-random bytes, the same in every run, and the stored corpus.

use std::path::Path;

/// Runs a target on every file of its corpus and on `rounds` inputs of up to `longest` bytes.
fn run(name: &str, target: fn(&[u8]), rounds: u64, longest: u64) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(corpus).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        println!("{name}: {}", file.display());
        target(&std::fs::read(&file).unwrap());
    }
    for seed in 1..=rounds {
        let mut random = Random(seed);
        let len = random.next() % (longest + 1);
        let bytes: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        if std::panic::catch_unwind(|| target(&bytes)).is_err() {
            panic!("{name} fails on round {seed}; put these bytes into corpus/{name}: {bytes:02x?}");
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[test]
fn ring_contents() {
    run("ring_contents", fuzz::ring_contents, 4000, 2000);
}

#[test]
fn chains() {
    run("chains", fuzz::chains, 4000, 700);
}

/// Random bytes are seldom a frame, so each begins with a good header of frame and group, which a tenth of the bytes then overwrite.
#[test]
fn aggregate() {
    run("aggregate", fuzz::aggregate, 2000, 700);
    let framed = |bytes: &[u8]| {
        let Some((&[how, cut, groups, packets], noise)) = bytes.split_first_chunk::<4>() else { return };
        let [len0, len1] = u16::try_from(20 + noise.len()).unwrap().to_be_bytes();
        let [group0, group1] = u16::try_from((12 + noise.len()) & !3).unwrap().to_be_bytes();
        let header = [0x12, 0, len0, len1, groups, 1, 0, 0];
        let group = [group0, group1, 0, packets, 0, 1, 0, 2, packets & 0xc7, 3, 0, packets >> 6];
        // Lengths of sub-frames are mostly short.
        let short = noise
            .chunks(7)
            .flat_map(|chunk| [&[0, chunk[0] >> 2, chunk[0] & 0xf8 & chunk[chunk.len() - 1], 0], chunk].concat());
        let bytes: Vec<u8> = short.take(noise.len()).collect();
        fuzz::aggregate(&[&[how, cut], &header[..], &group, &bytes].concat());
    };
    run("aggregate", framed, 20_000, 900);
}

#[test]
fn aggregate_control() {
    run("aggregate_control", fuzz::aggregate_control, 4000, 700);
}

/// Random bytes are seldom an expression, so most of the runs choose words.
#[test]
fn filter() {
    const WORDS: [&str; 32] = [
        "and",
        "or",
        "not",
        "(",
        ")",
        "!",
        "&&",
        "||",
        "src",
        "dst",
        "host",
        "net",
        "port",
        "portrange",
        "ether",
        "ip",
        "ip6",
        "arp",
        "icmp",
        "tcp",
        "udp",
        "proto",
        "vlan",
        "vni",
        "less",
        "greater",
        "10.0.0.1",
        "10.0.0.0/8",
        "::1",
        "02:00:00:00:00:01",
        "80",
        "1-2",
    ];
    fn worded(bytes: &[u8]) {
        let (words, frame) = bytes.split_at(bytes.len().min(12));
        let text: String = words.iter().map(|byte| format!("{} ", WORDS[usize::from(byte % 32)])).collect();
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        fuzz::filter(&[&length, text.as_bytes(), frame].concat());
    }
    run("filter", fuzz::filter, 4000, 300);
    run("filter", worded, 40_000, 100);
    // Most of those are no expression: short ones are more often.
    run("filter", |bytes| worded(bytes.get(..bytes.len().min(3)).unwrap_or_default()), 40_000, 100);
}

#[test]
fn packets() {
    run("packets", fuzz::packets, 20_000, 300);
}

/// Random bytes seldom get past an EtherType, so this begins with the headers of a tunnel.
#[test]
fn packets_in_a_tunnel() {
    const HEADERS: [u8; 52] = [
        0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
        0x45, 0, 0, 200, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
        0x10, 0, 0x12, 0xb5, 0, 180, 0, 0, // UDP to the port of VXLAN
        8, 0, 0, 0, 0, 0, 7, 0, // VXLAN
    ];
    run("packets", |bytes| fuzz::packets(&[&HEADERS, bytes].concat()), 20_000, 300);
}

#[test]
fn vhost_user_decode() {
    run("vhost_user_decode", fuzz::vhost_user_decode, 4000, 2000);
}

#[test]
fn vhost_user_session() {
    run("vhost_user_session", fuzz::vhost_user_session, 4000, 2000);
}
