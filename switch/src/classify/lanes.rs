// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one check that most rows need, in eight bytes with the row's number.
//!
//! A *lane* is a part of a key of up to 32 bits; most conditions are an interval of one, or of a part
//! of an address: addresses of IPv4, ports, protocols, registers. The lanes that a group's entries
//! speak of most are read once per search. An [`Item`] has a row's number and its most selective such
//! check, an interval widened to a power of two; only if this passes, one in a hundred times or so, the
//! row itself is looked at.

use super::check::{Check, ipv4_place, single_word};
use super::entry::{Entries, Term, View};
use crate::condition::{IpVersion, Key, Subject, Value, low_bits};

/// Lanes that are read, and one more, which is always 0.
const LANES: usize = 8;
/// That one.
const NO_LANE: u32 = 7;
/// Says that there is no row.
pub(super) const NO_ROW: u32 = u32::MAX;

const ROW_BITS: u32 = 22;
const LANE_SHIFT: u32 = ROW_BITS;
const LANE_BITS: u32 = LANES.ilog2();
const FREE_SHIFT: u32 = LANE_SHIFT + LANE_BITS;
const FREE_BITS: u32 = 5;
const DECIDED: u32 = 1 << (FREE_SHIFT + FREE_BITS);
const CHAINED: u32 = DECIDED << 1;

/// A row's number and lane, and how many low bits the distance from `lo` may have; whether nothing else
/// need be tested, and whether another item of the same hash follows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Item {
    word: u32,
    lo: u32,
}

/// The lanes of a group.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
}

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lane {
    word: u8,
    shift: u8,
    mask: u32,
}

/// What a term says of one lane.
struct Needle {
    lane: Lane,
    lo: u32,
    span: u32,
    /// It says no more than that.
    all: bool,
}

/// What the lanes of a key hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read([u32; LANES]);

impl Read {
    #[inline]
    pub(super) fn lane(&self, at: u8) -> u32 {
        self.0.get(usize::from(at) % LANES).copied().unwrap_or_default()
    }
}

impl Lanes {
    /// Those of which the entries speak most.
    pub(super) fn new(entries: &Entries) -> Self {
        let mut counts: Vec<(Lane, u64)> = Vec::new();
        for entry in entries.iter() {
            for needle in entry.terms.iter().filter_map(needle) {
                let weight = needle.bits().into();
                match counts.iter_mut().find(|(lane, _)| *lane == needle.lane) {
                    Some((_, count)) => *count = count.saturating_add(weight),
                    None => counts.push((needle.lane, weight)),
                }
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self { lanes: counts.into_iter().map(|(lane, _)| lane).take(LANES - 1).collect() }
    }

    #[inline]
    pub(super) fn read(&self, key: &Key) -> Read {
        let mut read = [0; LANES];
        for (slot, lane) in read.iter_mut().zip(&self.lanes) {
            *slot = lane.of(key.word(usize::from(lane.word)));
        }
        Read(read)
    }

    /// A check as an interval of a lane, if that is read.
    pub(super) fn interval(&self, check: &Check) -> Option<(u8, u32, u32)> {
        if check.mask.count_ones() > u32::BITS {
            return None;
        }
        let lane = Lane::new(check.word, check.mask);
        let (at, _) = (0..).zip(&self.lanes).find(|(_, other)| **other == lane)?;
        let part = |value: u64| u32::try_from(value.wrapping_shr(lane.shift.into())).ok();
        Some((at, part(check.lo)?, part(check.span)?))
    }

    /// Reads no more lanes than these many.
    pub(super) fn truncate(&mut self, len: usize) {
        self.lanes.truncate(len);
    }

    /// The item of an entry that is found by a hash of what it fixes: only ranges are in doubt.
    pub(super) fn hashed_item(&self, row: u32, entry: View<'_>) -> Item {
        let best = self.best(entry, |term| matches!(term.value(), Value::Range { .. }));
        // Two may have the same hash.
        Self::make(row, best, false)
    }

    /// The item of an entry, where it is known that what it says of `known` is so.
    pub(super) fn item(&self, row: u32, entry: View<'_>, known: Option<Subject>) -> Item {
        let best = self.best(entry, |term| Some(term.subject) != known);
        let said = best.as_ref().map(|(.., at)| *at);
        let mut rest = entry.terms.iter().enumerate();
        let no_more = entry.lists.is_empty()
            && best.as_ref().is_none_or(|(needle, ..)| needle.all)
            && rest.all(|(at, term)| Some(at) == said || Some(term.subject) == known);
        // A prefix says the version as well.
        let version = |term: &Term| match term.value() {
            Value::Prefix { version, .. } => version.says(term.subject),
            Value::Exact(_) | Value::Range { .. } => None,
        };
        let wanted = said.and_then(|at| entry.terms.get(at)).and_then(version);
        let had = || entry.terms.iter().find(|term| Some(term.subject) == known).and_then(version);
        let decided = no_more && (wanted.is_none() || wanted == had());
        Self::make(row, best, decided)
    }

    /// The most selective needle in one of the lanes, the lane, and the place of its term.
    fn best(&self, entry: View<'_>, in_doubt: impl Fn(&Term) -> bool) -> Option<(Needle, u32, usize)> {
        let mut best: Option<(Needle, u32, usize)> = None;
        for (at, term) in entry.terms.iter().enumerate().filter(|(_, term)| in_doubt(term)) {
            let Some(needle) = needle(term) else { continue };
            let Some((lane, _)) = (0..).zip(&self.lanes).find(|(_, lane)| **lane == needle.lane) else { continue };
            if best.as_ref().is_none_or(|(best, ..)| needle.bits() > best.bits()) {
                best = Some((needle, lane, at));
            }
        }
        best
    }

    fn make(row: u32, best: Option<(Needle, u32, usize)>, decided: bool) -> Item {
        let (mut item, mut is_exact) = (Item { word: row | NO_LANE << LANE_SHIFT, lo: 0 }, true);
        if let Some((needle, lane, _)) = best {
            // So many low bits make the interval, or one that contains it.
            let free = u32::BITS.saturating_sub(needle.span.leading_zeros());
            is_exact = u64::from(needle.span).saturating_add(1) == 1 << free;
            if free < u32::BITS {
                item = Item { word: row | lane << LANE_SHIFT | free << FREE_SHIFT, lo: needle.lo };
            }
        }
        if decided && is_exact {
            item.word |= DECIDED;
        }
        item
    }
}

impl Lane {
    const fn new(word: u8, mask: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "below 64; and at most 32 bits are used")]
        let (shift, mask) = (mask.trailing_zeros() as u8, (mask >> mask.trailing_zeros()) as u32);
        Self { word, shift, mask }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    fn of(self, word: u64) -> u32 {
        (word >> (self.shift & 63)) as u32 & self.mask
    }
}

impl Item {
    #[inline]
    pub(super) const fn row(self) -> u32 {
        self.word & ((1 << ROW_BITS) - 1)
    }

