// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an agreement begins and ends: a reset, a disconnect or BYE ends it at once and loses nothing; who is silent for three keepalives
//! gets plain packets from then on; and a guest that begins anew is new (decision 28).

use std::collections::BTreeMap;

use aggregation::negotiation::{Message, Reason};
use backend::config::{Aggregation, PollMode, PortConfig};
use backend::stats::PortState;

use crate::stage::{Kind, MACS, Spec};
use crate::support::{BROADCAST, Cnf, Guest, NodeSpec, OFFER, Speaker, TestNode, control, frame, until, wrap};

fn packets(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| Spec { kind: Kind::Udp, to: 1, flow: 1, len: 60 }.packet(number)).collect()
}

fn peers(node: &TestNode, port: &str) -> BTreeMap<String, u64> {
    node.status(port).aggregation.peers
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(label, n)| ((*label).to_owned(), *n)).collect()
}

/// Waits until "b" has come up so often.
#[track_caller]
fn up(node: &TestNode, poll: &mut dyn FnMut() -> Vec<Vec<u8>>, times: u64) {
    until("the node may send", || {
        assert_eq!(poll(), Vec::<Vec<u8>>::new());
        (peers(node, "b").get("up") == Some(&times)).then_some(())
    });
}

/// A plain guest at "a"; "b" holds packets for as long as can be said.
fn node() -> (TestNode, Guest) {
    let holds = |port: &mut PortConfig| port.aggregation.time_usecs = Aggregation::MAX_TIME_USECS;
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port_with("b", holds).start();
    let a = Guest::attach(node.socket("a"));
    (node, a)
}

/// Makes "b" known to the bridge.
fn announce(b: &mut Guest, a: &mut Guest) {
    b.send(&[frame(BROADCAST, MACS[1], 60, 1)]);
    assert_eq!(a.receive(1).len(), 1);
}

/// Sends packets one by one until some are held for "b", and returns how many were sent. None has been lost then.
fn until_held(node: &TestNode, a: &mut Guest) -> u64 {
    let before = node.status("b").aggregation.packets_per_frame.sum;
    let mut sent = 0;
    until("a packet is held", || {
        let received = node.status("a").rx_packets;
        a.send(&packets(1));
        until("the node has it", || (node.status("a").rx_packets > received).then_some(()));
        sent += 1;
        let flushed = node.status("b").aggregation.packets_per_frame.sum - before;
        (flushed < sent).then_some(())
    });
    sent
}

/// What was on its way when the guest says BYE comes before plain packets do.
#[test]
fn bye_loses_nothing() {
    let (node, mut a) = node();
    let mut b = Speaker::attach(node.socket("b"), 7, 77);
    b.agree();
    up(&node, &mut || b.poll(), 1);
    announce(&mut b.guest, &mut a);
    let sent = until_held(&node, &mut a);
    b.say(Message::Bye, |control| control.reason = Some(Reason::Closing));
    until("it is heard", || (peers(&node, "b") == counts(&[("up", 1), ("bye", 1)])).then_some(()));
    let mut got = Vec::new();
    until("all have come", || {
        got.extend(b.poll());
        (got.len() as u64 == sent).then_some(())
    });
    // Plain from now on, until the guest greets anew, which the speaker does not.
    let before = node.status("b").aggregation;
    let frames = packets(50);
    a.send(&frames);
    assert_eq!(b.guest.receive(50), frames);
    let after = node.status("b");
    assert_eq!((&after.aggregation.flushes, after.aggregation.tx_packets), (&before.flushes, before.tx_packets));
    assert_eq!(after.drops, BTreeMap::new());
    assert_eq!(after.tx_packets, sent + 50);
}

/// What is held when the guest goes is delivered before its ring is handed back, or counted; nothing is simply gone.
#[test]
fn disconnect_and_stop_deliver_or_count_what_is_held() {
    let (node, mut a) = node();
    for round in 1..=5 {
        let mut b = Speaker::attach(node.socket("b"), 7, 77);
        b.agree();
        up(&node, &mut || b.poll(), round);
        announce(&mut b.guest, &mut a);
        until_held(&node, &mut a);
        let before = node.status("a").rx_packets;
        drop(b);
        node.wait_for("b", PortState::Listening);
        assert_eq!(peers(&node, "b"), counts(&[("up", round), ("closed", round)]));
        // All that came from "a" for "b" was delivered or dropped with a cause.
        let status = node.status("b");
        let dropped: u64 = status.drops.values().sum();
        assert_eq!(before, status.tx_packets + dropped, "{status:?}");
    }
}

