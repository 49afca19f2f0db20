// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a link and one of its queues meet, which may be in different threads.
//!
//! Theory of operation. The rings of a pair belong to its queue while a backend is there. When the backend is lost, the
//! link *recalls* the port, and resets the rings only after it has come back: so nobody writes into rings that are being
//! made anew. Whoever leaves something for the other side moves `news` of that side on; a side that has seen the current
//! number does not take the lock, so that a burst costs one load.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::aggregate::Terms;
use crate::{EventFd, Port, PortError};

/// The meeting point of one queue with its link.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Mutex<Shared>,
    for_queue: AtomicU32,
    for_link: AtomicU32,
    /// Aggregates have arrived at the queue since the link looked.
    heard: AtomicBool,
    /// Wakes the queue from its sleep.
    nudge: EventFd,
}

/// What is left there.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// On its way: to the queue, or back.
    pub(crate) port: Option<Port>,
    /// A descriptor of the connection that `port` belongs to, for the queue to sleep on.
    pub(crate) line: Option<OwnedFd>,
    /// The queue has the port.
    pub(crate) lent: bool,
    /// The link wants the port back.
    pub(crate) recalled: bool,
    /// Why the queue gave the port back, if it was not recalled.
    pub(crate) fault: Option<PortError>,
    /// What was agreed on with the other end, if that has changed.
    pub(crate) terms: Option<Terms>,
    /// Frames of the negotiation, to be sent by the queue.
    pub(crate) outbox: Vec<Vec<u8>>,
    /// The same, that the queue received.
    pub(crate) inbox: Vec<Vec<u8>>,
    /// The link has gone.
    pub(crate) closed: bool,
}

impl Slot {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            shared: Mutex::default(),
            for_queue: AtomicU32::new(0),
            for_link: AtomicU32::new(0),
            heard: AtomicBool::new(false),
            nudge: EventFd::new()?,
        })
    }

    /// Looks at, and takes, what is there. A panic of the other side left nothing half done: each change is one move.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link has left something.
    pub(crate) fn tell_queue(&self) {
        self.for_queue.fetch_add(1, Ordering::Release);
        // The bell is an eventfd of our own; a queue that does not hear it looks when its sleep is over.
        let _ = self.nudge.ring();
    }

    /// The queue has left something.
    pub(crate) fn tell_link(&self) {
        self.for_link.fetch_add(1, Ordering::Release);
    }

    /// Whether there is something new for the queue since `seen`, which moves on.
    #[inline]
    pub(crate) fn news_for_queue(&self, seen: &mut u32) -> bool {
        let now = self.for_queue.load(Ordering::Acquire);
        std::mem::replace(seen, now) != now
    }

    /// The same for the link.
    pub(crate) fn news_for_link(&self, seen: &mut u32) -> bool {
        let now = self.for_link.load(Ordering::Acquire);
        std::mem::replace(seen, now) != now
    }

    /// Aggregates have arrived. Read by the link now and then, and written only if it has read it.
    #[inline]
    pub(crate) fn heard(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any have since this was asked last.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::Relaxed)
    }

    /// What wakes the queue.
    pub(crate) fn nudge(&self) -> &EventFd {
        &self.nudge
    }
}
