// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! User-defined header transpositions (VF-9, VF-16).
//!
//! ```toml
//! action = { type = "transpose", set = { eth_dst = "52:54:00:00:00:01", src_ip = "192.0.2.1", dst_port = { copy = "src_port" } },
//!            ttl = "inner-1", vlan = { pop = 1, push = { id = 100, priority = 3 } },
//!            outer = { push = { tunnel = "vxlan", set = { outer_src_ip = "..", outer_dst_ip = "..", tunnel_key = 7 } } } }
//! ```
//!
//! Every transposition that one such table says is written back as the same table. What only a composition
//! can be (a rule for ECN that has no name) is written as `"custom"`, which cannot be read.

use core::net::IpAddr;
use std::collections::BTreeMap;

use packet::transpose::{Ecn, Encap, Header, Outer, OuterEdit, Tag, Transposition, Ttl, Value as FieldValue, Vlans};
use packet::ufid::VLAN_PRESENT;
use packet::{EtherType, Field, MacAddr};

use super::action::{ADDRESS, TUNNELS, tunnel_word};
use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place, items};
use super::node::{Member, Node, Value};

const INNER: &[&str] = &["eth_dst", "eth_src", "src_ip", "dst_ip", "dscp", "src_port", "dst_port"];
const OUTER: &[&str] =
    &["tunnel_key", "outer_eth_dst", "outer_eth_src", "outer_vlan", "outer_src_ip", "outer_dst_ip", "outer_dscp"];
const ECN: &[&str] = &["inner", "outer", "encapsulate", "compatibility", "decapsulate"];
const TTL: &str = "0 to 255, \"inner\", \"outer\", \"inner-1\" or \"outer-1\"";
const TPID: (&[&str], [EtherType; 2]) = (&["vlan", "service"], [EtherType::VLAN, EtherType::VLAN_SERVICE]);
const DEFAULT_TTL: Ttl = Ttl::Literal(64);

pub(super) fn read(fields: &Fields<'_, '_>, place: &Place<'_>) -> Result<Transposition, DocumentError> {
    fields.only(&["type", "set", "ttl", "ecn", "vlan", "outer"])?;
    let outer = fields.get("outer").map(|node| outer(node, &place.key("outer"))).transpose()?.unwrap_or_default();
    let mut transposition = Transposition::default().with_ecn(default_ecn(&outer)).with_outer(outer);
    transposition.fields = set(fields, place, INNER)?;
    transposition.ttl = ttl(fields)?;
    transposition.ecn = ecn(fields)?.unwrap_or(transposition.ecn);
    if let Some(node) = fields.get("vlan") {
        transposition.vlans = vlans(node, &place.key("vlan"))?;
    }
    Ok(transposition)
}

/// What becomes of congestion marks where nothing is said (RFC 6040): they survive the tunnel.
fn default_ecn(outer: &Outer) -> Ecn {
    if matches!(outer, Outer::Pop | Outer::Replace(_)) { Ecn::decapsulate() } else { Ecn::inner() }
}

fn outer(node: &Node<'_>, place: &Place<'_>) -> Result<Outer, DocumentError> {
    if let Value::Text(text) = &node.value {
        return match &**text {
            "pop" => Ok(Outer::Pop),
            other => Err(place.error(node.at, Problem::UnknownValue { found: other.to_owned(), known: &["pop"] })),
        };
    }
    let fields = Fields::new(node, place, &["modify", "push", "replace"])?;
    fields.exactly_one(&["modify", "push", "replace"])?;
    if let Some(node) = fields.get("modify") {
        let place = place.key("modify");
        let fields = Fields::new(node, &place, &["set", "ttl", "ecn"])?;
        let default = OuterEdit::default();
        let (set, ttl) = (set(&fields, &place, OUTER)?, ttl(&fields)?);
        return Ok(Outer::Modify(OuterEdit { fields: set, ttl, ecn: ecn(&fields)?.unwrap_or(default.ecn) }));
    }
    match (fields.get("push"), fields.get("replace")) {
        (Some(node), _) => Ok(Outer::Push(encap(node, &place.key("push"))?)),
        (None, Some(node)) => Ok(Outer::Replace(encap(node, &place.key("replace"))?)),
        (None, None) => Ok(Outer::Ignore),
    }
}

