// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use core::num::NonZeroU32;
use std::sync::Arc;

use etherparse::{Ethernet2Header, IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use packet::{Offload, PortId, Tunnel};

use super::*;
use crate::Name;
use crate::compile::Snapshot;
use crate::condition::Conditions;
use crate::engine::{Engine, EngineConfig};
use crate::model::{
    Action, Controller, Default, Destination, Edit, Encap, Group, PortPolicy, Rule, Stateful, Transaction,
};

/// TCP that is being put together.
type TcpStep = PacketBuilderStep<TcpHeader>;

const PORT: PortId = PortId(3);
const MTU: u32 = 1500;
/// What VXLAN over IPv4 leaves of that for the inner IP packet: outer IP, UDP and VXLAN, and the inner Ethernet header.
const INNER: usize = 1500 - 20 - 8 - 8 - 14;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A port all of whose packets go into a tunnel, and come out of one, remembered or not.
fn engine(stateful: bool) -> Engine {
    let rule = |text: &str, direction, action| Rule {
        name: name(text),
        priority: 1,
        direction,
        conditions: Conditions::default(),
        action,
        terminating: false,
    };
    let encap = Encap {
        tunnel: Tunnel::Vxlan,
        source: [192, 0, 2, 1].into(),
        destination: Destination::Among(vec![[192, 0, 2, 2].into()]),
        vni: Some(7),
    };
    let idle = Stateful { idle_s: NonZeroU32::new(60).unwrap() };
    let allow = Action::Allow { stateful: stateful.then_some(idle) };
    let layers = [
        ("acl", 0, vec![rule("out", Direction::Out, allow.clone()), rule("in", Direction::In, allow)]),
        (
            "vnet",
            1,
            vec![rule("encap", Direction::Out, Action::Encap(encap)), rule("decap", Direction::In, Action::Decap)],
        ),
    ];
    let edits = layers.into_iter().flat_map(|(layer, order, rules)| {
        let group = Group { name: name("all"), order: 0, when: Conditions::default(), lpm: None, rules };
        [
            Edit::PutLayer { name: name(layer), order, default: Default::Allow },
            Edit::PutGroup { layer: name(layer), group: Arc::new(group) },
        ]
    });
    let controller = Controller { name: name("test"), order: [0, 100] };
    let transaction = Transaction { controller, preconditions: Vec::new(), edits: edits.collect() };
    let policy = PortPolicy::empty().after(&transaction).unwrap();
    let mut engine = Engine::new(EngineConfig::default());
    engine.set_policy(PORT, Arc::new(Snapshot::compile(&policy, None, 1).unwrap()));
    engine
}

/// What becomes of a frame, and what the guest is told.
fn send(engine: &mut Engine, frame: &[u8], now_ns: u64) -> (Verdict, Vec<u8>, Vec<Vec<u8>>) {
    let mut burst = Burst::new();
    let len = u32::try_from(frame.len()).unwrap();
    let window = burst.push(PORT, len, Offload::NONE, 0).unwrap();
    let end = window.len();
    window.copy_from_slice(&frame[..end]);
    engine.process(&mut burst, PORT, Direction::Out, now_ns);
    let replies = engine.take_replies().map(|(port, reply)| {
        assert_eq!(port, PORT);
        reply
    });
    (burst.verdict(0), burst.window(0).to_vec(), replies.collect())
}

/// What becomes of a frame that is for the guest.
fn receive(engine: &mut Engine, frame: &[u8], now_ns: u64) -> Vec<u8> {
    let mut burst = Burst::new();
    let len = u32::try_from(frame.len()).unwrap();
    burst.push(PortId(9), len, Offload::NONE, 0).unwrap().copy_from_slice(frame);
    burst.set_verdict(0, Verdict::Forward(PORT));
    engine.process(&mut burst, PORT, Direction::In, now_ns);
    assert_eq!(burst.verdict(0), Verdict::Forward(PORT));
    burst.window(0).to_vec()
}

/// TCP from the guest to the far end, or back, with the flags that `flags` sets; its SYN announces `mss`.
fn tcp(out: bool, port: u16, mss: Option<u16>, flags: impl FnOnce(TcpStep) -> TcpStep) -> Vec<u8> {
    let (here, there) = (([2, 0, 0, 0, 0, 1], [10, 0, 0, 1], port), ([2, 0, 0, 0, 0, 2], [10, 0, 0, 2], 80));
    let (from, to) = if out { (here, there) } else { (there, here) };
    let ip = PacketBuilder::ethernet2(from.0, to.0).ipv4(from.1, to.1, 64);
    let options = mss.map(etherparse::TcpOptionElement::MaximumSegmentSize);
    let mut frame = Vec::new();
    let step = flags(ip.tcp(from.2, to.2, 9, 1000)).options(options.as_slice()).unwrap();
    step.write(&mut frame, &[]).unwrap();
    frame
}

/// Into the tunnel, by the far end.
fn tunnelled(outer: PacketBuilderStep<Ethernet2Header>, v6: bool, inner: &[u8]) -> Vec<u8> {
    let outer =
        if v6 { outer.ipv6([0x20; 16], [0x21; 16], 64) } else { outer.ipv4([192, 0, 2, 2], [192, 0, 2, 1], 64) };
    let mut frame = Vec::new();
    let payload = [&[8, 0, 0, 0, 0, 0, 7, 0], inner].concat();
    outer.udp(50_000, 4789).write(&mut frame, &payload).unwrap();
    frame
}

/// The segment size that a SYN without a tunnel announces; its checksum must be right.
fn announced(frame: &[u8]) -> u16 {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let [source, destination] = [26, 30].map(|at| *frame[at..].first_chunk::<4>().unwrap());
    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(source, destination).unwrap());
    let mss = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    mss.unwrap()
}

