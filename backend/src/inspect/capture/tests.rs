// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use packet::filter::Filter;

use super::*;
use crate::inspect::Sinks;

const PORT: PortId = PortId(5);

fn request(filter: &str) -> CaptureRequest {
    let filter = (!filter.is_empty()).then(|| filter.parse::<Filter>().unwrap());
    CaptureRequest { pair: None, inward: true, outward: true, filter, snaplen: 100 }
}

/// A capture of a port with two queue pairs, and the sinks of so many workers.
fn capture(request: &CaptureRequest, workers: usize) -> (Capture, Vec<Sinks>) {
    let mut ends = Ends::new();
    let sinks = (0..workers).map(|_| {
        let mut sinks = Sinks::default();
        sinks.add(share(CaptureId(1), PORT, 2, request, workers, &mut ends));
        sinks
    });
    let sinks = sinks.collect();
    (Capture::new(Name::new("vm0").unwrap(), "arp".into(), request.snaplen, ends, Box::new(())), sinks)
}

fn frame(length: usize, mark: u8) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb6][..]].concat();
    frame.resize(length, mark);
    frame
}

fn see(sinks: &Sinks, pair: u16, frame: &[u8]) {
    let (head, rest) = frame.split_at(frame.len().min(64));
    let length = u32::try_from(frame.len()).unwrap();
    sinks.see(PORT, pair, length, head, |at, room| super::super::tap::copy(rest, at, room));
}

/// Interface, whole length, direction, lost, bytes.
type Packet = (u32, u32, u32, u64, Vec<u8>);

/// Packets of blocks without a section's head, and statistics: received, dropped, accepted by interface.
fn read(mut file: &[u8]) -> (Vec<Packet>, Vec<(u32, [u64; 3])>) {
    let (mut packets, mut statistics) = (Vec::new(), Vec::new());
    while !file.is_empty() {
        let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        let length = number(4) as usize;
        match number(0) {
            6 => {
                let kept = number(20) as usize;
                let options = 28 + kept.next_multiple_of(4);
                let lost = if file[options + 8] == 4 { long(options + 12) } else { 0 };
                packets.push((number(8), number(24), number(options + 4), lost, file[28..28 + kept].to_vec()));
            }
            5 => statistics.push((number(8), [long(36), long(48), long(60)])),
            1 => {}
            other => panic!("block {other}"),
        }
        file = &file[length..];
    }
    (packets, statistics)
}

#[test]
fn what_passes_is_kept_up_to_its_length_and_told_by_interface() {
    let (mut capture, sinks) = capture(&request("less 200"), 1);
    let tap = sinks[0].tap(PORT, 1).expect("somebody captures");
    see(&sinks[0], 1, &frame(150, 1));
    see(&sinks[0], 0, &frame(60, 2));
    see(&sinks[0], 0, &frame(201, 3));
    sinks[0].see(PortId(6), 0, 60, &frame(60, 9), |_, _| {});
    tap.see_bytes(&frame(100, 4));
    tap.see_pieces(&frame(14, 0), &[5; 46]);
    let mut out = Vec::new();
    assert_eq!(capture.take(&mut out, (100, 1 << 20), None, false), Taken { packets: 4, ended: false });
    capture.tell(&mut out, true);
    let (packets, statistics) = read(&out);
    let expected = [
        (0, 150, 1, 0, frame(150, 1)[..100].to_vec()),
        (1, 60, 1, 0, frame(60, 2)),
        (0, 100, 2, 0, frame(100, 4)),
        (0, 60, 2, 0, frame(60, 5)),
    ];
    assert_eq!(packets, expected);
    assert_eq!(statistics, [(0, [3, 0, 3]), (1, [2, 0, 1])]);
}

