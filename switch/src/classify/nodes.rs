// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nodes of a tree, each with the rows that are kept there, searched from a node upwards.
//!
//! A node is a header and its items, next to each other in one array, so that what lies deep in a tree,
//! where few searches come, costs one line of the cache.

use super::lanes::{Item, NO_ROW};
use super::meter::{Meter, Probe};
use super::rows::{Query, Rows};

/// A place of a node. There is always [`NOWHERE`], which is empty.
pub(super) type At = u32;

pub(super) const NOWHERE: At = 0;

#[derive(Debug)]
pub(super) struct Nodes {
    /// Headers and items.
    cells: Box<[Cell]>,
}

/// Three words of an item, or of a header: the next node up, the best row of all nodes above, how many
/// items follow.
type Cell = [u32; 3];

/// Nodes that are being added, those above before those below.
#[derive(Debug)]
pub(super) struct Growing {
    cells: Vec<Cell>,
}

impl Growing {
    pub(super) fn new(capacity: usize) -> Self {
        let mut cells = Vec::with_capacity(capacity.saturating_add(1));
        cells.push([NOWHERE, NO_ROW, 0]);
        Self { cells }
    }

    /// Adds a node below another, with items in ascending order of rows. None if there is no more room.
    pub(super) fn push(&mut self, up: At, items: impl Iterator<Item = Item>) -> Option<At> {
        let at = self.cells.len();
        let [_, above, len] = self.cells.get(up as usize).copied()?;
        let best = match self.cells.get((up as usize).saturating_add(1)) {
            Some(first) if len > 0 => Item::from_words(*first).row(),
            _ => NO_ROW,
        };
        self.cells.push([up, above.min(best), 0]);
        self.cells.extend(items.map(Item::words));
        let len = u32::try_from(self.cells.len().checked_sub(at)?.checked_sub(1)?).ok()?;
        if let Some([_, _, slot]) = self.cells.get_mut(at) {
            *slot = len;
        }
        u32::try_from(at).ok().filter(|at| at.checked_add(len).is_some())
    }

    pub(super) fn grown(self) -> Nodes {
        Nodes { cells: self.cells.into() }
    }
}

impl Nodes {
    /// The node that was added first.
    pub(super) const FIRST: At = 1;

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    /// The best row of a node and those above it that matches and is better than `best`; else `best`.
    #[inline]
    pub(super) fn search<M: Meter>(
        &self,
        mut at: At,
        rows: &Rows,
        query: &Query<'_>,
        mut best: u32,
        meter: &mut M,
    ) -> u32 {
        loop {
            let Some(([up, above, len], items)) = self.cells.get(at as usize..).and_then(<[Cell]>::split_first) else {
                return best;
            };
            meter.count(Probe::Node, self.bytes());
            for item in items.iter().take(*len as usize) {
                let item = Item::from_words(*item);
                meter.count(Probe::Item, 0);
                if item.row() >= best {
                    break;
                }
                if rows.passes(item, query, meter) {
                    best = item.row();
                    break;
                }
            }
            // Above the top there is nothing, which is never better.
            if *above >= best {
                return best;
            }
            at = *up;
        }
    }
}
