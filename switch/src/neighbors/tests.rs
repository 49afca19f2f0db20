// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table against a plain model of what is believed about each neighbour, all counters included.

use std::collections::BTreeMap;

use packet::neighbor::{advertisement, arp_announcement, arp_reply, arp_request, solicitation};
use proptest::{collection::vec, prelude::*};

use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const MS: u64 = 1_000_000;

fn v4(low: u8) -> Ipv4Addr {
    [10, 0, 0, low].into()
}

fn v6(low: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low.into())
}

fn mac(low: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, low])
}

fn config() -> NeighborsConfig {
    NeighborsConfig {
        mac: OWN,
        addresses: vec![(v4(1).into(), 24), (v6(1).into(), 64)],
        gateway_v4: Some(v4(254)),
        gateway_v6: None,
        capacity: 4096,
    }
}

fn neighbors() -> Neighbors {
    Neighbors::new(&config()).unwrap()
}

/// Neighbour `i` of the model: even ones are IPv4.
fn address(i: u8) -> IpAddr {
    if i.is_multiple_of(2) { v4(10 + i).into() } else { v6(10 + i).into() }
}

/// Which neighbour a frame asks for, and whether all are asked.
fn asked(frame: &[u8]) -> (IpAddr, bool) {
    let Some(Message::Request(request)) = Message::parse(frame) else { panic!("not a request") };
    assert_eq!((request.mac, request.source), (Some(OWN), OWN));
    assert!(matches!(request.sender, Some(sender) if sender == v4(1) || sender == v6(1)));
    (request.target, MacAddr(frame[..6].try_into().unwrap()).is_multicast())
}

/// What the frames of a neighbour say.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// Asks for the own address.
    ForUs,
    /// Asks for somebody else's.
    ForOther,
    /// IPv4: announces itself. IPv6: an unsolicited advertisement that overrides.
    Announce,
    /// Answers us.
    Reply,
    /// Answers us without overriding (IPv6 only; else as `Reply`).
    Confirm,
}

impl Say {
    fn frame(self, i: u8, mac: MacAddr) -> Vec<u8> {
        let other = MacAddr([2, 0, 0, 0, 9, 9]);
        match (address(i), self) {
            (IpAddr::V4(ip), Self::ForUs) => arp_request((mac, ip), v4(1), MacAddr::BROADCAST),
            (IpAddr::V4(ip), Self::ForOther) => arp_request((mac, ip), v4(99), MacAddr::BROADCAST),
            (IpAddr::V4(ip), Self::Announce) => arp_announcement((mac, ip)),
            (IpAddr::V4(ip), Self::Reply | Self::Confirm) => arp_reply((mac, ip), (OWN, v4(1))),
            (IpAddr::V6(ip), Self::ForUs) => solicitation((mac, ip), v6(1), None),
            (IpAddr::V6(ip), Self::ForOther) => solicitation((mac, ip), v6(99), Some(other)),
            (IpAddr::V6(ip), Self::Announce) => packet::neighbor::unsolicited_advertisement((mac, ip)),
            (IpAddr::V6(ip), Self::Reply) => advertisement((mac, ip), (OWN, v6(1))),
            (IpAddr::V6(ip), Self::Confirm) => without_override(advertisement((mac, ip), (OWN, v6(1)))),
        }
    }
}

/// Clears the override flag: the checksum grows by what the flag falls.
fn without_override(mut frame: Vec<u8>) -> Vec<u8> {
    const FLAGS: usize = 58;
    assert_eq!(frame[FLAGS], 0x60);
    frame[FLAGS] = 0x40;
    let sum = u16::from_be_bytes([frame[56], frame[57]]);
    let new = packet::checksum::update(sum, 0x6000, 0x4000);
    frame[56..58].copy_from_slice(&new.to_be_bytes());
    frame
}

#[derive(Clone, Debug)]
enum Operation {
    Wait(u64),
    Resolve(u8),
    Hear(u8, u8, Say),
    Sweep,
}

fn operation() -> impl Strategy<Value = Operation> {
    let say = prop_oneof![
        2 => Just(Say::ForUs),
        1 => Just(Say::ForOther),
        1 => Just(Say::Announce),
        3 => Just(Say::Reply),
        2 => Just(Say::Confirm)
    ];
    prop_oneof![
        3 => prop_oneof![0..2000 * MS, Just(SECOND_NS), 0..40 * SECOND_NS, Just(300 * SECOND_NS)]
            .prop_map(Operation::Wait),
        6 => (0..4_u8).prop_map(Operation::Resolve),
        4 => (0..4_u8, 0..3_u8, say).prop_map(|(i, m, say)| Operation::Hear(i, m, say)),
        5 => Just(Operation::Sweep),
    ]
}

