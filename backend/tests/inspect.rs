// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking inside queues while guests send packets: captures and traces of drops.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use backend::config::{Name, PollMode};
use backend::inspect::{Capture, CaptureRequest, MAX_CAPTURES, MAX_SNAPLEN};
use cnf::DeviceConfig;
use serde_json::Value;
use support::{
    BROADCAST, Cnf, Guest, NodeSpec, Numbered, PATIENCE, Served, TestNode, exchange, frame, guest_config, until,
};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Lengths on both sides of all that matters: a runt but for its number, a window, an Ethernet frame, many pages.
const LENGTHS: [usize; 7] = [60, 61, 255, 256, 257, 1514, 9000];

fn attach(node: &TestNode, name: &str, change: impl FnOnce(&mut DeviceConfig)) -> Guest {
    let mut config = guest_config(node.socket(name));
    change(&mut config);
    Guest::attach_with(config)
}

fn large(config: &mut DeviceConfig) {
    config.tx_buffer = 10_000;
    config.mrg_rxbuf = true;
}

fn everything() -> CaptureRequest {
    CaptureRequest { pair: None, inward: true, outward: true, filter: None, snaplen: MAX_SNAPLEN }
}

fn capture(node: &TestNode, port: &str, request: &CaptureRequest) -> Capture {
    let name = Name::new(port).expect("a name");
    node.handle().capture(&name, request, String::new()).expect("node").expect("a capture")
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    at_ns: u64,
    inward: bool,
    length: usize,
    lost: u64,
    bytes: Vec<u8>,
}

/// What a file says.
#[derive(Debug, Default)]
struct File {
    names: Vec<String>,
    packets: Vec<Packet>,
    /// Received, dropped, accepted; the last that was said of any interface.
    statistics: [u64; 3],
}

impl File {
    fn read(mut rest: &[u8]) -> Self {
        let mut file = Self::default();
        while !rest.is_empty() {
            let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
            let long = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
            let length = number(4) as usize;
            match number(0) {
                0x0a0d_0d0a => assert_eq!(number(8), 0x1a2b_3c4d),
                1 => {
                    let name = usize::from(u16::from_le_bytes(rest[18..20].try_into().expect("two bytes")));
                    file.names.push(String::from_utf8(rest[20..20 + name].to_vec()).expect("text"));
                }
                5 => file.statistics = [long(36), long(48), long(60)],
                6 => {
                    let kept = number(20) as usize;
                    let options = 28 + kept.next_multiple_of(4);
                    file.packets.push(Packet {
                        at_ns: u64::from(number(12)) << 32 | u64::from(number(16)),
                        inward: number(options + 4) == 1,
                        length: number(24) as usize,
                        lost: if rest[options + 8] == 4 { long(options + 12) } else { 0 },
                        bytes: rest[28..28 + kept].to_vec(),
                    });
                }
                other => panic!("block {other}"),
            }
            rest = &rest[length..];
        }
        file
    }

    fn frames(&self, inward: bool) -> Vec<Vec<u8>> {
        let packets = self.packets.iter().filter(|packet| packet.inward == inward);
        packets.map(|packet| packet.bytes.clone()).collect()
    }
}

/// What was captured once so many packets were.
fn captured(capture: &mut Capture, packets: u64) -> File {
    let (mut out, mut taken) = (Vec::new(), 0);
    until("captured packets", || {
        taken += capture.take(&mut out, (u64::MAX, 1 << 24), None, false).packets;
        (taken >= packets).then_some(())
    });
    assert_eq!(capture.take(&mut out, (u64::MAX, 1 << 24), None, true).packets, 0, "more than was sent");
    capture.tell(&mut out, true);
    let file = File::read(&out);
    assert_eq!(file.packets.len() as u64, packets);
    assert!(file.packets.iter().all(|packet| packet.bytes.len() == packet.length && packet.lost == 0));
    assert!(file.packets.is_sorted_by_key(|packet| packet.at_ns));
    file
}

