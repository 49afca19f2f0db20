// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Entries packed for searching.
//!
//! A row has its most selective check inside, because that is the only one that most rows need; the
//! others lie in one array for all rows, where equal sequences are one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::check::Check;
use super::entry::{View, merge};
use super::hasher::Quick;
use super::list::ListTest;
use super::meter::{Meter, Probe};
use super::rank::Rank;
use crate::condition::Key;

#[derive(Debug)]
pub(super) struct Store {
    rows: Vec<Row>,
    checks: Vec<Check>,
    lists: Vec<u32>,
    tests: Arc<[ListTest]>,
    packing: Packing,
}

/// What is needed only until all rows are there.
#[derive(Debug, Default)]
struct Packing {
    scratch: Vec<Check>,
    /// Where sequences of checks are: rules share protocols and ports, and what is not stored twice
    /// stays in the cache.
    known: HashMap<Box<[Check]>, u32, Quick>,
}

#[derive(Debug)]
struct Row {
    rank: u64,
    mask: u64,
    lo: u64,
    span: u64,
    more: u32,
    lists: u32,
    word: u8,
    more_len: u8,
    lists_len: u8,
}

impl Store {
    pub(super) fn new(capacity: usize, tests: &Arc<[ListTest]>) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
            checks: Vec::new(),
            lists: Vec::new(),
            tests: Arc::clone(tests),
            packing: Packing::default(),
        }
    }

    /// Appends a row.
    pub(super) fn push(&mut self, entry: View<'_>) {
        let Packing { scratch, known } = &mut self.packing;
        // Contradictory entries are not there.
        let _ = merge(entry.terms, scratch);
        scratch.sort_by_key(|check| u32::MAX.saturating_sub(check.bits()));
        let (first, more) = match scratch.split_first() {
            Some((first, more)) => (*first, more),
            None => (Check::ALWAYS, [].as_slice()),
        };
        let place = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        // There are fewer subjects than a byte counts.
        let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        let at = match known.get(more) {
            Some(at) => *at,
            None => {
                let at = place(self.checks.len());
                self.checks.extend_from_slice(more);
                known.insert(more.into(), at);
                at
            }
        };
        self.rows.push(Row {
            rank: Rank::bits(Some(entry.rank)),
            mask: first.mask,
            lo: first.lo,
            span: first.span,
            more: at,
            lists: place(self.lists.len()),
            word: first.word,
            more_len: count(more.len()),
            lists_len: count(entry.lists.len()),
        });
        self.lists.extend_from_slice(entry.lists);
    }

    /// No more rows come.
    pub(super) fn packed(mut self) -> Self {
        self.packing = Packing::default();
        self
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// What its rows need in the caches, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.rows.len().saturating_mul(size_of::<Row>())
    }

    /// The rank of a row, 0 if there is none.
    #[inline]
    pub(super) fn rank(&self, row: u32) -> u64 {
        self.rows.get(row as usize).map_or(0, |row| row.rank)
    }

    /// The rank of the first of these rows, which descend in rank, that matches and beats `best`; else
    /// `best`.
    #[inline]
    pub(super) fn scan<M: Meter>(&self, rows: Range<u32>, key: &Key, best: u64, meter: &mut M) -> u64 {
        let Some(rows) = self.rows.get(rows.start as usize..rows.end as usize) else { return best };
        let mut probe = Probe::Row;
        for row in rows {
            meter.count(probe, self.bytes());
            probe = Probe::NextRow;
            if row.rank <= best {
                return best;
            }
            if self.passes(row, key, meter) {
                return row.rank;
            }
        }
        best
    }

    #[inline]
    fn passes<M: Meter>(&self, row: &Row, key: &Key, meter: &mut M) -> bool {
        if (key.word(usize::from(row.word)) & row.mask).wrapping_sub(row.lo) > row.span {
            return false;
        }
        let more = row.more as usize;
        let more = self.checks.get(more..more.wrapping_add(usize::from(row.more_len))).unwrap_or_default();
        more.iter().all(|check| check.passes(key)) && (row.lists_len == 0 || self.passes_lists(row, key, meter))
    }

    fn passes_lists<M: Meter>(&self, row: &Row, key: &Key, meter: &mut M) -> bool {
        let lists = row.lists as usize;
        let lists = self.lists.get(lists..lists.saturating_add(usize::from(row.lists_len))).unwrap_or_default();
        lists.iter().all(|list| {
            meter.count(Probe::List, self.bytes());
            self.tests.get(*list as usize).is_some_and(|test| test.passes(key))
        })
    }
}
