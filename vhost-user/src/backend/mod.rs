// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The back end's role: the node's side of a connection.
//!
//! [`Backend`] is the state machine (requests in, [`Action`]s out), [`BackendConnection`] puts a [`crate::Decoder`]
//! before it and a queue behind it, which is what a host normally wants. See the crate's documentation for the loop
//! around them.

mod action;
mod config;
mod connection;
mod device;
mod error;
mod machine;
mod memory;
mod offer;
mod pending;
mod rings;
mod vring;

pub use self::action::{Action, MemoryAck, RequestAck, StopAck, VringStart};
pub use self::config::NetConfig;
pub use self::connection::BackendConnection;
pub use self::error::ProtocolError;
pub use self::machine::Backend;
pub use self::offer::Offer;
pub use self::vring::{Kick, VringState};