/// Nodes on which a reaches b in all ways that there are.
fn nodes() -> impl Iterator<Item = (String, TestNode)> {
    let cases = [(1, true), (1, false), (2, true), (2, false)];
    cases.into_iter().map(|(workers, wired)| {
        let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
        let spec = spec.port_on("a", 0).port_on("b", workers - 1);
        let node = if wired { spec.wired("a", "b") } else { spec }.start();
        (format!("{workers} workers, wired {wired}"), node)
    })
}

#[test]
fn what_passes_is_captured_on_both_sides_byte_for_byte() {
    for (case, node) in nodes() {
        let (mut a, mut b) = (attach(&node, "a", large), attach(&node, "b", large));
        a.send(&[frame(BROADCAST, A, 60, 1)]);
        b.receive(1);
        b.send(&[frame(BROADCAST, B, 60, 1)]);
        a.receive(1);
        let [mut at_a, mut at_b] = ["a", "b"].map(|port| capture(&node, port, &everything()));
        let (mut there, mut back) = (Numbered::new(B, A), Numbered::new(A, B));
        let there: Vec<_> = LENGTHS.iter().cycle().take(100).map(|length| there.take(*length)).collect();
        let back: Vec<_> = LENGTHS.iter().rev().cycle().take(50).map(|length| back.take(*length)).collect();
        exchange(&mut a.pairs[0], &mut b.pairs[0], &there, 16);
        exchange(&mut b.pairs[0], &mut a.pairs[0], &back, 16);
        for (capture, name, sent, received) in [(&mut at_a, "a:0", &there, &back), (&mut at_b, "b:0", &back, &there)] {
            let file = captured(capture, 150);
            assert_eq!(file.names, [name], "{case}");
            assert!(file.frames(true) == *sent, "{case}: what {name} sent");
            assert!(file.frames(false) == *received, "{case}: what {name} received");
            assert_eq!(file.statistics, [150, 0, 150], "{case}");
        }
        drop((at_a, at_b));
        // Nothing is left behind that would stand in the way.
        exchange(&mut a.pairs[0], &mut b.pairs[0], &there, 64);
        assert!(node.status("a").drops.is_empty() && node.status("b").drops.is_empty(), "{case}");
    }
}

#[test]
fn only_what_is_asked_for_is_captured() {
    let node = TestNode::bridge(&["a", "b"]);
    let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    let to_b = CaptureRequest { inward: false, ..everything() };
    let from_a = CaptureRequest { outward: false, snaplen: 70, ..everything() };
    let filter = format!("ether proto 0x88b6 and greater 100 and not ether dst {}", packet::MacAddr(BROADCAST));
    let some = CaptureRequest { filter: Some(filter.parse().expect("a filter")), ..everything() };
    let mut captures = [to_b, from_a, some].map(|request| capture(&node, "a", &request));
    let sent: Vec<_> = [60, 100, 200].iter().map(|length| frame(B, A, *length, 7)).collect();
    a.send(&[frame(BROADCAST, A, 200, 1)]);
    a.send(&sent);
    assert_eq!(b.receive(4).len(), 4);
    b.send(&[frame(A, B, 99, 2), frame(A, B, 100, 3)]);
    assert_eq!(a.receive(2).len(), 2);
    let mut file = |at: usize| {
        let mut out = Vec::new();
        captures[at].take(&mut out, (u64::MAX, 1 << 24), None, true);
        captures[at].tell(&mut out, true);
        File::read(&out)
    };
    assert_eq!(file(0).frames(false), [frame(A, B, 99, 2), frame(A, B, 100, 3)]);
    let cut: Vec<_> = file(1).packets.iter().map(|packet| (packet.length, packet.bytes.clone())).collect();
    let frames = [frame(BROADCAST, A, 200, 1)].into_iter().chain(sent.clone());
    assert_eq!(cut, frames.map(|frame| (frame.len(), frame[..frame.len().min(70)].to_vec())).collect::<Vec<_>>());
    let some = file(2);
    assert_eq!((some.frames(true), some.frames(false)), (sent[1..].to_vec(), vec![frame(A, B, 100, 3)]));
    assert_eq!(some.statistics, [6, 0, 3], "looked at, and accepted");
}

