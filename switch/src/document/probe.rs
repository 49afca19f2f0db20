// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets to be simulated: as bytes, or as what their headers say.
//!
//! ```json
//! { "direction": "out", "tuple": "tcp 10.0.0.1:1234 > 10.0.0.2:80", "fields": { "eth_dst": "52:54:00:00:00:02", "vlan": "100" } }
//! { "direction": "in", "packet": "525400000002 525400000001 0800 4500..." }
//! ```

use core::net::IpAddr;

use packet::{EtherType, Field, MacAddr};

use super::error::{DocumentError, Problem};
use super::fields::{Fields, Place, plain};
use super::node;
use super::rule::DIRECTIONS;
use crate::condition::{Condition, IpVersion, Key, Subject, Value};
use crate::model::{Direction, Endpoint};
use crate::text::TextError;

/// Longest packet that is simulated, in bytes.
const MAX_PACKET: usize = 1 << 16;
const TUPLE: &str = "a five-tuple such as \"tcp 10.0.0.1:1234 > 10.0.0.2:80\"";
const HEX: &str = "a packet in hexadecimal, with headers that can be read";
const ICMP: u128 = 1;
const ICMPV6: u128 = 58;

/// A packet to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which way it goes.
    pub direction: Direction,
    /// What it is.
    pub key: Key,
}

impl Probe {
    /// Reads JSON.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        let node = node::from_json(text)?;
        let place = Place::ROOT;
        let fields = Fields::new(&node, &place, &["direction", "packet", "tuple", "fields"])?;
        let direction = fields.required("direction", fields.word("direction", DIRECTIONS.0, &DIRECTIONS.1)?)?;
        if let Some(text) = fields.text("packet")? {
            if fields.has("tuple") || fields.has("fields") {
                return Err(fields.error(Problem::ExactlyOne(&["packet", "tuple"])));
            }
            let key = of_bytes(text).ok_or_else(|| bad(&fields, "packet", text, HEX))?;
            return Ok(Self { direction, key });
        }
        if !fields.has("tuple") && !fields.has("fields") {
            return Err(fields.error(Problem::ExactlyOne(&["packet", "tuple"])));
        }
        let mut key = Key::default();
        if let Some(text) = fields.text("tuple")? {
            key = of_tuple(text).ok_or_else(|| bad(&fields, "tuple", text, TUPLE))?;
        }
        if let Some(node) = fields.get("fields") {
            let place = place.key("fields");
            for member in Fields::unchecked(node, &place)?.members() {
                let place = place.key(&member.key);
                let mistyped = Problem::Type { found: member.node.kind(), wanted: "a string or a number" };
                let text = plain(&member.node).ok_or_else(|| place.error(member.at, mistyped))?;
                set(&mut key, &member.key, &text).map_err(|error| place.error(member.at, error))?;
            }
        }
        Ok(Self { direction, key })
    }
}

fn bad(fields: &Fields<'_, '_>, key: &str, text: &str, wanted: &'static str) -> DocumentError {
    let found = text.chars().take(60).collect();
    fields.fault(key, Problem::Bad { found, wanted })
}

/// Sets a field as a condition would say it; only what is one value can be set.
fn set(key: &mut Key, name: &str, text: &str) -> Result<(), TextError> {
    let condition = Condition::from_text(name, [text])?;
    let subject = condition.subject();
    let value = match *condition.values() {
        [Value::Exact(value)] => value,
        [Value::Prefix { version, value, len }] if u32::from(len) == version.bits() => {
            set_version(key, subject, version);
            value
        }
        // A VLAN id of any priority: of that priority which most packets have.
        [Value::Range { lo, hi }, ..] if lo == hi => lo,
        _ => return Err(TextError::Value { subject, text: text.to_owned(), expected: "one value" }),
    };
    key.set(subject, value);
    Ok(())
}

/// What a packet with such an address is.
fn set_version(key: &mut Key, subject: Subject, version: IpVersion) {
    let (number, ether_type) = match version {
        IpVersion::V4 => (4, EtherType::IPV4),
        IpVersion::V6 => (6, EtherType::IPV6),
        IpVersion::Arp => (0, EtherType::ARP),
    };
    if let Some(field) = subject.ip_version() {
        key.ufid.set(field, number);
        if field == Field::IpVersion {
            key.ufid.set(Field::EtherType, ether_type.0.into());
        }
    }
}

/// `tcp 10.0.0.1:1234 > 10.0.0.2:80`. Of ICMP it is an echo request.
fn of_tuple(text: &str) -> Option<Key> {
    let (protocol, ends) = text.trim().split_once(' ')?;
    let (source, destination) = ends.split_once('>')?;
    let (source, destination): (Endpoint, Endpoint) = (source.trim().parse().ok()?, destination.trim().parse().ok()?);
    if source.address.is_ipv4() != destination.address.is_ipv4() {
        return None;
    }
    let mut key = Key::default();
    set(&mut key, "ip_proto", protocol).ok()?;
    for (field, end) in [(Field::IpSrc, source), (Field::IpDst, destination)] {
        let (version, value) = match end.address {
            IpAddr::V4(address) => (IpVersion::V4, address.to_bits().into()),
            IpAddr::V6(address) => (IpVersion::V6, address.to_bits()),
        };
        set_version(&mut key, Subject::Field(field), version);
        key.ufid.set(field, value);
    }
    let port = |end: Endpoint| u128::from(end.port.unwrap_or(0));
    let (source_port, destination_port) = match key.ufid.get(Field::IpProto) {
        ICMP => (port(source), 8 << 8),
        ICMPV6 => (port(source), 128 << 8),
        _ => (port(source), port(destination)),
    };
    key.ufid.set(Field::L4Src, source_port);
    key.ufid.set(Field::L4Dst, destination_port);
    Some(key)
}

