// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy as callers of all kinds see it, against a switchboard that only remembers.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::{fs, future};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::{Extension, Router};
use hyper::body::Body as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use switch::Name;
use switch::engine::Event;
use switch::plan::Request as Miss;
use tokio::runtime::Runtime;

use super::access::Connection;
use super::answers::{FlowList, PortLayers, TraceAnswer, Written};
use super::api::Api;
use super::policy_metrics::Policies;
use super::routes::router;
use super::tests::FakeNode;
use super::{Controlled, LayerInfo, metrics, schema};
use crate::config::{ControllerConfig, PortConfig};
use crate::policy::tests::FakeBoard;
use crate::policy::{Controllers, Peer, PolicyStore};

/// No test runs as one of these users.
const ACL: u32 = 4_000_001;
const SEVERAL: u32 = 4_000_002;
const STRANGER: u32 = 4_000_003;
const TOKEN: &str = "0123456789abcdef";

const LAYER: &str = "/ports/vm0/layers/acl";
const GROUP: &str = "/ports/vm0/layers/acl/groups/web";

/// An API with controllers `acl` (a user), `lb` and `meter` (one user), and `vnet` (a token).
struct Bench {
    runtime: Runtime,
    router: Router,
    policy: Arc<PolicyStore>,
    board: Arc<FakeBoard>,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        fs::write(&file, TOKEN).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        let config = |text, uid, token_file: Option<&PathBuf>, low| ControllerConfig {
            name: name(text),
            uid,
            token_file: token_file.cloned(),
            order: [low, low + 9],
        };
        let controllers = [
            config("acl", Some(ACL), None, 0),
            config("lb", Some(SEVERAL), None, 10),
            config("meter", Some(SEVERAL), None, 20),
            config("vnet", None, Some(&file), 30),
        ];
        let controllers = Arc::new(Controllers::load(&controllers).expect("loaded"));
        let board = FakeBoard::with_ports(&["vm0", "vm1"]);
        let policy = Arc::new(PolicyStore::new(Arc::clone(&board) as _));
        let node = FakeNode::default();
        node.add_port(PortConfig::vhost_user(name("vm0"), "/tmp/vm0.sock").expect("a path")).expect("added");
        let router = router(Api::new(Arc::new(node), Arc::clone(&policy), controllers));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { runtime, router, policy, board, _dir: dir }
    }

    fn send(&self, peer: Peer, request: &str, headers: &[(&str, &str)], body: &str) -> hyper::Response<Body> {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let mut built = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            built = built.header(*name, *value);
        }
        let request = built.body(Body::from(body.to_owned())).expect("a request");
        let router = self.router.clone().layer(Extension(Connection::new(peer)));
        let answer = self.runtime.block_on(TowerToHyperService::new(router).call(request));
        answer.expect("the router never fails")
    }

    fn ask_as(&self, peer: Peer, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = self.send(peer, request, headers, body);
        let (parts, body) = answer.into_parts();
        let body = self.runtime.block_on(axum::body::to_bytes(body, usize::MAX)).expect("a body");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// As controller `acl`.
    fn ask(&self, request: &str, body: &str) -> Answer {
        self.ask_as(Peer::Local { uid: ACL }, request, &[], body)
    }

    fn ask_if(&self, header: (&str, &str), request: &str, body: &str) -> Answer {
        self.ask_as(Peer::Local { uid: ACL }, request, &[header], body)
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// What the description says that it is.
    fn read<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{:?}", self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn version(&self) -> u64 {
        self.read::<Written>().version
    }

    fn tag(&self) -> &str {
        self.headers.get("etag").expect("an entity tag").to_str().expect("text")
    }

    #[track_caller]
    fn refused(&self, status: u16, error: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)));
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn web(port: u16) -> String {
    json!({"rule": [{"name": "r", "dir": "in", "match": {"dst_port": port}, "action": {"type": "allow"}}]}).to_string()
}

