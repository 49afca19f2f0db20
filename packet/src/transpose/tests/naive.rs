// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The oracle: a transposition applied header by header to a frame that is then written anew, every length
//! and checksum computed in full. It shares no code with composing, compiling and applying, and is kept
//! for ever.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::{Frame, Ip, Network, Outer, Sum};
use crate::{
    Field,
    transpose::{self, Header, Transposition, Ttl, Value},
};

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Failure {
    /// The transposition is not for such packets.
    NotFor,
    /// This packet is dropped.
    Dropped,
}

type Result<T> = std::result::Result<T, Failure>;

fn ensure(holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::NotFor) }
}

/// The frame afterwards.
pub(super) fn apply_naively(ht: &Transposition, before: &Frame, hash: u32) -> Result<Frame> {
    let mut frame = before.clone();
    for (field, value) in &ht.fields {
        inner_field(&mut frame, *field, *value, before)?;
    }
    vlans(&mut frame, ht, before)?;
    let mut dropped = false;
    let ip_marks = |frame: &Frame| match &frame.network {
        Network::Ip(ip, _) => ip.ecn,
        Network::Other(..) => 4,
    };
    let marks = (ip_marks(before), before.outer.as_ref().map_or(4, |outer| outer.ip.ecn));
    ensure(before.outer.is_some() || !reads_outer(&ht.ecn))?;
    if let transpose::Outer::Push(encap) = &ht.outer {
        ensure(!reads_outer(&encap.ecn))?;
    }
    let mut mark = |ecn: &transpose::Ecn| {
        let mark = ecn.of(marks.0, marks.1);
        dropped |= mark == 5;
        mark & 3
    };
    let mut expired = false;
    if let Some(value) = ht.ttl {
        let Network::Ip(ip, _) = &mut frame.network else { return Err(Failure::NotFor) };
        ip.ttl = ttl(value, before, &mut expired)?;
    }
    if let Network::Ip(ip, _) = &mut frame.network {
        ip.ecn = mark(&ht.ecn);
    }
    match &ht.outer {
        transpose::Outer::Ignore => {}
        transpose::Outer::Modify(edit) => {
            for (field, value) in &edit.fields {
                let outer = frame.outer.as_mut().ok_or(Failure::NotFor)?;
                ensure(*field != Field::TunnelKey || !before.gre())?;
                ensure(*field != Field::OuterVlan || outer.vlan.is_some())?;
                outer_field(outer, *field, *value, before)?;
            }
            let outer = frame.outer.as_mut().ok_or(Failure::NotFor)?;
            if let Some(value) = edit.ttl {
                outer.ip.ttl = ttl(value, before, &mut expired)?;
            }
            outer.ip.ecn = mark(&edit.ecn);
        }
        transpose::Outer::Pop => {
            ensure(!before.gre())?;
            ensure(frame.outer.take().is_some())?;
        }
        transpose::Outer::Push(encap) | transpose::Outer::Replace(encap) => {
            ensure(frame.outer.is_some() == matches!(ht.outer, transpose::Outer::Replace(_)))?;
            ensure(!before.gre())?;
            let v4 = matches!(encap.fields[&Field::OuterIpSrc], Value::Ipv4(_));
            let nobody: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let word = if v4 { 0x4000 } else { hash & 0xf_ffff };
            let ip = Ip {
                src: nobody,
                dst: nobody,
                dscp: 0,
                ecn: mark(&encap.ecn),
                ttl: ttl(encap.ttl, before, &mut expired)?,
                word,
                options: vec![],
            };
            let mut outer = Outer {
                macs: [[0; 6]; 2],
                vlan: None,
                ip,
                tunnel: encap.tunnel,
                key: 0,
                src_port: 49152 + (hash % 16384) as u16,
                sum: Sum::Zero,
                geneve_options: vec![],
                flow_id: hash as u8,
            };
            for (field, value) in &encap.fields {
                outer_field(&mut outer, *field, *value, before)?;
            }
            frame.outer = Some(outer);
        }
    }
    if expired || dropped { Err(Failure::Dropped) } else { Ok(frame) }
}

fn reads_outer(ecn: &transpose::Ecn) -> bool {
    (0..5).any(|inner| (0..4).any(|outer| ecn.of(inner, outer) != ecn.of(inner, 0)))
}

fn ttl(ttl: Ttl, before: &Frame, expired: &mut bool) -> Result<u8> {
    let (ttl, spent) = match (ttl, &before.network, &before.outer) {
        (Ttl::Literal(ttl), _, _) => return Ok(ttl),
        (Ttl::Minus(Header::Inner, spent), Network::Ip(ip, _), _) => (ip.ttl, spent),
        (Ttl::Minus(Header::Outer, spent), _, Some(outer)) => (outer.ip.ttl, spent),
        _ => return Err(Failure::NotFor),
    };
    *expired |= spent > 0 && ttl <= spent;
    Ok(ttl.saturating_sub(spent))
}

