// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports: where guests attach.
//!
//! | file | job |
//! |---|---|
//! | `thread.rs` | the ports thread: one epoll loop over all sockets, and the node's requests |
//! | `member.rs` | one port: what all kinds have, its counters |
//! | `guest.rs` | a vhost-user port's socket, and the connection on it |
//! | `uplink.rs` | the link of an uplink: whether there is one, and who has it |
//! | `session.rs` | one connection: protocol, memory, rings |
//! | `rings.rs` | a ring on its way to a worker and back |
//! | `dial.rs` | connecting to a front end that listens |

mod dial;
mod guest;
mod logging;
mod member;
mod rings;
mod session;
mod thread;
mod uplink;

pub use member::PortError;
pub use thread::ChangeError;
pub(crate) use thread::{PortsThread, Question, Request, ThreadParts};