#[test]
fn groups_have_versions_and_stale_writers_are_refused() {
    let bench = Bench::new();
    bench.ask(&format!("PUT {GROUP}"), &web(80)).refused(404, r#"port "vm0": there is no layer "acl""#);
    assert_eq!(bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version(), 1);
    let absent = bench.ask_if(("If-Match", "*"), &format!("PUT {GROUP}"), &web(80));
    absent.refused(412, r#"port "vm0" has no group acl/web"#);
    let first = bench.ask_if(("If-None-Match", "*"), &format!("PUT {GROUP}"), &web(80));
    assert_eq!((first.version(), first.tag()), (2, "\"2\""));
    let again = bench.ask_if(("If-None-Match", "*"), &format!("PUT {GROUP}"), &web(80));
    again.refused(412, r#"port "vm0": group acl/web has version 2, not none"#);
    assert_eq!(again.json()["object"], "port vm0 / group acl/web");

    let shown = bench.ask(&format!("GET {GROUP}"), "");
    assert_eq!(shown.tag(), "\"2\"");
    shown.read::<schema::GroupAnswer>();
    let group = json!({
        "name": "web", "order": 0,
        "rule": [{"name": "r", "priority": 0, "dir": "in", "match": {"dst_port": "80"}, "action": {"type": "allow"}}],
    });
    let count = json!({"packets": 0, "bytes": 0});
    let expected = json!({
        "version": 2, "group": group, "count": count, "rule_counts": [{"rule": "r", "packets": 0, "bytes": 0}],
    });
    assert_eq!(shown.json(), expected);

    // What was read can be put; equal groups keep their version, though the policy has a new one.
    let same = bench.ask_if(("If-Match", "\"2\""), &format!("PUT {GROUP}"), &shown.json()["group"].to_string());
    assert_eq!((same.version(), same.tag()), (3, "\"2\""));
    let second = bench.ask_if(("If-Match", "\"2\""), &format!("PUT {GROUP}"), &web(81));
    assert_eq!((second.version(), second.tag()), (4, "\"4\""));
    for request in ["PUT", "DELETE"] {
        let stale = bench.ask_if(("If-Match", "\"2\""), &format!("{request} {GROUP}"), &web(82));
        stale.refused(412, r#"port "vm0": group acl/web has version 4, not 2"#);
    }
    bench
        .ask_if(("If-Match", "two"), &format!("PUT {GROUP}"), &web(82))
        .refused(400, r#"If-Match must be * or one version, such as "3""#);
    let layers: PortLayers = bench.ask("GET /ports/vm0/layers", "").read();
    assert_eq!((layers.version, layers.layers[0].groups[0].version, layers.layers[0].groups[0].rules), (4, 4, 1));
    assert_eq!(bench.ask(&format!("GET {LAYER}"), "").read::<LayerInfo>(), layers.layers[0]);
    assert_eq!(bench.ask_if(("If-Match", "\"4\""), &format!("DELETE {GROUP}"), "").version(), 5);
    bench.ask(&format!("GET {GROUP}"), "").refused(404, r#"port "vm0" has no group acl/web"#);
    assert_eq!(bench.ask(&format!("DELETE {LAYER}"), "").version(), 6);
    bench.ask(&format!("GET {LAYER}"), "").refused(404, r#"port "vm0" has no layer acl"#);
    bench.ask("GET /ports/vm9/layers", "").refused(404, r#"there is no port "vm9""#);
}

#[test]
fn rules_are_changed_in_their_group() {
    let bench = Bench::new();
    let rule = |text: &str| format!("{GROUP}/rules/{text}");
    bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version();
    let allow = r#"{"dir":"out","action":{"type":"allow"}}"#;
    bench.ask(&format!("PUT {}", rule("a")), allow).refused(404, r#"port "vm0" has no group acl/web"#);
    bench.ask(&format!("PUT {GROUP}"), "{}").version();
    let first = bench.ask(&format!("PUT {}", rule("a")), allow);
    assert_eq!((first.version(), first.tag()), (3, "\"3\""));
    assert_eq!(bench.ask_if(("If-Match", "\"3\""), &format!("PUT {}", rule("b")), allow).version(), 4);
    let stale = bench.ask_if(("If-Match", "\"3\""), &format!("PUT {}", rule("a")), allow);
    stale.refused(412, r#"port "vm0": group acl/web has version 4, not 3"#);
    bench.ask(&format!("PUT {}", rule("a")), r#"{"dir":"out","priority":9,"action":{"type":"block"}}"#).version();
    let shown = bench.ask(&format!("GET {}", rule("a")), "");
    shown.read::<schema::RuleAnswer>();
    assert_eq!(shown.json()["rule"], json!({"name": "a", "priority": 9, "dir": "out", "action": {"type": "block"}}));
    let names = |answer: &Answer| {
        let rules = answer.json()["group"]["rule"].as_array().expect("rules").clone();
        rules.iter().map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&bench.ask(&format!("GET {GROUP}"), "")), ["a", "b"], "it is changed in its place");
    bench.ask(&format!("DELETE {}", rule("a")), "").version();
    bench.ask(&format!("DELETE {}", rule("a")), "").refused(404, r#"port "vm0" has no rule acl/web/a"#);
    bench.ask(&format!("GET {}", rule("a")), "").refused(404, r#"port "vm0" has no rule acl/web/a"#);
    assert_eq!(names(&bench.ask(&format!("GET {GROUP}"), "")), ["b"]);
}

#[test]
fn refusals_name_object_and_field() {
    let bench = Bench::new();
    bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version();
    let bad = r#"{"rule":[{"name":"r","dir":"in","match":{"dst_port":"http"},"action":{"type":"allow"}}]}"#;
    let answer = bench.ask(&format!("PUT {GROUP}"), bad);
    let expected = json!({
        "error": "group web / rule r: match.dst_port: \"http\" is not a number or a range of numbers",
        "object": "group web / rule r", "field": "match.dst_port",
    });
    assert_eq!((answer.status, answer.json()), (400, expected));
    let order = bench.ask(&format!("PUT {LAYER}"), r#"{"order":10,"default":"block"}"#);
    order.refused(403, r#"port "vm0": layer "acl": order 10 is not between 0 and 9, the band of controller "acl""#);
    let unknown = bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block","x":1}"#);
    unknown.refused(400, r#"layer acl: unknown key "x"; known keys: "order", "default""#);
    bench
        .ask("PUT /ports/vm0/layers/a%20b", "{}")
        .refused(400, "layer name: \"a b\" has ' ' at position 2; names have letters, digits, '.', '_' and '-'");
    let nat = r#"{"rule":[{"name":"r","dir":"out","action":{"type":"nat","source_ranges":"pool"}}]}"#;
    let missing = bench.ask(&format!("PUT {GROUP}"), nat);
    missing.refused(
        409,
        r#"port "vm0": resource "pool": rule acl/web/r needs it, and it is not there or of another kind"#,
    );
    assert_eq!(missing.json()["object"], "port vm0 / resource pool");
    assert_eq!(bench.board.take_published(), [("vm0".to_owned(), 1)], "only what is right is published");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let bench = Bench::new();
    let body = json!({"edits": [
        {"put_layer": {"name": "acl", "order": 1, "default": "block"}},
        {"put_group": {"layer": "acl", "group": {"name": "web"}}},
        {"put_resource": {"name": "d", "type": "map", "entries": {"10.0.0.1": {"address": "192.0.2.1"}}}},
        {"put_entry": {"resource": "d", "address": "10.0.0.9", "entry": {"unknown_s": 5}}}
    ]});
    serde_json::from_value::<schema::TransactionBody>(body.clone()).expect("as described");
    assert_eq!(bench.ask("POST /ports/vm0/transactions", &body.to_string()).version(), 1);
    let bad = json!({
        "preconditions": [{"policy": {"version": 1}}],
        "edits": [{"remove_group": {"layer": "acl", "group": "web"}}, {"remove_layer": {"name": "none"}}]
    });
    serde_json::from_value::<schema::TransactionBody>(bad.clone()).expect("as described");
    let answer = bench.ask("POST /ports/vm0/transactions", &bad.to_string());
    answer.refused(404, r#"port "vm0": there is no layer "none""#);
    let stale = json!({"preconditions": [{"resource": {"resource": "d", "version": null}}], "edits": []});
    let answer = bench.ask("POST /ports/vm0/transactions", &stale.to_string());
    answer.refused(412, r#"port "vm0": resource d has version 1, not none"#);
    let all = bench.ask("GET /ports/vm0/policy", "");
    assert_eq!(all.tag(), "\"1\"");
    all.read::<schema::PortPolicyAnswer>();
    let expected = json!({
        "port": "vm0", "version": 1,
        "layers": [{
            "name": "acl", "controller": "acl", "order": 1, "default": "block",
            "group": [{"name": "web", "order": 0}],
        }],
        "resources": [{"name": "d", "type": "map", "entries": {
            "10.0.0.1": {"address": "192.0.2.1"}, "10.0.0.9": {"unknown_s": 5},
        }}],
    });
    assert_eq!(all.json(), expected);
    assert_eq!(bench.board.take_published(), [("vm0".to_owned(), 1)]);
}

#[test]
fn resources_and_entries_come_and_go() {
    let bench = Bench::new();
    let path = "/ports/vm0/resources/d";
    let map = r#"{"type":"map","entries":{"10.0.0.1":{"address":"192.0.2.1","vni":7,"mac":"52:54:00:00:00:01"}}}"#;
    let first = bench.ask_if(("If-None-Match", "*"), &format!("PUT {path}"), map);
    assert_eq!((first.version(), first.tag()), (1, "\"1\""));
    let entry = |address: &str| format!("{path}/entries/{address}");
    assert_eq!(bench.ask(&format!("PUT {}", entry("fd00::1")), r#"{"unknown_s":30}"#).version(), 2);
    bench.board.clock_s.store(10, std::sync::atomic::Ordering::Relaxed);
    let shown = bench.ask(&format!("GET {}", entry("fd00::1")), "");
    shown.read::<schema::EntryBody>();
    assert_eq!(shown.json(), json!({"unknown_s": 20}));
    bench.board.clock_s.store(30, std::sync::atomic::Ordering::Relaxed);
    let expired = bench.ask(&format!("GET {}", entry("fd00::1")), "");
    expired.refused(404, r#"port "vm0" has no entry d/fd00::1"#);
    let shown = bench.ask(&format!("GET {path}"), "");
    shown.read::<schema::ResourceAnswer>();
    let resource = json!({"name": "d", "type": "map", "entries": {
        "10.0.0.1": {"address": "192.0.2.1", "vni": 7, "mac": "52:54:00:00:00:01"},
    }});
    assert_eq!(shown.json(), json!({"version": 2, "controller": "acl", "resource": resource}));
    assert_eq!(bench.ask(&format!("DELETE {}", entry("10.0.0.1")), "").version(), 3);
    bench.ask(&format!("GET {}", entry("10.0.0.1")), "").refused(404, r#"port "vm0" has no entry d/10.0.0.1"#);
    bench.ask(&format!("PUT {}", entry("10.0.0.300")), "{}").refused(400, "\"10.0.0.300\" is not an IP address");
    let stale = bench.ask_if(("If-Match", "\"1\""), &format!("DELETE {path}"), "");
    stale.refused(412, r#"port "vm0": resource d has version 3, not 1"#);
    assert_eq!(bench.ask(&format!("DELETE {path}"), "").version(), 4);
    bench.ask(&format!("GET {path}"), "").refused(404, r#"port "vm0" has no resource d"#);
    let range =
        bench.ask(&format!("PUT {path}"), r#"{"type":"range","ranges":{"address":"203.0.113.1","ports":"9-1"}}"#);
    range.refused(400, "resource d: ranges: ports 9 to 1 of 203.0.113.1 are no range");
}

#[test]
fn a_document_is_applied_shown_and_tried() {
    let bench = Bench::new();
    let document = json!({
        "controller": "acl",
        "layer": [{
            "port": "vm1", "name": "acl", "order": 2, "default": "allow",
            "group": [{"name": "g", "order": 0, "rule": [
                {"name": "r", "priority": 0, "dir": "in", "match": {"ip_proto": "tcp"}, "action": {"type": "count"}},
            ]}],
        }],
        "resource": [{"port": "vm0", "name": "d", "type": "map", "entries": {}}],
    });
    serde_json::from_value::<schema::DocumentBody>(document.clone()).expect("as described");
    let text = document.to_string();
    let dry = bench.ask("POST /policy?dry_run=true", &text);
    let changes = json!([
        {"port": "vm0", "kind": "add", "object": "resource d", "detail": "0 entries"},
        {"port": "vm1", "kind": "add", "object": "layer acl", "detail": "order 2, default allow"},
        {"port": "vm1", "kind": "add", "object": "group acl/g", "detail": "1 rule"},
    ]);
    let affected = json!({"flows": 7, "changed": 3, "examples": []});
    let flows = json!({"vm0": affected, "vm1": affected});
    assert_eq!(dry.json(), json!({"changes": changes, "versions": {}, "flows": flows}));
    assert_eq!(bench.board.take_published(), []);
    let applied = bench.ask("POST /policy", &text);
    assert_eq!(applied.json(), json!({"changes": changes, "versions": {"vm0": 1, "vm1": 1}}));
    for path in ["/policy", "/policy?controller=acl"] {
        let shown = bench.ask(&format!("GET {path}"), "");
        shown.read::<schema::DocumentBody>();
        assert_eq!(shown.json(), document);
    }
    assert_eq!(bench.ask("GET /policy?controller=lb", "").json(), json!({"controller": "lb"}));
    let typo = bench.ask("POST /policy?dryrun=true", &text);
    typo.refused(400, r#"unknown parameter "dryrun"; known parameters: dry_run"#);
    let wrong = bench.ask("POST /policy?dry_run=yes", &text);
    wrong.refused(400, r#"parameter dry_run: "yes" is not true or false"#);
    let theirs = document.to_string().replace("\"controller\":\"acl\"", "\"controller\":\"lb\"");
    bench.ask("POST /policy", &theirs).refused(403, r#"you are not controller "lb" but "acl""#);
    let claimed = bench.ask_if(("Shunt-Controller", "lb"), "POST /policy", &text);
    claimed.refused(400, r#"the document is of controller "acl", and the request says "lb""#);
}

/// Decision 20.
#[test]
fn callers_may_what_they_are() {
    let bench = Bench::new();
    let put = |layer: &str| format!("PUT /ports/vm0/layers/{layer}");
    let head = |order: u32| format!(r#"{{"order":{order},"default":"allow"}}"#);
    let (owner, several) = (Peer::Local { uid: 0 }, Peer::Local { uid: SEVERAL });
    let bearer = format!("Bearer {TOKEN}");
    let token: &[_] = &[("Authorization", bearer.as_str())];
    let acting = |name| [("Shunt-Controller", name)];

    assert_eq!(bench.ask(&put("acl"), &head(0)).version(), 1);
    let which = "say which controller you act as, in the header Shunt-Controller";
    bench.ask_as(several, &put("lb"), &[], &head(10)).refused(400, &format!(r#"{which}: "lb" or "meter""#));
    assert_eq!(bench.ask_as(several, &put("lb"), &acting("lb"), &head(10)).version(), 2);
    assert_eq!(bench.ask_as(several, &put("meter"), &acting("meter"), &head(20)).version(), 3);
    let other = bench.ask_as(several, &put("acl"), &acting("acl"), &head(0));
    other.refused(403, r#"you are not controller "acl" but "lb" or "meter""#);
    let theirs = bench.ask_as(several, &put("acl"), &acting("lb"), &head(10));
    theirs.refused(403, r#"port "vm0": layer "acl": it belongs to controller "acl""#);
    assert_eq!(bench.ask_as(Peer::Remote, &put("vnet"), token, &head(30)).version(), 4);
    assert_eq!(bench.ask_as(Peer::Local { uid: STRANGER }, &put("vnet"), token, &head(31)).version(), 5);
    let all_names = r#""acl" or "lb" or "meter" or "vnet""#;
    bench.ask_as(owner, &put("acl"), &[], &head(0)).refused(400, &format!("{which}: {all_names}"));
    assert_eq!(bench.ask_as(owner, &put("acl"), &acting("acl"), &head(1)).version(), 6);
    let nobody = bench.ask_as(owner, &put("x"), &acting("x"), &head(1));
    nobody.refused(403, r#"no controller "x" is configured"#);

    let read_only = "this address is read-only without a token; changes are made through the control socket";
    bench.ask_as(Peer::Remote, &put("vnet"), &[], &head(30)).refused(403, read_only);
    bench.ask_as(Peer::Remote, &put("vnet"), &acting("vnet"), &head(30)).refused(403, read_only);
    for wrong in ["Bearer 0123456789abcdee", "Basic YTpi", "Bearer"] {
        let answer = bench.ask_as(Peer::Remote, "GET /ports", &[("Authorization", wrong)], "");
        answer.refused(401, "the token is not that of a controller");
    }
    let stranger = format!("user {STRANGER} is neither the owner of the node nor a controller");
    for request in
        ["GET /ports", "GET /policy?controller=acl", "GET /metrics", "POST /ports", "GET /nothing", "GET /events"]
    {
        bench.ask_as(Peer::Local { uid: STRANGER }, request, &[], "").refused(403, &stranger);
    }
    for path in ["/version", "/openapi.json"] {
        assert_eq!(bench.ask_as(Peer::Local { uid: STRANGER }, &format!("GET {path}"), &[], "").status, 200);
    }
    for peer in [owner, several, Peer::Remote] {
        assert_eq!(bench.ask_as(peer, "GET /ports/vm0/layers", &[], "").read::<PortLayers>().layers.len(), 4);
    }
    // The node itself is its owner's.
    let port = r#"{"name":"vm5","socket":"/tmp/vm5.sock"}"#;
    bench.ask("POST /ports", port).refused(403, "only the owner of the node may do that");
    bench.ask("DELETE /ports/vm0", "").refused(403, "only the owner of the node may do that");
    bench.ask_as(Peer::Remote, "DELETE /ports/vm0", token, "").refused(403, "only the owner of the node may do that");
    assert_eq!(bench.ask_as(owner, "POST /ports", &[], port).status, 201);
}

#[test]
fn policy_goes_with_its_port() {
    let bench = Bench::new();
    bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version();
    assert_eq!(bench.ask_as(Peer::Local { uid: 0 }, "DELETE /ports/vm0", &[], "").status, 204);
    assert_eq!(bench.ask("GET /ports/vm0/layers", "").read::<PortLayers>().version, 0);
}

#[test]
fn packets_are_simulated_and_flows_listed() {
    let bench = Bench::new();
    let probe = r#"{"direction":"out","tuple":"tcp 10.0.0.1:1 > 10.0.0.2:80"}"#;
    serde_json::from_str::<schema::ProbeBody>(probe).expect("as described");
    let trace: TraceAnswer = bench.ask("POST /ports/vm0/simulate", probe).read();
    assert_eq!((trace.direction.as_str(), trace.outcome.as_str()), ("out", "forwarded"));
    bench.ask("POST /ports/vm0/simulate", "{}").refused(400, r#""direction" is missing"#);
    bench.ask("POST /ports/vm9/simulate", probe).refused(404, r#"there is no port "vm9""#);
    assert_eq!(bench.ask("GET /ports/vm0/flows?limit=5&cursor=0", "").read::<FlowList>(), FlowList::default());
    let limit = bench.ask("GET /ports/vm0/flows?limit=0", "");
    limit.refused(400, "parameter limit: 0 is not between 1 and 10000");
}

#[test]
fn controllers_hear_what_concerns_them() {
    let bench = Bench::new();
    let miss = |controller| {
        let address = [10, 0, 0, 9].into();
        let request = Miss { resource: name("d"), controller: name(controller), address };
        bench.policy.tell(&name("vm0"), &Event::Miss { port: packet::PortId(0), request });
    };
    let mut answer = bench.send(Peer::Local { uid: ACL }, "GET /events", &[], "");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().expect("text"))
    );
    let mut next = || {
        bench.runtime.block_on(async {
            let frame = future::poll_fn(|context| std::pin::Pin::new(answer.body_mut()).poll_frame(context));
            let frame = frame.await.expect("no end").expect("no failure").into_data().expect("data");
            String::from_utf8(frame.into()).expect("text")
        })
    };
    assert_eq!(next(), ":\n\n", "a client knows when it is heard");
    miss("lb");
    miss("acl");
    assert_eq!(next(), "event: miss\ndata: {\"address\":\"10.0.0.9\",\"port\":\"vm0\",\"resource\":\"d\"}\n\n");
    for _ in 0..1030 {
        miss("acl");
    }
    assert_eq!(next(), "event: lagged\ndata: {\"lost\":6}\n\n");
    let mut owner = bench.send(Peer::Local { uid: 0 }, "GET /events", &[], "");
    miss("lb");
    let mut heard = String::new();
    bench.runtime.block_on(async {
        let mut context = Context::from_waker(Waker::noop());
        while let std::task::Poll::Ready(Some(Ok(frame))) =
            std::pin::Pin::new(owner.body_mut()).poll_frame(&mut context)
        {
            heard.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("text"));
        }
    });
    assert!(heard.contains("event: miss"), "the owner hears everything: {heard}");
    let other = bench.ask("GET /events?controller=lb", "");
    other.refused(403, r#"you are not controller "lb" but "acl""#);
}

#[test]
fn layers_and_groups_are_metrics_and_rules_are_not() {
    let bench = Bench::new();
    bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version();
    bench.ask(&format!("PUT {GROUP}"), &web(80)).version();
    let text = String::from_utf8(bench.ask("GET /metrics", "").body.into()).expect("text");
    for line in [
        r#"shunt_policy_version{port="vm0"} 2"#,
        r#"shunt_policy_flows{port="vm0"} 0"#,
        r#"shunt_policy_misses_total{port="vm0"} 0"#,
        r#"shunt_policy_layer_packets_total{port="vm0",layer="acl",by="rules"} 0"#,
        r#"shunt_policy_layer_bytes_total{port="vm0",layer="acl",by="default"} 0"#,
        r#"shunt_policy_group_bytes_total{port="vm0",layer="acl",group="web"} 0"#,
        "shunt_policy_groups_left_out 0",
        "shunt_policy_events_lost_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("rule=\""), "{text}");
    // Groups beyond the bound are counted instead.
    for layer in 0..5 {
        let edits: Vec<_> = std::iter::once(
            json!({"put_layer": {"name": format!("l{layer}"), "order": layer + 2, "default": "allow"}}),
        )
        .chain(
            (0..1000).map(|g| json!({"put_group": {"layer": format!("l{layer}"), "group": {"name": format!("g{g}")}}})),
        )
        .collect();
        bench.ask("POST /ports/vm0/transactions", &json!({ "edits": edits }).to_string()).version();
    }
    let policies = Policies::of(&bench.policy);
    let text = metrics::encode(FakeNode::default().stats().expect("statistics"), policies).expect("text");
    assert!(text.contains("shunt_policy_groups_left_out 905\n"), "{}", text.len());
    assert_eq!(text.matches("shunt_policy_group_packets_total{").count(), 4096);
}

/// A group of 50 000 rules is far beyond the bodies of other paths.
#[test]
fn large_groups_are_taken() {
    let bench = Bench::new();
    bench.ask(&format!("PUT {LAYER}"), r#"{"order":1,"default":"block"}"#).version();
    let mut body = String::from("{\"rule\":[");
    for n in 0..20_000 {
        let comma = if n == 0 { "" } else { "," };
        let (a, b) = (n >> 8, n & 255);
        write!(
            body,
            r#"{comma}{{"name":"r{n}","dir":"in","match":{{"src_ip":"10.{a}.{b}.0/24"}},"action":{{"type":"allow"}}}}"#
        )
        .expect("a string");
    }
    body.push_str("]}");
    assert_eq!(bench.ask(&format!("PUT {GROUP}"), &body).version(), 2);
    let shown = bench.ask(&format!("GET {GROUP}"), "").read::<schema::GroupAnswer>();
    assert_eq!(shown.group.rule.len(), 20_000);
}
