// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is read from and changed in an IP header of each packet: TTL, ECN, DSCP, IPv4 checksum.

use super::{
    Ecn, Header, Ttl,
    ecn::{ABSENT, REFUSED},
};
use crate::{
    DropCause,
    checksum::{self, Sum},
};

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

/// How the ECN field of a header changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EcnEdit {
    /// Not at all.
    Keep,
    /// To this code point.
    Set(u8),
    /// As [`Ecn::decapsulate`] has it.
    Decapsulate,
    /// As a table says.
    Table,
}

impl EcnEdit {
    /// The one for a header that keeps its code point under `keep`, for a flow of which it is known which
    /// headers there are.
    pub(super) fn new(ecn: &Ecn, keep: &Ecn, inner: bool, outer: bool) -> Self {
        let map = |ecn: &Ecn| EcnMap::new(ecn, inner, outer);
        let wanted = map(ecn);
        if wanted == map(keep) {
            Self::Keep
        } else if inner && outer && wanted == map(&Ecn::decapsulate()) {
            Self::Decapsulate
        } else {
            (0..4).find(|point| wanted == map(&Ecn::set(*point))).map_or(Self::Table, Self::Set)
        }
    }

    /// The code point for a packet whose header has `own`.
    fn of(self, own: u8, marks: &Marks, table: Option<&EcnMap>) -> Result<u8, DropCause> {
        match self {
            Self::Keep => Ok(own),
            Self::Set(point) => Ok(point),
            Self::Decapsulate => match (marks.inner.ecn, marks.outer.ecn) {
                (NOT_ECT, CE) => Err(DropCause::EcnNotCapable),
                (ECT_0, ECT_1) => Ok(ECT_1),
                (ECT_0 | ECT_1, CE) => Ok(CE),
                (inner, _) => Ok(inner),
            },
            Self::Table => table.map_or(Ok(own), |table| table.of(marks)),
        }
    }
}

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Changes of an IP header that stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpEdit {
    /// What changed addresses add to a sum that covers them.
    pub(super) addresses: u16,
    /// 4 or 6; 0 if there is nothing to change but addresses of IPv6.
    pub(super) version: u8,
    /// [`KEEP_DSCP`], or the new one.
    pub(super) dscp: u8,
    pub(super) ttl: Option<Ttl>,
    pub(super) ecn: EcnEdit,
}

/// In [`IpEdit::dscp`]: it does not change.
pub(super) const KEEP_DSCP: u8 = 0xff;

impl IpEdit {
    /// Whether nothing but addresses changes.
    pub(super) fn is_only_addresses(&self) -> bool {
        self.dscp == KEEP_DSCP && self.ttl.is_none() && self.ecn == EcnEdit::Keep
    }

    /// Changes the header. `table` is for [`EcnEdit::Table`], `grown` what is added to its length.
    #[inline(always)]
    pub(super) fn apply(
        &self,
        header: &mut [u8; 20],
        marks: &Marks,
        table: Option<&EcnMap>,
        grown: i16,
    ) -> Result<(), DropCause> {
        if self.version == 4 && grown == 0 && self.is_only_addresses() {
            let [_, _, _, _, _, _, _, _, _, _, check_0, check_1, ..] = header;
            let sum = u16::from_be_bytes([*check_0, *check_1]);
            [*check_0, *check_1] = checksum::grown(sum, self.addresses, 0).to_be_bytes();
            return Ok(());
        }
        match self.version {
            4 => self.apply_v4(header, marks, table, grown),
            6 => self.apply_v6(header, marks, table, grown),
            _ => Ok(()),
        }
    }

    /// The traffic class with the new DSCP and ECN 0.
    const fn class(&self, old: u8) -> u8 {
        if self.dscp == KEEP_DSCP { old & !3 } else { self.dscp << 2 }
    }

    #[inline(never)]
    fn apply_v4(
        &self,
        header: &mut [u8; 20],
        marks: &Marks,
        table: Option<&EcnMap>,
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
        let new_class = self.class(*class) | self.ecn.of(*class & 3, marks, table)?;
        let word = |class| u16::from_be_bytes([*version, class]);
        [_, *class] = change(word(*class), word(new_class));
        let new_ttl = self.ttl.map_or(*ttl, |new| new.of(marks));
        [*ttl, _] = change(u16::from_be_bytes([*ttl, *proto]), u16::from_be_bytes([new_ttl, *proto]));
        let len = u16::from_be_bytes([*len_0, *len_1]);
        [*len_0, *len_1] = change(len, len.checked_add_signed(grown).ok_or(DropCause::TooBig)?);
        [*check_0, *check_1] = sum.checksum().to_be_bytes();
        Ok(())
    }

    #[inline(never)]
    fn apply_v6(
        &self,
        header: &mut [u8; 20],
        marks: &Marks,
        table: Option<&EcnMap>,
        grown: i16,
    ) -> Result<(), DropCause> {
        let [version, class, _, _, len_0, len_1, _, hop_limit, ..] = header;
        let old = *version << 4 | *class >> 4;
        let new = self.class(old) | self.ecn.of(old & 3, marks, table)?;
        (*version, *class) = (*version & 0xf0 | new >> 4, *class & 0x0f | new << 4);
        *hop_limit = self.ttl.map_or(*hop_limit, |new| new.of(marks));
        let len = u16::from_be_bytes([*len_0, *len_1]);
        [*len_0, *len_1] = len.checked_add_signed(grown).ok_or(DropCause::TooBig)?.to_be_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_that_need_no_table_are_what_their_table_says() {
        let set = (0..4).map(Ecn::set);
        let named = [Ecn::inner(), Ecn::outer(), Ecn::encapsulate(), Ecn::decapsulate(), Ecn::compatibility()];
        for ecn in named.into_iter().chain(set) {
            for keep in [Ecn::inner(), Ecn::outer()] {
                let edit = EcnEdit::new(&ecn, &keep, true, true);
                let table = EcnMap::new(&ecn, true, true);
                for (inner, outer) in (0..16).map(|pair| (pair >> 2, pair & 3)) {
                    let marks = Marks { inner: Mark { ttl: 0, ecn: inner }, outer: Mark { ttl: 0, ecn: outer } };
                    let own = keep.of(inner, outer);
                    assert_eq!(edit.of(own, &marks, Some(&table)), table.of(&marks), "{edit:?}: {inner} in {outer}");
                }
            }
        }
        assert_eq!(EcnEdit::new(&Ecn::decapsulate(), &Ecn::inner(), true, true), EcnEdit::Decapsulate);
        assert_eq!(EcnEdit::new(&Ecn::set(2), &Ecn::inner(), true, false), EcnEdit::Set(2));
        assert_eq!(EcnEdit::new(&Ecn::encapsulate(), &Ecn::inner(), true, false), EcnEdit::Keep);
    }
}
