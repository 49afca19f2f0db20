// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process without descriptors: the node waits for better times and does not spin. Alone in its binary, because the
//! limit is the process's.

mod support;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use backend::config::PollMode;
use rustix::process::{Resource, getrlimit, setrlimit};
use support::{Guest, NodeSpec, Numbered, Raw, cpu_of, exchange, until};
use vhost_user::Request;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

#[test]
fn a_node_without_descriptors_waits() {
    let spec = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").port("b").port("c").wired("a", "b");
    let node = spec.start();
    let (mut a, mut b) = (Guest::attach(node.socket("a")), Guest::attach(node.socket("b")));
    let mut numbers = Numbered::new(B, A);
    exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(50, 60), 50);

    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(256), ..before }).expect("setrlimit");
    let mut hoard: Vec<OwnedFd> =
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok().map(Into::into)).collect();
    // One for this end of the connection, none for the node's.
    hoard.pop();
    let raw = Raw::connect(&node.socket("c"));
    until("a failed accept", || (node.errors("c", "accept") > 0).then_some(()));
    // One descriptor is needed to look at /proc.
    drop(raw);
    let raw = {
        hoard.pop();
        let raw = Raw::connect(&node.socket("c"));
        let spare = std::fs::File::open("/dev/null");
        assert!(spare.is_err() || node.errors("c", "accept") > 0);
        raw
    };
    let failed = node.errors("c", "accept");
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    let attempts = node.errors("c", "accept") - failed;
    assert!(attempts <= 14 + start.elapsed().as_secs() * 10, "{attempts} attempts");
    // Others are served meanwhile, and this one as soon as it can be.
    exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(50, 60), 50);
    drop(hoard);
    assert_ne!(raw.value(Request::GetFeatures), 0);
    let (start, used) = (Instant::now(), cpu_of("ports"));
    std::thread::sleep(Duration::from_millis(100));
    assert!(cpu_of("ports") - used < start.elapsed() / 10, "the ports thread spins");
    setrlimit(Resource::Nofile, before).expect("setrlimit");
}
