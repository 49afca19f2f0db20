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
//! | `action.rs` | what rules do |
//! | `resource.rs` | data that rules share |
//! | `rule.rs` | rules |
//! | `group.rs` | groups: the unit of update |
//! | `layer.rs` | layers, and whom they belong to |
//! | `policy.rs` | a port's layers, in order |
//! | `needs.rs` | resources in transactions |
//! | `transaction.rs` | the only way from one policy to the next |

mod action;
mod group;
mod layer;
mod needs;
mod policy;
mod resource;
mod rule;
mod transaction;

#[cfg(test)]
mod tests;

pub use action::{
    Action, ActionError, Balance, Destination, Encap, Endpoint, MAX_CHOICES, Nat, ResourceKind, Source, Stateful,
};
pub use group::{Group, GroupError, MAX_RULES};
pub use layer::{Default, Layer, LayerError, MAX_GROUPS, Versioned};
pub use policy::{MAX_LAYERS, MAX_RESOURCES, PortPolicy, VersionedResource};
pub use resource::{Answer, Content, MAX_MAPPINGS, MAX_RANGES, Mapping, Mappings, PortRange, Resource, ResourceError};
pub use rule::{Direction, Rule};
pub use transaction::{Controller, Edit, Precondition, Transaction, TransactionError};
