// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of one flow turned into literal bytes and differences of checksums.

use super::{
    Ecn, Encap, Outer, OuterEdit, Program, TransposeError, Transposition,
    ends::{Ends, Kind, TransportEdit},
    front::{Front, Place, PushedHeader},
    header::{EcnEdit, EcnMap, IpEdit, KEEP_DSCP},
    needs,
    program::{Base, Group, INLINE, OuterProgram, Rest},
    reverse::tag_of,
};
use crate::{EtherType, Field, Fragment, Layout, Tunnel, Ufid, checksum::Sum, ufid::VLAN_PRESENT};

impl Transposition {
    /// The program that does this to the packets of one flow, of which one is laid out as `layout` says.
    ///
    /// # Errors
    /// If they cannot undergo it, or the layout is not that of such a packet.
    pub fn compile(&self, ufid: &Ufid, layout: &Layout) -> Result<Program, TransposeError> {
        let needs = self.needs()?;
        let flow = Flow { before: ufid, after: &self.after(ufid)? };
        flow.check(layout)?;
        let mut stores = Stores::default();
        flow.store_macs(&mut stores, Base::Ethernet, [Field::EthDst, Field::EthSrc]);
        self.store_tags(&mut stores, ufid);
        let network = [Field::IpVersion, Field::IpSrc, Field::IpDst];
        let addresses = flow.store_addresses(&mut stores, Base::Network, network);
        let transport = flow.store_transport(&mut stores, addresses);

        let (inner, outer) = (flow.version(Field::IpVersion), flow.version(Field::OuterIpVersion));
        let mut ip = IpEdit {
            addresses,
            version: inner,
            dscp: if flow.changed(Field::Dscp) { flow.dscp(Field::Dscp) } else { KEEP_DSCP },
            ttl: self.ttl,
            ecn: if inner == 0 { EcnEdit::Keep } else { flow.ecn_edit(&self.ecn, &Ecn::inner()) },
        };
        let ends = stores.ends;
        if ip.is_only_addresses() && ends.set & (Ends::SOURCE | Ends::DESTINATION) == 0 {
            ip.version = 0;
        }
        let group = match &self.outer {
            Outer::Ignore if outer != 0 && !self.is_identity() => {
                Group::Kept(self.kept_outer(&flow, &OuterEdit::default(), &mut stores))
            }
            Outer::Modify(edit) => Group::Kept(self.kept_outer(&flow, edit, &mut stores)),
            Outer::Push(encap) | Outer::Replace(encap) => Group::Pushed(flow.pushed(encap)),
            Outer::Ignore | Outer::Pop => Group::None,
        };
        let per_packet = ip.ttl.is_some() || ip.ecn != EcnEdit::Keep || self.outer != Outer::Ignore;
        let read = per_packet || needs.inner_ttl != 0 || needs.outer_ttl != 0;
        let (front, front_bytes) = self.front(&flow).ok_or(TransposeError::Layout)?;
        let (stores_len, bytes, long) = laid_out(&stores.bytes, &front_bytes).ok_or(TransposeError::Layout)?;
        let is_simple = matches!(group, Group::None) && long.is_empty() && ip.ecn != EcnEdit::Table;
        let rest = || Box::new(Rest { bytes: long.into_boxed_slice(), ecn: flow.ecn(&self.ecn), group });
        Ok(Program {
            rest: if is_simple { None } else { Some(rest()) },
            ip,
            transport,
            front,
            reads: if read { (inner, outer) } else { (0, 0) },
            guards: (needs.inner_ttl, needs.outer_ttl),
            ends,
            stores_len,
            bytes,
        })
    }

    /// New values of tags that stay.
    fn store_tags(&self, stores: &mut Stores, ufid: &Ufid) {
        for (index, value) in (self.vlans.pops..).zip(self.vlans.set) {
            if let Some(value) = value {
                let offset = index.saturating_mul(4).saturating_add(14);
                stores.push(Base::Ethernet, offset, &tci(tag_of(value, ufid)));
            }
        }
    }

