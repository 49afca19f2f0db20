// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node goes and comes back under guests that stay: in the manner of QEMU, whose guest notices nothing, and of DPDK's
//! virtio-user, which resets its rings.

mod support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use backend::config::PollMode;
use backend::stats::PortState;
use backend::{Node, NodeError};
use cnf::Role;
use support::{
    BROADCAST, Guest, Layout, NodeSpec, Numbered, Raw, RawDevice, SIZE, Shape, TestNode, exchange, frame, guest_config,
    number_of, until,
};
use vhost_user::{Order, Request, features};
use virtqueue::RingKind;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// Initial bases of a packed ring, as two front ends send them.
const QEMU: u32 = 0x8000_8000;
const VIRTIO_USER: u32 = 0x0000_8000;

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}

/// Guests of the SDK on a pair of wired ports; in server role the node connects to them.
fn guests(node: &TestNode, role: Role, change: impl Fn(&mut cnf::DeviceConfig)) -> (Guest, Guest) {
    let open = |name| {
        let mut config = guest_config(node.socket(name));
        config.role = role;
        config.queue_size = 32;
        change(&mut config);
        config
    };
    (Guest::attach_with(open("a")), Guest::attach_with(open("b")))
}

fn node(role: Role, workers: usize) -> TestNode {
    let spec = NodeSpec::new().workers(workers, PollMode::Adaptive);
    let spec = match role {
        Role::Client => spec.port("a").port("b"),
        Role::Server => spec.client("a").client("b"),
    };
    spec.wired("a", "b").start()
}

/// KA-1: restarts under QEMU-like guests. Traffic goes on where it was: every frame arrives once, in order, because the
/// node stops in order; frames that wait in a ring while there is no node are sent by the next one.
#[test]
fn rings_go_on_after_a_restart() {
    for kind in [RingKind::Packed, RingKind::Split] {
        for in_order in [true, false] {
            for role in [Role::Client, Role::Server] {
                let mut node = node(role, 1);
                let (mut a, mut b) = guests(&node, role, |config| {
                    (config.rings, config.in_order, config.order) = (kind, in_order, Order::Qemu);
                    config.mrg_rxbuf = true;
                });
                let mut numbers = Numbered::new(B, A);
                for round in 0..12 {
                    // Uneven, so that the positions wander through the ring.
                    exchange(&mut a.pairs[0], &mut b.pairs[0], &numbers.burst(37 + round, 60), 20);
                    let features = a.device().features();
                    node.stop();
                    // The driver does not know that nobody is there.
                    let waiting = numbers.burst(11, 1800);
                    let waiting: Vec<_> = waiting.into_iter().map(|frame| frame[..1400].to_vec()).collect();
                    assert_eq!(a.pairs[0].offer(&waiting, Shape::One), waiting.len());
                    node.start_again();
                    (a, b) = both_reattach(a, b);
                    assert_eq!(a.device().features(), features, "{kind:?}: features after a restart");
                    let arrived = b.receive(waiting.len());
                    assert!(arrived == waiting, "{kind:?} in_order={in_order} {role:?}: what had waited arrives");
                    assert!(node.status("b").drops.is_empty() && node.status("a").errors.is_empty());
                }
            }
        }
    }
}

/// The receiver first: else its peer's frames have nowhere to go.
fn both_reattach(a: Guest, b: Guest) -> (Guest, Guest) {
    let b = b.reattach();
    (a.reattach(), b)
}

/// KA-8: virtio-user resets its rings when its backend comes back; the record must not get in the way.
#[test]
fn a_driver_that_resets_its_rings_starts_anew() {
    for kind in [RingKind::Packed, RingKind::Split] {
        for role in [Role::Client, Role::Server] {
            let mut node = node(role, 2);
            let (mut a, mut b) = guests(&node, role, |config| config.rings = kind);
            for round in 0..10 {
                exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(37 + round, 60), 20);
                exchange(&mut b.pairs[0], &mut a.pairs[0], &Numbered::new(A, B).burst(20, 60), 20);
                node.stop();
                node.start_again();
                (a, b) = both_reattach(a, b);
            }
            exchange(&mut a.pairs[0], &mut b.pairs[0], &Numbered::new(B, A).burst(100, 60), 20);
        }
    }
}

/// A raw device of which the connection ends and that comes back with its memory as it is.
struct Stayer {
    device: RawDevice,
    sent: u64,
}

impl Stayer {
    fn attach(socket: &Path, layout: Layout) -> Self {
        Self { device: RawDevice::attach(socket, layout), sent: 0 }
    }

    /// Posts `count` frames to be sent.
    fn post(&mut self, count: u64) {
        for _ in 0..count {
            let buffer = RawDevice::buffer(4 + self.sent % u64::from(SIZE));
            let bytes = frame(BROADCAST, A, 60, self.sent);
            self.device.memory.write(buffer, &[[0; 12].as_slice(), &bytes].concat()).expect("memory");
            self.device.post(1, buffer, 72);
            self.sent += 1;
        }
    }

