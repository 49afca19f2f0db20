// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregates at the node: split when they arrive, put together when packets leave (decisions 23 to 28).
//!
//! | file | job |
//! |---|---|
//! | `guard.rs` | frames that only who has negotiated may send |
//! | `split.rs` | what a guest sends, taken apart |
//! | `runs.rs` | packets of one flow that stand together |
//! | `link.rs` | what goes to a guest, put together |
//! | `hold.rs` | when that is sent |

mod guard;
mod hold;
mod link;
mod runs;
mod split;

pub(super) use guard::{is_aggregate, refuse};
pub(crate) use link::Link;
pub(super) use link::{close, end_turn, flush, put_bytes, put_together};
pub(super) use runs::{Hope, Ranges};
