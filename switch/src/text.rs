// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conditions as people write them: `dst_port = ["80", "1000-2000"]`, `src_ip = ["10.0.0.0/8"]`.
//!
//! | subject | a value is | examples |
//! |---|---|---|
//! | IP addresses | an address, a prefix, a range; `arp` before those that ARP speaks of | `10.0.0.1`, `fd00::/8`, `10.0.0.1-10.0.0.9`, `arp 10.0.0.0/8` |
//! | MAC addresses | an address, a range | `52:54:00:00:00:01` |
//! | `vlan`, `second_vlan`, `outer_vlan` | a VLAN id of any priority, a range, `none` | `100`, `100-199` |
//! | `ip_proto`, `ether_type`, `tunnel`, `fragment` | a name, a number, a range | `tcp`, `17`, `arp`, `0x86dd`, `vxlan`, `later` |
//! | all others, `meta0` to `meta7` | a number, a range | `80`, `0x50`, `1000-2000` |
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
mod tests {
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

    #[test]
    fn only_ranges_of_several_prefixes_span() {
        let spans = |name, values: &[&str]| Condition::from_text(name, values.iter().copied()).unwrap().spans();
        assert!(spans("dst_ip", &["10.0.0.0/8", "10.0.0.1-10.0.0.2"]));
        assert!(!spans("dst_ip", &["10.0.0.0-10.0.0.255", "10.0.0.1", "fd00::/8"]));
        assert!(!spans("vlan", &["1-2"]) && !spans("dst_port", &["1-2"]));
    }

    proptest! {
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
