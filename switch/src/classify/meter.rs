// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a search touches, so that the cost model can count it. The data path counts with `()`, which
//! compiles to nothing.

/// A step of a search that costs time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The next of the rows of a list, which the processor fetches ahead.
    NextRow,
    /// A row somewhere.
    Row,
    /// A condition with a list of values.
    List,
    /// A slot of a hash table, its hash included.
    Slot,
    /// A node of a trie or an interval tree.
    Node,
    /// An item of a node or of a slot.
    Item,
    /// A search for the segment of a value among sorted ones.
    Segment,
    /// A word of the bit vectors that say which tables may have a match.
    Filter,
}

/// Counts probes.
pub trait Meter {
    /// A search did this to a table of `bytes` bytes.
    fn count(&mut self, probe: Probe, bytes: usize);
}

impl Meter for () {
    #[inline(always)]
    fn count(&mut self, _: Probe, _: usize) {}
}