/// UDP whose IP packet is that long.
fn udp(ip_len: usize, dont_fragment: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let header = etherparse::Ipv4Header {
        dont_fragment,
        ..etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap()
    };
    let mut frame = Vec::new();
    let payload = vec![5; ip_len - 28];
    let packet = builder.ip(IpHeaders::Ipv4(header, std::default::Default::default())).udp(7, 9);
    packet.write(&mut frame, &payload).unwrap();
    frame
}

#[test]
fn what_does_not_fit_into_its_tunnel_is_dropped_and_told() {
    // Decision 22
    let mut engine = engine(false);
    engine.set_tunnel_mtu(Some(MTU));
    let fits = send(&mut engine, &udp(INNER, true), 1);
    assert_eq!((fits.0, fits.2.len()), (Verdict::Pending, 0));
    // The first packet of a flow, and one of a known flow, calm or not.
    for n in 0..3 {
        let big = udp(INNER + 1, true);
        let (verdict, _, replies) = send(&mut engine, &big, 2 + n);
        assert_eq!(verdict, Verdict::Drop(DropCause::LinkMtu));
        let [reply] = replies.try_into().unwrap();
        let expected = packet::icmp::too_big(
            &big[..packet::WINDOW.min(big.len())],
            &packet::parse::parse(&big[..packet::WINDOW.min(big.len())], u32::try_from(big.len()).unwrap()).unwrap(),
            u16::try_from(INNER).unwrap(),
            [10, 0, 0, 2].into(),
        );
        assert_eq!(Some(&reply), expected.as_ref());
        // To the guest, from the destination: ICMP 3, 4 with what fits.
        assert_eq!((&reply[..6], &reply[26..34]), (&big[6..12], &[10, 0, 0, 2, 10, 0, 0, 1][..]));
        assert_eq!(reply[34..36], [3, 4]);
        assert_eq!(reply[40..42], u16::try_from(INNER).unwrap().to_be_bytes());
    }
    // It may be fragmented, but not here: nobody is told.
    let (verdict, _, replies) = send(&mut engine, &udp(INNER + 1, false), 5);
    assert_eq!((verdict, replies.len()), (Verdict::Drop(DropCause::LinkMtu), 0));
    let stats = engine.report(PORT).unwrap().tunnels;
    assert_eq!(stats, TunnelStats { too_big: 4, told: 3, mss_lowered: 0 });
    // No limit, no drops.
    engine.set_tunnel_mtu(None);
    assert_eq!(send(&mut engine, &udp(INNER + 1, true), 6).0, Verdict::Pending);
}

