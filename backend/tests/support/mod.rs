// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the integration tests share: a node in this process, guests of the SDK, a front end that sends what it likes.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod arena;
mod aware;
mod frames;
mod guest;
mod node;
mod process;
mod random;
mod raw;
mod rings;
mod served;

use std::thread::yield_now;
use std::time::{Duration, Instant};

pub(crate) use arena::{Arena, ports_thread_is_quiet};
pub(crate) use aware::{Cnf, OFFER, Speaker, aggregates, control, items, wrap};
pub(crate) use frames::{BROADCAST, Numbered, frame, number_of};
pub(crate) use guest::{Guest, Shape, exchange, exchange_shaped, guest_config};
pub(crate) use node::{NodeSpec, TestNode, port};
pub(crate) use process::{alone, cpu_of, mappings_of, open_files, process_cpu};
pub(crate) use random::Random;
pub(crate) use raw::{Raw, eventfd, fired, ring_up};
pub(crate) use rings::{Layout, MEMORY as RAW_MEMORY, RawDevice, SIZE};
pub(crate) use served::{Served, listen};

/// How long anything may take on a loaded machine. Nothing waits for so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `done` gives something; panics with what was waited for.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        yield_now();
    }
}
