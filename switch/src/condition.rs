// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a rule matches (VFP, 4.2): subjects with lists of values, OR within a list, AND across them.
//!
//! [`Conditions::matches`] is the definition; every classifier must agree with it.

use std::fmt;

use packet::{EtherType, Field, Ufid, ufid};
use thiserror::Error;

/// Metadata registers that a layer can set for the layers after it.
pub const REGISTERS: usize = 8;

/// What is looked up: a packet's identity and what earlier layers said about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// The packet as the layers before left it.
    pub ufid: Ufid,
    /// Metadata, 0 until a layer sets it.
    pub registers: [u32; REGISTERS],
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A field of the packet's identity.
    Field(Field),
    /// A metadata register, below [`REGISTERS`].
    Register(u8),
}

/// Whose addresses are meant: those of packets of an IP version, or those that ARP speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4 packets: addresses of 32 bits.
    V4,
    /// IPv6 packets: addresses of 128 bits.
    V6,
    /// ARP packets: the sender's and the target's IPv4 addresses. They are apart from [`IpVersion::V4`]
    /// because actions for IPv4 packets, such as translation, are not for ARP.
    Arp,
}

/// A set of values of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// This number. Of an address it is the bare number, whatever the IP version is: `::a00:1` equals
    /// 10.0.0.1. Policy names addresses by prefixes of full length.
    Exact(u128),
    /// From `lo` to `hi`, both included; of an address as [`Value::Exact`].
    Range {
        /// The lowest.
        lo: u128,
        /// The highest.
        hi: u128,
    },
    /// Addresses of this IP version that begin with these bits. Length 0 matches all packets of the
    /// version and no others.
    Prefix {
        /// What the packet must be, so that 10.0.0.0/8 matches no IPv6 packet.
        version: IpVersion,
        /// The lowest address: of IPv4 in the low 32 bits.
        value: u128,
        /// Number of bits that count, at most 32 or 128.
        len: u8,
    },
}

/// A subject and its admissible values, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    subject: Subject,
    values: Vec<Value>,
    /// Some are the prefixes that a range of addresses has: nobody chose their lengths.
    spans: bool,
}

/// All conditions of a rule, at most one per subject; none matches everything. Where the EtherType is to
/// be ARP and nothing else, IPv4 prefixes are those of ARP ([`IpVersion::Arp`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions(Vec<Condition>);

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// A prefix with bits beyond its length, which is more often a slip than a wish.
    #[error("{subject}: {value:#x}/{len} has bits set beyond its length")]
    BitsBeyondPrefix {
        /// The condition's subject.
        subject: Subject,
        /// The prefix's value.
        value: u128,
        /// Its length.
        len: u8,
    },
    /// ARP in the outer headers of a tunnel, where it never is.
    #[error("{subject}: there is no ARP in the outer headers of a tunnel")]
    ArpOutside {
        /// The condition's subject.
        subject: Subject,
    },
    /// No values: the rule could never match.
    #[error("{subject}: the list of values is empty")]
    Empty {
        /// The condition's subject.
        subject: Subject,
    },
    /// A prefix of something that is not an address.
    #[error("{subject}: {value:#x}/{len} is a prefix, and this is not an IP address; use a range")]
    NotAnAddress {
        /// The condition's subject.
        subject: Subject,
        /// The prefix's value.
        value: u128,
        /// Its length.
        len: u8,
    },
    /// A register that does not exist.
    #[error("{subject}: there are {REGISTERS} registers, counted from 0")]
    NoRegister {
        /// The condition's subject.
        subject: Subject,
    },
    /// A prefix longer than the address.
    #[error("{subject}: {value:#x}/{len} is longer than the {bits} bits of the address")]
    PrefixTooLong {
        /// The condition's subject.
        subject: Subject,
        /// The prefix's value.
        value: u128,
        /// Its length.
        len: u8,
        /// The longest allowed.
        bits: u32,
    },
    /// A range that ends before it begins.
    #[error("{subject}: the range {lo:#x} to {hi:#x} is empty")]
    Reversed {
        /// The condition's subject.
        subject: Subject,
        /// Its lowest value.
        lo: u128,
        /// Its highest.
        hi: u128,
    },
    /// A value with more bits than the subject has.
    #[error("{subject}: {value:#x} does not fit in {bits} bits")]
    TooWide {
        /// The condition's subject.
        subject: Subject,
        /// The value.
        value: u128,
        /// How many bits there are.
        bits: u32,
    },
    /// Two conditions on one subject: whether both or either must hold would be a guess.
    #[error("{subject}: there is more than one condition on it")]
    Twice {
        /// The subject of both.
        subject: Subject,
    },
}

