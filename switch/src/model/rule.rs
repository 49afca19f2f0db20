// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules: what is matched, by which of them what is done.

use super::action::{Action, ActionError};
use crate::Name;
use crate::condition::Conditions;

/// Which way a packet goes, as the VM sees it (VF-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the VM.
    In,
    /// From the VM.
    Out,
}

/// A rule of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called; unique in its group.
    pub name: Name,
    /// Higher wins; among equals the one that stands first in its group.
    pub priority: u32,
    /// Packets of which direction it is for.
    pub direction: Direction,
    /// What a packet must be.
    pub conditions: Conditions,
    /// What happens to it.
    pub action: Action,
    /// Applies at once: the groups of its layer behind its own are not asked (VF-11).
    pub terminating: bool,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

impl Rule {
    /// # Errors
    /// What does not hold together, by field.
    pub fn check(&self) -> Result<(), ActionError> {
        if matches!(self.action, Action::Hairpin { .. }) && self.direction == Direction::In {
            return Err(ActionError::InboundHairpin);
        }
        self.action.check()
    }
}
