// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sleeping until one of several queues has something.
//!
//! Theory of operation. A bell is emptied *before* the device is asked to ring it, and after that the ring is looked at
//! once more: whatever was used before the device saw the question is found there, and whatever is used after it rings.
//! So no wake-up is lost, and an old ring costs one look at most. Besides the bells a sleeper listens to the connections,
//! which hang up when a backend dies, and to its links, which may have something for it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::Queue;

/// Sleeps until something has arrived at one of the queues, one of the `others` can be read, `limit` has passed, or the
/// backend of one of the queues comes or goes. True if something has arrived at a queue.
///
/// Packets that wait for others are flushed when their time has come.
///
/// Another thread that is to wake this one can do so through one of the `others`, for example an
/// [`EventFd`](crate::EventFd).
pub fn wait_any(queues: &mut [&mut Queue], others: &[BorrowedFd<'_>], limit: Duration) -> bool {
    let mut arrived = false;
    let patience = queues.iter().filter_map(|queue| queue.patience()).min();
    for queue in &mut *queues {
        queue.look();
        if let Some(port) = &mut queue.port {
            arrived |= port.ask_for_call();
        }
    }
    if !arrived {
        sleep(queues, others, patience.map_or(limit, |patience| patience.min(limit)));
    }
    for queue in queues {
        if let Some(port) = &mut queue.port {
            arrived |= port.spare_call();
        }
        queue.slot.nudge().take();
        // Sends what the link wants to be said, and what has waited for long enough.
        queue.flush();
    }
    arrived
}

fn sleep(queues: &mut [&mut Queue], others: &[BorrowedFd<'_>], limit: Duration) {
    let mut fds = Vec::with_capacity(queues.len() * 3 + others.len());
    for queue in &*queues {
        fds.extend(queue.line.iter().map(|line| PollFd::new(line, PollFlags::RDHUP)));
    }
    let lines = fds.len();
    for queue in &*queues {
        fds.push(PollFd::new(queue.slot.nudge(), PollFlags::IN));
        fds.extend(queue.port.iter().map(|port| PollFd::new(port.bell(), PollFlags::IN)));
    }
    fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    // An interrupted sleep is a short one.
    let _ = poll(&mut fds, limit.try_into().ok().as_ref());
    let hung_up: Vec<bool> = fds.iter().take(lines).map(|fd| !fd.revents().is_empty()).collect();
    let mut hung_up = hung_up.into_iter();
    for queue in queues.iter_mut().filter(|queue| queue.line.is_some()) {
        if hung_up.next() == Some(true) {
            queue.hung_up();
        }
    }
}
