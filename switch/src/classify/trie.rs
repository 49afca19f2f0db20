// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules by the prefix of one address: all nodes of a compressed trie that match, the longest first.
//!
//! In a longest-prefix group the rank begins with the length, so the first node that has a match ends
//! the search. Else a node knows the best rank of all above it, which ends it as well.

use packet::Field;

use super::Lookup;
use super::entry::{Entries, Entry};
use super::meter::{Meter, Probe};
use super::prefixes::{Prefix, PrefixTree};
use super::rank::Rank;
use super::segments::NONE;
use super::store::Store;
use crate::condition::{Key, Subject};

/// A compressed trie of one address; the other conditions are verified.
#[derive(Debug)]
pub struct Trie {
    tree: PrefixTree,
    nodes: Box<[Node]>,
    /// Rows of the nodes, then those of entries without a prefix of the address.
    store: Store,
    /// Where the latter begin.
    wild: u32,
    top: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Best rank of the nodes above.
    above: u64,
    /// Best rank of this node.
    top: u64,
    first: u32,
    /// 0 if the best row has no further checks, so that none need be looked at.
    len: u32,
    parent: u32,
}

impl Trie {
    /// Of any rules; those that say nothing of the address are searched as a list. None if the field is
    /// no address.
    #[must_use]
    pub fn new(entries: &Entries, field: Field) -> Option<Self> {
        let mut placed: Vec<(Prefix, u32)> = Vec::with_capacity(entries.len());
        let mut wild: Vec<&Entry> = Vec::new();
        for (entry, at) in entries.iter().zip(0..) {
            match entry.prefix(field) {
                Some(prefix) => placed.push((prefix, at)),
                None => wild.push(entry),
            }
        }
        // Entries are in order of rank, so those of a node are as well.
        placed.sort_unstable();
        let groups: Vec<_> = placed.chunk_by(|a, b| a.0 == b.0).collect();
        let prefixes: Vec<_> = groups.iter().filter_map(|group| group.first()).map(|(prefix, _)| *prefix).collect();
        let tree = PrefixTree::new(field, &prefixes)?;
        let mut store = Store::new(entries.len(), &entries.lists);
        let mut nodes: Vec<Node> = Vec::with_capacity(groups.len());
        for (group, number) in groups.into_iter().zip(0..) {
            let first = store.len();
            let members = group.iter().filter_map(|(_, at)| entries.get(*at));
            members.for_each(|entry| store.push(entry, Some(Subject::Field(field))));
            let parent = tree.parent(number);
            let above = nodes.get(parent as usize).map_or(0, |parent| parent.above.max(parent.top));
            let (top, len) = (store.rank(first), store.len().saturating_sub(first));
            nodes.push(Node { above, top, first, len: if store.is_unconditional(first) { 0 } else { len }, parent });
        }
        let first_wild = store.len();
        wild.into_iter().for_each(|entry| store.push(entry, None));
        let top = entries.iter().next().map_or(0, |entry| Rank::bits(Some(entry.rank)));
        Some(Self { tree, nodes: nodes.into(), store: store.packed(), wild: first_wild, top })
    }
}

impl Lookup for Trie {
    #[inline]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank> {
        let beat = Rank::bits(beat);
        let mut best = beat;
        let mut at = self.tree.deepest(key, meter);
        while at != NONE {
            let Some(node) = self.nodes.get(at as usize) else { break };
            meter.count(Probe::Node, self.nodes.len().saturating_mul(size_of::<Node>()));
            if node.top > best {
                best = if node.len == 0 {
                    node.top
                } else {
                    self.store.scan(node.first..node.first.saturating_add(node.len), key, best, meter)
                };
            }
            if node.above <= best {
                break;
            }
            at = node.parent;
        }
        best = self.store.scan(self.wild..self.store.len(), key, best, meter);
        if best > beat { Rank::from_bits(best) } else { None }
    }

    fn top(&self) -> Option<Rank> {
        Rank::from_bits(self.top)
    }
}
