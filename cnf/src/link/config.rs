// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a link is configured with.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Aggregation, DeviceConfig};

/// What is asked of a link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The device: socket, role, rings, buffers. Its time-out bounds each step of a handshake.
    pub device: DeviceConfig,
    /// When to knock again after a backend was lost.
    pub backoff: Backoff,
    /// Aggregation, if the other end agrees to it. `None`: it is never spoken of, and frames of it are packets like others.
    pub aggregation: Option<Aggregation>,
}

/// Times between two attempts to reach a backend: `first`, then twice as long each time, up to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub most: Duration,
}

impl LinkConfig {
    /// The device of [`DeviceConfig::new`], taking from the backend what it has; plain frames.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let device = DeviceConfig { fallback: true, ..DeviceConfig::new(socket) };
        Self { device, backoff: Backoff::default(), aggregation: None }
    }

    /// With aggregation, if the other end agrees to it. Buffers are made as large as that takes, if they are not larger.
    #[must_use]
    pub fn aggregate(mut self, aggregation: Aggregation) -> Self {
        aggregation.enlarge(&mut self.device);
        self.aggregation = Some(aggregation);
        self
    }
}

impl Backoff {
    /// The time to wait after `failures` failures, at least one.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.most)
    }
}

impl Default for Backoff {
    /// 10 ms, up to a second.
    fn default() -> Self {
        Self { first: Duration::from_millis(10), most: Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_to_its_bound() {
        let backoff = Backoff::default();
        let times: Vec<u128> = [1, 2, 3, 7, 8, 32, 33, u32::MAX].map(|n| backoff.after(n).as_millis()).into();
        assert_eq!(times, [10, 20, 40, 640, 1000, 1000, 1000, 1000]);
    }
}
