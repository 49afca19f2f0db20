// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bridge keeps about each port.

use packet::PortId;

/// Indexed by port number, all of them: memory of numbers never used is never touched.
#[derive(Debug)]
pub(super) struct Ports {
    /// Stations in the table that were last seen at the port.
    entries: Vec<u32>,
    /// Was removed: nothing is learnt at it, however late the news arrives.
    retired: Vec<bool>,
    /// Has a fixed address: nothing is learnt at it.
    fixed: Vec<bool>,
}

impl Ports {
    pub(super) fn new() -> Self {
        const ALL: usize = u16::MAX as usize + 1;
        Self { entries: vec![0; ALL], retired: vec![false; ALL], fixed: vec![false; ALL] }
    }

    pub(super) fn entries(&self, port: PortId) -> u32 {
        self.entries.get(port.index()).copied().unwrap_or_default()
    }

    pub(super) fn enter(&mut self, port: PortId) {
        if let Some(entries) = self.entries.get_mut(port.index()) {
            *entries = entries.saturating_add(1);
        }
    }

    pub(super) fn leave(&mut self, port: PortId) {
        if let Some(entries) = self.entries.get_mut(port.index()) {
            *entries = entries.saturating_sub(1);
        }
    }

    pub(super) fn is_retired(&self, port: PortId) -> bool {
        self.retired.get(port.index()).copied().unwrap_or_default()
    }

    pub(super) fn is_fixed(&self, port: PortId) -> bool {
        self.fixed.get(port.index()).copied().unwrap_or_default()
    }

    pub(super) fn fix(&mut self, port: PortId) {
        if let Some(fixed) = self.fixed.get_mut(port.index()) {
            *fixed = true;
        }
    }

    /// Retires a port. Returns how many stations were at it; none are now.
    pub(super) fn retire(&mut self, port: PortId) -> u32 {
        if let Some(retired) = self.retired.get_mut(port.index()) {
            *retired = true;
        }
        if let Some(fixed) = self.fixed.get_mut(port.index()) {
            *fixed = false;
        }
        self.entries.get_mut(port.index()).map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn reinstate(&mut self, port: PortId) {
        if let Some(retired) = self.retired.get_mut(port.index()) {
            *retired = false;
        }
    }
}
