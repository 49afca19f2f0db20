// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Links: packets in bursts, sleep and wake-up, backends that go and come back.

mod mirror;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cnf::{AttachError, Backoff, Burst, Event, EventFd, Link, LinkConfig, Loss, Queue, Role, wait_any};
use mirror::{ALL, Fault, Mirror};
use tempfile::TempDir;
use vhost_user::features::VIRTIO_F_IN_ORDER;
use vhost_user::{Offer, Order};
use virtqueue::RingKind;

/// How long anything may take on a loaded machine. Nothing waits for so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(dir: &TempDir) -> LinkConfig {
    let mut config = LinkConfig::new(dir.path().join("sock"));
    config.device.timeout = PATIENCE;
    config
}

fn packet(number: u32) -> Vec<u8> {
    let len = 14 + (number as usize * 37) % 1400;
    (0..len).map(|at| number.wrapping_mul(31).wrapping_add(u32::try_from(at).unwrap()).to_le_bytes()[0]).collect()
}

/// Sends numbered packets and expects them back in order; sleeps where there is nothing to do.
fn echo(queue: &mut Queue, count: u32) {
    let (mut sent, mut received, mut burst) = (0u32, 0u32, Burst::new());
    let end = Instant::now() + PATIENCE;
    while received < count {
        assert!(Instant::now() < end, "{sent} sent, {received} received: {:?}", queue.counters());
        while sent < count && sent - received < 32 && queue.send(&*packet(sent)) {
            sent += 1;
        }
        queue.flush();
        if queue.receive(&mut burst) == 0 {
            queue.wait(PATIENCE);
        }
        for echoed in burst.iter() {
            assert_eq!(echoed.bytes, packet(received));
            received += 1;
        }
    }
}

/// Tends the link, and lets the queues see it, until something happens.
fn event(link: &mut Link, queues: &mut [Queue]) -> Event {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = link.tend() {
            return event;
        }
        queues.iter_mut().for_each(Queue::flush);
        assert!(Instant::now() < end, "nothing happens");
    }
}

/// The same until it is up.
fn until_up(link: &mut Link, queues: &mut [Queue]) -> u32 {
    let mut attempts = 0;
    loop {
        match event(link, queues) {
            Event::Up => return attempts,
            Event::NotYet { .. } => attempts += 1,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn packets_come_back_and_sleepers_are_woken() {
    for kind in [RingKind::Packed, RingKind::Split] {
        for event_idx in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut config = config(&dir);
            (config.device.rings, config.device.event_idx) = (kind, event_idx);
            let mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), Fault::None);
            let (link, mut queues) = Link::attach(config).unwrap();
            assert!(link.is_up() && queues[0].is_up());
            // Each packet alone: both sides sleep, or look, at any possible moment.
            for round in 0..2000 {
                echo(&mut queues[0], 1 + round % 3);
            }
            echo(&mut queues[0], 3000);
            let counters = queues[0].counters();
            assert_eq!((counters.frames_sent, counters.frames_received), (6999, 6999));
            assert_eq!((counters.too_long, counters.abandoned), (0, 0));
            drop(link);
            assert_eq!(mirror.wait().forwarded, 6999);
            // Without its link a queue gives up its port.
            queues[0].flush();
            assert!(!queues[0].is_up() && !queues[0].send(&*packet(0)));
            assert_eq!(queues[0].counters(), counters);
        }
    }
}

#[test]
fn a_packet_that_no_frame_holds_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), Fault::None);
    let (link, mut queues) = Link::attach(config).unwrap();
    queues[0].flush();
    assert!(queues[0].send(&*vec![0; 1 << 16]));
    assert_eq!(queues[0].counters().too_long, 1);
    echo(&mut queues[0], 10);
    drop(link);
    assert_eq!(mirror.wait().forwarded, 10);
}

