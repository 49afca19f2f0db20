// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a queue has done.

use crate::PortCounters;

/// What a queue has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames the device took, or has waiting in the ring.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Times the device asked to be woken.
    pub kicks: u64,
    /// Packets dropped because no frame is so long.
    pub too_long: u64,
    /// Frames that a backend had not given back when it was lost: it may have sent them or not.
    pub abandoned: u64,
}

impl QueueCounters {
    /// Adds what a port has done.
    pub(crate) fn add(&mut self, port: PortCounters) {
        self.frames_sent += port.sent;
        self.frames_received += port.received;
        self.kicks += port.kicks;
    }
}