    /// Connects again and describes its rings with this base.
    fn come_back(&mut self, socket: &Path, base: u32) {
        let raw = until("the node listens", || std::os::unix::net::UnixStream::connect(socket).ok());
        self.device.raw = Raw::from(raw);
        let raw = &self.device.raw;
        raw.tell(Request::SetOwner);
        let bits = RawDevice::features(self.device.layout) | features::VHOST_USER_F_PROTOCOL_FEATURES;
        assert_eq!(raw.value(Request::SetFeatures(bits)), 0);
        let memory = vec![(RawDevice::region(), copy(&self.device.file))];
        assert_eq!(raw.value(Request::SetMemTable(memory)), 0);
        // Enabled before they start, as QEMU does it: what waits in a ring that is started and disabled is lost by rule.
        for vring in [0, 1] {
            assert_eq!(raw.value(Request::SetVringEnable { vring, enable: 1 }), 0);
        }
        for ring in [0, 1] {
            self.device.describe(ring, base);
        }
    }
}

#[track_caller]
fn assert_numbers(frames: &[Vec<u8>], from: u64) {
    let numbers: Vec<u64> = frames.iter().map(|frame| number_of(frame)).collect();
    let due: Vec<u64> = (from..).take(frames.len()).collect();
    assert_eq!(numbers, due);
}

/// ADR 0004, through the node: each of the bases that front ends send after the node was gone, at every position of the
/// ring.
#[test]
fn packed_rings_resume_from_the_record() {
    let mut node = TestNode::pair();
    let mut stayer = Stayer::attach(&node.socket("a"), Layout::Packed);
    for round in 0..40_u64 {
        let mut peer = Guest::attach(node.socket("b"));
        let (first, count) = (stayer.sent, 1 + round % 5);
        stayer.post(count);
        assert_numbers(&peer.receive(usize::try_from(count).expect("few")), first);
        drop(peer);
        node.stop();
        node.start_again();
        let mut peer = Guest::attach(node.socket("b"));
        // QEMU sends the initial base although its driver stands elsewhere.
        stayer.come_back(&node.socket("a"), QEMU);
        let first = stayer.sent;
        stayer.post(2);
        assert_numbers(&peer.receive(2), first);
        assert!(peer.poll().is_empty(), "a frame was sent twice");
        drop(peer);
        node.wait_for("b", PortState::Listening);
    }
}

/// A driver that has reset its ring says so by its base; also when its ring then looks as if it had not.
#[test]
fn a_reset_ring_does_not_resume() {
    for base in [VIRTIO_USER, QEMU] {
        let mut node = TestNode::pair();
        let mut stayer = Stayer::attach(&node.socket("a"), Layout::Packed);
        for round in 0..SIZE * 2 {
            let mut peer = Guest::attach(node.socket("b"));
            let first = stayer.sent;
            stayer.post(u64::from(round % 7) + 1);
            assert_numbers(&peer.receive(usize::from(round % 7) + 1), first);
            drop(peer);
            node.stop();
            node.start_again();
            let mut peer = Guest::attach(node.socket("b"));
            stayer.device.clear(0);
            stayer.device.clear(1);
            let first = stayer.sent;
            // Posted before the node looks, as a driver does that resets and goes on at once.
            if base == VIRTIO_USER {
                stayer.post(3);
            }
            stayer.come_back(&node.socket("a"), base);
            if base == QEMU {
                stayer.post(3);
            }
            assert_numbers(&peer.receive(3), first);
            drop(peer);
            node.wait_for("b", PortState::Listening);
        }
    }
}

/// Split rings are recovered from their own used index, whatever the base says (peers E8).
#[test]
fn split_rings_resume_from_their_used_index() {
    let mut node = TestNode::pair();
    let mut stayer = Stayer::attach(&node.socket("a"), Layout::Split);
    for round in 0..30_u64 {
        let mut peer = Guest::attach(node.socket("b"));
        let first = stayer.sent;
        stayer.post(1 + round % 5);
        assert_numbers(&peer.receive(usize::try_from(1 + round % 5).expect("few")), first);
        drop(peer);
        node.stop();
        node.start_again();
        let mut peer = Guest::attach(node.socket("b"));
        stayer.come_back(&node.socket("a"), 0);
        let first = stayer.sent;
        stayer.post(2);
        assert_numbers(&peer.receive(2), first);
        drop(peer);
        node.wait_for("b", PortState::Listening);
    }
}

