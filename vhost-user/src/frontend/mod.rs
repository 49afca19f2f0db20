// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The front end's role: what drives a back end. Used by the CNF SDK, the load generator and the tests.
//!
//! [`Frontend`] turns operations (`connect`, `start`, `stop`, ...) into messages in the order that DPDK's
//! virtio-user, or QEMU, sends them, waits for the replies that are due, and reports each operation's end as an
//! [`Event`].

mod error;
mod machine;
mod operations;
mod setup;

pub use self::error::FrontendError;
pub use self::machine::{Event, Frontend};
pub use self::setup::{DeviceSetup, FrontendConfig, Negotiated, Order, QueueSetup};
