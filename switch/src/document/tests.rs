// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is written reads as the same; what is wrong is named.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::transpose::{Ecn, Encap as OuterGroup, Header, Outer, OuterEdit, Tag, Transposition, Ttl, Value, Vlans};
use packet::{DropCause, EtherType, Field, MacAddr, Tunnel};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::condition::Conditions;
use crate::model::{Action, Balance, Destination, Direction, Encap, Endpoint, Nat, Source, Stateful};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn names() -> impl Strategy<Value = Name> {
    select(&["a", "b.1", "c-2", "layer", "name", "7", "x_y", "group", "entries"][..]).prop_map(name)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), any::<Option<u16>>()).prop_map(|(address, port)| Endpoint { address, port })
}

fn stateful() -> impl Strategy<Value = Stateful> {
    (1..=u32::MAX).prop_map(|idle| Stateful { idle_s: NonZeroU32::new(idle).unwrap() })
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr)
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    select(&[Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve][..])
}

/// A value for a field, more often than not one that fits.
fn value(field: Field) -> BoxedStrategy<Value> {
    let literal = match field {
        Field::IpSrc | Field::IpDst | Field::OuterIpSrc | Field::OuterIpDst => address().prop_map(Value::from).boxed(),
        Field::EthDst | Field::EthSrc | Field::OuterEthDst | Field::OuterEthSrc => mac().prop_map(Value::from).boxed(),
        Field::TunnelKey => (0_u64..1 << 24).prop_map(Value::Number).boxed(),
        Field::Dscp | Field::OuterDscp => (0_u64..64).prop_map(Value::Number).boxed(),
        _ => any::<u16>().prop_map(Value::from).boxed(),
    };
    prop_oneof![4 => literal, 1 => select(&Field::ALL[..]).prop_map(Value::Copy)].boxed()
}

fn values(fields: &'static [Field]) -> impl Strategy<Value = BTreeMap<Field, Value>> {
    prop::collection::btree_set(select(fields), 0..3).prop_flat_map(|fields| {
        let each: Vec<_> = fields.into_iter().map(|field| (Just(field), value(field))).collect();
        each.prop_map(|pairs| pairs.into_iter().collect())
    })
}

fn ecn() -> impl Strategy<Value = Ecn> {
    prop_oneof![
        Just(Ecn::inner()),
        Just(Ecn::outer()),
        Just(Ecn::encapsulate()),
        Just(Ecn::decapsulate()),
        (0..4_u8).prop_map(Ecn::set)
    ]
}

fn ttl() -> impl Strategy<Value = Ttl> {
    let header = select(&[Header::Inner, Header::Outer][..]);
    prop_oneof![any::<u8>().prop_map(Ttl::Literal), (header, any::<u8>()).prop_map(|(h, n)| Ttl::Minus(h, n))]
}

const INNER: &[Field] =
    &[Field::EthDst, Field::EthSrc, Field::IpSrc, Field::IpDst, Field::Dscp, Field::L4Src, Field::L4Dst];
const OUTER: &[Field] = &[
    Field::TunnelKey,
    Field::OuterEthDst,
    Field::OuterEthSrc,
    Field::OuterVlan,
    Field::OuterIpSrc,
    Field::OuterIpDst,
    Field::OuterDscp,
];

fn outer() -> impl Strategy<Value = Outer> {
    let edit = (values(OUTER), prop::option::of(ttl()), ecn());
    let group = (tunnel(), values(OUTER), any::<[u32; 2]>(), ttl(), ecn()).prop_map(|(tunnel, set, ends, ttl, ecn)| {
        let end = |bits: u32| (MacAddr::ZERO, IpAddr::from(Ipv4Addr::from(bits)));
        let mut group = OuterGroup { ttl, ecn, ..OuterGroup::new(tunnel, 7, end(ends[0]), end(ends[1])) };
        let set = set.into_iter().filter(|(field, _)| !matches!(field, Field::OuterIpSrc | Field::OuterIpDst));
        group.fields.extend(set);
        group
    });
    prop_oneof![
        1 => Just(Outer::Ignore),
        1 => Just(Outer::Pop),
        1 => edit.prop_map(|(fields, ttl, ecn)| Outer::Modify(OuterEdit { fields, ttl, ecn })),
        2 => (any::<bool>(), group).prop_map(|(pop, group)| if pop { Outer::Replace(group) } else { Outer::Push(group) }),
    ]
}