fn of_bytes(text: &str) -> Option<Key> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace() && *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low)).collect::<Result<_, _>>().ok()?;
    let len = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_PACKET)?;
    let window = bytes.get(..bytes.len().min(packet::WINDOW))?;
    let parsed = packet::parse::parse(window, len).ok()?;
    Some(Key { ufid: parsed.ufid, ..Key::default() })
}

/// What a packet's headers say, one text for each field that is not 0.
#[must_use]
pub fn describe(key: &Key) -> Vec<(String, String)> {
    let fields = Field::ALL.into_iter().map(Subject::Field);
    let subjects = fields.chain((0..8).map(Subject::Register)).filter(|subject| key.get(*subject) != 0);
    subjects.map(|subject| (subject.to_string(), describe_one(key, subject))).collect()
}

fn describe_one(key: &Key, subject: Subject) -> String {
    let value = key.get(subject);
    if let Some(version) = subject.ip_version() {
        let [.., a, b, c, d] = value.to_be_bytes();
        return if key.ufid.get(version) == 6 {
            IpAddr::from(value.to_be_bytes()).to_string()
        } else {
            IpAddr::from([a, b, c, d]).to_string()
        };
    }
    if let Subject::Field(Field::Vlan | Field::SecondVlan | Field::OuterVlan) = subject {
        let priority = value >> 13;
        let id = value & 0x0fff;
        return if priority == 0 { id.to_string() } else { format!("tag:{value:#x}") };
    }
    if let Subject::Field(Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc) = subject {
        let [.., a, b, c, d, e, f] = value.to_be_bytes();
        return MacAddr([a, b, c, d, e, f]).to_string();
    }
    let condition = Condition::new(subject, vec![Value::Exact(value)]);
    condition.ok().and_then(|condition| condition.to_text().pop()).unwrap_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Result<String, String> {
        let probe = Probe::from_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let fields: Vec<_> = describe(&probe.key).into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        Ok(format!("{:?}: {}", probe.direction, fields.join(" ")))
    }

    #[test]
    fn packets_are_tuples_fields_or_bytes() {
        for (text, expected) in [
            (
                r#"{"direction":"out","tuple":"tcp 10.0.0.1:1234 > 10.0.0.2:80"}"#,
                "Out: ether_type=ipv4 ip_version=4 src_ip=10.0.0.1 dst_ip=10.0.0.2 ip_proto=tcp src_port=1234 dst_port=80",
            ),
            (
                r#"{"direction":"in","tuple":"udp [fd00::1]:5 > [fd00::2]:6","fields":{"vlan":100,"eth_src":"52:54:00:00:00:01"}}"#,
                "In: eth_src=52:54:00:00:00:01 ether_type=ipv6 vlan=100 ip_version=6 src_ip=fd00::1 dst_ip=fd00::2 ip_proto=udp src_port=5 dst_port=6",
            ),
            (
                r#"{"direction":"in","tuple":"icmp 10.0.0.1 > 10.0.0.2"}"#,
                "In: ether_type=ipv4 ip_version=4 src_ip=10.0.0.1 dst_ip=10.0.0.2 ip_proto=icmp dst_port=2048",
            ),
            (r#"{"direction":"out","fields":{"dst_ip":"arp 10.0.0.1"}}"#, "Out: ether_type=arp dst_ip=10.0.0.1"),
            (
                r#"{"direction":"in","packet":"525400000002 525400000001 0800 45000021 00000000 40 11 0000 0a000001 0a000002 0005 0006 000d 0000 0102030405"}"#,
                "In: eth_dst=52:54:00:00:00:02 eth_src=52:54:00:00:00:01 ether_type=ipv4 ip_version=4 src_ip=10.0.0.1 dst_ip=10.0.0.2 ip_proto=udp src_port=5 dst_port=6",
            ),
        ] {
            assert_eq!(described(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for (text, expected) in [
            (r#"{"tuple":"tcp 10.0.0.1:1 > 10.0.0.2:2"}"#, r#""direction" is missing"#),
            (r#"{"direction":"in"}"#, r#"one of "packet" or "tuple" must be there, and no more than one"#),
            (
                r#"{"direction":"in","tuple":"tcp 10.0.0.1:1"}"#,
                r#"tuple: "tcp 10.0.0.1:1" is not a five-tuple such as "tcp 10.0.0.1:1234 > 10.0.0.2:80""#,
            ),
            (
                r#"{"direction":"in","tuple":"tcp 10.0.0.1 > fd00::1"}"#,
                r#"tuple: "tcp 10.0.0.1 > fd00::1" is not a five-tuple such as "tcp 10.0.0.1:1234 > 10.0.0.2:80""#,
            ),
            (
                r#"{"direction":"in","packet":"0x"}"#,
                r#"packet: "0x" is not a packet in hexadecimal, with headers that can be read"#,
            ),
            (r#"{"direction":"in","fields":{"dst_port":"1-2"}}"#, r#"fields.dst_port: "1-2" is not one value"#),
        ] {
            assert_eq!(described(text), Err(expected.to_owned()), "{text}");
        }
    }
}
