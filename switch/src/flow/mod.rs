// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Flows: what the switch remembers about connections.
//!
//! | file | job |
//! |---|---|
//! | `tuple.rs` | what names a connection |
//! | `connection.rs`, `connections.rs` | what stateful rules remember |
//! | `index.rs` | from a hash to the places of flows that may be meant |
//! | `table.rs` | flows by their identity |
//! | `tcp.rs` | what is known of a TCP connection that passes by |
//! | `slab.rs` | places, and handles that know when a place has changed hands |

pub(crate) mod connection;
pub(crate) mod connections;
mod index;
pub(crate) mod slab;
mod table;
pub mod tcp;
pub(crate) mod timing;
pub mod tuple;

pub use index::Index;
pub use slab::{Aligned, Cell, Handle, Place, Slab};
pub use table::{FlowKey, FlowTable, Scope, Secret};