fn vlans() -> impl Strategy<Value = Vlans> {
    let tag = (any::<bool>(), value(Field::Vlan)).prop_map(|(service, tci)| {
        let tpid = if service { EtherType::VLAN_SERVICE } else { EtherType::VLAN };
        Tag { tpid, tci }
    });
    let set = [prop::option::of(value(Field::Vlan)), prop::option::of(value(Field::Vlan))];
    (0..3_u8, set, prop::collection::vec(tag, 0..3)).prop_map(|(pops, set, pushes)| Vlans { pops, set, pushes })
}

fn transposition() -> impl Strategy<Value = Transposition> {
    (outer(), values(INNER), prop_oneof![2 => Just(Vlans::default()), 1 => vlans()], prop::option::of(ttl()), ecn())
        .prop_map(|(outer, fields, vlans, ttl, ecn)| {
            let mut transposition = Transposition::default().with_outer(outer).with_vlans(vlans).with_ecn(ecn);
            (transposition.fields, transposition.ttl) = (fields, ttl);
            transposition
        })
}

fn action() -> impl Strategy<Value = Action> {
    let list = |strategy| prop::collection::vec(strategy, 1..3);
    let encap = (tunnel(), any::<Option<u32>>(), address(), list(address().boxed()), prop::option::of(names()));
    let source = prop_oneof![endpoint().prop_map(Source::Fixed), names().prop_map(Source::Ranges)];
    prop_oneof![
        prop::option::of(stateful()).prop_map(|stateful| Action::Allow { stateful }),
        (prop::collection::vec(endpoint(), 1..3), stateful())
            .prop_map(|(backends, stateful)| Action::Balance(Balance { backends, stateful })),
        Just(Action::Block { cause: DropCause::PolicyBlock }),
        Just(Action::Count),
        Just(Action::Decap),
        (0..64_u8).prop_map(Action::Dscp),
        prop::collection::vec(mac(), 1..4).prop_map(Action::Ecmp),
        encap.prop_map(|(tunnel, vni, source, far, map)| {
            let destination = map.map_or(Destination::Among(far), Destination::Mapped);
            Action::Encap(Encap { tunnel, vni: vni.map(|vni| vni >> 8), source, destination })
        }),
        prop::option::of(names()).prop_map(|to| Action::Hairpin { to }),
        (prop::option::of(source), prop::option::of(endpoint()), stateful())
            .prop_map(|(source, destination, stateful)| Action::Nat(Nat { source, destination, stateful })),
        (0..8_u8, any::<u32>()).prop_map(|(register, value)| Action::SetRegister { register, value }),
        transposition().prop_map(|transposition| Action::Transpose { transposition: Arc::new(transposition) }),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    prop::collection::vec(crate::text::tests::condition(), 0..3).prop_map(|mut conditions| {
        conditions.sort_by_key(|condition| condition.subject());
        conditions.dedup_by_key(|condition| condition.subject());
        Conditions::new(conditions).unwrap()
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let direction = select(&[Direction::In, Direction::Out][..]);
    let rule = (any::<u32>(), direction, conditions(), action(), any::<bool>());
    let rule = rule.prop_map(|(priority, direction, conditions, action, terminating)| Rule {
        name: name("r"),
        priority,
        direction,
        conditions,
        action,
        terminating,
    });
    rule.prop_filter("holds together", |rule| rule.check().is_ok())
}

fn group() -> impl Strategy<Value = Arc<Group>> {
    let lpm = select(&[None, Some(Field::IpSrc), Some(Field::OuterIpDst)][..]);
    (any::<u32>(), conditions(), lpm, prop::collection::vec(rule(), 0..5)).prop_map(|(order, when, lpm, mut rules)| {
        for (at, rule) in rules.iter_mut().enumerate() {
            rule.name = Name::new(format!("r{at}")).unwrap();
        }
        Arc::new(Group { name: name("g"), order, when, lpm, rules })
    })
}

fn layer() -> impl Strategy<Value = PortLayer> {
    let default = select(&[Default::Allow, Default::Block][..]);
    (names(), any::<u32>(), default, prop::collection::vec(group(), 0..3)).prop_map(|(port, order, default, groups)| {
        let groups = groups
            .into_iter()
            .enumerate()
            .map(|(at, group)| Arc::new(Group { name: Name::new(format!("g{at}")).unwrap(), ..Group::clone(&group) }));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        PortLayer { port, name: name("l"), order, default, groups }
    })
}

fn content() -> impl Strategy<Value = Content> {
    let known = (address(), prop::option::of(0..1_u32 << 24), prop::option::of(mac()));
    let entry = prop_oneof![
        known.prop_map(|(address, vni, mac)| Entry::Known(Mapping { address, vni, mac })),
        (1..=MAX_UNKNOWN_S).prop_map(|s| Entry::Unknown { seconds: NonZeroU32::new(s).unwrap() }),
    ];
    let range = (any::<u32>(), 1..=u16::MAX, 1..=u16::MAX).prop_map(|(address, a, b)| PortRange {
        address: Ipv4Addr::from(address).into(),
        first: a.min(b),
        last: a.max(b),
    });
    prop_oneof![
        prop::collection::btree_map(address(), entry, 0..5).prop_map(Content::Map),
        prop::collection::vec(range, 1..4).prop_map(|mut ranges| {
            ranges.dedup_by_key(|range| range.address);
            Content::Ranges(ranges)
        }),
    ]
}

fn document() -> impl Strategy<Value = Document> {
    let resource = (names(), content());
    let parts = (names(), prop::collection::vec(layer(), 0..4), prop::collection::vec(resource, 0..3));
    parts.prop_map(|(controller, layers, resources)| {
        let layers = layers.into_iter().enumerate();
        let layers = layers.map(|(at, layer)| PortLayer { name: Name::new(format!("l{at}")).unwrap(), ..layer });
        let resources = resources.into_iter().enumerate().map(|(at, (port, content))| {
            let name = Name::new(format!("r{at}")).unwrap();
            PortResource { port, name, content }
        });
        let mut document = Document { controller, layers: layers.collect(), resources: resources.collect() };
        document.sort();
        document
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_as_the_same(document in document()) {
        let toml = document.to_toml();
        prop_assert_eq!(Document::from_toml(&toml), Ok(document.clone()), "{}", toml);
        let json = serde_json::to_string(&document).unwrap();
        prop_assert_eq!(Document::from_json(json.as_bytes()), Ok(document), "{}", json);
    }

    /// What travels alone is the same as in a document.
    #[test]
    fn parts_are_written_and_read_alone(group in group(), content in content()) {
        let json = serde_json::to_vec(&Part::Group(&group)).unwrap();
        prop_assert_eq!(group_from_json(&group.name, &json), Ok(Group::clone(&group)));
        for rule in &group.rules {
            let json = serde_json::to_vec(&Part::Rule(rule)).unwrap();
            prop_assert_eq!(rule_from_json(&rule.name, &json), Ok(rule.clone()));
        }
        let called = name("x");
        let json = serde_json::to_vec(&Part::Resource(&called, &content)).unwrap();
        prop_assert_eq!(resource_from_json(&called, &json), Ok(content.clone()));
        if let Content::Map(entries) = &content {
            for entry in entries.values() {
                let json = serde_json::to_vec(&Part::Entry(entry)).unwrap();
                prop_assert_eq!(entry_from_json(&json), Ok(*entry));
            }
        }
    }

    /// A resource that goes through the model stands there as it was said.
    #[test]
    fn the_model_holds_what_was_said(content in content(), now_ns in 0..u64::MAX / 2) {
        let held = content.to_model(now_ns, None).unwrap();
        prop_assert_eq!(Content::of(&held, now_ns), content);
    }

    #[test]
    fn no_text_is_too_odd(text in "[a-z\\[\\]={}\"0-9.\n -]{0,200}") {
        let _ = Document::from_toml(&text);
        let _ = Document::from_json(text.as_bytes());
    }
}

#[test]
fn the_form_of_toml_is_that_of_people() {
    let document = Document::from_toml(SAMPLE).unwrap();
    assert_eq!(document.to_toml(), SAMPLE);
}

const SAMPLE: &str = r#"controller = "acl"

[[layer]]
port = "vm0"
name = "acl"
order = 10
default = "block"

[[layer.group]]
name = "infra"
order = 1
when = { src_ip = "10.0.0.0/8" }
lpm = "dst_ip"

[[layer.group.rule]]
name = "web"
priority = 7
dir = "in"
match = { ip_proto = "tcp", dst_port = ["80", "1000-2000"] }
action = { type = "allow", stateful = true, idle_s = 240 }
terminating = true

[[layer.group.rule]]
name = "tag"
priority = 0
dir = "out"
action = { type = "transpose", set = { eth_dst = "52:54:00:00:00:01", dst_port = { copy = "src_port" } }, ttl = "inner-1", vlan = { push = [{ id = 100, priority = 3 }] } }

[[resource]]
port = "vm0"
name = "directory"
type = "map"

[resource.entries]
"10.0.0.5" = { address = "192.0.2.7", vni = 5001, mac = "52:54:00:00:00:07" }
"10.0.0.9" = { unknown_s = 30 }

[[resource]]
port = "vm0"
name = "public"
type = "range"
ranges = [{ address = "203.0.113.1", ports = "1024-2047" }]
"#;

#[test]
fn errors_name_object_key_and_line() {
    for (from, to, expected) in [
        ("controller = \"acl\"", "", r#"line 1: "controller" is missing"#),
        ("port = \"vm0\"\nname = \"acl\"", "name = \"acl\"", r#"line 3: layer acl: "port" is missing"#),
        ("order = 10", "order = -1", "line 6: layer acl: order: -1 is not between 0 and 4294967295"),
        ("\"block\"", "\"drop\"", r#"line 7: layer acl: default: "drop" is not "allow" or "block""#),
        (
            "name = \"infra\"",
            "name = \"a b\"",
            r#"line 10: layer acl / group a b: name: it is no name: "a b" has ' ' at position 2; names have letters, digits, '.', '_' and '-'"#,
        ),
        (
            "order = 1\n",
            "ordr = 1\n",
            r#"line 11: layer acl / group infra: unknown key "ordr"; known keys: "name", "order", "when", "lpm", "rule""#,
        ),
        (
            "\"10.0.0.0/8\"",
            "\"10.0.0.1/8\"",
            "line 12: layer acl / group infra: when.src_ip: 0xa000001/8 has bits set beyond its length",
        ),
        (
            "lpm = \"dst_ip\"",
            "lpm = \"dst_port\"",
            r#"line 13: layer acl / group infra: lpm: "dst_port" is not an address to be matched: src_ip, dst_ip, outer_src_ip or outer_dst_ip"#,
        ),
        ("name = \"web\"\n", "", r#"line 15: layer acl / group infra / rule #1: "name" is missing"#),
        (
            "\"80\"",
            "\"http\"",
            r#"line 19: layer acl / group infra / rule web: match.dst_port: "http" is not a number or a range of numbers"#,
        ),
        (
            "\"80\"",
            "true",
            "line 19: layer acl / group infra / rule web: match.dst_port: it is true or false, not a string, a number or a list of them",
        ),
        (
            "dst_port = [",
            "dst_prt = [",
            r#"line 19: layer acl / group infra / rule web: match.dst_prt: there is no field "dst_prt" to match"#,
        ),
        (
            "\"allow\", stateful",
            "\"alow\", stateful",
            r#"line 20: layer acl / group infra / rule web: action.type: "alow" is not "allow", "balance", "block", "count", "decap", "dscp", "ecmp", "encap", "hairpin", "nat", "set" or "transpose""#,
        ),
        (
            "stateful = true, ",
            "",
            r"line 20: layer acl / group infra / rule web: action.idle_s: it is for stateful = true only",
        ),
        ("name = \"tag\"", "name = \"web\"", "line 23: layer acl / group infra / rule web: it is there twice"),
        ("type = \"map\"", "type = \"range\"", r#"line 34: resource directory: entries: it is for type = "map" only"#),
        (
            "vni = 5001",
            "vni = 16777216",
            "line 35: resource directory: entries.10.0.0.5.vni: 16777216 is not between 0 and 16777215",
        ),
        ("\"10.0.0.9\"", "\"10.0.0\"", r#"line 36: resource directory: entries.10.0.0: "10.0.0" is not an IP address"#),
        (
            "\"1024-2047\"",
            "\"2047-1024\"",
            "line 42: resource public: ranges: ports 2047 to 1024 of 203.0.113.1 are no range",
        ),
        ("dir = \"in\"", "dir = \"in", "line 18: not valid TOML: invalid basic string, expected `\"`"),
    ] {
        let text = SAMPLE.replacen(from, to, 1);
        let error = Document::from_toml(&text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{from}");
    }
}

#[test]
fn actions_say_what_they_lack() {
    for (action, expected) in [
        (r#"{"type":"nat"}"#, "nat translates neither source nor destination"),
        (
            r#"{"type":"nat","source":"1.2.3.4","source_ranges":"x"}"#,
            r#"one of "source" or "source_ranges" must be there, and no more than one"#,
        ),
        (r#"{"type":"balance","backends":[]}"#, "0 to choose from; 1 to 256 are possible"),
        (
            r#"{"type":"encap","tunnel":"vxlan","source":"10.0.0.1","destination":"fd00::1","vni":1}"#,
            "fd00::1 and 10.0.0.1 are not of one IP version",
        ),
        (r#"{"type":"dscp","value":64}"#, "64 is not between 0 and 63"),
        (
            r#"{"type":"set","meta1":1,"meta2":2}"#,
            r#"one of "meta0", "meta1", "meta2", "meta3", "meta4", "meta5", "meta6" or "meta7" must be there, and no more than one"#,
        ),
        (r#"{"type":"block","cause":"runt"}"#, r#""runt" is not "policy_block""#),
        (
            r#"{"type":"transpose","set":{"src_ip":"10.0.0.1","dst_ip":"fd00::1"}}"#,
            "the packet is not IP, or of another version than the address",
        ),
        (r#"{"type":"ecmp","routers":["52:54"]}"#, r#""52:54" is not a MAC address"#),
    ] {
        let rule = format!(r#"{{"dir":"out","action":{action}}}"#);
        let error = rule_from_json(&name("r"), rule.as_bytes()).unwrap_err();
        assert_eq!((&*error.object, error.problem.to_string()), ("rule r", expected.to_owned()), "{action}");
        assert!(error.field.starts_with("action"), "{error:?}");
    }
    let twice = rule_from_json(&name("r"), br#"{"dir":"in","dir":"out"}"#).unwrap_err();
    assert!(twice.to_string().contains("key \"dir\" is there twice"), "{twice}");
    let other = rule_from_json(&name("r"), br#"{"name":"s","dir":"in","action":{"type":"count"}}"#).unwrap_err();
    assert_eq!(other.to_string(), r#"rule r: name: it is "s" here and "r" in the path"#);
}

#[test]
fn transactions_are_lists_of_steps() {
    let text = br#"{
        "preconditions": [{"group": {"layer": "acl", "group": "web", "version": null}}, {"policy": {"version": 3}},
                          {"resource": {"resource": "d", "version": 2}}],
        "edits": [
            {"put_layer": {"name": "acl", "order": 10, "default": "block"}},
            {"put_group": {"layer": "acl", "group": {"name": "web"}}},
            {"remove_group": {"layer": "acl", "group": "old"}},
            {"remove_layer": {"name": "gone"}},
            {"put_resource": {"name": "d", "type": "map"}},
            {"put_entry": {"resource": "d", "address": "10.0.0.1", "entry": {"unknown_s": 2}}},
            {"remove_entry": {"resource": "d", "address": "10.0.0.2"}},
            {"remove_resource": {"name": "e"}}
        ]}"#;
    let steps = Steps::from_json(text).unwrap();
    assert_eq!(steps.preconditions.len(), 3);
    let edits = steps.edits(&name("acl"), 1_000_000_000).unwrap();
    let shown: Vec<_> = edits.iter().map(|edit| format!("{edit:?}").split(' ').next().unwrap().to_owned()).collect();
    let expected = [
        "PutLayer",
        "PutGroup",
        "RemoveGroup",
        "RemoveLayer",
        "PutResource",
        "PutMapping",
        "PutMapping",
        "RemoveResource",
    ];
    assert_eq!(shown, expected);
    assert!(format!("{:?}", edits[5]).contains("until_ns: 3000000000"));
    for (text, expected) in [
        (r#"{"edits":[{"put_layer":{"name":"a","order":1}}]}"#, r#"edits.put_layer: "default" is missing"#),
        (
            r#"{"edits":[{"put_group":{"layer":"a","group":{"name":"g","x":1}}}]}"#,
            r#"layer a / group g: unknown key "x"; known keys: "name", "order", "when", "lpm", "rule""#,
        ),
        (r#"{"edit":[]}"#, r#"unknown key "edit"; known keys: "preconditions", "edits""#),
    ] {
        assert_eq!(Steps::from_json(text.as_bytes()).unwrap_err().to_string(), expected);
    }
}

/// A negative answer that is said again lives on as it was; one that had expired begins anew.
#[test]
fn saying_the_same_again_changes_nothing() {
    let content = resource_from_json(&name("d"), br#"{"type":"map","entries":{"10.0.0.9":{"unknown_s":30}}}"#).unwrap();
    let first = content.to_model(0, None).unwrap();
    assert_eq!(content.to_model(29_000_000_000, Some(&first)).unwrap(), first);
    assert_ne!(content.to_model(30_000_000_000, Some(&first)).unwrap(), first);
}
