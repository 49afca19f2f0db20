// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to the outer group.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Ecn, Header, Ttl, Value};
use crate::{Field, MacAddr, Tunnel};

/// What is done to the outer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outer {
    /// Nothing, whether there is one or not.
    #[default]
    Ignore,
    /// Fields of it are set; there must be one.
    Modify(OuterEdit),
    /// It is taken off; there must be one, and it must carry Ethernet.
    Pop,
    /// It is put on; there must be none.
    Push(Encap),
    /// Pop, then push.
    Replace(Encap),
}

/// Changes of an outer group that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterEdit {
    /// Values for `Outer*` fields and the tunnel key. A VLAN tag can be changed, not put on or taken off.
    pub fields: BTreeMap<Field, Value>,
    /// The new TTL, if it is to change.
    pub ttl: Option<Ttl>,
    /// The new ECN; [`Ecn::outer`] leaves it as it is.
    pub ecn: Ecn,
}

/// An outer group to be pushed. Its UDP source port (RFC 7348: 49152 to 65535), NVGRE flow id and IPv6
/// flow label come from the flow hash; lengths and the IPv4 checksum from the packet. Its IPv4 header is
/// atomic (RFC 6864): don't fragment, identification 0. The UDP checksum is 0, which RFC 7348 wants for
/// IPv4 and RFC 6935 allows tunnels over IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encap {
    /// VXLAN, NVGRE or Geneve.
    pub tunnel: Tunnel,
    /// Values of `Outer*` fields and the tunnel key. Both addresses must be there, literally, and of one
    /// version; there is a VLAN tag if its field is there; others are 0.
    pub fields: BTreeMap<Field, Value>,
    /// The TTL.
    pub ttl: Ttl,
    /// The ECN field.
    pub ecn: Ecn,
}

impl Default for OuterEdit {
    fn default() -> Self {
        Self { fields: BTreeMap::new(), ttl: None, ecn: Ecn::outer() }
    }
}

impl OuterEdit {
    /// Whether it changes nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.fields.is_empty() && self.ttl.is_none() && self.ecn == Ecn::outer()
    }
}

impl Encap {
    /// A group between two tunnel ends, with TTL 64, the inner packet's ECN (RFC 6040, normal mode), and no
    /// VLAN tag.
    #[must_use]
    pub fn new(tunnel: Tunnel, key: u32, src: (MacAddr, IpAddr), dst: (MacAddr, IpAddr)) -> Self {
        let fields = BTreeMap::from([
            (Field::OuterEthDst, dst.0.into()),
            (Field::OuterEthSrc, src.0.into()),
            (Field::OuterIpSrc, src.1.into()),
            (Field::OuterIpDst, dst.1.into()),
            (Field::TunnelKey, Value::Number(key.into())),
        ]);
        Self { tunnel, fields, ttl: Ttl::Literal(64), ecn: Ecn::encapsulate() }
    }

    /// The same with another field set.
    #[must_use]
    pub fn with(mut self, field: Field, value: Value) -> Self {
        self.fields.insert(field, value);
        self
    }

    /// The same with the TTL of the inner packet.
    #[must_use]
    pub const fn with_inner_ttl(mut self) -> Self {
        self.ttl = Ttl::Minus(Header::Inner, 0);
        self
    }

    /// The IP version of its addresses; `None` if they disagree or are not there.
    pub(super) fn version(&self) -> Option<u8> {
        match (self.fields.get(&Field::OuterIpSrc)?, self.fields.get(&Field::OuterIpDst)?) {
            (Value::Ipv4(_), Value::Ipv4(_)) => Some(4),
            (Value::Ipv6(_), Value::Ipv6(_)) => Some(6),
            _ => None,
        }
    }
}