/// What is dropped was not put into a queue.
#[test]
fn what_a_guest_has_no_room_for_is_not_captured_as_delivered() {
    for wired in [true, false] {
        let node = if wired { TestNode::pair() } else { TestNode::bridge(&["a", "b"]) };
        let mut a = attach(&node, "a", |config| config.tx_buffer = 10_000);
        let mut b = attach(&node, "b", |_| {});
        let [mut at_a, mut at_b] = ["a", "b"].map(|port| capture(&node, port, &everything()));
        let mut numbers = Numbered::new(B, A);
        let sent: Vec<_> = [9000, 60, 9000, 300, 61].map(|length| numbers.take(length)).into();
        a.send(&sent);
        let arrived = [sent[1].clone(), sent[3].clone(), sent[4].clone()];
        assert_eq!(b.receive(3), arrived);
        node.wait_for_drops("b", "too_big", 2);
        assert!(captured(&mut at_a, 5).frames(true) == sent, "wired {wired}");
        assert!(captured(&mut at_b, 3).frames(false) == arrived, "wired {wired}");
    }
}

/// Packets that travel in aggregates are captured as packets: runs of one flow that stay together, too, and those that are beyond a window.
#[test]
fn packets_of_aggregates_are_captured_as_packets() {
    let node = TestNode::bridge(&["a", "b"]);
    let (mut a, mut b) = (Cnf::attach(node.socket("a")), Cnf::attach(node.socket("b")));
    a.agree();
    b.agree();
    assert_eq!(a.offer(&[frame(BROADCAST, A, 60, 1)]), 1);
    until("a flood", || b.poll().pop());
    assert_eq!(b.offer(&[frame(BROADCAST, B, 60, 1)]), 1);
    until("a flood", || a.poll().pop());
    let [mut at_a, mut at_b] = ["a", "b"].map(|port| capture(&node, port, &everything()));
    let udp = |number: u32, length: usize| {
        let mut bytes = Vec::new();
        let payload: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(length).collect();
        let builder = etherparse::PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.udp(7, 8).write(&mut bytes, &payload).expect("a packet");
        bytes
    };
    let sent: Vec<_> =
        (0..600_u32).map(|n| udp(n, [30, 30, 30, 30, 30, 30, 500, 1400][(n / 50) as usize % 8])).collect();
    let (mut offered, mut got) = (0, Vec::new());
    until("all packets", || {
        a.poll();
        offered += a.offer(&sent[offered..sent.len().min(offered + 100)]);
        got.extend(b.poll());
        (got.len() == sent.len()).then_some(())
    });
    assert!(got == sent);
    assert!(captured(&mut at_a, 600).frames(true) == sent);
    assert!(captured(&mut at_b, 600).frames(false) == sent);
    let (a, b) = (node.status("a").aggregation, node.status("b").aggregation);
    assert!(a.rx_aggregates > 0 && b.tx_aggregates > 0, "nothing was put together");
}

/// A guest that goes and comes back is captured again: the capture is the port's.
#[test]
fn a_capture_outlives_a_reconnect_and_ends_with_its_port() {
    let node = TestNode::bridge(&["a", "b"]);
    let mut capture = capture(&node, "a", &everything());
    let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    let exchanged = |a: &mut Guest, b: &mut Guest| {
        a.send(&[frame(BROADCAST, A, 60, 1)]);
        b.receive(1);
        b.send(&[frame(A, B, 80, 2)]);
        a.receive(1);
    };
    exchanged(&mut a, &mut b);
    drop(a);
    let mut a = Guest::attach(node.socket("a"));
    exchanged(&mut a, &mut b);
    let file = captured(&mut capture, 4);
    assert_eq!((file.frames(true).len(), file.frames(false).len()), (2, 2));
    node.handle().remove_port("a").expect("node").expect("port");
    assert!(capture.take(&mut Vec::new(), (1, 1), None, false).ended);
}

