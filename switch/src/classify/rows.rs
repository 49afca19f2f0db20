// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All entries of a group by the number of their row: what verifies a match.
//!
//! A row is one line of the cache: rank, two words to compare, two intervals of lanes, which is all that
//! most rules of IPv4 say, and where the rest is. Of that, equal sequences are one.

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

/// In [`Row::more_len`].
const HAS_LISTS: u8 = 1 << 7;
const LANE_NIBBLE: usize = 4;

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
    /// Equalities: mask and value.
    equal: [(u64, u64); 2],
    /// Intervals of lanes: the lowest, and how far the highest is from it.
    within: [(u32, u32); 2],
    /// Where the rest is.
    more: u32,
    words: [u8; 2],
    /// The lanes, four bits each.
    lanes: u8,
    more_len: u8,
}

impl Rows {
    pub(super) fn new(entries: &Entries) -> Self {
        let lanes = Lanes::new(entries);
        let mut rows = Vec::with_capacity(entries.len());
        let (mut more, mut lists) = (Vec::new(), Vec::new());
        let mut known: HashMap<Box<[Check]>, u32, Quick> = HashMap::default();
        let (mut checks, mut rest) = (Vec::new(), Vec::new());
        for (entry, number) in entries.iter().zip(0..) {
            let mut row = Row::new(entry.rank);
            // Contradictory entries are not there.
            let _ = merge(entry.terms, &mut checks);
            checks.sort_by_key(|check| u32::MAX.saturating_sub(check.bits()));
            rest.clear();
            rest.extend(checks.iter().filter(|check| !row.take(check, &lanes)));
            row.more = match known.get(rest.as_slice()) {
                Some(at) => *at,
                None => {
                    let at = u32::try_from(more.len()).unwrap_or(u32::MAX);
                    more.extend_from_slice(&rest);
                    known.insert(rest.as_slice().into(), at);
                    at
                }
            };
            // There are fewer subjects than this, and lists come after them.
            row.more_len =
                u8::try_from(rest.len()).unwrap_or(HAS_LISTS) | if entry.lists.is_empty() { 0 } else { HAS_LISTS };
            rows.push(row);
            lists.extend(entry.lists.iter().map(|list| (number, *list)));
        }
        let (rows, more, lists) = (rows.into(), more.into(), lists.into());
        Self { rows, more, lists, tests: Arc::clone(&entries.lists), lanes }
    }

    /// Reads no more lanes than these many, and those of the rows.
    pub(super) fn keep_lanes(&mut self, len: usize) {
        let of_rows = self.rows.iter().map(Row::lanes_read).max().unwrap_or(0);
        self.lanes.truncate(len.max(of_rows));
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
        item.passes(&query.read) && (item.is_decided() || self.matches(item.row(), query, meter))
    }

    fn matches<M: Meter>(&self, row: u32, query: &Query<'_>, meter: &mut M) -> bool {
        meter.count(Probe::Row, size_of_val(&*self.rows));
        let Some(line) = self.rows.get(row as usize) else { return false };
        if !line.passes(query) {
            return false;
        }
        if line.more_len == 0 {
            return true;
        }
        let more = line.more as usize;
        let len = usize::from(line.more_len & !HAS_LISTS);
        let more = self.more.get(more..more.wrapping_add(len)).unwrap_or_default();
        more.iter().all(|check| check.passes(query.key))
            && (line.more_len & HAS_LISTS == 0 || self.passes_lists(row, query.key, meter))
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

impl Row {
    /// Of an entry that tests nothing.
    fn new(rank: Rank) -> Self {
        Self {
            rank: Rank::bits(Some(rank)),
            equal: [(0, 0); 2],
            within: [(0, u32::MAX); 2],
            more: 0,
            words: [0; 2],
            lanes: 0,
            more_len: 0,
        }
    }

    /// Takes a check in, if there is room.
    fn take(&mut self, check: &Check, lanes: &Lanes) -> bool {
        if check.is_equality() {
            let free = self.equal.iter_mut().zip(&mut self.words).find(|((mask, _), _)| *mask == 0);
            let Some((equal, word)) = free else { return false };
            (*equal, *word) = ((check.mask, check.lo), check.word);
            return true;
        }
        let Some((lane, lo, span)) = lanes.interval(check) else { return false };
        let Some((at, within)) = self.within.iter_mut().enumerate().find(|(_, (_, span))| *span == u32::MAX) else {
            return false;
        };
        *within = (lo, span);
        self.lanes |= lane << (at * LANE_NIBBLE);
        true
    }

    /// How many lanes must be read for it.
    fn lanes_read(&self) -> usize {
        let read = |((_, span), at): (&(u32, u32), usize)| {
            if *span == u32::MAX { 0 } else { usize::from(self.lanes >> (at * LANE_NIBBLE) & 0xf) + 1 }
        };
        self.within.iter().zip(0..).map(read).max().unwrap_or(0)
    }

    #[inline]
    fn passes(&self, query: &Query<'_>) -> bool {
        let equal = |(mask, value): (u64, u64), word: u8| query.key.word(usize::from(word)) & mask == value;
        let within = |(lo, span): (u32, u32), lane: u8| query.read.lane(lane).wrapping_sub(lo) <= span;
        let ([first, second], [one, other]) = (self.equal, self.words);
        let [near, far] = self.within;
        equal(first, one) && equal(second, other) && within(near, self.lanes) && within(far, self.lanes >> LANE_NIBBLE)
    }
}
