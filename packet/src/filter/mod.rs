// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which packets somebody wants to see: a subset of the language of pcap-filter(7).
//!
//! # Theory of operation
//!
//! A text becomes a tree, of bounded length and depth, where there is time; a packet is parsed once and the tree evaluated over its
//! identity ([`Ufid`](crate::Ufid)), without allocation. Bytes are not looked at by offset, so an expression can ask nothing of a packet that
//! [`parse`](crate::parse) does not say.
//!
//! What differs from pcap-filter(7), on purpose:
//!
//! * VLAN tags are looked through: `ip` matches a tagged packet, too, and `vlan` changes nothing of what stands behind it.
//! * Tunnels are looked into: of a packet in a tunnel, addresses (`host`, `net`, `ether host`), `ip`, `ip6` and `vlan` are those of either
//!   group of headers, all else is the inner packet's. `vni N` is the tunnel's.
//! * Each primitive says all its qualifiers: it is `port 80 or port 443`, not `port 80 or 443`.
//! * A packet whose headers cannot be parsed has its Ethernet addresses and type, and nothing else.

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use crate::MacAddr;

/// Longest text of an expression in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most primitives of an expression.
pub const MAX_PRIMITIVES: usize = 64;
/// Deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 16;

/// A compiled expression.
///
/// ```
/// use packet::filter::Filter;
///
/// let filter: Filter = "arp or (host 10.0.0.7 and not tcp port 22)".parse()?;
/// assert!(!filter.matches(&[0; 60], 60));
/// assert!("host".parse::<Filter>().is_err());
/// # Ok::<(), packet::filter::FilterError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Node);

/// Why a text is no expression. Positions are bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Something else stands there.
    #[error("at byte {at}: {found} where {wanted} is expected")]
    Unexpected {
        /// Where.
        at: usize,
        /// What stands there, quoted, or that it is the end.
        found: String,
        /// What could.
        wanted: &'static str,
    },
    /// The bits of a network's address behind its prefix are not all zero.
    #[error("at byte {at}: the address has bits behind its prefix of {prefix}")]
    HostBits {
        /// Where.
        at: usize,
        /// The length of the prefix in bits.
        prefix: u8,
    },
    /// It is longer than [`MAX_TEXT`].
    #[error("the expression has {len} bytes; the most are {MAX_TEXT}")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// It has more primitives than [`MAX_PRIMITIVES`].
    #[error("the expression has more than {MAX_PRIMITIVES} primitives")]
    TooMany,
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error("the expression is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(Self)
    }
}

impl Filter {
    /// Whether a frame of `frame_len` bytes that begins with `window` is one of those asked for. Only the first
    /// [`WINDOW`](crate::WINDOW) bytes are looked at.
    #[must_use]
    pub fn matches(&self, window: &[u8], frame_len: u32) -> bool {
        evaluate::matches(&self.0, window, frame_len)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Is(Primitive),
}

/// Which of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Either,
    Source,
    Destination,
}

/// What is said of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Primitive {
    /// EtherType.
    EtherType(u16),
    Mac(End, MacAddr),
    Multicast,
    /// An IP protocol, of a version or any.
    Protocol(Option<u8>, u8),
    /// Addresses of a version, as [`Ufid`](crate::Ufid) has them, under a mask.
    Network(End, u8, u128, u128),
    /// Ports from one to another, of a protocol, or of TCP and UDP.
    Ports(End, Option<u8>, u16, u16),
    Vlan(Option<u16>),
    Vni(u32),
    /// At least so long.
    Longer(u32),
    /// At most so long.
    Shorter(u32),
}
