// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layers: one controller's part of a port's policy.

use std::sync::Arc;

use super::group::{Group, GroupError};
use super::transaction::Controller;
use crate::Name;

/// Most groups of a layer.
pub const MAX_GROUPS: usize = 1024;

/// A layer (VF-4): groups of one controller. At most one rule of it applies to a packet (VF-5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it is called; unique on its port.
    pub name: Name,
    /// Whose it is.
    pub controller: Name,
    /// Low orders are nearest the VM: outbound packets meet layers in ascending order, inbound ones in
    /// descending order.
    pub order: u32,
    /// What happens to a packet that no rule matches.
    pub default: Default,
    /// Its groups, by order and then by name.
    pub groups: Vec<Versioned>,
}

/// What happens to a packet that no rule of a layer matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Default {
    /// It goes on.
    Allow,
    /// It is dropped.
    Block,
}

/// A group and the version under which it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The policy's version that put it.
    pub version: u64,
    /// The group; the same pointer as long as it is the same.
    pub group: Arc<Group>,
}

/// What is wrong with a layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// A group does not hold together.
    #[error("group {group:?}: {cause}")]
    Group {
        /// Which one.
        group: Name,
        /// What is wrong with it.
        cause: GroupError,
    },
    /// Its order is not its controller's to give (decision: each has a band of its own).
    #[error("order {order} is not between {low} and {high}, the band of controller {controller:?}")]
    Order {
        /// The order given.
        order: u32,
        /// Lowest of the band.
        low: u32,
        /// Highest of the band.
        high: u32,
        /// Whose band.
        controller: Name,
    },
    /// It belongs to another controller.
    #[error("it belongs to controller {owner:?}")]
    Owner {
        /// To whom.
        owner: Name,
    },
    /// Another layer of the port has the same order, so there would be no telling which comes first.
    #[error("layer {other:?} has order {order}, too")]
    SameOrder {
        /// The other layer.
        other: Name,
        /// The order of both.
        order: u32,
    },
    /// More groups than a layer may have.
    #[error("{groups} groups; a layer has at most {MAX_GROUPS}")]
    TooManyGroups {
        /// How many there would be.
        groups: usize,
    },
    /// There is no such group.
    #[error("there is no group {group:?}")]
    UnknownGroup {
        /// The name given.
        group: Name,
    },
}

impl Layer {
    /// A group by its name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Versioned> {
        self.groups.iter().find(|versioned| &*versioned.group.name == name)
    }

    /// Puts a group in its place, instead of the one of its name if there is one.
    pub(super) fn put(&mut self, group: Arc<Group>, version: u64) -> Result<(), LayerError> {
        group.check().map_err(|cause| LayerError::Group { group: group.name.clone(), cause })?;
        if self.group(&group.name).is_some_and(|other| other.group == group) {
            return Ok(());
        }
        self.groups.retain(|other| other.group.name != group.name);
        let groups = self.groups.len().saturating_add(1);
        if groups > MAX_GROUPS {
            return Err(LayerError::TooManyGroups { groups });
        }
        let key = |group: &Group| (group.order, group.name.clone());
        let at = self.groups.partition_point(|other| key(&other.group) < key(&group));
        self.groups.insert(at, Versioned { version, group });
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &Name) -> Result<(), LayerError> {
        let before = self.groups.len();
        self.groups.retain(|versioned| versioned.group.name != *name);
        if self.groups.len() == before {
            return Err(LayerError::UnknownGroup { group: name.clone() });
        }
        Ok(())
    }

    /// Whether `controller` may write it, and give it its order.
    pub(super) fn check_owner(&self, controller: &Controller) -> Result<(), LayerError> {
        if self.controller != controller.name {
            return Err(LayerError::Owner { owner: self.controller.clone() });
        }
        let [low, high] = controller.order;
        if (low..=high).contains(&self.order) {
            return Ok(());
        }
        Err(LayerError::Order { order: self.order, low, high, controller: controller.name.clone() })
    }
}
