// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store against a switchboard that only remembers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use switch::Name;
use switch::compile::Snapshot;
use switch::condition::Key;
use switch::document::Document;
use switch::engine::{Event, PortReport};
use switch::model::{Controller, Default as LayerDefault, Direction, Edit, Precondition, Transaction};
use switch::plan::{Request, Trace};

use super::*;

/// A switch without packets.
#[derive(Debug, Default)]
pub(crate) struct FakeBoard {
    /// What each port is under; there are no other ports.
    pub(crate) ports: Mutex<HashMap<Name, Arc<Snapshot>>>,
    /// Everything that was published, in order.
    pub(crate) published: Mutex<Vec<(String, u64)>>,
    /// What publishing says next.
    pub(crate) fault: Mutex<Option<SwitchboardError>>,
    /// Seconds.
    pub(crate) clock_s: AtomicU64,
}

impl FakeBoard {
    pub(crate) fn with_ports(ports: &[&str]) -> Arc<Self> {
        let board = Self::default();
        let empty = || Arc::new(Snapshot::empty());
        board.ports.lock().expect("lock").extend(ports.iter().map(|port| (name(port), empty())));
        Arc::new(board)
    }

    pub(crate) fn take_published(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.published.lock().expect("lock"))
    }

    fn find(&self, port: &Name) -> Result<Arc<Snapshot>, SwitchboardError> {
        let unknown = || SwitchboardError::UnknownPort { port: port.clone() };
        self.ports.lock().expect("lock").get(port).cloned().ok_or_else(unknown)
    }
}

impl Switchboard for FakeBoard {
    fn now_ns(&self) -> u64 {
        self.clock_s.load(Ordering::Relaxed) * 1_000_000_000
    }

    fn has_port(&self, port: &Name) -> Result<bool, SwitchboardError> {
        Ok(self.ports.lock().expect("lock").contains_key(port))
    }

