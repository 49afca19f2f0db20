// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All entries of a group by the number of their row: what verifies a match.
//!
//! A row is one line of the cache: rank, the two most selective checks, and where the rest is. What is
//! left over is little and common (a version, a protocol), so that equal sequences are one.

use std::collections::HashMap;
use std::sync::Arc;

use super::check::Check;
use super::entry::{Entries, merge};
use super::hasher::Quick;
use super::lanes::{Item, Lanes, NO_ROW, Read};
use super::list::ListTest;
use super::meter::{Meter, Probe};
use super::rank::Rank;
use crate::condition::Key;

#[derive(Debug)]
pub(super) struct Rows {
    rows: Box<[Row]>,
    more: Box<[Check]>,
    /// Rows and the places of their lists, by row.
    lists: Box<[(u32, u32)]>,
    tests: Arc<[ListTest]>,
    pub(super) lanes: Lanes,
}

/// What is looked up.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) key: &'a Key,
    pub(super) read: Read,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Row {
    rank: u64,
    first: Test,
    second: Test,
    more: u32,
    words: [u8; 2],
    more_len: u8,
    has_lists: bool,
}

/// A [`Check`] without its word.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Test {
    mask: u64,
    lo: u64,
    span: u64,
}

impl Rows {
    pub(super) fn new(entries: &Entries) -> Self {
        let mut rows = Vec::with_capacity(entries.len());
        let (mut more, mut lists) = (Vec::new(), Vec::new());
        let mut known: HashMap<Box<[Check]>, u32, Quick> = HashMap::default();
        let mut checks = Vec::new();
        for (entry, row) in entries.iter().zip(0..) {
            // Contradictory entries are not there.
            let _ = merge(entry.terms, &mut checks);
            checks.sort_by_key(|check| u32::MAX.saturating_sub(check.bits()));
            let mut rest = checks.iter();
            let [first, second] = [(); 2].map(|()| rest.next().copied().unwrap_or(Check::ALWAYS));
            let rest = rest.as_slice();
            let at = match known.get(rest) {
                Some(at) => *at,
                None => {
                    let at = u32::try_from(more.len()).unwrap_or(u32::MAX);
                    more.extend_from_slice(rest);
                    known.insert(rest.into(), at);
                    at
                }
            };
            rows.push(Row {
                rank: Rank::bits(Some(entry.rank)),
                first: Test::new(first),
                second: Test::new(second),
                more: at,
                words: [first.word, second.word],
                // There are fewer subjects than a byte counts.
                more_len: u8::try_from(rest.len()).unwrap_or(u8::MAX),
                has_lists: !entry.lists.is_empty(),
            });
            lists.extend(entry.lists.iter().map(|list| (row, *list)));
        }
        let (rows, more, lists) = (rows.into(), more.into(), lists.into());
        Self { rows, more, lists, tests: Arc::clone(&entries.lists), lanes: Lanes::new(entries) }
    }

    #[inline]
    pub(super) fn query<'a>(&self, key: &'a Key) -> Query<'a> {
        Query { key, read: self.lanes.read(key) }
    }

    /// In bytes, without lists.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.rows).saturating_add(size_of_val(&*self.more)).saturating_add(size_of_val(&*self.lists))
    }

    /// The rank of a row, if there is one of this number.
    #[inline]
    pub(super) fn rank(&self, row: u32) -> Option<Rank> {
        self.rows.get(row as usize).and_then(|row| Rank::from_bits(row.rank))
    }

    /// The first row that does not beat a rank.
    pub(super) fn beating(&self, beat: Option<Rank>) -> u32 {
        let Some(beat) = beat else { return NO_ROW };
        let first = self.rows.partition_point(|row| row.rank > Rank::bits(Some(beat)));
        u32::try_from(first).unwrap_or(NO_ROW)
    }

    /// Whether an item's row matches.
    #[inline]
    pub(super) fn passes<M: Meter>(&self, item: Item, query: &Query<'_>, meter: &mut M) -> bool {
        item.passes(&query.read) && (item.is_decided() || self.matches(item.row(), query.key, meter))
    }

    fn matches<M: Meter>(&self, row: u32, key: &Key, meter: &mut M) -> bool {
        meter.count(Probe::Row, size_of_val(&*self.rows));
        let Some(line) = self.rows.get(row as usize) else { return false };
        let [first, second] = line.words;
        if !line.first.passes(key, first) || !line.second.passes(key, second) {
            return false;
        }
        let more = line.more as usize;
        let more = self.more.get(more..more.wrapping_add(usize::from(line.more_len))).unwrap_or_default();
        more.iter().all(|check| check.passes(key)) && (!line.has_lists || self.passes_lists(row, key, meter))
    }

    fn passes_lists<M: Meter>(&self, row: u32, key: &Key, meter: &mut M) -> bool {
        let first = self.lists.partition_point(|(other, _)| *other < row);
        let lists = self.lists.get(first..).unwrap_or_default().iter().take_while(|(other, _)| *other == row);
        lists.into_iter().all(|(_, list)| {
            meter.count(Probe::List, 0);
            self.tests.get(*list as usize).is_some_and(|test| test.passes(key))
        })
    }
}

impl Test {
    const fn new(check: Check) -> Self {
        Self { mask: check.mask, lo: check.lo, span: check.span }
    }

    #[inline]
    fn passes(&self, key: &Key, word: u8) -> bool {
        (key.word(usize::from(word)) & self.mask).wrapping_sub(self.lo) <= self.span
    }
}