fn encap(node: &Node<'_>, place: &Place<'_>) -> Result<Encap, DocumentError> {
    let fields = Fields::new(node, place, &["tunnel", "set", "ttl", "ecn"])?;
    Ok(Encap {
        tunnel: fields.required("tunnel", fields.word("tunnel", TUNNELS.0, &TUNNELS.1)?)?,
        fields: set(&fields, place, OUTER)?,
        ttl: ttl(&fields)?.unwrap_or(DEFAULT_TTL),
        ecn: ecn(&fields)?.unwrap_or_else(Ecn::encapsulate),
    })
}

fn set(
    fields: &Fields<'_, '_>,
    place: &Place<'_>,
    known: &'static [&'static str],
) -> Result<BTreeMap<Field, FieldValue>, DocumentError> {
    let Some(node) = fields.get("set") else { return Ok(BTreeMap::new()) };
    let place = place.key("set");
    let table = Fields::new(node, &place, known)?;
    let mut values = BTreeMap::new();
    for member in table.members() {
        // All known keys are fields.
        if let Some(field) = field(&member.key) {
            values.insert(field, value(&member.node, field, &place.key(&member.key))?);
        }
    }
    Ok(values)
}

fn field(label: &str) -> Option<Field> {
    Field::ALL.into_iter().find(|field| field.label() == label)
}

fn value(node: &Node<'_>, to: Field, place: &Place<'_>) -> Result<FieldValue, DocumentError> {
    if let Value::Table(_) = node.value {
        let fields = Fields::unchecked(node, place)?;
        if let Some(text) = fields.text("copy")? {
            fields.only(&["copy"])?;
            let wanted = "the name of a field";
            let bad = || fields.fault("copy", Problem::Bad { found: text.to_owned(), wanted });
            return Ok(FieldValue::Copy(field(text).ok_or_else(bad)?));
        }
        if matches!(to, Field::Vlan | Field::OuterVlan) {
            return tag(&fields, &["id", "priority", "tci"]);
        }
    }
    let wanted = match to {
        Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => "a MAC address",
        Field::IpSrc | Field::IpDst | Field::OuterIpSrc | Field::OuterIpDst => ADDRESS,
        Field::Vlan | Field::OuterVlan => "a VLAN id or a table { id, priority }",
        _ => "a whole number",
    };
    let bad = |found: &str| place.error(node.at, Problem::Bad { found: found.to_owned(), wanted });
    match (&node.value, to) {
        (Value::Integer(id), Field::Vlan | Field::OuterVlan) => match u16::try_from(*id) {
            Ok(id) if id < 4096 => Ok(FieldValue::from(VLAN_PRESENT | id)),
            _ => Err(place.error(node.at, Problem::OutOfRange { found: *id, min: 0, max: 4095 })),
        },
        (Value::Integer(number), _) if wanted == "a whole number" => match u64::try_from(*number) {
            Ok(number) => Ok(FieldValue::Number(number)),
            Err(_) => Err(place.error(node.at, Problem::OutOfRange { found: *number, min: 0, max: i64::MAX })),
        },
        (Value::Text(text), _) if wanted == ADDRESS => Ok(text.parse::<IpAddr>().map_err(|_| bad(text))?.into()),
        (Value::Text(text), _) if wanted == "a MAC address" => {
            Ok(text.parse::<MacAddr>().map_err(|_| bad(text))?.into())
        }
        _ => Err(place.error(node.at, Problem::Type { found: node.kind(), wanted })),
    }
}

/// `{ id = 100, priority = 3 }`, or the field as it is: `{ tci = 0x3064 }`.
fn tag(fields: &Fields<'_, '_>, known: &'static [&'static str]) -> Result<FieldValue, DocumentError> {
    fields.only(known)?;
    fields.exactly_one(&["id", "tci"])?;
    if let Some(tci) = fields.integer::<u64>("tci", 0, u16::MAX.into())? {
        return Ok(FieldValue::Number(tci));
    }
    let id: u16 = fields.integer("id", 0, 4095)?.unwrap_or(0);
    let priority: u16 = fields.integer("priority", 0, 7)?.unwrap_or(0);
    Ok(FieldValue::from(priority << 13 | VLAN_PRESENT | id))
}

