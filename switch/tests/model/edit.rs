// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What actions do to bytes.

use core::net::IpAddr;

use packet::transpose::{Header, Outer, OuterEdit, Transposition, Ttl, Value, Vlans};
use packet::{DropCause, Field, MacAddr, Tunnel};

use crate::wire::{self, Group, View};

/// What a packet cannot undergo.
const CANNOT: DropCause = DropCause::Untransposable;

/// What only the packet decides, not its flow: found when the headers are changed, after all layers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) ttl: bool,
    pub(crate) ecn: bool,
}

impl Spent {
    pub(crate) fn cause(self) -> Option<DropCause> {
        match self {
            Self { ttl: true, .. } => Some(DropCause::TtlExpired),
            Self { ecn: true, .. } => Some(DropCause::EcnNotCapable),
            _ => None,
        }
    }
}

/// What of a pushed header depends on the hash of the flow, as the engine wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowMarks {
    pub(crate) port: u16,
    pub(crate) flow_id: u8,
    pub(crate) label: u32,
}

pub(crate) fn view(bytes: &[u8]) -> View {
    wire::read(bytes).expect("edits leave packets that can be read")
}

pub(crate) fn set_dscp(bytes: &mut [u8], dscp: u8) -> Result<(), DropCause> {
    let inner = view(bytes).inner;
    if inner.ip.is_none() {
        return Err(CANNOT);
    }
    let ecn = wire::class(bytes, &inner) & 3;
    wire::set_class(bytes, &inner, dscp << 2 | ecn);
    wire::mend(bytes);
    Ok(())
}

pub(crate) fn set_mac(bytes: &mut [u8], offset: usize, mac: MacAddr) -> Result<(), DropCause> {
    let at = view(bytes).inner.ethernet.ok_or(CANNOT)? + offset;
    bytes[at..at + 6].copy_from_slice(&mac.0);
    wire::mend(bytes);
    Ok(())
}

/// Takes the tunnel off. What its congestion marks say goes on (RFC 6040, figure 4).
pub(crate) fn decap(bytes: &mut Vec<u8>, spent: &mut Spent) -> Result<(), DropCause> {
    let View { outer, inner } = view(bytes);
    let Some((group, shim)) = outer else { return Err(CANNOT) };
    if shim.tunnel == Tunnel::Gre {
        return Err(CANNOT);
    }
    if inner.ip.is_some() {
        let class = wire::class(bytes, &inner);
        let ecn = match (class & 3, wire::class(bytes, &group) & 3) {
            (0, 3) => {
                spent.ecn = true;
                0
            }
            (2, 1) => 1,
            (1 | 2, 3) => 3,
            (inner, _) => inner,
        };
        wire::set_class(bytes, &inner, class & !3 | ecn);
    }
    bytes.drain(..shim.payload);
    wire::mend(bytes);
    Ok(())
}