    fn publish(&self, port: &Name, snapshot: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, SwitchboardError> {
        self.find(port)?;
        let fault = self.fault.lock().expect("lock").take();
        if !matches!(fault, None | Some(SwitchboardError::Late { .. })) {
            return Err(fault.expect("some"));
        }
        self.published.lock().expect("lock").push((port.to_string(), snapshot.version()));
        let before = self.ports.lock().expect("lock").insert(port.clone(), snapshot);
        fault.map_or(Ok(before), Err)
    }

    fn simulate(&self, port: &Name, direction: Direction, _: &Key) -> Result<Trace, SwitchboardError> {
        let version = self.find(port)?.version();
        let (steps, changes) = (Vec::new(), "none".to_owned());
        Ok(Trace { version, direction, steps, changes, outcome: switch::plan::Outcome::Forward })
    }

    fn compare(&self, port: &Name, _: Arc<Snapshot>, _: usize) -> Result<Comparison, SwitchboardError> {
        self.find(port)?;
        Ok(Comparison { flows: 7, changed: 3, examples: Vec::new() })
    }

    fn flows(&self, port: &Name, _: u64, _: usize) -> Result<FlowPage, SwitchboardError> {
        Ok(FlowPage { version: self.find(port)?.version(), ..FlowPage::default() })
    }

    fn settle(&self, port: &Name) -> Result<(), SwitchboardError> {
        self.find(port).map(drop)
    }

    fn report(&self, port: &Name) -> Result<PortReport, SwitchboardError> {
        Ok(PortReport { version: self.find(port)?.version(), ..PortReport::default() })
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn controller(text: &str, order: [u32; 2]) -> Controller {
    Controller { name: name(text), order }
}

fn acl() -> Controller {
    controller("acl", [0, 99])
}

fn put_layer(layer: &str, order: u32) -> Edit {
    Edit::PutLayer { name: name(layer), order, default: LayerDefault::Allow }
}

fn transaction(edits: Vec<Edit>) -> Transaction {
    Transaction { controller: acl(), preconditions: Vec::new(), edits }
}

fn store(ports: &[&str]) -> (Arc<FakeBoard>, PolicyStore) {
    let board = FakeBoard::with_ports(ports);
    (Arc::clone(&board), PolicyStore::new(board))
}

fn document(layers: &str) -> Document {
    Document::from_toml(&format!("controller = 'acl'\n{layers}")).expect("a document")
}

/// A layer with groups that allow a destination port each.
fn layer(port: &str, name: &str, order: u32, groups: &[(&str, u16)]) -> String {
    let mut text = format!("[[layer]]\nport = '{port}'\nname = '{name}'\norder = {order}\ndefault = 'block'\n");
    for (group, number) in groups {
        text += &format!(
            "[[layer.group]]\nname = '{group}'\n[[layer.group.rule]]\nname = 'r'\ndir = 'out'\n\
             match = {{ dst_port = {number} }}\naction = {{ type = 'allow' }}\n"
        );
    }
    text
}

fn shown(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_transaction_is_published_and_answers_with_its_version() {
    let (board, store) = store(&["vm0", "vm1"]);
    assert_eq!(store.transact(&name("vm0"), &transaction(vec![put_layer("a", 1)])), Ok(1));
    assert_eq!(store.transact(&name("vm0"), &transaction(vec![put_layer("b", 2)])), Ok(2));
    assert_eq!(store.transact(&name("vm1"), &transaction(vec![put_layer("a", 1)])), Ok(1));
    assert_eq!(board.take_published(), [("vm0".to_owned(), 1), ("vm0".to_owned(), 2), ("vm1".to_owned(), 1)]);
    let view = store.view(&name("vm0")).expect("a view");
    assert_eq!((view.policy.version(), view.policy.layers().len(), view.snapshot.version()), (2, 2, 2));
    assert!(Arc::ptr_eq(&view.snapshot, &board.find(&name("vm0")).expect("a port")));
}

#[test]
fn what_is_refused_changes_nothing() {
    let (board, store) = store(&["vm0"]);
    let vm0 = name("vm0");
    assert_eq!(store.transact(&vm0, &transaction(vec![put_layer("a", 1)])), Ok(1));
    board.take_published();
    let error = store.transact(&vm0, &transaction(vec![put_layer("b", 2), put_layer("c", 2)])).unwrap_err();
    assert_eq!(error.to_string(), r#"port "vm0": layer "c": layer "b" has order 2, too"#);
    let stale = Transaction {
        preconditions: vec![Precondition::Policy { version: 7 }],
        ..transaction(vec![put_layer("b", 2)])
    };
    let error = store.transact(&vm0, &stale).unwrap_err();
    assert_eq!(error.to_string(), r#"port "vm0": the policy has version 1, not 7"#);
    *board.fault.lock().expect("lock") = Some(SwitchboardError::Gone);
    let error = store.transact(&vm0, &transaction(vec![put_layer("b", 2)])).unwrap_err();
    assert_eq!(error.to_string(), "the node has stopped or does not answer");
    let error = store.transact(&name("vm9"), &transaction(vec![put_layer("b", 2)])).unwrap_err();
    assert_eq!(error.to_string(), r#"there is no port "vm9""#);
    assert_eq!(store.view(&name("vm9")).unwrap_err(), error);
    assert_eq!(board.take_published(), []);
    let policy = store.view(&vm0).expect("a view").policy;
    assert_eq!((policy.version(), policy.layers().len()), (1, 1));
}

#[test]
fn a_snapshot_that_is_late_is_in_effect_all_the_same() {
    let (board, store) = store(&["vm0"]);
    *board.fault.lock().expect("lock") = Some(SwitchboardError::Late { port: name("vm0") });
    let error = store.transact(&name("vm0"), &transaction(vec![put_layer("a", 1)])).unwrap_err();
    let expected = r#"port "vm0": not all workers have passed a burst boundary under the new policy yet"#;
    assert_eq!(error.to_string(), expected);
    assert_eq!(store.transact(&name("vm0"), &transaction(vec![put_layer("b", 2)])), Ok(2));
    assert_eq!(store.view(&name("vm0")).expect("a view").policy.layers().len(), 2);
}

#[test]
fn a_document_makes_what_its_controller_owns_equal_to_it() {
    let (board, store) = store(&["vm0", "vm1"]);
    let other = controller("other", [100, 199]);
    let mine = Transaction { controller: other, ..transaction(vec![put_layer("theirs", 100)]) };
    assert_eq!(store.transact(&name("vm0"), &mine), Ok(1));
    board.take_published();

    let first = document(
        &(layer("vm0", "one", 1, &[("a", 80), ("b", 81)])
            + &layer("vm0", "two", 2, &[])
            + &layer("vm1", "one", 1, &[("a", 80)])
            + "[[resource]]\nport = 'vm1'\nname = 'd'\ntype = 'map'\n[resource.entries]\n'10.0.0.9' = { unknown_s = 30 }\n"),
    );
    let dry = store.dry_run(&acl(), &first).expect("possible");
    assert_eq!(board.take_published(), []);
    let applied = store.apply(&acl(), &first).expect("applied");
    assert_eq!(applied.changes, dry.changes);
    assert_eq!(dry.flows.keys().collect::<Vec<_>>(), [&name("vm0"), &name("vm1")]);
    assert_eq!(
        shown(&applied.changes),
        [
            "+ vm0: layer one: order 1, default block",
            "+ vm0: group one/a: 1 rule",
            "+ vm0: group one/b: 1 rule",
            "+ vm0: layer two: order 2, default block",
            "+ vm1: layer one: order 1, default block",
            "+ vm1: group one/a: 1 rule",
            "+ vm1: resource d: 1 entry",
        ]
    );
    assert_eq!(applied.versions, [(name("vm0"), 2), (name("vm1"), 1)].into());
    assert_eq!(board.take_published(), [("vm0".to_owned(), 2), ("vm1".to_owned(), 1)]);
    assert_eq!(store.document(&name("acl")), first);
    assert_eq!(store.document(&name("nobody")), Document::empty(name("nobody")));

    // The same again is nothing, even when a negative answer has grown older.
    board.clock_s.store(29, Ordering::Relaxed);
    assert_eq!(store.apply(&acl(), &first).expect("applied"), Applied::default());
    assert_eq!(board.take_published(), []);

    let second = document(&(layer("vm0", "one", 3, &[("a", 80), ("b", 82), ("c", 83)])));
    let applied = store.apply(&acl(), &second).expect("applied");
    assert_eq!(
        shown(&applied.changes),
        [
            "- vm0: layer two",
            "~ vm0: layer one: order 1 to 3",
            "~ vm0: group one/b: 1 rule changed",
            "+ vm0: group one/c: 1 rule",
            "- vm1: layer one",
            "- vm1: resource d",
        ]
    );
    assert_eq!(store.document(&name("acl")), second);
    let policy = store.view(&name("vm0")).expect("a view").policy;
    assert!(policy.layer("theirs").is_some(), "what others own stays");
    assert_eq!(
        store.apply(&acl(), &document("")).expect("applied").changes.len(),
        1,
        "an empty document takes all away"
    );
    assert_eq!(store.document(&name("acl")), Document::empty(name("acl")));
}

#[test]
fn a_document_that_is_wrong_on_one_port_changes_none() {
    let (board, store) = store(&["vm0", "vm1"]);
    let other = Transaction { controller: controller("other", [0, 9]), ..transaction(vec![put_layer("one", 1)]) };
    assert_eq!(store.transact(&name("vm1"), &other), Ok(1));
    board.take_published();
    for (layers, expected) in [
        (layer("vm1", "one", 5, &[]), r#"port "vm1": layer "one": it belongs to controller "other""#),
        (
            layer("vm1", "two", 100, &[]),
            r#"port "vm1": layer "two": order 100 is not between 0 and 99, the band of controller "acl""#,
        ),
        (layer("vm9", "two", 2, &[]), r#"there is no port "vm9""#),
    ] {
        let document = document(&(layer("vm0", "one", 1, &[]) + &layers));
        assert_eq!(store.apply(&acl(), &document).unwrap_err().to_string(), expected);
        assert_eq!(store.dry_run(&acl(), &document).unwrap_err().to_string(), expected);
    }
    assert_eq!(board.take_published(), []);
    assert!(store.view(&name("vm0")).expect("a view").policy.layers().is_empty());
}

#[test]
fn policy_goes_with_its_port() {
    let (board, store) = store(&["vm0"]);
    let vm0 = name("vm0");
    assert_eq!(store.transact(&vm0, &transaction(vec![put_layer("a", 1)])), Ok(1));
    assert_eq!(store.remove_port(&vm0, || Err::<(), _>("no")), Err("no"), "a port that stays keeps its policy");
    assert_eq!(store.view(&vm0).expect("a view").policy.version(), 1);
    let remove = || Ok::<_, ()>(board.ports.lock().expect("lock").remove(&vm0).is_some());
    assert_eq!(store.remove_port(&vm0, remove), Ok(true));
    assert_eq!(store.view(&vm0).unwrap_err().to_string(), r#"there is no port "vm0""#);
    assert_eq!(store.views().len(), 0);
    board.ports.lock().expect("lock").insert(vm0.clone(), Arc::new(Snapshot::empty()));
    assert_eq!(store.view(&vm0).expect("a view").policy.version(), 0, "the next port of its name begins anew");
}

/// VF-10: writers on one port come one after another, and none is lost.
#[test]
fn writers_wait_for_each_other() {
    let (board, store) = store(&["vm0"]);
    let store = &store;
    let versions = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u32)
            .map(|writer| {
                scope.spawn(move || {
                    let layer = format!("w{writer}");
                    let edit = |step: u32| put_layer(&layer, writer * 10 + step % 10);
                    let versions = (0..20).map(|step| store.transact(&name("vm0"), &transaction(vec![edit(step)])));
                    versions.collect::<Result<Vec<_>, _>>().expect("all are possible")
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut sorted = versions;
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=80).collect::<Vec<_>>());
    assert_eq!(board.take_published().iter().map(|(_, version)| *version).collect::<Vec<_>>(), sorted);
    assert_eq!(store.view(&name("vm0")).expect("a view").policy.layers().len(), 4);
}

#[test]
fn events_go_to_whom_they_concern() {
    let (_, store) = store(&["vm0"]);
    store.transact(&name("vm0"), &transaction(vec![put_layer("a", 1)])).expect("possible");
    let mut heard = store.events().subscribe(Some(name("acl"))).expect("room");
    let port = packet::PortId(0);
    let address = std::net::IpAddr::from([10, 0, 0, 1]);
    let request = |controller| Request { resource: name("d"), controller: name(controller), address };
    store.tell(&name("vm0"), &Event::Miss { port, request: request("other") });
    store.tell(&name("vm0"), &Event::Miss { port, request: request("acl") });
    store.tell(&name("vm0"), &Event::NatExhausted { port, rule: "gone/g/r".to_owned() });
    store.tell(&name("vm0"), &Event::NatExhausted { port, rule: "a/g/r".to_owned() });
    let mut next = || heard.poll(&mut Context::from_waker(Waker::noop()));
    let event = |what| {
        let event = PolicyEvent { controller: name("acl"), port: name("vm0"), what };
        std::task::Poll::Ready(Some(Heard::Event(event)))
    };
    assert_eq!(next(), event(What::Miss { resource: name("d"), address }));
    assert_eq!(next(), event(What::NatExhausted { rule: "a/g/r".to_owned() }));
    assert_eq!(next(), std::task::Poll::Pending);
}

/// The four controllers of the user guide: their documents compile side by side, in bands that do not overlap.
#[test]
fn the_examples_are_accepted() {
    let (board, store) = store(&["vm0", "vm1"]);
    let bands = [("metering", [0, 99]), ("acl", [100, 199]), ("loadbalancer", [200, 299]), ("vnet", [300, 399])];
    let texts = [
        include_str!("../../../docs/examples/policy/metering.toml"),
        include_str!("../../../docs/examples/policy/acl.toml"),
        include_str!("../../../docs/examples/policy/loadbalancer.toml"),
        include_str!("../../../docs/examples/policy/vnet.toml"),
    ];
    for ((owner, band), text) in bands.into_iter().zip(texts) {
        let document = Document::from_toml(text).unwrap_or_else(|error| panic!("{owner}: {error}"));
        let applied =
            store.apply(&controller(owner, band), &document).unwrap_or_else(|error| panic!("{owner}: {error}"));
        assert!(!applied.changes.is_empty());
        assert_eq!(store.document(&name(owner)), document);
    }
    assert_eq!(board.take_published().len(), 5);
    let layers = store
        .view(&name("vm0"))
        .expect("a view")
        .policy
        .layers()
        .iter()
        .map(|layer| layer.name.to_string())
        .collect::<Vec<_>>();
    assert_eq!(layers, ["metering", "acl", "vip", "snat", "vnet"]);
}

/// What the user guide shows is what is taken.
#[test]
fn the_guide_shows_what_is_accepted() {
    let guide = include_str!("../../../docs/user-guide/policy.md");
    let blocks: Vec<_> = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [document, actions] = blocks.as_slice() else { panic!("two blocks, not {}", blocks.len()) };
    let document = Document::from_toml(document).expect("the reference");
    assert_eq!((document.layers.len(), document.resources.len()), (1, 2));
    for line in actions.lines() {
        let rule = format!(
            "[[layer]]\nport='p'\nname='l'\norder=0\ndefault='allow'\n[[layer.group]]\nname='g'\n[[layer.group.rule]]\nname='r'\ndir='out'\n{line}\n"
        );
        Document::from_toml(&format!("controller='c'\n{rule}")).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
