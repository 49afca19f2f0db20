// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Wires between two sockets each, by a backend that knows nothing of aggregation and never will: what one end sends, the
//! other one gets, or it waits in its ring.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../mirror/mod.rs"]
mod mirror;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle, yield_now};
use std::time::{Duration, Instant};

use cnf::{Event, Link, Queue};
use mirror::{ALL, Backend, Fault};
use tempfile::TempDir;
use vhost_user::Offer;

/// How long anything may take on a loaded machine. Nothing waits for so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The wires, and the thread that serves them.
pub(crate) struct Wires {
    dir: TempDir,
    count: usize,
    queues: u16,
    running: Option<Running>,
}

struct Running {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// Ends whose rings run.
    up: Arc<AtomicUsize>,
}

/// One end of a wire.
struct Side {
    listener: UnixListener,
    backend: Option<Backend>,
}

impl Wires {
    /// Sockets `a0` and `b0` are wired, `a1` and `b1`, and so on.
    pub(crate) fn start(count: usize, queues: u16) -> Self {
        let mut wires = Self { dir: tempfile::tempdir().unwrap(), count, queues, running: None };
        wires.restart();
        wires
    }

    pub(crate) fn socket(&self, port: &str) -> PathBuf {
        self.dir.path().join(format!("{port}.sock"))
    }

    pub(crate) fn wait_until_up(&self) {
        let running = self.running.as_ref().unwrap();
        until("all ends are up", || running.up.load(Relaxed) == 2 * self.count);
    }

    /// Ends all connections, and listens again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let names = (0..self.count).flat_map(|index| ["a", "b"].map(|side| format!("{side}{index}")));
        let mut sides: Vec<Side> = names.map(|name| Side::listen(&self.socket(&name))).collect();
        let (stop, up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted, queues) = (Arc::clone(&stop), Arc::clone(&up), self.queues);
        let thread = thread::spawn(move || {
            while !told.load(Relaxed) {
                sides.iter_mut().for_each(|side| side.serve(queues));
                for wire in sides.chunks_exact_mut(2) {
                    if let [Side { backend: Some(a), .. }, Side { backend: Some(b), .. }] = wire {
                        a.pass_to(b);
                        b.pass_to(a);
                    }
                }
                let runs = |side: &&Side| side.backend.as_ref().is_some_and(|backend| backend.runs(queues.into()));
                counted.store(sides.iter().filter(runs).count(), Relaxed);
                yield_now();
            }
        });
        self.running = Some(Running { thread, stop, up });
    }

    fn stop(&mut self) {
        if let Some(Running { thread, stop, .. }) = self.running.take() {
            stop.store(true, Relaxed);
            thread.join().unwrap();
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Side {
    fn listen(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, backend: None }
    }

    fn serve(&mut self, queues: u16) {
        match &mut self.backend {
            Some(backend) => {
                if !backend.serve(false) {
                    self.backend = None;
                }
            }
            None => {
                let stream = self.listener.accept().ok().map(|(stream, _)| stream);
                self.backend = stream.map(|stream| Backend::new(stream, Offer::new(ALL, queues), Fault::None));
            }
        }
    }
}

/// Polls until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        yield_now();
    }
}

/// A link with its queues, and what it told.
pub(crate) struct End {
    pub(crate) link: Link,
    pub(crate) queues: Vec<Queue>,
    pub(crate) told: Vec<Event>,
}

impl End {
    pub(crate) fn attach(config: cnf::LinkConfig) -> Self {
        let (link, queues) = Link::attach(config).unwrap();
        Self { link, queues, told: Vec::new() }
    }

    /// Does what is due.
    pub(crate) fn tend(&mut self) {
        self.told.extend(self.link.tend());
        self.queues.iter_mut().for_each(Queue::flush);
    }

    pub(crate) fn is_aggregating(&self) -> bool {
        let last = self.told.iter().rev().find(|event| !matches!(event, Event::NotYet { .. }));
        matches!(last, Some(Event::Aggregating { .. }))
    }
}
