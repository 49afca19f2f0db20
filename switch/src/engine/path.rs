// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Paths: the ways through the layers that flows have in common.
//!
//! # Theory of operation
//!
//! Thousands of flows cross the same rules. What these are, what the flow's plan depends on, and whose
//! counters its packets belong to is kept once, *interned*: a flow has the number of its path. When policy
//! changes, a path is looked at once: if nothing that it depends on has changed, all its flows are right. So a
//! change in one of many groups costs the flows that searched it, and no others (VF-20).
//!
//! With many rules there are nearly as many paths as flows, so a path is small: what it depends on is written down in
//! words, which are its name, too. First the stamp of which layers there are, and the direction; then of each stage a
//! [`Head`], and if rules were asked the stamp of the layer's shape and of each group that was searched its stamp and place;
//! then words that only tell paths apart.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use crate::Name;
use crate::action::Lookup;
use crate::compile::{CompiledLayer, Snapshot, Stamp};
use crate::flow::slab::allocated;
use crate::flow::{Handle, Index, Slab};
use crate::model::{Answer, Content, ResourceKind};
use crate::plan::{Choice, Plan, Stage};
use crate::tally::Tally;

/// The number of a path; of a flow whose plan holds no longer, none.
pub(super) type PathId = Option<Handle>;

/// All paths of a port's flows.
#[derive(Debug)]
pub(super) struct Paths {
    paths: Slab<Path>,
    index: Index,
    hasher: foldhash::fast::RandomState,
    /// Of the path that is looked for.
    words: Vec<u64>,
    /// Bytes that paths have on the heap.
    heap: usize,
}

#[derive(Debug)]
struct Path {
    words: Box<[u64]>,
    /// Who counts, by stage.
    tallies: Box<[Arc<Tally>]>,
    /// What only few have.
    rare: Option<Box<Rare>>,
    /// Flows that have it.
    users: u32,
    holds: bool,
    /// When it was last looked at.
    checked: Stamp,
}

/// What paths have that go into tunnels, ask maps or take from lists.
#[derive(Debug)]
struct Rare {
    /// By how many bytes frames have grown in front of each stage.
    grown: Box<[i32]>,
    lookups: Box<[Lookup]>,
    /// Lists that ports were taken from, and their versions: they may have those ports no longer.
    ranges: Box<[(Name, u64)]>,
    /// Until when a denial of the directory is to be believed.
    until_ns: u64,
}

/// The first word of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    choice: Choice,
    layer: usize,
    /// How many groups were searched.
    searched: usize,
    /// How many words there are behind those.
    others: usize,
}

impl Paths {
    pub(super) fn new(capacity: usize) -> Self {
        let (paths, index) = (Slab::with_rest(capacity, 0), Index::new(capacity));
        Self { paths, index, hasher: foldhash::fast::RandomState::default(), words: Vec::new(), heap: 0 }
    }

    /// The path of a plan, for one more flow. `None`: there are too many.
    pub(super) fn intern(&mut self, plan: &Plan, snapshot: &Snapshot) -> PathId {
        self.words.clear();
        describe(&mut self.words, plan, snapshot);
        let Self { paths, index, hasher, words, .. } = self;
        let hash = hasher.hash_one(&**words);
        let same = |place| paths.at(place).is_some_and(|(_, path)| *path.words == **words);
        if let Some(place) = index.find(hash, same) {
            let (handle, _) = paths.at(place)?;
            paths.get_mut(handle)?.users += 1;
            return Some(handle);
        }
        let path = Path::new(plan, snapshot, words.as_slice().into());
        let heap = path.heap();
        let handle = paths.insert(path).ok()?;
        if !index.insert(hash, handle.place()) {
            paths.remove(handle);
            return None;
        }
        self.heap += heap;
        Some(handle)
    }

    /// One flow less.
    pub(super) fn release(&mut self, id: PathId) {
        let Some(handle) = id else { return };
        let Some(path) = self.paths.get_mut(handle) else { return };
        path.users = path.users.saturating_sub(1);
        if path.users == 0
            && let Some(path) = self.paths.remove(handle)
        {
            self.index.remove(self.hasher.hash_one(&*path.words), handle.place());
            self.heap -= path.heap();
        }
    }

    /// Whether what a flow's plan depends on is as it was.
    pub(super) fn holds(&mut self, id: PathId, snapshot: &Snapshot) -> bool {
        let Some(path) = id.and_then(|handle| self.paths.get_mut(handle)) else { return false };
        if path.checked != snapshot.epoch() {
            path.holds = path.still_holds(snapshot);
            path.checked = snapshot.epoch();
        }
        path.holds
    }

