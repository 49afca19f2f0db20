// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A decoder that somebody else wrote from the specification says the same: `qemu-tests/tools/aggdump.py`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use aggregation::{Format, GroupKey, Limits, Reader, Writer};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::Value;

use crate::answer::{answer, hex};
use crate::common::{KINDS, any_format, any_parts, limits, write};

const DECODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-tests/tools/aggdump.py");
const FRAMES: usize = 3000;

/// What the decoder says of frames.
fn decoded(frames: &[Vec<u8>], options: &[&str]) -> Vec<Value> {
    let mut python = Command::new("python3");
    let python = python.arg(DECODER).arg("--lines").args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python3 runs");
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = frames.iter().map(|frame| hex(frame) + "\n").collect();
    let writer = std::thread::spawn(move || lines.iter().try_for_each(|line| input.write_all(line.as_bytes())));
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    let answers = output.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().expect("the decoder reads all");
    assert!(child.wait().unwrap().success());
    answers
}

fn compare(frames: &[Vec<u8>], limits: &Limits, options: &[&str]) -> Vec<Value> {
    let answers = decoded(frames, options);
    assert_eq!(answers.len(), frames.len());
    let mut reader = Reader::default();
    for (frame, theirs) in frames.iter().zip(&answers) {
        assert_eq!(&answer(&mut reader, frame, limits), theirs, "of {}", hex(frame));
    }
    answers
}

/// Frames of all kinds, a third of them good, the rest damaged in some bytes or cut short. Their packets are short: the decoder is slow.
fn frames(verify: bool, seed: u8) -> Vec<Vec<u8>> {
    let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let strategy = (any_parts(4), any_format(), noise, any::<prop::sample::Index>(), 0..6);
    let mut writer = Writer::new(65_535, 0);
    let mut frame = || {
        let (parts, format, noise, cut, kind) = strategy.new_tree(&mut runner).unwrap().current();
        let short =
            |part: &crate::common::Part| !matches!(part, crate::common::Part::Packet(sent) if sent.bytes.len() > 300);
        let parts: Vec<_> = parts.into_iter().filter(short).collect();
        let format = Format { check: format.check || verify, ..format };
        let (mut frame, _) = write(&mut writer, &format, &parts, 64);
        match kind {
            0 | 1 => {}
            2 => frame.truncate(cut.index(frame.len() + 1)),
            // In the headers at the front, where damage tells the most.
            3 => noise.iter().for_each(|(at, byte)| {
                let front = frame.len().min(40);
                frame[at.index(front)] = *byte;
            }),
            _ => noise.iter().for_each(|(at, byte)| {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }),
        }
        frame
    };
    (0..FRAMES).map(|_| frame()).collect()
}

fn causes(answers: &[Value]) -> std::collections::BTreeSet<&str> {
    let items = answers.iter().flat_map(|answer| answer["items"].as_array().into_iter().flatten());
    items
        .filter_map(|item| item["damaged"].as_str())
        .chain(answers.iter().filter_map(|a| a["error"].as_str()))
        .collect()
}

fn known() -> String {
    KINDS.map(|kind| format!("{kind:02x}")).join(",")
}

#[test]
fn ka_7_two_decoders_agree_on_random_frames_from_memory() {
    let answers = compare(&frames(false, 1), &limits(false), &["--known", &known(), "--tlv-bytes", "4000"]);
    let causes = causes(&answers);
    for cause in ["bad_extension", "frame_length", "group_header", "group_length", "runt", "subframe_length", "version"]
    {
        assert!(causes.contains(cause), "no frame has {cause}: {causes:?}");
    }
    assert!(answers.iter().filter(|answer| answer["items"].is_array()).count() > FRAMES / 2);
}

#[test]
fn ka_7_two_decoders_agree_on_random_frames_from_wires() {
    let limits = Limits { check_required: true, ..limits(true) };
    let answers = compare(&frames(true, 2), &limits, &["--verify", "--known", &known(), "--tlv-bytes", "4000"]);
    let causes = causes(&answers);
    assert!(causes.contains("group_crc") && causes.contains("header_check"), "{causes:?}");
}

#[test]
fn ka_7_two_decoders_agree_on_limits() {
    let key = |destination| GroupKey { origin: 1, destination, class: 0 };
    let mut writer = Writer::new(9000, 0);
    let format = Format { max_bytes: 9000, max_packets: 99, stage: 1, check: false, group_crc: false, template: false };
    writer.begin(&format);
    for destination in 1..=3 {
        assert!(writer.begin_group(key(destination), &[(0x3e, &[0; 16])]));
        for _ in 0..4 {
            assert!(writer.push(key(destination), &[7; 60], 0, |_| (), &aggregation::Meta::NONE));
        }
    }
    let frames = [writer.finish(0).to_vec()];
    for (groups, packets, tlv_bytes) in [(2, 99, 99), (255, 11, 99), (255, 99, 11), (255, 99, 12), (0, 0, 0)] {
        let limits = Limits { groups, packets, tlv_bytes, ..Limits::NONE };
        let [groups, packets, bytes] = [groups.to_string(), packets.to_string(), tlv_bytes.to_string()];
        compare(&frames, &limits, &["--groups", &groups, "--packets", &packets, "--tlv-bytes", &bytes]);
    }
}

#[test]
fn the_second_decoder_knows_the_vectors() {
    let status = Command::new("python3").arg(DECODER).args(["--vectors", crate::vectors::FILE]).status();
    assert!(status.expect("python3 runs").success());
}