impl Conditions {
    /// Checks that no subject occurs twice.
    ///
    /// # Errors
    /// [`ConditionError::Twice`].
    pub fn new(mut conditions: Vec<Condition>) -> Result<Self, ConditionError> {
        for (at, condition) in conditions.iter().enumerate() {
            if conditions.iter().take(at).any(|other| other.subject == condition.subject) {
                return Err(ConditionError::Twice { subject: condition.subject });
            }
        }
        if conditions.iter().any(Condition::is_arp_only) {
            conditions.iter_mut().for_each(Condition::mean_arp);
        }
        Ok(Self(conditions))
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        self.0.iter().all(|condition| condition.matches(key))
    }

    /// The conditions.
    #[must_use]
    pub fn as_slice(&self) -> &[Condition] {
        &self.0
    }
}

impl Condition {
    /// Checks the values.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    pub fn new(subject: Subject, values: Vec<Value>) -> Result<Self, ConditionError> {
        if matches!(subject, Subject::Register(register) if usize::from(register) >= REGISTERS) {
            return Err(ConditionError::NoRegister { subject });
        }
        if values.is_empty() {
            return Err(ConditionError::Empty { subject });
        }
        values.iter().try_for_each(|value| value.check(subject))?;
        Ok(Self { subject, values, spans: false })
    }

    /// The same, and says that some values are the prefixes of a range of addresses.
    pub(crate) fn spanning(self) -> Self {
        Self { spans: true, ..self }
    }

    /// Whether some values are the prefixes of a range of addresses, so that their lengths say nothing.
    pub(crate) const fn spans(&self) -> bool {
        self.spans
    }

    /// Whether the key has one of the values.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        self.values.iter().any(|value| value.matches(self.subject, key))
    }

    /// What it is about.
    #[must_use]
    pub const fn subject(&self) -> Subject {
        self.subject
    }

    /// The admissible values.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn is_arp_only(&self) -> bool {
        let arp = Value::Exact(EtherType::ARP.0.into());
        self.subject == Subject::Field(Field::EtherType) && self.values.iter().all(|value| *value == arp)
    }

    fn mean_arp(&mut self) {
        if matches!(self.subject, Subject::Field(Field::IpSrc | Field::IpDst)) {
            for value in &mut self.values {
                if let Value::Prefix { version: version @ IpVersion::V4, .. } = value {
                    *version = IpVersion::Arp;
                }
            }
        }
    }
}

impl Value {
    /// Whether the subject of a key has this value.
    #[must_use]
    pub fn matches(&self, subject: Subject, key: &Key) -> bool {
        let found = key.get(subject);
        match *self {
            Self::Exact(value) => found == value,
            Self::Range { lo, hi } => lo <= found && found <= hi,
            Self::Prefix { version, value, len } => {
                let says = version.says(subject).is_some_and(|(field, says)| key.ufid.get(field) == says);
                says && (found ^ value) & version.prefix_mask(len) == 0
            }
        }
    }

    fn check(&self, subject: Subject) -> Result<(), ConditionError> {
        let fits = |value: u128| match subject.bits() {
            bits if value <= low_bits(bits) => Ok(()),
            bits => Err(ConditionError::TooWide { subject, value, bits }),
        };
        match *self {
            Self::Exact(value) => fits(value),
            Self::Range { lo, hi } if lo > hi => Err(ConditionError::Reversed { subject, lo, hi }),
            Self::Range { hi, .. } => fits(hi),
            Self::Prefix { value, len, .. } if subject.ip_version().is_none() => {
                Err(ConditionError::NotAnAddress { subject, value, len })
            }
            Self::Prefix { version, .. } if version.says(subject).is_none() => {
                Err(ConditionError::ArpOutside { subject })
            }
            Self::Prefix { version, value, len } => {
                let bits = version.bits();
                if value > low_bits(bits) {
                    Err(ConditionError::TooWide { subject, value, bits })
                } else if u32::from(len) > bits {
                    Err(ConditionError::PrefixTooLong { subject, value, len, bits })
                } else if value & !version.prefix_mask(len) != 0 {
                    Err(ConditionError::BitsBeyondPrefix { subject, value, len })
                } else {
                    Ok(())
                }
            }
        }
    }
}

