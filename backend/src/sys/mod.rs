// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine offers below `std`: the cycle counter, thread affinity, listening sockets, sockets that carry file
//! descriptors, network interfaces, packet sockets.

mod affinity;
mod cycles;
mod fdsocket;
mod interface;
mod listener;
mod packet_socket;

pub(crate) use affinity::pin_current_thread;
pub use cycles::{Clock, cycles};
pub(crate) use fdsocket::{ReadOutcome, receive, send};
pub(crate) use interface::{Interface, InterfaceProbe};
pub use listener::{DirectoryFault, SocketError};
pub(crate) use listener::{SocketListener, SocketMode};
pub(crate) use packet_socket::{Flushed, MAX_MTU, PacketSocket, Received, RxRing, TxRing};
