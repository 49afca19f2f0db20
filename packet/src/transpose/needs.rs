// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which packets a transposition is for.

use std::collections::BTreeMap;

use super::{Encap, Header, Outer, TransposeError, Transposition, Ttl, Value, vlans::MAX_TAGS};
use crate::{EtherType, Field, Fragment, Tunnel, Ufid};

/// What a packet must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Whether there must or must not be an outer group.
    pub(super) outer: Option<bool>,
    /// The IP version of the outer group.
    pub(super) outer_version: Option<u8>,
    /// The outer group has a VLAN tag.
    pub(super) outer_vlan: bool,
    /// The inner group has an Ethernet header.
    pub(super) ethernet: bool,
    /// The inner packet is IP, of this version if that is not 0.
    pub(super) version: Option<u8>,
    /// The inner packet has a source port, or is an ICMP echo.
    pub(super) source: bool,
    /// The inner packet has both ports.
    pub(super) ports: bool,
    /// Least and most inner VLAN tags.
    pub(super) vlans: (i32, i32),
    /// No VLAN tag lies behind those that policy sees: a pop would make it appear.
    pub(super) no_third_vlan: bool,
    /// What the inner TTL must exceed, if it is not 0. One too low is no error of the flow: the packet has
    /// expired.
    pub(super) inner_ttl: u8,
    /// What the outer TTL must exceed, if it is not 0.
    pub(super) outer_ttl: u8,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            outer: None,
            outer_version: None,
            outer_vlan: false,
            ethernet: false,
            version: None,
            source: false,
            ports: false,
            vlans: (0, MAX_TAGS.into()),
            no_third_vlan: false,
            inner_ttl: 0,
            outer_ttl: 0,
        }
    }
}

impl Transposition {
    /// Everything that a packet must be like.
    pub(super) fn needs(&self) -> Result<Needs, TransposeError> {
        let mut needs = Needs::default();
        for (field, value) in &self.fields {
            if is_outer(*field) {
                return Err(TransposeError::BadValue(*field));
            }
            needs.field(*field, *value)?;
        }
        self.vlan_needs(&mut needs)?;
        if let Some(ttl) = self.ttl {
            needs.merge_version(0)?;
            needs.ttl(ttl)?;
        }
        if self.ecn.reads_outer() {
            needs.merge_outer(true)?;
        }
        match &self.outer {
            Outer::Ignore => {}
            Outer::Modify(edit) => {
                needs.merge_outer(true)?;
                needs.outer_fields(&edit.fields, true)?;
                edit.ttl.map_or(Ok(()), |ttl| needs.ttl(ttl))?;
            }
            Outer::Pop => {
                needs.merge_outer(true)?;
                needs.ethernet = true;
            }
            Outer::Push(encap) => {
                needs.merge_outer(false)?;
                needs.encap(encap)?;
            }
            Outer::Replace(encap) => {
                needs.merge_outer(true)?;
                needs.ethernet = true;
                needs.encap(encap)?;
            }
        }
        needs.merge(&self.undone)?;
        Ok(needs)
    }

    fn vlan_needs(&self, needs: &mut Needs) -> Result<(), TransposeError> {
        let vlans = &self.vlans;
        if vlans.is_nothing() {
            return Ok(());
        }
        needs.ethernet = true;
        needs.no_third_vlan |= vlans.pops > 0;
        let mut least = i32::from(vlans.pops);
        for (index, value) in (1..).zip(&vlans.set) {
            if let Some(value) = value {
                least = least.max(i32::from(vlans.pops).saturating_add(index));
                needs.field(Field::Vlan, *value)?;
            }
        }
        for tag in &vlans.pushes {
            needs.field(Field::Vlan, tag.tci)?;
            if !tag.tpid.is_vlan() {
                return Err(TransposeError::BadValue(Field::Vlan));
            }
        }
        needs.merge_vlans(least, i32::from(MAX_TAGS).saturating_sub(vlans.net()))
    }
}