    /// Until when a flow is right whatever happens to policy.
    pub(super) fn until_ns(&self, id: PathId) -> u64 {
        let path = id.and_then(|handle| self.paths.get(handle));
        path.map_or(0, |path| path.rare.as_ref().map_or(u64::MAX, |rare| rare.until_ns))
    }

    /// Adds what a flow counted to the rules that its packets met.
    pub(super) fn count(&self, id: PathId, packets: u32, bytes: u64) {
        let Some(path) = id.and_then(|handle| self.paths.get(handle)) else { return };
        let mut grown = path.rare.iter().flat_map(|rare| &rare.grown);
        for tally in &path.tallies {
            let grown = i64::from(grown.next().copied().unwrap_or(0)).saturating_mul(packets.into());
            // Bytes as they were in front of the layer.
            tally.add(packets.into(), bytes.saturating_add_signed(grown));
        }
    }

    /// Moves up to `budget` buckets of an index that has grown.
    pub(super) fn settle(&mut self, budget: usize) {
        self.index.settle(budget);
    }

    /// Number of paths.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Bytes that they take, room for more included.
    pub(super) fn memory(&self) -> usize {
        self.paths.memory() + self.index.memory() + self.heap
    }
}

/// Writes down what makes a path this one and no other.
fn describe(words: &mut Vec<u64>, plan: &Plan, snapshot: &Snapshot) {
    words.extend([snapshot.shape().to_bits(), plan.direction as u64]);
    let mut searched = plan.searched.iter();
    for (stage, layer) in stages(plan, snapshot) {
        let at = words.len();
        words.push(0);
        if stage.choice == Choice::Entry {
            // It asked no rules, and cannot change with them.
            words.push(layer.id.to_bits());
        } else {
            words.push(layer.shape.to_bits());
        }
        for at in searched.by_ref().take(stage.searched) {
            let stamp = layer.groups.get(usize::from(*at)).map_or(0, |group| group.stamp.to_bits());
            words.push(stamp << 16 | u64::from(*at));
        }
        let others = words.len();
        if stage.grown != 0 {
            words.push(i64::from(stage.grown).cast_unsigned());
        }
        if let Some((_, version)) = ranges_of(stage.choice, layer, snapshot) {
            words.push(version);
        }
        if let Some(lookup) = &stage.lookup {
            // Two independent 64-bit hashes: what is told apart by 128 bits is told apart.
            let hash = |seed| Fixed(seed).hash_one(lookup);
            words.extend([hash(1), hash(2)]);
        }
        let others = words.len() - others;
        let head = Head { choice: stage.choice, layer: stage.layer, searched: stage.searched, others };
        if let Some(word) = words.get_mut(at) {
            *word = head.to_word();
        }
    }
}

fn stages<'a>(plan: &'a Plan, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a Stage, &'a CompiledLayer)> {
    plan.stages.iter().filter_map(|stage| Some((stage, snapshot.layers().get(stage.layer)?)))
}

impl Head {
    /// There are at most 32 layers, of 1024 groups, of 65,536 rules.
    const fn to_word(self) -> u64 {
        let (code, group, place) = match self.choice {
            Choice::Entry => (0, 0, 0),
            Choice::Default => (1, 0, 0),
            Choice::Rule { group, place } => (2, group as u64, place as u64),
        };
        code | (self.others as u64) << 2
            | (self.layer as u64) << 6
            | (self.searched as u64) << 12
            | group << 24
            | place << 36
    }

    fn from_word(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "28 bits at most")]
        let bits = |at: u32, count: u32| (word >> at & ((1 << count) - 1)) as usize;
        let choice = match word & 3 {
            0 => Choice::Entry,
            1 => Choice::Default,
            _ => Choice::Rule { group: bits(24, 12), place: bits(36, 28) },
        };
        Self { choice, layer: bits(6, 6), searched: bits(12, 12), others: bits(2, 4) }
    }
}

impl Path {
    fn new(plan: &Plan, snapshot: &Snapshot, words: Box<[u64]>) -> Self {
        let tally = |(stage, layer): (&Stage, &CompiledLayer)| match stage.choice {
            Choice::Entry => Some(Arc::clone(&layer.entries)),
            Choice::Default => Some(Arc::clone(&layer.default)),
            Choice::Rule { group, place } => layer.groups.get(group)?.tally(place).cloned(),
        };
        let tallies = stages(plan, snapshot).filter_map(tally).collect();
        Self { words, tallies, rare: Rare::of(plan, snapshot), users: 1, holds: true, checked: snapshot.epoch() }
    }

