// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transactions: all of one happens, or nothing.

use std::sync::Arc;

use super::*;
use crate::Name;
use crate::condition::Conditions;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn controller(text: &str, order: [u32; 2]) -> Controller {
    Controller { name: name(text), order }
}

fn group(text: &str, order: u32, rules: &[&str]) -> Arc<Group> {
    let rules = rules.iter().map(|rule| Rule {
        name: name(rule),
        priority: 1,
        direction: Direction::Out,
        conditions: Conditions::default(),
        action: Action::Allow { stateful: None },
        terminating: false,
    });
    let rules = rules.collect();
    Arc::new(Group { name: name(text), order, when: Conditions::default(), lpm: None, rules })
}

fn put_layer(text: &str, order: u32) -> Edit {
    Edit::PutLayer { name: name(text), order, default: Default::Allow }
}

fn put_group(layer: &str, group: Arc<Group>) -> Edit {
    Edit::PutGroup { layer: name(layer), group }
}

fn transaction(controller: &Controller, edits: Vec<Edit>) -> Transaction {
    Transaction { controller: controller.clone(), preconditions: Vec::new(), edits }
}

fn names(policy: &PortPolicy) -> Vec<&str> {
    policy.layers().iter().map(|layer| &*layer.name).collect()
}

#[test]
fn layers_stand_in_their_order_and_are_walked_both_ways() {
    // VF-4
    let acl = controller("acl", [0, 100]);
    let edits = vec![put_layer("far", 30), put_layer("near", 10), put_layer("middle", 20)];
    let policy = PortPolicy::empty().after(&transaction(&acl, edits)).unwrap();
    assert_eq!((policy.version(), names(&policy)), (1, vec!["near", "middle", "far"]));
    let walk = |direction| policy.walk(direction).map(|layer| layer.name.to_string()).collect::<Vec<_>>();
    assert_eq!(walk(Direction::Out), ["near", "middle", "far"]);
    assert_eq!(walk(Direction::In), ["far", "middle", "near"]);

    let swapped = policy.after(&transaction(&acl, vec![put_layer("near", 30), put_layer("far", 10)])).unwrap();
    assert_eq!(names(&swapped), ["far", "middle", "near"], "layers change places in one transaction");
    assert_eq!(names(&policy), ["near", "middle", "far"], "the policy before is as it was");
}

#[test]
fn a_bad_edit_undoes_the_good_ones_before_it() {
    // VF-10
    let acl = controller("acl", [0, 100]);
    let twice = group("web", 0, &["a", "a"]);
    let edits = vec![put_layer("acl", 10), put_group("acl", group("base", 0, &["a"])), put_group("acl", twice)];
    let before = PortPolicy::empty();
    let error = before.after(&transaction(&acl, edits)).unwrap_err();
    assert_eq!(error.to_string(), r#"layer "acl": group "web": rule "a" is there twice"#);
    assert_eq!(before, PortPolicy::empty());
}

#[test]
fn controllers_keep_to_what_is_theirs() {
    let (acl, nat) = (controller("acl", [0, 49]), controller("nat", [50, 99]));
    let policy = PortPolicy::empty().after(&transaction(&acl, vec![put_layer("acl", 10)])).unwrap();
    for edit in [
        put_layer("acl", 60),
        Edit::RemoveLayer { name: name("acl") },
        put_group("acl", group("g", 0, &[])),
        Edit::RemoveGroup { layer: name("acl"), group: name("g") },
    ] {
        let error = policy.after(&transaction(&nat, vec![edit])).unwrap_err();
        assert_eq!(error.to_string(), r#"layer "acl": it belongs to controller "acl""#);
    }
    let error = policy.after(&transaction(&nat, vec![put_layer("nat", 20)])).unwrap_err();
    assert_eq!(error.to_string(), r#"layer "nat": order 20 is not between 50 and 99, the band of controller "nat""#);
    let error = policy.after(&transaction(&acl, vec![put_layer("other", 10)])).unwrap_err();
    assert_eq!(error.to_string(), r#"layer "other": layer "acl" has order 10, too"#);
    let error = policy.after(&transaction(&acl, vec![Edit::RemoveLayer { name: name("x") }])).unwrap_err();
    assert_eq!(error.to_string(), r#"there is no layer "x""#);
}

#[test]
fn who_read_an_older_version_is_refused() {
    let acl = controller("acl", [0, 100]);
    let edits = vec![put_layer("acl", 10), put_group("acl", group("web", 0, &["a"]))];
    let first = PortPolicy::empty().after(&transaction(&acl, edits)).unwrap();
    let believing = |version: Option<u64>| Transaction {
        preconditions: vec![Precondition::Group { layer: name("acl"), group: name("web"), version }],
        ..transaction(&acl, vec![put_group("acl", group("web", 0, &["b"]))])
    };
    let second = first.after(&believing(Some(1))).unwrap();
    let error = second.after(&believing(Some(1))).unwrap_err();
    assert_eq!(error.to_string(), "group acl/web has version 2, not 1");
    let error = second.after(&believing(None)).unwrap_err();
    assert_eq!(error.to_string(), "group acl/web has version 2, not none");
    let stale = Transaction {
        preconditions: vec![Precondition::Policy { version: 1 }],
        ..transaction(&acl, vec![put_layer("acl", 11)])
    };
    assert_eq!(second.after(&stale).unwrap_err().to_string(), "the policy has version 2, not 1");
}

#[test]
fn what_does_not_change_is_shared() {
    let acl = controller("acl", [0, 100]);
    let edits = vec![
        put_layer("one", 10),
        put_layer("two", 20),
        put_group("one", group("late", 5, &["a"])),
        put_group("one", group("early", 1, &["a"])),
    ];
    let first = PortPolicy::empty().after(&transaction(&acl, edits)).unwrap();
    let second = first.after(&transaction(&acl, vec![put_group("one", group("late", 0, &["b"]))])).unwrap();
    assert!(Arc::ptr_eq(&first.layers()[1], &second.layers()[1]));
    let groups = |policy: &PortPolicy| {
        let groups = policy.layer("one").unwrap().groups.iter();
        groups.map(|versioned| (versioned.group.name.to_string(), versioned.version)).collect::<Vec<_>>()
    };
    assert_eq!(groups(&first), [("early".to_owned(), 1), ("late".to_owned(), 1)]);
    assert_eq!(groups(&second), [("late".to_owned(), 2), ("early".to_owned(), 1)], "groups stand in their order");
    let early = |policy: &PortPolicy| Arc::clone(&policy.layer("one").unwrap().group("early").unwrap().group);
    assert!(Arc::ptr_eq(&early(&first), &early(&second)));
    let third = second.after(&transaction(&acl, vec![Edit::RemoveGroup { layer: name("one"), group: name("late") }]));
    assert_eq!(groups(&third.unwrap()), [("early".to_owned(), 1)]);
}