impl Needs {
    /// Both.
    pub(super) fn merge(&mut self, other: &Self) -> Result<(), TransposeError> {
        other.outer.map_or(Ok(()), |outer| self.merge_outer(outer))?;
        other.outer_version.map_or(Ok(()), |version| self.merge_outer_version(version))?;
        self.outer_vlan |= other.outer_vlan;
        self.ethernet |= other.ethernet;
        other.version.map_or(Ok(()), |version| self.merge_version(version))?;
        self.source |= other.source;
        self.ports |= other.ports;
        self.merge_vlans(other.vlans.0, other.vlans.1)?;
        self.no_third_vlan |= other.no_third_vlan;
        self.inner_ttl = self.inner_ttl.max(other.inner_ttl);
        self.outer_ttl = self.outer_ttl.max(other.outer_ttl);
        Ok(())
    }

    /// Whether packets of this flow are such, their TTLs aside.
    pub(super) fn check(&self, ufid: &Ufid) -> Result<(), TransposeError> {
        let ensure = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
        let tunnel = ufid.get(Field::Tunnel);
        let version = ufid.get(Field::IpVersion);
        ensure(self.outer.is_none_or(|outer| outer == (tunnel != Tunnel::None as u128)), TransposeError::Outer)?;
        let outer_version = ufid.get(Field::OuterIpVersion);
        ensure(self.outer_version.is_none_or(|v| u128::from(v) == outer_version), TransposeError::OuterKind)?;
        ensure(!self.outer_vlan || ufid.get(Field::OuterVlan) != 0, TransposeError::OuterKind)?;
        ensure(!self.ethernet || tunnel != Tunnel::Gre as u128, TransposeError::NoEthernet)?;
        ensure(
            self.version.is_none_or(|v| version != 0 && (v == 0 || version == u128::from(v))),
            TransposeError::Version,
        )?;
        let (source, both) = ports(ufid);
        ensure(!self.source || source, TransposeError::NoPort)?;
        ensure(!self.ports || both, TransposeError::NoPort)?;
        let tags = i32::from(tags(ufid));
        ensure(self.vlans.0 <= tags && tags <= self.vlans.1, TransposeError::Vlans)?;
        let third = u16::try_from(ufid.get(Field::EtherType)).is_ok_and(|next| EtherType(next).is_vlan());
        ensure(!self.no_third_vlan || !third, TransposeError::Vlans)
    }

    pub(super) fn merge_outer(&mut self, outer: bool) -> Result<(), TransposeError> {
        if *self.outer.get_or_insert(outer) == outer { Ok(()) } else { Err(TransposeError::Outer) }
    }

    pub(super) fn merge_outer_version(&mut self, version: u8) -> Result<(), TransposeError> {
        let known = *self.outer_version.get_or_insert(version);
        if known == version { Ok(()) } else { Err(TransposeError::OuterKind) }
    }

    /// The version, 0 for any.
    fn merge_version(&mut self, version: u8) -> Result<(), TransposeError> {
        match self.version {
            None | Some(0) => self.version = Some(version),
            Some(known) if version != 0 && known != version => return Err(TransposeError::Version),
            Some(_) => {}
        }
        Ok(())
    }

    pub(super) fn merge_vlans(&mut self, least: i32, most: i32) -> Result<(), TransposeError> {
        self.vlans = (self.vlans.0.max(least), self.vlans.1.min(most));
        if self.vlans.0 <= self.vlans.1 { Ok(()) } else { Err(TransposeError::Vlans) }
    }

    /// That the TTL of a header exceeds a number.
    pub(super) fn exceed(&mut self, header: Header, least: u8) {
        let guard = match header {
            Header::Inner => &mut self.inner_ttl,
            Header::Outer => &mut self.outer_ttl,
        };
        *guard = least.max(*guard);
    }

