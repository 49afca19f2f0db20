// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rule classification (VFP, 5.4; MSR-TR-2016-66): which rule of a group a packet meets.
//!
//! One contract, [`Lookup`]; several classifiers, each good at one kind of rules; [`Compiled`] gives
//! every rule of a group to the one that a cost model prefers, and searches them together.
//!
//! | file | what it holds |
//! |---|---|
//! | `rank` | [`Rank`]: which of two matches wins |
//! | `rule`, `expand`, `entry` | [`Rule`]s, made single-valued: [`Entries`] |
//! | `check`, `list` | what tests them |
//! | `store`, `linear` | all rows in turn |
//! | `rows`, `lanes` | rows that an index finds, and the short check that comes before them |
//! | `nodes`, `trie`, `interval` | rows at the nodes of trees |
//! | `prefixes`, `segments` | what leads to a node |
//! | `subtable`, `filter`, `tuple` | hash tables |
//! | `meter`, `cost`, `sample`, `assign` | the cost model, and who gets which rule |
//! | `group` | [`Compiled`]: a group |

mod assign;
mod check;
mod cost;
mod entry;
mod expand;
mod filter;
mod group;
mod hasher;
mod interval;
mod lanes;
mod linear;
mod list;
mod meter;
mod nodes;
mod prefixes;
mod rank;
mod rows;
mod rule;
mod sample;
mod segments;
#[cfg(test)]
mod sets;
mod store;
mod subtable;
#[cfg(test)]
mod tests;
mod trie;
mod tuple;

pub use cost::Cost;
pub use entry::Entries;
pub use group::{Compiled, Kind};
pub use linear::Linear;
pub use meter::{Meter, Probe};
pub use rank::Rank;
pub use rule::{CompileError, MAX_EXPANSION, Rule, Selection};

use crate::condition::Key;
#[cfg(test)]
use crate::condition::{Condition, Conditions, IpVersion, Subject, Value};

/// Finds the best rule for a key. Allocates nothing.
pub trait Lookup {
    /// The best rank of a matching rule, if it beats `beat`.
    #[inline]
    #[must_use]
    fn best(&self, key: &Key, beat: Option<Rank>) -> Option<Rank> {
        self.best_metered(key, beat, &mut ())
    }

    /// The same, telling `meter` what was touched.
    #[must_use]
    fn best_metered<M: Meter>(&self, key: &Key, beat: Option<Rank>, meter: &mut M) -> Option<Rank>;

    /// The best rank of all rules: a search that has found it need not go on.
    #[must_use]
    fn top(&self) -> Option<Rank>;
}
