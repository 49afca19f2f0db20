// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much a port may hold, and how fast it may come to that.

use std::ops::RangeInclusive;

use super::EngineConfig;
use crate::flow::Handle;

/// How many flows a port may have, and how fast they may begin. What is beyond is decided by who can best be missed: of the
/// confirmed flows those whose connection is over or that were silent for longest, of the others the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows that are confirmed: two for each connection.
    pub confirmed: u32,
    /// Flows that are not: nobody has answered yet.
    pub unconfirmed: u32,
    /// Flows that may begin in a second; the packets of others are dropped.
    pub plans_per_second: u32,
}

impl FlowLimits {
    /// What [`confirmed`](Self::confirmed) can be: from one connection to what half a million take.
    pub const CONFIRMED: RangeInclusive<u32> = 2..=1_000_000;
    /// What [`unconfirmed`](Self::unconfirmed) can be.
    pub const UNCONFIRMED: RangeInclusive<u32> = 1..=48_000;
    /// What [`plans_per_second`](Self::plans_per_second) can be. No worker plans as many as the most.
    pub const PLANS_PER_SECOND: RangeInclusive<u32> = 1..=10_000_000;
}

// Each flow needs a place.
const _: () = assert!((*FlowLimits::CONFIRMED.end() + *FlowLimits::UNCONFIRMED.end()) as usize <= Handle::MAX_PLACES);

impl Default for FlowLimits {
    fn default() -> Self {
        Self { confirmed: 1 << 17, unconfirmed: 1 << 14, plans_per_second: 200_000 }
    }
}

impl EngineConfig {
    /// The same for a port with limits of its own.
    pub(super) const fn limited(self, limits: FlowLimits) -> Self {
        let FlowLimits { confirmed, unconfirmed, plans_per_second } = limits;
        Self { flows: confirmed as usize, small_flows: unconfirmed as usize, plans_per_second, ..self }
    }

    /// Those of a port that has this configuration.
    pub(super) fn limits(&self) -> FlowLimits {
        let number = |flows| u32::try_from(flows).unwrap_or(u32::MAX);
        FlowLimits {
            confirmed: number(self.flows),
            unconfirmed: number(self.small_flows),
            plans_per_second: self.plans_per_second,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { flows: 0, small_flows: 0, plans_per_second: 0, seed: 0 }.limited(FlowLimits::default())
    }
}
