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
            Half::compile(group, direction, seed).map_err(|cause| {
                // The classifier counts the rules of one direction.
                let mut rules = group.rules.iter().filter(|rule| rule.direction == direction);
                let rule = cause.rule().and_then(|place| rules.nth(place)).map(|rule| rule.name.clone());
                CompileError { layer: layer.name.clone(), group: group.name.clone(), rule, cause }
            })
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
