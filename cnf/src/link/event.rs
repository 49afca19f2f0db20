// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a link tells its CNF.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::{AttachError, PortError};

/// Something happened to a link.
#[derive(Debug)]
pub enum Event {
    /// A backend is attached; the queues move packets.
    Up,
    /// The backend was lost. What was on its way to it may be lost with it.
    Down(Loss),
    /// No backend could be attached; the next attempt follows.
    NotYet {
        /// Why not.
        error: AttachError,
        /// Time until then.
        again_in: Duration,
    },
}

/// How a backend was lost.
#[derive(Debug)]
pub enum Loss {
    /// It closed the connection, or died.
    Disconnected,
    /// It spoiled a ring, or could not be woken.
    Broken(PortError),
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("attached"),
            Self::Down(Loss::Disconnected) => f.write_str("the backend has gone"),
            Self::Down(Loss::Broken(error)) => write!(f, "detached: {error}"),
            Self::NotYet { error, again_in } => write!(f, "{error}; again in {again_in:?}"),
        }
    }
}
