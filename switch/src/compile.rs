// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy, compiled: what the planner reads.
//!
//! # Theory of operation
//!
//! A [`Snapshot`] is immutable. It is made from a [`PortPolicy`] and the snapshot before: groups that
//! are still the same object are taken over as they are, so a transaction costs what it changes.
//!
//! What is remembered of a flow holds as long as what it depends on. For that, everything compiled has a
//! *stamp*, a number that no other object of this process has: a group has one; a layer has one for its
//! shape, that is, everything in it but the rules of its groups; a snapshot has one for which layers there
//! are, in which order. Whoever wants to know whether anything changed compares numbers.
//!
//! Counters belong to names: a rule that is replaced by one of the same name goes on counting.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Name;
use crate::classify::{self, Compiled, Lookup, Selection};
use crate::condition::Key;
use crate::gates::Gates;
use crate::model::{
    Direction, Group, Layer, PortPolicy, Resource, Rule, Transaction, TransactionError, VersionedResource,
};
use crate::tally::{Tally, Total};

/// The next stamp.
static STAMP: AtomicU64 = AtomicU64::new(1);

/// A number that only one object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(u64);

/// The policy of a port as the planner reads it.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    epoch: Stamp,
    shape: Stamp,
    /// Nearest the VM first.
    layers: Vec<CompiledLayer>,
    resources: Vec<VersionedResource>,
}

/// A layer with its groups compiled.
#[derive(Debug)]
pub(crate) struct CompiledLayer {
    pub(crate) layer: Arc<Layer>,
    pub(crate) groups: Vec<Arc<CompiledGroup>>,
    /// Which of them come into question, where there are many.
    gates: Option<Arc<Gates>>,
    /// The same for as long as there is a layer of this name.
    pub(crate) id: Stamp,
    pub(crate) shape: Stamp,
    /// What its default was applied to.
    pub(crate) default: Arc<Tally>,
    /// What connections let through or translated without asking its rules.
    pub(crate) entries: Arc<Tally>,
}

/// A group with its rules compiled, those of each direction apart.
#[derive(Debug)]
pub(crate) struct CompiledGroup {
    pub(crate) group: Arc<Group>,
    pub(crate) stamp: Stamp,
    /// By place of the rule.
    tallies: Box<[Arc<Tally>]>,
    inbound: Half,
    outbound: Half,
}

/// The rules of one direction.
#[derive(Debug)]
struct Half {
    classifier: Compiled,
    /// Of each rule in the classifier its place in the group.
    places: Vec<u32>,
}

/// The rule of a layer that applies to a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected<'a> {
    /// Place of the group in its layer.
    pub(crate) group: usize,
    /// Place of the rule in its group.
    pub(crate) place: usize,
    pub(crate) rule: &'a Rule,
}

/// A group whose rules could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {layer}/{group}: {}{cause}", rule.as_ref().map(|rule| format!("rule {rule}: ")).unwrap_or_default())]
pub struct CompileError {
    /// Its layer.
    pub layer: Name,
    /// The group.
    pub group: Name,
    /// The rule, if it is one rule's fault.
    pub rule: Option<Name>,
    /// What is in the way.
    pub cause: classify::CompileError,
}

/// Why a transaction did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// What it wants cannot be.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// What it wants cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Carries out a transaction: the only way from a policy and its snapshot to the next.
///
/// # Errors
/// The first thing that is in the way; nothing has changed then.
pub fn commit(
    policy: &PortPolicy,
    snapshot: &Snapshot,
    transaction: &Transaction,
    seed: u64,
) -> Result<(PortPolicy, Snapshot), CommitError> {
    let next = policy.after(transaction)?;
    let compiled = Snapshot::compile(&next, Some(snapshot), seed)?;
    Ok((next, compiled))
}

