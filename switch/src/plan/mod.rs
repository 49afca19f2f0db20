// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The planner: what policy does with a packet, worked out without doing any of it.
//!
//! # Theory of operation
//!
//! A packet is its [`Key`]. It meets the layers in the order of its direction; each one matches it as
//! the layers before left it and applies at most one rule. What each layer came to is a [`Stage`]; the
//! stages are the plan. Nothing is counted, allocated or remembered here: whoever wants the effects
//! commits the plan, and `simulate` prints it. For the same reason a flow whose policy changed can be
//! planned again without anybody noticing (VF-20).

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use packet::DropCause;
use packet::transpose::Transposition;

use crate::Name;
use crate::compile::{CompiledGroup, Snapshot};
use crate::condition::{Key, REGISTERS};
use crate::model::{Action, Default, Direction, Stateful};

/// What policy does with a packet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The version of the policy that was asked.
    pub version: u64,
    /// What each layer came to, in the order in which the packet meets them; after a drop there are no
    /// more.
    pub stages: Vec<Stage>,
    /// The packet behind the last stage.
    pub after: Key,
    /// What all stages together do to its headers (VF-17).
    pub transposition: Transposition,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What a layer does with a packet.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The layer.
    pub layer: Name,
    /// The groups that were searched: the plan holds as long as they, and the layer itself, are the same.
    pub searched: Vec<Name>,
    /// The rule that applies; `None`: the layer's default.
    pub rule: Option<RulePath>,
    /// What it does.
    pub effect: Effect,
}

/// A rule's address below its layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePath {
    /// Its group.
    pub group: Name,
    /// Its name.
    pub rule: Name,
}

/// What a rule, or a layer's default, does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The packet goes on; its connection is remembered if so.
    Allow(Option<Stateful>),
    /// The packet is dropped.
    Drop(DropCause),
    /// A register is written, and the packet goes on.
    SetRegister {
        /// Which one.
        register: u8,
        /// Its new value.
        value: u32,
    },
    /// Headers are changed, and the packet goes on.
    Transpose(Arc<Transposition>),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is forwarded.
    Forward,
    /// It is dropped.
    Drop(DropCause),
}

/// Plans a packet of a direction: registers are zero at the entry of each pipeline, whatever `key` says.
#[must_use]
pub fn plan(snapshot: &Snapshot, direction: Direction, key: &Key) -> Plan {
    let mut plan = Plan {
        version: snapshot.version(),
        stages: Vec::new(),
        after: Key { registers: [0; REGISTERS], ..*key },
        transposition: Transposition::default(),
        outcome: Outcome::Forward,
    };
    for layer in snapshot.walk(direction) {
        let mut searched = Vec::new();
        let hear = |group: &Arc<CompiledGroup>| searched.push(group.group.name.clone());
        let selected = layer.select(direction, &plan.after, hear);
        let rule = selected.map(|(group, rule)| RulePath { group: group.group.name.clone(), rule: rule.name.clone() });
        let effect = match selected {
            Some((_, rule)) => Effect::of(&rule.action),
            None if layer.layer.default == Default::Allow => Effect::Allow(None),
            None => Effect::Drop(DropCause::PolicyDefault),
        };
        if let Err(cause) = plan.take_effect(&effect) {
            plan.outcome = Outcome::Drop(cause);
        }
        plan.stages.push(Stage { layer: layer.layer.name.clone(), searched, rule, effect });
        if plan.outcome != Outcome::Forward {
            break;
        }
    }
    plan
}

impl Plan {
    /// What an effect does to the packet; the cause if it ends there.
    fn take_effect(&mut self, effect: &Effect) -> Result<(), DropCause> {
        match effect {
            Effect::Allow(_) => Ok(()),
            Effect::Drop(cause) => Err(*cause),
            Effect::SetRegister { register, value } => {
                if let Some(slot) = self.after.registers.get_mut(usize::from(*register)) {
                    *slot = *value;
                }
                Ok(())
            }
            Effect::Transpose(transposition) => {
                let (then, ufid) = (self.transposition.then(transposition), transposition.after(&self.after.ufid));
                let (Ok(then), Ok(ufid)) = (then, ufid) else { return Err(DropCause::Untransposable) };
                (self.transposition, self.after.ufid) = (then, ufid);
                Ok(())
            }
        }
    }
}

impl Effect {
    fn of(action: &Action) -> Self {
        match action {
            Action::Allow { stateful } => Self::Allow(*stateful),
            Action::Block { cause } => Self::Drop(*cause),
            Action::SetRegister { register, value } => Self::SetRegister { register: *register, value: *value },
            Action::Transpose { transposition } => Self::Transpose(Arc::clone(transposition)),
            // The planner does not know these yet, and lets nothing pass that it does not understand.
            _ => Self::Drop(DropCause::PolicyBlock),
        }
    }
}

/// The steps, one a line: what `simulate` prints (VF-29).
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy version {}", self.version)?;
        for stage in &self.stages {
            write!(f, "layer {}: ", stage.layer)?;
            match &stage.rule {
                Some(path) => write!(f, "rule {}/{}", path.group, path.rule)?,
                None => write!(f, "default")?,
            }
            writeln!(f, ": {}", stage.effect)?;
        }
        match self.outcome {
            Outcome::Forward => write!(f, "forwarded"),
            Outcome::Drop(cause) => write!(f, "dropped: {cause}"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(None) => write!(f, "allow"),
            Self::Allow(Some(stateful)) => write!(f, "allow, remembered for {} s", stateful.idle_s),
            Self::Drop(cause) => write!(f, "drop: {cause}"),
            Self::SetRegister { register, value } => write!(f, "register {register} = {value}"),
            Self::Transpose(transposition) => write!(f, "change {transposition:?}"),
        }
    }
}