/// What is believed of one neighbour, by what happened to it.
#[derive(Clone, Debug, Default)]
struct Belief {
    mac: Option<MacAddr>,
    /// When it last confirmed, if nothing was heard since that contradicts.
    confirmed: Option<u64>,
    /// When it was asked since.
    asks: Vec<u64>,
    used: u64,
    /// Used since it was no longer believed.
    missed: bool,
    /// When it was given up.
    given_up: Option<u64>,
}

impl Belief {
    fn is_believed(&self, now: u64) -> bool {
        self.confirmed.is_some_and(|at| now - at < 30 * SECOND_NS)
    }

    fn settle(&mut self, now: u64) {
        if self.confirmed.is_some() && !self.is_believed(now) {
            *self = Self { mac: self.mac, used: self.used, ..Self::default() };
        }
    }

    fn may_ask(&self, now: u64) -> bool {
        self.asks.last().is_none_or(|last| now - last >= SECOND_NS)
    }

    fn state(&self) -> State {
        match (self.mac, self.given_up, self.confirmed) {
            (Some(_), _, Some(_)) => State::Reachable,
            (Some(_), _, None) => State::Stale,
            (None, Some(_), _) => State::Failed,
            (None, None, _) => State::Incomplete,
        }
    }
}

#[derive(Default)]
struct Model {
    beliefs: BTreeMap<IpAddr, Belief>,
    stats: NeighborsStats,
}

impl Model {
    /// `Err` says whether a frame asks.
    fn resolve(&mut self, ip: IpAddr, now: u64) -> (Option<MacAddr>, State, bool) {
        let is_new = match self.beliefs.get_mut(&ip) {
            None => true,
            Some(belief) => {
                belief.settle(now);
                belief.used = now;
                belief.missed |= belief.mac.is_some() && belief.confirmed.is_none();
                belief.mac.is_none() && belief.given_up.is_some_and(|at| now - at >= 5 * SECOND_NS)
            }
        };
        if is_new {
            self.stats.asked += 1;
            self.beliefs.insert(ip, Belief { asks: vec![now], used: now, ..Belief::default() });
        }
        let belief = &self.beliefs[&ip];
        (belief.mac, belief.state(), is_new)
    }

    fn sweep(&mut self, now: u64) -> (Vec<(IpAddr, bool)>, Vec<IpAddr>) {
        let (mut asks, mut failed) = (Vec::new(), Vec::new());
        self.beliefs.retain(|ip, belief| {
            belief.settle(now);
            if belief.mac.is_some() {
                if belief.confirmed.is_some() {
                    return true;
                }
                if now - belief.used >= 300 * SECOND_NS {
                    return false;
                }
                if belief.missed && belief.may_ask(now) {
                    let goes_on = belief.asks.len() < 3;
                    if !goes_on {
                        *belief = Belief { used: belief.used, ..Belief::default() };
                    }
                    belief.asks.push(now);
                    asks.push((*ip, !goes_on));
                }
                return true;
            }
            if let Some(at) = belief.given_up {
                return now - at < 5 * SECOND_NS;
            }
            if belief.may_ask(now) {
                if belief.asks.len() < 3 {
                    belief.asks.push(now);
                    asks.push((*ip, true));
                } else {
                    belief.given_up = Some(now);
                    failed.push(*ip);
                }
            }
            true
        });
        self.stats.asked += u64::try_from(asks.len()).unwrap();
        self.stats.failed += u64::try_from(failed.len()).unwrap();
        failed.sort();
        asks.sort();
        (asks, failed)
    }

