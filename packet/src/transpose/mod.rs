// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Header transpositions (VFP, 5.2): what policy does to a packet's headers, as a value.
//!
//! # Theory of operation
//!
//! A [`Transposition`] says what each header group becomes, in terms of the packet as it came. So several,
//! of layers that know nothing of each other, compose to one ([`then`](Transposition::then)), which is
//! compiled for a flow ([`compile`](Transposition::compile)) and applied once to each of its packets
//! ([`Program::apply`]). What differs between packets of one flow (TTL, ECN, lengths, checksums) is read and
//! computed when it is applied; all else is known from the flow's [`Ufid`](crate::Ufid) and turned into
//! literal bytes.
//!
//! A transposition also says, by what it changes, which packets it is for: an address can be set in an IP
//! header only. A composition is for those that every part was for in its turn, though a change may have
//! been undone since; it keeps that beside the changes. Where no packet is left, it is an error.
//!
//! | file | what it has |
//! |---|---|
//! | `value.rs`, `ecn.rs` | what a field may be set to |
//! | `outer.rs`, `vlans.rs` | changes of the outer group and of VLAN tags |
//! | `needs.rs` | which packets a transposition is for |
//! | `compose.rs`, `reverse.rs` | `then`, `after`, `reverse` |
//! | `compile.rs` | what is known of one flow turned into literal bytes |
//! | `program.rs`, `ends.rs`, `header.rs`, `front.rs` | applying: stores, addresses and ports, IP headers, moving the front |
//!
//! Each layer matches what those before it left ([`after`](Transposition::after)). A tunnel inside a tunnel
//! that is popped stays unseen until somebody parses the packet again.
//!
//! Not done: taking off a GRE tunnel that carries IP (the frame would have no Ethernet header), IPv6
//! routing headers (the last destination is taken to be in the header), and transports with a pseudo header
//! other than TCP, UDP and ICMPv6 (UDP-Lite, DCCP). Of an oversized frame the lengths are those of the whole
//! until the [`Segmenter`](crate::Segmenter) cuts it, what was pushed onto it included. What ICMP errors embed is for [`rewrite_embedded`](crate::icmp::rewrite_embedded).

mod compile;
mod compose;
mod ecn;
mod ends;
mod front;
mod header;
mod needs;
mod outer;
mod program;
mod reverse;
mod rewrite;
mod value;
mod vlans;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "low bits are meant, and test frames are short")]
mod tests;

use std::collections::BTreeMap;

use self::needs::Needs;
pub use self::{
    ecn::Ecn,
    outer::{Encap, Outer, OuterEdit},
    program::Program,
    rewrite::Rewrite,
    value::{Header, Ttl, Value},
    vlans::{Tag, Vlans},
};
use crate::Field;

/// What is done to a packet's headers; the default is nothing.
///
/// ```
/// use packet::{Field, Ufid, transpose::{Transposition, Value}};
/// let flow = Ufid::ZERO.with(Field::IpVersion, 4).with(Field::IpProto, 17);
/// let nat = Transposition::default().with(Field::IpSrc, Value::Ipv4([192, 0, 2, 1].into()));
/// let both = nat.then(&Transposition::default().with(Field::L4Src, Value::Number(4000)))?;
/// assert_eq!(both.after(&flow)?.get(Field::IpSrc), 0xc000_0201);
/// assert_eq!(both.after(&flow)?.get(Field::L4Src), 4000);
/// # Ok::<(), packet::transpose::TransposeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transposition {
    /// What is done to the outer group.
    pub outer: Outer,
    /// New values of inner fields: MAC and IP addresses, DSCP, ports. The ports of later fragments, which
    /// have none, are passed over.
    pub fields: BTreeMap<Field, Value>,
    /// What is done to the inner VLAN tags.
    pub vlans: Vlans,
    /// The new inner TTL, if it is to change.
    pub ttl: Option<Ttl>,
    /// The new inner ECN; [`Ecn::inner`] leaves it as it is, and so does everything in what is not IP.
    pub ecn: Ecn,
    /// What a packet must be like for changes that the composition undid or overwrote.
    undone: Needs,
}

