// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Actions: `{ type = "allow", stateful = true, idle_s = 240 }`.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use packet::{DropCause, Tunnel};

use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place};
use super::node::{Node, Value};
use super::transpose;
use crate::condition::REGISTERS;
use crate::model::{Action, Balance, Destination, Encap, Endpoint, Nat, Source, Stateful};

/// How long a connection is remembered where a rule does not say it.
pub const DEFAULT_IDLE_S: NonZeroU32 = NonZeroU32::new(240).unwrap();

pub(super) const ADDRESS: &str = "an IP address";
const MAC: &str = "a MAC address";
const ENDPOINT: &str = "an IP address, or an address and a port such as \"10.0.0.1:80\" or \"[fd00::1]:80\"";
const TYPES: &[&str] =
    &["allow", "balance", "block", "count", "decap", "dscp", "ecmp", "encap", "hairpin", "nat", "set", "transpose"];
const CAUSES: &[&str] = &["policy_block"];
pub(super) const TUNNELS: (&[&str], [Tunnel; 3]) =
    (&["vxlan", "nvgre", "geneve"], [Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve]);
/// The key of each register.
const META: [&str; REGISTERS] = ["meta0", "meta1", "meta2", "meta3", "meta4", "meta5", "meta6", "meta7"];

pub(super) fn read(node: &Node<'_>, place: &Place<'_>) -> Result<Action, DocumentError> {
    let fields = Fields::unchecked(node, place)?;
    let text = fields.required("type", fields.text("type")?)?;
    Ok(match text {
        "allow" => {
            fields.only(&["type", "stateful", "idle_s"])?;
            let stateful = fields.truth("stateful")?.unwrap_or(false);
            if !stateful && fields.has("idle_s") {
                return Err(fields.fault("idle_s", Problem::Pointless("stateful = true")));
            }
            Action::Allow { stateful: stateful.then(|| idle(&fields)).transpose()? }
        }
        "balance" => {
            fields.only(&["type", "backends", "idle_s"])?;
            let backends = fields.required("backends", fields.all("backends", ENDPOINT)?)?;
            Action::Balance(Balance { backends, stateful: idle(&fields)? })
        }
        "block" => {
            fields.only(&["type", "cause"])?;
            // Other causes are the switch's own: a rule that used them would make its drops look like faults.
            let cause = fields.word("cause", CAUSES, &[DropCause::PolicyBlock])?;
            Action::Block { cause: cause.unwrap_or(DropCause::PolicyBlock) }
        }
        "count" => fields.only(&["type"]).map(|()| Action::Count)?,
        "decap" => fields.only(&["type"]).map(|()| Action::Decap)?,
        "dscp" => {
            fields.only(&["type", "value"])?;
            Action::Dscp(fields.required("value", fields.integer("value", 0, 63)?)?)
        }
        "ecmp" => {
            fields.only(&["type", "routers"])?;
            Action::Ecmp(fields.required("routers", fields.all("routers", MAC)?)?)
        }
        "encap" => encap(&fields)?,
        "hairpin" => {
            fields.only(&["type", "to"])?;
            Action::Hairpin { to: fields.name("to")? }
        }
        "nat" => nat(&fields)?,
        "set" => set(&fields)?,
        "transpose" => Action::Transpose { transposition: Arc::new(transpose::read(&fields, place)?) },
        other => return Err(fields.fault("type", Problem::UnknownValue { found: other.to_owned(), known: TYPES })),
    })
}

fn idle(fields: &Fields<'_, '_>) -> Result<Stateful, DocumentError> {
    let idle_s = fields.integer::<u32>("idle_s", 1, u32::MAX.into())?.and_then(NonZeroU32::new);
    Ok(Stateful { idle_s: idle_s.unwrap_or(DEFAULT_IDLE_S) })
}

fn encap(fields: &Fields<'_, '_>) -> Result<Action, DocumentError> {
    fields.only(&["type", "tunnel", "vni", "source", "destination", "map"])?;
    fields.exactly_one(&["destination", "map"])?;
    let destination = match fields.name("map")? {
        Some(map) => Destination::Mapped(map),
        None => Destination::Among(fields.all("destination", ADDRESS)?.unwrap_or_default()),
    };
    Ok(Action::Encap(Encap {
        tunnel: fields.required("tunnel", fields.word("tunnel", TUNNELS.0, &TUNNELS.1)?)?,
        vni: fields.integer("vni", 0, (1 << 24) - 1)?,
        source: fields.required("source", fields.parsed("source", ADDRESS)?)?,
        destination,
    }))
}

fn nat(fields: &Fields<'_, '_>) -> Result<Action, DocumentError> {
    fields.only(&["type", "source", "source_ranges", "destination", "idle_s"])?;
    let source = match (fields.parsed("source", ENDPOINT)?, fields.name("source_ranges")?) {
        (Some(_), Some(_)) => return Err(fields.error(Problem::ExactlyOne(&["source", "source_ranges"]))),
        (Some(endpoint), None) => Some(Source::Fixed(endpoint)),
        (None, ranges) => ranges.map(Source::Ranges),
    };
    let destination = fields.parsed("destination", ENDPOINT)?;
    Ok(Action::Nat(Nat { source, destination, stateful: idle(fields)? }))
}

