// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules by the prefix of one address: all nodes of a compressed trie that match, the longest first.
//!
//! A node knows the best row of all above it, which ends a search: in a longest-prefix group rank begins
//! with the length, so that the first node with a match does. Rules that say nothing of the address are
//! at the root.

use packet::Field;

use super::entry::Entries;
use super::lanes::{Item, NO_ROW};
use super::meter::Meter;
use super::nodes::{At, NOWHERE, Nodes, Tree};
use super::prefixes::{Prefix, PrefixTree};
use super::rows::{Query, Rows};
use crate::condition::{IpVersion, Subject};

/// A compressed trie of one address; the other conditions are verified.
#[derive(Debug)]
pub(super) struct Trie {
    tree: PrefixTree,
    pub(super) nodes: Nodes,
}

impl Trie {
    /// Of any rows, ascending. None if the field is no address.
    pub(super) fn new(entries: &Entries, of: &[u32], field: Field, rows: &Rows) -> Option<Self> {
        let Sorted { prefixes, mut ends, order, wild } = sorted(entries, of, field);
        let item = |row: &u32, known| entries.get(*row).map(|entry| rows.lanes.item(*row, entry, known));
        // The root, then a node for every prefix.
        let mut items: Vec<Item> = Vec::with_capacity(of.len());
        items.extend(wild.iter().filter_map(|row| item(row, None)));
        items.extend(order.iter().filter_map(|row| item(row, Some(Subject::Field(field)))));
        ends.iter_mut().for_each(|end| *end = end.saturating_add(wild.len()));
        ends.insert(0, wild.len());
        // Where a search in the root begins is known before there is a tree.
        let root = if wild.is_empty() { NOWHERE } else { Nodes::FIRST };
        let mut nodes = None;
        let tree = PrefixTree::new(field, &prefixes, root, |parents| {
            let numbered = |parent: &u32| if *parent == NO_ROW { 0 } else { parent.saturating_add(1) };
            let parents: Vec<u32> = [NO_ROW].into_iter().chain(parents.iter().map(numbered)).collect();
            let (grown, mut places) = Tree { parents: &parents, ends: &ends, items: &items }.grow()?;
            nodes = Some(grown);
            places.remove(0);
            Some(places)
        })?;
        Some(Self { tree, nodes: nodes? })
    }

    #[inline]
    pub(super) fn enter<M: Meter>(&self, query: &Query<'_>, meter: &mut M) -> At {
        self.tree.deepest(query.key, meter)
    }

    pub(super) fn bytes(&self) -> usize {
        self.tree.bytes().saturating_add(self.nodes.bytes())
    }
}

/// Rows by their prefixes.
#[derive(Default)]
struct Sorted {
    prefixes: Vec<Prefix>,
    /// Where in `order` those of each prefix end.
    ends: Vec<usize>,
    order: Vec<u32>,
    /// Those without.
    wild: Vec<u32>,
}

fn sorted(entries: &Entries, of: &[u32], field: Field) -> Sorted {
    let mut sorted = Sorted::default();
    // Address, length and row of an IPv4 prefix are one number.
    let (mut narrow, mut wide): (Vec<u64>, Vec<(u128, u8, u32)>) = (Vec::with_capacity(of.len()), Vec::new());
    for (row, entry) in entries.of(of) {
        match entry.prefix(field) {
            Some((IpVersion::V4, value, len)) => {
                let value = u64::try_from(value).unwrap_or_default();
                narrow.push(value << 32 | u64::from(len) << 24 | u64::from(row));
            }
            Some((_, value, len)) => wide.push((value, len, row)),
            None => sorted.wild.push(row),
        }
    }
    narrow.sort_unstable();
    wide.sort_unstable();
    for packed in narrow {
        let prefix = (IpVersion::V4, (packed >> 32).into(), u8::try_from(packed >> 24 & 0xff).unwrap_or_default());
        sorted.push(prefix, u32::try_from(packed & 0xff_ffff).unwrap_or_default());
    }
    for (value, len, row) in wide {
        sorted.push((IpVersion::V6, value, len), row);
    }
    sorted
}

impl Sorted {
    fn push(&mut self, prefix: Prefix, row: u32) {
        self.order.push(row);
        if self.prefixes.last() != Some(&prefix) {
            self.prefixes.push(prefix);
            self.ends.push(0);
        }
        if let Some(end) = self.ends.last_mut() {
            *end = self.order.len();
        }
    }
}