impl Snapshot {
    /// Compiles a policy; what `previous` has already is taken over. `seed` is secret and random, so that
    /// nobody can choose packets whose look-ups collide.
    ///
    /// # Errors
    /// A group has rules that no classifier takes.
    pub fn compile(policy: &PortPolicy, previous: Option<&Self>, seed: u64) -> Result<Self, CompileError> {
        let known = |name: &Name| previous?.layers.iter().find(|before| before.layer.name == *name);
        let layers = policy.layers().iter().map(|layer| CompiledLayer::compile(layer, known(&layer.name), seed));
        let layers: Vec<_> = layers.collect::<Result<_, _>>()?;
        let same_layers = previous.filter(|previous| {
            previous.layers.len() == layers.len()
                && previous.layers.iter().zip(&layers).all(|(before, now)| before.id == now.id)
        });
        let shape = same_layers.map_or_else(Stamp::next, |previous| previous.shape);
        let resources = policy.resources().to_vec();
        Ok(Self { version: policy.version(), epoch: Stamp::next(), shape, layers, resources })
    }

    /// The snapshot of a port without policy: everything passes.
    #[must_use]
    pub fn empty() -> Self {
        let (epoch, shape) = (Stamp::next(), Stamp::next());
        Self { version: 0, epoch, shape, layers: Vec::new(), resources: Vec::new() }
    }

    /// A number that no other snapshot of this process has, of whatever port and version: versions begin
    /// anew with every policy, and what is remembered of one must not pass for another's.
    #[must_use]
    pub const fn epoch(&self) -> Stamp {
        self.epoch
    }

    /// The version of the policy that this is.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Whether it has no layers, so that it makes no difference.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// What was counted, of all layers, groups and rules, nearest the VM first.
    #[must_use]
    pub fn totals(&self) -> Vec<LayerTotals> {
        self.layers.iter().map(CompiledLayer::totals).collect()
    }

    /// Changes with which layers there are, and their order.
    pub(crate) const fn shape(&self) -> Stamp {
        self.shape
    }

    pub(crate) fn layers(&self) -> &[CompiledLayer] {
        &self.layers
    }

    /// Of each layer the stamp of its name.
    pub(crate) fn layer_ids(&self) -> Vec<Stamp> {
        self.layers.iter().map(|layer| layer.id).collect()
    }

    /// The layers in the order in which packets of a direction meet them (VF-4), with their places.
    pub(crate) fn walk(&self, direction: Direction) -> impl Iterator<Item = (usize, &CompiledLayer)> {
        let count = self.layers.len();
        (0..count).filter_map(move |i| {
            let at = match direction {
                Direction::Out => i,
                Direction::In => count.checked_sub(i)?.checked_sub(1)?,
            };
            Some((at, self.layers.get(at)?))
        })
    }

    /// A resource by its name.
    pub(crate) fn resource(&self, name: &Name) -> Option<&Arc<Resource>> {
        self.versioned(name).map(|held| &held.resource)
    }

    /// Under which version a resource was last changed.
    pub(crate) fn resource_version(&self, name: &Name) -> Option<u64> {
        self.versioned(name).map(|held| held.version)
    }

    fn versioned(&self, name: &Name) -> Option<&VersionedResource> {
        let at = self.resources.binary_search_by(|held| held.resource.name.cmp(name)).ok()?;
        self.resources.get(at)
    }
}

/// What was counted of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTotals {
    /// The layer.
    pub layer: Name,
    /// Whose it is.
    pub controller: Name,
    /// What its default was applied to.
    pub default: Total,
    /// What connections let through or translated without asking its rules.
    pub entries: Total,
    /// Its groups, in order.
    pub groups: Vec<GroupTotals>,
}

/// What was counted of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTotals {
    /// The group.
    pub group: Name,
    /// All its rules together.
    pub all: Total,
    /// Each rule, in order.
    pub rules: Vec<(Name, Total)>,
}

