// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Aggregates at the node: split when they arrive, put together when packets leave (decisions 23 to 28).
//!
//! | file | job |
//! |---|---|
//! | `guard.rs` | frames that only who has negotiated may send |
//! | `wire.rs` | who is aware on a link with several stations, and what was agreed |
//! | `load.rs`, `meta.rs` | what is put together for each of them |
//! | `append.rs` | packets of a burst, one behind the other into a frame |
//! | `stations.rs`, `table.rs` | which stations are behind them |
//! | `refresh.rs` | stations that bridges between nodes would forget |
//! | `arrive.rs` | what arrives on such a link |
//! | `news.rs` | what is told on one link of those that are on the others |
//! | `split.rs` | what a guest sends, taken apart |
//! | `runs.rs` | packets of one flow that stand together |
//! | `link.rs` | what goes to a guest, put together |
//! | `hold.rs` | when that is sent |

mod append;
mod arrive;
mod guard;
mod hold;
mod link;
mod load;
mod meta;
mod news;
mod refresh;
mod runs;
mod split;
mod stations;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use append::class_of;
pub(super) use arrive::{Tools, key};
pub(super) use guard::{ETHER_TYPE, is_aggregate, refuse};
pub(crate) use link::Link;
pub(super) use link::{close, end_turn, flush, put_bytes, put_together};
pub(super) use load::Room;
pub(crate) use meta::offload_of;
pub(super) use refresh::{Round, is_refresh};
pub(super) use runs::{Hope, Ranges, first_of};
pub(crate) use wire::WireConfig;
pub(super) use wire::{CONTROL, Target, Wire};