#[test]
fn a_full_ring_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.device.tx_buffers = Some(100);
    // It ends with the handshake: nobody empties the ring.
    let mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), Fault::None);
    let (mut link, mut queues) = Link::attach(config).unwrap();
    mirror.stop();
    queues[0].flush();
    let mut burst = Burst::new();
    (0..150).for_each(|number| burst.push((&*packet(number)).into()));
    assert_eq!(queues[0].send_burst(&burst, 0), 100);
    assert_eq!(queues[0].send_burst(&burst, 100), 0);
    assert!(matches!(event(&mut link, &mut queues), Event::Down(Loss::Disconnected)));
    assert!(matches!(event(&mut link, &mut queues), Event::NotYet { .. }));
    assert_eq!(queues[0].counters().abandoned, 100);
}

#[test]
fn a_backend_that_comes_back_is_attached_again() {
    for role in [Role::Client, Role::Server] {
        for (kind, order) in [
            (RingKind::Packed, Order::VirtioUser),
            (RingKind::Split, Order::VirtioUser),
            (RingKind::Split, Order::Qemu),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut config = config(&dir);
            (config.device.role, config.device.rings, config.device.order) = (role, kind, order);
            config.device.queue_pairs = 2;
            let socket = config.device.socket.clone();
            let start = || match role {
                Role::Client => Mirror::listen(&socket, Offer::new(ALL, 2), Fault::None),
                Role::Server => Mirror::connect(&socket, Offer::new(ALL, 2), Fault::None),
            };
            let (mut link, mut queues) = Link::open(config).unwrap();
            // Nobody is there yet: told, and tried again.
            let Some(Event::NotYet { error, again_in }) = link.tend() else { panic!("nobody is there") };
            assert!(matches!(error, AttachError::Connect { .. } | AttachError::Nobody { .. }), "{error}");
            assert_eq!(again_in, Backoff::default().first);
            let mut mirror = start();
            until_up(&mut link, &mut queues);
            for round in 1..5 {
                queues.iter_mut().for_each(|queue| echo(queue, 300 * round));
                let seen = mirror.stop();
                assert_eq!(seen.forwarded, u64::from(600 * round));
                assert!(matches!(event(&mut link, &mut queues), Event::Down(Loss::Disconnected)));
                assert!(!link.is_up());
                // While nobody is there nothing is taken, and a sleeper sleeps.
                queues[0].flush();
                assert!(!queues[0].send(&*packet(0)));
                assert!(!queues[0].wait(Duration::from_millis(1)));
                mirror = start();
                until_up(&mut link, &mut queues);
            }
            queues.iter_mut().for_each(|queue| echo(queue, 100));
            assert!(queues.iter().all(|queue| queue.counters().frames_received == 3100));
            drop(link);
            mirror.wait();
        }
    }
}

/// A port that its queue had not picked up when the backend was lost is not picked up afterwards.
#[test]
fn a_port_of_a_lost_backend_is_not_picked_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.device.queue_pairs = 2;
    let socket = config.device.socket.clone();
    let (mut link, mut queues) = Link::open(config).unwrap();
    let mirror = Mirror::listen(&socket, Offer::new(ALL, 2), Fault::None);
    until_up(&mut link, &mut []);
    // The first call that a queue gets may be one to send.
    assert!(queues[0].send(&*packet(0)));
    mirror.stop();
    assert!(matches!(event(&mut link, &mut []), Event::Down(Loss::Disconnected)));
    queues[1].flush();
    assert!(queues[0].is_up() && !queues[1].is_up());
    let mirror = Mirror::listen(&socket, Offer::new(ALL, 2), Fault::None);
    until_up(&mut link, &mut queues);
    queues.iter_mut().for_each(|queue| echo(queue, 50));
    drop(link);
    mirror.wait();
}

