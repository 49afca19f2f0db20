// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy as a value: what controllers say is to happen to a port's packets (VFP, 4; VF-2 to VF-12).
//!
//! A [`PortPolicy`] is an ordered list of [`Layer`]s, a layer a list of [`Group`]s, a group a list of
//! [`Rule`]s. It is never edited: a [`Transaction`] makes the next one from it, or an error that names
//! object and field and changes nothing. What did not change is shared between the two, so that who
//! compiles policy sees by pointer what to compile again.
//!
//! | file | job |
//! |---|---|
//! | `rule.rs` | rules and their actions |
//! | `group.rs` | groups: the unit of update |
//! | `layer.rs` | layers, and whom they belong to |
//! | `policy.rs` | a port's layers, in order |
//! | `transaction.rs` | the only way from one policy to the next |

mod group;
mod layer;
mod policy;
mod rule;
mod transaction;

#[cfg(test)]
mod tests;

pub use group::{Group, GroupError, MAX_RULES};
pub use layer::{Default, Layer, LayerError, MAX_GROUPS, Versioned};
pub use policy::{MAX_LAYERS, PortPolicy};
pub use rule::{Action, Direction, Rule, RuleError, Stateful};
pub use transaction::{Controller, Edit, Precondition, Transaction, TransactionError};