    #[inline]
    pub(super) fn passes(self, read: &Read) -> bool {
        let lane = (self.word >> LANE_SHIFT) as usize % LANES;
        let free = (self.word >> FREE_SHIFT) % (1 << FREE_BITS);
        read.0.get(lane).is_some_and(|value| value.wrapping_sub(self.lo) >> free == 0)
    }

    /// How many lanes must be read for it.
    pub(super) const fn lanes(self) -> usize {
        let lane = (self.word >> LANE_SHIFT) as usize % LANES;
        if lane == NO_LANE as usize { 0 } else { lane + 1 }
    }

    /// Whether nothing else need be tested.
    #[inline]
    pub(super) const fn is_decided(self) -> bool {
        self.word & DECIDED != 0
    }

    /// The same, followed by another of its chain.
    pub(super) const fn chained(self) -> Self {
        Self { word: self.word | CHAINED, ..self }
    }

    #[inline]
    pub(super) const fn is_chained(self) -> bool {
        self.word & CHAINED != 0
    }

    /// As two words, and back.
    pub(super) const fn words(self) -> [u32; 2] {
        [self.word, self.lo]
    }

    #[inline]
    pub(super) const fn from_words([word, lo]: [u32; 2]) -> Self {
        Self { word, lo }
    }
}

impl Needle {
    /// How many bits it fixes, about.
    fn bits(&self) -> u32 {
        let free = u64::from(self.span).saturating_add(1).ilog2();
        self.lane.mask.count_ones().saturating_sub(free)
    }
}

fn needle(term: &Term) -> Option<Needle> {
    let subject = term.subject;
    match term.value() {
        Value::Exact(value) if subject.bits() > u64::BITS => {
            let (lane, lo) = chunk(subject, value, 0)?;
            Some(Needle { lane, lo, span: 0, all: false })
        }
        Value::Exact(value) => {
            let (word, mask) = single_word(subject)?;
            let lane = Lane::new(word, mask);
            Some(Needle { lane, lo: lower(value) & lane.mask, span: 0, all: subject.bits() <= u32::BITS })
        }
        Value::Range { lo, hi } if subject.bits() <= u32::BITS => {
            let (word, mask) = single_word(subject)?;
            Some(Needle { lane: Lane::new(word, mask), lo: lower(lo), span: lower(hi.checked_sub(lo)?), all: true })
        }
        Value::Range { .. } | Value::Prefix { len: 0, .. } => None,
        Value::Prefix { version: version @ (IpVersion::V4 | IpVersion::Arp), value, len } => {
            let Subject::Field(field) = subject else { return None };
            let (word, mask) = ipv4_place(field)?;
            let span = lower(!version.prefix_mask(len));
            Some(Needle { lane: Lane::new(word, mask), lo: lower(value), span, all: true })
        }
        Value::Prefix { version: version @ IpVersion::V6, value, len } => {
            // The last part of which it says something.
            let last = 3_u32.saturating_sub(u32::from(len.saturating_sub(1)) / u32::BITS);
            let (lane, lo) = chunk(subject, value, last)?;
            let span = lower(!version.prefix_mask(len) >> last.saturating_mul(u32::BITS));
            Some(Needle { lane, lo, span, all: last == 3 })
        }
    }
}

/// A part of 32 bits of an address and what a value has there; the part 0 is the lowest.
fn chunk(address: Subject, value: u128, at: u32) -> Option<(Lane, u32)> {
    let shift = at.saturating_mul(u32::BITS);
    let mut bits = Key::default();
    bits.set(address, low_bits(u32::BITS).checked_shl(shift)?);
    let words = || (0_u8..).zip(bits.ufid.words());
    let (word, mask) = words().find(|(_, mask)| **mask != 0)?;
    Some((Lane::new(word, *mask), lower(value.checked_shr(shift)?)))
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn lower(value: u128) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use packet::Field;

    use super::*;
    use crate::classify::{Rule, Selection};
    use crate::condition::{Condition, Conditions};

    /// The item of a rule alone.
    fn item(conditions: &[(&str, &str)], known: Option<Field>) -> (Lanes, Item) {
        let condition = |(name, value): &(&str, &str)| Condition::from_text(name, [*value]).unwrap();
        let conditions = Conditions::new(conditions.iter().map(condition).collect()).unwrap();
        let entries = Entries::new([Rule { priority: 0, conditions: &conditions }], Selection::Priority).unwrap();
        let lanes = Lanes::new(&entries);
        let item = lanes.item(0, entries.get(0).unwrap(), known.map(Subject::Field));
        (lanes, item)
    }

    #[test]
    fn an_item_decides_only_what_it_tests() {
        for (conditions, known, decided) in [
            (&[("dst_port", "80-95")][..], None, true),
            (&[("dst_port", "80-94")], None, false),
            (&[("eth_dst", "52:54:00:00:00:01")], None, false),
            (&[("dst_ip", "10.0.0.0/8")], None, false),
            (&[("dst_ip", "10.0.0.0/8")], Some(Field::IpDst), true),
            (&[("dst_ip", "10.0.0.0/8"), ("src_ip", "10.0.0.0/8")], Some(Field::IpDst), true),
            (&[("dst_ip", "10.0.0.0/8"), ("src_ip", "arp 10.0.0.0/8")], Some(Field::IpDst), false),
            (&[("dst_ip", "10.0.0.0/8"), ("outer_src_ip", "10.0.0.0/8")], Some(Field::IpDst), false),
            (&[("dst_ip", "fd00::/8"), ("src_ip", "fd00::/32")], Some(Field::IpDst), true),
            (&[("dst_ip", "fd00::/8"), ("src_ip", "fd00::/33")], Some(Field::IpDst), false),
            (&[("dst_ip", "fd00::/8"), ("src_ip", "::/0")], Some(Field::IpDst), false),
            (&[("dst_port", "1"), ("src_port", "1")], None, false),
            (&[], None, true),
        ] {
            assert_eq!(item(conditions, known).1.is_decided(), decided, "{conditions:?} {known:?}");
        }
    }

    #[test]
    fn an_item_tests_the_most_selective_part() {
        for (conditions, field, yes, no) in [
            (&[("dst_port", "80-90"), ("src_port", "5")][..], Field::L4Src, 5, 6),
            (&[("dst_port", "80-90"), ("ip_proto", "6")], Field::L4Dst, 90, 96),
            (&[("dst_port", "80-90"), ("ip_proto", "6")], Field::L4Dst, 80, 79),
            (&[("dst_ip", "10.0.0.0/8"), ("dst_port", "1-60000")], Field::IpDst, 0x0aff_ffff, 0x0b00_0000),
            (&[("src_ip", "fd00::/8")], Field::IpSrc, 0xfd << 120 | 1, 0xfe << 120),
            (&[("src_ip", "fd00::/64")], Field::IpSrc, 0xfd << 120 | 1, 0xfd << 120 | 1 << 64),
            (&[("dst_ip", "fd00::/96")], Field::IpDst, 0xfd << 120 | 1, 0xfd << 120 | 1 << 32),
            (&[("dst_ip", "fd00::/97")], Field::IpDst, 0xfd << 120 | 1, 0xfd << 120 | 1 << 31),
            (&[("eth_src", "52:54:00:12:34:56")], Field::EthSrc, 0x5254_0012_3456, 0x5254_0012_3457),
        ] {
            let (lanes, item) = item(conditions, None);
            for (value, expected) in [(yes, true), (no, false)] {
                let mut key = Key::default();
                key.set(Subject::Field(field), value);
                assert_eq!(item.passes(&lanes.read(&key)), expected, "{conditions:?} {value:#x}");
            }
        }
    }
}