fn set(fields: &Fields<'_, '_>) -> Result<Action, DocumentError> {
    fields.only(&["type", "meta0", "meta1", "meta2", "meta3", "meta4", "meta5", "meta6", "meta7"])?;
    fields.exactly_one(&META)?;
    for (register, key) in (0..).zip(META) {
        if let Some(value) = fields.u32(key)? {
            return Ok(Action::SetRegister { register, value });
        }
    }
    Err(fields.error(Problem::ExactlyOne(&META)))
}

pub(super) fn write(action: &Action) -> Node<'_> {
    let of_type = |name, more: Vec<(&'static str, Node<'static>)>| {
        Node::table(std::iter::once(("type", Node::text(name))).chain(more))
    };
    let idle = |stateful: &Stateful| ("idle_s", Node::integer(stateful.idle_s.get()));
    match action {
        Action::Allow { stateful: None } => of_type("allow", Vec::new()),
        Action::Allow { stateful: Some(stateful) } => {
            of_type("allow", vec![("stateful", Value::Truth(true).into()), idle(stateful)])
        }
        Action::Balance(Balance { backends, stateful }) => {
            let backends = Node::texts(backends.iter().map(Endpoint::to_string));
            of_type("balance", vec![("backends", backends), idle(stateful)])
        }
        Action::Block { .. } => of_type("block", Vec::new()),
        Action::Count => of_type("count", Vec::new()),
        Action::Decap => of_type("decap", Vec::new()),
        Action::Dscp(value) => of_type("dscp", vec![("value", Node::integer(*value))]),
        Action::Ecmp(routers) => {
            of_type("ecmp", vec![("routers", Node::texts(routers.iter().map(ToString::to_string)))])
        }
        Action::Encap(Encap { tunnel, vni, source, destination }) => {
            let mut more = vec![("tunnel", Node::text(tunnel_word(*tunnel)))];
            more.extend(vni.map(|vni| ("vni", Node::integer(vni))));
            more.push(("source", Node::text(source.to_string())));
            more.push(match destination {
                Destination::Among(far) => ("destination", Node::texts(far.iter().map(IpAddr::to_string))),
                Destination::Mapped(map) => ("map", Node::text(map.to_string())),
            });
            of_type("encap", more)
        }
        Action::Hairpin { to } => of_type("hairpin", to.iter().map(|to| ("to", Node::text(to.to_string()))).collect()),
        Action::Nat(Nat { source, destination, stateful }) => {
            let mut more = Vec::new();
            more.extend(source.as_ref().map(|source| match source {
                Source::Fixed(endpoint) => ("source", Node::text(endpoint.to_string())),
                Source::Ranges(name) => ("source_ranges", Node::text(name.to_string())),
            }));
            more.extend(destination.map(|endpoint| ("destination", Node::text(endpoint.to_string()))));
            more.push(idle(stateful));
            of_type("nat", more)
        }
        Action::SetRegister { register, value } => {
            let key = META.get(usize::from(*register)).copied().unwrap_or("meta");
            of_type("set", vec![(key, Node::integer(*value))])
        }
        Action::Transpose { transposition } => of_type("transpose", transpose::write(transposition)),
    }
}

pub(super) fn tunnel_word(tunnel: Tunnel) -> &'static str {
    TUNNELS.0.iter().zip(TUNNELS.1).find(|(_, known)| *known == tunnel).map_or("none", |(word, _)| word)
}

/// Text that is no [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {ENDPOINT}")]
pub struct BadEndpoint;

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, port: None });
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let plain = match socket {
                SocketAddr::V4(_) => true,
                SocketAddr::V6(socket) => socket.scope_id() == 0,
            };
            return if plain { Ok(Self { address: socket.ip(), port: Some(socket.port()) }) } else { Err(BadEndpoint) };
        }
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or(BadEndpoint)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| BadEndpoint)?;
        Ok(Self { address: address.into(), port: None })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn endpoints_are_addresses_with_or_without_port() {
        let v4 = Ipv4Addr::new(10, 0, 0, 1);
        for (text, address, port) in [
            ("10.0.0.1", IpAddr::from(v4), None),
            ("10.0.0.1:80", v4.into(), Some(80)),
            ("fd00::1", "fd00::1".parse().unwrap(), None),
            ("[fd00::1]:80", "fd00::1".parse().unwrap(), Some(80)),
        ] {
            assert_eq!(text.parse(), Ok(Endpoint { address, port }), "{text}");
            assert_eq!(Endpoint { address, port }.to_string(), text);
        }
        assert_eq!("[fd00::1]".parse::<Endpoint>().unwrap().port, None);
        for text in ["", "10.0.0.1:", "10.0.0.1:70000", "[fe80::1%3]:80", "host:80"] {
            assert_eq!(text.parse::<Endpoint>(), Err(BadEndpoint), "{text}");
        }
    }
}
