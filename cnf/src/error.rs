// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a device could not be attached to its backend.

use std::io;
use std::path::PathBuf;

use vhost_user::FrontendError;
use virtqueue::{MapError, PoolError, QueueError};

use crate::PortError;

/// Why a device could not be attached. Names the socket, and the step of the handshake where there is one.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the message says they are")]
pub enum AttachError {
    /// The socket could not be listened on.
    #[error("cannot listen on {socket}: {source}")]
    Bind { socket: PathBuf, source: io::Error },
    /// Rings that were to be resumed do not fit what the backend now offers.
    #[error("{socket}: the backend came back with other features, so the rings cannot go on")]
    Changed { socket: PathBuf },
    /// The backend closed the connection.
    #[error("{socket}: the backend closed the connection at {step}")]
    Closed { socket: PathBuf, step: String },
    /// No backend could be reached.
    #[error("cannot connect to {socket}: {source}")]
    Connect { socket: PathBuf, source: io::Error },
    /// The connection failed.
    #[error("{socket}: {step} failed: {source}")]
    Io { socket: PathBuf, step: String, source: io::Error },
    /// Shared memory could not be made.
    #[error("{socket}: no shared memory: {source}")]
    Memory { socket: PathBuf, source: MapError },
    /// No backend connected, in the server role.
    #[error("{socket}: no backend has connected")]
    Nobody { socket: PathBuf },
    /// Buffers do not fit the shared memory.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A fresh ring could not be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The backend does not offer what was asked for, or does not keep to the protocol.
    #[error("{socket}: {step}: {source}")]
    Protocol { socket: PathBuf, step: String, source: FrontendError },
    /// A ring cannot be set up like this.
    #[error("{socket}: {source}")]
    Queue { socket: PathBuf, source: QueueError },
    /// More queue pairs than there can be.
    #[error("{asked} queue pairs asked for, 1 to {most} are possible")]
    QueuePairs { asked: u16, most: u16 },
    /// The backend refused a request.
    #[error("{socket}: the backend refused {step}")]
    Refused { socket: PathBuf, step: String },
    /// Receive buffers too short for any frame.
    #[error("receive buffers of {bytes} bytes are too short without mergeable buffers: {least} are needed")]
    RxBuffer { bytes: u32, least: u32 },
    /// The backend did not answer in time.
    #[error("{socket}: the backend did not answer {step} in time")]
    TimedOut { socket: PathBuf, step: String },
}
