// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A compressed trie of address prefixes, searched from its leaves.
//!
//! # Theory of operation
//!
//! Prefixes nest or are disjoint, so each cuts the line of addresses where it begins and ends, and each
//! piece has one longest prefix. A search finds the piece ([`Segments`]) and so the deepest node at
//! once; the shorter prefixes are its ancestors. Bits that no prefix tells apart have no nodes, hence
//! the way up has exactly the prefixes that match, two or three in most tables, where a way down from
//! the root has twenty.

use packet::Field;

use super::check::ipv4_place;
use super::lanes::NO_ROW;
use super::meter::Meter;
use super::segments::Segments;
use crate::condition::{IpVersion, Key, Subject};

/// A prefix: version, lowest address, length.
pub(super) type Prefix = (IpVersion, u128, u8);

#[derive(Debug)]
pub(super) struct PrefixTree {
    field: Field,
    version: Field,
    /// Word, bits, and shift of an IPv4 address in a key.
    place: (u8, u64, u32),
    v4: Segments<u32>,
    v6: Segments<u128>,
    /// The id of what no prefix matches.
    below: u32,
}

impl PrefixTree {
    /// Of distinct prefixes of an address, ascending. `ids` gives each its id, told the place of the next
    /// shorter one that contains it, or [`NO_ROW`]. None if the field is no address, or if there are no
    /// ids.
    pub(super) fn new(
        field: Field,
        prefixes: &[Prefix],
        below: u32,
        ids: impl FnOnce(&[u32]) -> Option<Vec<u32>>,
    ) -> Option<Self> {
        let version = Subject::Field(field).ip_version()?;
        let (word, mask) = ipv4_place(field)?;
        let split = prefixes.partition_point(|(version, ..)| *version == IpVersion::V4);
        let mut parents = vec![NO_ROW; prefixes.len()];
        let numbered = || prefixes.iter().zip(0..);
        let v4 = cut(numbered().take(split), &mut parents);
        let v6 = cut(numbered().skip(split), &mut parents);
        let ids = ids(&parents)?;
        let id = |number: u32| ids.get(number as usize).copied().unwrap_or(below);
        let v4 = v4.into_iter().filter_map(|(start, number)| Some((u32::try_from(start).ok()?, id(number))));
        let v6 = v6.into_iter().map(|(start, number)| (start, id(number)));
        let (v4, v6) = (Segments::new(&v4.collect::<Vec<_>>(), below), Segments::new(&v6.collect::<Vec<_>>(), below));
        Some(Self { field, version, place: (word, mask, mask.trailing_zeros()), v4, v6, below })
    }

    /// The id of the longest prefix of a key's address, or that of none.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
    pub(super) fn deepest<M: Meter>(&self, key: &Key, meter: &mut M) -> u32 {
        match key.ufid.get(self.version) as u8 {
            4 => {
                let (word, mask, shift) = self.place;
                self.v4.find(((key.word(usize::from(word)) & mask) >> (shift & 63)) as u32, meter)
            }
            6 => self.v6.find(key.ufid.get(self.field), meter),
            _ => self.below,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.v4.bytes().saturating_add(self.v6.bytes())
    }
}

/// The pieces that prefixes of one version cut, each with its longest prefix, and every prefix's parent.
fn cut<'a>(prefixes: impl Iterator<Item = (&'a Prefix, u32)>, parents: &mut [u32]) -> Vec<(u128, u32)> {
    let mut pieces: Vec<(u128, u32)> = Vec::new();
    let mut open: Vec<(u128, u32)> = Vec::new();
    let mut bits = u32::BITS;
    for (&(version, value, len), number) in prefixes {
        bits = version.bits();
        close(&mut open, &mut pieces, Some(value), bits);
        if let (Some((_, parent)), Some(slot)) = (open.last(), parents.get_mut(number as usize)) {
            *slot = *parent;
        }
        begin(&mut pieces, value, number);
        let all = version.prefix_mask(u8::MAX);
        open.push((value | all & !version.prefix_mask(len), number));
    }
    close(&mut open, &mut pieces, None, bits);
    pieces
}

/// Ends what is open and ends before `until`, or all.
fn close(open: &mut Vec<(u128, u32)>, pieces: &mut Vec<(u128, u32)>, until: Option<u128>, bits: u32) {
    while let Some((end, _)) = open.pop_if(|(end, _)| until.is_none_or(|until| *end < until)) {
        let after = end.checked_add(1).filter(|after| bits == u128::BITS || *after >> bits == 0);
        if let Some(after) = after {
            begin(pieces, after, open.last().map_or(NO_ROW, |(_, number)| *number));
        }
    }
}

fn begin(pieces: &mut Vec<(u128, u32)>, start: u128, number: u32) {
    match pieces.last_mut() {
        // What was to begin here had no room.
        Some(last) if last.0 == start => last.1 = number,
        _ => pieces.push((start, number)),
    }
}