    /// What the stores do not do to an outer group that stays.
    fn kept_outer(&self, flow: &Flow<'_>, edit: &OuterEdit, stores: &mut Stores) -> OuterProgram {
        flow.store_macs(stores, Base::Front, [Field::OuterEthDst, Field::OuterEthSrc]);
        if edit.fields.contains_key(&Field::OuterVlan) {
            stores.push(Base::Front, 14, &tci(flow.after.get(Field::OuterVlan)));
        }
        let network = [Field::OuterIpVersion, Field::OuterIpSrc, Field::OuterIpDst];
        let addresses = flow.store_addresses(stores, Base::OuterIp, network);
        if flow.changed(Field::TunnelKey) {
            let nvgre = flow.before.get(Field::Tunnel) == Tunnel::Nvgre as u128;
            let (base, offset) = if nvgre { (Base::GreKey, 0) } else { (Base::OuterTransport, 12) };
            stores.push(base, offset, &flow.key());
        }
        let ip = IpEdit {
            addresses,
            version: flow.version(Field::OuterIpVersion),
            dscp: if flow.changed(Field::OuterDscp) { flow.dscp(Field::OuterDscp) } else { KEEP_DSCP },
            ttl: edit.ttl,
            ecn: flow.ecn_edit(&edit.ecn, &Ecn::outer()),
        };
        let grown = i16::try_from(self.vlans.net()).unwrap_or(0).saturating_mul(4);
        OuterProgram { ip, ecn: flow.ecn(&edit.ecn), grown }
    }

    /// How the front moves, and what is put on. `None` only if that is too long, which nothing is.
    fn front(&self, flow: &Flow<'_>) -> Option<(Front, Vec<u8>)> {
        let (place, encap) = match &self.outer {
            Outer::Ignore | Outer::Modify(_) => (Place::Kept, None),
            Outer::Pop => (Place::Inner, None),
            Outer::Push(encap) | Outer::Replace(encap) => (Place::Inner, Some(encap)),
        };
        let moves = place == Place::Inner || self.vlans.pops != 0 || !self.vlans.pushes.is_empty();
        let tags = self.vlans.pushes.iter().rev();
        let tags = tags.flat_map(|tag| tag.tpid.0.to_be_bytes().into_iter().chain(tci(tag_of(tag.tci, flow.before))));
        let mut bytes: Vec<u8> = tags.collect();
        let tags = u8::try_from(bytes.len()).ok()?;
        bytes.extend(encap.map(|encap| flow.pushed_bytes(encap)).unwrap_or_default());
        let header = u8::try_from(bytes.len()).ok()?.checked_sub(tags)?;
        let popped = self.vlans.pops.checked_mul(4)?;
        Some((Front { place: if moves { place } else { Place::Nowhere }, popped, tags, header }, bytes))
    }
}

/// A program's bytes: how many are stores, what fits into the program, and what does not.
fn laid_out(stores: &[u8], front: &[u8]) -> Option<(u8, [u8; INLINE], Vec<u8>)> {
    let mut inline = [0; INLINE];
    let mut long = Vec::new();
    if let Some((to, after)) = inline.split_at_mut_checked(stores.len()) {
        to.copy_from_slice(stores);
        match after.get_mut(..front.len()) {
            Some(to) => to.copy_from_slice(front),
            None => long.extend(front),
        }
    } else {
        long.extend(stores);
        long.extend(front);
    }
    Some((u8::try_from(stores.len()).ok()?, inline, long))
}

/// A flow's identity before and after.
struct Flow<'a> {
    before: &'a Ufid,
    after: &'a Ufid,
}

