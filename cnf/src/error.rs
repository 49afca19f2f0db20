// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a device could not be attached to its backend.

use std::io;
use std::path::PathBuf;

use vhost_user::WireError;
use vhost_user::features::Bits;
use virtqueue::{MapError, PoolError, QueueError, RingError};

/// Why a device could not be attached. Names the socket, and the step of the handshake where there is one.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the message says they are")]
pub enum AttachError {
    /// The socket could not be listened on.
    #[error("cannot listen on {socket}: {source}")]
    Bind { socket: PathBuf, source: io::Error },
    /// The backend closed the connection.
    #[error("{socket}: the backend closed the connection at {step}")]
    Closed { socket: PathBuf, step: String },
    /// No backend could be reached.
    #[error("cannot connect to {socket}: {source}")]
    Connect { socket: PathBuf, source: io::Error },
    /// The connection failed.
    #[error("{socket}: {step} failed: {source}")]
    Io { socket: PathBuf, step: String, source: io::Error },
    /// Shared memory or a doorbell could not be made.
    #[error("{socket}: no shared memory: {source}")]
    Memory { socket: PathBuf, source: MapError },
    /// The backend does not offer what was asked for.
    #[error("{socket}: the backend does not offer {missing}; it offers {offered}")]
    Missing { socket: PathBuf, missing: Bits, offered: Bits },
    /// No backend connected, in the server role.
    #[error("{socket}: no backend has connected")]
    Nobody { socket: PathBuf },
    /// Buffers do not fit the shared memory.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A ring cannot be set up like this.
    #[error("{socket}: {source}")]
    Queue { socket: PathBuf, source: QueueError },
    /// More queue pairs than there can be, or than the backend has.
    #[error("{asked} queue pairs asked for, at most {most} possible")]
    QueuePairs { asked: u16, most: u16 },
    /// The backend refused a request.
    #[error("{socket}: the backend refused {step} with {value}")]
    Refused { socket: PathBuf, step: String, value: u64 },
    /// A ring that was to be resumed is broken.
    #[error("{socket}: cannot resume: {source}")]
    Resume { socket: PathBuf, source: RingError },
    /// Receive buffers too short for any frame.
    #[error("receive buffers of {bytes} bytes are too short without mergeable buffers: {least} are needed")]
    RxBuffer { bytes: u32, least: u32 },
    /// The backend did not answer in time.
    #[error("{socket}: the backend did not answer {step} in time")]
    TimedOut { socket: PathBuf, step: String },
    /// The backend sent something that is no proper reply.
    #[error("{socket}: bad reply to {step}: {source}")]
    Wire { socket: PathBuf, step: String, source: WireError },
    /// A reply of another kind than the request has.
    #[error("{socket}: the reply to {step} does not belong to it")]
    WrongReply { socket: PathBuf, step: String },
}
