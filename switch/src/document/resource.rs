// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resources, and the entries of maps.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::action::ADDRESS;
use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place, items};
use super::node::{Member, Node, Value};
use super::rule::{label, own_name};
use super::{Content, Entry, PortResource};
use crate::Name;
use crate::model::{self, Answer, Mapping, Mappings, PortRange, ResourceKind};

/// Longest life of a negative answer: a day.
pub const MAX_UNKNOWN_S: u32 = 86_400;

const NS_PER_S: u64 = 1_000_000_000;
const KINDS: (&[&str], [ResourceKind; 2]) = (&["map", "range"], [ResourceKind::Map, ResourceKind::Range]);
const PORTS: &str = "a port or a range of ports such as \"1024-2047\"";

pub(super) fn port_resource(node: &Node<'_>, parent: &Place<'_>, nth: usize) -> Result<PortResource, DocumentError> {
    let label = label(node, nth);
    let place = parent.object("resource", &label);
    let fields = Fields::new(node, &place, &["port", "name", "type", "entries", "ranges"])?;
    Ok(PortResource {
        port: fields.required("port", fields.name("port")?)?,
        name: own_name(&fields, None)?,
        content: content(&fields, &place)?,
    })
}

/// A resource whose port is known; `name` as for groups.
pub(super) fn resource(
    node: &Node<'_>,
    parent: &Place<'_>,
    name: Option<&Name>,
) -> Result<(Name, Content), DocumentError> {
    let label = name.map_or_else(|| label(node, 0), |name| name.as_str().into());
    let place = parent.object("resource", &label);
    let fields = Fields::new(node, &place, &["name", "type", "entries", "ranges"])?;
    Ok((own_name(&fields, name)?, content(&fields, &place)?))
}

fn content(fields: &Fields<'_, '_>, place: &Place<'_>) -> Result<Content, DocumentError> {
    let (map, range) = ("type = \"map\"", "type = \"range\"");
    match fields.required("type", fields.word("type", KINDS.0, &KINDS.1)?)? {
        ResourceKind::Map if fields.has("ranges") => Err(fields.fault("ranges", Problem::Pointless(range))),
        ResourceKind::Range if fields.has("entries") => Err(fields.fault("entries", Problem::Pointless(map))),
        ResourceKind::Map => {
            let entries = fields.get("entries").map(|node| entries(node, &place.key("entries"))).transpose()?;
            Ok(Content::Map(entries.unwrap_or_default()))
        }
        ResourceKind::Range => {
            let Some(node) = fields.get("ranges") else { return Err(fields.error(Problem::Missing("ranges"))) };
            let place = place.key("ranges");
            let ranges: Vec<_> = items(node).iter().map(|item| range_of(item, &place)).collect::<Result<_, _>>()?;
            model::Content::Ranges(ranges.clone().into()).check().map_err(|error| fields.fault("ranges", error))?;
            Ok(Content::Ranges(ranges))
        }
    }
}

fn entries(node: &Node<'_>, place: &Place<'_>) -> Result<BTreeMap<IpAddr, Entry>, DocumentError> {
    let mut entries = BTreeMap::new();
    for member in Fields::unchecked(node, place)?.members() {
        let place = place.key(&member.key);
        let bad = |_| place.error(member.at, Problem::Bad { found: member.key.to_string(), wanted: ADDRESS });
        let address: IpAddr = member.key.parse().map_err(bad)?;
        if entries.insert(address, entry(&member.node, &place)?).is_some() {
            return Err(place.error(member.at, Problem::Duplicate));
        }
    }
    Ok(entries)
}

pub(super) fn entry(node: &Node<'_>, place: &Place<'_>) -> Result<Entry, DocumentError> {
    let fields = Fields::new(node, place, &["address", "vni", "mac", "unknown_s"])?;
    fields.exactly_one(&["address", "unknown_s"])?;
    if let Some(seconds) = fields.integer::<u32>("unknown_s", 1, MAX_UNKNOWN_S.into())?.and_then(NonZeroU32::new) {
        fields.only(&["unknown_s"])?;
        return Ok(Entry::Unknown { seconds });
    }
    Ok(Entry::Known(Mapping {
        address: fields.required("address", fields.parsed("address", ADDRESS)?)?,
        vni: fields.integer("vni", 0, (1 << 24) - 1)?,
        mac: fields.parsed("mac", "a MAC address")?,
    }))
}

