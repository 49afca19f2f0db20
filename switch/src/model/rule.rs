// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules: what is matched, and what is done.

use std::num::NonZeroU32;
use std::sync::Arc;

use packet::DropCause;
use packet::transpose::{TransposeError, Transposition};

use crate::Name;
use crate::condition::{Conditions, REGISTERS};

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

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it go on to the next layer.
    Allow {
        /// Whether its connection is remembered, so that the reverse direction is let through by the
        /// connection and not by rules.
        stateful: Option<Stateful>,
    },
    /// Drops it.
    Block {
        /// Under which cause it is counted.
        cause: DropCause,
    },
    /// Writes a metadata register, for the layers behind to match, and lets it go on.
    SetRegister {
        /// Which of the eight.
        register: u8,
        /// The new value.
        value: u32,
    },
    /// Changes headers, and lets the packet go on as it is then (VF-9, VF-16). Packets without those headers
    /// are dropped.
    Transpose {
        /// What is changed.
        transposition: Arc<Transposition>,
    },
}

/// How long a connection is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stateful {
    /// Seconds without a packet after which it is forgotten.
    pub idle_s: NonZeroU32,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No packet at all can undergo the transposition.
    #[error("action: {0}")]
    Transposition(#[from] TransposeError),
    /// There is no such register.
    #[error("action: there are {REGISTERS} registers, counted from 0, and no register {register}")]
    Register {
        /// The number given.
        register: u8,
    },
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
    pub fn check(&self) -> Result<(), RuleError> {
        match &self.action {
            Action::SetRegister { register, .. } if usize::from(*register) >= REGISTERS => {
                Err(RuleError::Register { register: *register })
            }
            // What composes with nothing composes with no packet's.
            Action::Transpose { transposition } => Ok(Transposition::default().then(transposition).map(drop)?),
            _ => Ok(()),
        }
    }
}
