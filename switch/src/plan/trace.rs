// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A plan in words: what `simulate` prints (VF-29).

use std::fmt;

use super::{Choice, Outcome, Plan, Stage};
use crate::compile::Snapshot;
use crate::model::Direction;

/// A plan and the policy that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The version of the policy.
    pub version: u64,
    /// Which way the packet goes.
    pub direction: Direction,
    /// What each layer came to.
    pub steps: Vec<Step>,
    /// What is done to headers, in words.
    pub changes: String,
    /// What becomes of the packet.
    pub outcome: Outcome,
}

/// What one layer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The layer.
    pub layer: String,
    /// The groups that were searched.
    pub searched: Vec<String>,
    /// What decided: `group/rule`, `default`, or `connection`.
    pub decided_by: String,
    /// What it did.
    pub action: String,
}

impl Trace {
    /// That of a packet at a port without policy.
    #[must_use]
    pub fn of_nothing(direction: Direction) -> Self {
        Self { version: 0, direction, steps: Vec::new(), changes: "none".to_owned(), outcome: Outcome::Forward }
    }
}

impl Plan {
    /// Puts it in words, with the snapshot that it was made of.
    #[must_use]
    pub fn trace(&self, snapshot: &Snapshot) -> Trace {
        let mut searched = self.searched.iter();
        let steps = self.stages.iter().map(|stage| {
            let groups = searched.by_ref().take(stage.searched);
            let groups = groups.filter_map(|at| {
                let layer = snapshot.layers().get(stage.layer)?;
                Some(layer.groups.get(usize::from(*at))?.group.name.to_string())
            });
            step(stage, groups.collect(), snapshot)
        });
        let steps = steps.collect();
        let changes = match self.transposition.is_identity() {
            true => "none".to_owned(),
            false => changes(self),
        };
        Trace { version: self.version, direction: self.direction, steps, changes, outcome: self.outcome.clone() }
    }
}

fn step(stage: &Stage, searched: Vec<String>, snapshot: &Snapshot) -> Step {
    let layer = snapshot.layers().get(stage.layer);
    let name = layer.map(|layer| layer.layer.name.to_string()).unwrap_or_default();
    let (decided_by, mut action) = match stage.choice {
        Choice::Default => {
            let default = layer.map(|layer| format!("{:?}", layer.layer.default).to_lowercase());
            ("default".to_owned(), default.unwrap_or_default())
        }
        Choice::Entry => ("connection".to_owned(), "as the connection".to_owned()),
        Choice::Rule { group, place } => {
            let group = layer.and_then(|layer| layer.groups.get(group));
            let rule = group.and_then(|group| Some((&group.group.name, group.group.rules.get(place)?)));
            rule.map_or_else(Default::default, |(group, rule)| {
                (format!("{group}/{}", rule.name), format!("{:?}", rule.action))
            })
        }
    };
    if let Some(lookup) = &stage.lookup {
        action = format!("{action}; {} says of {}: {:?}", lookup.resource, lookup.address, lookup.answer);
    }
    Step { layer: name, searched, decided_by, action }
}

/// Fields that differ behind the last layer.
fn changes(plan: &Plan) -> String {
    format!("{:?}", plan.transposition)
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy version {}, {:?}", self.version, self.direction)?;
        for Step { layer, searched, decided_by, action } in &self.steps {
            writeln!(f, "layer {layer}: searched {searched:?}: {decided_by}: {action}")?;
        }
        writeln!(f, "changes: {}", self.changes)?;
        write!(f, "{}", self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward => write!(f, "forwarded"),
            Self::Hairpin(None) => write!(f, "back to its port"),
            Self::Hairpin(Some(port)) => write!(f, "to port {port}"),
            Self::Drop(cause) => write!(f, "dropped: {cause}"),
            Self::Ended => write!(f, "its connection ends"),
            Self::Pending(request) => write!(f, "waits for {} of {}", request.address, request.resource),
        }
    }
}