impl CompiledLayer {
    fn compile(layer: &Arc<Layer>, previous: Option<&Self>, seed: u64) -> Result<Self, CompileError> {
        let mut groups = Vec::with_capacity(layer.groups.len());
        for (at, versioned) in layer.groups.iter().enumerate() {
            let group = &versioned.group;
            // Most groups are where they were.
            let hint = previous.and_then(|previous| previous.groups.get(at));
            let known = match hint.filter(|known| Arc::ptr_eq(&known.group, group)) {
                Some(known) => Some(known),
                None => previous.and_then(|before| before.groups.iter().find(|known| known.group.name == group.name)),
            };
            groups.push(match known {
                Some(known) if Arc::ptr_eq(&known.group, group) => Arc::clone(known),
                known => Arc::new(CompiledGroup::compile(layer, group, known.map(|known| &**known), seed)?),
            });
        }
        let same_shape = previous.filter(|previous| {
            let outline = |group: &Arc<CompiledGroup>, other: &Arc<CompiledGroup>| {
                let (group, other) = (&group.group, &other.group);
                Arc::ptr_eq(group, other)
                    || group.name == other.name && group.order == other.order && group.when == other.when
            };
            previous.layer.default == layer.default
                && previous.groups.len() == groups.len()
                && previous.groups.iter().zip(&groups).all(|(before, now)| outline(before, now))
        });
        let gates = match same_shape {
            Some(previous) => previous.gates.clone(),
            None => Gates::new(groups.iter().map(|group| &group.group.when)).map(Arc::new),
        };
        Ok(Self {
            gates,
            id: previous.map_or_else(Stamp::next, |previous| previous.id),
            shape: same_shape.map_or_else(Stamp::next, |previous| previous.shape),
            default: previous.map(|previous| Arc::clone(&previous.default)).unwrap_or_default(),
            entries: previous.map(|previous| Arc::clone(&previous.entries)).unwrap_or_default(),
            layer: Arc::clone(layer),
            groups,
        })
    }

    /// The rule that applies to a packet (VF-11): of each group whose condition holds the best one; the
    /// last group's wins, except that a terminating one ends the search. `searched` hears of every group
    /// that was asked, by its place.
    pub(crate) fn select(
        &self,
        direction: Direction,
        key: &Key,
        mut searched: impl FnMut(usize, &CompiledGroup),
    ) -> Option<Selected<'_>> {
        let mut selected = None;
        // Whether the search goes on.
        let mut ask = |at: usize| {
            let Some(group) = self.groups.get(at).filter(|group| group.group.when.matches(key)) else { return true };
            searched(at, group);
            let Some((place, rule)) = group.best(direction, key) else { return true };
            selected = Some(Selected { group: at, place, rule });
            !rule.terminating
        };
        match &self.gates {
            Some(gates) => gates.open(key).all(&mut ask),
            None => (0..self.groups.len()).all(&mut ask),
        };
        selected
    }

    fn totals(&self) -> LayerTotals {
        let groups = self.groups.iter().map(|group| {
            let rules = group.group.rules.iter().zip(&group.tallies);
            let rules: Vec<_> = rules.map(|(rule, tally)| (rule.name.clone(), tally.total())).collect();
            let mut all = Total::default();
            rules.iter().for_each(|(_, total)| all += *total);
            GroupTotals { group: group.group.name.clone(), all, rules }
        });
        LayerTotals {
            layer: self.layer.name.clone(),
            controller: self.layer.controller.clone(),
            default: self.default.total(),
            entries: self.entries.total(),
            groups: groups.collect(),
        }
    }
}