    /// Whether it is learnt.
    fn hear(&mut self, i: u8, mac: MacAddr, say: Say, now: u64) -> bool {
        let ip = address(i);
        let is_answer = matches!(say, Say::Reply | Say::Confirm) || matches!(say, Say::Announce) && ip.is_ipv6();
        self.stats.answered += u64::from(matches!(say, Say::ForUs));
        let learned = match self.beliefs.get_mut(&ip) {
            None => {
                self.stats.unasked += u64::from(is_answer);
                let create = matches!(say, Say::ForUs);
                if create {
                    self.beliefs.insert(ip, Belief { mac: Some(mac), used: now, ..Belief::default() });
                }
                create
            }
            Some(belief) => {
                let news = belief.mac != Some(mac);
                let replies = matches!(say, Say::Reply | Say::Confirm) && !belief.asks.is_empty();
                let used = belief.used;
                if belief.mac.is_some() && news && matches!(say, Say::Confirm) && ip.is_ipv6() {
                    if belief.confirmed.take().is_some() {
                        (belief.asks, belief.missed) = (Vec::new(), false);
                    }
                    false
                } else {
                    if replies {
                        *belief = Belief { mac: Some(mac), confirmed: Some(now), used, ..Belief::default() };
                    } else if news {
                        *belief = Belief { mac: Some(mac), used, ..Belief::default() };
                    }
                    news
                }
            }
        };
        self.stats.learned += u64::from(learned);
        learned
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn neighbours_are_believed_as_in_the_model(operations in vec(operation(), 1..60)) {
        let mut neighbors = neighbors();
        let mut model = Model::default();
        let mut now = 7;
        for operation in operations {
            match operation {
                Operation::Wait(by) => now += by,
                Operation::Resolve(i) => {
                    let resolution = neighbors.resolve(address(i), now);
                    let expected = match model.resolve(address(i), now) {
                        (Some(mac), ..) => Resolution::Known(mac),
                        (None, State::Failed, _) => Resolution::Failed,
                        (None, _, asks) => {
                            let Resolution::Unresolved { ask } = &resolution else { panic!("{resolution:?}") };
                            let target = ask.as_deref().map(asked);
                            prop_assert_eq!(target, asks.then_some((address(i), true)));
                            resolution.clone()
                        }
                    };
                    prop_assert_eq!(resolution, expected);
                }
                Operation::Hear(i, m, say) => {
                    let heard = neighbors.receive(&say.frame(i, mac(m)), now);
                    let learned = model.hear(i, mac(m), say, now);
                    prop_assert_eq!(heard.learned, learned.then_some(address(i)), "{:?}", say);
                    prop_assert_eq!(heard.reply.is_some(), matches!(say, Say::ForUs));
                    prop_assert_eq!(heard.ours, matches!(say, Say::ForUs | Say::Reply | Say::Confirm));
                }
                Operation::Sweep => {
                    let mut swept = neighbors.sweep(now);
                    let mut asks: Vec<_> = swept.asks.iter().map(|frame| asked(frame)).collect();
                    asks.sort();
                    swept.failed.sort();
                    prop_assert_eq!((asks, swept.failed), model.sweep(now));
                }
            }
            prop_assert_eq!(neighbors.stats(), model.stats);
            let mut entries: Vec<_> = neighbors.entries().map(|e| (e.ip, e.mac, e.state)).collect();
            entries.sort();
            let beliefs = model.beliefs.iter().map(|(ip, b)| (*ip, b.mac, b.state()));
            prop_assert_eq!(entries, beliefs.collect::<Vec<_>>());
        }
    }

    /// Frames cut anywhere, or with any bytes changed, neither panic nor, if cut, do anything.
    #[test]
    fn hostile_frames_do_no_harm(
        i in 0..4_u8,
        say in prop::sample::select(&[Say::ForUs, Say::Announce, Say::Reply, Say::Confirm][..]),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let frame = say.frame(i, mac(0));
        let mut neighbors = neighbors();
        let need = if address(i).is_ipv4() { 42 } else { 86 };
        for len in 0..need {
            prop_assert_eq!(neighbors.receive(&frame[..len], 0), Heard::default(), "{}", len);
        }
        prop_assert_eq!(neighbors.stats(), NeighborsStats::default());
        prop_assert_eq!(neighbors.entries().count(), 0);
        let mut mutated = frame;
        for (at, value) in edits {
            let at = at.index(mutated.len());
            mutated[at] = value;
        }
        neighbors.receive(&mutated, 0);
        prop_assert!(neighbors.entries().count() <= 1);
    }
}

#[test]
fn requests_for_own_addresses_are_answered() {
    let mut neighbors = neighbors();
    let heard = neighbors.receive(&arp_request((mac(1), v4(9)), v4(1), MacAddr::BROADCAST), 0);
    assert_eq!(heard.reply, Some(arp_reply((OWN, v4(1)), (mac(1), v4(9)))));
    let heard = neighbors.receive(&solicitation((mac(1), v6(9)), v6(1), None), 0);
    assert_eq!(heard.reply, Some(advertisement((OWN, v6(1)), (mac(1), v6(9)))));
    // From another network, and from one that has no address yet: answered, not remembered.
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let heard = neighbors.receive(&arp_request((mac(2), far), v4(1), MacAddr::BROADCAST), 0);
    assert_eq!((heard.reply.is_some(), heard.learned), (true, None));
    let probe = arp_request((mac(2), Ipv4Addr::UNSPECIFIED), v4(1), MacAddr::BROADCAST);
    let heard = neighbors.receive(&probe, 0);
    assert_eq!((heard.reply.is_some(), heard.learned), (true, None));
    let stats = NeighborsStats { answered: 4, learned: 2, ..NeighborsStats::default() };
    assert_eq!(neighbors.stats(), stats);
    assert_eq!(neighbors.resolve(v4(9).into(), 0), Resolution::Known(mac(1)));
    assert_eq!(neighbors.resolve(far.into(), 0), Resolution::Failed, "not a neighbour");
}

#[test]
fn who_claims_an_own_address_is_counted_and_not_believed() {
    let mut neighbors = neighbors();
    for frame in [
        arp_announcement((mac(1), v4(1))),
        arp_reply((mac(1), v4(1)), (mac(2), v4(9))),
        arp_request((mac(1), v4(1)), v4(9), MacAddr::BROADCAST),
        packet::neighbor::unsolicited_advertisement((mac(1), v6(1))),
        solicitation((mac(1), v6(1)), v6(9), None),
    ] {
        assert_eq!(neighbors.receive(&frame, 0), Heard { ours: true, ..Heard::default() });
    }
    // What the link brings back of ours is no claim.
    for frame in neighbors.announcements() {
        assert_eq!(neighbors.receive(&frame, 0), Heard::default());
    }
    assert_eq!(neighbors.stats(), NeighborsStats { duplicates: 5, ..NeighborsStats::default() });
    assert_eq!(neighbors.resolve(v4(1).into(), 0), Resolution::Failed);
}

#[test]
fn a_full_table_keeps_what_is_in_use() {
    let mut neighbors = Neighbors::new(&NeighborsConfig { capacity: 20, ..config() }).unwrap();
    for i in 0..10 {
        let heard = neighbors.receive(&arp_request((mac(i), v4(100 + i)), v4(1), MacAddr::BROADCAST), 0);
        assert_eq!(heard.learned, Some(v4(100 + i).into()));
    }
    let late = 100 * SECOND_NS;
    for i in 0..8 {
        assert_eq!(neighbors.resolve(v4(100 + i).into(), late), Resolution::Known(mac(i)));
    }
    let version = neighbors.version();
    // A scan of addresses that nobody has.
    for i in 0..1000_u16 {
        let ip = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, i);
        assert!(matches!(neighbors.resolve(ip.into(), late), Resolution::Unresolved { .. }), "{i}");
        assert!(neighbors.entries().count() <= 20);
    }
    for i in 0..8 {
        assert_eq!(neighbors.resolve(v4(100 + i).into(), late), Resolution::Known(mac(i)));
    }
    let stats = neighbors.stats();
    assert_eq!((stats.evicted, stats.full), (990, 0));
    assert_eq!(stats.asked, u64::from(ASKS_PER_SECOND));
    assert_eq!(stats.asks_deferred, 1000 - u64::from(ASKS_PER_SECOND));
    assert_eq!(neighbors.version(), version, "whoever is known is missed more than whoever is asked for");

