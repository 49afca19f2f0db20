// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy in few words.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use packet::DropCause;
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions};
use switch::model::{
    Action, Content, Controller, Default, Direction, Edit, Group, PortPolicy, PortRange, Resource, Rule, Stateful,
    Transaction,
};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn rule(text: &str, direction: Direction, matches: &[(&str, &str)], action: Action) -> Rule {
    let conditions = matches.iter().map(|(field, value)| Condition::from_text(field, [*value]).expect("a condition"));
    let conditions = Conditions::new(conditions.collect()).expect("conditions");
    Rule { name: name(text), priority: 1, direction, conditions, action, terminating: false }
}

pub(crate) fn group(text: &str, rules: Vec<Rule>) -> Group {
    Group { name: name(text), order: 0, when: Conditions::default(), lpm: None, rules }
}

pub(crate) fn idle(seconds: u32) -> Stateful {
    Stateful { idle_s: NonZeroU32::new(seconds).expect("some seconds") }
}

/// Lets pass without remembering.
pub(crate) const fn allow() -> Action {
    Action::Allow { stateful: None }
}

/// Lets pass and remembers for so long.
pub(crate) fn stateful(seconds: u32) -> Action {
    Action::Allow { stateful: Some(idle(seconds)) }
}

pub(crate) const fn block() -> Action {
    Action::Block { cause: DropCause::PolicyBlock }
}

/// A range list of one address's ports.
pub(crate) fn pool(text: &str, address: [u8; 4], first: u16, last: u16) -> Edit {
    let ranges = Content::Ranges([PortRange { address: IpAddr::from(address), first, last }].into());
    Edit::PutResource { resource: Arc::new(Resource { name: name(text), controller: name("test"), content: ranges }) }
}

/// A layer of one group, `g`.
pub(crate) fn layer(text: &str, order: u32, default: Default, rules: Vec<Rule>) -> [Edit; 2] {
    let group = Arc::new(group("g", rules));
    [Edit::PutLayer { name: name(text), order, default }, Edit::PutGroup { layer: name(text), group }]
}

pub(crate) fn transaction(edits: Vec<Edit>) -> Transaction {
    Transaction { controller: Controller { name: name("test"), order: [0, 100] }, preconditions: Vec::new(), edits }
}

/// A policy of these edits.
pub(crate) fn snapshot(edits: Vec<Edit>) -> Arc<Snapshot> {
    let next = commit(&PortPolicy::empty(), &Snapshot::empty(), &transaction(edits), 1);
    Arc::new(next.expect("a transaction").1)
}
