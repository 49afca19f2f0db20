// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the examples share: how a link is named on the command line, when to stop, when to sleep.
#![allow(dead_code, reason = "each example uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use cnf::{Aggregation, Event, Link, LinkConfig, Queue, Role};

/// So many turns without a packet, and the loop sleeps until it is called. 0 with `--busy`: it never does.
const PATIENCE: u32 = 1000;

/// How long it sleeps at most. A link wants to be tended now and then.
pub(crate) const SLEEP: Duration = Duration::from_millis(50);

/// How links are to be.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LinkOptions {
    /// Poll, and never sleep
    #[arg(long)]
    pub(crate) busy: bool,
    /// Queue pairs of each link
    #[arg(long, default_value_t = 1, value_name = "N")]
    queues: u16,
    /// Entries of each ring
    #[arg(long, default_value_t = 256, value_name = "N")]
    ring_size: u16,
    /// Split rings, not packed ones
    #[arg(long)]
    split: bool,
    /// Put packets together in frames, if the other end agrees
    #[arg(long)]
    aggregate: bool,
    /// Bytes after which a frame is sent
    #[arg(long, requires = "aggregate", value_name = "BYTES")]
    tx_aggr_max_bytes: Option<usize>,
    /// Packets after which a frame is sent
    #[arg(long, requires = "aggregate", value_name = "N")]
    tx_aggr_max_frames: Option<u32>,
    /// Microseconds that a packet may wait for others
    #[arg(long, requires = "aggregate", value_name = "N")]
    tx_aggr_time_usecs: Option<u32>,
}

impl LinkOptions {
    /// A link to PATH, or one that waits for its backend at `server:PATH`. It need not be there yet.
    pub(crate) fn open(&self, name: &str) -> anyhow::Result<(Link, Vec<Queue>)> {
        let (role, path) = match name.strip_prefix("server:") {
            Some(path) => (Role::Server, path),
            None => (Role::Client, name),
        };
        let mut config = LinkConfig::new(path);
        config.device.role = role;
        config.device.queue_pairs = self.queues;
        config.device.queue_size = self.ring_size;
        if self.split {
            config.device.rings = virtqueue::RingKind::Split;
        }
        if self.aggregate {
            let default = Aggregation::default();
            config = config.aggregate(Aggregation {
                tx_aggr_max_bytes: self.tx_aggr_max_bytes.unwrap_or(default.tx_aggr_max_bytes),
                tx_aggr_max_frames: self.tx_aggr_max_frames.unwrap_or(default.tx_aggr_max_frames),
                tx_aggr_time_usecs: self.tx_aggr_time_usecs.unwrap_or(default.tx_aggr_time_usecs),
                ..default
            });
        }
        Ok(Link::open(config)?)
    }
}

/// Does what is due at a link, and says on standard error what happened there.
pub(crate) fn tend(name: &str, link: &mut Link, quiet: &mut bool) {
    match link.tend() {
        None => {}
        // Said once, and not with every attempt.
        Some(Event::NotYet { .. }) if *quiet => {}
        Some(event) => {
            *quiet = matches!(event, Event::NotYet { .. });
            eprintln!("{name}: {event}");
        }
    }
}

/// When a loop has nothing to do.
#[derive(Debug)]
pub(crate) struct Idle {
    busy: bool,
    turns: u32,
}

impl Idle {
    pub(crate) fn new(busy: bool) -> Self {
        Self { busy, turns: 0 }
    }

    /// A turn moved so many packets: whether it is time to sleep.
    pub(crate) fn after(&mut self, moved: usize) -> bool {
        self.turns = if moved > 0 { 0 } else { self.turns.saturating_add(1) };
        !self.busy && self.turns > PATIENCE
    }
}

/// Set by SIGINT and SIGTERM.
#[derive(Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}