impl IpVersion {
    /// Bits of an address.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::V4 | Self::Arp => 32,
            Self::V6 => 128,
        }
    }

    /// The field by which packets say that an address is of this version, and what it has then. None if
    /// it never is.
    pub(crate) const fn says(self, address: Subject) -> Option<(Field, u128)> {
        match (self, address.ip_version()) {
            (Self::V4, Some(field)) => Some((field, 4)),
            (Self::V6, Some(field)) => Some((field, 6)),
            (Self::Arp, Some(Field::IpVersion)) => Some((Field::EtherType, EtherType::ARP.0 as u128)),
            (Self::Arp, _) | (_, None) => None,
        }
    }

    /// The bits of an address that a prefix of this length fixes.
    pub(crate) const fn prefix_mask(self, len: u8) -> u128 {
        let all = low_bits(self.bits());
        let free = self.bits().saturating_sub(len as u32);
        all & !low_bits(free)
    }
}

impl Subject {
    /// How many bits its values have.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Field(field) => field.bits(),
            Self::Register(_) => u32::BITS,
        }
    }

    /// Of an address the field that says of which IP version it is.
    #[must_use]
    pub const fn ip_version(self) -> Option<Field> {
        match self {
            Self::Field(Field::IpSrc | Field::IpDst) => Some(Field::IpVersion),
            Self::Field(Field::OuterIpSrc | Field::OuterIpDst) => Some(Field::OuterIpVersion),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => f.write_str(field.label()),
            Self::Register(register) => write!(f, "meta{register}"),
        }
    }
}

impl Key {
    /// A word of the key: those of the identity, then two registers a word; 0 beyond the last.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> u64 {
        match self.ufid.words().get(at) {
            Some(word) => *word,
            None => {
                let register = |at| u64::from(self.registers.get(at).copied().unwrap_or_default());
                let low = at.saturating_sub(ufid::WORDS).saturating_mul(2);
                register(low) | register(low.saturating_add(1)) << 32
            }
        }
    }

    /// The value of a subject; 0 of a register that does not exist.
    #[inline]
    #[must_use]
    pub fn get(&self, subject: Subject) -> u128 {
        match subject {
            Subject::Field(field) => self.ufid.get(field),
            Subject::Register(at) => self.registers.get(usize::from(at)).copied().unwrap_or_default().into(),
        }
    }

    /// Sets a subject to the low bits of `value`; a register that does not exist is not set.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    pub fn set(&mut self, subject: Subject, value: u128) {
        match subject {
            Subject::Field(field) => self.ufid.set(field, value),
            Subject::Register(at) => {
                if let Some(register) = self.registers.get_mut(usize::from(at)) {
                    *register = value as u32;
                }
            }
        }
    }
}

