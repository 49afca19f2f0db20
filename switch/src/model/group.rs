// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups: rules that are replaced together.

use std::collections::HashSet;

use packet::Field;

use super::action::ActionError;
use super::rule::Rule;
use crate::Name;
use crate::condition::Conditions;

/// Most rules of a group.
pub const MAX_RULES: usize = 65_536;

/// Rules that are replaced together (VF-10). At most one of them applies to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is called; unique in its layer.
    pub name: Name,
    /// Groups are asked by ascending order; of two that match without terminating, the later one's rule
    /// applies (VF-11).
    pub order: u32,
    /// Packets that this is not true for are none of the group's business.
    pub when: Conditions,
    /// The address of which the longest prefix decides, before any priority (VF-12).
    pub lpm: Option<Field>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// What is wrong with a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Two rules have one name.
    #[error("rule {rule:?} is there twice")]
    DuplicateRule {
        /// The name.
        rule: Name,
    },
    /// The longest prefix of what is no address.
    #[error("lpm: {field:?} is no address")]
    Lpm {
        /// The field given.
        field: Field,
    },
    /// A rule does not hold together.
    #[error("rule {rule:?}: {cause}")]
    Rule {
        /// Which one.
        rule: Name,
        /// What is wrong with it.
        cause: ActionError,
    },
    /// More rules than a group may have.
    #[error("{rules} rules; a group has at most {MAX_RULES}")]
    TooManyRules {
        /// How many were given.
        rules: usize,
    },
}

impl Group {
    /// # Errors
    /// The first thing that does not hold together.
    pub fn check(&self) -> Result<(), GroupError> {
        if let Some(field) = self.lpm.filter(|field| field.bits() != 128) {
            return Err(GroupError::Lpm { field });
        }
        if self.rules.len() > MAX_RULES {
            return Err(GroupError::TooManyRules { rules: self.rules.len() });
        }
        let mut names = HashSet::with_capacity(self.rules.len());
        for rule in &self.rules {
            if !names.insert(&rule.name) {
                return Err(GroupError::DuplicateRule { rule: rule.name.clone() });
            }
            rule.check().map_err(|cause| GroupError::Rule { rule: rule.name.clone(), cause })?;
        }
        Ok(())
    }
}
