// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device side of both ring formats.
//!
//! | file | job |
//! |---|---|
//! | `tx.rs`, `rx.rs` | the queues: frames from the guest, frames to the guest |
//! | `deliver.rs` | bursts from private memory to the guest |
//! | `forward.rs` | guest to guest with one copy |
//! | `queue.rs` | what both queues share; a broken queue stays broken |
//! | `ring.rs` | what both formats share |
//! | `packed.rs`, `split.rs` | the two formats |
//! | `chain.rs` | one chain of descriptors, direct or indirect |
//! | `copy.rs` | the copy of a frame in the inner loop |
//! | `dirty.rs` | what was written and is to be logged, while a guest migrates |
//! | `held.rs` | chains harvested and not given back |
//! | `pending.rs` | used elements decided and not yet visible |
//! | `net_header.rs` | the header before each frame |
//!
//! Host pointers never leave this module: callers name frames by their place among those held. The
//! queue keeps the memory map of every pointer it holds alive, so a pointer is valid as long as it
//! is held.

mod chain;
mod copy;
mod deliver;
mod dirty;
mod forward;
mod held;
mod net_header;
mod packed;
mod pending;
mod queue;
mod ring;
mod rx;
mod split;
mod tx;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]
pub(crate) mod tests;

pub use deliver::{DeliveredBurst, Frame};
pub use dirty::DirtyPages;
pub use forward::{ForwardError, Forwarded, forward};
pub use net_header::NetHeader;
pub use rx::{Delivered, RxQueue, Tail};
pub use split::recover_split_base;
pub use tx::TxQueue;

/// Most frames held by a transmit queue at a time, and the most a burst is useful for.
pub const MAX_BURST: usize = 64;
