// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one test that all single-valued conditions become: a part of a word lies in an interval.

use packet::{Field, Ufid, ufid};

use crate::condition::{IpVersion, Key, Subject, Value, low_bits};

/// Passes if `word & mask` is in `lo..=lo + span`. Equality has span 0; because the mask keeps one
/// field, or bits compared for equality, nothing need be shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) word: u8,
    pub(super) mask: u64,
    pub(super) lo: u64,
    pub(super) span: u64,
}

impl Check {
    /// Passes on every key.
    pub(super) const ALWAYS: Self = Self { word: 0, mask: 0, lo: 0, span: u64::MAX };

    #[inline]
    pub(super) fn passes(&self, key: &Key) -> bool {
        (key.word(usize::from(self.word)) & self.mask).wrapping_sub(self.lo) <= self.span
    }

    pub(super) const fn is_equality(&self) -> bool {
        self.span == 0
    }

    /// How many bits of a key it fixes, about.
    pub(super) fn bits(&self) -> u32 {
        if self.mask == 0 {
            return 0;
        }
        let free = (self.span >> self.mask.trailing_zeros()).saturating_add(1).ilog2();
        self.mask.count_ones().saturating_sub(free)
    }

    /// Whether no key passes both.
    pub(super) const fn contradicts(&self, other: &Self) -> bool {
        let both = self.is_equality() && other.is_equality() && self.word == other.word;
        both && self.mask & other.mask & (self.lo ^ other.lo) != 0
    }
}

/// Whether checks can say that a subject has a value: all but a range of addresses as numbers.
pub(super) fn is_checkable(subject: Subject, value: Value) -> bool {
    !matches!(value, Value::Range { lo, hi } if lo != hi && single_word(subject).is_none())
}

/// Tells `each` the checks that together say that a subject has a value that [`is_checkable`].
pub(super) fn checks(subject: Subject, value: Value, mut each: impl FnMut(Check)) {
    match value {
        Value::Exact(value) => equalities(subject, low_bits(subject.bits()), value, each),
        Value::Range { lo, hi } if lo == hi => equalities(subject, low_bits(subject.bits()), lo, each),
        Value::Range { lo, hi } => {
            let Some((word, mask)) = single_word(subject) else { return };
            let place = |value| in_word(value, mask);
            each(Check { word, mask, lo: place(lo), span: place(hi).saturating_sub(place(lo)) });
        }
        Value::Prefix { version, value, len } => {
            let (Subject::Field(address), Some((field, says))) = (subject, version.says(subject)) else { return };
            equalities(Subject::Field(field), low_bits(field.bits()), says, &mut each);
            match (version, ipv4_place(address)) {
                (IpVersion::V4 | IpVersion::Arp, Some((word, all))) if len > 0 => {
                    let mask = in_word(version.prefix_mask(len), all);
                    each(Check { word, mask, lo: in_word(value, all), span: 0 });
                }
                (IpVersion::V4 | IpVersion::Arp, _) => {}
                (IpVersion::V6, _) => equalities(subject, version.prefix_mask(len), value, each),
            }
        }
    }
}

/// The word in which a subject lies and its bits there, if it is one.
pub(super) fn single_word(subject: Subject) -> Option<(u8, u64)> {
    match subject {
        Subject::Field(field) => FIELDS.get(field.index()).copied().filter(|_| field.bits() <= u64::BITS),
        Subject::Register(at) => {
            let word = u8::try_from(ufid::WORDS).ok()?.checked_add(at / 2)?;
            Some((word, if at % 2 == 0 { 0xffff_ffff } else { 0xffff_ffff << 32 }))
        }
    }
}

/// The word in which an IPv4 address lies and its bits there.
pub(super) fn ipv4_place(address: Field) -> Option<(u8, u64)> {
    FIELDS.get(address.index()).copied().filter(|_| address.bits() > u64::BITS)
}

/// Moves a value to where its field is.
#[expect(clippy::cast_possible_truncation, reason = "values were found to fit their field")]
const fn in_word(value: u128, mask: u64) -> u64 {
    (value as u64) << mask.trailing_zeros()
}

fn equalities(subject: Subject, mask: u128, value: u128, mut each: impl FnMut(Check)) {
    if let Some((word, all)) = single_word(subject) {
        return each(Check { word, mask: in_word(mask, all), lo: in_word(value, all), span: 0 });
    }
    // The layout of an address is known to the identity alone: set the bits and look where they are.
    let (mut masks, mut values) = (Key::default(), Key::default());
    masks.set(subject, mask);
    values.set(subject, value);
    for (at, word) in (0..ufid::WORDS).zip(0_u8..).filter(|(at, _)| masks.word(*at) != 0) {
        each(Check { word, mask: masks.word(at), lo: values.word(at), span: 0 });
    }
}

/// Where each field lies, of an address its low 32 bits, which are in one word.
static FIELDS: [(u8, u64); Field::COUNT] = places();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn places() -> [(u8, u64); Field::COUNT] {
    let mut places = [(0, 0); Field::COUNT];
    let mut at = 0;
    while at < places.len() {
        places[at] = place(Field::ALL[at]);
        at += 1;
    }
    places
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn place(field: Field) -> (u8, u64) {
    let mut ufid = Ufid::ZERO;
    ufid.set(field, if field.bits() > u64::BITS { low_bits(u32::BITS) } else { low_bits(field.bits()) });
    let mut word = 0;
    while (word as usize) < ufid::WORDS {
        if ufid.words()[word as usize] != 0 {
            return (word, ufid.words()[word as usize]);
        }
        word += 1;
    }
    (word, 0)
}