    let busy = NeighborsConfig { capacity: 2, ..config() };
    let mut neighbors = Neighbors::new(&busy).unwrap();
    for i in 0..2 {
        neighbors.receive(&arp_request((mac(i), v4(100 + i)), v4(1), MacAddr::BROADCAST), 0);
    }
    assert_eq!(neighbors.resolve(v4(50).into(), 0), Resolution::Failed);
    assert_eq!((neighbors.stats().full, neighbors.version()), (1, 0));
    assert!(matches!(neighbors.resolve(v4(50).into(), late), Resolution::Unresolved { .. }));
    assert_eq!((neighbors.stats().evicted, neighbors.version()), (1, 1));
}

#[test]
fn asks_put_off_are_made_up_for() {
    let mut neighbors = neighbors();
    let ip = |i: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, i));
    let mut unasked: Vec<_> = (0..300).map(ip).collect();
    unasked.retain(|ip| neighbors.resolve(*ip, 0) == Resolution::Unresolved { ask: None });
    assert_eq!(unasked.len(), 300 - 256);
    assert_eq!(neighbors.sweep(999 * MS).asks.len(), 0);
    let mut failed = 0;
    for second in 1..8 {
        let swept = neighbors.sweep(second * SECOND_NS);
        assert!(swept.asks.len() <= 256);
        failed += swept.failed.len();
        let asked: Vec<_> = swept.asks.iter().map(|frame| asked(frame).0).collect();
        unasked.retain(|ip| !asked.contains(ip));
    }
    assert_eq!((unasked, failed), (vec![], 300));
}
