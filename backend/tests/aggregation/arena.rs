// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where hostile guests are let loose, and what must not have changed when they are done.

use std::collections::BTreeMap;

use backend::config::{PollMode, PortConfig};

use crate::stage::{Kind, MACS, Spec};
use crate::support::{
    BROADCAST, Cnf, Guest, NodeSpec, Numbered, Speaker, TestNode, aggregates, exchange, frame, until,
};

pub(crate) const U: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const V: [u8; 6] = [2, 0, 0, 0, 0, 0x12];

/// Where in a frame of [`good`] things are: behind the Ethernet header, behind the common header, behind the group's.
pub(crate) const HEADER: usize = 14;
pub(crate) const GROUP: usize = HEADER + 8;
pub(crate) const FIRST: usize = GROUP + 12;

/// A node on one worker: port "a" is for the hostile, "b" has a CNF that aggregates, "u" and "v" are two others.
pub(crate) struct Arena {
    pub(crate) node: TestNode,
    pub(crate) b: Cnf,
    pub(crate) u: Guest,
    v: Guest,
    numbers: Numbered,
}

impl Arena {
    pub(crate) fn start(change: impl FnOnce(&mut PortConfig)) -> Self {
        let spec = NodeSpec::new().workers(1, PollMode::Adaptive).port_with("a", change);
        let node = spec.port("b").port("u").port("v").start();
        let mut b = Cnf::attach(node.socket("b"));
        b.agree();
        let [mut u, mut v] = ["u", "v"].map(|name| Guest::attach(node.socket(name)));
        // Everybody hears of everybody.
        u.send(&[frame(BROADCAST, U, 60, 1)]);
        v.receive(1);
        v.send(&[frame(BROADCAST, V, 60, 1)]);
        u.receive(1);
        until("b hears both", || (b.poll().len() == 2).then_some(()));
        assert_eq!(b.offer(&[frame(BROADCAST, MACS[1], 60, 2)]), 1);
        u.receive(1);
        v.receive(1);
        Self { node, b, u, v, numbers: Numbered::new(V, U) }
    }

    pub(crate) fn speaker(&self) -> Speaker {
        let mut speaker = Speaker::attach(self.node.socket("a"), 7, 77);
        speaker.agree();
        speaker
    }

    #[track_caller]
    pub(crate) fn others_forward(&mut self) {
        exchange(&mut self.u.pairs[0], &mut self.v.pairs[0], &self.numbers.burst(64, 300), 64);
    }

    /// What arrives at "b" up to a packet that is sent behind everything else.
    #[track_caller]
    pub(crate) fn at_b(&mut self, from: &mut Speaker) -> Vec<Vec<u8>> {
        let fence = frame(MACS[1], MACS[0], 60, u64::MAX);
        from.guest.send(std::slice::from_ref(&fence));
        let mut got = Vec::new();
        until("the last packet arrives", || {
            got.extend(self.b.poll());
            from.poll();
            (got.last() == Some(&fence)).then_some(())
        });
        got.pop();
        got
    }

    /// What "a" dropped, and what was damaged there, in that order.
    pub(crate) fn costs(&self) -> [BTreeMap<String, u64>; 2] {
        let status = self.node.status("a");
        assert_eq!(status.errors, BTreeMap::new());
        [status.drops, status.aggregation.damages]
    }

    /// Nobody else noticed anything, and a decent frame is dealt with as ever.
    #[track_caller]
    pub(crate) fn assert_unharmed(mut self, mut from: Speaker) {
        self.others_forward();
        let sent = packets(5);
        from.guest.send(&aggregates(&sent, 1500, false));
        assert_eq!(self.at_b(&mut from), sent);
        for port in ["b", "u", "v"] {
            let status = self.node.status(port);
            assert_eq!((status.drops, status.errors), (BTreeMap::new(), BTreeMap::new()), "{port}");
            assert_eq!(status.aggregation.damages, BTreeMap::new(), "{port}");
        }
        let b = self.b.queues[0].counters();
        assert_eq!((b.unexpected, b.aggregates_lost, b.damaged().count(), b.control_dropped), (0, 0, 0, 0), "{b:?}");
        assert!(self.b.is_aggregating(), "the agreement of others ended: {:?}", self.b.told);
    }
}

pub(crate) fn packets(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| Spec { kind: Kind::Udp, to: 1, flow: 1, len: 60 }.packet(number)).collect()
}

/// A frame of five packets.
pub(crate) fn good() -> Vec<u8> {
    aggregates(&packets(5), 1500, false).remove(0)
}

pub(crate) fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(label, n)| ((*label).to_owned(), *n)).collect()
}
