// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a CNF is written with: the front end of a vhost-user device, in the manner of DPDK's virtio-user.
//!
//! Promise: attaching to any vhost-user backend either gives working queue pairs or an error that names the socket
//! and the step; nothing a backend sends or writes panics this crate or leaks a descriptor. No huge pages, no root,
//! no background thread: all work is done in the calls of the caller.
//!
//! | module | job |
//! |---|---|
//! | `config` | what is asked of the backend |
//! | `endpoint` | the socket and the shared memory: connects, listens, attaches again |
//! | `device` | the handshake, and an attached device |
//! | `session` | one connection: the protocol's state machine over the socket |
//! | `socket` | bytes and descriptors over a UNIX stream |
//! | `memory` | where rings and buffers lie |
//! | `pair` | the rings, buffers and doorbells of one queue pair |
//! | `port` | bursts of frames in and out of a pair |
//! | `eventfd` | a doorbell |
//! | `error` | why attaching failed |

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod config;
mod device;
mod endpoint;
mod error;
mod eventfd;
mod memory;
mod pair;
mod port;
mod session;
mod socket;

pub use config::{DeviceConfig, MAX_QUEUE_PAIRS, Role};
pub use device::Device;
pub use endpoint::Endpoint;
pub use error::AttachError;
pub use eventfd::EventFd;
pub use pair::{Bells, QueuePair};
pub use port::{MAX_BURST, Port, PortCounters, PortError, Received};