    fn ttl(&mut self, ttl: Ttl) -> Result<(), TransposeError> {
        if let Ttl::Minus(header, spent) = ttl {
            match header {
                Header::Inner => self.merge_version(0)?,
                Header::Outer => self.merge_outer(true)?,
            }
            self.exceed(header, spent);
        }
        Ok(())
    }

    /// What writing a value to a field needs; tags apart.
    fn field(&mut self, field: Field, value: Value) -> Result<(), TransposeError> {
        if !value.fits(field) {
            return Err(TransposeError::BadValue(field));
        }
        match field {
            Field::EthDst | Field::EthSrc => self.ethernet = true,
            Field::IpSrc | Field::IpDst => self.merge_version(match value {
                Value::Ipv4(_) => 4,
                Value::Ipv6(_) => 6,
                _ => 0,
            })?,
            Field::Dscp => self.merge_version(0)?,
            Field::L4Src => self.source = true,
            Field::L4Dst => self.ports = true,
            _ => {}
        }
        match value {
            Value::Copy(Field::EthDst | Field::EthSrc) => self.ethernet = true,
            Value::Copy(Field::L4Src) => self.source = true,
            Value::Copy(Field::L4Dst) => self.ports = true,
            Value::Copy(Field::Vlan) => self.merge_vlans(1, MAX_TAGS.into())?,
            Value::Copy(Field::SecondVlan) => self.merge_vlans(2, MAX_TAGS.into())?,
            Value::Copy(from) if is_outer(from) => {
                self.merge_outer(true)?;
                self.outer_vlan |= from == Field::OuterVlan;
                // The key of GRE has 32 bits.
                self.ethernet |= from == Field::TunnelKey;
            }
            _ => {}
        }
        Ok(())
    }

    fn outer_fields(&mut self, fields: &BTreeMap<Field, Value>, stays: bool) -> Result<(), TransposeError> {
        for (field, value) in fields {
            if !is_outer(*field) {
                return Err(TransposeError::BadValue(*field));
            }
            self.field(*field, *value)?;
            if stays {
                self.outer_vlan |= *field == Field::OuterVlan;
                self.ethernet |= *field == Field::TunnelKey;
                match value {
                    Value::Ipv4(_) => self.merge_outer_version(4)?,
                    Value::Ipv6(_) => self.merge_outer_version(6)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn encap(&mut self, encap: &Encap) -> Result<(), TransposeError> {
        let can = matches!(encap.tunnel, Tunnel::Vxlan | Tunnel::Nvgre | Tunnel::Geneve);
        if !can || encap.version().is_none() {
            return Err(TransposeError::BadEncap);
        }
        if encap.ecn.reads_outer() {
            self.merge_outer(true)?;
        }
        self.outer_fields(&encap.fields, false)?;
        self.ttl(encap.ttl)
    }
}

/// Whether a field is one of the outer group.
pub(super) const fn is_outer(field: Field) -> bool {
    field as u8 >= Field::Tunnel as u8
}

/// How many VLAN tags the inner group has.
pub(super) fn tags(ufid: &Ufid) -> u8 {
    [Field::Vlan, Field::SecondVlan].iter().map(|tag| u8::from(ufid.get(*tag) != 0)).sum()
}

/// Whether packets of a flow have a source port or an echo's identifier, and whether both ports. Later
/// fragments have neither and lack neither.
fn ports(ufid: &Ufid) -> (bool, bool) {
    const TCP: u128 = 6;
    const UDP: u128 = 17;
    let later = ufid.get(Field::Fragment) == Fragment::Later as u128;
    match (ufid.get(Field::IpVersion), ufid.get(Field::IpProto), ufid.get(Field::L4Dst) >> 8) {
        (0, _, _) => (false, false),
        (_, TCP | UDP, _) => (true, true),
        (4, ICMP, 0 | 8) | (6, ICMPV6, 128 | 129) => (true, later),
        _ => (later, later),
    }
}

const ICMP: u128 = 1;
const ICMPV6: u128 = 58;
