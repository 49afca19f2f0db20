// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which frames a port with a fixed address may send.

use packet::{Burst, DropCause, EthernetHeader, MacAddr, Verdict};

/// Drops the pending packets of a burst whose source is not `mac`. Those that are too short to have a
/// source are left to whoever forwards.
#[inline]
pub fn admit(burst: &mut Burst, mac: MacAddr) {
    let own = mac.to_bits();
    for packet in burst.judge() {
        let foreign = |header: EthernetHeader<'_>| header.source_bits() != own;
        if *packet.verdict == Verdict::Pending && EthernetHeader::parse(packet.window).is_some_and(foreign) {
            *packet.verdict = Verdict::Drop(DropCause::SpoofedSource);
        }
    }
}

#[cfg(test)]
mod tests {
    use packet::{Offload, PortId};

    use super::*;

    #[test]
    fn only_the_ports_own_source_passes() {
        let own = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut burst = Burst::new();
        for (source, len) in [(own, 60), (MacAddr([2, 0, 0, 0, 0, 2]), 60), (MacAddr::BROADCAST, 14), (own, 13)] {
            let window = burst.push(PortId(0), len, Offload::NONE, 0).unwrap();
            window.fill(0);
            window[6..12].copy_from_slice(&source.0);
        }
        burst.set_verdict(0, Verdict::Flood);
        let window = burst.push(PortId(0), 60, Offload::NONE, 0).unwrap();
        window.fill(0);
        burst.set_verdict(4, Verdict::Drop(DropCause::PolicyBlock));
        admit(&mut burst, own);
        let spoofed = Verdict::Drop(DropCause::SpoofedSource);
        let blocked = Verdict::Drop(DropCause::PolicyBlock);
        assert_eq!(burst.verdicts(), [Verdict::Flood, spoofed, spoofed, Verdict::Pending, blocked]);
    }
}
