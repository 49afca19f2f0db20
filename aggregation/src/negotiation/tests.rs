// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines that speak with each other over a network that loses, repeats, delays and reorders, in virtual time.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

fn offer() -> Offer {
    Offer {
        versions: (1, 1),
        encapsulations: 1,
        align_log2: 2,
        max_bytes: 9000,
        max_packets: 256,
        features: Features::TEMPLATE,
        keepalive_ms: 1000,
    }
}

fn config(node: u16, announce: Announce<u8>) -> Config<u8> {
    let session = u32::from(node) << 16 | 1;
    Config { node, session, offer: offer(), name: vec![b'n'], announce, max_peers: 4 }
}

/// The address to which all others listen.
const ALL: u8 = 255;

struct Station {
    link: Link<u8>,
    events: Vec<Event<u8>>,
    alive: bool,
}

/// A shared wire. Station *i* has address *i*.
struct Net {
    now: u64,
    stations: Vec<Station>,
    /// Frames on their way: when they arrive, from, to, bytes.
    wire: Vec<(u64, u8, u8, Vec<u8>)>,
    random: u64,
    /// Of 256 frames so many are lost, and repeated; and the longest delay.
    loss: u64,
    twice: u64,
    delay: u64,
}

impl Net {
    fn new(configs: Vec<Config<u8>>) -> Self {
        let station = |config| Station { link: Link::new(config, 0), events: vec![], alive: true };
        let stations = configs.into_iter().map(station).collect();
        Self { now: 0, stations, wire: vec![], random: 1, loss: 0, twice: 0, delay: MS }
    }

    fn pair() -> Self {
        Self::new(vec![config(1, Announce::Peer(1)), config(2, Announce::Never)])
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below.max(1)
    }

    fn send(&mut self, from: u8, to: u8, bytes: &[u8]) {
        if self.random(256) < self.loss {
            return;
        }
        for _ in 0..1 + u64::from(self.random(256) < self.twice) {
            let at = self.now + MS / 10 + self.random(self.delay);
            self.wire.push((at, from, to, bytes.to_vec()));
        }
    }

