// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An uplink's interface.

use crate::config::AfPacket;

/// The way to a network.
#[derive(Debug)]
pub(super) struct UplinkLink {
    config: AfPacket,
}

impl UplinkLink {
    pub(super) fn new(config: &AfPacket) -> Self {
        Self { config: config.clone() }
    }
}