#[test]
fn errors_are_few() {
    let mut engine = engine(false);
    engine.set_tunnel_mtu(Some(MTU));
    let told = |engine: &mut Engine, now_ns| (0..500).map(|_| send(engine, &udp(1500, true), now_ns).2.len()).sum();
    let counts: [usize; 3] = [1, 2, 1_000_000_000].map(|now_ns| told(&mut engine, now_ns));
    assert_eq!(counts, [100, 0, 50]);
    let stats = engine.report(PORT).unwrap().tunnels;
    assert_eq!((stats.too_big, stats.told), (1500, 150));
}

#[test]
fn tcp_is_told_to_send_less() {
    for stateful in [false, true] {
        let mut engine = engine(stateful);
        engine.set_tunnel_mtu(Some(MTU));
        for (port, mss, most) in [(1, 1460, INNER - 40), (2, 1000, 1000), (1, 1460, INNER - 40)] {
            let (verdict, sent, _) = send(&mut engine, &tcp(true, port, Some(mss), TcpStep::syn), 7);
            assert_eq!(verdict, Verdict::Pending);
            assert_eq!(usize::from(announced(&sent[14 + 20 + 8 + 8..])), most, "{mss}");
        }
        assert_eq!(engine.report(PORT).unwrap().tunnels.mss_lowered, 2);
    }
}

#[test]
fn a_syn_on_a_flow_that_is_known_well_is_no_exception() {
    for stateful in [false, true] {
        let mut engine = engine(stateful);
        engine.set_tunnel_mtu(Some(MTU));
        let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]);
        for round in 0..3 {
            let (_, sent, _) = send(&mut engine, &tcp(true, 1, Some(1460), TcpStep::syn), round);
            assert_eq!(usize::from(announced(&sent[14 + 20 + 8 + 8..])), INNER - 40, "{round}");
            for _ in 0..3 {
                receive(&mut engine, &tunnelled(link(), false, &tcp(false, 1, None, |tcp| tcp.ack(10))), round);
                send(&mut engine, &tcp(true, 1, None, |tcp| tcp.ack(10)), round);
            }
        }
    }
}

#[test]
fn a_syn_out_of_a_tunnel_announces_what_its_answers_have_room_for() {
    // Decision 22: the far end's kernel knows of no tunnel.
    for stateful in [false, true] {
        let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]);
        let v4 = |inner: &[u8]| tunnelled(link(), false, inner);
        let v6 = |inner: &[u8]| tunnelled(link(), true, inner);
        let mut engine = engine(stateful);
        let syn = |port, mss| tcp(false, port, Some(mss), TcpStep::syn);
        // There is no limit yet.
        assert_eq!(announced(&receive(&mut engine, &v4(&syn(1, 1460)), 1)), 1460);
        engine.set_tunnel_mtu(Some(MTU));
        assert_eq!(usize::from(announced(&receive(&mut engine, &v4(&syn(2, 1460)), 2))), INNER - 40);
        assert_eq!(usize::from(announced(&receive(&mut engine, &v6(&syn(3, 1460)), 3))), INNER - 20 - 40);
        assert_eq!(announced(&receive(&mut engine, &v4(&syn(4, 1000)), 4)), 1000);
        // The answer to the guest's own, and again on the same flow.
        send(&mut engine, &tcp(true, 5, Some(1000), TcpStep::syn), 5);
        for now_ns in 6..9 {
            let answer = tcp(false, 5, Some(9000), |tcp| tcp.syn().ack(10));
            assert_eq!(usize::from(announced(&receive(&mut engine, &v4(&answer), now_ns))), INNER - 40);
        }
        assert_eq!(engine.report(PORT).unwrap().tunnels.mss_lowered, 5);
    }
}
