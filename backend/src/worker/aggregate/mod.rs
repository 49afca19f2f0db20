// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregates at the node: split when they arrive, put together when packets leave (decisions 23 to 28).
//!
//! | file | job |
//! |---|---|
//! | `guard.rs` | frames that only who has negotiated may send |

mod guard;

pub(super) use guard::refuse;
