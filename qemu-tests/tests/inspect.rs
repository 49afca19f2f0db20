// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Issue 5: looking inside a queue. What QEMU guests say to each other is captured at both ports while they talk, and read by tshark; what is dropped is
//! told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::capture;
use harness::guest::{Guest, GuestConfig};
use harness::node::{Node, NodeConfig, binary};
use harness::process::{self, Process};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, mac};
use harness::wait::wait_until;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Echoes, and the bytes of each behind the ICMP header.
const ECHOES: usize = 20;
const PAYLOAD: usize = 900;
/// In every byte of an echo that `ping` does not need itself.
const PATTERN: &str = "a5";

/// Begins to run a command of `shunt` on a node.
fn spawn(work: &WorkDir, node: &Node, name: &str, arguments: &[&str]) -> Result<Process> {
    let control = node.socket("control").display().to_string();
    let shunt = binary()?.display().to_string();
    let argv = [&[&shunt[..]], arguments, &["--control", &control]].concat();
    Process::spawn(work, name, &argv)
}

/// Captures at a port, and waits until packets are captured.
fn begin(work: &WorkDir, node: &Node, port: &str) -> Result<(Process, PathBuf)> {
    let file = work.file(&format!("{port}.pcapng"));
    let path = file.display().to_string();
    let filter = "icmp and greater 500";
    let arguments = ["capture", port, "--write", &path, "--snaplen", "0", "--filter", filter];
    let process = spawn(work, node, &format!("capture-{port}"), &arguments)?;
    // It is made when the node has agreed.
    wait_until("the file", SOON, || Ok(file.exists()))?;
    Ok((process, file))
}

/// What tshark says of each packet of a file: the fields, and nothing of packets that are not shown.
fn fields(file: &Path, shown: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let file = file.display().to_string();
    let mut argv = vec!["tshark", "-n", "-r", &file, "-Y", shown, "-T", "fields"];
    argv.extend(fields.iter().flat_map(|field| ["-e", field]));
    let lines = process::run(&argv)?;
    Ok(lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// The frames of one direction, byte for byte, as tshark writes them in another format.
fn frames(work: &WorkDir, file: &Path, direction: u8) -> Result<Vec<Vec<u8>>> {
    let classic = work.file("classic.pcap").display().to_string();
    let shown = format!("frame.packet_flags_direction == {direction}");
    process::run(&["tshark", "-n", "-r", &file.display().to_string(), "-Y", &shown, "-F", "pcap", "-w", &classic])?;
    capture::frames(Path::new(&classic), [0x52, 0x54, 0, 0, 0, 2])
}

#[test]
fn what_guests_say_is_captured_and_what_is_dropped_is_told() {
    scenario::run(|work| {
        let mut node = Node::start(work, &NodeConfig::bridge(&["vm0", "vm1"]))?;
        let mut a = Guest::spawn(work, &GuestConfig::new("a", 2, &node.socket("vm0"), Ring::Packed))?;
        let mut b = Guest::spawn(work, &GuestConfig::new("b", 3, &node.socket("vm1"), Ring::Split))?;
        a.ready()?;
        b.ready()?;
        node.wait_up(&["vm0", "vm1"])?;
        a.ping_until_answered(&b.ip(), SOON).context("ping")?;

        let (mut at_a, file_a) = begin(work, &node, "vm0")?;
        let (mut at_b, file_b) = begin(work, &node, "vm1")?;
        a.sh(&format!("ping -q -c {ECHOES} -i 0.05 -s {PAYLOAD} -p {PATTERN} {}", b.ip()), SOON)?;
        // The last echo was captured before it was answered.
        for process in [&mut at_a, &mut at_b] {
            ensure!(process.terminate()?.success(), "{} failed", process.name());
            let summary = format!("{} packets captured, 0 lost", 2 * ECHOES);
            process.wait_printed(process.born(), "how much it captured", SOON, |text| {
                text.contains(&summary).then_some(())
            })?;
        }

        let wanted = ["frame.interface_name", "frame.len", "icmp.seq", "icmp.checksum.status", "data.data"];
        // 1 is inbound: the echoes of a at its own port.
        for (file, name, echoes_are) in [(&file_a, "vm0:0", 1), (&file_b, "vm1:0", 2)] {
            for (kind, direction) in [(8, echoes_are), (0, 3 - echoes_are)] {
                let shown = format!("icmp.type == {kind} && frame.packet_flags_direction == {direction}");
                let packets = fields(file, &shown, &wanted)?;
                ensure!(packets.len() == ECHOES, "{} packets of {name}: {packets:?}", packets.len());
                for (number, packet) in packets.iter().enumerate() {
                    let [interface, length, sequence, status, data] = &packet[..] else { return Ok(()) };
                    let is_echo = interface == name
                        && *length == (14 + 20 + 8 + PAYLOAD).to_string()
                        && sequence.ends_with(&number.to_string()) | sequence.ends_with(&(number + 1).to_string())
                        && status == "1";
                    ensure!(is_echo && data.ends_with(&PATTERN.repeat(PAYLOAD - 100)), "{name}: {packet:?}");
                }
            }
        }
        // What came in at one port went out at the other, unchanged, in order.
        for (from, to) in [(&file_a, &file_b), (&file_b, &file_a)] {
            let [sent, received] = [frames(work, from, 1)?, frames(work, to, 2)?];
            ensure!(sent.len() == ECHOES && sent == received, "{} sent, {} received", sent.len(), received.len());
        }

        // Nobody is at vm1 any more, and what is sent there is dropped where it came from.
        let mut trace = spawn(work, &node, "trace", &["trace", "drops", "--port", "vm0", "--json", "--count", "3"])?;
        drop(b);
        wait_until("vm1 to be left", SOON, || Ok(node.port("vm1")?.queue_pairs == 0))?;
        a.sh("(ping -q -i 0.1 10.9.0.3 >/dev/null 2>&1 &)", SOON)?;
        ensure!(trace.wait_exit(SOON)?.success(), "the trace failed");
        let text = trace.printed_since(trace.born())?;
        let drops: Vec<Value> =
            text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect::<Result<_, _>>()?;
        let source = mac(2).replace(':', "");
        for drop in &drops {
            let begins = drop["bytes"].as_str().and_then(|bytes| bytes.get(12..24));
            let is_of_a = drop["port"] == "vm0" && begins == Some(&source);
            let cause = drop["cause"].as_str().unwrap_or_default();
            ensure!(is_of_a && ["not_ready", "no_destination"].contains(&cause), "{drop}");
        }
        ensure!(drops.len() >= 3, "{text}");
        node.terminate()
    });
}
