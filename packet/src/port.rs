// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports by number.

use std::fmt;

/// A port of the node.
///
/// The node numbers ports; a number is only a name. A number that was freed should be given away
/// again as late as possible, because packets and announcements that name it may still be on their
/// way between workers. The highest number is never given away, see [`PortId::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The number no port has.
    pub const NONE: Self = Self(u16::MAX);

    /// The number as an index into a table of ports.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
