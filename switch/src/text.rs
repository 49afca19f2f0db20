// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conditions as people write them: `dst_port = ["80", "1000-2000"]`, `src_ip = ["10.0.0.0/8"]`.
//!
//! | subject | a value is | examples |
//! |---|---|---|
//! | IP addresses | an address, a prefix, a range; `arp` before those that ARP speaks of; a bare number of any kind of packet | `10.0.0.1`, `fd00::/8`, `10.0.0.1-10.0.0.9`, `arp 10.0.0.0/8`, `0x0a000001` |
//! | MAC addresses | an address, a range | `52:54:00:00:00:01` |
//! | `vlan`, `second_vlan`, `outer_vlan` | a VLAN id of any priority, a range, `none`; the field itself | `100`, `100-199`, `tag:0x3064` |
//! | `ip_proto`, `ether_type`, `tunnel`, `fragment` | a name, a number, a range | `tcp`, `17`, `arp`, `0x86dd`, `vxlan`, `later` |
//! | all others, `meta0` to `meta7` | a number, a range | `80`, `0x50`, `1000-2000` |
//!
//! Whatever a [`Condition`] says has a text, and the text says the same ([`Condition::to_text`]).
//!
//! `10.0.0.1` is the address of an IPv4 packet, `arp 10.0.0.1` the sender (`src_ip`) or target (`dst_ip`)
//! of an ARP packet. In a rule with `ether_type = ["arp"]` the word may be left out.
//!
//! A range of addresses becomes the fewest prefixes. Groups that select by the longest prefix of the
//! address take no range that is more than one, because the lengths would decide, and nobody chose them.

use core::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use packet::ufid::VLAN_PRESENT;
use packet::{Field, MacAddr};

use crate::condition::{Condition, ConditionError, IpVersion, REGISTERS, Subject, Value};

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The values do not hold together.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// Not a value of this subject.
    #[error("{subject}: {text:?} is not {expected}")]
    Value {
        /// The subject.
        subject: Subject,
        /// What was written.
        text: String,
        /// What its values are.
        expected: &'static str,
    },
    /// There is nothing of this name to match.
    #[error("there is no field {name:?} to match")]
    Unknown {
        /// The name given.
        name: String,
    },
}

impl FromStr for Subject {
    type Err = TextError;

    fn from_str(name: &str) -> Result<Self, TextError> {
        if let Some(field) = Field::ALL.into_iter().find(|field| field.label() == name) {
            return Ok(Self::Field(field));
        }
        let register = name.strip_prefix("meta").filter(|digits| digits.len() == 1).and_then(|n| n.parse().ok());
        match register.filter(|register| usize::from(*register) < REGISTERS) {
            Some(register) => Ok(Self::Register(register)),
            None => Err(TextError::Unknown { name: name.to_owned() }),
        }
    }
}

impl Condition {
    /// The condition that `name` is one of `values`.
    ///
    /// # Errors
    /// What cannot be read, or does not hold together.
    pub fn from_text<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Result<Self, TextError> {
        let subject: Subject = name.parse()?;
        let (mut all, mut spans) = (Vec::new(), false);
        for text in values {
            let expected = expected(subject);
            let values = values_of(subject, text.trim());
            let values = values.ok_or_else(|| TextError::Value { subject, text: text.to_owned(), expected })?;
            spans |= subject.ip_version().is_some() && values.len() > 1;
            all.extend(values);
        }
        let condition = Self::new(subject, all)?;
        Ok(if spans { condition.spanning() } else { condition })
    }
}

