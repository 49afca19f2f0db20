// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two ends speak of aggregation across a wire that knows nothing of it: packets, what travels with
//! them, their order, and every way in which what was agreed on can end.

mod wires;

use std::time::{Duration, Instant};

use cnf::{Aggregation, Burst, Checksum, Event, GsoKind, LinkConfig, Meta, Offload, Packet, Segmentation, WhyPlain};
use virtqueue::RingKind;
use wires::{End, PATIENCE, Wires, until};

/// Sizes from a runt to what no aggregate holds.
const SIZES: [usize; 12] = [60, 64, 14, 1514, 60, 60, 60, 255, 256, 257, 6000, 61];

fn config(wires: &Wires, port: &str, change: impl FnOnce(&mut Aggregation)) -> LinkConfig {
    let mut aggregation = Aggregation { name: port.to_owned(), tx_aggr_max_bytes: 5000, ..Aggregation::default() };
    change(&mut aggregation);
    let mut config = LinkConfig::new(wires.socket(port)).aggregate(aggregation);
    // Also for what goes beside aggregates.
    (config.device.tx_buffer, config.device.rx_buffer) = (17_000, 17_000);
    config
}

fn bytes(number: u64) -> Vec<u8> {
    let len = SIZES[usize::try_from(number).unwrap() % SIZES.len()];
    let number = number.to_be_bytes();
    (0..len).map(|at| if at < 8 { number[at] } else { (at * 7).to_le_bytes()[0] ^ number[7] }).collect()
}

/// A flow's id for every third packet.
fn meta(number: u64) -> Meta {
    Meta { flow: number.is_multiple_of(3).then_some(u32::try_from(number).unwrap()), ..Meta::default() }
}

fn agree(a: &mut End, b: &mut End) {
    until("both aggregate", || {
        a.tend();
        b.tend();
        // What was sent to an end that had gone waits in the wire for the next one.
        let mut burst = Burst::new();
        a.queues.iter_mut().chain(&mut b.queues).for_each(|queue| _ = queue.receive(&mut burst));
        a.is_aggregating() && b.is_aggregating()
    });
}

fn hear_nothing(end: &mut End) {
    let mut burst = Burst::new();
    end.queues.iter_mut().for_each(|queue| assert_eq!(queue.receive(&mut burst), 0));
}

/// Sends packets from one end to the other, bursts of all lengths, and expects them in order, byte for byte; `check` is
/// shown each packet's number and what travelled with it.
fn exchange(from: &mut End, to: &mut End, numbers: std::ops::Range<u64>, mut check: impl FnMut(u64, Meta)) {
    let (mut sent, mut received, mut burst) = (numbers.start, numbers.start, Burst::new());
    let end = Instant::now() + PATIENCE;
    while received < numbers.end {
        assert!(Instant::now() < end, "{sent} sent, {received} received, {:?}", to.queues[0].counters());
        let most = numbers.end.min(received + 500).min(sent + 1 + sent % 64);
        while sent < most && from.queues[0].send(Packet { bytes: &bytes(sent), meta: meta(sent) }) {
            sent += 1;
        }
        from.tend();
        to.tend();
        to.queues[0].receive(&mut burst);
        for packet in burst.iter() {
            assert_eq!(packet.bytes, bytes(received), "packet {received}");
            check(received, packet.meta);
            received += 1;
        }
    }
}

#[test]
fn two_ends_aggregate_and_nothing_is_lost_or_reordered() {
    for (rings, mrg_rxbuf, template) in
        [(RingKind::Packed, false, false), (RingKind::Split, true, false), (RingKind::Packed, true, true)]
    {
        let wires = Wires::start(1, 1);
        let [a, b] = ["a0", "b0"].map(|port| {
            let mut config = config(&wires, port, |aggregation| aggregation.template = template);
            (config.device.rings, config.device.mrg_rxbuf) = (rings, mrg_rxbuf);
            config.device.rx_buffer = if mrg_rxbuf { 2048 } else { 17_000 };
            config
        });
        let (mut a, mut b) = (End::attach(a), End::attach(b));
        // Whoever comes first is plain; then they find each other.
        agree(&mut a, &mut b);
        exchange(&mut a, &mut b, 0..20_000, |number, got| {
            // What goes as a plain frame goes without.
            assert!(got == meta(number) || got == Meta::default(), "{number}: {got:?}");
        });
        exchange(&mut b, &mut a, 0..5_000, |_, _| {});
        let (sent, got) = (a.queues[0].counters(), b.queues[0].counters());
        assert_eq!((sent.packets_sent, got.packets_received), (20_000, 20_000));
        // One in twelve is too long for an aggregate.
        assert!(sent.packets_packed > 17_000, "{sent:?}");
        assert_eq!((sent.packets_packed, sent.aggregates_sent), (got.packets_unpacked, got.aggregates_received));
        assert!(sent.frames_sent < 9_000, "{sent:?}");
        assert_eq!((got.unexpected, got.aggregates_lost, got.damaged().count()), (0, 0, 0), "{got:?}");
    }
}

