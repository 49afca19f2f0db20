// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! No descriptor and no mapping stays behind, however a connection ends. Alone in its process, because it counts.

mod mirror;

use std::time::Duration;

use cnf::{DeviceConfig, Endpoint, Port};
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
}