/// Three keepalives of silence, and all is plain and arrives; the loss of its aggregates is the guest's own.
#[test]
fn a_silent_guest_gets_plain_packets() {
    let (node, mut a) = node();
    let mut b = Speaker::attach(node.socket("b"), 7, 77);
    // A quick one, so that nobody waits for long.
    let quick = aggregation::Offer { keepalive_ms: 10, ..OFFER };
    b.say(Message::Hello, |control| control.offer = Some(quick));
    until("the node accepts, and then gives up", || (peers(&node, "b").get("silent") == Some(&1)).then_some(()));
    announce(&mut b.guest, &mut a);
    let frames = packets(50);
    a.send(&frames);
    let mut got = Vec::new();
    until("all have come", || {
        got.extend(b.guest.poll().into_iter().filter(|frame| frame[12..14] != [0x88, 0xb5]));
        (got.len() == 50).then_some(())
    });
    assert_eq!(got, frames);
    let status = node.status("b");
    assert_eq!((status.aggregation.tx_aggregates, status.drops), (0, BTreeMap::new()));
    // An aggregate of its own is not taken any more.
    b.guest.send(&crate::support::aggregates(&packets(3), 1500, false));
    node.wait_for_drops("b", "aggregate", 1);
}

/// A session that nobody announced the end of: the guest began anew, and so does all that was agreed.
#[test]
fn a_guest_that_begins_anew_is_new() {
    let (node, mut a) = node();
    let mut b = Cnf::attach(node.socket("b"));
    b.agree();
    up(&node, &mut || b.poll(), 1);
    assert_eq!(peers(&node, "b"), counts(&[("up", 1)]));
    // The same station under another session.
    drop(b);
    node.wait_for("b", PortState::Listening);
    let mut b = Cnf::attach(node.socket("b"));
    b.agree();
    up(&node, &mut || b.poll(), 2);
    assert_eq!(peers(&node, "b"), counts(&[("up", 2), ("closed", 1)]));
    drop(b);
    node.wait_for("b", PortState::Listening);
    // Without a disconnect: another HELLO.
    let mut b = Speaker::attach(node.socket("b"), 7, 77);
    b.agree();
    up(&node, &mut || b.poll(), 3);
    announce(&mut b.guest, &mut a);
    b.say(Message::Hello, |control| control.session = 78);
    until("the node begins anew", || (peers(&node, "b").get("restarted") == Some(&1)).then_some(()));
    let frames = packets(5);
    a.send(&frames);
    // Nothing is put together for a session that has not answered.
    let mut got = Vec::new();
    until("all have come", || {
        got.extend(b.guest.poll().into_iter().filter(|frame| frame[12..14] != [0x88, 0xb5]));
        (got.len() == 5).then_some(())
    });
    assert_eq!(got, frames);
}

/// A guest whose receive ring is disabled for a while keeps its agreement; an aggregate of a station that the node does not know any more
/// is dropped, and whoever sends KEEPALIVE is told.
#[test]
fn who_is_not_known_is_told() {
    let (node, _a) = node();
    let mut b = Speaker::attach(node.socket("b"), 7, 77);
    b.say(Message::Keepalive, |_| {});
    let [answer] = b.guest.receive(1).try_into().expect("one answer");
    let bye = aggregation::negotiation::Control::parse(&answer[14..]).expect("a control frame");
    assert_eq!((bye.message, bye.node, bye.peer_session), (Message::Bye, 1, 77));
    assert_eq!(bye.reason, Some(Reason::NoSession));
    let status = node.status("b").aggregation;
    assert_eq!((status.rx_control, status.tx_control, status.peers), (1, 1, BTreeMap::new()));
    // An id that is the node's own is refused (decision 25).
    b.guest.send(&[control(Message::Hello, |control| control.node = 1)]);
    let [answer] = b.guest.receive(1).try_into().expect("one answer");
    let bye = aggregation::negotiation::Control::parse(&answer[14..]).expect("a control frame");
    assert_eq!((bye.message, bye.reason), (Message::Bye, Some(Reason::Duplicate)));
    assert_eq!(peers(&node, "b"), counts(&[("refused", 1)]));
    // A frame that says nothing.
    b.guest.send(&[wrap(&[1, 3, 0xa0, 0])]);
    node.wait_for_drops("b", "aggregate", 1);
    assert_eq!(node.status("b").aggregation.damages, counts(&[("frame_length", 1)]));
}