/// The value, if the packet has what it is copied from.
fn value_of(value: Value, before: &Frame) -> Result<u128> {
    let field = match value {
        Value::Number(number) => return Ok(number.into()),
        Value::Ipv4(address) => return Ok(address.to_bits().into()),
        Value::Ipv6(address) => return Ok(address.to_bits()),
        Value::Copy(field) => field,
    };
    if field as u8 >= Field::Tunnel as u8 {
        ensure(before.outer.is_some())?;
    }
    match field {
        Field::EthDst | Field::EthSrc | Field::TunnelKey => ensure(!before.gre())?,
        Field::Vlan => ensure(!before.tags.is_empty())?,
        Field::SecondVlan => ensure(before.tags.len() > 1)?,
        Field::OuterVlan => ensure(before.outer.as_ref().is_some_and(|outer| outer.vlan.is_some()))?,
        Field::L4Src | Field::L4Dst => ensure(has_port(before, field))?,
        _ => {}
    }
    Ok(before.get(field))
}

fn has_port(frame: &Frame, field: Field) -> bool {
    let Network::Ip(_, transport) = &frame.network else { return false };
    transport.later || matches!(transport.proto, 6 | 17) || field == Field::L4Src && transport.echo()
}

fn mac(value: u128) -> [u8; 6] {
    value.to_be_bytes()[10..].try_into().unwrap()
}

fn address(old: IpAddr, value: Value, number: u128) -> Result<IpAddr> {
    ensure(!(matches!(value, Value::Ipv4(_)) && old.is_ipv6() || matches!(value, Value::Ipv6(_)) && old.is_ipv4()))?;
    Ok(if old.is_ipv4() { Ipv4Addr::from_bits(number as u32).into() } else { Ipv6Addr::from_bits(number).into() })
}

fn inner_field(frame: &mut Frame, field: Field, value: Value, before: &Frame) -> Result<()> {
    let number = value_of(value, before)?;
    ensure(!before.gre() || !matches!(field, Field::EthDst | Field::EthSrc))?;
    match field {
        Field::EthDst => frame.macs[0] = mac(number),
        Field::EthSrc => frame.macs[1] = mac(number),
        _ => {
            ensure(!matches!(field, Field::L4Src | Field::L4Dst) || has_port(before, field))?;
            let Network::Ip(ip, transport) = &mut frame.network else { return Err(Failure::NotFor) };
            match field {
                Field::IpSrc => ip.src = address(ip.src, value, number)?,
                Field::IpDst => ip.dst = address(ip.dst, value, number)?,
                Field::Dscp => ip.dscp = number as u8,
                Field::L4Src if !transport.later => transport.src = number as u16,
                Field::L4Dst if !transport.later => transport.dst = number as u16,
                _ => {}
            }
        }
    }
    Ok(())
}

fn outer_field(outer: &mut Outer, field: Field, value: Value, before: &Frame) -> Result<()> {
    let number = value_of(value, before)?;
    match field {
        Field::OuterEthDst => outer.macs[0] = mac(number),
        Field::OuterEthSrc => outer.macs[1] = mac(number),
        Field::OuterVlan => outer.vlan = Some(number as u16 & 0xefff),
        Field::OuterDscp => outer.ip.dscp = number as u8,
        Field::TunnelKey => outer.key = number as u32,
        Field::OuterIpSrc => outer.ip.src = address(outer.ip.src, value, number)?,
        _ => outer.ip.dst = address(outer.ip.dst, value, number)?,
    }
    Ok(())
}

fn vlans(frame: &mut Frame, ht: &Transposition, before: &Frame) -> Result<()> {
    ensure(!before.gre() || ht.vlans == transpose::Vlans::default())?;
    for _ in 0..ht.vlans.pops {
        ensure(!frame.tags.is_empty())?;
        frame.tags.remove(0);
    }
    for (index, value) in ht.vlans.set.iter().enumerate() {
        if let Some(value) = value {
            let number = value_of(*value, before)?;
            frame.tags.get_mut(index).ok_or(Failure::NotFor)?[1] = number as u16 & 0xefff;
        }
    }
    for tag in &ht.vlans.pushes {
        frame.tags.insert(0, [tag.tpid.0, value_of(tag.tci, before)? as u16 & 0xefff]);
    }
    ensure(frame.tags.len() <= 2)
}
