// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Paths: the ways through the layers that flows have in common.
//!
//! # Theory of operation
//!
//! Thousands of flows cross the same rules. What these are, what the flow's plan depends on, and whose
//! counters its packets belong to is kept once, *interned*: a flow has the number of its path. When policy
//! changes, a path is looked at once: if nothing that it depends on has changed, all its flows are right. So a
//! change in one of many groups costs the flows that searched it, and no others (VF-20).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use crate::Name;
use crate::action::Lookup;
use crate::compile::{CompiledLayer, Snapshot, Stamp};
use crate::flow::Handle;
use crate::flow::Slab;
use crate::model::{Answer, Content, ResourceKind};
use crate::plan::{Choice, Plan};
use crate::tally::Tally;

/// The number of a path; of a flow whose plan holds no longer, none.
pub(super) type PathId = Option<Handle>;

/// All paths of a port's flows.
#[derive(Debug)]
pub(super) struct Paths {
    paths: Slab<Path>,
    by_words: HashMap<Box<[u64]>, Handle, foldhash::fast::RandomState>,
    words: Vec<u64>,
}

#[derive(Debug)]
struct Path {
    words: Box<[u64]>,
    shape: Stamp,
    stages: Box<[Part]>,
    /// Flows that have it.
    users: u32,
    /// When it was last looked at, and what came of it.
    checked: Stamp,
    holds: bool,
    /// Until when a denial of the directory is to be believed.
    until_ns: u64,
}

/// What a stage has to do with flows.
#[derive(Debug)]
struct Part {
    layer: usize,
    /// `None`: it asked no rules, and cannot change with them.
    shape: Option<Stamp>,
    groups: Box<[(u16, Stamp)]>,
    lookup: Option<Box<Lookup>>,
    /// The list that a port was taken from, and its version: it may have the port no longer.
    ranges: Option<(Name, u64)>,
    tally: Option<Arc<Tally>>,
    grown: i32,
}

impl Paths {
    pub(super) fn new(capacity: usize) -> Self {
        Self { paths: Slab::new(capacity), by_words: HashMap::default(), words: Vec::new() }
    }

    /// The path of a plan, for one more flow. `None`: there are too many.
    pub(super) fn intern(&mut self, plan: &Plan, snapshot: &Snapshot) -> PathId {
        self.describe(plan, snapshot);
        if let Some(handle) = self.by_words.get(&*self.words).copied() {
            let path = self.paths.get_mut(handle)?;
            path.users += 1;
            return Some(handle);
        }
        let words: Box<[u64]> = self.words.as_slice().into();
        let path = Path::new(plan, snapshot, words.clone());
        let handle = self.paths.insert(path).ok()?;
        self.by_words.insert(words, handle);
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
            self.by_words.remove(&path.words);
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
        id.and_then(|handle| self.paths.get(handle)).map_or(0, |path| path.until_ns)
    }

    /// Adds what a flow counted to the rules that its packets met.
    pub(super) fn count(&self, id: PathId, packets: u32, bytes: u64) {
        let Some(path) = id.and_then(|handle| self.paths.get(handle)) else { return };
        for part in &path.stages {
            if let Some(tally) = &part.tally {
                tally.add(u64::from(packets), part.bytes(packets, bytes));
            }
        }
    }

    /// Number of paths.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Writes down what makes a path this one and no other.
    fn describe(&mut self, plan: &Plan, snapshot: &Snapshot) {
        self.words.clear();
        self.words.extend([snapshot.shape().to_bits(), plan.direction as u64]);
        let mut searched = plan.searched.iter();
        for stage in &plan.stages {
            let Some(layer) = snapshot.layers().get(stage.layer) else { continue };
            let (code, group, place) = match stage.choice {
                Choice::Entry => (0, 0, 0),
                Choice::Default => (1, 0, 0),
                Choice::Rule { group, place } => (2, group as u64, place as u64),
            };
            let grown = i64::from(stage.grown).cast_unsigned() << 32;
            self.words.extend([code | group << 8 | place << 24, grown | stage.searched as u64]);
            if stage.choice == Choice::Entry {
                self.words.push(layer.id.to_bits());
                continue;
            }
            self.words.push(layer.shape.to_bits());
            for at in searched.by_ref().take(stage.searched) {
                let stamp = layer.groups.get(usize::from(*at)).map_or(0, |group| group.stamp.to_bits());
                self.words.push(stamp);
            }
            if let Some((_, version)) = ranges_of(stage.choice, layer, snapshot) {
                self.words.push(version);
            }
            if let Some(lookup) = &stage.lookup {
                // Two independent 64-bit hashes: what is told apart by 128 bits is told apart.
                let hash = |seed| Fixed(seed).hash_one(lookup);
                self.words.extend([hash(1), hash(2)]);
            }
        }
    }
}

impl Path {
    fn new(plan: &Plan, snapshot: &Snapshot, words: Box<[u64]>) -> Self {
        let mut searched = plan.searched.iter();
        let mut until_ns = u64::MAX;
        let parts = plan.stages.iter().filter_map(|stage| {
            let layer = snapshot.layers().get(stage.layer)?;
            let groups = searched.by_ref().take(stage.searched);
            let groups = groups.filter_map(|at| Some((*at, layer.groups.get(usize::from(*at))?.stamp)));
            let groups = groups.collect();
            if let Some(Lookup { answer: Some(Answer::Unknown { until_ns: until }), .. }) = stage.lookup.as_deref() {
                until_ns = *until;
            }
            let (tally, shape) = match stage.choice {
                Choice::Entry => (Some(&layer.entries), None),
                Choice::Default => (Some(&layer.default), Some(layer.shape)),
                Choice::Rule { group, place } => {
                    (layer.groups.get(group).and_then(|group| group.tally(place)), Some(layer.shape))
                }
            };
            let (tally, lookup) = (tally.cloned(), stage.lookup.clone());
            let ranges = ranges_of(stage.choice, layer, snapshot).map(|(name, version)| (name.clone(), version));
            Some(Part { layer: stage.layer, shape, groups, lookup, ranges, tally, grown: stage.grown })
        });
        let stages = parts.collect();
        Self { words, shape: snapshot.shape(), stages, users: 1, checked: snapshot.epoch(), holds: true, until_ns }
    }

    fn still_holds(&self, snapshot: &Snapshot) -> bool {
        self.shape == snapshot.shape() && self.stages.iter().all(|part| part.still_holds(snapshot))
    }
}

impl Part {
    fn still_holds(&self, snapshot: &Snapshot) -> bool {
        let Some(layer) = snapshot.layers().get(self.layer) else { return false };
        let same_rules = self.shape.is_none_or(|shape| shape == layer.shape)
            && self
                .groups
                .iter()
                .all(|(at, stamp)| layer.groups.get(usize::from(*at)).is_some_and(|group| group.stamp == *stamp));
        let same_ranges = |(name, version): &(Name, u64)| snapshot.resource_version(name) == Some(*version);
        same_rules
            && self.ranges.as_ref().is_none_or(same_ranges)
            && self.lookup.as_ref().is_none_or(|lookup| answer_of(lookup, snapshot) == lookup.answer)
    }

    /// Bytes as they were in front of the layer.
    fn bytes(&self, packets: u32, bytes: u64) -> u64 {
        bytes.saturating_add_signed(i64::from(self.grown).saturating_mul(packets.into()))
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
