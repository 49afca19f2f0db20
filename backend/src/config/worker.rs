// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[[worker]]`: one poll thread.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Name;

/// One poll thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Unique among workers.
    pub name: Name,
    /// The CPU the thread is pinned to; `None`: it floats.
    pub cpu: Option<usize>,
    /// What the thread does while there is nothing to do.
    pub poll: PollMode,
}

impl WorkerConfig {
    /// The worker of a node whose configuration names none: `w0`, adaptive, not pinned.
    pub fn fallback() -> Self {
        Self { name: Name::from_static("w0"), cpu: None, poll: PollMode::default() }
    }
}

/// What a worker does while its rings are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PollMode {
    /// Poll for a while, then sleep until a guest kicks: no CPU when idle, no kicks under load.
    #[default]
    Adaptive,
    /// Poll always: lowest latency, one CPU spent.
    Busy,
    /// Sleep whenever there is nothing: most kicks, least CPU.
    Interrupt,
}

impl PollMode {
    /// All modes, as they are spelled.
    pub const NAMES: &[&str] = &["busy", "adaptive", "interrupt"];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Busy => "busy",
            Self::Interrupt => "interrupt",
        }
    }
}

impl fmt::Display for PollMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PollMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Adaptive, Self::Busy, Self::Interrupt].into_iter().find(|mode| mode.name() == text).ok_or(())
    }
}