/// Small packets in whole bursts: what aggregation is for.
#[test]
fn a_burst_of_small_packets_is_one_frame() {
    let wires = Wires::start(1, 1);
    let [a, b] = ["a0", "b0"].map(|port| config(&wires, port, |_| {}));
    let (mut a, mut b) = (End::attach(a), End::attach(b));
    agree(&mut a, &mut b);
    let (before, mut burst) = (a.queues[0].counters(), Burst::new());
    for round in 0..100 {
        (0..50u8).for_each(|number| assert!(a.queues[0].send(&[number; 60][..])));
        a.queues[0].flush();
        let mut due = 0..50u8;
        until("the burst", || {
            b.queues[0].receive(&mut burst);
            burst.iter().for_each(|packet| assert_eq!(packet.bytes, [due.next().unwrap(); 60], "{round}"));
            due.is_empty()
        });
    }
    let sent = a.queues[0].counters();
    assert_eq!(sent.packets_packed - before.packets_packed, 5000);
    assert_eq!(sent.aggregates_sent - before.aggregates_sent, 100);
    // A packet alone is not made longer.
    assert!(a.queues[0].send(&[7; 60][..]));
    a.queues[0].flush();
    assert_eq!(a.queues[0].counters().aggregates_sent, sent.aggregates_sent);
}

/// A CNF between two others gives back what came with a packet.
#[test]
fn what_travels_with_a_packet_goes_through_a_cnf() {
    let wires = Wires::start(2, 1);
    let [mut source, mut left, mut right, mut sink] = ["a0", "b0", "a1", "b1"]
        .map(|port| End::attach(config(&wires, port, |aggregation| aggregation.unfinished = true)));
    agree(&mut source, &mut left);
    agree(&mut right, &mut sink);
    let metas = |number: u64| {
        let checksum = match number % 3 {
            0 => Checksum::Unknown,
            1 => Checksum::Verified,
            _ => Checksum::Unfinished { start: 34, offset: 6 },
        };
        let cut = Segmentation { kind: GsoKind::Udp, ecn: false, size: 100, header_len: 42 };
        let segmentation = (number % 6 == 5).then_some(cut);
        Meta {
            flow: Some(u32::MAX - u32::from(u8::try_from(number).unwrap())),
            offload: Offload { checksum, segmentation },
        }
    };
    for number in 0..60u64 {
        assert!(source.queues[0].send(Packet { bytes: &[9; 300], meta: metas(number) }));
    }
    source.queues[0].flush();
    let (mut due, mut burst) = (0, Burst::new());
    until("all packets", || {
        left.queues[0].receive(&mut burst);
        assert_eq!(right.queues[0].send_burst(&burst, 0), burst.len());
        sink.queues[0].receive(&mut burst);
        for packet in burst.iter() {
            assert_eq!((packet.bytes, packet.meta), (&[9; 300][..], metas(due)));
            due += 1;
        }
        due == 60
    });
}

/// A UDP datagram whose checksum is unfinished: the field holds the pseudo-header's sum.
fn unfinished_datagram(payload: usize) -> (Vec<u8>, Meta) {
    let (udp_len, ip_len) = (u16::try_from(8 + payload).unwrap(), u16::try_from(28 + payload).unwrap());
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend(ip_len.to_be_bytes().into_iter().chain([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]));
    let ip = packet::checksum::checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&ip);
    frame.extend([0x30, 0x39, 0x10, 0x92].into_iter().chain(udp_len.to_be_bytes()));
    let pseudo = 2 * 0x0a00 + 1 + 2 + 17 + u32::from(udp_len);
    frame.extend(u16::try_from(pseudo).unwrap().to_be_bytes());
    frame.extend((0..payload).map(|at| at.to_le_bytes()[0]));
    let checksum = Checksum::Unfinished { start: 34, offset: 6 };
    (frame, Meta { flow: None, offload: Offload { checksum, segmentation: None } })
}

