// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node is killed in the middle of traffic, as often as it takes, and its guests' drivers do not notice: nothing is
//! lost, and at most one burst is repeated (ADR 0004: the destination is published first).
//!
//! The node is this test binary, run again with a directory to work in.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backend::Node;
use backend::config::{Config, ControlConfig, CrossConnect, Name, PollMode, SocketPath, WorkerConfig};
use support::{Guest, Numbered, PATIENCE, Random, Shape, guest_config, number_of, port};
use vhost_user::Order;
use virtqueue::RingKind;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
/// Where the node works; set in its process only.
const DIRECTORY: &str = "SHUNT_TEST_NODE_DIRECTORY";
/// Frames of one burst.
const BURST: u64 = 64;
/// Frames on their way at most: with a burst that arrives twice they fit the 256 buffers of the receiver, who takes none
/// while the node is down.
const ON_THEIR_WAY: usize = 256 - 64 - 16;

/// Not a test of its own: the process that is killed.
#[test]
fn node_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let _node = Node::start(&config(Path::new(&directory))).expect("node");
    loop {
        std::thread::park();
    }
}

fn config(directory: &Path) -> Config {
    let name = |name: &str| Name::new(name).expect("name");
    Config {
        control: ControlConfig {
            socket: SocketPath::new(directory.join("control.sock")).expect("path"),
            state_dir: directory.join("state"),
            http: None,
            http_allow_remote: false,
        },
        workers: vec![WorkerConfig { name: name("w0"), cpu: None, poll: PollMode::Adaptive }],
        ports: ["a", "b"].map(|name| port(name, directory.join(format!("{name}.sock")))).into(),
        crossconnects: vec![CrossConnect { ports: [name("a"), name("b")] }],
        ..Config::default()
    }
}

/// Kills its process when it goes.
struct NodeProcess(Child);

impl NodeProcess {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "node_process"]).env(DIRECTORY, directory);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// KA-1: kill -9 at any moment, packed and split.
#[test]
fn a_killed_node_loses_nothing() {
    for (seed, kind) in (1..).zip([RingKind::Packed, RingKind::Split]) {
        for in_order in [true, false] {
            let directory = tempfile::tempdir().expect("tempdir");
            let mut node = NodeProcess::start(directory.path());
            let attach = |name: &str| {
                let mut config = guest_config(directory.path().join(format!("{name}.sock")));
                (config.rings, config.in_order, config.order) = (kind, in_order, Order::Qemu);
                Guest::attach_with(config)
            };
            let (mut b, mut a) = (attach("b"), attach("a"));
            let mut numbers = Numbered::new(B, A);
            let mut random = Random::new(seed);
            let mut next = 0;
            for _ in 0..8 {
                let frames = numbers.burst(600, 60 + random.below(1400));
                let (first, mut sent, mut repeated) = (next, 0, 0);
                let mut kill_at = 100 + random.below(400);
                let deadline = Instant::now() + PATIENCE;
                while next < numbers.next {
                    assert!(Instant::now() < deadline, "{kind:?}: {next} of {} frames arrived", numbers.next);
                    let received = usize::try_from(next - first).expect("few");
                    let end = frames.len().min(received + ON_THEIR_WAY);
                    if sent < end {
                        sent += a.pairs[0].offer(&frames[sent..end], Shape::One);
                    }
                    if sent > kill_at {
                        kill_at = usize::MAX;
                        std::thread::sleep(Duration::from_micros(random.next() % 300));
                        node.restart(directory.path());
                        b = b.reattach();
                        a = a.reattach();
                    }
                    for frame in b.poll() {
                        let number = number_of(&frame);
                        assert!(number <= next, "{kind:?}: lost {next}..{number}");
                        if number < next {
                            repeated += 1;
                            continue;
                        }
                        let due = usize::try_from(number - first).expect("few");
                        assert!(frame == frames[due], "{kind:?}: frame {number} is not what was sent");
                        next += 1;
                    }
                }
                assert!(repeated <= BURST, "{kind:?}: {repeated} frames arrived twice");
            }
        }
    }
}

impl NodeProcess {
    /// Kills it and starts the next.
    fn restart(&mut self, directory: &Path) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
        *self = Self::start(directory);
    }
}
