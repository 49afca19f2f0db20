// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Issue 4: what reads captures of aggregate frames. Wireshark's dissector says of each test vector what the vector says, by tshark; the
//! decoder in Python finds frames of both encapsulations among plain ones and adds them up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::aggdump;
use harness::scenario::WorkDir;
use serde_json::{Value, json};

const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb5];
/// What tshark prints of a frame, one after the other.
const FIELDS: [&str; 11] = [
    "shunt_agg.cause",
    "shunt_agg.group.origin",
    "shunt_agg.group.destination",
    "shunt_agg.group.packets",
    "shunt_agg.group.class",
    "shunt_agg.packet.bytes",
    "shunt_agg.packet.csum_start",
    "shunt_agg.packet.gso_size",
    "shunt_agg.packet.flow",
    "shunt_agg.message",
    "shunt_agg.node",
];

#[test]
fn ka_7_the_dissector_reads_the_vectors() -> Result<()> {
    let work = WorkDir::create()?;
    let vectors = vectors()?;
    // What is taken is said for a whole capture, so vectors that take the same share one.
    let settings = |vector: &Value| (vector["verify"].clone(), vector["known"].clone());
    let mut done = 0;
    for first in &vectors {
        let same: Vec<_> = vectors.iter().filter(|vector| settings(vector) == settings(first)).collect();
        if !std::ptr::eq(same[0], first) {
            continue;
        }
        let frames: Vec<_> = same.iter().map(|vector| [&ETHERNET[..], &bytes(vector)].concat()).collect();
        let printed = tshark(&work, &frames, first)?;
        ensure!(printed.len() == same.len(), "{} lines for {} frames", printed.len(), same.len());
        for (vector, line) in same.iter().zip(printed) {
            let expected = expected(&vector["expect"]);
            // Of what is wrong the dissector shows as much as can be read.
            let shown = &line[..expected.len().min(line.len())];
            ensure!(
                line.len() == FIELDS.len() && shown == expected,
                "{}:\n{line:?}, expected\n{expected:?}",
                vector["name"]
            );
            done += 1;
        }
    }
    ensure!(done == vectors.len() && done > 60, "{done} vectors");
    Ok(())
}

#[test]
fn frames_are_found_behind_tags_and_in_udp() -> Result<()> {
    let work = WorkDir::create()?;
    let frame = |sequence| [0x12, 0, 0, 8, 0, 2, 0, sequence];
    let tagged = [&ETHERNET[..12], &[0x81, 0, 0, 5, 0x88, 0xb5], &frame(7)].concat();
    let twice = [&ETHERNET[..12], &[0x81, 0, 0, 5, 0x81, 0, 0, 5, 0x88, 0xb5], &frame(8)].concat();
    let ipv4 = [0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    let udp = [0xc0, 0, 0x88, 0xb5, 0, 16, 0, 0]; // 34997 happens to be 0x88b5
    let in_udp = [&ETHERNET[..12], &[8, 0], &ipv4, &udp, &frame(10)].concat();
    let other = [&ETHERNET[..12], &[0x88, 0xb6], &frame(11)].concat();
    let file = work.file("frames.pcap");
    fs::write(&file, capture(&[tagged, in_udp, other, twice]))?;
    let (frames, summary) = aggdump::decode(&file, &[])?;
    let found: Vec<_> = frames.iter().map(|frame| frame["encapsulation"].as_str()).collect();
    ensure!(found == [Some("ethernet"), Some("udp"), None, None], "{frames:?}");
    ensure!(summary["aggregates"] == 2 && summary["plain"] == 2 && summary["missing"] == 2, "{summary}");
    // Wireshark looks behind any number of tags.
    let printed = run(&file, &[], &["shunt_agg.stage"])?;
    ensure!(printed.lines().collect::<Vec<_>>() == ["2", "2", "", "2"], "{printed}");
    Ok(())
}

/// The summary adds up what the vectors say, each vector being a frame of a capture.
#[test]
fn the_decoder_adds_up_what_is_in_a_capture() -> Result<()> {
    let work = WorkDir::create()?;
    let vectors = vectors()?;
    let plain: Vec<_> = vectors.iter().filter(|v| v["verify"] == false && v["known"] == json!([])).collect();
    let frames: Vec<_> = plain.iter().map(|vector| [&ETHERNET[..], &bytes(vector)].concat()).collect();
    let file = work.file("vectors.pcap");
    fs::write(&file, capture(&frames))?;
    let summary = aggdump::summary(&file, &[])?;
    let items = || plain.iter().filter_map(|vector| vector["expect"]["items"].as_array()).flatten();
    let packets: Vec<_> = items().filter_map(|item| item["packet"].as_str()).collect();
    let wanted = json!({
        "refused": plain.iter().filter(|vector| vector["expect"]["error"].is_string()).count(),
        "aggregates": plain.iter().filter(|vector| vector["expect"]["items"].is_array()).count(),
        "groups": items().filter(|item| item["group"].is_object()).count(),
        "packets": packets.len(),
        "packet_bytes": packets.iter().map(|digits| digits.len() / 2).sum::<usize>(),
        "plain": 0,
        "udp": 0,
    });
    for (name, number) in wanted.as_object().context("an object")? {
        ensure!(&summary[name] == number, "{name}: {} is not {number}", summary[name]);
    }
    let runts = items().filter(|item| item["damaged"] == "runt").count();
    ensure!(summary["causes"]["runt"] == runts && runts > 0, "{summary}");
    Ok(())
}

/// What tshark prints of each frame, if it takes what a vector takes.
fn tshark(work: &WorkDir, frames: &[Vec<u8>], taken: &Value) -> Result<Vec<Vec<String>>> {
    let file = work.file("frames.pcap");
    fs::write(&file, capture(frames))?;
    let verify = taken["verify"] == Value::Bool(true);
    let known = taken["known"].as_array().context("known")?.iter().filter_map(Value::as_u64);
    let known = known.map(|kind| format!("{kind:02x}")).collect::<Vec<_>>().join(",");
    let options = [
        format!("shunt_agg.verify:{verify}"),
        format!("shunt_agg.compare:{verify}"),
        format!("shunt_agg.known:{known}"),
        // What packets hold is not of interest here, and would be printed among the fields.
        "shunt_agg.packets:false".to_owned(),
    ];
    let printed = run(&file, &options, &FIELDS)?;
    let fields = |line: &str| line.split('|').map(str::to_owned).collect();
    Ok(printed.lines().map(fields).collect())
}

fn run(file: &Path, options: &[String], fields: &[&str]) -> Result<String> {
    let mut command = Command::new("tshark");
    command.arg("-X").arg(format!("lua_script:{}", root().join("docs/wireshark/shunt_aggregate.lua").display()));
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]);
    command.args(options.iter().flat_map(|option| ["-o", option])).args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().context("tshark")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !errors.contains("Lua"), "{errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What tshark is to print to begin with, from what a decoder must say.
