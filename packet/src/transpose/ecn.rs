// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What becomes of explicit congestion notification (RFC 3168) at the ends of a tunnel (RFC 6040).

use std::{array, fmt};

/// The code point of a header that is not there, or is not IP.
pub(super) const ABSENT: u8 = 4;
/// The result of what RFC 6040 has dropped.
pub(super) const REFUSED: u8 = 5;
/// Congestion experienced.
const CE: u8 = 3;
/// Code points and [`ABSENT`].
const MARKS: u8 = 5;

/// A code point as a function of those of the packet as it came, inner and outer. There are so few that
/// the function is its table: composition is a look-up, and equal means equal on every packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ecn([u8; 25]);

impl Ecn {
    /// The inner header's: what an inner header keeps if nothing is done.
    #[must_use]
    pub fn inner() -> Self {
        Self::tabulate(|inner, _| inner)
    }

    /// The outer header's: what an outer header keeps if nothing is done.
    #[must_use]
    pub fn outer() -> Self {
        Self::tabulate(|_, outer| outer)
    }

    /// This one (its low two bits).
    #[must_use]
    pub fn set(codepoint: u8) -> Self {
        Self::tabulate(|_, _| codepoint & CE)
    }

    /// For a pushed header, normal mode (RFC 6040, 4.1): the inner one, Not-ECT of what is not IP.
    #[must_use]
    pub fn encapsulate() -> Self {
        Self::tabulate(|inner, _| if inner == ABSENT { 0 } else { inner })
    }

    /// For a pushed header, compatibility mode (RFC 6040, 4.3): Not-ECT.
    #[must_use]
    pub fn compatibility() -> Self {
        Self::tabulate(|_, _| 0)
    }

    /// For the inner header when the outer one is popped (RFC 6040, figure 4). Congestion on the outer
    /// header of a packet whose sender takes no notice of it is a drop.
    #[must_use]
    pub fn decapsulate() -> Self {
        const ECT_1: u8 = 1;
        const ECT_0: u8 = 2;
        Self::tabulate(|inner, outer| match (inner, outer) {
            (0, CE) => REFUSED,
            (ECT_0, ECT_1) => ECT_1,
            (ECT_0 | ECT_1, CE) => CE,
            _ => inner,
        })
    }

    /// The code point for those of the packet: 0 to 3, [`ABSENT`] or [`REFUSED`].
    #[must_use]
    pub(super) fn of(&self, inner: u8, outer: u8) -> u8 {
        if outer > ABSENT {
            return REFUSED;
        }
        let index = usize::from(inner).saturating_mul(usize::from(MARKS)).saturating_add(usize::from(outer));
        self.0.get(index).copied().unwrap_or(REFUSED)
    }

    /// Whether it needs an outer header to look at.
    #[must_use]
    pub(super) fn reads_outer(&self) -> bool {
        self.0.as_chunks::<5>().0.iter().any(|[first, others @ .., _]| others.iter().any(|other| other != first))
    }

    /// The same for all packets with an outer header, or without: one table for all such functions.
    /// `otherwise` says what is in it for pairs that cannot be.
    pub(super) fn canonical(&self, outer: Option<bool>, otherwise: impl Fn(u8) -> u8) -> Self {
        match outer {
            None => *self,
            Some(true) => Self::tabulate(|i, o| if o == ABSENT { otherwise(i) } else { self.of(i, o) }),
            Some(false) => Self::tabulate(|i, _| self.of(i, ABSENT)),
        }
    }

    /// The function with this table.
    pub(super) fn tabulate(f: impl Fn(u8, u8) -> u8) -> Self {
        let mut pairs = (0..MARKS).flat_map(|inner| (0..MARKS).map(move |outer| (inner, outer)));
        Self(array::from_fn(|_| pairs.next().map_or(REFUSED, |(inner, outer)| f(inner, outer))))
    }
}

impl fmt::Debug for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A digit for each pair, a row for each inner code point.
        f.write_str("Ecn(")?;
        for (i, row) in self.0.as_chunks::<5>().0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { " " })?;
            row.iter().try_for_each(|to| write!(f, "{to}"))?;
        }
        f.write_str(")")
    }
}
