// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nodes of a tree, each with the rows that are kept there, searched from a node upwards.
//!
//! A node is a header and its items, next to each other in one array. The way up has ten or twenty
//! nodes, each with a branch that is guessed wrong. Therefore items of nodes above are merged into those
//! below, in two stages: nodes with many below them, the *crown*, where all searches come and which the
//! caches keep, and the rest. So a search reads one run of items far down and one in the crown.

use std::collections::HashMap;

use super::hasher::Quick;
use super::lanes::{Item, NO_ROW};
use super::meter::{Meter, Probe};
use super::rows::{Query, Rows};

/// Nodes below a node that make it one of the crown.
const CROWN: u32 = 8;
/// Items of a node of the crown up to which they are merged into those below.
const MERGED_CROWN: u32 = 64;
/// The same of all others.
const MERGED_TWIGS: u32 = 4;
/// By how much merging may enlarge a tree.
const GROWTH: usize = 3;

/// A place of a node. There is always [`NOWHERE`], which is empty.
pub(super) type At = u32;

pub(super) const NOWHERE: At = 0;

#[derive(Debug)]
pub(super) struct Nodes {
    /// Headers and items.
    cells: Box<[Cell]>,
}

/// Two words of an item, or of a header: the next node up, and how many items follow, with [`NO_BETTER`].
type Cell = [u32; 2];

/// All rows above are worse than all here.
const NO_BETTER: u32 = 1 << 31;

/// A tree that becomes nodes: those above have lower numbers than those below.
pub(super) struct Tree<'a> {
    /// Of each node the one above; [`NO_ROW`] if there is none.
    pub(super) parents: &'a [u32],
    /// Of each node where in `items` its own end; they begin where those of the node before end.
    pub(super) ends: &'a [usize],
    /// In ascending order of rows at every node.
    pub(super) items: &'a [Item],
}

impl Tree<'_> {
    /// The nodes, and of each where a search for it begins. None if there are too many.
    pub(super) fn grow(&self) -> Option<(Nodes, Vec<At>)> {
        let crown = self.crown();
        let mut cells: Vec<Cell> = Vec::with_capacity(self.items.len().saturating_add(self.parents.len()));
        cells.push([NOWHERE, NO_BETTER]);
        // Of each place the best row there and above.
        let mut best_above: HashMap<At, u32, Quick> = HashMap::default();
        let budget = self.items.len().saturating_add(self.parents.len()).saturating_mul(GROWTH);
        let mut places: Vec<At> = Vec::with_capacity(self.parents.len());
        let mut start = 0;
        for ((parent, end), is_crown) in self.parents.iter().zip(self.ends).zip(&crown) {
            let own = self.items.get(start..*end)?;
            start = *end;
            let up = places.get(*parent as usize).copied().unwrap_or(NOWHERE);
            if own.is_empty() {
                places.push(up);
                continue;
            }
            let at = cells.len();
            let [next, len] = cells.get(up as usize).copied()?;
            let len = len & !NO_BETTER;
            let first = (up as usize).saturating_add(1);
            let theirs = first..first.saturating_add(len as usize);
            let is_near = crown.get(*parent as usize).is_some_and(|of_parent| of_parent == is_crown);
            let limit = if *is_crown { MERGED_CROWN } else { MERGED_TWIGS };
            let above = if is_near && len <= limit && cells.len() < budget {
                cells.push([next, 0]);
                let mut own = own.iter().peekable();
                for their in theirs {
                    let their = *cells.get(their)?;
                    while let Some(item) = own.next_if(|item| item.row() < Item::from_words(their).row()) {
                        cells.push(item.words());
                    }
                    cells.push(their);
                }
                cells.extend(own.map(|item| item.words()));
                next
            } else {
                cells.push([up, 0]);
                cells.extend(own.iter().map(|item| item.words()));
                up
            };
            let best = best_above.get(&above).copied().unwrap_or(NO_ROW);
            let row = |cell: Option<&Cell>| cell.map_or(NO_ROW, |cell| Item::from_words(*cell).row());
            let is_best = row(cells.last()) < best;
            best_above.insert(u32::try_from(at).ok()?, best.min(row(cells.get(at.saturating_add(1)))));
            let len =
                u32::try_from(cells.len().checked_sub(at)?.checked_sub(1)?).ok().filter(|len| *len < NO_BETTER)?;
            if let Some([_, slot]) = cells.get_mut(at) {
                *slot = if is_best { len | NO_BETTER } else { len };
            }
            places.push(u32::try_from(at).ok()?);
        }
        u32::try_from(cells.len()).ok()?;
        Some((Nodes { cells: cells.into() }, places))
    }

    /// Which nodes have many below them.
    fn crown(&self) -> Vec<bool> {
        let mut below = vec![1_u32; self.parents.len()];
        for (at, parent) in self.parents.iter().enumerate().rev() {
            let own = below.get(at).copied().unwrap_or(0);
            if let Some(all) = below.get_mut(*parent as usize) {
                *all = all.saturating_add(own);
            }
        }
        below.into_iter().map(|below| below >= CROWN).collect()
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
            let Some(([up, len], items)) = self.cells.get(at as usize..).and_then(<[Cell]>::split_first) else {
                return best;
            };
            meter.count(Probe::Node, self.bytes());
            for item in items.iter().take((len & !NO_BETTER) as usize) {
                let item = Item::from_words(*item);
                meter.count(Probe::Item, 0);
                if item.row() >= best {
                    break;
                }
                if rows.passes(item, query, meter) {
                    best = item.row();
                    if len & NO_BETTER != 0 {
                        return best;
                    }
                    break;
                }
            }
            if *up == NOWHERE {
                return best;
            }
            at = *up;
        }
    }

    /// How many lanes its items need.
    pub(super) fn lanes(&self) -> usize {
        let (mut lanes, mut at) = (0, 0);
        while let Some(([_, len], items)) = self.cells.get(at..).and_then(<[Cell]>::split_first) {
            let len = (len & !NO_BETTER) as usize;
            let of_items = items.iter().take(len).map(|item| Item::from_words(*item).lanes());
            lanes = of_items.fold(lanes, usize::max);
            at = at.saturating_add(len).saturating_add(1);
        }
        lanes
    }
}