/// Only the connection ends, the node stays; the guest comes back with its rings as they are.
#[test]
fn a_lost_connection_is_continued_by_the_next() {
    for layout in [Layout::Packed, Layout::Split] {
        let node = TestNode::pair();
        let mut peer = Guest::attach(node.socket("b"));
        let mut stayer = Stayer::attach(&node.socket("a"), layout);
        for round in 0..40_u64 {
            let first = stayer.sent;
            stayer.post(1 + round % 4);
            assert_numbers(&peer.receive(usize::try_from(1 + round % 4).expect("few")), first);
            stayer.come_back_after_hang_up(&node);
        }
    }
}

impl Stayer {
    fn come_back_after_hang_up(&mut self, node: &TestNode) {
        self.device.raw.0.shutdown(std::net::Shutdown::Both).expect("shutdown");
        let base = if self.device.layout == Layout::Packed { QEMU } else { 0 };
        self.come_back(&node.socket("a"), base);
    }
}

/// Client role: the node connects within 50 ms of the socket's appearance, first and again.
#[test]
fn a_client_port_connects_within_fifty_milliseconds() {
    let node = NodeSpec::new().workers(1, PollMode::Adaptive).client("c").start();
    assert_eq!(node.status("c").state, PortState::Connecting);
    let mut slow = 0;
    for _ in 0..20 {
        // Not in step with the node's timer.
        std::thread::sleep(Duration::from_millis(7));
        let listener = UnixListener::bind(node.socket("c")).expect("bind");
        let start = Instant::now();
        let (mut stream, _) = listener.accept().expect("accept");
        slow += usize::from(start.elapsed() > Duration::from_millis(50));
        stream.write_all(&Request::<OwnedFd>::GetFeatures.into_frame(false).bytes).expect("write");
        stream.read_exact(&mut [0; 20]).expect("features");
        drop((listener, stream));
        std::fs::remove_file(node.socket("c")).expect("remove");
        node.wait_for("c", PortState::Connecting);
    }
    // The machine may be busy with something else at a time, but not all the time.
    assert!(slow <= 3, "{slow} of 20 took longer than 50 ms");
}

/// Features that were offered once are offered always: front ends AND what they find with what they had.
#[test]
fn features_are_the_same_after_every_restart() {
    let mut node = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").start();
    let offered = |node: &TestNode| {
        let raw = Raw::connect(&node.socket("a"));
        let features = (raw.value(Request::GetFeatures), raw.value(Request::GetProtocolFeatures));
        drop(raw);
        node.wait_for("a", PortState::Listening);
        features
    };
    let first = offered(&node);
    let needed = features::VIRTIO_F_VERSION_1
        | features::VIRTIO_F_RING_PACKED
        | features::VIRTIO_F_IN_ORDER
        | features::VIRTIO_RING_F_INDIRECT_DESC
        | features::VIRTIO_RING_F_EVENT_IDX
        | features::VIRTIO_NET_F_MRG_RXBUF
        | features::VIRTIO_NET_F_MQ
        | features::VHOST_USER_F_PROTOCOL_FEATURES;
    assert_eq!(first.0 & needed, needed);
    // A guest that acknowledges little changes nothing for the next one.
    drop(RawDevice::attach(&node.socket("a"), Layout::Split));
    node.wait_for("a", PortState::Listening);
    assert_eq!(offered(&node), first);
    for _ in 0..3 {
        node.stop();
        node.start_again();
        assert_eq!(offered(&node), first);
    }
}

/// Two nodes: the second one does not take what the first one has, and says what is taken.
#[test]
fn what_is_in_use_is_not_stolen() {
    let mut first = NodeSpec::new().workers(1, PollMode::Adaptive).port("a").start();
    let error = Node::start(&first.config).expect_err("the socket is taken").to_string();
    assert!(error.contains("a.sock") && error.contains("another process"), "{error}");
    let mut guest = Guest::attach(first.socket("a"));
    guest.send(&[frame(BROADCAST, A, 60, 1)]);
    first.wait_for_drops("a", "no_destination", 1);
    // Another socket, the same record of rings.
    let mut config = first.config.clone();
    config.ports[0] = support::port("a", first.socket("other"));
    let error = Node::start(&config).expect_err("the record is taken");
    assert!(matches!(error, NodeError::Port(_)) && error.to_string().contains("in use"), "{error}");
    assert!(!first.socket("other").exists(), "nothing is left of a node that did not start");
    drop(guest);
    first.stop();
    assert!(!first.socket("a").exists(), "sockets go with their node");
    // A socket file that nobody answers on is replaced.
    drop(UnixListener::bind(first.socket("a")).expect("bind"));
    first.start_again();
    drop(Guest::attach(first.socket("a")));
    // What is no socket is left alone.
    first.stop();
    std::fs::write(first.socket("a"), "precious").expect("write");
    let error = Node::start(&first.config).expect_err("not a socket").to_string();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read(first.socket("a")).expect("read"), b"precious");
}