/// Who does not take unfinished packets gets finished ones, in an aggregate or beside it.
#[test]
fn packets_are_finished_for_those_who_cannot() {
    for aggregating in [false, true] {
        let wires = Wires::start(1, 1);
        let mut plain = LinkConfig::new(wires.socket("b0"));
        if aggregating {
            plain = plain.aggregate(Aggregation::default());
        }
        let mut a = End::attach(config(&wires, "a0", |aggregation| aggregation.unfinished = true));
        let mut b = End::attach(plain);
        if aggregating {
            agree(&mut a, &mut b);
        }
        wires.wait_until_up();
        let (whole, meta) = unfinished_datagram(100);
        let mut segmented = unfinished_datagram(1000);
        let cut = Segmentation { kind: GsoKind::Udp, ecn: false, size: 400, header_len: 42 };
        segmented.1.offload.segmentation = Some(cut);
        let beyond = Meta {
            flow: None,
            offload: Offload { checksum: Checksum::Unfinished { start: 60, offset: 2 }, segmentation: None },
        };
        for (bytes, meta) in [(&whole, meta), (&segmented.0, segmented.1), (&vec![0; 60], beyond)] {
            assert!(a.queues[0].send(Packet { bytes, meta }));
        }
        a.queues[0].flush();
        let (mut lengths, mut burst) = (Vec::new(), Burst::new());
        until("the datagrams", || {
            b.queues[0].receive(&mut burst);
            for packet in burst.iter().filter(|packet| packet.bytes[12..14] == [8, 0]) {
                assert_eq!(packet.meta, Meta::default());
                let parsed = etherparse::SlicedPacket::from_ethernet(packet.bytes).unwrap();
                let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                    (parsed.net, parsed.transport)
                else {
                    panic!("no UDP")
                };
                let wanted = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
                assert_eq!(udp.checksum(), wanted);
                lengths.push(udp.payload().len());
            }
            lengths.len() == 4
        });
        assert_eq!(lengths, [100, 400, 400, 200]);
        assert_eq!(a.queues[0].counters().unfinishable, 1);
    }
}

#[test]
fn who_is_not_answered_stays_plain() {
    let wires = Wires::start(1, 1);
    let mut a = End::attach(config(&wires, "a0", |_| {}));
    let mut b = End::attach(LinkConfig::new(wires.socket("b0")));
    let (mut burst, mut greeted) = (Burst::new(), 0);
    // HELLOs are packets like others to who does not know them; no bridge would have forwarded them.
    until("two HELLOs", || {
        a.tend();
        b.queues[0].receive(&mut burst);
        for packet in burst.iter() {
            assert_eq!(packet.bytes[..6], [0x01, 0x80, 0xc2, 0, 0, 0x0e]);
            assert_eq!(packet.bytes[12..14], [0x88, 0xb5]);
            greeted += 1;
        }
        greeted == 2
    });
    (0..100u8).for_each(|number| assert!(a.queues[0].send(&[number; 60][..])));
    a.queues[0].flush();
    let mut due = 0..100u8;
    until("the packets", || {
        b.queues[0].receive(&mut burst);
        let packets = burst.iter().filter(|packet| packet.bytes[12..14] != [0x88, 0xb5]);
        packets.for_each(|packet| assert_eq!(packet.bytes, [due.next().unwrap(); 60]));
        due.is_empty()
    });
    let counters = a.queues[0].counters();
    assert_eq!((counters.aggregates_sent, counters.packets_packed), (0, 0));
    assert!(a.told.is_empty(), "{:?}", a.told);
}

