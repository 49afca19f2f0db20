// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine offers below `std`: the cycle counter, thread affinity, listening sockets, sockets that carry file
//! descriptors.

mod affinity;
mod cycles;
mod fdsocket;
mod listener;

pub(crate) use affinity::pin_current_thread;
pub use cycles::{Clock, cycles};
pub(crate) use fdsocket::{ReadOutcome, receive, send};
pub use listener::{DirectoryFault, SocketError};
pub(crate) use listener::{SocketListener, SocketMode};