fn vlans(node: &Node<'_>, place: &Place<'_>) -> Result<Vlans, DocumentError> {
    let fields = Fields::new(node, place, &["pop", "set", "set_second", "push"])?;
    let one = |key| fields.get(key).map(|node| value(node, Field::Vlan, &place.key(key))).transpose();
    let mut pushes = Vec::new();
    let place = place.key("push");
    for node in fields.get("push").map(items).unwrap_or_default() {
        let (mut tpid, mut tci) = (EtherType::VLAN, None);
        if let Value::Table(_) = node.value {
            let table = Fields::unchecked(node, &place)?;
            tpid = table.word("tpid", TPID.0, &TPID.1)?.unwrap_or(tpid);
            if !table.has("copy") {
                tci = Some(tag(&table, &["id", "priority", "tci", "tpid"])?);
            } else {
                table.only(&["copy", "tpid"])?;
                let from = table.text("copy")?.and_then(field);
                tci = from.map(FieldValue::Copy);
            }
        }
        let tci = tci.map_or_else(|| value(node, Field::Vlan, &place), Ok)?;
        pushes.push(Tag { tpid, tci });
    }
    let pops = fields.integer("pop", 0, 2)?.unwrap_or(0);
    Ok(Vlans { pops, set: [one("set")?, one("set_second")?], pushes })
}

fn ttl(fields: &Fields<'_, '_>) -> Result<Option<Ttl>, DocumentError> {
    let Some(node) = fields.get("ttl") else { return Ok(None) };
    let Value::Text(text) = &node.value else { return Ok(fields.integer("ttl", 0, 255)?.map(Ttl::Literal)) };
    let (header, spent) = text.split_once('-').unwrap_or((text, "0"));
    let header = match header {
        "inner" => Some(Header::Inner),
        "outer" => Some(Header::Outer),
        _ => None,
    };
    match (header, spent.parse()) {
        (Some(header), Ok(spent)) => Ok(Some(Ttl::Minus(header, spent))),
        _ => Err(fields.fault("ttl", Problem::Bad { found: text.to_string(), wanted: TTL })),
    }
}

fn ecn(fields: &Fields<'_, '_>) -> Result<Option<Ecn>, DocumentError> {
    let Some(node) = fields.get("ecn") else { return Ok(None) };
    if let Value::Integer(_) = node.value {
        return Ok(fields.integer("ecn", 0, 3)?.map(Ecn::set));
    }
    fields.word("ecn", ECN, &rules())
}

/// In the order of their names.
fn rules() -> [Ecn; 5] {
    [Ecn::inner(), Ecn::outer(), Ecn::encapsulate(), Ecn::compatibility(), Ecn::decapsulate()]
}

pub(super) fn write(transposition: &Transposition) -> Vec<(&'static str, Node<'static>)> {
    let mut members = Vec::new();
    if !transposition.fields.is_empty() {
        members.push(("set", write_set(&transposition.fields)));
    }
    members.extend(transposition.ttl.map(|ttl| ("ttl", write_ttl(ttl))));
    if transposition.ecn != default_ecn(&transposition.outer) {
        members.push(("ecn", write_ecn(transposition.ecn)));
    }
    if transposition.vlans != Vlans::default() {
        members.push(("vlan", write_vlans(&transposition.vlans)));
    }
    match &transposition.outer {
        Outer::Ignore => {}
        Outer::Pop => members.push(("outer", Node::text("pop"))),
        Outer::Push(encap) => members.push(("outer", Node::table([("push", write_encap(encap))]))),
        Outer::Replace(encap) => members.push(("outer", Node::table([("replace", write_encap(encap))]))),
        Outer::Modify(edit) => members.push(("outer", Node::table([("modify", write_edit(edit))]))),
    }
    members
}

