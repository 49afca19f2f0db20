// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stage 2 of aggregation, guest to guest: what is sent in aggregates, or not, arrives as the packets that were sent, once and in order,
//! and what policy and counters say of it is what they say of plain packets. Whatever somebody sends who does not mean well is
//! counted, and harms nobody. Decisions 23 to 28.
//!
//! | file | what is tested |
//! |---|---|
//! | `delivery.rs` | packets of all kinds between guests that aggregate and one that does not |
//! | `plain.rs` | that aggregated and plain packets fare the same |
//! | `hold.rs` | what sends a frame, and the settings of a port |
//! | `modes.rs` | how an agreement begins and ends (decision 28) |
//! | `abuse.rs` | frames that nobody should send |
//! | `races.rs` | floods of control frames, and frames that change while they are read |
//! | `arena.rs` | where these two let a guest loose |
//! | `stage.rs` | what these have in common |

mod abuse;
mod arena;
mod delivery;
mod hold;
mod modes;
mod plain;
mod races;
mod stage;
#[path = "../support/mod.rs"]
mod support;
