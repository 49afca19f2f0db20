// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ends of a packet, its addresses and ports: what most programs change, with the transport checksum that
//! follows. Each has its place in the program, so that no list is read to find out.

use crate::{Checksum, checksum};

/// New ends of an IPv4 packet: what most programs store, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// Source and destination address, as in the header.
    pub(super) addresses: [u8; 8],
    /// Source and destination port of TCP and UDP, as in the header.
    pub(super) ports: [u8; 4],
    /// Which of these four there are, the first lowest.
    pub(super) set: u8,
}

/// How the inner transport checksum changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TransportEdit {
    /// What changed ports add to the header's sum.
    pub(super) ports: u16,
    /// Where the checksum lies in the header; 0 if it does not change.
    pub(super) field: u8,
    pub(super) kind: Kind,
}

/// Of what kind a transport checksum is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// It covers no addresses: ICMP.
    #[default]
    Plain,
    /// It covers a pseudo header: `ICMPv6`.
    Pseudo,
    /// Likewise, and 0 is sent as 0xffff: TCP.
    NeverZero,
    /// Likewise, and 0 says that there is none: UDP.
    Optional,
}

impl Ends {
    pub(super) const SOURCE: u8 = 1;
    pub(super) const DESTINATION: u8 = 2;
    pub(super) const SOURCE_PORT: u8 = 4;
    pub(super) const DESTINATION_PORT: u8 = 8;

    const fn mask(self, bit: u8) -> u64 {
        if self.set & bit != 0 { u64::MAX } else { 0 }
    }

    #[inline(always)]
    pub(super) fn store_addresses(self, header: &mut [u8; 20]) {
        const FIRST: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        if self.set & (Self::SOURCE | Self::DESTINATION) != 0
            && let Some(field) = header.last_chunk_mut()
        {
            let mask = FIRST & self.mask(Self::SOURCE) | !FIRST & self.mask(Self::DESTINATION);
            let (old, new) = (u64::from_ne_bytes(*field), u64::from_ne_bytes(self.addresses));
            *field = (old & !mask | new & mask).to_ne_bytes();
        }
    }

    #[inline(always)]
    pub(super) fn store_ports(self, header: &mut [u8]) -> Option<()> {
        if self.set & (Self::SOURCE_PORT | Self::DESTINATION_PORT) != 0 {
            let [s0, s1, d0, d1] = header.first_chunk_mut()?;
            if self.set & Self::SOURCE_PORT != 0 {
                [*s0, *s1, ..] = self.ports;
            }
            if self.set & Self::DESTINATION_PORT != 0 {
                [.., *d0, *d1] = self.ports;
            }
        }
        Some(())
    }
}

impl TransportEdit {
    /// `addresses` is what changed addresses add to the pseudo header's sum.
    /// Changes the checksum of the header at an offset. `addresses` is what changed addresses add to the
    /// pseudo header's sum.
    #[inline(always)]
    pub(super) fn apply(self, header: &mut [u8], at: u16, addresses: u16, unfinished: Checksum) -> Option<()> {
        let field: &mut [u8; 2] = header.get_mut(usize::from(self.field)..)?.first_chunk_mut()?;
        let old = u16::from_be_bytes(*field);
        let addresses = if self.kind == Kind::Plain { 0 } else { addresses };
        if unfinished == (Checksum::Unfinished { start: at, offset: self.field.into() }) {
            // The field is the pseudo header's sum; ports will be summed when somebody finishes it.
            *field = (!checksum::grown(!old, addresses, 0)).to_be_bytes();
        } else if !(self.kind == Kind::Optional && old == 0) {
            let new = match (checksum::grown(old, addresses, self.ports), self.kind) {
                (0, Kind::NeverZero | Kind::Optional) => 0xffff,
                (new, _) => new,
            };
            *field = new.to_be_bytes();
        }
        Some(())
    }
}