/// An answer that comes in pieces (RFC 9112, 7.1).
struct Streamed {
    stream: BufReader<UnixStream>,
    left: usize,
}

impl Streamed {
    /// Sends a request whose answer is good.
    fn get(socket: &Path, path: &str) -> Self {
        let mut stream = UnixStream::connect(socket).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: n\r\n\r\n").expect("sent");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).expect("a header");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Self { stream, left: 0 }
    }

    /// All that comes until the answer ends.
    fn all(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.read_to_end(&mut all).expect("an end");
        all
    }
}

impl Read for Streamed {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            while line.trim().is_empty() {
                line.clear();
                assert_ne!(self.stream.read_line(&mut line)?, 0, "it ends in the middle");
            }
            self.left = usize::from_str_radix(line.trim(), 16).expect("a length");
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = room.len().min(self.left);
        let read = self.stream.read(&mut room[..most])?;
        self.left -= read;
        Ok(read)
    }
}

#[test]
fn a_stream_ends_with_what_was_asked_for() {
    let served = Served::start(NodeSpec::new().port("a").port("b"));
    let mut guests = ["a", "b"].map(|name| Guest::attach(served.node.socket(name)));
    let path = "/ports/a/capture?count=3&direction=in&filter=ether%20proto%200x88b6&snaplen=0";
    let stream = Streamed::get(&served.socket, path);
    let frames = Numbered::new(BROADCAST, A).burst(5, 1000);
    guests[0].send(&frames);
    assert_eq!(guests[1].receive(5), frames);
    let file = File::read(&stream.all());
    assert_eq!(file.frames(true), frames[..3]);
    let file = File::read(&Streamed::get(&served.socket, "/ports/a/capture?seconds=1").all());
    assert!(file.packets.is_empty() && file.names.is_empty());
    served.stop();
}

/// Who does not read loses, and is told how much; nobody else notices.
#[test]
fn a_reader_that_stands_still_harms_nobody() {
    let served = Served::start(NodeSpec::new().port("a").port("b").wired("a", "b"));
    let mut guests = ["a", "b"].map(|name| Guest::attach(served.node.socket(name)));
    let [a, b] = &mut guests;
    const FRAMES: u64 = 20_000;
    let path = format!("/ports/a/capture?direction=in&snaplen=0&count={FRAMES}");
    let stream = Streamed::get(&served.socket, &path);
    // Far more than sockets and rings hold.
    let mut numbers = Numbered::new(B, A);
    for _ in 0..FRAMES / 100 {
        exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(100, 1514), 64);
    }
    assert!(served.node.status("a").drops.is_empty() && served.node.status("b").drops.is_empty());
    // It reads again: what was kept comes, and with it how much was lost between.
    let reader = std::thread::spawn(|| stream.all());
    until("all is read", || {
        exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(50, 1514), 8);
        reader.is_finished().then_some(())
    });
    let file = File::read(&reader.join().expect("no panic"));
    let mut expected = 0;
    for packet in &file.packets {
        expected += packet.lost;
        assert!(packet.bytes == frame(B, A, 1514, expected), "frame {expected}");
        expected += 1;
    }
    let lost: u64 = file.packets.iter().map(|packet| packet.lost).sum();
    assert!(lost > 0, "it read fast enough");
    let [received, dropped, accepted] = file.statistics;
    assert!(dropped >= lost && received == accepted && accepted >= FRAMES + lost, "{:?}", file.statistics);
    served.stop();
}

/// Captures are few, and one whose client has gone is none.
#[test]
fn a_client_that_goes_ends_its_capture() {
    let served = Served::start(NodeSpec::new().port("a"));
    let mut streams: Vec<_> = (0..MAX_CAPTURES).map(|_| Streamed::get(&served.socket, "/ports/a/capture")).collect();
    let (status, answer) = served.ask("test", "GET /ports/a/capture", &Value::Null);
    assert_eq!((status, answer["error"].as_str()), (503, Some("4 captures run already, which is the most")));
    let (status, answer) = served.ask("test", "GET /ports/b/capture", &Value::Null);
    assert_eq!((status, answer["object"].as_str()), (404, Some("port b")));
    let (status, _) = served.ask("test", "GET /ports/a/capture?queue=1", &Value::Null);
    assert_eq!(status, 400);
    streams.pop();
    let again = until("a place", || {
        let request = CaptureRequest { pair: Some(0), ..everything() };
        served.node.handle().capture(&Name::new("a").expect("a name"), &request, String::new()).expect("node").ok()
    });
    drop((again, streams));
    served.stop();
}