    fn pump(&mut self) {
        for i in 0..self.stations.len() {
            let mut to = [0; MAX_CONTROL];
            let mut frames = 0;
            let address = u8::try_from(i).unwrap();
            while self.stations[i].alive
                && let Some((peer, len)) = self.stations[i].link.poll_transmit(self.now, &mut to)
            {
                frames += 1;
                assert!(frames < 100, "station {i} does not stop at {}", self.now);
                if peer == ALL {
                    let others = (0..self.stations.len()).map(|other| u8::try_from(other).unwrap());
                    others.filter(|other| *other != address).for_each(|other| self.send(address, other, &to[..len]));
                } else {
                    self.send(address, peer, &to[..len]);
                }
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            self.pump();
            let timeouts = self.stations.iter().filter(|s| s.alive).filter_map(|s| s.link.timeout());
            let arrivals = self.wire.iter().map(|frame| frame.0);
            let next = timeouts.chain(arrivals).min().unwrap_or(u64::MAX).max(self.now + 1);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            let (arrived, flying) = std::mem::take(&mut self.wire).into_iter().partition(|frame| frame.0 <= next);
            self.wire = flying;
            let mut arrived: Vec<_> = arrived;
            arrived.sort();
            for (_, from, to, bytes) in arrived {
                let station = &mut self.stations[usize::from(to)];
                if station.alive {
                    station.link.handle(from, &bytes, next, |event| station.events.push(event)).unwrap();
                }
            }
            for station in self.stations.iter_mut().filter(|s| s.alive) {
                station.link.tick(next, |event| station.events.push(event));
            }
        }
    }

    /// Another incarnation of a station, which knows nothing.
    fn restart(&mut self, i: usize) {
        let mut config = self.stations[i].link.config.clone();
        config.session += 1;
        self.stations[i] = Station { link: Link::new(config, self.now), events: vec![], alive: true };
    }

    /// Whether `i` may send to `j`, and `j` would take it.
    fn is_up(&self, i: usize, j: usize) -> bool {
        let address = |i| u8::try_from(i).unwrap();
        self.stations[i].link.peer(address(j)).is_some_and(|peer| peer.may_send().is_some())
            && self.stations[j].link.peer(address(i)).is_some()
    }

    fn all_up(&self) -> bool {
        let n = self.stations.len();
        (0..n).all(|i| (0..n).filter(|j| *j != i).all(|j| self.is_up(i, j)))
    }
}

#[test]
fn two_sides_agree_within_a_round_trip_and_stay_so() {
    let mut net = Net::pair();
    net.run(10 * MS);
    assert!(net.all_up());
    net.run(100 * S);
    assert!(net.all_up());
    for station in &net.stations {
        let downs = station.events.iter().filter(|event| matches!(event, Event::Down { .. })).count();
        assert_eq!((downs, station.events.len()), (0, 2), "{:?}", station.events);
        let counters = station.link.counters();
        assert_eq!((counters.sent[0], counters.sent[1], counters.sent[3]), (1, 1, 0));
        assert!((99..=101).contains(&counters.sent[2]), "{counters:?}");
    }
}

#[test]
fn decision_28_who_was_never_spoken_to_says_nothing() {
    let mut net = Net::new(vec![config(1, Announce::Never), config(2, Announce::Never)]);
    net.run(1000 * S);
    assert!(net.stations.iter().all(|s| s.link.counters().sent == [0; 4] && s.link.timeout().is_none()));
}

#[test]
fn ka_7_a_peer_that_does_not_know_is_asked_ever_more_seldom_and_never_sent_to() {
    let mut net = Net::pair();
    net.stations[1].alive = false;
    net.run(60 * S);
    // At 0, 1, 3, 7, 15 and 31 s, and from 61 s on every 30.
    assert_eq!(net.stations[0].link.counters().sent, [6, 0, 0, 0]);
    net.run(3000 * S);
    assert_eq!(net.stations[0].link.counters().sent, [106, 0, 0, 0]);
    assert!(net.stations[0].events.is_empty());
}

/// Both speak first, and nobody was there when one of them did.
#[test]
fn ka_7_who_is_greeted_late_greets_back_soon() {
    let mut net = Net::new(vec![config(1, Announce::Peer(1)), config(2, Announce::Peer(0))]);
    net.stations[1].alive = false;
    net.run(20 * S);
    // The next announcement would be at 31 s.
    net.restart(1);
    net.run(100 * MS);
    assert!(net.all_up());
}

#[test]
fn ka_7_hellos_that_cross_are_not_repeated() {
    let mut net = Net::new(vec![config(1, Announce::Peer(1)), config(2, Announce::Peer(0))]);
    net.run(S - 500 * MS);
    assert!(net.all_up());
    let sent = |station: usize| net.stations[station].link.counters().sent;
    assert_eq!([sent(0)[..2].to_vec(), sent(1)[..2].to_vec()], [[1, 1], [1, 1]]);
}

#[test]
fn decision_28_a_silent_peer_is_gone_after_three_keepalives_and_found_again() {
    for dies in [0, 1] {
        let mut net = Net::pair();
        net.run(5 * S);
        net.stations[dies].alive = false;
        net.stations[1 - dies].events.clear();
        net.run(2 * S - MS);
        assert_eq!(net.stations[1 - dies].events, []);
        net.run(2 * S);
        let address = u8::try_from(dies).unwrap();
        let node = u16::from(address) + 1;
        assert_eq!(net.stations[1 - dies].events, [Event::Down { address, node, why: Down::Silent }]);
        net.restart(dies);
        net.run(3 * S);
        assert!(net.all_up(), "{dies}");
    }
}

#[test]
fn aggregates_count_as_life() {
    let mut net = Net::pair();
    net.run(5 * S);
    net.stations[1].alive = false;
    for _ in 0..20 {
        net.run(S);
        let now = net.now;
        net.stations[0].link.heard(1, now);
    }
    assert!(net.stations[0].link.peer(1).is_some());
}

#[test]
fn decision_28_bye_ends_it_at_once() {
    let mut net = Net::pair();
    net.run(5 * S);
    let station = &mut net.stations[1];
    station.link.close(|event| station.events.push(event));
    assert!(matches!(station.events.last(), Some(Event::Down { why: Down::Closed, .. })));
    net.run(2 * MS);
    let bye = Event::Down { address: 1, node: 2, why: Down::Bye(Reason::Closing) };
    assert_eq!(net.stations[0].events.last(), Some(&bye));
    net.run(100 * S);
    assert!(net.stations[0].link.peer(1).is_none());
    assert_eq!(net.stations[1].link.timeout(), None);
}

#[test]
fn decision_28_a_new_session_ends_the_old_one_at_once() {
    for restarts in [0, 1] {
        let mut net = Net::pair();
        net.run(5 * S);
        net.restart(restarts);
        // The passive side has to be spoken to first: by the next KEEPALIVE.
        net.run(S + 20 * MS);
        assert!(net.all_up(), "{restarts}");
    }
}

#[test]
fn a_reset_link_begins_anew() {
    let mut net = Net::pair();
    net.run(5 * S);
    let now = net.now;
    for station in &mut net.stations {
        let session = station.link.config.session + 1;
        station.link.reset(session, now, |event| station.events.push(event));
        assert!(matches!(station.events.last(), Some(Event::Down { why: Down::Restarted, .. })));
    }
    net.run(10 * MS);
    assert!(net.all_up());
}

#[test]
fn stations_on_a_shared_wire_find_each_other_and_late_ones() {
    let mut net = Net::new((1..=4).map(|node| config(node, Announce::Group(ALL))).collect());
    net.stations[3].alive = false;
    net.run(10 * S);
    assert!((0..3).all(|i| (0..3).filter(|j| *j != i).all(|j| net.is_up(i, j))));
    // To everybody at first and after a second, and one to each of the others.
    assert!(net.stations[..3].iter().all(|s| s.link.counters().sent[0] <= 4));
    net.restart(3);
    net.run(10 * MS);
    assert!(net.all_up());
    net.run(200 * S);
    assert!(net.all_up());
    assert!(net.stations.iter().all(|s| s.link.counters().sent[0] < 20), "the group is greeted seldom");
}

#[test]
fn decision_25_duplicate_node_ids_are_refused_counted_and_told() {
    let mut net = Net::new(vec![
        config(1, Announce::Group(ALL)),
        config(2, Announce::Group(ALL)),
        Config { session: 99, ..config(2, Announce::Group(ALL)) },
    ]);
    net.stations[2].alive = false;
    net.run(5 * S);
    assert!(net.is_up(0, 1) && net.is_up(1, 0));
    net.stations[2].alive = true;
    net.run(60 * S);
    assert!(net.is_up(0, 1) && net.is_up(1, 0), "the first one stays");
    assert!(net.stations[0].link.peer(2).is_none() && net.stations[1].link.peer(2).is_none());
    assert!(net.stations[0].link.counters().duplicate_node > 0);
    let refused = Event::Refused { address: 2, node: 2, reason: Reason::Duplicate };
    assert!(net.stations[0].events.contains(&refused) && net.stations[1].events.contains(&refused));
    let refused_by = |event: &Event<u8>| matches!(event, Event::RefusedBy { reason: Reason::Duplicate, .. });
    assert!(net.stations[2].events.iter().any(refused_by), "{:?}", net.stations[2].events);
}

#[test]
fn nothing_in_common_is_told() {
    let other = Config { offer: Offer { encapsulations: 2, ..offer() }, ..config(2, Announce::Never) };
    let mut net = Net::new(vec![config(1, Announce::Peer(1)), other]);
    net.run(100 * S);
    assert!(net.stations.iter().all(|s| s.link.peers().count() == 0));
    assert!(net.stations[0].events.contains(&Event::RefusedBy { address: 1, node: 2, reason: Reason::Incompatible }));
    assert!(net.stations[0].link.counters().sent[0] <= 8, "who refuses is asked ever more seldom");
}

#[test]
fn peers_are_bounded() {
    let mut net = Net::new((1..=8).map(|node| config(node, Announce::Group(ALL))).collect());
    net.run(100 * S);
    assert!(net.stations.iter().all(|s| s.link.peers().count() <= 4 && s.link.refusals.len() <= REFUSALS));
    assert!(net.stations[0].link.counters().peers_full > 0);
}

#[test]
fn frames_that_come_back_are_no_peer() {
    let mut link = Link::new(config(1, Announce::Peer(1)), 0);
    let mut to = [0; MAX_CONTROL];
    let (_, len) = link.poll_transmit(0, &mut to).unwrap();
    link.handle(1, &to[..len], 0, |event| panic!("{event:?}")).unwrap();
    assert_eq!((link.peers().count(), link.counters().reflected), (0, 1));
}

/// A peer's control frame, as it is on the wire.
fn from_peer(message: Message, session: u32, peer_session: u32) -> Vec<u8> {
    let greets = matches!(message, Message::Hello | Message::HelloAck);
    let offer = greets.then(offer);
    let control = Control { message, node: 2, session, peer_session, offer, name: &[], reason: None };
    let mut to = [0; MAX_CONTROL];
    let len = control.write(0, &mut to);
    to[..len].to_vec()
}

#[test]
fn late_frames_of_a_former_session_change_nothing() {
    let own = config(1, Announce::Never).session;
    let mut link = Link::new(config(1, Announce::Never), 0);
    let mut events = Vec::new();
    for (message, session) in [(Message::Hello, 7), (Message::HelloAck, 7), (Message::Hello, 8), (Message::HelloAck, 8)]
    {
        link.handle(2, &from_peer(message, session, own), MS, |event| events.push(event)).unwrap();
    }
    let up = link.peer(2).and_then(Peer::may_send).copied();
    assert!(up.is_some() && matches!(events[2], Event::Down { why: Down::Restarted, .. }), "{events:?}");
    for message in [Message::Hello, Message::HelloAck, Message::Keepalive, Message::Bye] {
        let before = link.counters().stale;
        link.handle(2, &from_peer(message, 7, own), S, |event| panic!("{event:?}")).unwrap();
        assert_eq!(link.counters().stale, before + 1, "{message:?}");
    }
    // Three keepalives later nothing of it can still be on its way.
    link.heard(2, 3 * S);
    link.handle(2, &from_peer(Message::Hello, 7, own), 3 * S + MS, |event| events.push(event)).unwrap();
    assert!(matches!(events[events.len() - 2], Event::Down { why: Down::Restarted, .. }), "{events:?}");
}

#[test]
fn an_ack_must_name_our_session_and_have_been_asked_for() {
    let own = config(1, Announce::Never).session;
    let mut link = Link::new(config(1, Announce::Never), 0);
    link.handle(2, &from_peer(Message::HelloAck, 7, own), 0, |event| panic!("{event:?}")).unwrap();
    link.handle(2, &from_peer(Message::Hello, 7, 0), 0, |_| ()).unwrap();
    for session in [0, own + 1] {
        link.handle(2, &from_peer(Message::HelloAck, 7, session), 0, |event| panic!("{event:?}")).unwrap();
    }
    assert_eq!(link.counters().stale, 3);
    assert!(link.peer(2).is_some_and(|peer| peer.may_send().is_none()));
    link.handle(2, &from_peer(Message::HelloAck, 7, own), 0, |_| ()).unwrap();
    assert!(link.peer(2).is_some_and(|peer| peer.may_send().is_some()));
}

#[test]
fn a_stranger_is_answered_once_for_all_that_it_sent() {
    let mut link = Link::new(config(1, Announce::Never), 0);
    for _ in 0..5 {
        link.handle(2, &from_peer(Message::Keepalive, 7, 1), 0, |event| panic!("{event:?}")).unwrap();
    }
    let mut to = [0; MAX_CONTROL];
    let (address, len) = link.poll_transmit(0, &mut to).unwrap();
    let bye = Control::parse(&to[..len]).unwrap();
    assert_eq!((address, bye.message, bye.peer_session, bye.reason), (2, Message::Bye, 7, Some(Reason::NoSession)));
    assert_eq!((link.poll_transmit(S, &mut to), link.timeout()), (None, None));
}

#[test]
fn strangers_cannot_make_a_link_speak_often() {
    let mut link = Link::new(config(1, Announce::Never), 0);
    let mut to = [0; MAX_CONTROL];
    let mut answers = 0;
    for i in 0..10_000_u64 {
        let node = u16::try_from(i % 50 + 2).unwrap();
        let stranger = Control {
            message: Message::Keepalive,
            node,
            session: 5,
            peer_session: 6,
            offer: None,
            name: &[],
            reason: None,
        };
        let len = stranger.write(0, &mut to);
        let from = u8::try_from(node).unwrap();
        link.handle(from, &to[..len], i * 1000, |event| panic!("{event:?}")).unwrap();
        while link.poll_transmit(i * 1000, &mut to).is_some() {
            answers += 1;
        }
    }
    assert!(answers <= 2, "{answers} in 10 ms");
}

/// What may happen to a pair.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Wait(u64),
    Restart(usize),
    Die(usize),
    Close(usize),
    Network { loss: u64, twice: u64, delay: u64 },
}

