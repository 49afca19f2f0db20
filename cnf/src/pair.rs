// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One queue pair with all that belongs to it: rings, buffers, doorbells.

use virtqueue::{BufferPool, DriverQueue};

use crate::EventFd;

/// The rings of one pair as the driver sees them, and their memory.
///
/// Everything is public: [`Port`](crate::Port) is one way to use it, a load generator with its own loop another.
#[derive(Debug)]
pub struct QueuePair {
    /// Number of the pair in its device.
    pub index: u16,
    /// What we send.
    pub tx: DriverQueue,
    /// What we receive.
    pub rx: DriverQueue,
    /// As many buffers for frames to send as the configuration asked for, else as the ring has entries.
    pub tx_buffers: BufferPool,
    /// As many receive buffers as the ring has entries; nothing is posted yet.
    pub rx_buffers: BufferPool,
    /// A table for each entry of the transmit ring, if indirect descriptors were negotiated.
    pub tx_tables: Option<BufferPool>,
    /// The doorbells of the transmit ring.
    pub tx_bells: Bells,
    /// The doorbells of the receive ring.
    pub rx_bells: Bells,
}

/// The doorbells of one ring.
#[derive(Debug)]
pub struct Bells {
    /// Rung by us when the device asks for it.
    pub kick: EventFd,
    /// Rung by the device when we ask for it.
    pub call: EventFd,
    /// Rung by the device when it stops the ring because of what it found there.
    pub error: EventFd,
}

impl Bells {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { kick: EventFd::new()?, call: EventFd::new()?, error: EventFd::new()? })
    }
}