/// A line of a trace: port, cause, packets, length, first bytes.
fn dropped(line: &str) -> (String, String, u64, u64, Vec<u8>) {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let text = |key: &str| value[key].as_str().expect(key).to_owned();
    let number = |key: &str| value[key].as_u64().expect(key);
    assert!(number("time_ns") > 1_700_000_000_000_000_000);
    let hex = text("bytes");
    let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect();
    (text("port"), text("cause"), number("packets"), number("length"), bytes)
}

#[test]
fn drops_are_told_with_port_cause_and_first_bytes() {
    for wired in [false, true] {
        let spec = NodeSpec::new().port("a").port("b");
        let served = Served::start(if wired { spec.wired("a", "b") } else { spec });
        let mut a = attach(&served.node, "a", |config| config.tx_buffer = 10_000);
        let mut lines = BufReader::new(Streamed::get(&served.socket, "/drops")).lines();
        let mut next = || loop {
            let line = lines.next().expect("a line").expect("a line");
            if !line.is_empty() {
                return dropped(&line);
            }
        };
        let told = |port: &str, cause: &str, frame: &[u8]| {
            let first = frame[..frame.len().min(128)].to_vec();
            (port.to_owned(), cause.to_owned(), 1, frame.len() as u64, first)
        };
        let lost = frame(B, A, 300, 1);
        a.send(std::slice::from_ref(&lost));
        // Nobody is attached at b.
        let cause = if wired { "not_ready" } else { "no_destination" };
        assert_eq!(next(), told("a", cause, &lost));
        let mut b = attach(&served.node, "b", |_| {});
        let big = frame(B, A, 9000, 2);
        a.send(&[big.clone(), frame(B, A, 60, 3), big.clone()]);
        assert_eq!(b.receive(1), [frame(B, A, 60, 3)]);
        assert_eq!((next(), next()), (told("b", "too_big", &big), told("b", "too_big", &big)));
        if !wired {
            a.send(&[vec![1, 2, 3], frame([1, 0x80, 0xc2, 0, 0, 0], A, 70, 4)]);
            assert_eq!(next(), told("a", "runt", &[1, 2, 3]));
            assert_eq!(next(), told("a", "reserved_address", &frame([1, 0x80, 0xc2, 0, 0, 0], A, 70, 4)));
        }
        served.stop();
    }
}

#[test]
fn a_trace_is_of_one_port_and_says_what_it_left_out() {
    let served = Served::start(NodeSpec::new().port("a").port("b"));
    let mut guests = ["a", "b"].map(|name| Guest::attach(served.node.socket(name)));
    let lines = BufReader::new(Streamed::get(&served.socket, "/drops?port=b&rate=5")).lines();
    for guest in &mut guests {
        guest.send(&vec![vec![9]; 100]);
    }
    served.node.wait_for_drops("a", "runt", 100);
    served.node.wait_for_drops("b", "runt", 100);
    let (mut told, mut missed) = (0, 0);
    for line in lines {
        let line = line.expect("a line");
        match serde_json::from_str::<Value>(&line).ok().and_then(|value| value["missed"].as_u64()) {
            Some(more) => missed += more,
            None if line.is_empty() => {}
            None => {
                assert_eq!(dropped(&line), ("b".into(), "runt".into(), 1, 1, vec![9]));
                told += 1;
            }
        }
        if told + missed == 100 {
            break;
        }
    }
    assert!((5..100).contains(&told), "{told} and {missed}");
    let (status, _) = served.ask("test", "GET /drops?port=c", &Value::Null);
    assert_eq!(status, 404);
    served.stop();
}