fn happens() -> impl Strategy<Value = Happens> {
    let network = (0_u64..200, 0_u64..128, 1..2 * S);
    prop_oneof![
        5 => (1..5 * S).prop_map(Happens::Wait),
        2 => (0_usize..2).prop_map(Happens::Restart),
        1 => (0_usize..2).prop_map(Happens::Die),
        1 => (0_usize..2).prop_map(Happens::Close),
        2 => network.prop_map(|(loss, twice, delay)| Happens::Network { loss, twice, delay }),
    ]
}

proptest! {
    /// Whatever happened: once the network is good again and both are there, they agree, and on the same.
    #[test]
    fn in_the_end_both_agree(
        story in prop::collection::vec(happens(), 0..30),
        seed in any::<u64>(),
        group in any::<bool>(),
    ) {
        let mut net = if group {
            Net::new(vec![config(1, Announce::Group(ALL)), config(2, Announce::Group(ALL))])
        } else {
            Net::pair()
        };
        net.random = seed;
        for step in story {
            match step {
                Happens::Wait(time) => net.run(time),
                Happens::Restart(i) => net.restart(i),
                Happens::Die(i) => net.stations[i].alive = false,
                Happens::Close(i) => net.stations[i].link.close(|_| ()),
                Happens::Network { loss, twice, delay } => (net.loss, net.twice, net.delay) = (loss, twice, delay),
            }
        }
        (net.loss, net.twice, net.delay) = (0, 0, MS);
        for i in 0..2 {
            if !net.stations[i].alive || net.stations[i].link.closed {
                net.restart(i);
            }
        }
        // The longest wait between two HELLOs, and some for what is still on its way.
        net.run(40 * S);
        prop_assert!(net.all_up());
        let grants: Vec<_> = net.stations.iter().map(|s| s.link.peers().next().unwrap().may_send().copied()).collect();
        prop_assert_eq!(grants[0], grants[1]);
        let downs = |net: &Net| -> usize {
            let events = net.stations.iter().flat_map(|s| &s.events);
            events.filter(|event| matches!(event, Event::Down { .. })).count()
        };
        let before = downs(&net);
        net.run(100 * S);
        prop_assert!(net.all_up());
        prop_assert_eq!(downs(&net), before, "and it stays so");
    }
}

/// Loss of every tenth frame does not end a session for long: three keepalives in a row are lost seldom.
#[test]
fn a_lossy_link_is_up_nearly_always() {
    let mut up = 0;
    for seed in 1..=20 {
        let mut net = Net::pair();
        net.random = seed;
        net.loss = 26;
        net.run(60 * S);
        for _ in 0..500 {
            net.run(S);
            up += usize::from(net.is_up(0, 1)) + usize::from(net.is_up(1, 0));
        }
    }
    assert!(up > 19_000, "{up} of 20000");
}