impl Condition {
    /// Texts that [`Condition::from_text`] reads as exactly these values.
    #[must_use]
    pub fn to_text(&self) -> Vec<String> {
        let (subject, mut values) = (self.subject(), self.values());
        let mut texts = Vec::with_capacity(values.len());
        while let Some((first, rest)) = values.split_first() {
            match form(subject) {
                Form::Vlan => match vlan_ids(values) {
                    Some((text, rest)) => {
                        texts.push(text);
                        values = rest;
                        continue;
                    }
                    None => texts.push(write_span(*first, |tag| format!("{TAG}{tag:#x}"), |tag| format!("{tag:#x}"))),
                },
                Form::Address => {
                    let (text, left) = if self.spans() { write_span_of_addresses(values) } else { None }
                        .unwrap_or_else(|| (write_address(*first), rest));
                    texts.push(text);
                    values = left;
                    continue;
                }
                Form::Mac => texts.push(write_span(*first, write_mac, write_mac)),
                Form::Named(names) => {
                    let name = |number| match names.iter().find(|(_, value)| *value == number) {
                        Some((name, _)) => (*name).to_owned(),
                        None => number.to_string(),
                    };
                    texts.push(write_span(*first, name, name));
                }
                Form::Number => texts.push(write_span(*first, |n| n.to_string(), |n| n.to_string())),
            }
            values = rest;
        }
        texts
    }
}

/// A value, or two with a dash between them; `first` writes the one or the lower of two.
fn write_span(value: Value, first: impl Fn(u128) -> String, second: impl Fn(u128) -> String) -> String {
    match value {
        Value::Exact(value) => first(value),
        Value::Range { lo, hi } => format!("{}-{}", first(lo), second(hi)),
        // Of addresses only, which are written elsewhere.
        Value::Prefix { .. } => write_address(value),
    }
}

fn write_mac(value: u128) -> String {
    let [.., a, b, c, d, e, f] = value.to_be_bytes();
    MacAddr([a, b, c, d, e, f]).to_string()
}

fn write_address(value: Value) -> String {
    match value {
        Value::Prefix { version, value, len } => {
            let (arp, address) = (arp_word(version), ip_address(version, value));
            if u32::from(len) == version.bits() { format!("{arp}{address}") } else { format!("{arp}{address}/{len}") }
        }
        bare => write_span(bare, |value| format!("{value:#x}"), |value| format!("{value:#x}")),
    }
}

/// The text of the longest range, of at least two prefixes, that `values` begins with, and the values behind it.
fn write_span_of_addresses(values: &[Value]) -> Option<(String, &[Value])> {
    let Value::Prefix { version, value: lo, .. } = *values.first()? else { return None };
    let ends = (2..=values.len()).rev().find_map(|count| {
        let (all, rest) = values.split_at_checked(count)?;
        let Value::Prefix { version: last, value, len } = *all.last()? else { return None };
        let hi = value | ones(version.bits().saturating_sub(len.into()));
        (last == version && lo <= hi && prefixes(version, lo, hi) == all).then_some((hi, rest))
    });
    let (hi, rest) = ends?;
    let text = format!("{}{}-{}", arp_word(version), ip_address(version, lo), ip_address(version, hi));
    Some((text, rest))
}

const fn arp_word(version: IpVersion) -> &'static str {
    match version {
        IpVersion::Arp => "arp ",
        IpVersion::V4 | IpVersion::V6 => "",
    }
}

fn ip_address(version: IpVersion, value: u128) -> IpAddr {
    #[expect(clippy::cast_possible_truncation, reason = "checked to have 32 bits")]
    match version {
        IpVersion::V4 | IpVersion::Arp => IpAddr::from((value as u32).to_be_bytes()),
        IpVersion::V6 => IpAddr::from(value.to_be_bytes()),
    }
}

/// The text of VLAN ids of any priority that `values` begins with, and the values behind them.
fn vlan_ids(values: &[Value]) -> Option<(String, &[Value])> {
    let id = |tag: u128| tag & 0x0fff;
    let (lo, hi) = match *values.first()? {
        Value::Exact(0) => return Some(("none".to_owned(), values.get(1..)?)),
        Value::Range { lo, hi } => (id(lo), id(hi)),
        _ => return None,
    };
    let text = if lo == hi { lo.to_string() } else { format!("{lo}-{hi}") };
    let (all, rest) = values.split_at_checked(8)?;
    (vlans(&text)? == all).then_some((text, rest))
}