fn write_edit(edit: &OuterEdit) -> Node<'static> {
    let mut members = vec![("set", write_set(&edit.fields))];
    members.extend(edit.ttl.map(|ttl| ("ttl", write_ttl(ttl))));
    if edit.ecn != OuterEdit::default().ecn {
        members.push(("ecn", write_ecn(edit.ecn)));
    }
    Node::table(members)
}

fn write_encap(encap: &Encap) -> Node<'static> {
    let mut members = vec![("tunnel", Node::text(tunnel_word(encap.tunnel))), ("set", write_set(&encap.fields))];
    if encap.ttl != DEFAULT_TTL {
        members.push(("ttl", write_ttl(encap.ttl)));
    }
    if encap.ecn != Ecn::encapsulate() {
        members.push(("ecn", write_ecn(encap.ecn)));
    }
    Node::table(members)
}

fn write_set(fields: &BTreeMap<Field, FieldValue>) -> Node<'static> {
    let members = fields.iter().map(|(field, value)| Member {
        key: field.label().into(),
        at: None,
        node: write_value(*value, *field),
    });
    Value::Table(members.collect()).into()
}

fn write_value(value: FieldValue, to: Field) -> Node<'static> {
    match value {
        FieldValue::Ipv4(address) => Node::text(address.to_string()),
        FieldValue::Ipv6(address) => Node::text(address.to_string()),
        FieldValue::Copy(field) => Node::table([("copy", Node::text(field.label()))]),
        FieldValue::Number(number) => match to {
            Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => {
                let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
                Node::text(MacAddr([a, b, c, d, e, f]).to_string())
            }
            Field::Vlan | Field::OuterVlan => Node::table(write_tag(number)),
            _ => Node::integer(i64::try_from(number).unwrap_or(i64::MAX)),
        },
    }
}

fn write_tag(tci: u64) -> Vec<(&'static str, Node<'static>)> {
    let whole = |number: u64| Node::integer(i64::try_from(number).unwrap_or(i64::MAX));
    if tci & u64::from(VLAN_PRESENT) == 0 || tci > u16::MAX.into() {
        return vec![("tci", whole(tci))];
    }
    let mut members = vec![("id", whole(tci & 0x0fff))];
    if tci >> 13 != 0 {
        members.push(("priority", whole(tci >> 13)));
    }
    members
}

fn write_vlans(vlans: &Vlans) -> Node<'static> {
    let mut members = Vec::new();
    if vlans.pops > 0 {
        members.push(("pop", Node::integer(vlans.pops)));
    }
    for (key, value) in ["set", "set_second"].into_iter().zip(vlans.set) {
        members.extend(value.map(|value| (key, write_value(value, Field::Vlan))));
    }
    if !vlans.pushes.is_empty() {
        let pushes = vlans.pushes.iter().map(|tag| {
            let mut members = match tag.tci {
                FieldValue::Number(tci) => write_tag(tci),
                FieldValue::Copy(field) => vec![("copy", Node::text(field.label()))],
                FieldValue::Ipv4(_) | FieldValue::Ipv6(_) => Vec::new(),
            };
            if tag.tpid == EtherType::VLAN_SERVICE {
                members.push(("tpid", Node::text("service")));
            }
            Node::table(members)
        });
        members.push(("push", Value::List(pushes.collect()).into()));
    }
    Node::table(members)
}

fn write_ttl(ttl: Ttl) -> Node<'static> {
    match ttl {
        Ttl::Literal(ttl) => Node::integer(ttl),
        Ttl::Minus(header, spent) => {
            let header = match header {
                Header::Inner => "inner",
                Header::Outer => "outer",
            };
            if spent == 0 { Node::text(header) } else { Node::text(format!("{header}-{spent}")) }
        }
    }
}

fn write_ecn(ecn: Ecn) -> Node<'static> {
    if let Some(codepoint) = (0..4).find(|codepoint| Ecn::set(*codepoint) == ecn) {
        return Node::integer(codepoint);
    }
    let name = ECN.iter().zip(rules()).find(|(_, rule)| *rule == ecn);
    Node::text(name.map_or("custom", |(name, _)| name))
}