/// Puts a tunnel on, between addresses of one version.
pub(crate) fn encap(
    bytes: &mut Vec<u8>,
    tunnel: Tunnel,
    vni: u32,
    [source, destination]: [IpAddr; 2],
    marks: FlowMarks,
) -> Result<(), DropCause> {
    let View { outer, inner } = view(bytes);
    if outer.is_some() || source.is_ipv4() != destination.is_ipv4() {
        return Err(CANNOT);
    }
    let class = if inner.ip.is_some() { wire::class(bytes, &inner) } else { 0 };
    let vni = &vni.to_be_bytes()[1..];
    let mut shim = match tunnel {
        Tunnel::Nvgre => vec![0x20, 0, 0x65, 0x58],
        Tunnel::Geneve => vec![0, 0, 0x65, 0x58],
        _ => vec![0x08, 0, 0, 0],
    };
    shim.extend(vni);
    shim.push(if tunnel == Tunnel::Nvgre { marks.flow_id } else { 0 });
    let protocol = if tunnel == Tunnel::Nvgre { wire::GRE } else { wire::UDP };
    if protocol == wire::UDP {
        let port = if tunnel == Tunnel::Geneve { wire::GENEVE_PORT } else { wire::VXLAN_PORT };
        let len = u16::try_from(8 + shim.len() + bytes.len()).unwrap();
        let udp = [marks.port, port, len, 0].map(u16::to_be_bytes).concat();
        shim.splice(0..0, udp);
    }
    let mut header = vec![0; 12];
    let addresses = [wire::octets(source), wire::octets(destination)].concat();
    let len = shim.len() + bytes.len();
    if source.is_ipv4() {
        let [high, low] = u16::try_from(20 + len).unwrap().to_be_bytes();
        header.extend([8, 0, 0x45, class, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    } else {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        header.extend([0x86, 0xdd]);
        header.extend((6 << 28 | u32::from(class) << 20 | marks.label).to_be_bytes());
        header.extend([high, low, protocol, 64]);
    }
    header.extend(addresses);
    header.extend(shim);
    bytes.splice(0..0, header);
    wire::mend(bytes);
    Ok(())
}

/// Carries out a transposition that a controller wrote. All values are those of the packet as it comes here.
pub(crate) fn transpose(bytes: &mut Vec<u8>, what: &Transposition, spent: &mut Spent) -> Result<(), DropCause> {
    let before = bytes.clone();
    let came = view(&before);
    if let Some(ttl) = what.ttl {
        let new = new_ttl(ttl, &before, &came, spent)?;
        if came.inner.ip.is_none() {
            return Err(CANNOT);
        }
        wire::set_ttl(bytes, &came.inner, new);
    }
    for (field, value) in &what.fields {
        set(bytes, &came.inner, *field, value_of(*value, &before)?)?;
    }
    match &what.outer {
        Outer::Ignore => {}
        Outer::Modify(edit) => modify_outer(bytes, edit, &before, &came, spent)?,
        Outer::Pop => {
            wire::mend(bytes);
            decap(bytes, spent)?;
        }
        other => panic!("{other:?}: policies here have encap for that"),
    }
    change_tags(bytes, &what.vlans, &before)?;
    wire::mend(bytes);
    Ok(())
}

fn new_ttl(ttl: Ttl, before: &[u8], came: &View, spent: &mut Spent) -> Result<u8, DropCause> {
    let (header, minus) = match ttl {
        Ttl::Literal(ttl) => return Ok(ttl),
        Ttl::Minus(Header::Inner, minus) => (Some(&came.inner), minus),
        Ttl::Minus(Header::Outer, minus) => (came.outer.as_ref().map(|(group, _)| group), minus),
    };
    let header = header.filter(|header| header.ip.is_some()).ok_or(CANNOT)?;
    let old = wire::ttl(before, header);
    spent.ttl |= minus != 0 && old <= minus;
    Ok(old.saturating_sub(minus))
}

fn modify_outer(
    bytes: &mut [u8],
    edit: &OuterEdit,
    before: &[u8],
    came: &View,
    spent: &mut Spent,
) -> Result<(), DropCause> {
    let (group, shim) = came.outer.as_ref().ok_or(CANNOT)?;
    for (field, value) in &edit.fields {
        let value = value_of(*value, before)?;
        let field = match field {
            Field::OuterEthDst => Field::EthDst,
            Field::OuterEthSrc => Field::EthSrc,
            Field::OuterIpSrc => Field::IpSrc,
            Field::OuterIpDst => Field::IpDst,
            Field::OuterDscp => Field::Dscp,
            Field::TunnelKey if shim.tunnel == Tunnel::Gre => return Err(CANNOT),
            Field::TunnelKey => {
                let Found::Number(key) = value else { return Err(CANNOT) };
                bytes[shim.key..shim.key + 3].copy_from_slice(&key.to_be_bytes()[5..]);
                continue;
            }
            other => panic!("{other:?}: not among the policies here"),
        };
        set(bytes, group, field, value)?;
    }
    if let Some(ttl) = edit.ttl {
        let new = new_ttl(ttl, before, came, spent)?;
        wire::set_ttl(bytes, group, new);
    }
    Ok(())
}

/// What a value is in a packet.
#[derive(Clone, Copy, Debug)]
enum Found {
    Number(u64),
    Address(IpAddr),
}

fn value_of(value: Value, before: &[u8]) -> Result<Found, DropCause> {
    let came = view(before);
    Ok(match value {
        Value::Number(number) => Found::Number(number),
        Value::Ipv4(address) => Found::Address(address.into()),
        Value::Ipv6(address) => Found::Address(address.into()),
        Value::Copy(field) => match field {
            Field::EthDst | Field::EthSrc if came.inner.ethernet.is_none() => return Err(CANNOT),
            Field::EthDst | Field::EthSrc | Field::Dscp => {
                Found::Number(u64::try_from(wire::field(before, field)).unwrap())
            }
            Field::IpSrc | Field::IpDst => {
                let tuple = ends(before).ok_or(CANNOT)?;
                Found::Address(tuple[usize::from(field == Field::IpDst)])
            }
            other => panic!("{other:?}: not copied by the policies here"),
        },
    })
}

fn ends(bytes: &[u8]) -> Option<[IpAddr; 2]> {
    let version = wire::field(bytes, Field::IpVersion);
    let end = |field| {
        let bits = wire::field(bytes, field);
        match version {
            4 => IpAddr::from(u32::try_from(bits).unwrap().to_be_bytes()),
            _ => IpAddr::from(bits.to_be_bytes()),
        }
    };
    (version != 0).then(|| [end(Field::IpSrc), end(Field::IpDst)])
}

/// Sets a field of a group.
fn set(bytes: &mut [u8], group: &Group, field: Field, value: Found) -> Result<(), DropCause> {
    match (field, value) {
        (Field::EthDst | Field::EthSrc, Found::Number(mac)) => {
            let at = group.ethernet.ok_or(CANNOT)? + if field == Field::EthDst { 0 } else { 6 };
            bytes[at..at + 6].copy_from_slice(&mac.to_be_bytes()[2..]);
        }
        (Field::IpSrc | Field::IpDst, Found::Address(address)) => {
            let which = usize::from(field == Field::IpDst);
            let octets = wire::octets(address);
            let place = wire::place_of_address(group, which).filter(|(_, len)| *len == octets.len());
            let (at, len) = place.ok_or(CANNOT)?;
            bytes[at..at + len].copy_from_slice(&octets);
        }
        (Field::Dscp, Found::Number(dscp)) => {
            if group.ip.is_none() {
                return Err(CANNOT);
            }
            let class = u8::try_from(dscp).unwrap() << 2 | wire::class(bytes, group) & 3;
            wire::set_class(bytes, group, class);
        }
        (Field::L4Src | Field::L4Dst, Found::Number(port)) => {
            let ip = group.ip.as_ref().ok_or(CANNOT)?;
            let offset = match ip.protocol {
                // Later fragments have no ports, and lack none.
                _ if ip.fragment == packet::Fragment::Later => return Ok(()),
                wire::TCP | wire::UDP if field == Field::L4Src => 0,
                wire::TCP | wire::UDP => 2,
                _ if wire::is_echo(bytes, ip) && field == Field::L4Src => 4,
                _ => return Err(CANNOT),
            };
            let at = ip.transport + offset;
            bytes[at..at + 2].copy_from_slice(&port.to_be_bytes()[6..]);
        }
        (field, value) => panic!("{field:?} = {value:?}: not among the policies here"),
    }
    Ok(())
}

/// Takes tags off, changes what is left, puts tags on.
fn change_tags(bytes: &mut Vec<u8>, vlans: &Vlans, before: &[u8]) -> Result<(), DropCause> {
    if *vlans == Vlans::default() {
        return Ok(());
    }
    let came = view(before).inner;
    let tags = came.tags.len();
    let third = matches!(came.ether_type, 0x8100 | 0x88a8);
    let pops = usize::from(vlans.pops);
    let least = pops + vlans.set.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if came.ethernet.is_none() || tags < least || tags - pops + vlans.pushes.len() > 2 || pops > 0 && third {
        return Err(CANNOT);
    }
    let number = |value| match value_of(value, before)? {
        // Of a tag that is set the DEI bit is 0.
        Found::Number(tci) => Ok(u16::try_from(tci & 0xefff).unwrap().to_be_bytes()),
        Found::Address(_) => Err(CANNOT),
    };
    let at = view(bytes).inner.ethernet.unwrap() + 12;
    bytes.drain(at..at + 4 * pops);
    for (index, value) in vlans.set.iter().enumerate() {
        if let Some(value) = value {
            let at = at + 4 * index + 2;
            bytes[at..at + 2].copy_from_slice(&number(*value)?);
        }
    }
    for tag in &vlans.pushes {
        let bytes_of_tag = [tag.tpid.0.to_be_bytes(), number(tag.tci)?].concat();
        bytes.splice(at..at, bytes_of_tag);
    }
    if at > 12 {
        let by = 4 * (i32::try_from(vlans.pushes.len()).unwrap() - i32::from(vlans.pops));
        wire::resize_outer(bytes, by);
    }
    Ok(())
}