impl Flow<'_> {
    fn check(&self, layout: &Layout) -> Result<(), TransposeError> {
        let tunnel = layout.outer.map_or(Tunnel::None, |outer| outer.tunnel);
        let later = self.before.get(Field::Fragment) == Fragment::Later as u128;
        let fits = tunnel as u128 == self.before.get(Field::Tunnel)
            && layout.ethernet.is_some() == (tunnel != Tunnel::Gre)
            && layout.vlans == needs::tags(self.before)
            && (self.version(Field::IpVersion) == 0 || layout.network.is_some())
            && (later || self.checksum().is_none() || layout.transport.is_some());
        if fits { Ok(()) } else { Err(TransposeError::Layout) }
    }

    fn changed(&self, field: Field) -> bool {
        self.before.get(field) != self.after.get(field)
    }

    fn version(&self, field: Field) -> u8 {
        u8::try_from(self.before.get(field)).unwrap_or(0)
    }

    fn dscp(&self, field: Field) -> u8 {
        u8::try_from(self.after.get(field)).unwrap_or(0)
    }

    fn has_both(&self) -> (bool, bool) {
        (self.version(Field::IpVersion) != 0, self.version(Field::OuterIpVersion) != 0)
    }

    fn ecn(&self, ecn: &Ecn) -> EcnMap {
        let (inner, outer) = self.has_both();
        EcnMap::new(ecn, inner, outer)
    }

    fn ecn_edit(&self, ecn: &Ecn, keep: &Ecn) -> EcnEdit {
        let (inner, outer) = self.has_both();
        EcnEdit::new(ecn, keep, inner, outer)
    }

    fn key(&self) -> [u8; 3] {
        let [.., a, b, c] = self.after.get(Field::TunnelKey).to_be_bytes();
        [a, b, c]
    }

    fn store_macs(&self, stores: &mut Stores, base: Base, fields: [Field; 2]) {
        for (field, offset) in fields.into_iter().zip([0, 6]) {
            if self.changed(field) {
                stores.push(base, offset, &mac(self.after.get(field)));
            }
        }
    }

    /// Stores changed addresses (version, source, destination); what they add to a sum that covers them.
    fn store_addresses(&self, stores: &mut Stores, base: Base, [version, source, destination]: [Field; 3]) -> u16 {
        let v6 = self.before.get(version) == 6;
        let mut sum = Sum::new();
        for (field, v4_offset, v6_offset) in [(source, 12, 8), (destination, 16, 24)] {
            if self.changed(field) {
                let (old, new) = (self.before.get(field).to_be_bytes(), self.after.get(field).to_be_bytes());
                let ([.., old4], [.., new4]) = (old.as_chunks::<4>().0, new.as_chunks::<4>().0) else { continue };
                let (old, new) = if v6 { (&old[..], &new[..]) } else { (&old4[..], &new4[..]) };
                match (v6, base) {
                    (true, _) => stores.push(base, v6_offset, new),
                    (false, Base::Network) => stores.ends.set_address(field == source, *new4),
                    (false, _) => stores.push(base, v4_offset, new),
                }
                add_change(&mut sum, old, new);
            }
        }
        sum.partial()
    }

    fn store_transport(&self, stores: &mut Stores, addresses: u16) -> TransportEdit {
        let Some((field, pseudo)) = self.checksum() else { return TransportEdit::default() };
        if self.before.get(Field::Fragment) == Fragment::Later as u128 {
            return TransportEdit::default();
        }
        let source = if matches!(self.before.get(Field::IpProto), TCP | UDP) { 0 } else { ECHO_IDENTIFIER };
        let mut sum = Sum::new();
        for (port, offset) in [(Field::L4Src, source), (Field::L4Dst, 2)] {
            if self.changed(port) {
                let [.., a, b] = self.before.get(port).to_be_bytes();
                let [.., c, d] = self.after.get(port).to_be_bytes();
                match offset {
                    ECHO_IDENTIFIER => stores.push(Base::Transport, offset, &[c, d]),
                    _ => stores.ends.set_port(port == Field::L4Src, [c, d]),
                }
                add_change(&mut sum, &[a, b], &[c, d]);
            }
        }
        let kind = match self.before.get(Field::IpProto) {
            UDP => Kind::Optional,
            TCP => Kind::NeverZero,
            _ if pseudo => Kind::Pseudo,
            _ => Kind::Plain,
        };
        let ports = sum.partial();
        let has_ports = stores.ends.set & (Ends::SOURCE_PORT | Ends::DESTINATION_PORT) != 0;
        let is_same = !has_ports && ports == 0 && (!pseudo || addresses == 0);
        TransportEdit { ports, field: if is_same { 0 } else { field }, kind }
    }

    /// Where the transport header has its checksum, and whether that covers a pseudo header.
    fn checksum(&self) -> Option<(u8, bool)> {
        match (self.before.get(Field::IpVersion), self.before.get(Field::IpProto)) {
            (4 | 6, TCP) => Some((16, true)),
            (4 | 6, UDP) => Some((6, true)),
            (4, ICMP) => Some((2, false)),
            (6, ICMPV6) => Some((2, true)),
            _ => None,
        }
    }

    fn pushed(&self, encap: &Encap) -> PushedHeader {
        PushedHeader {
            ecn: self.ecn(&encap.ecn),
            tunnel: encap.tunnel,
            version: encap.version().unwrap_or(0),
            ip: if self.after.get(Field::OuterVlan) != 0 { 18 } else { 14 },
            dscp: self.dscp(Field::OuterDscp),
            ttl: encap.ttl,
        }
    }

    /// A pushed outer group, with zero where its packet decides.
    fn pushed_bytes(&self, encap: &Encap) -> Vec<u8> {
        let after = |field| self.after.get(field);
        let mut bytes = Vec::with_capacity(74);
        bytes.extend(mac(after(Field::OuterEthDst)));
        bytes.extend(mac(after(Field::OuterEthSrc)));
        if after(Field::OuterVlan) != 0 {
            bytes.extend(EtherType::VLAN.0.to_be_bytes());
            bytes.extend(tci(after(Field::OuterVlan)));
        }
        let udp = encap.tunnel != Tunnel::Nvgre;
        let proto = if udp { 17 } else { 47 };
        let addresses = [after(Field::OuterIpSrc).to_be_bytes(), after(Field::OuterIpDst).to_be_bytes()];
        let version = encap.version().unwrap_or(0);
        bytes.extend(if version == 4 { EtherType::IPV4 } else { EtherType::IPV6 }.0.to_be_bytes());
        if version == 4 {
            bytes.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 0, proto, 0, 0]);
            bytes.extend(addresses.iter().flat_map(|address| address.iter().skip(12)));
        } else {
            bytes.extend([0x60, 0, 0, 0, 0, 0, proto, 0]);
            bytes.extend(addresses.as_flattened());
        }
        let [a, b, c] = self.key();
        match encap.tunnel {
            Tunnel::Vxlan => bytes.extend([0, 0, 0x12, 0xb5, 0, 0, 0, 0, 0x08, 0, 0, 0, a, b, c, 0]),
            Tunnel::Geneve => bytes.extend([0, 0, 0x17, 0xc1, 0, 0, 0, 0, 0, 0, 0x65, 0x58, a, b, c, 0]),
            _ => bytes.extend([0x20, 0, 0x65, 0x58, a, b, c, 0]),
        }
        bytes
    }
}

