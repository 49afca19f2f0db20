// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where hostile front ends are let loose, and what must be left when they are gone: nothing.

use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

use backend::config::PollMode;
use backend::stats::PortState;

use super::{
    Guest, NodeSpec, Numbered, PATIENCE, RAW_MEMORY, Raw, TestNode, alone, cpu_of, exchange, mappings_of, open_files,
};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A node with a port for the hostile, and a healthy pair beside it on the same worker. When it ends, everything must be
/// as it was before the hostile came.
pub(crate) struct Arena {
    pub(crate) node: TestNode,
    healthy: (Guest, Guest),
    numbers: Numbered,
    files: Vec<String>,
    mappings: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let alone = alone();
        let spec = NodeSpec::new().workers(1, PollMode::Adaptive).port("evil").port("peer").wired("evil", "peer");
        let node = spec.port("a").port("b").wired("a", "b").start();
        let healthy = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
        // The record of a ring is mapped at its first use, the answer to a first question opens what it needs.
        node.stats();
        let (files, mappings) = (open_files(), mappings_of(RAW_MEMORY));
        let mut arena = Self { node, healthy, numbers: Numbered::new(B, A), files, mappings, _alone: alone };
        arena.others_forward();
        arena
    }

    #[track_caller]
    pub(crate) fn others_forward(&mut self) {
        let (a, b) = &mut self.healthy;
        exchange(&mut a.pairs[0], &mut b.pairs[0], &self.numbers.burst(32, 300), 32);
    }

    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(&self.node.socket("evil"))
    }

    /// Checks that nothing is left of the hostile, and that its port serves a decent guest.
    #[track_caller]
    pub(crate) fn assert_unharmed(mut self) {
        self.node.wait_for("evil", PortState::Listening);
        self.others_forward();
        ports_thread_is_quiet();
        let deadline = Instant::now() + PATIENCE;
        while open_files() != self.files && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(open_files(), self.files, "descriptors stay");
        assert_eq!(mappings_of(RAW_MEMORY), self.mappings, "mappings stay");
        let mut good = Guest::attach(self.node.socket("evil"));
        let mut peer = Guest::attach(self.node.socket("peer"));
        exchange(&mut good.pairs[0], &mut peer.pairs[0], &Numbered::new(B, A).burst(100, 60), 50);
        assert!(self.node.status("a").errors.is_empty() && self.node.status("b").errors.is_empty());
        assert!(self.node.status("a").drops.is_empty() && self.node.status("b").drops.is_empty());
    }
}

/// The ports thread has nothing to do, and does nothing.
#[track_caller]
pub(crate) fn ports_thread_is_quiet() {
    let (start, before) = (Instant::now(), cpu_of("ports"));
    thread::sleep(Duration::from_millis(100));
    let (used, passed) = (cpu_of("ports") - before, start.elapsed());
    assert!(used < passed / 10, "the ports thread spins: {used:?} in {passed:?}");
}