/// Begins the value of a VLAN field as it is, priority and all.
const TAG: &str = "tag:";

/// How a value is read.
enum Form {
    Address,
    Mac,
    Named(&'static [(&'static str, u128)]),
    Number,
    Vlan,
}

const PROTOCOLS: &[(&str, u128)] = &[("icmp", 1), ("tcp", 6), ("udp", 17), ("gre", 47), ("icmpv6", 58), ("sctp", 132)];
const ETHER_TYPES: &[(&str, u128)] = &[("ipv4", 0x0800), ("arp", 0x0806), ("ipv6", 0x86dd)];
const TUNNELS: &[(&str, u128)] = &[("none", 0), ("vxlan", 1), ("nvgre", 2), ("geneve", 3), ("gre", 4)];
const FRAGMENTS: &[(&str, u128)] = &[("whole", 0), ("first", 1), ("later", 2)];

const fn form(subject: Subject) -> Form {
    match subject {
        Subject::Field(Field::IpSrc | Field::IpDst | Field::OuterIpSrc | Field::OuterIpDst) => Form::Address,
        Subject::Field(Field::EthSrc | Field::EthDst | Field::OuterEthSrc | Field::OuterEthDst) => Form::Mac,
        Subject::Field(Field::Vlan | Field::SecondVlan | Field::OuterVlan) => Form::Vlan,
        Subject::Field(Field::IpProto) => Form::Named(PROTOCOLS),
        Subject::Field(Field::EtherType) => Form::Named(ETHER_TYPES),
        Subject::Field(Field::Tunnel) => Form::Named(TUNNELS),
        Subject::Field(Field::Fragment) => Form::Named(FRAGMENTS),
        _ => Form::Number,
    }
}

const fn expected(subject: Subject) -> &'static str {
    match form(subject) {
        Form::Address => "an IP address, a prefix or a range of addresses",
        Form::Mac => "a MAC address or a range of them",
        Form::Named(_) => "a known name, a number or a range of numbers",
        Form::Number => "a number or a range of numbers",
        Form::Vlan => "a VLAN id from 0 to 4095, a range of them, or 'none'",
    }
}

/// What a text stands for: most texts are one value.
fn values_of(subject: Subject, text: &str) -> Option<Vec<Value>> {
    match form(subject) {
        Form::Address => addresses(text),
        Form::Mac => span(text, |text| text.parse::<MacAddr>().ok().map(mac_value)),
        Form::Named(names) => span(text, |text| {
            names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).or_else(|| number(text))
        }),
        Form::Number => span(text, number),
        Form::Vlan => vlans(text),
    }
}

/// A value, or two with a dash between them.
fn span(text: &str, read: impl Fn(&str) -> Option<u128>) -> Option<Vec<Value>> {
    let value = match text.split_once('-') {
        Some((lo, hi)) => Value::Range { lo: read(lo.trim())?, hi: read(hi.trim())? },
        None => Value::Exact(read(text)?),
    };
    Some(vec![value])
}

fn number(text: &str) -> Option<u128> {
    let digits = |text: &str, radix| {
        // from_str_radix alone would also take "+5".
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric());
        u128::from_str_radix(text, radix).ok().filter(|_| plain)
    };
    match text.strip_prefix("0x") {
        Some(text) => digits(text, 16),
        None => digits(text, 10),
    }
}

fn mac_value(mac: MacAddr) -> u128 {
    mac.0.iter().fold(0, |value, octet| value << 8 | u128::from(*octet))
}

/// Ids of any priority: a field holds the priority, too.
fn vlans(text: &str) -> Option<Vec<Value>> {
    if text == "none" {
        return Some(vec![Value::Exact(0)]);
    }
    if let Some(tag) = text.strip_prefix(TAG) {
        return span(tag, number);
    }
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let id = |text: &str| number(text.trim()).filter(|id| *id < 4096);
    let (lo, hi) = (id(lo)?, id(hi)?);
    if lo > hi {
        return None;
    }
    let tag = |priority: u128, id: u128| priority << 13 | u128::from(VLAN_PRESENT) | id;
    Some((0..8).map(|priority| Value::Range { lo: tag(priority, lo), hi: tag(priority, hi) }).collect())
}