/// A program's stores in the making.
#[derive(Default)]
struct Stores {
    ends: Ends,
    bytes: Vec<u8>,
    last: usize,
}

impl Ends {
    fn set_address(&mut self, is_source: bool, address: [u8; 4]) {
        let [a, b, c, d, e, f, g, h] = &mut self.addresses;
        if is_source {
            [*a, *b, *c, *d] = address;
            self.set |= Self::SOURCE;
        } else {
            [*e, *f, *g, *h] = address;
            self.set |= Self::DESTINATION;
        }
    }

    fn set_port(&mut self, is_source: bool, port: [u8; 2]) {
        let [a, b, c, d] = &mut self.ports;
        if is_source {
            [*a, *b] = port;
            self.set |= Self::SOURCE_PORT;
        } else {
            [*c, *d] = port;
            self.set |= Self::DESTINATION_PORT;
        }
    }
}

impl Stores {
    fn push(&mut self, base: Base, offset: u8, bytes: &[u8]) {
        let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        // What follows the last store is part of it.
        if let Some([last_base, last_offset, last_len, ..]) = self.bytes.get_mut(self.last..)
            && *last_base == base as u8
            && last_offset.checked_add(*last_len) == Some(offset)
        {
            *last_len = last_len.saturating_add(len);
        } else {
            self.last = self.bytes.len();
            self.bytes.extend([base as u8, offset, len]);
        }
        self.bytes.extend(bytes);
    }
}

const TCP: u128 = 6;
const UDP: u128 = 17;
const ICMP: u128 = 1;
const ICMPV6: u128 = 58;
const ECHO_IDENTIFIER: u8 = 4;

fn add_change(sum: &mut Sum, old: &[u8], new: &[u8]) {
    for (old, new) in old.as_chunks().0.iter().zip(new.as_chunks().0) {
        sum.add_value(!u16::from_be_bytes(*old));
        sum.add_value(u16::from_be_bytes(*new));
    }
}

const fn mac(value: u128) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = value.to_be_bytes();
    [a, b, c, d, e, f]
}

/// The tag control information of a tag as an identity holds it; its DEI bit is 0.
const fn tci(tag: u128) -> [u8; 2] {
    let [.., a, b] = tag.to_be_bytes();
    [a & !(VLAN_PRESENT >> 8).to_be_bytes()[1], b]
}