pub(crate) const fn low_bits(count: u32) -> u128 {
    if count >= u128::BITS { u128::MAX } else { (1 << count) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: Subject = Subject::Field(Field::IpSrc);
    const PORT: Subject = Subject::Field(Field::L4Dst);

    fn prefix(version: IpVersion, value: u128, len: u8) -> Value {
        Value::Prefix { version, value, len }
    }

    fn ipv4(source: u32) -> Key {
        Key { ufid: Ufid::ZERO.with(Field::IpVersion, 4).with(Field::IpSrc, source.into()), ..Key::default() }
    }

    #[test]
    fn vf_7_lists_are_or_and_conditions_are_and() {
        let ports = Condition::new(PORT, vec![Value::Exact(80), Value::Range { lo: 8000, hi: 8080 }]).unwrap();
        let sources = Condition::new(SRC, vec![prefix(IpVersion::V4, 10 << 24, 8)]).unwrap();
        let marked = Condition::new(Subject::Register(3), vec![Value::Exact(7)]).unwrap();
        let conditions = Conditions::new(vec![ports, sources, marked]).unwrap();
        for (source, port, mark, expected) in [
            (0x0a01_0203, 80, 7, true),
            (0x0a01_0203, 8080, 7, true),
            (0x0a01_0203, 81, 7, false),
            (0x0b01_0203, 80, 7, false),
            (0x0a01_0203, 80, 8, false),
        ] {
            let mut key = ipv4(source);
            key.set(PORT, port);
            key.set(Subject::Register(3), mark);
            assert_eq!(conditions.matches(&key), expected, "{key:?}");
        }
        assert!(Conditions::default().matches(&Key::default()));
    }

    #[test]
    fn an_ipv4_prefix_matches_no_other_packet() {
        for len in [0_u8, 8, 32] {
            let condition =
                Condition::new(SRC, vec![prefix(IpVersion::V4, 10 << 24 & !low_bits(32 - u32::from(len)), len)]);
            let condition = condition.unwrap();
            assert!(condition.matches(&ipv4(10 << 24)));
            for version in [0, 6] {
                let mut key = ipv4(10 << 24);
                key.ufid.set(Field::IpVersion, version);
                assert!(!condition.matches(&key));
            }
        }
    }

    #[test]
    fn in_a_rule_for_arp_addresses_are_those_of_arp() {
        let arp = |source: u32| {
            let ufid = Ufid::ZERO.with(Field::EtherType, 0x0806).with(Field::IpSrc, source.into());
            Key { ufid, ..Key::default() }
        };
        let types = |values: &[u128]| {
            let values = values.iter().map(|value| Value::Exact(*value)).collect();
            Condition::new(Subject::Field(Field::EtherType), values).unwrap()
        };
        let sources = |version| Condition::new(SRC, vec![prefix(version, 10 << 24, 8)]).unwrap();
        let of = |conditions| Conditions::new(conditions).unwrap();
        for (conditions, matches_arp, matches_ipv4) in [
            (of(vec![sources(IpVersion::V4)]), false, true),
            (of(vec![sources(IpVersion::Arp)]), true, false),
            (of(vec![sources(IpVersion::V4), types(&[0x0806])]), true, false),
            (of(vec![types(&[0x0806]), sources(IpVersion::V4)]), true, false),
            (of(vec![sources(IpVersion::V4), types(&[0x0806, 0x0800])]), false, true),
        ] {
            let mut ipv4 = ipv4(10 << 24 | 1);
            ipv4.ufid.set(Field::EtherType, 0x0800);
            assert_eq!(conditions.matches(&arp(10 << 24 | 1)), matches_arp, "{conditions:?}");
            assert_eq!(conditions.matches(&ipv4), matches_ipv4, "{conditions:?}");
            assert!(!conditions.matches(&arp(11 << 24)));
        }
        // Of the outer headers there is no ARP, whatever the inner ones are.
        let outside = Subject::Field(Field::OuterIpSrc);
        let error = Condition::new(outside, vec![prefix(IpVersion::Arp, 0, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "outer_src_ip: there is no ARP in the outer headers of a tunnel");
        let outer = Condition::new(outside, vec![prefix(IpVersion::V4, 0, 0)]).unwrap();
        let both = of(vec![outer.clone(), types(&[0x0806])]);
        assert_eq!(both.as_slice().first(), Some(&outer));
    }

    #[test]
    fn errors_name_subject_and_value() {
        let message = |subject, values| Condition::new(subject, values).unwrap_err().to_string();
        assert_eq!(message(PORT, vec![]), "dst_port: the list of values is empty");
        assert_eq!(message(PORT, vec![Value::Range { lo: 9, hi: 8 }]), "dst_port: the range 0x9 to 0x8 is empty");
        assert_eq!(message(PORT, vec![Value::Exact(65536)]), "dst_port: 0x10000 does not fit in 16 bits");
        assert_eq!(message(PORT, vec![Value::Range { lo: 1, hi: 65536 }]), "dst_port: 0x10000 does not fit in 16 bits");
        assert_eq!(
            message(PORT, vec![prefix(IpVersion::V4, 0, 1)]),
            "dst_port: 0x0/1 is a prefix, and this is not an IP address; use a range"
        );
        assert_eq!(
            message(SRC, vec![prefix(IpVersion::V4, 0, 33)]),
            "src_ip: 0x0/33 is longer than the 32 bits of the address"
        );
        assert_eq!(
            message(SRC, vec![prefix(IpVersion::V4, 1 << 32, 8)]),
            "src_ip: 0x100000000 does not fit in 32 bits"
        );
        assert_eq!(message(SRC, vec![prefix(IpVersion::V6, 1, 127)]), "src_ip: 0x1/127 has bits set beyond its length");
        let register = Subject::Register(8);
        assert_eq!(message(register, vec![Value::Exact(0)]), "meta8: there are 8 registers, counted from 0");
        let condition = Condition::new(PORT, vec![Value::Exact(1)]).unwrap();
        let twice = Conditions::new(vec![condition.clone(), condition]).unwrap_err();
        assert_eq!(twice.to_string(), "dst_port: there is more than one condition on it");
    }

    #[test]
    fn words_cover_identity_and_registers() {
        let mut key = ipv4(0x0a00_0001);
        key.registers = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(key.word(2), 0x0a00_0001);
        assert_eq!(key.word(14), 2 << 32 | 1);
        assert_eq!(key.word(17), 8 << 32 | 7);
        assert_eq!(key.word(18), 0);
    }
}
