// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine offers below `std`: the cycle counter, thread affinity, listening sockets, sockets that carry file
//! descriptors, network interfaces, packet sockets, tap
//! devices, AF_XDP sockets,
//! UDP sockets.

mod affinity;
mod cycles;
mod datagram;
mod fdsocket;
mod frame;
mod interface;
mod listener;
mod outbox;
mod packet_socket;
mod sockopt;
mod tap;
mod xdp_socket;

pub(crate) use affinity::pin_current_thread;
pub use cycles::{Clock, cycles};
pub(crate) use datagram::{Batch, Datagrams};
pub(crate) use fdsocket::{ReadOutcome, receive, send};
pub(crate) use frame::{Flushed, LINK_HEADER, LONG_FRAME, MAX_HELD, MAX_MTU, Received};
pub(crate) use interface::{Interface, InterfaceProbe};
pub use listener::{DirectoryFault, SocketError};
pub(crate) use listener::{SocketListener, SocketMode};
pub(crate) use outbox::Outbox;
pub use packet_socket::packet_ring_frames;
pub(crate) use packet_socket::{PacketSocket, RxRing, TxRing};
pub(crate) use tap::{Tap, TapRx, TapTx};
pub(crate) use xdp_socket::{XdpMode, XdpRequest, XdpRx, XdpSocket, XdpTx};
