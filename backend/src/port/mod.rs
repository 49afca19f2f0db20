// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports: where guests attach.
//!
//! | file | job |
//! |---|---|
//! | `thread.rs` | the ports thread: one epoll loop over all sockets, and the node's requests |
//! | `member.rs` | one port: its socket, its connection, its counters |
//! | `session.rs` | one connection: protocol, memory, rings |
//! | `rings.rs` | a ring on its way to a worker and back |
//! | `dial.rs` | connecting to a front end that listens |

mod dial;
mod member;
mod rings;
mod session;
mod thread;

pub use member::PortError;
pub use thread::ChangeError;
pub(crate) use thread::{PortsThread, Question, Request, ThreadParts};
