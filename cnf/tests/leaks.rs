// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! No descriptor and no mapping stays behind, however a connection ends. Alone in its process, because it counts.

mod mirror;

use std::time::Duration;

use cnf::{AttachError, Backoff, DeviceConfig, Endpoint, Event, Link, LinkConfig, Port};
use mirror::{ALL, Fault, Mirror};
use vhost_user::Offer;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn shared_mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:shunt-cnf").count()
}

#[test]
fn nothing_stays_behind() {
    let dir = tempfile::tempdir().unwrap();
    let config = DeviceConfig { timeout: Duration::from_millis(300), ..DeviceConfig::new(dir.path().join("sock")) };
    let before = descriptors();
    for round in 0..60 {
        let fault = match round % 30 {
            0 => Fault::RefuseMemory,
            count if round < 30 => Fault::CloseAfter(count),
            count => Fault::GarbageAfter(count),
        };
        let mirror = Mirror::listen(&config.socket, Offer::new(ALL, 1), fault);
        if let Ok(mut device) = Endpoint::open(config.clone()).unwrap().attach() {
            let mut port = Port::new(device.take_pairs().pop().unwrap()).unwrap();
            port.send_burst(&[&[0; 64]]).unwrap();
        }
        mirror.stop();
        assert_eq!((descriptors(), shared_mappings()), (before, 0), "{fault:?}");
    }
    links_reuse_what_they_have(&config);
    assert_eq!((descriptors(), shared_mappings()), (before, 0));
}

/// A link whose backend comes and goes, and misbehaves in between, holds no more than with its first one.
fn links_reuse_what_they_have(config: &DeviceConfig) {
    let backoff = Backoff { first: Duration::ZERO, most: Duration::ZERO };
    let config = LinkConfig { device: config.clone(), backoff, aggregation: None };
    let mut mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), Fault::None);
    let (mut link, mut queues) = Link::attach(config.clone()).unwrap();
    let mut held = None;
    for round in 0..40 {
        queues[0].flush();
        assert!(queues[0].send(&[0; 64][..]));
        queues[0].flush();
        let now = (descriptors(), shared_mappings());
        assert_eq!(*held.get_or_insert(now), now, "round {round}");
        // Two are gone in the middle of their handshake before one is well.
        for fault in [Fault::CloseAfter(round), Fault::GarbageAfter(round), Fault::None] {
            mirror.stop();
            mirror = Mirror::listen(&config.device.socket, Offer::new(ALL, 1), fault);
            loop {
                match link.tend() {
                    Some(Event::Up) => break,
                    Some(Event::NotYet {
                        error: AttachError::Closed { .. } | AttachError::Protocol { .. }, ..
                    }) => break,
                    _ => queues[0].flush(),
                }
            }
        }
        assert!(link.is_up(), "round {round}");
    }
    drop((link, queues));
    mirror.wait();
}