fn range_of(node: &Node<'_>, place: &Place<'_>) -> Result<PortRange, DocumentError> {
    let fields = Fields::new(node, place, &["address", "ports"])?;
    let text = match fields.get("ports") {
        Some(node) => super::fields::plain(node).ok_or_else(|| fields.mistyped("ports", node, PORTS))?,
        None => return Err(fields.error(Problem::Missing("ports"))),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let bad = |_| fields.fault("ports", Problem::Bad { found: text.to_string(), wanted: PORTS });
    Ok(PortRange {
        address: fields.required("address", fields.parsed("address", ADDRESS)?)?,
        first: first.trim().parse().map_err(bad)?,
        last: last.trim().parse().map_err(bad)?,
    })
}

pub(super) fn write_port_resource(resource: &PortResource) -> Node<'_> {
    let head = [("port", Node::text(resource.port.as_str())), ("name", Node::text(resource.name.as_str()))];
    Node::table(head.into_iter().chain(write_content(&resource.content)))
}

pub(super) fn write_resource<'a>(name: &'a Name, content: &Content) -> Node<'a> {
    Node::table(std::iter::once(("name", Node::text(name.as_str()))).chain(write_content(content)))
}

fn write_content(content: &Content) -> [(&'static str, Node<'static>); 2] {
    match content {
        Content::Map(entries) => {
            let members = entries.iter().map(|(address, entry)| Member {
                key: address.to_string().into(),
                at: None,
                node: write_entry(entry),
            });
            [("type", Node::text("map")), ("entries", Value::Table(members.collect()).into())]
        }
        Content::Ranges(ranges) => {
            let ranges = ranges.iter().map(|range| {
                let ports = format!("{}-{}", range.first, range.last);
                Node::table([("address", Node::text(range.address.to_string())), ("ports", Node::text(ports))])
            });
            [("type", Node::text("range")), ("ranges", Value::List(ranges.collect()).into())]
        }
    }
}

pub(super) fn write_entry(entry: &Entry) -> Node<'static> {
    match entry {
        Entry::Known(Mapping { address, vni, mac }) => {
            let mut members = vec![("address", Node::text(address.to_string()))];
            members.extend(vni.map(|vni| ("vni", Node::integer(vni))));
            members.extend(mac.map(|mac| ("mac", Node::text(mac.to_string()))));
            Node::table(members)
        }
        Entry::Unknown { seconds } => Node::table([("unknown_s", Node::integer(seconds.get()))]),
    }
}

impl Entry {
    /// As the switch holds it from `now_ns` on.
    #[must_use]
    pub fn answer(&self, now_ns: u64) -> Answer {
        match self {
            Self::Known(mapping) => Answer::Known(*mapping),
            Self::Unknown { seconds } => {
                Answer::Unknown { until_ns: now_ns.saturating_add(u64::from(seconds.get()).saturating_mul(NS_PER_S)) }
            }
        }
    }

    /// As it stands at `now_ns`; `None`: it is not valid any more.
    #[must_use]
    pub fn of(answer: &Answer, now_ns: u64) -> Option<Self> {
        match answer {
            Answer::Known(mapping) => Some(Self::Known(*mapping)),
            Answer::Unknown { until_ns } => {
                let left = until_ns.saturating_sub(now_ns).div_ceil(NS_PER_S);
                let seconds = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX))?;
                Some(Self::Unknown { seconds })
            }
        }
    }
}

impl Content {
    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> ResourceKind {
        match self {
            Self::Map(_) => ResourceKind::Map,
            Self::Ranges(_) => ResourceKind::Range,
        }
    }

    /// As the switch holds it from `now_ns` on. Where `held` is a map that says of an address that it does not exist, and
    /// so does this, the life of that answer stays: to say the same again is no change.
    ///
    /// # Errors
    /// What does not hold together.
    pub fn to_model(&self, now_ns: u64, held: Option<&model::Content>) -> Result<model::Content, model::ResourceError> {
        let entries = match self {
            Self::Ranges(ranges) => return Ok(model::Content::Ranges(Arc::from(ranges.as_slice()))),
            Self::Map(entries) => entries,
        };
        let held = held.and_then(|held| match held {
            model::Content::Map(map) => Some(map),
            model::Content::Ranges(_) => None,
        });
        let mut map = Mappings::default();
        for (address, entry) in entries {
            let kept = held.and_then(|held| held.get(*address)).filter(|answer| {
                let valid = matches!(answer, Answer::Unknown { until_ns } if *until_ns > now_ns);
                valid && matches!(entry, Entry::Unknown { .. })
            });
            map.put(*address, Some(kept.copied().unwrap_or_else(|| entry.answer(now_ns))))?;
        }
        Ok(model::Content::Map(map))
    }

    /// As it stands at `now_ns`.
    #[must_use]
    pub fn of(content: &model::Content, now_ns: u64) -> Self {
        match content {
            model::Content::Ranges(ranges) => Self::Ranges(ranges.to_vec()),
            model::Content::Map(map) => {
                let entries = map.iter().filter_map(|(address, answer)| Some((address, Entry::of(answer, now_ns)?)));
                Self::Map(entries.collect())
            }
        }
    }
}
