// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vhost-user protocol: a codec for every message of its specification, and both roles of a connection as state
//! machines.
//!
//! Pure: no sockets, threads, clock or `unsafe`. Bytes and descriptors go in, bytes and things to do come out;
//! whoever owns the socket does them. Descriptors are a type parameter `F`, which is `OwnedFd` in earnest and a
//! number in tests; this crate moves them and drops (closes) them, and never keeps one. A peer can cause no panic,
//! and nothing unbounded to be kept.
//!
//! * [`Decoder`], [`Request`], [`Reply`], [`BackendRequest`], [`Frame`]: the codec, from bytes to typed values and
//!   back.
//! * [`BackendConnection`] (and [`Backend`] within): the node's role. Emits [`Action`]s.
//! * [`Frontend`]: the role of QEMU or DPDK's virtio-user; for the SDK, the load generator and tests. Emits
//!   [`Frame`]s and [`Event`]s.
//! * [`features`]: feature bits and their names.
//!
//! Errors ([`WireError`], [`ProtocolError`], [`FrontendError`]) name numbers and bits; those that a front end can cause
//! in a node have a `cause()` for a metric, out of a fixed list (`CAUSES`).
//!
//! # The node's loop
//!
//! For each readable socket: read at most `wanted()` bytes and their descriptors, `receive` them, and `poll` until
//! there is nothing more to do. Actions with an `ack` hold the connection until it is given back, then or later, from
//! wherever the host learns that workers are through; while `wanted()` is 0 the socket is not to be read or waited
//! for.
//!
//! ```
//! use vhost_user::{Action, BackendConnection, Frame, Offer, Request, features};
//!
//! let offered = features::VIRTIO_F_VERSION_1 | features::VIRTIO_F_RING_PACKED;
//! let mut connection = BackendConnection::<u32>::new(Offer::new(offered, 1));
//!
//! // What recvmsg would have returned.
//! let Frame { bytes, fds } = Request::GetFeatures.into_frame(false);
//! connection.receive(&bytes, fds);
//!
//! let mut replies = Vec::new();
//! while let Some(action) = connection.poll()? {
//!     match action {
//!         Action::Reply(frame) => replies.push(frame),
//!         // Map the memory, publish it to the workers, and when all have passed:
//!         Action::SetMemory { ack, .. } => connection.finish(ack, true),
//!         Action::Start(ring) => println!("ring {} starts with {} descriptors", ring.vring, ring.size),
//!         // Have the worker let go of the ring, and report where it stood:
//!         Action::Stop { ack, .. } => connection.finish_stop(ack, 0),
//!         other => println!("{other:?}"),
//!     }
//! }
//! assert_eq!(replies.len(), 1);
//! # Ok::<(), vhost_user::ProtocolError>(())
//! ```
//!
//! # A front end's loop
//!
//! Ask for an operation, send frames as long as there are some, read replies, until the operation's event comes. Here
//! the socket is a back end in the same process:
//!
//! ```
//! use vhost_user::{
//!     Action, BackendConnection, Event, Frame, Frontend, FrontendConfig, FrontendError, Offer, features,
//! };
//!
//! /// With a blocking socket: sendmsg for each frame, then recvmsg of at most `wanted()` bytes.
//! fn run(
//!     frontend: &mut Frontend<u32>,
//!     mut exchange: impl FnMut(Frame<u32>) -> Vec<Frame<u32>>,
//! ) -> Result<Event, FrontendError> {
//!     loop {
//!         while let Some(frame) = frontend.next_frame() {
//!             for reply in exchange(frame) {
//!                 frontend.receive(&reply.bytes, reply.fds);
//!             }
//!         }
//!         if let Some(event) = frontend.next_event()? {
//!             return Ok(event);
//!         }
//!     }
//! }
//!
//! let bits = features::VIRTIO_F_VERSION_1 | features::VIRTIO_F_RING_PACKED;
//! let mut node = BackendConnection::<u32>::new(Offer::new(bits, 4));
//! let exchange = |frame: Frame<u32>| {
//!     node.receive(&frame.bytes, frame.fds);
//!     let mut replies = Vec::new();
//!     while let Ok(Some(action)) = node.poll() {
//!         if let Action::Reply(reply) = action {
//!             replies.push(reply);
//!         }
//!     }
//!     replies
//! };
//!
//! let mut frontend = Frontend::new(FrontendConfig::new(bits, 2));
//! frontend.connect()?;
//! let Event::Negotiated(agreed) = run(&mut frontend, exchange)? else { panic!("not negotiated") };
//! assert_eq!((agreed.features, agreed.max_pairs), (bits, Some(4)));
//! // Next: frontend.start(DeviceSetup { .. }), which ends with Event::Started.
//! # Ok::<(), FrontendError>(())
//! ```
//!
//! # What is taken from `vhost`, and what is ours
//!
//! Message ids, feature and header flags, and the layout of fixed message bodies are those of crate `vhost` (its
//! public `message` module). Framing, validation and both state machines are ours: `vhost` 0.18 closes QEMU's first
//! connection (SET_VRING_ENABLE precedes SET_FEATURES), does not know SEND_RARP, NET_SET_MTU, SET_STATUS, SET_LOG_FD
//! and IOTLB_MSG, and reads partial messages in a busy loop from a non-blocking socket. The body *values* are ours,
//! too: its structures are packed and have neither `Debug` nor `PartialEq`.
#![forbid(unsafe_code)]

mod backend;
pub mod features;
mod frontend;
#[doc(hidden)]
pub mod fuzzing;
mod wire;

pub use self::backend::{
    Action, Backend, BackendConnection, Kick, MemoryAck, NetConfig, Offer, ProtocolError, RequestAck, StopAck,
    VringStart, VringState,
};
pub use self::frontend::{DeviceSetup, Event, Frontend, FrontendConfig, FrontendError, Negotiated, Order, QueueSetup};
pub use self::wire::{
    BackendRequest, ConfigAccess, Decoder, DeviceStateTransfer, Frame, HEADER_LEN, Header, Inflight, Iotlb, LogArea,
    MAX_FDS, MAX_PAYLOAD, Message, Region, Reply, Request, ShmemMap, VringAddresses, VringArea, WireError,
};
pub use vhost::vhost_user::message::{BackendReq, FrontendReq};