fn addresses(text: &str) -> Option<Vec<Value>> {
    let (read, text): (fn(&str) -> _, _) = match text.strip_prefix("arp ") {
        Some(text) => (arp_address, text.trim_start()),
        None => (address, text),
    };
    if let Some((address, len)) = text.split_once('/') {
        let (version, value) = read(address.trim())?;
        let len = number(len.trim())?.try_into().ok()?;
        return Some(vec![Value::Prefix { version, value, len }]);
    }
    if text.starts_with("0x") {
        return span(text, number);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (version, lo) = read(first.trim())?;
    let (other, hi) = read(last.trim())?;
    (version == other && lo <= hi).then(|| prefixes(version, lo, hi))
}

fn arp_address(text: &str) -> Option<(IpVersion, u128)> {
    address(text).filter(|(version, _)| *version == IpVersion::V4).map(|(_, value)| (IpVersion::Arp, value))
}

fn address(text: &str) -> Option<(IpVersion, u128)> {
    Some(match text.parse().ok()? {
        IpAddr::V4(address) => (IpVersion::V4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (IpVersion::V6, Ipv6Addr::to_bits(address)),
    })
}

/// A range as the fewest prefixes: they know their IP version, a range does not.
fn prefixes(version: IpVersion, lo: u128, hi: u128) -> Vec<Value> {
    let mut prefixes = Vec::new();
    let mut at = lo;
    loop {
        // As many free bits as the alignment of `at` has and as stay below `hi`.
        let mut free = at.trailing_zeros().min(version.bits());
        while free > 0 && at | ones(free) > hi {
            free -= 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        let len = (version.bits() - free) as u8;
        prefixes.push(Value::Prefix { version, value: at, len });
        match (at | ones(free)).checked_add(1) {
            Some(next) if next <= hi => at = next,
            _ => return prefixes,
        }
    }
}

const fn ones(bits: u32) -> u128 {
    if bits >= u128::BITS { u128::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
pub(crate) mod tests {
    use packet::Ufid;
    use proptest::prelude::*;

    use super::*;
    use crate::condition::Key;

    fn matches(name: &str, text: &str, key: &Key) -> bool {
        Condition::from_text(name, [text]).unwrap().matches(key)
    }

    fn with(field: Field, value: u128) -> Key {
        Key { ufid: Ufid::ZERO.with(field, value), ..Key::default() }
    }

    #[test]
    fn values_mean_what_they_say() {
        for (name, text, field, yes, no) in [
            ("dst_port", "80", Field::L4Dst, 80, 81),
            ("dst_port", "0x50", Field::L4Dst, 80, 50),
            ("src_port", "1000-2000", Field::L4Src, 2000, 2001),
            ("ip_proto", "tcp", Field::IpProto, 6, 17),
            ("ip_proto", "89", Field::IpProto, 89, 6),
            ("ether_type", "arp", Field::EtherType, 0x0806, 0x0800),
            ("tunnel", "geneve", Field::Tunnel, 3, 1),
            ("fragment", "first-later", Field::Fragment, 2, 0),
            ("eth_src", "52:54:00:12:34:56", Field::EthSrc, 0x5254_0012_3456, 0x5634_1200_5452),
            ("vlan", "100", Field::Vlan, 5 << 13 | 0x1000 | 100, 100),
            ("vlan", "none", Field::Vlan, 0, 0x1000),
            ("outer_vlan", "10 - 20", Field::OuterVlan, 0x1000 | 20, 0x1000 | 21),
        ] {
            assert!(matches(name, text, &with(field, yes)), "{name} {text}");
            assert!(!matches(name, text, &with(field, no)), "{name} {text}");
        }
        let mut key = Key::default();
        key.registers[7] = 3;
        assert!(matches("meta7", "2-3", &key) && !matches("meta6", "2-3", &key));
    }

    #[test]
    fn addresses_know_their_version() {
        let v4 = |value| Key { ufid: with(Field::IpDst, value).ufid.with(Field::IpVersion, 4), ..Key::default() };
        let arp = |value| Key { ufid: with(Field::IpDst, value).ufid.with(Field::EtherType, 0x0806), ..Key::default() };
        let v6 = |value| Key { ufid: with(Field::IpDst, value).ufid.with(Field::IpVersion, 6), ..Key::default() };
        for (text, yes, no) in [
            ("10.0.0.1", v4(0x0a00_0001), v6(0x0a00_0001)),
            ("10.0.0.0/8", v4(0x0aff_ffff), v4(0x0b00_0000)),
            ("10.0.0.5-10.0.1.2", v4(0x0a00_0102), v4(0x0a00_0103)),
            ("fd00::/8", v6(0xfd << 120 | 7), v6(0xfe << 120)),
            ("::1", v6(1), v4(1)),
            ("10.0.0.1", v4(0x0a00_0001), arp(0x0a00_0001)),
            ("arp 10.0.0.1", arp(0x0a00_0001), v4(0x0a00_0001)),
            ("arp 10.0.0.0/8", arp(0x0aff_ffff), arp(0x0b00_0000)),
            ("arp 10.0.0.5-10.0.1.2", arp(0x0a00_0102), arp(0x0a00_0103)),
        ] {
            assert!(matches("dst_ip", text, &yes) && !matches("dst_ip", text, &no), "{text}");
        }
    }

    #[test]
    fn errors_say_what_was_written() {
        let error = |name, text| Condition::from_text(name, [text]).unwrap_err().to_string();
        assert_eq!(error("dst_prot", "80"), r#"there is no field "dst_prot" to match"#);
        assert_eq!(error("meta8", "1"), r#"there is no field "meta8" to match"#);
        assert_eq!(error("dst_port", "http"), r#"dst_port: "http" is not a number or a range of numbers"#);
        assert_eq!(error("dst_port", "+80"), r#"dst_port: "+80" is not a number or a range of numbers"#);
        assert_eq!(error("dst_port", "70000"), "dst_port: 0x11170 does not fit in 16 bits");
        let addresses = "is not an IP address, a prefix or a range of addresses";
        for text in ["10.0.0.300", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/x", "arp fd00::1", "arp"] {
            assert_eq!(error("src_ip", text), format!("src_ip: {text:?} {addresses}"));
        }
        assert_eq!(error("src_ip", "10.0.0.1/8"), "src_ip: 0xa000001/8 has bits set beyond its length");
        let vlan = "is not a VLAN id from 0 to 4095, a range of them, or 'none'";
        for text in ["4096", "20-10"] {
            assert_eq!(error("vlan", text), format!("vlan: {text:?} {vlan}"));
        }
    }

    /// Any value that a condition on the subject may have.
    fn value(subject: Subject) -> BoxedStrategy<Value> {
        let most = if subject.bits() == 128 { u128::MAX } else { (1 << subject.bits()) - 1 };
        let number = prop_oneof![0..=most.min(300), 0..=most];
        let span = (number.clone(), number.clone()).prop_map(|(a, b)| Value::Range { lo: a.min(b), hi: a.max(b) });
        let spans = prop_oneof![number.prop_map(Value::Exact), span];
        if subject.ip_version().is_none() {
            return spans.boxed();
        }
        let arp = matches!(subject, Subject::Field(Field::IpSrc | Field::IpDst));
        let prefix = (0..3_u8, any::<u128>(), 0..=128_u8).prop_map(move |(kind, value, len)| {
            let (version, len) = match kind {
                0 => (IpVersion::V4, len % 33),
                1 if arp => (IpVersion::Arp, len % 33),
                _ => (IpVersion::V6, len),
            };
            Value::Prefix { version, value: value & version.prefix_mask(len), len }
        });
        prop_oneof![spans, prefix].boxed()
    }

    /// Subjects with values as people write them mixed with values that only machines would choose.
    pub(crate) fn condition() -> impl Strategy<Value = Condition> {
        let fields = Field::ALL.into_iter().map(Subject::Field);
        let subjects: Vec<_> = fields.chain((0..8).map(Subject::Register)).collect();
        prop::sample::select(subjects).prop_flat_map(|subject| {
            let some = prop::collection::vec(value(subject), 1..4);
            let vlans = prop_oneof![Just("none".to_owned()), (0..4096_u128).prop_map(|id| id.to_string())];
            let range = (any::<u8>(), any::<u8>(), any::<bool>());
            (some, prop::collection::vec(vlans, 0..3), range).prop_map(move |(mut values, ids, (a, b, spans))| {
                match form(subject) {
                    Form::Vlan => drop(values.splice(1..1, ids.iter().filter_map(|id| super::vlans(id)).flatten())),
                    Form::Address if spans => {
                        let (lo, hi) = (u128::from(a.min(b)), u128::from(a.max(b)).max(u128::from(a.min(b)) + 4));
                        let range = prefixes(IpVersion::V4, lo + 1, hi);
                        let spans = range.len() > 1;
                        values.splice(1..1, range);
                        let condition = Condition::new(subject, values).unwrap();
                        return if spans { condition.spanning() } else { condition };
                    }
                    _ => {}
                }
                Condition::new(subject, values).unwrap()
            })
        })
    }

    #[test]
    fn texts_are_those_that_people_write() {
        for (name, text) in [
            ("dst_port", "80"),
            ("src_port", "1000-2000"),
            ("ip_proto", "tcp"),
            ("ether_type", "arp"),
            ("eth_src", "52:54:00:12:34:56"),
            ("vlan", "100"),
            ("vlan", "100-199"),
            ("vlan", "none"),
            ("vlan", "tag:0x3064"),
            ("src_ip", "10.0.0.0/8"),
            ("src_ip", "10.0.0.1"),
            ("src_ip", "fd00::/8"),
            ("src_ip", "0xa000001"),
            ("src_ip", "arp 10.0.0.0/8"),
            ("src_ip", "10.0.0.1-10.0.0.9"),
            ("dst_ip", "arp 10.0.0.1-10.0.0.9"),
            ("meta3", "7"),
        ] {
            assert_eq!(Condition::from_text(name, [text]).unwrap().to_text(), [text], "{name}");
        }
    }

    #[test]
    fn only_ranges_of_several_prefixes_span() {
        let spans = |name, values: &[&str]| Condition::from_text(name, values.iter().copied()).unwrap().spans();
        assert!(spans("dst_ip", &["10.0.0.0/8", "10.0.0.1-10.0.0.2"]));
        assert!(!spans("dst_ip", &["10.0.0.0-10.0.0.255", "10.0.0.1", "fd00::/8"]));
        assert!(!spans("vlan", &["1-2"]) && !spans("dst_port", &["1-2"]));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(condition in condition()) {
            let texts = condition.to_text();
            let name = condition.subject().to_string();
            let read = Condition::from_text(&name, texts.iter().map(String::as_str));
            prop_assert_eq!(read, Ok(condition), "{:?}", texts);
        }

        #[test]
        fn a_range_of_addresses_is_its_prefixes(a in any::<u32>(), b in any::<u32>(), probe in any::<u32>()) {
            let (lo, hi) = (a.min(b), a.max(b));
            let prefixes = prefixes(IpVersion::V4, lo.into(), hi.into());
            prop_assert!(prefixes.len() <= 62);
            let condition = Condition::new(Subject::Field(Field::IpSrc), prefixes).unwrap();
            for address in [lo, hi, probe, lo.wrapping_sub(1), hi.wrapping_add(1), lo / 2 + hi / 2] {
                let key = with(Field::IpSrc, address.into());
                let key = Key { ufid: key.ufid.with(Field::IpVersion, 4), ..key };
                prop_assert_eq!(condition.matches(&key), (lo..=hi).contains(&address), "{}", address);
            }
        }
    }
}