/// An end that leaves with a BYE, one that is silent, and one that comes back: packets are plain meanwhile, and what
/// waited is not lost.
#[test]
fn what_was_agreed_on_ends() {
    let wires = Wires::start(1, 1);
    let short = |aggregation: &mut Aggregation| aggregation.keepalive = Duration::from_millis(300);
    let mut a = End::attach(config(&wires, "a0", |aggregation| {
        short(aggregation);
        aggregation.tx_aggr_time_usecs = 60_000_000;
    }));
    for silent in [false, true, false] {
        let mut b = End::attach(config(&wires, "b0", short));
        agree(&mut a, &mut b);
        exchange(&mut b, &mut a, 0..100, |_, _| {});
        // Two bursts close together promise a third: what comes now is held.
        hold_some(&mut a);
        let sent = a.queues[0].counters().frames_sent;
        if silent {
            hear_nothing(&mut b);
        } else {
            b.link.close(std::mem::take(&mut b.queues), PATIENCE);
        }
        until("the end is noticed", || {
            a.tend();
            hear_nothing(&mut a);
            !a.is_aggregating()
        });
        let Some(Event::Plain { why: WhyPlain::Ended(why), .. }) = a.told.last() else { panic!("{:?}", a.told) };
        assert_eq!(matches!(why, cnf::Down::Silent), silent, "{:?} {:?}", a.told, a.queues[0].counters());
        // What waited went as plain frames, whoever receives them.
        assert!(a.queues[0].counters().frames_sent >= sent + 3, "{:?}", a.queues[0].counters());
    }
}

#[test]
fn a_new_node_is_agreed_with_anew() {
    let mut wires = Wires::start(1, 2);
    let [mut a, mut b] = ["a0", "b0"].map(|port| {
        let mut config = config(&wires, port, |_| {});
        config.device.queue_pairs = 2;
        End::attach(config)
    });
    for round in 0..3 {
        agree(&mut a, &mut b);
        exchange(&mut a, &mut b, 0..3000, |_, _| {});
        // Some wait, and some are on their way.
        (0..20u8).for_each(|number| assert!(a.queues[0].send(&[number; 60][..])));
        wires.restart();
        until("both notice, and attach again", || {
            a.tend();
            b.tend();
            let ups = |end: &End| end.told.iter().filter(|event| matches!(event, Event::Up)).count();
            ups(&a) == round + 1 && ups(&b) == round + 1
        });
        let mut burst = Burst::new();
        a.queues.iter_mut().for_each(|queue| assert_eq!(queue.receive(&mut burst), 0));
        // Those that waited come first, if the wire is there for them.
        until("quiet", || {
            a.tend();
            b.tend();
            let mut got = 0;
            b.queues.iter_mut().for_each(|queue| got += queue.receive(&mut burst));
            a.queues.iter_mut().for_each(|queue| got += queue.receive(&mut burst));
            got == 0 && a.is_aggregating() && b.is_aggregating()
        });
    }
    assert_eq!(b.queues[0].counters().damaged().count(), 0);
}

/// A sleeper flushes what has waited for long enough.
#[test]
fn what_is_held_goes_in_time() {
    const HOLD: Duration = Duration::from_millis(100);
    let wires = Wires::start(1, 1);
    let hold = |aggregation: &mut Aggregation| aggregation.tx_aggr_time_usecs = 100_000;
    let [mut a, mut b] = ["a0", "b0"].map(|port| End::attach(config(&wires, port, hold)));
    agree(&mut a, &mut b);
    let mut burst = Burst::new();
    hold_some(&mut a);
    let (begin, sent) = (Instant::now(), a.queues[0].counters().frames_sent);
    // Not its receive ring wakes it, but what waits.
    while a.queues[0].counters().frames_sent == sent {
        a.queues[0].wait(PATIENCE);
        a.queues[0].receive(&mut burst);
    }
    assert!(begin.elapsed() < PATIENCE && begin.elapsed() > HOLD / 4, "{:?}", begin.elapsed());
    // A connection that opens does not wait.
    let mut syn = vec![2; 12];
    syn.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0].into_iter().chain([0; 21]).chain([0x02]).chain([0; 6]));
    let before = hold_some(&mut a);
    assert!(a.queues[0].send(&*syn));
    a.queues[0].flush();
    assert_eq!(a.queues[0].counters().aggregates_sent, before + 1);
    until("the SYN", || {
        b.queues[0].receive(&mut burst);
        burst.iter().any(|packet| packet.bytes == syn)
    });
}

/// Sends packets until some are held, and says how many aggregates were sent before them.
fn hold_some(end: &mut End) -> u64 {
    let queue = &mut end.queues[0];
    loop {
        let sent = queue.counters();
        (0..3u8).for_each(|number| assert!(queue.send(&[number; 60][..])));
        queue.flush();
        if queue.counters().frames_sent == sent.frames_sent {
            return sent.aggregates_sent;
        }
    }
}
