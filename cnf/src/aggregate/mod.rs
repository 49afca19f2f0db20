// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets put together in frames, and taken out of them, where the other end of a link has agreed to that.
//!
//! | file | job |
//! |---|---|
//! | `config.rs` | what a CNF offers and wants |
//! | `speaker.rs` | the negotiation, which is the link's |
//! | `packer.rs` | packets to be sent, which are a queue's |
//! | `unpacker.rs` | packets that arrived, likewise |
//! | `extensions.rs` | what travels with a packet, in the words of a frame |
//!
//! Theory of operation. The link speaks with the other end; its control frames come and go through its queues. What was
//! agreed on are the *terms*, which each queue is told. Without terms packets are plain frames, and the other end is never
//! sent anything that it has not asked for.

mod config;
mod extensions;
mod packer;
mod speaker;
mod unpacker;

use std::time::Instant;

use aggregation::negotiation::Grant;

pub use config::Aggregation;
pub(crate) use config::FRONT;
pub(crate) use packer::{Outlet, Packer};
pub(crate) use speaker::Speaker;
pub(crate) use unpacker::Unpacker;

/// What was agreed on with the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Aggregates that arrive are taken.
    pub(crate) accept: bool,
    /// Aggregates may be sent, and may be like this.
    pub(crate) send: Option<Grant>,
}

/// Nanoseconds since a link was made: what the negotiation and the flush policy call the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u64 {
        self.at(Instant::now())
    }

    pub(crate) fn at(self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.0).as_nanos()).unwrap_or(u64::MAX)
    }
}
