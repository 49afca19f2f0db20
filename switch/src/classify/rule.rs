// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a group is compiled from, and why it cannot be.

use packet::Field;
use thiserror::Error;

use super::rank::Rank;
use crate::condition::{Conditions, Subject};

/// Entries that the most selective condition of a rule may make.
pub const MAX_EXPANSION: usize = 4096;
/// Entries of a group. They take about 130 bytes each, at worst 1 kB: wide ranges in an interval tree.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// A rule to be compiled. Its place in the group is its place in the sequence.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The higher wins; of equals the earlier rule.
    pub priority: u32,
    /// What it matches.
    pub conditions: &'a Conditions,
}

/// Which of the matching rules of a group wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// The one with the highest priority.
    #[default]
    Priority,
    /// The one with the longest prefix of this address, whatever its priority; without a condition on
    /// it the length is 0. Of equals the one with the highest priority. Only prefixes have a length: a
    /// number is refused, and so is a range of addresses, though prefixes can be made of it.
    LongestPrefix(Field),
}

/// Why a group cannot be compiled. The text does not name the rule: only the caller knows its name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Longest-prefix selection by something that is no address.
    #[error("{}: not an IP address, so it has no longest prefix", field.label())]
    NotAnAddress {
        /// The field.
        field: Field,
    },
    /// A number or a range where the group needs to know a prefix length.
    #[error("{}: the group selects by its longest prefix, so every value must be a prefix", field.label())]
    NotAPrefix {
        /// Place of the rule, from 0.
        rule: usize,
        /// The field.
        field: Field,
    },
    /// Lists of values that together make the group too large.
    #[error("with it the group has more than {MAX_ENTRIES} combinations of values")]
    TooManyEntries {
        /// Place of the rule, from 0.
        rule: usize,
    },
    /// More rules than a group holds.
    #[error("the group has more than {} rules", Rank::MAX_RULES)]
    TooManyRules,
    /// A list too long for a longest-prefix group.
    #[error("{subject}: a list of {values} prefixes; a longest-prefix group allows {MAX_EXPANSION}")]
    TooManyValues {
        /// Place of the rule, from 0.
        rule: usize,
        /// The condition's subject.
        subject: Subject,
        /// How many it lists.
        values: usize,
    },
}

impl CompileError {
    /// Place of the rule that it is about, from 0, if it is about one.
    #[must_use]
    pub const fn rule(&self) -> Option<usize> {
        match self {
            Self::NotAPrefix { rule, .. } | Self::TooManyEntries { rule } | Self::TooManyValues { rule, .. } => {
                Some(*rule)
            }
            Self::NotAnAddress { .. } | Self::TooManyRules => None,
        }
    }
}