fn expected(expect: &Value) -> Vec<String> {
    if let Some(cause) = expect["error"].as_str() {
        return vec![cause.to_owned()];
    }
    let items: Vec<_> = expect["items"].as_array().into_iter().flatten().collect();
    let all =
        |of: &dyn Fn(&Value) -> Option<String>| items.iter().filter_map(|item| of(item)).collect::<Vec<_>>().join(";");
    let group = |name: &'static str| all(&move |item| item["group"][name].as_u64().map(|n| n.to_string()));
    let message = expect["said"]["message"].as_str().map(|name| match name {
        "hello" => "1",
        "hello_ack" => "2",
        "keepalive" => "3",
        _ => "4",
    });
    let mut line = vec![
        all(&|item| item["damaged"].as_str().map(str::to_owned)),
        group("origin"),
        group("destination"),
        group("packets"),
        group("class"),
        all(&|item| item["packet"].as_str().map(str::to_owned)),
        all(&|item| item["checksum"][0].as_u64().map(|n| n.to_string())),
        all(&|item| item["gso"]["size"].as_u64().map(|n| n.to_string())),
        all(&|item| item["flow"].as_u64().map(|n| format!("0x{n:08x}"))),
        message.unwrap_or_default().to_owned(),
        expect["said"]["node"].as_u64().map_or_else(String::new, |n| n.to_string()),
    ];
    if line[0].contains("bad_") {
        line.truncate(6);
    }
    line
}

/// All but that of no bytes, which tshark does not show to a dissector.
fn vectors() -> Result<Vec<Value>> {
    let file: Value = serde_json::from_str(&fs::read_to_string(root().join("aggregation/vectors/frames.json"))?)?;
    Ok(file["vectors"]
        .as_array()
        .context("vectors")?
        .iter()
        .filter(|vector| !bytes(vector).is_empty())
        .cloned()
        .collect())
}

fn bytes(vector: &Value) -> Vec<u8> {
    let pieces = vector["bytes"].as_array().into_iter().flatten();
    let digits: String = pieces.filter_map(|piece| piece[0].as_str()).collect();
    (0..digits.len()).step_by(2).filter_map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

/// A capture in the classic format.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap_or_default();
        file.extend([0, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    file
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
