// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy, compiled: what the planner reads.
//!
//! A [`Snapshot`] is immutable. It is made from a [`PortPolicy`] and the snapshot before: groups that
//! are still the same object are taken over as they are, so a transaction costs what it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Name;
use crate::classify::{self, Compiled, Lookup, Selection};
use crate::condition::Key;
use crate::model::{Direction, Group, Layer, PortPolicy, Rule};

/// The next snapshot's.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// The policy of a port as the planner reads it.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    epoch: u64,
    /// Nearest the VM first.
    layers: Vec<CompiledLayer>,
}

/// A layer with its groups compiled.
#[derive(Debug)]
pub(crate) struct CompiledLayer {
    pub(crate) layer: Arc<Layer>,
    pub(crate) groups: Vec<Arc<CompiledGroup>>,
}

/// A group with its rules compiled, those of each direction apart.
#[derive(Debug)]
pub(crate) struct CompiledGroup {
    pub(crate) group: Arc<Group>,
    inbound: Half,
    outbound: Half,
}

/// The rules of one direction.
#[derive(Debug)]
struct Half {
    classifier: Compiled,
    /// Of each rule in the classifier its place in the group.
    places: Vec<usize>,
}

/// A group whose rules could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {layer}/{group}: {cause}")]
pub struct CompileError {
    /// Its layer.
    pub layer: Name,
    /// The group.
    pub group: Name,
    /// What is in the way.
    pub cause: classify::CompileError,
}

impl Snapshot {
    /// Compiles a policy; what `previous` has already is taken over. `seed` is secret and random, so that
    /// nobody can choose packets whose look-ups collide.
    ///
    /// # Errors
    /// A group has rules that no classifier takes.
    pub fn compile(policy: &PortPolicy, previous: Option<&Self>, seed: u64) -> Result<Self, CompileError> {
        let known = |layer: &Layer, group: &Arc<Group>| {
            let before = previous?.layers.iter().find(|before| before.layer.name == layer.name)?;
            before.groups.iter().find(|before| Arc::ptr_eq(&before.group, group)).cloned()
        };
        let layers = policy.layers().iter().map(|layer| {
            let groups = layer.groups.iter().map(|versioned| {
                let group = &versioned.group;
                known(layer, group).map_or_else(|| CompiledGroup::compile(layer, group, seed).map(Arc::new), Ok)
            });
            Ok(CompiledLayer { layer: Arc::clone(layer), groups: groups.collect::<Result<_, _>>()? })
        });
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        Ok(Self { version: policy.version(), epoch, layers: layers.collect::<Result<_, _>>()? })
    }

    /// A number that no other snapshot of this process has, of whatever port and version: versions begin
    /// anew with every policy, and what is remembered of one must not pass for another's.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The version of the policy that this is.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The layers in the order in which packets of a direction meet them (VF-4).
    pub(crate) fn walk(&self, direction: Direction) -> impl Iterator<Item = &CompiledLayer> {
        let count = self.layers.len();
        (0..count).filter_map(move |i| {
            let at = match direction {
                Direction::Out => i,
                Direction::In => count.checked_sub(i)?.checked_sub(1)?,
            };
            self.layers.get(at)
        })
    }
}

impl CompiledLayer {
    /// The rule that applies to a packet (VF-11): of each group whose condition holds the best one; the
    /// last group's wins, except that a terminating one ends the search. `searched` hears of every group
    /// that was asked.
    pub(crate) fn select(
        &self,
        direction: Direction,
        key: &Key,
        mut searched: impl FnMut(&Arc<CompiledGroup>),
    ) -> Option<(&Arc<CompiledGroup>, &Rule)> {
        let mut selected = None;
        for group in &self.groups {
            if !group.group.when.matches(key) {
                continue;
            }
            searched(group);
            if let Some(rule) = group.best(direction, key) {
                selected = Some((group, rule));
                if rule.terminating {
                    break;
                }
            }
        }
        selected
    }
}

impl CompiledGroup {
    fn compile(layer: &Layer, group: &Arc<Group>, seed: u64) -> Result<Self, CompileError> {
        let half = |direction| {
            let fault = |cause| CompileError { layer: layer.name.clone(), group: group.name.clone(), cause };
            Half::compile(group, direction, seed).map_err(fault)
        };
        Ok(Self { group: Arc::clone(group), inbound: half(Direction::In)?, outbound: half(Direction::Out)? })
    }

    fn best(&self, direction: Direction, key: &Key) -> Option<&Rule> {
        let half = match direction {
            Direction::In => &self.inbound,
            Direction::Out => &self.outbound,
        };
        let best = half.classifier.best(key, None)?;
        self.group.rules.get(*half.places.get(best.rule())?)
    }
}

impl Half {
    fn compile(group: &Group, direction: Direction, seed: u64) -> Result<Self, classify::CompileError> {
        let rules = || group.rules.iter().enumerate().filter(|(_, rule)| rule.direction == direction);
        let places: Vec<usize> = rules().map(|(place, _)| place).collect();
        let classified =
            rules().map(|(_, rule)| classify::Rule { priority: rule.priority, conditions: &rule.conditions });
        let selection = group.lpm.map_or(Selection::Priority, Selection::LongestPrefix);
        Ok(Self { classifier: Compiled::new(classified, selection, seed)?, places })
    }
}
