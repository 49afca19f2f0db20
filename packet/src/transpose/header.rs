// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is read from and changed in an IP header of each packet: TTL, ECN, DSCP, IPv4 checksum.

use super::{
    Ecn, Header, Ttl,
    ecn::{ABSENT, REFUSED},
};
use crate::{DropCause, checksum::Sum};

/// What a packet's IP headers say as it came; 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) inner: Mark,
    pub(super) outer: Mark,
}

/// TTL or hop limit, and ECN.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) ttl: u8,
    pub(super) ecn: u8,
}

impl Mark {
    /// Those of the header at an offset.
    pub(super) fn read(window: &[u8], at: usize, version: u8) -> Option<Self> {
        let header: &[u8; 20] = window.get(at..)?.first_chunk()?;
        let [_, class, _, _, _, _, _, hop_limit, ttl, ..] = *header;
        Some(match version {
            4 => Self { ttl, ecn: class & 3 },
            _ => Self { ttl: hop_limit, ecn: class >> 4 & 3 },
        })
    }
}

impl Ttl {
    /// The value for a packet. That it suffices was checked.
    pub(super) const fn of(self, marks: &Marks) -> u8 {
        match self {
            Self::Literal(ttl) => ttl,
            Self::Minus(Header::Inner, spent) => marks.inner.ttl.saturating_sub(spent),
            Self::Minus(Header::Outer, spent) => marks.outer.ttl.saturating_sub(spent),
        }
    }
}

/// [`Ecn`] for a flow of which it is known which headers there are: four bits for each pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EcnMap(u64);

impl EcnMap {
    pub(super) fn new(ecn: &Ecn, inner: bool, outer: bool) -> Self {
        let pairs = (0..4).flat_map(|i| (0..4).map(move |o| (i, o)));
        let results = pairs.map(|(i, o)| ecn.of(if inner { i } else { ABSENT }, if outer { o } else { ABSENT }));
        Self(results.zip((0..64).step_by(4)).fold(0, |map, (to, shift)| map | u64::from(to).wrapping_shl(shift)))
    }

    /// The code point for a packet.
    pub(super) const fn of(self, marks: &Marks) -> Result<u8, DropCause> {
        let shift = (marks.inner.ecn as u32 & 3) << 4 | (marks.outer.ecn as u32 & 3) << 2;
        let to = (self.0.wrapping_shr(shift) & 7) as u8;
        if to == REFUSED { Err(DropCause::EcnNotCapable) } else { Ok(to & 3) }
    }
}

/// Changes of an IP header that stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpEdit {
    pub(super) ecn: EcnMap,
    /// What changed addresses add to the sum of an IPv4 header.
    pub(super) addresses: u16,
    /// 4 or 6; 0 if there is nothing to change.
    pub(super) version: u8,
    pub(super) dscp: Option<u8>,
    pub(super) ttl: Option<Ttl>,
    /// Whether `ecn` changes anything.
    pub(super) sets_ecn: bool,
}

impl IpEdit {
    /// Changes the header at an offset. `grown` is what is added to its length.
    pub(super) fn apply(&self, window: &mut [u8], at: usize, marks: &Marks, grown: i16) -> Result<(), DropCause> {
        let header = window.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(DropCause::HeaderBeyondWindow)?;
        let mark = |old: u8| if self.sets_ecn { self.ecn.of(marks) } else { Ok(old) };
        match self.version {
            4 => self.apply_v4(header, marks, mark, grown),
            6 => self.apply_v6(header, marks, mark, grown),
            _ => Ok(()),
        }
    }

    fn apply_v4(
        &self,
        header: &mut [u8; 20],
        marks: &Marks,
        mark: impl Fn(u8) -> Result<u8, DropCause>,
        grown: i16,
    ) -> Result<(), DropCause> {
        let [version, class, len_0, len_1, _, _, _, _, ttl, proto, check_0, check_1, ..] = header;
        let mut sum = Sum::new();
        sum.add_value(!u16::from_be_bytes([*check_0, *check_1]));
        sum.add_value(self.addresses);
        let mut change = |old: u16, new: u16| {
            if old != new {
                sum.add_value(!old);
                sum.add_value(new);
            }
            new.to_be_bytes()
        };
        let new_class = self.dscp.map_or(*class & !3, |dscp| dscp << 2) | mark(*class & 3)?;
        let word = |class| u16::from_be_bytes([*version, class]);
        [_, *class] = change(word(*class), word(new_class));
        let new_ttl = self.ttl.map_or(*ttl, |new| new.of(marks));
        [*ttl, _] = change(u16::from_be_bytes([*ttl, *proto]), u16::from_be_bytes([new_ttl, *proto]));
        let len = u16::from_be_bytes([*len_0, *len_1]);
        [*len_0, *len_1] = change(len, len.checked_add_signed(grown).ok_or(DropCause::TooBig)?);
        [*check_0, *check_1] = sum.checksum().to_be_bytes();
        Ok(())
    }

    fn apply_v6(
        &self,
        header: &mut [u8; 20],
        marks: &Marks,
        mark: impl Fn(u8) -> Result<u8, DropCause>,
        grown: i16,
    ) -> Result<(), DropCause> {
        let [version, class, _, _, len_0, len_1, _, hop_limit, ..] = header;
        let old = *version << 4 | *class >> 4;
        let new = self.dscp.map_or(old & !3, |dscp| dscp << 2) | mark(old & 3)?;
        (*version, *class) = (*version & 0xf0 | new >> 4, *class & 0x0f | new << 4);
        *hop_limit = self.ttl.map_or(*hop_limit, |new| new.of(marks));
        let len = u16::from_be_bytes([*len_0, *len_1]);
        [*len_0, *len_1] = len.checked_add_signed(grown).ok_or(DropCause::TooBig)?.to_be_bytes();
        Ok(())
    }
}
