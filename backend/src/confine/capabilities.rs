// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Privileges of the thread, and of those that it starts (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::config::Capability;

/// Gives up all capabilities but the wanted ones, for ever: no program that is executed, however it is marked, gets any back. Returns those
/// that are left.
pub(super) fn keep(wanted: impl Iterator<Item = Capability>) -> io::Result<Vec<Capability>> {
    let before = capabilities(None)?;
    let mut kept: Vec<Capability> = wanted.filter(|wanted| before.permitted.contains(bit(*wanted))).collect();
    kept.sort_unstable();
    kept.dedup();
    let left = kept.iter().fold(CapabilitySet::empty(), |set, capability| set | bit(*capability));
    set_no_new_privs(true)?;
    // Bits without a name are capabilities of a later kernel.
    for one in (0..u64::BITS).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no such capability; or the process may not change this set, and then gains nothing by it either, as it may
            // have no new privileges.
            Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })?;
    Ok(kept)
}

/// Of these capabilities, those that the thread does not have.
pub(crate) fn lacking(needed: &[Capability]) -> Vec<Capability> {
    // What cannot be asked is not known to lack.
    let held = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    needed.iter().copied().filter(|needed| !held.contains(bit(*needed))).collect()
}

const fn bit(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        Capability::Bpf => CapabilitySet::BPF,
        Capability::IpcLock => CapabilitySet::IPC_LOCK,
    }
}
