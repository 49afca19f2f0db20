// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Attaching to a backend over a real socket, and what goes wrong at it.

mod mirror;

use std::time::{Duration, Instant};

use cnf::{AttachError, DeviceConfig, Endpoint, Port, Role};
use mirror::{ALL, Fault, Mirror};
use tempfile::TempDir;
use vhost_user::features::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use vhost_user::{FrontendError, Offer, Order};
use virtqueue::RingKind;

/// Messages of a handshake with one pair, in virtio-user's order.
const HANDSHAKE: usize = 27;

fn config(dir: &TempDir) -> DeviceConfig {
    DeviceConfig { timeout: Duration::from_millis(300), ..DeviceConfig::new(dir.path().join("sock")) }
}

/// Sends frames and expects them back, in order; returns when all are there.
fn echo(port: &mut Port, count: u32, size: usize) {
    let (mut sent, mut received) = (0u32, 0u32);
    let mut buffer = vec![0; 1 << 16];
    let end = Instant::now() + Duration::from_secs(20);
    while received < count {
        assert!(Instant::now() < end, "{sent} sent, {received} received");
        let frames: Vec<Vec<u8>> = (sent..count.min(sent + 32)).map(|number| frame(number, size)).collect();
        let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        // Never more on their way than there are receive buffers.
        if sent - received < 32 {
            sent += u32::try_from(port.send_burst(&slices).unwrap()).unwrap();
        }
        let moved = port
            .receive_burst(cnf::MAX_BURST, |frame_received| {
                assert_eq!(frame_received.len(), size);
                assert_eq!(frame_received.read(&mut buffer), size);
                assert_eq!(buffer[..size], frame(received, size));
                received += 1;
            })
            .unwrap();
        if moved == 0 {
            port.wait(Duration::from_millis(1));
        }
    }
    assert_eq!(port.counters().received, port.counters().sent);
}

fn frame(number: u32, size: usize) -> Vec<u8> {
    (0..size).map(|at| number.wrapping_mul(31).wrapping_add(u32::try_from(at).unwrap()).to_le_bytes()[0]).collect()
}

#[test]
fn frames_come_back_over_every_kind_of_ring() {
    for kind in [RingKind::Packed, RingKind::Split] {
        for bits in 0..16u32 {
            let dir = tempfile::tempdir().unwrap();
            let mut config = config(&dir);
            config.rings = kind;
            config.in_order = bits & 1 != 0;
            config.mrg_rxbuf = bits & 2 != 0;
            config.event_idx = bits & 4 != 0;
            config.indirect = bits & 8 != 0;
            config.rx_buffer = if config.mrg_rxbuf { 256 } else { 1526 };
            config.queue_size = if kind == RingKind::Packed { 250 } else { 256 };
            let asked = config.wanted_features();
            let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), Fault::None);
            let mut device = Endpoint::open(config).unwrap().attach().unwrap();
            assert_eq!(device.features(), asked);
            let pair = device.take_pairs().pop().unwrap();
            assert_eq!(pair.tx_tables.is_some(), bits & 8 != 0);
            let mut port = Port::new(pair).unwrap();
            echo(&mut port, 1000, 60);
            echo(&mut port, 300, 1500);
            assert!(device.is_connected());
            drop(device);
            let seen = mirror.wait();
            assert!(seen.closed);
            assert_eq!((seen.features, seen.forwarded), (asked, 1300));
        }
    }
}

#[test]
fn several_pairs_each_have_their_own_rings() {
    let dir = tempfile::tempdir().unwrap();
    let config = DeviceConfig { queue_pairs: 4, ..config(&dir) };
    let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 4), Fault::None);
    let mut device = Endpoint::open(config).unwrap().attach().unwrap();
    let pairs = device.take_pairs();
    assert_eq!(pairs.iter().map(|pair| pair.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let mut ports: Vec<Port> = pairs.into_iter().map(|pair| Port::new(pair).unwrap()).collect();
    for port in &mut ports {
        echo(port, 200, 100);
    }
    assert_eq!(device.stop().unwrap().len(), 8);
    drop(device);
    assert_eq!(mirror.wait().forwarded, 800);
}

#[test]
fn what_is_not_offered_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let offer = Offer::new(VIRTIO_F_VERSION_1 | VIRTIO_F_IN_ORDER, 1);
    let mirror = Mirror::listen(&config.socket, offer.clone(), Fault::None);
    let error = Endpoint::open(config.clone()).unwrap().attach().unwrap_err();
    mirror.wait();
    let text = error.to_string();
    assert!(text.contains("sock") && text.contains("ring_packed") && !text.contains("in_order"), "{text}");
    assert!(matches!(
        error,
        AttachError::Protocol { source: FrontendError::FeaturesMissing { bits: VIRTIO_F_RING_PACKED }, .. }
    ));

    let mirror = Mirror::listen(&config.socket, offer, Fault::None);
    let mut device = Endpoint::open(DeviceConfig { fallback: true, ..config }).unwrap().attach().unwrap();
    assert_eq!(device.queue_features().kind, RingKind::Split);
    echo(&mut Port::new(device.take_pairs().pop().unwrap()).unwrap(), 500, 64);
    drop(device);
    mirror.wait();
}

#[test]
fn too_few_queues_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = DeviceConfig { queue_pairs: 3, ..config(&dir) };
    let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 2), Fault::None);
    let error = Endpoint::open(config).unwrap().attach().unwrap_err();
    assert!(matches!(
        error,
        AttachError::Protocol { source: FrontendError::TooFewPairs { offered: 2, wanted: 3 }, .. }
    ));
    mirror.wait();
}

