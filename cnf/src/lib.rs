// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a CNF is written with: the front end of a vhost-user device, in the manner of DPDK's virtio-user.
//!
//! Promise: attaching to any vhost-user backend either gives working queue pairs or an error that names the socket
//! and the step; nothing a backend sends or writes panics this crate or leaks a descriptor. No huge pages, no root,
//! no background thread: all work is done in the calls of the caller.
//!
//! | module | job |
//! |---|---|
//! | `link` | a CNF's link to its backend, attached again whenever that comes back: what a CNF begins with |
//! | `queue` | bursts of packets in and out of one queue pair of a link |
//! | `aggregate` | packets put together in frames, where the other end agreed to it |
//! | `burst`, `packet` | the packets that were received together; one of them, and what is known of it |
//! | `config` | what is asked of the backend |
//! | `endpoint` | the socket and the shared memory: connects, listens, attaches again |
//! | `device` | the handshake, and an attached device |
//! | `session` | one connection: the protocol's state machine over the socket |
//! | `socket` | bytes and descriptors over a UNIX stream |
//! | `memory` | where rings and buffers lie |
//! | `pair` | the rings, buffers and doorbells of one queue pair |
//! | `port` | bursts of frames in and out of a pair |
//! | `received` | a frame that was received |
//! | `eventfd` | a doorbell |
//! | `error` | why attaching failed |
//!
//! A program with a loop of its own, such as a load generator, begins with [`Endpoint`] and works on the [`QueuePair`]s of
//! its [`Device`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod aggregate;
mod burst;
mod config;
mod device;
mod endpoint;
mod error;
mod eventfd;
mod link;
mod memory;
mod packet;
mod pair;
mod port;
mod queue;
mod received;
mod session;
mod socket;

pub use ::aggregation::negotiation::{Down, Reason};
pub use ::packet::{Checksum, GsoKind, Offload, Segmentation};
pub use aggregate::Aggregation;
pub use burst::{Burst, PacketMut};
pub use config::{DeviceConfig, MAX_QUEUE_PAIRS, Role};
pub use device::Device;
pub use endpoint::Endpoint;
pub use error::AttachError;
pub use eventfd::EventFd;
pub use link::{Backoff, Event, Link, LinkConfig, Loss, WhyPlain};
pub use packet::{Meta, Packet};
pub use pair::{Bells, QueuePair};
pub use port::{MAX_BURST, Port, PortCounters, PortError};
pub use queue::{Queue, QueueCounters, wait_any};
pub use received::Received;
