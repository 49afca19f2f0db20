// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The switch: which port a packet goes to.
//!
//! This crate is pure: no I/O, no clock (time is an argument, in nanoseconds of any monotonic clock
//! that all workers share), no threads, no `unsafe`. It sees the windows and verdicts of a
//! [`packet::Burst`] and nothing else; it never allocates once built, and never panics on what a
//! guest sends.
//!
//! | module | what it holds |
//! |---|---|
//! | [`name`] | [`Name`]: what ports, controllers and objects of policy are called |
//! | [`model`] | policy as a value: ports, layers, groups, rules, transactions |
//! | [`compile`] | [`Snapshot`](compile::Snapshot): policy, compiled |
//! | [`plan`](mod@plan) | what policy does with a packet, worked out without doing it |
//! | [`engine`] | [`Engine`](engine::Engine): policy on bursts |
//! | [`tally`] | counters of rules |
//! | `action` | what rules do, a file each |
//! | [`document`] | policy as controllers write it: TOML and JSON |
//! | [`text`] | conditions as people write them |
//! | [`flow`] | what is remembered about connections |
//! | [`condition`] | [`Conditions`]: what a rule matches; [`Key`]: what is matched |
//! | [`classify`] | [`Compiled`]: the best rule of a group for a key, found without trying them all |
//! | [`neighbors`] | [`Neighbors`](neighbors::Neighbors): an uplink's addresses, next hops and their MAC addresses |
//! | [`forwarder`] | [`CrossConnect`]: ports wired back to back; [`Forwarder`]: whom to ask about a port's packets |
//! | [`bridge`] | [`Bridge`]: MAC learning, one replica per worker |

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod action;
pub mod bridge;
pub mod classify;
pub mod compile;
pub mod condition;
pub mod document;
pub mod engine;
pub mod flow;
pub mod forwarder;
mod gates;
pub mod model;
pub mod name;
pub mod neighbors;
pub mod plan;
pub mod tally;
pub mod text;

pub use bridge::{Announcement, Bridge, BridgeConfig, BridgeStats, Entry};
pub use classify::{Compiled, Lookup, Rank, Selection};
pub use condition::{Condition, ConditionError, Conditions, IpVersion, Key, Subject, Value};
pub use forwarder::{CrossConnect, CrossConnectError, Forwarder};
pub use name::{BadName, Name};