impl CompiledGroup {
    fn compile(layer: &Layer, group: &Arc<Group>, previous: Option<&Self>, seed: u64) -> Result<Self, CompileError> {
        let half = |direction| {
            Half::compile(group, direction, seed).map_err(|cause| {
                // The classifier counts the rules of one direction.
                let mut rules = group.rules.iter().filter(|rule| rule.direction == direction);
                let rule = cause.rule().and_then(|place| rules.nth(place)).map(|rule| rule.name.clone());
                CompileError { layer: layer.name.clone(), group: group.name.clone(), rule, cause }
            })
        };
        let (inbound, outbound) = (half(Direction::In)?, half(Direction::Out)?);
        let counted: HashMap<&Name, &Arc<Tally>> = previous.map_or_else(HashMap::new, |previous| {
            previous.group.rules.iter().map(|rule| &rule.name).zip(&*previous.tallies).collect()
        });
        let tally = |rule: &Rule| counted.get(&rule.name).map(|tally| Arc::clone(tally)).unwrap_or_default();
        let tallies = group.rules.iter().map(tally).collect();
        Ok(Self { group: Arc::clone(group), stamp: Stamp::next(), tallies, inbound, outbound })
    }

    /// The best rule, and its place.
    fn best(&self, direction: Direction, key: &Key) -> Option<(usize, &Rule)> {
        let half = match direction {
            Direction::In => &self.inbound,
            Direction::Out => &self.outbound,
        };
        let best = half.classifier.best(key, None)?;
        let place = *half.places.get(best.rule())? as usize;
        Some((place, self.group.rules.get(place)?))
    }

    pub(crate) fn tally(&self, place: usize) -> Option<&Arc<Tally>> {
        self.tallies.get(place)
    }
}

impl Half {
    fn compile(group: &Group, direction: Direction, seed: u64) -> Result<Self, classify::CompileError> {
        let rules = || group.rules.iter().zip(0..).filter(|(rule, _)| rule.direction == direction);
        let places: Vec<u32> = rules().map(|(_, place)| place).collect();
        let classified =
            rules().map(|(rule, _)| classify::Rule { priority: rule.priority, conditions: &rule.conditions });
        let selection = group.lpm.map_or(Selection::Priority, Selection::LongestPrefix);
        Ok(Self { classifier: Compiled::new(classified, selection, seed)?, places })
    }
}

impl Stamp {
    fn next() -> Self {
        Self(STAMP.fetch_add(1, Ordering::Relaxed))
    }

    /// Some 32 bits of it, never 0: enough to tell the layers of one port apart.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
    pub(crate) const fn low(self) -> u32 {
        (self.0 % u32::MAX as u64) as u32 + 1
    }

    /// As a number.
    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use packet::Field;

    use super::*;
    use crate::condition::{Condition, Conditions};
    use crate::model::{Action, Controller, Default, Edit, Transaction};

    /// A policy of one group that selects by the longest prefix of the source.
    fn routes(rules: Vec<Rule>) -> PortPolicy {
        let name = |name: &str| Name::new(name).unwrap();
        let (when, lpm) = (Conditions::default(), Some(Field::IpSrc));
        let group = Group { name: name("routes"), order: 0, when, lpm, rules };
        let edits = vec![
            Edit::PutLayer { name: name("vnet"), order: 0, default: Default::Allow },
            Edit::PutGroup { layer: name("vnet"), group: Arc::new(group) },
        ];
        let controller = Controller { name: name("test"), order: [0, 0] };
        PortPolicy::empty().after(&Transaction { controller, preconditions: Vec::new(), edits }).unwrap()
    }

    #[test]
    fn errors_name_the_rule_and_the_field() {
        let rule = |name: &str, direction, source: &str| {
            let conditions = Conditions::new(vec![Condition::from_text("src_ip", [source]).unwrap()]).unwrap();
            let (name, action) = (Name::new(name).unwrap(), Action::Allow { stateful: None });
            Rule { name, priority: 0, direction, conditions, action, terminating: false }
        };
        // A place among the rules of a direction is not the place in the group.
        let good = rule("first", Direction::Out, "10.0.0.0/8");
        let bad = rule("second", Direction::In, "10.0.0.5-10.0.1.2");
        Snapshot::compile(&routes(vec![good.clone()]), None, 1).unwrap();
        let error = Snapshot::compile(&routes(vec![good, bad]), None, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "group vnet/routes: rule second: src_ip: the group selects by its longest prefix, so every value must be a prefix"
        );
    }
}
