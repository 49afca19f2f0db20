// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A veth pair in a network namespace of its own, for two nodes with an uplink between them.

use std::process::Command;

use anyhow::Result;

use crate::command::{output, program};

/// Its two ends, as the generator is told.
pub(super) const ENDS: &str = "bench0,bench1";

/// The namespace; it goes, and the pair with it, when this is dropped.
pub(super) struct Wire(String);

impl Wire {
    /// Makes the pair, both ends up. Needs root.
    pub(super) fn new(mtu: u32) -> Result<Self> {
        let name = format!("shunt-bench-{}", std::process::id());
        output(program("ip").args(["netns", "add", &name]))?;
        let wire = Self(name);
        let mtu = mtu.to_string();
        let pair = ["add", "bench0", "mtu", &mtu, "type", "veth", "peer", "name", "bench1", "mtu", &mtu];
        output(wire.within("ip").arg("link").args(pair))?;
        for end in ENDS.split(',') {
            // Kernels speak IPv6 on what comes up, and senders on the same machine leave checksums to the device.
            output(wire.within("ip").args(["link", "set", end, "addrgenmode", "none"]))?;
            output(wire.within("ethtool").args(["-K", end, "tx", "off", "txvlan", "off"]))?;
            output(wire.within("ip").args(["link", "set", end, "up"]))?;
        }
        Ok(wire)
    }

    /// A command that runs there.
    pub(super) fn within(&self, name: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = program("ip");
        command.args(["netns", "exec", &self.0]).arg(name);
        command
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Left behind, it is only litter.
        let _ = output(program("ip").args(["netns", "delete", &self.0]));
    }
}