#[test]
fn a_close_at_any_message_is_an_error_that_names_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let endpoint = Endpoint::open(config.clone()).unwrap();
    let mut steps = Vec::new();
    for count in 1..=HANDSHAKE {
        let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), Fault::CloseAfter(count));
        match endpoint.attach() {
            Err(AttachError::Closed { step, .. }) => {
                assert!(count < HANDSHAKE, "the handshake has become longer");
                steps.push(step);
            }
            Err(other) => panic!("after {count}: {other}"),
            // The last one is answered before the connection is closed.
            Ok(device) => {
                assert_eq!(count, HANDSHAKE, "the handshake has become shorter");
                let end = Instant::now() + Duration::from_secs(5);
                while device.is_connected() {
                    assert!(Instant::now() < end);
                }
            }
        }
        mirror.wait();
    }
    for step in ["SET_FEATURES", "SET_MEM_TABLE", "SET_VRING_KICK", "SET_VRING_ENABLE"] {
        assert!(steps.iter().any(|named| named == step), "{steps:?}");
    }
}

#[test]
fn silence_ends_in_a_time_out_that_names_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = DeviceConfig { timeout: Duration::from_millis(50), ..config(&dir) };
    let endpoint = Endpoint::open(config.clone()).unwrap();
    for (count, expected) in [(1, "GET_FEATURES"), (2, "GET_PROTOCOL_FEATURES")] {
        let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), Fault::SilentAfter(count));
        match endpoint.attach() {
            Err(AttachError::TimedOut { step, .. }) => assert_eq!(step, expected),
            other => panic!("after {count}: {other:?}"),
        }
        mirror.wait();
    }
}

#[test]
fn garbage_is_an_error_wherever_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let endpoint = Endpoint::open(config.clone()).unwrap();
    for count in 1..HANDSHAKE - 1 {
        let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), Fault::GarbageAfter(count));
        match endpoint.attach() {
            Err(AttachError::Protocol { source: FrontendError::Wire(_), .. }) => {}
            other => panic!("after {count}: {other:?}"),
        }
        mirror.wait();
    }
}

#[test]
fn refused_memory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), Fault::RefuseMemory);
    match Endpoint::open(config).unwrap().attach() {
        Err(AttachError::Refused { step, .. }) => assert_eq!(step, "SET_MEM_TABLE"),
        other => panic!("{other:?}"),
    }
    mirror.stop();
}

#[test]
fn sockets_that_do_not_answer_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let short = DeviceConfig { timeout: Duration::from_millis(30), ..config(&dir) };
    let error = Endpoint::open(short.clone()).unwrap().attach().unwrap_err();
    assert!(matches!(error, AttachError::Connect { .. }) && error.to_string().contains("sock"), "{error}");

    let listening = DeviceConfig { role: Role::Server, ..short.clone() };
    let first = Endpoint::open(listening.clone()).unwrap();
    assert!(matches!(first.attach().unwrap_err(), AttachError::Nobody { .. }));
    assert!(matches!(Endpoint::open(listening).unwrap_err(), AttachError::Bind { .. }), "the socket is taken");

    let long = DeviceConfig { socket: dir.path().join("x".repeat(120)), ..short };
    let error = Endpoint::open(long).unwrap().attach().unwrap_err();
    assert!(matches!(error, AttachError::Connect { .. }), "{error}");
}

#[test]
fn a_backend_that_comes_back_finds_reset_rings() {
    for kind in [RingKind::Packed, RingKind::Split] {
        let dir = tempfile::tempdir().unwrap();
        let config = DeviceConfig { role: Role::Server, rings: kind, ..config(&dir) };
        let endpoint = Endpoint::open(config.clone()).unwrap();
        let mirror = Mirror::connect(&config.socket, Offer::new(ALL, 1), Fault::None);
        let mut device = endpoint.attach().unwrap();
        let mut port = Port::new(device.take_pairs().pop().unwrap()).unwrap();
        echo(&mut port, 777, 64);
        mirror.stop();
        assert!(!device.is_connected());

        let mirror = Mirror::connect(&config.socket, Offer::new(ALL, 1), Fault::None);
        let mut device = endpoint.reattach(device, Vec::new()).unwrap();
        let mut port = Port::new(device.take_pairs().pop().unwrap()).unwrap();
        echo(&mut port, 100, 64);
        drop(device);
        let seen = mirror.wait();
        let reset = if kind == RingKind::Packed { 0x8000 } else { 0 };
        assert_eq!(seen.bases, [Some(reset); 2]);
    }
}

#[test]
fn a_guest_that_noticed_nothing_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let config = DeviceConfig { role: Role::Server, rings: RingKind::Split, order: Order::Qemu, ..config(&dir) };
    let endpoint = Endpoint::open(config.clone()).unwrap();
    let mirror = Mirror::connect(&config.socket, Offer::new(ALL, 1), Fault::None);
    let mut device = endpoint.attach().unwrap();
    let mut port = Port::new(device.take_pairs().pop().unwrap()).unwrap();
    echo(&mut port, 777, 64);
    mirror.stop();

    let mirror = Mirror::connect(&config.socket, Offer::new(ALL, 1), Fault::None);
    let mut device = endpoint.reattach(device, vec![port.into_pair()]).unwrap();
    let pair = device.take_pairs().pop().unwrap();
    assert_eq!(pair.rx.free(), 0, "all receive buffers are still posted");
    drop(device);
    assert_eq!(mirror.wait().bases, [Some(777), Some(777)]);
}