    fn still_holds(&self, snapshot: &Snapshot) -> bool {
        self.rules_hold(snapshot) == Some(true) && self.rare.as_ref().is_none_or(|rare| rare.still_holds(snapshot))
    }

    /// `None`: the layers are others.
    fn rules_hold(&self, snapshot: &Snapshot) -> Option<bool> {
        let mut words = self.words.iter().copied();
        let (shape, _direction) = (words.next()?, words.next()?);
        if shape != snapshot.shape().to_bits() {
            return None;
        }
        while let Some(head) = words.next().map(Head::from_word) {
            let layer = snapshot.layers().get(head.layer)?;
            let shape = words.next()?;
            if head.choice != Choice::Entry && shape != layer.shape.to_bits() {
                return Some(false);
            }
            for word in words.by_ref().take(head.searched) {
                let group = layer.groups.get((word & 0xffff) as usize)?;
                if group.stamp.to_bits() != word >> 16 {
                    return Some(false);
                }
            }
            words.by_ref().take(head.others).for_each(drop);
        }
        Some(true)
    }

    fn heap(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| rare.heap());
        allocated(size_of_val(&*self.words)) + allocated(size_of_val(&*self.tallies)) + rare
    }
}

impl Rare {
    fn of(plan: &Plan, snapshot: &Snapshot) -> Option<Box<Self>> {
        let ranges: Box<[_]> = stages(plan, snapshot)
            .filter_map(|(stage, layer)| ranges_of(stage.choice, layer, snapshot))
            .map(|(name, version)| (name.clone(), version))
            .collect();
        let lookups: Box<[Lookup]> = plan.stages.iter().filter_map(|stage| stage.lookup.as_deref().cloned()).collect();
        let grows = plan.stages.iter().any(|stage| stage.grown != 0);
        if ranges.is_empty() && lookups.is_empty() && !grows {
            return None;
        }
        let grown = if grows { plan.stages.iter().map(|stage| stage.grown).collect() } else { Box::default() };
        let until = |lookup: &Lookup| match lookup.answer {
            Some(Answer::Unknown { until_ns }) => Some(until_ns),
            _ => None,
        };
        let until_ns = lookups.iter().filter_map(until).min().unwrap_or(u64::MAX);
        Some(Box::new(Self { grown, lookups, ranges, until_ns }))
    }

    fn still_holds(&self, snapshot: &Snapshot) -> bool {
        self.ranges.iter().all(|(name, version)| snapshot.resource_version(name) == Some(*version))
            && self.lookups.iter().all(|lookup| answer_of(lookup, snapshot) == lookup.answer)
    }

    fn heap(&self) -> usize {
        let parts =
            [size_of::<Self>(), size_of_val(&*self.grown), size_of_val(&*self.lookups), size_of_val(&*self.ranges)];
        parts.into_iter().map(allocated).sum()
    }
}

/// The list of ports that a rule takes from, if it does.
fn ranges_of<'a>(choice: Choice, layer: &'a CompiledLayer, snapshot: &Snapshot) -> Option<(&'a Name, u64)> {
    let Choice::Rule { group, place } = choice else { return None };
    let rule = layer.groups.get(group)?.group.rules.get(place)?;
    let (name, ResourceKind::Range) = rule.action.resource()? else { return None };
    Some((name, snapshot.resource_version(name)?))
}

fn answer_of(lookup: &Lookup, snapshot: &Snapshot) -> Option<Answer> {
    match &snapshot.resource(&lookup.resource)?.content {
        Content::Map(map) => map.get(lookup.address).copied(),
        Content::Ranges(_) => None,
    }
}

/// A hash that is the same whenever it is asked.
struct Fixed(u64);

impl Fixed {
    fn hash_one(&self, value: impl Hash) -> u64 {
        foldhash::quality::FixedState::with_seed(self.0).hash_one(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_one_word() {
        let rule = Choice::Rule { group: 1023, place: 65_535 };
        for choice in [Choice::Entry, Choice::Default, Choice::Rule { group: 0, place: 0 }, rule] {
            let head = Head { choice, layer: 31, searched: 1024, others: 4 };
            assert_eq!(Head::from_word(head.to_word()), head);
        }
    }
}
