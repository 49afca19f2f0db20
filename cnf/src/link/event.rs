// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a link tells its CNF.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use aggregation::negotiation::{Down, Reason};

use crate::{AttachError, PortError};

/// Something happened to a link.
#[derive(Debug)]
pub enum Event {
    /// A backend is attached; the queues move packets.
    Up,
    /// The backend was lost. What was on its way to it may be lost with it.
    Down(Loss),
    /// The other end takes aggregates: packets are put together from now on.
    Aggregating {
        /// Its node id.
        node: u16,
        /// Bytes of the longest frame that both take.
        max_bytes: usize,
    },
    /// Packets are plain frames from now on, or for the time being.
    Plain {
        /// Node id of the other end.
        node: u16,
        /// Why.
        why: WhyPlain,
    },
    /// No backend could be attached; the next attempt follows.
    NotYet {
        /// Why not.
        error: AttachError,
        /// Time until then.
        again_in: Duration,
    },
}

/// Why packets are plain frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyPlain {
    /// What was agreed on has ended.
    Ended(Down),
    /// It did not come to an agreement.
    Refused(Reason),
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
            Self::Aggregating { node, max_bytes } => write!(f, "aggregating with node {node}, up to {max_bytes} bytes"),
            Self::Plain { node, why: WhyPlain::Ended(down) } => {
                let why = match down {
                    Down::Bye(reason) => return write!(f, "node {node} ended aggregation: {reason:?}"),
                    Down::Closed => "it was ended here",
                    Down::Silent => "it is silent",
                    Down::Restarted => "it began anew",
                };
                write!(f, "no aggregation with node {node}: {why}")
            }
            Self::Plain { node, why: WhyPlain::Refused(reason) } => {
                write!(f, "no aggregation with node {node}: {reason:?}")
            }
            Self::NotYet { error, again_in } => write!(f, "{error}; again in {again_in:?}"),
        }
    }
}