/// Rings that were to go on cannot, because the backend that came back offers other ones: they are made anew.
#[test]
fn rings_that_cannot_go_on_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    (config.device.rings, config.device.order) = (RingKind::Split, Order::Qemu);
    let socket = config.device.socket.clone();
    let mirror = Mirror::listen(&socket, Offer::new(ALL, 1), Fault::None);
    let (mut link, mut queues) = Link::attach(config).unwrap();
    echo(&mut queues[0], 100);
    mirror.stop();
    assert!(matches!(event(&mut link, &mut queues), Event::Down(Loss::Disconnected)));
    let mirror = Mirror::listen(&socket, Offer::new(ALL & !VIRTIO_F_IN_ORDER, 1), Fault::None);
    let Event::NotYet { error, .. } = event(&mut link, &mut queues) else { panic!("it fits") };
    assert!(matches!(error, AttachError::Changed { .. }), "{error}");
    mirror.stop();
    let mirror = Mirror::listen(&socket, Offer::new(ALL & !VIRTIO_F_IN_ORDER, 1), Fault::None);
    until_up(&mut link, &mut queues);
    echo(&mut queues[0], 100);
    drop(link);
    mirror.wait();
}

#[test]
fn attempts_become_rarer() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.backoff = Backoff { first: Duration::from_millis(1), most: Duration::from_millis(8) };
    let (mut link, mut queues) = Link::open(config).unwrap();
    let mut waits = Vec::new();
    for _ in 0..6 {
        match event(&mut link, &mut queues) {
            Event::NotYet { again_in, .. } => waits.push(again_in.as_millis()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
}

#[test]
fn a_sleeper_is_woken_by_a_loss_and_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), Fault::None);
    let (mut link, mut queues) = Link::attach(config).unwrap();
    let bell = EventFd::new().unwrap();
    bell.ring().unwrap();
    let begin = Instant::now();
    assert!(!wait_any(&mut [&mut queues[0]], &[std::os::fd::AsFd::as_fd(&bell)], PATIENCE));
    assert!(begin.elapsed() < PATIENCE);
    mirror.stop();
    let begin = Instant::now();
    assert!(!queues[0].wait(PATIENCE), "the loss ends the sleep");
    assert!(begin.elapsed() < PATIENCE);
    // And it ends only one: the link need not have noticed.
    assert!(!queues[0].wait(Duration::from_millis(20)));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert!(matches!(link.tend(), Some(Event::Down(_))), "the queue told the link");
}

/// Queues in threads of their own, the link in another one; the backend goes and comes back meanwhile.
#[test]
fn queues_may_be_in_other_threads() {
    const QUEUES: u16 = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.device.queue_pairs = QUEUES;
    let socket = config.device.socket.clone();
    let mirror = Mirror::listen(&socket, Offer::new(ALL, QUEUES), Fault::None);
    let (mut link, queues) = Link::attach(config).unwrap();
    thread::scope(|scope| {
        let (tell, hear) = mpsc::channel();
        let mut orders = Vec::new();
        for mut queue in queues {
            let (order, next) = mpsc::channel::<()>();
            orders.push(order);
            let tell = tell.clone();
            scope.spawn(move || {
                for () in next {
                    // Until the new backend is there.
                    while !queue.is_up() {
                        queue.wait(PATIENCE);
                    }
                    echo(&mut queue, 500);
                    tell.send(()).unwrap();
                    // Asleep until the backend goes.
                    while queue.is_up() {
                        queue.wait(PATIENCE);
                    }
                }
            });
        }
        let mut mirror = Some(mirror);
        for _ in 0..4 {
            orders.iter().for_each(|order| order.send(()).unwrap());
            for _ in 0..QUEUES {
                hear.recv_timeout(PATIENCE).unwrap();
            }
            assert_eq!(mirror.take().unwrap().stop().forwarded, u64::from(QUEUES) * 500);
            mirror = Some(Mirror::listen(&socket, Offer::new(ALL, QUEUES), Fault::None));
            assert!(matches!(event(&mut link, &mut []), Event::Down(Loss::Disconnected)));
            until_up(&mut link, &mut []);
        }
        drop(orders);
        drop(link);
        mirror.take().unwrap().stop();
    });
}