#[test]
fn who_does_not_read_loses_and_is_told_how_much() {
    let (mut capture, sinks) = capture(&request(""), 1);
    let one = HEADER + 100;
    let most = ROOM / one;
    for _ in 0..most + 3 {
        see(&sinks[0], 0, &frame(150, 1));
    }
    let mut out = Vec::new();
    capture.take(&mut out, (1, 1 << 20), None, false);
    see(&sinks[0], 1, &frame(20, 2));
    see(&sinks[0], 0, &frame(20, 3));
    assert_eq!(capture.take(&mut out, (u64::MAX, usize::MAX >> 1), None, false).packets, most as u64 + 1);
    capture.tell(&mut out, false);
    let (packets, statistics) = read(&out);
    let lost: Vec<_> = packets.iter().filter(|packet| packet.3 > 0).map(|packet| (packet.1, packet.3)).collect();
    assert_eq!(lost, [(20, 3)]);
    assert_eq!(statistics, [(0, [most as u64 + 4, 3, most as u64 + 4])], "the other interface has lost nothing");
    let mut again = Vec::new();
    capture.tell(&mut again, false);
    assert!(again.is_empty(), "nothing is new");
}

#[test]
fn packets_of_several_workers_come_in_the_order_of_time() {
    let (mut capture, sinks) = capture(&request(""), 3);
    for n in 0..60_u8 {
        see(&sinks[usize::from(n % 7 % 3)], 0, &frame(60, n));
    }
    let mut out = Vec::new();
    assert_eq!(capture.take(&mut out, (u64::MAX, 1 << 20), None, true).packets, 60);
    let marks: Vec<u8> = read(&out).0.iter().map(|packet| packet.4[59]).collect();
    assert_eq!(marks, (0..60).collect::<Vec<_>>());
    // While one worker has nothing, a packet waits for what may be older, but not for long.
    see(&sinks[1], 0, &frame(60, 1));
    let begin = std::time::Instant::now();
    while capture.take(&mut out, (1, 1 << 20), None, false).packets == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert!(begin.elapsed() + Duration::from_millis(2) >= PATIENCE, "{:?}", begin.elapsed());
}

#[test]
fn bounds_of_packets_bytes_and_time_hold() {
    let (mut capture, sinks) = capture(&request(""), 1);
    for _ in 0..10 {
        see(&sinks[0], 0, &frame(60, 1));
    }
    let mut out = Vec::new();
    assert_eq!(capture.take(&mut out, (3, 1 << 20), None, false).packets, 3);
    assert_eq!(capture.take(&mut out, (9, 150), None, false).packets, 2);
    let now = capture.now_ns();
    see(&sinks[0], 0, &frame(60, 2));
    assert_eq!(capture.take(&mut out, (99, 1 << 20), Some(now), false), Taken { packets: 5, ended: false });
    drop(sinks);
    assert_eq!(capture.take(&mut out, (1, 1 << 20), None, false), Taken { packets: 1, ended: false });
    assert_eq!(capture.take(&mut out, (1, 1 << 20), None, false), Taken { packets: 0, ended: true });
}

#[test]
fn a_sink_comes_back_when_no_tap_is_left() {
    let (_, mut sinks) = capture(&request(""), 1);
    assert!(sinks[0].tap(PORT, 0).is_some() && sinks[0].tap(PortId(6), 0).is_none());
    assert!(sinks[0].remove(CaptureId(2)).is_none());
    assert!(sinks[0].remove(CaptureId(1)).is_some());
    assert!(sinks[0].is_empty() && sinks[0].tap(PORT, 0).is_none());
}

#[test]
fn only_what_is_asked_for_is_captured() {
    let of = |pair, inward, outward| CaptureRequest { pair, inward, outward, ..request("") };
    for (request, ins, outs) in [
        (of(None, true, false), [true, true], [false, false]),
        (of(Some(1), false, true), [false, false], [false, true]),
        (of(Some(0), true, true), [true, false], [true, false]),
    ] {
        let (_, sinks) = capture(&request, 1);
        assert_eq!([0, 1].map(|pair| sinks[0].wants(PORT, pair)), ins);
        assert_eq!([0, 1].map(|pair| sinks[0].tap(PORT, pair).is_some()), outs);
    }
}
