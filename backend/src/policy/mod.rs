// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policy of all ports: who may write it, how it changes, and how a running switch gets to know.
//!
//! # Theory of operation
//!
//! [`PolicyStore`] holds of each port the policy and the snapshot compiled from it. A change is worked out and compiled on
//! the thread that asks for it, under a lock of its port, and then published through the [`Switchboard`]: the store waits
//! until every worker has passed a burst boundary under the new snapshot, and frees the old one. Readers never wait for
//! that. A [`Document`](switch::document::Document) is compared with what its controller owns, and becomes one transaction
//! per port; all of them are compiled before the first is published, so that a bad document changes nothing.
//!
//! Policy belongs to a port for as long as there is one: it goes when the port does.
//!
//! | file | what it holds |
//! |---|---|
//! | `store.rs` | [`PolicyStore`]: transactions, documents |
//! | `change.rs` | what is different between a policy and a document |
//! | `switchboard.rs` | [`Switchboard`]: what the store wants of the running switch |
//! | `node.rs` | the running node as that |
//! | `events.rs` | [`EventHub`]: misses and exhausted ranges, on their way to controllers |
//! | `controllers.rs` | [`Controllers`]: who is who |
//! | `error.rs` | refusals |

mod change;
mod controllers;
mod error;
mod events;
mod node;
mod store;
mod switchboard;
mod teller;

#[cfg(test)]
pub(crate) mod tests;

pub use self::change::{Change, ChangeKind};
pub use self::controllers::{Caller, Controllers, Forbidden, Peer, TokenError};
pub use self::error::PolicyError;
pub use self::events::{EventHub, Heard, MAX_SUBSCRIBERS, PolicyEvent, Subscription, What};
pub use self::store::{Applied, DryRun, PolicyStore, PortView};
pub use self::switchboard::{Comparison, FlowChange, FlowPage, Switchboard, SwitchboardError};
pub use self::teller::tell_events;