/// A transposition that a flow's packets, or any, cannot undergo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransposeError {
    /// A value that does not fit the field, or a field that cannot be set there.
    #[error("{} cannot be set so", .0.label())]
    BadValue(Field),
    /// A pushed group without two literal addresses of one version, or of a kind that cannot be pushed.
    #[error("an outer group must be VXLAN, NVGRE or Geneve between two literal addresses of one version")]
    BadEncap,
    /// The outer group is needed and absent, or the other way round.
    #[error("an outer group to change or pop must be there, and must not when one is pushed")]
    Outer,
    /// The outer group has not the IP version or VLAN tag that is to be changed.
    #[error("the outer group has another IP version, or no VLAN tag")]
    OuterKind,
    /// The inner group has no Ethernet header.
    #[error("the inner group has no Ethernet header")]
    NoEthernet,
    /// The inner packet is not IP, or of another version.
    #[error("the packet is not IP, or of another version than the address")]
    Version,
    /// The inner packet has no such port.
    #[error("the packet has no such port")]
    NoPort,
    /// There are too few VLAN tags to change, or there would be more than two.
    #[error("too few VLAN tags to change, or more than two")]
    Vlans,
    /// The TTL has expired in every packet.
    #[error("the TTL would be spent in every packet")]
    TtlExpires,
    /// The layout is not one of this flow's packets.
    #[error("the layout is not one of this flow's packets")]
    Layout,
}

impl Default for Transposition {
    fn default() -> Self {
        Self {
            outer: Outer::Ignore,
            fields: BTreeMap::new(),
            vlans: Vlans::default(),
            ttl: None,
            ecn: Ecn::inner(),
            undone: Needs::default(),
        }
    }
}

impl Transposition {
    /// Puts an outer group on.
    #[must_use]
    pub fn push(encap: Encap) -> Self {
        Self { outer: Outer::Push(encap), ..Self::default() }
    }

    /// Takes the outer group off; its congestion marks live on in the inner header (RFC 6040).
    #[must_use]
    pub fn pop() -> Self {
        Self { outer: Outer::Pop, ecn: Ecn::decapsulate(), ..Self::default() }
    }

    /// The same with an inner field set, or one of an outer group that stays or is pushed here.
    #[must_use]
    pub fn with(mut self, field: Field, value: Value) -> Self {
        if needs::is_outer(field) {
            match &mut self.outer {
                Outer::Ignore => {
                    let fields = BTreeMap::from([(field, value)]);
                    self.outer = Outer::Modify(OuterEdit { fields, ..OuterEdit::default() });
                }
                Outer::Modify(OuterEdit { fields, .. })
                | Outer::Push(Encap { fields, .. })
                | Outer::Replace(Encap { fields, .. }) => {
                    fields.insert(field, value);
                }
                // Kept where it will be refused.
                Outer::Pop => drop(self.fields.insert(field, value)),
            }
        } else {
            self.fields.insert(field, value);
        }
        self
    }

    /// The same with something else done to the outer group.
    #[must_use]
    pub fn with_outer(mut self, outer: Outer) -> Self {
        self.outer = outer;
        self
    }

    /// The same with another rule for the inner ECN.
    #[must_use]
    pub const fn with_ecn(mut self, ecn: Ecn) -> Self {
        self.ecn = ecn;
        self
    }

    /// The same with another inner TTL.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The same with other VLAN changes.
    #[must_use]
    pub fn with_vlans(mut self, vlans: Vlans) -> Self {
        self.vlans = vlans;
        self
    }

    /// Whether it leaves every packet that it is for as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.fields.is_empty()
            && matches!(self.outer, Outer::Ignore)
            && self.ttl.is_none()
            && self.vlans.is_nothing()
            && self.ecn == Ecn::inner()
    }

    /// Whether it is the default: it leaves every packet as it is, and none is too odd for it.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.is_identity() && self.undone == Needs::default()
    }
}
